//! What archives said of their suites, kept in the store: what was resolved once can be resolved again out of it alone.
//!
//! The notes of what lies where are nobody's word: a release counts by its signature, as it does when it comes from a
//! mirror, an index by the digest in a release, and a package by the digest in an index. Whoever writes the notes
//! can offer an older release, as a mirror can.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::archives::{Archives, ArchivesError};
use super::online::{self, Online};
use crate::base::{Digest, Progress, input, limits};
use crate::http::url::Url;
use crate::manifest::Manifest;
use crate::source::debian::upstream::{Received, Upstream, UpstreamError};
use crate::source::mirror::list::Mirror;
use crate::source::mirror::{Mirrors, NamedBy};
use crate::store::{Checked, Store};

/// Stand for the roots of the archives, which nobody asks.
const ROOTS: [&str; 2] = ["file:///debian/", "file:///debian-security/"];

/// The suite and the file of it that `url` is of: no two archives of one manifest have the same.
fn name(url: &Url) -> &str {
    let path = url.path();
    path.rfind("/dists/").map_or(path, |at| &path[at + 1..])
}

/// Archives behind an HTTP client, whose releases are kept and noted.
pub struct Noting<'a> {
    online: Online<'a>,
    /// Digests of releases and signatures, by name.
    said: Mutex<BTreeMap<String, Digest>>,
}

impl<'a> Noting<'a> {
    /// Has heard nothing yet.
    pub fn new(online: Online<'a>) -> Self {
        Self { online, said: Mutex::default() }
    }

    /// The notes, a line each.
    pub fn notes(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().map(|(name, digest)| format!("{digest} {name}\n")).collect()
    }
}

impl Upstream for Noting<'_> {
    fn get(
        &self,
        url: &Url,
        expected: Option<(Digest, u64)>,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, UpstreamError> {
        let bytes = self.online.get(url, expected, progress)?;
        if expected.is_none() {
            // Where it cannot be kept, it is asked for again.
            if let Ok(digest) = self.online.store.import(&bytes) {
                self.online.store.claim(&digest);
                self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(name(url).to_owned(), digest);
            }
        }
        Ok(bytes)
    }

    fn receive(&self, url: &Url, size: u64, progress: &dyn Progress) -> Result<Received, UpstreamError> {
        self.online.receive(url, size, progress)
    }

    fn recall(&self, key: &Digest) -> Option<Vec<u8>> {
        self.online.recall(key)
    }

    fn keep(&self, key: &Digest, bytes: &[u8]) {
        self.online.keep(key, bytes);
    }
}

/// Archives as the store remembers them.
pub struct Kept<'a> {
    store: &'a Store,
    said: BTreeMap<String, Digest>,
    /// Names of what was asked for and is not there.
    missing: Mutex<BTreeSet<String>>,
}

impl<'a> Kept<'a> {
    /// What `notes` say; a line that says nothing is left out.
    pub fn new(store: &'a Store, notes: &str) -> Self {
        let said = notes.lines().filter_map(|line| {
            let (digest, name) = line.split_once(' ')?;
            Some((name.to_owned(), digest.parse().ok()?))
        });
        Self { store, said: said.collect(), missing: Mutex::default() }
    }

    /// The archives of `manifest`, for this upstream alone.
    ///
    /// # Errors
    /// Keys that cannot be read.
    pub fn archives(manifest: &Manifest) -> Result<Archives, ArchivesError> {
        let [debian, security] = ROOTS.map(|root| vec![Mirror::new(Url::root(root).expect("an address"))]);
        Archives::of(manifest, &Mirrors { debian, security, named_by: NamedBy::Manifest })
    }

    /// Names of what was asked for and is not in the store.
    pub fn missing(&self) -> Vec<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn none(&self, url: &Url) -> UpstreamError {
        let name = name(url);
        let file = name.rsplit('/').next().unwrap_or(name);
        // Of an index that is there in several forms, or by digest too, one name will do; and the release stands for
        // what is asked for in its absence.
        let is_another = name.contains("/by-hash/") || matches!(file, "Release" | "Release.gpg");
        if !is_another {
            let stem =
                file.rsplit_once('.').map_or(name, |(_, suffix)| &name[..name.len() - suffix.len() - 1]);
            self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(stem.to_owned());
        }
        UpstreamError::NotFound { url: url.clone(), forbidden: false }
    }
}

impl Upstream for Kept<'_> {
    fn get(
        &self,
        url: &Url,
        expected: Option<(Digest, u64)>,
        _: &dyn Progress,
    ) -> Result<Vec<u8>, UpstreamError> {
        let noted = || Some((*self.said.get(name(url))?, limits::RELEASE));
        let Some((digest, size)) = expected.or_else(noted) else { return Err(self.none(url)) };
        match self.store.open_verified(&digest)? {
            Checked::Good(blob) => input::read_open(blob.reader(), size).map_err(UpstreamError::Read),
            Checked::Missing | Checked::Rotten { .. } => Err(self.none(url)),
        }
    }

    fn receive(&self, url: &Url, _: u64, _: &dyn Progress) -> Result<Received, UpstreamError> {
        // A file that only its SHA-512 names: what its SHA-256 is was kept, or nobody can tell.
        Err(self.none(url))
    }

    fn recall(&self, key: &Digest) -> Option<Vec<u8>> {
        online::recall(self.store, key)
    }

    fn keep(&self, key: &Digest, bytes: &[u8]) {
        online::keep(self.store, key, bytes);
    }
}
