//! Making a patch: blocks that are in the old file are copied, the others are made out of those that are not.

use std::collections::HashMap;
use std::io::{self, Write};

use rayon::prelude::*;

use super::{Head, NEW_IN_SEGMENT};
use crate::base::device::ReadAt;
use crate::base::progress::{Progress, Task, Unit};
use crate::base::width::{to_u64, to_usize};
use crate::update::delta::diff::Finder;
use crate::update::delta::error::PublishError;
use crate::update::delta::runs::{BLOCK, BlockDigest, MOST_BLOCKS, RunDigest, run_digest, scan};
use crate::update::delta::streams::{self, put_number, put_signed};

/// Old blocks on both sides of those that are not copied: what moved by some bytes begins there.
const AROUND: usize = 4;
/// Old bytes that are searched for one segment at the most. The search keeps about five times as much in
/// memory.
const SEARCHED: usize = 48 << 20;
/// Segments that are made at once: each keeps its new blocks and what becomes of them.
pub(super) const AT_ONCE: usize = 4;

/// Writes a patch from `old` to `new`, of which the first `old_size` and `new_size` bytes count; gives its
/// size. Works on all processors; memory grows with what has changed, up to some 400 MiB and the patch.
pub fn make_patch(
    old: &(dyn ReadAt + Sync),
    old_size: u64,
    new: &(dyn ReadAt + Sync),
    new_size: u64,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<u64, PublishError> {
    for size in [old_size, new_size] {
        if size.div_ceil(to_u64(BLOCK)) > MOST_BLOCKS {
            return Err(PublishError::Size { size });
        }
    }
    let task = Task::new(progress, "comparing", old_size + new_size, Unit::Bytes);
    let old = Side::read(old, old_size, &task)?;
    let new = Side::read(new, new_size, &task)?;
    drop(task);
    let plans = plan(&old.digests, &new.digests);
    let left = left_over(&old.digests, &plans);
    let task = Task::new(progress, "patching", new_size, Unit::Bytes);

    let mut segments: Vec<(RunDigest, u64, Vec<u8>)> = Vec::new();
    let total: usize = left.iter().map(|extent| extent.blocks * BLOCK).sum();
    let shared = match total <= SEARCHED {
        true => Some(old.read_extents(&left)?),
        false => None,
    };
    let shared = shared.as_deref().map(Finder::new);
    for batch in plans.chunks(if shared.is_some() { AT_ONCE } else { 1 }) {
        let inputs: Vec<(&Plan, Vec<u8>)> = batch
            .iter()
            .map(|plan| new.read_new(plan).map(|bytes| (plan, bytes)))
            .collect::<Result<_, _>>()?;
        let made: Vec<io::Result<Vec<u8>>> = match &shared {
            Some(finder) => {
                inputs.par_iter().map(|(plan, bytes)| plan.segment(&left, finder, bytes)).collect()
            }
            None => {
                let mut made = Vec::new();
                for (plan, bytes) in &inputs {
                    let near = around(&left, plan.first, new.digests.len());
                    let bytes_near = old.read_extents(&near)?;
                    made.push(plan.segment(&near, &Finder::new(&bytes_near), bytes));
                }
                made
            }
        };
        for (plan, made) in batch.iter().zip(made) {
            let digests = &new.digests[plan.first..][..plan.blocks];
            let made = made.map_err(writing)?;
            segments.push((run_digest(digests), to_u64(plan.blocks), made));
            task.advance(to_u64(plan.blocks * BLOCK));
        }
    }
    write(old_size, new_size, &segments, out)
}

fn write(
    old_size: u64,
    new_size: u64,
    segments: &[(RunDigest, u64, Vec<u8>)],
    out: &mut dyn Write,
) -> Result<u64, PublishError> {
    let entries = segments.iter().map(|(digest, blocks, bytes)| (*digest, *blocks, bytes.len()));
    let head = Head::new(old_size, new_size, entries);
    out.write_all(&head.to_bytes()).map_err(writing)?;
    for (_, _, bytes) in segments {
        out.write_all(bytes).map_err(writing)?;
    }
    Ok(head.end())
}

pub(super) fn writing(source: io::Error) -> PublishError {
    PublishError::Write { file: super::FILE, source }
}

/// One of the two files.
pub(super) struct Side<'a> {
    file: &'a (dyn ReadAt + Sync),
    size: u64,
    pub(super) digests: Vec<BlockDigest>,
}

impl<'a> Side<'a> {
    pub(super) fn read(file: &'a (dyn ReadAt + Sync), size: u64, task: &Task) -> Result<Self, PublishError> {
        let mut digests = Vec::with_capacity(to_usize(size.div_ceil(to_u64(BLOCK))));
        scan(file, size, task, |_, _, window| digests.extend(window))
            .map_err(|(at, source)| PublishError::Read { at, source })?;
        Ok(Self { file, size, digests })
    }

    pub(super) fn append(&self, bytes: &mut Vec<u8>, extent: Extent) -> Result<(), PublishError> {
        let at = to_u64(extent.first * BLOCK);
        let end = (at + to_u64(extent.blocks * BLOCK)).min(self.size);
        let begin = bytes.len();
        bytes.resize(begin + to_usize(end - at), 0);
        let read = self.file.read_at(&mut bytes[begin..], at);
        read.map_err(|source| PublishError::Read { at, source })
    }

    /// The blocks of extents in a row; a short last block is filled up with zeros, as who applies it does.
    fn read_extents(&self, extents: &[Extent]) -> Result<Vec<u8>, PublishError> {
        let mut bytes = Vec::with_capacity(extents.iter().map(|extent| extent.blocks * BLOCK).sum());
        for extent in extents {
            self.append(&mut bytes, *extent)?;
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        Ok(bytes)
    }

    /// The blocks that a plan does not copy.
    fn read_new(&self, plan: &Plan) -> Result<Vec<u8>, PublishError> {
        let mut bytes = Vec::new();
        let mut first = plan.first;
        for step in &plan.moves {
            self.append(&mut bytes, Extent { first, blocks: step.new })?;
            first += step.new + step.copy;
        }
        Ok(bytes)
    }
}

/// Blocks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) first: usize,
    pub(super) blocks: usize,
}

/// Blocks that are new, then blocks to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Move {
    new: usize,
    copy: usize,
    /// First block to copy, in the old file.
    from: usize,
}

/// How a segment is made.
#[derive(Debug, Default)]
struct Plan {
    /// In the new file.
    first: usize,
    blocks: usize,
    moves: Vec<Move>,
}

/// Cuts the new file into segments and finds the blocks that the old one has.
fn plan(old: &[BlockDigest], new: &[BlockDigest]) -> Vec<Plan> {
    let mut places: HashMap<&BlockDigest, usize> = HashMap::with_capacity(old.len());
    for (block, digest) in old.iter().enumerate() {
        places.entry(digest).or_insert(block);
    }
    let mut plans = Vec::new();
    let mut current = Plan::default();
    let (mut unlike, mut next) = (0, None);
    for (block, digest) in new.iter().enumerate() {
        let place = [next, Some(block)]
            .into_iter()
            .flatten()
            .find(|place| old.get(*place) == Some(digest))
            .or_else(|| places.get(digest).copied());
        let ends = match place {
            None => unlike == NEW_IN_SEGMENT / BLOCK,
            Some(_) => false,
        };
        if ends {
            let first = block;
            plans.push(std::mem::replace(&mut current, Plan { first, ..Plan::default() }));
            unlike = 0;
        }
        current.blocks += 1;
        match (place, current.moves.last_mut()) {
            (Some(from), Some(last)) if last.copy == 0 => (last.copy, last.from) = (1, from),
            (Some(from), Some(last)) if last.from + last.copy == from => last.copy += 1,
            (Some(from), _) => current.moves.push(Move { new: 0, copy: 1, from }),
            (None, Some(last)) if last.copy == 0 => last.new += 1,
            (None, _) => current.moves.push(Move { new: 1, ..Move::default() }),
        }
        unlike += usize::from(place.is_none());
        next = place.map(|place| place + 1);
    }
    plans.extend((current.blocks > 0).then_some(current));
    plans
}

/// What of the old file is not copied, and a little around it.
fn left_over(old: &[BlockDigest], plans: &[Plan]) -> Vec<Extent> {
    if plans.iter().all(|plan| plan.moves.iter().all(|step| step.new == 0)) {
        return Vec::new();
    }
    let mut copied = vec![false; old.len()];
    for step in plans.iter().flat_map(|plan| &plan.moves) {
        copied[step.from..][..step.copy].fill(true);
    }
    let mut extents: Vec<Extent> = Vec::new();
    for block in (0..old.len()).filter(|block| !copied[*block]) {
        let first = block.saturating_sub(AROUND);
        let end = (block + 1 + AROUND).min(old.len());
        match extents.last_mut() {
            Some(last) if first <= last.first + last.blocks => last.blocks = end - last.first,
            _ => extents.push(Extent { first, blocks: end - first }),
        }
    }
    extents
}

/// As much of the extents as is searched, about where the new file has its block `first` of `all`.
fn around(extents: &[Extent], first: usize, all: usize) -> Vec<Extent> {
    let total: usize = extents.iter().map(|extent| extent.blocks).sum();
    let most = SEARCHED / BLOCK;
    let middle = (total as u128 * first as u128 / all.max(1) as u128) as usize;
    let begin = middle.saturating_sub(most / 2).min(total.saturating_sub(most));
    let end = begin + most;
    let mut at = 0;
    let mut near = Vec::new();
    for extent in extents {
        let (from, to) = (begin.max(at), end.min(at + extent.blocks));
        if from < to {
            near.push(Extent { first: extent.first + from - at, blocks: to - from });
        }
        at += extent.blocks;
    }
    near
}

/// A position, of which another one is taken away.
fn signed(position: usize) -> i64 {
    to_u64(position).cast_signed()
}

impl Plan {
    /// The segment: `new` is made out of `extents`, whose bytes the finder has.
    fn segment(&self, extents: &[Extent], finder: &Finder, new: &[u8]) -> io::Result<Vec<u8>> {
        let steps = finder.steps(new);
        let (extents, places) = touched(extents, steps.iter().map(|step| (step.from, step.add)));

        let mut plan = Vec::new();
        put_number(&mut plan, to_u64(self.moves.len()));
        let mut expected = self.first;
        for step in &self.moves {
            put_number(&mut plan, to_u64(step.new));
            put_number(&mut plan, to_u64(step.copy));
            if step.copy > 0 {
                expected += step.new;
                put_signed(&mut plan, signed(step.from) - signed(expected));
                expected = step.from + step.copy;
            }
        }
        put_number(&mut plan, to_u64(extents.len()));
        let mut end = 0;
        for extent in &extents {
            put_number(&mut plan, to_u64(extent.first - end));
            put_number(&mut plan, to_u64(extent.blocks));
            end = extent.first + extent.blocks;
        }
        let (mut add, mut copy) = (Vec::new(), Vec::new());
        let (mut at, mut old_at) = (0, 0);
        for (step, place) in steps.iter().zip(places) {
            put_signed(&mut plan, signed(place) - signed(old_at));
            put_number(&mut plan, to_u64(step.add));
            put_number(&mut plan, to_u64(step.copy));
            let (sum, taken) = new[at..][..step.add + step.copy].split_at(step.add);
            let old = &finder.old()[step.from..][..step.add];
            add.extend(sum.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)));
            copy.extend(taken);
            at += step.add + step.copy;
            old_at = place + step.add;
        }
        let mut segment = Vec::new();
        for stream in [&plan, &add, &copy] {
            streams::put(&mut segment, stream)?;
        }
        Ok(segment)
    }
}

/// The extents that ranges of bytes, counted through all extents, touch; and where each range begins when
/// only these are counted.
fn touched(
    extents: &[Extent],
    ranges: impl Iterator<Item = (usize, usize)> + Clone,
) -> (Vec<Extent>, Vec<usize>) {
    let total: usize = extents.iter().map(|extent| extent.blocks).sum();
    let mut needed = vec![false; total];
    for (from, length) in ranges.clone().filter(|(_, length)| *length > 0) {
        needed[from / BLOCK..(from + length).div_ceil(BLOCK)].fill(true);
    }
    let mut before = Vec::with_capacity(total + 1);
    let mut count = 0;
    for needed in &needed {
        before.push(count);
        count += usize::from(*needed);
    }
    let blocks = extents.iter().flat_map(|extent| extent.first..extent.first + extent.blocks);
    let mut kept: Vec<Extent> = Vec::new();
    for (block, _) in blocks.zip(&needed).filter(|(_, needed)| **needed) {
        match kept.last_mut() {
            Some(last) if last.first + last.blocks == block => last.blocks += 1,
            _ => kept.push(Extent { first: block, blocks: 1 }),
        }
    }
    let places = ranges.map(|(from, length)| match length {
        0 => 0,
        _ => before[from / BLOCK] * BLOCK + from % BLOCK,
    });
    (kept, places.collect())
}
