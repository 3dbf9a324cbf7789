//! A small disk with two versions, and the writer in all its ways.

mod crash;
mod disk;
mod faults;
mod judge;
mod loader;
mod mutants;
mod refusals;

use super::*;
use crate::base::progress::Silent;
use disk::{Made, Memory, Parts, Version, image};

/// Runs an update as an agent would, with a plain writer for the root.
pub(super) fn update(
    parts: &mut Parts<'_>,
    slot: Slot,
    running: &Version,
    new: &Version,
) -> Result<String, ApplyError> {
    let target = Target {
        disk: &mut *parts.disk,
        esp: &mut *parts.esp,
        root: &mut *parts.root,
        verity: &mut *parts.verity,
        slot,
    };
    let mut cleared = target.clear(&new.document, &running.root_hash(), &Silent)?;
    disk::fill(cleared.root(), &new.root).map_err(|source| ApplyError::Io {
        action: "writing the root",
        slot,
        source,
    })?;
    cleared.written()?.seal(&Silent)?.activate(&new.uki, 3, &Silent)
}

/// The files that start, in the order in which systemd-boot takes them.
fn files(memory: &Memory<'_>, made: &Made) -> Vec<(String, Option<Slot>)> {
    let parts = memory.parts(made, Slot::B);
    let all = installed(&*parts.disk, &*parts.esp).unwrap();
    all.into_iter().map(|installed| (installed.entry.file, installed.slot)).collect()
}

fn two() -> (Version, Version) {
    (Version::new("1.0.0", 1), Version::new("1.0.1", 2))
}

#[test]
fn an_update_goes_into_the_idle_slot_and_the_next_one_back() {
    let (old, new) = two();
    let made = image([Some(&old), None], &[("node_1.0.0.efi", &old)]);
    let memory = Memory::new(&made.bytes);
    let file = update(&mut memory.parts(&made, Slot::B), Slot::B, &old, &new).unwrap();
    assert_eq!(file, "node_1.0.1+3.efi");
    let (a, b) = (Some(Slot::A), Some(Slot::B));
    let expected = [("node_1.0.1+3.efi".to_owned(), b), ("node_1.0.0.efi".to_owned(), a)];
    assert_eq!(files(&memory, &made), expected);

    let newest = Version::new("1.0.2", 3);
    update(&mut memory.parts(&made, Slot::A), Slot::A, &new, &newest).unwrap();
    let expected = [("node_1.0.2+3.efi".to_owned(), a), ("node_1.0.1+3.efi".to_owned(), b)];
    assert_eq!(files(&memory, &made), expected);
}
