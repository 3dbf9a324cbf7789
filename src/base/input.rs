//! Files that people name: opened without waiting, and only if they are files.
//!
//! A pipe without a writer would wait for ever, a device such as /dev/zero never ends, and a directory gives an errno
//! that does not say so. What is read whole has a limit, which the error names.

use std::fmt;
use std::fs::{FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Size;
use crate::base::width::to_u64;

/// What a path leads to instead of a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is {0}, not a regular file")]
pub struct NotAFile(pub Other);

/// A kind of file that has no content of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// A directory.
    Directory,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// Something else.
    Unknown,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "a directory",
            Self::Pipe => "a pipe",
            Self::Socket => "a socket",
            Self::CharDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Unknown => "neither a file nor a directory",
        })
    }
}

impl Other {
    /// What `kind` is; nothing for a regular file.
    fn of(kind: FileType) -> Option<Self> {
        Some(match () {
            () if kind.is_file() => return None,
            () if kind.is_dir() => Self::Directory,
            () if kind.is_fifo() => Self::Pipe,
            () if kind.is_socket() => Self::Socket,
            () if kind.is_char_device() => Self::CharDevice,
            () if kind.is_block_device() => Self::BlockDevice,
            () => Self::Unknown,
        })
    }
}

/// More bytes than are read of such a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has more than the {} that are read of such a file", Size(*.limit).human())]
pub struct TooLarge {
    /// In bytes.
    pub limit: u64,
}

impl From<TooLarge> for io::Error {
    fn from(error: TooLarge) -> Self {
        Self::new(io::ErrorKind::FileTooLarge, error)
    }
}

fn judge(metadata: &Metadata, devices: bool) -> io::Result<()> {
    match Other::of(metadata.file_type()) {
        None => Ok(()),
        Some(Other::BlockDevice) if devices => Ok(()),
        Some(Other::Directory) => {
            Err(io::Error::new(io::ErrorKind::IsADirectory, NotAFile(Other::Directory)))
        }
        Some(other) => Err(io::Error::new(io::ErrorKind::InvalidInput, NotAFile(other))),
    }
}

fn opened(path: &Path, devices: bool) -> io::Result<std::fs::File> {
    // Asked before it is opened, as opening alone starts some devices, and again after it, as it may be another file
    // by then.
    judge(&std::fs::metadata(path)?, devices)?;
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    judge(&file.metadata()?, devices)?;
    Ok(file)
}

/// Opens the regular file at `path`, links followed.
///
/// # Errors
/// [`NotAFile`] in an [`io::Error`], or what the disk says.
pub fn open(path: impl AsRef<Path>) -> io::Result<std::fs::File> {
    opened(path.as_ref(), false)
}

/// Opens a regular file or a block device: what may hold a disk image.
///
/// # Errors
/// As [`open`].
pub fn open_disk(path: impl AsRef<Path>) -> io::Result<std::fs::File> {
    opened(path.as_ref(), true)
}

/// The bytes of the regular file at `path`, at most `limit` of them.
///
/// # Errors
/// As [`open`], and [`TooLarge`].
pub fn read(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    read_file(&open(path)?, limit)
}

/// What has more bytes than are wanted is not read up to there: a hole costs nothing but memory.
fn read_file(file: &std::fs::File, limit: u64) -> io::Result<Vec<u8>> {
    if file.metadata()?.len() > limit {
        return Err(TooLarge { limit }.into());
    }
    read_open(file, limit)
}

/// A private key that others on this machine can read or change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenToOthers {
    /// By the file's own permission bits.
    #[error(
        "it has mode {0:04o}, so that others can read or write it: `chmod 600` keeps it for its owner. If somebody may have \
         read it, replace it"
    )]
    File(u32),
    /// By those of its directory, in which everybody can put another file in its place.
    #[error(
        "everybody may write to its directory (mode {0:04o}), and can put another key in its place: `chmod o-w` ends that"
    )]
    Directory(u32),
}

/// The bytes of the regular file at `path`, which has a private key, at most `limit` of them.
///
/// # Errors
/// As [`read`], and [`OpenToOthers`].
pub fn read_private(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    let file = open(path)?;
    let metadata = file.metadata()?;
    let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    // As ssh judges it: a file of somebody else's is theirs to guard, such as one that a service manager lends.
    let mode = metadata.mode() & 0o7777;
    if metadata.uid() == rustix::process::geteuid().as_raw() && mode & 0o077 != 0 {
        return refused(OpenToOthers::File(mode));
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = std::fs::metadata(above)?.mode() & 0o7777;
    // In a sticky directory, such as /tmp, nobody moves what is another's.
    if mode & 0o1002 == 0o002 {
        return refused(OpenToOthers::Directory(mode));
    }
    read_file(&file, limit)
}

/// What stands at `path`, links followed, where a file is to be written; nothing where there is a file, or nothing.
pub fn in_the_way(path: impl AsRef<Path>) -> Option<Other> {
    Other::of(std::fs::metadata(path).ok()?.file_type())
}

/// The text of the regular file at `path`, at most `limit` bytes of it.
///
/// # Errors
/// As [`read`]; `InvalidData` when it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, limit: u64) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text");
    String::from_utf8(read(path, limit)?).map_err(not_text)
}

/// Whether `path` names a pipe that this process was given, as a shell writes `<(COMMAND)`: by the number of an open
/// file. Nothing that lies on a disk under such a name is meant.
pub fn is_given_pipe(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let number = ["/dev/fd", "/proc/self/fd"].iter().find_map(|directory| path.strip_prefix(directory).ok());
    let is_number = number
        .and_then(Path::to_str)
        .is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let is_pipe = || std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    (is_number || path == Path::new("/dev/stdin")) && is_pipe()
}

/// All that is written to the pipe at `path`, which [`is_given_pipe`], at most `limit` bytes. Waits for it as long as
/// somebody could write, and calls `waiting` once when nothing has come for `patience`.
///
/// # Errors
/// [`TooLarge`], `UnexpectedEof` where nothing was written, or what the system says.
pub fn read_pipe(
    path: impl AsRef<Path>,
    limit: u64,
    patience: Duration,
    waiting: &mut dyn FnMut(),
) -> io::Result<Vec<u8>> {
    // Opened anew, so that not to block it is this reader's alone.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut pipe = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    if !pipe.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no longer a pipe"));
    }
    let (mut bytes, mut patience) = (Vec::new(), Some(patience));
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) if bytes.is_empty() => {
                let nothing = "nothing was written to it: the command that was to do so may have failed";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, nothing));
            }
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let limit = patience.map(|time| Timespec {
                    tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(time.subsec_nanos()),
                });
                let mut polled = [PollFd::new(&pipe, PollFlags::IN)];
                match poll(&mut polled, limit.as_ref()) {
                    Ok(0) => {
                        patience = None;
                        waiting();
                    }
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > limit {
            return Err(TooLarge { limit }.into());
        }
    }
}

/// What is left of `reader`, at most `limit` bytes of it.
///
/// # Errors
/// [`TooLarge`], or what the reader says.
pub fn read_open(reader: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match to_u64(bytes.len()) > limit {
        true => Err(TooLarge { limit }.into()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe without a writer, at a path of its own.
    fn pipe(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        path
    }

    #[test]
    fn only_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("pipe", &link).unwrap();
        for (path, what) in [
            (pipe(folder.path()), "a pipe"),
            (link, "a pipe"),
            (folder.path().to_owned(), "a directory"),
            (socket, "a socket"),
            ("/dev/zero".into(), "a character device"),
        ] {
            let said = open(&path).unwrap_err().to_string();
            assert_eq!(said, format!("it is {what}, not a regular file"), "{path:?}");
            assert_eq!(read(&path, 1).unwrap_err().to_string(), said);
            assert_eq!(open_disk(&path).unwrap_err().to_string(), said);
        }
    }

    /// A pipe as a shell hands it over, what keeps it open for reading, and its end for writing.
    fn given() -> (String, std::os::fd::OwnedFd, std::fs::File) {
        use std::os::fd::AsRawFd;
        let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (format!("/dev/fd/{}", reading.as_raw_fd()), reading, writing.into())
    }

    #[test]
    fn pipes_that_a_shell_hands_over() {
        use std::io::Write;
        let never = &mut || panic!("nobody has to wait");
        let read = |text: &[u8], limit, waiting: &mut dyn FnMut()| {
            let (path, _reading, mut writing) = given();
            assert!(is_given_pipe(&path) && is_given_pipe(path.replace("/dev", "/proc/self")));
            writing.write_all(text).unwrap();
            drop(writing);
            read_pipe(path, limit, Duration::from_secs(600), waiting)
        };
        assert_eq!(read(b"four", 4, never).unwrap(), b"four");
        assert!(read(b"four", 3, never).unwrap_err().to_string().starts_with("it has more than the 3 B"));
        assert!(read(b"", 3, never).unwrap_err().to_string().starts_with("nothing was written to it"));
        // Whoever takes long is waited for, in pieces too, which is told once.
        let (path, _reading, mut writing) = given();
        let (sender, told) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            told.recv().unwrap();
            writing.write_all(b"tw").unwrap();
            writing.write_all(b"o").unwrap();
        });
        let bytes = read_pipe(path, 9, Duration::from_millis(1), &mut || sender.send(()).unwrap());
        assert_eq!(bytes.unwrap(), b"two");
        writer.join().unwrap();
    }

    #[test]
    fn other_pipes_are_none_of_these() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(folder.path());
        let link = folder.path().join("3");
        std::os::unix::fs::symlink(given().0, &link).unwrap();
        let (_, reading, _writing) = given();
        let number = std::os::fd::AsRawFd::as_raw_fd(&reading);
        for path in [
            path.display().to_string(),
            link.display().to_string(),
            "/dev/fd".to_owned(),
            "/dev/fd/".to_owned(),
            "/dev/fd/999999".to_owned(),
            "/dev/null".to_owned(),
            format!("/dev/fd/{number}/../{number}"),
            format!("/proc/{}/fd/{number}", std::process::id()),
        ] {
            assert!(!is_given_pipe(&path), "{path}");
        }
    }

    #[test]
    fn the_limit_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, b"four").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"four");
        let said = read(&path, 3).unwrap_err().to_string();
        assert_eq!(said, "it has more than the 3 B that are read of such a file");
        // A hole costs nothing on the disk, and would cost as much memory as it is long.
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read_text(&path, 3).unwrap_err().to_string(), said);
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 3).unwrap_err().to_string(), "it is not UTF-8 text");
    }
}
