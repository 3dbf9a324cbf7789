//! What a member does for its cluster as long as it is up. It gives learners their vote once they have caught up: the
//! leader's agent does so, since one is enough. And it asks for new certificates of its own before they end.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::renew::{self, Pairs};
use super::{accounts, clock, member};
use crate::agent::settings::Settings;
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

/// What was said last, so that it is said once.
#[derive(Default)]
struct Told(String);

impl Told {
    fn say(&mut self, line: String, progress: &dyn Progress) {
        if line != self.0 {
            if !line.is_empty() {
                progress.note(&line);
            }
            self.0 = line;
        }
    }
}

/// Promotes learners, and keeps this member's certificates good, for as long as this node is up.
pub fn run(progress: &dyn Progress) -> Result<(), Failure> {
    let (mut of_learners, mut of_certificates) = (Told::default(), Told::default());
    let mut last: Option<Instant> = None;
    loop {
        let asked = access().and_then(|access| {
            let endpoint = etcd::CLIENT_ADDRESS.parse().expect("an address and a port");
            access.connect(endpoint).doing("asking this member")
        });
        let looked = asked.and_then(|mut client| {
            let looked = look(&mut client).doing("looking for learners")?;
            Ok((looked, client))
        });
        let pause = match looked {
            Ok((looked, mut client)) => {
                if last.is_none_or(|last| last.elapsed() >= renew::PAUSE) {
                    match renew(&mut client, last.is_none()) {
                        Ok(renew::Looked::Learner) => {}
                        Ok(looked) => {
                            of_certificates.say(looked.line(), progress);
                            last = Some(Instant::now());
                        }
                        Err(failure) => of_certificates.say(Chain(&failure).to_string(), progress),
                    }
                }
                let (line, pause) = match looked {
                    Looked::Nothing => (String::new(), PAUSE),
                    Looked::NotYet(name, why) => (format!("{name} has no vote yet: {why}"), SHORT_PAUSE),
                    Looked::Promoted(name) => {
                        (format!("{name} has caught up, and has a vote now"), SHORT_PAUSE)
                    }
                };
                of_learners.say(line, progress);
                pause
            }
            // As while etcd waits for others, or starts.
            Err(failure) => {
                of_learners.say(Chain(&failure).to_string(), progress);
                PAUSE
            }
        };
        thread::sleep(pause);
    }
}

/// One look at this node's own certificates.
fn renew(client: &mut Client, is_first: bool) -> Result<renew::Looked, Failure> {
    let cluster = member::cluster()?;
    let Some(cluster) = cluster else { return Ok(renew::Looked::Nothing) };
    let pairs = Pairs {
        directory: etcd::DIRECTORY.into(),
        member: etcd::Member::of_cluster(&cluster.me, cluster.address()),
        etcd: accounts::find(Path::new("/"), etcd::USER)?,
    };
    // As where they are made: a clock that shows less than the image's age is not set yet.
    let now = clock::shown().max(Settings::image()?.epoch);
    pairs.look(client, now, is_first)
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
