//! Disk images that nobody has to have signed, as `keller inspect` and `keller publish` meet them.

use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt;

use keller::base::{Digest, Size};
use keller::disk::{Layout, Release, Role, SectorSize, Sizes, Slot, gpt};
use keller::fs::{erofs, fat};
use keller::tree::Tree;
use uuid::Uuid;

use super::repositories::costly;
use super::within;
use crate::cli::project::{Project, Ran};

const DISK: &str = "disk.raw";

fn inspect(project: &Project) -> Ran {
    within(&mut project.keller(&["inspect", "--verify", DISK]))
}

/// A disk as keller lays it out, with `esp` and the same `root` in both slots.
fn disk(project: &Project, esp: &Tree, root: &Tree) {
    let (esp_size, root_size, state) = (Size::mib(64), Size::mib(16), Size::mib(1));
    let sizes = Sizes { esp: esp_size, root: root_size, reserve: None, state, sector_size: SectorSize::B512 };
    let layout = Layout::plan(&sizes).unwrap();
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(project.path(DISK)).unwrap();
    let release = |version: &str| Release {
        id: "node".to_owned(),
        version: version.to_owned(),
        root_hash: Digest::of(version),
    };
    let mut table = layout.table(&release("1")).unwrap();
    for (role, identity) in
        [(Role::Root(Slot::B), release("2").root()), (Role::Verity(Slot::B), release("2").verity())]
    {
        let start = layout.partition(role).start;
        let number = table.entries.iter().find(|entry| entry.start == start).unwrap().number;
        table.rename(number, identity.guid, &identity.label, identity.attributes).unwrap();
    }
    file.set_len(layout.disk_size).unwrap();
    gpt::create(&mut &file, &table).unwrap();
    let options = fat::Options {
        size: layout.partition(Role::Esp).size,
        sector_size: 512,
        volume_id: 1,
        label: "ESP".to_owned(),
        mtime: 0,
    };
    let mut volume = Cursor::new(vec![0; 64 << 20]);
    fat::write(esp, &options, &mut volume).unwrap();
    file.write_all_at(&volume.into_inner(), layout.partition(Role::Esp).start).unwrap();
    let options =
        erofs::Options { uuid: Uuid::from_u128(1), build_time: 0, volume_name: [0; 16], dedupe: true };
    let mut bytes = Vec::new();
    erofs::plan(root, &options).unwrap().write(&mut bytes).unwrap();
    for slot in [Slot::A, Slot::B] {
        file.write_all_at(&bytes, layout.partition(Role::Root(slot)).start).unwrap();
    }
}

/// The header of a qcow2 image, with its L1 table behind it.
fn qcow2(cluster_bits: u32, size: u64, l1: u32) -> Vec<u8> {
    let mut bytes = b"QFI\xfb".to_vec();
    bytes.extend([3_u32, 0, 0, 0, cluster_bits].iter().flat_map(|field| field.to_be_bytes()));
    bytes.extend(size.to_be_bytes());
    bytes.extend([0_u32, l1].iter().flat_map(|field| field.to_be_bytes()));
    bytes.extend([1_u64 << 16, 0].iter().flat_map(|field| field.to_be_bytes()));
    bytes.extend([0_u8; 16]);
    bytes.extend([0_u64; 3].iter().flat_map(|field| field.to_be_bytes()));
    bytes.extend([4_u32, 104].iter().flat_map(|field| field.to_be_bytes()));
    bytes
}

#[test]
fn qcow2_of_petabytes() {
    let project = Project::new();
    let told = |bits, size, l1, table: &[u8]| {
        let image = File::create(project.path(DISK)).unwrap();
        image.write_all_at(&qcow2(bits, size, l1), 0).unwrap();
        image.write_all_at(table, 1 << 16).unwrap();
        // Holes, in which all of the other tables lie.
        image.set_len(40 << 30).unwrap();
        inspect(&project).error().to_owned()
    };
    // Two exabytes, which the format can have, and files of most file systems cannot.
    if tempfile::tempfile().unwrap().set_len(1 << 61).is_ok() {
        println!("SKIPPED: a disk larger than files can be: the file system of TMPDIR takes two exabytes");
        return;
    }
    let told_of = told(21, 1 << 61, 1 << 22, b"");
    let said =
        "unpacking the qcow2 image, whose disk has 2097152.0 TiB, into a temporary file (it has no room in ";
    assert!(
        told_of.contains(said) && told_of.contains("name a directory on another file system by TMPDIR): "),
        "{told_of}"
    );
    // Four million tables, each a hole.
    let tables: Vec<u8> =
        (0..1_u64 << 22).flat_map(|table| ((64 << 20) + (table << 12)).to_be_bytes()).collect();
    let told_of = told(12, 8 << 40, 1 << 22, &tables);
    assert!(told_of.ends_with("no partition table: this is not a disk image"), "{told_of}");
    // One that names itself as its table, and one that ends before it.
    let told_of = told(16, 1 << 40, 1 << 22, &(1_u64 << 16).to_be_bytes().repeat(1 << 15));
    assert!(told_of.contains("damaged qcow2 image") || told_of.contains("no partition table"), "{told_of}");
    let told_of = told(9, 1 << 62, u32::MAX, b"");
    assert!(told_of.contains("damaged qcow2 image: l1_size 4294967295"), "{told_of}");
}

/// A backing file that is the image itself, compressed clusters, snapshots: none is followed.
#[test]
fn qcow2_that_leads_elsewhere() {
    let project = Project::new();
    let mut bytes = qcow2(16, 1 << 30, 2);
    bytes[8..16].copy_from_slice(&200_u64.to_be_bytes());
    bytes[16..20].copy_from_slice(&8_u32.to_be_bytes());
    bytes.resize(200, 0);
    bytes.extend(DISK.bytes());
    project.write(DISK, bytes);
    let told = inspect(&project).error().to_owned();
    assert!(
        told.contains("the qcow2 image has a backing file; convert it first: qemu-img convert"),
        "{told}"
    );
    let ran = within(&mut project.keller(&["boot", DISK]));
    let said = "disk.raw is a qcow2 image that reads from another file, which its maker has chosen and the guest would \
                see: convert it first: ";
    assert!(ran.error().contains(said), "{}", ran.err);
}

/// A vmdk whose description names a parent, or that is nothing but a description: QEMU would read what it names.
#[test]
fn vmdk_that_leads_elsewhere() {
    let project = Project::new();
    let header = |capacity: u64| {
        let mut bytes = b"KDMV".to_vec();
        bytes.resize(12, 0);
        bytes.extend(capacity.to_le_bytes());
        bytes.resize(512, 0);
        bytes
    };
    for (capacity, text) in [(0, "RW 2048 FLAT \"disk.raw\" 0"), (2048, "parentFileNameHint=\"disk.raw\"")] {
        project.write(DISK, [&header(capacity), text.as_bytes()].concat());
        let ran = within(&mut project.keller(&["boot", DISK]));
        let said = "disk.raw is a vmdk image that reads from another file, which its maker has chosen and the guest \
                    would see: convert it first: qemu-img convert";
        assert!(ran.error().contains(said), "{}", ran.err);
    }
}

/// A node's disk may be larger than any file of ext4: an image has no byte of what is made on the node.
#[test]
fn a_manifest_of_terabytes() {
    let project = Project::new();
    project.edit("min: 64MiB", "min: 17TiB");
    project.build(&["--no-sums"]).good();
    let image = "node/out/tiny_1.2.3.raw";
    assert!(project.path(image).metadata().unwrap().len() < 100 << 20);
    let said = project.run(&["inspect", image]).good().out;
    assert!(said.contains("state 17TiB"), "{said}");
}

#[test]
fn tables_without_bound() {
    let project = Project::new();
    disk(&project, &Tree::new(0), &Tree::new(0));
    let image = File::options().read(true).write(true).open(project.path(DISK)).unwrap();
    let size = image.metadata().unwrap().len();
    let mut header = [0; 92];
    image.read_exact_at(&mut header, 512).unwrap();
    let told = |at: usize, value: &[u8]| {
        let mut header = header;
        header[at..at + value.len()].copy_from_slice(value);
        header[16..20].fill(0);
        let sum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        image.write_all_at(&header, 512).unwrap();
        // Nor is the copy of any use.
        image.write_all_at(&[0; 512], size - 512).unwrap();
        inspect(&project).error().to_owned()
    };
    let told_of = told(80, &u32::MAX.to_le_bytes());
    assert!(told_of.contains("unsupported NumberOfPartitionEntries 4294967295"), "{told_of}");
    let told_of = told(84, &u32::MAX.to_le_bytes());
    assert!(told_of.contains("unsupported SizeOfPartitionEntry 4294967295"), "{told_of}");
    for at in [32, 40, 48, 72] {
        let told_of = told(at, &u64::MAX.to_le_bytes());
        assert!(told_of.contains("partition table"), "{told_of}");
    }
}

/// A program of UEFI with `count` sections; each begins at `offset` and has `size` bytes, as it says.
fn program(count: u16, offset: u32, size: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[60..64].copy_from_slice(&64_u32.to_le_bytes());
    bytes.extend(b"PE\0\0\x64\x86");
    bytes.extend(count.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(112_u16.to_le_bytes());
    bytes.extend([0; 2]);
    let optional = bytes.len();
    bytes.extend(0x20b_u16.to_le_bytes());
    bytes.resize(optional + 112, 0);
    let names = [".cmdline", ".osrel\0\0", ".uname\0\0", ".initrd\0", ".linux\0\0"];
    for index in 0..usize::from(count) {
        bytes.extend(names[index % names.len()].bytes());
        bytes.extend([size, 0x1000, size, offset].iter().flat_map(|field| field.to_le_bytes()));
        bytes.extend([0; 16]);
    }
    bytes
}

#[test]
fn programs_of_sections_without_end() {
    let project = Project::new();
    let cases = [
        ("many", program(u16::MAX, 0, 0), "its number of sections cannot be"),
        (
            "large",
            program(5, 0, u32::MAX),
            "its section .cmdline has 4294967295 bytes, and at most 65536 are read",
        ),
        ("far", program(5, u32::MAX, 100), "reading a unified kernel image"),
        ("short", program(5, 0, 0)[..200].to_vec(), "it ends inside its headers"),
        ("text", b"MZ".repeat(1 << 20), "PE image"),
    ];
    let mut esp = Tree::new(0);
    for (name, bytes, _) in &cases {
        esp.file(format!("EFI/Linux/{name}.efi"), 0o644, bytes.clone()).unwrap();
    }
    // As many as are looked at, each with an initramfs that is all of the file.
    let mut huge = program(5, 0, 4096);
    huge.resize(1 << 20, b'0');
    for number in 0..120 {
        esp.file(format!("EFI/Linux/x{number:03}.efi"), 0o644, huge[..4096].to_vec()).unwrap();
    }
    disk(&project, &esp, &Tree::new(0));
    let ran = inspect(&project);
    assert_eq!(ran.code, Some(1));
    for (name, _, said) in cases {
        let line = ran.err.lines().find(|line| line.contains(&format!("EFI/Linux/{name}.efi")));
        assert!(line.is_some_and(|line| line.contains(said)), "{name}: {line:?}");
    }
    assert!(ran.err.contains("the ESP has more than 100 entries in EFI/Linux"), "{}", ran.err);
}

#[test]
fn records_of_any_shape() {
    let project = Project::new();
    let with = |path: &str, bytes: String| {
        let mut root = Tree::new(0);
        root.file("usr/lib/os-release", 0o644, "IMAGE_VERSION=1\n").unwrap();
        root.file(path, 0o644, bytes).unwrap();
        disk(&project, &Tree::new(0), &root);
        inspect(&project).err
    };
    let record = "usr/lib/keller/image.json";
    let told = with(record, costly((2 << 20) - 10));
    let said = "reading the root file system: reading usr/lib/keller/image.json: more than 200000 values";
    assert_eq!(told.matches(said).count(), 2, "{told}");
    let told = with(record, "[".repeat(1 << 20));
    assert!(told.contains("recursion limit exceeded"), "{told}");
    let told = with(record, r#"{"packages":{"a":"1","a":"2"}}"#.to_owned());
    assert!(told.contains("\"a\" stands twice in one object"), "{told}");
    // As many as there may be.
    let many: Vec<String> = (0..40_000)
        .map(|number| format!("\"{number}\":\"\u{1b}[2J\"").replace('\u{1b}', "\\u001b"))
        .collect();
    let told = with(
        record,
        format!(r#"{{"packages":{{{}}},"containers":{{"x":{{{}}}}}}}"#, many.join(","), many.join(",")),
    );
    assert!(!told.contains('\u{1b}'), "{told}");
    let mut root = Tree::new(0);
    root.symlink("usr/lib/os-release", "os-release").unwrap();
    root.symlink(record, "/usr/lib/../lib/keller/image.json").unwrap();
    disk(&project, &Tree::new(0), &root);
    let told = inspect(&project).err;
    assert!(told.contains("reading the root file system: reading usr/lib/os-release: "), "{told}");
}

/// What is wrong with one is told before anything of a repository is changed.
#[test]
fn none_of_them_is_published() {
    let project = Project::new();
    project.run(&["keys", "init", "keys"]).good();
    let mut root = Tree::new(0);
    root.file("usr/lib/os-release", 0o644, "IMAGE_VERSION=1\n").unwrap();
    root.file("usr/lib/keller/image.json", 0o644, costly((2 << 20) - 10)).unwrap();
    let mut esp = Tree::new(0);
    esp.file("EFI/Linux/node_1.efi", 0o644, program(5, 0, u32::MAX)).unwrap();
    disk(&project, &esp, &root);
    let ran = within(&mut project.keller(&["publish", "--to", "repository", "--keys", "keys", DISK]));
    let told = ran.error();
    assert!(told.contains(DISK) && told.contains("more than 200000 values"), "{told}");
    assert_eq!(project.names("repository/targets").len() + project.names("repository/blobs").len(), 0);
}
