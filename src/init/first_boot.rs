//! A first boot that loses power at any moment: the next boot ends it, and takes no file system that is not whole.
//!
//! The steps are those of [`super::boot`] for a disk with a reserve: table, state, reserve, GUIDs of both. They are tried on
//! a disk that an image was written to, whose table is yet to unfold, on the same where an earlier node has left all that
//! it had, and on a whole disk, as images were before.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use uuid::Uuid;

use super::table;
use super::volume::{Action, Content, Standing, under_mark};
use crate::base::failure::{Doing, Failure};
use crate::base::power_cut::{Recorder, Shared, States, Tally, copy};
use crate::base::{Digest, Size};
use crate::disk::gpt::{Entry, Found, Table, Which};
use crate::disk::layout::{RESERVE_LABEL, STATE_LABEL};
use crate::disk::slot::{self, Release};
use crate::disk::unfold::{Own, is_derived};
use crate::disk::{Device, Layout, ReadAt, SectorSize, Sizes, gpt};
use crate::verity::partition_guids;

/// In the order in which they are made.
const VOLUMES: [&str; 2] = [STATE_LABEL, RESERVE_LABEL];

/// Bytes of the root of the image.
const ROOT: u64 = 300 << 10;
const ALL: [Before; 3] = [Before::Whole, Before::Image, Before::OldNode];

/// What the first boot finds on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// A whole disk, as images were before they unfolded.
    Whole,
    /// An image, and blank sectors behind it.
    Image,
    /// An image, written as a sparse copy: what an earlier node had is still there, file systems and backup table.
    OldNode,
}

/// How the table is understood; only mutants do it in another way.
type Judge = fn(&Table, &Entry) -> Standing;

/// What stands for the blocks that mke2fs writes, which are flushed together: where, in bytes, and what. The `node`s are
/// told apart.
fn file_system(label: &str, node: u8) -> Vec<(u64, Vec<u8>)> {
    let mut first = vec![0; 4096];
    first[0] = node;
    first[1024 + 4] = 255;
    first[1024 + 0x18] = 2;
    first[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
    first[1024 + 0x78..][..label.len()].copy_from_slice(label.as_bytes());
    let block = |at: u64| (at, vec![at.to_le_bytes()[1] | node; 4096]);
    vec![block(4096), block(512 << 10), block(64 << 10), (0, first)]
}

/// The node that boots, and the one before it.
const THIS: u8 = 1;
const OLD: u8 = 5;

fn is_whole(partition: &impl ReadAt, label: &str) -> bool {
    file_system(label, THIS).iter().all(|(at, bytes)| {
        let mut found = vec![0; bytes.len()];
        partition.read_at(&mut found, *at).unwrap();
        found == *bytes
    })
}

fn sizes(sector_size: SectorSize) -> Sizes {
    let (esp, root, reserve, state) = (Size::mib(1), Size::mib(1), Some(Size::mib(1)), Size::mib(1));
    Sizes { esp, root, reserve, state, sector_size }
}

fn release() -> Release {
    Release { id: "node".into(), version: "1".into(), root_hash: Digest::of("root") }
}

/// A GUID of version 4.
fn random(number: u128) -> Uuid {
    uuid::Builder::from_random_bytes((number << 100).to_be_bytes()).into_uuid()
}

fn disk(before: Before, sector_size: SectorSize) -> Vec<u8> {
    let layout = Layout::plan(&sizes(sector_size)).unwrap();
    let mut bytes = vec![0; layout.disk_size as usize];
    let put = |bytes: &mut [u8], table: &Table| {
        gpt::create(&mut std::io::Cursor::new(bytes), table).unwrap();
    };
    let whole = layout.table(&release()).unwrap();
    if before == Before::OldNode {
        let release = Release { root_hash: Digest::of("old"), ..release() };
        let mut old = layout.table(&release).unwrap();
        old.disk_guid = random(99);
        old.entries.iter_mut().filter(|entry| is_derived(entry.guid)).for_each(|entry| {
            entry.guid = random(100 + u128::from(entry.number));
        });
        put(&mut bytes, &old);
        for entry in old.entries.iter().filter(|entry| VOLUMES.contains(&entry.label.as_str())) {
            for (at, block) in file_system(&entry.label, OLD) {
                bytes[(entry.start + at) as usize..][..block.len()].copy_from_slice(&block);
            }
        }
    }
    match before {
        Before::Whole => put(&mut bytes, &whole),
        Before::Image | Before::OldNode => {
            let image = layout.image_size(ROOT) as usize;
            put(&mut bytes[..image], &layout.image_table(&release(), ROOT).unwrap());
        }
    }
    // The content of what an image has.
    for entry in &whole.entries[..3] {
        bytes[entry.start as usize..][..ROOT as usize].fill(entry.number as u8);
    }
    bytes
}

/// What firmware and kernel find: the primary table, or a backup in the last sector and nowhere else.
fn found_by_others(bytes: &[u8], sector_size: SectorSize) -> Option<Found> {
    let found = gpt::read(bytes, sector_size).ok()?;
    if found.source == Which::Primary {
        return Some(found);
    }
    let mut headless = bytes.to_vec();
    let sector = sector_size.bytes() as usize;
    headless[sector..2 * sector].fill(0);
    gpt::read(headless.as_slice(), sector_size).ok()
}

/// Whether what the image had is where it was, and found there.
fn starts(bytes: &[u8], sector_size: SectorSize) -> Result<(), String> {
    let found = found_by_others(bytes, sector_size).ok_or("neither firmware nor kernel finds a table")?;
    let (root, verity) = partition_guids(&release().root_hash);
    let is_there = |entry: &Entry| {
        let content = &bytes[entry.start as usize..][..ROOT as usize];
        // Each byte is the first one: no second content is made for thousands of states.
        content[0] == entry.number as u8 && content[1..] == content[..content.len() - 1]
    };
    let entries = [found.table.by_guid(root), found.table.by_guid(verity), found.table.esp(None)];
    match entries.iter().all(|entry| entry.is_some_and(is_there)) {
        true => Ok(()),
        false => Err("what the image had is not where the table says".to_owned()),
    }
}

/// Boots once; what was done with each of the volumes.
fn boot(disk: &Shared, judge: Judge) -> Result<BTreeMap<&'static str, Action>, Failure> {
    let (size, sector_size) = (disk.recorder().size(), disk.recorder().sector_size());
    let mut whole = disk.view("table", 0, size);
    let mut count = 0_u128;
    let mut guid = || {
        count += 1;
        Ok(random(count))
    };
    let mut found = gpt::read_any(&whole).doing("reading the table")?;
    let own = Own { disk: guid()?, esp: guid()? };
    let plan = table::plan(&found, Some(&sizes(sector_size)), size, true, own).doing("planning the table")?;
    if let Some(table) = plan.table {
        gpt::rewrite(&mut whole, &found, &table).doing("writing the table")?;
        found = gpt::read_any(&whole).doing("reading back the table")?;
    }
    slot::slots(&found.table).doing("looking for the slots")?;
    let mut done = BTreeMap::new();
    let mut numbers = Vec::new();
    for label in VOLUMES {
        let entry = found.table.entries.iter().find(|entry| entry.label == label).unwrap();
        let mut partition = disk.view(label, entry.start, entry.size);
        let content = Content::of(&partition, label).doing("looking at a partition")?;
        let action = content.action(judge(&found.table, entry), None);
        match action {
            Action::Make => {
                under_mark(
                    &mut partition,
                    || format!("making {label}"),
                    |partition| {
                        let mut blocks = file_system(label, THIS).into_iter();
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
    let entry = |label: &str| table.entries.iter().find(|entry| entry.label == label);
    VOLUMES.map(|label| (label, entry(label).is_some_and(|entry| !is_derived(entry.guid)))).into()
}

fn recorded(before: Before, sector_size: SectorSize) -> Recorder {
    let shared = Shared::new(Recorder::new(disk(before, sector_size), sector_size));
    let done = boot(&shared, table::standing).unwrap();
    assert!(done.values().all(|action| *action == Action::Make), "{done:?}");
    let recorder = shared.recorder().clone();
    assert_eq!(recorder.unflushed(), 0);
    recorder
}

/// Boots what each loss of power leaves; what is wrong with the first of it that is wrong.
fn cut(recorder: &Recorder, sector_size: SectorSize) -> (Tally, Vec<String>) {
    judged(recorder, sector_size, &mut States::new(), table::standing)
}

/// The same of states that are not known to be right.
fn judged(
    recorder: &Recorder,
    sector_size: SectorSize,
    right: &mut States,
    judge: Judge,
) -> (Tally, Vec<String>) {
    let mut wrong = Vec::new();
    let tally = recorder.other_states_until(right, |bytes, cut| {
        let what = cut.what;
        if let Err(why) = starts(bytes, sector_size) {
            wrong.push(format!("{what}: {why}"));
            return ControlFlow::Break(());
        }
        let disk = Shared::new(Recorder::new(copy(bytes), sector_size));
        let own = own_guids(&*disk.recorder());
        match boot(&disk, judge) {
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
        wrong.extend(starts(disk.recorder().bytes(), sector_size).err());
        let again = boot(&disk, judge);
        if !again.as_ref().is_ok_and(|done| done.values().all(|action| *action == Action::Check)) {
            wrong.push(format!("{what}: the boot after the next: {again:?}"));
        }
        if wrong.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    (tally, wrong)
}

#[test]
fn every_power_cut_of_a_first_boot_is_ended_by_the_next() {
    for before in ALL {
        for sector_size in [SectorSize::B512, SectorSize::B4096] {
            let recorder = recorded(before, sector_size);
            let (tally, wrong) = cut(&recorder, sector_size);
            assert!(wrong.is_empty(), "{before:?} {sector_size:?}: {:#?}", wrong);
            // The table twice, three flushes for each file system, the GUIDs, and the end.
            assert_eq!((tally.epochs, tally.sampled), (11, 0));
            assert!(tally.distinct > 200, "{tally:?}");
        }
    }
}

/// What the test above would not let pass.
#[test]
fn a_first_boot_in_another_order_is_seen() {
    for before in ALL {
        for sector_size in [SectorSize::B512, SectorSize::B4096] {
            let recorder = recorded(before, sector_size);
            // By the test above.
            let mut right = States::new();
            recorder.other_states_until(&mut right, |_, _| ControlFlow::Continue(()));
            let seen = |what: &str, mutant: &dyn Fn(&mut Recorder)| {
                let mut careless = recorder.clone();
                mutant(&mut careless);
                let (_, wrong) = judged(&careless, sector_size, &mut right.clone(), table::standing);
                assert!(!wrong.is_empty(), "{before:?} {sector_size:?}: {what} is not seen");
            };
            let [state, reserve] = VOLUMES.map(|label| recorder.epochs_of(label));
            let table = recorder.epochs_of("table");
            let guids = &table[table.len() - 2..];
            for at in [state[0], reserve[0], state[1], reserve[1], state[2], reserve[2]] {
                seen("GUIDs before the file system", &|early| {
                    let moved: Vec<_> = early.epochs.drain(guids[0]..=guids[1]).collect();
                    early.epochs.splice(at..at, moved);
                });
            }
            if before == Before::Whole {
                for mark in [state[0], reserve[0]] {
                    seen("no mark", &|unmarked| drop(unmarked.epochs.remove(mark)));
                }
                for flush in [state[0], state[1], reserve[0], reserve[1]] {
                    seen("a flush left out", &|careless| careless.epochs[flush].flushed = None);
                }
                continue;
            }
            seen("the primary table before the backup", &|early| early.epochs.swap(table[0], table[1]));
            seen("no flush between the tables", &|careless| careless.epochs[table[0]].flushed = None);
            seen("the primary table alone", &|careless| drop(careless.epochs.remove(table[0])));
            for flush in [state[1], reserve[1]] {
                // The GUIDs name it, and it is not on the disk.
                seen("a file system that is never flushed", &|careless| {
                    for epoch in flush..careless.epochs.len() - 1 {
                        careless.epochs[epoch].flushed = None;
                    }
                });
            }
        }
    }
}

/// Without a GUID that is of this disk alone, what an earlier node left is taken for this node's own.
#[test]
fn a_table_that_does_not_tell_what_is_new_is_seen() {
    fn blind(table: &Table, entry: &Entry) -> Standing {
        match table::standing(table, entry) {
            Standing::Unmade => Standing::Shipped,
            standing => standing,
        }
    }
    for sector_size in [SectorSize::B512, SectorSize::B4096] {
        let recorder = recorded(Before::OldNode, sector_size);
        let (_, wrong) = judged(&recorder, sector_size, &mut States::new(), blind);
        assert!(wrong[0].contains("checking"), "{wrong:?}");
    }
}
