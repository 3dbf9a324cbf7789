//! Power fails at every moment of an update.

use std::ops::ControlFlow;
use std::time::Instant;

use super::disk::{Made, Memory, Version, image, parts};
use super::judge::Judge;
use super::update;
use crate::base::device::SectorSize;
use crate::base::power_cut::{Recorder, Shared, Tally, copy};
use crate::disk::layout::Role;
use crate::disk::slot::Slot;

/// An unoptimised build updates from every so many states only: it takes 20 ms for what takes 2.
const EVERY: usize = if cfg!(debug_assertions) { 40 } else { 1 };

/// A disk, what runs on it and what comes.
pub(super) struct Scenario {
    pub name: &'static str,
    made: Made,
    versions: Vec<Version>,
    /// Indices into `versions`.
    running: usize,
    new: usize,
    /// Where the new one goes.
    slot: Slot,
}

impl Scenario {
    fn running(&self) -> &Version {
        &self.versions[self.running]
    }

    fn newer(&self) -> &Version {
        &self.versions[self.new]
    }

    /// Whatever was there before or comes may boot.
    fn judge(&self) -> Judge<'_> {
        self.judge_of(self.running())
    }

    fn judge_of<'v>(&'v self, running: &'v Version) -> Judge<'v> {
        let versions: Vec<&Version> = self.versions.iter().collect();
        let may_boot = versions.iter().map(|version| version.document.version.as_str()).collect();
        Judge { made: &self.made, versions, may_boot, running }
    }

    pub(super) fn record(&self) -> Recorder {
        let shared = Shared::new(Recorder::new(copy(&self.made.bytes), SectorSize::B512));
        let mut parts =
            parts(&self.made.layout, self.slot, |name, start, size| shared.view(name, start, size));
        update(&mut parts, self.slot, self.running(), self.newer()).unwrap();
        drop(parts);

        shared.recorder().clone()
    }

    /// Whether a sector of the ESP has something that is not about to be replaced: the records of other files,
    /// or other chains. FAT keeps one copy of a folder, and firmware reads one of its two tables, so nobody
    /// can do anything about a disk that turns such a sector into garbage where it should write it.
    fn is_shared_on_fat(&self, offset: u64, before: &[u8]) -> bool {
        let esp = self.made.partition(Role::Esp);
        (esp.start..esp.start + esp.size).contains(&offset) && before.iter().any(|byte| *byte != 0)
    }

    /// Starts what a disk has after a cut, and updates once more, if need be.
    fn finish(&self, disk: &[u8], booted: &str) -> Result<(), String> {
        let booted = self.versions.iter().find(|version| version.document.version == booted).unwrap();
        if booted.root_hash() == self.newer().root_hash() {
            return Ok(());
        }
        let slot =
            if booted.root_hash() == self.running().root_hash() { self.slot } else { self.slot.other() };
        let memory = Memory::new(disk);
        update(&mut memory.parts(&self.made, slot), slot, booted, self.newer())
            .map_err(|error| format!("the next update: {}", crate::base::Chain(&error)))?;
        let boots = self.judge_of(booted).boots(&memory)?;
        if boots != self.newer().document.version {
            return Err(format!("after the next update {boots} boots"));
        }
        Ok(())
    }
}

fn versions() -> Vec<Version> {
    vec![Version::new("1.0.0", 1), Version::new("1.0.1", 2), Version::new("1.0.2", 3)]
}

/// The first update of a new node.
pub(super) fn first() -> Scenario {
    let versions = versions();
    let made = image([Some(&versions[0]), None], &[("node_1.0.0.efi", &versions[0])]);
    Scenario { name: "first update", made, versions, running: 0, new: 2, slot: Slot::B }
}

/// A version has been put in place, but not been started, and the next one is out: it goes where a version
/// is that would be the next to start.
pub(super) fn superseding() -> Scenario {
    let versions = versions();
    let entries = [("node_1.0.0.efi", &versions[0]), ("node_1.0.1+3.efi", &versions[1])];
    let made = image([Some(&versions[0]), Some(&versions[1])], &entries);
    Scenario { name: "superseding one that waits", made, versions, running: 0, new: 2, slot: Slot::B }
}

/// The way back into slot A, on a disk whose backup table is damaged.
pub(super) fn damaged() -> Scenario {
    let versions = versions();
    let entries = [("node_1.0.0.efi", &versions[0]), ("node_1.0.1.efi", &versions[1])];
    let mut made = image([Some(&versions[0]), Some(&versions[1])], &entries);
    let end = made.bytes.len();
    made.bytes[end - 512..].fill(0xa5);
    Scenario { name: "damaged backup table", made, versions, running: 1, new: 2, slot: Slot::A }
}

/// What came of trying all cuts.
#[derive(Default)]
pub(super) struct Outcome {
    tally: Tally,
    booted_old: usize,
    booted_new: usize,
    finished: usize,
    /// States in which a sector of a folder or of the FAT is garbage.
    spared: usize,
    pub failures: Vec<String>,
}

pub(super) fn try_all(scenario: &Scenario, recorder: &Recorder, again: bool) -> Outcome {
    let judge = scenario.judge();
    let mut outcome = Outcome::default();
    let tally = recorder.distinct_states_until(|disk, cut| {
        match judge.boots(&disk) {
            Err(error) => match cut.spoiled {
                Some((offset, before)) if scenario.is_shared_on_fat(offset, before) => outcome.spared += 1,
                _ => outcome.failures.push(format!("{}: {error}", cut.what)),
            },
            Ok(version) => {
                let is_new = version == scenario.newer().document.version;
                *(if is_new { &mut outcome.booted_new } else { &mut outcome.booted_old }) += 1;
                if again && (outcome.booted_old + outcome.booted_new).is_multiple_of(EVERY) {
                    match scenario.finish(disk, &version) {
                        Ok(()) => outcome.finished += 1,
                        Err(error) => outcome.failures.push(format!("{}: {error}", cut.what)),
                    }
                }
            }
        }
        // One failure proves a mutant dead.
        if again || outcome.failures.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    outcome.tally = tally;
    if recorder.unflushed() > 0 {
        outcome.failures.push("the update ends before all of it is on the disk".to_owned());
    }
    outcome
}

#[test]
fn every_power_cut_leaves_a_disk_that_boots_and_the_next_update_ends() {
    for scenario in [first(), superseding(), damaged()] {
        let begin = Instant::now();
        let recorder = scenario.record();
        let outcome = try_all(&scenario, &recorder, true);
        for (number, _) in recorder.epochs.iter().enumerate() {
            println!("  {number:2}: {}", recorder.describe(number));
        }
        let Outcome { tally, booted_old, booted_new, finished, spared, failures } = outcome;
        println!(
            "{}: {} states tried ({} differ), over {} flushes ({} of bulk data sampled): {} fail; {booted_old} \
             boot the version before, {booted_new} the new one, {finished} of {} tried finish, {spared} have garbage in the \
             folder or the FAT; {:.1} s",
            scenario.name,
            tally.states,
            tally.distinct,
            tally.epochs - 1,
            tally.sampled,
            failures.len(),
            (tally.distinct - spared) / EVERY,
            begin.elapsed().as_secs_f32(),
        );
        let shown = failures.len().min(20);
        assert!(failures.is_empty(), "{:#?}", &failures[..shown]);
        assert_eq!(booted_old + booted_new + spared, tally.distinct);
        assert_eq!(finished, (tally.distinct - spared) / EVERY);
        assert!(booted_new > 0 && tally.states > 1000, "{tally:?}");
    }
}

#[test]
fn a_second_power_cut_in_the_update_after_the_first_does_no_harm() {
    /// Of the states after the first cut, every so many.
    const EVERY: usize = if cfg!(debug_assertions) { 900 } else { 300 };
    let scenario = superseding();
    let (mut first, mut tried, mut count) = (0, 0, 0);
    scenario.record().each_distinct_state(|disk, cut| {
        count += 1;
        let booted = match scenario.judge().boots(&disk) {
            Ok(booted) if count % EVERY == EVERY / 2 && booted == "1.0.0" => booted,
            _ => return,
        };
        first += 1;
        let made =
            Made { bytes: copy(disk), layout: scenario.made.layout.clone(), loaders: Default::default() };
        let again = Scenario { made, versions: versions(), ..superseding() };
        let judge = Judge { made: &scenario.made, ..again.judge() };
        again.record().each_distinct_state(|disk, second| {
            let shared = |(offset, before): (u64, &[u8])| again.is_shared_on_fat(offset, before);
            if !second.spoiled.is_some_and(shared) {
                tried += 1;
                judge
                    .boots(&disk)
                    .unwrap_or_else(|problem| panic!("{booted}, {cut:?}, {second:?}: {problem}"));
            }
        });
    });
    println!("two cuts: in the updates after {first} of {count} first cuts {tried} second ones, all boot");
    assert!(first > 0);
}
