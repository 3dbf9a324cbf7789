//! What a node trusts of a repository: the workflow of a TUF client, from the root of trust in the verified
//! root to a release document.
//!
//! `tough` walks the chain of roots and verifies signatures, versions, sizes and digests. The clock is judged
//! here: `tough` would ask the system's, whose hour at boot a node cannot know to be right, and would not
//! say since when something has expired. Nothing of a state that was refused is kept.

mod datastore;
mod error;
#[cfg(test)]
mod tests;
mod transport;

use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use tough::error::Error as Tough;
use tough::schema::{Error as Schema, Role, RoleType, Root, Signed};
use tough::{ExpirationEnforcement, Limits, RepositoryLoader};

pub use datastore::forget_time;
pub use error::RepositoryError;

use super::DOCUMENT_LIMIT;
use super::former::Former;
use super::metadata::{self, numbered};
use super::release::{self, Listing};
use crate::base::width::to_u64;
use crate::base::{Digest, json, limits};
use crate::update::Document;
use crate::update::document::FORMAT;
use crate::update::remote::{Remote, RemoteError};
use datastore::Datastore;
use transport::{Seen, serve};

/// Bytes of one metadata file that are read at the most. A list of a thousand releases has some 600 KB.
const METADATA_LIMIT: u64 = 4 << 20;
/// Bytes of a root, a snapshot or a timestamp that are read at the most; they have one to five KB.
const SMALL_LIMIT: u64 = 256 << 10;
/// Roots that are followed in one go.
const MAX_ROOTS: u64 = 1024;
/// How far a clock may be behind the latest time that was seen, in seconds: as much as a time server corrects
/// without a word.
const SLEW: i64 = 300;
/// Roots after a missing one that are looked for, to tell a gap from a wrong key.
const GAP: u64 = 4;

/// Looks at repositories.
#[derive(Clone, Copy, Debug)]
pub struct Client;

/// The verified state of a repository.
pub struct Trusted<'r> {
    remote: &'r dyn Remote,
    releases: Vec<Listing>,
    former: Former,
}

/// What `tough` has verified.
struct Loaded {
    releases: Vec<Listing>,
    former: Former,
    /// When each role's metadata ends, in the order in which they are judged.
    expiries: [(RoleType, Timestamp); 4],
}

impl Client {
    /// Brings what is known of the repository at `remote` up to date. `root_json` is the root of trust out of
    /// the verified root; `datastore` a folder of the node's own, where what was seen before is kept; `now` in
    /// seconds since 1970, by a clock that the caller does not know to be wrong.
    ///
    /// # Errors
    /// Every kind of [`RepositoryError`] but those of documents. What was trusted before stays as it was, and
    /// the next call starts from there.
    pub fn update<'r>(
        root_json: &[u8],
        remote: &'r dyn Remote,
        datastore: &Path,
        now: i64,
    ) -> Result<Trusted<'r>, RepositoryError> {
        let now = Timestamp::from_second(now).map_err(|_| RepositoryError::Clock { seconds: now })?;
        let datastore = Datastore::open(datastore)?;
        if let Some(latest) = datastore.latest_known_time()?
            && now.as_second().saturating_add(SLEW) < latest.as_second()
        {
            return Err(RepositoryError::ClockWentBack { now, latest });
        }
        let shipped = trusted_root(root_json)?;
        // From where the node got last time: an older root has been replaced for a reason.
        let start = datastore.newest_root(shipped)?;
        let scratch = datastore.scratch()?;
        let (loaded, seen) = load(&start, remote, scratch.path())?;
        // Roots count as soon as they are verified, whatever becomes of the rest.
        let newest = datastore.keep_roots(&start, &seen.roots)?;
        let loaded = loaded.map_err(|error| told(*error, seen, remote, &newest))?;
        for (role, expires) in loaded.expiries {
            if expires < now {
                return Err(RepositoryError::Expired { role, since: expires, now });
            }
        }
        datastore.commit(scratch, now)?;
        Ok(Trusted { remote, releases: loaded.releases, former: loaded.former })
    }
}

impl Trusted<'_> {
    /// Every published version, by id, the newest first.
    pub fn releases(&self) -> &[Listing] {
        &self.releases
    }

    /// Whether `version` of `id` was published, and has been taken out since.
    pub fn was_published(&self, id: &str, version: &str) -> bool {
        self.former.image(id).is_some_and(|image| image.mark(version).is_some())
    }

    /// Fetches and verifies the release document of `listing`.
    ///
    /// # Errors
    /// `NotFound`, `Remote`, `TooLarge`, `Inconsistent`, `Document`, `FormatTooNew`, `OtherDocument`.
    pub fn document(&self, listing: &Listing) -> Result<Document, RepositoryError> {
        let path = listing.path();
        let limit = DOCUMENT_LIMIT;
        if listing.document.size > limit {
            return Err(RepositoryError::TooLarge { path, limit });
        }
        let bytes = fetch(self.remote, &path, listing.document.size)?;
        if Digest::of(&bytes) != listing.document.sha256 {
            return Err(RepositoryError::Inconsistent { path, by: "the list of releases".to_owned() });
        }
        parse(&bytes, listing, path)
    }
}

/// A document that is what `listing` says.
fn parse(bytes: &[u8], listing: &Listing, path: String) -> Result<Document, RepositoryError> {
    #[derive(serde::Deserialize)]
    struct Form {
        format: u32,
    }
    let form: Form = json::parse(bytes, limits::JSON_VALUES)
        .map_err(|source| RepositoryError::Document { path: path.clone(), source })?;
    if form.format > FORMAT {
        let (version, format, known) = (listing.version.clone(), form.format, FORMAT);
        return Err(RepositoryError::FormatTooNew { version, format, known });
    }
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|source| RepositoryError::Document { path: path.clone(), source })?;
    if document.id != listing.id || document.version != listing.version {
        return Err(RepositoryError::OtherDocument {
            path,
            id: document.id,
            version: document.version,
            wanted_id: listing.id.clone(),
            wanted_version: listing.version.clone(),
        });
    }
    Ok(document)
}

/// All of a file of at most `limit` bytes.
fn fetch(remote: &dyn Remote, path: &str, limit: u64) -> Result<Vec<u8>, RepositoryError> {
    let part = remote.open(path, None)?;
    let mut bytes = Vec::new();
    part.body
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| RemoteError::Failed { path: path.to_owned(), source: source.into() })?;
    if to_u64(bytes.len()) > limit {
        return Err(RepositoryError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

fn trusted_root(bytes: &[u8]) -> Result<Signed<Root>, RepositoryError> {
    let root: Signed<Root> = json::parse(bytes, limits::JSON_VALUES)
        .map_err(|error| RepositoryError::TrustedRoot { problem: error.to_string() })?;
    root.signed
        .verify_role(&root)
        .map_err(|error| RepositoryError::TrustedRoot { problem: error.to_string() })?;
    let version = root.signed.version.get();
    match version.checked_add(2 * MAX_ROOTS) {
        Some(_) => Ok(root),
        None => {
            let problem = format!("its version {version} leaves none for the roots after it");
            Err(RepositoryError::TrustedRoot { problem })
        }
    }
}

/// Most bytes of a metadata file.
fn limit(path: &str) -> u64 {
    if path.ends_with(".targets.json") { METADATA_LIMIT } else { SMALL_LIMIT }
}

/// Has `tough` do its work on a thread of its own, while this one reads from `remote` for it. The second part is
/// what it asked for.
fn load(
    start: &Signed<Root>,
    remote: &dyn Remote,
    scratch: &Path,
) -> Result<(Result<Loaded, Box<Tough>>, Seen), RepositoryError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|source| RepositoryError::Datastore { doing: "starting to verify".to_owned(), source })?;
    let root = metadata::bytes(start);
    serve(remote, limit, |transport| {
        let base = transport.base();
        let metadata = base.join("metadata/").expect("a folder below an address");
        let loader = RepositoryLoader::new(&root, metadata, base)
            .transport(transport)
            .datastore(scratch)
            .limits(Limits {
                max_root_size: SMALL_LIMIT,
                max_targets_size: METADATA_LIMIT,
                max_timestamp_size: SMALL_LIMIT,
                max_snapshot_size: SMALL_LIMIT,
                max_root_updates: MAX_ROOTS,
            })
            .expiration_enforcement(ExpirationEnforcement::Unsafe);
        let repository = runtime.block_on(loader.load()).map_err(Box::new)?;
        let targets = &repository.targets().signed;
        let expiries = [
            (RoleType::Root, repository.root().signed.expires()),
            (RoleType::Timestamp, repository.timestamp().signed.expires()),
            (RoleType::Snapshot, repository.snapshot().signed.expires()),
            (RoleType::Targets, targets.expires()),
        ];
        // What is remembered is told, and nothing more.
        let former = Former::read(targets).unwrap_or_default();
        Ok(Loaded { releases: release::listings(targets), former, expiries })
    })
}

/// What an error of `tough` means to an operator. `newest` is the last root that was verified.
fn told(error: Tough, seen: Seen, remote: &dyn Remote, newest: &Signed<Root>) -> RepositoryError {
    let path = seen.last.clone();
    match error {
        // What could be had, and was not what it should be: more bytes, or others.
        Tough::Transport { .. } | Tough::VersionMismatch { .. } => {
            if let Some(failure) = seen.failure {
                return failure;
            }
            let by = if path.contains("snapshot") { metadata::TIMESTAMP } else { "snapshot.json" };
            RepositoryError::Inconsistent { path, by: by.to_owned() }
        }
        Tough::OlderMetadata { role, current_version, new_version, .. } => {
            RepositoryError::Rollback { role, known: current_version, found: new_version }
        }
        Tough::OlderSnapshotInTimestamp { snapshot_new, snapshot_old, .. } => {
            RepositoryError::Rollback { role: RoleType::Snapshot, known: snapshot_old, found: snapshot_new }
        }
        Tough::SnapshotRoleRollback { old_role_version, new_role_version, .. } => RepositoryError::Rollback {
            role: RoleType::Targets,
            known: old_role_version,
            found: new_role_version,
        },
        Tough::VerifyMetadata { role, source, .. } => {
            let version = newest.signed.version.get();
            let missing = version + 1;
            let is_there = |version: &u64| {
                let path = format!("{}/{}", metadata::FOLDER, numbered(*version, RoleType::Root));
                remote.open(&path, None).is_ok()
            };
            let after = || (missing + 1..=missing + GAP).find(is_there);
            if role != RoleType::Root
                && let Some(there) = after()
            {
                return RepositoryError::MissingRoot { missing, there };
            }
            match source {
                Schema::SignatureThreshold { threshold, valid, .. } => {
                    RepositoryError::WrongKeys { role, path, version, needed: threshold, valid }
                }
                source => RepositoryError::Malformed { path, problem: source.to_string() },
            }
        }
        Tough::MaxUpdatesExceeded { max_root_updates, .. } => {
            RepositoryError::TooManyRoots { limit: max_root_updates }
        }
        Tough::ParseMetadata { source, .. } => {
            RepositoryError::Malformed { path, problem: source.to_string() }
        }
        Tough::DatastoreCreate { source, .. }
        | Tough::DatastoreOpen { source, .. }
        | Tough::DatastoreRemove { source, .. } => {
            RepositoryError::Datastore { doing: "keeping metadata".to_owned(), source }
        }
        error => RepositoryError::Malformed { path, problem: error.to_string() },
    }
}
