//! What is refused, and that nothing has been written by then.

use super::disk::{Made, Memory, Version, fill, image};
use super::{update, *};

/// A node with 1.0.0 in slot A, and an update to 1.0.1 that `spoil` makes impossible.
fn refused(slots: [bool; 2], entries: &[&str], slot: Slot, spoil: impl FnOnce(&mut Version)) -> ApplyError {
    let (old, mut new) = (Version::new("1.0.0", 1), Version::new("1.0.1", 2));
    let entries: Vec<(&str, &Version)> = entries.iter().map(|file| (*file, &old)).collect();
    let made = image(slots.map(|filled| filled.then_some(&old)), &entries);
    spoil(&mut new);
    let memory = Memory::new(&made.bytes);
    let error = update(&mut memory.parts(&made, slot), slot, &old, &new).unwrap_err();
    assert!(memory.is_untouched(), "{error}");
    error
}

/// As `refused`, on a node in order.
fn impossible(spoil: impl FnOnce(&mut Version)) -> String {
    let error = refused([true, false], &["node_1.0.0.efi"], Slot::B, spoil);
    crate::base::Chain(&error).to_string()
}

#[test]
fn the_running_slot_is_never_written() {
    let both = ["node_1.0.0.efi"];
    assert!(matches!(
        refused([true, false], &both, Slot::A, |_| ()),
        ApplyError::SlotIsRunning { slot: Slot::A }
    ));
    assert!(matches!(refused([true, true], &both, Slot::B, |_| ()), ApplyError::InBothSlots { .. }));
    assert!(matches!(refused([false, false], &both, Slot::B, |_| ()), ApplyError::NotThisDisk { .. }));
    assert!(matches!(refused([true, false], &[], Slot::B, |_| ()), ApplyError::NoWayBack));
}

#[test]
fn devices_of_another_slot_are_noticed() {
    let (old, new) = two();
    let made = image([Some(&old), None], &[("node_1.0.0.efi", &old)]);
    let memory = Memory::new(&made.bytes);
    let error = update(&mut memory.parts(&made, Slot::A), Slot::B, &old, &new).unwrap_err();
    assert!(matches!(error, ApplyError::WrongDevice { what: "root", slot: Slot::B }), "{error}");
    assert!(memory.is_untouched());
}

#[test]
fn a_version_that_cannot_be_is_refused_before_anything_is_written() {
    let same = impossible(|new| *new = Version::new("1.0.0", 1));
    assert_eq!(same, "version 1.0.0 is running, and one version must not be in both slots");
    let other = impossible(|new| new.document.id = "other".to_owned());
    assert_eq!(other, "this node is of image node, and the new version is of image other");
    let sectors = impossible(|new| new.document.sector_size = 4096);
    assert_eq!(sectors, "this disk has sectors of 512 bytes, and the new version is for sectors of 4096");
    let large = impossible(|new| new.document.root.size = 2 << 20);
    assert!(large.starts_with("the root file system has 2MiB, but slot b has room for 1MiB"), "{large}");
    let odd = impossible(|new| new.document.root.size += 1);
    assert!(odd.starts_with("expected a positive multiple of 4096 bytes"), "{odd}");
    let salt = impossible(|new| new.document.root.salt = "x".to_owned());
    assert_eq!(salt, "the salt of the hash tree is not hexadecimal: x");
    let full = impossible(|new| new.document.uki.size = 40 << 20);
    assert!(full.starts_with("the kernel image needs "), "{full}");
    let label = impossible(|new| new.document.version = "1".repeat(30));
    assert!(label.contains("has 42 UTF-16 units, but 36 is the most"), "{label}");
    for version in ["1_0", "../1"] {
        let name = impossible(|new| new.document.version = version.to_owned());
        assert!(name.starts_with("the boot loader would not read node_"), "{name}");
    }
}

/// Runs an update with other bytes than the document says.
fn try_bytes(made: &Made, memory: &Memory<'_>, version: &Version, root: &[u8], uki: &[u8]) -> ApplyError {
    let old = Version::new("1.0.0", 1);
    let mut parts = memory.parts(made, Slot::B);
    let target = Target {
        disk: &mut *parts.disk,
        esp: &mut *parts.esp,
        root: &mut *parts.root,
        verity: &mut *parts.verity,
        slot: Slot::B,
    };
    let mut cleared = target.clear(&version.document, &old.root_hash(), &Silent).unwrap();
    fill(cleared.root(), root).unwrap();
    match cleared.written().unwrap().seal(&Silent) {
        Err(error) => error,
        Ok(sealed) => sealed.activate(uki, 3, &Silent).unwrap_err(),
    }
}

#[test]
fn bytes_that_were_not_signed_are_never_activated() {
    let (old, mut new) = two();
    let made = image([Some(&old), None], &[("node_1.0.0.efi", &old)]);
    let memory = Memory::new(&made.bytes);
    let before = vec![("node_1.0.0.efi".to_owned(), Some(Slot::A))];
    let mut root = new.root.clone();
    root[70_000] ^= 1;
    let error = try_bytes(&made, &memory, &new, &root, &new.uki);
    assert!(matches!(error, ApplyError::Root { slot: Slot::B, .. }), "{error}");
    let error = try_bytes(&made, &memory, &new, &new.root, &old.uki);
    assert!(matches!(error, ApplyError::Uki { .. }), "{error}");
    new.document.uki.sha256 = Digest::of(&old.uki);
    let error = try_bytes(&made, &memory, &new, &new.root, &old.uki);
    assert!(matches!(error, ApplyError::UkiRoot { .. }), "{error}");
    assert_eq!(files(&memory, &made), before);
}

#[test]
fn what_no_longer_boots_makes_room_and_what_is_not_ours_stays() {
    let (old, new) = two();
    let gone = Version::new("0.8.0", 7);
    let foreign = Version::new("9", 8);
    let entries = [
        ("node_1.0.0.efi", &old),
        ("node_0.9.0+0-3.efi", &gone),
        ("node_0.8.0.efi", &gone),
        ("rescue_9.efi", &foreign),
        ("memtest.efi", &foreign),
    ];
    let made = image([Some(&old), None], &entries);
    let memory = Memory::new(&made.bytes);
    update(&mut memory.parts(&made, Slot::B), Slot::B, &old, &new).unwrap();
    let left: Vec<String> = files(&memory, &made).into_iter().map(|(file, _)| file).collect();
    assert_eq!(left, ["node_1.0.1+3.efi", "node_1.0.0.efi", "rescue_9.efi"]);
}
