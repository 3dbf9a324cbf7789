//! Where the files of a repository are read from: a web server on a node, a folder in tests and for the
//! publisher. Whoever reads verifies; nothing here is trusted.

use std::io::{self, Read};
use std::ops::Range;

/// Static files under relative paths such as `blobs/SHA256`.
pub trait Remote: Send + Sync {
    /// Reads a file from its beginning, or the part of it that is asked for.
    ///
    /// A server that knows no ranges gives the whole file: then [`Part::start`] is 0, and the caller skips or
    /// takes what it can use of it.
    fn open(&self, path: &str, range: Option<Range<u64>>) -> Result<Part<'_>, RemoteError>;
}

/// A stretch of a file, on its way.
pub struct Part<'a> {
    /// Offset of its first byte in the file.
    pub start: u64,
    /// The bytes. Ends where the stretch ends, or with an error where the connection breaks.
    pub body: Box<dyn Read + Send + 'a>,
}

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The server says that there is none.
    #[error("{path} is not there")]
    Missing {
        /// As asked for.
        path: String,
    },
    /// The server, or the way to it, has failed.
    #[error("reading {path}")]
    Failed {
        /// As asked for.
        path: String,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<RemoteError> for io::Error {
    fn from(error: RemoteError) -> Self {
        let kind = match error {
            RemoteError::Missing { .. } => io::ErrorKind::NotFound,
            RemoteError::Failed { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
