//! The release document: all that is signed about one version, as JSON. Everything else of a version is
//! found by the digests in it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::Digest;
use crate::base::width::to_u64;
use crate::disk::Release;

/// Version of this form. A node refuses a newer one, and says that its keller is too old.
pub const FORMAT: u32 = 2;
/// The same of a version that lies in files of its own alone.
pub const FORMAT_WHOLE: u32 = 1;

/// Directory of the files that documents name, relative to the repository's root.
pub const BLOBS: &str = "blobs";

/// One version of an image, for those that update to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`FORMAT`], or [`FORMAT_WHOLE`] where no way has pieces.
    pub format: u32,
    /// IMAGE_ID: nodes take only what has their own.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
    /// The oldest version that may go to this one in one step; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<String>,
    /// What changed, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// When the image was made of its lock, in seconds since 1970: no node of this version may believe an
    /// earlier clock.
    pub epoch: i64,
    /// The newest [`FORMAT`] that nodes of this version read.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub reads: u32,
    /// Bytes of a logical sector of the disks that this version is for.
    pub sector_size: u32,
    /// The root file system.
    pub root: RootImage,
    /// The unified kernel image.
    pub uki: Uki,
}

/// What a version reads that says nothing of it.
pub(crate) fn whole() -> u32 {
    FORMAT_WHOLE
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_whole(format: &u32) -> bool {
    *format == FORMAT_WHOLE
}

/// The root file system and how to come by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootImage {
    /// dm-verity's root hash: what the bytes are judged by in the end.
    pub root_hash: Digest,
    /// In bytes, a multiple of 4096.
    pub size: u64,
    /// Salt of the hash tree, hexadecimal.
    pub salt: String,
    /// UUID in the hash tree's superblock.
    pub verity_uuid: Uuid,
    /// What it travels by.
    pub ways: Ways,
}

/// The unified kernel image and how to come by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uki {
    /// Of its bytes.
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
    /// What it travels by.
    pub ways: Ways,
}

/// The files by which an image travels: any of its ways leads to all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    /// All of it, as small as it gets: a patch from nothing.
    pub full: Blob,
    /// All of it, in small frames that are compressed one by one: for those who have some of it.
    pub frames: Blob,
    /// Which block is in which frame, and what they hash to.
    pub index: Blob,
    /// From certain versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<Patch>,
    /// How hard the first three were compressed: a publisher takes over from a version before what was compressed as
    /// hard. Nodes have no use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
    /// Where the bytes of `full` lie, in order, if not in a file of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub full_pieces: Vec<Piece>,
    /// The same of `frames`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames_pieces: Vec<Piece>,
}

impl Ways {
    /// Whether there are parts of them in files that other versions have too.
    pub fn has_pieces(&self) -> bool {
        !self.full_pieces.is_empty() || !self.frames_pieces.is_empty()
    }

    /// The names of all files that they are in, relative to the repository's root. Some may come more than once.
    pub fn files(&self) -> impl Iterator<Item = String> {
        let whole = [(&self.full, &self.full_pieces), (&self.frames, &self.frames_pieces)];
        let own = whole.into_iter().filter(|(_, pieces)| pieces.is_empty()).map(|(blob, _)| blob.path());
        let pieces = whole.into_iter().flat_map(|(_, pieces)| pieces.iter().map(Piece::path));
        let patches = self.patches.iter().map(|patch| patch.blob.path());
        own.chain(pieces).chain([self.index.path()]).chain(patches)
    }
}

/// A stretch of a file of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Of the bytes of that file.
    pub file: Digest,
    /// Where the stretch begins in it.
    pub at: u64,
    /// In bytes.
    pub length: u64,
}

impl Piece {
    /// Where the file lies, relative to the repository's root.
    pub fn path(&self) -> String {
        format!("{BLOBS}/{}", self.file)
    }
}

/// A way from another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// What it starts from: a root hash, or the SHA-256 of a unified kernel image.
    pub from: Digest,
    /// That version, for people.
    pub version: String,
    /// The patch.
    pub blob: Blob,
}

/// A file of the repository, named by what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Of its bytes.
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
}

impl Blob {
    /// Of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: Digest::of(bytes), size: to_u64(bytes.len()) }
    }

    /// Where it lies, relative to the repository's root.
    pub fn path(&self) -> String {
        format!("{BLOBS}/{}", self.sha256)
    }
}

impl Document {
    /// The names of all files that this version is in, relative to the repository's root.
    pub fn files(&self) -> impl Iterator<Item = String> {
        self.root.ways.files().chain(self.uki.ways.files())
    }

    /// What a slot that holds this version says.
    pub fn release(&self) -> Release {
        Release { id: self.id.clone(), version: self.version.clone(), root_hash: self.root.root_hash }
    }
}
