//! The initial root: keller as `/init`, the modules that it may need, and their list.
//!
//! It consists of two archives, each compressed on its own, which the kernel unpacks one after the other
//! (Documentation/driver-api/early-userspace/buffer-format.rst). They are compressed at the same time, and
//! one changes without the other: keller with keller, the modules with the kernel.

mod carried;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader};

use crate::base::width::{to_u64, to_usize};
use crate::base::{Compression, Size, limits};
use crate::boot::cmdline::RootFs;
use crate::boot::cpio::{CpioError, Writer};
use crate::boot::modprobe::{self, Config};
use crate::boot::modules::{Entry, LIST, ModuleList, When, normal};
use crate::tree::Content;

pub use carried::Carried;

/// A module of the kernel package, as plain data.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name, in any spelling.
    pub name: String,
    /// Names of the modules that it cannot be loaded without.
    pub depends: Vec<String>,
    /// Names of the modules to load before it, if they exist ("softdep pre").
    pub before: Vec<String>,
    /// Names of the modules to load after it, if they exist ("softdep post").
    pub after: Vec<String>,
    /// Patterns of the device identifiers that it drives.
    pub aliases: Vec<String>,
    /// Whether it drives network cards of servers and virtual machines.
    pub is_card: bool,
    /// What it may ask the kernel for when it starts.
    pub firmware: Vec<Firmware>,
    /// The file as in the package: plain or compressed with xz, zstd or gzip.
    pub body: Content,
}

/// A file that a driver loads into its device.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// Below /lib/firmware, as the driver names it.
    pub name: String,
    /// Plain or compressed; nothing where the root has none.
    pub body: Option<Content>,
}

/// What goes into an initramfs.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The statically linked keller for the node.
    pub keller: &'a Content,
    /// All modules of the kernel, in any order.
    pub modules: &'a [Module],
    /// Names of what the kernel has built in, in any spelling.
    pub builtin: &'a BTreeSet<String>,
    /// The modules that are wanted beside those of every node; none for the drivers of usual machines.
    pub choice: Option<&'a [String]>,
    /// The root's modprobe.d.
    pub config: &'a Config,
    /// The root's file system.
    pub root_fs: RootFs,
    /// Whether the image is to run from memory as well ([`crate::boot::live`]).
    pub from_memory: bool,
}

/// Why an initramfs could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// Without it there is no way to the root.
    #[error("the kernel has no {module}, as a module or built in, but /init needs it {purpose}")]
    KernelLacks {
        /// The module's name.
        module: &'static str,
        /// What it is for.
        purpose: &'static str,
    },
    /// The manifest names a module that does not exist.
    #[error("kernel.initramfs_modules names {module}, but this kernel has no such module")]
    UnknownModule {
        /// The name as given.
        module: String,
    },
    /// A module that cannot be loaded.
    #[error("module {module} needs {needs}, which this kernel does not have")]
    MissingDependency {
        /// The module.
        module: String,
        /// What it lacks.
        needs: String,
    },
    /// The root's modprobe.d forbids what a boot needs or the manifest asks for.
    #[error(
        "`install {module} {command}` ({place}) keeps the module from being loaded, but {wanted}: take the line away"
    )]
    KeptOut {
        /// The module.
        module: String,
        /// What modprobe would run in its place.
        command: String,
        /// File and line.
        place: String,
        /// Who wants it, and for what.
        wanted: String,
    },
    /// All of it is in memory at each boot.
    #[error(
        "the firmware of the initramfs' modules has more than {limit} bytes, with that of {module}: take the \
         module out of kernel.initramfs_modules and let the root load it (kernel.load), or `prune` the firmware"
    )]
    TooMuchFirmware {
        /// The module that went beyond.
        module: String,
        /// In bytes.
        limit: u64,
    },
    /// More modules than an initramfs can hold.
    #[error(
        "the modules of the initramfs have more than {} together, with {module}: name fewer in \
         kernel.initramfs_modules", Size(*.limit).human()
    )]
    TooMuch {
        /// The module that went beyond.
        module: String,
        /// In bytes.
        limit: u64,
    },
    /// Modules that wait for each other.
    #[error("module {module} needs itself, over {needs}")]
    Cycle {
        /// The module.
        module: String,
        /// The dependency that leads back to it.
        needs: String,
    },
    /// A name or alias that the list in the initramfs cannot hold.
    #[error("module {module} has a blank in its name")]
    BlankInName {
        /// The module.
        module: String,
    },
    /// A compressed module that is damaged.
    #[error("module {module} cannot be decompressed")]
    Decompress {
        /// The module.
        module: String,
        /// What the decompressor or the disk says.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error(transparent)]
    Cpio(#[from] CpioError),
    /// Reading keller or compressing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What an initramfs carries besides `/init`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The modules.
    pub modules: ModuleList,
    /// How they are to be loaded.
    pub config: Config,
    /// What they may ask for, by module, each name once.
    pub firmware: Vec<(String, Firmware)>,
}

/// Most bytes of firmware in an initramfs. A controller of disks has some kilobytes; graphics drivers, which the
/// root can load as well, have up to 100 MiB.
const MAX_FIRMWARE: u64 = 32 << 20;

/// Where the kernel looks for firmware: its first choice in an initramfs as in a root.
const FIRMWARE: &str = "lib/firmware";

/// Compression level of zstd. The cost is paid at each build with another keller or kernel: of an 18 MB
/// keller, 12 makes 6.37 MB in 0.8 s, 15 makes 6.33 MB in 4 s, 19 makes 5.71 MB in 7.5 s.
const LEVEL: i32 = 12;

/// Mount points and homes of what `/init` works with. The kernel has `/dev` and `/dev/console` of its own,
/// but another boot loader's initrd may come first.
const DIRECTORIES: [&str; 6] = ["dev", "modules", "proc", "run", "sys", "sysroot"];

/// What every boot needs, whatever the hardware; loaded at once.
const NEEDED: [(&str, &str); 4] = [
    ("dm_mod", "for dm-verity"),
    ("dm_verity", "to verify the root"),
    ("overlay", "for /etc"),
    ("ext4", "for the state partition"),
];

/// What every boot uses where the kernel has it; loaded at once.
const USEFUL: [&str; 1] = [
    // LoaderDevicePartUUID: which disk the firmware booted.
    "efivarfs",
];

/// What makes a disk of an image in memory ([`crate::boot::live`]). It is there where the kernel has it, so that an image is
/// the same whether it is also run from memory or not.
pub const FROM_MEMORY: &str = "loop";

/// Drivers of the disks that a host may boot from, with the buses before them. Those that this kernel has
/// are packed; a device's modalias loads them.
const DISK_DRIVERS: [&str; 47] = [
    // Virtual machines: KVM, Xen, Hyper-V and Azure, VMware, VirtualBox.
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_scsi",
    "xen_blkfront",
    "xen_scsifront",
    "hv_vmbus",
    "hv_storvsc",
    "pci_hyperv",
    "vmw_pvscsi",
    "mptspi",
    "BusLogic",
    // NVMe, also behind Intel's volume management.
    "nvme",
    "vmd",
    // SATA, with the PIIX controller that QEMU and old hosts have.
    "ahci",
    "ahci_platform",
    "ata_piix",
    "ata_generic",
    // SCSI disks and server controllers: Broadcom, Microchip, HPE, Dell, Cisco, IBM.
    "sd_mod",
    "mpt3sas",
    "mpi3mr",
    "megaraid_sas",
    "smartpqi",
    "hpsa",
    "aacraid",
    "arcmsr",
    "snic",
    "fnic",
    "ipr",
    "isci",
    "mvsas",
    "pm80xx",
    // USB sticks and disks.
    "xhci_hcd",
    "xhci_pci",
    "ehci_hcd",
    "ehci_pci",
    "ohci_pci",
    "uhci_hcd",
    "usb_storage",
    "uas",
    // SD cards and eMMC.
    "mmc_block",
    "sdhci",
    "sdhci_pci",
    "sdhci_acpi",
    "rtsx_pci_sdmmc",
    "cqhci",
    // Universal flash storage.
    "ufshcd_pci",
];

/// Hardware watchdogs: /init arms what it finds, so that a hang before systemd is not for ever. QEMU's, those that
/// ACPI describes, AMD's, and Intel's behind what makes its device: the bridge to ISA, and since 2015 (Sunrise Point) the
/// SMBus.
const WATCHDOGS: [&str; 6] = ["i6300esb", "wdat_wdt", "sp5100_tco", "lpc_ich", "i2c_i801", "iTCO_wdt"];

/// Faster checksums where the processor has the instructions; the processor's modalias loads them. SHA-256
/// carries the cost of dm-verity.
const ACCELERATORS: [&str; 4] = ["sha256_ssse3", "crc32c_intel", "crc32_pclmul", "crct10dif_pclmul"];

impl Parts<'_> {
    /// Chooses, orders and packs: the bytes of the `.initrd` section.
    pub fn build(&self) -> Result<Vec<u8>, InitramfsError> {
        let chosen = self.choose()?;
        let plan = self.plan_of(&chosen);
        let (init, archive) = rayon::join(|| self.init_archive(), || module_archive(&chosen, &plan));
        let mut bytes = init?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(archive?);
        Ok(bytes)
    }

    /// What [`Parts::build`] would carry, without the work of packing it.
    pub fn plan(&self) -> Result<Plan, InitramfsError> {
        Ok(self.plan_of(&self.choose()?))
    }

    /// What drives network cards, as an archive behind [`Parts::build`]'s: the modules that are not in it, and the whole
    /// list in place of its own.
    pub fn build_cards(&self) -> Result<Vec<u8>, InitramfsError> {
        let base: BTreeSet<String> =
            self.choose()?.into_iter().map(|(entry, _)| normal(&entry.name)).collect();
        let chosen = self.choose_with(true)?;
        let mut plan = self.plan_of(&chosen);
        plan.firmware = self.firmware_beyond(&plan)?;
        let new: Vec<_> =
            chosen.into_iter().filter(|(entry, _)| !base.contains(&normal(&entry.name))).collect();
        module_archive(&new, &plan)
    }

    /// What [`Parts::build_cards`] would carry: the whole list, and the firmware of its own modules.
    pub fn plan_cards(&self) -> Result<Plan, InitramfsError> {
        let mut plan = self.plan_of(&self.choose_with(true)?);
        plan.firmware = self.firmware_beyond(&plan)?;
        Ok(plan)
    }

    /// The firmware of `plan` that the initramfs does not have anyhow.
    fn firmware_beyond(&self, plan: &Plan) -> Result<Vec<(String, Firmware)>, InitramfsError> {
        let base = self.plan()?.firmware;
        let base: BTreeSet<&str> = base.iter().map(|(_, firmware)| firmware.name.as_str()).collect();
        let new = plan.firmware.iter().filter(|(_, firmware)| !base.contains(firmware.name.as_str()));
        Ok(new.cloned().collect())
    }

    fn plan_of(&self, chosen: &[(Entry, &Content)]) -> Plan {
        let modules = ModuleList(chosen.iter().map(|(entry, _)| entry.clone()).collect());
        let config = self.config.carried(|name| modules.get(name).is_some());
        let by_name: BTreeMap<_, _> =
            self.modules.iter().map(|module| (normal(&module.name), module)).collect();
        let mut seen = BTreeSet::new();
        let all = modules.0.iter().filter_map(|entry| by_name.get(&entry.name));
        let firmware = all
            .flat_map(|module| {
                module.firmware.iter().map(|firmware| (normal(&module.name), firmware.clone()))
            })
            .filter(|(_, firmware)| seen.insert(firmware.name.clone()))
            .collect();
        Plan { modules, config, firmware }
    }

    fn init_archive(&self) -> Result<Vec<u8>, InitramfsError> {
        let mut writer = Writer::new(compressor()?);
        for name in DIRECTORIES {
            writer.directory(name, 0o755)?;
        }
        writer.file("init", 0o755, self.keller.len(), &mut self.keller.reader())?;
        Ok(writer.finish()?.finish()?)
    }

    /// The chosen modules with all that they need, those that others need first.
    fn choose(&self) -> Result<Vec<(Entry, &Content)>, InitramfsError> {
        self.choose_with(false)
    }

    /// The same, with all that drive network cards where these are wanted.
    fn choose_with(&self, cards: bool) -> Result<Vec<(Entry, &Content)>, InitramfsError> {
        let mut order = Order {
            known: self.modules.iter().map(|module| (normal(&module.name), module)).collect(),
            builtin: self.builtin.iter().map(|name| normal(name)).collect(),
            config: self.config,
            state: BTreeMap::new(),
            done: Vec::new(),
        };
        let root = match self.root_fs {
            RootFs::Erofs => Some(("erofs", "for the root")),
            RootFs::Ext4 => None,
        };
        let disk = self
            .from_memory
            .then_some((FROM_MEMORY, "to run from memory (`outputs`: iso, netboot, netboot-http)"));
        let needed: Vec<_> = NEEDED.into_iter().chain(root).collect();
        for &(module, purpose) in needed.iter().chain(&disk) {
            if !order.has(module) {
                return Err(InitramfsError::KernelLacks { module, purpose });
            }
            if let Some(install) = order.kept_out(module) {
                return Err(kept_out(module, install, format!("/init needs it {purpose}")));
            }
        }
        for module in needed.into_iter().map(|(module, _)| module).chain(USEFUL) {
            order.add(module, When::Always)?;
        }
        // `loop` in this place whether it must be there or not, so that the list is the same.
        for module in ACCELERATORS.into_iter().chain([FROM_MEMORY]) {
            order.add(module, When::Asked)?;
        }
        match self.choice {
            None => {
                for module in DISK_DRIVERS.into_iter().chain(WATCHDOGS) {
                    order.add(module, When::Asked)?;
                }
            }
            Some(names) => {
                for name in names {
                    if !order.has(name) {
                        return Err(InitramfsError::UnknownModule { module: name.clone() });
                    }
                    if let Some(install) = order.kept_out(name) {
                        return Err(kept_out(name, install, "kernel.initramfs_modules names it".to_owned()));
                    }
                    order.add(name, When::Listed)?;
                }
            }
        }
        if cards {
            for module in self.modules.iter().filter(|module| module.is_card) {
                order.add(&module.name, When::Asked)?;
            }
        }
        order.after()?;
        Ok(order.done)
    }
}

fn kept_out(module: &str, install: &modprobe::Install, wanted: String) -> InitramfsError {
    let (command, place) = (install.command.clone(), install.place.clone());
    InitramfsError::KeptOut { module: normal(module), command, place, wanted }
}

/// How far a module has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// Its dependencies are being added.
    Open,
    /// It stands in the list, at this place.
    Done(usize),
}

/// A depth-first walk over dependencies.
struct Order<'a> {
    known: BTreeMap<String, &'a Module>,
    builtin: BTreeSet<String>,
    config: &'a Config,
    state: BTreeMap<String, Visit>,
    done: Vec<(Entry, &'a Content)>,
}

impl<'a> Order<'a> {
    fn has(&self, name: &str) -> bool {
        let name = normal(name);
        self.known.contains_key(&name) || self.builtin.contains(&name)
    }

    /// The line that keeps the module `name`, or one that it needs, from ever being loaded. What is built in
    /// is there anyhow.
    fn kept_out(&self, name: &str) -> Option<&'a modprobe::Install> {
        let module = self.known.get(&normal(name))?;
        let own = self.config.install(name).filter(|install| install.does_nothing());
        // A module that names itself is told as a circle.
        let mut needs = module.depends.iter().filter(|need| normal(need) != normal(name));
        own.or_else(|| needs.find_map(|need| self.config.install(need).filter(|one| one.does_nothing())))
    }

    /// Adds the module `name` with what it needs; says whether it is in the list now. What is built in,
    /// does not exist or is kept out by modprobe.d is not.
    fn add(&mut self, name: &str, when: When) -> Result<bool, InitramfsError> {
        let name = normal(name);
        match self.state.get(&name) {
            Some(Visit::Done(index)) => {
                let entry = &mut self.done[*index].0;
                entry.when = entry.when.max(when);
                return Ok(true);
            }
            Some(Visit::Open) => {
                return Err(InitramfsError::Cycle { module: name.clone(), needs: name });
            }
            None => {}
        }
        let Some(&module) = self.known.get(&name) else { return Ok(false) };
        if self.kept_out(&name).is_some() {
            return Ok(false);
        }
        if name.contains(char::is_whitespace) {
            return Err(InitramfsError::BlankInName { module: name });
        }
        self.state.insert(name.clone(), Visit::Open);
        let needs = self.needs(&name, module)?;
        let (before, after) = self.wishes(module);
        let before = self.before(&before)?;
        let mut aliases: Vec<_> = module.aliases.iter().filter(|alias| is_device(alias)).cloned().collect();
        aliases.sort();
        aliases.dedup();
        let path = format!("/modules/{name}.ko");
        let entry = Entry { path, name: name.clone(), needs, before, after, when, aliases };
        self.state.insert(name, Visit::Done(self.done.len()));
        self.done.push((entry, &module.body));
        Ok(true)
    }

    fn needs(&mut self, name: &str, module: &Module) -> Result<Vec<String>, InitramfsError> {
        let mut needs = Vec::new();
        for need in &module.depends {
            if !self.has(need) {
                let (module, needs) = (name.to_owned(), need.clone());
                return Err(InitramfsError::MissingDependency { module, needs });
            }
            if self.state.get(&normal(need)) == Some(&Visit::Open) {
                return Err(InitramfsError::Cycle { module: name.to_owned(), needs: need.clone() });
            }
            if self.add(need, When::Asked)? {
                needs.push(normal(need));
            }
        }
        needs.dedup();
        Ok(needs)
    }

    /// Adds what is there of `wishes`; gives what will be loaded before. Two modules may wish for each other, and a
    /// module for one that needs it; only a need must come first. kmod passes over such wishes, too.
    fn before(&mut self, wishes: &[String]) -> Result<Vec<String>, InitramfsError> {
        let mut before = Vec::new();
        for wish in wishes {
            if !self.leads_back(wish) && self.add(wish, When::Asked)? {
                before.push(normal(wish));
            }
        }
        before.dedup();
        Ok(before)
    }

    /// Whether the module `name`, or one that it needs, near or far, waits for those that are being added.
    fn leads_back(&self, name: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![normal(name)];
        while let Some(name) = open.pop() {
            match (self.state.get(&name), self.known.get(&name)) {
                (Some(Visit::Open), _) => return true,
                (None, Some(module)) if seen.insert(name) => {
                    open.extend(module.depends.iter().map(|need| normal(need)));
                }
                _ => {}
            }
        }
        false
    }

    /// The soft dependencies of a module: those of modprobe.d, else its own.
    fn wishes(&self, module: &Module) -> (Vec<String>, Vec<String>) {
        let own = !module.before.is_empty() || !module.after.is_empty();
        match self.config.softdep(&module.name, own) {
            Some(softdep) => (softdep.before.clone(), softdep.after.clone()),
            None => (module.before.clone(), module.after.clone()),
        }
    }

    /// Adds what is loaded after the modules so far, and after those in turn; forgets what is not there.
    fn after(&mut self) -> Result<(), InitramfsError> {
        let mut index = 0;
        while index < self.done.len() {
            let mut after = Vec::new();
            for wish in std::mem::take(&mut self.done[index].0.after) {
                if self.add(&wish, When::Asked)? {
                    after.push(normal(&wish));
                }
            }
            self.done[index].0.after = after;
            index += 1;
        }
        Ok(())
    }
}

/// Device identifiers have a bus and a colon; the other aliases name file systems, ciphers and the like,
/// which no device asks for.
fn is_device(alias: &str) -> bool {
    alias.contains(':') && !alias.contains(char::is_whitespace)
}

fn module_archive(chosen: &[(Entry, &Content)], plan: &Plan) -> Result<Vec<u8>, InitramfsError> {
    let mut writer = Writer::new(compressor()?);
    // Each archive must make its own parents; a directory that exists is left as it is.
    writer.directory("modules", 0o755)?;
    for (name, text) in [(LIST, plan.modules.to_string()), (modprobe::FILE, plan.config.to_string())] {
        if !text.is_empty() {
            writer.file(name, 0o644, to_u64(text.len()), &mut text.as_bytes())?;
        }
    }
    let mut unpacked = 0;
    for (entry, body) in chosen {
        let plain = decompress(body)
            .map_err(|source| InitramfsError::Decompress { module: entry.name.clone(), source })?;
        unpacked += to_u64(plain.len());
        if unpacked > limits::INITRAMFS {
            return Err(InitramfsError::TooMuch { module: entry.name.clone(), limit: limits::INITRAMFS });
        }
        let name = entry.path.trim_start_matches('/');
        writer.file(name, 0o644, to_u64(plain.len()), &mut plain.as_slice())?;
    }
    add_firmware(&mut writer, &plan.firmware)?;
    Ok(writer.finish()?.finish()?)
}

/// Adds firmware, plain: the archive is compressed as a whole, and not every kernel unpacks single files.
fn add_firmware(
    writer: &mut Writer<impl io::Write>,
    all: &[(String, Firmware)],
) -> Result<(), InitramfsError> {
    let mut folders = BTreeSet::new();
    let mut total = 0;
    for (module, Firmware { name, body }) in all {
        let Some(body) = body else { continue };
        let plain = decompress(body).map_err(|source| InitramfsError::Decompress {
            module: format!("{module}, firmware {name},"),
            source,
        })?;
        total += to_u64(plain.len());
        if total > MAX_FIRMWARE {
            return Err(InitramfsError::TooMuchFirmware { module: module.clone(), limit: MAX_FIRMWARE });
        }
        let path = format!("{FIRMWARE}/{name}");
        for (end, _) in path.match_indices('/') {
            if folders.insert(path[..end].to_owned()) {
                writer.directory(&path[..end], 0o755)?;
            }
        }
        writer.file(&path, 0o644, to_u64(plain.len()), &mut plain.as_slice())?;
    }
    Ok(())
}

fn compressor() -> io::Result<zstd::Encoder<'static, Vec<u8>>> {
    zstd::Encoder::new(Vec::new(), LEVEL)
}

/// The plain bytes of a module or a firmware file, by the magic that it begins with.
pub(super) fn decompress(body: &Content) -> io::Result<Vec<u8>> {
    let mut magic = [0; 6];
    let known = to_usize(body.len()).min(magic.len());
    body.read_at(&mut magic[..known], 0)?;
    Compression::of_magic(&magic).unpack(BufReader::new(body.reader()), limits::MODULE)
}

#[cfg(test)]
mod tests;
