//! Applying a patch: segment after segment, into a target that may hold anything.

use std::io::{self, Read};
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::{Entry, Head, Header, Segment};
use crate::base::Task;
use crate::base::device::{Device, ReadAt};
use crate::base::on_disk::{FromBytes, FromZeros, IntoBytes};
use crate::base::width::{to_u64, to_usize};
use crate::update::delta::blocks::{Tally, write_changed};
use crate::update::delta::error::DeltaError;
use crate::update::delta::runs::{BLOCK, RunDigest, digests, scan};
use crate::update::delta::segments::BLOCKS_FROM_NOTHING;
use crate::update::delta::streams::{self, number, signed};
use crate::update::delta::wire::{Wire, coalesce, stretch_of};

/// What is asked for first: a small patch in one go, and the table of a large one.
const FIRST: u64 = 16 << 10;
/// Bytes that are made and written at once.
const CHUNK: usize = 1 << 20;
/// Old bytes that are read at once for steps, which are short.
const CACHE: usize = 64 << 10;

/// Applies one patch.
pub(crate) struct Patcher<'a, 'r> {
    /// What it is, for errors.
    pub file: &'static str,
    /// The patch.
    pub wire: &'a mut Wire<'r>,
    /// Its size in bytes.
    pub size: u64,
    /// What it starts from.
    pub old: &'a dyn ReadAt,
    /// Bytes of that which count.
    pub old_size: u64,
    /// Bytes of what it leads to.
    pub new_size: u64,
    /// Where that goes.
    pub target: &'a mut dyn Device,
    /// Trusts nothing that the target holds.
    pub fresh: bool,
}

/// Why a segment could not be made.
enum Fault {
    /// It makes no sense.
    Patch(String),
    /// What is no fault of it.
    Other(DeltaError),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Patch(error.to_string())
    }
}

impl From<DeltaError> for Fault {
    fn from(error: DeltaError) -> Self {
        Self::Other(error)
    }
}

impl From<&str> for Fault {
    fn from(what: &str) -> Self {
        Self::Patch(what.to_owned())
    }
}

impl Patcher<'_, '_> {
    /// Fetches the segments that are not in their place and applies them.
    pub(crate) fn run(mut self, task: &Task) -> Result<Tally, DeltaError> {
        let file = self.file;
        let ahead = self.size.min(FIRST);
        let mut first = vec![0; to_usize(ahead)];
        self.wire.read(&mut first, 0, &(0..ahead))?;
        let head = self.head(&first)?;
        let missing = match self.fresh {
            true => (0..head.segments.len()).collect(),
            false => self.missing(&head, task)?,
        };
        let stretches = coalesce(
            missing
                .iter()
                .map(|number| &head.segments[*number])
                .map(|segment| segment.at.max(to_u64(first.len()))..segment.at + to_u64(segment.length))
                .filter(|piece| !piece.is_empty()),
        );
        let mut tally = Tally::default();
        let mut missing = missing.into_iter().peekable();
        let mut bytes = Vec::new();
        for (number, segment) in head.segments.iter().enumerate() {
            let range = segment.range(self.new_size);
            if missing.next_if_eq(&number).is_none() {
                tally.kept += range.end - range.start;
                continue;
            }
            bytes.clear();
            let from = to_usize(segment.at).min(first.len());
            let to = (from + segment.length).min(first.len());
            bytes.extend(&first[from..to]);
            let fetched = bytes.len();
            bytes.resize(segment.length, 0);
            if fetched < bytes.len() {
                let at = segment.at + to_u64(fetched);
                self.wire.read(&mut bytes[fetched..], at, &stretch_of(&stretches, at))?;
            }
            let named = |what| DeltaError::Segment { file, segment: number, at: segment.at, what };
            let digest = match self.apply(segment, &bytes, &mut tally, task) {
                Ok(digest) => digest,
                Err(Fault::Patch(what)) => return Err(named(what)),
                Err(Fault::Other(error)) => return Err(error),
            };
            if digest != segment.digest {
                return Err(named("it gives other blocks than it says".to_owned()));
            }
        }
        Ok(tally)
    }

    fn head(&mut self, first: &[u8]) -> Result<Head, DeltaError> {
        let (header, rest) =
            Header::ref_from_prefix(first).map_err(|_| super::damaged(self.file, "no whole header"))?;
        let (count, old_size, new_size) = Head::parse_header(header, self.file)?;
        let end = Header::SIZE + Entry::SIZE * count;
        if [old_size, new_size] != [self.old_size, self.new_size] || to_u64(end) > self.size {
            let what = format!(
                "it leads from {old_size} to {new_size} bytes in {count} segments, expected from {} to {}",
                self.old_size, self.new_size
            );
            return Err(super::damaged(self.file, what));
        }
        let mut table = vec![Entry::new_zeroed(); count];
        let bytes = table.as_mut_bytes();
        let there = rest.len().min(bytes.len());
        bytes[..there].copy_from_slice(&rest[..there]);
        if there < bytes.len() {
            let at = to_u64(Header::SIZE + there);
            self.wire.read(&mut bytes[there..], at, &(at..to_u64(end)))?;
        }
        Head::parse_table(&table, (old_size, new_size), self.size, self.file)
    }

    /// The segments that the target does not hold already.
    fn missing(&self, head: &Head, task: &Task) -> Result<Vec<usize>, DeltaError> {
        let mut segments = head.segments.iter().enumerate().peekable();
        let mut missing = Vec::new();
        let (mut hasher, mut block) = (Sha256::new(), 0);
        scan(&*self.target, self.new_size, task, |_, _, digests| {
            for digest in digests {
                hasher.update(digest);
                block += 1;
                let ended = |(_, segment): &(usize, &Segment)| segment.first + segment.blocks == block;
                if let Some((number, segment)) = segments.next_if(ended) {
                    let digest = std::mem::take(&mut hasher).finalize();
                    missing.extend((digest[..8] != segment.digest).then_some(number));
                }
            }
        })
        .map_err(|(at, source)| DeltaError::ReadTarget { at, source })?;
        Ok(missing)
    }

    /// Makes the blocks of a segment; gives the digest of what it made.
    fn apply(
        &mut self,
        segment: &Segment,
        bytes: &[u8],
        tally: &mut Tally,
        task: &Task,
    ) -> Result<RunDigest, Fault> {
        let (mut plan, _, rest) = streams::take(bytes)?;
        let (add, _, rest) = streams::take(rest)?;
        let (copy, _, rest) = streams::take(rest)?;
        if !rest.is_empty() {
            return Err("something follows its streams".into());
        }
        let moves = Moves::read(&mut plan, segment, self.old_size)?;
        let extents = Extents::read(&mut plan, self.old_size)?;
        let mut source = Source {
            plan,
            add,
            copy,
            extents,
            old: self.old,
            old_size: self.old_size,
            at: 0,
            to_add: 0,
            to_copy: 0,
            cache: Vec::new(),
            cached: 0,
        };

        let range = segment.range(self.new_size);
        let mut made = vec![0; CHUNK.min(to_usize(range.end - range.start))];
        let mut before = made.clone();
        let mut hasher = Sha256::new();
        let mut at = range.start;
        for step in moves.0 {
            let old_blocks = step.from..step.from + step.copy;
            let halves = [(step.new, None), (step.copy, Some(old_blocks.start * to_u64(BLOCK)))];
            for (blocks, from) in halves {
                let end = (at + blocks * to_u64(BLOCK)).min(range.end);
                let begin = at;
                while at < end {
                    let length = to_usize((end - at).min(to_u64(CHUNK)));
                    let (made, before) = (&mut made[..length], &mut before[..length]);
                    match from {
                        None => source.fill(made)?,
                        Some(from) => {
                            let from = from + (at - begin);
                            let read = self.old.read_at(made, from);
                            read.map_err(|source| DeltaError::Old { at: from, source })?;
                            tally.reused += to_u64(length);
                        }
                    }
                    hasher.update(digests(made).as_flattened());
                    let read = self.target.read_at(before, at);
                    read.map_err(|source| DeltaError::ReadTarget { at, source })?;
                    let (written, kept) = write_changed(self.target, at, made, before)?;
                    tally.written += written;
                    tally.kept += kept;
                    task.advance(to_u64(length));
                    at += to_u64(length);
                }
            }
        }
        if !source.is_finished()? {
            return Err("it makes more than its blocks".into());
        }
        Ok(*hasher.finalize().first_chunk().expect("a digest is longer than its head"))
    }
}

/// Blocks that are new, then blocks to copy from `from` on.
struct Move {
    new: u64,
    copy: u64,
    from: u64,
}

struct Moves(Vec<Move>);

impl Moves {
    fn read(plan: &mut dyn Read, segment: &Segment, old_size: u64) -> Result<Self, Fault> {
        let count = number(plan)?;
        if count > segment.blocks {
            return Err("more moves than blocks".into());
        }
        let (mut blocks, mut unlike, mut expected) = (0_u64, 0_u64, segment.first);
        let mut moves = Vec::new();
        for _ in 0..count {
            let (new, copy) = (number(plan)?, number(plan)?);
            let mut from = 0;
            if copy > 0 {
                let by = signed(plan)?;
                let place = expected.checked_add(new).and_then(|place| place.checked_add_signed(by));
                // A short last block may be copied too.
                let end = place.and_then(|place| place.checked_add(copy));
                match (place, end) {
                    (Some(place), Some(end)) if end <= old_size.div_ceil(to_u64(BLOCK)) => {
                        (from, expected) = (place, end);
                    }
                    _ => return Err("it copies from past the end of the old file".into()),
                }
            }
            if new == 0 && copy == 0 {
                return Err("a move of no blocks".into());
            }
            blocks = blocks.saturating_add(new).saturating_add(copy);
            unlike = unlike.saturating_add(new);
            if blocks > segment.blocks {
                return Err("its moves make more than its blocks".into());
            }
            moves.push(Move { new, copy, from });
        }
        if blocks != segment.blocks || unlike > BLOCKS_FROM_NOTHING {
            return Err("its moves make something else than its blocks".into());
        }
        Ok(Self(moves))
    }
}

/// Stretches of the old file that count as one.
struct Extents {
    /// Where each begins in the row, and its place in the old file.
    places: Vec<(u64, Range<u64>)>,
    size: u64,
}

impl Extents {
    fn read(plan: &mut dyn Read, old_size: u64) -> Result<Self, Fault> {
        let count = number(plan)?;
        let most = old_size.div_ceil(to_u64(BLOCK));
        let (mut end, mut size) = (0_u64, 0);
        let mut places = Vec::new();
        for _ in 0..count {
            let (skip, blocks) = (number(plan)?, number(plan)?);
            let first = end.checked_add(skip);
            match first.and_then(|first| first.checked_add(blocks)) {
                Some(after) if after <= most && blocks > 0 => end = after,
                _ => return Err("it starts from past the end of the old file".into()),
            }
            let place = (end - blocks) * to_u64(BLOCK)..end * to_u64(BLOCK);
            places.push((size, place.clone()));
            size += place.end - place.start;
        }
        Ok(Self { places, size })
    }

    /// The place in the old file of byte `at`, and how far the extent goes on from there.
    fn find(&self, at: u64) -> Option<(u64, u64)> {
        let index = self.places.partition_point(|(begin, _)| *begin <= at).checked_sub(1)?;
        let (begin, place) = &self.places[index];
        let from = place.start + (at - begin);
        (from < place.end).then_some((from, place.end - from))
    }
}

/// Makes new blocks.
struct Source<'a> {
    plan: Box<dyn Read + 'a>,
    add: Box<dyn Read + 'a>,
    copy: Box<dyn Read + 'a>,
    extents: Extents,
    old: &'a dyn ReadAt,
    old_size: u64,
    /// Where in the extents the next byte is added.
    at: u64,
    /// What is left of the step.
    to_add: u64,
    to_copy: u64,
    /// Old bytes from `cached` on.
    cache: Vec<u8>,
    cached: u64,
}

impl Source<'_> {
    fn fill(&mut self, mut out: &mut [u8]) -> Result<(), Fault> {
        while !out.is_empty() {
            if self.to_add > 0 {
                let (from, left) = self.extents.find(self.at).ok_or("it adds to what is not there")?;
                let length = to_usize(self.to_add.min(left).min(to_u64(out.len())).min(to_u64(CACHE)));
                let (now, rest) = out.split_at_mut(length);
                self.add.read_exact(now)?;
                for (byte, old) in now.iter_mut().zip(self.old_bytes(from, length)?) {
                    *byte = byte.wrapping_add(*old);
                }
                self.at += to_u64(length);
                self.to_add -= to_u64(length);
                out = rest;
            } else if self.to_copy > 0 {
                let length = to_usize(self.to_copy.min(to_u64(out.len())));
                let (now, rest) = out.split_at_mut(length);
                self.copy.read_exact(now)?;
                self.to_copy -= to_u64(length);
                out = rest;
            } else {
                self.step()?;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Fault> {
        let by = signed(&mut self.plan)?;
        self.to_add = number(&mut self.plan)?;
        self.to_copy = number(&mut self.plan)?;
        if self.to_add == 0 && self.to_copy == 0 {
            return Err("a step that makes nothing".into());
        }
        let at = self.at.checked_add_signed(by);
        match at.and_then(|at| at.checked_add(self.to_add)) {
            Some(end) if end <= self.extents.size => self.at = end - self.to_add,
            _ => return Err("a step out of its extents".into()),
        }
        Ok(())
    }

    /// Whether nothing is left of anything.
    fn is_finished(&mut self) -> Result<bool, Fault> {
        let mut ends = self.to_add == 0 && self.to_copy == 0;
        for stream in [&mut self.plan, &mut self.add, &mut self.copy] {
            ends &= stream.read(&mut [0])? == 0;
        }
        Ok(ends)
    }

    fn old_bytes(&mut self, from: u64, length: usize) -> Result<&[u8], Fault> {
        let end = from + to_u64(length);
        if from < self.cached || end > self.cached + to_u64(self.cache.len()) {
            self.cached = from / to_u64(BLOCK) * to_u64(BLOCK);
            self.cache.resize(CACHE + BLOCK, 0);
            // Past the end of the old file, in its last block, are zeros.
            let there = to_usize(self.old_size.saturating_sub(self.cached).min(to_u64(self.cache.len())));
            self.cache[there..].fill(0);
            let read = self.old.read_at(&mut self.cache[..there], self.cached);
            read.map_err(|source| DeltaError::Old { at: self.cached, source })?;
        }
        Ok(&self.cache[to_usize(from - self.cached)..][..length])
    }
}
