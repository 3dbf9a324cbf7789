//! Partition tables: sgdisk, sfdisk and the crate `gpt` as judges.

use std::fs::File;
use std::path::Path;

use keller::base::{Digest, Size};
use keller::disk::gpt::{self, types};
use keller::disk::layout;
use keller::disk::unfold::Own;
use keller::disk::{FileDevice, Layout, Release, SectorSize, Sizes};

use uuid::Uuid;

use super::tool::{run, tool};

fn release(version: &str) -> Release {
    Release { id: "node".to_owned(), version: version.to_owned(), root_hash: Digest::of(version) }
}

fn image(path: &Path, sector_size: SectorSize) -> Layout {
    let (esp, root, reserve, state) = (Size::mib(64), Size::mib(100), Some(Size::mib(64)), Size::mib(32));
    let sizes = Sizes { esp, root, reserve, state, sector_size };
    let layout = Layout::plan(&sizes).unwrap();
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(layout.disk_size).unwrap();
    gpt::create(&mut &file, &layout.table(&release("1.0.0")).unwrap()).unwrap();
    layout
}

fn open(path: &Path, sector_size: SectorSize) -> FileDevice {
    FileDevice::image(File::options().read(true).write(true).open(path).unwrap(), sector_size).unwrap()
}

#[track_caller]
fn verified(path: &Path) {
    let Some(mut sgdisk) = tool("sgdisk") else { return };
    let said = run(sgdisk.arg("-v").arg(path));
    assert!(said.contains("No problems found"), "{said}");
    assert!(!said.to_lowercase().contains("warning") && !said.contains("Caution"), "{said}");
}

#[test]
fn sgdisk_finds_no_problems_before_and_after_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let layout = image(&path, SectorSize::B512);
    verified(&path);
    // An update fills slot B.
    let mut disk = open(&path, SectorSize::B512);
    let found = gpt::read(&disk, SectorSize::B512).unwrap();
    let mut table = found.table.clone();
    for (number, identity) in [(4, release("2.0.0").root()), (5, release("2.0.0").verity())] {
        table.rename(number, identity.guid, &identity.label, identity.attributes).unwrap();
    }
    gpt::rewrite(&mut disk, &found, &table).unwrap();
    verified(&path);
    // The disk grows, and with it the state partition.
    disk.file().set_len(layout.disk_size + (1 << 30)).unwrap();
    let mut disk = open(&path, SectorSize::B512);
    let found = gpt::read(&disk, SectorSize::B512).unwrap();
    let mut table = found.table.clone();
    assert!(table.grow_last(layout.disk_size + (1 << 30), layout::ALIGNMENT).unwrap());
    gpt::rewrite(&mut disk, &found, &table).unwrap();
    verified(&path);
    let Some(mut sgdisk) = tool("sgdisk") else { return };
    let said = run(sgdisk.args(["-i", "5"]).arg(&path));
    assert!(said.contains("node_2.0.0_verity"), "{said}");
}

#[test]
fn sgdisk_finds_no_problems_in_an_image_and_in_the_node_that_it_becomes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let (esp, root, reserve, state) = (Size::mib(64), Size::mib(100), Some(Size::mib(64)), Size::mib(32));
    let layout = Layout::plan(&Sizes { esp, root, reserve, state, sector_size: SectorSize::B512 }).unwrap();
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(layout.image_size(20 << 20)).unwrap();
    gpt::create(&mut &file, &layout.image_table(&release("1.0.0"), 20 << 20).unwrap()).unwrap();
    verified(&path);
    let size = layout.disk_size + (1 << 30) + 512;
    file.set_len(size).unwrap();
    let mut disk = open(&path, SectorSize::B512);
    let found = gpt::read(&disk, SectorSize::B512).unwrap();
    let own = Own { disk: Uuid::from_u128(7), esp: Uuid::from_u128(8) };
    gpt::rewrite(&mut disk, &found, &layout.unfold(&found.table, size, true, own).unwrap()).unwrap();
    verified(&path);
}

#[test]
fn sfdisk_reads_what_was_laid_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let layout = image(&path, SectorSize::B512);
    let Some(mut sfdisk) = tool("sfdisk") else { return };
    let json: serde_json::Value = serde_json::from_str(&run(sfdisk.arg("-J").arg(&path))).unwrap();
    let table = &json["partitiontable"];
    assert_eq!(table["label"], "gpt");
    for (said, meant) in table["partitions"].as_array().unwrap().iter().zip(&layout.partitions) {
        assert_eq!(said["start"].as_u64().unwrap() * 512, meant.start);
        assert_eq!(said["size"].as_u64().unwrap() * 512, meant.size);
        let type_guid = meant.role.type_guid().to_string().to_uppercase();
        assert_eq!(said["type"], type_guid);
    }
    let root = &table["partitions"][1];
    assert_eq!(root["name"], "node_1.0.0");
    assert_eq!(root["attrs"], "GUID:60");
    assert_eq!(table["partitions"][3]["attrs"], "GUID:60,63");
    assert_eq!(table["partitions"][5]["name"], "keller-reserve");
    assert_eq!(table["partitions"][5]["attrs"], "GUID:63");
    let hash = Digest::of("1.0.0").to_hex();
    assert_eq!(root["uuid"].as_str().unwrap().replace('-', "").to_lowercase(), hash[..32]);
}

#[test]
fn the_crate_reads_what_we_rewrite() {
    let folder = tempfile::tempdir().unwrap();
    for (sector_size, theirs) in [
        (SectorSize::B512, ::gpt::disk::LogicalBlockSize::Lb512),
        (SectorSize::B4096, ::gpt::disk::LogicalBlockSize::Lb4096),
    ] {
        let path = folder.path().join(format!("{sector_size:?}"));
        image(&path, sector_size);
        let mut disk = open(&path, sector_size);
        let found = gpt::read(&disk, sector_size).unwrap();
        let mut table = found.table.clone();
        table.disk_guid = uuid::uuid!("12345678-9abc-4def-8123-456789abcdef");
        gpt::rewrite(&mut disk, &found, &table).unwrap();
        let read =
            ::gpt::GptConfig::new().logical_block_size(theirs).only_valid_headers(true).open(&path).unwrap();
        assert_eq!(*read.guid(), table.disk_guid);
        for entry in &table.entries {
            let same = &read.partitions()[&entry.number];
            assert_eq!((&same.name, same.part_guid), (&entry.label, entry.guid));
            assert_eq!(same.bytes_start(theirs).unwrap(), entry.start);
            assert_eq!(same.bytes_len(theirs).unwrap(), entry.size);
            assert_eq!(same.flags, entry.attributes);
        }
        assert_eq!(table.by_type(types::ESP).count(), 1);
    }
}
