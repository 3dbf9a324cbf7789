//! What was built, of what, how large: `build.json` beside the image, and the part of it that the root
//! itself can say, inside.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Job, Root};
use crate::base::Digest;
use crate::lock::{Lock, LockedPackage, file};
use crate::manifest::Manifest;

/// Where a root says what it is made of: a [`Record`] as JSON.
pub const RECORD: &str = "usr/lib/keller/image.json";

/// What a root says of itself. It holds no digest of the lock: two locks that pin the same make the same
/// image, whenever they were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Of the manifest.
    pub id: String,
    /// Of the manifest.
    pub version: String,
    /// Version by package.
    pub packages: BTreeMap<String, String>,
    /// Version by container and package, for those that are built.
    pub containers: BTreeMap<String, BTreeMap<String, String>>,
    /// Containers whose programs may gain privileges.
    pub new_privileges: Vec<String>,
}

impl Record {
    /// Of an image of `manifest` out of `lock`.
    pub fn of(manifest: &Manifest, lock: &Lock) -> Self {
        let versions = |packages: &BTreeMap<String, LockedPackage>| {
            packages.iter().map(|(name, package)| (name.clone(), package.version.clone())).collect()
        };
        Self {
            id: manifest.id.clone(),
            version: manifest.version.clone(),
            packages: versions(&lock.packages),
            containers: lock
                .containers
                .iter()
                .map(|(name, packages)| (name.clone(), versions(packages)))
                .collect(),
            new_privileges: manifest
                .containers
                .iter()
                .filter(|container| container.new_privileges)
                .map(|container| container.name.clone())
                .collect(),
        }
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and versions") + "\n"
    }
}

/// Sizes of the parts in bytes, and what names them.
#[derive(Clone, Debug, Serialize)]
pub struct Sizes {
    /// Names every byte of the root.
    pub root_hash: Digest,
    /// The kernel's.
    pub cmdline: String,
    /// The whole disk.
    pub disk: u64,
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
    /// Of a finished image.
    pub fn of(job: &Job<'_>, root: &Root, sizes: Sizes) -> Self {
        Self {
            record: Record::of(job.manifest, job.lock),
            keller: env!("CARGO_PKG_VERSION").to_owned(),
            keller_sha256: job.keller.1,
            lock_sha256: file::digest(job.lock),
            kernel_version: root.kernel.version.clone(),
            sizes,
            names: root.tree.link_counts().iter().map(|count| *count as usize).sum(),
        }
    }
}
