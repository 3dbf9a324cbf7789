//! How a root and a unified kernel image travel: three ways, of which a node takes the shortest.
//!
//! - **Full:** all of it in the fewest bytes, a `patch` from nothing.
//! - **Blocks:** from whatever the node has. The `index` tells which runs of blocks the new image is made of;
//!   those that the running one has are copied, of the others only the `frames` are fetched that hold a block
//!   which is nowhere here. The publisher need not know the version that the node comes from.
//! - **Patch:** from one certain version, made when the new one was published; the shortest by far.
//!
//! A way whose files are not there, or not what they should be, gives way to the next. All end in bytes that
//! are judged as a whole, a root by dm-verity's root hash, which is the caller's to do, a kernel image by its
//! digest. What lies in its place in the target is neither fetched nor written again, on any way: that is how
//! an interrupted update goes on. Memory stays at some ten MiB whatever the size of the image.

mod blocks;
mod describe;
mod diff;
mod error;
mod frame;
mod frames;
mod index;
mod known;
mod patch;
mod runs;
mod segments;
mod streams;
mod travel;
mod uki;
mod unfinished;
mod wire;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use describe::describe;
pub use error::{DeltaError, PublishError};
pub use frame::LEVEL;
pub use frames::{How, Published, Reused, publish_root, publish_uki};
pub use known::KnownFrames;
pub use patch::{Elsewhere, Framed, KnownSegments, Sources, Taken, Whole, make_full, make_patch, make_whole};
pub use uki::{uki, uki_by};
pub use unfinished::Unfinished;

use travel::{Base, Traveller};

use super::document::RootImage;
use super::remote::Remote;
use crate::base::Digest;
use crate::base::device::{Device, ReadAt};
use crate::base::progress::Progress;

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
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Full, Self::Blocks, Self::Patch];

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
    root_by(&Way::ALL, image, remote, old, target, progress)
}

/// The same by the shortest of `ways`: for measuring, and for a publisher, who has all files at hand and takes
/// those that are the quickest to read.
///
/// # Errors
/// As those of [`root`]; `NoPatch`.
pub fn root_by(
    ways: &[Way],
    image: &RootImage,
    remote: &dyn Remote,
    old: Option<&Old>,
    target: &mut dyn Device,
    progress: &dyn Progress,
) -> Result<Fetched, DeltaError> {
    let base = old.map(|old| Base { image: old.root, size: old.root_size, digest: old.root_hash });
    let (size, fresh) = (image.size, false);
    Traveller { ways: &image.ways, size, remote, base, target, fresh, progress }.travel(ways)
}

/// Writes a root to the beginning of `target` and trusts nothing that is there: for when the bytes that
/// [`root`] put together do not have the root hash.
///
/// # Errors
/// As those of [`root`].
pub fn root_afresh(
    image: &RootImage,
    remote: &dyn Remote,
    target: &mut dyn Device,
    progress: &dyn Progress,
) -> Result<Fetched, DeltaError> {
    let (size, base, fresh) = (image.size, None, true);
    Traveller { ways: &image.ways, size, remote, base, target, fresh, progress }.travel(&Way::ALL)
}
