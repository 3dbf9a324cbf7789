//! The release document: all that is signed about one version, as JSON. Everything else of a version is
//! found by the digests in it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::Digest;
use crate::base::width::to_u64;
use crate::disk::Release;

/// Version of this form. A node refuses a newer one, and says that its keller is too old.
pub const FORMAT: u32 = 1;

/// Folder of the files that documents name, relative to the repository's root.
pub const BLOBS: &str = "blobs";

/// One version of an image, for those that update to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`FORMAT`].
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
    /// Bytes of a logical sector of the disks that this version is for.
    pub sector_size: u32,
    /// The root file system.
    pub root: RootImage,
    /// The unified kernel image.
    pub uki: Uki,
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
    /// What a slot that holds this version says.
    pub fn release(&self) -> Release {
        Release { id: self.id.clone(), version: self.version.clone(), root_hash: self.root.root_hash }
    }
}
