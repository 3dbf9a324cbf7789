//! What this room needs from the outside: bytes by address, and a memory of what was worked out before.

use std::io::{Read, Write};

use crate::base::{Digest, Progress, Task, Unit};
use crate::source::http::{Client, HttpError};
use crate::source::url::Url;
use crate::store::{Store, StoreError};

/// The most bytes that a signed release may have; Debian's largest has 200 KB.
const RELEASE_LIMIT: u64 = 16 << 20;

/// The kind under which the store keeps what this room works out.
const DERIVED: &str = "package-index";

/// Brings files of an archive.
pub trait Upstream: Sync {
    /// The bytes at `url`. Where `expected` is given, no others than those of this digest and size are of
    /// use, so that a store may have them already; callers check again.
    fn get(&self, url: &Url, expected: Option<(Digest, u64)>) -> Result<Vec<u8>, UpstreamError>;

    /// What was kept under `key` by an earlier call of [`Upstream::keep`], maybe by another process.
    fn recall(&self, _key: &Digest) -> Option<Vec<u8>> {
        None
    }

    /// Remembers `bytes`, which can be made again at will, under `key`. Failure to do so costs time only.
    fn keep(&self, _key: &Digest, _bytes: &[u8]) {}
}

/// Why an address gave no bytes.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The server is there, the file is not.
    #[error("there is no {0}")]
    NotFound(Url),
    /// Anything else: no route, a broken transfer, a refusal.
    #[error(transparent)]
    Http(Box<HttpError>),
    /// The store is to blame.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the store cannot be read.
    #[error("reading a package index from the store")]
    Read(#[source] std::io::Error),
}

impl From<HttpError> for UpstreamError {
    fn from(error: HttpError) -> Self {
        if error.is_not_found() { Self::NotFound(error.url) } else { Self::Http(Box::new(error)) }
    }
}

/// The network, with a store that remembers indexes.
pub struct Network<'a> {
    /// Fetches.
    pub client: &'a Client,
    /// Remembers.
    pub store: &'a Store,
    /// Is told of downloads.
    pub progress: &'a dyn Progress,
}

impl Upstream for Network<'_> {
    fn get(&self, url: &Url, expected: Option<(Digest, u64)>) -> Result<Vec<u8>, UpstreamError> {
        let Some((digest, size)) = expected else { return Ok(self.client.get_small(url, RELEASE_LIMIT)?) };
        if !self.store.has(&digest) {
            let task = Task::new(self.progress, "downloading package index", size, Unit::Bytes);
            self.client.download(url, &digest, Some(size), self.store, &task)?;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        let blob = self.store.open_blob(&digest)?.ok_or_else(|| UpstreamError::NotFound(url.clone()))?;
        blob.take(size + 1).read_to_end(&mut bytes).map_err(UpstreamError::Read)?;
        Ok(bytes)
    }

    fn recall(&self, key: &Digest) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.store.derived(DERIVED, &key.to_hex()).ok()??.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn keep(&self, key: &Digest, bytes: &[u8]) {
        let write = |file: &mut std::fs::File| file.write_all(bytes);
        if let Err(error) = self.store.derive(DERIVED, &key.to_hex(), write) {
            self.progress.warn(&format!("a package index could not be kept for the next time: {error}"));
        }
    }
}
