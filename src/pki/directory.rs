//! Files of keys and certificates on the state partition, each written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::{Authority, Bundle, Error, Pair, Wanted};
use crate::base::atomic::AtomicFile;
use crate::base::failure::{Doing, Failure};
use crate::base::flock;
use crate::base::progress::Progress;

/// More than any of our files has, which are of some 1 KiB.
const MOST_BYTES: u64 = 64 << 10;
/// A lock that only its owner can open: whoever could open it could hold it for ever.
const LOCK: &str = "lock";
/// For those who may go in to their own file: nobody else learns even the names.
const DIRECTORY_MODE: u32 = 0o750;
const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// Whoever runs this: root, on a node.
    pub(super) fn this_process() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

/// A directory with keys, locked against another process that works on it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Who made it: root, on a node.
    keeper: Owner,
    _lock: File,
}

impl Directory {
    /// Opens `path`, which is made where it is missing, for its group `gid` to go in. What a power cut left half done
    /// is removed.
    pub fn open(path: &Path, gid: u32) -> Result<Self, Failure> {
        let keeper = Owner::this_process();
        let open = || -> io::Result<File> {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path.parent().unwrap_or(path))?;
            match fs::DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            // Only where it is otherwise: a member looks here every half a minute, and that is to write nothing.
            let meta = fs::metadata(path)?;
            if (meta.uid(), meta.gid()) != (keeper.uid, gid) {
                std::os::unix::fs::chown(path, Some(keeper.uid), Some(gid))?;
            }
            if meta.mode() & 0o7777 != DIRECTORY_MODE {
                fs::set_permissions(path, fs::Permissions::from_mode(DIRECTORY_MODE))?;
            }
            let lock = flock::open(&path.join(LOCK))?;
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
            sweep(path)?;
            Ok(lock)
        };
        let lock = open().doing(format!("opening {}", path.display()))?;
        Ok(Self { path: path.to_owned(), keeper, _lock: lock })
    }

    /// The authority in the file `name`; made where there is none, or none that can be used.
    pub fn authority(
        &self,
        name: &str,
        purpose: &str,
        now: i64,
        progress: &dyn Progress,
    ) -> Result<Authority, Failure> {
        let told = |cause: String| {
            progress.warn(&format!("{}: {cause}; it is made anew", self.path.join(name).display()));
        };
        if let Some(text) = self.read(name)? {
            match Authority::read(&text).map(|authority| (authority.flaw(now), authority)) {
                Ok((None, authority)) => {
                    self.write(name, authority.to_pem().as_bytes(), SECRET, self.keeper)?;
                    return Ok(authority);
                }
                Ok((Some(flaw), _)) => told(flaw.to_string()),
                Err(error) => told(error.to_string()),
            }
        }
        let authority =
            Authority::make(purpose).doing(format!("making {}", self.path.join(name).display()))?;
        self.write(name, authority.to_pem().as_bytes(), SECRET, self.keeper)?;
        Ok(authority)
    }

    /// Has the certificate of `authority` in the file `name`, for everybody who may go in. Says whether it was
    /// not there before.
    pub fn trust(&self, name: &str, authority: &Authority) -> Result<bool, Failure> {
        let before = self.read(name)?;
        let text = authority.certificate_pem();
        self.write(name, text.as_bytes(), PUBLIC, self.keeper)?;
        Ok(before.is_none_or(|before| before != text.as_bytes()))
    }

    /// Has `authorities` in the file `name`, for everybody who may go in. Says whether others were believed before.
    pub fn believe(&self, name: &str, authorities: &Bundle) -> Result<bool, Failure> {
        let before = self.read(name)?.and_then(|text| Bundle::read(&text).ok());
        self.write(name, authorities.to_pem().as_bytes(), PUBLIC, self.keeper)?;
        Ok(before.is_none_or(|before| !before.is_same(authorities)))
    }

    /// Has what is `wanted` in the file `name`, signed by `authority`, readable for `owner` alone. Says whether it was
    /// made anew.
    pub fn pair(
        &self,
        name: &str,
        wanted: &Wanted,
        owner: Owner,
        (authority, now): (&Authority, i64),
        progress: &dyn Progress,
    ) -> Result<bool, Failure> {
        let path = self.path.join(name);
        if let Some(text) = self.read(name)? {
            let cause = match Pair::read(&text) {
                Ok(pair) => match authority.flaw_of(&pair, wanted, now) {
                    None => return self.write(name, &text, SECRET, owner).map(|()| false),
                    Some(flaw) => flaw.to_string(),
                },
                Err(error) => error.to_string(),
            };
            progress.detail(&format!("{}: {cause}; it is made anew", path.display()));
        }
        let pair = authority.issue(wanted, now).doing(format!("making {}", path.display()))?;
        self.write(name, pair.to_pem().as_bytes(), SECRET, owner)?;
        Ok(true)
    }

    /// Has these bytes in the file `name`, readable for `owner` alone, or for everybody who may go in. Says whether they
    /// were not there before.
    pub fn put(&self, name: &str, bytes: &[u8], reader: Option<Owner>) -> Result<bool, Failure> {
        let before = self.read(name)?;
        let (mode, owner) = reader.map_or((PUBLIC, self.keeper), |owner| (SECRET, owner));
        self.write(name, bytes, mode, owner)?;
        Ok(before.is_none_or(|before| before != bytes))
    }

    /// Whether the file `name` has a pair that ends later than `other`, is what is `wanted`, and is signed by the authority
    /// that signed `other`, one of `authorities`.
    pub(super) fn has_later(
        &self,
        name: &str,
        wanted: &Wanted,
        authorities: &Bundle,
        other: &Pair,
    ) -> Result<bool, Failure> {
        let there = self.read(name)?.and_then(|text| super::read(&text, authorities, wanted).ok());
        let Some(there) = there else { return Ok(false) };
        let stays = || Ok::<_, Error>(there.issuer()? == other.issuer()? && there.ends()? > other.ends()?);
        stays().doing(format!("reading {name}"))
    }

    /// Removes the file `name`, if it is there.
    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::new(format!("removing {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path.join(name);
        let read = || -> io::Result<Vec<u8>> {
            let mut options = OpenOptions::new();
            // A fifo would wait for a writer, and a link would lead elsewhere.
            let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path)?;
            let mut bytes = Vec::new();
            file.take(MOST_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::new(format!("reading {}", path.display()), error)),
        }
    }

    /// Writes the file unless it has these bytes, this mode and this owner. It has mode and owner before it has a byte.
    fn write(&self, name: &str, bytes: &[u8], mode: u32, owner: Owner) -> Result<(), Failure> {
        let path = self.path.join(name);
        let is_there = || -> io::Result<bool> {
            let meta = fs::symlink_metadata(&path)?;
            let is_same = meta.is_file()
                && meta.mode() & 0o7777 == mode
                && (meta.uid(), meta.gid(), meta.nlink()) == (owner.uid, owner.gid, 1);
            Ok(is_same && fs::read(&path)? == bytes)
        };
        if is_there().unwrap_or(false) {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            let mut file = AtomicFile::create(&path)?;
            file.set_mode(mode)?;
            std::os::unix::fs::fchown(file.file(), Some(owner.uid), Some(owner.gid))?;
            file.file_mut().write_all(bytes)?;
            file.commit()?;
            // The name too.
            File::open(&self.path)?.sync_all()
        };
        write().doing(format!("writing {}", path.display()))
    }
}

/// Removes the stand-ins of files that were being replaced: see [`AtomicFile`].
fn sweep(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with('.') && text.ends_with(".tmp") {
            fs::remove_file(path.join(&name))?;
        }
    }
    Ok(())
}
