//! Adds versions to a repository in a folder, and keeps its metadata fresh.
//!
//! The order of writing is what nodes rely on: what is named comes before what names it, each file whole
//! under a name that nothing had before, `timestamp.json` last. Whoever is interrupted leaves the old state, and
//! files that the next run takes or passes by.

mod commit;
mod error;
mod needed;
mod pieces;
mod prune;
#[cfg(test)]
mod tests;
mod version;

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::FlockOperation;
use serde::Serialize;
use tough::schema::{Role, RoleType, Root, Signed, Snapshot, Targets};
use uuid::Uuid;

pub use error::PublishError;
pub use needed::{Keep, Need};
pub use prune::{Count, Kept, Prune, Pruned, Unlisted};

use super::fit::{self, Needs};
use super::folder::Folder;
use super::former::{Disk, mark};
use super::keys::Keys;
use super::metadata::{self, numbered};
use super::release::{self, Layout, Listing};
use crate::base::device::ReadAt;
use crate::base::progress::Progress;
use crate::base::version::compare;
use crate::base::width::to_u64;
use crate::base::{Digest, flock, input, json, limits};
use crate::update::Document;

/// Held by the one publisher that works on the repository. Nodes have no use for it.
const LOCK: &str = ".lock";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a snapshot is good, which is renewed with every timestamp, at the least.
const SNAPSHOT_LIFE: Duration = Duration::from_secs(30 * DAY.as_secs());
/// How long a list of releases is good. It is renewed at half of that where its key is at hand.
const TARGETS_LIFE: Duration = Duration::from_secs(365 * DAY.as_secs());
/// How long before the end of the root of trust it is time to say so.
const WARN_BEFORE: Duration = Duration::from_secs(60 * DAY.as_secs());

/// An image that is to be published.
pub struct Image<'a> {
    /// IMAGE_ID.
    pub id: &'a str,
    /// IMAGE_VERSION.
    pub version: &'a str,
    /// When it was made of its lock, in seconds since 1970.
    pub epoch: i64,
    /// The newest form of release documents that its nodes read.
    pub reads: u32,
    /// Bytes of a logical sector of its disks.
    pub sector_size: u32,
    /// The root file system.
    pub root: &'a (dyn ReadAt + Sync),
    /// Bytes of it, a multiple of 4096.
    pub root_size: u64,
    /// What dm-verity says of it; the caller has verified that.
    pub root_hash: Digest,
    /// Salt of the hash tree.
    pub salt: &'a [u8],
    /// UUID of the hash tree.
    pub verity_uuid: Uuid,
    /// The unified kernel image.
    pub uki: &'a [u8],
    /// Its disk.
    pub layout: Layout,
    /// The root of trust in it, if it has one.
    pub root_json: Option<Vec<u8>>,
}

/// How a version is published.
#[derive(Clone, Debug)]
pub struct Options {
    /// The channels that it goes to.
    pub channels: Vec<String>,
    /// What changed, for people.
    pub notes: Option<String>,
    /// The oldest version that may go to it in one step.
    pub minimum: Option<String>,
    /// From how many versions before it patches are made.
    pub patches: usize,
    /// zstd's level for what is fetched in full or by blocks.
    pub level: i32,
}

/// Times of a publication.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// By the publisher's clock.
    pub now: Timestamp,
    /// How long nodes believe that there is nothing newer.
    pub life: Duration,
}

/// What became of a version.
#[derive(Clone, Debug, Serialize)]
pub struct Added {
    /// As it is listed now.
    #[serde(flatten)]
    pub listing: Listing,
    /// Whether it was not there before.
    pub new: bool,
    /// Bytes of its root in full.
    pub root: u64,
    /// Bytes of its kernel image in full.
    pub uki: u64,
    /// Patches, by the version that they start from.
    pub patches: Vec<Patched>,
}

/// The short way from a version.
#[derive(Clone, Debug, Serialize)]
pub struct Patched {
    /// That version.
    pub from: String,
    /// Bytes for the root, if there is a patch.
    pub root: Option<u64>,
    /// Bytes for the kernel image, if there is a patch.
    pub uki: Option<u64>,
}

/// What is signed at present.
struct State {
    targets: Signed<Targets>,
    snapshot: u64,
    timestamp: u64,
    /// When nodes stop to believe the timestamp.
    expires: Timestamp,
}

/// A repository, held by one publisher.
pub struct Repository<'k> {
    folder: Folder,
    keys: &'k Keys,
    /// The newest root that nodes can have.
    published_root: Option<Signed<Root>>,
    /// Nothing before the first publication.
    state: Option<State>,
    /// None for whoever only reads.
    _lock: Option<File>,
}

impl<'k> Repository<'k> {
    /// Opens the repository in `folder`, made when missing, whose metadata `keys` sign.
    ///
    /// # Errors
    /// `Busy`; `OtherKeys`, `OldKeys`, `Damaged` of what is there.
    pub fn open(folder: impl Into<PathBuf>, keys: &'k Keys) -> Result<Self, PublishError> {
        let folder = Folder::new(folder);
        let path = folder.path();
        let io = |source| PublishError::Folder { path: path.join(metadata::FOLDER), source };
        fs::create_dir_all(path.join(metadata::FOLDER)).map_err(io)?;
        // Not the directory itself: whoever may read that could hold its lock.
        let lock_path = path.join(LOCK);
        let lock = flock::open(&lock_path)
            .map_err(|source| PublishError::Lock { path: lock_path.clone(), source })?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(PublishError::Busy { path: path.to_owned(), holder: flock::holder(&lock) });
            }
            Err(error) => return Err(io(error.into())),
        }
        Self { folder, keys, published_root: None, state: None, _lock: Some(lock) }.with_state()
    }

    /// Opens the repository in `folder` for reading alone, as anybody may who has the keys: it is held by nobody then.
    ///
    /// # Errors
    /// `OtherKeys`, `OldKeys`, `Damaged` of what is there.
    pub fn open_to_read(folder: impl Into<PathBuf>, keys: &'k Keys) -> Result<Self, PublishError> {
        Self { folder: Folder::new(folder), keys, published_root: None, state: None, _lock: None }
            .with_state()
    }

    fn with_state(self) -> Result<Self, PublishError> {
        let mut repository = self;
        repository.published_root = repository.read_roots()?;
        repository.state = repository.read_state()?;
        Ok(repository)
    }

    /// Every published version.
    pub fn releases(&self) -> Vec<Listing> {
        self.state.as_ref().map_or_else(Vec::new, |state| release::listings(&state.targets.signed))
    }

    /// The release document of `listing`.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn document(&self, listing: &Listing) -> Result<Document, PublishError> {
        let path = listing.path();
        let file = self.folder.path().join(&path);
        let damaged = |problem: String| PublishError::Damaged { path: path.clone(), problem };
        let bytes = input::read(file, limits::TEXT).map_err(|error| damaged(error.to_string()))?;
        if Digest::of(&bytes) != listing.document.sha256 {
            return Err(damaged("it is not what the list of releases says".to_owned()));
        }
        json::parse(&bytes, limits::JSON_VALUES).map_err(|error| damaged(error.to_string()))
    }

    /// Publishes `image`. One that is there already with the same bytes is added to channels at the most.
    ///
    /// # Errors
    /// Every refusal of [`PublishError`]; nothing that nodes see has changed then.
    pub fn add(
        &mut self,
        image: &Image<'_>,
        options: &Options,
        times: Times,
        progress: &dyn Progress,
    ) -> Result<Added, PublishError> {
        let wanted =
            options.channels.iter().map(|channel| check_channel(channel)).collect::<Result<Vec<_>, _>>()?;
        self.check_keys(times, progress, true)?;
        let releases = self.releases();
        let own: Vec<&Listing> = releases.iter().filter(|listing| listing.id == image.id).collect();
        let same = own.iter().find(|listing| compare(&listing.version, image.version).is_eq());
        if let Some(same) = same {
            return self.add_again(image, options, same, times, progress);
        }
        let former = self.former()?;
        let former = former.image(image.id);
        if former
            .and_then(|it| it.mark(image.version))
            .is_some_and(|it| it != mark(image.root_hash, Digest::of(image.uki)))
        {
            return Err(PublishError::Former { version: image.version.to_owned() });
        }
        for channel in wanted {
            check_newer(&own, channel, image.version)?;
        }
        if let Some(minimum) = options.minimum.as_deref().filter(|it| compare(it, image.version).is_ge()) {
            let (minimum, version) = (minimum.to_owned(), image.version.to_owned());
            return Err(PublishError::Minimum { minimum, version });
        }
        self.check_trust(image, progress)?;
        let documents: Vec<Document> =
            own.iter().map(|listing| self.document(listing)).collect::<Result<_, _>>()?;
        let mut disks: Vec<Disk> =
            own.iter().zip(&documents).map(|(listing, document)| Disk::of(listing, document)).collect();
        disks.extend(former.into_iter().flat_map(|it| it.disks()).cloned());
        let needs = Needs { root: image.root_size, uki: to_u64(image.uki.len()) };
        fit::check(needs, (image.id, image.version, image.layout), &disks)?;
        if let Some(other) = disks.iter().find(|it| it.sector_size != image.sector_size) {
            return Err(PublishError::SectorSize {
                has: image.sector_size,
                expected: other.sector_size,
                version: other.version.clone(),
            });
        }
        let (document, patches) = self.write_version(image, options, &documents, progress)?;
        let blob = self.write_document(&document)?;
        let mut listing = Listing::of(&document, blob, image.layout);
        listing.channels.clone_from(&options.channels);
        listing.channels.sort();
        listing.channels.dedup();
        let mut targets = self.targets(times);
        release::list(&mut targets, &listing).map_err(|error| PublishError::Name {
            version: image.version.to_owned(),
            problem: error.to_string(),
        })?;
        self.commit(Some(targets), times)?;
        self.finish(progress);
        Ok(Added {
            new: true,
            root: document.root.ways.full.size,
            uki: document.uki.ways.full.size,
            listing,
            patches,
        })
    }

    /// Adds `version` to `channel`.
    ///
    /// # Errors
    /// `NoVersion`, `Ambiguous`, `NotNewer`, and those of keys.
    pub fn promote(
        &mut self,
        id: Option<&str>,
        version: &str,
        channel: &str,
        times: Times,
        progress: &dyn Progress,
    ) -> Result<Listing, PublishError> {
        check_channel(channel)?;
        self.check_keys(times, progress, true)?;
        let releases = self.releases();
        let mut listing = find(&releases, id, version)?.clone();
        if !listing.is_in(channel) {
            let own: Vec<&Listing> = releases.iter().filter(|other| other.id == listing.id).collect();
            check_newer(&own, channel, version)?;
            listing.channels.push(channel.to_owned());
            listing.channels.sort();
            self.replace(&listing, times)?;
        }
        Ok(listing)
    }

    /// Takes `version` out of `channel`: nodes that have not taken it yet will not.
    ///
    /// # Errors
    /// `NoVersion`, `Ambiguous`, `NotInChannel`, and those of keys.
    pub fn withdraw(
        &mut self,
        id: Option<&str>,
        version: &str,
        channel: &str,
        times: Times,
        progress: &dyn Progress,
    ) -> Result<Listing, PublishError> {
        self.check_keys(times, progress, true)?;
        let releases = self.releases();
        let mut listing = find(&releases, id, version)?.clone();
        if !listing.is_in(channel) {
            let (version, channel) = (version.to_owned(), channel.to_owned());
            return Err(PublishError::NotInChannel { version, channel, channels: listing.channels });
        }
        listing.channels.retain(|own| own != channel);
        self.replace(&listing, times)?;
        Ok(listing)
    }

    /// Renews what would expire, and brings new roots out. Gives when nodes stop to believe it.
    ///
    /// # Errors
    /// `Empty`, and those of keys.
    pub fn refresh(&mut self, times: Times, progress: &dyn Progress) -> Result<Timestamp, PublishError> {
        let Some(state) = &self.state else {
            return Err(PublishError::Empty { path: self.folder.path().to_owned() });
        };
        let root = &self.keys.root().signed;
        let expires = state.targets.signed.expires;
        let must = !metadata::is_signed(self.keys.root(), &state.targets) || expires <= times.now;
        let may = expires < times.now + TARGETS_LIFE / 2;
        let can = !self.keys.some_signers(root, RoleType::Targets).is_empty();
        self.check_keys(times, progress, must)?;
        if may && !must && !can {
            progress.warn(&format!(
                "the list of releases expires on {}, and its key is not here to renew it",
                metadata::date(expires)
            ));
        }
        let targets = (must || may && can).then(|| self.targets(times));
        self.commit(targets, times)
    }

    fn replace(&mut self, listing: &Listing, times: Times) -> Result<(), PublishError> {
        let mut targets = self.targets(times);
        release::list(&mut targets, listing).map_err(|error| PublishError::Name {
            version: listing.version.clone(),
            problem: error.to_string(),
        })?;
        self.commit(Some(targets), times).map(drop)
    }

    /// A version that is there already.
    fn add_again(
        &mut self,
        image: &Image<'_>,
        options: &Options,
        same: &Listing,
        times: Times,
        progress: &dyn Progress,
    ) -> Result<Added, PublishError> {
        let document = self.document(same)?;
        let has_same_bytes =
            document.root.root_hash == image.root_hash && document.uki.sha256 == Digest::of(image.uki);
        if !has_same_bytes {
            return Err(PublishError::OtherBytes {
                version: same.version.clone(),
                published: document.root.root_hash,
                given: image.root_hash,
            });
        }
        // That try may have ended just before this.
        self.finish(progress);
        for (what, differs) in [
            ("notes", options.notes.as_ref().is_some_and(|notes| *notes != document.notes)),
            ("minimum", options.minimum.is_some() && options.minimum != document.minimum),
        ] {
            if differs {
                return Err(PublishError::Fixed { what, version: same.version.clone() });
            }
        }
        let mut listing = same.clone();
        let releases = self.releases();
        let own: Vec<&Listing> = releases.iter().filter(|other| other.id == listing.id).collect();
        for channel in &options.channels {
            if !listing.is_in(channel) {
                check_newer(&own, channel, &listing.version)?;
                listing.channels.push(channel.clone());
            }
        }
        listing.channels.sort();
        if listing.channels != same.channels {
            self.replace(&listing, times)?;
        } else if self.published_root.as_ref().is_none_or(|root| root.signed != self.keys.root().signed) {
            self.refresh(times, progress)?;
        }
        Ok(Added {
            listing,
            new: false,
            root: document.root.ways.full.size,
            uki: document.uki.ways.full.size,
            patches: Vec::new(),
        })
    }

    /// What must hold before any work: keys that are at hand, a root that has not expired.
    fn check_keys(&self, times: Times, progress: &dyn Progress, targets: bool) -> Result<(), PublishError> {
        self.keys.check_expiry(times.now)?;
        let root = &self.keys.root().signed;
        for role in [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
            if role != RoleType::Targets || targets {
                self.keys.signers(root, role)?;
            }
        }
        if root.expires < times.now + WARN_BEFORE {
            let date = metadata::date(root.expires);
            progress.warn(&format!("root.json expires on {date}: `keller keys renew` makes the next one"));
        }
        Ok(())
    }

    /// Nodes of a version take from this repository only what its root of trust leads to.
    fn check_trust(&self, image: &Image<'_>, progress: &dyn Progress) -> Result<(), PublishError> {
        let Some(bytes) = &image.root_json else {
            let (id, version) = (image.id, image.version);
            progress
                .warn(&format!("{id} {version} has no root of trust in it: its nodes take no later update"));
            return Ok(());
        };
        let root: Option<Signed<Root>> = json::parse(bytes, limits::JSON_VALUES).ok();
        let roots = || self.keys.roots().chain(&self.published_root);
        if root.is_some_and(|root| roots().any(|known| known.signed == root.signed))
            || self.is_published(bytes)
        {
            return Ok(());
        }
        Err(PublishError::OtherTrust {
            version: image.version.to_owned(),
            keys: self.keys.folder().to_owned(),
        })
    }

    /// The list of releases as it is, for the next version of it.
    fn targets(&self, times: Times) -> Targets {
        let expires = whole(times.now + TARGETS_LIFE);
        match &self.state {
            Some(state) => Targets { expires, ..state.targets.signed.clone() },
            None => Targets {
                delegations: None,
                ..Targets::new(metadata::SPEC_VERSION.to_owned(), std::num::NonZeroU64::MIN, expires)
            },
        }
    }
}

/// `time` without fractions of a second.
fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("it was in range before")
}

fn check_channel(channel: &str) -> Result<&str, PublishError> {
    let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !channel.is_empty() && channel.len() <= 32 && channel.chars().all(is_fine) {
        true => Ok(channel),
        false => Err(PublishError::Channel { channel: channel.to_owned() }),
    }
}

/// Refuses a version that nodes of `channel` would not take, since they take the newest.
fn check_newer(own: &[&Listing], channel: &str, version: &str) -> Result<(), PublishError> {
    let newest = own.iter().find(|listing| listing.is_in(channel));
    match newest.filter(|newest| compare(version, &newest.version).is_le()) {
        Some(newest) => Err(PublishError::NotNewer {
            version: version.to_owned(),
            channel: channel.to_owned(),
            newest: newest.version.clone(),
        }),
        None => Ok(()),
    }
}

fn find<'l>(releases: &'l [Listing], id: Option<&str>, version: &str) -> Result<&'l Listing, PublishError> {
    let mut found =
        releases.iter().filter(|listing| listing.version == version && id.is_none_or(|id| listing.id == id));
    match (found.next(), found.next()) {
        (Some(listing), None) => Ok(listing),
        (Some(one), Some(two)) => Err(PublishError::Ambiguous {
            version: version.to_owned(),
            ids: [one.id.clone(), two.id.clone()],
        }),
        (None, _) => Err(PublishError::NoVersion {
            version: version.to_owned(),
            published: releases.iter().map(|listing| format!("{} {}", listing.id, listing.version)).collect(),
        }),
    }
}
