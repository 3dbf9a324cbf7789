//! The bytes of a GUID partition table. Source: UEFI Specification 2.10, section 5.3 "GUID Partition Table
//! (GPT) Disk Layout". All numbers little-endian; GUIDs with their first three fields swapped.

use uuid::Uuid;

use super::{Entry, GptError, Table};
use crate::base::align;
use crate::base::device::SectorSize;
use crate::base::on_disk::{FromBytes, FromZeros, IntoBytes, le, on_disk, whole};
use crate::base::width::{to_index, to_usize};

/// Field `Signature` of the header.
pub(super) const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Field `Revision`: 1.0, the only one there is.
pub(super) const REVISION: u32 = 0x0001_0000;
/// Field `HeaderSize` as we write it; readers accept up to a sector.
pub(super) const HEADER_SIZE: u32 = 92;
/// Field `SizeOfPartitionEntry`.
pub(super) const ENTRY_SIZE: u32 = 128;
const _: () = assert!(RawHeader::SIZE == to_index(HEADER_SIZE) && RawEntry::SIZE == to_index(ENTRY_SIZE));
/// UTF-16 code units in a name.
pub(super) const LABEL_UNITS: usize = 36;
/// Field `NumberOfPartitionEntries` as we write it: the specification's minimum of 16 KiB.
pub(super) const CAPACITY: u32 = 128;
/// Largest number of entries that is read; a header that claims more is not believed.
pub(super) const CAPACITY_LIMIT: u32 = 1024;

/// The header's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
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

on_disk! {
    /// The header (table 5.5).
    RawHeader: 92 bytes {
        signature: [u8; 8],
        revision: le::U32,
        header_size: le::U32,
        header_crc32: le::U32,
        reserved: le::U32,
        my_lba: le::U64,
        alternate_lba: le::U64,
        first_usable_lba: le::U64,
        last_usable_lba: le::U64,
        disk_guid: [u8; 16],
        partition_entry_lba: le::U64,
        number_of_partition_entries: le::U32,
        size_of_partition_entry: le::U32,
        partition_entry_array_crc32: le::U32,
    }
}

on_disk! {
    /// An entry (table 5.6).
    RawEntry: 128 bytes {
        partition_type_guid: [u8; 16],
        unique_partition_guid: [u8; 16],
        starting_lba: le::U64,
        /// The last sector, not the one behind it.
        ending_lba: le::U64,
        attributes: le::U64,
        partition_name: [le::U16; LABEL_UNITS],
    }
}

impl Header {
    /// Reads a header out of its sector.
    pub(super) fn decode(sector: &[u8]) -> Result<Self, HeaderError> {
        let Ok((raw, _)) = RawHeader::ref_from_prefix(sector) else { return Err(HeaderError::NoSignature) };
        if &raw.signature != SIGNATURE {
            return Err(HeaderError::NoSignature);
        }
        let unsupported = |field, value: u32| HeaderError::Unsupported { field, value: value.into() };
        let size = to_index(raw.header_size.get());
        if size < RawHeader::SIZE || size > sector.len() {
            return Err(unsupported("HeaderSize", raw.header_size.get()));
        }
        let expected = raw.header_crc32.get();
        // The field itself counts as zero.
        let mut summed = RawHeader { header_crc32: 0.into(), ..*raw }.as_bytes().to_vec();
        summed.extend_from_slice(&sector[RawHeader::SIZE..size]);
        let actual = crc32fast::hash(&summed);
        if actual != expected {
            return Err(HeaderError::Checksum { expected, actual });
        }
        let revision = raw.revision.get();
        let (entry_size, capacity) =
            (raw.size_of_partition_entry.get(), raw.number_of_partition_entries.get());
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
            my_lba: raw.my_lba.get(),
            alternate_lba: raw.alternate_lba.get(),
            first_usable: raw.first_usable_lba.get(),
            last_usable: raw.last_usable_lba.get(),
            disk_guid: Uuid::from_bytes_le(raw.disk_guid),
            entries_lba: raw.partition_entry_lba.get(),
            capacity,
            entries_crc: raw.partition_entry_array_crc32.get(),
        })
    }

    /// The header's whole sector.
    pub(super) fn encode(&self, sector_size: SectorSize) -> Vec<u8> {
        let mut raw = RawHeader {
            signature: *SIGNATURE,
            revision: REVISION.into(),
            header_size: HEADER_SIZE.into(),
            header_crc32: 0.into(),
            reserved: 0.into(),
            my_lba: self.my_lba.into(),
            alternate_lba: self.alternate_lba.into(),
            first_usable_lba: self.first_usable.into(),
            last_usable_lba: self.last_usable.into(),
            disk_guid: self.disk_guid.to_bytes_le(),
            partition_entry_lba: self.entries_lba.into(),
            number_of_partition_entries: self.capacity.into(),
            size_of_partition_entry: ENTRY_SIZE.into(),
            partition_entry_array_crc32: self.entries_crc.into(),
        };
        raw.header_crc32 = crc32fast::hash(raw.as_bytes()).into();
        let mut sector = raw.as_bytes().to_vec();
        sector.resize(to_usize(sector_size.bytes()), 0);
        sector
    }
}

/// Sectors that `capacity` entries take.
pub(super) const fn entries_sectors(capacity: u32, sector_size: SectorSize) -> u64 {
    align::units(capacity as u64 * ENTRY_SIZE as u64, sector_size.bytes())
}

/// The entries that are in use, with their places in the array. Their positions on disk are not judged here.
pub(super) fn decode_entries(bytes: &[u8], sector_size: SectorSize) -> Vec<Entry> {
    let entry = |(number, raw): (u32, &RawEntry)| {
        let type_guid = Uuid::from_bytes_le(raw.partition_type_guid);
        if type_guid.is_nil() {
            return None;
        }
        let (first, last) = (raw.starting_lba.get(), raw.ending_lba.get());
        let units: Vec<u16> =
            raw.partition_name.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0).collect();
        let sectors = last.wrapping_sub(first).wrapping_add(1);
        Some(Entry {
            number,
            type_guid,
            guid: Uuid::from_bytes_le(raw.unique_partition_guid),
            label: String::from_utf16_lossy(&units),
            start: first.saturating_mul(sector_size.bytes()),
            size: sectors.saturating_mul(sector_size.bytes()),
            attributes: raw.attributes.get(),
        })
    };
    (1..).zip(whole(bytes)).filter_map(entry).collect()
}

/// All entries of `table`, padded to whole sectors.
///
/// # Errors
/// Labels that do not fit, numbers out of range, positions that are not whole sectors.
pub(super) fn encode_entries(table: &Table) -> Result<Vec<u8>, GptError> {
    let sector = table.sector_size.bytes();
    let mut raws = vec![RawEntry::new_zeroed(); to_index(table.capacity)];
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
        let raw = &mut raws[to_index(number - 1)];
        raw.partition_type_guid = entry.type_guid.to_bytes_le();
        raw.unique_partition_guid = entry.guid.to_bytes_le();
        raw.starting_lba.set(first);
        raw.ending_lba.set(first + entry.size / sector - 1);
        raw.attributes.set(entry.attributes);
        for (place, unit) in raw.partition_name.iter_mut().zip(units) {
            place.set(unit);
        }
    }
    let mut bytes = raws.as_bytes().to_vec();
    bytes.resize(to_usize(entries_sectors(table.capacity, table.sector_size) * sector), 0);
    Ok(bytes)
}
