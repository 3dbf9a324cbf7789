//! What this room needs from the outside: bytes by address, and a memory of what was worked out before.

use crate::base::Digest;

/// Brings files of an archive. Implemented over HTTP and the store; by a map or a folder in tests.
pub trait Upstream: Sync {
    /// The bytes at `url`. Where `expected` is given, no others than those of this digest and size are of
    /// use, so that a store may have them already; callers check again.
    fn get(&self, url: &str, expected: Option<(Digest, u64)>) -> Result<Vec<u8>, UpstreamError>;

    /// What was kept under `key` by an earlier call of [`Upstream::keep`], maybe by another process.
    fn recall(&self, _key: &Digest) -> Option<Vec<u8>> {
        None
    }

    /// Remembers `bytes`, which can be made again at will, under `key`.
    fn keep(&self, _key: &Digest, _bytes: &[u8]) {}
}

/// Why an address gave no bytes.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The server is there, the file is not.
    #[error("there is no {url}")]
    NotFound {
        /// The address, without credentials.
        url: String,
    },
    /// Anything else: no route, a broken transfer, a refusal.
    #[error("getting {url}")]
    Failed {
        /// The address, without credentials.
        url: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// `root` and `path` as one address, with one slash between them.
pub fn join(root: &str, path: &str) -> String {
    format!("{}/{path}", root.trim_end_matches('/'))
}
