//! EROFS: the kernel and erofs-utils as judges.

use std::fs::{self, File};
use std::io::Write;
use std::sync::Arc;

use keller::fs::erofs::{self, Image, Options};
use keller::tree::{Content, Kind, Meta, Tree};
use uuid::Uuid;

use super::fixture::{assert_same, everything, from_folder, is_root, mounted, pattern};
use super::tool::{run, tool};
use crate::dump::dump;

const OPTIONS: Options = Options {
    uuid: Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef),
    build_time: 1_700_000_000,
    volume_name: *b"keller\0\0\0\0\0\0\0\0\0\0",
    dedupe: true,
};

fn image(tree: &Tree, options: &Options) -> Vec<u8> {
    let plan = erofs::plan(tree, options).unwrap();
    let mut bytes = Vec::new();
    plan.write(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, plan.size());
    bytes
}

/// The dump without what `fsck.erofs --extract` of erofs-utils 1.5 drops: hard links, attributes, and the
/// setuid bit (it changes the owner after the mode).
fn as_extracted(tree: &Tree) -> String {
    let text = dump(tree).unwrap();
    let mut digests = std::collections::BTreeMap::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut fields: Vec<&str> = line.split(' ').collect();
        if fields.get(6) == Some(&"=") {
            let digest = digests[fields[7]];
            fields.truncate(6);
            fields.push(digest);
        }
        if fields[0] == "-" {
            digests.insert(fields[5], fields[6]);
            if fields[1] == "4755" {
                fields[1] = "0755";
            }
        }
        fields.retain(|field| !field.contains('='));
        lines.push(fields.join(" ").trim_end().to_owned());
    }
    lines.join("\n")
}

#[test]
fn fsck_extracts_what_was_put_in() {
    let mut tree = everything();
    if !is_root() {
        println!("SKIPPED: extracting owners, modes and devices: not root");
        tree.remove("special");
        // Nobody but root could read it back.
        tree.remove("modes/nothing");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, image(&tree, &OPTIONS)).unwrap();
    let Some(mut fsck) = tool("fsck.erofs") else { return };
    run(fsck.arg(&path));
    let said = run(tool("dump.erofs").unwrap().arg("-s").arg(&path));
    assert!(said.contains(&OPTIONS.uuid.to_string()), "{said}");
    let target = folder.path().join("tree");
    run(tool("fsck.erofs").unwrap().arg(format!("--extract={}", target.display())).arg(&path));
    let mut expected = tree;
    let mut extracted = from_folder(&target);
    if !is_root() {
        forget_owners(&mut expected);
        forget_owners(&mut extracted);
    }
    assert_same(&as_extracted(&extracted), &as_extracted(&expected));
}

/// Makes everything 0755 root:root at time 0: who is not root can keep no owner and not every mode.
fn forget_owners(tree: &mut Tree) {
    for (_, id) in tree.walk() {
        tree.node_mut(id).meta = Meta::new(0o755);
    }
}

#[test]
fn the_kernel_shows_what_was_put_in() {
    let tree = everything();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, image(&tree, &OPTIONS)).unwrap();
    mounted(&path, "erofs", "ro", |root| {
        assert_same(&dump(&from_folder(root)).unwrap(), &dump(&tree).unwrap());
        let links =
            |name: &str| std::os::unix::fs::MetadataExt::nlink(&fs::metadata(root.join(name)).unwrap());
        assert_eq!((links("sizes/4097"), links("half-a-block"), links("empty")), (3, 112, 2));
    });
}

#[test]
fn our_reader_reads_ours() {
    let tree = everything();
    let expected = dump(&tree).unwrap();
    let bytes = image(&tree, &OPTIONS);
    let opened = Image::open(bytes.clone().into()).unwrap();
    assert_same(&dump(&opened.tree().unwrap()).unwrap(), &expected);
    // As a partition: behind other bytes and with others behind it.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[pattern(512, 1), bytes.clone(), pattern(99, 2)].concat()).unwrap();
    let content = Content::Slice { file: Arc::new(file), offset: 512, len: bytes.len() as u64 + 99 };
    let opened = Image::open(content).unwrap();
    assert_same(&dump(&opened.tree().unwrap()).unwrap(), &expected);
}

#[test]
fn our_reader_reads_that_of_others() {
    let Some(mut mkfs) = tool("mkfs.erofs") else { return };
    let mut tree = everything();
    // Sockets and devices cannot be made here without rights; 255 letters are too many for mkfs.erofs 1.5.
    tree.remove("special");
    tree.remove(format!("names/{}", "n".repeat(255)));
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    for (path, id) in tree.walk() {
        let target = source.join(std::str::from_utf8(&path).unwrap());
        match &tree.node(id).kind {
            Kind::Directory(_) => fs::create_dir(target).unwrap(),
            Kind::File(content) => fs::write(target, content.to_vec().unwrap()).unwrap(),
            Kind::Symlink(to) => {
                std::os::unix::fs::symlink(std::str::from_utf8(to).unwrap(), target).unwrap();
            }
            _ => {}
        }
    }
    let path = folder.path().join("image");
    run(mkfs.args(["--quiet", "--preserve-mtime"]).args([&path, &source]));
    let file = Arc::new(File::open(&path).unwrap());
    let len = fs::metadata(&path).unwrap().len();
    let read = Image::open(Content::Slice { file, offset: 0, len }).unwrap().tree().unwrap();
    assert_same(&dump(&read).unwrap(), &dump(&from_folder(&source)).unwrap());
}

#[test]
fn same_tree_same_bytes() {
    let one = image(&everything(), &OPTIONS);
    assert!(one == image(&everything(), &OPTIONS));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert!(one == pool.install(|| image(&everything(), &OPTIONS)));
}

#[test]
fn a_small_change_moves_few_blocks() {
    let tree = |middle: usize, extra: bool| {
        let mut tree = Tree::new(0);
        for at in 0..2000usize {
            let size = if at == 1000 { middle } else { 3000 + at * 7 % 20_000 };
            let name = format!("usr/lib/part-{:02}/file-{at:04}", at / 50);
            tree.file(&name, 0o644, pattern(size, at as u64)).unwrap();
            tree.symlink(format!("usr/share/links/{at}"), name).unwrap();
        }
        if extra {
            tree.file("usr/lib/part-20/zzz", 0o644, pattern(9000, 77)).unwrap();
        }
        tree
    };
    // Blocks of the second image that the first has nowhere.
    let new_blocks = |one: &[u8], two: &[u8]| {
        let known: std::collections::BTreeSet<&[u8]> = one.chunks(4096).collect();
        two.chunks(4096).filter(|block| !known.contains(block)).count()
    };
    let base = image(&tree(50_000, false), &OPTIONS);
    let same_length = {
        let mut tree = tree(50_000, false);
        let id = tree.lookup("usr/lib/part-20/file-1000").unwrap();
        tree.node_mut(id).kind = Kind::File(pattern(50_000, 4711).into());
        image(&tree, &OPTIONS)
    };
    assert_eq!(new_blocks(&base, &same_length), 50_000usize.div_ceil(4096));
    // Longer: its own blocks, the superblock, and the inodes of the files after it.
    let longer = new_blocks(&base, &image(&tree(60_000, false), &OPTIONS));
    let inodes = 2000 * 64 / 4096;
    assert!(longer <= 15 + 1 + inodes / 2 + 1, "{longer}");
    // One file more: its blocks, the inodes behind it and the directories that name them.
    let more = new_blocks(&base, &image(&tree(50_000, true), &OPTIONS));
    assert!(more <= 3 + 1 + inodes + 30, "{more}");
    println!("new blocks: a longer file {longer}, one file more {more}, of {}", base.len() / 4096);
}

#[test]
fn damaged_images_are_refused() {
    let mut tree = everything();
    for bulk in ["large", "sizes/5000003", "half-a-block", "deep/level-0/level-1"] {
        tree.remove(bulk);
    }
    let whole = image(&tree, &OPTIONS);
    let plan = erofs::plan(&tree, &OPTIONS).unwrap().summary();
    // Short in every block; what is cut off must be missed at once.
    for len in (0..whole.len()).step_by(4096).chain([1, 1023, 1500, whole.len() - 1]) {
        assert!(Image::open(whole[..len].to_vec().into()).is_err(), "{len}");
    }
    // Any damage gives a tree or an error, in finite time and memory.
    let metadata = plan.metadata_blocks as usize * 4096;
    for seed in 0..600u64 {
        let noise = pattern(24, seed + 1);
        let mut damaged = whole.clone();
        for bytes in noise.chunks(8).take(1 + seed as usize % 3) {
            let at = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize % (metadata - 4096) + 4096;
            damaged[at] = bytes[4];
        }
        if let Ok(image) = Image::open(damaged.into())
            && let Ok(tree) = image.tree()
        {
            let _ = dump(&tree);
        }
    }
    let mut damaged = whole;
    damaged[1024 + 36] ^= 1;
    assert!(matches!(Image::open(damaged.into()), Err(erofs::ReadError::Checksum { .. })));
}
