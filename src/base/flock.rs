//! Locks between processes of one user, by flock(2): whoever may open the file may also hold the lock, so nobody else may
//! open it.
//!
//! Source: flock(2); proc_locks(5).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Mode of a lock: for its owner alone.
const MODE: u32 = 0o600;

/// What a directory's group may do besides, where it may replace the lock anyway.
const GROUP: u32 = 0o060;

/// Opens the lock at `path`, made when missing, and closes it to others where an older version left it open to them. The
/// group of its directory may hold it too, if it may write to the directory: it shares the work that the lock guards.
///
/// # Errors
/// That of the system. Another user's lock cannot be opened, and what is not a regular file is none.
pub fn open(path: &Path) -> io::Result<File> {
    // Where others may write, a link would have this process change a file elsewhere.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mode = MODE | shared(path, &metadata);
    if metadata.mode() & 0o7777 != mode && metadata.uid() == rustix::process::geteuid().as_raw() {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(file)
}

/// What the lock's group may do with it.
fn shared(path: &Path, lock: &fs::Metadata) -> u32 {
    let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
    // In a sticky directory a member of the group cannot replace what is another's.
    let writes = |folder: &fs::Metadata| folder.mode() & 0o1020 == 0o020 && folder.gid() == lock.gid();
    if folder.is_some_and(|folder| writes(&folder)) { GROUP } else { 0 }
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub process: u32,
    /// The name of its program, where it still runs: a child can have taken the lock over.
    pub program: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}", self.process)?;
        match &self.program {
            Some(program) => write!(f, " ({})", program.escape_debug()),
            None => Ok(()),
        }
    }
}

/// The process that the kernel says holds the lock on `file`; what the file has says nothing of that. Nothing where
/// the kernel does not tell, as in a container of which the holder is no part.
pub fn holder(file: &File) -> Option<Holder> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let place =
        format!("{:02x}:{:02x}:{}", rustix::fs::major(device), rustix::fs::minor(device), metadata.ino());
    let process = holder_in(&fs::read_to_string("/proc/locks").ok()?, &place)?;
    let program = fs::read_to_string(format!("/proc/{process}/comm")).ok();
    Some(Holder { process, program: program.map(|name| name.trim_end().to_owned()) })
}

/// `1: FLOCK  ADVISORY  WRITE 4711 00:1b:42 0 EOF`; one that waits has `->` before its kind.
fn holder_in(locks: &str, place: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let [kind, _, _, process, where_] = std::array::from_fn(|_| words.next().unwrap_or_default());
        // Zero is a process that is not to be seen from here.
        (kind == "FLOCK" && where_ == place).then(|| process.parse().ok()).flatten().filter(|id| *id > 0)
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn nobody_else_may_open_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        open(&path).unwrap();
        assert_eq!(mode(), 0o600);
        for old in [0o644, 0o664, 0o666, 0o640] {
            fs::set_permissions(&path, fs::Permissions::from_mode(old)).unwrap();
            open(&path).unwrap();
            assert_eq!(mode(), 0o600, "{old:o}");
        }
    }

    #[test]
    fn a_group_that_may_write_beside_it_may_hold_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let of_directory = |mode| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            drop(open(&path).unwrap());
            fs::metadata(&path).unwrap().mode() & 0o7777
        };
        for (directory, lock) in
            [(0o700, 0o600), (0o755, 0o600), (0o775, 0o660), (0o2770, 0o660), (0o777, 0o660), (0o1777, 0o600)]
        {
            assert_eq!(of_directory(directory), lock, "{directory:o}");
        }
    }

    #[test]
    fn what_is_no_file_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::set_permissions(at("file"), fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        std::os::unix::fs::symlink("none", at("dangling")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
            .unwrap();
        for name in ["link", "dangling", "fifo", "."] {
            open(&at(name)).unwrap_err();
        }
        assert_eq!(fs::metadata(at("file")).unwrap().mode() & 0o7777, 0o644);
        assert!(!at("none").exists());
    }

    #[test]
    fn the_kernel_tells_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        fs::write(&path, "1").unwrap();
        let (ours, theirs) = (open(&path).unwrap(), open(&path).unwrap());
        flock(&theirs, FlockOperation::NonBlockingLockExclusive).unwrap();
        // A machine whose kernel hides it says nothing, and never something wrong.
        if let Some(holder) = holder(&ours) {
            assert_eq!(holder.process, std::process::id());
            assert!(holder.to_string().starts_with(&format!("process {} (", std::process::id())));
        }
    }

    #[test]
    fn lines_of_proc_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1b:42 0 EOF\n\
            2: FLOCK  ADVISORY  WRITE 4711 00:1b:42 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 99 00:1b:43 0 EOF\n\
            3: FLOCK  ADVISORY  WRITE 0 00:1b:44 0 EOF\n";
        assert_eq!(holder_in(locks, "00:1b:42"), Some(4711));
        assert_eq!(holder_in(locks, "00:1b:43"), None);
        assert_eq!(holder_in(locks, "00:1b:44"), None);
    }
}
