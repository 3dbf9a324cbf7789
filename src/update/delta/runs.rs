//! Runs: stretches of whole blocks whose borders depend on what is in the blocks, not on where they lie.
//!
//! A run ends with a block whose SHA-256 begins with six zero bits, or after [`LONGEST`] blocks. Whoever has
//! an image finds its runs by this rule alone: a file that moved by a few blocks ends its runs where it did
//! before. So an index of the new image needs one digest for about 64 blocks, and a node finds the same
//! runs in the root that it is running.

use std::collections::HashMap;
use std::io;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::base::Task;
use crate::base::device::ReadAt;
use crate::base::width::{to_u64, to_usize};

/// Bytes of a block: that of EROFS, of dm-verity and of all ways of updating.
pub(super) const BLOCK: usize = 4096;
/// Blocks of a run at the most.
pub(super) const LONGEST: usize = 256;
/// Bytes that are read, and hashed by all processors, at once.
const WINDOW: usize = 4 << 20;

/// SHA-256 of one block.
pub(super) type BlockDigest = [u8; 32];

/// The head of the SHA-256 over the digests of a run's blocks. Short, since it only has to tell the runs of
/// two images apart: the root hash judges the result.
pub(super) type RunDigest = [u8; 8];

/// Some blocks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// What is in it.
    pub digest: RunDigest,
    /// How many, from 1 to [`LONGEST`].
    pub blocks: usize,
}

/// The digests of whole blocks.
pub(super) fn digests(blocks: &[u8]) -> Vec<BlockDigest> {
    // One call for many blocks: a task of its own costs more than to hash one.
    blocks.par_chunks(BLOCK).with_min_len(16).map(|block| Sha256::digest(block).into()).collect()
}

/// The digest of the run that is made of these blocks.
pub(super) fn run_digest(blocks: &[BlockDigest]) -> RunDigest {
    let digest: [u8; 32] = Sha256::digest(blocks.as_flattened()).into();
    *digest.first_chunk().expect("a digest is longer than its head")
}

/// What [`short`] leaves of a digest, in bytes.
pub(super) const SHORT: usize = 5;

/// The head of a block's digest: enough to find the block among those of another image. Where it misleads,
/// the digest of the run tells.
pub(super) fn short(digest: &BlockDigest) -> [u8; SHORT] {
    *digest.first_chunk().expect("a digest is longer than its head")
}

/// Cuts a sequence of blocks into runs.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    current: Vec<BlockDigest>,
}

impl Cutter {
    /// Takes the next block; gives the run that ends with it.
    pub(super) fn push(&mut self, block: BlockDigest) -> Option<Run> {
        self.current.push(block);
        let ends = block[0] >> 2 == 0 || self.current.len() == LONGEST;
        ends.then(|| self.cut()).flatten()
    }

    /// The run that the end of the image ends.
    pub(super) fn finish(mut self) -> Option<Run> {
        self.cut()
    }

    fn cut(&mut self) -> Option<Run> {
        let run = Run { digest: run_digest(&self.current), blocks: self.current.len() };
        self.current.clear();
        (run.blocks > 0).then_some(run)
    }
}

/// Reads the first `size` bytes of `source` and hands on window after window: its offset, its bytes, the
/// digests of its blocks.
///
/// # Errors
/// The offset of the window that could not be read, and why.
pub(super) fn scan(
    source: &dyn ReadAt,
    size: u64,
    task: &Task,
    mut window: impl FnMut(u64, &[u8], &[BlockDigest]),
) -> Result<(), (u64, io::Error)> {
    let mut buffer = vec![0; WINDOW.min(to_usize(size))];
    let mut at = 0;
    while at < size {
        let length = to_usize((size - at).min(to_u64(WINDOW)));
        let bytes = &mut buffer[..length];
        source.read_at(bytes, at).map_err(|error| (at, error))?;
        window(at, bytes, &digests(bytes));
        task.advance(to_u64(length));
        at += to_u64(length);
    }
    Ok(())
}

/// Where to find what is in an image: in the root that is running.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// The first block of each run.
    runs: HashMap<RunDigest, u64>,
    /// Five bytes of a block's digest and three of its number, in order: 8 bytes for a block keep the
    /// inventory of the largest image small.
    blocks: Vec<u64>,
}

/// Blocks that an [`Inventory`] can number.
pub(super) const MOST_BLOCKS: u64 = 1 << 24;

impl Inventory {
    /// Reads an image of `size` bytes; a last part that is no whole block is left out.
    ///
    /// # Errors
    /// The offset of what could not be read, and why.
    pub(super) fn of(source: &dyn ReadAt, size: u64, task: &Task) -> Result<Self, (u64, io::Error)> {
        let count = (size / to_u64(BLOCK)).min(MOST_BLOCKS);
        let mut inventory = Self { runs: HashMap::new(), blocks: Vec::with_capacity(to_usize(count)) };
        let mut cutter = Cutter::default();
        let (mut block, mut first) = (0, 0);
        scan(source, count * to_u64(BLOCK), task, |_, _, digests| {
            for digest in digests {
                inventory.blocks.push(key(&short(digest)) | block);
                block += 1;
                if let Some(run) = cutter.push(*digest) {
                    inventory.runs.entry(run.digest).or_insert(first);
                    first = block;
                }
            }
        })?;
        if let Some(run) = cutter.finish() {
            inventory.runs.entry(run.digest).or_insert(first);
        }
        inventory.blocks.sort_unstable();
        Ok(inventory)
    }

    /// The first block of the run with this digest.
    pub(super) fn run(&self, digest: &RunDigest) -> Option<u64> {
        self.runs.get(digest).copied()
    }

    /// A block whose digest begins so.
    pub(super) fn block(&self, head: &[u8; SHORT]) -> Option<u64> {
        let key = key(head);
        let found = self.blocks[self.blocks.partition_point(|entry| *entry < key)..].first()?;
        (found & !(MOST_BLOCKS - 1) == key).then_some(found & (MOST_BLOCKS - 1))
    }
}

fn key(head: &[u8; SHORT]) -> u64 {
    head.iter().fold(0, |key, byte| key << 8 | u64::from(*byte)) << 24
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::{Silent, Unit};
    use crate::update::delta::testing::noise;

    fn runs_of(bytes: &[u8]) -> Vec<Run> {
        let mut cutter = Cutter::default();
        let mut runs: Vec<Run> = digests(bytes).into_iter().filter_map(|block| cutter.push(block)).collect();
        runs.extend(cutter.finish());
        runs
    }

    #[test]
    fn runs_survive_a_shift() {
        let image = noise(1, 2000 * BLOCK);
        let shifted = [&noise(2, 3 * BLOCK)[..], &image].concat();
        let (before, after) = (runs_of(&image), runs_of(&shifted));
        assert_eq!(before.iter().map(|run| run.blocks).sum::<usize>(), 2000);
        let kept = before.iter().filter(|run| after.contains(run)).count();
        assert!(kept + 1 >= before.len(), "{kept} of {}", before.len());
        assert!((15..70).contains(&before.len()), "{}", before.len());
    }

    #[test]
    fn a_hole_ends_its_runs_too() {
        let runs = runs_of(&vec![0; 1000 * BLOCK]);
        assert_eq!(runs.iter().map(|run| run.blocks).collect::<Vec<_>>(), [256, 256, 256, 232]);
    }

    #[test]
    fn an_inventory_finds_what_is_there() {
        let image = noise(3, 700 * BLOCK);
        let silent = Silent;
        let task = Task::new(&silent, "", 0, Unit::Bytes);
        let inventory = Inventory::of(&image.as_slice(), to_u64(image.len()), &task).unwrap();
        let mut first = 0;
        for run in runs_of(&image) {
            assert_eq!(inventory.run(&run.digest), Some(first));
            first += to_u64(run.blocks);
        }
        for (number, digest) in digests(&image).iter().enumerate() {
            assert_eq!(inventory.block(&short(digest)), Some(to_u64(number)));
        }
        assert_eq!(inventory.block(&short(&digests(&noise(4, BLOCK))[0])), None);
        assert_eq!(inventory.run(&[0; 8]), None);
    }
}
