//! Careless updates, made by editing the recording: the proof must see every one.

use std::collections::BTreeMap;

use super::cuts::{Epoch, Replay};
use super::disk::SECTOR;
use super::update;

/// What an epoch of the update is about, by most of what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Primary,
    Backup,
    Esp,
    Root,
    Tree,
}

struct Mutants {
    /// Up to the begin of the update.
    before: Vec<Epoch>,
    /// The update, as it was done.
    update: Vec<Epoch>,
    about: Vec<About>,
}

impl Mutants {
    fn new() -> Self {
        let whole = update();
        let recording = &whole.recording;
        let range = recording.between(whole.lengths[0]..whole.lengths[1]);
        let of_sector = |sector: u32| {
            let byte = u64::from(sector) * SECTOR as u64;
            let part =
                recording.judge.table.entries.iter().find(|part| (part.start..part.end()).contains(&byte));
            match part.map(|part| part.number) {
                None if sector < 34 => About::Primary,
                None => About::Backup,
                Some(1) => About::Esp,
                Some(4) => About::Root,
                Some(5) => About::Tree,
                Some(other) => panic!("the update writes to partition {other}"),
            }
        };
        let about = |epoch: &Epoch| {
            let mut counts = BTreeMap::new();
            for (sector, _) in epoch.writes.iter().flatten() {
                *counts.entry(of_sector(*sector)).or_insert(0) += 1;
            }
            counts.into_iter().max_by_key(|(_, count)| *count).map(|(about, _)| about).unwrap()
        };
        // What came of the boot before may be under way when the update begins.
        let first = range
            .clone()
            .find(|index| matches!(about(&recording.epochs[*index]), About::Backup | About::Root))
            .unwrap();
        let update = recording.epochs[first..range.end].to_vec();
        let about: Vec<_> = update.iter().map(about).collect();
        println!("epochs of the update: {about:?}");
        Self { before: recording.epochs[..first].to_vec(), update, about }
    }

    fn all(&self, about: About) -> Vec<usize> {
        (0..self.about.len()).filter(|index| self.about[*index] == about).collect()
    }

    /// The epochs `these`, before all from `before` on.
    fn moved(&self, these: &[usize], before: usize) -> Vec<Epoch> {
        let rest = |index: &usize| !these.contains(index);
        let front = (0..before).filter(rest);
        let back = (before..self.update.len()).filter(rest);
        front.chain(these.iter().copied()).chain(back).map(|index| self.update[index].clone()).collect()
    }

    fn without(&self, these: &[usize]) -> Vec<Epoch> {
        let kept = (0..self.update.len()).filter(|index| !these.contains(index));
        kept.map(|index| self.update[index].clone()).collect()
    }

    /// The epochs from `first` to `last` without the flushes between them.
    fn merged(&self, first: usize, last: usize) -> Vec<Epoch> {
        let mut epochs = self.update.clone();
        let writes = epochs.drain(first..=last).flat_map(|epoch| epoch.writes).collect();
        epochs.insert(first, Epoch { writes, entries: 0..0 });
        epochs
    }

    /// Without the write in the middle of the root: the disk has lost it, and nobody has read it back.
    fn with_a_lost_write(&self) -> Vec<Epoch> {
        let mut epochs = self.update.clone();
        let root = &mut epochs[self.all(About::Root)[0]].writes;
        root.remove(root.len() / 2);
        epochs
    }

    /// With the content of another block in one of the root's, by one bit of its address.
    fn with_a_misdirected_write(&self) -> Vec<Epoch> {
        let mut epochs = self.update.clone();
        let root = &mut epochs[self.all(About::Root)[0]].writes;
        for change in root.last_mut().unwrap() {
            change.0 ^= 8;
        }
        epochs
    }

    /// What the proof says of an update instead of the recorded one.
    fn failure(&self, epochs: &[Epoch]) -> Option<String> {
        let recording = &update().recording;
        let mut replay = Replay::new(&recording.judge, &recording.contents, &recording.start, 2, 32);
        replay.skip(&self.before);
        replay.first_failure(epochs)
    }
}

#[test]
fn every_careless_update_is_seen() {
    let mutants = Mutants::new();
    let (root, tree) = (mutants.all(About::Root)[0], mutants.all(About::Tree)[0]);
    // A slot that no version has been in has nothing to be taken away before the root is written.
    let last_of = |about| *mutants.all(about).last().unwrap();
    let (backup, primary) = (last_of(About::Backup), last_of(About::Primary));
    let last = mutants.update.len() - 1;
    let esp: Vec<usize> = mutants.all(About::Esp).into_iter().filter(|index| *index > primary).collect();
    let mut careless = vec![
        ("no flush at all", mutants.merged(0, last)),
        ("the kernel image before the root", mutants.moved(&esp, root)),
        ("the kernel image before the hash tree", mutants.moved(&esp, tree)),
        ("the kernel image before the GUIDs", mutants.moved(&esp, backup)),
        ("GUIDs and labels before the root", mutants.moved(&[backup, primary], root)),
        ("GUIDs and labels before the hash tree", mutants.moved(&[backup, primary], tree)),
        ("no hash tree", mutants.without(&[tree])),
        ("the kernel image's entry before the kernel image", mutants.moved(&esp[1..], esp[0])),
        ("no flush between the kernel image and its entry", mutants.merged(esp[0], last)),
        ("no flush between the root and the GUIDs", mutants.merged(root, primary)),
        ("no flush between the two tables", mutants.merged(backup, primary)),
        ("a write of the root lost, and nothing read back", mutants.with_a_lost_write()),
        ("a write of the root elsewhere, and nothing read back", mutants.with_a_misdirected_write()),
    ];
    // The order of the tables counts where one of them is damaged: here the backup, before the GUIDs are set.
    let last_sector = update().recording.start.len() as u32 - 1;
    let damage = Epoch { writes: vec![vec![(last_sector, 0)]], entries: 0..0 };
    let damaged = |mut epochs: Vec<Epoch>| {
        epochs.insert(backup, damage.clone());
        epochs
    };
    careless.push(("the primary table before the backup", damaged(mutants.moved(&[primary], backup))));

    assert_eq!(mutants.failure(&mutants.update), None);
    assert_eq!(mutants.failure(&damaged(mutants.update.clone())), None);
    let mut escaped = Vec::new();
    for (name, epochs) in &careless {
        match mutants.failure(epochs) {
            Some(failure) => println!("seen: {name}: {failure}"),
            None => escaped.push(name),
        }
    }
    println!("{} of {} careless updates are seen", careless.len() - escaped.len(), careless.len());
    assert!(escaped.is_empty(), "{escaped:#?}");
}
