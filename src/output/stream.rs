//! A file that is written from its begin to its end, with holes, and hashed on the way.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, Hasher};

/// Bytes that are written at once.
const PIECE: usize = 1 << 20;

/// What a format writes to.
pub(super) struct Stream<'a> {
    file: &'a File,
    /// Not yet in the file, whose place is `written`.
    pending: Vec<u8>,
    written: u64,
    hasher: Option<Hasher>,
}

impl<'a> Stream<'a> {
    /// Into `file`, which is empty; `sums`: its digest is wanted.
    pub(super) fn new(file: &'a File, sums: bool) -> Self {
        Self { file, pending: Vec::with_capacity(PIECE), written: 0, hasher: sums.then(Hasher::new) }
    }

    /// Into `file` from byte `offset` on, which is the end of it; nobody wants a digest.
    pub(super) fn behind(file: &'a File, offset: u64) -> Self {
        Self { written: offset, ..Self::new(file, false) }
    }

    /// Bytes so far, holes included.
    pub(super) fn position(&self) -> u64 {
        self.written + to_u64(self.pending.len())
    }

    /// Goes on `count` bytes further; what lies between is a hole.
    pub(super) fn skip(&mut self, count: u64) -> io::Result<()> {
        self.flush()?;
        self.written += count;
        if let Some(hasher) = &mut self.hasher {
            let zeros = vec![0; to_usize(count.min(to_u64(PIECE)))];
            let mut left = count;
            while left > 0 {
                let part = left.min(to_u64(PIECE));
                hasher.update(&zeros[..to_usize(part)]);
                left -= part;
            }
        }
        Ok(())
    }

    /// Goes on to the next multiple of `unit`, over zeros.
    pub(super) fn pad(&mut self, unit: u64) -> io::Result<()> {
        let count = self.position().next_multiple_of(unit) - self.position();
        let zeros = vec![0; to_usize(count)];
        self.write_all(&zeros)
    }

    /// The digest of the whole file, if it was wanted.
    pub(super) fn finish(mut self) -> io::Result<Option<Digest>> {
        self.flush()?;
        // A hole at the end is part of it.
        self.file.set_len(self.written)?;
        Ok(self.hasher.map(Hasher::finish))
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.pending.len());
        self.pending.extend(&bytes[..count]);
        if self.pending.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.written)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.pending);
        }
        self.written += to_u64(self.pending.len());
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::output::raw;

    #[test]
    fn the_digest_is_that_of_the_file() {
        let file = tempfile::tempfile().unwrap();
        let mut stream = Stream::new(&file, true);
        stream.write_all(b"head").unwrap();
        stream.pad(512).unwrap();
        stream.skip(5 << 20).unwrap();
        stream.write_all(&vec![7; PIECE + 5]).unwrap();
        stream.skip(3 << 20).unwrap();
        assert_eq!(stream.position(), (9 << 20) + 512 + 5);
        let digest = stream.finish().unwrap();
        assert_eq!(digest, Some(raw::digest(&file).unwrap()));
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), (9 << 20) + 512 + 5);
        assert!(metadata.blocks() * 512 < 3 << 20);
        assert_eq!(Stream::new(&tempfile::tempfile().unwrap(), false).finish().unwrap(), None);
    }
}
