//! An ISO 9660 image from which a machine starts what runs from memory, as a CD and as a stick.
//!
//! ```text
//! byte 0        GUID partition table, for sticks: one partition, the EFI system partition
//! sector 16     descriptors of the volume; El Torito's leads to the catalog
//! sector 19     catalog: the EFI system partition is what a firmware starts from a CD
//! sector 20     path tables, and the root directory with one file, which is the EFI system partition
//! byte 1 MiB    the EFI system partition, with one program at EFI/BOOT/BOOTX64.EFI
//! the end       backup of the GUID partition table
//! ```
//!
//! Source: ECMA-119 (field names are those of its third edition); "El Torito" Bootable CD-ROM Format Specification 1.0; UEFI 2.10,
//! section 13.3.2.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use uuid::Uuid;

use crate::base::device::SectorSize;
use crate::base::on_disk::{FromZeros, IntoBytes, be, le, on_disk};
use crate::base::width::to_u64;
use crate::base::{Digest, align};
use crate::disk::gpt::{self, Entry, Table, types};
use crate::disk::layout::{ALIGNMENT, Partition};
use crate::disk::{PartitionWriter, Role, slot};
use crate::fs::fat::{self, FatError};
use crate::tree::{Content, Tree};

/// Bytes of a logical sector.
const SECTOR: u64 = 2048;
/// Where the volume's descriptors begin, in sectors: the first 16 are the system's.
const DESCRIPTORS: u32 = 16;
/// Where the standard volume identifier lies in an image, and what it is: what an image of this format is known by.
pub(super) const SIGN: (u64, &[u8]) = (DESCRIPTORS as u64 * SECTOR + 1, b"CD001");
const CATALOG: u32 = DESCRIPTORS + 3;
const PATHS: u32 = CATALOG + 1;
const PATHS_BIG_ENDIAN: u32 = PATHS + 1;
const ROOT: u32 = PATHS_BIG_ENDIAN + 1;
/// The file's name in the root directory.
const FILE: &[u8] = b"ESP.IMG;1";
/// Most bytes of one file of ISO 9660.
const LARGEST: u64 = u32::MAX as u64;

on_disk! {
    /// A number in both byte orders.
    Both32: 8 bytes {
        little: le::U32,
        big: be::U32,
    }
}

on_disk! {
    /// A number in both byte orders.
    Both16: 4 bytes {
        little: le::U16,
        big: be::U16,
    }
}

on_disk! {
    /// "Directory Record" up to its identifier.
    DirectoryRecord: 33 bytes {
        length: u8,
        extended_attribute_length: u8,
        location_of_extent: Both32,
        data_length: Both32,
        /// Years since 1900, month, day, hour, minute, second, quarters of an hour from Greenwich; zeros: not given.
        recording_date: [u8; 7],
        file_flags: u8,
        file_unit_size: u8,
        interleave_gap_size: u8,
        volume_sequence_number: Both16,
        length_of_file_identifier: u8,
    }
}

on_disk! {
    /// "Primary Volume Descriptor".
    Primary: 2048 bytes {
        descriptor_type: u8,
        standard_identifier: [u8; 5],
        version: u8,
        unused_1: u8,
        system_identifier: [u8; 32],
        volume_identifier: [u8; 32],
        unused_2: [u8; 8],
        volume_space_size: Both32,
        unused_3: [u8; 32],
        volume_set_size: Both16,
        volume_sequence_number: Both16,
        logical_block_size: Both16,
        path_table_size: Both32,
        location_of_type_l_path_table: le::U32,
        location_of_optional_type_l_path_table: le::U32,
        location_of_type_m_path_table: be::U32,
        location_of_optional_type_m_path_table: be::U32,
        root_directory_record: DirectoryRecord,
        root_identifier: u8,
        /// Volume set, publisher, data preparer, application.
        identifiers: [[u8; 128]; 4],
        /// Copyright, abstract, bibliography.
        file_identifiers: [[u8; 37]; 3],
        /// Creation, modification, expiration, effective; 16 digits 0 and a zero: not given.
        dates: [[u8; 17]; 4],
        file_structure_version: u8,
        reserved_1: u8,
        application_use: [u8; 512],
        reserved_2: [u8; 653],
    }
}

on_disk! {
    /// El Torito, "Boot Record Volume Descriptor", and with another type the terminator of the descriptors.
    BootRecord: 2048 bytes {
        descriptor_type: u8,
        standard_identifier: [u8; 5],
        version: u8,
        boot_system_identifier: [u8; 32],
        unused_1: [u8; 32],
        boot_catalog: le::U32,
        unused_2: [u8; 1973],
    }
}

on_disk! {
    /// El Torito, "Validation Entry" and "Initial/Default Entry".
    Catalog: 64 bytes {
        header_id: u8,
        platform_id: u8,
        reserved_1: [u8; 2],
        id_string: [u8; 24],
        checksum: le::U16,
        key: [u8; 2],
        boot_indicator: u8,
        boot_media_type: u8,
        load_segment: le::U16,
        system_type: u8,
        unused_1: u8,
        sector_count: le::U16,
        load_rba: le::U32,
        unused_2: [u8; 20],
    }
}

on_disk! {
    /// "Path Table Record" of the root in little-endian order, with its padding.
    PathLittle: 10 bytes {
        length_of_directory_identifier: u8,
        extended_attribute_length: u8,
        location_of_extent: le::U32,
        parent_directory_number: le::U16,
        directory_identifier: u8,
        padding: u8,
    }
}

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The program that is started.
    pub program: Content,
    /// IMAGE_ID and IMAGE_VERSION.
    pub name: String,
    /// What the identities of the table follow from.
    pub identity: Digest,
    /// Time of the files in the EFI system partition, in seconds since 1970.
    pub epoch: i64,
}

/// Writes an image of `parts` to `to`, an empty file.
///
/// # Errors
/// What the disk says; a program that is too large for the format.
pub fn write(parts: &Parts, to: &File) -> io::Result<()> {
    let mut tree = Tree::new(parts.epoch);
    tree.file("EFI/BOOT/BOOTX64.EFI", 0o644, parts.program.clone()).map_err(io::Error::other)?;
    let mut options = fat::Options {
        size: SECTOR,
        sector_size: 512,
        volume_id: u32::from_le_bytes(parts.identity.as_bytes()[..4].try_into().expect("a digest is longer")),
        label: "KELLER".to_owned(),
        mtime: parts.epoch,
    };
    options.size = match fat::write(&tree, &options, &mut io::Cursor::new(Vec::new())) {
        Err(FatError::TooSmall { smallest, .. }) => align::up(smallest.bytes(), ALIGNMENT),
        Err(error) => return Err(io::Error::other(error)),
        Ok(_) => return Err(io::Error::other("a file system of one sector")),
    };
    if options.size > LARGEST {
        return Err(io::Error::other(
            "the image is too large for ISO 9660: files there must be smaller than 4 GiB",
        ));
    }
    let size = ALIGNMENT + options.size + ALIGNMENT;
    to.set_len(size)?;
    let derived = |what: &str| slot::derived_guid(Uuid::NAMESPACE_OID, &format!("{} {what}", parts.identity));
    let mut table = Table::new(derived("iso"), SectorSize::B512, size).map_err(io::Error::other)?;
    table.entries.push(Entry {
        number: 1,
        type_guid: types::ESP,
        guid: derived("iso-esp"),
        label: "esp".to_owned(),
        start: ALIGNMENT,
        size: options.size,
        attributes: 0,
    });
    gpt::create(&mut &*to, &table).map_err(io::Error::other)?;
    let place = Partition { role: Role::Esp, start: ALIGNMENT, size: options.size };
    fat::write(&tree, &options, &mut PartitionWriter::new(to, place)).map_err(io::Error::other)?;
    to.write_all_at(&descriptors(parts, size, options.size), u64::from(DESCRIPTORS) * SECTOR)
}

/// The sectors from [`DESCRIPTORS`] on; `size` and `esp` are bytes of the image and of the EFI system partition.
fn descriptors(parts: &Parts, size: u64, esp: u64) -> Vec<u8> {
    let narrow = |number: u64| u32::try_from(number).expect("less than 4 GiB");
    let start = narrow(ALIGNMENT / SECTOR);
    let sector = narrow(SECTOR);
    let primary = Primary {
        descriptor_type: 1,
        standard_identifier: *b"CD001",
        version: 1,
        system_identifier: padded(""),
        volume_identifier: padded(&volume(&parts.name)),
        volume_space_size: both32(narrow(size / SECTOR)),
        volume_set_size: both16(1),
        volume_sequence_number: both16(1),
        logical_block_size: both16(2048),
        path_table_size: both32(narrow(to_u64(PathLittle::SIZE))),
        location_of_type_l_path_table: PATHS.into(),
        location_of_type_m_path_table: PATHS_BIG_ENDIAN.into(),
        root_directory_record: record(ROOT, sector, 1, true),
        identifiers: [padded(""); 4],
        file_identifiers: [padded(""); 3],
        dates: [*b"0000000000000000\0"; 4],
        file_structure_version: 1,
        ..Primary::new_zeroed()
    };
    let mut system = [0; 32];
    system[..23].copy_from_slice(b"EL TORITO SPECIFICATION");
    let boot = BootRecord {
        standard_identifier: *b"CD001",
        version: 1,
        boot_system_identifier: system,
        boot_catalog: CATALOG.into(),
        ..BootRecord::new_zeroed()
    };
    let end = BootRecord {
        descriptor_type: 255,
        standard_identifier: *b"CD001",
        version: 1,
        ..BootRecord::new_zeroed()
    };
    let path = PathLittle {
        length_of_directory_identifier: 1,
        location_of_extent: ROOT.into(),
        parent_directory_number: 1.into(),
        ..PathLittle::new_zeroed()
    };
    let mut path_big_endian = path.as_bytes().to_vec();
    path_big_endian[2..6].reverse();
    path_big_endian[6..8].reverse();
    let directory = [
        [record(ROOT, sector, 1, true).as_bytes(), &[0]].concat(),
        [record(ROOT, sector, 1, true).as_bytes(), &[1]].concat(),
        [record(start, narrow(esp), FILE.len(), false).as_bytes(), FILE].concat(),
    ]
    .concat();
    let catalog = catalog(start);
    let sectors: [&[u8]; 7] = [
        primary.as_bytes(),
        boot.as_bytes(),
        end.as_bytes(),
        catalog.as_bytes(),
        path.as_bytes(),
        &path_big_endian,
        &directory,
    ];
    let mut bytes = Vec::new();
    for sector in sectors {
        bytes.extend_from_slice(sector);
        bytes.resize(bytes.len().next_multiple_of(primary.as_bytes().len()), 0);
    }
    bytes
}

/// What a firmware reads of El Torito. The count of sectors has 16 bits: with 1, the partition lasts to the end.
fn catalog(start: u32) -> Catalog {
    let mut catalog = Catalog {
        header_id: 1,
        // EFI.
        platform_id: 0xef,
        id_string: *b"keller\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        key: [0x55, 0xaa],
        // Can be started, and without emulation of a disk.
        boot_indicator: 0x88,
        sector_count: 1.into(),
        load_rba: start.into(),
        ..Catalog::new_zeroed()
    };
    // All words of the validation entry together are zero.
    let words = catalog.as_bytes()[..32].chunks_exact(2);
    let sum = words.fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    catalog.checksum.set(0_u16.wrapping_sub(sum));
    catalog
}

/// A record before an identifier of `identifier` bytes: an odd number, since records have an even length.
fn record(location: u32, length: u32, identifier: usize, is_directory: bool) -> DirectoryRecord {
    let identifier = u8::try_from(identifier).expect("names are short");
    DirectoryRecord {
        length: 33 + identifier,
        location_of_extent: both32(location),
        data_length: both32(length),
        file_flags: if is_directory { 2 } else { 0 },
        volume_sequence_number: both16(1),
        length_of_file_identifier: identifier,
        ..DirectoryRecord::new_zeroed()
    }
}

fn both32(number: u32) -> Both32 {
    Both32 { little: number.into(), big: number.into() }
}

fn both16(number: u16) -> Both16 {
    Both16 { little: number.into(), big: number.into() }
}

/// The volume's name: capitals, digits and `_`, 32 at most.
fn volume(name: &str) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    name.chars().take(32).map(letter).collect()
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [b' '; N];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_where_firmware_and_systems_read_them() {
        let parts = Parts {
            program: Content::from("MZ"),
            name: "node_1.0.0".to_owned(),
            identity: Digest::of("root"),
            epoch: 1_700_000_000,
        };
        let write = || {
            let file = tempfile::tempfile().unwrap();
            super::write(&parts, &file).unwrap();
            let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let bytes = write();
        assert!(bytes == write());
        let at = |sector: usize| &bytes[sector * 2048..(sector + 1) * 2048];
        assert_eq!(&at(16)[..7], b"\x01CD001\x01");
        assert_eq!(&at(16)[40..50], b"NODE_1_0_0");
        let sectors = u32::try_from(bytes.len() / 2048).unwrap();
        assert_eq!([&at(16)[80..84], &at(16)[84..88]], [&sectors.to_le_bytes(), &sectors.to_be_bytes()]);
        assert_eq!(&at(17)[71..75], 19_u32.to_le_bytes());
        assert_eq!(at(19)[..2], [1, 0xef]);
        let sum = at(19)[..32]
            .chunks(2)
            .fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
        assert_eq!(sum, 0);
        assert_eq!(
            at(19)[40..44],
            512_u32.to_le_bytes(),
            "the EFI system partition, in sectors of 2048 bytes"
        );
        assert_eq!(at(22)[2..6], 22_u32.to_le_bytes());
        assert_eq!(&at(22)[68 + 33..68 + 42], FILE);
        assert_eq!(bytes[(1 << 20) + 82..(1 << 20) + 87], *b"FAT32");
        assert_eq!(bytes[512..520], *b"EFI PART");
    }
}
