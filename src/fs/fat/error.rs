//! Why a FAT file system cannot be read.

use std::io;

/// Why a FAT file system cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No FAT32 file system.
    #[error("no FAT32 file system: {problem}")]
    NotFat32 {
        /// e.g. `the boot sector's signature is missing`.
        problem: String,
    },
    /// A number that cannot be right.
    #[error("damaged FAT file system: {path}: {problem}")]
    Corrupt {
        /// The file or folder.
        path: String,
        /// e.g. `its chain leads to cluster 1`.
        problem: String,
    },
    /// A path that is not there.
    #[error("{path} does not exist in the FAT file system")]
    NotFound {
        /// The path.
        path: String,
    },
    /// More than the caller wants.
    #[error("{path} has {size} bytes, but at most {limit} are expected")]
    TooLarge {
        /// The path.
        path: String,
        /// In bytes.
        size: u64,
        /// In bytes.
        limit: u64,
    },
    /// The disk.
    #[error("reading {path} in the FAT file system: {source}")]
    Io {
        /// The file or folder; `/` for the file system itself.
        path: String,
        /// What the disk said.
        source: io::Error,
    },
}

/// A number of `path`, or of `/` where that is empty, that cannot be right.
pub(super) fn corrupt(path: &str, problem: String) -> ReadError {
    let path = if path.is_empty() { "/" } else { path }.to_owned();
    ReadError::Corrupt { path, problem }
}
