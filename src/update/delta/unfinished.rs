//! What was compressed for a version that was never published: the next try takes it over.
//!
//! ```text
//! 32  "keller unfinished 1, level N\n", and zeros
//!     pieces, as they were made:
//!     1  what it is: 1 a frame, 2 a segment
//!     1  bytes of its name
//!     4  bytes of it, little-endian
//!        its name: the heads of its blocks' digests, or the digest of the segment's blocks
//!        it
//! ```
//!
//! Whatever is taken over is decompressed first and compared with the bytes that it is to stand for, as with
//! [`known`](super::known). So a piece that the power has cut off needs no other proof that it is whole, and whoever can write
//! the file can cost time and nothing else.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use crate::base::width::{to_u64, to_usize};

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Some blocks.
    Frame = 1,
    /// Many of them, compressed as hard as may be.
    Segment = 2,
}

const HEADER: usize = 32;
/// Bytes of a piece before its name.
const FIXED: usize = 6;
/// A piece is no longer: of a segment whose blocks nothing compresses, with room to spare.
const LONGEST: u64 = 64 << 20;

/// Pieces in a file.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    known: HashMap<(u8, Box<[u8]>), (u64, u32)>,
    /// Where the next piece goes; none once the file takes no more.
    end: Mutex<Option<u64>>,
}

impl Unfinished {
    /// Reads what is in `file`; what was made with another level than `level` of zstd goes.
    ///
    /// # Errors
    /// Those of the file.
    pub fn open(file: File, level: i32) -> io::Result<Self> {
        let mut header = [0; HEADER];
        let text = format!("keller unfinished 1, level {level}\n");
        header[..text.len()].copy_from_slice(text.as_bytes());
        let size = file.metadata()?.len();
        let mut found = [0; HEADER];
        let is_ours = size >= to_u64(HEADER) && file.read_exact_at(&mut found, 0).is_ok() && found == header;
        let (mut known, mut at) = (HashMap::new(), to_u64(HEADER));
        if is_ours {
            while let Some((key, place)) = piece(&file, at, size)? {
                at = place.0 + u64::from(place.1);
                known.insert(key, place);
            }
            file.set_len(at)?;
        } else {
            file.set_len(0)?;
            file.write_all_at(&header, 0)?;
        }
        Ok(Self { file, known, end: Mutex::new(Some(at)) })
    }

    /// How many pieces an earlier try has left.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// What an earlier try has left under this name.
    pub(super) fn find(&self, kind: Kind, name: &[u8]) -> Option<Vec<u8>> {
        let (at, length) = self.known.get(&(kind as u8, name.into()))?;
        let mut bytes = vec![0; to_usize(u64::from(*length))];
        self.file.read_exact_at(&mut bytes, *at).ok()?;
        Some(bytes)
    }

    /// Keeps a piece. A file that takes nothing, for the disk is full, is no reason to stop: what is to be published may still
    /// have its room.
    pub(super) fn keep(&self, kind: Kind, name: &[u8], bytes: &[u8]) {
        let (Ok(short), Ok(length)) = (u8::try_from(name.len()), u32::try_from(bytes.len())) else { return };
        let Ok(mut end) = self.end.lock() else { return };
        let Some(at) = *end else { return };
        let piece = [&[kind as u8, short][..], &length.to_le_bytes(), name, bytes].concat();
        *end = self.file.write_all_at(&piece, at).is_ok().then(|| at + to_u64(piece.len()));
    }
}

/// The piece at `at` of a file of `size` bytes, and where it ends; nothing where no whole one is.
#[expect(clippy::type_complexity, reason = "a key and a value of the map above")]
fn piece(file: &File, at: u64, size: u64) -> io::Result<Option<((u8, Box<[u8]>), (u64, u32))>> {
    let mut fixed = [0; FIXED];
    if at + to_u64(FIXED) > size {
        return Ok(None);
    }
    file.read_exact_at(&mut fixed, at)?;
    let [kind, short, a, b, c, d] = fixed;
    let length = u32::from_le_bytes([a, b, c, d]);
    let begin = at + to_u64(FIXED) + u64::from(short);
    let is_one = [Kind::Frame as u8, Kind::Segment as u8].contains(&kind) && short > 0 && length > 0;
    if !is_one || u64::from(length) > LONGEST || begin + u64::from(length) > size {
        return Ok(None);
    }
    let mut name = vec![0; usize::from(short)];
    file.read_exact_at(&mut name, at + to_u64(FIXED))?;
    Ok(Some(((kind, name.into()), (begin, length))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(file: &File, level: i32) -> Unfinished {
        Unfinished::open(file.try_clone().unwrap(), level).unwrap()
    }

    #[test]
    fn the_next_one_finds_what_was_kept_and_whole() {
        let file = tempfile::tempfile().unwrap();
        let first = open(&file, 19);
        assert_eq!(first.count(), 0);
        first.keep(Kind::Frame, b"abcde", b"one");
        first.keep(Kind::Segment, b"abcde", b"two");
        first.keep(Kind::Frame, b"fghij", b"three");
        // It finds what was there before it.
        assert_eq!(first.find(Kind::Frame, b"abcde"), None);
        let whole = file.metadata().unwrap().len();
        for cut in [0, 1, 4, 5, 9] {
            file.set_len(whole - cut).unwrap();
            let next = open(&file, 19);
            assert_eq!(next.find(Kind::Frame, b"abcde").unwrap(), b"one");
            assert_eq!(next.find(Kind::Segment, b"abcde").unwrap(), b"two");
            assert_eq!(next.find(Kind::Frame, b"fghij").is_some(), cut == 0);
        }
        let next = open(&file, 19);
        next.keep(Kind::Frame, b"klmno", b"four");
        assert_eq!(open(&file, 19).find(Kind::Frame, b"klmno").unwrap(), b"four");
        assert_eq!(open(&file, 3).count(), 0);
        assert_eq!(open(&file, 19).count(), 0);
    }

    #[test]
    fn whatever_else_is_there_is_no_piece() {
        let file = tempfile::tempfile().unwrap();
        for text in [&b"x"[..], &[0; 100], &[1; 100], b"keller unfinished 1, level 19\n"] {
            file.set_len(0).unwrap();
            file.write_all_at(text, 0).unwrap();
            assert_eq!(open(&file, 19).count(), 0);
        }
        drop(open(&file, 19));
        file.write_all_at(&[0; 64], to_u64(HEADER)).unwrap();
        assert_eq!(open(&file, 19).count(), 0);
        file.write_all_at(&[1, 1, 255, 255, 255, 255, 9], to_u64(HEADER)).unwrap();
        assert_eq!(open(&file, 19).count(), 0);
    }
}
