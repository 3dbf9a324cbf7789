//! A version that was good, and whose disk goes bad beside another.

use std::fs::OpenOptions;

use keller::base::device::Window;
use keller::boot::{entries, starts};
use keller::disk::gpt::types;
use keller::disk::{FileDevice, SectorSize, Slot};
use keller::fs::fat::Editor;

use super::disk::boot_until;
use super::pair::{build, entry, flip_a_bit, install};

/// Read when /init is done, and before anything can say that the boot is good.
const FILE: &str = "/usr/lib/systemd/systemd";

#[test]
fn a_bad_block_in_a_blessed_version_ends_in_the_other() {
    let (image, newer) = (build("worn", "1.0.0", ""), build("worn", "1.0.1", ""));
    install(&image, &newer, "worn", None);
    flip_a_bit(&image, Slot::B, FILE);
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
