//! ext4: e2fsck and the kernel as judges.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Seek, SeekFrom, Write};
use std::path::Path;

use keller::disk::{FileDevice, SectorSize};
use keller::fs::ext4::{self, Options};
use keller::tree::{Kind, Meta, Tree};
use uuid::Uuid;

use super::fixture::{assert_same, everything, from_folder, mounted};
use super::tool::{run, tool};
use crate::dump::dump;

fn options() -> Options {
    Options {
        uuid: Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef),
        time: 1_700_000_000,
        label: Some("keller".to_owned()),
        size: None,
    }
}

fn fsck(path: &Path) {
    if let Some(mut e2fsck) = tool("e2fsck") {
        run(e2fsck.arg("-fn").arg(path));
    }
}

#[test]
fn the_judges_see_what_was_put_in() {
    let tree = everything();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut file = File::create(&path).unwrap();
    let plan = ext4::plan(&tree, &options()).unwrap();
    plan.write(&mut file).unwrap();
    assert_eq!(file.metadata().unwrap().len(), plan.size());
    fsck(&path);
    mounted(&path, "ext4", "ro,noload", |root| {
        let mut shown = from_folder(root);
        assert!(shown.remove("lost+found"));
        assert_same(&dump(&shown).unwrap(), &dump(&tree).unwrap());
    });
}

#[test]
fn a_single_file_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = everything();
    tree.file("usr/lib/keller/some.json", 0o644, "{}\n").unwrap();
    let path = folder.path().join("image");
    ext4::plan(&tree, &options()).unwrap().write(&mut File::create(&path).unwrap()).unwrap();
    let read = |name: &str, limit| {
        let disk = FileDevice::image(File::open(&path).unwrap(), SectorSize::B512).unwrap();
        ext4::read_file(disk, name, limit)
    };
    assert_eq!(read("usr/lib/keller/some.json", 3).unwrap(), Some(b"{}\n".to_vec()));
    assert_eq!(read("usr/lib/keller/none.json", 3).unwrap(), None);
    let error = read("usr/lib/keller/some.json", 2).unwrap_err().to_string();
    assert_eq!(error, "/usr/lib/keller/some.json has 3 bytes, and at most 2 are read");
    File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    assert!(read("usr/lib/keller/some.json", 3).is_err());
}

#[test]
fn what_is_estimated_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let one_file = |size: usize| {
        let mut tree = Tree::new(0);
        tree.file("file", 0o644, vec![1; size]).unwrap();
        tree
    };
    let many = |count: usize, name: usize| {
        let mut tree = Tree::new(0);
        for at in 0..count {
            tree.file(format!("{:03}/{at:0name$}", at % 7), 0o644, vec![1; at % 9000]).unwrap();
        }
        tree
    };
    let trees = [
        Tree::new(0),
        one_file(12 << 20),
        // Around the end of a group of 128 MiB, where a second set of tables begins.
        one_file((128 << 20) - (5 << 20)),
        one_file(128 << 20),
        one_file(300 << 20),
        many(20_000, 8),
        many(5_000, 250),
    ];
    for (at, tree) in trees.iter().enumerate() {
        let plan = ext4::plan(tree, &options()).unwrap();
        let content: u64 = tree
            .walk()
            .iter()
            .map(|(_, id)| match &tree.node(*id).kind {
                Kind::File(content) => content.len().div_ceil(4096) * 4096,
                _ => 0,
            })
            .sum();
        // A few per cent for tables, and the least size.
        let enough = (content + content / 20 + (16 << 20)) + (tree.walk().len() as u64) * 700;
        assert!(plan.size() <= enough, "tree {at}: {} bytes for {content}", plan.size());
        plan.write(&mut File::create(&path).unwrap()).unwrap();
        fsck(&path);
    }
}

#[test]
fn a_given_size_is_kept_or_refused() {
    let tree = everything();
    let size = Some(64 << 20);
    let plan = ext4::plan(&tree, &Options { size, ..options() }).unwrap();
    assert_eq!(plan.size(), 64 << 20);
    let small = Options { size: Some(17 << 20), ..options() };
    let mut large = Tree::new(0);
    large.file("file", 0o644, vec![0; 18 << 20]).unwrap();
    assert!(matches!(ext4::plan(&large, &small), Err(ext4::Error::Layout { .. })));
}

#[test]
fn same_tree_same_bytes_wherever_it_lies() {
    let tree = everything();
    let image = |base: u64| {
        let mut out = Cursor::new(vec![0xee; base as usize]);
        out.seek(SeekFrom::Start(base)).unwrap();
        ext4::plan(&tree, &options()).unwrap().write(&mut out).unwrap();
        out.write_all(b"behind").unwrap();
        let mut bytes = out.into_inner().split_off(base as usize);
        assert_eq!(bytes.split_off(bytes.len() - 6), b"behind");
        bytes
    };
    assert!(image(0) == image(512));
}

#[test]
fn what_cannot_be_held_is_refused() {
    let mut tree = Tree::new(0);
    tree.file([b'x', 0xff], 0o644, "").unwrap();
    assert!(matches!(ext4::plan(&tree, &options()), Err(ext4::Error::NotUtf8 { .. })));
    let mut tree = Tree::new(0);
    tree.directory("lost+found", 0o700).unwrap();
    assert!(matches!(ext4::plan(&tree, &options()), Err(ext4::Error::LostAndFound)));
    let mut tree = Tree::new(0);
    let origin = tree.origin("test");
    let directory = Kind::Directory(BTreeMap::new());
    tree.put("x", Meta::new(0o755).at(1 << 34), directory, origin).unwrap();
    assert!(matches!(ext4::plan(&tree, &options()), Err(ext4::Error::Time { .. })));
    // Larger than the rest of an inode and a block together.
    let mut tree = Tree::new(0);
    tree.node_mut(tree.root()).meta.xattrs.insert(b"user.x".to_vec(), vec![0; 5000]);
    assert!(ext4::plan(&tree, &options()).is_err());
}
