use std::io::Cursor;

use uuid::{Uuid, uuid};

use super::*;
use crate::base::device::ReadAt;
use crate::base::power_cut::{Recorder, copy};
use crate::base::width::to_usize;

/// A small "mebibyte": hundreds of copies of the disk are made.
const UNIT: u64 = 32 << 10;
const BOTH: [SectorSize; 2] = [SectorSize::B512, SectorSize::B4096];

fn sample(sector_size: SectorSize, disk_size: u64) -> Table {
    let mut table =
        Table::new(uuid!("00112233-4455-6677-8899-aabbccddeeff"), sector_size, disk_size).unwrap();
    for (number, type_guid, label) in
        [(1, types::ESP, "esp"), (2, types::ROOT, "node_1.0"), (3, types::VAR, "keller-state")]
    {
        table.entries.push(Entry {
            number,
            type_guid,
            guid: Uuid::from_u128(0x1234 + u128::from(number)),
            label: label.to_owned(),
            start: u64::from(number) * UNIT,
            size: UNIT,
            attributes: attributes::NO_AUTO,
        });
    }
    table
}

fn made(sector_size: SectorSize, disk_size: u64) -> (Table, Vec<u8>) {
    let table = sample(sector_size, disk_size);
    let mut disk = Cursor::new(vec![0; to_usize(disk_size)]);
    create(&mut disk, &table).unwrap();
    (table, disk.into_inner())
}

#[test]
fn our_encoding_and_that_of_the_crate_are_the_same_bytes() {
    for sector_size in BOTH {
        let (table, bytes) = made(sector_size, 5 * UNIT);
        let found = read(bytes.as_slice(), sector_size).unwrap();
        assert_eq!(found.table, table);
        assert!(matches!((found.source, &found.other), (Which::Primary, Other::Same)));
        let mut disk = Recorder::new(bytes.clone(), sector_size);
        rewrite(&mut disk, &found, &table).unwrap();
        assert!(disk.bytes() == bytes, "{sector_size:?}");
        assert_eq!(read_any(bytes.as_slice()).unwrap().table.sector_size, sector_size);
    }
}

/// Makes the change, cuts it everywhere; old or new must be readable, and mending must lead to two whole
/// copies of what was read.
fn cut_everywhere(bytes: &[u8], sector_size: SectorSize, change: impl FnOnce(&mut Table)) -> Vec<u8> {
    let found = read(bytes, sector_size).unwrap();
    let mut new = found.table.clone();
    change(&mut new);
    let mut disk = Recorder::new(bytes.to_vec(), sector_size);
    rewrite(&mut disk, &found, &new).unwrap();
    let mut cuts = 0;
    disk.each_cut(|state, cut| {
        cuts += 1;
        let seen = read(state, sector_size).unwrap_or_else(|error| panic!("{cut}: {error}"));
        assert!(seen.table == found.table || seen.table == new, "{cut}: {:?}", seen.table);
        let mut again = Recorder::new(copy(state), sector_size);
        rewrite(&mut again, &seen, &seen.table).unwrap();
        let mended = read(again.bytes(), sector_size).unwrap();
        assert!(matches!((mended.source, &mended.other), (Which::Primary, Other::Same)), "{cut}");
        assert!(mended.table == seen.table, "{cut}");
    });
    assert!(cuts > 300, "{cuts}");
    let result = disk.bytes().to_vec();
    assert_eq!(read(result.as_slice(), sector_size).unwrap().table, new);
    result
}

#[test]
fn every_power_cut_leaves_the_old_table_or_the_new() {
    for sector_size in BOTH {
        let (_, bytes) = made(sector_size, 5 * UNIT);
        let bytes = cut_everywhere(&bytes, sector_size, |table| {
            table.disk_guid = uuid!("ffffffff-0000-4000-8000-000000000001");
        });
        let bytes = cut_everywhere(&bytes, sector_size, |table| {
            table.rename(2, Uuid::from_u128(7), "node_2.0", attributes::READ_ONLY).unwrap();
        });
        // The disk grows: the backup moves.
        let mut grown = bytes.clone();
        grown.resize(9 * to_usize(UNIT), 0);
        assert!(matches!(read(grown.as_slice(), sector_size).unwrap().other, Other::NotAtEnd));
        let grown = cut_everywhere(&grown, sector_size, |table| {
            assert!(table.grow_last(9 * UNIT, UNIT).unwrap());
            assert!(!table.grow_last(9 * UNIT, UNIT).unwrap());
        });
        let table = read(grown.as_slice(), sector_size).unwrap().table;
        assert_eq!(table.entry(3).unwrap().end() / UNIT, 8);
        // A broken primary to begin with: then it is written first.
        let mut broken = bytes;
        broken[to_usize(sector_size.bytes()) * 2 + 3] ^= 1;
        let found = read(broken.as_slice(), sector_size).unwrap();
        assert!(matches!(found.other, Other::Broken(CopyError::EntriesChecksum { .. })));
        cut_everywhere(&broken, sector_size, |table| table.disk_guid = Uuid::from_u128(9));
    }
}

#[test]
fn the_backup_at_its_old_place_is_found_when_only_the_primary_entries_are_torn() {
    let (table, mut bytes) = made(SectorSize::B512, 5 * UNIT);
    bytes.resize(9 * to_usize(UNIT), 0);
    bytes[1024] ^= 1;
    let found = read(bytes.as_slice(), SectorSize::B512).unwrap();
    assert_eq!((found.source, found.table), (Which::Backup, table));
}

#[test]
fn an_image_put_on_a_larger_disk_is_whole_whatever_that_disk_held_before() {
    for sector_size in BOTH {
        let (table, image) = made(sector_size, 5 * UNIT);
        let (_, mut disk) = made(sector_size, 9 * UNIT);
        let (mut used, sectors) = (read(disk.as_slice(), sector_size).unwrap().table, sector_size.bytes());
        used.disk_guid = Uuid::from_u128(1);
        let mut recorder = Recorder::new(disk.clone(), sector_size);
        rewrite(&mut recorder, &read(disk.as_slice(), sector_size).unwrap(), &used).unwrap();
        disk = recorder.bytes().to_vec();
        disk[..image.len()].copy_from_slice(&image);
        let found = read(disk.as_slice(), sector_size).unwrap();
        assert_eq!((found.source, &found.table), (Which::Primary, &table));
        assert!(matches!(found.other, Other::NotAtEnd), "{:?}", found.other);
        // The image's own backup is damaged: that is no mere growth.
        disk[image.len() - to_usize(sectors)] ^= 1;
        let found = read(disk.as_slice(), sector_size).unwrap();
        assert!(matches!(found.other, Other::Differs), "{:?}", found.other);
    }
}

#[test]
fn the_primary_wins_over_a_backup_that_says_something_else() {
    let (_, old) = made(SectorSize::B512, 5 * UNIT);
    let found = read(old.as_slice(), SectorSize::B512).unwrap();
    let mut new = found.table.clone();
    new.disk_guid = Uuid::from_u128(1);
    let mut disk = Recorder::new(old.clone(), SectorSize::B512);
    rewrite(&mut disk, &found, &new).unwrap();
    let mut mixed = old;
    let backup = 5 * to_usize(UNIT) - 33 * 512;
    mixed[backup..].copy_from_slice(&disk.bytes()[backup..]);
    let seen = read(mixed.as_slice(), SectorSize::B512).unwrap();
    assert!(seen.table == found.table && matches!(seen.other, Other::Differs));
}

#[test]
fn refusals_say_what_and_where() {
    let (table, bytes) = made(SectorSize::B512, 5 * UNIT);
    let text = |bytes: &[u8]| read_any(bytes).unwrap_err().to_string();
    assert!(
        text(&bytes[..3 * to_usize(UNIT)]).contains("cut short"),
        "{}",
        text(&bytes[..3 * to_usize(UNIT)])
    );
    assert!(text(&[0; 65536]).contains("this is not a disk image"), "{}", text(&[0; 65536]));
    assert!(text(&[]).contains("not a disk image"), "{}", text(&[]));
    assert!(read_any([0x55; 4096].as_slice()).is_err());

    let mut bad = table.clone();
    bad.entries[1].start = UNIT;
    assert!(bad.check().unwrap_err().to_string().contains("overlaps partition 1"));
    bad.entries[1].start = 5 * UNIT;
    assert!(create(&mut Cursor::new(vec![0; 5 * to_usize(UNIT)]), &bad).is_err());
    let mut bad = table.clone();
    bad.entries[0].label = "x".repeat(37);
    assert!(matches!(
        create(&mut Cursor::new(vec![0; 5 * to_usize(UNIT)]), &bad),
        Err(GptError::LabelTooLong { .. })
    ));
    assert!(bad.rename(9, Uuid::nil(), "", 0).is_err());
    assert!(bad.grow_last(UNIT, UNIT).is_err() && Table::new(Uuid::nil(), SectorSize::B4096, 1000).is_err());
}

#[test]
fn no_single_flipped_byte_of_the_tables_is_believed() {
    let (table, bytes) = made(SectorSize::B512, 5 * UNIT);
    let end = bytes.len();
    // All of both headers, and the used entries of both copies.
    let places =
        (512..1024).chain(1024..1408).chain(end - 33 * 512..end - 33 * 512 + 384).chain(end - 512..end);
    for at in places {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert_eq!(read(flipped.as_slice(), SectorSize::B512).unwrap().table, table, "byte {at}");
    }
    assert_eq!(bytes.as_slice().size(), 5 * UNIT);
}

/// Another of several might be what the firmware reads.
#[test]
fn the_esp_is_the_one_that_was_told_or_the_only_one() {
    let (mut table, _) = made(SectorSize::B512, 16 << 20);
    let number = |table: &Table, told| table.esp(told).map(|entry| entry.number);
    table.entries.iter_mut().for_each(|entry| entry.type_guid = types::LINUX);
    assert_eq!(number(&table, None), None);
    let (first, second) = (table.entries[0].clone(), table.entries[1].clone());
    table.entries[1].type_guid = types::ESP;
    // What was told may be of another disk, or no ESP at all.
    for told in [None, Some(second.guid), Some(first.guid), Some(Uuid::from_u128(77))] {
        assert_eq!(number(&table, told), Some(second.number));
    }
    table.entries[0].type_guid = types::ESP;
    assert_eq!(number(&table, Some(second.guid)), Some(second.number));
    assert_eq!(number(&table, Some(first.guid)), Some(first.number));
    assert_eq!([None, Some(Uuid::from_u128(77))].map(|told| number(&table, told)), [None, None]);
}
