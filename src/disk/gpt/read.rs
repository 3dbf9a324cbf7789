//! Reading a table from whichever copy is whole.

use std::io;

use super::format::{self, Header, HeaderError};
use super::{GptError, Table};
use crate::base::device::{ReadAt, SectorSize};
use crate::base::width::{to_index, to_usize};

/// One of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// At the start of the disk; it counts when both are whole.
    Primary,
    /// At the end of the disk.
    Backup,
}

/// A table and where it came from.
#[derive(Debug)]
pub struct Found {
    /// The table.
    pub table: Table,
    /// The copy it was read from.
    pub source: Which,
    /// How the other copy is.
    pub other: Other,
    /// Sector at which the primary entries begin; 2 on every disk that we made.
    pub(super) entries_lba: u64,
}

/// The copy that the table was not read from.
#[derive(Debug)]
pub enum Other {
    /// It says the same.
    Same,
    /// It is whole and says something else: a change was cut short between the copies.
    Differs,
    /// It says the same, but is not at the end: the disk has grown.
    NotAtEnd,
    /// It cannot be used.
    Broken(CopyError),
}

/// Why one copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The disk.
    #[error("reading sector {lba}: {source}")]
    Io {
        /// Where.
        lba: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// The disk ends before the copy.
    #[error("expected {needs} bytes, but the disk has {has}: the image is cut short")]
    CutShort {
        /// Bytes that the table describes.
        needs: u64,
        /// Bytes that there are.
        has: u64,
    },
    /// The header's own problem.
    #[error("header at sector {lba}: {source}")]
    Header {
        /// Where.
        lba: u64,
        /// What is wrong.
        source: HeaderError,
    },
    /// A header that says that it is elsewhere.
    #[error("the header at sector {lba} says that it is at sector {claims}")]
    WrongPlace {
        /// Where it is.
        lba: u64,
        /// Where it says to be.
        claims: u64,
    },
    /// Torn or damaged entries.
    #[error("expected checksum {expected:08x} of the entries, but have {actual:08x}")]
    EntriesChecksum {
        /// As stored in the header.
        expected: u32,
        /// As computed.
        actual: u32,
    },
    /// Checksums are right and the content makes no sense.
    #[error("{0}")]
    Content(#[source] Box<GptError>),
}

/// Reads the table of `disk`, from the primary copy if that is whole, else from the backup.
///
/// # Errors
/// `NoTable` with the reason for each copy.
pub fn read(disk: &(impl ReadAt + ?Sized), sector_size: SectorSize) -> Result<Found, GptError> {
    let sectors = disk.size() / sector_size.bytes();
    let last_lba = sectors.saturating_sub(1);
    let primary = read_copy(disk, sector_size, 1);
    // The header alone may be whole and say where the backup was before the disk grew.
    let told = read_header(disk, sector_size, 1).ok().map(|header| header.alternate_lba);
    let mut backup_lba = last_lba;
    let mut backup = read_copy(disk, sector_size, last_lba);
    if let (Err(_), Some(lba)) = (&backup, told)
        && lba > 1
        && lba < last_lba
        && let Ok(copy) = read_copy(disk, sector_size, lba)
    {
        (backup_lba, backup) = (lba, Ok(copy));
    }
    match (primary, backup) {
        (Ok((header, table)), backup) => {
            // What the end of a larger disk holds may be left over from before this table was put there.
            let is_at = |lba| read_copy(disk, sector_size, lba).is_ok_and(|(_, other)| other == table);
            let grown = (2..last_lba).contains(&header.alternate_lba) && is_at(header.alternate_lba);
            let other = match backup {
                Ok((_, other)) if other != table && grown => Other::NotAtEnd,
                Err(error) => Other::Broken(error),
                Ok((_, other)) if other != table => Other::Differs,
                Ok(_) if backup_lba != last_lba => Other::NotAtEnd,
                Ok(_) => Other::Same,
            };
            Ok(Found { table, source: Which::Primary, other, entries_lba: header.entries_lba })
        }
        (Err(primary), Ok((_, table))) => {
            Ok(Found { table, source: Which::Backup, other: Other::Broken(primary), entries_lba: 2 })
        }
        (Err(primary), Err(backup)) => Err(GptError::NoTable { primary, backup }),
    }
}

/// As [`read`], for images that do not say which sectors they are made for: 512 bytes first, then 4096.
///
/// # Errors
/// `NoTable` with the reasons as seen with the sector size that has a signature, else with 512.
pub fn read_any(disk: &(impl ReadAt + ?Sized)) -> Result<Found, GptError> {
    let small = match read(disk, SectorSize::B512) {
        Err(error) => error,
        found => return found,
    };
    match read(disk, SectorSize::B4096) {
        Err(large) if has_signature(&large) && !has_signature(&small) => Err(large),
        Err(_) => Err(small),
        found => found,
    }
}

/// In words, why neither copy can be used: for what is no disk, or an image cut short, both say the same.
pub(super) fn neither(primary: &CopyError, backup: &CopyError) -> String {
    let absent = |error: &CopyError| match error {
        CopyError::Header { source: HeaderError::NoSignature, .. } => true,
        // Not even the two sectors before a table's entries.
        CopyError::CutShort { needs, .. } => *needs <= 2 * SectorSize::B4096.bytes(),
        _ => false,
    };
    match (primary, backup) {
        _ if absent(primary) && absent(backup) => "no partition table: this is not a disk image".to_owned(),
        (CopyError::CutShort { needs, has }, _) => {
            format!("the image is cut short: its partition table is for {needs} bytes, but there are {has}")
        }
        _ => format!("no usable partition table: primary: {primary}; backup: {backup}"),
    }
}

/// Whether something like a table was there.
fn has_signature(error: &GptError) -> bool {
    !matches!(
        error,
        GptError::NoTable { primary: CopyError::Header { source: HeaderError::NoSignature, .. }, .. }
    )
}

fn read_sectors(
    disk: &(impl ReadAt + ?Sized),
    sector_size: SectorSize,
    lba: u64,
    count: u64,
) -> Result<Vec<u8>, CopyError> {
    let (sector, has) = (sector_size.bytes(), disk.size());
    let needs = lba.saturating_add(count).saturating_mul(sector);
    if needs > has {
        return Err(CopyError::CutShort { needs, has });
    }
    let mut bytes = vec![0; to_usize(count * sector)];
    disk.read_at(&mut bytes, lba * sector).map_err(|source| CopyError::Io { lba, source })?;
    Ok(bytes)
}

fn read_header(
    disk: &(impl ReadAt + ?Sized),
    sector_size: SectorSize,
    lba: u64,
) -> Result<Header, CopyError> {
    let sector = read_sectors(disk, sector_size, lba, 1)?;
    let header = Header::decode(&sector).map_err(|source| CopyError::Header { lba, source })?;
    if header.my_lba != lba {
        return Err(CopyError::WrongPlace { lba, claims: header.my_lba });
    }
    Ok(header)
}

fn read_copy(
    disk: &(impl ReadAt + ?Sized),
    sector_size: SectorSize,
    lba: u64,
) -> Result<(Header, Table), CopyError> {
    let header = read_header(disk, sector_size, lba)?;
    let (sector, has) = (sector_size.bytes(), disk.size());
    // The primary knows where the disk ends; the sector behind the last one is where it is cut.
    let needs = header.alternate_lba.max(header.last_usable).saturating_add(1).saturating_mul(sector);
    if needs > has {
        return Err(CopyError::CutShort { needs, has });
    }
    let count = format::entries_sectors(header.capacity, sector_size);
    let mut bytes = read_sectors(disk, sector_size, header.entries_lba, count)?;
    bytes.truncate(to_index(header.capacity * format::ENTRY_SIZE));
    let actual = crc32fast::hash(&bytes);
    if actual != header.entries_crc {
        return Err(CopyError::EntriesChecksum { expected: header.entries_crc, actual });
    }
    let table = Table {
        disk_guid: header.disk_guid,
        sector_size,
        first_usable: header.first_usable.saturating_mul(sector),
        end_usable: header.last_usable.saturating_add(1).saturating_mul(sector),
        capacity: header.capacity,
        entries: format::decode_entries(&bytes, sector_size),
    };
    table.check().map_err(|error| CopyError::Content(Box::new(error)))?;
    Ok((header, table))
}
