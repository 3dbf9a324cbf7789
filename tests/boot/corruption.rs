//! One flipped bit in a file that is first read after login.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keller::disk::{FileDevice, SectorSize, gpt};
use keller::fs::erofs;
use keller::tree::{Content, Kind};

use super::{Node, copy_of_image};

/// Read by nothing at boot.
const FILE: &str = "/usr/share/common-licenses/GPL-3";

#[test]
fn flipped_bit_panics_and_reboots() {
    let image = copy_of_image("flipped");
    flip_a_bit(&image);
    let mut node = Node::boot(&image, &[]);
    let _ = node.try_run(&format!("cat {FILE}"));
    node.expect("verity", Duration::from_secs(60));
    node.expect("Kernel panic - not syncing", Duration::from_secs(60));
    // The firmware or the next kernel speaks: the node did reboot.
    node.expect("Linux version", Duration::from_secs(180));
}

/// Flips a bit in the first byte of [`FILE`], which the image's own file system leads to.
fn flip_a_bit(image: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let disk = FileDevice::image(file.try_clone().unwrap(), SectorSize::B512).unwrap();
    let table = gpt::read_any(&disk).unwrap().table;
    let root = table.by_type(gpt::types::ROOT).next().unwrap();
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
