//! The store: what was downloaded or made once, by SHA-256, in a folder that any number of builds share.
//!
//! ```text
//! lock                     held shared while a store is open, exclusively while it is being swept
//! blobs/<2 hex>/<64 hex>   bytes that were verified before they got this name
//! derived/<kind>/<key>     what can be made again out of blobs, such as unpacked packages
//! rotten/<64 hex>          blobs that no longer were what their name says
//! tools/<name>/            programs for this host, unpacked
//! ```
//!
//! A file gets its name in one step and only when it is whole, so a process that is killed at any moment
//! leaves nothing to repair. Two processes that write the same thing at once each give it the same name.

mod gc;
mod incoming;
mod room;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_OMIT, XattrFlags};

use crate::base::{AtomicFile, Digest, Size, input};

pub use gc::{Entry, Freed};
pub use incoming::Incoming;

/// Tells backup programs to skip the folder; <https://bford.info/cachedir/>.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# The store of keller: everything here can be fetched again.\n";

/// The time of last use is written at most this often: a store that is only read should cause no writes.
const USE_GRANULARITY: Duration = Duration::from_secs(3600);

/// Carries the length of a derived file, see [`Store::derive`].
const LENGTH_XATTR: &str = "user.keller.length";

/// A folder of verified blobs; see the module. Threads share one by reference.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Holds the shared lock; none in a store that cannot be written, which nobody sweeps either.
    lock: Option<File>,
}

/// What [`Store::open_verified`] found.
#[derive(Debug)]
pub enum Checked {
    /// The bytes are what the name says.
    Good(File),
    /// There is no such blob.
    Missing,
    /// The blob was something else and now lies at `moved_to`.
    Rotten {
        /// What its bytes hash to.
        actual: Digest,
        /// Where it can be looked at.
        moved_to: PathBuf,
    },
}

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
            StoreError::WrongSize { .. } | StoreError::WrongDigest { .. } => io::ErrorKind::InvalidData,
            StoreError::InUse { .. } => io::ErrorKind::ResourceBusy,
            StoreError::NoFolder => io::ErrorKind::NotFound,
            StoreError::Read(source) | StoreError::Folder { source, .. } | StoreError::Io { source, .. } => {
                source.kind()
            }
        };
        Self::new(kind, error)
    }
}

/// Result of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Makes a [`StoreError::Io`].
fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

/// `Ok(None)` where nothing is.
fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Store {
    /// The folder that the user's environment asks for: `$KELLER_STORE`, else `$XDG_CACHE_HOME/keller`,
    /// else `$HOME/.cache/keller`.
    pub fn locate() -> Result<PathBuf> {
        Self::locate_in(|name| std::env::var_os(name).map(PathBuf::from))
    }

    fn locate_in(var: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
        let var = |name| var(name).filter(|path| !path.as_os_str().is_empty());
        if let Some(folder) = var("KELLER_STORE") {
            return std::path::absolute(&folder).map_err(failed("locating", &folder));
        }
        // The XDG Base Directory Specification has relative paths ignored.
        let absolute = |name| var(name).filter(|path| path.is_absolute());
        absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .map(|cache| cache.join("keller"))
            .ok_or(StoreError::NoFolder)
    }

    /// Opens the store in the folder `root`, which is made when missing, and keeps others from sweeping it
    /// for as long as the value lives. Waits while it is being swept.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let tag = root.join("CACHEDIR.TAG");
        fs::create_dir_all(root.join("blobs"))
            .map_err(|source| StoreError::Folder { folder: root.to_owned(), source })?;
        // Not fatal: a store that is only read from can lie on a read-only disk.
        if !tag.exists() {
            let _ = crate::base::atomic::write(&tag, CACHEDIR_TAG);
        }
        let path = root.join("lock");
        let opened = File::options().read(true).append(true).create(true).open(&path);
        let lock = match opened.or_else(|_| input::open(&path)) {
            Ok(lock) => {
                rustix::fs::flock(&lock, FlockOperation::LockShared)
                    .map_err(|errno| failed("locking", &path)(errno.into()))?;
                Some(lock)
            }
            Err(_) => None,
        };
        Ok(Self { root: root.to_owned(), lock })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.root.join("blobs").join(&hex[..2]).join(hex)
    }

    fn derived_path(&self, kind: &str, key: &str) -> PathBuf {
        for part in [kind, key] {
            assert!(
                !part.is_empty() && !part.starts_with('.') && !part.contains('/'),
                "{part:?} is no plain file name"
            );
        }
        self.root.join("derived").join(kind).join(key)
    }

    /// Whether the blob is there. Its bytes were verified when they came in; see [`Store::open_verified`].
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Whether the blob is there, for somebody whose lock names it: it counts as used, so that sweeping by
    /// age spares what builds need even if all of it was derived from it long ago.
    pub fn claim(&self, digest: &Digest) -> bool {
        input::open(self.blob_path(digest)).is_ok_and(|file| {
            note_use(&file);
            true
        })
    }

    /// Opens a blob for reading; `None` when it is not there.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.blob_path(digest);
        let file = if_exists(input::open(&path)).map_err(failed("opening", &path))?;
        if let Some(file) = &file {
            note_use(file);
        }
        Ok(file)
    }

    /// Opens a blob after reading all of it, and moves it away if it has rotted on the disk. It does not
    /// count as used.
    pub fn open_verified(&self, digest: &Digest) -> Result<Checked> {
        let path = self.blob_path(digest);
        let opened = if_exists(input::open(&path)).map_err(failed("opening", &path))?;
        let Some(mut file) = opened else { return Ok(Checked::Missing) };
        let (actual, _) = Digest::of_reader(&mut file).map_err(failed("reading", &path))?;
        if actual == *digest {
            io::Seek::rewind(&mut file).map_err(failed("reading", &path))?;
            return Ok(Checked::Good(file));
        }
        let folder = self.root.join("rotten");
        let moved_to = folder.join(digest.to_hex());
        fs::create_dir_all(&folder).map_err(failed("creating", &folder))?;
        if_exists(fs::rename(&path, &moved_to)).map_err(failed("moving away", &path))?;
        Ok(Checked::Rotten { actual, moved_to })
    }

    /// Takes in all bytes of `reader`, if they are what they should be and are not here yet.
    ///
    /// # Errors
    /// `WrongSize` and `WrongDigest`; `Read` when the reader fails; `Full` or `Io` of the disk.
    pub fn insert(&self, mut reader: impl Read, expected: &Digest, expected_size: Option<u64>) -> Result<()> {
        if self.has(expected) {
            return Ok(());
        }
        let mut incoming = self.incoming(Some(*expected), expected_size)?;
        incoming.take_all(&mut reader)?;
        incoming.finish().map(drop)
    }

    /// Takes in bytes that nobody promised a digest for, at most `limit` of them.
    pub fn receive(&self, mut reader: impl Read, limit: u64) -> Result<(Digest, u64)> {
        let mut incoming = self.incoming(None, None)?.at_most(limit);
        incoming.take_all(&mut reader)?;
        let size = incoming.len();
        Ok((incoming.finish()?, size))
    }

    /// Takes in `bytes`.
    pub fn import(&self, bytes: impl AsRef<[u8]>) -> Result<Digest> {
        let bytes = bytes.as_ref();
        let digest = Digest::of(bytes);
        self.insert(bytes, &digest, Some(bytes.len() as u64))?;
        Ok(digest)
    }

    /// Begins a blob that comes piece by piece. Nothing shows until [`Incoming::finish`].
    pub fn incoming(&self, expected: Option<Digest>, expected_size: Option<u64>) -> Result<Incoming<'_>> {
        Incoming::new(self, expected, expected_size)
    }

    /// Whether `bytes` more fit into the store, before any of them is fetched.
    ///
    /// # Errors
    /// `Full` when its file system has less than that.
    pub fn check_room(&self, bytes: u64) -> Result<()> {
        match room::free(&self.root) {
            Some(free) if free < bytes => {
                Err(StoreError::Full { folder: self.root.clone(), needed: bytes, free })
            }
            _ => Ok(()),
        }
    }

    /// Opens what was derived before; `None` when it has to be made.
    ///
    /// # Panics
    /// When `kind` or `key` is no plain file name.
    pub fn derived(&self, kind: &str, key: &str) -> Result<Option<File>> {
        let path = self.derived_path(kind, key);
        let Some(file) = if_exists(input::open(&path)).map_err(failed("opening", &path))? else {
            return Ok(None);
        };
        let metadata = file.metadata().map_err(failed("opening", &path))?;
        let mut noted = [0; 8];
        if let Ok(8) = rustix::fs::fgetxattr(&file, LENGTH_XATTR, &mut noted)
            && u64::from_le_bytes(noted) != metadata.len()
        {
            return Ok(None);
        }
        note_use(&file);
        Ok(Some(file))
    }

    /// Opens what was derived before, or else has `make` write it. `key` must name all that the bytes
    /// depend on, the version of their format included. The file is given for reading, from its start.
    ///
    /// Derived files are not flushed to the disk, as that would take longer than making them. A power cut
    /// may therefore leave one short under its name: the length is noted beside it, and one that does
    /// not match counts as absent.
    ///
    /// # Errors
    /// What `make` returns, and `Full` or `Io` of the store.
    ///
    /// # Panics
    /// When `kind` or `key` is no plain file name.
    pub fn derive<E: From<StoreError>>(
        &self,
        kind: &str,
        key: &str,
        make: impl FnOnce(&mut File) -> Result<(), E>,
    ) -> Result<File, E> {
        if let Some(file) = self.derived(kind, key)? {
            return Ok(file);
        }
        let path = self.derived_path(kind, key);
        let mut file = self.create(&path, 0)?;
        make(file.file_mut())?;
        let length = file.file().metadata().map_err(failed("writing", &path))?.len();
        let noted =
            rustix::fs::fsetxattr(file.file(), LENGTH_XATTR, &length.to_le_bytes(), XattrFlags::empty());
        let committed = if noted.is_ok() { file.commit_unsynced() } else { file.commit() };
        committed.map_err(|error| self.write_error(error, "writing", &path, length))?;
        Ok(input::open(&path).map_err(failed("opening", &path))?)
    }

    /// The folder of the unpacked tool `name`, which need not be there yet. It counts as used.
    pub fn tool(&self, name: &str) -> PathBuf {
        let folder = self.root.join("tools").join(name);
        if let Ok(folder) = File::open(&folder) {
            note_use(&folder);
        }
        folder
    }

    /// Forgets what was derived before and turned out to be unusable. It may be gone already.
    ///
    /// # Panics
    /// When `kind` or `key` is no plain file name.
    pub fn discard(&self, kind: &str, key: &str) -> Result<()> {
        let path = self.derived_path(kind, key);
        if_exists(fs::remove_file(&path)).map_err(failed("removing", &path)).map(drop)
    }

    /// An unnamed file that is to become `path`, of `size` bytes as far as is known.
    fn create(&self, path: &Path, size: u64) -> Result<AtomicFile> {
        let folder = path.parent().expect("files of the store lie in folders");
        fs::create_dir_all(folder)
            .and_then(|()| AtomicFile::create(path))
            .map_err(|error| self.write_error(error, "creating", path, size))
    }

    /// The error of a full disk, with the directory and the way out, if that is what `error` says, which came from
    /// writing to a file of the store; `needed` is the size of what was being written, as far as it is known.
    pub fn full(&self, error: &io::Error, needed: u64) -> Option<StoreError> {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let is_full = matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge);
        is_full.then(|| {
            let asked = error.get_ref().and_then(|inner| inner.downcast_ref::<room::NoRoom>());
            let free =
                asked.map(|no_room| no_room.free).or_else(|| room::free(&self.root)).unwrap_or_default();
            StoreError::Full { folder: self.root.clone(), needed, free }
        })
    }

    /// Tells a full disk from other errors; `needed` is the size of the file that was being written.
    fn write_error(&self, error: io::Error, doing: &'static str, path: &Path, needed: u64) -> StoreError {
        self.full(&error, needed).unwrap_or_else(|| failed(doing, path)(error))
    }
}

/// Notes that `file` was used just now, for sweeping by age. Best effort: the store may be read-only.
fn note_use(file: &File) {
    let stale = file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|used| used.elapsed().is_ok_and(|age| age > USE_GRANULARITY));
    if stale && let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        let _ = rustix::fs::futimens(
            file,
            &Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec {
                    tv_sec: now.as_secs() as i64,
                    tv_nsec: i64::from(now.subsec_nanos()),
                },
            },
        );
    }
}

#[cfg(test)]
mod tests;
