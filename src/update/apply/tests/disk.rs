//! A whole disk of 40 MiB: table, EFI system partition, two slots, state.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::rc::Rc;

use uuid::Uuid;

use crate::base::device::{Device, ReadAt, SectorSize, Window};
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, Size};
use crate::boot::cmdline;
use crate::boot::pe::{self, Holds};
use crate::boot::uki::{self, Uki};
use crate::disk::gpt;
use crate::disk::layout::{Layout, Partition, Role, Sizes};
use crate::disk::slot::{Release, Slot};
use crate::fs::fat;
use crate::tree::Tree;
use crate::update::document::{self, Blob, Document, RootImage};
use crate::verity::{self, HashTree};

/// Blocks of a root: enough for a tree of two levels.
const BLOCKS: usize = 160;
/// Bytes of an initramfs: more than a few clusters.
const INITRD: usize = 20_000;
/// The smallest that FAT32 takes with sectors of 512 bytes.
const ESP: Size = Size::mib(34);

/// A version with all that belongs to it.
pub(crate) struct Version {
    pub document: Document,
    pub root: Vec<u8>,
    pub tree: HashTree,
    pub uki: Vec<u8>,
}

/// `len` bytes that depend on `seed` alone.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(crate::base::power_cut::next(&mut state).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A boot loader.
pub(super) fn loader(seed: u64) -> Vec<u8> {
    let mut image = pe::Image::parse(pe::sample()).unwrap();
    image.append(".sdmagic", b"#### LoaderInfo: systemd-boot 257 ####\0", Holds::Data).unwrap();
    image.append(".noise", &noise(seed, 3000), Holds::Data).unwrap();
    image.into_bytes()
}

impl Version {
    /// Half of the blocks of all versions are the same.
    pub(crate) fn new(version: &str, seed: u64) -> Self {
        let mut root = noise(0, BLOCKS * verity::BLOCK);
        root[..BLOCKS / 2 * verity::BLOCK].copy_from_slice(&noise(seed, BLOCKS / 2 * verity::BLOCK));
        let options = verity::Options { salt: vec![7; 32], uuid: Uuid::from_u128(seed.into()) };
        let mut writer = verity::Writer::new(io::sink(), options.clone()).unwrap();
        writer.write_all(&root).unwrap();
        let tree = writer.finish().unwrap();
        let parts = uki::Parts {
            stub: &pe::sample(),
            kernel: &pe::sample(),
            kernel_version: "6.12.0",
            os_release: b"ID=node\n",
            initrd: &noise(seed, INITRD),
            options: &cmdline::Options::default(),
        };
        let uki = Uki::new(tree.root_hash, &parts).unwrap().into_bytes();
        let nowhere = Blob::of(b"");
        let ways = document::Ways {
            full: nowhere,
            frames: nowhere,
            index: nowhere,
            patches: Vec::new(),
            level: None,
            full_pieces: Vec::new(),
            frames_pieces: Vec::new(),
        };
        let document = Document {
            format: document::FORMAT,
            id: "node".to_owned(),
            version: version.to_owned(),
            minimum: None,
            notes: String::new(),
            epoch: 0,
            reads: document::FORMAT,
            sector_size: 512,
            root: RootImage {
                root_hash: tree.root_hash.digest(),
                size: to_u64(root.len()),
                salt: hex::encode(&options.salt),
                verity_uuid: options.uuid,
                ways: ways.clone(),
            },
            uki: document::Uki { sha256: Digest::of(&uki), size: to_u64(uki.len()), ways },
        };
        Self { document, root, tree, uki }
    }

    pub(crate) fn root_hash(&self) -> Digest {
        self.document.root.root_hash
    }

    pub(crate) fn release(&self) -> Release {
        self.document.release()
    }
}

/// A disk's bytes and what is where.
pub(super) struct Made {
    pub bytes: Vec<u8>,
    pub layout: Layout,
    /// The boot loader, and its successor.
    pub loaders: [Vec<u8>; 2],
}

impl Made {
    pub(super) fn partition(&self, role: Role) -> Partition {
        self.layout.partition(role)
    }
}

/// A disk with these versions in its slots and these entries in its ESP.
pub(super) fn image(slots: [Option<&Version>; 2], entries: &[(&str, &Version)]) -> Made {
    let (root, state) = (Size::mib(1), Size::mib(1));
    let sizes = Sizes { esp: ESP, root, reserve: None, state, sector_size: SectorSize::B512 };
    let layout = Layout::plan(&sizes).unwrap();
    let mut disk = Cursor::new(vec![0; to_usize(layout.disk_size)]);
    let mut table = layout.table(&Version::new("0", 99).release()).unwrap();
    let disk_guid = table.disk_guid;
    let place = |role| to_usize(layout.partition(role).start);
    for (slot, version) in [Slot::A, Slot::B].into_iter().zip(slots) {
        let number = |role| 1 + Role::ALL.iter().position(|other| *other == role).unwrap() as u32;
        let (root, verity) = match version {
            None => crate::disk::slot::empty(disk_guid, slot),
            Some(version) => (version.release().root(), version.release().verity()),
        };
        for (role, identity) in [(Role::Root(slot), root), (Role::Verity(slot), verity)] {
            table.rename(number(role), identity.guid, &identity.label, identity.attributes).unwrap();
        }
        if let Some(version) = version {
            let bytes = disk.get_mut();
            bytes[place(Role::Root(slot))..][..version.root.len()].copy_from_slice(&version.root);
            let tree = &version.tree.bytes;
            bytes[place(Role::Verity(slot))..][..tree.len()].copy_from_slice(tree);
        }
    }
    gpt::create(&mut disk, &table).unwrap();
    let mut bytes = disk.into_inner();

    let mut tree = Tree::new(0);
    tree.file("EFI/BOOT/BOOTX64.EFI", 0o644, loader(1)).unwrap();
    tree.file("EFI/systemd/systemd-bootx64.efi", 0o644, loader(1)).unwrap();
    tree.file("loader/loader.conf", 0o644, "timeout 0\n").unwrap();
    for (file, version) in entries {
        tree.file(format!("EFI/Linux/{file}"), 0o644, version.uki.clone()).unwrap();
    }
    let options =
        fat::Options { size: ESP.bytes(), sector_size: 512, volume_id: 1, label: "ESP".to_owned(), mtime: 0 };
    let mut esp = Cursor::new(vec![0; to_usize(ESP.bytes())]);
    fat::write(&tree, &options, &mut esp).unwrap();
    bytes[place(Role::Esp)..][..esp.get_ref().len()].copy_from_slice(esp.get_ref());
    let state = layout.partition(Role::State);
    bytes[to_usize(state.start)..][..to_usize(state.size)].copy_from_slice(&noise(5, to_usize(state.size)));
    Made { bytes, layout, loaders: [loader(1), loader(2)] }
}

/// The devices of an update.
pub(crate) struct Parts<'d> {
    pub disk: Box<dyn Device + 'd>,
    pub esp: Box<dyn Device + 'd>,
    pub root: Box<dyn Device + 'd>,
    pub verity: Box<dyn Device + 'd>,
}

/// A disk over bytes that stay as they are: what is written is kept aside, so that thousands of updates can
/// begin at one disk.
#[derive(Clone)]
pub(super) struct Memory<'b> {
    base: &'b [u8],
    sectors: Rc<RefCell<BTreeMap<u64, Vec<u8>>>>,
}

const SECTOR: u64 = 512;

impl<'b> Memory<'b> {
    pub(super) fn new(base: &'b [u8]) -> Self {
        Self { base, sectors: Rc::default() }
    }

    /// A copy that goes its own way.
    pub(super) fn fork(&self) -> Self {
        Self { base: self.base, sectors: Rc::new(RefCell::new(self.sectors.borrow().clone())) }
    }

    /// Whether nothing was written.
    pub(super) fn is_untouched(&self) -> bool {
        self.sectors.borrow().is_empty()
    }

    pub(super) fn parts(&self, made: &Made, slot: Slot) -> Parts<'b> {
        parts(&made.layout, slot, |_, start, size| Window::new(self.clone(), start, size))
    }
}

impl ReadAt for Memory<'_> {
    fn size(&self) -> u64 {
        to_u64(self.base.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.base.read_at(buffer, offset)?;
        let end = offset + to_u64(buffer.len());
        for (at, sector) in self.sectors.borrow().range(offset / SECTOR * SECTOR..end) {
            let (from, to) = ((*at).max(offset), (at + SECTOR).min(end));
            buffer[to_usize(from - offset)..to_usize(to - offset)]
                .copy_from_slice(&sector[to_usize(from - at)..to_usize(to - at)]);
        }
        Ok(())
    }
}

impl Device for Memory<'_> {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(SECTOR) && to_u64(bytes.len()).is_multiple_of(SECTOR), "whole sectors");
        if offset + to_u64(bytes.len()) > self.size() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let sectors = (offset..).step_by(to_usize(SECTOR)).zip(bytes.chunks_exact(to_usize(SECTOR)));
        self.sectors.borrow_mut().extend(sectors.map(|(at, sector)| (at, sector.to_vec())));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sector_size(&self) -> SectorSize {
        SectorSize::B512
    }
}

/// Blocks that are written at once.
const RUN: usize = 8;

/// Writes what differs of a root: what the deltas do, less the fetching.
pub(super) fn fill(target: &mut dyn Device, root: &[u8]) -> io::Result<()> {
    let run = RUN * verity::BLOCK;
    let mut there = vec![0; run];
    for (blocks, at) in root.chunks(run).zip((0..).step_by(run)) {
        target.read_at(&mut there[..blocks.len()], at)?;
        if there[..blocks.len()] != *blocks {
            target.write_at(blocks, at)?;
        }
    }
    Ok(())
}

/// The devices for an update of `slot`, made by `view` out of a name, a start and a size.
pub(super) fn parts<'d, D: Device + 'd>(
    made: &Layout,
    slot: Slot,
    mut view: impl FnMut(&str, u64, u64) -> D,
) -> Parts<'d> {
    let disk = Box::new(view("table", 0, made.disk_size));
    let mut device = |role: Role| {
        let Partition { start, size, .. } = made.partition(role);
        Box::new(view(&role.to_string(), start, size)) as Box<dyn Device + 'd>
    };
    let (esp, root, verity) = (device(Role::Esp), device(Role::Root(slot)), device(Role::Verity(slot)));
    Parts { disk, esp, root, verity }
}
