//! The kernel's side of an image: what the root's packages bring for it, and the initramfs.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context, Result, bail};

use super::{Job, firmware, modprobe};
use crate::base::progress::{Progress, Task, Unit};
use crate::base::{Digest, Fingerprint, Hasher};
use crate::boot::cmdline::{self, Options, RootFs};
use crate::boot::initramfs::{Module, Parts, Plan};
use crate::boot::modprobe::Config;
use crate::boot::network;
use crate::manifest::{Etc, Manifest, RootFilesystem};
use crate::rootfs::ModuleIndex;
use crate::rootfs::modules::FOLDER;
use crate::tree::{Content, Kind, Tree};

/// What boots the root, taken out of it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub version: String,
    /// The kernel itself.
    pub image: Content,
    /// systemd's EFI stub, which carries the unified kernel image.
    pub stub: Content,
    /// systemd-boot.
    pub loader: Content,
}

/// The kernel's modules, as an initramfs takes them.
#[derive(Clone, Debug)]
pub struct Modules {
    /// In the order of the index.
    pub list: Vec<Module>,
    /// What the kernel has built in.
    pub builtin: BTreeSet<String>,
    /// What the root's modprobe.d says about them.
    pub config: Config,
    /// Names the modules and their bytes.
    pub digest: Digest,
}

const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Where systemd-boot lies in the root, without a leading slash.
pub const LOADER: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// The kind under which it lies in the store.
pub const KIND: &str = "initramfs-2";

/// Counts changes of what an initramfs holds besides its inputs, so that no cached one is taken for a new.
const RECIPE: &str = "initramfs 4";

fn file(tree: &Tree, path: &str, package: &str) -> Result<Content> {
    match tree.resolve(path).map(|id| &tree.node(id).kind) {
        Ok(Kind::File(content)) => Ok(content.clone()),
        _ => bail!("the root has no /{path}: add {package} to packages"),
    }
}

impl Kernel {
    /// Takes the kernel out of `/boot`, which is left empty for the ESP.
    pub fn take(tree: &mut Tree) -> Result<Self> {
        let version = version(tree)?;
        let image = file(tree, &format!("boot/vmlinuz-{version}"), "a kernel (linux-image-cloud-amd64)")?;
        let stub = file(tree, STUB, "systemd-boot-efi")?;
        let loader = file(tree, LOADER, "systemd-boot-efi")?;
        tree.remove("boot");
        tree.directory("boot", 0o755)?;
        Ok(Self { version, image, stub, loader })
    }
}

impl Modules {
    /// Those of `index`, with their bodies and their configuration from `tree`.
    pub fn of(tree: &Tree, index: &ModuleIndex, progress: &dyn Progress) -> Result<Self> {
        let mut hasher = Hasher::new();
        let mut list = Vec::with_capacity(index.modules.len());
        let mut left = firmware::Left::default();
        for module in &index.modules {
            let body = file(tree, &format!("{FOLDER}/{}/{}", index.kernel, module.path), "its kernel")?;
            hasher.update(module.path.as_bytes());
            hasher.update(Fingerprint::of_reader(&mut body.reader())?.0.as_bytes());
            list.push(Module {
                name: module.name.clone(),
                depends: module.depends.iter().map(|other| index.modules[*other].name.clone()).collect(),
                before: module.soft_before().map(str::to_owned).collect(),
                after: module.soft_after().map(str::to_owned).collect(),
                aliases: module.facts.aliases.clone(),
                is_card: is_card(&module.path),
                firmware: firmware::of(tree, &module.facts.firmware, &mut left)
                    .with_context(|| format!("looking for the firmware of {}", module.path))?,
                body,
            });
        }
        let config = modprobe::read(tree, progress)?;
        Ok(Self { list, builtin: index.builtin.clone(), config, digest: hasher.finish() })
    }
}

/// Below the kernel's folder of network drivers: the cards that servers and virtual machines start from. Wi-Fi, USB and the
/// switches of network equipment are not among them.
fn is_card(path: &str) -> bool {
    let Some(path) = path.strip_prefix("kernel/drivers/net/") else { return false };
    let virtual_machines = ["virtio_net.ko", "xen-netfront.ko", "hyperv/", "vmxnet3/"];
    path.strip_prefix("ethernet/").map_or_else(
        || virtual_machines.iter().any(|start| path.starts_with(start)),
        |path| !SWITCHES.iter().any(|start| path.starts_with(start)),
    )
}

/// Below `ethernet`: chips of switches, with megabytes of code and firmware.
const SWITCHES: [&str; 1] = ["mellanox/mlxsw/"];

/// The one kernel of the tree.
fn version(tree: &Tree) -> Result<String> {
    let mut kernels = crate::rootfs::modules::kernels(tree);
    match kernels.len() {
        1 => Ok(kernels.remove(0)),
        0 => bail!("the root has no kernel modules: add a kernel, e.g. linux-image-cloud-amd64, to packages"),
        _ => bail!("the root has several kernels ({}): keep one", kernels.join(", ")),
    }
}

/// What the command line says besides the root hash.
pub fn options(manifest: &Manifest) -> Options {
    Options {
        root_fs: root_fs(manifest),
        etc: match manifest.etc {
            Etc::Persistent => cmdline::Etc::Persistent,
            Etc::Ephemeral => cmdline::Etc::Ephemeral,
        },
        grow: manifest.disk.state_grow,
        extra: manifest.kernel.cmdline.iter().flat_map(|word| unquoted(word)).collect(),
        ..Options::default()
    }
}

/// Quotes are for whoever writes a manifest; the command line gets its own.
fn unquoted(word: &str) -> Vec<String> {
    if word.contains('"') { cmdline::words(word) } else { vec![word.to_owned()] }
}

fn root_fs(manifest: &Manifest) -> RootFs {
    match manifest.disk.filesystem {
        RootFilesystem::Erofs => RootFs::Erofs,
        RootFilesystem::Ext4 => RootFs::Ext4,
    }
}

fn parts<'a>(job: &Job<'a>, modules: &'a Modules) -> Parts<'a> {
    Parts {
        keller: job.keller.0,
        modules: &modules.list,
        builtin: &modules.builtin,
        choice: job.manifest.kernel.initramfs_modules.named(),
        config: &modules.config,
        root_fs: root_fs(job.manifest),
        from_memory: job.manifest.outputs.iter().any(|output| output.runs_from_memory()),
    }
}

/// The parts of the initramfs, and the key of what is made of them. Tells what there is to tell of its modules.
fn planned<'a>(job: &Job<'a>, modules: &'a Modules) -> Result<(Parts<'a>, Digest)> {
    let parts = parts(job, modules);
    // The plan tells all that this keller chose: one that chooses otherwise takes nothing from another.
    let Plan { modules: list, config, firmware } = parts.plan()?;
    let key_of_firmware = firmware::settle(job, &firmware, parts.choice.is_some())?;
    modprobe::tell_commands(&modules.config, &list, job.means.progress);
    let key = Digest::of(format!(
        "{RECIPE} {} {}\n{list}\n{config}\n{key_of_firmware}",
        job.keller.1, modules.digest
    ));
    Ok((parts, key))
}

/// Tells of the initramfs what making it would, where it need not be made.
///
/// # Errors
/// Modules that lack something.
pub fn tell(job: &Job<'_>, modules: &Modules) -> Result<()> {
    planned(job, modules).map(drop)
}

/// The drivers of network cards, as an archive behind the initramfs; from the store when one was made of the same inputs.
pub fn cards(job: &Job<'_>, modules: &Modules) -> Result<Vec<u8>> {
    let (parts, key) = planned_cards(job, modules)?;
    let made = job.means.store.derive::<anyhow::Error>(KIND, &key.to_hex(), |file| {
        let _task = Task::new(job.means.progress, "initramfs", 0, Unit::Items);
        Ok(file.write_all(&parts.build_cards()?)?)
    })?;
    made.to_vec().context("reading it back")
}

/// Tells of the drivers of network cards what packing them would.
///
/// # Errors
/// Modules that lack something; words of the command line about the network that `/init` would refuse.
pub fn tell_cards(job: &Job<'_>, modules: &Modules) -> Result<()> {
    planned_cards(job, modules).map(drop)
}

fn planned_cards<'a>(job: &Job<'a>, modules: &'a Modules) -> Result<(Parts<'a>, Digest)> {
    if !modules.list.iter().any(|module| module.is_card) {
        job.means.progress.note(
            "outputs: netboot-http: the root has no kernel module for a network card: only what the kernel has built in \
             can fetch the image",
        );
    }
    network::read(&options(job.manifest).extra)
        .context("outputs: netboot-http: /init could do nothing with a word of `kernel: cmdline`")?;
    let parts = parts(job, modules);
    let Plan { modules: list, config, firmware } = parts.plan_cards()?;
    let key_of_firmware = firmware::settle(job, &firmware, false)?;
    let key = Digest::of(format!("{RECIPE} cards {}\n{list}\n{config}\n{key_of_firmware}", modules.digest));
    Ok((parts, key))
}

/// The compressed initramfs: from the store when one was made of the same inputs.
pub fn initramfs(job: &Job<'_>, modules: &Modules) -> Result<Vec<u8>> {
    let (parts, key) = planned(job, modules)?;
    let made = job.means.store.derive::<anyhow::Error>(KIND, &key.to_hex(), |file| {
        let _task = Task::new(job.means.progress, "initramfs", 0, Unit::Items);
        Ok(file.write_all(&parts.build()?)?)
    })?;
    made.to_vec().context("reading it back")
}
