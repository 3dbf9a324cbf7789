//! Two versions of a small node on one disk, and a disk that went bad: made without a node that updates itself.

use std::fs::{File, OpenOptions};
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use keller::base::device::{Device, ReadAt, Window};
use keller::boot::{entries, pe, starts};
use keller::disk::gpt::{self, Entry, types};
use keller::disk::{FileDevice, SectorSize, Slot, slot};
use keller::fs::erofs;
use keller::fs::fat::{Editor, Reader};
use keller::tree::{Content, Kind};

use super::keller;
use super::scratch::{Disk, Scratch};
use crate::unfold::unfold;

/// The id of the node, in all versions.
pub const ID: &str = "pair";

/// A node that is made in seconds, in one version of two; `health` are lines below that key of its manifest.
fn build(name: &str, version: &str, health: &str) -> Disk {
    // What an earlier run locked may be gone from the mirror.
    let folder = Scratch::new(name);
    let manifest = folder.join("node.yaml");
    let files = match health.contains("files:") {
        true => String::new(),
        false => format!("files: [{{path: /etc/version-of-this, content: \"{version}\\n\"}}]\n"),
    };
    let text = format!(
        "keller: 1\nid: {ID}\nversion: {version}\n\
         include: [keller:manifests/components/base.yaml, keller:manifests/components/kernel-cloud.yaml, \
         keller:manifests/components/ssh.yaml]\n\
         users: [{{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}}]\n\
         {files}\
         kernel: {{cmdline: [\"console=ttyS0,115200\"]}}\n\
         health:\n  stable: 1s\n{health}\
         disk: {{esp: 128MiB, root: 512MiB, reserve: 64MiB, state: {{min: 256MiB}}}}\noutputs: [raw]\n"
    );
    std::fs::write(&manifest, text).unwrap();
    let status = keller().args(["build", "--quiet", "--output"]).arg(&*folder).arg(&manifest).status();
    assert!(status.expect("keller starts").success(), "{name} {version} does not build");
    let image = folder.join(format!("{ID}_{version}.raw"));
    folder.into_disk(image)
}

/// What all tests share.
fn images() -> &'static [Disk; 2] {
    static IMAGES: OnceLock<[Disk; 2]> = OnceLock::new();
    let build = |version| build(&format!("{ID}-{version}"), version, "  deadline: 10min\n");
    IMAGES.get_or_init(|| ["1.0.0", "1.0.1"].map(build))
}

/// A disk of its own for the test `name`, as the first boot of 1.0.0 finds it once it has unfolded it.
pub fn older(name: &str) -> Disk {
    let disk = Disk::copy(&images()[0], name);
    unfold(&disk);
    disk
}

/// The image of 1.0.0, not to be changed: a small node, for what has nothing to do with containers.
pub fn image() -> &'static Path {
    &images()[0]
}

/// The image of 1.0.1, not to be changed.
pub fn newer() -> &'static Path {
    &images()[1]
}

/// Another 1.0.1, which asks for more before a boot is good: lines below `health` in its manifest.
pub fn newer_with(name: &str, health: &str) -> Disk {
    build(name, "1.0.1", health)
}

/// Another 1.0.1 with one service more, which is in its `health:` and dies at once; `word` is one more for `health:`.
pub fn newer_that_dies(name: &str, word: &str) -> Disk {
    let more = format!(
        "  units: [dies.service]\n  deadline: 10min\n{word}services: {{enable: [dies.service]}}\nfiles:\n\
         - {{path: /etc/version-of-this, content: \"1.0.1\\n\"}}\n\
         - path: /usr/lib/systemd/system/dies.service\n  content: |\n    [Service]\n    \
         ExecStart=/bin/sh -c 'echo no table of customers >&2; exit 3'\n    Restart=on-failure\n    \
         [Install]\n    WantedBy=multi-user.target\n"
    );
    build(name, "1.0.1", &more)
}

/// As [`older`], and 1.0.1, whose kernel image goes through `change` before, has so many `tries`.
pub fn on_trial(name: &str, tries: u8, change: impl FnOnce(&mut Vec<u8>)) -> Disk {
    let image = older(name);
    install_changed(&image, newer(), Some(tries), change);
    image
}

/// Puts version 1.0.1, which is in `newer`, into the second slot of `image`: with `tries`, or blessed and counted as
/// the agent does when a boot is good.
pub fn install(image: &Path, newer: &Path, tries: Option<u8>) {
    install_changed(image, newer, tries, |_| ());
}

/// The same with a kernel image that goes through `change` before.
fn install_changed(image: &Path, newer: &Path, tries: Option<u8>, change: impl FnOnce(&mut Vec<u8>)) {
    let from = FileDevice::image(File::open(newer).unwrap(), SectorSize::B512).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let mut to = FileDevice::image(file, SectorSize::B512).unwrap();
    let source = gpt::read_any(&from).unwrap();
    let target = gpt::read_any(&to).unwrap();
    let full = slot::shipped(&source.table).unwrap();
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

    let mut uki = kernel_image(newer, "1.0.1");
    change(&mut uki);
    put_entry(&mut to, "1.0.1", tries, &uki);
}

/// The kernel image of `version`, which is in `image`.
fn kernel_image(image: &Path, version: &str) -> Vec<u8> {
    let from = FileDevice::image(File::open(image).unwrap(), SectorSize::B512).unwrap();
    let esp = entry(&from, types::ESP);
    let path = format!("EFI/Linux/{ID}_{version}.efi");
    Reader::open(Window::new(&from, esp.start, esp.size)).unwrap().read(&path, 1 << 30).unwrap()
}

fn put_entry(to: &mut FileDevice, version: &str, tries: Option<u8>, mut uki: &[u8]) {
    let esp = entry(to, types::ESP);
    let mut esp = Window::new(&mut *to, esp.start, esp.size);
    let mut editor = Editor::open(&mut esp).unwrap();
    let counter = tries.map(|left| entries::Counter { left: left.into(), done: 0 });
    let path = format!("{}/{}", entries::FOLDER, entries::file_name(ID, version, counter));
    let size = uki.len() as u64;
    editor.put(&path, &mut uki, size).unwrap();
    if tries.is_none() {
        starts::reset(&mut editor, &format!("{ID}_{version}.efi")).unwrap();
    }
    to.flush().unwrap();
}

/// Puts a `version` into the EFI system partition of `image` that is a kernel image and nothing else, with so many `tries`:
/// that of 1.0.0 or 1.0.1, which goes through `change` before.
pub fn add_entry(image: &Path, version: &str, tries: u8, from: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut uki = kernel_image(if from == "1.0.0" { image } else { newer() }, from);
    let release = section(&mut uki, ".osrel");
    let text = str::from_utf8(release).unwrap().replace(from, version);
    release.copy_from_slice(text.as_bytes());
    change(&mut uki);
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    put_entry(&mut FileDevice::image(file, SectorSize::B512).unwrap(), version, Some(tries), &uki);
}

/// The bytes of a section of a kernel image.
pub fn section<'u>(uki: &'u mut [u8], name: &str) -> &'u mut [u8] {
    let sections = pe::sections(&mut Cursor::new(&*uki)).unwrap();
    let section = sections.iter().find(|section| section.name == name).unwrap();
    &mut uki[section.raw_offset as usize..][..section.virtual_size as usize]
}

/// The boot loader's entries, the first being the one that it would start.
pub fn entries_of(image: &Path) -> Vec<String> {
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let mut disk = FileDevice::image(file, SectorSize::B512).unwrap();
    let esp = entry(&disk, types::ESP);
    let mut esp = Window::new(&mut disk, esp.start, esp.size);
    let listed = Editor::open(&mut esp).unwrap().list().unwrap();
    let files = listed.iter().filter_map(|listed| listed.path.strip_prefix("EFI/Linux/"));
    let mut entries: Vec<_> = files.filter_map(entries::parse).collect();
    entries::order(&mut entries);
    entries.into_iter().map(|entry| entry.file).collect()
}

/// The first partition of a type.
pub fn entry(disk: &FileDevice, kind: uuid::Uuid) -> Entry {
    gpt::read_any(disk).unwrap().table.by_type(kind).next().unwrap().clone()
}

/// Flips a bit in the first byte of `path`, to which the file system in `slot` leads.
pub fn flip_a_bit(image: &Path, slot: Slot, path: &str) {
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let disk = FileDevice::image(file.try_clone().unwrap(), SectorSize::B512).unwrap();
    let table = gpt::read_any(&disk).unwrap().table;
    let slots = slot::slots(&table).unwrap();
    let root = slots.iter().find(|(which, _)| *which == slot).unwrap().1.root;
    let bytes =
        Content::Slice { file: Arc::new(file.try_clone().unwrap()), offset: root.start, len: root.size };
    let tree = erofs::Image::open(bytes).unwrap().tree().unwrap();
    let node = tree.node(tree.resolve(path).unwrap());
    let Kind::File(Content::Slice { offset, .. }) = node.kind else {
        panic!("{path} is no file of the image")
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}
