//! Gives learners their vote once they have caught up. The leader's agent does it, since one is enough.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::member;
use crate::base::Chain;
use crate::base::failure::{Doing, Failure};
use crate::base::progress::Progress;
use crate::cluster::Access;
use crate::etcd::{Client, Code, Error};
use crate::pki::etcd;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(10);
/// Between two looks while somebody waits for its vote.
const SHORT_PAUSE: Duration = Duration::from_secs(2);

/// What a look at the learners brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// There is none, or it is another member's to promote it.
    Nothing,
    /// This one is not ready, in etcd's words.
    NotYet(String, String),
    /// This one has its vote.
    Promoted(String),
}

/// How this node reaches its cluster, as root of it.
pub fn access() -> Result<Access, Failure> {
    Access::of_node(member::cluster()?, Path::new(etcd::DIRECTORY))
}

/// Promotes learners for as long as this node is up.
pub fn run(progress: &dyn Progress) -> Result<(), Failure> {
    let mut told = String::new();
    loop {
        let looked = access().and_then(|access| {
            let endpoint = etcd::CLIENT_ADDRESS.parse().expect("an address and a port");
            let mut client = access.connect(endpoint).doing("asking this member")?;
            look(&mut client).doing("looking for learners")
        });
        let (line, pause) = match looked {
            Ok(Looked::Nothing) => (String::new(), PAUSE),
            Ok(Looked::NotYet(name, why)) => (format!("{name} has no vote yet: {why}"), SHORT_PAUSE),
            Ok(Looked::Promoted(name)) => (format!("{name} has caught up, and has a vote now"), SHORT_PAUSE),
            // As while etcd waits for others, or starts.
            Err(failure) => (Chain(&failure).to_string(), PAUSE),
        };
        if line != told {
            if !line.is_empty() {
                progress.note(&line);
            }
            told = line;
        }
        thread::sleep(pause);
    }
}

/// One look, by the member that `client` asks.
pub fn look(client: &mut Client) -> Result<Looked, Error> {
    let status = client.status()?.status;
    let own = status.header.map(|header| header.member_id);
    if status.is_learner || own != Some(status.leader) {
        return Ok(Looked::Nothing);
    }
    // One that was never started has nothing to catch up with.
    let learner = client.members()?.into_iter().find(|member| member.is_learner && !member.name.is_empty());
    let Some(learner) = learner else { return Ok(Looked::Nothing) };
    match client.promote(learner.id) {
        Ok(()) => Ok(Looked::Promoted(learner.name)),
        Err(Error::Refused { code: Code::FailedPrecondition, message, .. }) => {
            Ok(Looked::NotYet(learner.name, message))
        }
        Err(error) => Err(error),
    }
}
