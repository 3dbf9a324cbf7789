//! How the table of an image becomes the table of a node: pure arithmetic.
//!
//! An image has the ESP and slot A, and its root ends where its content does. The node's root grows to its size, and slot
//! B, the reserve and the state partition follow it. One change of the table names them all. Until the file system of the
//! reserve or of the state is whole, its partition has a GUID that follows from the GUID of this very disk
//! ([`is_unmade`]): whatever lies there is left over from another life of the disk. No image and no other node has this
//! GUID, and it stands in the table as soon as the partition does.

use uuid::Uuid;

use super::gpt::{Entry, GptError, Table};
use super::layout::{ALIGNMENT, Layout, Role};
use super::slot::{self, Slot, derived_guid};
use crate::base::Size;
use crate::base::device::SectorSize;

/// Version of a GUID that was derived from another: a disk that has one still has the table of an image.
const DERIVED: usize = 8;

/// GUIDs of a node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Of the disk.
    pub disk: Uuid,
    /// Of the EFI system partition.
    pub esp: Uuid,
}

/// Why an image cannot become the disk of a node.
#[derive(Debug, thiserror::Error)]
pub enum UnfoldError {
    /// A disk without room for all partitions.
    #[error("the disk has {}, and this node needs {}: {} are missing", has.human(), needs.human(), Size(needs.bytes() - has.bytes()).human())]
    DiskTooSmall {
        /// Of the disk.
        has: Size,
        /// At least.
        needs: Size,
    },
    /// A table with other partitions than an image has.
    #[error(
        "the partition table is not that of an image: expected one ESP, one root and one verity partition"
    )]
    NotAnImage,
    /// A root that was made for other disks.
    #[error("its table is made for sectors of {} bytes, its root for {}", table.bytes(), root.bytes())]
    SectorSize {
        /// Of the table.
        table: SectorSize,
        /// As the root says.
        root: SectorSize,
    },
    /// A table that does not agree with the root.
    #[error(
        "partition {role} has bytes {start}+{size}, and by the root it has {expected_start}+{expected_size}"
    )]
    Misplaced {
        /// What it is for.
        role: Role,
        /// In bytes, as the table has it.
        start: u64,
        /// In bytes, as the table has it.
        size: u64,
        /// In bytes, as the root has it.
        expected_start: u64,
        /// In bytes, as the root has it; of a root partition at most.
        expected_size: u64,
    },
    /// The table's own.
    #[error(transparent)]
    Table(#[from] GptError),
}

impl Layout {
    /// The table of the node that `image`, which is to be laid out so, becomes on a disk of `disk_size` bytes. The state
    /// partition takes the rest of the disk if it shall `grow`.
    ///
    /// # Errors
    /// A table that is not of such an image; a disk that is too small.
    pub fn unfold(&self, image: &Table, disk_size: u64, grow: bool, own: Own) -> Result<Table, UnfoldError> {
        self.check_image(image)?;
        if disk_size < self.disk_size {
            return Err(UnfoldError::DiskTooSmall { has: Size(disk_size), needs: Size(self.disk_size) });
        }
        let mut table = image.clone();
        table.disk_guid = own.disk;
        table.extend(disk_size)?;
        for (partition, number) in self.numbered() {
            match table.entries.iter_mut().find(|entry| entry.number == number) {
                None => table.entries.push(partition.role.unused(own.disk).entry(partition, number)?),
                Some(entry) => {
                    entry.size = partition.size;
                    if partition.role == Role::Esp {
                        entry.guid = own.esp;
                    }
                }
            }
        }
        if grow {
            table.grow_last(disk_size, ALIGNMENT)?;
        }
        table.check()?;
        Ok(table)
    }

    /// Refuses the table of an image that is not laid out so.
    ///
    /// # Errors
    /// All but `DiskTooSmall`.
    pub fn check_image(&self, image: &Table) -> Result<(), UnfoldError> {
        if slot::shipped(image).is_none() {
            return Err(UnfoldError::NotAnImage);
        }
        if image.sector_size != self.sector_size {
            return Err(UnfoldError::SectorSize { table: image.sector_size, root: self.sector_size });
        }
        for (partition, number) in self.numbered().filter(|(partition, _)| partition.role.is_shipped()) {
            let is_it = |entry: &&Entry| entry.type_guid == partition.role.type_guid();
            let entry = image.entry(number).filter(is_it).ok_or(UnfoldError::NotAnImage)?;
            let fits = match partition.role {
                Role::Root(Slot::A) => entry.size <= partition.size,
                _ => entry.size == partition.size,
            };
            if entry.start != partition.start || !fits {
                return Err(UnfoldError::Misplaced {
                    role: partition.role,
                    start: entry.start,
                    size: entry.size,
                    expected_start: partition.start,
                    expected_size: partition.size,
                });
            }
        }
        Ok(())
    }
}

/// Whether `guid` is still one that an image came with, or follows from another.
pub fn is_derived(guid: Uuid) -> bool {
    guid.get_version_num() == DERIVED
}

/// Whether the partition `entry` of `table` was made when an image became this node, and its file system never got whole:
/// nothing on it is of value, whatever it looks like.
pub fn is_unmade(table: &Table, entry: &Entry) -> bool {
    !is_derived(table.disk_guid) && entry.guid == derived_guid(table.disk_guid, &entry.label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;
    use crate::disk::gpt::types;
    use crate::disk::layout::{RESERVE_LABEL, STATE_LABEL, Sizes};
    use crate::disk::slot::Release;

    const OWN: Own = Own {
        disk: Uuid::from_u128(0x11111111_2222_4333_8444_555555555555),
        esp: Uuid::from_u128(0x11111111_2222_4333_8444_666666666666),
    };
    const ROOT: u64 = 3 << 20;

    fn layout(reserve: Option<Size>, sector_size: SectorSize) -> Layout {
        let (esp, root, state) = (Size::mib(4), Size::mib(8), Size::mib(4));
        Layout::plan(&Sizes { esp, root, reserve, state, sector_size }).unwrap()
    }

    fn usual() -> (Layout, Table) {
        let layout = layout(Some(Size::mib(4)), SectorSize::B512);
        let table = image(&layout);
        (layout, table)
    }

    fn image(layout: &Layout) -> Table {
        let release = Release { id: "node".into(), version: "1".into(), root_hash: Digest::of("root") };
        layout.image_table(&release, ROOT).unwrap()
    }

    fn places(table: &Table) -> Vec<(u32, u64, u64)> {
        table.entries.iter().map(|entry| (entry.number, entry.start, entry.size)).collect()
    }

    #[test]
    fn an_image_becomes_what_the_root_says() {
        for sector_size in [SectorSize::B512, SectorSize::B4096] {
            for reserve in [Some(Size::mib(4)), None] {
                let layout = layout(reserve, sector_size);
                let image = image(&layout);
                assert_eq!(image.entries.len(), 3);
                let node = layout.unfold(&image, layout.disk_size, true, OWN).unwrap();
                let planned: Vec<_> =
                    layout.numbered().map(|(part, number)| (number, part.start, part.size)).collect();
                // The image leaves less than 1 MiB behind the state partition, which that takes.
                let last = planned.len() - 1;
                assert_eq!(places(&node)[..last], planned[..last]);
                assert_eq!((node.disk_guid, node.entry(1).unwrap().guid), (OWN.disk, OWN.esp));
                let [(_, a), (_, b)] = slot::slots(&node).unwrap();
                assert!(a.release().is_some() && b.root.label == slot::EMPTY_LABEL);
                assert!(slot::shipped(&node).is_none());
                let unmade: Vec<&str> = node
                    .entries
                    .iter()
                    .filter(|entry| is_unmade(&node, entry))
                    .map(|entry| entry.label.as_str())
                    .collect();
                let expected = [RESERVE_LABEL, STATE_LABEL].into_iter().skip(usize::from(reserve.is_none()));
                assert_eq!(unmade, expected.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_state_takes_the_rest_where_it_may() {
        let (layout, image) = usual();
        let size = layout.disk_size + (64 << 20) + 512;
        let grown = layout.unfold(&image, size, true, OWN).unwrap();
        let small = layout.unfold(&image, size, false, OWN).unwrap();
        let state = |table: &Table| table.entries.last().unwrap().size >> 20;
        assert_eq!((state(&grown), state(&small)), (4 + 64, 4));
        // Later the word may be another.
        let mut later = small;
        assert!(later.grow_last(size, ALIGNMENT).unwrap());
        assert_eq!(places(&later), places(&grown));
    }

    /// What an old image, or another node, calls the same partition.
    #[test]
    fn only_what_was_made_on_this_disk_is_unmade() {
        let (layout, image) = usual();
        let release = Release { id: "node".into(), version: "1".into(), root_hash: Digest::of("root") };
        let mut old = layout.table(&release).unwrap();
        assert!(!old.entries.iter().any(|entry| is_unmade(&old, entry)));
        old.disk_guid = OWN.disk;
        assert!(!old.entries.iter().any(|entry| is_unmade(&old, entry)));
        let mut node = layout.unfold(&image, layout.disk_size, true, OWN).unwrap();
        node.disk_guid = OWN.esp;
        assert!(!node.entries.iter().any(|entry| is_unmade(&node, entry)));
    }

    #[test]
    fn what_cannot_be_unfolded_is_refused_with_its_reason() {
        let (layout, image) = usual();
        let refused = |image: &Table, size| layout.unfold(image, size, true, OWN).unwrap_err().to_string();
        let size = layout.disk_size;
        assert_eq!(
            refused(&image, size - (3 << 20)),
            "the disk has 29.0 MiB, and this node needs 32.0 MiB: 3.0 MiB are missing"
        );
        let spoiled = |spoil: fn(&mut Table)| {
            let mut table = image.clone();
            spoil(&mut table);
            refused(&table, size)
        };
        let not_an_image = "the partition table is not that of an image";
        assert!(refused(&layout.unfold(&image, size, true, OWN).unwrap(), size).starts_with(not_an_image));
        // Somebody has put a partition of their own behind it, or taken one out, or given them other numbers.
        assert!(
            spoiled(|table| {
                table.entries.pop();
            })
            .starts_with(not_an_image)
        );
        assert!(spoiled(|table| table.entries[0].type_guid = types::LINUX).starts_with(not_an_image));
        assert!(spoiled(|table| table.entries[2].number = 4).starts_with(not_an_image));
        assert!(
            spoiled(|table| {
                let own = Entry { number: 4, type_guid: types::LINUX, ..table.entries[1].clone() };
                table.entries.push(own);
            })
            .starts_with(not_an_image)
        );
        assert_eq!(
            spoiled(|table| table.entries[2].size -= 1 << 20),
            "partition root-a-verity has bytes 5242880+0, and by the root it has 5242880+1048576"
        );
        assert!(spoiled(|table| table.entries[0].size -= 512).starts_with("partition esp has bytes"));
        assert!(spoiled(|table| table.entries[1].start += 512).starts_with("partition root-a has bytes"));
        assert!(spoiled(|table| table.entries[1].size = 9 << 20).starts_with("partition root-a has bytes"));
        assert_eq!(
            spoiled(|table| table.sector_size = SectorSize::B4096),
            "its table is made for sectors of 4096 bytes, its root for 512"
        );
    }
}
