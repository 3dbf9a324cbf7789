//! The store: what was downloaded or made once, by SHA-256, in a directory that any number of builds share.
//!
//! ```text
//! lock                     held shared while a store is open, exclusively while it is being swept
//! blobs/<2 hex>/<64 hex>   bytes that were verified before they got this name
//! derived/<kind>/<key>     what can be made again out of blobs, such as unpacked packages; sealed
//! rotten/                  what no longer was what its name says
//! tools/<name>/            programs for this host, unpacked
//! tools/<name>.seal        what is in them; sealed
//! ```
//!
//! A blob is verified by its name. What was derived has no digest that a lock could know, so each such file is
//! sealed (see [`crate::base::seal`]) with a key that lies outside of the store, see [`key`]. Without the key, or
//! with another one, everything derived is made anew.
//!
//! A file gets its name in one step and only when it is whole, so a process that is killed at any moment
//! leaves nothing to repair. Two processes that write the same thing at once each give it the same name.

mod derived;
mod doubt;
mod gc;
mod incoming;
pub mod key;
mod room;
mod tools;
mod trust;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_OMIT};

use crate::base::seal::{Key, SealError, Sealed};
use crate::base::{AtomicFile, Digest, Hasher, Size, flock, input};

pub use derived::CheckedDerived;
pub use gc::{Entry, Freed};
pub use incoming::Incoming;

use doubt::Doubts;

/// Tells backup programs to skip the folder; <https://bford.info/cachedir/>.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# The store of keller: everything here can be fetched again.\n";

/// The time of last use is written at most this often: a store that is only read should cause no writes.
const USE_GRANULARITY: Duration = Duration::from_secs(3600);

/// A folder of verified blobs; see the module. Threads share one by reference.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Holds the shared lock; none in a store that cannot be written, which nobody sweeps either.
    lock: Option<File>,
    /// Seals derived files.
    key: Key,
    /// Whether the key outlives this value: else derived files go to temporary files.
    keeps: bool,
    doubts: Arc<Doubts>,
}

/// With what rights a store is opened.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What derived files are sealed with. Without one, none that is there is believed, and none is left there.
    pub key: Option<Key>,
    /// Take a store that others can write.
    pub shared: bool,
}

/// What [`Store::open_verified`] found.
#[derive(Debug)]
pub enum Checked {
    /// The bytes are what the name says, and are verified once more when they are read.
    Good(Sealed),
    /// There is no such blob.
    Missing,
    /// The blob was something else and now lies at `moved_to`.
    Rotten {
        /// What its bytes hash to; none of what is not a file.
        actual: Option<Digest>,
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
    /// A file in it changed, or was found to have changed, while it was read.
    #[error("the store {} had a file that is not what it should be", .folder.display())]
    Unsound {
        /// The store.
        folder: PathBuf,
    },
    /// What is not what its name says is in the way and stays there, as in a store that cannot be written.
    #[error(
        "{} is not what its name says, and cannot be moved away ({source}): remove it, or name another directory by \
         --store or KELLER_STORE",
        .path.display()
    )]
    Stuck {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There are no random bytes for a key.
    #[error("making a key for the store: {0}")]
    Random(#[source] io::Error),
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
            | StoreError::Stuck { source, .. }
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

/// Opens a file for reading; `None` when nothing is there, or something that is no file and might block.
fn open_file(path: &Path) -> io::Result<Option<File>> {
    match input::open(path) {
        Err(error) if error.get_ref().is_some_and(|inner| inner.is::<input::NotAFile>()) => Ok(None),
        opened => if_exists(opened),
    }
}

/// Makes a directory and those above it, writable by nobody else whatever the umask.
fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
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

    /// Opens the store in the folder `root` for one use, with a key that nobody keeps: what is derived goes to
    /// temporary files. See [`Store::open_with`].
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(root, Access::default())
    }

    /// Opens the store in the folder `root`, which is made when missing, and keeps others from sweeping it
    /// for as long as the value lives. Waits while it is being swept.
    ///
    /// # Errors
    /// `Shared` when others than this user and root can write it, unless `access` says otherwise; `Folder` or `Io`
    /// of the disk.
    pub fn open_with(root: impl AsRef<Path>, access: Access) -> Result<Self> {
        let root = root.as_ref();
        let tag = root.join("CACHEDIR.TAG");
        if !access.shared {
            // Before anything is made: root leaves nothing of its own in the home of another user.
            trust::judge_place(root)?;
        }
        make_folder(&root.join("blobs"))
            .map_err(|source| StoreError::Folder { folder: root.to_owned(), source })?;
        if !access.shared {
            trust::judge(root)?;
        }
        // Not fatal: a store that is only read from can lie on a read-only disk.
        if !tag.exists() {
            let _ = crate::base::atomic::write(&tag, CACHEDIR_TAG);
        }
        let path = root.join("lock");
        let lock = match flock::open(&path).or_else(|_| input::open(&path)) {
            Ok(lock) => {
                rustix::fs::flock(&lock, FlockOperation::LockShared)
                    .map_err(|errno| failed("locking", &path)(errno.into()))?;
                Some(lock)
            }
            Err(_) => None,
        };
        let keeps = access.key.is_some();
        let key = access.key.map_or_else(key::random, Ok)?;
        Ok(Self { root: root.to_owned(), lock, key, keeps, doubts: Arc::default() })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.root.join("blobs").join(&hex[..2]).join(hex)
    }

    /// Whether the blob is there. Its bytes were verified when they came in; see [`Store::open_verified`].
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Whether the blob is there, for somebody whose lock names it: it counts as used, so that sweeping by
    /// age spares what builds need even if all of it was derived from it long ago.
    pub fn claim(&self, digest: &Digest) -> bool {
        let file = open_file(&self.blob_path(digest)).ok().flatten();
        file.inspect(note_use).is_some()
    }

    /// Opens a blob for reading; `None` when it is not there.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.blob_path(digest);
        let file = open_file(&path).map_err(failed("opening", &path))?;
        Ok(file.inspect(note_use))
    }

    /// Opens a blob after reading all of it, and moves it away if it has rotted on the disk. It does not
    /// count as used.
    pub fn open_verified(&self, digest: &Digest) -> Result<Checked> {
        let path = self.blob_path(digest);
        loop {
            let Some(file) = open_file(&path).map_err(failed("opening", &path))? else {
                return match fs::symlink_metadata(&path) {
                    Ok(_) => self.rotten(digest, None),
                    Err(_) => Ok(Checked::Missing),
                };
            };
            let opened = file.metadata().map_err(failed("reading", &path))?;
            let doubts = self.doubts.clone();
            let changed = move |error: &SealError| doubts.changed(error.to_string());
            let mut hasher = Hasher::new();
            let file = Sealed::as_shown(file, &path, &mut hasher, Box::new(changed));
            let file = file.map_err(failed("reading", &path))?;
            let actual = hasher.finish();
            if actual == *digest {
                return Ok(Checked::Good(file));
            }
            // Another process may have moved it away already, and fetched it again: that one is not to be lost.
            let same = |there: fs::Metadata| (there.dev(), there.ino()) == (opened.dev(), opened.ino());
            if fs::metadata(&path).is_ok_and(same) {
                return self.rotten(digest, Some(actual));
            }
        }
    }

    fn rotten(&self, digest: &Digest, actual: Option<Digest>) -> Result<Checked> {
        let moved_to = self.put_aside(&self.blob_path(digest), &digest.to_hex())?;
        self.doubts.blob(digest, &moved_to);
        Ok(Checked::Rotten { actual, moved_to })
    }

    /// Looks at blobs that were found wanting by whoever read them: those that are not what their names say are
    /// moved away, so that they are fetched again.
    pub fn examine<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
        digests.into_iter().try_for_each(|digest| self.open_verified(digest).map(drop))
    }

    /// Moves what is at `path` to where it can be looked at, under `name`.
    fn put_aside(&self, path: &Path, name: &str) -> Result<PathBuf> {
        let moved_to = self.root.join("rotten").join(name);
        let moved = make_folder(&self.root.join("rotten")).and_then(|()| {
            // The last one of this name makes way.
            let _ = fs::remove_file(&moved_to).or_else(|_| fs::remove_dir_all(&moved_to));
            if_exists(fs::rename(path, &moved_to))
        });
        moved.map_err(|source| StoreError::Stuck { path: path.to_owned(), source })?;
        Ok(moved_to)
    }

    /// Moves away a directory that is where the file `path` is to be, which no file could replace.
    fn make_way(&self, path: &Path) -> Result<()> {
        if !fs::symlink_metadata(path).is_ok_and(|there| there.is_dir()) {
            return Ok(());
        }
        let moved_to = self.put_aside(path, &self.flat_name(path))?;
        self.doubts.tell(format!(
            "{} is a directory, where keller has a file: it is now {}",
            path.display(),
            moved_to.display()
        ));
        Ok(())
    }

    /// A name for what is at `path` among all that was put aside.
    fn flat_name(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().replace('/', "-")
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

    /// An unnamed file that is to become `path`, of `size` bytes as far as is known.
    fn create(&self, path: &Path, size: u64) -> Result<AtomicFile> {
        self.make_way(path)?;
        let folder = path.parent().expect("files of the store lie in folders");
        make_folder(folder)
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
