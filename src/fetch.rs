//! Lock to store: what is not there yet is downloaded, many at once, and verified.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::base::{Chain, Digest, Progress, Size, Task, Unit};
use crate::http::url::{Url, UrlError};
use crate::http::{Client, HttpError};
use crate::lock::{Facts, Lock, Resolved};
use crate::store::{Store, StoreError};

/// Downloads at once when nobody says otherwise: enough to hide the latency of small packages, and few
/// enough that no mirror objects.
pub const PARALLEL: usize = 8;

/// How many failures or missing files a message lists.
const SHOWN: usize = 10;

/// Where files come from. Without it a build is offline.
#[derive(Clone, Copy)]
pub struct Upstream<'a> {
    /// How to fetch.
    pub client: &'a Client,
    /// Roots of archives by their names in the lock; one archive's roots are tried in order.
    pub archives: &'a BTreeMap<String, Vec<Url>>,
    /// Downloads at once, see [`PARALLEL`].
    pub parallel: usize,
}

/// What was resolved, when all of it is in the store; and what that took.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// What was resolved.
    pub resolved: Resolved,
    /// Files that were in the store already.
    pub present: usize,
    /// Files that were downloaded.
    pub files: usize,
    /// The sum of their sizes.
    pub bytes: u64,
}

/// Why the store does not have all that a lock names.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing may be downloaded.
    #[error("offline, and {} of the lock's files ({}) are not in the store:{}\nthe same once without --offline fetches them",
        .missing.len(), Size(*.bytes).human(), list(.missing, SHOWN))]
    Offline {
        /// All of them, ordered by name.
        missing: Vec<String>,
        /// The sum of their sizes.
        bytes: u64,
    },
    /// The store has no room for all of them.
    #[error("fetching {files} files")]
    Room {
        /// How many are not in the store.
        files: usize,
        /// How much they have, and how much is free.
        #[source]
        source: StoreError,
    },
    /// Some could not be had.
    #[error("{} of {} files could not be fetched:{}{}",
        .failures.len() + .untried, .wanted, list(.failures, SHOWN), rest(*.untried))]
    Failed {
        /// What went wrong, ordered by name.
        failures: Vec<Failure>,
        /// Files that were not even tried, since the mirror or the disk is out of order.
        untried: usize,
        /// Files that were not in the store.
        wanted: usize,
    },
}

/// One file that could not be had.
#[derive(Debug)]
pub struct Failure {
    /// What it is, e.g. `podman 5.4.2+ds1-2`.
    pub name: String,
    /// Why not.
    pub reason: Reason,
}

/// Why one file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// Mirrors keep only the newest version.
    #[error(
        "{path} is no longer on {}{}; lock a newer version with `keller lock --update {package}`, \
         or name a snapshot mirror that still has this one by --mirror",
        join(.roots), if *.forbidden { FORBIDDEN } else { "" }
    )]
    Superseded {
        /// Name of the package.
        package: String,
        /// Relative to the archive's root.
        path: String,
        /// Where it was looked for.
        roots: Vec<Url>,
        /// Whether a server says 403 in place of 404.
        forbidden: bool,
    },
    /// Each mirror failed in its own way.
    #[error("{path} can be had from none of {} mirrors:{}", .failures.len(), tried(.failures))]
    NoMirror {
        /// Relative to the archive's root.
        path: String,
        /// What became of each, in the order in which they were asked.
        failures: Vec<String>,
        /// Whether no mirror answered at all.
        unreachable: bool,
    },
    /// Nobody said where this archive is.
    #[error("no address is known for the archive {archive:?} that has {path}: name a mirror by --mirror")]
    UnknownArchive {
        /// Its name in the lock.
        archive: String,
        /// Relative to the archive's root.
        path: String,
    },
    /// The lock has a path that leads out of the archive.
    #[error(transparent)]
    Path(#[from] UrlError),
    /// The download failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, Chain(&self.reason))
    }
}

/// One line each, further in than the file that they are of.
fn tried(failures: &[String]) -> String {
    failures.iter().map(|failure| format!("\n    {failure}")).collect()
}

fn join(urls: &[Url]) -> String {
    urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// One line each, the first `limit` of them.
fn list<T: fmt::Display>(items: &[T], limit: usize) -> String {
    let mut text: String = items.iter().take(limit).map(|item| format!("\n  {item}")).collect();
    if items.len() > limit {
        text.push_str(&format!("\n  and {} more", items.len() - limit));
    }
    text
}

fn rest(count: usize) -> String {
    if count > 0 { format!("\n  {count} others were not tried") } else { String::new() }
}

/// What a 403 may also mean.
const FORBIDDEN: &str = ", or wants credentials of apt's auth.conf or ~/.netrc (the server says 403)";

/// A file that the lock names.
struct Wanted<'a> {
    name: String,
    digest: Digest,
    size: u64,
    place: Place<'a>,
}

/// Where to look for it.
enum Place<'a> {
    Package { package: &'a str, archive: &'a str, path: &'a str },
    Address(&'a Url),
}

impl Fetched {
    /// The lock of which `facts` are what was found in the store and beside the manifest.
    pub fn lock(self, facts: Facts) -> Lock {
        self.resolved.lock(facts)
    }
}

/// Whether `store` has everything that [`fetch`] would bring.
pub fn is_there(resolved: &Resolved, urls: &BTreeMap<String, Url>, store: &Store) -> bool {
    wanted(resolved, urls).iter().all(|file| store.claim(&file.digest))
}

/// Brings everything that `resolved` names into `store`: the packages, and of its files those that `urls` has an
/// address for, by the same name. Without `upstream`, only looks whether all is there.
///
/// # Errors
/// All files that are missing or could not be fetched, not only the first.
pub fn fetch(
    resolved: Resolved,
    urls: &BTreeMap<String, Url>,
    store: &Store,
    upstream: Option<Upstream<'_>>,
    progress: &dyn Progress,
) -> Result<Fetched, FetchError> {
    let all = wanted(&resolved, urls);
    let count = all.len();
    let mut missing: Vec<Wanted<'_>> = all.into_iter().filter(|file| !store.claim(&file.digest)).collect();
    let present = count - missing.len();
    if missing.is_empty() {
        return Ok(Fetched { resolved, present, files: 0, bytes: 0 });
    }
    let bytes = missing.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
    let Some(upstream) = upstream else {
        let mut missing: Vec<_> = missing.into_iter().map(|file| file.name).collect();
        missing.sort();
        return Err(FetchError::Offline { missing, bytes });
    };
    store.check_room(bytes).map_err(|source| FetchError::Room { files: missing.len(), source })?;
    // The largest first, so that none of them is left to run alone at the end.
    missing.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    let task = Task::new(progress, "downloading", bytes, Unit::Bytes);
    let next = AtomicUsize::new(0);
    let hopeless = AtomicBool::new(false);
    let down = Unreachable::default();
    let failures = Mutex::new(Vec::new());
    let work = || {
        while !hopeless.load(Ordering::Relaxed) {
            let Some(file) = missing.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            task.at(&file.name);
            if let Err(reason) = get(file, store, upstream, &down, &task) {
                if is_hopeless(&reason) {
                    hopeless.store(true, Ordering::Relaxed);
                }
                let failure = Failure { name: file.name.clone(), reason };
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..upstream.parallel.clamp(1, missing.len()) {
            scope.spawn(work);
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let untried = missing.len().saturating_sub(next.into_inner());
    if failures.is_empty() {
        let files = missing.len();
        return Ok(Fetched { resolved, present, files, bytes });
    }
    failures.sort_by(|a, b| a.name.cmp(&b.name));
    Err(FetchError::Failed { failures, untried, wanted: missing.len() })
}

/// Every file once, ordered by digest.
fn wanted<'a>(resolved: &'a Resolved, urls: &'a BTreeMap<String, Url>) -> Vec<Wanted<'a>> {
    let packages = resolved.packages.iter().chain(resolved.containers.values().flatten());
    let packages = packages.map(|(package, locked)| Wanted {
        name: format!("{package} {}", locked.version),
        digest: locked.sha256,
        size: locked.size,
        place: Place::Package { package, archive: &locked.archive, path: &locked.path },
    });
    let files = resolved.known.files.iter().filter_map(|(name, locked)| {
        let place = Place::Address(urls.get(name)?);
        Some(Wanted { name: name.clone(), digest: locked.sha256, size: locked.size, place })
    });
    let by_digest: BTreeMap<Digest, Wanted<'a>> =
        packages.chain(files).map(|file| (file.digest, file)).collect();
    by_digest.into_values().collect()
}

/// Mirrors that did not answer, each with what was said of it. They are not asked again for the next file: that would
/// take all tries and time limits each time.
#[derive(Default)]
struct Unreachable(Mutex<BTreeMap<Url, String>>);

impl Unreachable {
    fn why(&self, root: &Url) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(root).cloned()
    }

    fn note(&self, root: &Url, why: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(root.clone(), why.to_owned());
    }
}

fn get(
    file: &Wanted<'_>,
    store: &Store,
    upstream: Upstream<'_>,
    down: &Unreachable,
    task: &Task<'_>,
) -> Result<(), Reason> {
    let download = |url: &Url| upstream.client.download(url, &file.digest, Some(file.size), store, task);
    let (package, archive, path) = match file.place {
        Place::Address(url) => return Ok(download(url)?),
        Place::Package { package, archive, path } => (package, archive, path),
    };
    let roots = upstream.archives.get(archive).map(Vec::as_slice).unwrap_or_default();
    let path = path.to_owned();
    if let [root] = roots {
        return match download(&root.join(&path)?) {
            Err(error) if error.is_missing() => {
                let forbidden = !error.is_not_found();
                Err(Reason::Superseded {
                    package: package.to_owned(),
                    path,
                    roots: roots.to_vec(),
                    forbidden,
                })
            }
            other => Ok(other?),
        };
    }
    let (mut failures, mut missing, mut unreachable, mut forbidden) = (Vec::new(), 0, 0, false);
    for root in roots {
        if let Some(why) = down.why(root) {
            unreachable += 1;
            failures.push(why);
            continue;
        }
        let error = match download(&root.join(&path)?) {
            Ok(()) => return Ok(()),
            Err(error) if error.is_local() => return Err(error.into()),
            Err(error) => error,
        };
        let why = Chain(&error).to_string();
        if error.is_missing() {
            missing += 1;
            forbidden |= !error.is_not_found();
        } else if error.is_unreachable() {
            unreachable += 1;
            down.note(root, &why);
        }
        failures.push(why);
    }
    Err(match roots.len() {
        0 => Reason::UnknownArchive { archive: archive.to_owned(), path },
        all if missing == all => {
            Reason::Superseded { package: package.to_owned(), path, roots: roots.to_vec(), forbidden }
        }
        all => Reason::NoMirror { path, failures, unreachable: unreachable == all },
    })
}

/// Whether the next file would fail just as this one did.
fn is_hopeless(reason: &Reason) -> bool {
    match reason {
        Reason::Http(error) => error.is_unreachable() || error.is_local(),
        Reason::NoMirror { unreachable, .. } => *unreachable,
        Reason::Store(_) => true,
        _ => false,
    }
}
