//! A version that was good, and whose disk goes bad beside another.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keller::base::device::{Device, ReadAt, Window};
use keller::boot::{entries, starts};
use keller::disk::gpt::{self, Entry, types};
use keller::disk::{FileDevice, SectorSize, slot};
use keller::fs::erofs;
use keller::fs::fat::{Editor, Reader};
use keller::tree::{Content, Kind};

use super::disk::boot_until;
use super::keller;

/// Read when /init is done, and before anything can say that the boot is good.
const FILE: &str = "/usr/lib/systemd/systemd";

#[test]
fn a_bad_block_in_a_blessed_version_ends_in_the_other() {
    let (image, newer) = (build("1.0.0"), build("1.0.1"));
    install(&image, &newer);
    let console = boot_until("worn login:", &image, &[]);
    let panics = console.matches("Kernel panic - not syncing").count();
    assert_eq!(panics, starts::LIMIT as usize, "{console}");
    assert!(console.contains("worn_1.0.1+0.efi from now on"), "{console}");

    let file = OpenOptions::new().read(true).write(true).open(&image).unwrap();
    let mut disk = FileDevice::image(file, SectorSize::B512).unwrap();
    let esp = entry(&disk, types::ESP);
    let mut esp = Window::new(&mut disk, esp.start, esp.size);
    let mut files: Vec<_> = Editor::open(&mut esp)
        .unwrap()
        .list()
        .unwrap()
        .iter()
        .filter_map(|listed| entries::parse(listed.path.strip_prefix("EFI/Linux/")?))
        .collect();
    entries::order(&mut files);
    let files: Vec<&str> = files.iter().map(|entry| entry.file.as_str()).collect();
    assert_eq!(files, ["worn_1.0.0.efi", "worn_1.0.1+0.efi"]);
}

/// A node that is made in seconds, in one version of two.
fn build(version: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("worn");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = folder.join("node.yaml");
    let text = format!(
        "keller: 1\nid: worn\nversion: {version}\n\
         include: [keller:manifests/components/base.yaml, keller:manifests/components/kernel-cloud.yaml]\n\
         users: [{{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}}]\n\
         kernel: {{cmdline: [\"console=ttyS0,115200\"]}}\n\
         disk: {{esp: 64MiB, root: 512MiB, state: {{min: 128MiB}}}}\noutputs: [raw]\n"
    );
    std::fs::write(&manifest, text).unwrap();
    // What an earlier run locked may be gone from the mirror.
    let _ = std::fs::remove_file(folder.join("node.lock"));
    let image = folder.join(format!("worn_{version}.raw"));
    let _ = std::fs::remove_file(image.with_extension("uefi-vars"));
    let status = keller().args(["build", "--quiet", "--output"]).arg(&folder).arg(&manifest).status();
    assert!(status.expect("keller starts").success(), "worn {version} does not build");
    image
}

/// Puts what `newer` has into the second slot of `image`, blessed and counted, with one bit flipped.
fn install(image: &Path, newer: &Path) {
    let from = FileDevice::image(File::open(newer).unwrap(), SectorSize::B512).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let mut to = FileDevice::image(file.try_clone().unwrap(), SectorSize::B512).unwrap();

    let source = gpt::read_any(&from).unwrap();
    let target = gpt::read_any(&to).unwrap();
    let [(_, full), _] = slot::slots(&source.table).unwrap();
    let [_, (_, idle)] = slot::slots(&target.table).unwrap();
    let mut table = target.table.clone();
    for (full, idle) in [(full.root, idle.root), (full.verity, idle.verity)] {
        assert!(full.size <= idle.size);
        let mut bytes = vec![0; 1 << 20];
        for at in (0..full.size).step_by(bytes.len()) {
            from.read_at(&mut bytes, full.start + at).unwrap();
            if bytes.iter().any(|byte| *byte != 0) {
                to.write_at(&bytes, idle.start + at).unwrap();
            }
        }
        table.rename(idle.number, full.guid, &full.label, full.attributes).unwrap();
    }
    gpt::rewrite(&mut to, &target, &table).unwrap();
    flip_a_bit(&file, idle.root);

    let esp = entry(&from, types::ESP);
    let path = "EFI/Linux/worn_1.0.1.efi";
    let uki = Reader::open(Window::new(&from, esp.start, esp.size)).unwrap().read(path, 1 << 30).unwrap();
    let esp = entry(&to, types::ESP);
    let mut esp = Window::new(&mut to, esp.start, esp.size);
    let mut editor = Editor::open(&mut esp).unwrap();
    editor.put(path, &mut uki.as_slice(), uki.len() as u64).unwrap();
    // As the agent does when a boot is good.
    starts::reset(&mut editor, "worn_1.0.1.efi").unwrap();
    to.flush().unwrap();
}

fn entry(disk: &FileDevice, kind: uuid::Uuid) -> Entry {
    gpt::read_any(disk).unwrap().table.by_type(kind).next().unwrap().clone()
}

/// In the first byte of [`FILE`].
fn flip_a_bit(file: &File, root: &Entry) {
    let bytes =
        Content::Slice { file: Arc::new(file.try_clone().unwrap()), offset: root.start, len: root.size };
    let tree = erofs::Image::open(bytes).unwrap().tree().unwrap();
    let node = tree.node(tree.resolve(FILE).unwrap());
    let Kind::File(Content::Slice { offset, .. }) = node.kind else {
        panic!("{FILE} is no file of the image")
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}
