//! Makes the partition table this disk's own: at the first boot an identity and the partitions that the image left out,
//! later all of the disk's room.
//!
//! Images are deterministic, so two disks with one image look alike, down to the GUID of the disk. That one
//! is of version 8 in an image, for it was derived from the root hash, and replaced by a random one, of
//! version 4, on the node; so is that of the EFI system partition, which a boot entry of the firmware names. The GUIDs of
//! the reserve and of the state partition go the same way once their file systems
//! are made: from then on a blank partition is no new one, but one that was lost. A change is written to the backup first
//! and flushed, then to the primary: at every moment one of them is whole.

use std::fs;
use std::io;

use uuid::Uuid;

use super::chroot::ROOT;
use super::console::Console;
use super::disks::{BootDisk, Disk};
use super::partitions::{read_again, tell};
use super::volume::Standing;
use crate::base::failure::{Doing, Failure};
use crate::base::{Size, json, kernel, limits};
use crate::disk::gpt::{self, Entry, Found, GptError, Other, Table};
use crate::disk::layout::{ALIGNMENT, LayoutError, PATH, STATE_LABEL};
use crate::disk::unfold::{Own, UnfoldError, is_derived, is_unmade};
use crate::disk::{FileDevice, Layout, ReadAt, Sizes, slot};

/// What the table says of a partition that gets a file system on the node.
pub(super) fn standing(table: &Table, entry: &Entry) -> Standing {
    match is_derived(entry.guid) {
        true if is_unmade(table, entry) => Standing::Unmade,
        true => Standing::Shipped,
        false => Standing::Own,
    }
}

/// What there is to change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The table to write, unless the one on disk will do.
    pub table: Option<Table>,
    /// Whether the disk gets its own GUID.
    pub new_identity: bool,
    /// Whether the partitions are made that an image leaves out.
    pub unfolded: bool,
    /// Size in bytes of the state partition that grows.
    pub grown: Option<u64>,
}

/// Why there is nothing that a table could become.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    #[error("the root does not say how large the partitions of its node are: /{PATH} is missing")]
    Untold,
    #[error("the disk has a node's GUID but only an image's partitions: the others are lost")]
    Lost,
    #[error(transparent)]
    Sizes(#[from] LayoutError),
    #[error(transparent)]
    Unfold(#[from] UnfoldError),
    #[error(transparent)]
    Table(#[from] GptError),
}

/// Plans the table of a disk with `disk_size` bytes, whose root wants `sizes`; `own` is what an unnamed disk shall be
/// called. Only a state partition that comes last is grown: anything behind it is not ours.
pub(super) fn plan(
    found: &Found,
    sizes: Option<&Sizes>,
    disk_size: u64,
    grow: bool,
    own: Own,
) -> Result<Plan, PlanError> {
    let new_identity = is_derived(found.table.disk_guid);
    if slot::shipped(&found.table).is_some() {
        // Whoever has lost partitions may want them back.
        if !new_identity {
            return Err(PlanError::Lost);
        }
        let layout = Layout::plan(sizes.ok_or(PlanError::Untold)?)?;
        let table = layout.unfold(&found.table, disk_size, grow, own)?;
        let least = layout.partitions.last().map_or(0, |state| state.size);
        let grown = table.entries.last().map(|entry| entry.size).filter(|size| *size > least);
        return Ok(Plan { table: Some(table), new_identity, unfolded: true, grown });
    }
    let mut table = found.table.clone();
    if new_identity {
        table.disk_guid = own.disk;
        if let Some(entry) = found.table.esp(None) {
            table.rename(entry.number, own.esp, &entry.label, entry.attributes)?;
        }
    }
    let last = table.entries.iter().max_by_key(|entry| entry.start).cloned();
    let mut grown = None;
    if let Some(last) = last.filter(|last| grow && last.label == STATE_LABEL) {
        table.grow_last(disk_size, ALIGNMENT)?;
        let size = table.entry(last.number).map_or(last.size, |entry| entry.size);
        grown = (size > last.size).then_some(size);
    }
    let is_mended = matches!(found.other, Other::Same);
    let changed = table != found.table || !is_mended;
    Ok(Plan { table: changed.then_some(table), new_identity, unfolded: false, grown })
}

/// Brings the boot disk's table up to date, on the disk and in the kernel.
pub(super) fn settle(console: &Console, disk: &mut BootDisk, grow: bool) -> Result<(), Failure> {
    let doing = || format!("updating the partition table of {}", disk.name);
    let mut device = disk.open().doing(doing())?;
    let own = Own { disk: own_guid()?, esp: own_guid()? };
    let plan = plan(&disk.found, sizes()?.as_ref(), device.size(), grow, own)
        .map_err(|error| refused(&doing(), error))?;
    let Some(table) = plan.table else { return Ok(()) };
    gpt::rewrite(&mut device, &disk.found, &table).doing(doing())?;
    if plan.new_identity {
        console.say(&format!("{} is new: it is disk {} from now on", disk.name, table.disk_guid));
    }
    if let Other::Broken(error) = &disk.found.other {
        console.warn(&format!("{} had one broken partition table, now mended: {error}", disk.name));
    }
    tell(device.file(), &disk.name, &table)
        .or_else(|error| read_again(device.file()).map_err(|_| error))
        .doing(format!("telling the kernel the new partitions of {}", disk.name))?;
    if plan.unfolded {
        let count = table.entries.len() - disk.found.table.entries.len();
        console.say(&format!("{} unfolded: {count} partitions made", disk.name));
    }
    if let Some(size) = plan.grown {
        console.say(&format!("state partition grown to {}", Size(size).human()));
    }
    disk.found = reread(&device, &disk.name)?;
    Ok(())
}

fn refused(doing: &str, error: PlanError) -> Failure {
    let help = match &error {
        PlanError::Unfold(UnfoldError::DiskTooSmall { .. }) => {
            "a larger disk; `disk:` of the manifest says how large the partitions of a node are"
        }
        PlanError::Lost => {
            "mend the table from another system; writing the image again makes a new node, without its state"
        }
        PlanError::Unfold(_) => {
            "write the image again, as it was built, and let nothing change its partitions"
        }
        PlanError::Untold | PlanError::Sizes(_) => "build the image anew",
        PlanError::Table(_) => return Failure::new(doing, error),
    };
    Failure::new(doing, error).help(help)
}

/// What the verified root says of its node's disk.
fn sizes() -> Result<Option<Sizes>, Failure> {
    let path = format!("{ROOT}/{PATH}");
    let doing = || format!("reading {path}");
    match fs::read(&path) {
        Ok(bytes) => json::parse(&bytes, limits::JSON_VALUES).map(Some).doing(doing()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(doing()),
    }
}

/// Gives each of the partitions `numbers` a GUID of its own, unless it has one: what is on it is there to stay.
pub(super) fn own(disk: &mut Disk, numbers: &[u32]) -> Result<(), Failure> {
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
    let is_new = |entry: &&Entry| numbers.contains(&entry.number) && is_derived(entry.guid);
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
    use crate::disk::layout::RESERVE_LABEL;
    use crate::disk::{SectorSize, slot::Release};

    const OWN: Own = Own {
        disk: Uuid::from_u128(0x11111111_2222_4333_8444_555555555555),
        esp: Uuid::from_u128(0x11111111_2222_4333_8444_666666666666),
    };
    /// Bytes of the root.
    const ROOT: u64 = 1 << 20;

    /// Puts `table` onto a disk in memory.
    pub(crate) fn write(bytes: &mut [u8], table: &Table) {
        let mut cursor = io::Cursor::new(bytes);
        gpt::create(&mut cursor, table).unwrap();
    }

    fn sizes() -> Sizes {
        let (esp, root, reserve, state) = (Size::mib(4), Size::mib(4), Some(Size::mib(4)), Size::mib(4));
        Sizes { esp, root, reserve, state, sector_size: SectorSize::B512 }
    }

    fn layout() -> Layout {
        Layout::plan(&sizes()).unwrap()
    }

    fn release() -> Release {
        Release { id: "node".into(), version: "1".into(), root_hash: Digest::of("root") }
    }

    /// As images were before they unfolded on the node.
    fn whole() -> Table {
        layout().table(&release()).unwrap()
    }

    /// `table` as it would be read from a disk for which it was made, which then grew by `by` bytes.
    fn found(table: &Table, by: u64) -> (Found, u64) {
        let made_for = match slot::shipped(table) {
            Some(_) => layout().image_size(ROOT),
            None => layout().disk_size,
        };
        let mut bytes = vec![0; made_for as usize];
        write(&mut bytes, table);
        bytes.resize((layout().disk_size + by) as usize, 0);
        (gpt::read(bytes.as_slice(), SectorSize::B512).unwrap(), layout().disk_size + by)
    }

    fn planned(found: &Found, size: u64, grow: bool) -> Plan {
        plan(found, Some(&sizes()), size, grow, OWN).unwrap()
    }

    fn standings(table: &Table) -> Vec<Standing> {
        let is_made = |entry: &&Entry| [RESERVE_LABEL, STATE_LABEL].contains(&entry.label.as_str());
        table.entries.iter().filter(is_made).map(|entry| standing(table, entry)).collect()
    }

    #[test]
    fn an_image_unfolds_and_gets_an_identity() {
        let image = layout().image_table(&release(), ROOT).unwrap();
        let (image, size) = found(&image, 8 << 20);
        let plan = planned(&image, size, true);
        assert_eq!((plan.new_identity, plan.unfolded, plan.grown), (true, true, Some(12 << 20)));
        let table = plan.table.unwrap();
        assert_eq!((table.disk_guid, table.entries[0].guid), (OWN.disk, OWN.esp));
        // Until they have their file systems: see `own`.
        assert_eq!(standings(&table), [Standing::Unmade; 2]);
        let small = planned(&image, size, false);
        assert_eq!((small.unfolded, small.grown), (true, None));
        // The next boot has nothing to do, whatever became of the file systems.
        let mut bytes = vec![0; size as usize];
        write(&mut bytes, &table);
        let again = gpt::read(bytes.as_slice(), SectorSize::B512).unwrap();
        let settled = Plan { table: None, new_identity: false, unfolded: false, grown: None };
        assert_eq!(planned(&again, size, true), settled);
        let mut numbers = 0..;
        let mut guid = || Ok(uuid::Builder::from_random_bytes([numbers.next().unwrap(); 16]).into_uuid());
        let named = owned(&again, &[6, 7], &mut guid).unwrap().unwrap();
        assert_eq!(standings(&named), [Standing::Own; 2]);
    }

    #[test]
    fn an_image_that_cannot_unfold_is_refused_with_a_way_out() {
        let image = layout().image_table(&release(), ROOT).unwrap();
        let (found, size) = found(&image, 0);
        let refused = |found: &Found, sizes: Option<&Sizes>, size| {
            refused("x", plan(found, sizes, size, true, OWN).unwrap_err()).lines().join("\n")
        };
        let text = refused(&found, Some(&sizes()), size - 1);
        assert!(text.contains("and this node needs") && text.contains("way out: a larger disk"), "{text}");
        let text = refused(&found, None, size);
        assert!(text.contains("/usr/lib/keller/disk.json is missing"), "{text}");
        let text = refused(&found, Some(&Sizes { esp: Size::mib(5), ..sizes() }), size);
        assert!(
            text.contains("partition esp has bytes") && text.contains("way out: write the image"),
            "{text}"
        );
        // A node that lost the entries of its partitions is no image.
        let mut lost = found;
        lost.table.disk_guid = OWN.disk;
        let text = refused(&lost, Some(&sizes()), size);
        assert!(text.contains("the others are lost") && text.contains("way out: mend the table"), "{text}");
    }

    #[test]
    fn a_whole_disk_gets_an_identity_and_its_room() {
        let (found, size) = found(&whole(), 8 << 20);
        // A root that says nothing, or something else, changes no disk that is whole.
        let plan = plan(&found, None, size, true, OWN).unwrap();
        let planned = plan.table.unwrap();
        assert!(plan.new_identity && !plan.unfolded);
        assert_eq!((planned.disk_guid, planned.entries[0].guid), (OWN.disk, OWN.esp));
        // Only once it has a file system: see `own`.
        assert_eq!(standings(&planned), [Standing::Shipped; 2]);
        assert!(plan.grown.unwrap() >= 12 << 20);
        assert_eq!(Some(planned.entries.last().unwrap().size), plan.grown);
    }

    #[test]
    fn a_settled_disk_is_left_alone() {
        let mut own = whole();
        own.disk_guid = OWN.disk;
        let (found_own, size) = found(&own, 0);
        // The image leaves less than 1 MiB behind the state partition, which the first boot takes.
        let first = planned(&found_own, size, true);
        let settled = first.table.unwrap_or(own);
        let (found_settled, size) = found(&settled, 0);
        let second = planned(&found_settled, size, true);
        assert_eq!(second, Plan { table: None, new_identity: false, unfolded: false, grown: None });
    }

    #[test]
    fn growth_can_be_forbidden_and_spares_what_is_not_ours() {
        let (image, size) = found(&whole(), 8 << 20);
        let without = planned(&image, size, false);
        assert!(without.new_identity && without.grown.is_none());

        let mut foreign = whole();
        let end = foreign.entries.last().unwrap().end();
        foreign.entries.last_mut().unwrap().size -= 1 << 20;
        foreign.entries.push(Entry {
            number: 8,
            type_guid: types::VAR,
            guid: OWN.disk,
            label: "mine".into(),
            start: end - (1 << 20),
            size: 1 << 20,
            attributes: 0,
        });
        let (foreign, size) = found(&foreign, 8 << 20);
        assert!(planned(&foreign, size, true).grown.is_none());
    }
}
