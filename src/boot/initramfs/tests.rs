use std::io::Read;

use super::*;
use crate::base::width::to_usize;
use crate::boot::cpio;

fn module(name: &str, depends: &[&str], aliases: &[&str]) -> Module {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Module {
        name: name.to_owned(),
        depends: words(depends),
        before: Vec::new(),
        after: Vec::new(),
        aliases: words(aliases),
        is_card: false,
        firmware: Vec::new(),
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

/// Unpacks the archives of an initramfs, plain or compressed with zstd, one after the other as the kernel does.
fn unpack(bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut archives = Vec::new();
    let mut rest = bytes;
    loop {
        let zeros = rest.iter().take_while(|b| **b == 0).count();
        rest = &rest[zeros..];
        if rest.is_empty() {
            return Ok(archives);
        }
        if rest.starts_with(b"0707") {
            let (_, len) = cpio::entries(rest).map_err(io::Error::other)?;
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

/// The list of modules that an initramfs carries.
fn carried(initramfs: &[u8]) -> ModuleList {
    Carried::read(initramfs).unwrap().modules
}

fn build(modules: &[Module], choice: Option<&[String]>) -> Result<Vec<u8>, InitramfsError> {
    let builtin = BTreeSet::from(["ext4".to_owned()]);
    let keller = Content::from("keller");
    let config = &Config::default();
    Parts {
        keller: &keller,
        modules,
        builtin: &builtin,
        choice,
        config,
        root_fs: RootFs::Erofs,
        from_memory: false,
    }
    .build()
}

fn names(modules: &ModuleList) -> Vec<&str> {
    modules.0.iter().map(|entry| entry.name.as_str()).collect()
}

#[test]
fn what_is_needed_comes_first() {
    let modules = carried(&build(&kernel(), None).unwrap());
    let builtin = BTreeSet::from(["ext4".to_owned()]);
    let (keller, kernel) = (&Content::from("keller"), &kernel());
    let choice = None;
    let config = &Config::default();
    let parts = Parts {
        keller,
        modules: kernel,
        builtin: &builtin,
        choice,
        config,
        root_fs: RootFs::Erofs,
        from_memory: false,
    };
    let plan = parts.plan().unwrap();
    assert_eq!((&plan.modules, &plan.config), (&modules, &Config::default()));
    assert!(plan.firmware.is_empty());
    assert_eq!(
        names(&modules),
        ["dm_mod", "dm_bufio", "dm_verity", "overlay", "netfs", "libcrc32c", "erofs", "virtio_blk"]
    );
    assert!(modules.get("dm_verity").unwrap().when == When::Always);
    assert!(modules.get("virtio_blk").unwrap().when == When::Asked);
    assert!(!modules.get("erofs").unwrap().aliases.contains(&"fs-erofs".to_owned()));
}

/// Intel's has no device until the bridge to ISA, or the SMBus, has a driver: all of them come along, each for its device.
#[test]
fn a_watchdog_comes_with_what_makes_its_device() {
    let mut modules = kernel();
    modules.extend([
        module("iTCO_wdt", &["intel_pmc_bxt", "iTCO_vendor_support"], &["platform:iTCO_wdt"]),
        module("intel_pmc_bxt", &[], &[]),
        module("iTCO_vendor_support", &[], &[]),
        module("lpc_ich", &[], &["pci:v00008086d00002918sv*sd*bc*sc*i*"]),
        module("i2c-i801", &["i2c-smbus"], &["pci:v00008086d00002930sv*sd*bc*sc*i*"]),
        module("i2c-smbus", &[], &[]),
    ]);
    let carried = carried(&build(&modules, None).unwrap());
    for name in ["lpc_ich", "i2c_i801", "iTCO_wdt"] {
        assert!(carried.get(name).is_some_and(|entry| entry.when == When::Asked), "{name}");
    }
    let places: Vec<&str> = carried.steps("iTCO_wdt").iter().map(|step| step.entry.name.as_str()).collect();
    assert_eq!(places, ["intel_pmc_bxt", "iTCO_vendor_support", "iTCO_wdt"]);
}

#[test]
fn a_list_is_taken_at_its_word() {
    let choice = ["e1000".to_owned()];
    let modules = carried(&build(&kernel(), Some(&choice)).unwrap());
    assert!(modules.get("e1000").unwrap().when == When::Listed);
    assert!(modules.get("virtio_blk").is_none());
    let choice = ["e2000".to_owned()];
    assert!(matches!(build(&kernel(), Some(&choice)), Err(InitramfsError::UnknownModule { .. })));
}

#[test]
fn a_kernel_that_cannot_do_it_is_refused() {
    let without = |name: &str| {
        let modules: Vec<_> = kernel().into_iter().filter(|module| module.name != name).collect();
        build(&modules, None).unwrap_err()
    };
    assert!(matches!(without("overlay"), InitramfsError::KernelLacks { module: "overlay", .. }));
    assert!(matches!(without("netfs"), InitramfsError::MissingDependency { .. }));
    let (keller, builtin) = (&Content::from("keller"), BTreeSet::from(["ext4".to_owned()]));
    let plan = |modules: &[Module], text: &str, from_memory: bool| {
        let mut config = Config::default();
        let _ = config.read("/etc/modprobe.d/x.conf", text);
        let (builtin, config) = (&builtin, &config);
        Parts { keller, modules, builtin, choice: None, config, root_fs: RootFs::Erofs, from_memory }.plan()
    };
    let from_memory = |modules: &[Module], text: &str| plan(modules, text, true);
    let lacks = from_memory(&kernel(), "").unwrap_err();
    assert!(matches!(lacks, InitramfsError::KernelLacks { module: "loop", .. }), "{lacks}");
    let with: Vec<_> = kernel().into_iter().chain([module("loop", &[], &[])]).collect();
    let modules = from_memory(&with, "").unwrap().modules;
    assert!(modules.get("loop").unwrap().when == When::Asked);
    // An image is the same whether it also runs from memory or not.
    assert_eq!(modules.to_string(), plan(&with, "", false).unwrap().modules.to_string());
    let kept_out = from_memory(&with, "install loop /bin/false\n").unwrap_err();
    assert!(matches!(kept_out, InitramfsError::KeptOut { .. }), "{kept_out}");
    let mut modules = kernel();
    modules[3].depends.push("dm-verity".to_owned());
    assert!(matches!(build(&modules, None), Err(InitramfsError::Cycle { .. })));
}

#[test]
fn two_archives_with_plain_modules() {
    use std::io::Write;
    let mut modules = kernel();
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(b"\x7fELF virtio_blk").unwrap();
    modules[0].body = Content::from(encoder.finish().unwrap());
    let first = build(&modules, None).unwrap();
    assert_eq!(first, build(&kernel(), None).unwrap());
    let archives = unpack(&first).unwrap();
    assert_eq!(archives.len(), 2);
    let (entries, _) = cpio::entries(&archives[0]).unwrap();
    assert_eq!(entries.last().unwrap().name, "init");
    let (entries, _) = cpio::entries(&archives[1]).unwrap();
    assert_eq!((entries[0].name.as_str(), entries[1].name.as_str()), ("modules", LIST));
    assert_eq!(entries.last().unwrap().body, b"\x7fELF virtio_blk");
}

/// What modprobe.d of the root says, e.g. of a hardened node, holds in the initramfs.
#[test]
fn modprobe_d_counts() {
    let build = |text: &str, choice: Option<&[String]>| {
        let mut config = Config::default();
        let _ = config.read("/etc/modprobe.d/x.conf", text);
        let (keller, modules) = (&Content::from("keller"), &kernel());
        let builtin = &BTreeSet::from(["ext4".to_owned()]);
        Parts {
            keller,
            modules,
            builtin,
            choice,
            config: &config,
            root_fs: RootFs::Erofs,
            from_memory: false,
        }
        .build()
    };
    let made = build(
        "options virtio-blk queue_depth=17\noptions e1000 x=1\nsoftdep virtio_blk pre: e1000 nosuch post: crc8 netfs\n",
        None,
    )
    .unwrap();
    let modules = carried(&made);
    assert!(names(&modules).ends_with(&["erofs", "e1000", "virtio_blk"]), "{:?}", names(&modules));
    let entry = modules.get("virtio_blk").unwrap();
    assert_eq!((&entry.before[..], &entry.after[..]), (&["e1000".into()][..], &["netfs".into()][..]));
    let archives = unpack(&made).unwrap();
    let (entries, _) = cpio::entries(&archives[1]).unwrap();
    let file = entries.iter().find(|entry| entry.name == modprobe::FILE).unwrap();
    assert_eq!(file.body, b"options virtio_blk queue_depth=17\noptions e1000 x=1\n");
    // Without anything to say there is no file.
    let archives = unpack(&build("", None).unwrap()).unwrap();
    let (entries, _) = cpio::entries(&archives[1]).unwrap();
    assert!(entries.iter().all(|entry| entry.name != modprobe::FILE));

    let made = build("install virtio-* /bin/true\n", None).unwrap();
    assert!(carried(&made).get("virtio_blk").is_none());
    for (line, choice) in [
        ("install overlay /bin/false\n", None),
        ("install netfs /usr/bin/true\n", None),
        ("install e1000 /bin/true\n", Some(&["e1000".to_owned()][..])),
    ] {
        let error = build(line, choice).unwrap_err();
        assert!(matches!(error, InitramfsError::KeptOut { .. }), "{error}");
        assert!(error.to_string().contains("(/etc/modprobe.d/x.conf:1)"), "{error}");
    }
}

/// A module that wishes for one that needs it, near or far: modprobe loads both.
#[test]
fn a_wish_that_leads_back_is_passed_over() {
    let mut modules = kernel();
    modules.extend([
        module("nvme-core", &["nvme-auth"], &[]),
        module("nvme-auth", &[], &[]),
        module("nvme", &["nvme-core"], &["pci:v*bc01sc08i02*"]),
    ]);
    let build = |text: &str, names: &[&str]| {
        let mut config = Config::default();
        assert_eq!(config.read("/etc/modprobe.d/x.conf", text), []);
        let (keller, builtin) = (&Content::from("keller"), &BTreeSet::from(["ext4".to_owned()]));
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let choice = (!names.is_empty()).then_some(&names[..]);
        let root_fs = RootFs::Erofs;
        let parts = Parts {
            keller,
            modules: &modules,
            builtin,
            choice,
            config: &config,
            root_fs,
            from_memory: false,
        };
        carried(&parts.build().unwrap())
    };
    let end = ["nvme_auth", "nvme_core", "nvme"];
    for text in [
        "softdep nvme_core pre: nvme\n",
        "softdep nvme-auth pre: nvme\n",
        "softdep nvme-auth pre: nvme-core nvme\nsoftdep nvme-core pre: nvme\n",
        "softdep nvme pre: nvme-core post: nvme-auth\nsoftdep nvme_auth pre: nvme post: nvme\n",
    ] {
        let made = build(text, &[]);
        assert!(names(&made).ends_with(&end), "{text}: {:?}", names(&made));
        for from in end {
            let made = build(text, &[from, "nvme"]);
            assert!(names(&made).ends_with(&end), "{text}: {from}: {:?}", names(&made));
        }
    }
    // What does not lead back is loaded before.
    let made = build("softdep nvme_core pre: nvme e1000\n", &[]);
    assert_eq!(made.get("nvme_core").unwrap().before, ["e1000"]);
    assert_eq!(made.get("nvme").unwrap().when, When::Asked);
}

#[test]
fn firmware_of_carried_modules_comes_along_plain() {
    let firmware =
        |name: &str, body: Option<Vec<u8>>| Firmware { name: name.to_owned(), body: body.map(Content::from) };
    let mut modules = kernel();
    let packed = zstd::encode_all(&b"microprogram"[..], 1).unwrap();
    modules[0].firmware = vec![firmware("isci/a b.bin", Some(packed)), firmware("none.bin", None)];
    modules[1].firmware = vec![firmware("isci/a b.bin", Some(b"microprogram".to_vec()))];
    modules[8].firmware = vec![firmware("e1000.bin", Some(b"of a module that is not here".to_vec()))];
    let made = build(&modules, None).unwrap();
    let archives = unpack(&made).unwrap();
    let (entries, _) = cpio::entries(&archives[1]).unwrap();
    let seen: Vec<_> = entries.iter().filter(|entry| entry.name.starts_with("lib")).collect();
    let names: Vec<_> = seen.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["lib", "lib/firmware", "lib/firmware/isci", "lib/firmware/isci/a b.bin"]);
    let read = Carried::read(&made).unwrap();
    assert_eq!(read.firmware, BTreeSet::from(["isci/a b.bin".to_owned()]));
    assert!(Carried::read(&made[..made.len() - 9]).is_err());
    let error = Carried::read(&[0x1f, 0x8b, 8, 0]).unwrap_err().to_string();
    assert_eq!(error, "an archive of the initramfs is compressed with gzip, not zstd");
    assert_eq!(seen[3].body, b"microprogram");

    modules[0].firmware = vec![firmware("huge", Some(vec![0; to_usize(MAX_FIRMWARE) + 1]))];
    let error = build(&modules, None).unwrap_err();
    assert!(matches!(error, InitramfsError::TooMuchFirmware { ref module, .. } if module == "virtio_blk"));
}

#[test]
fn a_damaged_module_is_named() {
    let mut modules = kernel();
    modules[0].body = Content::from(b"\xfd7zXZ\0garbage".to_vec());
    let error = build(&modules, None).unwrap_err();
    assert!(matches!(error, InitramfsError::Decompress { ref module, .. } if module == "virtio_blk"));
}
