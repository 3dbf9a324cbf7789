//! GUID partition tables: made for an image, read anywhere, changed on a node without a moment in which
//! none of the two copies is whole.
//!
//! An image's table is made by the crate `gpt` ([`create()`]). Reading and changing are our own: `gpt` writes
//! the primary entries before it has written a backup, and gives up on a primary whose header is whole and
//! whose entries are torn, which is just the moment the backup exists for. A test holds both encodings to
//! be the same bytes.
//!
//! The protective MBR says `0xFFFFFFFF` sectors from the beginning, so that nothing ever needs to rewrite
//! the one sector of a table that has no second copy, not even when the disk has grown.

mod create;
mod format;
mod read;
mod rewrite;
#[cfg(test)]
mod tests;

use std::io;

use uuid::Uuid;

pub use create::create;
pub use format::HeaderError;
pub use read::{CopyError, Found, Other, Which, read, read_any};
pub use rewrite::{lay, rewrite};

use crate::base::device::SectorSize;

/// What partitions may be: types by GUID. Source: Discoverable Partitions Specification, UEFI.
pub mod types {
    use uuid::{Uuid, uuid};

    /// EFI system partition.
    pub const ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    /// Root file system, x86-64.
    pub const ROOT: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
    /// dm-verity hash tree of a root file system, x86-64.
    pub const ROOT_VERITY: Uuid = uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5");
    /// Data of any kind: "generic Linux data" of the Discoverable Partitions Specification.
    pub const LINUX: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");
    /// Variable data, /var.
    pub const VAR: Uuid = uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d");

    /// The name that systemd's tools use for a type, where it is one of ours.
    pub fn name(guid: Uuid) -> Option<&'static str> {
        match guid {
            ESP => Some("esp"),
            ROOT => Some("root-x86-64"),
            ROOT_VERITY => Some("root-x86-64-verity"),
            LINUX => Some("linux-generic"),
            VAR => Some("var"),
            _ => None,
        }
    }
}

/// Attribute bits of the Discoverable Partitions Specification.
pub mod attributes {
    /// The partition is mounted read-only.
    pub const READ_ONLY: u64 = 1 << 60;
    /// The partition is not mounted by systemd's automatisms.
    pub const NO_AUTO: u64 = 1 << 63;
}

/// A partition table, without the places of its copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// GUID of the disk.
    pub disk_guid: Uuid,
    /// The unit of the addresses on disk.
    pub sector_size: SectorSize,
    /// First byte that partitions may use.
    pub first_usable: u64,
    /// End of what partitions may use: the first byte beyond.
    pub end_usable: u64,
    /// How many partitions have room in the table.
    pub capacity: u32,
    /// Partitions by their numbers.
    pub entries: Vec<Entry>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From 1; the `2` of `/dev/vda2`.
    pub number: u32,
    /// What the partition is for; see [`types`].
    pub type_guid: Uuid,
    /// The partition's own GUID, known as PARTUUID.
    pub guid: Uuid,
    /// Name, known as PARTLABEL; up to 36 UTF-16 code units.
    pub label: String,
    /// In bytes from the start of the disk.
    pub start: u64,
    /// In bytes.
    pub size: u64,
    /// See [`attributes`].
    pub attributes: u64,
}

impl Entry {
    /// The first byte beyond the partition.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// Why a table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// A name with too many characters.
    #[error("partition label {label:?} has {units} UTF-16 units, but 36 is the most")]
    LabelTooLong {
        /// The label.
        label: String,
        /// Its length.
        units: usize,
    },
    /// A partition number outside the table.
    #[error("expected a partition number from 1 to {capacity}, but have {number}")]
    Number {
        /// The number.
        number: u32,
        /// How many there may be.
        capacity: u32,
    },
    /// A partition that is not made of whole sectors.
    #[error("partition {number} begins at {start} and has {size} bytes: not whole sectors of {sector} bytes")]
    Unaligned {
        /// Its number.
        number: u32,
        /// In bytes.
        start: u64,
        /// In bytes.
        size: u64,
        /// In bytes.
        sector: u64,
    },
    /// A partition that overlaps another or leaves the usable part of the disk.
    #[error("partition {number} (bytes {start} to {end}) {problem}")]
    Misplaced {
        /// Its number.
        number: u32,
        /// First byte.
        start: u64,
        /// First byte beyond.
        end: u64,
        /// e.g. `overlaps partition 2`.
        problem: String,
    },
    /// No partition has this number.
    #[error("no partition has the number {number}")]
    NoSuchPartition {
        /// The number.
        number: u32,
    },
    /// The disk cannot hold the table.
    #[error("a disk of {size} bytes has no room for this partition table")]
    TooSmall {
        /// In bytes.
        size: u64,
    },
    /// The table keeps its entries where we do not write them.
    #[error("the primary entries begin at sector {lba}, and only tables with sector 2 can be changed")]
    ForeignPlace {
        /// Where they are.
        lba: u64,
    },
    /// Neither copy can be used.
    #[error("{}", read::neither(.primary, .backup))]
    NoTable {
        /// What is wrong with the copy at the start.
        primary: CopyError,
        /// What is wrong with the copy at the end.
        backup: CopyError,
    },
    /// The crate `gpt` refused.
    #[error("encoding the partition table: {problem}")]
    Encode {
        /// In its words.
        problem: String,
    },
    /// The disk.
    #[error("{action} the partition table: {source}")]
    Io {
        /// `reading`, `writing` or `flushing`.
        action: &'static str,
        /// What the disk said.
        source: io::Error,
    },
}

impl Table {
    /// An empty table for a disk of `disk_size` bytes.
    ///
    /// # Errors
    /// `TooSmall` when not even the table has room.
    pub fn new(disk_guid: Uuid, sector_size: SectorSize, disk_size: u64) -> Result<Self, GptError> {
        let capacity = format::CAPACITY;
        let sectors = 1 + format::entries_sectors(capacity, sector_size);
        let first_usable = (1 + sectors) * sector_size.bytes();
        let end_usable = usable_end(disk_size, capacity, sector_size)?;
        if end_usable <= first_usable {
            return Err(GptError::TooSmall { size: disk_size });
        }
        Ok(Self { disk_guid, sector_size, first_usable, end_usable, capacity, entries: Vec::new() })
    }

    /// The partition with this number.
    pub fn entry(&self, number: u32) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.number == number)
    }

    /// The partition with this PARTUUID.
    pub fn by_guid(&self, guid: Uuid) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.guid == guid)
    }

    /// The partitions of this type, by number.
    pub fn by_type(&self, type_guid: Uuid) -> impl Iterator<Item = &Entry> + Clone {
        self.entries.iter().filter(move |entry| entry.type_guid == type_guid)
    }

    /// The EFI system partition: the one whose GUID the boot loader `told`, else the only one; none where there are several,
    /// for another might be what the firmware reads.
    pub fn esp(&self, told: Option<Uuid>) -> Option<&Entry> {
        let mut all = self.by_type(types::ESP);
        all.clone()
            .find(|entry| Some(entry.guid) == told)
            .or_else(|| all.next().filter(|_| all.next().is_none()))
    }

    /// Gives a partition another identity: what an update of a slot does.
    ///
    /// # Errors
    /// `NoSuchPartition`; a label that is too long.
    pub fn rename(&mut self, number: u32, guid: Uuid, label: &str, attributes: u64) -> Result<(), GptError> {
        check_label(label)?;
        let entry = self
            .entries
            .iter_mut()
            .find(|entry| entry.number == number)
            .ok_or(GptError::NoSuchPartition { number })?;
        entry.guid = guid;
        entry.label = label.to_owned();
        entry.attributes = attributes;
        Ok(())
    }

    /// Lets the table and the partition that comes last on the disk reach to the end of a disk that now
    /// has `disk_size` bytes; the partition ends at a multiple of `alignment` bytes. Never shrinks
    /// anything; says whether anything changed.
    ///
    /// # Errors
    /// `TooSmall` when the disk ends before what the table already uses.
    pub fn grow_last(&mut self, disk_size: u64, alignment: u64) -> Result<bool, GptError> {
        let mut changed = self.extend(disk_size)?;
        let aligned = self.end_usable / alignment * alignment;
        if let Some(last) = self.entries.iter_mut().max_by_key(|entry| entry.start)
            && aligned > last.end()
        {
            last.size = aligned - last.start;
            changed = true;
        }
        Ok(changed)
    }

    /// Lets the table reach to the end of a disk that now has `disk_size` bytes; says whether anything changed.
    ///
    /// # Errors
    /// `TooSmall` when the disk ends before what the table already uses.
    pub fn extend(&mut self, disk_size: u64) -> Result<bool, GptError> {
        let end = usable_end(disk_size, self.capacity, self.sector_size)?;
        if end < self.end_usable {
            return Err(GptError::TooSmall { size: disk_size });
        }
        Ok(std::mem::replace(&mut self.end_usable, end) != end)
    }

    /// Refuses partitions that overlap or leave the usable part of the disk.
    pub(crate) fn check(&self) -> Result<(), GptError> {
        let mut ordered: Vec<&Entry> = self.entries.iter().collect();
        ordered.sort_by_key(|entry| (entry.start, entry.number));
        let mut before: Option<&Entry> = None;
        for entry in ordered {
            let misplaced = |problem| GptError::Misplaced {
                number: entry.number,
                start: entry.start,
                end: entry.end(),
                problem,
            };
            if entry.start.checked_add(entry.size).is_none() || entry.size == 0 {
                return Err(misplaced("ends before it begins".to_owned()));
            }
            if entry.start < self.first_usable || entry.end() > self.end_usable {
                let (first, end) = (self.first_usable, self.end_usable);
                return Err(misplaced(format!("leaves the usable bytes {first} to {end}")));
            }
            if let Some(before) = before.filter(|before| before.end() > entry.start) {
                return Err(misplaced(format!("overlaps partition {}", before.number)));
            }
            before = Some(entry);
        }
        Ok(())
    }
}

/// Refuses a label that no entry holds.
pub(in crate::disk) fn check_label(label: &str) -> Result<(), GptError> {
    let units = label.encode_utf16().count();
    if units > format::LABEL_UNITS {
        return Err(GptError::LabelTooLong { label: label.to_owned(), units });
    }
    Ok(())
}

/// The first byte behind the usable ones of a disk of `disk_size` bytes: there the backup begins.
fn usable_end(disk_size: u64, capacity: u32, sector_size: SectorSize) -> Result<u64, GptError> {
    let sector = sector_size.bytes();
    let table = (1 + format::entries_sectors(capacity, sector_size)) * sector;
    (disk_size / sector * sector).checked_sub(table).ok_or(GptError::TooSmall { size: disk_size })
}
