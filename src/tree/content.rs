//! The bytes of a regular file: in memory when small and made here, else a stretch of a file on disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of a file. Cloning is cheap: bodies are shared, never copied.
#[derive(Clone, Debug)]
pub enum Content {
    /// Held in memory: what the builder itself wrote.
    Bytes(Arc<[u8]>),
    /// A stretch of an open file, e.g. of an unpacked package in the store.
    Slice {
        /// The file that has the bytes.
        file: Arc<File>,
        /// Where they begin, in bytes.
        offset: u64,
        /// How many they are.
        len: u64,
    },
}

impl Content {
    /// The number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Slice { len, .. } => *len,
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
                let start = offset as usize;
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
            Self::Slice { file, offset: base, .. } => file.read_exact_at(buffer, base + offset),
        }
    }

    /// All bytes, in memory. For files known to be small.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len() as usize];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Reads the bytes in order.
    pub fn reader(&self) -> Reader<'_> {
        Reader { content: self, position: 0 }
    }
}

impl<T: Into<Vec<u8>>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into().into())
    }
}

/// Reads a [`Content`] from its start.
#[derive(Debug)]
pub struct Reader<'a> {
    content: &'a Content,
    position: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (self.content.len() - self.position).min(buffer.len() as u64) as usize;
        self.content.read_at(&mut buffer[..count], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
