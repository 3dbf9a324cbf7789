//! New certificates for members that ask for them: requests are judged, and what is signed takes their place in one
//! transaction.

use serde::Serialize;

use super::access::{Access, List};
use super::requests::{MOST, REQUESTS, answer_of, names, request_of};
use super::view::{Role, View};
use crate::base::Chain;
use crate::base::failure::{Doing, Failure};
use crate::base::terminal::said;
use crate::etcd::{Change, Client, Error};
use crate::pki::Authority;
use crate::pki::etcd::Member;
use crate::pki::renewal::Request;

/// Characters of a name that somebody else wrote, which are shown.
const MOST_SHOWN: usize = 64;

/// Whoever signs.
#[derive(Debug)]
pub struct Signer<'a> {
    /// Members, by whose names and addresses certificates are made.
    pub list: &'a List,
    /// Of servers and clients.
    pub clients: &'a Authority,
    /// Of peers. A member vouches for its request with a certificate that this one signed, or one that is believed beside it.
    pub peers: &'a Authority,
    /// Seconds since 1970.
    pub now: i64,
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Treated {
    /// Who asks.
    pub member: String,
    /// Since when, by its own clock: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// When the certificate ends that vouches for it: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<i64>,
    /// When the new ones end: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Why it is not signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Signs the requests that stand in the cluster, or those of `only`; `dry` judges them alone.
///
/// # Errors
/// What etcd says. A request that is refused is no error.
pub fn sign(
    access: &Access,
    signer: &Signer<'_>,
    only: &[String],
    dry: bool,
) -> Result<Vec<Treated>, Failure> {
    let doing = || format!("signing requests in {}", access.list.name);
    let view = View::of(access);
    let endpoint = view.working().ok_or("no member works: see `keller cluster status`").doing(doing())?;
    let mut client = access.connect(endpoint).doing(doing())?;
    let (mut names, is_more) = names(&mut client).doing(doing())?;
    if is_more {
        // Members are not to wait because of others.
        names.retain(|name| !signer.list.members.contains_key(name));
        names.extend(signer.list.members.keys().cloned());
    }
    let mut all = Vec::new();
    for name in names.iter().filter(|name| only.is_empty() || only.contains(name)) {
        let treated = match is_member(&view, signer.list, name) {
            Ok(member) => one(&mut client, signer, &member, dry).doing(doing())?,
            Err(refused) => {
                Some(Treated { member: shown(name), refused: Some(refused), ..Treated::default() })
            }
        };
        all.extend(treated);
    }
    let asks = |name: &&String| all.iter().any(|treated| treated.member == **name);
    let missing: Vec<_> = only.iter().filter(|name| !asks(name)).cloned().collect();
    all.extend(missing.into_iter().map(|member| {
        let refused = Some("it asks for no certificates".to_owned());
        Treated { member, refused, ..Treated::default() }
    }));
    if is_more && only.is_empty() {
        all.push(Treated {
            member: "others".to_owned(),
            refused: Some(format!(
                "more than {MOST} requests stand below {REQUESTS}, and members write one each: see who writes there, and \
                 delete them with `etcdctl del`"
            )),
            ..Treated::default()
        });
    }
    Ok(all)
}

/// The member that may ask under `name`, by the list and by the cluster itself; or why nobody may.
fn is_member(view: &View, list: &List, name: &str) -> Result<Member, String> {
    let del = format!("`etcdctl del {}`", shown(&request_of(name)));
    let Some(ip) = list.members.get(name) else {
        return Err(format!(
            "it is no member by the list in the cluster's directory; {del} removes its request"
        ));
    };
    match view.member(name) {
        Some(seen) if !matches!(seen.role, Role::Outside | Role::Unknown) => {
            Ok(Member::of_cluster(name, *ip))
        }
        _ => Err(format!("the cluster does not have it in its list of members; {del} removes its request")),
    }
}

/// What somebody else wrote, fit for a terminal.
fn shown(text: &str) -> String {
    said(text, MOST_SHOWN)
}

/// Judges and signs the request of `member`; nothing where it has none.
fn one(
    client: &mut Client,
    signer: &Signer<'_>,
    member: &Member,
    dry: bool,
) -> Result<Option<Treated>, Error> {
    let key = request_of(&member.name);
    let Some(there) = client.get(&key)? else { return Ok(None) };
    let mut treated = Treated { member: member.name.clone(), ..Treated::default() };
    let signed = Request::read(&there.value, member).and_then(|request| {
        treated.since = Some(request.since());
        treated.ends = Some(request.ends()?);
        request.sign(member, signer.clients, signer.peers, signer.now)
    });
    match signed {
        Err(refusal) => treated.refused = Some(Chain(&refusal).to_string()),
        Ok(answer) => {
            treated.until = Some(answer.ends);
            let changes = vec![
                Change::Put { key: answer_of(&member.name), value: answer.text.into() },
                Change::Delete { key: key.clone() },
            ];
            if !dry && !client.change(Some((&key, there.changed_at)), changes)? {
                treated.until = None;
                treated.refused = Some("its request has changed meanwhile: sign once more".to_owned());
            }
        }
    }
    Ok(Some(treated))
}
