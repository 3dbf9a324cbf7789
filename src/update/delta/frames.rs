//! The frames: all blocks of an image in small frames that are compressed one by one, and a table that tells
//! which block is in which.
//!
//! ```text
//!  0  8  magic "kellrFRM"
//!  8  2  version, 1
//! 10  6  zero
//! 16     frames, each a zstd frame of as many blocks as the index says; none crosses the border of a run
//!        the block table, with an entry for each run, in order:
//!        2  for each frame of it: its bytes
//!        5  for each block of it: the head of its SHA-256
//! ```
//!
//! Integers are little-endian. Where a run's frames and its entry begin follows from the [index](super::index).
//! A node that lacks a run reads its entry, and then only the frames that hold a block which it has nowhere.
//! Whoever reads everything from the beginning does not need the table, which is why it comes last. The file
//! is not covered by a digest, since it is seldom read whole: the digest of the run, in the index, judges
//! what came of it.

use std::io::{self, Write};
use std::ops::Range;

use rayon::prelude::*;

use super::error::PublishError;
use super::index::{FRAMES_HEADER, Index};
use super::known::{Encoder, KnownFrames};
use super::runs::{BLOCK, BlockDigest, Cutter, MOST_BLOCKS, Run, SHORT, scan, short};
use super::unfinished::Unfinished;
use crate::base::device::ReadAt;
use crate::base::limits;
use crate::base::on_disk::{IntoBytes, le, on_disk};
use crate::base::progress::{Progress, Task, Unit};
use crate::base::width::to_u64;

/// Blocks in a frame of a root: half as many make an image larger by 3 %, twice as many make it smaller by
/// 2 %, and a single changed block costs a whole frame.
const IN_ROOT: usize = 8;
/// The same of a unified kernel image, nearly all of which is compressed already: frames of one block take
/// hardly more than longer ones, and a change of the command line costs that alone.
const IN_UKI: usize = 1;
/// What it begins with.
pub(super) const MAGIC: &[u8; 8] = b"kellrFRM";
const VERSION: u16 = 1;
on_disk! {
    /// What the file begins with.
    Header: 16 bytes {
        magic: [u8; 8],
        version: le::U16,
        zero: [u8; 6],
    }
}

const _: () = assert!(Header::SIZE == FRAMES_HEADER);

/// What the frames of an image take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Bytes of the frames file.
    pub frames: u64,
    /// Bytes of the index.
    pub index: u64,
    /// Number of runs.
    pub runs: usize,
    /// What of the frames file was taken over, in order.
    pub reused: Vec<Reused>,
}

/// A stretch that was taken over as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reused {
    /// In the new file.
    pub range: Range<u64>,
    /// Where it begins in the one that was known.
    pub from: u64,
}

impl Reused {
    /// Appends a stretch, to the last one if it goes on from there.
    pub(super) fn push(all: &mut Vec<Self>, range: Range<u64>, from: u64) {
        match all.last_mut() {
            Some(last)
                if last.range.end == range.start
                    && last.from + (last.range.end - last.range.start) == from =>
            {
                last.range.end = range.end;
            }
            _ => all.push(Self { range, from }),
        }
    }
}

/// How frames are made.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// zstd's level.
    pub level: i32,
    /// Frames of a version before.
    pub known: Option<&'a KnownFrames<'a>>,
    /// What a try before has left, and this one leaves.
    pub unfinished: Option<&'a Unfinished>,
}

impl How<'_> {
    /// From nothing, with zstd's `level`.
    pub fn at(level: i32) -> Self {
        Self { level, known: None, unfinished: None }
    }
}

/// Writes the frames and the index of a root of `size` bytes, a multiple of 4096. Works on all processors and keeps some MiB in memory.
pub fn publish_root(
    root: &dyn ReadAt,
    size: u64,
    how: How,
    frames: &mut dyn Write,
    index: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Published, PublishError> {
    publish(root, size, IN_ROOT, how, frames, index, progress)
}

/// A unified kernel image in whole blocks, as it is published.
fn padded(uki: &[u8]) -> Result<Vec<u8>, PublishError> {
    if to_u64(uki.len()) > limits::KERNEL_IMAGE {
        return Err(PublishError::Uki { size: to_u64(uki.len()), limit: limits::KERNEL_IMAGE });
    }
    let mut blocks = uki.to_vec();
    blocks.resize(uki.len().next_multiple_of(BLOCK), 0);
    Ok(blocks)
}

/// Writes the frames and the index of a unified kernel image; zeros fill its last block.
pub fn publish_uki(
    uki: &[u8],
    how: How,
    frames: &mut dyn Write,
    index: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Published, PublishError> {
    let padded = padded(uki)?;
    publish(&padded.as_slice(), to_u64(padded.len()), IN_UKI, how, frames, index, progress)
}

fn publish(
    image: &dyn ReadAt,
    size: u64,
    in_frame: usize,
    how: How,
    frames: &mut dyn Write,
    index: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Published, PublishError> {
    if !size.is_multiple_of(to_u64(BLOCK)) || size / to_u64(BLOCK) > MOST_BLOCKS {
        return Err(PublishError::Size { size });
    }
    let task = Task::new(progress, "compressing", size, Unit::Bytes);
    let mut publisher = Publisher::new(frames, in_frame, how).map_err(writing)?;
    let mut result = Ok(());
    scan(image, size, &task, |_, bytes, digests| {
        if result.is_ok() {
            result = publisher.take(bytes, digests);
        }
    })
    .map_err(|(at, source)| PublishError::Read { at, source })?;
    let (runs, frames_size, reused) = result.and_then(|()| publisher.finish()).map_err(writing)?;
    let runs_count = runs.len();
    let made = Index::new(in_frame, runs);
    debug_assert_eq!((made.size, made.frames_size), (size, frames_size));
    let bytes = made.to_bytes();
    index.write_all(&bytes).map_err(|source| PublishError::Write { file: "the index", source })?;
    Ok(Published { frames: frames_size, index: to_u64(bytes.len()), runs: runs_count, reused })
}

fn writing(source: io::Error) -> PublishError {
    PublishError::Write { file: "the frames", source }
}

struct Publisher<'a> {
    out: &'a mut dyn Write,
    /// Blocks in a frame.
    in_frame: usize,
    how: How<'a>,
    /// Bytes that were written.
    written: u64,
    cutter: Cutter,
    /// Blocks of the run that has not ended yet, and the heads of their digests.
    pending: Vec<u8>,
    heads: Vec<[u8; SHORT]>,
    runs: Vec<(Run, usize)>,
    table: Vec<u8>,
    reused: Vec<Reused>,
}

impl<'a> Publisher<'a> {
    fn new(out: &'a mut dyn Write, in_frame: usize, how: How<'a>) -> io::Result<Self> {
        let header = Header { magic: *MAGIC, version: VERSION.into(), zero: [0; 6] };
        out.write_all(header.as_bytes())?;
        Ok(Self {
            out,
            in_frame,
            how,
            written: to_u64(FRAMES_HEADER),
            cutter: Cutter::default(),
            pending: Vec::new(),
            heads: Vec::new(),
            runs: Vec::new(),
            table: Vec::new(),
            reused: Vec::new(),
        })
    }

    fn take(&mut self, bytes: &[u8], digests: &[BlockDigest]) -> io::Result<()> {
        self.pending.extend(bytes);
        let ended: Vec<Run> = digests
            .iter()
            .filter_map(|digest| {
                self.heads.push(short(digest));
                self.cutter.push(*digest)
            })
            .collect();
        self.write(&ended)
    }

    /// Writes the first of the pending blocks, which are those of `runs`.
    fn write(&mut self, runs: &[Run]) -> io::Result<()> {
        let mut rest = self.pending.as_slice();
        let mut heads = self.heads.as_slice();
        let mut frames: Vec<(&[u8], &[[u8; SHORT]])> = Vec::new();
        for run in runs {
            let (blocks, after) = rest.split_at(run.blocks * BLOCK);
            let (own, others) = heads.split_at(run.blocks);
            frames.extend(blocks.chunks(self.in_frame * BLOCK).zip(own.chunks(self.in_frame)));
            (rest, heads) = (after, others);
        }
        let used = self.pending.len() - rest.len();
        let How { level, known, unfinished } = self.how;
        let frames: Vec<(Vec<u8>, Option<u64>)> = frames
            .into_par_iter()
            .map_init(
                || Encoder::new(level),
                |encoder, (blocks, heads)| match encoder {
                    Ok(encoder) => encoder.frame(blocks, heads, known, unfinished),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                },
            )
            .collect::<Result<_, _>>()?;
        let mut frames = frames.iter();
        let mut heads = self.heads.drain(..used / BLOCK);
        for run in runs {
            let mut length = 0;
            for (frame, from) in frames.by_ref().take(run.blocks.div_ceil(self.in_frame)) {
                self.out.write_all(frame)?;
                if let Some(from) = from {
                    let at = self.written + to_u64(length);
                    Reused::push(&mut self.reused, at..at + to_u64(frame.len()), *from);
                }
                length += frame.len();
                let bytes = u16::try_from(frame.len()).expect("a frame has at most 15 blocks");
                self.table.extend(bytes.to_le_bytes());
            }
            self.table.extend(heads.by_ref().take(run.blocks).flatten());
            self.written += to_u64(length);
            self.runs.push((*run, length));
        }
        drop(heads);
        self.pending.drain(..used);
        Ok(())
    }

    fn finish(mut self) -> io::Result<(Vec<(Run, usize)>, u64, Vec<Reused>)> {
        let last = std::mem::take(&mut self.cutter).finish();
        self.write(last.as_slice())?;
        self.out.write_all(&self.table)?;
        Ok((self.runs, self.written + to_u64(self.table.len()), self.reused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Silent;
    use crate::base::width::to_usize;
    use crate::update::delta::frame::{Decoder, Entry, LEVEL, first_frame};
    use crate::update::delta::index::entry_size;
    use crate::update::delta::testing::{noise, text};

    #[test]
    fn frames_follow_the_index() {
        let root = [text(1, 900 * BLOCK), noise(2, 200 * BLOCK), vec![0; 500 * BLOCK]].concat();
        let (mut frames, mut index) = (Vec::new(), Vec::new());
        let published = publish_root(
            &root.as_slice(),
            to_u64(root.len()),
            How::at(LEVEL),
            &mut frames,
            &mut index,
            &Silent,
        )
        .unwrap();
        assert_eq!((published.frames, published.index), (to_u64(frames.len()), to_u64(index.len())));
        let index = Index::parse(&index, to_u64(root.len()), to_u64(frames.len())).unwrap();
        let table = &frames[to_usize(index.table())..];
        let mut decoder = Decoder::new().unwrap();
        let mut decoded = vec![0; IN_ROOT * BLOCK];
        for run in &index.runs {
            let entry = &table[to_usize(run.entry)..][..entry_size(run.run.blocks, IN_ROOT)];
            let entry = Entry::parse(entry, run, IN_ROOT).unwrap();
            let expected = &root[to_usize(run.offset())..][..run.bytes()];
            let mut at = to_usize(run.at);
            for (length, blocks) in entry.frames().zip(expected.chunks(IN_ROOT * BLOCK)) {
                assert_eq!(first_frame(&frames[at..]).unwrap(), length);
                let decoded = &mut decoded[..blocks.len()];
                decoder.decode(&frames[at..at + length], decoded).unwrap();
                assert_eq!(decoded, blocks);
                at += length;
            }
            let heads: Vec<_> = super::super::runs::digests(expected).iter().map(short).collect();
            assert!(entry.blocks().eq(&heads));
        }

        let (mut again, mut unused) = (Vec::new(), Vec::new());
        publish_root(&root.as_slice(), to_u64(root.len()), How::at(LEVEL), &mut again, &mut unused, &Silent)
            .unwrap();
        assert_eq!(again, frames);
        assert!(
            publish_root(&root.as_slice(), 5000, How::at(LEVEL), &mut Vec::new(), &mut Vec::new(), &Silent)
                .is_err()
        );
    }

    #[test]
    fn an_empty_root_has_no_runs() {
        let (mut frames, mut index) = (Vec::new(), Vec::new());
        let published =
            publish_root(&[].as_slice(), 0, How::at(LEVEL), &mut frames, &mut index, &Silent).unwrap();
        assert_eq!((published.runs, frames.len(), index.len()), (0, 16, 32));
        assert!(Index::parse(&index, 0, 16).unwrap().runs.is_empty());
    }
}
