//! Files that only the holder of a key could have written, verified as they are read.
//!
//! ```text
//! body
//! table                    of every chunk of 16 KiB its keyed BLAKE3, 32 bytes
//! footer, 64 bytes         magic 16, name of the key 8, length of the body 8, keyed BLAKE3 of length and table 32
//! ```
//!
//! Numbers are little-endian. The keys of chunks and table are derived from the holder's key, the kind and the name
//! of the file, so that a file is worth nothing under the name of another. The end of the file is written last, so
//! that one without a sound footer is not whole. What a reader is given was verified in the very buffer that it is
//! given, so that it does not matter what becomes of the file meanwhile.

mod read;
mod write;

use std::io;
use std::path::PathBuf;

pub use read::Sealed;
pub use write::Sealer;

use super::limits;
use crate::base::width::to_u64;

/// Bytes that are verified at once: enough for all lanes of BLAKE3, little enough for small files.
const CHUNK: usize = 16 << 10;

const MAGIC: &[u8; 16] = b"keller-sealed-1\n";

/// What the magic of every form begins with.
const FORMS: &[u8] = b"keller-sealed-";

/// Length of a hash in bytes.
const HASH: usize = 32;

const FOOTER: usize = 64;

/// The longest body that is believed, in bytes: as much as a package may unpack to, and what is kept beside its data.
/// Its table takes 32 MiB.
const LONGEST: u64 = limits::PACKAGE + limits::PACKAGE_INDEX;

/// What seals files; whoever knows it can make them. Never shown.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Takes 32 random bytes as a key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Tells keys apart without telling anything about them.
    fn name(&self) -> [u8; 8] {
        let hash = blake3::keyed_hash(&self.0, b"name");
        hash.as_bytes()[..8].try_into().expect("eight of 32 bytes")
    }

    fn derive(&self, purpose: &str, (kind, name): (&str, &str)) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in [purpose, kind, name] {
            hasher.update(&to_u64(part.len()).to_le_bytes()).update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// What one file is sealed with.
#[derive(Clone)]
struct Keys {
    name: [u8; 8],
    chunks: [u8; 32],
    table: [u8; 32],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", hex::encode(self.name))
    }
}

impl Keys {
    fn new(key: &Key, file: (&str, &str)) -> Self {
        Self { name: key.name(), chunks: key.derive("chunks", file), table: key.derive("table", file) }
    }

    fn of_table(&self, length: u64, table: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.table);
        hasher.update(&length.to_le_bytes()).update(table);
        hasher.finalize()
    }
}

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It has no seal, or is cut short.
    #[error("{} has no seal: {what}", .path.display())]
    Unsealed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Sealed in another form than this one reads.
    #[error("{} was sealed by another version of keller", .path.display())]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else sealed it, with a key that is not here.
    #[error("{} was sealed with another key", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It was changed after it was sealed, or is another file than its name says.
    #[error("{} is not what was sealed under this name: it was changed or moved, or the disk has damaged it", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("reading {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The error of the disk that is why a sealed file could not be read, without the file's name; any other error as it is.
pub fn of_disk(error: io::Error) -> io::Error {
    let kind = error.kind();
    match error.downcast() {
        Ok(SealError::Io { source, .. }) => source,
        Ok(other) => io::Error::new(kind, other),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests;
