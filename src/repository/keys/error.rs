//! What can be wrong with keys.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use tough::schema::RoleType;

use crate::repository::metadata::date;

/// Why keys cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Keys are there already.
    #[error("{} is there already: `keller keys rotate` replaces keys, and nodes follow", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// More signatures than keys, or none.
    #[error("a threshold of {threshold} does not go with {keys} root keys")]
    Threshold {
        /// Signatures that are needed.
        threshold: u64,
        /// Keys that can sign.
        keys: u64,
    },
    /// More keys than a root document can carry.
    #[error("{keys} root keys are more than the {limit} of which nodes could read root.json")]
    TooMany {
        /// As asked for.
        keys: u64,
        /// [`crate::base::limits::ROOT_KEYS`].
        limit: u64,
    },
    /// A private key that others on this machine can read.
    #[error(
        "{} has mode {mode:04o}, so that others can read or write it: `chmod 600 {}` keeps it for its owner. If \
         somebody may have read it, replace it (`keller keys rotate`, if it signs updates)", path.display(), path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No root of trust.
    #[error("{} has no root.json: `keller keys init {}` makes keys", folder.display(), folder.display())]
    Missing {
        /// Of the keys.
        folder: PathBuf,
    },
    /// No key with such an id.
    #[error("{role} has not exactly one key whose id begins with {id:?}: `keller keys show` lists them")]
    NoSuchKey {
        /// Whose.
        role: RoleType,
        /// The begin of the id.
        id: String,
    },
    /// The keys that must sign are not at hand.
    #[error("signing for {role} takes {needed} of its keys, and {found} are here; put {} into {}, or name the file with --key", missing.join(" or "), folder.display())]
    TooFew {
        /// The role.
        role: RoleType,
        /// Its threshold.
        needed: u64,
        /// Private keys at hand.
        found: usize,
        /// Begins of the ids of those that are not.
        missing: Vec<String>,
        /// Where private keys are looked for.
        folder: PathBuf,
    },
    /// The root of trust has come to its end.
    #[error("root.json, version {version}, has expired on {}: `keller keys renew` makes the next one with the root keys", date(*since))]
    Expired {
        /// Of the root.
        version: u64,
        /// When.
        since: Timestamp,
    },
    /// A root is missing between others.
    #[error("{}/{missing}.root.json is missing, and {there}.root.json is there: nodes need every step", folder.display())]
    Gap {
        /// Of the keys.
        folder: PathBuf,
        /// Its version.
        missing: u64,
        /// The version after the gap.
        there: u64,
    },
    /// A root that the one before does not vouch for.
    #[error("{version}.root.json is not signed by enough root keys of {by}.root.json")]
    Unsigned {
        /// Of the root.
        version: u64,
        /// Of the one before.
        by: u64,
    },
    /// A file that is no root of trust.
    #[error("{} is no root of trust: {problem}", path.display())]
    NoRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file that is no private key.
    #[error("{} is no private key: expected ed25519 as PKCS#8 in PEM", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("writing {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gave no randomness for a new key")]
    Randomness,
}
