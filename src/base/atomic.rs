//! A file that appears under its name whole or not at all.
//!
//! The bytes go to an unnamed file (`O_TMPFILE`), so that a process killed at any moment leaves nothing
//! behind. Where the file system has no unnamed files, a hidden temporary name stands in.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD};

use super::input::{self, NotAFile, Other};

/// A file being written; [`AtomicFile::commit`] gives it its name, dropping it leaves no trace.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    target: PathBuf,
    /// The stand-in name, where unnamed files do not exist.
    hidden: Option<PathBuf>,
}

/// Tells apart the hidden names that one process has in use.
static SERIAL: AtomicU64 = AtomicU64::new(0);

fn hidden_name(target: &Path) -> PathBuf {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{}.{serial}.tmp", std::process::id()))
}

/// Whether `name` is one that stands in until a file has its own; nobody needs it once its process has ended.
pub fn is_hidden(name: &str) -> bool {
    let parts = || name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.');
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    parts().is_some_and(|(rest, serial)| {
        is_number(serial) && rest.rsplit_once('.').is_some_and(|(_, process)| is_number(process))
    })
}

fn directory(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Waits until the name of `path`, as a commit or a rename gave it, is on the disk: with the bytes alone it need not be.
pub fn sync_name(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(above)?.sync_all()
}

/// Where a file that people name is to be written: at the end of its links, so that /dev/stdout stays what it is.
///
/// # Errors
/// [`NotAFile`] where a directory, a pipe or a device is there: none of them is meant to be replaced.
pub fn place(named: &Path) -> io::Result<PathBuf> {
    match input::in_the_way(named) {
        Some(other) => Err(io::Error::new(io::ErrorKind::InvalidInput, NotAFile(other))),
        // A link that leads nowhere is replaced.
        None if named.is_symlink() => Ok(fs::canonicalize(named).unwrap_or_else(|_| named.to_owned())),
        None => Ok(named.to_owned()),
    }
}

impl AtomicFile {
    /// Opens a file, readable and writable, that is to become `target`. Its directory must exist. A device, which may be all
    /// that programs have of it, is replaced by nothing.
    pub fn create(target: &Path) -> io::Result<Self> {
        if let Some(device @ (Other::CharDevice | Other::BlockDevice)) = input::in_the_way(target) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, NotAFile(device)));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o644);
        match options.clone().custom_flags(libc::O_TMPFILE).open(directory(target)) {
            Ok(file) => Ok(Self { file, target: target.to_owned(), hidden: None }),
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) =>
            {
                let hidden = hidden_name(target);
                let file = options.create_new(true).open(&hidden)?;
                Ok(Self { file, target: target.to_owned(), hidden: Some(hidden) })
            }
            Err(error) => Err(error),
        }
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The open file, for writers that want `&mut`.
    pub fn file_mut(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes it become `target` instead, in an existing folder of the same file system.
    pub fn retarget(&mut self, target: &Path) {
        self.target = target.to_owned();
    }

    /// Flushes the bytes to the disk and gives the file its name, replacing what had it.
    pub fn commit(self) -> io::Result<File> {
        self.file.sync_all()?;
        self.publish()
    }

    /// Gives the file its name without waiting for the disk: for what can be made again at will.
    pub fn commit_unsynced(self) -> io::Result<File> {
        self.publish()
    }

    fn publish(mut self) -> io::Result<File> {
        let hidden = match self.hidden.take() {
            Some(hidden) => hidden,
            // A new name in one step: whatever ends the process leaves nothing beside it.
            None if self.link(&self.target)? => return self.file.try_clone(),
            None => {
                // linkat cannot replace a file, hence the detour over a hidden name.
                let hidden = hidden_name(&self.target);
                if !self.link(&hidden)? {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                hidden
            }
        };
        if let Err(error) = fs::rename(&hidden, &self.target) {
            let _ = fs::remove_file(&hidden);
            return Err(error);
        }
        self.file.try_clone()
    }

    /// Gives the unnamed file the name `path`; `false` when something has that name.
    fn link(&self, path: &Path) -> io::Result<bool> {
        let handle = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match rustix::fs::linkat(CWD, handle.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sets the permission bits that the file will have, whatever the umask.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.file.set_permissions(fs::Permissions::from_mode(mode))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            let _ = fs::remove_file(hidden);
        }
    }
}

/// Writes `bytes` to `target`, whole or not at all.
pub fn write(target: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    use io::Write;
    let mut file = AtomicFile::create(target)?;
    file.file_mut().write_all(bytes.as_ref())?;
    file.commit().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_only_when_committed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        drop(AtomicFile::create(&target).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        write(&target, "one").unwrap();
        write(&target, "two").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_file_is_replaced_by_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
        link("/dev/null", "device");
        fs::write(at("file"), "old").unwrap();
        link("file", "link");
        link("gone", "dangling");
        rustix::fs::mknodat(CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let said = |path: &Path| place(path).unwrap_err().to_string();
        assert_eq!(said(&at("pipe")), "it is a pipe, not a regular file");
        assert_eq!(said(folder.path()), "it is a directory, not a regular file");
        let device = "it is a character device, not a regular file";
        assert_eq!((said(Path::new("/dev/null")), said(&at("device"))), (device.into(), device.into()));
        assert_eq!(write(&at("device"), "x").unwrap_err().to_string(), device);
        assert!(at("device").is_symlink());
        assert_eq!(place(&at("link")).unwrap(), fs::canonicalize(at("file")).unwrap());
        assert_eq!(place(&at("dangling")).unwrap(), at("dangling"));
        assert_eq!(place(&at("new")).unwrap(), at("new"));
    }
}
