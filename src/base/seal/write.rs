//! Sealing a file while it is written.

use std::fs::File;
use std::io::{self, Write};

use super::{CHUNK, HASH, Key, Keys, MAGIC};
use crate::base::width::to_u64;

/// Writes the body of a sealed file, in order and once.
#[derive(Debug)]
pub struct Sealer<'a> {
    file: &'a File,
    keys: Keys,
    /// Of the chunk that is being filled.
    hasher: Box<blake3::Hasher>,
    /// Bytes of it so far.
    filled: usize,
    table: Vec<u8>,
    length: u64,
}

impl<'a> Sealer<'a> {
    /// Begins the file of this kind and name; `file` is empty.
    pub fn new(file: &'a File, key: &Key, kind: &str, name: &str) -> Self {
        let keys = Keys::new(key, (kind, name));
        let hasher = Box::new(blake3::Hasher::new_keyed(&keys.chunks));
        Self { file, keys, hasher, filled: 0, table: Vec::new(), length: 0 }
    }

    /// Bytes of the body so far.
    pub fn position(&self) -> u64 {
        self.length
    }

    /// Writes table and footer; the file is whole then.
    pub fn finish(mut self) -> io::Result<()> {
        if self.filled > 0 {
            self.end_chunk();
        }
        let hash = self.keys.of_table(self.length, &self.table);
        self.table.reserve(super::FOOTER);
        self.table.extend_from_slice(MAGIC);
        self.table.extend_from_slice(&self.keys.name);
        self.table.extend_from_slice(&self.length.to_le_bytes());
        self.table.extend_from_slice(hash.as_bytes());
        self.file.write_all(&self.table)
    }

    fn end_chunk(&mut self) {
        self.table.extend_from_slice(&self.hasher.finalize().as_bytes()[..HASH]);
        self.hasher.reset();
        self.filled = 0;
    }
}

impl Write for Sealer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(CHUNK - self.filled));
            self.hasher.update(piece);
            self.filled += piece.len();
            if self.filled == CHUNK {
                self.end_chunk();
            }
            rest = more;
        }
        self.length += to_u64(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
