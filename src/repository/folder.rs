//! A repository in a folder: read as nodes read it, and added to.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::base::width::to_u64;
use crate::base::{AtomicFile, Digest, Hasher, input, limits};
use crate::update::document::{BLOBS, Blob};
use crate::update::remote::{Part, Remote, RemoteError};

/// Static files below a folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Of `path`, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Of the repository's root.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Adds a file whose name follows from what `write` puts into it; one that is there already stays. It is on
    /// the disk afterwards.
    ///
    /// # Errors
    /// Those of `write`, and of the file.
    pub fn add_blob<T, E: From<io::Error>>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
    ) -> Result<(Blob, T), E> {
        let folder = self.0.join(BLOBS);
        fs::create_dir_all(&folder)?;
        let mut file = AtomicFile::create(&folder.join("new"))?;
        let mut out =
            Summed { out: BufWriter::with_capacity(1 << 20, file.file_mut()), sum: Hasher::new(), size: 0 };
        let made = write(&mut out)?;
        out.flush()?;
        let blob = Blob { size: out.size, sha256: out.sum.clone().finish() };
        drop(out);
        let path = self.0.join(blob.path());
        // What has rotted under its name is replaced by what should be there.
        let there = input::open(&path).and_then(|mut file| Digest::of_reader(&mut file));
        if !there.is_ok_and(|there| there == (blob.sha256, blob.size)) {
            file.retarget(&path);
            commit(file)?;
        }
        Ok((blob, made))
    }

    /// Adds a file of a name of its own, on the disk afterwards. One of the same bytes stays.
    pub(super) fn add(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(path);
        if input::read(&path, limits::TEXT.max(to_u64(bytes.len()))).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = AtomicFile::create(&path)?;
        file.file_mut().write_all(bytes)?;
        commit(file)
    }

    /// Removes a file; one that is gone already is as good.
    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        #[cfg(test)]
        super::testing::may_write()?;
        match fs::remove_file(self.0.join(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Returns when the names of a folder's files would survive a loss of power.
    pub(super) fn sync(&self, folder: &str) -> io::Result<()> {
        File::open(self.0.join(folder))?.sync_all()
    }
}

/// Every file of a repository gets its name here, so that the tests can end it before any of them does.
fn commit(file: AtomicFile) -> io::Result<()> {
    #[cfg(test)]
    super::testing::may_write()?;
    file.commit().map(drop)
}

impl Remote for Folder {
    fn open(&self, path: &str, range: Option<Range<u64>>) -> Result<Part<'_>, RemoteError> {
        let range = range.unwrap_or(0..u64::MAX);
        let open = || {
            let mut file = input::open(self.0.join(path))?;
            file.seek(SeekFrom::Start(range.start))?;
            Ok::<_, io::Error>(Box::new(file.take(range.end - range.start)))
        };
        match open() {
            Ok(body) => Ok(Part { start: range.start, body }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(RemoteError::Missing { path: path.to_owned() })
            }
            Err(error) => Err(RemoteError::Failed { path: path.to_owned(), source: Box::new(error) }),
        }
    }
}

/// Passes on what is written, and sums it.
struct Summed<W> {
    out: W,
    sum: Hasher,
    size: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.sum.update(&bytes[..count]);
        self.size += to_u64(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
