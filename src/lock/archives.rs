//! The archives of a manifest: names, roots, keys and suites.

use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::Manifest;
use crate::source::debian::packages::Source;
use crate::source::debian::release::{Keyring, KeyringError};
use crate::source::mirror::{DEBIAN, MirrorError, Mirrors, SECURITY};
use crate::source::url::{Url, UrlError};

/// One archive.
#[derive(Clone, Debug)]
pub struct Archive {
    /// [`DEBIAN`], [`SECURITY`] or a repository's name.
    pub name: String,
    /// Paths in locks are relative to it.
    pub root: Url,
    /// Who may sign its releases.
    pub keyring: Keyring,
    /// What is used of it.
    pub suites: Vec<Suite>,
}

/// A suite with the components that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// e.g. `trixie-updates`; a folder ending in `/` where the archive is flat.
    pub name: String,
    /// e.g. `main`.
    pub components: Vec<String>,
}

impl Archive {
    /// Where the indexes of `suite` lie.
    pub fn source<'a>(&'a self, suite: &'a Suite) -> Source<'a> {
        Source { root: &self.root, suite: &suite.name, components: &suite.components }
    }
}

/// All archives of a manifest. A version that several have is taken from the first.
#[derive(Clone, Debug)]
pub struct Archives(Vec<Archive>);

/// Why the archives are not complete.
#[derive(Debug, thiserror::Error)]
pub enum ArchivesError {
    /// No mirror for one of them is known, or its address is none.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// Locks could not tell two archives apart.
    #[error("the name {name} of a repository is taken by another archive")]
    NameTaken {
        /// As in the manifest.
        name: String,
    },
    /// An archive's keys cannot be read.
    #[error("reading {path}, the keys of the archive {name}")]
    Unreadable {
        /// As in the manifest.
        name: String,
        /// As in the manifest.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An archive's keys are none.
    #[error("reading {path}, the keys of the archive {name}")]
    Keys {
        /// As in the manifest.
        name: String,
        /// As in the manifest.
        path: PathBuf,
        /// Why.
        source: KeyringError,
    },
}

impl Archives {
    /// The archives that `manifest` names, Debian's own at `mirrors`. Reads the keys of its repositories.
    pub fn of(manifest: &Manifest, mirrors: &Mirrors) -> Result<Self, ArchivesError> {
        let debian = &manifest.debian;
        let suite = |name: String| Suite { name, components: debian.components.clone() };
        let updates = debian.updates.then(|| suite(format!("{}-updates", debian.suite)));
        let keys_of_debian = match &debian.keys {
            Some(path) => keyring(DEBIAN, path)?,
            None => Keyring::debian(),
        };
        let mut archives = vec![Archive {
            name: DEBIAN.to_owned(),
            root: mirrors.debian.clone(),
            keyring: keys_of_debian.clone(),
            suites: std::iter::once(suite(debian.suite.clone())).chain(updates).collect(),
        }];
        if debian.security {
            archives.push(Archive {
                name: SECURITY.to_owned(),
                root: mirrors.security()?.clone(),
                keyring: keys_of_debian,
                suites: vec![suite(format!("{}-security", debian.suite))],
            });
        }
        let roots = mirrors.archives(debian)?;
        for repository in &debian.repositories {
            let name = repository.name.clone();
            if archives.iter().any(|archive| archive.name == name) {
                return Err(ArchivesError::NameTaken { name });
            }
            let keyring = keyring(&name, &repository.keys)?;
            let suites =
                vec![Suite { name: repository.suite.clone(), components: repository.components.clone() }];
            archives.push(Archive { name, root: roots[&repository.name][0].clone(), keyring, suites });
        }
        Ok(Self(archives))
    }

    /// These very archives, for callers with keys of their own.
    pub fn from_parts(archives: Vec<Archive>) -> Self {
        Self(archives)
    }

    /// In order of preference among equal versions.
    pub fn iter(&self) -> std::slice::Iter<'_, Archive> {
        self.0.iter()
    }

    /// Address of a locked package: `archive` and `path` as in the lock. `None` for an unknown archive.
    pub fn url(&self, archive: &str, path: &str) -> Option<Result<Url, UrlError>> {
        self.iter().find(|other| other.name == archive).map(|archive| archive.root.join(path))
    }
}

/// The keys of the archive `name`.
fn keyring(name: &str, path: &Path) -> Result<Keyring, ArchivesError> {
    let (name, path) = (name.to_owned(), path.to_owned());
    match std::fs::read(&path) {
        Ok(bytes) => Keyring::read(&bytes).map_err(|source| ArchivesError::Keys { name, path, source }),
        Err(source) => Err(ArchivesError::Unreadable { name, path, source }),
    }
}
