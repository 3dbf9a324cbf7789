//! Module indexes as kmod's depmod writes them.
//!
//! KELLER_JUDGE_TREE may name a folder with unpacked packages, to judge by a whole kernel besides.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use keller::rootfs::ModuleIndex;
use keller::rootfs::modules::kernels;

use super::folder;
use super::tool::{run, tool};

/// Modules with everything that an index has a file for: needs, aliases that share prefixes, soft
/// dependencies, a device node.
const MODULES: [(&str, &str); 6] = [
    (
        "drivers/md/dm-mod.ko",
        r#"INFO("alias=devname:mapper/control"); INFO("alias=char-major-10-236"); EXPORT("dm_get"); int dm_get(void) { return 1; }"#,
    ),
    (
        "drivers/md/dm-bufio.ko",
        r#"EXPORT("bufio_new"); extern int dm_get(void); int bufio_new(void) { return dm_get(); }"#,
    ),
    (
        "drivers/md/dm-verity.ko",
        r#"INFO("softdep=pre: sha256 post: zlib"); extern int bufio_new(void), dm_get(void), printk(void); int f(void) { return bufio_new() + dm_get() + printk(); }"#,
    ),
    (
        "drivers/net/virtio_net.ko",
        r#"INFO("alias=virtio:d00000001v*"); INFO("firmware=none.bin"); extern int ring(void); int f(void) { return ring(); }"#,
    ),
    (
        "drivers/virtio/virtio_ring.ko",
        r#"INFO("alias=virtio:d0000000[1-9a-f-]v*"); INFO("alias=virtio:d00000001v*"); EXPORT("ring"); EXPORT("ring_free"); int ring(void) { return 2; }"#,
    ),
    (
        "fs/extra.ko",
        r#"INFO("weakdep=zstd"); INFO("alias=fs-extra"); INFO("alias=fs-ext"); extern int ring(void); int f(void) { return ring(); }"#,
    ),
];
pub const PRELUDE: &str = r#"
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define IN(place, value) static const char JOIN(text_, __COUNTER__)[] __attribute__((section(place), used, aligned(1))) = value
#define INFO(text) IN(".modinfo", text)
#define EXPORT(text) IN("__ksymtab_strings", text)
"#;
/// The kmod that began to write modules.weakdep.
const WITH_WEAKDEP: u32 = 33;
/// The kmod that began to write a trie's parents before their children; the format allows any order.
const PARENTS_FIRST: u32 = 33;
const ORDER: &str = "kernel/drivers/virtio/virtio_ring.ko\nkernel/drivers/net/virtio_net.ko\n\
    kernel/drivers/md/dm-mod.ko\nkernel/drivers/md/dm-bufio.ko\nkernel/drivers/md/dm-verity.ko\n";
const BUILTIN: &str = "kernel/fs/ext4/ext4.ko\nkernel/fs/jbd2/jbd2.ko\nkernel/drivers/ata/ata-piix.ko\n";
const BUILTIN_MODINFO: &[u8] =
    b"ext4.alias=fs-ext4\0ext4.license=GPL\0ext4.alias=ext3\0ata_piix.alias=pci:v*\0";

#[test]
fn indexes_of_made_modules() {
    let (Some(_), Some(_)) = (tool("cc"), tool("depmod")) else { return };
    let work = tempfile::tempdir().unwrap();
    let kernel = work.path().join("lib/modules/6.12.0-made");
    for (path, code) in MODULES {
        let object = kernel.join("kernel").join(path);
        fs::create_dir_all(object.parent().unwrap()).unwrap();
        let source = work.path().join("module.c");
        fs::write(&source, format!("{PRELUDE}{code}")).unwrap();
        run(tool("cc").unwrap().args(["-O1", "-fno-pic", "-w", "-c", "-o"]).args([&object, &source]));
    }
    fs::write(kernel.join("modules.order"), ORDER).unwrap();
    fs::write(kernel.join("modules.builtin"), BUILTIN).unwrap();
    fs::write(kernel.join("modules.builtin.modinfo"), BUILTIN_MODINFO).unwrap();
    compare(work.path(), "lib/modules");
}

#[test]
fn indexes_of_a_whole_kernel() {
    let Some(tree) = std::env::var_os("KELLER_JUDGE_TREE") else {
        println!("SKIPPED: KELLER_JUDGE_TREE is not set");
        return;
    };
    if tool("depmod").is_some() {
        compare(Path::new(&tree), "usr/lib/modules");
    }
}

/// Has depmod write its indexes for a copy of the kernel below `root`, and compares ours.
fn compare(root: &Path, modules: &str) {
    let mut tree = keller::tree::Tree::new(0);
    let sources = folder::load(&root.join(modules));
    tree.graft("usr/lib/modules", sources.clone(), Default::default()).unwrap();
    let kernel = kernels(&tree).pop().expect("a kernel");
    let start = std::time::Instant::now();
    let index = ModuleIndex::read(&tree, &kernel, None).unwrap();
    let files = index.files().unwrap();
    println!("{} modules in {:?}", index.modules.len(), start.elapsed());

    let base = tempfile::tempdir().unwrap();
    let theirs = base.path().join("lib/modules");
    fs::create_dir_all(&theirs).unwrap();
    folder::store(&sources, &theirs);
    run(tool("depmod").unwrap().arg("-b").arg(base.path()).arg(&kernel));
    let theirs = theirs.join(&kernel);

    let version = run(tool("depmod").unwrap().arg("--version"));
    let version: u32 =
        version.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok()).unwrap();
    for (name, ours) in files {
        if name == "modules.weakdep" && version < WITH_WEAKDEP {
            continue;
        }
        let theirs = fs::read(theirs.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        if name == "modules.symbols" {
            let (ours, theirs) = (lines(&ours), lines(&theirs));
            let differing: Vec<_> = ours.symmetric_difference(&theirs).take(5).collect();
            assert!(differing.is_empty(), "{name}: {differing:?}");
        } else if name.ends_with(".bin") && version < PARENTS_FIRST {
            assert!(entries(&ours) == entries(&theirs), "{name} differs from depmod's");
        } else {
            assert!(ours == theirs, "{name} differs from depmod's");
        }
    }
}

/// All keys of an index file, each with its values by priority.
fn entries(index: &[u8]) -> BTreeMap<Vec<u8>, Vec<(u32, Vec<u8>)>> {
    let mut found = BTreeMap::new();
    let start = number(index, 8);
    collect(index, start, &mut Vec::new(), &mut found);
    found
}

fn collect(index: &[u8], node: u32, key: &mut Vec<u8>, found: &mut BTreeMap<Vec<u8>, Vec<(u32, Vec<u8>)>>) {
    let mut at = (node & 0x0FFF_FFFF) as usize;
    let length = key.len();
    if node & 0x8000_0000 != 0 {
        key.extend(text(index, &mut at));
    }
    if node & 0x2000_0000 != 0 {
        let (first, last) = (index[at], index[at + 1]);
        at += 2;
        for byte in first..=last {
            let child = number(index, at);
            at += 4;
            if child != 0 {
                key.push(byte);
                collect(index, child, key, found);
                key.pop();
            }
        }
    }
    if node & 0x4000_0000 != 0 {
        let count = number(index, at);
        at += 4;
        let values = (0..count).map(|_| {
            let priority = number(index, at);
            at += 4;
            (priority, text(index, &mut at))
        });
        found.insert(key.clone(), values.collect());
    }
    key.truncate(length);
}

fn number(index: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(index[at..at + 4].try_into().unwrap())
}

fn text(index: &[u8], at: &mut usize) -> Vec<u8> {
    let end = *at + index[*at..].iter().position(|byte| *byte == 0).unwrap();
    let text = index[*at..end].to_vec();
    *at = end + 1;
    text
}

fn lines(text: &[u8]) -> BTreeSet<&str> {
    std::str::from_utf8(text).unwrap().lines().collect()
}
