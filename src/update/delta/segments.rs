//! Where the segments of a patch from nothing end.

use super::runs::{BLOCK, Run};
use super::streams;
use crate::base::width::to_u64;

/// Maximum number of bytes of new blocks in a segment of a patch from nothing. Half as many make that of a root larger by
/// 1.4 %; a node keeps as much in memory, and fetches a segment again that was cut off.
pub(super) const FROM_NOTHING: usize = streams::WINDOW;
/// Minimum number of blocks of such a segment, but for the last one: see [`ends`].
const LEAST_FROM_NOTHING: usize = LARGEST_FROM_NOTHING * 2 / 3;
/// Maximum number of blocks that this keller puts into one.
const LARGEST_FROM_NOTHING: usize = (12 << 20) / BLOCK;
/// [`FROM_NOTHING`] in blocks, the limit for one that others made.
pub(super) const BLOCKS_FROM_NOTHING: u64 = to_u64(FROM_NOTHING / BLOCK);
/// One run of so many, by its digest, may be the last of a segment.
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
