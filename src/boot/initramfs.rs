//! The initial root: keller as `/init`, the modules that it may need, and their list.
//!
//! It consists of two archives, each compressed on its own, which the kernel unpacks one after the other
//! (Documentation/driver-api/early-userspace/buffer-format.rst). They are compressed at the same time, and
//! one changes without the other: keller with keller, the modules with the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use crate::boot::cmdline::RootFs;
use crate::boot::cpio::{CpioError, Writer};
use crate::boot::modules::{Entry, LIST, ModuleList, normal};
use crate::manifest::InitramfsModules;
use crate::tree::Content;

/// A module of the kernel package, as plain data.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name, in any spelling.
    pub name: String,
    /// Names of the modules that it cannot be loaded without.
    pub depends: Vec<String>,
    /// Names of the modules that it works better with, if they exist ("softdep pre").
    pub prefers: Vec<String>,
    /// Patterns of the device identifiers that it drives.
    pub aliases: Vec<String>,
    /// The file as in the package: plain or compressed with xz, zstd or gzip.
    pub body: Content,
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
    /// Which of the modules are wanted.
    pub choice: &'a InitramfsModules,
    /// The root's file system.
    pub root_fs: RootFs,
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

/// A finished initramfs.
#[derive(Clone, Debug)]
pub struct Initramfs {
    /// For the `.initrd` section.
    pub bytes: Vec<u8>,
    /// What it carries.
    pub modules: ModuleList,
}

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
/// ACPI describes, AMD's. Intel's needs the drivers of its chipset first, and systemd arms it later.
const WATCHDOGS: [&str; 3] = ["i6300esb", "wdat_wdt", "sp5100_tco"];

/// Faster checksums where the processor has the instructions; the processor's modalias loads them. SHA-256
/// carries the cost of dm-verity.
const ACCELERATORS: [&str; 4] = ["sha256_ssse3", "crc32c_intel", "crc32_pclmul", "crct10dif_pclmul"];

impl Parts<'_> {
    /// Chooses, orders and packs.
    pub fn build(&self) -> Result<Initramfs, InitramfsError> {
        let chosen = self.choose()?;
        let (init, modules) = rayon::join(|| self.init_archive(), || module_archive(&chosen));
        let mut bytes = init?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(modules?);
        Ok(Initramfs { bytes, modules: ModuleList(chosen.into_iter().map(|(entry, _)| entry).collect()) })
    }

    /// What [`Parts::build`] would carry, without the work of packing it.
    pub fn list(&self) -> Result<ModuleList, InitramfsError> {
        Ok(ModuleList(self.choose()?.into_iter().map(|(entry, _)| entry).collect()))
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
        let mut order = Order {
            known: self.modules.iter().map(|module| (normal(&module.name), module)).collect(),
            builtin: self.builtin.iter().map(|name| normal(name)).collect(),
            state: BTreeMap::new(),
            done: Vec::new(),
        };
        let root = match self.root_fs {
            RootFs::Erofs => Some(("erofs", "for the root")),
            RootFs::Ext4 => None,
        };
        for (module, purpose) in NEEDED.into_iter().chain(root) {
            if !order.has(module) {
                return Err(InitramfsError::KernelLacks { module, purpose });
            }
            order.add(module, true)?;
        }
        for module in USEFUL {
            order.add(module, true)?;
        }
        for module in ACCELERATORS {
            order.add(module, false)?;
        }
        match self.choice {
            InitramfsModules::Auto => {
                for module in DISK_DRIVERS.into_iter().chain(WATCHDOGS) {
                    order.add(module, false)?;
                }
            }
            InitramfsModules::List(names) => {
                for name in names {
                    if !order.has(name) {
                        return Err(InitramfsError::UnknownModule { module: name.clone() });
                    }
                    order.add(name, true)?;
                }
            }
        }
        Ok(order.done)
    }
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
    state: BTreeMap<String, Visit>,
    done: Vec<(Entry, &'a Content)>,
}

impl<'a> Order<'a> {
    fn has(&self, name: &str) -> bool {
        let name = normal(name);
        self.known.contains_key(&name) || self.builtin.contains(&name)
    }

    /// Adds the module `name` with what it needs; says whether it is in the list now. What is built in or
    /// does not exist is not.
    fn add(&mut self, name: &str, always: bool) -> Result<bool, InitramfsError> {
        let name = normal(name);
        match self.state.get(&name) {
            Some(Visit::Done(index)) => {
                self.done[*index].0.always |= always;
                return Ok(true);
            }
            Some(Visit::Open) => {
                return Err(InitramfsError::Cycle { module: name.clone(), needs: name });
            }
            None => {}
        }
        let Some(&module) = self.known.get(&name) else { return Ok(false) };
        if name.contains(char::is_whitespace) {
            return Err(InitramfsError::BlankInName { module: name });
        }
        self.state.insert(name.clone(), Visit::Open);
        let mut needs = Vec::new();
        for need in &module.depends {
            if !self.has(need) {
                return Err(InitramfsError::MissingDependency { module: name, needs: need.clone() });
            }
            if self.state.get(&normal(need)) == Some(&Visit::Open) {
                return Err(InitramfsError::Cycle { module: name, needs: need.clone() });
            }
            if self.add(need, false)? {
                needs.push(normal(need));
            }
        }
        for wish in &module.prefers {
            // Two modules may prefer each other; only a need must come first.
            if self.state.get(&normal(wish)) != Some(&Visit::Open) && self.add(wish, false)? {
                needs.push(normal(wish));
            }
        }
        needs.dedup();
        let mut aliases: Vec<_> = module.aliases.iter().filter(|alias| is_device(alias)).cloned().collect();
        aliases.sort();
        aliases.dedup();
        let entry = Entry { path: format!("/modules/{name}.ko"), name: name.clone(), needs, always, aliases };
        self.state.insert(name, Visit::Done(self.done.len()));
        self.done.push((entry, &module.body));
        Ok(true)
    }
}

/// Device identifiers have a bus and a colon; the other aliases name file systems, ciphers and the like,
/// which no device asks for.
fn is_device(alias: &str) -> bool {
    alias.contains(':') && !alias.contains(char::is_whitespace)
}

fn module_archive(chosen: &[(Entry, &Content)]) -> Result<Vec<u8>, InitramfsError> {
    let mut writer = Writer::new(compressor()?);
    // Each archive must make its own parents; a directory that exists is left as it is.
    writer.directory("modules", 0o755)?;
    let list = ModuleList(chosen.iter().map(|(entry, _)| entry.clone()).collect()).to_string();
    writer.file(LIST, 0o644, list.len() as u64, &mut list.as_bytes())?;
    for (entry, body) in chosen {
        let plain = decompress(body)
            .map_err(|source| InitramfsError::Decompress { module: entry.name.clone(), source })?;
        let name = entry.path.trim_start_matches('/');
        writer.file(name, 0o644, plain.len() as u64, &mut plain.as_slice())?;
    }
    Ok(writer.finish()?.finish()?)
}

fn compressor() -> io::Result<zstd::Encoder<'static, Vec<u8>>> {
    zstd::Encoder::new(Vec::new(), LEVEL)
}

/// The plain bytes of a module, by the magic that it begins with.
fn decompress(body: &Content) -> io::Result<Vec<u8>> {
    let mut magic = [0; 6];
    let known = (body.len() as usize).min(magic.len());
    body.read_at(&mut magic[..known], 0)?;
    let mut plain = Vec::new();
    match magic {
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            liblzma::read::XzDecoder::new(body.reader()).read_to_end(&mut plain)?
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::Decoder::new(body.reader())?.read_to_end(&mut plain)?,
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(body.reader()).read_to_end(&mut plain)?,
        _ => body.reader().read_to_end(&mut plain)?,
    };
    Ok(plain)
}

/// Unpacks the archives of an initramfs, plain or compressed with zstd, one after the other as the kernel
/// does: for inspection.
pub fn unpack(bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut archives = Vec::new();
    let mut rest = bytes;
    loop {
        let zeros = rest.iter().take_while(|b| **b == 0).count();
        rest = &rest[zeros..];
        if rest.is_empty() {
            return Ok(archives);
        }
        if rest.starts_with(b"0707") {
            let (_, len) = crate::boot::cpio::entries(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            archives.push(rest[..len].to_vec());
            rest = &rest[len..];
        } else {
            let mut decoder = zstd::Decoder::with_buffer(rest)?.single_frame();
            let mut plain = Vec::new();
            decoder.read_to_end(&mut plain)?;
            rest = decoder.finish();
            archives.push(plain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::cpio;

    fn module(name: &str, depends: &[&str], aliases: &[&str]) -> Module {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Module {
            name: name.to_owned(),
            depends: words(depends),
            prefers: Vec::new(),
            aliases: words(aliases),
            body: Content::from(format!("\x7fELF {name}")),
        }
    }

    fn kernel() -> Vec<Module> {
        vec![
            module("virtio_blk", &[], &["virtio:d00000002v*"]),
            module("dm-verity", &["dm-bufio", "dm-mod"], &[]),
            module("dm-bufio", &["dm-mod"], &[]),
            module("dm-mod", &[], &["devname:mapper/control"]),
            module("erofs", &["netfs", "libcrc32c"], &["fs-erofs"]),
            module("netfs", &[], &[]),
            module("libcrc32c", &[], &[]),
            module("overlay", &[], &["fs-overlay"]),
            module("e1000", &[], &["pci:v00008086d0000100Esv*"]),
        ]
    }

    fn build(modules: &[Module], choice: &InitramfsModules) -> Result<Initramfs, InitramfsError> {
        let builtin = BTreeSet::from(["ext4".to_owned()]);
        let keller = Content::from("keller");
        Parts { keller: &keller, modules, builtin: &builtin, choice, root_fs: RootFs::Erofs }.build()
    }

    fn names(initramfs: &Initramfs) -> Vec<&str> {
        initramfs.modules.0.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn what_is_needed_comes_first() {
        let initramfs = build(&kernel(), &InitramfsModules::Auto).unwrap();
        let builtin = BTreeSet::from(["ext4".to_owned()]);
        let (keller, modules) = (&Content::from("keller"), &kernel());
        let choice = &InitramfsModules::Auto;
        let parts = Parts { keller, modules, builtin: &builtin, choice, root_fs: RootFs::Erofs };
        assert_eq!(parts.list().unwrap(), initramfs.modules);
        assert_eq!(
            names(&initramfs),
            ["dm_mod", "dm_bufio", "dm_verity", "overlay", "netfs", "libcrc32c", "erofs", "virtio_blk"]
        );
        let list = initramfs.modules.to_string();
        assert_eq!(ModuleList::parse(&list).unwrap(), initramfs.modules);
        assert!(initramfs.modules.get("dm_verity").unwrap().always);
        assert!(!initramfs.modules.get("virtio_blk").unwrap().always);
        assert!(!initramfs.modules.get("erofs").unwrap().aliases.contains(&"fs-erofs".to_owned()));
    }

    #[test]
    fn a_list_is_taken_at_its_word() {
        let choice = InitramfsModules::List(vec!["e1000".to_owned()]);
        let initramfs = build(&kernel(), &choice).unwrap();
        assert!(initramfs.modules.get("e1000").unwrap().always);
        assert!(initramfs.modules.get("virtio_blk").is_none());
        let choice = InitramfsModules::List(vec!["e2000".to_owned()]);
        assert!(matches!(build(&kernel(), &choice), Err(InitramfsError::UnknownModule { .. })));
    }

    #[test]
    fn a_kernel_that_cannot_do_it_is_refused() {
        let without = |name: &str| {
            let modules: Vec<_> = kernel().into_iter().filter(|module| module.name != name).collect();
            build(&modules, &InitramfsModules::Auto).unwrap_err()
        };
        assert!(matches!(without("overlay"), InitramfsError::KernelLacks { module: "overlay", .. }));
        assert!(matches!(without("netfs"), InitramfsError::MissingDependency { .. }));
        let mut modules = kernel();
        modules[3].depends.push("dm-verity".to_owned());
        assert!(matches!(build(&modules, &InitramfsModules::Auto), Err(InitramfsError::Cycle { .. })));
    }

    #[test]
    fn two_archives_with_plain_modules() {
        use std::io::Write;
        let mut modules = kernel();
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
        encoder.write_all(b"\x7fELF virtio_blk").unwrap();
        modules[0].body = Content::from(encoder.finish().unwrap());
        let first = build(&modules, &InitramfsModules::Auto).unwrap();
        assert_eq!(first.bytes, build(&kernel(), &InitramfsModules::Auto).unwrap().bytes);
        let archives = unpack(&first.bytes).unwrap();
        assert_eq!(archives.len(), 2);
        let (entries, _) = cpio::entries(&archives[0]).unwrap();
        assert_eq!(entries.last().unwrap().name, "init");
        let (entries, _) = cpio::entries(&archives[1]).unwrap();
        assert_eq!((entries[0].name.as_str(), entries[1].name.as_str()), ("modules", LIST));
        assert_eq!(entries.last().unwrap().body, b"\x7fELF virtio_blk");
    }

    #[test]
    fn a_damaged_module_is_named() {
        let mut modules = kernel();
        modules[0].body = Content::from(b"\xfd7zXZ\0garbage".to_vec());
        let error = build(&modules, &InitramfsModules::Auto).unwrap_err();
        assert!(matches!(error, InitramfsError::Decompress { ref module, .. } if module == "virtio_blk"));
    }
}
