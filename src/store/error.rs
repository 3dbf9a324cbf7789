//! Why the store could not take or give something.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::{Digest, Size};

/// Why the store could not take or give something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// More or fewer bytes than were promised.
    #[error("expected {expected} bytes, but have {actual}")]
    WrongSize {
        /// As promised.
        expected: u64,
        /// As counted; of a stream that was too long, where it was cut off.
        actual: u64,
    },
    /// Other bytes than were promised.
    #[error("expected SHA-256 {expected}, but have {actual}")]
    WrongDigest {
        /// As promised.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// There is no folder to use.
    #[error("no directory for the store: set KELLER_STORE, XDG_CACHE_HOME or HOME to an absolute path")]
    NoFolder,
    /// The folder cannot be used.
    #[error("using {} for the store; --store or KELLER_STORE may name another directory", .folder.display())]
    Folder {
        /// The store.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk, or the user's share of it, is full.
    #[error(
        "no space left in {} for {} ({} free): \
         free some, run `keller store gc`, or name a directory elsewhere by --store or KELLER_STORE",
        .folder.display(), Size(*.needed).human(), Size(*.free).human()
    )]
    Full {
        /// The store.
        folder: PathBuf,
        /// Size of what was to be written, as far as it is known, in bytes.
        needed: u64,
        /// What the file system still has for this user, in bytes.
        free: u64,
    },
    /// Others can write it.
    #[error(
        "others can write the store {}, and whoever does so owns the images that are built out of it: {} {why}; {}, or \
         pass --allow-shared-store if you trust them as yourself",
        .folder.display(), .path.display(), way_out(.folder, .path, *.foreign)
    )]
    Shared {
        /// The store.
        folder: PathBuf,
        /// The directory that lets them.
        path: PathBuf,
        /// In what way.
        why: String,
        /// Whether it belongs to somebody else.
        foreign: bool,
    },
    /// Another user keeps a blob to themselves, as under the umask 077.
    #[error(
        "opening {}: {reason}: its owner lets others read it by `chmod -R a+rX {}`, or --store or KELLER_STORE may name \
         another directory",
        .path.display(), .folder.display()
    )]
    Closed {
        /// The directory of blobs.
        folder: PathBuf,
        /// The blob.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// A file in it changed, or was found to have changed, while it was read.
    #[error("the store {} had a file that is not what it should be", .folder.display())]
    Unsound {
        /// The store.
        folder: PathBuf,
    },
    /// What is not what its name says is in the way and stays there, as in a store that cannot be written.
    #[error(
        "{} is not what its name says, and cannot be moved away ({reason}): remove it, or name another directory by \
         --store or KELLER_STORE",
        .path.display()
    )]
    Stuck {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// There are no random bytes for a key.
    #[error("making a key for the store: {0}")]
    Random(#[source] io::Error),
    /// Nothing can be put into it.
    #[error(
        "{} is to be put into the store {}, which this user cannot write ({reason}): its owner can fetch it by the same \
         command, or --store or KELLER_STORE may name another directory",
        .path.display(), .folder.display()
    )]
    ReadOnly {
        /// The store.
        folder: PathBuf,
        /// The file that was to be made.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Who sweeps holds the lock, and this user cannot.
    #[error(
        "the store {} cannot be swept, as this user cannot hold its lock {} ({reason}): {}",
        .folder.display(), .folder.join("lock").display(), lock_way_out(.folder)
    )]
    NoLock {
        /// The store.
        folder: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// It cannot be swept while others use it.
    #[error("the store {} is in use by another keller: let it finish first", .folder.display())]
    InUse {
        /// The store.
        folder: PathBuf,
    },
    /// The source of the bytes failed, not the store.
    #[error("reading what is to be stored: {0}")]
    Read(#[source] io::Error),
    /// The disk failed.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was tried, such as `opening`.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Full { .. } => io::ErrorKind::StorageFull,
            StoreError::WrongSize { .. } | StoreError::WrongDigest { .. } | StoreError::Unsound { .. } => {
                io::ErrorKind::InvalidData
            }
            StoreError::InUse { .. } => io::ErrorKind::ResourceBusy,
            StoreError::NoFolder => io::ErrorKind::NotFound,
            StoreError::Shared { .. } => io::ErrorKind::PermissionDenied,
            StoreError::Random(source)
            | StoreError::Read(source)
            | StoreError::Folder { source, .. }
            | StoreError::Stuck { reason: source, .. }
            | StoreError::Closed { reason: source, .. }
            | StoreError::ReadOnly { reason: source, .. }
            | StoreError::NoLock { reason: source, .. }
            | StoreError::Io { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

fn way_out(folder: &Path, path: &Path, foreign: bool) -> String {
    match foreign {
        true => "name a directory of your own by --store or KELLER_STORE".to_owned(),
        // All of it at once: where one directory of a store is open, others are.
        false if path.starts_with(folder) => format!("close it by `chmod -R go-w {}`", folder.display()),
        false => format!("close it by `chmod go-w {}`", path.display()),
    }
}

/// What lets the store in `folder` be swept.
fn lock_way_out(folder: &Path) -> String {
    let lock = folder.join("lock");
    match fs::symlink_metadata(&lock) {
        Ok(there) if !there.is_file() => format!("{} is not a file, so remove it", lock.display()),
        Ok(there) if there.uid() != rustix::process::geteuid().as_raw() => {
            format!("run `keller store gc` as user {}, whose store it is", there.uid())
        }
        _ => "run `keller store gc` as somebody who can write it".to_owned(),
    }
}

/// Result of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Makes a [`StoreError::Io`].
pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

/// `Ok(None)` where nothing is.
pub(super) fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
