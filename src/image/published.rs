//! An image as it is published: whole, verified, and what a repository wants to know of it.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{inspect, node_disk};
use crate::base::progress::Progress;
use crate::base::width::to_u64;
use crate::base::{Digest, Size, input};
use crate::disk::gpt::{self, Table, types};
use crate::disk::layout::{self, Role};
use crate::disk::slot::{self, Parts};
use crate::disk::{FileDevice, ReadAt, SectorSize, Slot, Window};
use crate::fs::erofs;
use crate::fs::fat::{Editor, Reader};
use crate::repository::{Layout, publish};
use crate::tree::{Content, Tree};
use crate::update::settings::{Built, PATH, ROOT_JSON};
use crate::verity;

/// Largest unified kernel image that is read, in bytes.
const UKI_LIMIT: u64 = 256 << 20;
/// Folder of boot entries in the EFI system partition.
const ENTRIES: &str = "EFI/Linux/";

/// An image, read.
pub struct Published {
    root: Window<FileDevice>,
    root_hash: Digest,
    root_size: u64,
    verity: verity::Options,
    sector_size: u32,
    uki: Vec<u8>,
    built: Built,
    layout: Layout,
    root_json: Option<Vec<u8>>,
}

impl Published {
    /// Reads the raw image at `path` and verifies every block of it.
    ///
    /// # Errors
    /// Whatever `keller inspect --verify` finds wrong with it, and images of other makers.
    pub fn read(path: &Path, progress: &dyn Progress) -> Result<Self> {
        let file = input::open(path)?;
        let inspection = inspect::inspect(file.try_clone()?, true, progress)?;
        if inspection.format != "raw" {
            bail!("it is a {} image; the raw one is published (`outputs: [raw]`)", inspection.format);
        }
        if !inspection.problems.is_empty() {
            bail!("it is not whole: {}", inspection.problems.join("; "));
        }
        let any = FileDevice::image(file.try_clone()?, SectorSize::B512)?;
        let table = gpt::read_any(&any).context("reading the partition table")?.table;
        let window = |start, size| -> Result<Window<FileDevice>> {
            Ok(Window::new(FileDevice::image(file.try_clone()?, table.sector_size)?, start, size))
        };
        let a = slot_a(&table)?;
        let release = a.release().context("slot a is empty: this is no image as keller builds it")?;
        let (options, blocks) = superblock(&window(a.verity.start, a.verity.size)?)?;
        let root = Content::Slice { file: file.try_clone()?.into(), offset: a.root.start, len: a.root.size };
        let tree = erofs::Image::open(root).and_then(|image| image.tree()).context("reading the root")?;
        let built = tree.read(PATH).with_context(|| format!("reading /{PATH} of the root"))?;
        let built: Built =
            serde_json::from_slice(&built).with_context(|| format!("reading /{PATH} of the root"))?;
        if (&built.id, &built.version) != (&release.id, &release.version) {
            bail!(
                "the root says that it is {} {}, the partition table {} {}",
                built.id,
                built.version,
                release.id,
                release.version
            );
        }
        let root_json = tree.exists(ROOT_JSON).then(|| tree.read(ROOT_JSON)).transpose()?;
        let esp = table.by_type(types::ESP).next().context("the disk has no EFI system partition")?;
        let (uki, room) =
            kernel(window(esp.start, esp.size)?, &inspection).context("reading the EFI system partition")?;
        let (root, verity) = rooms(&tree, &table)?;
        Ok(Self {
            root: window(a.root.start, a.root.size)?,
            root_hash: release.root_hash,
            root_size: blocks * to_u64(verity::BLOCK),
            verity: options,
            sector_size: u32::try_from(table.sector_size.bytes()).expect("512 or 4096"),
            uki,
            built,
            layout: Layout { esp: room, root, verity },
            root_json,
        })
    }

    /// For the repository.
    pub fn image(&self) -> publish::Image<'_> {
        publish::Image {
            id: &self.built.id,
            version: &self.built.version,
            epoch: self.built.epoch,
            reads: self.built.documents,
            sector_size: self.sector_size,
            root: &self.root,
            root_size: self.root_size,
            root_hash: self.root_hash,
            salt: &self.verity.salt,
            verity_uuid: self.verity.uuid,
            uki: &self.uki,
            layout: self.layout,
            root_json: self.root_json.clone(),
        }
    }
}

/// The slot that an image fills.
fn slot_a(table: &Table) -> Result<Parts<'_>> {
    if let Some(parts) = slot::shipped(table) {
        return Ok(parts);
    }
    let [(_, a), (_, b)] = slot::slots(table)?;
    if b.release().is_some() {
        bail!("slot b is not empty: this is the disk of a node, and an image has one version");
    }
    Ok(a)
}

/// Bytes of a root and of a hash tree that the disks of nodes of this image hold: as the root says, and of a whole disk, as
/// images were before, by its table.
fn rooms(tree: &Tree, table: &Table) -> Result<(u64, u64)> {
    if slot::shipped(table).is_some() {
        let layout = node_disk::parse(&tree.read(layout::PATH)?)?;
        let size = |role| layout.partition(role).size;
        return Ok((size(Role::Root(Slot::A)), size(Role::Verity(Slot::A))));
    }
    let [(_, a), (_, b)] = slot::slots(table)?;
    Ok((a.root.size.min(b.root.size), a.verity.size.min(b.verity.size)))
}

fn superblock(partition: &Window<FileDevice>) -> Result<(verity::Options, u64)> {
    let mut block = [0; verity::BLOCK];
    partition.read_at(&mut block, 0).context("reading the verity superblock")?;
    Ok(verity::parse_superblock(&block)?)
}

/// The unified kernel image of slot a, and the room for such images on the partition, in bytes.
fn kernel(mut esp: Window<FileDevice>, inspection: &inspect::Inspection) -> Result<(Vec<u8>, u64)> {
    let free = Editor::open(&mut esp)?.free();
    let mut volume = Reader::open(esp)?;
    let taken: u64 = volume
        .list()?
        .iter()
        .filter(|listed| listed.path.starts_with(ENTRIES))
        .filter_map(|listed| listed.size)
        .sum();
    let mut entries = inspection.entries.iter().filter(|entry| entry.slot == Some(Slot::A));
    let entry = entries.next().context("it has no boot entry")?;
    if entry.size > UKI_LIMIT {
        let (size, limit) = (Size(entry.size).human(), Size(UKI_LIMIT).human());
        bail!("{} has {size}, and at most {limit} are published", entry.path);
    }
    let mut uki = Vec::new();
    volume.file(&entry.path)?.read_to_end(&mut uki).with_context(|| format!("reading {}", entry.path))?;
    Ok((uki, free + taken))
}
