//! How a root and a unified kernel image travel: three ways, of which a node takes the shortest.
//!
//! - **Full:** all [frames] of the root, in order.
//! - **Blocks:** from whatever the node has. The [index] tells which runs of blocks the new root is made of;
//!   those that the running root has are copied, of the others only the frames are fetched that hold a block
//!   which is nowhere here. The publisher need not know the version that the node comes from.
//! - **Patch:** from one certain version, made when the new one was published; the shortest by far.
//!
//! All end in bytes that the caller judges by dm-verity's root hash. What lies in its place in the target is
//! neither fetched nor written again, on any way: that is how an interrupted update goes on. Memory stays at
//! some ten MiB whatever the size of the image.

mod blocks;
mod describe;
mod diff;
mod error;
mod frames;
mod index;
mod patch;
mod runs;
mod streams;
mod uki;
mod wire;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use describe::describe;
pub use error::{DeltaError, PublishError};
pub use frames::{LEVEL, Published, publish_root};
pub use patch::make_patch;
pub use uki::{publish_uki, uki};

use blocks::{Assembly, Survey, Tally};
use index::Index;
use patch::Patcher;
use runs::Inventory;
use wire::Wire;

use super::document::{Blob, Patch, RootImage};
use super::remote::Remote;
use crate::base::device::{Device, ReadAt};
use crate::base::progress::{Progress, Task, Unit};
use crate::base::{Chain, Digest};

/// What a node has already.
pub struct Old<'a> {
    /// The running root.
    pub root: &'a dyn ReadAt,
    /// Bytes of its file system, without the rest of the partition.
    pub root_size: u64,
    /// Its root hash: a patch is found by it.
    pub root_hash: Digest,
    /// The running unified kernel image.
    pub uki: Option<&'a [u8]>,
}

/// The way that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// All of it was fetched.
    Full,
    /// What was lacking was fetched.
    Blocks,
    /// A patch was fetched.
    Patch,
}

impl Way {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Blocks => "blocks",
            Self::Patch => "patch",
        }
    }
}

/// How it was come by. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Which way led there.
    pub way: Way,
    /// What came over the wire, for all ways that were tried.
    pub bytes: u64,
    /// How often something was asked for.
    pub requests: u64,
    /// Taken from the running version.
    pub reused: u64,
    /// In its place in the target before.
    pub kept: u64,
    /// Written to the target.
    pub written: u64,
}

/// Writes a root to the beginning of `target`, by the shortest way from what is there.
///
/// # Errors
/// When no way leads there. A connection that breaks is the caller's to wait for: the next call fetches only
/// what this one has not written.
pub fn root(
    image: &RootImage,
    remote: &dyn Remote,
    old: Option<&Old>,
    target: &mut dyn Device,
    progress: &dyn Progress,
) -> Result<Fetched, DeltaError> {
    Traveller { image, remote, target, progress, bytes: 0, requests: 0 }.travel(old, false)
}

/// Writes a root to the beginning of `target` and trusts nothing that is there: for when the bytes that
/// [`root`] put together do not have the root hash.
pub fn root_afresh(
    image: &RootImage,
    remote: &dyn Remote,
    target: &mut dyn Device,
    progress: &dyn Progress,
) -> Result<Fetched, DeltaError> {
    Traveller { image, remote, target, progress, bytes: 0, requests: 0 }.travel(None, true)
}

/// A patch that is so many times as large as the index is taken without a look at what else there is.
const SMALL_PATCH: u64 = 16;

struct Traveller<'a> {
    image: &'a RootImage,
    remote: &'a dyn Remote,
    target: &'a mut dyn Device,
    progress: &'a dyn Progress,
    bytes: u64,
    requests: u64,
}

impl Traveller<'_> {
    fn travel(mut self, old: Option<&Old>, fresh: bool) -> Result<Fetched, DeltaError> {
        let (size, room) = (self.image.size, self.target.size());
        if room < size {
            return Err(DeltaError::TooSmall { size, room });
        }
        let mut patch = old.and_then(|old| patch_from(&self.image.patches, &old.root_hash));
        if let (Some(old), Some(found)) = (old, patch)
            && found.size <= SMALL_PATCH * self.image.index.size
        {
            match self.patch(found, old) {
                Err(error) if error.is_of_this_way() => self.give_up(&error),
                result => return result,
            }
            patch = None;
        }
        self.by_index(old, patch, fresh)
    }

    fn give_up(&self, error: &DeltaError) {
        self.progress.warn(&format!("the patch is of no use, another way is taken: {}", Chain(error)));
    }

    fn patch(&mut self, patch: &Blob, old: &Old) -> Result<Fetched, DeltaError> {
        let new_size = self.image.size;
        let (mut wire, old, old_size) = (Wire::new(self.remote, patch), old.root, old.root_size);
        let target = &mut *self.target;
        let task = Task::new(self.progress, "updating", new_size, Unit::Bytes);
        let patcher = Patcher { wire: &mut wire, size: patch.size, old, old_size, new_size, target };
        let result = patcher.run(&task);
        self.bytes += wire.bytes;
        self.requests += wire.requests;
        Ok(self.fetched(Way::Patch, result?))
    }

    fn by_index(
        &mut self,
        old: Option<&Old>,
        patch: Option<&Blob>,
        fresh: bool,
    ) -> Result<Fetched, DeltaError> {
        let image = self.image;
        let (index, bytes) = wire::whole(self.remote, &image.index, index::LIMIT, "the index")?;
        self.bytes += bytes;
        self.requests += 1;
        let index = Index::parse(&index, image.size, image.frames.size)?;
        let inventory = match old {
            Some(old) => {
                let task = Task::new(self.progress, "comparing", old.root_size, Unit::Bytes);
                Inventory::of(old.root, old.root_size, &task)
                    .map_err(|(at, source)| DeltaError::Old { at, source })?
            }
            None => Inventory::default(),
        };
        let survey = {
            let task = Task::new(self.progress, "comparing", image.size, Unit::Bytes);
            Survey::of(&index, &inventory, self.target, fresh, &task)?
        };
        if let (Some(old), Some(patch)) = (old, patch)
            && patch.size < survey.lacking(&index)
        {
            match self.patch(patch, old) {
                // What it has written is surveyed once more.
                Err(error) if error.is_of_this_way() => {
                    self.give_up(&error);
                    return self.by_index(Some(old), None, fresh);
                }
                result => return result,
            }
        }
        let mut wire = Wire::new(self.remote, &image.frames);
        let task = Task::new(self.progress, "updating", image.size, Unit::Bytes);
        let assembly = Assembly {
            index: &index,
            survey: &survey,
            inventory: &inventory,
            old: old.map(|old| old.root),
            wire: &mut wire,
            target: self.target,
            tally: Tally::default(),
        };
        let result = assembly.run(&task);
        self.bytes += wire.bytes;
        self.requests += wire.requests;
        let tally = result?;
        let had = tally.reused + tally.kept > 0;
        Ok(self.fetched(if had { Way::Blocks } else { Way::Full }, tally))
    }

    fn fetched(&self, way: Way, tally: Tally) -> Fetched {
        let Tally { reused, kept, written } = tally;
        Fetched { way, bytes: self.bytes, requests: self.requests, reused, kept, written }
    }
}

/// The smallest patch from what has this digest.
fn patch_from<'a>(patches: &'a [Patch], from: &Digest) -> Option<&'a Blob> {
    patches.iter().filter(|patch| patch.from == *from).map(|patch| &patch.blob).min_by_key(|blob| blob.size)
}
