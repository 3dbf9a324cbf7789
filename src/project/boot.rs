//! An image that boots under QEMU here: what its machine is made of.

pub(super) mod key;
pub(super) mod node;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::Inputs;
use super::qemu::{Qemu, qemu};
use crate::base::progress::Progress;
use crate::base::scratch::Scratch;
use crate::base::{Size, atomic, input, limits};
use crate::disk::{FileDevice, SectorSize, gpt};
use crate::image::node_disk;
use crate::output::{self, Format, qcow2, vmdk};
use crate::qemu::machine::DiskFormat;
use crate::qemu::process::Sink;
use crate::qemu::{Accelerator, Bus, Machine, Nic, QemuError, Vm};

/// What is to be booted, and on what machine.
#[derive(Clone, Debug)]
pub struct Boot {
    /// An image: raw, qcow2, vhd or vmdk.
    pub image: PathBuf,
    /// Whether the image keeps what the guest writes, and the file beside it what the firmware does.
    pub persist: bool,
    /// Memory, in whole MiB.
    pub memory: Size,
    /// Virtual processors.
    pub cpus: u32,
    /// Whether it is emulated even where KVM works.
    pub no_kvm: bool,
    /// How large the disk is, if not as large as the image, or as the least node of it.
    pub disk: Option<Size>,
    /// What the disk hangs on.
    pub(crate) bus: Bus,
    /// The cards that are asked for; one of virtio by default.
    pub(crate) nics: Vec<Nic>,
    /// Sectors of the disk in bytes; by default those that the image is made for.
    pub sector_size: Option<u32>,
    /// A node document that the machine is given.
    pub node: Option<PathBuf>,
    /// Public ssh keys (file) for user core, besides the one that is made for this run.
    pub ssh_key: Option<PathBuf>,
    /// Where the private key made for this run is written, if anywhere that outlasts it.
    pub identity: Option<PathBuf>,
    /// Further arguments for QEMU.
    pub qemu_args: Vec<String>,
    /// Where QEMU comes from.
    pub inputs: Inputs,
}

/// A machine that can be started, with all that must last until it has ended.
pub struct Prepared {
    machine: Machine,
    qemu: Qemu,
    identity: PathBuf,
    _scratch: Scratch,
}

impl Boot {
    /// Finds QEMU, makes keys and the firmware's variables; starts nothing.
    ///
    /// # Errors
    /// What is no image, keys that cannot be used, and what keeps QEMU from being found.
    pub fn prepare(&self, progress: &dyn Progress) -> Result<Prepared> {
        let format = disk_format(&self.image, self.persist)?;
        let nics = Nic::all(&self.nics).map_err(|why| anyhow!("--nic: {why}"))?;
        let sector_size = self.sector_size.unwrap_or_else(|| sector_size(&self.image, format));
        if let Some(why) = self.bus.refuses_sectors(sector_size) {
            bail!("--bus: {why}, and the image is made for {sector_size}: name another bus");
        }
        let qemu = qemu(&self.inputs, progress)?;
        let scratch = Scratch::new("keller-")?;
        let blank = qemu.program.variables();
        let variables = firmware_variables(self.persist, &self.image, scratch.path(), blank)?;
        let identity = self.identity.clone().unwrap_or_else(|| scratch.path().join("id_ed25519"));
        let mut keys = key::make(&identity)?;
        if let Some(file) = &self.ssh_key {
            keys.push_str(&key::public(file)?);
        }
        let node = self.node.as_deref().map(|file| node::hand_over(file, scratch.path())).transpose()?;
        let (disk, format, persist) = match self.disk_size(format)? {
            Some(size) => self.sized(size, format, scratch.path())?,
            None => (self.image.clone(), format, self.persist),
        };
        let machine = Machine {
            disk,
            format,
            persist,
            bus: self.bus,
            nics,
            cable: None,
            serial: None,
            sector_size,
            memory_mib: u32::try_from(self.memory.bytes() >> 20).context("that much memory cannot be")?,
            cpus: self.cpus,
            accelerator: if self.no_kvm { Accelerator::Tcg } else { Accelerator::probe() },
            credentials: vec![("ssh.authorized_keys.core".to_owned(), keys.into_bytes())],
            secrets: node.into_iter().collect(),
            variables,
            monitor: scratch.path().join("monitor"),
            clock: None,
            no_reboot: false,
            extra: self.qemu_args.iter().map(Into::into).collect(),
        };
        Ok(Prepared { machine, qemu, identity, _scratch: scratch })
    }

    /// How large the disk is to be, unless as large as the image: as asked for, or as large as a node needs.
    fn disk_size(&self, format: DiskFormat) -> Result<Option<Size>> {
        let Some((has, needs)) = node_needs(&self.image, format)? else { return Ok(self.disk) };
        let shown = self.image.display();
        if let Some(size) = self.disk.filter(|size| *size < needs) {
            bail!("--disk {size}: a node of {shown} needs {needs}");
        }
        Ok(self.disk.or_else(|| (has < needs).then_some(needs)))
    }

    /// A disk of `size` that begins with the image: the file itself, made longer, or a layer over it that ends with the
    /// machine.
    fn sized(&self, size: Size, format: DiskFormat, scratch: &Path) -> Result<(PathBuf, DiskFormat, bool)> {
        let shown = self.image.display();
        let context = || format!("reading {shown}");
        let file = input::open_disk(&self.image).with_context(|| format!("opening {shown}"))?;
        let has = Size(output::virtual_size(&file).with_context(context)?);
        if size < has {
            bail!("--disk {size}: {shown} is larger, with {}: nothing of it can be left out", has.human());
        }
        if !self.persist {
            let image = fs::canonicalize(&self.image).with_context(context)?;
            let layer = scratch.join("disk.qcow2");
            let layer_file = File::create(&layer).context("making a layer over the image")?;
            qcow2::layer(&layer_file, size.bytes(), image.as_os_str().as_bytes(), format.name())
                .context("making a layer over the image")?;
            return Ok((layer, DiskFormat::Qcow2, true));
        }
        if format != DiskFormat::Raw {
            bail!(
                "--disk with --persist makes raw images larger and no others: qemu-img resize {shown} {}",
                size.bytes()
            );
        }
        if size > has {
            let file =
                File::options().write(true).open(&self.image).with_context(|| format!("opening {shown}"))?;
            file.set_len(size.bytes()).with_context(|| format!("making {shown} larger"))?;
        }
        Ok((self.image.clone(), format, true))
    }
}

impl Prepared {
    /// How instructions will be run.
    pub(crate) fn accelerator(&self) -> Accelerator {
        self.machine.accelerator
    }

    /// The private key made for this run.
    pub fn identity(&self) -> &Path {
        &self.identity
    }

    /// Starts it; `shown` gets what the console says.
    ///
    /// # Errors
    /// QEMU's.
    pub(crate) fn start(&self, shown: Option<Sink>) -> Result<Vm, QemuError> {
        Vm::start(&self.qemu.program, &self.machine, shown)
    }
}

/// How large an image is, and the least disk of a node of it; nothing where the image is as large as that, or where it is not
/// known.
pub(super) fn node_needs(image: &Path, format: DiskFormat) -> Result<Option<(Size, Size)>> {
    if format != DiskFormat::Raw {
        return Ok(None);
    }
    let context = || format!("reading {}", image.display());
    let file = input::open_disk(image).with_context(context)?;
    let has = Size(output::virtual_size(&file).with_context(context)?);
    let node = node_disk::of_image(file).with_context(context)?;
    Ok(node.map(|node| (has, Size(node.disk_size))))
}

/// What QEMU is to take the image for; refused where it could not boot, or reads what the image does not hold itself.
pub(super) fn disk_format(image: &Path, persist: bool) -> Result<DiskFormat> {
    let context = || format!("reading {}", image.display());
    let mut magic = [0; 4];
    let mut file = input::open_disk(image).with_context(|| format!("opening {}", image.display()))?;
    file.read_exact(&mut magic).with_context(|| format!("{} is no disk image", image.display()))?;
    let format = Format::of(&file).with_context(context)?;
    let command = format.unpacked_by().unwrap_or_default();
    let leads_elsewhere = match format {
        Format::Qcow2 => qcow2::leads_elsewhere(&file).with_context(context)?,
        Format::Vmdk => vmdk::leads_elsewhere(&file).with_context(context)?,
        _ => false,
    };
    if leads_elsewhere {
        bail!(
            "{} is a {} image that reads from another file, which its maker has chosen and the guest would see: \
             convert it first: {command}",
            image.display(),
            format.name()
        );
    }
    match format {
        // As a stick.
        Format::Raw | Format::Iso => Ok(DiskFormat::Raw),
        Format::Netboot | Format::NetbootHttp | Format::Ipxe => bail!(
            "{} is a program for firmware, not a disk: boot the iso that starts the same (`outputs: [iso]`)",
            image.display()
        ),
        Format::Qcow2 => Ok(DiskFormat::Qcow2),
        Format::Vhd | Format::VhdFixed => Ok(DiskFormat::Vpc),
        Format::Vmdk if persist => bail!(
            "--persist: what a compressed vmdk holds cannot be written to: leave --persist out, or convert {} first: {command}",
            image.display()
        ),
        Format::Vmdk => Ok(DiskFormat::Vmdk),
        Format::RawZst => {
            bail!("{} is compressed: unpack it first: {command}", image.display())
        }
    }
}

/// The sectors that the partition table is made for; 512 bytes where that cannot be read.
pub(super) fn sector_size(image: &Path, format: DiskFormat) -> u32 {
    let table = || {
        let device = FileDevice::image(input::open_disk(image).ok()?, SectorSize::B512).ok()?;
        gpt::read_any(&device).ok()
    };
    let found = (format == DiskFormat::Raw).then(table).flatten();
    match found.map(|found| found.table.sector_size) {
        Some(SectorSize::B4096) => 4096,
        Some(SectorSize::B512) | None => 512,
    }
}

/// A file of the machine's own with the firmware's variables: beside the image when changes are kept.
fn firmware_variables(persist: bool, image: &Path, scratch: &Path, blank: &Path) -> Result<PathBuf> {
    let target = if persist { image.with_extension("uefi-vars") } else { scratch.join("uefi-vars") };
    if !target.exists() {
        let bytes =
            input::read(blank, limits::TEXT).with_context(|| format!("reading {}", blank.display()))?;
        atomic::write(&target, bytes).with_context(|| format!("writing {}", target.display()))?;
    }
    Ok(target)
}
