//! Changes in the ESP that are no update: the boot loader, and the way back.

use super::disk::{Made, Memory, Version, image, parts};
use super::judge::Judge;
use super::*;
use crate::base::device::SectorSize;
use crate::base::power_cut::{Recorder, Shared, copy};
use crate::boot::starts;
use crate::fs::fat::Editor;

struct Node {
    made: Made,
    versions: [Version; 2],
}

/// Both slots are full, and the newer version runs.
fn node() -> Node {
    let (old, new) = two();
    let entries = [("node_1.0.0.efi", &old), ("node_1.0.1+2-1.efi", &new)];
    Node { made: image([Some(&old), Some(&new)], &entries), versions: [old, new] }
}

impl Node {
    fn boots(&self, disk: &dyn crate::base::device::ReadAt) -> Result<String, String> {
        let may_boot = vec!["1.0.0", "1.0.1"];
        let versions = self.versions.iter().collect();
        Judge { made: &self.made, versions, may_boot, running: &self.versions[1] }.boots(disk)
    }

    /// Does `change` and judges every loss of power in it; how many states there were, and how many of these
    /// boot the older version.
    fn cut(&self, change: impl FnOnce(&mut Parts<'_>)) -> (usize, usize) {
        let shared = Shared::new(Recorder::new(copy(&self.made.bytes), SectorSize::B512));
        let mut parts = parts(&self.made.layout, Slot::A, |name, start, size| shared.view(name, start, size));
        change(&mut parts);
        drop(parts);
        let (mut judged, mut older) = (0, 0);
        shared.recorder().each_distinct_state(|disk, cut| {
            if cut.spoiled.is_some_and(|(_, before)| before.iter().any(|byte| *byte != 0)) {
                return;
            }
            let boots = self.boots(&disk).unwrap_or_else(|problem| panic!("{}: {problem}", cut.what));
            judged += 1;
            older += usize::from(boots == "1.0.0");
        });
        assert_eq!(shared.recorder().unflushed(), 0);
        (judged, older)
    }
}

#[test]
fn the_boot_loader_is_the_old_or_the_new_at_every_moment() {
    let node = node();
    let new = &node.made.loaders[1];
    let (states, _) = node.cut(|parts| {
        assert_eq!(loader(&mut *parts.esp, new, &Silent).unwrap(), 2);
        assert_eq!(loader(&mut *parts.esp, new, &Silent).unwrap(), 0);
    });
    println!("boot loader: {states} states tried, all boot");
    assert!(states > 50);
}

#[test]
fn what_is_not_systemd_boot_is_not_put_in_its_place() {
    let node = node();
    let memory = Memory::new(&node.made.bytes);
    let mut parts = memory.parts(&node.made, Slot::A);
    let mut older = node.made.loaders[1].clone();
    let at = older.windows(12).position(|bytes| bytes == b"systemd-boot").unwrap();
    older[at] = b'X';
    for bytes in [b"".as_slice(), b"MZ", &node.versions[0].uki, &older] {
        let error = loader(&mut *parts.esp, bytes, &Silent).unwrap_err();
        assert!(matches!(error, ApplyError::NotALoader { .. }), "{error}");
    }
    assert!(memory.is_untouched());
}

#[test]
fn the_way_back_is_taken_at_once_or_not_at_all() {
    let node = node();
    let (states, older) = node.cut(|parts| {
        let name = demote(&*parts.disk, &mut *parts.esp, "node_1.0.1+2-1.efi").unwrap();
        assert_eq!(name, "node_1.0.1+0-1.efi");
        let mut editor = Editor::open(&mut *parts.esp).unwrap();
        assert_eq!(
            starts::begin(&mut editor, "node_1.0.1.efi").unwrap(),
            Some(0),
            "it counts from zero again"
        );
        assert_eq!(demote(&*parts.disk, &mut *parts.esp, &name).unwrap(), name);
        let last = demote(&*parts.disk, &mut *parts.esp, "node_1.0.0.efi").unwrap_err();
        assert!(matches!(last, ApplyError::OnlyEntry { .. }), "{last}");
        let none = demote(&*parts.disk, &mut *parts.esp, "node_7.efi").unwrap_err();
        assert!(matches!(none, ApplyError::NoSuchEntry { .. }), "{none}");
    });
    println!("demotion: {states} states tried, {older} of them boot the version before");
    assert!(older > 0 && older < states);
}

#[test]
fn a_version_is_good_at_once_or_not_yet() {
    let node = node();
    let (states, older) = node.cut(|parts| {
        let file = "node_1.0.1+2-1.efi";
        assert_eq!(bless(&mut *parts.esp, file).unwrap(), "node_1.0.1.efi");
        assert_eq!(bless(&mut *parts.esp, file).unwrap(), "node_1.0.1.efi");
        let none = bless(&mut *parts.esp, "node_7+1.efi").unwrap_err();
        assert!(matches!(none, ApplyError::NoSuchEntry { .. }), "{none}");
    });
    println!("blessing: {states} states tried, all boot the new version");
    assert!(older == 0 && states > 1);
}
