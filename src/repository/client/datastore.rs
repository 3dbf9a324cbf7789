//! What a node remembers of a repository: roots that it followed, the metadata that it trusted last, and the
//! latest time at which that was good.
//!
//! ```text
//! N.root.json                                    each verified by the one before, from the shipped one on
//! timestamp.json snapshot.json targets.json      for no way back
//! latest_known_time.json
//! lock                                           held by the one process that works on it
//! ```
//! `tough` works on a copy in a folder of its own; what it leaves is taken over file by file, whole or not at all,
//! once everything about it is known to be good.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::FlockOperation;
use tempfile::TempDir;
use tough::schema::{RoleType, Root, Signed};

use super::RepositoryError;
use crate::base::{atomic, flock, input, json, limits};
use crate::repository::metadata::{self, key_ids, numbered};

/// The latest time at which metadata was good.
const TIME: &str = "latest_known_time.json";
/// Metadata that is kept, in the order in which it is taken over.
const KEPT: [&str; 3] = ["targets.json", "snapshot.json", "timestamp.json"];
/// Held by the one process that works on it.
const LOCK: &str = "lock";
/// Begin of the names of folders for `tough`.
const SCRATCH: &str = "scratch-";

/// The folder, locked.
#[derive(Debug)]
pub(super) struct Datastore {
    folder: PathBuf,
    _lock: File,
}

/// Forgets the latest time at which metadata was good, and nothing else; tells whether there was one.
///
/// # Errors
/// What the disk says.
pub fn forget_time(datastore: &Path) -> io::Result<bool> {
    match fs::remove_file(datastore.join(TIME)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> RepositoryError {
    let doing = doing.into();
    move |source| RepositoryError::Datastore { doing, source }
}

fn optional(path: &Path) -> Result<Option<Vec<u8>>, RepositoryError> {
    match input::read(path, limits::TEXT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(format!("reading {}", path.display()))(error)),
    }
}

impl Datastore {
    /// Opens the folder, made when missing, for one process at a time.
    ///
    /// # Errors
    /// `Busy`, `Datastore`.
    pub(super) fn open(folder: &Path) -> Result<Self, RepositoryError> {
        let context = || format!("opening {}", folder.display());
        fs::create_dir_all(folder).map_err(failed(context()))?;
        // Not the directory itself: whoever may read that could hold its lock.
        let lock = flock::open(&folder.join(LOCK)).map_err(failed(context()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(RepositoryError::Busy),
            Err(error) => return Err(failed(context())(error.into())),
        }
        // Of runs that were cut off by a loss of power.
        for entry in fs::read_dir(folder).map_err(failed(context()))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
                fs::remove_dir_all(entry.path()).map_err(failed("removing what was left over"))?;
            }
        }
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// The latest time at which metadata was good. A file that says nothing is as good as none.
    pub(super) fn latest_known_time(&self) -> Result<Option<Timestamp>, RepositoryError> {
        let bytes = optional(&self.folder.join(TIME))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// The last root of the chain that begins with `shipped`. Each step is verified anew: the state partition
    /// is not to be believed.
    pub(super) fn newest_root(&self, shipped: Signed<Root>) -> Result<Signed<Root>, RepositoryError> {
        let mut newest = shipped;
        loop {
            let version = newest.signed.version.get() + 1;
            let bytes = optional(&self.folder.join(numbered(version, RoleType::Root)))?;
            match bytes.and_then(|bytes| successor(&newest, &bytes)) {
                Some(root) => newest = root,
                None => return Ok(newest),
            }
        }
    }

    /// Keeps those of the fetched `roots` that follow `start`; gives the last of them.
    pub(super) fn keep_roots(
        &self,
        start: &Signed<Root>,
        roots: &BTreeMap<u64, Vec<u8>>,
    ) -> Result<Signed<Root>, RepositoryError> {
        let mut newest = start.clone();
        while let Some(root) =
            roots.get(&(newest.signed.version.get() + 1)).and_then(|bytes| successor(&newest, bytes))
        {
            let path = self.folder.join(numbered(root.signed.version.get(), RoleType::Root));
            let doing = failed(format!("writing {}", path.display()));
            atomic::write(&path, metadata::bytes(&root)).map_err(doing)?;
            newest = root;
        }
        // Specification 5.3.11: whoever had the old keys may have driven the versions up.
        let keys = |root: &Signed<Root>| {
            [RoleType::Timestamp, RoleType::Snapshot].map(|role| key_ids(&root.signed, role))
        };
        if keys(start) != keys(&newest) {
            for name in ["timestamp.json", "snapshot.json"] {
                match fs::remove_file(self.folder.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(format!("removing {name}"))(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(newest)
    }

    /// A folder for `tough`, with what was trusted last in it.
    pub(super) fn scratch(&self) -> Result<TempDir, RepositoryError> {
        let doing = || failed(format!("writing to {}", self.folder.display()));
        let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&self.folder).map_err(doing())?;
        for name in KEPT {
            if let Some(bytes) = optional(&self.folder.join(name))? {
                fs::write(scratch.path().join(name), bytes).map_err(doing())?;
            }
        }
        Ok(scratch)
    }

    /// Takes over what `tough` has left in `scratch`, which was good at `now`.
    pub(super) fn commit(&self, scratch: TempDir, now: Timestamp) -> Result<(), RepositoryError> {
        for name in KEPT {
            let Some(bytes) = optional(&scratch.path().join(name))? else { continue };
            self.write(name, &bytes)?;
        }
        let latest = self.latest_known_time()?.map_or(now, |latest| latest.max(now));
        self.write(TIME, &serde_json::to_vec(&latest).expect("a time is JSON"))
    }

    /// Spares the disk what is there already: a node looks every hour, and little changes.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RepositoryError> {
        let path = self.folder.join(name);
        if optional(&path)?.is_some_and(|there| there == bytes) {
            return Ok(());
        }
        atomic::write(&path, bytes).map_err(failed(format!("writing {}", path.display())))
    }
}

/// The root in `bytes`, if it is the one after `root`.
fn successor(root: &Signed<Root>, bytes: &[u8]) -> Option<Signed<Root>> {
    let next: Signed<Root> = json::parse(bytes, limits::JSON_VALUES).ok()?;
    let follows = next.signed.version.get() == root.signed.version.get() + 1;
    (follows && metadata::is_signed(root, &next) && metadata::is_signed(&next, &next)).then_some(next)
}
