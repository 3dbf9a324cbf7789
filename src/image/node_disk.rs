//! The disk of the node that an image becomes, as the image's root says it.

use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};

use super::kernel::LOADER;
use crate::base::device::Shared;
use crate::base::{json, limits};
use crate::disk::gpt::{self, Entry, Table};
use crate::disk::layout::PATH;
use crate::disk::{FileDevice, Layout, ReadAt, SectorSize, Sizes, Window, slot};
use crate::fs::{erofs, ext4};
use crate::node::{Policy, policy};
use crate::tree::Content;

/// Where ext4 has `s_magic` (Linux, `fs/ext4/ext4.h`), and what it is.
const EXT4_MAGIC: (u64, [u8; 2]) = (1024 + 56, [0x53, 0xef]);

/// Bytes of a file of the root that are read; systemd-boot has some 130 KB.
const LIMIT: u64 = 4 << 20;

/// How the disk of a node is laid out, by the file `bytes` of its root.
pub fn parse(bytes: &[u8]) -> Result<Layout> {
    let parsed = json::parse::<Sizes>(bytes, limits::JSON_VALUES).map_err(anyhow::Error::from);
    let layout = parsed.and_then(|sizes| Ok(Layout::plan(&sizes)?));
    layout.with_context(|| format!("reading /{PATH} of the root"))
}

/// How the disk of a node is laid out, by the root in the partition `root` of `file`; none where the root does not say.
///
/// # Errors
/// A root that cannot be read.
pub fn of_root(file: &Arc<File>, root: &Entry) -> Result<Option<Layout>> {
    of_disk(Arc::new(FileDevice::image(file.try_clone()?, SectorSize::B512)?), root)
}

/// The same, of any `disk`.
///
/// # Errors
/// A root that cannot be read.
pub fn of_disk(disk: Arc<dyn Shared>, root: &Entry) -> Result<Option<Layout>> {
    of_disk_and_policy(disk, root).map(|(layout, _)| layout)
}

/// The same, and who may give the node its document.
///
/// # Errors
/// A root that cannot be read.
pub fn of_disk_and_policy(disk: Arc<dyn Shared>, root: &Entry) -> Result<(Option<Layout>, Policy)> {
    let [layout, policy] = files(disk, root.start, root.size, [PATH, policy::PATH])?;
    let layout = layout.map(|bytes| parse(&bytes)).transpose()?;
    let policy = policy.map(|bytes| Policy::parse(&bytes)).transpose();
    let policy = policy.with_context(|| format!("reading /{} of the root", policy::PATH))?;
    Ok((layout, policy.unwrap_or_default()))
}

/// How the disk of a node is laid out, and systemd-boot, by a `root` that lies on no disk yet.
///
/// # Errors
/// A root that cannot be read, or lacks one of them.
pub fn of_root_alone(root: Arc<dyn Shared>) -> Result<(Layout, Content)> {
    let size = root.size();
    let [layout, loader] = files(root, 0, size, [PATH, LOADER])?;
    let layout = layout.with_context(|| format!("its root has no /{PATH}"))?;
    let loader = loader.with_context(|| format!("its root has no /{LOADER}"))?;
    Ok((parse(&layout)?, loader.into()))
}

/// The files of the root at these paths that are there.
fn files<const N: usize>(
    disk: Arc<dyn Shared>,
    start: u64,
    size: u64,
    paths: [&str; N],
) -> Result<[Option<Vec<u8>>; N]> {
    let window = Window::new(disk.clone(), start, size);
    let mut magic = [0; 2];
    window.read_at(&mut magic, EXT4_MAGIC.0)?;
    let mut found = [const { None }; N];
    if magic == EXT4_MAGIC.1 {
        for (found, path) in found.iter_mut().zip(paths) {
            let bytes = ext4::read_file(window.clone(), path, LIMIT);
            *found = bytes.map_err(|error| anyhow!("reading the ext4 root: {error}"))?;
        }
        return Ok(found);
    }
    let content = Content::Device { device: disk, offset: start, len: size };
    let tree = erofs::Image::open(content).and_then(|image| image.tree()).context("reading the root")?;
    for (found, path) in found.iter_mut().zip(paths).filter(|(_, path)| tree.exists(path)) {
        *found = Some(tree.read(path)?);
    }
    Ok(found)
}

/// How the disk of the node is laid out that the raw image `file` becomes; none for what is no such image.
///
/// # Errors
/// An image whose root does not say it, or that its table contradicts.
pub fn of_image(file: File) -> Result<Option<Layout>> {
    let device = FileDevice::image(file.try_clone()?, SectorSize::B512)?;
    // Whatever has no table is left to whoever starts it.
    let Ok(found) = gpt::read_any(&device) else { return Ok(None) };
    let Some(parts) = slot::shipped(&found.table) else { return Ok(None) };
    let Some(layout) = of_root(&Arc::new(file), parts.root)? else {
        bail!("its root does not say how large the disk of a node is: /{PATH} is missing");
    };
    check(&layout, &found.table)?;
    Ok(Some(layout))
}

/// Refuses a table that cannot become the node that `layout` is of.
pub fn check(layout: &Layout, table: &Table) -> Result<()> {
    layout.check_image(table).context("comparing the partition table with the root")
}
