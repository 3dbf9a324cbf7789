//! From a manifest to a lock: the only room that asks archives what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::archives::{Archive, Archives, Suite};
use super::asked::Asked;
use super::explain::RequestError;
use super::solver::{Chosen, SolveError, solve};
use super::universe::{Package, Query, Request, Universe};
use super::{Known, Lock, LockedPackage, LockedRelease, Provenance, Resolved};
use crate::base::near::{did_you_mean, near};
use crate::base::progress::Scoped;
use crate::base::{Chain, Digest, Progress, Task, Unit, limits};
use crate::http::url::Url;
use crate::manifest::{Manifest, Place, Recipe};
use crate::source::debian::checksum::{Checksum, Sha512};
use crate::source::debian::packages::{Deb, Index, IndexError, Record, Source};
use crate::source::debian::release::ask::{AskError, ask};
use crate::source::debian::release::{Expectation, Release, ReleaseError};
use crate::source::debian::upstream::{Upstream, UpstreamError};

/// Part of the key under which it is remembered what SHA-256 a file of a SHA-512 has.
const LEARNT: &str = "keller SHA-256 of SHA-512";

/// What may change of an earlier lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Everything: the newest versions, as if there were no lock.
    All,
    /// Nothing that need not: versions stay where the archives still have them.
    Nothing,
    /// These packages, and others only where these need it.
    Names(BTreeSet<String>),
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A package to update is not in the lock.
    #[error("{name} is not in the lock, so it cannot be updated{}", did_you_mean(.near))]
    NotLocked {
        /// As asked for.
        name: String,
        /// Locked names that differ little.
        near: Vec<String>,
    },
    /// The packages of the root cannot be had together.
    #[error(transparent)]
    Packages(SolveError),
    /// The packages of a container cannot be had together.
    #[error("packages of container {container}")]
    Container {
        /// Its name.
        container: String,
        /// Why.
        source: SolveError,
    },
    /// The signed release is refused.
    #[error("verifying {url}")]
    Release {
        /// Where it came from.
        url: Box<Url>,
        /// Why.
        source: ReleaseError,
    },
    /// The signed release cannot be had.
    #[error("asking archive {archive} for suite {suite}")]
    Upstream {
        /// As in the lock.
        archive: String,
        /// As in the manifest.
        suite: String,
        /// Why.
        source: Box<AskError>,
    },
    /// The index says of a chosen package what cannot be used.
    #[error("{package} {version} of archive {archive} cannot be used, since in its index {reason}; {}", way_out(.package, .others))]
    Unusable {
        /// As in the lock.
        archive: String,
        /// Its name.
        package: String,
        /// The version that was chosen.
        version: String,
        /// What is wrong with its paragraph.
        reason: String,
        /// Versions that can be used.
        others: Vec<String>,
    },
    /// The index has only another digest of a chosen package than locks have, and the file cannot be had.
    #[error("fetching {package} {version} of archive {archive}, whose SHA-256 its index does not have")]
    Digest {
        /// As in the lock.
        archive: String,
        /// Its name.
        package: String,
        /// The version that was chosen.
        version: String,
        /// Why.
        source: Box<UpstreamError>,
    },
    /// The same of every mirror.
    #[error("{package} {version} of archive {archive} can be had from {}", none_of(.failures))]
    NoPackage {
        /// As in the lock.
        archive: String,
        /// Its name.
        package: String,
        /// The version that was chosen.
        version: String,
        /// Of each mirror that was asked, in their order.
        failures: Vec<ResolveError>,
    },
    /// The file of a chosen package is not the one of the index.
    #[error(
        "{package} {version} of archive {archive} is not what its index lists: expected {} of {expected_size} bytes, \
         but have {} of {actual_size} bytes",
        .digests.0, .digests.1
    )]
    Tampered {
        /// As in the lock.
        archive: String,
        /// Its name.
        package: String,
        /// The version that was chosen.
        version: String,
        /// As signed, and as received.
        digests: Box<(Sha512, Sha512)>,
        /// In bytes, as signed.
        expected_size: u64,
        /// In bytes, as received.
        actual_size: u64,
    },
    /// Every mirror failed.
    #[error("asking archive {archive} for suite {suite}: none of its {} mirrors gives it:{}", .failures.len(), listed(.failures))]
    NoMirror {
        /// As in the lock.
        archive: String,
        /// As in the manifest.
        suite: String,
        /// Of each mirror that was asked, in their order.
        failures: Vec<ResolveError>,
    },
    /// The host's list of mirrors has none for the suite.
    #[error(
        "no mirror of archive {archive} is for suite {suite} with components {}: the host's list of mirrors limits \
         each of them by words such as `type:` and `suite:`; name another mirror by --mirror", .components.join(", ")
    )]
    NoneServes {
        /// As in the lock.
        archive: String,
        /// As in the manifest.
        suite: String,
        /// As in the manifest.
        components: Vec<String>,
    },
    /// A package index is missing or refused.
    #[error("reading the packages of archive {archive}, suite {suite}")]
    Index {
        /// As in the lock.
        archive: String,
        /// As in the manifest.
        suite: String,
        /// Why.
        source: Box<IndexError>,
    },
}

/// What none of the mirrors that were asked gives; without one, the host's list has none for packages.
fn none_of(failures: &[ResolveError]) -> String {
    match failures.len() {
        0 => "no mirror: the host's list has none for packages (`type:deb`); name another by --mirror"
            .to_owned(),
        count => format!("none of {count} mirrors:{}", listed(failures)),
    }
}

/// One line each.
fn listed(failures: &[ResolveError]) -> String {
    failures.iter().map(|failure| format!("\n  {}", Chain(failure))).collect()
}

impl ResolveError {
    /// Whether another mirror would fail in the same way: by this machine's own fault, or since what is wrong stands in
    /// the manifest or in the signed release.
    fn is_same_everywhere(&self) -> bool {
        let is_local = |error: &UpstreamError| match error {
            UpstreamError::NotFound { .. } => false,
            UpstreamError::Http(error) => error.is_local(),
            UpstreamError::Store(_) | UpstreamError::Read(_) => true,
        };
        match self {
            Self::Upstream { source, .. } => {
                matches!(&**source, AskError::Upstream(error) if is_local(error))
            }
            Self::Index { source, .. } => match &**source {
                IndexError::Upstream(error) => is_local(error),
                IndexError::Address(_) | IndexError::NoComponent { .. } | IndexError::Unlisted { .. } => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// The places of the manifest that it speaks of, each with what is wrong there, for programs.
    pub fn places(&self) -> Vec<(&Place, String)> {
        match self {
            Self::Packages(source) | Self::Container { source, .. } => match source {
                SolveError::Requests(requests) => requests.iter().map(RequestError::place).collect(),
                SolveError::Unsolvable(unsolvable) => unsolvable.places(),
                SolveError::TooMany { .. } | SolveError::TooLarge | SolveError::Entangled => Vec::new(),
            },
            _ => Vec::new(),
        }
    }
}

fn way_out(package: &str, others: &[String]) -> String {
    match others.first() {
        Some(version) => format!("`{package}={version}` asks for a version that can"),
        None => "whoever keeps the archive has to make its index anew".to_owned(),
    }
}

/// One suite, verified and read.
struct Snapshot<'a> {
    archive: &'a Archive,
    suite: &'a Suite,
    release: Release,
    index: Index,
}

/// Resolves `manifest` against `archives`, keeping what `update` leaves of `previous`. Dates and keys are
/// judged at `now`, in seconds since 1970.
///
/// The digests of scripts in the result are those of `previous`.
pub fn resolve(
    manifest: &Manifest,
    archives: &Archives,
    upstream: &dyn Upstream,
    previous: Option<&Lock>,
    update: &Update,
    now: i64,
    progress: &dyn Progress,
) -> Result<Resolved, ResolveError> {
    check_names(previous, update)?;
    let snapshots = snapshots(archives, upstream, now, manifest.debian.allow_expired, progress)?;
    let task = Task::new(progress, "resolving", 0, Unit::Items);
    let universe =
        Universe::new(snapshots.iter().map(|snapshot| (snapshot.archive.name.as_str(), &snapshot.index)))
            .map_err(|error| ResolveError::Packages(error.into()))?;
    let solver = Tree { universe: &universe, archives, upstream, update, progress };
    let packages =
        solver.resolve(&manifest.recipe, previous.map(|lock| &lock.packages), ResolveError::Packages)?;
    let mut containers = BTreeMap::new();
    for container in &manifest.containers {
        let Some(build) = container.build() else { continue };
        task.at(&container.name);
        let earlier = previous.and_then(|lock| lock.containers.get(&container.name));
        let blame = |source| ResolveError::Container { container: container.name.clone(), source };
        let scope = container.scope();
        let solver = Tree { progress: &Scoped::new(&scope, progress), ..solver };
        let packages = solver.resolve(&build.recipe, earlier, blame)?;
        containers.insert(container.name.clone(), packages);
    }
    let asked = Asked::of(manifest);
    Ok(Resolved {
        id: manifest.id.clone(),
        request: asked.digest(),
        epoch: snapshots.iter().map(|snapshot| snapshot.release.date).max().unwrap_or_default(),
        provenance: Provenance {
            keller: env!("CARGO_PKG_VERSION").to_owned(),
            judged_at: now,
            releases: snapshots.into_iter().map(Snapshot::into_locked).collect(),
            asked,
        },
        packages,
        containers,
        known: previous.map_or_else(Known::default, Known::of),
    })
}

/// Refuses to update what is not locked: most likely a slip of the pen.
fn check_names(previous: Option<&Lock>, update: &Update) -> Result<(), ResolveError> {
    let (Some(lock), Update::Names(names)) = (previous, update) else { return Ok(()) };
    let locked: BTreeSet<&str> = lock
        .packages
        .keys()
        .chain(lock.containers.values().flat_map(BTreeMap::keys))
        .map(String::as_str)
        .collect();
    match names.iter().find(|name| !locked.contains(name.as_str())) {
        Some(name) => Err(ResolveError::NotLocked { name: name.clone(), near: near(name, locked) }),
        None => Ok(()),
    }
}

/// Brings all suites at once, in the order of the archives.
fn snapshots<'a>(
    archives: &'a Archives,
    upstream: &dyn Upstream,
    now: i64,
    allow_expired: bool,
    progress: &dyn Progress,
) -> Result<Vec<Snapshot<'a>>, ResolveError> {
    let suites: Vec<_> = archives
        .iter()
        .flat_map(|archive| archive.suites.iter().map(move |suite| (archive, suite)))
        .collect();
    let task = Task::new(progress, "reading package indexes", suites.len() as u64, Unit::Items);
    let passed_over = Mutex::new(BTreeSet::new());
    let kept = AtomicU64::new(0);
    let taken: Vec<_> = suites
        .into_par_iter()
        .map(|(archive, suite)| {
            let at = (now, allow_expired);
            let too_many = || {
                let (archive, suite) = (archive.name.clone(), suite.name.clone());
                ResolveError::Index { archive, suite, source: IndexError::TooMany.into() }
            };
            if kept.load(Ordering::Relaxed) > limits::INDEX_KEPT {
                return Err(too_many());
            }
            let snapshot = Snapshot::of_any(archive, suite, upstream, at, &passed_over, progress)?;
            let size = snapshot.index.size();
            if kept.fetch_add(size, Ordering::Relaxed) + size > limits::INDEX_KEPT {
                return Err(too_many());
            }
            task.advance(1);
            Ok(snapshot)
        })
        .collect();
    // Each once, in an order that does not depend on which suite was first.
    for told in passed_over.into_inner().unwrap_or_else(PoisonError::into_inner) {
        progress.warn(&told);
    }
    // Of several failures the first in order is told, not the first in time.
    taken.into_iter().collect()
}

impl<'a> Snapshot<'a> {
    /// From the first mirror that gives a release and its indexes; `passed_over` gets what is to say of others. Both are
    /// signed, so it does not matter which it is.
    fn of_any(
        archive: &'a Archive,
        suite: &'a Suite,
        upstream: &dyn Upstream,
        moment: (i64, bool),
        passed_over: &Mutex<BTreeSet<String>>,
        progress: &dyn Progress,
    ) -> Result<Self, ResolveError> {
        let sources: Vec<_> = archive.sources(suite).collect();
        let mut failures = Vec::new();
        for (source, left) in sources.iter().zip((0..sources.len()).rev()) {
            let error = match Self::take(archive, suite, source, upstream, moment, progress) {
                Ok(snapshot) => return Ok(snapshot),
                Err(error) if sources.len() == 1 || error.is_same_everywhere() => return Err(error),
                Err(error) => error,
            };
            if left > 0 {
                let told = format!("the mirror {} is passed over: {}", source.root, Chain(&error));
                passed_over.lock().unwrap_or_else(PoisonError::into_inner).insert(told);
            }
            failures.push(error);
        }
        let (archive, suite, components) =
            (archive.name.clone(), suite.name.clone(), suite.components.clone());
        Err(match failures.is_empty() {
            true => ResolveError::NoneServes { archive, suite, components },
            false => ResolveError::NoMirror { archive, suite, failures },
        })
    }

    fn take(
        archive: &'a Archive,
        suite: &'a Suite,
        source: &Source<'_>,
        upstream: &dyn Upstream,
        (now, allow_expired): (i64, bool),
        progress: &dyn Progress,
    ) -> Result<Self, ResolveError> {
        let names = || (archive.name.clone(), suite.name.clone());
        let asked = (!source.is_flat()).then_some(suite.name.as_str());
        let expectation = Expectation { suite: asked, now, allow_expired };
        let release = ask(upstream, source, &archive.keyring, &expectation, progress).map_err(|error| {
            let (archive, suite) = names();
            match error {
                AskError::Refused { url, source } => ResolveError::Release { url: url.into(), source },
                AskError::Address(error) => {
                    ResolveError::Index { archive, suite, source: Box::new(error.into()) }
                }
                other => ResolveError::Upstream { archive, suite, source: other.into() },
            }
        })?;
        let index = Index::fetch(upstream, source, &release, progress).map_err(|source| {
            let (archive, suite) = names();
            ResolveError::Index { archive, suite, source: source.into() }
        })?;
        let left_out: Vec<_> = index.left_out().collect();
        if let Some(first) = left_out.first() {
            let Archive { name, .. } = archive;
            progress.warn(&format!(
                "archive {name}, suite {}: {} of its index cannot be read and {} left out: {first}",
                suite.name,
                if left_out.len() == 1 {
                    "one paragraph".to_owned()
                } else {
                    format!("{} paragraphs", left_out.len())
                },
                if left_out.len() == 1 { "is" } else { "are, the first of which is" },
            ));
        }
        Ok(Self { archive, suite, release, index })
    }

    fn into_locked(self) -> (String, LockedRelease) {
        let Release { sha256, date, signed_by, .. } = self.release;
        (format!("{} {}", self.archive.name, self.suite.name), LockedRelease { sha256, date, signed_by })
    }
}

/// Resolves one tree after the other, root and containers, against the same archives.
#[derive(Clone, Copy)]
struct Tree<'r, 'a> {
    universe: &'r Universe<'a>,
    archives: &'r Archives,
    upstream: &'r dyn Upstream,
    update: &'r Update,
    progress: &'r dyn Progress,
}

impl Tree<'_, '_> {
    fn resolve(
        &self,
        recipe: &Recipe,
        previous: Option<&BTreeMap<String, LockedPackage>>,
        blame: impl Fn(SolveError) -> ResolveError,
    ) -> Result<BTreeMap<String, LockedPackage>, ResolveError> {
        let Recipe { packages, assume, .. } = recipe;
        for name in assume.keys().filter(|name| self.universe.versions(name).len() == 0) {
            let near = did_you_mean(&near(name, self.universe.names()));
            self.progress.warn(&format!(
                "assume: no archive has a package {name}, so nothing is left out by it{near}"
            ));
        }
        let previous = previous.filter(|_| *self.update != Update::All);
        let query = Query {
            requests: packages.iter().map(|(text, place)| Request::parse(text, place)).collect(),
            assume: assume.keys().map(String::as_str).collect(),
            previous: previous
                .into_iter()
                .flatten()
                .map(|(name, package)| (name.as_str(), self.kept(name).then_some(package.version.as_str())))
                .collect(),
        };
        self.lock(solve(self.universe, &query).map_err(blame)?, previous)
    }

    /// Pins what was chosen by the digests of its files.
    fn lock(
        &self,
        chosen: BTreeMap<&str, Chosen<'_>>,
        previous: Option<&BTreeMap<String, LockedPackage>>,
    ) -> Result<BTreeMap<String, LockedPackage>, ResolveError> {
        let lock = |(name, chosen): (&str, Chosen<'_>)| {
            let record = chosen.package.record;
            let earlier = previous.and_then(|packages| packages.get(name));
            if let Some(earlier) = earlier {
                self.note_superseded(name, earlier, record.version);
            }
            let file = record.file.map_err(|reason| self.unusable(&chosen.package, reason))?;
            let package = LockedPackage {
                version: record.version.to_owned(),
                architecture: record.architecture.to_owned(),
                archive: chosen.package.archive.to_owned(),
                path: file.path.to_owned(),
                size: file.size,
                sha256: self.sha256(&chosen.package, &file)?,
                wanted_by: chosen.wanted_by,
                // Those of another version, too, so that it shows which scripts are new.
                scripts: earlier.map(|earlier| earlier.scripts.clone()).unwrap_or_default(),
            };
            Ok((name.to_owned(), package))
        };
        chosen.into_iter().map(lock).collect()
    }

    fn unusable(&self, package: &Package<'_>, reason: &str) -> ResolveError {
        let versions = self.universe.versions(package.record.name);
        ResolveError::Unusable {
            archive: package.archive.to_owned(),
            package: package.record.name.to_owned(),
            version: package.record.version.to_owned(),
            reason: reason.to_owned(),
            others: versions
                .filter(|other| other.record().file.is_ok())
                .map(|other| other.version.to_owned())
                .collect(),
        }
    }

    /// The digest by which locks and stores know the file of `package`. Where the index has only another one, the
    /// file itself tells.
    fn sha256(&self, package: &Package<'_>, file: &Deb<'_>) -> Result<Digest, ResolveError> {
        let expected = match file.checksum {
            Checksum::Sha256(sha256) => return Ok(sha256),
            Checksum::Sha512(sha512) => sha512,
        };
        let key = Digest::of(format!("{LEARNT} {expected} {}", file.size));
        if let Some(known) =
            self.upstream.recall(&key).and_then(|bytes| Some(Digest::from_bytes(bytes.try_into().ok()?)))
        {
            return Ok(known);
        }
        let names = || {
            let Record { name, version, .. } = package.record;
            (package.archive.to_owned(), name.to_owned(), version.to_owned())
        };
        let urls = self.archives.urls(package.archive, file.path);
        let urls = urls.map_err(|error| self.unusable(package, &error.to_string()))?;
        let mut failures = Vec::new();
        for url in urls {
            let (archive, package, version) = names();
            failures.push(match self.upstream.receive(&url, file.size, self.progress) {
                Ok(received) if (received.sha512, received.size) == (expected, file.size) => {
                    self.upstream.keep(&key, received.sha256.as_bytes());
                    return Ok(received.sha256);
                }
                Ok(received) => {
                    let digests = Box::new((expected, received.sha512));
                    let (expected_size, actual_size) = (file.size, received.size);
                    ResolveError::Tampered { archive, package, version, digests, expected_size, actual_size }
                }
                Err(source) => ResolveError::Digest { archive, package, version, source: source.into() },
            });
        }
        if failures.len() == 1 {
            return Err(failures.remove(0));
        }
        let (archive, package, version) = names();
        Err(ResolveError::NoPackage { archive, package, version, failures })
    }

    /// Whether the locked version of `name` is to stay.
    fn kept(&self, name: &str) -> bool {
        match self.update {
            Update::All => false,
            Update::Nothing => true,
            Update::Names(names) => !names.contains(name),
        }
    }

    /// Says so when a version could not stay because mirrors drop what is superseded.
    fn note_superseded(&self, name: &str, earlier: &LockedPackage, version: &str) {
        let there = self.universe.versions(name).any(|package| package.version == earlier.version);
        if self.kept(name) && !there {
            let text = format!("the archives no longer have {name} {}: taking {version}", earlier.version);
            self.progress.note(&text);
        }
    }
}
