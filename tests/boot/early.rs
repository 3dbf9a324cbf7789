//! New versions that end before anything of their root has run, one after the other on one disk: the old one is back.
//!
//! They are together since every way back is a whole boot, which takes an emulated processor 40 s. The boot loader takes
//! the newest first. Each has a kernel image; only the oldest of them has the second slot.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use keller::base::Digest;
use keller::disk::gpt;
use keller::disk::{FileDevice, Release, SectorSize, slot};
use serde_json::json;

use super::monitor::Monitor;
use super::pair::{ID, add_entry, on_trial, section};
use super::scratch::Disk;
use super::trial::is_back_from;
use super::{BOOT, Node};

const ENTRIES: [&str; 5] = [
    "pair_1.0.0.efi",
    "pair_1.0.4+0-1.efi",
    "pair_1.0.3+0-3.efi",
    "pair_1.0.2+0-1.efi",
    "pair_1.0.1+0-1.efi",
];

/// The disk: 1.0.4, which names the root of the old version, will hang, 1.0.3 finds no init, 1.0.2 names a root that no slot
/// has, and the slot of 1.0.1 holds another root than its hash says.
fn image() -> Disk {
    let mut hash = None;
    let image = on_trial("early", 1, |uki| hash = Some(change_hash(uki)));
    // From here on no slot has the hash of 1.0.1 as it was built.
    rename(&image, hash.unwrap());
    add_entry(&image, "1.0.2", 1, "1.0.1", |_| ());
    add_entry(&image, "1.0.3", 3, "1.0.1", |uki| section(uki, ".initrd").fill(b'x'));
    add_entry(&image, "1.0.4", 1, "1.0.0", |_| ());
    image
}

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
fn versions_that_do_not_reach_their_root_end_in_the_old_one() {
    let image = image();
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("monitor");
    let [option, value] = Monitor::arguments(&socket);
    let mut node = Node::start(&image, &["--persist", &option, &value], 8080);
    hangs_in_init(&mut node, &socket);

    // Each of the three tries of 1.0.3 is taken.
    let begin = node.seen.len();
    node.expect("no disk has the two partitions that the root hash names", 4 * BOOT);
    let console = &node.seen[begin..];
    assert_eq!(console.matches("Rebooting in 10 seconds").count(), 3, "{console}");
    assert!(console.contains("Kernel panic - not syncing: VFS: Unable to mount root fs"), "{console}");

    node.expect("root in partition 4", BOOT);
    let begin = node.seen.len();
    node.expect("root in partition 2", BOOT);
    assert!(!node.seen[begin..].contains("root verified"), "{}", &node.seen[begin..]);
    node.expect("root verified and mounted", BOOT);
    node.answers(8080, BOOT);
    let why = is_back_from(&node, "1.0.4", &ENTRIES);
    assert!(why.contains("its boots left no journal"), "{why}");
}

/// The disk stops answering until the watchdog has reset the machine.
fn hangs_in_init(node: &mut Node, socket: &Path) {
    node.expect("watchdog i6300ESB timer armed, 90 seconds", BOOT);
    let mut monitor = Monitor::connect(socket);
    // At a byte per second the next block takes more than an hour. None is no limit.
    let limit = |bytes: u32| json!({"device": "disk", "bps": bytes, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0});
    monitor.execute("block_set_io_throttle", &limit(1));
    let took = monitor.wait_for("WATCHDOG", Duration::from_secs(150));
    eprintln!("the watchdog reset it after {took:.0?}");
    let console = node.drain();
    assert!(!console.contains("starting /usr/lib/systemd"), "/init came through:\n{console}");
    monitor.execute("block_set_io_throttle", &limit(0));
}
