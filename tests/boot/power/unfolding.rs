//! The first boot of an image in the recording: the one change of the table that makes it the disk of a node.

use super::cuts::{Epoch, Replay};
use super::update;

/// The epochs before the table unfolds, and those in which it does: the backup, the primary.
fn epochs() -> (&'static [Epoch], Vec<Epoch>) {
    let recording = &update().recording;
    let last = recording.start.len() as u32 - 1;
    let writes = |epoch: &Epoch, wanted| epoch.writes.iter().flatten().any(|(sector, _)| *sector == wanted);
    let backup = recording.epochs.iter().position(|epoch| writes(epoch, last)).unwrap();
    let primary = recording.epochs.iter().position(|epoch| writes(epoch, 1)).unwrap();
    assert!(backup < primary, "the backup is written first");
    (&recording.epochs[..backup], recording.epochs[backup..=primary].to_vec())
}

fn replay(before: &[Epoch], subsets: usize) -> Replay<'static> {
    let recording = &update().recording;
    let mut replay = Replay::new(&recording.judge, &recording.contents, &recording.start, 3, subsets);
    replay.skip(before);
    replay
}

#[test]
fn an_image_unfolds_without_a_moment_in_which_it_does_not_start() {
    let (before, unfolding) = epochs();
    let mut whole = replay(before, 256);
    whole.run(&unfolding);
    let tally = &whole.tally;
    println!(
        "unfolding: {} states tried, {} differ, {} do not start; {} flushes",
        tally.states, tally.distinct, tally.failures, tally.epochs
    );
    assert!(tally.broken.is_empty(), "{:#?}", tally.broken);
    assert!(tally.distinct > 10, "fewer states than two tables have");

    let last = unfolding.len() - 1;
    let merged =
        Epoch { writes: unfolding.iter().flat_map(|epoch| epoch.writes.clone()).collect(), entries: 0..0 };
    let mut swapped = unfolding.clone();
    swapped.swap(0, last);
    let careless = [
        ("the primary table before the backup", swapped),
        ("no flush between the two tables", vec![merged]),
        ("the primary table alone", unfolding[1..].to_vec()),
    ];
    let mut escaped = Vec::new();
    for (name, epochs) in &careless {
        match replay(before, 32).first_failure(epochs) {
            Some(failure) => println!("seen: {name}: {failure}"),
            None => escaped.push(name),
        }
    }
    assert!(escaped.is_empty(), "{escaped:#?}");
}
