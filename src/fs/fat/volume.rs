//! What a boot sector says of a volume, whoever wrote it. Every number is checked before it is used.
//! Source: FATGEN, "BIOS Parameter Block".

use super::error::{ReadError, corrupt};
use super::format::{BootSector, NOT_MIRRORED, SIGNATURE};
use crate::base::on_disk::transmute_ref;

/// Bits of a FAT entry that are a cluster's number; the rest is to be kept as it is.
pub(super) const CLUSTER_BITS: u32 = 0x0fff_ffff;
/// The smallest entry that ends a chain.
pub(super) const LEAST_END_OF_CHAIN: u32 = 0x0fff_fff8;
/// The entry of a cluster that is not to be used.
pub(super) const BAD_CLUSTER: u32 = 0x0fff_fff7;

/// Sizes and places of a volume's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    /// Bytes in a sector.
    pub sector: u64,
    /// Bytes in a cluster.
    pub cluster: u64,
    /// Where the first FAT begins, in bytes.
    pub fat: u64,
    /// Bytes of one FAT.
    pub fat_size: u64,
    /// How many FATs there are.
    pub fats: u64,
    /// Whether all FATs are kept equal, as is usual.
    pub mirrored: bool,
    /// Where the FSInfo sector is, in bytes; nothing where there is none.
    pub info: Option<u64>,
    /// Where the first cluster, number 2, begins, in bytes.
    pub data: u64,
    /// Number of clusters.
    pub clusters: u32,
    /// The root folder's first cluster.
    pub root: u32,
    /// Serial number.
    pub id: u32,
    /// Name, as it stands here.
    pub label: String,
}

impl Volume {
    /// Reads the first 512 bytes of a partition of `size` bytes.
    ///
    /// # Errors
    /// `NotFat32`; `Corrupt` when the root is nowhere.
    pub(super) fn new(sector: &[u8; 512], size: u64) -> Result<Self, ReadError> {
        let not = |problem: &str| ReadError::NotFat32 { problem: problem.to_owned() };
        let boot: &BootSector = transmute_ref!(sector);
        if boot.signature_word != SIGNATURE {
            return Err(not("the boot sector's signature is missing"));
        }
        let (bytes, sectors) = (u64::from(boot.bpb_byts_per_sec), u64::from(boot.bpb_sec_per_clus));
        if ![512, 1024, 2048, 4096].contains(&bytes) || !sectors.is_power_of_two() {
            return Err(not("its sectors or clusters have an impossible size"));
        }
        let (fat_sectors, total) = (u64::from(boot.bpb_fat_sz32), u64::from(boot.bpb_tot_sec32));
        if boot.bpb_root_ent_cnt != 0 || boot.bpb_fat_sz16 != 0 || fat_sectors == 0 || total == 0 {
            return Err(not("it is FAT12 or FAT16, or none at all"));
        }
        let (reserved, fats) = (u64::from(boot.bpb_rsvd_sec_cnt), u64::from(boot.bpb_num_fats));
        let front = reserved + fats * fat_sectors;
        let clusters = total.saturating_sub(front) / sectors;
        if reserved == 0 || fats == 0 || clusters == 0 || (clusters + 2) * 4 > fat_sectors * bytes {
            return Err(not("its parts do not fit into one another"));
        }
        if total * bytes > size {
            let problem = format!("it has {} bytes, and its partition {size}", total * bytes);
            return Err(ReadError::NotFat32 { problem });
        }
        let volume = Self {
            sector: bytes,
            cluster: sectors * bytes,
            fat: reserved * bytes,
            fat_size: fat_sectors * bytes,
            fats,
            mirrored: boot.bpb_ext_flags.get() & NOT_MIRRORED == 0,
            info: Some(u64::from(boot.bpb_fs_info))
                .filter(|at| (1..reserved).contains(at))
                .map(|at| at * bytes),
            data: front * bytes,
            // Below 2^28, since every cluster has its entry in the FAT.
            clusters: u32::try_from(clusters).map_err(|_| not("it has too many clusters"))?,
            root: boot.bpb_root_clus.get() & CLUSTER_BITS,
            id: boot.bs_vol_id.get(),
            label: String::from_utf8_lossy(&boot.bs_vol_lab).trim_end().to_owned(),
        };
        volume.check(volume.root, "/")?;
        Ok(volume)
    }

    /// Whether there is such a cluster.
    pub(super) fn has(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster - 2 < self.clusters
    }

    /// As [`Volume::has`], as an error of the file or folder `path`.
    pub(super) fn check(&self, cluster: u32, path: &str) -> Result<(), ReadError> {
        match self.has(cluster) {
            true => Ok(()),
            false => Err(corrupt(path, format!("its chain leads to cluster {cluster}"))),
        }
    }

    /// All clusters.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + use<> {
        2..self.clusters + 2
    }

    /// Where a cluster begins, in bytes.
    pub(super) fn offset(&self, cluster: u32) -> u64 {
        self.data + u64::from(cluster - 2) * self.cluster
    }
}
