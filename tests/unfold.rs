//! An image as its first boot would leave its table, without that boot: for tests that change a node's disk from outside.

use std::fs::OpenOptions;
use std::path::Path;

use keller::disk::gpt;
use keller::disk::slot::{self, Parts};
use keller::disk::unfold::Own;
use keller::disk::{FileDevice, Layout, SectorSize, Slot};
use keller::image::node_disk;

/// The disk of the node that the image at `path` becomes.
pub fn node(path: &Path) -> Layout {
    let file = std::fs::File::open(path).unwrap();
    node_disk::of_image(file).unwrap().expect("an image")
}

/// Makes the image at `path` the least disk of a node, whose file systems are yet to be made.
pub fn unfold(path: &Path) {
    let layout = node(path);
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    file.set_len(layout.disk_size).unwrap();
    let mut disk = FileDevice::image(file, SectorSize::B512).unwrap();
    let found = gpt::read_any(&disk).unwrap();
    let [disk_guid, esp] = [3, 4].map(|byte| uuid::Builder::from_random_bytes([byte; 16]).into_uuid());
    let own = Own { disk: disk_guid, esp };
    let table = layout.unfold(&found.table, layout.disk_size, true, own).unwrap();
    gpt::rewrite(&mut disk, &found, &table).unwrap();
}

/// The slots of an image or of a node.
pub fn slots(table: &gpt::Table) -> Result<Vec<(Slot, Parts<'_>)>, slot::SlotError> {
    match slot::shipped(table) {
        Some(parts) => Ok(vec![(Slot::A, parts)]),
        None => slot::slots(table).map(Vec::from),
    }
}
