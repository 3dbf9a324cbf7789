//! Patches: from one certain version to another, made by who publishes; or from nothing, which is all of a
//! version in the fewest bytes.
//!
//! ```text
//!  0  8  magic "kellrPAT"
//!  8  2  version, 1
//! 10  2  zero
//! 12  4  number of segments
//! 16  8  bytes of the old file
//! 24  8  bytes of the new file
//! 32     for each segment, in order:
//!        8  the head of SHA-256 over the SHA-256 of its blocks, of 4096 bytes but for the file's last
//!        4  number of its blocks
//!        4  bytes that it takes in this file
//!        the segments
//! ```
//!
//! Integers are little-endian. A segment is independent of all others, so that a node applies one after the
//! other in little memory and goes on with the first that is not in its place. It has three
//! [`streams`]:
//!
//! 1. The plan, all of it numbers in LEB128, signed ones zigzag:
//!    - how many moves; for each: blocks that are new, then blocks to copy from the old file, and where these
//!      are, signed, from where the copy before has ended;
//!    - how many extents of the old file there are to start new blocks from; for each: blocks to skip from
//!      the end of the one before, then its blocks;
//!    - until all new blocks are made, steps: bytes to add, bytes to take, and where in the extents, as if
//!      they were one file, the next step begins, signed, from where the adding ended.
//! 2. What is added to the old bytes, modulo 256, all steps in a row.
//! 3. What is taken as it is.

mod apply;
mod known;
mod make;
mod whole;

pub(super) use apply::Patcher;
pub use known::KnownSegments;
pub use make::make_patch;
pub use whole::{Elsewhere, Framed, Sources, Taken, Whole, make_full, make_whole};

use std::fmt::Write as _;

use super::error::DeltaError;
use super::runs::{BLOCK, MOST_BLOCKS, RunDigest};
use super::segments::FROM_NOTHING;
use super::streams;
use crate::base::device::ReadAt;
use crate::base::on_disk::{FromBytes, FromZeros, IntoBytes, le, on_disk};
use crate::base::width::{to_index, to_u64};

/// What it begins with.
pub(super) const MAGIC: &[u8; 8] = b"kellrPAT";
const VERSION: u16 = 1;
/// Name of one for errors.
pub(super) const FILE: &str = "the patch";
/// The same of one from nothing.
pub(super) const FULL: &str = "the whole image";

/// New blocks in a segment at the most, in bytes: what is made of them is looked for, and found again, within
/// a segment only.
const NEW_IN_SEGMENT: usize = 8 << 20;
/// Bytes of the plan of a segment from nothing, at the most.
const LONGEST_PLAN: usize = 64;
/// Bytes that a segment takes at the most: its new blocks, should none of them compress, and its plan.
const LONGEST_SEGMENT: usize = 2 * FROM_NOTHING;

on_disk! {
    /// What a patch begins with.
    Header: 32 bytes {
        magic: [u8; 8],
        version: le::U16,
        zero: [u8; 2],
        segments: le::U32,
        old_size: le::U64,
        new_size: le::U64,
    }
}

on_disk! {
    /// A segment in the table behind the header.
    Entry: 16 bytes {
        digest: RunDigest,
        blocks: le::U32,
        /// Of its plan, in bytes.
        length: le::U32,
    }
}

/// What a patch says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    old_size: u64,
    new_size: u64,
    segments: Vec<Segment>,
}

/// A stretch of the new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    digest: RunDigest,
    /// Its first block.
    first: u64,
    blocks: u64,
    /// Where it begins in the patch.
    at: u64,
    length: usize,
}

impl Segment {
    /// Its place in a new file of so many bytes.
    fn range(&self, new_size: u64) -> std::ops::Range<u64> {
        let end = (self.first + self.blocks) * to_u64(BLOCK);
        self.first * to_u64(BLOCK)..end.min(new_size)
    }
}

impl Head {
    fn new(
        old_size: u64,
        new_size: u64,
        segments: impl ExactSizeIterator<Item = (RunDigest, u64, usize)>,
    ) -> Self {
        let (mut first, mut at) = (0, to_u64(Header::SIZE + Entry::SIZE * segments.len()));
        let segments = segments.map(|(digest, blocks, length)| {
            let segment = Segment { digest, first, blocks, at, length };
            first += blocks;
            at += to_u64(length);
            segment
        });
        Self { old_size, new_size, segments: segments.collect() }
    }

    /// Where the table of so many segments ends.
    fn table_end(segments: usize) -> usize {
        Header::SIZE + Entry::SIZE * segments
    }

    /// Bytes of the whole patch.
    fn end(&self) -> u64 {
        self.segments.last().map_or(to_u64(Header::SIZE), |last| last.at + to_u64(last.length))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let header = Header {
            magic: *MAGIC,
            version: VERSION.into(),
            zero: [0; 2],
            segments: u32::try_from(self.segments.len()).expect("an image has fewer blocks").into(),
            old_size: self.old_size.into(),
            new_size: self.new_size.into(),
        };
        let mut bytes = header.as_bytes().to_vec();
        for segment in &self.segments {
            let entry = Entry {
                digest: segment.digest,
                blocks: u32::try_from(segment.blocks).expect("a segment has few blocks").into(),
                length: u32::try_from(segment.length).expect("a segment has few bytes").into(),
            };
            bytes.extend(entry.as_bytes());
        }
        bytes
    }

    /// Reads the header: how many segments there are, and bytes of the old and the new file. `file` is for
    /// errors.
    fn parse_header(header: &Header, file: &'static str) -> Result<(usize, u64, u64), DeltaError> {
        if &header.magic != MAGIC {
            return Err(damaged(file, "it does not begin as one"));
        }
        let version = header.version.get();
        if version != VERSION {
            return Err(DeltaError::Unsupported { file, version, known: VERSION });
        }
        let count = header.segments.get();
        if u64::from(count) > MOST_BLOCKS {
            return Err(damaged(file, format!("{count} segments")));
        }
        Ok((to_index(count), header.old_size.get(), header.new_size.get()))
    }

    fn read_table(entries: &[Entry], old_size: u64, new_size: u64) -> Self {
        let entries =
            entries.iter().map(|entry| (entry.digest, u64::from(entry.blocks), to_index(entry.length.get())));
        Self::new(old_size, new_size, entries)
    }

    /// Reads the table of a patch of `size` bytes.
    fn parse_table(
        table: &[Entry],
        (old_size, new_size): (u64, u64),
        size: u64,
        file: &'static str,
    ) -> Result<Self, DeltaError> {
        let head = Self::read_table(table, old_size, new_size);
        let blocks: u64 = head.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.blocks));
        if blocks != new_size.div_ceil(to_u64(BLOCK)) || head.end() != size {
            let (expected, end) = (new_size.div_ceil(to_u64(BLOCK)), head.end());
            let what = format!(
                "its segments make {blocks} blocks out of {end} bytes, expected {expected} out of {size}"
            );
            return Err(damaged(file, what));
        }
        let too_long = |segment: &&Segment| segment.length > LONGEST_SEGMENT || segment.blocks == 0;
        if let Some(segment) = head.segments.iter().find(too_long) {
            return Err(damaged(file, format!("a segment of {} bytes", segment.length)));
        }
        Ok(head)
    }
}

/// A segment as it lies in a file.
pub(super) struct Stored {
    /// Of its blocks.
    pub digest: RunDigest,
    /// Where it begins.
    at: u64,
    /// In bytes.
    length: usize,
}

/// The segments of a patch from nothing.
pub(super) fn stored(file: &dyn ReadAt) -> Result<Vec<Stored>, DeltaError> {
    let read = |bytes: &mut [u8], at: u64| match at + to_u64(bytes.len()) <= file.size() {
        true => file.read_at(bytes, at).map_err(|source| DeltaError::Old { at, source }),
        false => Err(damaged(FULL, "it is cut off")),
    };
    let mut header = [0; Header::SIZE];
    read(&mut header, 0)?;
    let header = Header::ref_from_bytes(&header).map_err(|_| damaged(FULL, "no whole header"))?;
    let (count, old_size, new_size) = Head::parse_header(header, FULL)?;
    if to_u64(Entry::SIZE) * to_u64(count) > file.size() {
        return Err(damaged(FULL, format!("{count} segments in {} bytes", file.size())));
    }
    let mut table = vec![Entry::new_zeroed(); count];
    read(table.as_mut_bytes(), to_u64(Header::SIZE))?;
    let head = Head::parse_table(&table, (old_size, new_size), file.size(), FULL)?;
    let stored = |it: &Segment| Stored { digest: it.digest, at: it.at, length: it.length };
    Ok(head.segments.iter().map(stored).collect())
}

/// Appends what the patch that `bytes` begin with says of itself.
pub(super) fn describe(bytes: &[u8], text: &mut String) -> Result<(), DeltaError> {
    let cut = || damaged(FILE, "it is cut off");
    let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| cut())?;
    let (count, old_size, new_size) = Head::parse_header(header, FILE)?;
    let (table, _) = <[Entry]>::ref_from_prefix_with_elems(rest, count).map_err(|_| cut())?;
    let head = Head::read_table(table, old_size, new_size);
    let _ = writeln!(text, "patch: from {old_size} to {new_size} bytes in {count} segments");
    for segment in &head.segments {
        let Segment { digest, first, blocks, at, length } = segment;
        let digest = hex::encode(digest);
        let _ = writeln!(text, "{first:>9} {blocks:>7} {digest} {at:>10} {length:>8}");
        let from = usize::try_from(*at).ok().and_then(|at| bytes.get(at..));
        if let Some(bytes) = from.and_then(|from| from.get(..*length)) {
            let streams = streams::describe(bytes).map_err(|error| damaged(FILE, error.to_string()))?;
            let _ = writeln!(text, "          {streams}");
        }
    }
    Ok(())
}

/// The plan of a segment that takes so many bytes as they are.
fn all_of(length: usize) -> Vec<u8> {
    let mut plan = Vec::new();
    let moves = [1, length.div_ceil(BLOCK), 0];
    let extents = [0];
    moves.into_iter().chain(extents).for_each(|value| streams::put_number(&mut plan, to_u64(value)));
    streams::put_signed(&mut plan, 0);
    [0, length].into_iter().for_each(|value| streams::put_number(&mut plan, to_u64(value)));
    plan
}

fn damaged(file: &'static str, what: impl Into<String>) -> DeltaError {
    DeltaError::Damaged { file, what: what.into() }
}
