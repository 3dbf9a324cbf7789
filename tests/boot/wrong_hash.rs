//! A new version whose kernel image and root are not of one making.

use std::fs::OpenOptions;
use std::path::Path;

use keller::base::Digest;
use keller::disk::gpt;
use keller::disk::{FileDevice, Release, SectorSize, slot};

use super::disk::boot_until;
use super::pair::{ID, entries_of, on_trial, section};
use super::trial::is_back;
use super::{BOOT, Node};

const ENTRIES: [&str; 2] = ["pair_1.0.0.efi", "pair_1.0.1+0-1.efi"];

/// Has the kernel image name another root: each digit of the hash is another one. Gives that hash.
fn change_hash(uki: &mut [u8]) -> Digest {
    const WORD: &[u8] = b"roothash=";
    let cmdline = section(uki, ".cmdline");
    let at = cmdline.windows(WORD.len()).position(|word| word == WORD).unwrap() + WORD.len();
    let digits = &mut cmdline[at..at + 64];
    for digit in digits.iter_mut() {
        let value = char::from(*digit).to_digit(16).unwrap();
        *digit = char::from_digit(15 - value, 16).unwrap() as u8;
    }
    str::from_utf8(digits).unwrap().parse().unwrap()
}

/// Has the table say that the second slot holds the root of `root_hash`.
fn rename(image: &Path, root_hash: Digest) {
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let mut disk = FileDevice::image(file, SectorSize::B512).unwrap();
    let found = gpt::read_any(&disk).unwrap();
    let mut table = found.table.clone();
    let [_, (_, parts)] = slot::slots(&found.table).unwrap();
    let release = Release { id: ID.to_owned(), version: "1.0.1".to_owned(), root_hash };
    for (part, identity) in [(parts.root, release.root()), (parts.verity, release.verity())] {
        table.rename(part.number, identity.guid, &identity.label, identity.attributes).unwrap();
    }
    gpt::rewrite(&mut disk, &found, &table).unwrap();
}

#[test]
fn a_hash_that_no_slot_has_ends_in_the_old_version() {
    let image = on_trial("no-slot", 1, |uki| _ = change_hash(uki));
    let mut node = Node::start(&image, &["--persist"], 8080);
    node.expect("no disk has the two partitions that the root hash names", BOOT);
    node.answers(8080, BOOT);
    let why = is_back(&node, ENTRIES);
    assert!(why.contains("its boots left no journal"), "{why}");
}

#[test]
fn a_root_that_is_not_what_the_hash_says_ends_in_the_old_version() {
    let mut hash = None;
    let image = on_trial("not-that-root", 1, |uki| hash = Some(change_hash(uki)));
    rename(&image, hash.unwrap());
    let console = boot_until("multi-user.target", &image, &[]);
    let (new, old) = console.split_once("root in partition 4").expect("the new version");
    assert!(!new.contains("root verified"), "{new}");
    assert!(old.contains("root in partition 2") && old.contains("root verified and mounted"), "{old}");
    assert_eq!(entries_of(&image), ENTRIES);
}
