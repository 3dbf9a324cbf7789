//! The bytes of a GUID partition table. Source: UEFI Specification 2.10, section 5.3 "GUID Partition Table
//! (GPT) Disk Layout". All numbers little-endian; GUIDs with their first three fields swapped.

use uuid::Uuid;

use super::{Entry, GptError, Table};
use crate::base::align;
use crate::base::device::SectorSize;

/// Field `Signature` of the header.
pub const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Field `Revision`: 1.0, the only one there is.
pub const REVISION: u32 = 0x0001_0000;
/// Field `HeaderSize` as we write it; readers accept up to a sector.
pub const HEADER_SIZE: usize = 92;
/// Field `SizeOfPartitionEntry`.
pub const ENTRY_SIZE: u32 = 128;
/// UTF-16 code units in a name.
pub const LABEL_UNITS: usize = 36;
/// Field `NumberOfPartitionEntries` as we write it: the specification's minimum of 16 KiB.
pub const CAPACITY: u32 = 128;
/// Largest number of entries that is read; a header that claims more is not believed.
pub const CAPACITY_LIMIT: u32 = 1024;

/// The header's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Sector of this header.
    pub my_lba: u64,
    /// Sector of the other header.
    pub alternate_lba: u64,
    /// First sector that partitions may use.
    pub first_usable: u64,
    /// Last sector that partitions may use.
    pub last_usable: u64,
    /// Of the disk.
    pub disk_guid: Uuid,
    /// First sector of the entries.
    pub entries_lba: u64,
    /// Number of entries, used or not.
    pub capacity: u32,
    /// CRC-32 over all entries.
    pub entries_crc: u32,
}

/// Why bytes are no header that can be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Something else or nothing is there.
    #[error("no signature \"EFI PART\"")]
    NoSignature,
    /// A torn or damaged header.
    #[error("expected header checksum {expected:08x}, but have {actual:08x}")]
    Checksum {
        /// As stored.
        expected: u32,
        /// As computed.
        actual: u32,
    },
    /// Right by its checksum, but not one that we know to read.
    #[error("unsupported {field} {value}")]
    Unsupported {
        /// Name of the field in the specification.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

fn guid_at(bytes: &[u8], offset: usize) -> Uuid {
    Uuid::from_bytes_le(bytes[offset..offset + 16].try_into().expect("sixteen bytes"))
}

impl Header {
    /// Reads a header out of its sector.
    pub fn decode(sector: &[u8]) -> Result<Self, HeaderError> {
        if &sector[..8] != SIGNATURE {
            return Err(HeaderError::NoSignature);
        }
        let unsupported = |field, value: u32| HeaderError::Unsupported { field, value: value.into() };
        let size = u32_at(sector, 12);
        if (size as usize) < HEADER_SIZE || size as usize > sector.len() {
            return Err(unsupported("HeaderSize", size));
        }
        let expected = u32_at(sector, 16);
        let mut summed = sector[..size as usize].to_vec();
        summed[16..20].fill(0);
        let actual = crc32fast::hash(&summed);
        if actual != expected {
            return Err(HeaderError::Checksum { expected, actual });
        }
        let (revision, entry_size, capacity) = (u32_at(sector, 8), u32_at(sector, 84), u32_at(sector, 80));
        if revision != REVISION {
            return Err(unsupported("Revision", revision));
        }
        if entry_size != ENTRY_SIZE {
            return Err(unsupported("SizeOfPartitionEntry", entry_size));
        }
        if capacity == 0 || capacity > CAPACITY_LIMIT {
            return Err(unsupported("NumberOfPartitionEntries", capacity));
        }
        Ok(Self {
            my_lba: u64_at(sector, 24),
            alternate_lba: u64_at(sector, 32),
            first_usable: u64_at(sector, 40),
            last_usable: u64_at(sector, 48),
            disk_guid: guid_at(sector, 56),
            entries_lba: u64_at(sector, 72),
            capacity,
            entries_crc: u32_at(sector, 88),
        })
    }

    /// The header's whole sector.
    pub fn encode(&self, sector_size: SectorSize) -> Vec<u8> {
        let mut sector = vec![0; sector_size.bytes() as usize];
        sector[..8].copy_from_slice(SIGNATURE);
        sector[8..12].copy_from_slice(&REVISION.to_le_bytes());
        sector[12..16].copy_from_slice(&(HEADER_SIZE as u32).to_le_bytes());
        sector[24..32].copy_from_slice(&self.my_lba.to_le_bytes());
        sector[32..40].copy_from_slice(&self.alternate_lba.to_le_bytes());
        sector[40..48].copy_from_slice(&self.first_usable.to_le_bytes());
        sector[48..56].copy_from_slice(&self.last_usable.to_le_bytes());
        sector[56..72].copy_from_slice(&self.disk_guid.to_bytes_le());
        sector[72..80].copy_from_slice(&self.entries_lba.to_le_bytes());
        sector[80..84].copy_from_slice(&self.capacity.to_le_bytes());
        sector[84..88].copy_from_slice(&ENTRY_SIZE.to_le_bytes());
        sector[88..92].copy_from_slice(&self.entries_crc.to_le_bytes());
        let crc = crc32fast::hash(&sector[..HEADER_SIZE]);
        sector[16..20].copy_from_slice(&crc.to_le_bytes());
        sector
    }
}

/// Sectors that `capacity` entries take.
pub const fn entries_sectors(capacity: u32, sector_size: SectorSize) -> u64 {
    align::units(capacity as u64 * ENTRY_SIZE as u64, sector_size.bytes())
}

/// The entries that are in use, with their places in the array. Their positions on disk are not judged here.
pub fn decode_entries(bytes: &[u8], sector_size: SectorSize) -> Vec<Entry> {
    let entry = |(index, bytes): (usize, &[u8])| {
        let type_guid = guid_at(bytes, 0);
        if type_guid.is_nil() {
            return None;
        }
        let (first, last) = (u64_at(bytes, 32), u64_at(bytes, 40));
        let units: Vec<u16> = bytes[56..128]
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .take_while(|unit| *unit != 0)
            .collect();
        let sectors = last.wrapping_sub(first).wrapping_add(1);
        Some(Entry {
            number: index as u32 + 1,
            type_guid,
            guid: guid_at(bytes, 16),
            label: String::from_utf16_lossy(&units),
            start: first.saturating_mul(sector_size.bytes()),
            size: sectors.saturating_mul(sector_size.bytes()),
            attributes: u64_at(bytes, 48),
        })
    };
    bytes.chunks_exact(ENTRY_SIZE as usize).enumerate().filter_map(entry).collect()
}

/// All entries of `table`, padded to whole sectors.
///
/// # Errors
/// Labels that do not fit, numbers out of range, positions that are not whole sectors.
pub fn encode_entries(table: &Table) -> Result<Vec<u8>, GptError> {
    let sector = table.sector_size.bytes();
    let mut bytes = vec![0; (entries_sectors(table.capacity, table.sector_size) * sector) as usize];
    for entry in &table.entries {
        let units: Vec<u16> = entry.label.encode_utf16().collect();
        if units.len() > LABEL_UNITS {
            return Err(GptError::LabelTooLong { label: entry.label.clone(), units: units.len() });
        }
        let number = entry.number;
        if number == 0 || number > table.capacity {
            return Err(GptError::Number { number, capacity: table.capacity });
        }
        if entry.start % sector != 0 || entry.size % sector != 0 || entry.size == 0 {
            return Err(GptError::Unaligned { number, start: entry.start, size: entry.size, sector });
        }
        let first = entry.start / sector;
        let at = (number - 1) as usize * ENTRY_SIZE as usize;
        let out = &mut bytes[at..at + ENTRY_SIZE as usize];
        out[..16].copy_from_slice(&entry.type_guid.to_bytes_le());
        out[16..32].copy_from_slice(&entry.guid.to_bytes_le());
        out[32..40].copy_from_slice(&first.to_le_bytes());
        out[40..48].copy_from_slice(&(first + entry.size / sector - 1).to_le_bytes());
        out[48..56].copy_from_slice(&entry.attributes.to_le_bytes());
        for (pair, unit) in out[56..].chunks_exact_mut(2).zip(units) {
            pair.copy_from_slice(&unit.to_le_bytes());
        }
    }
    Ok(bytes)
}
