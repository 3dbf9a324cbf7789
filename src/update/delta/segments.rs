//! Where the segments of a patch from nothing end.

use super::runs::{BLOCK, Run};
use super::streams;
use crate::base::width::to_u64;

/// New blocks in a segment of a patch from nothing at the most, in bytes. Half as many make that of a root larger by
/// 1.4 %; a node keeps as much in memory, and fetches a segment again that was cut off.
pub(super) const FROM_NOTHING: usize = streams::WINDOW;
/// Blocks of such a segment before it may end: see [`ends`].
const LEAST_FROM_NOTHING: usize = LARGEST_FROM_NOTHING * 2 / 3;
/// Blocks that it has at the most.
const LARGEST_FROM_NOTHING: usize = (12 << 20) / BLOCK;
/// The same limit for one that others made, in blocks.
pub(super) const BLOCKS_FROM_NOTHING: u64 = to_u64(FROM_NOTHING / BLOCK);
/// It may end with one run of so many.
const RUNS_TO_AN_END: u8 = 8;
/// Where the segments of a patch from nothing end, in blocks: with a run that says so by its digest, so that those of
/// two versions end alike where what is in them is alike, and whoever has the index knows it.
pub(super) fn ends(runs: impl IntoIterator<Item = Run>) -> Vec<u64> {
    let (mut ends, mut first, mut end) = (Vec::new(), 0, 0);
    for run in runs {
        let blocks = to_u64(run.blocks);
        if end + blocks - first > to_u64(LARGEST_FROM_NOTHING) {
            ends.push(end);
            first = end;
        }
        end += blocks;
        let says_so = run.digest[7].is_multiple_of(RUNS_TO_AN_END);
        if end - first >= to_u64(LEAST_FROM_NOTHING) && says_so {
            ends.push(end);
            first = end;
        }
    }
    ends.extend((first < end).then_some(end));
    ends
}
