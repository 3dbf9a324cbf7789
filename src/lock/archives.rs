//! The archives of a manifest: names, roots, keys and suites.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::{input, limits};
use crate::http::url::{Url, UrlError};
use crate::manifest::Manifest;
use crate::source::debian::packages::Source;
use crate::source::debian::release::{Keyring, KeyringError};
use crate::source::mirror::list::Mirror;
use crate::source::mirror::{DEBIAN, MirrorError, Mirrors, SECURITY};

/// One archive.
#[derive(Clone, Debug)]
pub struct Archive {
    /// [`DEBIAN`], [`SECURITY`] or a repository's name.
    pub name: String,
    /// Where it is: asked one after the other until one has what is wanted. Paths in locks are relative to the root of
    /// any of them.
    pub mirrors: Vec<Mirror>,
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
    /// Where the indexes of `suite` lie: one for each mirror that has them.
    pub fn sources<'a>(&'a self, suite: &'a Suite) -> impl Iterator<Item = Source<'a>> {
        let having = self.mirrors.iter().filter(|mirror| mirror.has_indexes(&suite.name, &suite.components));
        having.map(|mirror| Source { root: &mirror.root, suite: &suite.name, components: &suite.components })
    }
}

/// All archives of a manifest. A version that several have is taken from the first.
#[derive(Clone, Debug)]
pub struct Archives(pub Vec<Archive>);

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
            mirrors: mirrors.debian.clone(),
            keyring: keys_of_debian.clone(),
            suites: std::iter::once(suite(debian.suite.clone())).chain(updates).collect(),
        }];
        if debian.security {
            archives.push(Archive {
                name: SECURITY.to_owned(),
                mirrors: mirrors.security()?.to_vec(),
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
            let mirrors = roots[&repository.name].iter().cloned().map(Mirror::new).collect();
            archives.push(Archive { name, mirrors, keyring, suites });
        }
        Ok(Self(archives))
    }

    /// In order of preference among equal versions.
    pub fn iter(&self) -> std::slice::Iter<'_, Archive> {
        self.0.iter()
    }

    /// Addresses of a locked package, one for each mirror that may have it: `archive` and `path` as in the lock. None
    /// for an unknown archive.
    ///
    /// # Errors
    /// A path that leads out of the archive.
    pub fn urls(&self, archive: &str, path: &str) -> Result<Vec<Url>, UrlError> {
        let mirrors = self.iter().filter(|other| other.name == archive).flat_map(|archive| &archive.mirrors);
        mirrors.filter(|mirror| mirror.has_packages()).map(|mirror| mirror.root.join(path)).collect()
    }
}

/// The keys of the archive `name`.
fn keyring(name: &str, path: &Path) -> Result<Keyring, ArchivesError> {
    let (name, path) = (name.to_owned(), path.to_owned());
    match input::read(&path, limits::TEXT) {
        Ok(bytes) => Keyring::read(&bytes).map_err(|source| ArchivesError::Keys { name, path, source }),
        Err(source) => Err(ArchivesError::Unreadable { name, path, source }),
    }
}
