//! Which modules /init loads, in which order and with which parameters, as kmod's modprobe would.

use std::fs;
use std::path::Path;
use std::process::Command;

use keller::base::progress::Silent;
use keller::boot::cmdline::RootFs;
use keller::boot::initramfs::Parts;
use keller::boot::modprobe::Config;
use keller::image::kernel::Modules;
use keller::rootfs::ModuleIndex;
use keller::tree::{Content, Tree};

use super::depmod::PRELUDE;
use super::folder;
use super::tool::{run, tool};

const KERNEL: &str = "6.12.0-made";

const MODULES: [(&str, &str); 11] = [
    ("dm-mod", r#"EXPORT("dm_get"); int dm_get(void) { return 1; }"#),
    (
        "dm-bufio",
        r#"INFO("softdep=pre: crc8"); EXPORT("bufio_new"); extern int dm_get(void); int bufio_new(void) { return dm_get(); }"#,
    ),
    (
        "dm-verity",
        r#"INFO("softdep=pre: sha256 post: zlib"); extern int bufio_new(void), dm_get(void); int f(void) { return bufio_new() + dm_get(); }"#,
    ),
    ("sha256", "int a;"),
    ("zlib", r#"INFO("softdep=post: crc8"); int a;"#),
    ("crc8", "int a;"),
    ("crc16", "int a;"),
    ("nvme-core", r#"EXPORT("nvme_init"); int nvme_init(void) { return 1; }"#),
    ("nvme", r#"extern int nvme_init(void); int f(void) { return nvme_init(); }"#),
    ("virtio_blk", r#"INFO("alias=virtio:d00000002v*"); int a;"#),
    ("other-blk", r#"INFO("alias=virtio:d0000000[1-3]v*"); int a;"#),
];

/// Files of modprobe.d by the folder that they lie in: the first hides its namesake in the second.
const FILES: [(&str, &str); 4] = [
    (
        "etc/modprobe.d/a.conf",
        "# modprobe.d(5)\noptions virtio-blk queue_depth=3 \\\n num_request_queues=4\n\
         options virtio_blk\tname=\"a b\"\noptions dm-bufio max_cache_size_bytes=4096\nblacklist zlib\n  # odd\n\
         bogus line\noptions\nsoftdep dm-ver* pre: crc16 post: other-blk\n",
    ),
    ("etc/modprobe.d/hidden.conf", "options nvme poll_queues=1\n"),
    ("lib/modprobe.d/hidden.conf", "options nvme poll_queues=2\n"),
    (
        "lib/modprobe.d/z.conf",
        "options nvme-core multipath=N\nsoftdep zlib pre: sha256\nsoftdep nvme post: crc8\n",
    ),
];

const CMDLINES: [&str; 4] = [
    "",
    "quiet virtio_blk.queue_depth=17 nvme_core.io_timeout=4294967295 console=ttyS0,115200 x=virtio_blk.z=1",
    "virtio-blk.queue-depth=17 virtio_blk.flag dm-bufio.max_age_seconds=7 virtio_blk.s=\"q r\" ro gpt",
    "\"virtio_blk.t=u v\" nvme.d=\"a b\" nvme-core.e= panic=10 dm_mod.z=\"\" dm_mod.y=\"x y\"z",
];

/// A root with modules, their indexes and modprobe.d.
fn root(folder: &Path) {
    let kernel = folder.join("lib/modules").join(KERNEL);
    fs::create_dir_all(kernel.join("kernel")).unwrap();
    for (name, code) in MODULES {
        let source = folder.join("module.c");
        fs::write(&source, format!("{PRELUDE}{code}")).unwrap();
        let object = kernel.join(format!("kernel/{name}.ko"));
        run(tool("cc").unwrap().args(["-O1", "-fno-pic", "-w", "-c", "-o"]).args([&object, &source]));
    }
    let order: String = MODULES.iter().map(|(name, _)| format!("kernel/{name}.ko\n")).collect();
    fs::write(kernel.join("modules.order"), order).unwrap();
    // What a boot needs besides.
    let builtin = ["overlay", "ext4", "erofs"].map(|name| format!("kernel/{name}.ko\n"));
    fs::write(kernel.join("modules.builtin"), builtin.concat()).unwrap();
    fs::write(kernel.join("modules.builtin.modinfo"), "").unwrap();
    run(tool("depmod").unwrap().arg("-b").arg(folder).arg(KERNEL));
    for (path, text) in FILES {
        fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
        fs::write(folder.join(path), text).unwrap();
    }
}

/// `insmod` lines of modprobe for `name`: name of the file, then parameters, one blank between words.
fn by_modprobe(folder: &Path, name: &str, cmdline: &str) -> Vec<String> {
    fs::write(folder.join("cmdline"), format!("{cmdline}\n")).unwrap();
    // Of another root modprobe takes modules only; its own folders are those of the root for as long.
    let script = "mount --bind \"$1/cmdline\" /proc/cmdline && mkdir -p /run/modprobe.d &&
        mount --bind \"$1/etc/modprobe.d\" /etc/modprobe.d && mount --bind \"$1/lib/modprobe.d\" /lib/modprobe.d &&
        exec modprobe --set-version \"$2\" --dirname \"$1\" --show-depends \"$3\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(folder).args([KERNEL, name]);
    let output = unshare.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("insmod "));
    lines
        .map(|line| {
            let (path, rest) = line.split_once(".ko").unwrap();
            words(&format!("{} {rest}", path.rsplit('/').next().unwrap()))
        })
        .collect()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The same as /init would do it.
fn by_keller(tree: &Tree, name: &str, cmdline: &str) -> Vec<String> {
    let index = ModuleIndex::read(tree, KERNEL, None).unwrap();
    let modules = Modules::of(tree, &index, &Silent).unwrap();
    let named: Vec<String> = MODULES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let parts = Parts {
        keller: &Content::from("keller"),
        modules: &modules.list,
        builtin: &modules.builtin,
        choice: Some(&named),
        config: &modules.config,
        root_fs: RootFs::Erofs,
        from_memory: false,
    };
    let plan = parts.plan().unwrap();
    // As text, since that is what /init has.
    let mut config = Config::default();
    assert_eq!(config.read("modprobe.conf", &plan.config.to_string()), []);
    config.read_cmdline(&format!("{cmdline}\n"));
    let module = |name: &str| MODULES.iter().find(|(file, _)| file.replace('-', "_") == name).unwrap().0;
    let steps = plan.modules.steps(name).into_iter();
    steps
        .map(|step| words(&format!("{} {}", module(&step.entry.name), config.parameters(&step.entry.name))))
        .collect()
}

#[test]
fn modprobe_loads_the_same_with_the_same_parameters() {
    let (Some(_), Some(_), Some(_)) = (tool("cc"), tool("depmod"), tool("modprobe")) else { return };
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can give modprobe another command line");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    root(work.path());
    let mut tree = Tree::new(0);
    for (place, source) in [
        ("usr/lib/modules", "lib/modules"),
        ("etc/modprobe.d", "etc/modprobe.d"),
        ("usr/lib/modprobe.d", "lib/modprobe.d"),
    ] {
        tree.graft(place, folder::load(&work.path().join(source)), Default::default()).unwrap();
    }
    let mut compared = 0;
    for cmdline in CMDLINES {
        for (name, _) in MODULES {
            let (ours, theirs) = (by_keller(&tree, name, cmdline), by_modprobe(work.path(), name, cmdline));
            assert_eq!(ours, theirs, "{name} with {cmdline:?}");
            compared += ours.len();
        }
    }
    // A soft dependency of /etc has taken the place of the module's own, and options of both places count.
    let verity = by_keller(&tree, "dm-verity", CMDLINES[2]);
    assert_eq!(
        verity,
        [
            "dm-mod",
            "crc8",
            "dm-bufio max_cache_size_bytes=4096 max_age_seconds=7",
            "crc16",
            "dm-verity",
            "other-blk"
        ]
    );
    assert_eq!(
        by_keller(&tree, "virtio_blk", CMDLINES[1]),
        ["virtio_blk queue_depth=3 num_request_queues=4 name=\"a b\" queue_depth=17"]
    );
    println!("{compared} modules compared");
}
