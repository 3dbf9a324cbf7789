//! What this room needs from the outside: bytes by address, and a memory of what was worked out before.

use super::checksum::Sha512;
use crate::base::{Digest, Progress};
use crate::http::url::Url;
use crate::http::{Cause, HttpError};
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

    /// The digests of the file at `url`, of at most `size` bytes, which can be had by [`Upstream::get`] from then on.
    fn receive(&self, url: &Url, size: u64, progress: &dyn Progress) -> Result<Received, UpstreamError>;

    /// What was kept under `key` by an earlier call of [`Upstream::keep`], maybe by another process.
    fn recall(&self, _key: &Digest) -> Option<Vec<u8>> {
        None
    }

    /// Remembers `bytes`, which can be made again at will, under `key`. Failure to do so costs time only.
    fn keep(&self, _key: &Digest, _bytes: &[u8]) {}
}

/// A file that came without a digest to hold it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// By which the store has it.
    pub sha256: Digest,
    /// What an archive may vouch with in its place.
    pub sha512: Sha512,
    /// In bytes.
    pub size: u64,
}

/// Why an address gave no bytes.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The server is there, the file is not.
    #[error("{}", missing(.url, *.forbidden))]
    NotFound {
        /// What was asked for.
        url: Url,
        /// Whether the server says 403, as object stores do of what is missing when nobody may list it.
        forbidden: bool,
    },
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
        match error.is_missing() {
            true => Self::NotFound { forbidden: !error.is_not_found(), url: error.url },
            false => Self::Http(Box::new(error)),
        }
    }
}

fn missing(url: &Url, forbidden: bool) -> String {
    match forbidden {
        true => format!("fetching {url}: {}", Cause::Unauthorized { status: 403, unread: String::new() }),
        false => format!("there is no {url}"),
    }
}
