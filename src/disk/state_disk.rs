//! A disk that has the state of a node and nothing else: for nodes that run from memory. Pure arithmetic.

use std::io;

use uuid::Uuid;

use super::Layout;
use super::gpt::Table;
use super::layout::{ALIGNMENT, Partition, RESERVE_LABEL, Role, STATE_LABEL};
use super::unfold::UnfoldError;
use crate::base::Size;
use crate::base::device::ReadAt;

/// Where an installation that has begun says so, in bytes from the start: behind any table, before any partition. Where it
/// keeps a state, the disk meanwhile has the table of a disk with nothing else.
pub const UNFINISHED_AT: u64 = 512 << 10;
/// What it says.
pub const UNFINISHED: &[u8] = b"keller install: unfinished\n";
/// What follows where the state of a node is kept; then comes the id of its image, and the end of the line.
pub const KEEPS: &[u8] = b"it keeps the state of ";

impl Layout {
    /// The table of a disk of `disk_size` bytes, which is `disk` from then on, with a node's reserve and its state, which takes
    /// the rest. Neither has a file system yet (see [`super::unfold::is_unmade`]).
    ///
    /// # Errors
    /// A disk that is too small.
    pub fn state_disk(&self, disk_size: u64, disk: Uuid) -> Result<Table, UnfoldError> {
        let wanted = |role: &Role| matches!(role, Role::Reserve | Role::State);
        let partitions = self.partitions.iter().filter(|partition| wanted(&partition.role));
        // Each table has ALIGNMENT for itself.
        let needs = partitions.clone().map(|partition| partition.size).sum::<u64>() + 2 * ALIGNMENT;
        if disk_size < needs {
            return Err(UnfoldError::DiskTooSmall { has: Size(disk_size), needs: Size(needs) });
        }
        let mut table = Table::new(disk, self.sector_size, disk_size)?;
        let mut next = ALIGNMENT;
        for (partition, number) in partitions.zip(1..) {
            let partition = Partition { start: next, ..*partition };
            next += partition.size;
            table.entries.push(partition.role.unused(disk).entry(partition, number)?);
        }
        table.grow_last(disk_size, ALIGNMENT)?;
        table.check()?;
        Ok(table)
    }
}

/// Whether `table` is that of such a disk.
pub fn is_one(table: &Table) -> bool {
    let count = |label| table.entries.iter().filter(|entry| entry.label == label).count();
    let (states, reserves) = (count(STATE_LABEL), count(RESERVE_LABEL));
    states == 1 && reserves <= 1 && states + reserves == table.entries.len()
}

/// Whether an installation was about to put a system under the state of `disk`, and did not come to its end.
///
/// # Errors
/// The disk's.
pub fn is_unfinished(disk: &impl ReadAt) -> io::Result<bool> {
    let mut mark = [0; UNFINISHED.len() + KEEPS.len()];
    disk.read_at(&mut mark, UNFINISHED_AT)?;
    Ok(mark.strip_prefix(UNFINISHED) == Some(KEEPS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::unfold::is_unmade;
    use crate::disk::{SectorSize, Sizes};

    fn layout(reserve: Option<Size>) -> Layout {
        let (esp, root, state, sector_size) = (Size::mib(8), Size::mib(64), Size::mib(32), SectorSize::B512);
        Layout::plan(&Sizes { esp, root, reserve, state, sector_size }).unwrap()
    }

    #[test]
    fn it_has_the_reserve_and_the_state_and_no_file_system() {
        let guid = uuid::Builder::from_random_bytes([7; 16]).into_uuid();
        let table = layout(Some(Size::mib(16))).state_disk(100 << 20, guid).unwrap();
        let parts: Vec<_> = table
            .entries
            .iter()
            .map(|entry| (entry.label.as_str(), entry.start >> 20, entry.size >> 20))
            .collect();
        assert_eq!(parts, [(RESERVE_LABEL, 1, 16), (STATE_LABEL, 17, 82)]);
        assert!(is_one(&table) && table.entries.iter().all(|entry| is_unmade(&table, entry)));
        let table = layout(None).state_disk(34 << 20, guid).unwrap();
        assert!(is_one(&table) && table.entries.len() == 1);
        let error = layout(Some(Size::mib(16))).state_disk(49 << 20, guid).unwrap_err();
        assert!(
            matches!(error, UnfoldError::DiskTooSmall { needs, .. } if needs == Size::mib(50)),
            "{error}"
        );
    }

    #[test]
    fn the_disk_of_a_node_is_none() {
        let release = crate::disk::Release {
            id: "node".into(),
            version: "1".into(),
            root_hash: crate::base::Digest::of("root"),
        };
        let mut table = layout(Some(Size::mib(16))).table(&release).unwrap();
        assert!(!is_one(&table));
        table.entries.retain(|entry| entry.label != STATE_LABEL);
        assert!(!is_one(&table));
        table.entries.clear();
        assert!(!is_one(&table));
    }
}
