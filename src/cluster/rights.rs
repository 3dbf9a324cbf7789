//! Who may do what: users by the names in certificates.
//!
//! Members act as `root`, which every change of members needs, and operators as `operator` with the same role. A client node
//! has a user and a role of its own name, and reads and writes below that: `d/…`.

use serde::Serialize;

use super::access::Access;
use super::view::View;
use crate::base::failure::{Doing, Failure};
use crate::etcd::{Client, Code, Error};

/// The user of members' own certificates, and the role that may do everything.
const ROOT: &str = "root";
/// The user of whoever asks from outside.
pub const OPERATOR: &str = "operator";

/// What is so now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Granted {
    /// Client nodes, each with its part of the keys.
    pub clients: Vec<String>,
    /// Whether rights were asked for before.
    pub was_on: bool,
}

/// Where the keys of the client node `name` begin.
pub fn below(name: &str) -> String {
    format!("{name}/")
}

/// Makes users and roles of members, operators and `clients`, and has etcd ask for them. What is there already stays.
///
/// # Errors
/// Names that are taken, and what etcd says.
pub fn grant(access: &Access, clients: &[String]) -> Result<Granted, Failure> {
    let doing = || format!("giving rights in {}", access.list.name);
    let taken =
        |name: &&String| [ROOT, OPERATOR].contains(&name.as_str()) || access.list.members.contains_key(*name);
    if let Some(name) = clients.iter().find(taken) {
        return Err(Failure::new(
            doing(),
            format!("{name} is a member's or an operator's name, and no client's"),
        ));
    }
    let view = View::of(access);
    let endpoint = view.working().ok_or("no member works: see `keller cluster status`").doing(doing())?;
    let mut client = access.connect(endpoint).doing(doing())?;
    make(&mut client, clients).doing(doing())
}

fn make(client: &mut Client, clients: &[String]) -> Result<Granted, Error> {
    let was_on = client.asks_for_rights()?;
    for user in [ROOT, OPERATOR] {
        there(client.add_user(user))?;
        client.grant_role(user, ROOT)?;
    }
    for name in clients {
        there(client.add_user(name))?;
        there(client.add_role(name))?;
        client.grant_below(name, below(name).as_bytes())?;
        client.grant_role(name, name)?;
    }
    // Last: whoever asks must be somebody from here on.
    if !was_on {
        client.ask_for_rights()?;
    }
    Ok(Granted { clients: clients.to_vec(), was_on })
}

/// It is made, or was there.
fn there(made: Result<(), Error>) -> Result<(), Error> {
    match made {
        Err(Error::Refused { code: Code::FailedPrecondition, message, .. })
            if message.ends_with("already exists") =>
        {
            Ok(())
        }
        made => made,
    }
}
