//! What QEMU's machine and a server need of Debian's kernel, taken away piece by piece.

use std::collections::BTreeSet;
use std::path::Path;

use keller::base::progress::Silent;
use keller::boot::cmdline::RootFs;
use keller::boot::initramfs::{Carried, Parts};
use keller::image::hardware::{self, Place, Report, list};
use keller::image::kernel::Modules;
use keller::rootfs::{ModuleIndex, modules};
use keller::tree::{Kind, Tree};

use super::trixie;

/// QEMU 10's q35 with the devices that keller can give it and some more, as `lspci -nmm` prints them; the numbers are
/// those of `info pci` in its monitor.
const Q35: &str = include_str!("hardware/q35.lspci");

/// Devices as a server of two sockets has them, by their makers' numbers.
const SERVER: &str = include_str!("hardware/server.lspci");

/// Packages of components/kernel-metal.yaml beside the kernel.
const FIRMWARE: [&str; 3] = ["firmware-intel-misc", "firmware-misc-nonfree", "firmware-qlogic"];

/// Parts of the kernel that no device in the lists needs.
const WITHOUT: [&str; 8] = [
    "sound",
    "drivers/media",
    "drivers/net/wireless",
    "drivers/staging",
    "drivers/iio",
    "drivers/gpu/drm/amd",
    "drivers/gpu/drm/nouveau",
    "drivers/gpu/drm/i915",
];

struct Root {
    tree: Tree,
    kernel: String,
    carried: Carried,
    aliases: String,
}

impl Root {
    fn new(mut tree: Tree) -> Self {
        let kernel = modules::kernels(&tree).remove(0);
        for part in WITHOUT {
            tree.remove(format!("{}/{kernel}/kernel/{part}", modules::FOLDER));
        }
        let index = ModuleIndex::read(&tree, &kernel, None).unwrap();
        modules::write(&mut tree, &index).unwrap();
        let found = Modules::of(&tree, &index, &Silent).unwrap();
        let parts = Parts {
            keller: &"keller".into(),
            modules: &found.list,
            builtin: &found.builtin,
            choice: None,
            config: &found.config,
            root_fs: RootFs::Erofs,
            from_memory: false,
        };
        let plan = parts.plan().unwrap();
        let there = plan.firmware.into_iter().filter(|(_, firmware)| firmware.body.is_some());
        let firmware: BTreeSet<String> = there.map(|(_, firmware)| firmware.name).collect();
        let path = format!("{}/{kernel}/modules.alias", modules::FOLDER);
        let aliases = String::from_utf8(tree.read(path).unwrap()).unwrap();
        Self { tree, kernel, carried: Carried { modules: plan.modules, firmware }, aliases }
    }

    fn look(&self, list: &str) -> Report {
        let devices = list::parse(list.as_bytes()).unwrap();
        hardware::of_root(&self.tree, &self.kernel, self.carried.clone(), &devices).unwrap()
    }

    /// The report without the file at `path`, and without the module that it is.
    fn without(&mut self, path: &str, module: Option<&str>, list: &str) -> Report {
        let id = self.tree.resolve(path).unwrap();
        let node = self.tree.node(id);
        let (meta, Kind::File(content)) = (node.meta.clone(), node.kind.clone()) else { panic!("{path}") };
        let carried = self.carried.clone();
        let index = format!("{}/{}/modules.alias", modules::FOLDER, self.kernel);
        if let Some(module) = module {
            self.carried.modules.0.retain(|entry| entry.name != module);
            let ending = format!(" {module}");
            let lines = self.aliases.lines().filter(|line| !line.ends_with(&ending));
            let text: String = lines.map(|line| format!("{line}\n")).collect();
            self.tree.file(&index, 0o644, text).unwrap();
        }
        assert!(self.tree.remove(path));
        let report = self.look(list);
        self.tree.put(path, meta, Kind::File(content), Default::default()).unwrap();
        self.tree.file(&index, 0o644, self.aliases.clone()).unwrap();
        self.carried = carried;
        report
    }
}

#[test]
fn each_driver_and_firmware_that_is_taken_away_is_named() {
    let Some(tree) = trixie::kernel(&FIRMWARE) else { return };
    let mut root = Root::new(tree);
    for watchdog in ["i6300esb", "wdat_wdt", "sp5100_tco", "lpc_ich", "i2c_i801", "iTCO_wdt"] {
        assert!(root.carried.modules.get(watchdog).is_some(), "the initramfs has no {watchdog}");
    }
    for list in [Q35, SERVER] {
        let whole = root.look(list);
        assert!(whole.problems.is_empty(), "{:#?}", whole.problems);
        let drivers: Vec<_> = whole.devices.iter().flat_map(|seen| &seen.drivers).collect();
        let in_files = drivers.iter().filter(|driver| driver.place != Place::Kernel);
        let names: BTreeSet<&str> = in_files.map(|driver| driver.module.as_str()).collect();
        let paths = modules::paths(&root.tree);
        for name in &names {
            let path = paths[*name].trim_start_matches('/');
            let report = root.without(path, Some(name), list);
            let told =
                report.problems.iter().any(|line| line.contains(&format!("no driver {name}: `prune`")));
            assert!(told, "{name}: {:#?}", report.problems);
        }
        let mut files = BTreeSet::new();
        for file in drivers.iter().flat_map(|driver| &driver.firmware).filter(|file| file.there) {
            let path = format!("usr/lib/firmware/{}", file.name);
            if !matches!(root.tree.node(root.tree.lookup(&path).unwrap()).kind, Kind::File(_)) {
                continue;
            }
            let report = root.without(&path, None, list);
            let package = file.package.unwrap();
            let told = report.problems.iter().any(|line| {
                line.contains(&file.name)
                    && line.contains(": no firmware for ")
                    && line.ends_with(&format!(": {package} has it"))
            });
            assert!(told, "{}: {:#?}", file.name, report.problems);
            files.insert(&file.name);
        }
        println!("{} drivers and {} files of firmware: {names:?} {files:?}", names.len(), files.len());
        assert!(names.len() > 15 && files.len() > 2, "{names:?} {files:?}");
    }
    // A module that others need is named as such.
    let path = modules::paths(&root.tree)["libahci"].clone();
    let report = root.without(path.trim_start_matches('/'), Some("libahci"), Q35);
    assert!(
        report.problems[0].contains(": ahci cannot be loaded without libahci: "),
        "{:?}",
        report.problems
    );
}

/// The documentation shows the list and what is said of it.
#[test]
fn the_documentation_shows_this_server() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/bare-metal.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    assert!(SERVER.lines().all(|line| docs.contains(line)));
}
