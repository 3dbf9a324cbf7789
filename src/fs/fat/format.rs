//! Boot sector, FSInfo sector and records as they lie on disk. Source: FATGEN, whose field names these are.

use jiff::Timestamp;
use jiff::tz::Offset;

use super::geometry::{Geometry, TRACK_SECTORS};
use super::names::{Name, Short, checksum};
use crate::base::on_disk::{FromZeros, IntoBytes, le, on_disk};
use crate::base::width::to_usize;

/// Bytes in a record of a folder.
pub(super) const RECORD_SIZE: usize = Record::SIZE;
/// FSInfo's sector.
pub(super) const FSINFO_SECTOR: u16 = 1;
/// Sector of the copies of boot sector and FSInfo (BPB_BkBootSec).
pub(super) const BACKUP_SECTOR: u16 = 6;
/// The root folder's cluster.
pub(super) const ROOT_CLUSTER: u32 = 2;
/// An entry of the FAT that ends a chain.
pub(super) const END_OF_CHAIN: u32 = 0x0fff_ffff;
/// Media byte of a fixed disk, in the boot sector and in the first entry of the FAT.
const MEDIA: u8 = 0xf8;
/// The first two entries of the FAT: the media byte, and "unmounted cleanly, without errors".
pub(super) const RESERVED_ENTRIES: [u32; 2] = [0x0fff_ff00 | MEDIA as u32, END_OF_CHAIN];
/// Attribute of a folder.
pub(super) const DIRECTORY: u8 = 0x10;
/// Attribute of a file: changed since the last backup, as every new file is.
pub(super) const ARCHIVE: u8 = 0x20;
/// Attribute of the record that carries the volume's label.
pub(super) const VOLUME_LABEL: u8 = 0x08;
/// Attribute of a piece of a long name.
pub(super) const LONG_NAME: u8 = 0x0f;
/// UTF-16 code units in one piece of a long name.
pub(super) const PIECE: usize = 13;
/// Heads that the boot sector claims; with 32 sectors a track a cylinder has 1 MiB.
const HEADS: u16 = 64;
/// Code for a BIOS: try the next boot device (int 0x18), and stop if it comes back.
const BOOT_CODE: [u8; 4] = [0xcd, 0x18, 0xeb, 0xfe];

/// The last bytes of a boot sector.
pub(super) const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// `FSI_TrailSig`.
const TRAIL_SIGNATURE: [u8; 4] = [0, 0, 0x55, 0xaa];
/// `FSI_LeadSig`.
pub(super) const LEAD_SIGNATURE: &[u8; 4] = b"RRaA";
/// `FSI_StrucSig`.
pub(super) const STRUCTURE_SIGNATURE: &[u8; 4] = b"rrAa";
/// Bit of `BPB_ExtFlags`: only one of the FATs is kept.
pub(super) const NOT_MIRRORED: u16 = 0x80;
/// Bits of `DIR_NTRes`: small letters in name and extension of the short name.
pub(super) const SMALL_NAME: u8 = 0x08;
/// See [`SMALL_NAME`].
pub(super) const SMALL_EXTENSION: u8 = 0x10;
/// Bit of `LDIR_Ord`: the last piece of a name, which comes first.
pub(super) const LAST_PIECE: u8 = 0x40;

on_disk! {
    /// The first 512 bytes of a volume, FAT32: jump, BIOS Parameter Block, code.
    pub(super) BootSector: 512 bytes {
        bs_jmp_boot: [u8; 3],
        bs_oem_name: [u8; 8],
        bpb_byts_per_sec: le::U16,
        bpb_sec_per_clus: u8,
        bpb_rsvd_sec_cnt: le::U16,
        bpb_num_fats: u8,
        bpb_root_ent_cnt: le::U16,
        bpb_tot_sec16: le::U16,
        bpb_media: u8,
        bpb_fat_sz16: le::U16,
        bpb_sec_per_trk: le::U16,
        bpb_num_heads: le::U16,
        bpb_hidd_sec: le::U32,
        bpb_tot_sec32: le::U32,
        bpb_fat_sz32: le::U32,
        bpb_ext_flags: le::U16,
        bpb_fs_ver: le::U16,
        bpb_root_clus: le::U32,
        bpb_fs_info: le::U16,
        bpb_bk_boot_sec: le::U16,
        bpb_reserved: [u8; 12],
        bs_drv_num: u8,
        bs_reserved1: u8,
        bs_boot_sig: u8,
        bs_vol_id: le::U32,
        bs_vol_lab: Short,
        bs_fil_sys_type: [u8; 8],
        boot_code: [u8; 420],
        signature_word: [u8; 2],
    }
}

on_disk! {
    /// The first 512 bytes of the FSInfo sector.
    pub(super) FsInfo: 512 bytes {
        fsi_lead_sig: [u8; 4],
        fsi_reserved1: [u8; 480],
        fsi_struc_sig: [u8; 4],
        /// Number of free clusters.
        fsi_free_count: le::U32,
        /// Where to look for a free cluster.
        fsi_nxt_free: le::U32,
        fsi_reserved2: [u8; 12],
        fsi_trail_sig: [u8; 4],
    }
}

on_disk! {
    /// A record of a folder: the short name of a file, and where it is.
    pub(super) Record: 32 bytes {
        dir_name: Short,
        dir_attr: u8,
        /// [`SMALL_NAME`], [`SMALL_EXTENSION`].
        dir_nt_res: u8,
        dir_crt_time_tenth: u8,
        dir_crt_time: le::U16,
        dir_crt_date: le::U16,
        dir_lst_acc_date: le::U16,
        dir_fst_clus_hi: le::U16,
        dir_wrt_time: le::U16,
        dir_wrt_date: le::U16,
        dir_fst_clus_lo: le::U16,
        dir_file_size: le::U32,
    }
}

on_disk! {
    /// A record that holds a piece of a long name.
    pub(super) LongRecord: 32 bytes {
        /// Number of the piece from 1 on, and [`LAST_PIECE`].
        ldir_ord: u8,
        ldir_name1: [le::U16; 5],
        ldir_attr: u8,
        ldir_type: u8,
        ldir_chksum: u8,
        ldir_name2: [le::U16; 6],
        ldir_fst_clus_lo: le::U16,
        ldir_name3: [le::U16; 2],
    }
}

impl Record {
    /// The first cluster, with the bits of a FAT entry that are no number.
    pub(super) fn cluster(&self) -> u32 {
        u32::from(self.dir_fst_clus_hi) << 16 | u32::from(self.dir_fst_clus_lo)
    }

    /// Leads to another chain.
    pub(super) fn point(&mut self, cluster: u32, size: u32) {
        let [low @ .., c, d] = cluster.to_le_bytes();
        self.dir_fst_clus_hi.set(u16::from_le_bytes([c, d]));
        self.dir_fst_clus_lo.set(u16::from_le_bytes(low));
        self.dir_file_size.set(size);
    }
}

impl LongRecord {
    /// The UTF-16 code units of the piece.
    pub(super) fn units(&self) -> impl Iterator<Item = u16> {
        self.ldir_name1.iter().chain(&self.ldir_name2).chain(&self.ldir_name3).map(|unit| unit.get())
    }
}

/// The boot sector.
pub(super) fn boot_sector(geometry: &Geometry, volume_id: u32, label: &Short) -> Vec<u8> {
    let narrow = |number: u64| u16::try_from(number).expect("the geometry keeps to FAT's fields").into();
    let number = |number: u64| u32::try_from(number).expect("the geometry keeps to FAT's fields").into();
    let mut boot = BootSector {
        bs_jmp_boot: [0xeb, 0x58, 0x90], // To BOOT_CODE.
        bs_oem_name: *b"KELLER  ",
        bpb_byts_per_sec: narrow(geometry.sector),
        bpb_sec_per_clus: u8::try_from(geometry.cluster_sectors).expect("at most 128"),
        bpb_rsvd_sec_cnt: narrow(geometry.reserved),
        bpb_num_fats: 2,
        bpb_media: MEDIA,
        bpb_sec_per_trk: narrow(TRACK_SECTORS),
        bpb_num_heads: HEADS.into(),
        bpb_tot_sec32: number(geometry.total),
        bpb_fat_sz32: number(geometry.fat_sectors),
        bpb_root_clus: ROOT_CLUSTER.into(),
        bpb_fs_info: FSINFO_SECTOR.into(),
        bpb_bk_boot_sec: BACKUP_SECTOR.into(),
        bs_drv_num: 0x80,
        bs_boot_sig: 0x29, // The next three fields are there.
        bs_vol_id: volume_id.into(),
        bs_vol_lab: *label,
        bs_fil_sys_type: *b"FAT32   ",
        signature_word: SIGNATURE,
        ..BootSector::new_zeroed()
    };
    boot.boot_code[..BOOT_CODE.len()].copy_from_slice(&BOOT_CODE);
    whole_sector(geometry, boot.as_bytes())
}

/// The FSInfo sector.
pub(super) fn fsinfo_sector(geometry: &Geometry, used_clusters: u32) -> Vec<u8> {
    let clusters = u32::try_from(geometry.clusters).expect("the geometry keeps to FAT's fields");
    let info = FsInfo {
        fsi_lead_sig: *LEAD_SIGNATURE,
        fsi_struc_sig: *STRUCTURE_SIGNATURE,
        fsi_free_count: (clusters - used_clusters).into(),
        fsi_nxt_free: (ROOT_CLUSTER + used_clusters - 1).into(), // The last taken.
        fsi_trail_sig: TRAIL_SIGNATURE,
        ..FsInfo::new_zeroed()
    };
    whole_sector(geometry, info.as_bytes())
}

fn whole_sector(geometry: &Geometry, bytes: &[u8]) -> Vec<u8> {
    let mut sector = bytes.to_vec();
    sector.resize(to_usize(geometry.sector), 0);
    sector
}

/// Date and time as FAT has them, in UTC: years from 1980 to 2107, every other second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DosTime {
    date: u16,
    time: u16,
    /// The odd second, in units of 10 ms; only creation times have it.
    fine: u8,
}

impl DosTime {
    /// The nearest time that FAT has to `seconds` since 1970.
    pub(super) fn new(seconds: i64) -> Self {
        // 1980-01-01 00:00:00 and 2107-12-31 23:59:59.
        let stamp = Timestamp::from_second(seconds.clamp(315_532_800, 4_354_819_199)).expect("in range");
        let at = Offset::UTC.to_datetime(stamp);
        let field = |field: i8| u16::from(field.unsigned_abs());
        let (year, month, day) = (at.year().unsigned_abs() - 1980, field(at.month()), field(at.day()));
        let (hour, minute, second) = (field(at.hour()), field(at.minute()), field(at.second()));
        Self {
            date: year << 9 | month << 5 | day,
            time: hour << 11 | minute << 5 | (second / 2),
            fine: if second % 2 == 1 { 100 } else { 0 },
        }
    }
}

/// One record, without a long name.
pub(super) fn record(short: &Short, attributes: u8, time: DosTime, cluster: u32, size: u32) -> Record {
    let mut record = Record {
        dir_name: *short,
        dir_attr: attributes,
        dir_crt_time_tenth: time.fine,
        dir_crt_time: time.time.into(),
        dir_crt_date: time.date.into(),
        dir_lst_acc_date: time.date.into(),
        dir_wrt_time: time.time.into(),
        dir_wrt_date: time.date.into(),
        ..Record::new_zeroed()
    };
    record.point(cluster, size);
    record
}

/// How many records a name takes, its short one included.
pub(super) fn record_count(name: &Name) -> usize {
    1 + name.long.len().div_ceil(PIECE)
}

/// The records of a long name, last piece first, as they stand before the short one.
pub(super) fn long_records(name: &Name) -> Vec<u8> {
    let sum = checksum(&name.short);
    let pieces: Vec<&[u16]> = name.long.chunks(PIECE).collect();
    let mut bytes = Vec::with_capacity(pieces.len() * RECORD_SIZE);
    for (index, piece) in pieces.iter().enumerate().rev() {
        // Unused places: one zero, then ones.
        let mut units = [0xffff_u16; PIECE];
        units[..piece.len()].copy_from_slice(piece);
        if let Some(end) = units.get_mut(piece.len()) {
            *end = 0;
        }
        let units = units.map(le::U16::new);
        let number = u8::try_from(index + 1).expect("a name has at most 20 pieces");
        let record = LongRecord {
            ldir_ord: if index + 1 == pieces.len() { number | LAST_PIECE } else { number },
            ldir_name1: *units.first_chunk().expect("a piece has 13 units"),
            ldir_attr: LONG_NAME,
            ldir_chksum: sum,
            ldir_name2: *units[5..].first_chunk().expect("a piece has 13 units"),
            ldir_name3: *units[11..].first_chunk().expect("a piece has 13 units"),
            ..LongRecord::new_zeroed()
        };
        bytes.extend_from_slice(record.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_clamped_to_what_fat_has() {
        let at = |seconds| {
            let DosTime { date, time, fine } = DosTime::new(seconds);
            let date = (1980 + (date >> 9), date >> 5 & 15, date & 31);
            (date, (time >> 11, time >> 5 & 63, (time & 31) * 2), fine)
        };
        assert_eq!(at(0), ((1980, 1, 1), (0, 0, 0), 0));
        assert_eq!(at(951_827_697), ((2000, 2, 29), (12, 34, 56), 100));
        assert_eq!(at(i64::MAX), ((2107, 12, 31), (23, 59, 58), 100));
    }
}
