//! Writers that are not careful: the proof must see every one.

use super::crash::{damaged, first, superseding, try_all};
use crate::base::power_cut::Recorder;

/// A recording whose epochs come in another order: those of `these` before all from `before` on.
fn moved(recorder: &Recorder, these: &[usize], before: usize) -> Recorder {
    let mut changed = recorder.clone();
    let rest = (before..recorder.epochs.len()).filter(|number| !these.contains(number));
    let front = (0..before).filter(|number| !these.contains(number));
    let order = front.chain(these.iter().copied()).chain(rest);
    changed.epochs = order.map(|number| recorder.epochs[number].clone()).collect();
    changed
}

fn without(recorder: &Recorder, these: &[usize]) -> Recorder {
    let mut changed = recorder.clone();
    let kept = (0..recorder.epochs.len()).filter(|number| !these.contains(number));
    changed.epochs = kept.map(|number| recorder.epochs[number].clone()).collect();
    changed
}

/// Calls `see` with what careless writers would have written in place of `recorder`.
fn careless(recorder: &Recorder, mut see: impl FnMut(&str, Recorder)) {
    let (root, tree) = (recorder.epochs_of("root-b"), recorder.epochs_of("root-b-verity"));
    let (table, esp) = (recorder.epochs_of("table"), recorder.epochs_of("esp"));
    if root.is_empty() {
        // Of the disk with a damaged backup, the order of the two tables. On other disks either order will do,
        // and so it does here once the backup has been mended.
        see("the primary table before the backup", moved(recorder, &table[1..2], table[0]));
        return;
    }
    let identities = &table[table.len() - 2..];
    let put: Vec<usize> = esp.iter().copied().filter(|number| *number > identities[1]).collect();
    see("the kernel image before the GUIDs", moved(recorder, &put, identities[0]));
    see("the kernel image before the hash tree", moved(recorder, &put, tree[0]));
    see("the kernel image before the root", moved(recorder, &put, root[0]));
    see("GUIDs and labels before the root", moved(recorder, identities, root[0]));
    see("GUIDs and labels before the hash tree", moved(recorder, identities, tree[0]));
    see("no hash tree", without(recorder, &tree));
    if let [backup, primary, _, _] = table[..] {
        let removal: Vec<usize> = esp.iter().copied().filter(|number| *number < backup).collect();
        see("GUIDs blanked before the entry is gone", moved(recorder, &removal, primary + 1));
        see("the entry is removed behind the root", moved(recorder, &removal, tree[0]));
        see("GUIDs never blanked", without(recorder, &[backup, primary]));
        see("GUIDs blanked behind the root", moved(recorder, &[backup, primary], tree[0]));
    }
}

#[test]
fn every_careless_writer_is_seen() {
    let mut escaped = Vec::new();
    let mut seen = 0;
    for scenario in [first(), superseding(), damaged()] {
        let recorder = scenario.record();
        careless(&recorder, |name, mutant| match try_all(&scenario, &mutant, false).failures.first() {
            Some(failure) => {
                seen += 1;
                println!("seen: {name}: {failure}");
            }
            None => escaped.push(name.to_owned()),
        });
    }
    println!("{seen} of {} careless writers are seen", seen + escaped.len());
    assert!(escaped.is_empty(), "{escaped:#?}");
}

#[test]
fn every_missing_flush_is_seen() {
    let scenario = superseding();
    let recorder = scenario.record();
    let mut escaped = Vec::new();
    let flushes = recorder.epochs.iter().filter(|epoch| epoch.flushed.is_some()).count();
    for number in 0..flushes {
        let mut mutant = recorder.clone();
        mutant.epochs[number].flushed = None;
        let outcome = try_all(&scenario, &mutant, false);
        match outcome.failures.first() {
            Some(failure) => println!("seen: without the flush {number}: {failure}"),
            None => escaped.push(format!("{number}: {}", recorder.describe(number))),
        }
    }
    println!(
        "{} of {flushes} missing flushes are seen, and nothing depends on: {escaped:#?}",
        flushes - escaped.len()
    );
    // In the ESP some flushes only keep things tidy, each before another one that counts: clusters of a removed
    // file are freed, data are written before the FAT, an end mark moves before a record appears.
    assert!(escaped.len() <= 3 && escaped.iter().all(|flush| flush.ends_with("flush of esp")));
}
