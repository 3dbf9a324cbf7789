//! The index: which runs an image is made of, and where their frames are.
//!
//! ```text
//!  0  8  magic "kellrIDX"
//!  8  2  version, 1
//! 10  2  blocks in a frame
//! 12  4  number of runs
//! 16  8  bytes of the image, a multiple of 4096
//! 24  8  bytes of the frames file
//! 32     for each run, in order:
//!        8  the head of SHA-256 over the SHA-256 of its blocks
//!        1  number of its blocks less one
//!        3  bytes that its frames take in the frames file
//! ```
//!
//! Integers are little-endian. All of the file is covered by the digest in the release document: it is read
//! whole, and is about 3 bytes for 64 KiB. See [`runs`](super::runs) for what a run is and
//! [`frames`](super::frames) for the other file.

use super::error::DeltaError;
use super::runs::{BLOCK, LONGEST, MOST_BLOCKS, Run, RunDigest, SHORT};
use crate::base::on_disk::{FromBytes, IntoBytes, le, on_disk};
use crate::base::width::{to_index, to_u64};

/// What it begins with.
pub(super) const MAGIC: &[u8; 8] = b"kellrIDX";
const VERSION: u16 = 1;
/// Name for errors.
const FILE: &str = "the index";

/// An index takes no more than this: that of 64 GiB in runs of one block would.
pub(super) const LIMIT: u64 = to_u64(Header::SIZE) + to_u64(Entry::SIZE) * MOST_BLOCKS;

/// Bytes of the frames file before its first frame.
pub(super) const FRAMES_HEADER: usize = 16;
/// A block table counts the bytes of a frame in 16 bits.
pub(super) const MOST_IN_FRAME: usize = 15;

/// Bytes that the frames of so many blocks take at the most: zstd stores what does not compress.
pub(super) fn most_bytes(blocks: usize, in_frame: usize) -> usize {
    blocks * BLOCK + blocks.div_ceil(in_frame) * 64
}

/// Bytes of an entry in the block table, for a run of so many blocks.
pub(super) fn entry_size(blocks: usize, in_frame: usize) -> usize {
    2 * blocks.div_ceil(in_frame) + SHORT * blocks
}

on_disk! {
    /// What the file begins with.
    Header: 32 bytes {
        magic: [u8; 8],
        version: le::U16,
        frame_blocks: le::U16,
        runs: le::U32,
        size: le::U64,
        frames_size: le::U64,
    }
}

on_disk! {
    /// A run.
    Entry: 12 bytes {
        digest: RunDigest,
        /// One less than its blocks.
        blocks: u8,
        /// Bytes of its frames, the low byte first.
        length: [u8; 3],
    }
}

/// What the index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// Bytes of the image.
    pub size: u64,
    /// Blocks in a frame; the last one of a run may have fewer.
    pub frame_blocks: usize,
    /// Bytes of the frames file.
    pub frames_size: u64,
    /// The runs in order.
    pub runs: Vec<Indexed>,
}

/// A run and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Indexed {
    /// What is in it.
    pub run: Run,
    /// Its first block.
    pub first: u64,
    /// Where its first frame begins in the frames file.
    pub at: u64,
    /// Bytes of its frames.
    pub length: usize,
    /// Where its entry in the block table begins, counted from the beginning of the table.
    pub entry: u64,
}

impl Indexed {
    /// Its place in the image, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.first * to_u64(BLOCK)
    }

    /// Its bytes in the image.
    pub(super) fn bytes(&self) -> usize {
        self.run.blocks * BLOCK
    }
}

impl Index {
    /// Puts together what was published: the runs with the bytes of their frames, of so many blocks each.
    pub(super) fn new(frame_blocks: usize, runs: impl IntoIterator<Item = (Run, usize)>) -> Self {
        let (mut first, mut at, mut entry) = (0, to_u64(FRAMES_HEADER), 0);
        let runs: Vec<Indexed> = runs
            .into_iter()
            .map(|(run, length)| {
                let indexed = Indexed { run, first, at, length, entry };
                first += to_u64(run.blocks);
                at += to_u64(length);
                entry += to_u64(entry_size(run.blocks, frame_blocks));
                indexed
            })
            .collect();
        Self { size: first * to_u64(BLOCK), frame_blocks, frames_size: at + entry, runs }
    }

    /// Where the block table begins in the frames file.
    pub(super) fn table(&self) -> u64 {
        self.runs.last().map_or(to_u64(FRAMES_HEADER), |last| last.at + to_u64(last.length))
    }

    /// As a file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let header = Header {
            magic: *MAGIC,
            version: VERSION.into(),
            frame_blocks: u16::try_from(self.frame_blocks).expect("a frame has few blocks").into(),
            runs: u32::try_from(self.runs.len()).expect("an image has fewer blocks").into(),
            size: self.size.into(),
            frames_size: self.frames_size.into(),
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.reserve(Entry::SIZE * self.runs.len());
        for indexed in &self.runs {
            let length = u32::try_from(indexed.length).expect("a run has few blocks").to_le_bytes();
            let entry = Entry {
                digest: indexed.run.digest,
                blocks: u8::try_from(indexed.run.blocks - 1).expect("a run has few blocks"),
                length: *length.first_chunk().expect("four bytes"),
            };
            bytes.extend(entry.as_bytes());
        }
        bytes
    }

    /// Reads the file of an image of `size` bytes, whose frames file has `frames_size` bytes.
    pub(super) fn parse(bytes: &[u8], size: u64, frames_size: u64) -> Result<Self, DeltaError> {
        let index = Self::read(bytes)?;
        if [index.size, index.frames_size] != [size, frames_size] {
            let (image, frames) = (index.size, index.frames_size);
            let what = format!("of {image} bytes in {frames}, expected {size} in {frames_size}");
            return Err(DeltaError::Damaged { file: FILE, what });
        }
        Ok(index)
    }

    /// Reads the file of any image.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, DeltaError> {
        let damaged = |what: String| DeltaError::Damaged { file: FILE, what };
        let (header, entries) =
            Header::ref_from_prefix(bytes).map_err(|_| damaged("no whole header".to_owned()))?;
        if &header.magic != MAGIC {
            return Err(damaged("it does not begin as one".to_owned()));
        }
        let version = header.version.get();
        if version != VERSION {
            return Err(DeltaError::Unsupported { file: FILE, version, known: VERSION });
        }
        let frame_blocks = usize::from(header.frame_blocks);
        if !(1..=MOST_IN_FRAME).contains(&frame_blocks) {
            return Err(damaged(format!("{frame_blocks} blocks in a frame")));
        }
        let count = to_index(header.runs.get());
        let whole = <[Entry]>::ref_from_bytes(entries).ok().filter(|entries| entries.len() == count);
        let entries = whole.ok_or_else(|| damaged(format!("{count} runs in {} bytes", entries.len())))?;
        let mut runs = Vec::with_capacity(count);
        for (number, entry) in entries.iter().enumerate() {
            let run = Run { digest: entry.digest, blocks: usize::from(entry.blocks) + 1 };
            let [low, middle, high] = entry.length;
            let length = to_index(u32::from_le_bytes([low, middle, high, 0]));
            if run.blocks > LONGEST || length > most_bytes(run.blocks, frame_blocks) {
                return Err(damaged(format!(
                    "{length} bytes of frames for {} blocks, run {number}",
                    run.blocks
                )));
            }
            runs.push((run, length));
        }
        let index = Self::new(frame_blocks, runs);
        let (size, frames_size) = (header.size.get(), header.frames_size.get());
        if (index.size, index.frames_size) != (size, frames_size) {
            return Err(damaged(format!("its runs make another image than one of {size} bytes")));
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_was_told() {
        let runs = [(Run { digest: [1; 8], blocks: 256 }, 70_000), (Run { digest: [2; 8], blocks: 1 }, 11)];
        let index = Index::new(8, runs);
        let bytes = index.to_bytes();
        assert_eq!(bytes.len(), 32 + 2 * 12);
        assert_eq!(Index::parse(&bytes, index.size, index.frames_size).unwrap(), index);
        assert_eq!((index.size, index.runs[1].first, index.runs[1].at), (257 * 4096, 256, 70_016));

        for length in 0..bytes.len() {
            assert!(Index::parse(&bytes[..length], index.size, index.frames_size).is_err());
        }
        assert!(Index::parse(&bytes, index.size + 4096, index.frames_size).is_err());
        let mut newer = bytes.clone();
        newer[8] = 2;
        let error = Index::parse(&newer, index.size, index.frames_size).unwrap_err();
        assert_eq!(error.to_string(), "the index is of version 2, and this keller knows up to 1");
        for at in (0..8).chain([10, 12, 16, 24, 40, 41]) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x41;
            assert!(Index::parse(&bad, index.size, index.frames_size).is_err(), "byte {at}");
        }
        let greedy = Index::new(8, [(Run { digest: [0; 8], blocks: 1 }, 5000)]);
        assert!(Index::parse(&greedy.to_bytes(), greedy.size, greedy.frames_size).is_err());
    }
}
