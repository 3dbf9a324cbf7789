//! Any version to any other: what the target has in its place stays, what the running root has is copied,
//! and only the rest is fetched.

use std::ops::Range;

use super::error::DeltaError;
use super::frame::{self, Decoder, Entry};
use super::index::{self, Index, Indexed};
use super::runs::{BLOCK, BlockDigest, Inventory, LONGEST, SHORT, digests, run_digest, scan, short};
use super::segments;
use super::wire::{Wire, coalesce, stretch_of};
use crate::base::Task;
use crate::base::device::{Device, ReadAt};
use crate::base::width::{to_u64, to_usize};

/// Above this share of what has to be fetched anyway, block by block finds nothing that is worth its table.
const NEARLY_ALL: f64 = 0.95;

/// What there is before anything is fetched.
pub(super) struct Survey {
    /// For each run of the index.
    have: Vec<Have>,
    /// The head of the digest of each block in the target.
    heads: Vec<[u8; SHORT]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Have {
    /// In its place in the target.
    InPlace,
    /// In the running version, from this block on.
    Old(u64),
    Lacking,
}

/// What a way took and gave; bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Taken from the running version.
    pub reused: u64,
    /// In their place in the target before.
    pub kept: u64,
    /// Written to the target.
    pub written: u64,
}

impl Survey {
    /// Looks at the target and into the inventory of the running version. `fresh` trusts nothing that the
    /// target holds.
    pub(super) fn of(
        index: &Index,
        inventory: &Inventory,
        target: &dyn Device,
        fresh: bool,
        task: &Task,
    ) -> Result<Self, DeltaError> {
        let mut have: Vec<Have> = index
            .runs
            .iter()
            .map(|run| inventory.run(&run.run.digest).map_or(Have::Lacking, Have::Old))
            .collect();
        let mut heads = Vec::new();
        if !fresh {
            let mut current: Vec<BlockDigest> = Vec::with_capacity(LONGEST);
            let mut runs = index.runs.iter().zip(&mut have);
            let mut next = runs.next();
            scan(target, index.size, task, |_, _, digests| {
                for digest in digests {
                    heads.push(short(digest));
                    current.push(*digest);
                    if let Some((run, have)) = &mut next
                        && run.run.blocks == current.len()
                    {
                        if run_digest(&current) == run.run.digest {
                            **have = Have::InPlace;
                        }
                        current.clear();
                        next = runs.next();
                    }
                }
            })
            .map_err(|(at, source)| DeltaError::ReadTarget { at, source })?;
        }
        Ok(Self { have, heads })
    }

    /// Bytes that have to be fetched at the most.
    pub(super) fn lacking(&self, index: &Index) -> u64 {
        self.lacking_runs(index).map(|(_, run)| to_u64(run.length)).sum()
    }

    /// Where in the frames file the last of what is lacking ends: a server without ranges gives all that is
    /// before it.
    pub(super) fn end(&self, index: &Index) -> u64 {
        self.lacking_runs(index).last().map_or(0, |(_, run)| run.at + to_u64(run.length))
    }

    /// How much of an image is in segments of the whole that are not in their place as a whole, from 0 to 1.
    pub(super) fn missing_share(&self, index: &Index) -> f64 {
        let ends = segments::ends(index.runs.iter().map(|run| run.run));
        let mut runs = index.runs.iter().zip(&self.have).peekable();
        let (mut first, mut missing) = (0, 0);
        for end in ends {
            let mut is_there = true;
            while let Some((_, have)) = runs.next_if(|(run, _)| run.first < end) {
                is_there &= *have == Have::InPlace;
            }
            missing += if is_there { 0 } else { end - first };
            first = end;
        }
        missing as f64 / (index.size / to_u64(BLOCK)).max(1) as f64
    }

    fn lacking_runs<'a>(&self, index: &'a Index) -> impl Iterator<Item = (usize, &'a Indexed)> {
        let all = index.runs.iter().enumerate().zip(&self.have);
        all.filter(|(_, have)| **have == Have::Lacking).map(|(numbered, _)| numbered)
    }

    /// Where each block of a lacking run comes from.
    fn sources<'a>(
        &'a self,
        run: &Indexed,
        entry: &Entry<'a>,
        inventory: &'a Inventory,
    ) -> impl Iterator<Item = Source> + 'a {
        entry.blocks().zip(to_usize(run.first)..).map(|(head, block)| {
            if self.heads.get(block) == Some(head) {
                return Source::InPlace;
            }
            inventory.block(head).map_or(Source::Frame, Source::Old)
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    InPlace,
    Old(u64),
    Frame,
}

/// Puts an image together in a target.
pub(super) struct Assembly<'a, 'r> {
    /// What it is made of.
    pub index: &'a Index,
    /// What there is of it.
    pub survey: &'a Survey,
    /// The entries of lacking runs in the block table.
    pub entries: &'a Entries,
    /// What the running version has.
    pub inventory: &'a Inventory,
    /// The running version.
    pub old: Option<&'a dyn ReadAt>,
    /// The frames file.
    pub wire: &'a mut Wire<'r>,
    /// Where it goes.
    pub target: &'a mut dyn Device,
    /// What it took so far.
    pub tally: Tally,
}

impl Assembly<'_, '_> {
    /// Fetches what is lacking and writes what is not in its place.
    pub(super) fn run(mut self, task: &Task) -> Result<Tally, DeltaError> {
        let index = self.index;
        let entries = self.entries;
        let stretches = self.stretches();
        let mut decoder = Decoder::new().map_err(decoder_failed)?;
        let mut buffer = vec![0; LONGEST * BLOCK];
        let mut before = vec![0; LONGEST * BLOCK];
        for (number, run) in index.runs.iter().enumerate() {
            let have = self.survey.have[number];
            if have == Have::InPlace {
                self.tally.kept += to_u64(run.bytes());
                task.advance(to_u64(run.bytes()));
                continue;
            }
            let (blocks, before) = (&mut buffer[..run.bytes()], &mut before[..run.bytes()]);
            let read = self.target.read_at(before, run.offset());
            read.map_err(|source| DeltaError::ReadTarget { at: run.offset(), source })?;
            let entry = entries.get(number);
            let whole = match have {
                Have::Old(first) => {
                    self.read_old(blocks, first)?;
                    let good = run_digest(&digests(blocks)) == run.run.digest;
                    self.tally.reused += if good { to_u64(blocks.len()) } else { 0 };
                    !good
                }
                _ => match entry.and_then(|bytes| Entry::parse(bytes, run, index.frame_blocks)) {
                    Some(entry) => {
                        !self.compose(number, run, &entry, &stretches, blocks, before, &mut decoder)?
                    }
                    None => true,
                },
            };
            if whole {
                self.fetch_run(number, run, &stretches, blocks, &mut decoder)?;
            }
            self.write(run, blocks, before)?;
            task.advance(to_u64(run.bytes()));
        }
        Ok(self.tally)
    }

    /// What to ask for in the frames file.
    fn stretches(&self) -> Vec<Range<u64>> {
        let in_frame = self.index.frame_blocks;
        let mut pieces = Vec::new();
        for (number, run) in self.survey.lacking_runs(self.index) {
            let entry = self.entries.get(number).and_then(|bytes| Entry::parse(bytes, run, in_frame));
            let Some(entry) = entry else {
                pieces.push(run.at..run.at + to_u64(run.length));
                continue;
            };
            let sources: Vec<Source> = self.survey.sources(run, &entry, self.inventory).collect();
            let mut at = run.at;
            for (length, sources) in entry.frames().zip(sources.chunks(in_frame)) {
                pieces.extend(sources.contains(&Source::Frame).then_some(at..at + to_u64(length)));
                at += to_u64(length);
            }
        }
        coalesce(pieces)
    }

    /// Puts a lacking run together out of blocks that are there and frames. False if that gave something
    /// else: heads of digests are short, and may mislead.
    #[expect(clippy::too_many_arguments, reason = "buffers that are used again")]
    fn compose(
        &mut self,
        number: usize,
        run: &Indexed,
        entry: &Entry,
        stretches: &[Range<u64>],
        blocks: &mut [u8],
        before: &[u8],
        decoder: &mut Decoder,
    ) -> Result<bool, DeltaError> {
        let sources: Vec<Source> = self.survey.sources(run, entry, self.inventory).collect();
        let (mut at, mut reused) = (run.at, 0);
        let mut fetched = Vec::new();
        let in_frame = self.index.frame_blocks;
        let frames = blocks.chunks_mut(in_frame * BLOCK).zip(before.chunks(in_frame * BLOCK));
        for (frame, ((blocks, before), (length, sources))) in
            frames.zip(entry.frames().zip(sources.chunks(in_frame))).enumerate()
        {
            if sources.contains(&Source::Frame) {
                fetched.resize(length, 0);
                self.wire.read(&mut fetched, at, &stretch_of(stretches, at))?;
                decoder.decode(&fetched, blocks).map_err(|what| DeltaError::Frame {
                    run: number,
                    frame,
                    at,
                    what,
                })?;
            } else {
                let blocks = blocks.chunks_mut(BLOCK).zip(before.chunks(BLOCK));
                for ((block, before), source) in blocks.zip(sources) {
                    match source {
                        Source::Old(first) => {
                            self.read_old(block, *first)?;
                            reused += to_u64(BLOCK);
                        }
                        _ => block.copy_from_slice(before),
                    }
                }
            }
            at += to_u64(length);
        }
        let good = run_digest(&digests(blocks)) == run.run.digest;
        self.tally.reused += if good { reused } else { 0 };
        Ok(good)
    }

    /// Fetches all frames of a run.
    fn fetch_run(
        &mut self,
        number: usize,
        run: &Indexed,
        stretches: &[Range<u64>],
        blocks: &mut [u8],
        decoder: &mut Decoder,
    ) -> Result<(), DeltaError> {
        let mut fetched = vec![0; run.length];
        let mut within = stretch_of(stretches, run.at);
        if within.end < run.at + to_u64(run.length) {
            within = run.at..run.at + to_u64(run.length);
        }
        self.wire.read(&mut fetched, run.at, &within)?;
        let mut rest = fetched.as_slice();
        for (frame, blocks) in blocks.chunks_mut(self.index.frame_blocks * BLOCK).enumerate() {
            let at = run.at + to_u64(run.length - rest.len());
            let failed = |what| DeltaError::Frame { run: number, frame, at, what };
            let length = frame::first_frame(rest).map_err(failed)?;
            decoder.decode(&rest[..length], blocks).map_err(failed)?;
            rest = &rest[length..];
        }
        if !rest.is_empty() || run_digest(&digests(blocks)) != run.run.digest {
            return Err(DeltaError::Run { run: number, at: run.at });
        }
        Ok(())
    }

    fn read_old(&self, blocks: &mut [u8], first: u64) -> Result<(), DeltaError> {
        let at = first * to_u64(BLOCK);
        let old = self.old.expect("an inventory is made of something");
        old.read_at(blocks, at).map_err(|source| DeltaError::Old { at, source })
    }

    /// Writes the blocks that are not in their place already.
    fn write(&mut self, run: &Indexed, blocks: &[u8], before: &[u8]) -> Result<(), DeltaError> {
        let (written, kept) = write_changed(self.target, run.offset(), blocks, before)?;
        self.tally.written += written;
        self.tally.kept += kept;
        Ok(())
    }
}

/// Writes `blocks` where they differ from `before`, which is there; gives the bytes that were written, and
/// those that were not.
pub(super) fn write_changed(
    target: &mut dyn Device,
    offset: u64,
    blocks: &[u8],
    before: &[u8],
) -> Result<(u64, u64), DeltaError> {
    let (mut at, mut written) = (0, 0);
    let pairs: Vec<bool> =
        blocks.chunks(BLOCK).zip(before.chunks(BLOCK)).map(|(block, before)| block == before).collect();
    for stretch in pairs.chunk_by(|a, b| a == b) {
        let end = (at + stretch.len() * BLOCK).min(blocks.len());
        if !stretch[0] {
            let offset = offset + to_u64(at);
            target
                .write_at(&blocks[at..end], offset)
                .map_err(|source| DeltaError::WriteTarget { at: offset, source })?;
            written += to_u64(end - at);
        }
        at = end;
    }
    Ok((written, to_u64(blocks.len()) - written))
}

/// Entries of the block table that were read.
#[derive(Default)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    /// By number of the run, ascending.
    places: Vec<(usize, Range<usize>)>,
}

impl Entries {
    /// Reads those of lacking runs, where they may save frames. Afterwards it is known whether the server knows
    /// ranges; of one that knows none they are not read, since all frames come along before the table does.
    pub(super) fn read(index: &Index, survey: &Survey, wire: &mut Wire) -> Result<Self, DeltaError> {
        let mut entries = Self::default();
        let table = index.table();
        let wanted: Vec<(usize, Range<u64>)> = survey
            .lacking_runs(index)
            .map(|(number, run)| {
                let at = table + run.entry;
                (number, at..at + to_u64(index::entry_size(run.run.blocks, index.frame_blocks)))
            })
            .collect();
        let all = (index.frames_size - to_u64(index::FRAMES_HEADER)) as f64;
        if wanted.is_empty() || survey.lacking(index) as f64 > NEARLY_ALL * all {
            return Ok(entries);
        }
        let stretches = coalesce(wanted.iter().map(|(_, range)| range.clone()));
        wire.reach(stretches[0].start, stretches[0].end, &stretches[0])?;
        if wire.no_ranges {
            return Ok(entries);
        }
        for (number, range) in wanted {
            let begin = entries.bytes.len();
            entries.bytes.resize(begin + to_usize(range.end - range.start), 0);
            let stretch = stretch_of(&stretches, range.start);
            wire.read(&mut entries.bytes[begin..], range.start, &stretch)?;
            entries.places.push((number, begin..entries.bytes.len()));
        }
        Ok(entries)
    }

    fn get(&self, number: usize) -> Option<&[u8]> {
        let found = self.places.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.bytes[self.places[found].1.clone()])
    }
}

fn decoder_failed(source: std::io::Error) -> DeltaError {
    DeltaError::Damaged { file: "the frames", what: format!("no memory to decompress them: {source}") }
}
