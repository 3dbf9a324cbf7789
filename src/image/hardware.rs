//! Whether an image has what a machine's devices need: a driver for each, where it lies, and its firmware.
//!
//! Read out of the image alone: the aliases of its kernel's modules, as kmod compares them, its modprobe.d, its initramfs.
//! What an image lacks it does not know; for that there are two lists of Debian's packages (table.rs).

mod kernel;
pub mod list;
mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Serialize, Serializer};

use self::kernel::Kernel;
use self::list::{Device, Id, Pci};
use self::table::Drivers;
use super::inspect;
use crate::base::{Digest, limits};
use crate::boot::cmdline::Cmdline;
use crate::boot::initramfs::Carried;
use crate::boot::uki::{self, Description};
use crate::disk::gpt::{self, Entry, types};
use crate::disk::slot;
use crate::disk::{FileDevice, SectorSize, Slot, Window};
use crate::fs::{erofs, fat};
use crate::rootfs::modules::{FOLDER, kernels};
use crate::tree::{Content, Tree};

/// What one version of an image has for a machine.
#[derive(Debug, Serialize)]
pub struct System {
    /// Where it lies.
    pub slot: Slot,
    /// Of the image.
    pub id: String,
    /// Of the image.
    pub version: String,
    /// As `uname -r` says it.
    pub kernel: String,
    /// What it has.
    #[serde(flatten)]
    pub report: Report,
}

/// What a root has for a machine.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// In the order of the list.
    pub devices: Vec<Seen>,
    /// What a person may want to know.
    pub remarks: Vec<String>,
    /// What is lacking, each with a way to get it.
    pub problems: Vec<String>,
}

/// A device, and what the image has for it.
#[derive(Debug, Serialize)]
pub struct Seen {
    /// Of the list, from 1.
    pub line: usize,
    /// How many there are, where the list gives no address.
    pub count: usize,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What it is: the name of its class, or its bus.
    pub what: String,
    /// `8086:10d3`, or the modalias.
    pub id: String,
    /// Whether the image has what it needs.
    pub state: State,
    /// The modules that are for it, or for what lies behind it.
    pub drivers: Vec<Driver>,
    /// Modules that are for it, and that modprobe.d keeps from being loaded, where there are no others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_out: Vec<String>,
    /// Modules of Debian's kernel that would be for it, where the image has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<&'static str>,
}

/// Whether an image has what a device needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A driver with all that it asks for.
    Driven,
    /// A driver or firmware is lacking.
    Lacking,
    /// A blacklist names its driver.
    KeptOut,
    /// No module is for it, here or in Debian's kernel.
    NoDriver,
    /// The kernel deals with it by itself.
    NeedsNone,
}

/// A module for a device.
#[derive(Debug, Serialize)]
pub struct Driver {
    /// Its name.
    pub module: String,
    /// Where it lies.
    pub place: Place,
    /// Modules that it cannot be loaded without, and that are not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// What it and the modules that it needs may ask for.
    pub firmware: Vec<Firmware>,
}

/// Where a module lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Built in.
    Kernel,
    /// It is there before the root is.
    Initramfs,
    /// It is there once the root is.
    Root,
}

impl Place {
    /// For tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Root => "root",
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A file of firmware.
#[derive(Debug, Serialize)]
pub struct Firmware {
    /// Below /usr/lib/firmware, as the driver names it.
    pub name: String,
    /// Whether the image has it, in the initramfs too where the driver lies there.
    pub there: bool,
    /// Debian's package, where one has it.
    pub package: Option<&'static str>,
}

/// What each version that the raw or qcow2 image `file` holds has for `devices`.
///
/// # Errors
/// An image that cannot be read as far as this needs, or without a version.
pub fn check(file: File, devices: &[Device]) -> Result<Vec<System>> {
    let (_, file) = inspect::unpacked(file)?;
    let file = Arc::new(file);
    let disk = FileDevice::image(file.try_clone()?, SectorSize::B512).context("reading the image")?;
    let table = gpt::read_any(&disk).context("reading the partition table")?.table;
    let slots = match slot::shipped(&table) {
        Some(parts) => vec![(Slot::A, parts)],
        None => slot::slots(&table)?.to_vec(),
    };
    let esp = table.by_type(types::ESP).next().context("the disk has no EFI system partition")?;
    let mut systems = Vec::new();
    for (slot, parts) in slots {
        let Some(release) = parts.release() else { continue };
        let context = || format!("reading {} {} in slot {slot}", release.id, release.version);
        let content = Content::Slice { file: file.clone(), offset: parts.root.start, len: parts.root.size };
        let tree = erofs::Image::open(content)
            .and_then(|image| image.tree())
            .context("keller reads roots of EROFS only")
            .with_context(context)?;
        let (kernel, carried) = entry(&disk, esp, &release.root_hash).with_context(context)?;
        let report = of_root(&tree, &kernel, carried, devices).with_context(context)?;
        let (id, version) = (release.id.clone(), release.version.clone());
        systems.push(System { slot, id, version, kernel, report });
    }
    if systems.is_empty() {
        bail!("no slot has a version");
    }
    Ok(systems)
}

/// The release of the kernel that boots `root_hash`, and what its initramfs carries.
fn entry(disk: &FileDevice, esp: &Entry, root_hash: &Digest) -> Result<(String, Carried)> {
    let mut volume = fat::Reader::open(Window::new(disk, esp.start, esp.size))?;
    let listed = volume.list()?;
    let names = listed
        .iter()
        .filter(|file| file.path.strip_prefix("EFI/Linux/").is_some_and(|name| name.ends_with(".efi")));
    for listed in names.take(limits::ENTRIES) {
        let mut file = volume.file(&listed.path)?;
        let Ok(description) = Description::read(&mut file) else { continue };
        if !Cmdline::parse(&description.cmdline).is_ok_and(|line| line.root_hash == *root_hash) {
            continue;
        }
        let context = || format!("reading the initramfs of {}", listed.path);
        let initrd = uki::initrd(&mut file, limits::KERNEL_IMAGE).with_context(context)?;
        return Ok((description.kernel_version, Carried::read(&initrd).with_context(context)?));
    }
    bail!("no boot entry starts it")
}

/// What the root `tree` has for `devices`, whose kernel is `release` and whose initramfs has what is `carried`.
///
/// # Errors
/// A root without this kernel's modules, and modules that cannot be read.
pub fn of_root(tree: &Tree, release: &str, carried: Carried, devices: &[Device]) -> Result<Report> {
    let found = kernels(tree);
    if !found.iter().any(|kernel| kernel == release) {
        bail!("the kernel is {release}, but /{FOLDER} has modules of {}", found.join(", "));
    }
    let kernel = Kernel::read(tree, release, carried)?;
    let known = Drivers::new();
    let mut report = Report::default();
    for device in devices {
        look(&kernel, &known, device, &mut report)?;
    }
    report.tell(release);
    Ok(report)
}

/// What is asked for a driver because of a device: the device itself, and what always lies behind it.
fn asks(id: &Id) -> Vec<Id> {
    let disk = || Id::Other("scsi:t-0x00".to_owned());
    let mut asks = vec![id.clone()];
    match id {
        Id::Pci(pci) => {
            // Virtio (1.2, 4.1.2): of old devices, the card's number says what they are.
            let kind = match (pci.vendor, pci.device) {
                (Some(0x1af4), Some(device @ 0x1041..=0x107f)) => Some(device - 0x1040),
                (Some(0x1af4), Some(0x1000..=0x103f)) => pci.subdevice,
                _ => None,
            };
            if let Some(kind) = kind {
                asks.push(Id::Other(format!("virtio:d{kind:08X}v00001AF4")));
                if kind == 8 {
                    asks.push(disk());
                }
            } else if matches!(pci.kind(), 0x0100 | 0x0101 | 0x0104..=0x0107) {
                asks.push(disk());
            }
        }
        Id::Other(text) if text.starts_with("virtio:d00000008v") => asks.push(disk()),
        Id::Other(_) => {}
    }
    asks
}

/// Finds what the image has for `device`.
fn look(kernel: &Kernel<'_>, known: &Drivers, device: &Device, report: &mut Report) -> Result<()> {
    let (what, id) = described(&device.id);
    let mut seen = Seen {
        line: device.line,
        count: device.count,
        place: device.place.clone(),
        what,
        id,
        state: State::NoDriver,
        drivers: Vec::new(),
        kept_out: Vec::new(),
        missing: Vec::new(),
    };
    let name = seen.name();
    for ask in asks(&device.id) {
        let (mut found, out) = kernel.drivers(&ask);
        let listed = known.of(&ask);
        found.extend(listed.iter().filter(|module| kernel.is_builtin(module)));
        for module in out.iter().filter(|_| found.is_empty()) {
            report.remarks.push(format!("{name}: modprobe.d keeps {module} out"));
            seen.kept_out.push((*module).to_owned());
        }
        found.dedup();
        for module in &found {
            let driver = driver(kernel, module)?;
            let early = matches!(&device.id, Id::Pci(pci) if pci.class == Some(1));
            if early && driver.place == Place::Root {
                report.remarks.push(format!(
                    "{name}: {module} is not in the initramfs, so that no root is found there: \
                     kernel.initramfs_modules takes it along"
                ));
            }
            seen.drivers.push(driver);
        }
        if found.is_empty() && out.is_empty() {
            seen.missing.extend(listed);
        }
    }
    let lacks = seen.drivers.iter().any(Driver::lacks) || !seen.missing.is_empty();
    seen.state = match &device.id {
        _ if lacks => State::Lacking,
        _ if !seen.drivers.is_empty() => State::Driven,
        _ if !seen.kept_out.is_empty() => State::KeptOut,
        Id::Pci(pci) if needs_none(pci) => State::NeedsNone,
        Id::Pci(pci) if is_needed(pci) => State::Lacking,
        _ => State::NoDriver,
    };
    report.devices.push(seen);
    Ok(())
}

fn driver(kernel: &Kernel<'_>, module: &str) -> Result<Driver> {
    let place = match () {
        () if kernel.is_builtin(module) => Place::Kernel,
        () if kernel.is_early(module) => Place::Initramfs,
        () => Place::Root,
    };
    let all = kernel.needs(module)?;
    let mut firmware = Vec::new();
    for module in &all {
        for (name, there, early) in kernel.firmware(module)?.iter().cloned() {
            let package = table::package(&name);
            let there = there && (early || place != Place::Initramfs);
            firmware.push(Firmware { name, there, package });
        }
    }
    let needs = all.into_iter().filter(|need| !kernel.has(need)).collect();
    Ok(Driver { module: module.to_owned(), place, needs, firmware })
}

impl Driver {
    /// Whether something is lacking that a package could bring.
    fn lacks(&self) -> bool {
        !self.needs.is_empty() || self.firmware.iter().any(|file| !file.there && file.package.is_some())
    }
}

impl Seen {
    /// For messages.
    fn name(&self) -> String {
        match &self.place {
            Some(place) => format!("{place} ({}, {})", self.what, self.id),
            None => format!("{} ({})", self.id, self.what),
        }
    }
}

impl Report {
    /// Writes down what is lacking of the kernel `release`, and what to do: the same for several devices once.
    fn tell(&mut self, release: &str) {
        let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let has_all = !release.contains("cloud") && release.contains("amd64");
        let remedy = match has_all {
            true => "`prune` has taken it away, and `keep` brings it back".to_owned(),
            false => format!(
                "{} has it: include components/kernel-metal.yaml in place of another kernel",
                table::KERNEL
            ),
        };
        let lacking = self.devices.iter().filter(|seen| seen.state == State::Lacking);
        for seen in lacking {
            let mut tell = |line: String| lines.entry(line).or_default().push(seen.name());
            for module in &seen.missing {
                tell(format!("no driver {module}: {remedy}"));
            }
            if seen.missing.is_empty() && seen.drivers.is_empty() {
                tell(format!("no driver, and keller knows of none in {}", table::KERNEL));
            }
            for driver in &seen.drivers {
                for need in &driver.needs {
                    let where_from =
                        if table::has(need) || !has_all { &remedy } else { "`keep` it from `prune`" };
                    tell(format!("{} cannot be loaded without {need}: {where_from}", driver.module));
                }
                let mut packages: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
                for file in driver.firmware.iter().filter(|file| !file.there) {
                    if let Some(package) = file.package {
                        packages.entry(package).or_default().push(&file.name);
                    }
                }
                for (package, files) in packages {
                    let files = shortened(&files);
                    tell(format!("no firmware for {}: {files}: {package} has it", driver.module));
                }
            }
        }
        let told = lines.into_iter().map(|(line, names)| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("{}: {line}", shortened(&names))
        });
        self.problems.extend(told);
        self.remarks.dedup();
    }
}

/// The first of many.
fn shortened(names: &[&str]) -> String {
    const MOST: usize = 6;
    let more = names.len().saturating_sub(MOST);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    names[..names.len().min(MOST)].join(", ") + &more
}

/// Classes whose devices the kernel deals with by itself, or that only pass on what others need: bridges, memory, clocks and
/// interrupt controllers, IOMMUs, counters that are read in place.
fn needs_none(pci: &Pci) -> bool {
    matches!(
        pci.kind(),
        0x0500
            | 0x0580
            | 0x0600
            | 0x0601
            | 0x0604
            | 0x0609
            | 0x0800
            | 0x0802
            | 0x0803
            | 0x0806
            | 0x0807
            | 0x1101
            | 0x1300
    )
}

/// Whether a node without a driver for it is a lesser machine: disks, Ethernet, InfiniBand, Fibre Channel, USB.
fn is_needed(pci: &Pci) -> bool {
    matches!(pci.kind(), 0x0100..=0x01ff | 0x0200 | 0x0207 | 0x0c03 | 0x0c04)
}

/// What a device is, and its numbers.
fn described(id: &Id) -> (String, String) {
    let pci = match id {
        Id::Pci(pci) => pci,
        Id::Other(text) => {
            let bus = text.split(':').next().unwrap_or_default();
            return (format!("{bus} device"), text.clone());
        }
    };
    let (vendor, device) = (pci.vendor.unwrap_or_default(), pci.device.unwrap_or_default());
    let what = match pci.kind() {
        0x00ff => "device without a class",
        0x0100 => "SCSI controller",
        0x0101 => "IDE controller",
        0x0104 => "RAID controller",
        0x0106 => "SATA controller",
        0x0107 => "SAS controller",
        0x0108 => "NVMe controller",
        0x0180 => "storage controller",
        0x0200 => "Ethernet controller",
        0x0207 => "InfiniBand controller",
        0x0280 => "network controller",
        0x0300 => "VGA controller",
        0x0302 | 0x0380 => "display controller",
        0x0403 => "audio device",
        0x0500 | 0x0580 => "memory",
        0x0600 => "host bridge",
        0x0601 => "ISA bridge",
        0x0604 | 0x0609 => "PCI bridge",
        0x0680 => "bridge",
        0x0700 => "serial controller",
        0x0780 => "communication controller",
        0x0800 => "interrupt controller",
        0x0805 => "SD host controller",
        0x0806 => "IOMMU",
        0x0807 => "event collector",
        0x0880 => "system peripheral",
        0x0b40 => "co-processor",
        0x0c03 => "USB controller",
        0x0c04 => "Fibre Channel controller",
        0x0c05 => "SMBus",
        0x0c07 => "IPMI interface",
        0x1000 | 0x1080 => "encryption controller",
        0x1101 => "performance counters",
        0x1180 => "signal processing controller",
        0x1200 => "processing accelerator",
        0x1300 => "instrumentation",
        kind => return (format!("device of class {kind:04x}"), format!("{vendor:04x}:{device:04x}")),
    };
    (what.to_owned(), format!("{vendor:04x}:{device:04x}"))
}
