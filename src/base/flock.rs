//! Locks between processes of one user, by flock(2): whoever may open the file may also hold the lock, so that nobody
//! else may open it.
//!
//! Source: flock(2); proc_locks(5).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Mode of a lock: for its owner alone.
const MODE: u32 = 0o600;

/// Opens the lock at `path`, made when missing, and closes it to others where an older version left it open to them.
///
/// # Errors
/// That of the system. Another user's lock cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
    let metadata = file.metadata()?;
    if metadata.mode() & 0o077 != 0 && metadata.uid() == rustix::process::geteuid().as_raw() {
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
    }
    Ok(file)
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
