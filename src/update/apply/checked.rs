//! A device that believes no write: after every flush it reads back what was written since the last, past
//! the page cache. What differs is written once more, since half a directory that a disk got wrong may be
//! that of the running version; what still differs then is an error, and nothing is written after it.

use std::collections::BTreeMap;
use std::io;

use crate::base::device::{Device, ReadAt, SectorSize};
use crate::base::width::{to_u64, to_usize};

/// How often a write that does not read back is repeated.
const RETRIES: u32 = 2;
/// Bytes that are compared at once.
const PIECE: usize = 1 << 20;

/// What was written is not what is there.
#[derive(Debug, thiserror::Error)]
#[error("what was written at byte {offset} does not read back, though it was written {} times", RETRIES + 1)]
pub(super) struct WrongBytes {
    /// Where the stretch that differs begins.
    pub offset: u64,
}

/// See the module.
pub(super) struct Checked<'d> {
    inner: &'d mut dyn Device,
    /// What was written since the last flush, by where; no two overlap.
    written: BTreeMap<u64, Vec<u8>>,
}

impl<'d> Checked<'d> {
    /// Writes to `inner`.
    pub(super) fn new(inner: &'d mut dyn Device) -> Self {
        Self { inner, written: BTreeMap::new() }
    }

    /// Keeps `bytes`, in place of what was written there before.
    fn remember(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + to_u64(bytes.len());
        // Stretches do not overlap, so the last that begins before the end is the last that can reach in.
        let overlap = self.written.range_mut(..end).next_back();
        match overlap.filter(|(start, old)| *start + to_u64(old.len()) > offset) {
            None => {
                self.written.insert(offset, bytes.to_vec());
            }
            Some((&start, old)) => {
                let (from, to) = (start.max(offset), end.min(start + to_u64(old.len())));
                let common = &bytes[to_usize(from - offset)..to_usize(to - offset)];
                old[to_usize(from - start)..][..common.len()].copy_from_slice(common);
                self.remember(&bytes[..to_usize(from - offset)], offset);
                self.remember(&bytes[to_usize(to - offset)..], to);
            }
        }
    }

    /// The stretches that the disk does not have as they were written.
    fn wrong(&self) -> io::Result<Vec<u64>> {
        let mut wrong = Vec::new();
        let mut buffer = vec![0; PIECE];
        for (start, bytes) in &self.written {
            for (piece, at) in bytes.chunks(PIECE).zip((*start..).step_by(PIECE)) {
                let actual = &mut buffer[..piece.len()];
                self.inner.read_back(actual, at)?;
                if actual != piece {
                    wrong.push(*start);
                    break;
                }
            }
        }
        Ok(wrong)
    }
}

impl ReadAt for Checked<'_> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buffer, offset)
    }
}

impl Device for Checked<'_> {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, offset)?;
        self.remember(bytes, offset);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()?;
        let mut wrong = self.wrong()?;
        for _ in 0..RETRIES {
            if wrong.is_empty() {
                break;
            }
            for offset in &wrong {
                self.inner.write_at(&self.written[offset], *offset)?;
            }
            self.inner.flush()?;
            wrong = self.wrong()?;
        }
        match wrong.first() {
            Some(offset) => Err(io::Error::new(io::ErrorKind::InvalidData, WrongBytes { offset: *offset })),
            None => {
                self.written.clear();
                Ok(())
            }
        }
    }

    fn sector_size(&self) -> SectorSize {
        self.inner.sector_size()
    }

    fn read_back(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_back(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::power_cut::Recorder;

    #[test]
    fn what_was_written_last_is_expected() {
        let mut disk = Recorder::new(vec![0; 8192], SectorSize::B512);
        let mut checked = Checked::new(&mut disk);
        for (byte, range) in [(1, 512..2048), (2, 1024..1536), (3, 0..1024), (4, 1536..4096), (5, 0..8192)] {
            checked.write_at(&vec![byte; range.len()], range.start as u64).unwrap();
            let kept: usize = checked.written.values().map(Vec::len).sum();
            assert!(kept <= 8192);
            for (start, bytes) in &checked.written {
                let mut there = vec![0; bytes.len()];
                checked.inner.read_at(&mut there, *start).unwrap();
                assert_eq!(&there, bytes);
            }
        }
        checked.flush().unwrap();
        assert!(checked.written.is_empty());
    }
}
