//! The store that a verb works with: found, opened with the user's key, and mended while the work goes on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::standing;
use crate::base::progress::Progress;
use crate::base::{Chain, Digest, Size, input, json, limits};
use crate::image::kernel;
use crate::lock::{Lock, online};
use crate::rootfs::modules;
use crate::source::debian::deb;
use crate::store::key::{self, Found};
use crate::store::{Access, Freed, Store, StoreError};

/// The kinds of derived files that this keller makes. Others are of an older or a newer one.
pub const KINDS: [&str; 6] =
    [deb::index::FORMAT, online::KIND, modules::KIND, kernel::KIND, standing::KIND, standing::BODIES];

/// How often a build begins again after it has found something wrong with the store. Each time finds all blobs of
/// one kind; it is not once only since containers are read apart from the root.
const TRIES: usize = 8;

/// What derived files may take in the end, in bytes. The default node has 0.6 GB of them, and 727 packages have 4 GB.
const DERIVED: u64 = 16 << 30;

/// Derived files that were used this lately are not removed to make room: one build may need more of them than
/// [`DERIVED`], and the next one after it needs the same.
const LATELY: Duration = Duration::from_secs(24 * 3600);

/// Removes what was derived in excess, at the end of a verb that derived some. Where another one works with the store,
/// that one will.
pub(super) fn trim(mut store: Store, progress: &dyn Progress) {
    if !store.has_grown() {
        return;
    }
    match store.trim(DERIVED, LATELY) {
        Ok(Freed { derived: 0, .. }) | Err(StoreError::InUse { .. } | StoreError::NoLock { .. }) => {}
        Ok(freed) => progress.note(&format!(
            "what was derived takes more than {} in {}: {} that were not used for a day are gone, {} in all",
            Size(DERIVED).human(),
            store.root().display(),
            freed.derived,
            Size(freed.bytes).human()
        )),
        Err(error) => progress.warn(&format!("making room in the store: {}", Chain(&error))),
    }
}

/// Where the store is: at `named`, or where the environment says.
///
/// # Errors
/// No place, or one that cannot be a store.
pub fn place(named: Option<&Path>) -> Result<PathBuf> {
    match named {
        Some(root) => Ok(root.to_owned()),
        None => Ok(Store::locate()?),
    }
}

/// Opens the store in `root` with the user's key; `shared`: even if others can write it.
///
/// # Errors
/// A store that cannot be made or opened, or that others can write.
pub fn open(root: &Path, shared: bool, progress: &dyn Progress) -> Result<Store> {
    let key = match key::of_user(root) {
        Ok(Found { key, replaced }) => {
            replaced.iter().for_each(|words| progress.warn(words));
            Some(key)
        }
        Err(error) => {
            progress.warn(&format!(
                "there is no place for the key of the store, so that nothing derived is kept and all of it is made \
                 anew each time: {}; XDG_STATE_HOME may name another directory",
                Chain(&error)
            ));
            None
        }
    };
    Ok(Store::open_with(root, Access { key, shared })?)
}

/// Does `work` with `store`, and once more where it fails for something that was wrong with the store and is out of
/// the way: bad blobs are fetched again, derived files made anew. Tells what was wrong.
///
/// # Errors
/// Those of `work`.
pub fn mending<T>(store: &Store, progress: &dyn Progress, work: impl Fn() -> Result<T>) -> Result<T> {
    let mut tries = 1..TRIES;
    loop {
        let result = work();
        store.words().iter().for_each(|words| progress.warn(words));
        let is_mended = store.is_mended();
        if result.is_ok() || !is_mended || tries.next().is_none() {
            return result;
        }
    }
}

/// All digests that the lock files at `locks` name, which sweeping the store leaves there.
///
/// # Errors
/// A file that cannot be read or is not a lock.
pub fn named_by(locks: &[PathBuf]) -> Result<BTreeSet<Digest>> {
    let mut digests = BTreeSet::new();
    for path in locks {
        let text = input::read(path, limits::TEXT).with_context(|| format!("reading {}", path.display()))?;
        let lock: Lock =
            json::parse(&text, limits::LOCK_VALUES).with_context(|| format!("reading {}", path.display()))?;
        digests.extend(lock.packages.values().map(|package| package.sha256));
        digests.extend(lock.containers.values().flat_map(|packages| packages.values()).map(|p| p.sha256));
        digests.extend(lock.files.values().map(|file| file.sha256));
        digests.extend(lock.local.values());
        digests.extend(lock.provenance.releases.values().map(|release| release.sha256));
    }
    Ok(digests)
}
