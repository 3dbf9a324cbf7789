//! Other people's tools, and the firmware itself, on a sample of the states.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use keller::disk::gpt::types;
use keller::disk::slot;

use super::cuts::Sample;
use super::disk::SECTOR;
use super::log::Kind;
use super::{AGAIN_BY_FIRMWARE, replay, update};
use crate::boot::disk::boot_until;
use crate::boot::scratch::Disk;
use crate::judges::tool::{run, tool};

/// States that the tools look at.
const SAMPLES: usize = 14;

/// The disk as a file: what the state has, and the state partition as recorded up to the flush before.
fn disk(sample: &Sample, name: &str) -> Disk {
    let recording = &update().recording;
    let path = Disk::copy(&recording.image, name);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len((recording.start.len() * SECTOR) as u64).unwrap();
    let (before, epoch) = recording.epochs.split_at(sample.epoch);
    let changes = before.iter().flat_map(|epoch| epoch.writes.iter().flatten()).chain(&sample.changes);
    for (sector, id) in changes {
        file.write_all_at(recording.contents.bytes(*id), u64::from(*sector) * SECTOR as u64).unwrap();
    }
    for entry in &recording.log.entries[..epoch[0].entries.start] {
        if entry.kind == Kind::Write && recording.state.contains(&entry.sector) {
            file.write_all_at(&recording.log.data(entry), entry.sector * SECTOR as u64).unwrap();
        }
    }
    path
}

/// Some of the samples, from the begin of the update to the end.
fn samples() -> Vec<&'static Sample> {
    let begin = update().recording.between(update().lengths[0]..u64::MAX).start;
    let all: Vec<&Sample> = replay()
        .samples
        .values()
        .filter(|sample| sample.epoch >= begin && !sample.changes.is_empty())
        .collect();
    let count = SAMPLES.min(all.len());
    (0..count).map(|number| all[number * all.len() / count]).collect()
}

/// The `size` bytes from `start` on as a file.
fn part(image: &Path, start: u64, size: u64, name: &str) -> PathBuf {
    let path = image.with_file_name(name);
    let (from, to) = (File::open(image).unwrap(), File::create(&path).unwrap());
    to.set_len(size).unwrap();
    let mut piece = vec![0; 1 << 20];
    for at in (0..size).step_by(piece.len()) {
        let piece = &mut piece[..(size - at).min(1 << 20) as usize];
        from.read_exact_at(piece, start + at).unwrap();
        if piece.iter().any(|byte| *byte != 0) {
            to.write_all_at(piece, at).unwrap();
        }
    }
    path
}

#[test]
fn other_tools_agree_on_a_sample() {
    let recording = &update().recording;
    let table = &recording.judge.table;
    let esp = table.by_type(types::ESP).next().unwrap();
    let mut clean = [0; 2];
    let samples = samples();
    for sample in &samples {
        let boots = sample.verdict.as_ref().unwrap();
        let version = &recording.judge.versions[boots.version];
        let path = disk(sample, "sample");
        println!("{}: {}", sample.what, boots.file);

        let (Some(mut sfdisk), Some(mut sgdisk)) = (tool("sfdisk"), tool("sgdisk")) else { return };
        let seen = run(sfdisk.arg("--dump").arg(&path)).to_lowercase();
        let parts = slot::slots(table).unwrap()[boots.slot as usize].1;
        let (root, verity) = keller::verity::partition_guids(&version.root_hash);
        for (entry, guid) in [(parts.root, root), (parts.verity, verity)] {
            let line = seen
                .lines()
                .find(|line| line.contains(&format!("start= {:>11},", entry.start / SECTOR as u64)));
            assert!(line.is_some_and(|line| line.contains(&guid.to_string())), "{guid}: {seen}");
        }
        clean[0] += usize::from(run(sgdisk.arg("--verify").arg(&path)).contains("No problems found"));

        let (Some(mut mcopy), Some(mut fsck)) = (tool("mcopy"), tool("fsck.fat")) else { return };
        let uki = path.with_file_name("sample.efi");
        let _ = std::fs::remove_file(&uki);
        let place = format!("{}@@{}", path.display(), esp.start);
        run(mcopy.args(["-i", &place, &format!("::EFI/Linux/{}", boots.file)]).arg(&uki));
        assert_eq!(keller::base::Digest::of(std::fs::read(&uki).unwrap()), version.uki_digest);
        let checked = fsck.arg("-n").arg(part(&path, esp.start, esp.size, "sample.esp")).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        clean[1] += usize::from(checked.status.success());
        // A dirty bit, and a count of free clusters that is behind, are what a loss of power leaves anyway.
        for bad in ["share clusters", "free cluster.", "Circular", "exceeds", "Bad", "Start does point"] {
            assert!(!said.contains(bad), "{said}");
        }

        let Some(mut veritysetup) = tool("veritysetup") else { return };
        let root = part(&path, parts.root.start, parts.root.size, "sample.root");
        let verity = part(&path, parts.verity.start, parts.verity.size, "sample.verity");
        run(veritysetup.arg("verify").args([root, verity]).arg(version.root_hash.to_string()));
    }
    println!(
        "sfdisk, mtools and veritysetup agree on {} states; sgdisk finds no problem in {}, fsck.fat in {}",
        samples.len(),
        clean[0],
        clean[1]
    );
    assert!(samples.len() >= 10);
}

#[test]
fn the_firmware_starts_what_was_foretold_and_the_update_is_finished() {
    let samples = samples();
    let old = samples.iter().rev().find(|sample| sample.verdict.as_ref().unwrap().version == 0).unwrap();
    let new = samples.iter().find(|sample| sample.verdict.as_ref().unwrap().version == 1).unwrap();
    // The new version as it starts for the first time, and the old one up to the new one.
    for (name, sample) in [("firmware-new", new), ("firmware-old", old)] {
        println!("{}", sample.what);
        let image = disk(sample, name);
        let console = boot_until("again: 1.0.1 runs", &image, &AGAIN_BY_FIRMWARE);
        let first = console.find("again: 1.0.0 runs").is_some();
        assert_eq!(first, sample.verdict.as_ref().unwrap().version == 0, "{console}");
    }
}
