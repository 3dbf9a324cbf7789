//! The FAT of a volume in memory, and how its changes reach every copy on the disk. Source: FATGEN, "FAT Data
//! Structure" and "File System Information (FSInfo) Structure".

use std::collections::BTreeSet;
use std::io;

use super::format::{END_OF_CHAIN, FsInfo, LEAD_SIGNATURE, STRUCTURE_SIGNATURE};
use super::volume::{BAD_CLUSTER, CLUSTER_BITS, Volume};
use crate::base::align;
use crate::base::device::Device;
use crate::base::on_disk::{FromBytes, le};
use crate::base::width::{to_index, to_u64, to_usize};

/// `FSI_Nxt_Free` where nobody knows.
const NOT_KNOWN: u32 = u32::MAX;

/// The first FAT, and where the disk differs from it.
#[derive(Debug)]
pub(super) struct Table {
    /// Whole sectors of the first FAT, as far as clusters have entries.
    bytes: Vec<u8>,
    /// Numbers of sectors of the FAT that are to be written to every copy.
    dirty: BTreeSet<usize>,
    /// Bytes in a sector of the disk.
    sector: usize,
}

impl Table {
    /// Reads all copies. Sectors in which a further copy differs from the first, or cannot be read, are to be
    /// written.
    pub(super) fn read<D: Device + ?Sized>(device: &D, volume: &Volume) -> io::Result<Self> {
        let sector = device.sector_size().bytes();
        let size = to_usize(align::up((u64::from(volume.clusters) + 2) * 4, sector).min(volume.fat_size));
        let mut bytes = vec![0; size];
        device.read_at(&mut bytes, volume.fat)?;
        let sector = to_usize(sector);
        let mut dirty = BTreeSet::new();
        let mut copy = vec![0; size];
        for number in 1..volume.fats {
            let readable = device.read_at(&mut copy, volume.fat + number * volume.fat_size).is_ok();
            let pairs = bytes.chunks(sector).zip(copy.chunks(sector)).enumerate();
            dirty.extend(pairs.filter(|(_, (first, other))| !readable || first != other).map(|(at, _)| at));
        }
        Ok(Self { bytes, dirty, sector })
    }

    /// What follows `cluster`: a cluster, 0, or a mark.
    pub(super) fn get(&self, cluster: u32) -> u32 {
        self.raw(cluster) & CLUSTER_BITS
    }

    /// Writes it down for the next [`Table::write`].
    pub(super) fn set(&mut self, cluster: u32, next: u32) {
        let value = self.raw(cluster) & !CLUSTER_BITS | next;
        let at = to_index(cluster) * 4;
        le::U32::mut_from_prefix(&mut self.bytes[at..]).expect("whole entries").0.set(value);
        self.dirty.insert(at / self.sector);
    }

    fn raw(&self, cluster: u32) -> u32 {
        let at = to_index(cluster) * 4;
        le::U32::ref_from_prefix(&self.bytes[at..]).expect("whole entries").0.get()
    }

    /// Links clusters to a chain with an end.
    pub(super) fn link(&mut self, chain: &[u32]) {
        for (index, cluster) in chain.iter().enumerate() {
            self.set(*cluster, chain.get(index + 1).copied().unwrap_or(END_OF_CHAIN));
        }
    }

    /// Writes what is new to every copy, without a flush. Says whether there was anything.
    pub(super) fn write<D: Device + ?Sized>(&mut self, device: &mut D, volume: &Volume) -> io::Result<bool> {
        let dirty = std::mem::take(&mut self.dirty);
        for copy in 0..volume.fats {
            let start = volume.fat + copy * volume.fat_size;
            for index in &dirty {
                let at = index * self.sector;
                device.write_at(&self.bytes[at..at + self.sector], start + to_u64(at))?;
            }
        }
        Ok(!dirty.is_empty())
    }

    /// Frees every cluster that nothing refers to, whatever left it behind, for the next [`Table::write`].
    pub(super) fn sweep(&mut self, volume: &Volume, used: &Used) {
        for cluster in volume.numbers().filter(|cluster| !used.has(*cluster)) {
            if ![0, BAD_CLUSTER].contains(&self.get(cluster)) {
                self.set(cluster, 0);
            }
        }
    }

    /// Brings FSInfo in line, without a flush: firmware believes its number of free clusters. Says whether
    /// there was anything to write.
    pub(super) fn write_info<D: Device + ?Sized>(&self, device: &mut D, volume: &Volume) -> io::Result<bool> {
        let Some(at) = volume.info else { return Ok(false) };
        let mut bytes = vec![0; self.sector];
        device.read_at(&mut bytes, at)?;
        let Ok((info, _)) = FsInfo::mut_from_prefix(&mut bytes) else { return Ok(false) };
        if info.fsi_lead_sig != *LEAD_SIGNATURE || info.fsi_struc_sig != *STRUCTURE_SIGNATURE {
            return Ok(false);
        }
        let free = volume.numbers().filter(|cluster| self.get(*cluster) == 0).count();
        let free = u32::try_from(free).expect("clusters have numbers of 28 bits");
        if info.fsi_free_count == free {
            return Ok(false);
        }
        info.fsi_free_count.set(free);
        info.fsi_nxt_free.set(NOT_KNOWN);
        device.write_at(&bytes, at)?;
        Ok(true)
    }
}

/// Clusters that some file or folder has.
#[derive(Debug)]
pub(super) struct Used(Vec<bool>);

impl Used {
    /// None yet.
    pub(super) fn none(volume: &Volume) -> Self {
        Self(vec![false; to_index(volume.clusters)])
    }

    /// Whether `cluster`, which must be one, is in use.
    pub(super) fn has(&self, cluster: u32) -> bool {
        self.0[to_index(cluster) - 2]
    }

    /// Takes the clusters of the chain from `start` on, up to where it ends, is broken, or meets clusters that
    /// are in use already. Gives those that were taken.
    pub(super) fn take(&mut self, volume: &Volume, table: &Table, start: u32) -> Vec<u32> {
        let mut chain = Vec::new();
        let mut next = start;
        while volume.has(next) && !self.has(next) {
            self.0[to_index(next) - 2] = true;
            chain.push(next);
            next = table.get(next);
        }
        chain
    }

    /// The first `count` clusters that are free; fewer where there are not so many.
    pub(super) fn free(&self, volume: &Volume, table: &Table, count: u64) -> Vec<u32> {
        let free = volume.numbers().filter(|cluster| !self.has(*cluster));
        let good = free.filter(|cluster| table.get(*cluster) != BAD_CLUSTER);
        good.take(usize::try_from(count).unwrap_or(usize::MAX)).collect()
    }

    /// Marks clusters as used.
    pub(super) fn mark(&mut self, clusters: &[u32]) {
        for cluster in clusters {
            self.0[to_index(*cluster) - 2] = true;
        }
    }
}
