//! The recipe: manifest and lock in, image out.

pub mod agent;
pub mod around;
pub mod check;
pub mod container;
pub mod difference;
pub mod earlier;
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

use crate::base::progress::{Counted, Task, Unit};
use crate::base::width::to_u64;
use crate::base::{Digest, Size};
use crate::boot::uki;
use crate::disk::{self, Layout, PartitionWriter, Release, Role, SectorSize, Sizes, Slot};
use crate::fs::{erofs, ext4};
use crate::manifest::{Manifest, RootFilesystem};
use crate::tree::Tree;
use crate::verity;

use earlier::{After, Places};

pub use earlier::{Earlier, Kept};
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
///
/// What has not changed in the root since `earlier` was written is taken of it. Gives what the next build has to know to
/// do the same.
pub fn write(job: &Job<'_>, root: Root, file: &File, earlier: Option<Earlier>) -> Result<(Report, Kept)> {
    let Job { manifest, lock, .. } = *job;
    let progress = job.means.progress;
    let layout = Layout::plan(&sizes(manifest)?).context("laying out the disk")?;
    file.set_len(0).context("making the image file")?;
    let names = root.names();
    let Root { tree: files, kernel, modules, microcode, os_release } = root;

    let (hashed, initramfs) = job.means.settings.pool()?.join(
        || root_partition(&files, job, &layout, file, earlier).context("writing the root file system"),
        || kernel::initramfs(job, &modules).context("making the initramfs"),
    );
    // It takes more memory than all that follows.
    drop(files);
    let (tree, root_size, kept) = hashed?;
    let initramfs = initramfs?;
    let initramfs_size = to_u64(initramfs.len());
    // The kernel looks for microcode at the begin only.
    let mut initrd = microcode.archive().context("packing the microcode")?;
    let microcode_size = to_u64(initrd.len());
    initrd.extend(initramfs);
    let root_hash = tree.root_hash.digest();
    let release = Release { id: manifest.id.clone(), version: manifest.version.clone(), root_hash };
    let task = Task::new(progress, "binding", 0, Unit::Items);
    let stub = kernel.stub.to_vec()?;
    let program = kernel.image.to_vec()?;
    let parts = uki::Parts {
        stub: &stub,
        kernel: &program,
        kernel_version: &kernel.version,
        os_release: &os_release,
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
            loader: &kernel.loader,
            uki,
            epoch: lock.epoch,
        },
        file,
    )?;
    drop(task);

    let sizes = report::Sizes {
        root_hash,
        cmdline,
        disk: layout.disk_size,
        image: layout.image_size(root_size),
        root: root_size,
        verity: to_u64(tree.bytes.len()),
        uki: uki_size,
        initramfs: initramfs_size,
        microcode: microcode_size,
        kernel: to_u64(program.len()),
    };
    Ok((report::Report::of(job, &kernel.version, names, sizes), kept))
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

/// Writes the root into slot A, hashing on the way; gives its hash tree, its size in bytes, and what the next build may
/// take of it.
fn root_partition(
    tree: &Tree,
    job: &Job<'_>,
    layout: &Layout,
    file: &File,
    earlier: Option<Earlier>,
) -> Result<(verity::HashTree, u64, Kept)> {
    let Job { manifest, lock, means: Means { progress, .. }, .. } = *job;
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
            let earlier = earlier.filter(|earlier| earlier.suits(&options));
            let (earlier, known) = earlier.map(Earlier::split).unzip();
            // What is known goes into the plan, and out of memory.
            let plan = erofs::plan_after(tree, &volume, &known.unwrap_or_default())?;
            layout.check(Role::Root(Slot::A), plan.size())?;
            let task = Task::new(progress, "writing", plan.size(), Unit::Bytes);
            let counted = Counted::new(partition, &task);
            let mut writer = verity::Writer::new(BufWriter::with_capacity(WRITE, counted), options)?;
            match &earlier {
                Some(earlier) => {
                    let mut after = After { writer: &mut writer, earlier, task: &task, taken: 0 };
                    plan.write_after(&mut after)?;
                    let [taken, all] = [after.taken, plan.size()].map(|size| Size(size).human());
                    progress.detail(&format!("{taken} of {all} are as in the image before, and are copied"));
                }
                None => _ = plan.write(&mut writer)?,
            }
            let kept = Kept { known: plan.known(), places: Some(Places::of(layout)) };
            Ok((writer.finish()?, plan.size(), kept))
        }
        RootFilesystem::Ext4 => {
            let volume = ext4::Options { uuid: uuid("root"), time: lock.epoch, label: None, size: None };
            let plan = ext4::plan(tree, &volume)?;
            layout.check(Role::Root(Slot::A), plan.size())?;
            let task = Task::new(progress, "writing", plan.size(), Unit::Bytes);
            // Its parts are not written in order, so they are hashed in a pass of their own.
            plan.write(&mut BufWriter::with_capacity(WRITE, partition))?;
            let counted = Counted::new(std::io::sink(), &task);
            let mut writer = verity::Writer::new(counted, options)?;
            let mut written = PartitionWriter::new(file, place).take(plan.size());
            std::io::copy(&mut written, &mut writer)?;
            Ok((writer.finish()?, plan.size(), Kept::default()))
        }
    }
}

/// The salt is public; it only keeps hash trees of different images from looking alike.
fn salt(identity: &Digest) -> Vec<u8> {
    identity.as_bytes().to_vec()
}
