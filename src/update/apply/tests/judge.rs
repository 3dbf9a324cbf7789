//! Which version a disk would boot, and whether all is as it must be at every moment.

use std::collections::BTreeMap;

use super::disk::{Made, Version};
use crate::base::Digest;
use crate::base::device::{ReadAt, SectorSize, Window};
use crate::base::width::to_usize;
use crate::boot::cmdline::Cmdline;
use crate::boot::entries;
use crate::boot::uki::Description;
use crate::disk::gpt::{self, Table, types};
use crate::disk::layout::Role;
use crate::disk::slot;
use crate::fs::fat;
use crate::verity;

/// Largest kernel image, in bytes.
const LIMIT: u64 = 1 << 20;

/// Knows what is whole.
pub(super) struct Judge<'v> {
    pub made: &'v Made,
    /// All that may be in a slot.
    pub versions: Vec<&'v Version>,
    /// What may start.
    pub may_boot: Vec<&'v str>,
    /// What must be whole whatever happens.
    pub running: &'v Version,
}

/// A disk of which one sector cannot be read.
struct Without<'d>(&'d dyn ReadAt, u64);

impl ReadAt for Without<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        if offset == self.1 {
            return Err(std::io::ErrorKind::Other.into());
        }
        self.0.read_at(buffer, offset)
    }
}

impl Judge<'_> {
    /// The version that starts, or what is wrong.
    ///
    /// Firmware and kernel take the primary table where it is whole, and else the backup. Each of the two that
    /// is whole must do, since which one that is may differ from reader to reader.
    pub(super) fn boots(&self, disk: &dyn ReadAt) -> Result<String, String> {
        let table = gpt::read(disk, SectorSize::B512).map_err(|error| error.to_string())?.table;
        let mut tables = vec![table];
        for header in [512, disk.size() - 512] {
            let other = gpt::read(&Without(disk, header), SectorSize::B512);
            tables.extend(other.ok().map(|found| found.table).filter(|table| !tables.contains(table)));
        }
        let mut sound = BTreeMap::new();
        for table in &tables {
            self.slots_are_what_they_say(disk, table, &mut sound)?;
        }
        let boots = self.entries_lead_to_whole_slots(disk, &tables)?;
        let state = self.made.partition(Role::State);
        let window = Window::new(disk, state.start, state.size);
        if !same(&window, &self.made.bytes[to_usize(state.start)..][..to_usize(state.size)]) {
            return Err("the state partition has changed".to_owned());
        }
        if !self.may_boot.contains(&boots.as_str()) {
            return Err(format!("{boots} would boot, and is neither the old nor the new"));
        }
        Ok(boots)
    }

    /// No slot says that it holds a version that is not there, whole.
    fn slots_are_what_they_say(
        &self,
        disk: &dyn ReadAt,
        table: &Table,
        sound: &mut BTreeMap<(u64, Digest), ()>,
    ) -> Result<(), String> {
        for (slot, parts) in slot::slots(table).map_err(|error| error.to_string())? {
            if parts.root.label == slot::EMPTY_LABEL && parts.verity.label == slot::EMPTY_LABEL {
                continue;
            }
            let release = parts.release().ok_or(format!("slot {slot} has labels that disagree"))?;
            let hash = release.root_hash;
            if sound.contains_key(&(parts.root.start, hash)) {
                continue;
            }
            let known = self.versions.iter().find(|version| version.root_hash() == hash);
            let known = known.ok_or(format!("slot {slot} says that it holds {}", release.version))?;
            if known.release() != release {
                return Err(format!("slot {slot} is mislabelled"));
            }
            let mut data = Window::new(disk, parts.root.start, parts.root.size);
            let mut tree = Window::new(disk, parts.verity.start, parts.verity.size);
            // Hashing thousands of times what is the same bytes would take minutes.
            if !same(&data, &known.root) || !same(&tree, &known.tree.bytes) {
                verity::verify(&mut data, &mut tree, &hash)
                    .map_err(|error| format!("slot {slot} says {}: {error}", release.version))?;
            }
            sound.insert((parts.root.start, hash), ());
        }
        Ok(())
    }

    /// Every entry is a whole kernel image for a root that one slot holds, by every table.
    fn entries_lead_to_whole_slots(&self, disk: &dyn ReadAt, tables: &[Table]) -> Result<String, String> {
        let esp = self.made.partition(Role::Esp);
        let mut volume = fat::Reader::open(Window::new(disk, esp.start, esp.size)).map_err(text)?;
        for path in ["EFI/BOOT/BOOTX64.EFI", "EFI/systemd/systemd-bootx64.efi"] {
            let bytes = volume.read(path, LIMIT).map_err(text)?;
            if !self.made.loaders.contains(&bytes) {
                return Err(format!("{path} is damaged"));
            }
        }
        let listed = volume.list().map_err(text)?;
        let mut found = Vec::new();
        for path in listed.iter().filter_map(|listed| listed.path.strip_prefix("EFI/Linux/")) {
            let Some(mut entry) = entries::parse(path) else {
                if path.to_lowercase().ends_with(".efi") {
                    return Err(format!("there is an entry {path}"));
                }
                continue;
            };
            let bytes = volume.read(&format!("EFI/Linux/{path}"), LIMIT).map_err(text)?;
            let version = self.versions.iter().find(|version| version.uki == bytes);
            let version = version.ok_or(format!("{path} is damaged"))?;
            // systemd-boot takes both out of the image, not out of a name that a disk may have got wrong.
            entry.id = version.document.id.clone();
            entry.version = version.document.version.clone();
            let hash = named(&bytes);
            let (root, verity) = verity::partition_guids(&hash);
            for table in tables {
                let places = [(root, types::ROOT), (verity, types::ROOT_VERITY)].map(|(guid, kind)| {
                    table.entries.iter().filter(|entry| entry.guid == guid && entry.type_guid == kind).count()
                });
                if places != [1, 1] {
                    return Err(format!("{path} leads to {places:?} partitions"));
                }
            }
            found.push(entry);
        }
        entries::order(&mut found);
        if !found.iter().any(|entry| entry.version == self.running.document.version) {
            return Err("the entry of the running version is gone".to_owned());
        }
        Ok(found[0].version.clone())
    }
}

fn text(error: fat::reader::ReadError) -> String {
    error.to_string()
}

fn named(uki: &[u8]) -> Digest {
    let description = Description::read(&mut std::io::Cursor::new(uki)).unwrap();
    Cmdline::parse(&description.cmdline).unwrap().root_hash
}

fn same(window: &Window<&dyn ReadAt>, bytes: &[u8]) -> bool {
    let mut there = vec![0; bytes.len()];
    window.read_at(&mut there, 0).is_ok() && there == bytes
}
