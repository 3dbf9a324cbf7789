//! What this room needs from the outside: bytes by address, and a memory of what was worked out before.

use crate::base::{Digest, Progress};
use crate::source::http::HttpError;
use crate::source::url::Url;
use crate::store::StoreError;

/// Brings files of an archive. A map in memory does in tests.
pub trait Upstream: Sync {
    /// The bytes at `url`. Where `expected` is given, no others than those of this digest and size are of
    /// use, so that a store may have them already; callers check again.
    fn get(
        &self,
        url: &Url,
        expected: Option<(Digest, u64)>,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, UpstreamError>;

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
    #[error("there is no {0}: has the mirror this suite, and does its address end above `dists`?")]
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
