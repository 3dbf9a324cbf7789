//! Why something is not published.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::base::Digest;
use crate::base::flock::Holder;
use crate::repository::fit::Misfit;
use crate::repository::keys::KeysError;
use crate::repository::metadata::date;
use crate::update::delta;
use crate::verity;

/// Why a version is not published, or a repository not renewed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A name that is none.
    #[error("{channel:?} cannot be the name of a channel: use a-z, 0-9 and `-`, at most 32")]
    Channel {
        /// As given.
        channel: String,
    },
    /// Nodes would not take it.
    #[error("{version} is not newer than {newest}, the newest in {channel}: nodes would not take it")]
    NotNewer {
        /// Of the image.
        version: String,
        /// Where it was to go.
        channel: String,
        /// What is there.
        newest: String,
    },
    /// A version is one thing.
    #[error(
        "{version} is published already with root hash {published}, and this image has {given} or another kernel image: give it a new version"
    )]
    OtherBytes {
        /// Of both.
        version: String,
        /// Root hash of what is there.
        published: Digest,
        /// Root hash of the image.
        given: Digest,
    },
    /// What is signed about a version does not change.
    #[error("{version} is published already, and its {what} cannot be changed")]
    Fixed {
        /// Which of its properties.
        what: &'static str,
        /// The version.
        version: String,
    },
    /// A version is one thing, also where it is listed no more.
    #[error(
        "another image was published as {version} and has been taken out; nodes may still run it: raise `version:` in the manifest"
    )]
    Former {
        /// Of both.
        version: String,
    },
    /// By this clock nobody believes the repository.
    #[error(
        "timestamp.json has expired on {}, and it is {}: if the clock is right, renew it with `keller publish --refresh --to {}` and prune again; else set the clock",
        date(*since),
        date(*now),
        path.display()
    )]
    Stale {
        /// When.
        since: Timestamp,
        /// By the caller's clock.
        now: Timestamp,
        /// The repository.
        path: PathBuf,
    },
    /// What it names is not known.
    #[error(
        "the release document of {version} has format {format}, and this keller knows up to {known}: prune with the keller that published it"
    )]
    NewerFormat {
        /// Of the release.
        version: String,
        /// Of its document.
        format: u64,
        /// The newest that is known.
        known: u32,
    },
    /// A file cannot be removed.
    #[error("deleting {path}")]
    Remove {
        /// Its place in the repository.
        path: String,
        /// What the disk says.
        source: io::Error,
    },
    /// Nobody could go there.
    #[error("--minimum {minimum} is not older than {version}: no node could take it")]
    Minimum {
        /// As given.
        minimum: String,
        /// Of the image.
        version: String,
    },
    /// It does not fit the disks in the field.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// Disks with other sectors.
    #[error(
        "the image is for sectors of {has} bytes, and {version} is for {expected}: publish it under another id"
    )]
    SectorSize {
        /// Of the image.
        has: u32,
        /// Of what is published.
        expected: u32,
        /// Which version that is.
        version: String,
    },
    /// Its nodes would never take a later version from here.
    #[error("the root of trust in {version} is none of those in {}: its nodes would take no update from here; build it with `update: {{keys: …}}` naming that directory", keys.display())]
    OtherTrust {
        /// Of the image.
        version: String,
        /// The keys' folder.
        keys: PathBuf,
    },
    /// A version that makes no name.
    #[error("{version:?} makes no name of a file: {problem}")]
    Name {
        /// Of the image.
        version: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing has this version.
    #[error("{version} is not published; there is: {}", if published.is_empty() { "nothing".to_owned() } else { published.join(", ") })]
    NoVersion {
        /// As asked for.
        version: String,
        /// What there is.
        published: Vec<String>,
    },
    /// Several have this version.
    #[error("{version} is published for {} and {}: say which with --id", ids[0], ids[1])]
    Ambiguous {
        /// As asked for.
        version: String,
        /// Two that have it.
        ids: [String; 2],
    },
    /// It is elsewhere.
    #[error("{version} is not in {channel}; it is in: {}", if channels.is_empty() { "no channel".to_owned() } else { channels.join(", ") })]
    NotInChannel {
        /// As asked for.
        version: String,
        /// As asked for.
        channel: String,
        /// Where it is.
        channels: Vec<String>,
    },
    /// There is nothing to renew.
    #[error("{} has nothing published yet: `keller publish IMAGE --to {}` begins it", path.display(), path.display())]
    Empty {
        /// The repository.
        path: PathBuf,
    },
    /// Keys are missing, expired, or wrong.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A repository of others.
    #[error("the repository has another {version}.root.json than {}: it belongs to other keys", keys.display())]
    OtherKeys {
        /// Of the root.
        version: u64,
        /// The keys' folder.
        keys: PathBuf,
    },
    /// Keys out of an old copy.
    #[error("the repository has root {published} already, and {} only {own}: use the directory in which keys were rotated last", keys.display())]
    OldKeys {
        /// Of the newest published root.
        published: u64,
        /// Of the keys' newest root.
        own: u64,
        /// The keys' folder.
        keys: PathBuf,
    },
    /// A root that nodes need is nowhere.
    #[error("{missing}.root.json is neither in the repository nor in {}: nodes need every step", keys.display())]
    MissingRoot {
        /// Of the root.
        missing: u64,
        /// The keys' folder.
        keys: PathBuf,
    },
    /// A file of the repository is not as it was written.
    #[error("{path} of the repository is damaged: {problem}")]
    Damaged {
        /// In the repository.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// An older version cannot be read any more.
    #[error("putting {version} together for a patch; --patches 0 goes without")]
    Old {
        /// The version.
        version: String,
        /// What is wrong.
        source: delta::DeltaError,
    },
    /// An older version is not what was signed.
    #[error(
        "the frames of {version} make the root hash {actual}, but {expected} is signed; --patches 0 goes without"
    )]
    OldHash {
        /// The version.
        version: String,
        /// As signed.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// The files of a version cannot be made.
    #[error(transparent)]
    Delta(#[from] delta::PublishError),
    /// A hash tree cannot be computed.
    #[error(transparent)]
    Verity(#[from] verity::Error),
    /// Another process publishes.
    #[error("another keller is publishing to {} just now{}", path.display(), named(holder.as_ref()))]
    Busy {
        /// The repository.
        path: PathBuf,
        /// The process, where the kernel tells.
        holder: Option<Holder>,
    },
    /// The lock cannot be opened.
    #[error(
        "opening {}, the repository's lock: its owner may, and the directory's group where that may write there",
        path.display()
    )]
    Lock {
        /// The lock.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The repository's folder.
    #[error("reading {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("writing {path}")]
    Write {
        /// In the repository, or what it was to be.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn named(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(": {holder}"))
}
