//! A member's certificates before they end: the node asks for new ones through the cluster's own keys, and takes them once
//! somebody who has the authorities has signed (`keller cluster sign`). etcd reads its pairs for each connection, and goes
//! on.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::Chain;
use crate::base::failure::{Doing, Failure};
use crate::cluster::requests;
use crate::etcd::Client;
use crate::pki::Owner;
use crate::pki::etcd::Member;
use crate::pki::renewal::{Need, Renewal};

/// Between two looks: an operator who has just signed waits for no more than this.
pub(super) const PAUSE: Duration = Duration::from_secs(30);

/// The pairs that are kept good.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// Where they lie.
    pub directory: PathBuf,
    /// Whose they are.
    pub member: Member,
    /// Who etcd runs as.
    pub etcd: Owner,
}

/// What a look at the pairs brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// They are good.
    Nothing,
    /// This member is still a learner, which can read no key.
    Learner,
    /// A request stands in the cluster.
    Asks {
        /// When the first of them ends: seconds since 1970.
        ends: i64,
        /// Why what was signed was not taken, where something was.
        refused: Option<String>,
    },
    /// New ones are in place.
    Took {
        /// When the first of them ends: seconds since 1970.
        ends: i64,
    },
}

impl Pairs {
    /// One look at `now`, in seconds since 1970, by the member that `client` asks. `is_first` deletes what an earlier life of
    /// this node has left in the cluster.
    ///
    /// # Errors
    /// What the disk and etcd say. The next look goes on from wherever this one ended.
    pub fn look(&self, client: &mut Client, now: i64, is_first: bool) -> Result<Looked, Failure> {
        let name = &self.member.name;
        let doing = || format!("asking for the certificates of {name}");
        if client.status().doing(doing())?.status.is_learner {
            return Ok(Looked::Learner);
        }
        // Not locked while somebody is asked: a start of etcd may wait for the lock.
        let need = self.open()?.need(now)?;
        let (request, ends) = match need {
            Need::Nothing { is_pending } => {
                if is_pending || is_first {
                    self.settle(client)?;
                }
                return Ok(Looked::Nothing);
            }
            Need::Ask { request, ends } => (request, ends),
        };
        let mut refused = None;
        if let Some(answer) = requests::answer(client, name).doing(doing())? {
            // Named, so that the lock is free again before the next one is taken.
            let taken = self.open()?.take(&answer)?;
            match taken {
                Ok(ends) => {
                    self.settle(client)?;
                    return Ok(Looked::Took { ends });
                }
                Err(refusal) => refused = Some(Chain(&refusal).to_string()),
            }
        }
        requests::ask(client, name, &request).doing(doing())?;
        Ok(Looked::Asks { ends, refused })
    }

    /// What stands in the cluster goes first: as long as keys lie here, the next look knows of it.
    fn settle(&self, client: &mut Client) -> Result<(), Failure> {
        let name = &self.member.name;
        requests::clear(client, name).doing(format!("deleting the request of {name}"))?;
        self.open()?.settle()
    }

    fn open(&self) -> Result<Renewal, Failure> {
        Renewal::open(&self.directory, self.member.clone(), self.etcd)
    }
}

impl Looked {
    /// In words, for the journal.
    pub(super) fn line(&self) -> String {
        let date =
            |at: i64| jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string());
        match self {
            Self::Nothing | Self::Learner => String::new(),
            Self::Asks { ends, refused: None } => format!(
                "a certificate of this member ends at {}: new ones are asked for, and `keller cluster sign DIR` signs them, \
                 where the cluster's directory lies",
                date(*ends)
            ),
            Self::Asks { refused: Some(refused), .. } => {
                format!("the certificates that were signed are not taken, and are asked for anew: {refused}")
            }
            Self::Took { ends } => {
                format!("this member has new certificates, the first of which ends at {}", date(*ends))
            }
        }
    }
}
