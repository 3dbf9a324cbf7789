//! Every state that a loss of power may leave of a recorded disk, and the verdict on each.
//!
//! Between two flushes a disk may have any of the sectors that were written, whatever their order: what was
//! flushed is there, of the rest each sector has its content from before or one that it was given since.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use super::disk::{Contents, Disk, Id, View, scramble};
use super::judge::{Judge, Verdict};

/// States between two flushes up to which each and every one is tried.
const COMPLETE: u64 = 4096;
/// Sectors between two flushes up to which each single gap is tried behind every prefix.
const PAIRS: usize = 192;
/// Sectors from which on a subset costs so much that fewer are tried.
const BULK: usize = 4096;

/// A change of one sector.
pub type Change = (u32, Id);

/// What the disk was told, as far as a verdict may depend on it.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Writes since the flush before, in their order.
    pub writes: Vec<Vec<Change>>,
    /// Entries of the log that it is made of.
    pub entries: Range<usize>,
}

/// What came of it.
#[derive(Default)]
pub struct Tally {
    /// States tried.
    pub states: usize,
    /// Those that differ from all others.
    pub distinct: usize,
    /// Boots by version.
    pub boots: [usize; 2],
    /// Boots for which an empty file was passed over.
    pub passed_over: usize,
    /// Flushes between which all states were tried, not a selection.
    pub complete: usize,
    pub epochs: usize,
    /// How often tables, ESP and slots were judged; other states are the same in all that was looked at.
    pub judged: usize,
    /// What failed, and how often.
    pub broken: BTreeMap<String, usize>,
    pub failures: usize,
}

/// A state to look at more closely: a random one of those between two flushes that have the same verdict.
#[derive(Clone, Debug)]
pub struct Sample {
    pub what: String,
    pub verdict: Verdict,
    /// Between which flushes.
    pub epoch: usize,
    /// What it has of that epoch.
    pub changes: Vec<Change>,
    /// Out of how many it was chosen.
    of: u64,
}

pub struct Replay<'a> {
    judge: &'a Judge,
    contents: &'a Contents,
    disk: Disk,
    verdicts: HashMap<(u64, [[bool; 2]; 2]), Verdict>,
    seen: HashSet<u64>,
    /// Whether one failure is enough.
    only_first: bool,
    /// Random subsets between two flushes.
    subsets: usize,
    random: u64,
    /// Where the replay is.
    epoch: usize,
    /// What the sectors of this epoch had before it.
    base: HashMap<u32, Id>,
    pub tally: Tally,
    /// By epoch and verdict.
    pub samples: BTreeMap<(usize, String), Sample>,
}

impl<'a> Replay<'a> {
    /// Begins with a disk that has `start`.
    pub fn new(judge: &'a Judge, contents: &'a Contents, start: &[Id], seed: u64, subsets: usize) -> Self {
        Self {
            judge,
            contents,
            disk: judge.disk(start.to_vec()),
            verdicts: HashMap::new(),
            seen: HashSet::new(),
            only_first: false,
            subsets,
            random: seed,
            epoch: 0,
            base: HashMap::new(),
            tally: Tally::default(),
            samples: BTreeMap::new(),
        }
    }

    /// Tries every cut of these epochs, one after the other.
    pub fn run(&mut self, epochs: &[Epoch]) {
        for epoch in epochs {
            self.cut(epoch);
            self.skip(std::slice::from_ref(epoch));
            self.epoch += 1;
        }
    }

    /// As [`Replay::run`], up to the first state that fails; says what is wrong with it.
    pub fn first_failure(&mut self, epochs: &[Epoch]) -> Option<String> {
        self.only_first = true;
        epochs.iter().find_map(|epoch| {
            self.run(std::slice::from_ref(epoch));
            self.tally.broken.keys().next().cloned()
        })
    }

    /// Goes on behind these epochs, without a cut in them.
    pub fn skip(&mut self, epochs: &[Epoch]) {
        for change in epochs.iter().flat_map(|epoch| epoch.writes.iter().flatten()) {
            self.disk.put(change.0, change.1);
        }
        self.disk.settle();
    }

    fn cut(&mut self, epoch: &Epoch) {
        let all: Vec<Change> = epoch.writes.iter().flatten().copied().collect();
        self.tally.epochs += 1;
        // What each sector may have: what it has, and what it is given.
        let mut choices: BTreeMap<u32, Vec<Id>> = BTreeMap::new();
        for (sector, id) in &all {
            let ids = choices.entry(*sector).or_insert_with(|| vec![self.disk.now[*sector as usize]]);
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        self.base = choices.iter().map(|(sector, ids)| (*sector, ids[0])).collect();
        choices.retain(|_, ids| ids.len() > 1);
        self.judge("nothing of it", 0);
        let product = choices.values().try_fold(1_u64, |product, ids| product.checked_mul(ids.len() as u64));
        if let Some(count) = product.filter(|count| *count <= COMPLETE) {
            self.tally.complete += 1;
            let mark = self.disk.mark();
            for number in 1..count {
                let mut rest = number;
                for (sector, ids) in &choices {
                    self.disk.put(*sector, ids[(rest % ids.len() as u64) as usize]);
                    rest /= ids.len() as u64;
                }
                self.judge("state", number as usize);
                self.disk.undo_to(mark);
            }
            return;
        }
        self.select(epoch, &all);
    }

    /// Of more states than can be tried: each prefix, each gap, each sector alone, and random ones.
    fn select(&mut self, epoch: &Epoch, all: &[Change]) {
        let begin = self.disk.mark();
        for (index, change) in all.iter().enumerate() {
            self.disk.put(change.0, change.1);
            self.judge("the first sectors, up to", index);
            if all.len() <= PAIRS {
                for gap in 0..index {
                    self.without(&all[..=index], gap);
                }
            }
        }
        // All is there: one sector after the other is missing, one write after the other, torn everywhere.
        for gap in 0..all.len() {
            self.without(all, gap);
        }
        let mut from = 0;
        for write in &epoch.writes {
            let mark = self.disk.mark();
            for index in (from..from + write.len()).rev() {
                if let Some(id) = self.before(all, index) {
                    self.disk.put(all[index].0, id);
                }
                self.judge("without the end of a write, from sector", index);
            }
            self.disk.undo_to(mark);
            from += write.len();
        }
        self.disk.undo_to(begin);
        // Nothing is there but one sector, or one write, torn everywhere.
        let mut from = 0;
        for write in &epoch.writes {
            for (index, change) in write.iter().enumerate() {
                self.disk.put(change.0, change.1);
                self.judge("only the begin of a write, up to sector", from + index);
            }
            self.disk.undo_to(begin);
            for (index, change) in write.iter().enumerate() {
                self.disk.put(change.0, change.1);
                self.judge("only sector", from + index);
                self.disk.undo_to(begin);
            }
            from += write.len();
        }
        for round in 0..if all.len() > BULK { self.subsets / 16 } else { self.subsets } {
            self.subset(epoch);
            self.judge("random subset", round);
            self.disk.undo_to(begin);
        }
    }

    /// What a sector has without write `index` of `all`; nothing where a later one covers it.
    fn before(&self, all: &[Change], index: usize) -> Option<Id> {
        let sector = all[index].0;
        let same = |change: &&Change| change.0 == sector;
        // Bulk data comes once.
        if all.len() > BULK {
            return Some(self.base[&sector]);
        }
        match all[index + 1..].iter().any(|change| same(&change)) {
            true => None,
            false => Some(all[..index].iter().rev().find(same).map_or(self.base[&sector], |change| change.1)),
        }
    }

    fn without(&mut self, all: &[Change], gap: usize) {
        if let Some(id) = self.before(all, gap) {
            let mark = self.disk.mark();
            self.disk.put(all[gap].0, id);
            self.judge("all so far but sector", gap);
            self.disk.undo_to(mark);
        }
    }

    /// Some of the writes; of these, some torn: only some of their sectors.
    fn subset(&mut self, epoch: &Epoch) {
        for write in &epoch.writes {
            match self.next() % 4 {
                0 | 1 => write.iter().for_each(|change| self.disk.put(change.0, change.1)),
                2 => {
                    for change in write {
                        if self.next() & 1 == 1 {
                            self.disk.put(change.0, change.1);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.random = scramble(self.random);
        self.random >> 7
    }

    fn judge(&mut self, what: &str, number: usize) {
        if self.only_first && self.tally.failures > 0 {
            return;
        }
        self.tally.states += 1;
        if !self.seen.insert(self.disk.identity) {
            return;
        }
        self.tally.distinct += 1;
        let verdict = match self.verdicts.get(&self.disk.view()) {
            Some(verdict) => verdict.clone(),
            None => self.decide(),
        };
        let epoch = self.epoch;
        self.sample(what, number, &verdict);
        match verdict {
            Ok(boots) => {
                self.tally.boots[boots.version] += 1;
                self.tally.passed_over += usize::from(boots.passed_over);
            }
            Err(error) => {
                self.tally.failures += 1;
                *self.tally.broken.entry(format!("flush {epoch}: {what} ...: {error}")).or_default() += 1;
            }
        }
    }

    fn sample(&mut self, what: &str, number: usize, verdict: &Verdict) {
        let key = (self.epoch, verdict.as_ref().map_or_else(String::clone, |boots| boots.file.clone()));
        let of = self.samples.get(&key).map_or(0, |sample| sample.of) + 1;
        if self.next().is_multiple_of(of) {
            let what = format!("flush {}: {what} {number}", self.epoch);
            let changes = self.disk.changes();
            let sample = Sample { what, verdict: verdict.clone(), epoch: self.epoch, changes, of };
            self.samples.insert(key, sample);
        } else if let Some(sample) = self.samples.get_mut(&key) {
            sample.of = of;
        }
    }

    fn decide(&mut self) -> Verdict {
        self.tally.judged += 1;
        let view = View::new(&self.disk, self.contents);
        let verdict = self.judge.decide(&view);
        let read = view.into_read();
        if self.disk.look_at(&read) {
            self.verdicts.clear();
        }
        self.verdicts.insert(self.disk.view(), verdict.clone());
        verdict
    }
}
