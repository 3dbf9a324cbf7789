//! Makes the partition table this disk's own: an identity at the first boot, and all of the disk's room.
//!
//! Images are deterministic, so two disks with one image look alike, down to the GUID of the disk. That one
//! is of version 8 in an image, for it was derived from the root hash, and replaced by a random one, of
//! version 4, on the node. The GUIDs of the reserve and of the state partition go the same way once their file systems
//! are made: from then on a blank partition is no new one, but one that was lost. A change is written to the backup first
//! and flushed, then to the primary: at every moment one of them is whole.

use uuid::Uuid;

use super::console::Console;
use super::disks::BootDisk;
use super::partitions::{read_again, resize};
use crate::base::failure::{Doing, Failure};
use crate::base::kernel;
use crate::disk::gpt::{self, Entry, Found, GptError, Other, Table};
use crate::disk::layout::{ALIGNMENT, STATE_LABEL};
use crate::disk::{FileDevice, ReadAt};

/// Version of a GUID that was derived from a root hash: the table is as an image has it.
const DERIVED: usize = 8;

/// Whether `guid` is still the one that the image came with.
pub(super) fn is_as_shipped(guid: Uuid) -> bool {
    guid.get_version_num() == DERIVED
}

/// What there is to change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The table to write, unless the one on disk will do.
    pub table: Option<Table>,
    /// Whether the disk gets its own GUID.
    pub new_identity: bool,
    /// Number and size in bytes of the state partition that grows.
    pub grown: Option<(u32, u64)>,
}

/// Plans the table of a disk with `disk_size` bytes; `own_guid` is what an unnamed disk shall be called.
/// Only a state partition that comes last is grown: anything behind it is not ours.
pub(super) fn plan(found: &Found, disk_size: u64, grow: bool, own_guid: Uuid) -> Result<Plan, GptError> {
    let mut table = found.table.clone();
    let new_identity = is_as_shipped(table.disk_guid);
    if new_identity {
        table.disk_guid = own_guid;
    }
    let last = table.entries.iter().max_by_key(|entry| entry.start).cloned();
    let mut grown = None;
    if let Some(last) = last.filter(|last| grow && last.label == STATE_LABEL) {
        table.grow_last(disk_size, ALIGNMENT)?;
        let size = table.entry(last.number).map_or(last.size, |entry| entry.size);
        grown = (size > last.size).then_some((last.number, size));
    }
    let is_mended = matches!(found.other, Other::Same);
    let changed = table != found.table || !is_mended;
    Ok(Plan { table: changed.then_some(table), new_identity, grown })
}

/// Brings the boot disk's table up to date, on the disk and in the kernel.
pub(super) fn settle(console: &Console, disk: &mut BootDisk, grow: bool) -> Result<(), Failure> {
    let doing = || format!("updating the partition table of {}", disk.name);
    let mut device = disk.open().doing(doing())?;
    let plan = plan(&disk.found, device.size(), grow, own_guid()?).doing(doing())?;
    let Some(table) = plan.table else { return Ok(()) };
    gpt::rewrite(&mut device, &disk.found, &table).doing(doing())?;
    if plan.new_identity {
        console.say(&format!("{} is new: it is disk {} from now on", disk.name, table.disk_guid));
    }
    if let Other::Broken(error) = &disk.found.other {
        console.warn(&format!("{} had one broken partition table, now mended: {error}", disk.name));
    }
    if let Some((number, size)) = plan.grown
        && let Some(entry) = table.entry(number)
    {
        resize(device.file(), number, entry.start, size)
            .or_else(|_| read_again(device.file()))
            .doing(format!("telling the kernel the new size of partition {number} of {}", disk.name))?;
        console.say(&format!("state partition grown to {}", crate::base::Size(size).human()));
    }
    disk.found = reread(&device, &disk.name)?;
    Ok(())
}

/// Gives each of the partitions `numbers` a GUID of its own, unless it has one: what is on it is there to stay.
pub(super) fn own(disk: &mut BootDisk, numbers: &[u32]) -> Result<(), Failure> {
    let doing = || format!("giving partitions of {} GUIDs of their own", disk.name);
    let Some(table) = owned(&disk.found, numbers, own_guid).doing(doing())? else { return Ok(()) };
    let mut device = disk.open().doing(doing())?;
    gpt::rewrite(&mut device, &disk.found, &table).doing(doing())?;
    disk.found = reread(&device, &disk.name)?;
    Ok(())
}

/// The table in which each of the partitions `numbers` has a GUID of its own, by `guid`; none where all have one.
pub(super) fn owned(
    found: &Found,
    numbers: &[u32],
    mut guid: impl FnMut() -> Result<Uuid, Failure>,
) -> Result<Option<Table>, Failure> {
    let mut table = found.table.clone();
    let is_new = |entry: &&Entry| numbers.contains(&entry.number) && is_as_shipped(entry.guid);
    for entry in found.table.entries.iter().filter(is_new) {
        let renamed = table.rename(entry.number, guid()?, &entry.label, entry.attributes);
        renamed.doing(format!("renaming partition {}", entry.number))?;
    }
    Ok((table != found.table).then_some(table))
}

/// A GUID that nothing else has: of version 4.
fn own_guid() -> Result<Uuid, Failure> {
    Ok(uuid::Builder::from_random_bytes(kernel::random().doing("waiting for randomness")?).into_uuid())
}

fn reread(device: &FileDevice, name: &str) -> Result<Found, Failure> {
    gpt::read_any(device).doing(format!("reading back the partition table of {name}"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;

    use super::*;
    use crate::base::{Digest, Size};
    use crate::disk::gpt::types;
    use crate::disk::{Layout, SectorSize, Sizes, slot::Release};

    const OWN: Uuid = Uuid::from_u128(0x11111111_2222_4333_8444_555555555555);

    /// Puts `table` onto a disk in memory.
    pub(crate) fn write(bytes: &mut [u8], table: &Table) {
        let mut cursor = io::Cursor::new(bytes);
        gpt::create(&mut cursor, table).unwrap();
    }

    fn layout() -> Layout {
        let (esp, root, reserve, state) = (Size::mib(4), Size::mib(4), Some(Size::mib(4)), Size::mib(4));
        Layout::plan(&Sizes { esp, root, reserve, state, sector_size: SectorSize::B512 }).unwrap()
    }

    fn table() -> Table {
        let release = Release { id: "node".into(), version: "1".into(), root_hash: Digest::of("root") };
        layout().table(&release).unwrap()
    }

    /// The disk as it would be read, after it grew by `by` bytes.
    fn found(table: &Table, by: u64) -> (Found, u64) {
        let mut bytes = vec![0; layout().disk_size as usize];
        write(&mut bytes, table);
        let size = bytes.len() as u64 + by;
        bytes.resize(size as usize, 0);
        (gpt::read(bytes.as_slice(), SectorSize::B512).unwrap(), size)
    }

    #[test]
    fn a_factory_disk_gets_an_identity_and_its_room() {
        let (found, size) = found(&table(), 8 << 20);
        let plan = plan(&found, size, true, OWN).unwrap();
        let planned = plan.table.unwrap();
        assert!(plan.new_identity);
        assert_eq!(planned.disk_guid, OWN);
        // Only once it has a file system: see `own`.
        assert!(planned.entries.iter().all(|entry| entry.label != STATE_LABEL || is_as_shipped(entry.guid)));
        let (number, bytes) = plan.grown.unwrap();
        assert_eq!(planned.entry(number).unwrap().label, STATE_LABEL);
        assert!(bytes >= 12 << 20, "{bytes}");
    }

    #[test]
    fn a_settled_disk_is_left_alone() {
        let mut own = table();
        own.disk_guid = OWN;
        let (found_own, size) = found(&own, 0);
        // The image leaves less than 1 MiB behind the state partition, which the first boot takes.
        let first = plan(&found_own, size, true, OWN).unwrap();
        let settled = first.table.unwrap_or(own);
        let (found_settled, size) = found(&settled, 0);
        let second = plan(&found_settled, size, true, OWN).unwrap();
        assert_eq!(second, Plan { table: None, new_identity: false, grown: None });
    }

    #[test]
    fn growth_can_be_forbidden_and_spares_what_is_not_ours() {
        let (image, size) = found(&table(), 8 << 20);
        let without = plan(&image, size, false, OWN).unwrap();
        assert!(without.new_identity && without.grown.is_none());

        let mut foreign = table();
        let end = foreign.entries.last().unwrap().end();
        foreign.entries.last_mut().unwrap().size -= 1 << 20;
        foreign.entries.push(Entry {
            number: 8,
            type_guid: types::VAR,
            guid: OWN,
            label: "mine".into(),
            start: end - (1 << 20),
            size: 1 << 20,
            attributes: 0,
        });
        let (foreign, size) = found(&foreign, 8 << 20);
        assert!(plan(&foreign, size, true, OWN).unwrap().grown.is_none());
    }
}
