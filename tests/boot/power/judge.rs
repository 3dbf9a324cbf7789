//! Which version a disk would boot: what firmware, systemd-boot and /init would do, and no mercy on the way.

use std::io;
use std::path::Path;

use keller::base::Digest;
use keller::base::device::{ReadAt, Window};
use keller::boot::entries;
use keller::disk::gpt::{self, Table, Which, types};
use keller::disk::slot;
use keller::disk::unfold::Own;
use keller::disk::{FileDevice, SectorSize, Slot};
use keller::fs::fat;
use keller::verity::partition_guids;

use super::disk::{Contents, Disk, Id, Part, SECTOR, View};
use super::fat::{Content, Volume};
use crate::unfold;

/// Where firmware finds systemd-boot, with an entry of its own and without.
const LOADERS: [&str; 2] = ["EFI/systemd/systemd-bootx64.efi", "EFI/BOOT/BOOTX64.EFI"];
/// Largest kernel image, in bytes.
const LIMIT: u64 = 64 << 20;

/// A version, as its image has it.
pub struct Version {
    /// IMAGE_VERSION.
    pub name: String,
    pub root_hash: Digest,
    /// Of the kernel image.
    pub uki_digest: Digest,
    uki: Content,
    loader: Content,
    /// What its root and its hash tree are, by sectors.
    slot: [Vec<Id>; 2],
}

impl Version {
    /// What the first slot of an image holds.
    pub fn of(image: &Path, contents: &mut Contents) -> Self {
        let disk = FileDevice::image(std::fs::File::open(image).unwrap(), SectorSize::B512).unwrap();
        let table = gpt::read_any(&disk).unwrap().table;
        let full = slot::shipped(&table).unwrap();
        let release = full.release().unwrap();
        let esp = table.by_type(types::ESP).next().unwrap();
        let mut volume = fat::Reader::open(Window::new(&disk, esp.start, esp.size)).unwrap();
        let path = format!("{}/{}_{}.efi", entries::FOLDER, release.id, release.version);
        let [uki, loader] = [path.as_str(), LOADERS[0]].map(|path| volume.read(path, LIMIT).unwrap());
        let uki_digest = Digest::of(&uki);
        let [uki, loader] = [uki, loader].map(|bytes| {
            let (whole, tail) = bytes.split_at(bytes.len() / SECTOR * SECTOR);
            Content { size: bytes.len() as u32, whole: contents.ids(whole), tail: tail.to_vec() }
        });
        let slot = [full.root, full.verity].map(|part| {
            let mut bytes = vec![0; part.size as usize];
            disk.read_at(&mut bytes, part.start).unwrap();
            // The partition's end, which the version does not fill, is not part of it.
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(end.next_multiple_of(4096));
            contents.ids(&bytes)
        });
        Self { name: release.version, root_hash: release.root_hash, uki_digest, uki, loader, slot }
    }
}

/// What starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boots {
    /// 0: the old one; 1: the new one.
    pub version: usize,
    pub slot: Slot,
    /// The entry's file.
    pub file: String,
    /// Whether systemd-boot has passed over an empty file to get there. The kernel makes the new name of a file
    /// that it renames for an empty one first, and says where its content is with another write of the same
    /// sector: with a flush between the two, that is what a loss of power leaves.
    pub passed_over: bool,
}

pub type Verdict = Result<Boots, String>;

pub struct Judge {
    pub versions: [Version; 2],
    /// Of the disk that was recorded, once it has unfolded; nothing changes a partition's place.
    pub table: Table,
}

/// A disk of which one sector cannot be read.
struct Without<'d>(&'d dyn ReadAt, u64);

impl ReadAt for Without<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset == self.1 {
            return Err(io::ErrorKind::Other.into());
        }
        self.0.read_at(buffer, offset)
    }
}

impl Judge {
    /// `images` of the old version and the new one; the disk that is recorded begins as the old one's and unfolds.
    pub fn new(images: [&Path; 2], contents: &mut Contents) -> Self {
        let disk = FileDevice::image(std::fs::File::open(images[0]).unwrap(), SectorSize::B512).unwrap();
        let image = gpt::read_any(&disk).unwrap().table;
        let layout = unfold::node(images[0]);
        let own = Own { disk: image.disk_guid, esp: image.disk_guid };
        let table = layout.unfold(&image, layout.disk_size, true, own).unwrap();
        Self { versions: images.map(|image| Version::of(image, contents)), table }
    }

    /// A disk that knows at every moment which version is whole in which slot.
    pub fn disk(&self, now: Vec<Id>) -> Disk {
        let sectors = |bytes: u64| (bytes / SECTOR as u64) as u32;
        let slots = slot::slots(&self.table).unwrap();
        let parts = slots.iter().enumerate().flat_map(|(slot, (_, parts))| {
            [parts.root, parts.verity].into_iter().enumerate().map(move |(part, entry)| Part {
                slot,
                start: sectors(entry.start),
                count: sectors(entry.size),
                wanted: [0, 1].map(|version: usize| self.versions[version].slot[part].clone()),
            })
        });
        Disk::new(now, parts.collect())
    }

    /// The version that starts, or what is wrong.
    ///
    /// Firmware, kernel and /init take the primary table where it is whole, and else the backup. Each of the two
    /// that is whole must do, since which one it is may differ from reader to reader: a firmware repairs one by
    /// the other. No slot may say that it holds a version that is not there, whole. Of the entries, all must be
    /// whole, not only the first; and while the new version is on trial, the old one must be there to fall back to.
    pub fn decide(&self, disk: &View<'_>) -> Verdict {
        let found = gpt::read(disk, SectorSize::B512).map_err(|error| error.to_string())?;
        // Of a torn primary table firmware and kernel believe nothing, and look in the last sector.
        if found.source == Which::Backup
            && gpt::read(&Without(disk, SECTOR as u64), SectorSize::B512).is_err()
        {
            return Err("the primary table is torn, and there is no backup in the last sector".to_owned());
        }
        let mut tables = vec![found.table];
        for header in [SECTOR as u64, disk.size() - SECTOR as u64] {
            let other = gpt::read(&Without(disk, header), SectorSize::B512).map(|found| found.table);
            tables.extend(other.ok().filter(|table| !tables.contains(table)));
        }
        for (table, index) in tables.iter().flat_map(|table| [(table, 0), (table, 1)]) {
            let (root, _) = partition_guids(&self.versions[index].root_hash);
            if table.by_guid(root).is_some() {
                self.slot(disk, table, index)?;
            }
        }
        let esp = tables[0].by_type(types::ESP).next().ok_or("there is no ESP")?;
        let volume = Volume::open(disk, (esp.start / SECTOR as u64) as u32)?;
        for path in LOADERS {
            let (folder, name) = path.rsplit_once('/').expect("a path");
            let files = volume.folder(folder)?;
            let file = files.iter().find(|file| file.name.eq_ignore_ascii_case(name));
            let file = file.ok_or(format!("there is no {path}"))?;
            let mut is_whole = false;
            for version in &self.versions {
                is_whole = is_whole || volume.has(file, &version.loader)?;
            }
            if !is_whole {
                return Err(format!("{path} is damaged"));
            }
        }
        self.entry(disk, &volume, &tables)
    }

    fn entry(&self, disk: &View<'_>, volume: &Volume<'_, '_>, tables: &[Table]) -> Verdict {
        let mut found = Vec::new();
        let mut bootable = Vec::new();
        let (empty, files): (Vec<_>, Vec<_>) =
            volume.folder(entries::FOLDER)?.into_iter().partition(|file| file.size == Some(0));
        let passed_over = !empty.is_empty();
        for file in files {
            let Some(entry) = entries::parse(&file.name) else {
                if file.name.to_lowercase().ends_with(".efi") {
                    return Err(format!("there is an entry {}", file.name));
                }
                continue;
            };
            let mut held = None;
            for (index, version) in self.versions.iter().enumerate() {
                if held.is_none() && volume.has(&file, &version.uki)? {
                    held = Some(index);
                }
            }
            let index = held.ok_or(format!("{} is damaged", file.name))?;
            if entry.version != self.versions[index].name {
                return Err(format!("{} is {}", file.name, self.versions[index].name));
            }
            for table in tables {
                let slot =
                    self.slot(disk, table, index).map_err(|error| format!("{}: {error}", file.name))?;
                bootable.push(Boots { version: index, slot, file: file.name.clone(), passed_over });
            }
            found.push(entry);
        }
        entries::order(&mut found);
        let first = found.first().ok_or("there is no entry")?;
        let boots = bootable.iter().find(|boots| boots.file == first.file).expect("each is in both").clone();
        if boots.version == 1 && first.counter.is_some() && bootable.iter().all(|other| other.version == 1) {
            return Err(format!("{} is on trial, and there is no way back", first.file));
        }
        Ok(boots)
    }

    /// The slot whose GUIDs are a version's root hash, if all of the version is there.
    fn slot(&self, disk: &View<'_>, table: &Table, index: usize) -> Result<Slot, String> {
        let version = &self.versions[index];
        let (root, verity) = partition_guids(&version.root_hash);
        let count = |guid| table.entries.iter().filter(|entry| entry.guid == guid).count();
        let slots = unfold::slots(table).map_err(|error| error.to_string())?;
        let holds = |parts: &slot::Parts<'_>| (parts.root.guid, parts.verity.guid) == (root, verity);
        match slots.iter().position(|(_, parts)| holds(parts)) {
            _ if (count(root), count(verity)) != (1, 1) => {
                Err(format!("its root hash names {} and {} partitions", count(root), count(verity)))
            }
            None => Err("its root and its hash tree are in different slots".to_owned()),
            Some(slot) if !disk.is_whole(slot, index) => {
                Err(format!("slot {} has not all of {}", slots[slot].0, version.name))
            }
            Some(slot) => Ok(slots[slot].0),
        }
    }
}
