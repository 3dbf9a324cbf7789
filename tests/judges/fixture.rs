//! A tree with everything that a file system must hold, and folders as trees, to compare.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use keller::tree::{Content, Kind, Meta, NodeId, Tree};

/// A time within reach of every file system here: 2023-11-14.
const TIME: i64 = 1_700_000_000;

/// Bytes that differ from block to block, so that a misplaced block shows.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes: Vec<u8> = words.take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}

/// Every kind of node, sizes around a block, large directories, deep nesting, long links, attributes,
/// large ids, hard links.
pub fn everything() -> Tree {
    let mut tree = Tree::new(TIME);
    let origin = tree.origin("fixture");
    for (at, size) in [0, 1, 4095, 4096, 4097, 8192, 5_000_003].into_iter().enumerate() {
        let meta = Meta::new(0o644).owned(1000, 70_000 + at as u32).at(TIME - size as i64);
        let kind = Kind::File(pattern(size, at as u64).into());
        tree.put(format!("sizes/{size}"), meta, kind, origin).unwrap();
    }
    for at in 0..3000 {
        let content = if at % 100 == 0 { format!("{at}\n") } else { String::new() };
        tree.file(format!("large/an-entry-with-a-long-name-{at:05}"), 0o600, content).unwrap();
    }
    for at in 0..110 {
        tree.directory(format!("half-a-block/{at:030}"), 0o700).unwrap();
    }
    let mut deep = "deep".to_owned();
    for at in 0..60 {
        deep.push_str(&format!("/level-{at}"));
    }
    tree.file(format!("{deep}/end"), 0o444, "reached").unwrap();
    for name in ["-", "!", "...", "..a", ".a", "a b", "über", &"n".repeat(255)] {
        tree.file(format!("names/{name}"), 0o644, name).unwrap();
    }
    tree.directory("empty", 0o555).unwrap();
    tree.symlink("links/short", "../sizes/1").unwrap();
    tree.symlink("links/300", "x/".repeat(150)).unwrap();
    tree.symlink("links/4000", "long/".repeat(800)).unwrap();
    tree.symlink("links/59", "s".repeat(59)).unwrap();
    tree.symlink("links/60", "s".repeat(60)).unwrap();
    for (name, kind) in [
        ("null", Kind::CharDevice(1, 3)),
        ("large", Kind::CharDevice(300, 70_000)),
        ("disk", Kind::BlockDevice(8, 1)),
        ("pipe", Kind::Fifo),
        ("socket", Kind::Socket),
    ] {
        tree.put(format!("special/{name}"), Meta::new(0o660).owned(0, 6).at(TIME), kind, origin).unwrap();
    }
    let file = tree.lookup("sizes/4097").unwrap();
    tree.link("hard/second", file).unwrap();
    tree.link("sizes/third", file).unwrap();
    let setuid = tree.file("modes/setuid", 0o4755, "#!").unwrap();
    tree.file("modes/nothing", 0o000, "x").unwrap();
    tree.directory("modes/sticky", 0o1777).unwrap();
    // Version 2 capabilities: cap_net_raw, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set(&mut tree, setuid, "security.capability", &capability);
    let many = tree.file("attributes/many", 0o644, "many").unwrap();
    for at in 0..40 {
        set(&mut tree, many, &format!("user.number-{at}"), &pattern(at, 3));
    }
    set(&mut tree, many, "trusted.overlay.opaque", b"y");
    let directory = tree.directory("attributes/directory", 0o755).unwrap();
    set(&mut tree, directory, "user.large", &pattern(1800, 5));
    // An access list: owner rwx, user 1000 r-x, group r-x, mask r-x, others r-x.
    let list: &[u8] =
        b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x05\0\xe8\x03\0\0\x04\0\x05\0\xff\xff\xff\xff\
        \x10\0\x05\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
    set(&mut tree, directory, "system.posix_acl_access", list);
    set(&mut tree, directory, "system.posix_acl_default", list);
    tree
}

fn set(tree: &mut Tree, id: NodeId, name: &str, value: &[u8]) {
    tree.node_mut(id).meta.xattrs.insert(name.into(), value.to_vec());
}

/// The folder `root` as a tree, without following links.
pub fn from_folder(root: &Path) -> Tree {
    let mut tree = Tree::new(TIME);
    let origin = tree.origin("folder");
    let mut seen: BTreeMap<u64, NodeId> = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
        let stat = fs::symlink_metadata(&full).unwrap();
        let bytes = path.as_os_str().as_bytes();
        if !stat.is_dir()
            && let Some(id) = seen.get(&stat.ino())
        {
            tree.link(bytes, *id).unwrap();
            continue;
        }
        let mut meta = Meta::new((stat.mode() & 0o7777) as u16).owned(stat.uid(), stat.gid());
        meta.mtime = stat.mtime();
        meta.xattrs = xattrs(&full);
        let major = |dev: u64| (dev >> 8 & 0xfff) as u32;
        let minor = |dev: u64| (dev & 0xff | dev >> 12 & 0xfff00) as u32;
        let kind = match stat.file_type() {
            kind if kind.is_dir() => {
                let entries = fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name()));
                pending.extend(entries);
                Kind::Directory(BTreeMap::new())
            }
            kind if kind.is_symlink() => {
                Kind::Symlink(fs::read_link(&full).unwrap().into_os_string().into_vec())
            }
            kind if kind.is_char_device() => Kind::CharDevice(major(stat.rdev()), minor(stat.rdev())),
            kind if kind.is_block_device() => Kind::BlockDevice(major(stat.rdev()), minor(stat.rdev())),
            kind if kind.is_fifo() => Kind::Fifo,
            kind if kind.is_socket() => Kind::Socket,
            _ => {
                let file = Arc::new(File::open(&full).unwrap());
                Kind::File(Content::Slice { file, offset: 0, len: stat.len() })
            }
        };
        let id = tree.put(bytes, meta, kind, origin).unwrap();
        seen.insert(stat.ino(), id);
    }
    tree
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; 1 << 16];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0u8; 1 << 16];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Mounts `image` read-only and hands `judge` the folder. Says so and does nothing where this process
/// may not mount; that is the kernel's word, so CI does not turn it into a failure.
pub fn mounted(image: &Path, kind: &str, options: &str, judge: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let options = format!("loop,{options}");
    let mut mount = Command::new("mount");
    mount.args(["-t", kind, "-o", &options]).args([image, folder.path()]);
    match mount.output() {
        Ok(output) if is_root() && output.status.success() => {}
        Ok(output) => {
            println!("SKIPPED: mount: {}", String::from_utf8_lossy(&output.stderr).trim());
            return;
        }
        Err(error) => {
            println!("SKIPPED: mount: {error}");
            return;
        }
    }
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0).status();
        }
    }
    let mounted = Mounted(folder.path());
    judge(mounted.0);
}

/// Compares texts by line: whole dumps are too long to print.
pub fn assert_same(actual: &str, expected: &str) {
    let differ = actual.lines().zip(expected.lines()).find(|(actual, expected)| actual != expected);
    assert!(differ.is_none(), "{differ:#?}");
    assert_eq!(actual.lines().count(), expected.lines().count());
}

/// A file system of `size` at `path`, until dropped.
pub struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    /// Mounts it, unless this process may not; says so then.
    pub fn mount(path: &'a Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "small"]).arg(path);
        let mounted = is_root() && mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            println!("SKIPPED: only root may mount a small file system");
        }
        mounted.then_some(Self(path))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}
