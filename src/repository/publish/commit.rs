//! Reads and writes the signed state of a repository.

use std::collections::HashMap;
use std::fs;
use std::io;

use jiff::Timestamp as Time;
use serde::de::DeserializeOwned;
use tough::schema::{Hashes, Metafile, Timestamp};

use super::*;
use crate::base::width::to_u64;
use crate::base::{input, json, limits};
use crate::repository::metadata::{FOLDER, TIMESTAMP, after, number_of};

/// A file that names another by its digest.
fn metafile(bytes: &[u8], version: u64) -> Metafile {
    Metafile {
        length: Some(to_u64(bytes.len())),
        hashes: Some(Hashes { sha256: Digest::of(bytes).as_bytes().to_vec().into(), _extra: HashMap::new() }),
        version: after(version - 1),
        _extra: HashMap::new(),
    }
}

/// The version after `version`, which `name` has: of the last that there can be, nodes would never see a newer one.
fn following(name: &str, version: u64) -> Result<std::num::NonZeroU64, PublishError> {
    match version.checked_add(1).and_then(std::num::NonZeroU64::new) {
        Some(next) => Ok(next),
        None => Err(PublishError::Damaged {
            path: format!("{FOLDER}/{name}"),
            problem: format!(
                "version {version} is the last that there can be, which no publisher comes to: restore the repository \
                 from a copy, or begin another one"
            ),
        }),
    }
}

impl Repository<'_> {
    fn metadata_path(&self, name: &str) -> PathBuf {
        self.folder.path().join(FOLDER).join(name)
    }

    /// Numbers that files of `role` have.
    pub(super) fn numbers(&self, role: RoleType) -> Result<Vec<u64>, PublishError> {
        let path = self.folder.path().join(FOLDER);
        let io = |source| PublishError::Folder { path: path.clone(), source };
        let entries = fs::read_dir(&path).map_err(io)?;
        let mut numbers = Vec::new();
        for entry in entries {
            numbers.extend(number_of(&entry.map_err(io)?.file_name().to_string_lossy(), role));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, PublishError> {
        let damaged = |problem| PublishError::Damaged { path: format!("{FOLDER}/{name}"), problem };
        match input::read(self.metadata_path(name), limits::TEXT) {
            Ok(bytes) => {
                json::parse(&bytes, limits::JSON_VALUES).map(Some).map_err(|error| damaged(error.to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    /// Whether `bytes` are a root of this repository.
    pub(super) fn is_published(&self, bytes: &[u8]) -> bool {
        let numbers = self.numbers(RoleType::Root).unwrap_or_default();
        numbers.into_iter().any(|number| {
            let path = self.metadata_path(&numbered(number, RoleType::Root));
            input::read(path, limits::TEXT).is_ok_and(|it| it == bytes)
        })
    }

    /// The newest root that is published, which must be one of the keys' own.
    pub(super) fn read_roots(&self) -> Result<Option<Signed<Root>>, PublishError> {
        let mut newest = None;
        for number in self.numbers(RoleType::Root)? {
            let name = numbered(number, RoleType::Root);
            let Some(root) = self.read::<Signed<Root>>(&name)? else { continue };
            let own = self.keys.roots().find(|own| own.signed.version.get() == number);
            if own.is_some_and(|own| own.signed != root.signed) {
                return Err(PublishError::OtherKeys { version: number, keys: self.keys.folder().to_owned() });
            }
            newest = Some(root);
        }
        let own = self.keys.root().signed.version.get();
        if let Some(newest) = &newest {
            let published = newest.signed.version.get();
            if published > own {
                return Err(PublishError::OldKeys { published, own, keys: self.keys.folder().to_owned() });
            }
            let oldest = self.keys.roots().next().map_or(own, |root| root.signed.version.get());
            if oldest > published + 1 {
                let keys = self.keys.folder().to_owned();
                return Err(PublishError::MissingRoot { missing: published + 1, keys });
            }
        } else if let Some(oldest) = self.keys.roots().next().map(|root| root.signed.version.get())
            && oldest > 1
        {
            return Err(PublishError::MissingRoot {
                missing: oldest - 1,
                keys: self.keys.folder().to_owned(),
            });
        }
        Ok(newest)
    }

    /// What `timestamp.json` leads to.
    pub(super) fn read_state(&self) -> Result<Option<State>, PublishError> {
        let Some(timestamp) = self.read::<Signed<Timestamp>>(TIMESTAMP)? else { return Ok(None) };
        self.check_signed(&timestamp, TIMESTAMP)?;
        let lacks = |name: &str, problem: &str| PublishError::Damaged {
            path: format!("{FOLDER}/{name}"),
            problem: problem.to_owned(),
        };
        let names = || lacks(TIMESTAMP, "it names no snapshot");
        let version = timestamp.signed.meta.get("snapshot.json").ok_or_else(names)?.version.get();
        let name = numbered(version, RoleType::Snapshot);
        let gone = |name: &str| lacks(name, "it is not there, and what names it is");
        let snapshot: Signed<Snapshot> = self.read(&name)?.ok_or_else(|| gone(&name))?;
        self.check_signed(&snapshot, &name)?;
        let names = || lacks(&name, "it names no list of releases");
        let targets = snapshot.signed.meta.get("targets.json").ok_or_else(names)?.version.get();
        let name = numbered(targets, RoleType::Targets);
        let targets: Signed<Targets> = self.read(&name)?.ok_or_else(|| gone(&name))?;
        self.check_signed(&targets, &name)?;
        Ok(Some(State {
            targets,
            snapshot: version,
            timestamp: timestamp.signed.version.get(),
            expires: timestamp.signed.expires,
        }))
    }

    /// Refuses metadata that neither the root that nodes know nor the newest one vouches for. None in between or
    /// before does: what a key may have been replaced for is not signed anew.
    fn check_signed<T: Role>(&self, signed: &Signed<T>, name: &str) -> Result<(), PublishError> {
        let mut roots = self.published_root.iter().chain([self.keys.root()]);
        if roots.any(|root| metadata::is_signed(root, signed)) {
            return Ok(());
        }
        let problem = "it is not signed by any of these keys".to_owned();
        Err(PublishError::Damaged { path: format!("{FOLDER}/{name}"), problem })
    }

    /// Signs by all keys at hand that `role` has in the newest root, or in one from that which nodes know on: each
    /// of them believes it.
    fn sign<T: Role>(&self, role: T) -> Result<Signed<T>, PublishError> {
        let newest = self.keys.root();
        let mut signers = self.keys.signers(&newest.signed, T::TYPE)?;
        let known = self.published_root.as_ref().map_or(newest.signed.version, |root| root.signed.version);
        let between = self.keys.roots().filter(|root| root.signed.version >= known);
        for root in between.chain(&self.published_root) {
            signers.extend(self.keys.some_signers(&root.signed, T::TYPE));
        }
        Ok(crate::repository::keys::sign(role, signers))
    }

    /// Makes `targets`, or what is there, the state that nodes see; gives when they stop to believe it.
    pub(super) fn commit(&mut self, targets: Option<Targets>, times: Times) -> Result<Time, PublishError> {
        let known = self.state.as_ref().map(|state| state.targets.signed.version.get());
        let (targets, fresh) = match (targets, &self.state) {
            (Some(mut targets), _) => {
                targets.version = self.next(RoleType::Targets, known.unwrap_or_default())?;
                (self.sign(targets)?, true)
            }
            (None, Some(state)) => (state.targets.clone(), false),
            (None, None) => return Err(PublishError::Empty { path: self.folder.path().to_owned() }),
        };
        let targets_name = numbered(targets.signed.version.get(), RoleType::Targets);
        let targets_bytes = match fresh {
            true => metadata::bytes(&targets),
            false => input::read(self.metadata_path(&targets_name), limits::TEXT)
                .map_err(|source| PublishError::Folder { path: self.metadata_path(&targets_name), source })?,
        };
        let version = self.next(RoleType::Snapshot, self.state.as_ref().map_or(0, |state| state.snapshot))?;
        let life = SNAPSHOT_LIFE.max(times.life * 2);
        let mut snapshot = Snapshot::new(metadata::SPEC_VERSION.to_owned(), version, whole(times.now + life));
        let meta = metafile(&targets_bytes, targets.signed.version.get());
        snapshot.meta.insert("targets.json".to_owned(), meta);
        if let Some(state) = &self.state {
            snapshot._extra = metadata::following(state.snapshot, whole(times.now));
        }
        let snapshot = self.sign(snapshot)?;
        let snapshot_bytes = metadata::bytes(&snapshot);
        let expires = whole(times.now + times.life);
        let version = following(TIMESTAMP, self.state.as_ref().map_or(0, |state| state.timestamp))?;
        let mut timestamp = Timestamp::new(metadata::SPEC_VERSION.to_owned(), version, expires);
        let meta = metafile(&snapshot_bytes, snapshot.signed.version.get());
        timestamp.meta.insert("snapshot.json".to_owned(), meta);
        let timestamp = self.sign(timestamp)?;

        if fresh {
            self.write(&targets_name, &targets_bytes)?;
        }
        self.write(&numbered(snapshot.signed.version.get(), RoleType::Snapshot), &snapshot_bytes)?;
        self.sync()?;
        self.write(TIMESTAMP, &metadata::bytes(&timestamp))?;
        self.state = Some(State {
            targets,
            snapshot: snapshot.signed.version.get(),
            timestamp: timestamp.signed.version.get(),
            expires,
        });
        self.sync()?;
        // Roots that come out believe what is there already. Only where the keys before them are gone are there
        // moments in which nodes have to try again.
        self.write_roots()?;
        self.sync()?;
        self.published_root = Some(self.keys.root().clone());
        Ok(expires)
    }

    /// A number that no file of `role` has had, so that none is rewritten.
    fn next(&self, role: RoleType, known: u64) -> Result<std::num::NonZeroU64, PublishError> {
        let last = self.numbers(role)?.last().copied().unwrap_or_default().max(known);
        following(&numbered(last, role), last)
    }

    /// All of them, should one have been lost; those that are there stay.
    fn write_roots(&self) -> Result<(), PublishError> {
        for root in self.keys.roots() {
            self.write(&numbered(root.signed.version.get(), RoleType::Root), &metadata::bytes(root))?;
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PublishError> {
        let path = format!("{FOLDER}/{name}");
        self.folder.add(&path, bytes).map_err(|source| PublishError::Write { path, source })
    }

    fn sync(&self) -> Result<(), PublishError> {
        let path = FOLDER.to_owned();
        self.folder.sync(FOLDER).map_err(|source| PublishError::Write { path, source })
    }
}
