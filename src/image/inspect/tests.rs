use std::os::unix::fs::FileExt;

use uuid::Uuid;

use super::*;
use crate::base::progress::Silent;
use crate::base::width::to_usize;
use crate::boot::{cmdline::Options as CmdlineOptions, uki};
use crate::disk::layout::PATH;
use crate::disk::{Layout, PartitionWriter, Role, Sizes, gpt};
use crate::output::{Disk, Format};

/// A whole disk with a tiny root, as images were before they unfolded on the node; gives its file and where the root
/// begins.
pub(in crate::image) fn image(sector_size: SectorSize) -> (File, u64) {
    let (file, layout) = made(sector_size, Form::Node);
    (file, layout.partition(Role::Root(Slot::A)).start)
}

/// An image of this form, and the disk of its node.
fn made(sector_size: SectorSize, form: Form) -> (File, Layout) {
    use std::io::Write;
    let sizes = Sizes {
        esp: Size::mib(if sector_size == SectorSize::B512 { 34 } else { 260 }),
        root: Size::mib(4),
        reserve: Some(Size::mib(1)),
        state: Size::mib(1),
        sector_size,
    };
    let layout = Layout::plan(&sizes).unwrap();
    let mut root = Tree::new(0);
    root.file("usr/lib/os-release", 0o644, "ID=debian\nIMAGE_ID=\"node\"\nIMAGE_VERSION='1.0'\n").unwrap();
    root.file(DPKG_STATUS[0], 0o644, "Package: bash\nVersion: 5.2\n\nPackage: dash\nVersion: 0.5\n").unwrap();
    root.file("data", 0o644, vec![7; 1 << 20]).unwrap();
    root.file(PATH, 0o644, serde_json::to_string(&sizes).unwrap()).unwrap();
    let options =
        erofs::Options { uuid: Uuid::from_u128(1), build_time: 0, volume_name: [0; 16], dedupe: true };
    let mut bytes = Vec::new();
    erofs::plan(&root, &options).unwrap().write(&mut bytes).unwrap();
    let options = verity::Options { salt: vec![1, 2], uuid: Uuid::from_u128(2) };
    let mut writer = verity::Writer::new(Vec::new(), options).unwrap();
    writer.write_all(&bytes).unwrap();
    let tree = writer.finish().unwrap();
    let root_hash = tree.root_hash.digest();

    let parts = uki::Parts {
        stub: &crate::boot::pe::sample(),
        kernel: &crate::boot::pe::sample(),
        kernel_version: "6.12.0",
        os_release: b"ID=x\n",
        initrd: b"initrd",
        options: &CmdlineOptions::default(),
    };
    let uki = uki::Uki::new(tree.root_hash, &parts).unwrap();
    let mut esp = Tree::new(0);
    esp.file("EFI/Linux/node_1.0+2-1.efi", 0o644, uki.into_bytes()).unwrap();
    let release = Release { id: "node".to_owned(), version: "1.0".to_owned(), root_hash };

    let file = tempfile::tempfile().unwrap();
    let root = bytes.len() as u64;
    let (size, table) = match form {
        Form::Node => (layout.disk_size, layout.table(&release)),
        Form::State => unreachable!("it has no root"),
        Form::Image => (layout.image_size(root), layout.image_table(&release, root)),
    };
    file.set_len(size).unwrap();
    gpt::create(&mut &file, &table.unwrap()).unwrap();
    let writer = |role| PartitionWriter::new(&file, layout.partition(role));
    let options = fat::Options {
        size: layout.partition(Role::Esp).size,
        sector_size: sector_size.bytes() as u32,
        volume_id: 1,
        label: "ESP".to_owned(),
        mtime: 0,
    };
    fat::write(&esp, &options, &mut writer(Role::Esp)).unwrap();
    writer(Role::Root(Slot::A)).write_all(&bytes).unwrap();
    writer(Role::Verity(Slot::A)).write_all(&tree.bytes).unwrap();
    (file, layout)
}

fn inspected(file: &File) -> Inspection {
    inspect(file.try_clone().unwrap(), true, &Silent).unwrap()
}

#[test]
fn everything_is_found() {
    for sector_size in [SectorSize::B512, SectorSize::B4096] {
        let (file, _) = image(sector_size);
        let found = inspected(&file);
        assert_eq!(found.problems, [""; 0]);
        assert_eq!((found.format, found.sector_size), ("raw", sector_size.bytes()));
        assert_eq!(found.partitions.len(), 7);
        assert_eq!(
            (&*found.partitions[5].label, &*found.partitions[5].kind),
            ("keller-reserve", "linux-generic")
        );
        assert_eq!(found.partitions[3].flags, ["read-only", "no-auto"]);
        let root = found.slots[0].root.as_ref().unwrap();
        assert_eq!((root.filesystem, root.verified), ("erofs", Some(true)));
        assert_eq!(root.os_release["IMAGE_ID"], "node");
        assert_eq!((root.packages.len(), root.packages["bash"].as_str()), (2, "5.2"));
        assert_eq!(root.verity.as_ref().unwrap().salt, "0102");
        assert!(found.slots[1].release.is_none());
        let [entry] = found.entries.as_slice() else { panic!("{:?}", found.entries) };
        assert_eq!((entry.tries_left, entry.tries_done, entry.slot), (Some(2), Some(1), Some(Slot::A)));
        assert_eq!(entry.kernel_version, "6.12.0");
        assert!(entry.cmdline.contains("roothash="));
        serde_json::to_string(&found).unwrap();
    }
}

#[test]
fn an_image_is_told_from_the_disk_of_a_node() {
    for sector_size in [SectorSize::B512, SectorSize::B4096] {
        let (file, layout) = made(sector_size, Form::Image);
        let found = inspected(&file);
        assert_eq!((found.form, &found.problems[..], &found.remarks[..]), (Form::Image, &[][..], &[][..]));
        assert_eq!((found.partitions.len(), found.slots.len()), (3, 1));
        assert_eq!(found.slots[0].root.as_ref().unwrap().verified, Some(true));
        let node = found.node.as_ref().unwrap();
        assert_eq!((node.min, node.partitions.len()), (layout.disk_size, 7));
        assert_eq!(node.partitions[3], ("root-b".to_owned(), 4 << 20));
        // On disks that are larger; one of them is still too small.
        file.set_len(layout.disk_size - 512).unwrap();
        let found = inspected(&file);
        assert!(found.problems.is_empty() && found.remarks[0].contains("will not start there"), "{found:?}");
        file.set_len(layout.disk_size).unwrap();
        let found = inspected(&file);
        assert!(found.problems.is_empty() && found.remarks[0].contains("unfolds there"), "{found:?}");
        let disk = node_disk::of_image(file.try_clone().unwrap()).unwrap().unwrap();
        assert_eq!(disk, layout);
        // What /init would refuse.
        let device = FileDevice::image(file.try_clone().unwrap(), sector_size).unwrap();
        let table = gpt::read(&device, sector_size).unwrap();
        let mut moved = table.table.clone();
        moved.entries[0].size -= 1 << 20;
        let mut device = device;
        gpt::rewrite(&mut device, &table, &moved).unwrap();
        let problem = inspected(&file).problems.join("\n");
        assert!(problem.contains("comparing the partition table with the root: partition esp"), "{problem}");
        assert!(node_disk::of_image(file).is_err());
        let (file, _) = image(sector_size);
        assert_eq!(inspected(&file).form, Form::Node);
        assert!(node_disk::of_image(file).unwrap().is_none());
    }
}

#[test]
fn a_flipped_bit_is_found_in_either_format() {
    let (file, root) = image(SectorSize::B512);
    let mut byte = [0];
    file.read_exact_at(&mut byte, root + 700_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], root + 700_000).unwrap();
    let qcow2 = tempfile::tempfile().unwrap();
    Format::Qcow2.write(&Disk::survey(&file, 0).unwrap(), &qcow2, false).unwrap();
    for (file, format) in [(file, "raw"), (qcow2, "qcow2")] {
        let found = inspected(&file);
        assert_eq!(found.format, format);
        let problem = &found.problems[0];
        assert!(problem.starts_with("slot a: data block 170: expected digest"), "{problem}");
        assert_eq!(found.slots[0].root.as_ref().unwrap().verified, Some(false));
    }
}

#[test]
fn an_image_cut_short_is_refused_with_where() {
    let (file, _) = image(SectorSize::B512);
    let size = file.metadata().unwrap().len();
    for cut in [size - 1, size / 2, 5000, 600, 100, 0] {
        file.set_len(cut).unwrap();
        let error = format!("{:#}", inspect(file.try_clone().unwrap(), false, &Silent).unwrap_err());
        let told = match cut {
            ..1024 => "no partition table: this is not a disk image".to_owned(),
            _ => format!(
                "the image is cut short: its partition table is for {size} bytes, but there are {cut}"
            ),
        };
        assert_eq!(error, format!("reading the partition table: {told}"));
    }
}

#[test]
fn what_does_not_fit_together_is_told() {
    let (file, root) = image(SectorSize::B512);
    file.write_all_at(b"garbage", root + 1024).unwrap();
    file.write_all_at(b"garbage", 1024).unwrap();
    let found = inspected(&file);
    assert_eq!(found.table, Which::Backup);
    let all = found.problems.join("\n");
    for part in [
        "the primary partition table is broken",
        "slot a: reading the root file system",
        "slot a: data block 0",
    ] {
        assert!(all.contains(part), "{all}");
    }
    // Garbage where the ESP begins.
    file.write_all_at(&[0x5a; 512], 1 << 20).unwrap();
    let found = inspected(&file);
    assert_eq!((found.slots.len(), found.entries.len()), (2, 0));
    let all = found.problems.join("\n");
    let told = "reading the ESP (partition 1, at 1MiB): no FAT32 file system: the boot sector's signature is missing";
    assert!(all.contains(told), "{all}");
}

#[test]
fn counters_of_entries() {
    assert_eq!(tries("node_1.0"), ("node_1.0", None, None));
    assert_eq!(tries("node_1.0+3"), ("node_1.0", Some(3), Some(0)));
    assert_eq!(tries("node_1.0+0-3"), ("node_1.0", Some(0), Some(3)));
    assert_eq!(tries("node_1.0+x"), ("node_1.0+x", None, None));
}

#[test]
fn words_without_end() {
    let mut tree = Tree::new(0);
    let large = |limit: u64| vec![b'\n'; to_usize(limit) + 1];
    tree.file("usr/lib/os-release", 0o644, large(limits::WORDS)).unwrap();
    tree.file(RECORD, 0o644, large(limits::RECORD)).unwrap();
    tree.file(DPKG_STATUS[0], 0o644, large(limits::TEXT)).unwrap();
    for (path, limit, said) in [
        ("usr/lib/os-release", limits::WORDS, "64.0 KiB"),
        (RECORD, limits::RECORD, "2.0 MiB"),
        (DPKG_STATUS[0], limits::TEXT, "16.0 MiB"),
    ] {
        let told = format!("{:#}", read(&tree, path, limit).unwrap_err());
        assert_eq!(told, format!("reading {path}: it has more than the {said} that are read of such a file"));
    }
    assert!(packages(&tree, None).is_err());
}
