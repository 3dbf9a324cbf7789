//! `tough`'s asynchronous transport over a [`Remote`].
//!
//! `tough` wants a transport of its own for ever; a remote is lent. So `tough` runs on a thread of its own
//! and asks for files, and the thread that has the remote answers until nobody can ask any more.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Sender};
use std::thread;

use futures_util::stream;
use tough::schema::RoleType;
use tough::{Bytes, Transport, TransportError, TransportErrorKind, TransportStream, async_trait};
use url::Url;

use super::{RepositoryError, fetch};
use crate::base::width::to_u64;
use crate::base::{Size, json, limits};
use crate::repository::metadata;
use crate::update::remote::Remote;

/// Timestamp, snapshot and list of releases: the files that are read besides roots.
const OTHERS: usize = 3;

/// Asks for files.
#[derive(Clone, Debug)]
pub(super) struct Asking(Sender<Question>);

#[derive(Debug)]
struct Question {
    path: String,
    answer: Sender<Result<Vec<u8>, TransportErrorKind>>,
}

/// What was asked for, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The last file.
    pub last: String,
    /// Why the last file could not be had, if it could not.
    pub failure: Option<RepositoryError>,
    /// Files besides roots.
    others: usize,
    /// Roots by version, as they came: not verified.
    pub roots: BTreeMap<u64, Vec<u8>>,
}

impl Seen {
    /// The file at `path`, if it is of a kind that is read, and what reading it as JSON costs is bounded.
    fn fetch(&self, remote: &dyn Remote, path: &str, limit: u64) -> Result<Vec<u8>, RepositoryError> {
        let malformed = |problem: String| RepositoryError::Malformed { path: path.to_owned(), problem };
        // A list that delegates to itself by its own name would be read for ever.
        if !is_own(path) || self.others > OTHERS {
            let problem = "it is the list of somebody to whom the repository delegates, and nodes read none";
            return Err(malformed(problem.to_owned()));
        }
        let bytes = fetch(remote, path, limit)?;
        let roots = self.roots.values().map(|root| to_u64(root.len())).sum::<u64>() + to_u64(bytes.len());
        if root_number(path).is_some() && roots > limits::ROOTS {
            let most = Size(limits::ROOTS).human();
            return Err(malformed(format!("all roots up to it have more than {most} together")));
        }
        // What is no JSON at all is told by whoever knows what it should have been.
        match json::judge(&bytes, limits::JSON_VALUES) {
            Err(error) if error.is_data() => Err(malformed(error.to_string())),
            _ => Ok(bytes),
        }
    }
}

/// Whether a publisher of this program makes a file of this name: tough would read what others may sign, too.
fn is_own(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let numbered = [RoleType::Root, RoleType::Snapshot, RoleType::Targets];
    name == metadata::TIMESTAMP || numbered.into_iter().any(|role| metadata::number_of(name, role).is_some())
}

/// The version of the root at `path`, if it is one.
fn root_number(path: &str) -> Option<u64> {
    metadata::number_of(path.rsplit('/').next().unwrap_or_default(), RoleType::Root)
}

impl Asking {
    /// The address that stands for the repository's root. The top-level domain is one that nobody has (RFC 2606).
    pub(super) fn base(&self) -> Url {
        Url::parse("https://repository.invalid/").expect("an address")
    }
}

#[async_trait]
impl Transport for Asking {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let path = url.path().trim_start_matches('/').to_owned();
        let (answer, answers) = mpsc::channel();
        // Nothing else runs on this thread, so it may as well wait.
        let asked = self.0.send(Question { path, answer });
        let result = match asked.ok().and_then(|()| answers.recv().ok()) {
            Some(result) => result.map(Bytes::from),
            None => Err(TransportErrorKind::Other),
        };
        // An error at the beginning of the stream rather than in its place: `tough` takes a root that it cannot
        // ask for as the end of the chain, and that would be wrong of a server that has failed.
        let result = result.map_err(|kind| TransportError::new(kind, url.as_str()));
        Ok(Box::pin(stream::iter([result])))
    }
}

/// Runs `work` on a thread and answers what it asks for out of `remote`, `limit` bytes of each path at the most.
pub(super) fn serve<T: Send>(
    remote: &dyn Remote,
    limit: impl Fn(&str) -> u64,
    work: impl FnOnce(Asking) -> T + Send,
) -> Result<(T, Seen), RepositoryError> {
    let (sender, questions) = mpsc::channel::<Question>();
    let mut seen = Seen::default();
    let done = thread::scope(|scope| {
        let worker = scope.spawn(move || work(Asking(sender)));
        for Question { path, answer } in questions {
            seen.others += usize::from(root_number(&path).is_none());
            let result = seen.fetch(remote, &path, limit(&path));
            seen.last.clone_from(&path);
            let result = match result {
                Ok(bytes) => {
                    seen.failure = None;
                    if let Some(version) = root_number(&path) {
                        seen.roots.insert(version, bytes.clone());
                    }
                    Ok(bytes)
                }
                Err(error) => {
                    let kind = match &error {
                        RepositoryError::NotFound { .. } => TransportErrorKind::FileNotFound,
                        _ => TransportErrorKind::Other,
                    };
                    seen.failure = Some(error);
                    Err(kind)
                }
            };
            // Whoever asked may have given up.
            let _ = answer.send(result);
        }
        worker.join().expect("verifying does not panic")
    });
    Ok((done, seen))
}
