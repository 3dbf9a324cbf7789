//! The bytes of boot sector, FSInfo sector and records. Source: FATGEN, whose field names the comments use.

use jiff::Timestamp;
use jiff::tz::Offset;

use super::geometry::{Geometry, TRACK_SECTORS};
use super::names::{Name, Short, checksum};
use crate::base::width::to_usize;

/// Bytes in a record of a folder.
pub const RECORD_SIZE: usize = 32;
/// FSInfo's sector.
pub const FSINFO_SECTOR: u64 = 1;
/// Sector of the copies of boot sector and FSInfo (BPB_BkBootSec).
pub const BACKUP_SECTOR: u64 = 6;
/// The root folder's cluster.
pub const ROOT_CLUSTER: u32 = 2;
/// An entry of the FAT that ends a chain.
pub const END_OF_CHAIN: u32 = 0x0fff_ffff;
/// Media byte of a fixed disk, in the boot sector and in the first entry of the FAT.
const MEDIA: u8 = 0xf8;
/// The first two entries of the FAT: the media byte, and "unmounted cleanly, without errors".
pub const RESERVED_ENTRIES: [u32; 2] = [0x0fff_ff00 | MEDIA as u32, END_OF_CHAIN];
/// Attribute of a folder.
pub const DIRECTORY: u8 = 0x10;
/// Attribute of a file: changed since the last backup, as every new file is.
pub const ARCHIVE: u8 = 0x20;
/// Attribute of the record that carries the volume's label.
pub const VOLUME_LABEL: u8 = 0x08;
/// Attribute of a piece of a long name.
pub const LONG_NAME: u8 = 0x0f;
/// UTF-16 code units in one piece of a long name.
pub const PIECE: usize = 13;
/// Heads that the boot sector claims; with 32 sectors a track a cylinder has 1 MiB.
const HEADS: u16 = 64;
/// Code for a BIOS: try the next boot device (int 0x18), and stop if it comes back.
const BOOT_CODE: [u8; 4] = [0xcd, 0x18, 0xeb, 0xfe];

fn put(bytes: &mut [u8], offset: usize, value: impl AsRef<[u8]>) {
    let value = value.as_ref();
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

/// The boot sector.
pub fn boot_sector(geometry: &Geometry, volume_id: u32, label: &Short) -> Vec<u8> {
    let mut sector = vec![0; to_usize(geometry.sector)];
    put(&mut sector, 0, [0xeb, 0x58, 0x90]); // BS_jmpBoot, to BOOT_CODE
    put(&mut sector, 3, b"KELLER  "); // BS_OEMName
    put(&mut sector, 11, (geometry.sector as u16).to_le_bytes()); // BPB_BytsPerSec
    sector[13] = geometry.cluster_sectors as u8; // BPB_SecPerClus
    put(&mut sector, 14, (geometry.reserved as u16).to_le_bytes()); // BPB_RsvdSecCnt
    sector[16] = 2; // BPB_NumFATs
    sector[21] = MEDIA; // BPB_Media
    put(&mut sector, 24, (TRACK_SECTORS as u16).to_le_bytes()); // BPB_SecPerTrk
    put(&mut sector, 26, HEADS.to_le_bytes()); // BPB_NumHeads
    put(&mut sector, 32, (geometry.total as u32).to_le_bytes()); // BPB_TotSec32
    put(&mut sector, 36, (geometry.fat_sectors as u32).to_le_bytes()); // BPB_FATSz32
    put(&mut sector, 44, ROOT_CLUSTER.to_le_bytes()); // BPB_RootClus
    put(&mut sector, 48, (FSINFO_SECTOR as u16).to_le_bytes()); // BPB_FSInfo
    put(&mut sector, 50, (BACKUP_SECTOR as u16).to_le_bytes()); // BPB_BkBootSec
    sector[64] = 0x80; // BS_DrvNum
    sector[66] = 0x29; // BS_BootSig: the next three fields are there
    put(&mut sector, 67, volume_id.to_le_bytes()); // BS_VolID
    put(&mut sector, 71, label); // BS_VolLab
    put(&mut sector, 82, b"FAT32   "); // BS_FilSysType
    put(&mut sector, 90, BOOT_CODE);
    put(&mut sector, 510, [0x55, 0xaa]);
    sector
}

/// The FSInfo sector.
pub fn fsinfo_sector(geometry: &Geometry, used_clusters: u32) -> Vec<u8> {
    let mut sector = vec![0; to_usize(geometry.sector)];
    put(&mut sector, 0, b"RRaA"); // FSI_LeadSig
    put(&mut sector, 484, b"rrAa"); // FSI_StrucSig
    put(&mut sector, 488, (geometry.clusters as u32 - used_clusters).to_le_bytes()); // FSI_Free_Count
    put(&mut sector, 492, (ROOT_CLUSTER + used_clusters - 1).to_le_bytes()); // FSI_Nxt_Free: the last taken
    put(&mut sector, 510, [0x55, 0xaa]); // FSI_TrailSig
    sector
}

/// Date and time as FAT has them, in UTC: years from 1980 to 2107, every other second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DosTime {
    date: u16,
    time: u16,
    /// The odd second, in units of 10 ms; only creation times have it.
    fine: u8,
}

impl DosTime {
    /// The nearest time that FAT has to `seconds` since 1970.
    pub fn new(seconds: i64) -> Self {
        // 1980-01-01 00:00:00 and 2107-12-31 23:59:59.
        let stamp = Timestamp::from_second(seconds.clamp(315_532_800, 4_354_819_199)).expect("in range");
        let at = Offset::UTC.to_datetime(stamp);
        let (year, month, day) = (at.year() as u16 - 1980, at.month() as u16, at.day() as u16);
        let (hour, minute, second) = (at.hour() as u16, at.minute() as u16, at.second() as u16);
        Self {
            date: year << 9 | month << 5 | day,
            time: hour << 11 | minute << 5 | (second / 2),
            fine: (second % 2 * 100) as u8,
        }
    }
}

/// One record, without a long name.
pub fn record(short: &Short, attributes: u8, time: DosTime, cluster: u32, size: u32) -> [u8; RECORD_SIZE] {
    let mut bytes = [0; RECORD_SIZE];
    put(&mut bytes, 0, short); // DIR_Name
    bytes[11] = attributes; // DIR_Attr
    bytes[13] = time.fine; // DIR_CrtTimeTenth
    put(&mut bytes, 14, time.time.to_le_bytes()); // DIR_CrtTime
    put(&mut bytes, 16, time.date.to_le_bytes()); // DIR_CrtDate
    put(&mut bytes, 18, time.date.to_le_bytes()); // DIR_LstAccDate
    put(&mut bytes, 20, ((cluster >> 16) as u16).to_le_bytes()); // DIR_FstClusHI
    put(&mut bytes, 22, time.time.to_le_bytes()); // DIR_WrtTime
    put(&mut bytes, 24, time.date.to_le_bytes()); // DIR_WrtDate
    put(&mut bytes, 26, (cluster as u16).to_le_bytes()); // DIR_FstClusLO
    put(&mut bytes, 28, size.to_le_bytes()); // DIR_FileSize
    bytes
}

/// How many records a name takes, its short one included.
pub fn record_count(name: &Name) -> usize {
    1 + name.long.len().div_ceil(PIECE)
}

/// The records of a long name, last piece first, as they stand before the short one.
pub fn long_records(name: &Name) -> Vec<u8> {
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
        let units: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let last = if index + 1 == pieces.len() { 0x40 } else { 0 };
        let mut record = [0; RECORD_SIZE];
        record[0] = (index + 1) as u8 | last; // LDIR_Ord
        put(&mut record, 1, &units[..10]); // LDIR_Name1
        record[11] = LONG_NAME; // LDIR_Attr
        record[13] = sum; // LDIR_Chksum
        put(&mut record, 14, &units[10..22]); // LDIR_Name2
        put(&mut record, 28, &units[22..]); // LDIR_Name3
        bytes.extend_from_slice(&record);
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
