//! What an image has around its root: the hash tree, the EFI system partition and the partition table. All of it follows from
//! the root, the kernel image and the names of a version, so that whoever has these can write the image that a build wrote.

use std::fs::File;

use anyhow::{Context, Result};

use crate::base::Digest;
use crate::base::width::{to_u64, to_usize};
use crate::boot::esp;
use crate::disk::{Layout, PartitionWriter, Release, Role, Slot, gpt, layout};
use crate::fs::fat;
use crate::tree::Content;

/// What it is made of.
pub struct Parts<'a> {
    /// The disk of the node.
    pub layout: &'a Layout,
    /// What slot A holds.
    pub release: &'a Release,
    /// Bytes of the root.
    pub root_size: u64,
    /// The hash tree of the root, superblock included.
    pub tree: &'a [u8],
    /// systemd-boot.
    pub loader: &'a Content,
    /// The unified kernel image.
    pub uki: Vec<u8>,
    /// Time of all files in the ESP, in seconds since 1970.
    pub epoch: i64,
}

/// Makes `file` as large as the image is, and writes all of it but the root, of which nothing is touched.
///
/// # Errors
/// What does not fit, and what the disk says.
pub fn write(parts: Parts<'_>, file: &File) -> Result<()> {
    let Parts { layout, release, root_size, tree, loader, uki, epoch } = parts;
    // The root comes last: where its content ends, the image does.
    file.set_len(layout.image_size(root_size)).context("making the image file")?;
    let verity = layout.partition(Role::Verity(Slot::A));
    layout.check(Role::Verity(Slot::A), to_u64(tree.len()))?;
    write_at(file, verity.start, tree).context("writing the hash tree")?;

    let files = esp::tree(epoch, loader, &release.id, &release.version, uki)?;
    let options = fat::Options {
        size: layout.partition(Role::Esp).size,
        volume_id: volume_id(&release.root_hash),
        label: "ESP".to_owned(),
        mtime: epoch,
        sector_size: layout.sector_size.into(),
    };
    let table = layout.image_table(release, root_size)?;
    // Tables first and then the ESP: what was written before lies beyond both. Zeros that mean something are no holes, so that
    // a copy of what the file has is whole on any disk.
    for place in [0, layout.image_size(root_size) - layout::ALIGNMENT] {
        write_at(file, place, &vec![0; to_usize(layout::ALIGNMENT)])
            .context("writing the partition table")?;
    }
    gpt::create(&mut &*file, &table).context("writing the partition table")?;
    fat::write(&files, &options, &mut PartitionWriter::new(file, layout.partition(Role::Esp)))
        .context("writing the EFI system partition")?;
    Ok(())
}

fn volume_id(root_hash: &Digest) -> u32 {
    u32::from_le_bytes(root_hash.as_bytes()[..4].try_into().expect("a digest is longer"))
}

fn write_at(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}
