//! The bytes of a regular file: in memory when small and made here, else a stretch of a file on disk.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::base::device::{ReadAt, Shared};
use crate::base::input::{self, TooLarge};
use crate::base::seal::{SealError, Sealed};
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, Fingerprint, Hasher, Size, limits};

/// Bytes of a file. Cloning is cheap: bodies are shared, never copied.
#[derive(Clone, Debug)]
pub enum Content {
    /// Held in memory: what the builder itself wrote.
    Bytes(Arc<[u8]>),
    /// A stretch of an open file, e.g. of an image.
    Slice {
        /// The file that has the bytes.
        file: Arc<File>,
        /// Where they begin, in bytes.
        offset: u64,
        /// How many they are.
        len: u64,
    },
    /// A stretch of what is no file, e.g. of an image that is unpacked as it is read.
    Device {
        /// What has the bytes.
        device: Arc<dyn Shared>,
        /// Where they begin, in bytes.
        offset: u64,
        /// How many they are.
        len: u64,
    },
    /// A stretch of a sealed file, e.g. of an unpacked package in the store, verified as it is read.
    Sealed {
        /// The file that has the bytes.
        file: Arc<Sealed>,
        /// Where they begin, in bytes.
        offset: u64,
        /// How many they are.
        len: u64,
    },
    /// A file of somebody else's, who may change it at any time.
    Foreign(Arc<Foreign>),
}

/// An open file of which [`Content`] is a stretch.
pub trait Bodies {
    /// The `len` bytes from byte `offset` on.
    fn stretch(&self, offset: u64, len: u64) -> Content;
}

impl Bodies for Arc<File> {
    fn stretch(&self, offset: u64, len: u64) -> Content {
        Content::Slice { file: self.clone(), offset, len }
    }
}

impl Bodies for Arc<Sealed> {
    fn stretch(&self, offset: u64, len: u64) -> Content {
        Content::Sealed { file: self.clone(), offset, len }
    }
}

/// For a tree that is made only to see whether it can be: every file in it is empty.
#[derive(Clone, Copy, Debug)]
pub struct NoBodies;

impl Bodies for NoBodies {
    fn stretch(&self, _offset: u64, _len: u64) -> Content {
        Content::from(Vec::new())
    }
}

/// A whole file that others may write to. It is opened for each reading, as a process may not have many files open,
/// and every reading finds the file of the first look, or fails. Once its digest is known, that is judged by its bytes: a
/// file system with coarse times does not tell two writes apart, and a write through a mapping may have no time.
#[derive(Debug)]
pub struct Foreign {
    path: PathBuf,
    seen: Seen,
    /// All its bytes, once somebody wanted their digest.
    shown: OnceLock<Shown>,
}

/// A digest, and what tells its bytes from others.
#[derive(Debug)]
struct Shown {
    digest: Digest,
    bytes: Sealed,
}

/// What changes with a file's bytes. Not the inode, which some file systems in user space give anew: a file that is put in
/// the place of another one has a time of change of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    len: u64,
    modified: (i64, i64),
    /// Nobody can set this one back.
    changed: (i64, i64),
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self {
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Somebody wrote to a file between two readings.
#[derive(Debug, thiserror::Error)]
#[error("{} changed while it was read: build again once nothing writes to it", .path.display())]
pub struct Changed {
    path: PathBuf,
}

/// Hashes as many bytes as there should be.
struct Hashing {
    hasher: Hasher,
    left: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One that grows as fast as it is read has no end.
        self.left = self.left.checked_sub(to_u64(bytes.len())).ok_or(io::ErrorKind::InvalidData)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Foreign {
    fn changed(&self) -> io::Error {
        io::Error::other(Changed { path: self.path.clone() })
    }

    fn look(&self, file: &File) -> io::Result<()> {
        match Seen::of(&file.metadata()?) == self.seen {
            true => Ok(()),
            false => Err(self.changed()),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(Shown { bytes, .. }) = self.shown.get() {
            return bytes.read_at(buffer, offset).map_err(|error| self.failed(error));
        }
        let file = input::open(&self.path)?;
        self.look(&file)?;
        file.read_exact_at(buffer, offset)?;
        self.look(&file)
    }

    fn failed(&self, error: io::Error) -> io::Error {
        match error.downcast() {
            Ok(SealError::Io { source, .. }) => source,
            Ok(_) => self.changed(),
            Err(error) => error,
        }
    }

    fn digest(&self) -> io::Result<Digest> {
        if let Some(shown) = self.shown.get() {
            return Ok(shown.digest);
        }
        let file = input::open(&self.path)?;
        self.look(&file)?;
        let mut hashing = Hashing { hasher: Hasher::new(), left: self.seen.len };
        let shown = Sealed::as_shown(file.try_clone()?, &self.path, &mut hashing, Box::new(|_| ()));
        let bytes = match shown {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(self.changed()),
            shown => shown?.closed(),
        };
        self.look(&file)?;
        if hashing.left > 0 {
            return Err(self.changed());
        }
        let digest = hashing.hasher.finish();
        Ok(self.shown.get_or_init(|| Shown { digest, bytes }).digest)
    }
}

/// Bytes of a file that take no room on the disk, and take as long to read as others.
pub(super) fn holes(metadata: &Metadata) -> u64 {
    metadata.len().saturating_sub(metadata.blocks().saturating_mul(512))
}

impl Content {
    /// The file at `path`, which is looked at now and read later.
    ///
    /// # Errors
    /// Those of [`input::open`], and more than [`limits::HOLES`].
    pub fn foreign(path: &Path) -> io::Result<Self> {
        let metadata = input::open(path)?.metadata()?;
        if holes(&metadata) > limits::HOLES {
            let text = format!("more than {} of it are holes", Size(limits::HOLES).human());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let seen = Seen::of(&metadata);
        Ok(Self::Foreign(Arc::new(Foreign { path: path.to_owned(), seen, shown: OnceLock::new() })))
    }

    /// The number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Slice { len, .. } | Self::Device { len, .. } | Self::Sealed { len, .. } => *len,
            Self::Foreign(foreign) => foreign.seen.len,
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from byte `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when the content ends before the buffer is full; else what the disk says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self {
            Self::Bytes(bytes) => {
                let start = to_usize(offset);
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
            Self::Slice { file, offset: base, .. } => file.read_exact_at(buffer, base + offset),
            Self::Device { device, offset: base, .. } => device.read_at(buffer, base + offset),
            Self::Sealed { file, offset: base, .. } => file.read_at(buffer, base + offset),
            Self::Foreign(foreign) => foreign.read_at(buffer, offset),
        }
    }

    /// All bytes, in memory.
    ///
    /// # Errors
    /// Those of the disk; [`TooLarge`] in an [`io::Error`] for more than [`limits::WHOLE_FILE`] bytes.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        if self.len() > limits::WHOLE_FILE {
            return Err(TooLarge { limit: limits::WHOLE_FILE }.into());
        }
        let mut bytes = vec![0; to_usize(self.len())];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// The digest of all bytes, which of a foreign file are read for it only once.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn digest(&self) -> io::Result<Digest> {
        match self {
            Self::Foreign(foreign) => foreign.digest(),
            _ => Ok(Digest::of_reader(&mut self.reader())?.0),
        }
    }

    /// Names the bytes without reading them, as by hashes of them that are known: where two contents have the same name,
    /// their bytes are the same. `None` where nothing is known of them.
    pub fn identity(&self) -> Option<Fingerprint> {
        match self {
            Self::Bytes(bytes) => Some(Fingerprint::of_parts("keller: bytes in memory", &[bytes])),
            Self::Sealed { file, offset, len } => file.identity(*offset, *len),
            Self::Foreign(foreign) => {
                let shown = foreign.shown.get()?;
                Some(Fingerprint::of_parts("keller: a file by its SHA-256", &[shown.digest.as_bytes()]))
            }
            Self::Slice { .. } | Self::Device { .. } => None,
        }
    }

    /// Reads the bytes in order.
    pub fn reader(&self) -> Reader<'_> {
        Reader { content: self, position: 0, ahead: Vec::new(), taken: 0 }
    }
}

impl<T: Into<Vec<u8>>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into().into())
    }
}

/// Bytes of a foreign file that are read at once, where less is asked for: every reading opens the file anew.
const AHEAD: usize = 256 << 10;

/// Reads a [`Content`] from its start.
#[derive(Debug)]
pub struct Reader<'a> {
    content: &'a Content,
    position: u64,
    /// The latest bytes of a foreign file, and how many of them were handed on.
    ahead: Vec<u8>,
    taken: usize,
}

impl Reader<'_> {
    /// Reads the next bytes, none at the end: it is looked at there as well.
    fn look_ahead(&mut self) -> io::Result<()> {
        let left = self.content.len() - self.position;
        self.ahead.resize(to_usize(left.min(to_u64(AHEAD))), 0);
        // Nothing of it may be handed on if this fails.
        self.taken = self.ahead.len();
        self.content.read_at(&mut self.ahead, self.position)?;
        self.taken = 0;
        Ok(())
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let is_foreign = matches!(self.content, Content::Foreign(_));
        let is_used_up = self.taken == self.ahead.len();
        let count = if is_foreign && (!is_used_up || buffer.len() < AHEAD) {
            if is_used_up {
                self.look_ahead()?;
            }
            let there = &self.ahead[self.taken..];
            let count = there.len().min(buffer.len());
            buffer[..count].copy_from_slice(&there[..count]);
            self.taken += count;
            count
        } else {
            let count = to_usize((self.content.len() - self.position).min(to_u64(buffer.len())));
            self.content.read_at(&mut buffer[..count], self.position)?;
            count
        };
        self.position += to_u64(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let told =
            || format!("{} changed while it was read: build again once nothing writes to it", path.display());
        for change in [
            (|path| std::fs::write(path, "three").unwrap()) as fn(&Path),
            |path| File::options().append(true).open(path).and_then(|file| file.set_len(90)).unwrap(),
            |path| {
                std::fs::write(path.with_extension("new"), "other").unwrap();
                std::fs::rename(path.with_extension("new"), path).unwrap();
            },
        ] {
            std::fs::write(&path, "seven").unwrap();
            let content = Content::foreign(&path).unwrap();
            assert_eq!(content.to_vec().unwrap(), b"seven");
            // Clocks of files tick every few milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(&path);
            assert_eq!(content.to_vec().unwrap_err().to_string(), told());
        }
    }

    /// What a file system with coarse times does not tell, and what nobody can see of a mapping.
    #[test]
    fn bytes_that_change_without_a_time_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let bytes = vec![1; AHEAD + 100];
        std::fs::write(&path, &bytes).unwrap();
        let content = Content::foreign(&path).unwrap();
        assert_eq!(content.digest().unwrap(), Digest::of(&bytes));
        assert_eq!(content.to_vec().unwrap(), bytes);
        let Content::Foreign(foreign) = &content else { unreachable!() };
        let file = File::options().write(true).open(&path).unwrap();
        for at in [0, to_u64(AHEAD) + 50] {
            file.write_all_at(&[2], at).unwrap();
            // As if the first look had been at this file: its times say nothing.
            let seen = Seen::of(&file.metadata().unwrap());
            let coarse = Foreign { path: path.clone(), seen, shown: OnceLock::new() };
            coarse.read_at(&mut [0], 0).unwrap();
            let told = foreign.read_at(&mut vec![0; AHEAD + 100], 0).unwrap_err().to_string();
            assert_eq!(
                told,
                format!(
                    "{} changed while it was read: build again once nothing writes to it",
                    path.display()
                )
            );
            file.write_all_at(&[1], at).unwrap();
            assert_eq!(content.to_vec().unwrap(), bytes);
        }
        // Longer and shorter, between the first look and the digest.
        for len in [to_u64(AHEAD), to_u64(AHEAD) + 200] {
            file.set_len(len).unwrap();
            let seen = Seen { len: to_u64(AHEAD) + 100, ..Seen::of(&file.metadata().unwrap()) };
            let other = Foreign { path: path.clone(), seen, shown: OnceLock::new() };
            assert!(other.digest().unwrap_err().get_ref().unwrap().is::<Changed>());
        }
    }

    #[test]
    fn a_foreign_file_is_opened_once_for_many_small_readings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let bytes: Vec<u8> = (0..AHEAD + 10).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let content = Content::foreign(&path).unwrap();
        for piece in [1000, AHEAD - 1, AHEAD, AHEAD + 1] {
            let (mut reader, mut read) = (content.reader(), Vec::<u8>::new());
            let mut buffer = vec![0; piece];
            while let count @ 1.. = reader.read(&mut buffer).unwrap() {
                read.extend(&buffer[..count]);
            }
            assert_eq!(read, bytes);
        }
        let mut reader = content.reader();
        let mut first = vec![0; AHEAD];
        reader.read_exact(&mut first[..10]).unwrap();
        std::fs::remove_file(&path).unwrap();
        reader.read_exact(&mut first[10..]).unwrap();
        assert_eq!(first, bytes[..AHEAD]);
        // It is looked for again where it goes on, and nothing is handed on that was not read.
        for _ in 0..2 {
            assert_eq!(reader.read(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn what_is_too_large_is_not_read_into_memory() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        let content = Content::Slice { file: file.into(), offset: 0, len: 1 << 40 };
        let said = content.to_vec().unwrap_err().to_string();
        assert_eq!(said, "it has more than the 64.0 MiB that are read of such a file");
    }
}
