//! The initramfs, as `cpio` and `zstd` unpack it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use keller::boot::cmdline::RootFs;
use keller::boot::cpio::Writer;
use keller::boot::initramfs::Parts;
use keller::boot::modprobe::Config;
use keller::tree::Content;

use super::tool::{run, tool};

#[test]
fn cpio_unpacks_what_was_packed() {
    let Some(mut cpio) = tool("cpio") else { return };
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive");
    let mut writer = Writer::new(File::create(&archive).unwrap());
    writer.directory("modules", 0o755).unwrap();
    writer.file("modules/a.ko", 0o640, 5001, &mut [7; 5001].as_slice()).unwrap();
    writer.file("init", 0o755, 1, &mut b"x".as_slice()).unwrap();
    writer.finish().unwrap();
    let target = folder.path().join("unpacked");
    fs::create_dir(&target).unwrap();
    run(cpio
        .args(["--extract", "--quiet", "--no-preserve-owner"])
        .current_dir(&target)
        .stdin(Stdio::from(File::open(&archive).unwrap())));
    assert_eq!(fs::read(target.join("modules/a.ko")).unwrap(), [7; 5001]);
    assert_eq!(fs::metadata(target.join("init")).unwrap().permissions().mode() & 0o7777, 0o755);
}

/// Both archives are whole frames, with at most three bytes of padding between them: so the kernel reads one
/// after the other.
#[test]
fn zstd_reads_both_archives() {
    if tool("zstd").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("initrd.zst");
    let keller = Content::from(vec![1; 9999]);
    let builtin: BTreeSet<String> =
        ["dm_mod", "dm_verity", "overlay", "ext4", "erofs"].map(str::to_owned).into();
    let parts = Parts {
        keller: &keller,
        modules: &[],
        builtin: &builtin,
        choice: None,
        config: &Config::default(),
        root_fs: RootFs::Erofs,
        from_memory: false,
    };
    let made = parts.build().unwrap();
    let second = (4..made.len()).step_by(4).find(|at| made[*at..].starts_with(MAGIC)).unwrap();
    let is_whole = |frame: &[u8]| {
        fs::write(&path, frame).unwrap();
        tool("zstd").unwrap().args(["--test", "--quiet"]).arg(&path).status().unwrap().success()
    };
    let padded = &made[..second];
    let zeros = padded.iter().rev().take_while(|byte| **byte == 0).count().min(3);
    let padding = (0..=zeros).find(|padding| is_whole(&padded[..second - padding])).unwrap();
    assert!(is_whole(&made[second..]));
    assert!(!is_whole(&made[second..made.len() - 1]));
    for frame in [&padded[..second - padding], &made[second..]] {
        let archive = zstd::decode_all(frame).unwrap();
        assert!(archive.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}

/// What a zstd frame begins with.
const MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
