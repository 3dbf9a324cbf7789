//! What was built, of what, how large: `build.json` beside the image.

use serde::{Deserialize, Serialize};

use super::Job;
use super::record::Record;
use crate::base::Digest;
use crate::lock::file;

/// Sizes of the parts in bytes, and what names them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sizes {
    /// Names every byte of the root.
    pub root_hash: Digest,
    /// The kernel's.
    pub cmdline: String,
    /// The least disk of a node.
    pub disk: u64,
    /// The image that is written to it.
    pub image: u64,
    /// The root file system.
    pub root: u64,
    /// Its hash tree.
    pub verity: u64,
    /// The unified kernel image.
    pub uki: u64,
    /// The initramfs in it.
    pub initramfs: u64,
    /// The microcode before it.
    pub microcode: u64,
    /// The kernel in it.
    pub kernel: u64,
}

/// What a build tells of itself. Holds nothing that differs between two builds of one lock.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the root says too.
    #[serde(flatten)]
    pub record: Record,
    /// Version of the keller that built.
    pub keller: String,
    /// Digest of the keller inside the image.
    pub keller_sha256: Digest,
    /// Of the lock file.
    pub lock_sha256: Digest,
    /// As `uname -r` says it.
    pub kernel_version: String,
    /// Of the parts.
    #[serde(flatten)]
    pub sizes: Sizes,
    /// Files, folders and links in the root.
    pub names: usize,
}

impl Report {
    /// Of a finished image whose root has a kernel of this version and so many names.
    pub fn of(job: &Job<'_>, kernel_version: &str, names: usize, sizes: Sizes) -> Self {
        Self {
            record: Record::of(job.manifest, job.lock),
            keller: env!("CARGO_PKG_VERSION").to_owned(),
            keller_sha256: job.keller.1,
            lock_sha256: file::digest(job.lock),
            kernel_version: kernel_version.to_owned(),
            sizes,
            names,
        }
    }
}
