//! Changing the table of a disk that may lose power at any moment.

use super::create;
use super::format::{self, Header};
use super::read::{Found, Which};
use super::{GptError, Table};
use crate::base::device::Device;
use crate::base::width::{to_index, to_u64};

/// Puts `new` in place of the table that was read as `found`: first over the copy that was *not* read from,
/// then, once that is on the disk, over the one that was. So at every moment one copy is whole, and
/// [`super::read()`] gives the old table or the new one. Writing back `found.table` mends a broken copy and
/// moves the backup to the end of a disk that has grown.
///
/// # Errors
/// What makes `new` impossible, before anything is written; what the disk says.
pub fn rewrite(disk: &mut (impl Device + ?Sized), found: &Found, new: &Table) -> Result<(), GptError> {
    if found.entries_lba != PRIMARY_ENTRIES {
        return Err(GptError::ForeignPlace { lba: found.entries_lba });
    }
    let Copies { primary, backup } = Copies::of(new, disk.size())?;
    let mut copies = [backup, primary];
    if found.source == Which::Backup {
        copies.reverse();
    }
    for (offset, bytes) in copies {
        put(disk, &[(offset, bytes.concat())])?;
    }
    Ok(())
}

/// Puts `table` onto a disk that has none. A loss of power leaves none or a whole one: the header of the primary copy, one
/// sector, comes when all that it speaks of is on the disk, and the backup after it.
///
/// # Errors
/// What makes `table` impossible, before anything is written; what the disk says.
pub fn lay(disk: &mut (impl Device + ?Sized), table: &Table) -> Result<(), GptError> {
    let Copies { primary: (first, [header, entries]), backup: (last, backup) } =
        Copies::of(table, disk.size())?;
    let sector = table.sector_size.bytes();
    put(disk, &[(0, create::protective(table.sector_size)), (PRIMARY_ENTRIES * sector, entries)])?;
    put(disk, &[(first, header)])?;
    put(disk, &[(last, backup.concat())])
}

fn put(disk: &mut (impl Device + ?Sized), pieces: &[(u64, Vec<u8>)]) -> Result<(), GptError> {
    for (offset, bytes) in pieces {
        disk.write_at(bytes, *offset).map_err(|source| GptError::Io { action: "writing", source })?;
    }
    disk.flush().map_err(|source| GptError::Io { action: "flushing", source })
}

/// The bytes of both copies of a table, each with its place on the disk.
struct Copies {
    primary: (u64, [Vec<u8>; 2]),
    backup: (u64, [Vec<u8>; 2]),
}

impl Copies {
    fn of(new: &Table, disk_size: u64) -> Result<Self, GptError> {
        new.check()?;
        let sector = new.sector_size.bytes();
        let entries = format::encode_entries(new)?;
        let entries_sectors = to_u64(entries.len()) / sector;
        let too_small = || GptError::TooSmall { size: disk_size };
        let last_lba = (disk_size / sector).checked_sub(1).ok_or_else(too_small)?;
        let backup_entries = last_lba
            .checked_sub(entries_sectors)
            .filter(|lba| lba * sector >= new.end_usable)
            .ok_or_else(too_small)?;
        if new.first_usable < (PRIMARY_ENTRIES + entries_sectors) * sector {
            return Err(GptError::ForeignPlace { lba: PRIMARY_ENTRIES });
        }
        let used = to_index(new.capacity * format::ENTRY_SIZE);
        let header = |which| {
            let (my_lba, alternate_lba, entries_lba) = match which {
                Which::Primary => (1, last_lba, PRIMARY_ENTRIES),
                Which::Backup => (last_lba, 1, backup_entries),
            };
            Header {
                my_lba,
                alternate_lba,
                first_usable: new.first_usable / sector,
                last_usable: new.end_usable / sector - 1,
                disk_guid: new.disk_guid,
                entries_lba,
                capacity: new.capacity,
                entries_crc: crc32fast::hash(&entries[..used]),
            }
            .encode(new.sector_size)
        };
        Ok(Self {
            primary: (sector, [header(Which::Primary), entries.clone()]),
            backup: (backup_entries * sector, [entries.clone(), header(Which::Backup)]),
        })
    }
}

/// Sector of the primary entries: behind the MBR and the header.
const PRIMARY_ENTRIES: u64 = 2;
