//! Gives up a version that was good once and does not get through any more, where there is another.
//!
//! Nothing here keeps a node from booting: an ESP that cannot be read or written is a warning.

use std::fs::OpenOptions;
use std::io;

use super::console::Console;
use super::disks::BootDisk;
use crate::base::device::{Device, FileDevice};
use crate::base::failure::{Doing, Failure};
use crate::boot::entries::{self, BootEntry};
use crate::boot::starts;
use crate::boot::variables;
use crate::disk::gpt::types;
use crate::fs::fat::{EditError, Editor};
use crate::update::apply;

/// Counts this start.
///
/// # Errors
/// The version was given up: the machine is to start over, with another one.
pub(super) fn begin(console: &Console, disk: &BootDisk) -> Result<(), Failure> {
    match count(disk) {
        Ok(None) => Ok(()),
        Ok(Some((own, missed))) => give_up(console, disk, &own, missed),
        Err(failure) => {
            console.warn(&failure.lines().join(": "));
            Ok(())
        }
    }
}

/// The entry that was started and how many starts of it did not get through, if that is reason to give it up.
fn count(disk: &BootDisk) -> Result<Option<(BootEntry, u32)>, Failure> {
    let Some(selected) = variables::read(variables::SELECTED) else { return Ok(None) };
    // On trial: the boot loader counts.
    if variables::read(variables::COUNTED).is_some() {
        return Ok(None);
    }
    count_in(&mut open_esp(disk)?, &selected).doing("counting this start in the ESP")
}

/// The same in `esp`, for the entry that the boot loader calls `selected`.
fn count_in<D: Device>(esp: &mut D, selected: &str) -> Result<Option<(BootEntry, u32)>, EditError> {
    let mut editor = Editor::open(esp)?;
    let listed = editor.list()?;
    let paths = listed.iter().filter_map(|listed| listed.path.rsplit_once('/'));
    let files = paths.filter(|(folder, _)| folder.eq_ignore_ascii_case(entries::FOLDER));
    let mut all: Vec<BootEntry> = files.filter_map(|(_, file)| entries::parse(file)).collect();
    entries::order(&mut all);
    let Some(own) = all.iter().find(|entry| entry.name().eq_ignore_ascii_case(selected)) else {
        return Ok(None);
    };
    let missed = starts::begin(&mut editor, &own.name())?;
    let reason = missed.filter(|missed| starts::is_given_up(own, *missed, &all));
    Ok(reason.map(|missed| (own.clone(), missed)))
}

fn give_up(console: &Console, disk: &BootDisk, own: &BootEntry, missed: u32) -> Result<(), Failure> {
    let demote = || {
        let mut esp = open_esp(disk)?;
        let whole = disk.open().doing(format!("opening {}", disk.device()))?;
        apply::demote(&whole, &mut esp, &own.file).doing(format!("demoting {}", own.file))
    };
    match demote() {
        Ok(demoted) => Err(Failure::new(
            format!("starting {}, of which {missed} starts in a row did not get through", own.file),
            format!("it is {demoted} from now on, and the other version starts"),
        )),
        Err(failure) => {
            console.warn(&failure.lines().join(": "));
            Ok(())
        }
    }
}

/// The ESP that the boot loader came from, or the only one of the boot disk.
pub(super) fn open_esp(disk: &BootDisk) -> Result<FileDevice, Failure> {
    let table = &disk.found.table;
    let entry = table.esp(variables::partition()).ok_or_else(|| {
        let cause = format!("{} has {} of them", disk.name, table.by_type(types::ESP).count());
        Failure::new("looking for the ESP", cause)
    })?;
    let device = disk.partition(entry.number)?;
    let open = || -> io::Result<FileDevice> {
        FileDevice::block(OpenOptions::new().read(true).write(true).open(&device)?)
    };
    open().doing(format!("opening {device}"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::base::device::SectorSize;
    use crate::base::power_cut::Recorder;
    use crate::base::width::to_usize;
    use crate::fs::fat::{self, Options};
    use crate::tree::Tree;

    fn esp(files: &[&str]) -> Recorder {
        let options =
            Options { size: 34 << 20, sector_size: 512, volume_id: 1, label: String::new(), mtime: 0 };
        let mut tree = Tree::new(0);
        for file in files {
            tree.file(format!("{}/{file}", entries::FOLDER), 0o644, vec![2; 3000]).unwrap();
        }
        let mut disk = Cursor::new(vec![0; to_usize(options.size)]);
        fat::write(&tree, &options, &mut disk).unwrap();
        Recorder::new(disk.into_inner(), SectorSize::B512)
    }

    fn blessed(disk: &mut Recorder, name: &str) {
        starts::reset(&mut Editor::open(disk).unwrap(), name).unwrap();
    }

    #[test]
    fn the_fourth_start_gives_up_what_three_did_not_get_through() {
        let mut disk = esp(&["node_1.0.0.efi", "node_1.0.1~RC1.efi"]);
        let start = |disk: &mut Recorder| count_in(disk, "node_1.0.1~rc1.efi").unwrap();
        // Nobody takes the count back.
        assert!((0..9).all(|_| start(&mut disk).is_none()));
        blessed(&mut disk, "node_1.0.1~RC1.efi");
        assert!((0..3).all(|_| start(&mut disk).is_none()));
        let (own, missed) = start(&mut disk).unwrap();
        assert_eq!((own.demoted().as_str(), missed), ("node_1.0.1~RC1+0.efi", 3));
        blessed(&mut disk, "node_1.0.1~RC1.efi");
        assert!(start(&mut disk).is_none());
    }

    #[test]
    fn the_only_version_and_unknown_ones_are_kept() {
        let mut disk = esp(&["node_1.0.0.efi", "node_1.0.1+0-3.efi"]);
        blessed(&mut disk, "node_1.0.0.efi");
        assert!((0..9).all(|_| count_in(&mut disk, "node_1.0.0.efi").unwrap().is_none()));
        assert!((0..9).all(|_| count_in(&mut disk, "auto-osx").unwrap().is_none()));
        assert!(count_in(&mut Recorder::new(vec![0; 4096], SectorSize::B512), "node_1.0.0.efi").is_err());
    }
}
