//! What was resolved: every input of an image by SHA-256 and size.

pub mod archives;
pub mod asked;
pub mod diff;
pub mod explain;
pub mod facts;
pub mod file;
pub mod kept;
pub mod online;
pub mod resolve;
pub mod solver;
pub mod universe;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::Digest;

pub use facts::{Facts, Known, Resolved, Scripts};

/// The form of lock files that this keller writes and reads.
pub const LOCK_FORMAT: u32 = 1;

/// What was resolved and what its content tells: all that an image is made of. Stored as JSON with sorted keys, one package
/// an object, beside the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// [`LOCK_FORMAT`].
    pub keller_lock: u32,
    /// Name of the image: a lock of another manifest is refused.
    pub id: String,
    /// Digest of what was asked for by name (packages, assume, suites, repositories, container packages):
    /// when it differs from the manifest's, the lock is stale.
    pub request: Digest,
    /// Time of everything that the builder makes, in seconds since 1970: the newest release's Date.
    pub epoch: i64,
    /// Where the pins came from. Provenance only: a change here makes no lock stale.
    pub provenance: Provenance,
    /// Packages of the root, by name.
    pub packages: BTreeMap<String, LockedPackage>,
    /// Packages of each built container, by container and package.
    pub containers: BTreeMap<String, BTreeMap<String, LockedPackage>>,
    /// Files fetched by URL, by their path on the node, and local inputs by their name.
    pub files: BTreeMap<String, LockedFile>,
    /// Digests of overlay trees, container archives and other local inputs, by name as in the manifest.
    pub local: BTreeMap<String, Digest>,
    /// Numeric ids of system users and groups that packages leave open.
    pub ids: Ids,
}

/// What stood at the sources when the lock was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of the keller that resolved.
    pub keller: String,
    /// Seconds since 1970 at which dates and keys were judged.
    pub judged_at: i64,
    /// The signed releases, by `archive suite`.
    pub releases: BTreeMap<String, LockedRelease>,
    /// What was asked for by name, so that a stale lock can say what is different.
    pub asked: asked::Asked,
}

/// One verified release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedRelease {
    /// Of the InRelease file, or of the Release file where its signature lies beside it.
    pub sha256: Digest,
    /// Its Date, in seconds since 1970.
    pub date: i64,
    /// Fingerprints of the certificates that signed it.
    pub signed_by: Vec<String>,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Debian version.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// `debian`, `security` or the name of a repository of the manifest; never an address.
    pub archive: String,
    /// Relative to the archive's root: `pool/…`.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Of the .deb.
    pub sha256: Digest,
    /// Who asked for it: the names of packages or `manifest`.
    pub wanted_by: Vec<String>,
    /// Digests of its maintainer scripts (`postinst` and so on) by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scripts: BTreeMap<String, Digest>,
}

/// A file fetched by URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// In bytes.
    pub size: u64,
    /// Of its content.
    pub sha256: Digest,
}

/// Fixed numeric ids, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    /// User ids.
    pub users: BTreeMap<String, u32>,
    /// Group ids.
    pub groups: BTreeMap<String, u32>,
}
