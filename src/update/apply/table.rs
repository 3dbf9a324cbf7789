//! What the partition table says of the slots.

use super::ApplyError;
use super::checked::Checked;
use crate::base::Digest;
use crate::base::device::{Device, Uncached};
use crate::disk::gpt::{self, Found, Other, Table};
use crate::disk::slot::{self, Identity, Slot};
use crate::verity::partition_guids;

/// The table as the disk has it.
pub(super) fn read(disk: &dyn Device) -> Result<Found, ApplyError> {
    Ok(gpt::read(&Uncached(disk), disk.sector_size())?)
}

/// The slot that holds the version with this root hash, by its GUIDs.
///
/// # Errors
/// When there is none, or when more than one partition has one of the GUIDs.
pub(super) fn slot_of(table: &Table, root_hash: &Digest) -> Result<Slot, ApplyError> {
    let slots = slot::slots(table)?;
    let (root, verity) = partition_guids(root_hash);
    let count = |guid| table.entries.iter().filter(|entry| entry.guid == guid).count();
    if count(root) > 1 || count(verity) > 1 {
        return Err(ApplyError::InBothSlots { root_hash: *root_hash });
    }
    let holds =
        |(_, parts): &&(Slot, slot::Parts<'_>)| parts.root.guid == root && parts.verity.guid == verity;
    let found = slots.iter().find(holds).ok_or(ApplyError::NotThisDisk { root_hash: *root_hash })?;
    Ok(found.0)
}

/// Makes the slot's two partitions say that they are `root` and `verity`: the backup first, then the
/// primary, with a flush behind each. Writes nothing where both copies say so already.
pub(super) fn identify(
    disk: &mut dyn Device,
    slot: Slot,
    [root, verity]: [&Identity; 2],
) -> Result<(), ApplyError> {
    let found = read(disk)?;
    let mut table = found.table.clone();
    let [a, b] = slot::slots(&found.table)?;
    let (_, parts) = if slot == Slot::A { a } else { b };
    for (entry, identity) in [(parts.root, root), (parts.verity, verity)] {
        table.rename(entry.number, identity.guid, &identity.label, identity.attributes)?;
    }
    if table == found.table && matches!(found.other, Other::Same) {
        return Ok(());
    }
    gpt::rewrite(&mut Checked::new(disk), &found, &table)?;
    let written = read(disk)?;
    if written.table != table || !matches!(written.other, Other::Same) {
        return Err(ApplyError::TableDiffers);
    }
    Ok(())
}
