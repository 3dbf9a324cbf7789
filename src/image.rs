//! The recipe: manifest and lock in, image out.

pub mod agent;
pub mod around;
pub mod check;
pub mod container;
pub mod difference;
pub mod etcd;
mod firmware;
pub mod hardware;
pub mod inputs;
pub mod inspect;
pub mod job;
pub mod kernel;
pub mod laid;
mod modprobe;
pub mod node_disk;
pub mod published;
pub mod record;
pub mod report;
pub mod root;
pub mod scripts;

use std::fs::File;
use std::io::{BufWriter, Read};

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::base::Digest;
use crate::base::progress::{Counted, Progress, Task, Unit};
use crate::base::width::to_u64;
use crate::boot::uki;
use crate::disk::{self, Layout, PartitionWriter, Release, Role, SectorSize, Sizes, Slot};
use crate::fs::{erofs, ext4};
use crate::lock::Lock;
use crate::manifest::{Manifest, RootFilesystem};
use crate::verity;

pub use job::{Job, Means, Settings};
pub use report::Report;
pub use root::Root;

/// How large writes to the image are, in bytes.
const WRITE: usize = 4 << 20;

/// Writes the image of `root` into `file`: what a node's disk has before anything on it is the node's own.
///
/// The order is forced by what each part needs of the one before: the root's bytes give the root hash, the
/// root hash goes into the unified kernel image, and both decide the partitions' identities. The initramfs
/// needs none of them and is made beside.
pub fn write(job: &Job<'_>, root: Root, file: &File) -> Result<Report> {
    let Job { manifest, lock, .. } = *job;
    let progress = job.means.progress;
    let layout = Layout::plan(&sizes(manifest)?).context("laying out the disk")?;
    file.set_len(0).context("making the image file")?;

    let (hashed, initramfs) = job.means.settings.pool()?.join(
        || {
            root_partition(&root, manifest, lock, &layout, file, progress)
                .context("writing the root file system")
        },
        || kernel::initramfs(job, &root.modules).context("making the initramfs"),
    );
    let (tree, root_size) = hashed?;
    let initramfs = initramfs?;
    let initramfs_size = to_u64(initramfs.len());
    // The kernel looks for microcode at the begin only.
    let mut initrd = root.microcode.archive().context("packing the microcode")?;
    let microcode_size = to_u64(initrd.len());
    initrd.extend(initramfs);
    let root_hash = tree.root_hash.digest();
    let release = Release { id: manifest.id.clone(), version: manifest.version.clone(), root_hash };
    let task = Task::new(progress, "binding", 0, Unit::Items);
    let stub = root.kernel.stub.to_vec()?;
    let kernel = root.kernel.image.to_vec()?;
    let parts = uki::Parts {
        stub: &stub,
        kernel: &kernel,
        kernel_version: &root.kernel.version,
        os_release: &root.os_release,
        initrd: &initrd,
        options: &kernel::options(manifest),
    };
    let uki = uki::Uki::new(tree.root_hash, &parts).context("making the unified kernel image")?;
    let cmdline = uki.cmdline().to_string();
    let uki = uki.into_bytes();
    let uki_size = to_u64(uki.len());
    around::write(
        around::Parts {
            layout: &layout,
            release: &release,
            root_size,
            tree: &tree.bytes,
            loader: &root.kernel.loader,
            uki,
            epoch: lock.epoch,
        },
        file,
    )?;
    drop(task);

    Ok(report::Report::of(
        job,
        &root,
        report::Sizes {
            root_hash,
            cmdline,
            disk: layout.disk_size,
            image: layout.image_size(root_size),
            root: root_size,
            verity: to_u64(tree.bytes.len()),
            uki: uki_size,
            initramfs: initramfs_size,
            microcode: microcode_size,
            kernel: to_u64(kernel.len()),
        },
    ))
}

/// What the manifest says of the disk of a node.
pub fn sizes(manifest: &Manifest) -> Result<Sizes> {
    let disk = &manifest.disk;
    Ok(Sizes {
        esp: disk.esp,
        root: disk.root,
        reserve: disk.reserve,
        state: disk.state_min,
        sector_size: SectorSize::try_from(disk.sector_size)?,
    })
}

/// Writes the root into slot A, hashing on the way; gives its hash tree and its size in bytes.
fn root_partition(
    root: &Root,
    manifest: &Manifest,
    lock: &Lock,
    layout: &Layout,
    file: &File,
    progress: &dyn Progress,
) -> Result<(verity::HashTree, u64)> {
    let identity = Digest::of(format!("{} {}", manifest.id, manifest.version));
    let uuid =
        |purpose: &str| disk::slot::derived_guid(Uuid::NAMESPACE_OID, &format!("{identity} {purpose}"));
    let options = verity::Options { salt: salt(&identity), uuid: uuid("verity") };
    let place = layout.partition(Role::Root(Slot::A));
    let partition = PartitionWriter::new(file, place);
    match manifest.disk.filesystem {
        RootFilesystem::Erofs => {
            let volume = erofs::Options {
                uuid: uuid("root"),
                build_time: lock.epoch,
                volume_name: [0; 16],
                dedupe: true,
            };
            let plan = erofs::plan(&root.tree, &volume)?;
            layout.check(Role::Root(Slot::A), plan.size())?;
            let task = Task::new(progress, "writing", plan.size(), Unit::Bytes);
            let counted = Counted::new(partition, &task);
            let mut writer = verity::Writer::new(BufWriter::with_capacity(WRITE, counted), options)?;
            plan.write(&mut writer)?;
            Ok((writer.finish()?, plan.size()))
        }
        RootFilesystem::Ext4 => {
            let volume = ext4::Options { uuid: uuid("root"), time: lock.epoch, label: None, size: None };
            let plan = ext4::plan(&root.tree, &volume)?;
            layout.check(Role::Root(Slot::A), plan.size())?;
            let task = Task::new(progress, "writing", plan.size(), Unit::Bytes);
            // Its parts are not written in order, so they are hashed in a pass of their own.
            plan.write(&mut BufWriter::with_capacity(WRITE, partition))?;
            let counted = Counted::new(std::io::sink(), &task);
            let mut writer = verity::Writer::new(counted, options)?;
            let mut written = PartitionWriter::new(file, place).take(plan.size());
            std::io::copy(&mut written, &mut writer)?;
            Ok((writer.finish()?, plan.size()))
        }
    }
}

/// The salt is public; it only keeps hash trees of different images from looking alike.
fn salt(identity: &Digest) -> Vec<u8> {
    identity.as_bytes().to_vec()
}
