//! What is in the store, and sweeping out what is not needed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::{Result, Store, StoreError, failed, if_exists};
use crate::base::Digest;

/// One file of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// For a blob, its digest.
    pub digest: Option<Digest>,
    /// Space it takes, in bytes.
    pub size: u64,
    /// When it was last opened, to the hour.
    pub used: SystemTime,
}

/// What a sweep took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many blobs.
    pub blobs: usize,
    /// How many derived files.
    pub derived: usize,
    /// How many unpacked tools.
    pub tools: usize,
    /// How many rotten blobs and left-over temporary files.
    pub litter: usize,
    /// The sum of their sizes.
    pub bytes: u64,
}

impl Store {
    /// All blobs, ordered by digest.
    pub fn blobs(&self) -> Result<Vec<Entry>> {
        let mut entries = self.entries("blobs")?;
        entries.retain(|entry| entry.digest.is_some());
        Ok(entries)
    }

    /// All derived files, ordered by kind and key.
    pub fn derivatives(&self) -> Result<Vec<Entry>> {
        let mut entries = self.entries("derived")?;
        entries.retain(|entry| !is_hidden(&entry.path));
        Ok(entries)
    }

    /// Removes blobs that are not in `keep`, derived files and tools, all only when nobody used them for
    /// `older_than`; and whatever lies around that nobody can ever use.
    ///
    /// # Errors
    /// `InUse` when another process, or another open [`Store`] of this one, uses the folder.
    pub fn gc(&mut self, keep: &BTreeSet<Digest>, older_than: Duration) -> Result<Freed> {
        let _alone = self.alone()?;
        let now = SystemTime::now();
        // A time in the future is a clock that was set back: no reason to remove anything.
        let old = |entry: &Entry| now.duration_since(entry.used).is_ok_and(|age| age >= older_than);
        let mut freed = Freed::default();
        for entry in self.entries("blobs")? {
            match entry.digest {
                Some(digest) if keep.contains(&digest) || !old(&entry) => continue,
                Some(_) => freed.blobs += 1,
                None => freed.litter += 1,
            }
            remove(&entry, &mut freed)?;
        }
        for entry in self.entries("derived")? {
            match is_hidden(&entry.path) {
                true => freed.litter += 1,
                false if old(&entry) => freed.derived += 1,
                false => continue,
            }
            remove(&entry, &mut freed)?;
        }
        for entry in self.entries("rotten")? {
            freed.litter += 1;
            remove(&entry, &mut freed)?;
        }
        let rotten = self.root.join("rotten");
        if_exists(fs::remove_dir_all(&rotten)).map_err(failed("removing", &rotten))?;
        self.sweep_tools(&old, &mut freed)?;
        Ok(freed)
    }

    fn sweep_tools(&self, old: &dyn Fn(&Entry) -> bool, freed: &mut Freed) -> Result<()> {
        let folder = self.root.join("tools");
        let Some(listing) = if_exists(fs::read_dir(&folder)).map_err(failed("listing", &folder))? else {
            return Ok(());
        };
        for item in listing {
            let path = item.map_err(failed("listing", &folder))?.path();
            let metadata = fs::symlink_metadata(&path).map_err(failed("reading", &path))?;
            if !metadata.is_dir() {
                // The seal of a tool, which is small; a new one takes its place.
                continue;
            }
            let used = metadata.modified().map_err(failed("reading", &path))?;
            let size = self.entries_below(&path)?.iter().map(|entry| entry.size).sum();
            let tool = Entry { path, digest: None, size, used };
            match is_hidden(&tool.path) {
                true => freed.litter += 1,
                false if old(&tool) => freed.tools += 1,
                false => continue,
            }
            fs::remove_dir_all(&tool.path).map_err(failed("removing", &tool.path))?;
            freed.bytes += size;
        }
        Ok(())
    }

    /// Keeps all others out until the value is dropped.
    fn alone(&self) -> Result<Alone<'_>> {
        let in_use = || StoreError::InUse { folder: self.root.clone() };
        let lock = self.lock.as_ref().ok_or_else(|| StoreError::Io {
            doing: "locking",
            path: self.root.join("lock"),
            source: io::ErrorKind::ReadOnlyFilesystem.into(),
        })?;
        let alone = Alone { lock };
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(alone),
            // A conversion that fails may have lost the shared lock: dropping `alone` takes it again.
            Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use()),
            Err(errno) => Err(failed("locking", &self.root.join("lock"))(errno.into())),
        }
    }

    /// All files below the folder `part`, in order.
    fn entries(&self, part: &str) -> Result<Vec<Entry>> {
        self.entries_below(&self.root.join(part))
    }

    fn entries_below(&self, folder: &Path) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let Some(listing) = if_exists(fs::read_dir(&folder)).map_err(failed("listing", &folder))? else {
                continue;
            };
            for item in listing {
                let path = item.map_err(failed("listing", &folder))?.path();
                let Some(metadata) =
                    if_exists(fs::symlink_metadata(&path)).map_err(failed("reading", &path))?
                else {
                    continue;
                };
                if metadata.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.file_name().and_then(OsStr::to_str);
                    let digest = name.and_then(|name| name.parse().ok());
                    let used = metadata.modified().map_err(failed("reading", &path))?;
                    entries.push(Entry { digest, size: metadata.len(), used, path });
                }
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }
}

/// Holds the lock exclusively; falls back to sharing it when dropped.
struct Alone<'a> {
    lock: &'a fs::File,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(self.lock, FlockOperation::LockShared);
    }
}

/// The temporary names of [`crate::base::AtomicFile`] begin with a dot.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn remove(entry: &Entry, freed: &mut Freed) -> Result<()> {
    if_exists(fs::remove_file(&entry.path)).map_err(failed("removing", &entry.path))?;
    freed.bytes += entry.size;
    Ok(())
}
