//! What is in the store, and sweeping out what is not needed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
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
    /// Whether a link leads to its directory, or to one above it within the store.
    is_linked: bool,
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

impl AddAssign for Freed {
    fn add_assign(&mut self, more: Self) {
        self.blobs += more.blobs;
        self.derived += more.derived;
        self.tools += more.tools;
        self.litter += more.litter;
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// What files of a store are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Files by their digests.
    Blobs,
    /// What was made of them.
    Derived,
}

impl Part {
    const fn folder(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Derived => "derived",
        }
    }
}

impl Store {
    /// All blobs, ordered by digest.
    ///
    /// # Errors
    /// `Io` of the disk.
    pub fn blobs(&self) -> Result<Vec<Entry>> {
        self.all(Part::Blobs)
    }

    /// All derived files, ordered by kind and key.
    ///
    /// # Errors
    /// `Io` of the disk.
    pub fn derivatives(&self) -> Result<Vec<Entry>> {
        self.all(Part::Derived)
    }

    fn all(&self, part: Part) -> Result<Vec<Entry>> {
        let (entries, failures) = self.survey(part);
        failures.into_iter().next().map_or(Ok(entries), Err)
    }

    /// All that `part` has, in order, as far as its directories can be read, and why others cannot.
    pub fn survey(&self, part: Part) -> (Vec<Entry>, Vec<StoreError>) {
        let mut failures = Vec::new();
        let listed = self.entries(part.folder(), &mut |error| {
            failures.push(error);
            Ok(())
        });
        let mut entries = listed.unwrap_or_else(|error| {
            failures.push(error);
            Vec::new()
        });
        entries.retain(|entry| match part {
            Part::Blobs => entry.digest.is_some(),
            Part::Derived => !is_hidden(&entry.path),
        });
        (entries, failures)
    }

    /// Removes blobs that are not in `keep`, derived files and tools, all only when nobody used them for
    /// `older_than`; and whatever lies around that nobody can ever use. Where a part of the store is a link, which may
    /// lead anywhere, only what has a name that keller gives is removed there, and no tool.
    ///
    /// # Errors
    /// `InUse` when another process, or another open [`Store`] of this one, uses the folder; `NoLock` where this user
    /// cannot keep others out.
    pub fn gc(&mut self, keep: &BTreeSet<Digest>, older_than: Duration) -> Result<Freed> {
        let _alone = self.alone()?;
        let now = SystemTime::now();
        // A time in the future is a clock that was set back: no reason to remove anything.
        let old = |entry: &Entry| now.duration_since(entry.used).is_ok_and(|age| age >= older_than);
        let mut freed = Freed::default();
        for entry in self.entries("blobs", &mut Err)? {
            match entry.digest {
                Some(digest) if keep.contains(&digest) || !old(&entry) => continue,
                Some(_) => freed.blobs += 1,
                None if entry.is_ours() => freed.litter += 1,
                None => continue,
            }
            remove(&entry, &mut freed)?;
        }
        for entry in self.entries("derived", &mut Err)? {
            match is_hidden(&entry.path) {
                _ if !entry.is_ours() => continue,
                true => freed.litter += 1,
                false if old(&entry) => freed.derived += 1,
                false => continue,
            }
            remove(&entry, &mut freed)?;
        }
        self.sweep_rotten(&mut freed)?;
        self.sweep_tools(&old, &mut freed)?;
        Ok(freed)
    }

    /// Whether derived files were written through this value.
    pub fn has_grown(&self) -> bool {
        self.grown.load(Ordering::Relaxed)
    }

    /// Removes derived files, the least recently used first, until they take at most `limit` bytes; none that was used
    /// within `spare`. What was removed is made anew when it is needed.
    ///
    /// # Errors
    /// As those of [`Store::gc`].
    pub fn trim(&mut self, limit: u64, spare: Duration) -> Result<Freed> {
        let mut freed = Freed::default();
        if self.surplus(limit, spare)?.is_empty() {
            return Ok(freed);
        }
        let _alone = self.alone()?;
        // Others may have made or removed some before they were kept out.
        for entry in self.surplus(limit, spare)? {
            freed.derived += 1;
            remove(&entry, &mut freed)?;
        }
        Ok(freed)
    }

    /// What is to go for derived files to take at most `limit` bytes.
    fn surplus(&self, limit: u64, spare: Duration) -> Result<Vec<Entry>> {
        let now = SystemTime::now();
        let mut entries = self.derivatives()?;
        let mut total = entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.size));
        entries.sort_by_key(|entry| entry.used);
        let may_go = |entry: &Entry| {
            entry.is_ours() && now.duration_since(entry.used).is_ok_and(|unused| unused >= spare)
        };
        entries.retain(|entry| {
            let goes = total > limit && may_go(entry);
            total -= if goes { entry.size } else { 0 };
            goes
        });
        Ok(entries)
    }

    fn sweep_rotten(&self, freed: &mut Freed) -> Result<()> {
        let rotten = self.root.join("rotten");
        let Some(there) = if_exists(fs::symlink_metadata(&rotten)).map_err(failed("reading", &rotten))?
        else {
            return Ok(());
        };
        if there.is_dir() {
            for entry in self.entries("rotten", &mut Err)? {
                freed.litter += 1;
                remove(&entry, freed)?;
            }
            return if_exists(fs::remove_dir_all(&rotten)).map_err(failed("removing", &rotten)).map(drop);
        }
        freed.litter += 1;
        fs::remove_file(&rotten).map_err(failed("removing", &rotten))
    }

    fn sweep_tools(&self, old: &dyn Fn(&Entry) -> bool, freed: &mut Freed) -> Result<()> {
        let folder = self.root.join("tools");
        if folder.is_symlink() {
            return Ok(());
        }
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
            let inside = self.entries_below(&path, &mut Err)?;
            let size = inside.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.size));
            let tool = Entry { path, digest: None, size, used, is_linked: false };
            match is_hidden(&tool.path) {
                true => freed.litter += 1,
                false if old(&tool) => freed.tools += 1,
                false => continue,
            }
            fs::remove_dir_all(&tool.path).map_err(failed("removing", &tool.path))?;
            freed.bytes = freed.bytes.saturating_add(size);
        }
        Ok(())
    }

    /// Keeps all others out until the value is dropped.
    fn alone(&self) -> Result<Alone<'_>> {
        let in_use = || StoreError::InUse { folder: self.root.clone() };
        let lock = self.lock.as_ref().map_err(|error| StoreError::NoLock {
            folder: self.root.clone(),
            reason: io::Error::new(error.kind(), error.to_string()),
        })?;
        let alone = Alone { lock };
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(alone),
            // A conversion that fails may have lost the shared lock: dropping `alone` takes it again.
            Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use()),
            Err(errno) => Err(failed("locking", &self.root.join("lock"))(errno.into())),
        }
    }

    /// All files of the folder `part`, in order; `failed_at` decides about directories that cannot be read.
    fn entries(&self, part: &str, failed_at: &mut Failed<'_>) -> Result<Vec<Entry>> {
        let mut entries = self.entries_below(&self.root.join(part), failed_at)?;
        for entry in &mut entries {
            // In another place it is not what a build reads.
            entry.digest = entry.digest.filter(|digest| self.blob_path(digest) == entry.path);
        }
        Ok(entries)
    }

    fn entries_below(&self, folder: &Path, failed_at: &mut Failed<'_>) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut folders = vec![(folder.to_owned(), folder.is_symlink())];
        while let Some((folder, is_linked)) = folders.pop() {
            let listed = if_exists(fs::read_dir(&folder))
                .and_then(|listing| listing.into_iter().flatten().collect::<io::Result<Vec<_>>>());
            let items = match listed {
                Ok(items) => items,
                Err(error) => {
                    failed_at(failed("listing", &folder)(error))?;
                    continue;
                }
            };
            // Builds follow links to a part of the store and to its directories.
            let may_link = folder.parent() == Some(&self.root);
            for item in items {
                let path = item.path();
                let Some(metadata) =
                    if_exists(fs::symlink_metadata(&path)).map_err(failed("reading", &path))?
                else {
                    continue;
                };
                if metadata.is_dir() {
                    folders.push((path, is_linked));
                } else if metadata.is_symlink() && may_link && path.is_dir() {
                    folders.push((path, true));
                } else {
                    let name = path.file_name().and_then(OsStr::to_str);
                    let digest = name.and_then(|name| name.parse().ok());
                    let used = metadata.modified().map_err(failed("reading", &path))?;
                    entries.push(Entry { digest, size: metadata.len(), used, path, is_linked });
                }
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }
}

/// Told of a directory that cannot be listed; gives the error that ends the listing.
type Failed<'a> = dyn FnMut(StoreError) -> Result<()> + 'a;

impl Entry {
    /// Whether it may be removed for its place and name alone. Where a link has led, other things than keller's may lie:
    /// what keller names there is a digest, or hidden and made of one while it is written.
    fn is_ours(&self) -> bool {
        let name = self.path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let stem = match name.strip_prefix('.') {
            Some(hidden) if hidden.ends_with(".tmp") => hidden.split('.').next().unwrap_or_default(),
            Some(_) => "",
            None => name,
        };
        !self.is_linked || stem.parse::<Digest>().is_ok()
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
    freed.bytes = freed.bytes.saturating_add(entry.size);
    Ok(())
}
