//! How many sectors go to what. Source: FATGEN, "FAT Volume Initialization" and "FAT Type Determination".

use super::{FatError, Options};
use crate::base::width::to_usize;
use crate::base::{Size, align};

/// A volume with fewer clusters is FAT16 by definition, whatever its boot sector says.
const MIN_CLUSTERS: u64 = 65_525;
/// Cluster numbers have 28 bits, and those from 0x0FFF_FFF7 on mean something else.
const MAX_CLUSTERS: u64 = 0x0fff_fff5;
/// Boot sector, FSInfo and their copies at sector 6, with room, as every formatter leaves it.
const RESERVED_SECTORS: u64 = 32;
/// Sectors in the track that the boot sector claims. mtools refuses a volume that is not whole tracks, so a
/// rest at the end of the partition stays unused; with 32 there is none in whole MiB.
pub(super) const TRACK_SECTORS: u64 = 32;
/// Clusters of this many bytes where there is room: the page size of what will read them.
const PREFERRED_CLUSTER: u64 = 4096;
/// Sizes that a volume is asked to have when it does not fit, in bytes.
const STEP: u64 = 1 << 20;

/// Sizes and places of a volume's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// In bytes.
    pub sector: u64,
    /// Sectors in a cluster.
    pub cluster_sectors: u64,
    /// Sectors before the first FAT.
    pub reserved: u64,
    /// Sectors of one of the two FATs.
    pub fat_sectors: u64,
    /// Sectors of the volume.
    pub total: u64,
    /// Clusters of the volume.
    pub clusters: u64,
}

impl Geometry {
    /// Splits up a partition; `needed` says how many clusters of a given size in bytes the content takes.
    ///
    /// # Errors
    /// `SectorSize`, `TooSmall`, `PartitionTooLarge`.
    pub(super) fn new(options: &Options, needed: impl Fn(u64) -> u64) -> Result<Self, FatError> {
        let Options { size, sector_size, .. } = *options;
        if ![512, 4096].contains(&sector_size) {
            return Err(FatError::SectorSize { bytes: sector_size });
        }
        let sector = u64::from(sector_size);
        if size / sector > u64::from(u32::MAX) {
            return Err(FatError::PartitionTooLarge { size, sector_size });
        }
        let too_small = |reason| FatError::TooSmall { size, reason, smallest: smallest(sector, &needed) };
        let geometry = Self::of(size, sector)
            .ok_or_else(|| too_small("FAT32 has at least 65,525 clusters by definition"))?;
        if needed(geometry.cluster()) > geometry.clusters {
            return Err(too_small("the content has no room"));
        }
        Ok(geometry)
    }

    /// Bytes in a cluster.
    pub(super) fn cluster(&self) -> u64 {
        self.cluster_sectors * self.sector
    }

    /// Where a cluster lies, in bytes from the start of the volume.
    pub(super) fn offset(&self, cluster: u32) -> u64 {
        let sectors = self.reserved + 2 * self.fat_sectors + (u64::from(cluster) - 2) * self.cluster_sectors;
        sectors * self.sector
    }

    /// The largest clusters up to the preferred size with which the volume is FAT32; nothing if it is none.
    fn of(size: u64, sector: u64) -> Option<Self> {
        let total = size / sector / TRACK_SECTORS * TRACK_SECTORS;
        let mut cluster = PREFERRED_CLUSTER.max(sector);
        while size / cluster > MAX_CLUSTERS {
            cluster *= 2;
        }
        loop {
            let geometry = Self::with_cluster(total, sector, cluster / sector);
            if let Some(geometry) = geometry.filter(|geometry| geometry.clusters >= MIN_CLUSTERS) {
                return Some(geometry);
            }
            if cluster == sector {
                return None;
            }
            cluster /= 2;
        }
    }

    fn with_cluster(total: u64, sector: u64, cluster_sectors: u64) -> Option<Self> {
        // A FAT of f sectors has f * sector / 4 entries, two of them for no cluster; solved for the smallest f
        // that has an entry for each cluster of the rest.
        let entries = total.checked_sub(RESERVED_SECTORS)? + 2 * cluster_sectors;
        let fat_sectors = align::units(entries * 4, sector * cluster_sectors + 8);
        // Clusters begin at multiples of their size, so that none straddles two blocks of the disk.
        let front = align::up(RESERVED_SECTORS + 2 * fat_sectors, cluster_sectors);
        let clusters = total.checked_sub(front)? / cluster_sectors;
        let reserved = front - 2 * fat_sectors;
        Some(Self { sector, cluster_sectors, reserved, fat_sectors, total, clusters })
    }
}

/// The smallest volume in whole MiB that has room for the content.
fn smallest(sector: u64, needed: &impl Fn(u64) -> u64) -> Size {
    let fits = |size: &u64| {
        Geometry::of(*size, sector).is_some_and(|geometry| needed(geometry.cluster()) <= geometry.clusters)
    };
    // Content never takes less than its clusters at the sector's own size.
    let start = align::up((needed(sector) * sector).max(MIN_CLUSTERS * sector), STEP);
    Size((start..).step_by(to_usize(STEP)).find(fits).expect("some size works"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(size: u64, sector_size: u32) -> Options {
        Options { size, sector_size, volume_id: 0, label: String::new(), mtime: 0 }
    }

    #[test]
    fn every_volume_is_fat32_and_its_fat_has_an_entry_for_each_cluster() {
        for sector_size in [512, 4096] {
            for mib in [34, 35, 64, 100, 129, 257, 258, 300, 512, 1000, 4096, 1 << 20] {
                let Some(geometry) = Geometry::of(mib << 20, sector_size) else {
                    assert!(mib < 34 || sector_size == 4096 && mib < 257, "{mib}");
                    continue;
                };
                let Geometry { sector, fat_sectors, clusters, .. } = geometry;
                assert!((MIN_CLUSTERS..=MAX_CLUSTERS).contains(&clusters));
                assert!(fat_sectors * sector / 4 >= clusters + 2, "{geometry:?}");
                // Not more than a cluster's worth of sectors too many.
                assert!((fat_sectors - 1) * sector / 4 < clusters + 2 + geometry.cluster_sectors);
                assert!(geometry.offset(2) % geometry.cluster() == 0);
                assert!(geometry.offset(2 + u32::try_from(clusters).unwrap()) <= mib << 20);
                assert!((RESERVED_SECTORS..RESERVED_SECTORS + 64).contains(&geometry.reserved));
            }
        }
        assert_eq!(Geometry::of(512 << 20, 512).unwrap().cluster(), 4096);
        assert_eq!(Geometry::of(128 << 20, 512).unwrap().cluster(), 1024);
    }

    #[test]
    fn too_small_names_the_smallest_that_works() {
        for (sector_size, smallest) in [(512, Size::mib(33)), (4096, Size::mib(257))] {
            match Geometry::new(&options(16 << 20, sector_size), |_| 1).unwrap_err() {
                FatError::TooSmall { smallest: said, .. } => assert_eq!(said, smallest),
                error => panic!("{error}"),
            }
            Geometry::new(&options(smallest.bytes(), sector_size), |_| 1).unwrap();
            Geometry::new(&options(smallest.bytes() - (1 << 20), sector_size), |_| 1).unwrap_err();
        }
        let content = |cluster: u64| align::units(100 << 20, cluster);
        match Geometry::new(&options(64 << 20, 512), content).unwrap_err() {
            FatError::TooSmall { smallest, .. } => {
                Geometry::new(&options(smallest.bytes(), 512), content).unwrap();
                assert!(smallest < Size::mib(103), "{smallest}");
            }
            error => panic!("{error}"),
        }
        assert!(matches!(
            Geometry::new(&options(3 << 40, 512), |_| 1),
            Err(FatError::PartitionTooLarge { .. })
        ));
        assert!(matches!(Geometry::new(&options(1 << 30, 520), |_| 1), Err(FatError::SectorSize { .. })));
    }
}
