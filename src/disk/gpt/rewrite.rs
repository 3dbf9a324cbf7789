//! Changing the table of a disk that may lose power at any moment.

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
    new.check()?;
    let sector = new.sector_size.bytes();
    let entries = format::encode_entries(new)?;
    let entries_sectors = to_u64(entries.len()) / sector;
    let last_lba = (disk.size() / sector).checked_sub(1).ok_or(GptError::TooSmall { size: disk.size() })?;
    let backup_entries = last_lba
        .checked_sub(entries_sectors)
        .filter(|lba| lba * sector >= new.end_usable)
        .ok_or(GptError::TooSmall { size: disk.size() })?;
    if new.first_usable < (PRIMARY_ENTRIES + entries_sectors) * sector {
        return Err(GptError::ForeignPlace { lba: found.entries_lba });
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
    let primary = [header(Which::Primary), entries.clone()].concat();
    let backup = [entries.clone(), header(Which::Backup)].concat();
    let mut copies = [(backup_entries, backup), (1, primary)];
    if found.source == Which::Backup {
        copies.reverse();
    }
    for (lba, bytes) in copies {
        disk.write_at(&bytes, lba * sector).map_err(|source| GptError::Io { action: "writing", source })?;
        disk.flush().map_err(|source| GptError::Io { action: "flushing", source })?;
    }
    Ok(())
}

/// Sector of the primary entries: behind the MBR and the header.
const PRIMARY_ENTRIES: u64 = 2;
