//! A recorded update: what of it a verdict can depend on, and when it was done.

use std::ops::Range;
use std::path::{Path, PathBuf};

use keller::disk::gpt::types;
use keller::disk::layout::ALIGNMENT;

use super::cuts::{Change, Epoch};
use super::disk::{Contents, Id, SECTOR};
use super::judge::Judge;
use super::log::{Kind, Log};

pub struct Recording {
    /// The disk before it.
    pub image: PathBuf,
    pub log: Log,
    pub contents: Contents,
    pub judge: Judge,
    /// What the disk had before.
    pub start: Vec<Id>,
    /// What it was told then.
    pub epochs: Vec<Epoch>,
    /// Sectors of the reserve and of the state partition behind it.
    pub state: Range<u64>,
}

impl Recording {
    /// Of the disk that began as `images[0]` and ended as `recorded`, in a log.
    pub fn open(images: [&Path; 2], recorded: &Path, log: &Path) -> Self {
        let mut contents = Contents::new();
        let judge = Judge::new(images, &mut contents);
        let mut start = contents.image(images[0]);
        let log = Log::open(log);
        let reserve = judge.table.by_type(types::LINUX).next().unwrap();
        let state = judge.table.by_type(types::VAR).next().unwrap();
        assert_eq!(reserve.end(), state.start);
        let sector = SECTOR as u64;
        // To its end; behind that is the backup table.
        let state = reserve.start / sector..judge.table.end_usable / ALIGNMENT * (ALIGNMENT / sector);
        let epochs = epochs(&log, &mut contents, &state);
        let end = contents.image(recorded);
        // Before the machine was started the image was made as large as a node's disk.
        start.resize(end.len(), 0);
        let recording = Self { image: images[0].to_owned(), log, contents, judge, start, epochs, state };
        recording.check(&end);
        recording
    }

    /// All of the recording, one after the other, is what became of the disk.
    fn check(&self, end: &[Id]) {
        let mut now = self.start.clone();
        for (sector, id) in self.epochs.iter().flat_map(|epoch| epoch.writes.iter().flatten()) {
            now[*sector as usize] = *id;
        }
        for (sector, (now, end)) in (0..).zip(now.iter().zip(end)) {
            assert!(now == end || self.state.contains(&sector), "sector {sector} was not recorded");
        }
    }

    /// The epochs that were begun while the log grew from one length to another.
    pub fn between(&self, lengths: Range<u64>) -> Range<usize> {
        let at = |length| {
            let entries = self.log.entries_at(length);
            self.epochs.partition_point(|epoch| epoch.entries.end <= entries)
        };
        at(lengths.start)..at(lengths.end)
    }
}

fn epochs(log: &Log, contents: &mut Contents, state: &Range<u64>) -> Vec<Epoch> {
    let mut epochs = Vec::new();
    let mut epoch = Epoch { writes: Vec::new(), entries: 0..0 };
    for (index, entry) in log.entries.iter().enumerate() {
        let is_state = state.contains(&entry.sector);
        match entry.kind {
            Kind::Write if is_state => assert!(entry.sector + entry.count <= state.end),
            Kind::Write => {
                let ids = contents.ids(&log.data(entry));
                let change = |(sector, id): (u64, Id)| -> Change { (sector as u32, id) };
                epoch.writes.push((entry.sector..).zip(ids).map(change).collect());
            }
            Kind::Discard => assert!(is_state, "sector {} is discarded", entry.sector),
            Kind::Flush if epoch.writes.is_empty() => {}
            Kind::Flush => {
                epoch.entries.end = index + 1;
                let next = Epoch { writes: Vec::new(), entries: index + 1..index + 1 };
                epochs.push(std::mem::replace(&mut epoch, next));
            }
        }
    }
    epoch.entries.end = log.entries.len();
    epochs.push(epoch);
    epochs
}
