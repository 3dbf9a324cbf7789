//! A whole raw image as the other formats want it: where it has content, its size on the machine, a name for its content.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::sparse::{is_zero, stretches};
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, Hasher, align};

/// The unit in which content is told from zeros, in bytes: a cluster of qcow2, a grain of vmdk.
pub(super) const CLUSTER: u64 = 64 << 10;
/// Bytes that are read at once.
pub(super) const CHUNK: u64 = 1 << 20;

/// A raw image that was looked through once, for all formats.
#[derive(Debug)]
pub struct Disk<'a> {
    file: &'a File,
    length: u64,
    size: u64,
    used: Vec<Range<u64>>,
    identity: OnceLock<Digest>,
}

impl<'a> Disk<'a> {
    /// Looks through `file`. The disk has `size` bytes, or as many as the file where that is more: zeros follow it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn survey(file: &'a File, size: u64) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            length,
            size: size.max(length),
            used: used(file, length)?,
            identity: OnceLock::new(),
        })
    }

    /// Bytes of the disk.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the raw image.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The raw image.
    pub(super) fn file(&self) -> &File {
        self.file
    }

    /// Numbers of the clusters that are not zeros, in order, each run of them once.
    pub(super) fn used(&self) -> &[Range<u64>] {
        &self.used
    }

    /// As [`Self::used`], one by one.
    pub(super) fn clusters(&self) -> impl Iterator<Item = u64> {
        self.used.iter().cloned().flatten()
    }

    /// The runs of clusters within the bytes `range`, which begins and ends with a cluster.
    pub(super) fn used_in(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let range = range.start / CLUSTER..range.end.div_ceil(CLUSTER);
        let first = self.used.partition_point(|run| run.end <= range.start);
        self.used[first..]
            .iter()
            .map(move |run| run.start.max(range.start)..run.end.min(range.end))
            .take_while(|run| !run.is_empty())
    }

    /// Reads at `offset`; beyond the file are zeros.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let there = to_usize(self.length.saturating_sub(offset).min(to_u64(buffer.len())));
        buffer[there..].fill(0);
        self.file.read_exact_at(&mut buffer[..there], offset)
    }

    /// Names the content and the size of the disk: two images that differ anywhere have two names, two that are equal
    /// have one, however their files are stored.
    pub(super) fn identity(&self) -> io::Result<Digest> {
        if let Some(identity) = self.identity.get() {
            return Ok(*identity);
        }
        let pieces: Vec<Range<u64>> = self
            .used
            .iter()
            .flat_map(|run| {
                let whole = CHUNK / CLUSTER;
                // Pieces begin at multiples of CHUNK, so that they are the same in every file.
                (run.start / whole..run.end.div_ceil(whole))
                    .map(move |piece| run.start.max(piece * whole)..run.end.min((piece + 1) * whole))
            })
            .collect();
        let digests: Vec<Digest> = pieces
            .into_par_iter()
            .map(|piece| {
                let mut bytes = vec![0; to_usize((piece.end - piece.start) * CLUSTER)];
                self.read(&mut bytes, piece.start * CLUSTER)?;
                let mut hasher = Hasher::new();
                hasher.update(piece.start.to_le_bytes());
                hasher.update(&bytes);
                Ok(hasher.finish())
            })
            .collect::<io::Result<_>>()?;
        let mut hasher = Hasher::new();
        hasher.update(self.size.to_le_bytes());
        digests.iter().for_each(|digest| hasher.update(digest.as_bytes()));
        Ok(*self.identity.get_or_init(|| hasher.finish()))
    }
}

/// The clusters of `file` that are not zeros.
fn used(file: &File, length: u64) -> io::Result<Vec<Range<u64>>> {
    let mut used: Vec<Range<u64>> = Vec::new();
    let mut buffer = vec![0; to_usize(CHUNK)];
    let mut next = 0;
    for stretch in stretches(file, length)? {
        // Two stretches may lie in one cluster.
        let start = (stretch.start / CLUSTER * CLUSTER).max(next);
        for offset in (start..stretch.end).step_by(to_usize(CHUNK)) {
            let end = align::up(stretch.end, CLUSTER).min(length);
            let part = &mut buffer[..to_usize((end - offset).min(CHUNK))];
            file.read_exact_at(part, offset)?;
            for (cluster, bytes) in (offset / CLUSTER..).zip(part.chunks(to_usize(CLUSTER))) {
                next = (cluster + 1) * CLUSTER;
                if is_zero(bytes) {
                    continue;
                }
                match used.last_mut() {
                    Some(run) if run.end == cluster => run.end += 1,
                    _ => used.push(cluster..cluster + 1),
                }
            }
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_found_once_and_named() {
        let make = |with_zeros: bool, last: u8| {
            let file = tempfile::tempfile().unwrap();
            file.set_len((20 << 20) + 512).unwrap();
            if with_zeros {
                file.write_all_at(&vec![0; 6 << 20], 0).unwrap();
            }
            file.write_all_at(&[7; 2], (3 << 20) - 1).unwrap();
            file.write_all_at(&vec![8; 3 << 20], 7 << 20).unwrap();
            file.write_all_at(&[last], 20 << 20).unwrap();
            file
        };
        let (sparse, full, other) = (make(false, 1), make(true, 1), make(false, 2));
        let survey = |file| Disk::survey(file, 0).unwrap();
        let disk = survey(&sparse);
        assert_eq!(disk.size(), (20 << 20) + 512);
        assert_eq!(disk.used(), [47..49, 112..160, 320..321]);
        assert_eq!(survey(&full).used(), disk.used());
        assert_eq!(disk.clusters().count(), 51);
        assert_eq!(disk.used_in(2 << 20..8 << 20).collect::<Vec<_>>(), [47..49, 112..128]);
        assert_eq!(disk.used_in(4 << 20..7 << 20).count(), 0);
        let identity = disk.identity().unwrap();
        assert_eq!((survey(&full).identity().unwrap(), disk.identity().unwrap()), (identity, identity));
        assert_ne!(survey(&other).identity().unwrap(), identity);
        let larger = Disk::survey(&sparse, 30 << 20).unwrap();
        assert!(larger.size() == 30 << 20 && larger.identity().unwrap() != identity);
        let mut bytes = [9; 4];
        larger.read(&mut bytes, (20 << 20) + 511).unwrap();
        assert_eq!(bytes, [0; 4]);
    }
}
