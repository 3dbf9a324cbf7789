//! The table of a new image, by the crate `gpt`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{Read, Seek, Write};

use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{OperatingSystem, Type};

use super::{GptError, Table, format};
use crate::base::device::SectorSize;
use crate::base::width::to_usize;

/// Sectors that the protective MBR claims: all, however large the disk is or becomes.
const WHOLE_DISK: u32 = u32::MAX;

/// The sector of the protective MBR.
pub(super) fn protective(sector_size: SectorSize) -> Vec<u8> {
    let mut sector = ProtectiveMBR::with_lb_size(WHOLE_DISK).to_bytes().to_vec();
    sector.resize(to_usize(sector_size.bytes()), 0);
    sector
}

/// Writes protective MBR, primary and backup table to `disk`, whose length is the size of the disk.
///
/// # Errors
/// Partitions that overlap, leave the disk, have labels that are too long, or whose numbers are not 1, 2, 3
/// and so on in this order.
pub fn create(disk: &mut (impl Read + Write + Seek + Debug), table: &Table) -> Result<(), GptError> {
    table.check()?;
    // `gpt` cuts long labels and numbers partitions anew, both without a word.
    format::encode_entries(table)?;
    for (entry, number) in table.entries.iter().zip(1..) {
        if entry.number != number {
            return Err(GptError::Number { number: entry.number, capacity: number });
        }
    }
    let encode = |problem: String| GptError::Encode { problem };
    let sector = table.sector_size.bytes();
    ProtectiveMBR::with_lb_size(WHOLE_DISK)
        .overwrite_lba0(disk)
        .map_err(|error| encode(error.to_string()))?;
    let config = GptConfig::new().writable(true).logical_block_size(match table.sector_size {
        SectorSize::B512 => LogicalBlockSize::Lb512,
        SectorSize::B4096 => LogicalBlockSize::Lb4096,
    });
    let partitions: BTreeMap<u32, Partition> = table
        .entries
        .iter()
        .map(|entry| {
            let partition = Partition {
                part_type_guid: Type { guid: entry.type_guid, os: OperatingSystem::Custom(String::new()) },
                part_guid: entry.guid,
                first_lba: entry.start / sector,
                last_lba: entry.end() / sector - 1,
                flags: entry.attributes,
                name: entry.label.clone(),
            };
            (entry.number, partition)
        })
        .collect();
    let mut gpt =
        config.create_from_device(disk, Some(table.disk_guid)).map_err(|error| encode(error.to_string()))?;
    gpt.update_partitions(partitions).map_err(|error| encode(error.to_string()))?;
    gpt.write_inplace().map_err(|error| encode(error.to_string()))
}
