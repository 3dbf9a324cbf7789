//! FAT32: dosfstools, mtools and the kernel as judges.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use keller::fs::fat::{self, Options, Reader};
use keller::tree::Tree;

use super::fixture::{mounted, pattern};
use super::tool::{run, tool};

/// Names of every form: 8.3, 8.3 but for the case, long, with a counter, beyond ASCII, at the limit; a folder
/// over several clusters; files around a cluster.
fn sample() -> Tree {
    let mut tree = Tree::new(1_700_000_000);
    for name in
        ["EFI/BOOT/BOOTX64.EFI", "EFI/Linux/node_1.0.0+3.efi", "EFI/Linux/node_1.1.0.efi", "a.b.c", ".hidden"]
    {
        tree.file(name, 0o644, pattern(300_000, name.len() as u64)).unwrap();
    }
    tree.file("loader/loader.conf", 0o644, "timeout 0\n").unwrap();
    tree.file("Größe €.txt", 0o644, "x").unwrap();
    tree.file(format!("{}.txt", "n".repeat(251)), 0o644, "y").unwrap();
    for at in 0..2000 {
        tree.file(format!("many/a rather long name {at}.conf"), 0o644, format!("{at}\n")).unwrap();
    }
    for size in [0, 1, 511, 512, 513, 4095, 4096, 4097] {
        tree.file(format!("sizes/{size}"), 0o644, pattern(size, 7)).unwrap();
    }
    tree.directory("empty/below", 0o755).unwrap();
    tree
}

fn options(mib: u64, sector_size: u32) -> Options {
    let (volume_id, label) = (0x1234_abcd, "KELLER".to_owned());
    Options { size: mib << 20, sector_size, volume_id, label, mtime: 1_700_000_000 }
}

fn image(path: &Path, options: &Options) {
    let mut file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(options.size).unwrap();
    fat::write(&sample(), options, &mut file).unwrap();
}

/// Files and folders of the sample as fsck.fat counts them.
const FILES: usize = 2025;

const VOLUMES: [(u64, u32); 6] = [(34, 512), (64, 512), (130, 512), (512, 512), (9000, 512), (300, 4096)];

#[test]
fn fsck_finds_nothing_to_mend() {
    let folder = tempfile::tempdir().unwrap();
    for (mib, sector_size) in VOLUMES {
        let Some(mut fsck) = tool("fsck.fat") else { return };
        let path = folder.path().join(format!("{mib}-{sector_size}"));
        image(&path, &options(mib, sector_size));
        let said = run(fsck.arg("-nv").arg(&path));
        assert!(said.contains("First FAT starts") && said.contains(&format!("{FILES} files, ")), "{said}");
        for trouble in
            ["differ", "not properly", "Dirty", "Free cluster summary", "Orphan", "reclaim", "Wrong"]
        {
            assert!(!said.contains(trouble), "{said}");
        }
    }
}

#[test]
fn mtools_sees_every_name_and_byte() {
    let folder = tempfile::tempdir().unwrap();
    for (mib, sector_size) in VOLUMES {
        let (Some(mut mdir), Some(mut mcopy)) = (tool("mdir"), tool("mcopy")) else { return };
        let path = folder.path().join(format!("{mib}-{sector_size}"));
        image(&path, &options(mib, sector_size));
        let said = run(mdir.arg("-i").arg(&path).args(["-/", "-b", "::/"]));
        assert!(said.contains("::/EFI/Linux/node_1.0.0+3.efi"), "{said}");
        let target = folder.path().join(format!("{mib}-{sector_size}.d"));
        fs::create_dir(&target).unwrap();
        run(mcopy.env("LC_ALL", "C.UTF-8").args(["-s", "-m", "-i"]).arg(&path).arg("::/*").arg(&target));
        compare(&target);
    }
}

/// Every file of the sample, as it is in `folder`.
fn compare(folder: &Path) {
    let tree = sample();
    for (path, id) in tree.walk() {
        let path = String::from_utf8(path).unwrap();
        let found = folder.join(&path);
        match &tree.node(id).kind {
            keller::tree::Kind::File(content) => {
                assert!(fs::read(&found).unwrap() == content.to_vec().unwrap(), "{path}");
            }
            _ => assert!(found.is_dir(), "{path}"),
        }
    }
}

#[test]
fn the_kernel_reads_and_goes_on_writing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    image(&path, &options(64, 512));
    mounted(&path, "vfat", "ro,utf8", compare);
    mounted(&path, "vfat", "rw,utf8", |root| {
        fs::rename(root.join("EFI/Linux/node_1.0.0+3.efi"), root.join("EFI/Linux/node_1.0.0+2-1.efi"))
            .unwrap();
        fs::write(root.join("EFI/Linux/node_2.0.0+3.efi"), pattern(5_000_000, 9)).unwrap();
        fs::remove_dir_all(root.join("many")).unwrap();
    });
    let Some(mut fsck) = tool("fsck.fat") else { return };
    run(fsck.arg("-n").arg(&path));
}

/// The kernel is not always at hand; mtools writes too.
#[test]
fn mtools_goes_on_writing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("image"), folder.path().join("file"));
    fs::write(&file, pattern(5_000_000, 9)).unwrap();
    image(&path, &options(64, 512));
    let on = |mut command: Command, arguments: &[&str]| run(command.arg("-i").arg(&path).args(arguments));
    let (Some(mren), Some(mcopy), Some(mut fsck)) = (tool("mren"), tool("mcopy"), tool("fsck.fat")) else {
        return;
    };
    on(mren, &["::/EFI/Linux/node_1.0.0+3.efi", "::/EFI/Linux/node_1.0.0+2-1.efi"]);
    on(mcopy, &[file.to_str().unwrap(), "::/EFI/Linux/node_2.0.0+3.efi"]);
    on(tool("mdeltree").unwrap(), &["::/many"]);
    run(fsck.arg("-n").arg(&path));
    let mut reader = Reader::open(File::open(&path).unwrap()).unwrap();
    let volume = fatfs::FileSystem::new(File::open(&path).unwrap(), fatfs::FsOptions::new()).unwrap();
    assert_eq!((volume.volume_id(), &*volume.volume_label()), (0x1234_abcd, "KELLER"));
    let paths: Vec<String> = reader.list().unwrap().into_iter().map(|entry| entry.path).collect();
    assert!(paths.contains(&"EFI/Linux/node_1.0.0+2-1.efi".to_owned()), "{paths:?}");
    assert!(reader.read("EFI/Linux/node_2.0.0+3.efi", 6_000_000).unwrap() == pattern(5_000_000, 9));
}
