//! A blob on its way in: hashed while it is written, named only when it is right.

use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use super::{Result, Store, StoreError, room};
use crate::base::{AtomicFile, Digest, Hasher};

/// Bytes moved at once between a reader and the disk.
const CHUNK: usize = 128 << 10;

/// A blob being written; dropping it leaves no trace. See [`Store::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    store: &'a Store,
    file: AtomicFile,
    path: PathBuf,
    hasher: Hasher,
    len: u64,
    expected: Option<Digest>,
    expected_size: Option<u64>,
    limit: u64,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(
        store: &'a Store,
        expected: Option<Digest>,
        expected_size: Option<u64>,
    ) -> Result<Self> {
        let path = match &expected {
            Some(digest) => store.blob_path(digest),
            None => store.root.join("blobs").join("incoming"),
        };
        let size = expected_size.unwrap_or(0);
        let file = store.create(&path, size)?;
        room::reserve(file.file(), size)
            .map_err(|error| store.write_error(error, "reserving", &path, size))?;
        let limit = expected_size.unwrap_or(u64::MAX);
        Ok(Self { store, file, path, hasher: Hasher::new(), len: 0, expected, expected_size, limit })
    }

    /// Refuses more than `limit` bytes.
    pub fn at_most(mut self, limit: u64) -> Self {
        self.limit = self.limit.min(limit);
        self
    }

    /// How many bytes have come so far.
    #[expect(clippy::len_without_is_empty, reason = "a count of progress, not of a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// How many bytes are to come at most.
    pub fn room(&self) -> u64 {
        self.limit - self.len
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `WrongSize` as soon as there are too many; `Full` or `Io` of the disk.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let len = self.len + bytes.len() as u64;
        if len > self.limit {
            return Err(StoreError::WrongSize { expected: self.limit, actual: len });
        }
        self.file.file_mut().write_all(bytes).map_err(|error| {
            self.store.write_error(error, "writing", &self.path, self.expected_size.unwrap_or(len))
        })?;
        self.hasher.update(bytes);
        self.len = len;
        Ok(())
    }

    /// Takes all that `reader` has.
    pub fn take_all(&mut self, reader: &mut impl Read) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.write(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::Read(error)),
            }
        }
    }

    /// Forgets what has come, for a source that cannot go on where it broke off.
    pub fn restart(&mut self) -> Result<()> {
        self.file.file_mut().rewind().map_err(super::failed("rewinding", &self.path))?;
        self.hasher = Hasher::new();
        self.len = 0;
        Ok(())
    }

    /// Checks size and digest, flushes to the disk and gives the blob its name, which is returned.
    ///
    /// # Errors
    /// `WrongSize` and `WrongDigest`; `Full` or `Io` of the disk.
    pub fn finish(mut self) -> Result<Digest> {
        if let Some(expected) = self.expected_size
            && expected != self.len
        {
            return Err(StoreError::WrongSize { expected, actual: self.len });
        }
        let actual = self.hasher.finish();
        if let Some(expected) = self.expected
            && expected != actual
        {
            return Err(StoreError::WrongDigest { expected, actual });
        }
        // More may have been written before a restart.
        self.file.file().set_len(self.len).map_err(super::failed("naming", &self.path))?;
        if self.expected.is_none() {
            self.path = self.store.blob_path(&actual);
            let folder = self.path.parent().expect("blobs lie in folders");
            super::make_folder(folder).map_err(super::failed("naming", &self.path))?;
            self.file.retarget(&self.path);
        }
        self.file.commit().map_err(|error| self.store.write_error(error, "writing", &self.path, self.len))?;
        self.store.note_claim(&actual);
        Ok(actual)
    }
}
