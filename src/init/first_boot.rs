//! A first boot that loses power at any moment: the next boot ends it, and takes no file system that is not whole.
//!
//! The steps are those of [`super::boot`] for a disk with a reserve: table, state, reserve, GUIDs of both.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::table::{self, is_as_shipped};
use super::volume::{Action, Content, under_mark};
use crate::base::failure::{Doing, Failure};
use crate::base::power_cut::{Recorder, Shared, Tally};
use crate::base::{Digest, Size};
use crate::disk::layout::{RESERVE_LABEL, STATE_LABEL};
use crate::disk::slot::Release;
use crate::disk::{Device, Layout, ReadAt, SectorSize, Sizes, gpt};

/// In the order in which they are made.
const VOLUMES: [&str; 2] = [STATE_LABEL, RESERVE_LABEL];

/// What stands for the blocks that mke2fs writes, which are flushed together: where, in bytes, and what.
fn file_system(label: &str) -> Vec<(u64, Vec<u8>)> {
    let mut first = vec![0; 4096];
    first[1024 + 4] = 255;
    first[1024 + 0x18] = 2;
    first[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
    first[1024 + 0x78..][..label.len()].copy_from_slice(label.as_bytes());
    let block = |at: u64| (at, vec![at.to_le_bytes()[1] | 1; 4096]);
    vec![block(4096), block(512 << 10), block(64 << 10), (0, first)]
}

fn is_whole(partition: &impl ReadAt, label: &str) -> bool {
    file_system(label).iter().all(|(at, bytes)| {
        let mut found = vec![0; bytes.len()];
        partition.read_at(&mut found, *at).unwrap();
        found == *bytes
    })
}

/// As an image has it: both partitions blank, all GUIDs derived from the root hash.
fn image(sector_size: SectorSize) -> Vec<u8> {
    let (esp, root, reserve, state) = (Size::mib(1), Size::mib(1), Some(Size::mib(1)), Size::mib(1));
    let layout = Layout::plan(&Sizes { esp, root, reserve, state, sector_size }).unwrap();
    let release = Release { id: "node".into(), version: "1".into(), root_hash: Digest::of("root") };
    let mut bytes = vec![0; layout.disk_size as usize];
    gpt::create(&mut std::io::Cursor::new(&mut bytes), &layout.table(&release).unwrap()).unwrap();
    bytes
}

/// Boots once; what was done with each of the volumes.
fn boot(disk: &Shared) -> Result<BTreeMap<&'static str, Action>, Failure> {
    let size = disk.recorder().size();
    let mut whole = disk.view("table", 0, size);
    let mut random = 0_u128;
    let mut guid = || {
        random += 1;
        Ok(uuid::Builder::from_random_bytes((random << 100).to_be_bytes()).into_uuid())
    };
    let mut found = gpt::read_any(&whole).doing("reading the table")?;
    let plan = table::plan(&found, size, true, guid()?).doing("planning the table")?;
    if let Some(table) = plan.table {
        gpt::rewrite(&mut whole, &found, &table).doing("writing the table")?;
        found = gpt::read_any(&whole).doing("reading back the table")?;
    }
    let mut done = BTreeMap::new();
    let mut numbers = Vec::new();
    for label in VOLUMES {
        let entry = found.table.entries.iter().find(|entry| entry.label == label).unwrap();
        let mut partition = disk.view(label, entry.start, entry.size);
        let content = Content::of(&partition, label).doing("looking at a partition")?;
        let action = content.action(is_as_shipped(entry.guid), None);
        match action {
            Action::Make => {
                under_mark(
                    &mut partition,
                    || format!("making {label}"),
                    |partition| {
                        let mut blocks = file_system(label).into_iter();
                        blocks.try_for_each(|(at, bytes)| partition.write_at(&bytes, at)).doing("mke2fs")
                    },
                )?;
            }
            Action::Check if !is_whole(&partition, label) => {
                return Err(Failure::new("checking", format!("{label} is not whole")));
            }
            Action::Check => {}
            Action::Refuse(doubt) => return Err(Failure::new("refusing", format!("{label}: {doubt:?}"))),
        }
        done.insert(label, action);
        numbers.push(entry.number);
    }
    if let Some(table) = table::owned(&found, &numbers, guid)? {
        gpt::rewrite(&mut whole, &found, &table).doing("writing the GUIDs")?;
    }
    Ok(done)
}

/// Whether each volume has a GUID of its own, by its label.
fn own_guids(disk: &impl ReadAt) -> BTreeMap<&'static str, bool> {
    let table = gpt::read_any(disk).unwrap().table;
    let guid =
        |label: &str| -> Uuid { table.entries.iter().find(|entry| entry.label == label).unwrap().guid };
    VOLUMES.map(|label| (label, !is_as_shipped(guid(label)))).into()
}

fn recorded(sector_size: SectorSize) -> Recorder {
    let shared = Shared::new(Recorder::new(image(sector_size), sector_size));
    let done = boot(&shared).unwrap();
    assert!(done.values().all(|action| *action == Action::Make), "{done:?}");
    let recorder = shared.recorder().clone();
    assert_eq!(recorder.unflushed(), 0);
    recorder
}

/// Boots what each loss of power leaves; what is wrong with the first of it that is wrong.
fn cut(recorder: &Recorder, sector_size: SectorSize) -> (Tally, Vec<String>) {
    let mut wrong = Vec::new();
    let tally = recorder.each_distinct_cut(|bytes, what| {
        if !wrong.is_empty() {
            return;
        }
        let disk = Shared::new(Recorder::new(bytes.to_vec(), sector_size));
        let own = own_guids(&*disk.recorder());
        match boot(&disk) {
            Err(failure) => wrong.push(format!("{what}: {failure}")),
            // Under its own GUID a volume may hold what nobody may lose.
            Ok(done) => wrong.extend(
                done.iter()
                    .filter(|(label, action)| own[*label] && **action != Action::Check)
                    .map(|(label, action)| format!("{what}: {action:?} of {label}, which was in use")),
            ),
        }
        if !own_guids(&*disk.recorder()).values().all(|own| *own) {
            wrong.push(format!("{what}: a GUID of the image is left"));
        }
        let again = boot(&disk);
        if !again.as_ref().is_ok_and(|done| done.values().all(|action| *action == Action::Check)) {
            wrong.push(format!("{what}: the boot after the next: {again:?}"));
        }
    });
    (tally, wrong)
}

#[test]
fn every_power_cut_of_a_first_boot_is_ended_by_the_next() {
    for sector_size in [SectorSize::B512, SectorSize::B4096] {
        let recorder = recorded(sector_size);
        let (tally, wrong) = cut(&recorder, sector_size);
        assert!(wrong.is_empty(), "{sector_size:?}: {:#?}", wrong);
        // The table twice, three flushes for each file system, the GUIDs, and the end.
        assert_eq!((tally.epochs, tally.sampled), (11, 0));
        assert!(tally.distinct > 200, "{tally:?}");
    }
}

/// What the test above would not let pass.
#[test]
fn a_first_boot_in_another_order_is_seen() {
    for sector_size in [SectorSize::B512, SectorSize::B4096] {
        let recorder = recorded(sector_size);
        let [state, reserve] = VOLUMES.map(|label| recorder.epochs_of(label));
        let table = recorder.epochs_of("table");
        let (guids, marks) = (&table[table.len() - 2..], [state[0], reserve[0]]);
        for at in [state[0], reserve[0]] {
            let mut early = recorder.clone();
            let moved: Vec<_> = early.epochs.drain(guids[0]..=guids[1]).collect();
            early.epochs.splice(at..at, moved);
            assert!(!cut(&early, sector_size).1.is_empty(), "GUIDs before flush {at} are not seen");
        }
        for mark in marks {
            let mut unmarked = recorder.clone();
            unmarked.epochs.remove(mark);
            assert!(!cut(&unmarked, sector_size).1.is_empty(), "no mark in flush {mark} is not seen");
        }
        for flush in [state[0], state[1], reserve[0], reserve[1]] {
            let mut careless = recorder.clone();
            careless.epochs[flush].flushed = None;
            assert!(!cut(&careless, sector_size).1.is_empty(), "flush {flush} that is left out is not seen");
        }
    }
}
