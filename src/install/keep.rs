//! Replaces the system of a node's disk and leaves its state partition as it is, where it is.
//!
//! Every table on the way has the state partition. The old table is replaced by one with the state partition alone, so that a
//! half-written system never starts, and that one by the new table. Until then a mark on the disk names the image of the state,
//! as the labels of the slots did.

use std::io;
use std::ops::Range;

use super::judge;
use super::marks::{KEEPS, UNFINISHED, UNFINISHED_AT, kept};
use super::refusal::Refusal;
use super::{esps, printable};
use crate::base::device::{Device, ReadAt, SectorSize, Uncached};
use crate::base::width::{to_u64, to_usize};
use crate::disk::Layout;
use crate::disk::gpt::{self, Entry, GptError, Other, Table, types};
use crate::disk::layout::{RESERVE_LABEL, Role, STATE_LABEL};
use crate::disk::slot;
use crate::disk::unfold::{Own, is_derived};

/// Where ext4 has its magic number in a partition, and that (Linux, fs/ext4/ext4.h).
const EXT4: (u64, [u8; 2]) = (1080, [0x53, 0xef]);

/// What an installation does that keeps a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// What the image is called, and so the state.
    pub id: String,
    /// The table meanwhile: the state partition and nothing else.
    pub meanwhile: Table,
    /// Of the state partition, in bytes.
    pub place: Range<u64>,
}

/// The table of the disk afterwards, and what it takes to get there.
#[derive(Debug)]
pub(super) struct Plan {
    /// Of the node.
    pub table: Table,
    /// Where its state is kept.
    pub kept: Option<Kept>,
    /// Whether the disk gets its table and nothing else.
    pub only_state: bool,
    /// EFI system partitions that are no more.
    pub lost: Vec<uuid::Uuid>,
}

/// Plans how the disk `path` becomes a node of `image`, laid out by `layout`, with its state kept. `fresh` has GUIDs for what has
/// none of its own.
///
/// # Errors
/// [`Refusal`].
pub(super) fn plan(
    disk: &impl ReadAt,
    path: &str,
    id: &str,
    (layout, image): (&Layout, &Table),
    fresh: Own,
) -> anyhow::Result<Plan> {
    let none = |problem: &str| Refusal::NoState { path: path.to_owned(), problem: problem.to_owned() };
    let misfit = |problem: String| Refusal::StateDoesNotFit { path: path.to_owned(), problem };
    let old = gpt::read_any(disk).map_err(|_| none("it has no partition table that can be read"))?.table;
    let state = state(disk, &old).map_err(|problem| none(&problem))?;
    let other = |other: &str| Refusal::StateOfOther {
        path: path.to_owned(),
        id: id.to_owned(),
        other: printable(other),
    };
    let ids = ids(disk, &old)?;
    match ids.iter().find(|found| *found != id) {
        Some(found) => return Err(other(found).into()),
        None if ids.is_empty() => return Err(none("nothing says which image it belongs to").into()),
        None => {}
    }
    fits(&old, state, layout).map_err(misfit)?;
    let own = |guid: uuid::Uuid, fresh| if is_derived(guid) { fresh } else { guid };
    let own = Own {
        disk: own(old.disk_guid, fresh.disk),
        // The firmware's entry names it.
        esp: old.esp(None).map_or(fresh.esp, |esp| own(esp.guid, fresh.esp)),
    };
    let table = layout.unfold(image, disk.size(), false, own);
    let mut table = table.map_err(|error| judge::too_small(error, path))?;
    let place = table.entries.iter_mut().find(|entry| entry.label == STATE_LABEL);
    let place = place.ok_or_else(|| misfit("the image has no place for it".to_owned()))?;
    *place = Entry { number: place.number, ..state.clone() };
    let kept_entry = place.clone();
    let meanwhile = Table { entries: vec![kept_entry], ..table.clone() };
    table.check()?;
    let kept = Kept { id: id.to_owned(), meanwhile, place: state.start..state.end() };
    Ok(Plan { lost: esps(&old), table, kept: Some(kept), only_state: false })
}

/// The state partition of `table`, if it holds a state; else why not.
fn state<'t>(disk: &impl ReadAt, table: &'t Table) -> Result<&'t Entry, String> {
    let mut all = table.entries.iter().filter(|entry| entry.label == STATE_LABEL);
    let state = match (all.next(), all.next()) {
        (Some(state), None) => state,
        (None, _) => return Err(format!("it has no partition {STATE_LABEL}")),
        (Some(_), Some(_)) => return Err(format!("several partitions are called {STATE_LABEL}")),
    };
    if is_derived(state.guid) {
        return Err("its node was never started, so that the file system is yet to be made".to_owned());
    }
    let mut magic = EXT4.1;
    let read = disk.read_at(&mut magic, state.start + EXT4.0);
    match read.map(|()| magic == EXT4.1) {
        Ok(true) => Ok(state),
        Ok(false) => Err(format!("there is no file system on its partition {STATE_LABEL}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Of which images the node on `disk` is, by its slots; else by the mark of an installation that was cut short.
fn ids(disk: &impl ReadAt, table: &Table) -> io::Result<Vec<String>> {
    let slots = slot::slots(table).into_iter().flatten();
    let ids: Vec<String> = slots.filter_map(|(_, parts)| parts.release()).map(|release| release.id).collect();
    match ids.is_empty() {
        true => Ok(kept(disk)?.into_iter().collect()),
        false => Ok(ids),
    }
}

/// Whether `state` lies where `layout` has it, and everything that is replaced lies before it.
fn fits(old: &Table, state: &Entry, layout: &Layout) -> Result<(), String> {
    let place = layout.partition(Role::State);
    if old.sector_size != layout.sector_size {
        let (has, wanted) = (old.sector_size.bytes(), layout.sector_size.bytes());
        return Err(format!("its table is made for sectors of {has} bytes, and the image for {wanted}"));
    }
    if state.start != place.start {
        let (is, wanted) = (state.start, place.start);
        return Err(format!("it begins at byte {is}, and a node of this image has it at byte {wanted}"));
    }
    if state.size < place.size {
        let (is, wanted) = (state.size, place.size);
        return Err(format!("it has {is} bytes, and a node of this image needs {wanted}"));
    }
    let is_ours = |entry: &&Entry| {
        let is_system = [types::ESP, types::ROOT, types::ROOT_VERITY].contains(&entry.type_guid);
        entry.number == state.number
            || (entry.end() <= state.start && (is_system || entry.label == RESERVE_LABEL))
    };
    match old.entries.iter().find(|entry| !is_ours(entry)) {
        Some(Entry { number, label, .. }) => {
            let label = printable(label);
            Err(format!("partition {number} ({label}) does not belong to a node, and would be lost"))
        }
        None => Ok(()),
    }
}

/// Says on the disk whose state is kept, where that is not said already: it may be all that says it.
pub(super) fn mark<D: Device>(disk: &mut D, id: &str) -> io::Result<()> {
    if kept(&Uncached(&*disk))?.as_deref() == Some(id) {
        return Ok(());
    }
    let mut sector = vec![0; to_usize(disk.sector_size().bytes())];
    let text = [UNFINISHED, KEEPS, id.as_bytes(), b"\n"].concat();
    let place = sector.get_mut(..text.len()).ok_or(io::ErrorKind::InvalidInput)?;
    place.copy_from_slice(&text);
    disk.write_at(&sector, UNFINISHED_AT)?;
    disk.flush()
}

/// Puts `table` in place of the one that is there; true where the disk then has it, twice.
pub(super) fn replace<D: Device>(disk: &mut D, table: &Table) -> Result<bool, GptError> {
    let found = gpt::read(&Uncached(&*disk), table.sector_size)?;
    gpt::rewrite(disk, &found, table)?;
    let found = gpt::read(&Uncached(&*disk), table.sector_size)?;
    Ok(found.table == *table && matches!(found.other, Other::Same))
}

/// A disk of which a part cannot be written.
pub(super) struct Spared<D> {
    /// All of it.
    pub disk: D,
    /// The part, in bytes.
    pub part: Range<u64>,
}

impl<D: ReadAt> ReadAt for Spared<D> {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_at(buffer, offset)
    }
}

impl<D: Device> Device for Spared<D> {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset < self.part.end && self.part.start < offset.saturating_add(to_u64(bytes.len())) {
            return Err(io::Error::other("this is within the state that is kept"));
        }
        self.disk.write_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }

    fn sector_size(&self) -> SectorSize {
        self.disk.sector_size()
    }

    fn read_back(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_back(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::base::power_cut::Recorder;
    use crate::base::{Digest, Size};
    use crate::disk::Sizes;
    use crate::disk::slot::Release;

    fn own(number: u128) -> Own {
        let guid = |number: u128| uuid::Builder::from_random_bytes((number << 100).to_be_bytes()).into_uuid();
        Own { disk: guid(number), esp: guid(number + 1) }
    }

    fn layout(root: u64, sector_size: SectorSize) -> Layout {
        let (esp, root, state) = (Size::mib(1), Size::mib(root), Size::mib(1));
        Layout::plan(&Sizes { esp, root, reserve: Some(Size::mib(1)), state, sector_size }).unwrap()
    }

    fn image(layout: &Layout, id: &str) -> Table {
        let release = Release { id: id.into(), version: "1".into(), root_hash: Digest::of(id) };
        layout.image_table(&release, 200 << 10).unwrap()
    }

    /// The disk of a node that has been started; `change` is what became of its table since.
    fn node(change: impl Fn(&mut Table)) -> Vec<u8> {
        let layout = layout(1, SectorSize::B512);
        let size = layout.disk_size + (4 << 20);
        let mut table = layout.unfold(&image(&layout, "node"), size - (2 << 20), true, own(1)).unwrap();
        table.extend(size).unwrap();
        table.entries.iter_mut().for_each(|entry| {
            if entry.label == STATE_LABEL || entry.label == RESERVE_LABEL {
                entry.guid = own(10 + u128::from(entry.number)).disk;
            }
        });
        change(&mut table);
        let mut disk = Recorder::new(vec![0; size as usize], SectorSize::B512);
        gpt::lay(&mut disk, &table).unwrap();
        let mut bytes = disk.bytes().to_vec();
        if let Some(state) = table.entries.iter().find(|entry| entry.label == STATE_LABEL) {
            bytes[(state.start + EXT4.0) as usize..][..2].copy_from_slice(&EXT4.1);
        }
        bytes
    }

    fn planned(disk: &[u8], id: &str, layout: &Layout) -> Result<Plan, String> {
        plan(&disk, "/dev/sda", id, (layout, &image(layout, id)), own(90)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_state_keeps_its_place_and_all_else_is_new() {
        let disk = node(|_| {});
        let old = gpt::read(disk.as_slice(), SectorSize::B512).unwrap().table;
        let Plan { table, kept, lost, .. } = planned(&disk, "node", &layout(1, SectorSize::B512)).unwrap();
        let of = |table: &Table, label: &str| {
            table.entries.iter().find(|entry| entry.label == label).unwrap().clone()
        };
        let state = of(&old, STATE_LABEL);
        assert_eq!(of(&table, STATE_LABEL), state);
        assert_eq!((table.disk_guid, table.esp(None).unwrap().guid), (old.disk_guid, own(1).esp));
        assert_eq!(lost, [own(1).esp]);
        // The first boot makes the reserve anew.
        assert!(crate::disk::unfold::is_unmade(&table, &of(&table, RESERVE_LABEL)));
        assert!(!crate::disk::unfold::is_unmade(&table, &state));
        let Kept { id, meanwhile, place } = kept.unwrap();
        assert_eq!(
            (id.as_str(), meanwhile.entries, place),
            ("node", vec![state.clone()], state.start..state.end())
        );
        // The ESP's entry is lost: it gets a GUID that nothing else has.
        let lame = node(|table| table.entries.retain(|entry| entry.type_guid != types::ESP));
        let plan = planned(&lame, "node", &layout(1, SectorSize::B512)).unwrap();
        assert_eq!(plan.table.esp(None).unwrap().guid, own(90).esp);
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_its_reason() {
        let usual = layout(1, SectorSize::B512);
        let none = |problem: &str| {
            format!(
                "/dev/sda has no state that could be kept: {problem}. Install without --keep-state, with --wipe if what is there \
                 may be lost"
            )
        };
        let label = |table: &mut Table, label: &str, to: &str| {
            table
                .entries
                .iter_mut()
                .filter(|entry| entry.label == label)
                .for_each(|entry| entry.label = to.into());
        };
        for (disk, problem) in [
            (vec![0; 8 << 20], "it has no partition table that can be read"),
            (node(|table| label(table, STATE_LABEL, "mine")), "it has no partition keller-state"),
            (
                node(|table| label(table, RESERVE_LABEL, STATE_LABEL)),
                "several partitions are called keller-state",
            ),
            (
                node(|table| {
                    table.entries.iter_mut().for_each(|entry| {
                        if entry.label == STATE_LABEL {
                            entry.guid = slot::derived_guid(table.disk_guid, STATE_LABEL);
                        }
                    })
                }),
                "its node was never started, so that the file system is yet to be made",
            ),
            (
                node(|table| table.entries.retain(|entry| entry.type_guid != types::ROOT)),
                "nothing says which image it belongs to",
            ),
        ] {
            assert_eq!(planned(&disk, "node", &usual).unwrap_err(), none(problem));
        }
        let mut emptied = node(|_| {});
        let state = gpt::read(emptied.as_slice(), SectorSize::B512).unwrap().table;
        let state = state.entries.iter().find(|entry| entry.label == STATE_LABEL).unwrap();
        emptied[state.start as usize..state.end() as usize].fill(0);
        assert_eq!(
            planned(&emptied, "node", &usual).unwrap_err(),
            none("there is no file system on its partition keller-state")
        );
        assert_eq!(
            planned(&node(|_| {}), "other", &usual).unwrap_err(),
            "the state on /dev/sda belongs to image node, but this image is other: install a version of node, or name another disk"
        );
        let misfit = |disk: &[u8], layout: &Layout| {
            let said = planned(disk, "node", layout).unwrap_err();
            let said = said.strip_prefix("the state on /dev/sda cannot stay where it is: ").unwrap();
            said.split(". Build the image with the `disk:` of").next().unwrap().to_owned()
        };
        let disk = node(|_| {});
        assert!(misfit(&disk, &layout(2, SectorSize::B512)).starts_with("it begins at byte "));
        assert_eq!(
            misfit(&disk, &layout(1, SectorSize::B4096)),
            "its table is made for sectors of 512 bytes, and the image for 4096"
        );
        let small = node(|table| {
            table.entries.iter_mut().for_each(|entry| {
                if entry.label == STATE_LABEL {
                    entry.size = 512 << 10;
                }
            })
        });
        assert_eq!(misfit(&small, &usual), "it has 524288 bytes, and a node of this image needs 1048576");
        let foreign = node(|table| {
            let end = table.entries.last().unwrap().end();
            let (type_guid, guid) = (types::LINUX, Uuid::from_u128(9));
            let (number, label, size) = (8, "mine".to_owned(), 1 << 20);
            table.entries.push(Entry { number, type_guid, guid, label, start: end, size, attributes: 0 });
        });
        assert_eq!(
            misfit(&foreign, &usual),
            "partition 8 (mine) does not belong to a node, and would be lost"
        );
    }
}
