//! The proof that no loss of power during an update bricks a node, on the writes of a real one.
//!
//! A whole update in a virtual machine is recorded below the machine's disk: what the firmware, the boot loader,
//! the kernel, systemd-bless-boot and the agent write, and when they flush. The disk is rebuilt for every state that
//! it may have when power fails, and judged: exactly the old version or the new one starts, and all of it is there,
//! byte for byte.
//!
//! What a disk may do: of the sectors that were written since the last flush, any may be there and any may not, in
//! whatever order they were written; a sector is written whole or not at all. Where there are too many such states
//! between two flushes, each prefix, each gap and each sector alone is tried, and random subsets.
//!
//! Writes to the reserve and to the state partition are left out of the states and of the verdicts: ext4 has a journal,
//! which is for this, and /init runs e2fsck over both; no version's start depends on what is in them. They are as recorded up to the flush
//! before where a state is really booted.

mod cuts;
mod disk;
mod fat;
mod judge;
mod kills;
mod log;
mod mutants;
mod others;
mod recording;
mod unfolding;

use std::fs::File;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::scratch::Disk;
use super::update::{ID, MUTE_CARD, Published, published, take};
use super::{BOOT, Node};
use cuts::Replay;
use recording::Recording;

/// Has a node take the other version, and then this one again, and so on.
const AGAIN_BY_FIRMWARE: [&str; 2] =
    ["--qemu-arg=-smbios", "--qemu-arg=type=11,value=io.systemd.stub.kernel-cmdline-extra=again"];

/// One update, recorded once for all tests.
pub(super) struct Update {
    recording: Recording,
    /// Length of the log when the update began, when the new version was ready, and when it ran.
    lengths: [u64; 3],
}

pub(super) fn update() -> &'static Update {
    static UPDATE: OnceLock<Update> = OnceLock::new();
    UPDATE.get_or_init(record)
}

fn record() -> Update {
    let begun = Instant::now();
    let Published { images: [first, second], server, .. } = published();
    let recorded = Disk::copy(first, "recorded");
    let log = first.with_file_name("log");
    File::create(&log).unwrap();
    let built = begun.elapsed();
    let settings = [
        "format=blklogwrites".to_owned(),
        "log.driver=file".to_owned(),
        format!("log.filename={}", log.display()),
    ];
    let mut arguments = vec!["--persist".to_owned()];
    for setting in settings {
        arguments.extend(["--qemu-arg=-set".to_owned(), format!("--qemu-arg=drive.disk.{setting}")]);
    }
    arguments.extend(MUTE_CARD.map(|argument| format!("--qemu-arg={argument}")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let length = || log.metadata().unwrap().len();

    let mut node = Node::boot(&recorded, &arguments);
    let mut lengths = Vec::new();
    take(&mut node, server, || lengths.push(length()));
    // The last that the agent does for a version that is good.
    let deadline = Instant::now() + BOOT;
    // While the agent writes there, /boot is not mounted.
    let starts = |node: &Node| node.try_run("sudo cat /boot/EFI/keller/starts").stdout;
    while !String::from_utf8_lossy(&starts(&node)).contains(&format!("{ID}_1.0.1.efi")) {
        assert!(Instant::now() < deadline, "the starts of the new version are not counted");
        std::thread::sleep(Duration::from_secs(1));
    }
    let _ = node.try_run("sudo systemctl poweroff");
    assert!(node.has_shut_down());
    println!(
        "built and published in {} s, recorded in {} s",
        built.as_secs(),
        (begun.elapsed() - built).as_secs()
    );
    let recording = Recording::open([first, second], &recorded, &log);
    Update { recording, lengths: lengths.try_into().expect("three") }
}

/// Every cut of it, tried once for all tests.
fn replay() -> &'static Replay<'static> {
    static REPLAY: OnceLock<Replay<'static>> = OnceLock::new();
    REPLAY.get_or_init(|| {
        let recording = &update().recording;
        let mut replay = Replay::new(&recording.judge, &recording.contents, &recording.start, 1, 256);
        replay.run(&recording.epochs);
        replay
    })
}

#[test]
fn every_cut_of_a_recorded_update_boots() {
    let Update { recording, lengths } = update();
    let [begin, ready, up] = *lengths;
    let begun = Instant::now();
    let tally = &replay().tally;
    println!(
        "power fails: {} states tried, {} differ: {} boot the old version, {} the new one, whole; {} do not. {} of them \
         have an empty file in place of the new version's entry. Between {} of {} flushes every state there can be; \
         {} verdicts cover all; {:.1} s",
        tally.states,
        tally.distinct,
        tally.boots[0],
        tally.boots[1],
        tally.failures,
        tally.passed_over,
        tally.complete,
        tally.epochs,
        tally.judged,
        begun.elapsed().as_secs_f32(),
    );
    let (applied, rebooted) = (recording.between(begin..ready), recording.between(ready..up));
    println!(
        "flushes {applied:?} are the update's, {rebooted:?} the next start's, those behind the blessing's"
    );
    assert!(tally.broken.is_empty(), "{:#?}", tally.broken);
    assert!(
        tally.distinct > 1_000_000 && tally.boots[1] > 10,
        "fewer states than an update of this size has"
    );
    assert!(applied.len() >= 8 && !rebooted.is_empty() && rebooted.end < recording.epochs.len());
}
