//! The store: what was downloaded or made once, by SHA-256, in a directory that any number of builds share.
//!
//! ```text
//! lock                     held shared while a store is open, exclusively while it is being swept
//! blobs/<2 hex>/<64 hex>   bytes that were verified before they got this name
//! derived/<kind>/<key>     what can be made again out of blobs, such as unpacked packages; sealed
//! rotten/                  what no longer was what its name says
//! tools/<name>/            programs for this host, unpacked
//! tools/<name>.seal        what is in them; sealed
//! tools/<name>.releases    blobs with the releases that they were resolved by; see [`Store::tool_notes`]
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
mod error;
mod gc;
mod incoming;
pub mod key;
mod room;
mod tools;
mod trust;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_OMIT};

use crate::base::chain::is_full;
use crate::base::seal::{Key, SealError, Sealed};
use crate::base::{AtomicFile, Digest, Hasher, flock, input, limits};

pub use derived::CheckedDerived;
pub use error::{Result, StoreError};
pub use gc::{Entry, Freed, Part};
pub use incoming::Incoming;
pub use tools::Tool;

use doubt::Doubts;
use error::{failed, if_exists};

/// Tells backup programs to skip the folder; <https://bford.info/cachedir/>.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# The store of keller: everything here can be fetched again.\n";

/// The time of last use is written at most this often: a store that is only read should cause no writes.
const USE_GRANULARITY: Duration = Duration::from_secs(3600);

/// What a file system says of bytes that it has lost. A network or a program between says other things, which pass.
const LOST: [i32; 3] = [libc::EIO, libc::EUCLEAN, libc::EBADMSG];

/// How often a blob is read that is another file each time before it counts as rotten.
const ROUNDS: u32 = 3;

/// A folder of verified blobs; see the module. Threads share one by reference.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Holds the shared lock, which keeps others from sweeping. Without it, as in a store of another user, whose lock is
    /// for its owner alone, what was there may be gone at any moment: see [`Store::claim`].
    lock: io::Result<File>,
    /// Blobs that were here, for which whoever asked will come.
    claimed: Mutex<BTreeSet<Digest>>,
    /// Seals derived files.
    key: Key,
    /// Whether the key outlives this value: else derived files go to temporary files.
    keeps: bool,
    /// Whether this value has put a derived file there.
    grown: AtomicBool,
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
        /// What its bytes hash to; none of what is not a file, or cannot be read.
        actual: Option<Digest>,
        /// Where it can be looked at.
        moved_to: PathBuf,
    },
}

/// Opens a file for reading; `None` when nothing is there, something that is no file and might block, or a link that leads
/// nowhere.
fn open_file(path: &Path) -> io::Result<Option<File>> {
    match input::open(path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENAMETOOLONG)) => Ok(None),
        Err(error) if error.get_ref().is_some_and(|inner| inner.is::<input::NotAFile>()) => Ok(None),
        // A file is in the place of its directory: whoever writes it makes way.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        opened => if_exists(opened),
    }
}

/// Whether a file was there to be opened. One that another user keeps to themselves is, and nobody else can fetch it again.
fn is_there(opened: &io::Result<Option<File>>) -> bool {
    match opened {
        Ok(file) => file.is_some(),
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// Makes a directory and those above it, writable by nobody else whatever the umask.
fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Removes what is at `path`, if that can be.
fn remove(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
}

/// Whether a directory, and no link to one, is at `path`.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| there.is_dir())
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
        // On a disk that cannot be written, reading is enough for a lock.
        let lock = flock::open(&path).or_else(|error| input::open(&path).map_err(|_| error));
        if let Ok(lock) = &lock {
            rustix::fs::flock(lock, FlockOperation::LockShared)
                .map_err(|errno| failed("locking", &path)(errno.into()))?;
        }
        let keeps = access.key.is_some();
        let key = access.key.map_or_else(key::random, Ok)?;
        Ok(Self {
            root: root.to_owned(),
            lock,
            claimed: Mutex::default(),
            key,
            keeps,
            grown: AtomicBool::new(false),
            doubts: Arc::default(),
        })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether this user can put anything into it.
    pub fn is_writable(&self) -> bool {
        let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::access(self.root.join("blobs"), access).is_ok()
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.root.join("blobs").join(&hex[..2]).join(hex)
    }

    /// Whether the blob is there. Its bytes were verified when they came in; see [`Store::open_verified`].
    pub fn has(&self, digest: &Digest) -> bool {
        is_there(&open_file(&self.blob_path(digest)))
    }

    /// Whether the blob is there, for somebody whose lock names it: it counts as used, so that sweeping by
    /// age spares what builds need even if all of it was derived from it long ago. One that is gone when it is read
    /// is told, and a reason to try again: see [`Store::is_mended`].
    pub fn claim(&self, digest: &Digest) -> bool {
        let opened = open_file(&self.blob_path(digest));
        let is_there = is_there(&opened);
        opened.ok().flatten().iter().for_each(note_use);
        match is_there {
            true => self.note_claim(digest),
            false => self.note_missing(digest),
        }
        is_there
    }

    fn note_claim(&self, digest: &Digest) {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest);
    }

    /// Opens a blob for reading; `None` when it is not there.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.blob_path(digest);
        match self.opened(&path)? {
            Some(file) => {
                note_use(&file);
                Ok(Some(file))
            }
            None => {
                self.note_missing(digest);
                Ok(None)
            }
        }
    }

    fn opened(&self, path: &Path) -> Result<Option<File>> {
        open_file(path).map_err(|reason| match reason.kind() {
            io::ErrorKind::PermissionDenied => {
                StoreError::Closed { folder: self.root.join("blobs"), path: path.to_owned(), reason }
            }
            _ => failed("opening", path)(reason),
        })
    }

    /// Opens a blob after reading all of it, and moves it away if it has rotted on the disk. It does not
    /// count as used.
    pub fn open_verified(&self, digest: &Digest) -> Result<Checked> {
        let path = self.blob_path(digest);
        for round in 1.. {
            let Some(file) = self.opened(&path)? else {
                return self.no_file(digest);
            };
            let opened = file.metadata().map_err(failed("reading", &path))?;
            let same = |there: fs::Metadata| (there.dev(), there.ino()) == (opened.dev(), opened.ino());
            if opened.len() > limits::DOWNLOAD {
                // Nothing as large was ever taken in. A hole costs its maker nothing, and its reader all day.
                return self.rotten(digest, None);
            }
            let doubts = self.doubts.clone();
            let changed = move |error: &SealError| doubts.changed(error.to_string());
            let mut hasher = Hasher::new();
            let shown = match Sealed::as_shown(file, &path, &mut hasher, Box::new(changed)) {
                // What the disk no longer gives is as bad as what it gives wrongly.
                Err(error) if error.raw_os_error().is_some_and(|number| LOST.contains(&number)) => None,
                shown => Some(shown.map_err(failed("reading", &path))?),
            };
            let actual = shown.is_some().then(|| hasher.finish());
            if let (Some(file), true) = (shown, actual == Some(*digest)) {
                return Ok(Checked::Good(file));
            }
            // Another process may have moved it away already, and fetched it again: that one is not to be lost. Some
            // file systems number a file anew each time.
            if round == ROUNDS || fs::metadata(&path).is_ok_and(same) {
                return self.rotten(digest, actual);
            }
        }
        unreachable!("the last round ends it")
    }

    /// A blob in whose place is no file: it is missing, or something else is there.
    fn no_file(&self, digest: &Digest) -> Result<Checked> {
        if fs::symlink_metadata(self.blob_path(digest)).is_ok() {
            return self.rotten(digest, None);
        }
        self.note_missing(digest);
        Ok(Checked::Missing)
    }

    /// Tells a blob that was promised to a build and is gone.
    fn note_missing(&self, digest: &Digest) {
        let is_gone = fs::symlink_metadata(self.blob_path(digest)).is_err();
        if is_gone && self.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(digest) {
            self.doubts.gone(digest, &self.root, self.lock.as_ref().err());
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
        let moved_to = self.put_kind_aside(path, name, is_folder(path))?;
        Ok(moved_to.unwrap_or_else(|| self.root.join("rotten").join(name)))
    }

    /// The same of a directory, or else of anything but one. `None` if the other kind is at `path` by now, or nothing:
    /// somebody else has mended it, and it stays.
    fn put_kind_aside(&self, path: &Path, name: &str, is_folder: bool) -> Result<Option<PathBuf>> {
        let folder = self.root.join("rotten");
        let moved_to = folder.join(name);
        if folder.is_symlink() {
            // What it leads to is not keller's to fill.
            let _ = fs::remove_file(&folder);
        }
        let moved = make_folder(&folder).and_then(|()| {
            // rename(2) replaces a file by no directory, and a directory by nothing else.
            let place = match is_folder {
                true => tempfile::tempdir_in(&folder)?.keep(),
                false => tempfile::NamedTempFile::new_in(&folder)?.into_temp_path().keep()?,
            };
            if let Err(error) = fs::rename(path, &place) {
                remove(&place);
                use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
                return match error.kind() {
                    NotFound | IsADirectory | NotADirectory => Ok(None),
                    _ => Err(error),
                };
            }
            // The last one of this name makes way.
            remove(&moved_to);
            fs::rename(&place, &moved_to)?;
            Ok(Some(moved_to))
        });
        moved.map_err(|reason| StoreError::Stuck { path: path.to_owned(), reason })
    }

    /// Moves away what is where the file `path` is to be and no file could replace: a directory, or a file in the place
    /// of one that is to hold it.
    fn make_way(&self, path: &Path) -> Result<()> {
        // Each is asked for once: what was not there a moment ago may be another thread's directory by now.
        let blocks = |folder: &&Path| match fs::symlink_metadata(folder) {
            Ok(there) if there.is_symlink() => !folder.is_dir(),
            Ok(there) => !there.is_dir(),
            Err(_) => false,
        };
        let mut below = path.ancestors().skip(1).take_while(|folder| *folder != self.root);
        if let Some(file) = below.find(blocks) {
            return self.make_way_of(file, false, "is not a directory, where keller has one");
        }
        match is_folder(path) {
            true => self.make_way_of(path, true, "is a directory, where keller has a file"),
            false => Ok(()),
        }
    }

    fn make_way_of(&self, path: &Path, is_folder: bool, what: &str) -> Result<()> {
        if let Some(moved_to) = self.put_kind_aside(path, &self.flat_name(path), is_folder)? {
            self.doubts.tell(format!("{} {what}: it is now {}", path.display(), moved_to.display()));
        }
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
        make_folder(folder).and_then(|()| AtomicFile::create(path)).map_err(|error| {
            match is_read_only(&error) {
                true => {
                    StoreError::ReadOnly { folder: self.root.clone(), path: path.to_owned(), reason: error }
                }
                false => self.write_error(error, "creating", path, size),
            }
        })
    }

    /// The error of a full disk, with the directory and the way out, if that is what `error` says, which came from
    /// writing to a file of the store; `needed` is the size of what was being written, as far as it is known.
    pub fn full(&self, error: &io::Error, needed: u64) -> Option<StoreError> {
        is_full(error).then(|| {
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

/// A store on a read-only disk, or of somebody else.
fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
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
                    tv_sec: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(now.subsec_nanos()),
                },
            },
        );
    }
}

#[cfg(test)]
mod tests;
