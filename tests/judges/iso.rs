//! What a machine is started from, judged by the tools of others.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use keller::base::Digest;
use keller::output::iso::{self, Parts};
use keller::tree::Content;

use super::fixture::pattern;
use super::tool::{run, tool};

/// An image with a program of 40 MiB, and that program.
fn write(path: &Path, program: &[u8]) {
    let file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut &file, program).unwrap();
    let len = program.len().try_into().unwrap();
    let parts = Parts {
        program: Content::Slice { file: Arc::new(file), offset: 0, len },
        name: "node_1.0.0-rc1".to_owned(),
        identity: Digest::of("root"),
        epoch: 1_700_000_000,
    };
    iso::write(&parts, &File::options().read(true).write(true).create_new(true).open(path).unwrap()).unwrap();
}

#[test]
fn others_find_a_volume_a_boot_entry_and_a_partition() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.iso");
    let program = pattern(40 << 20, 1);
    write(&path, &program);
    let Some(mut xorriso) = tool("xorriso") else { return };
    let reports = ["-report_el_torito", "plain", "-report_system_area", "plain", "-ls", "/"];
    let said = run(xorriso.arg("-indev").arg(&path).args(reports));
    let has = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        said.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().ends_with(&words))
    };
    assert!(has("Volume id : 'NODE_1_0_0_RC1'"), "{said}");
    assert!(has("El Torito boot img : 1 UEFI y none 0x0000 0x00 1 512"), "{said}");
    assert!(has("GPT partition path : 1 /ESP.IMG") && has("'ESP.IMG'"), "{said}");
    assert!(has("GPT type GUID : 1 28732ac11ff8d211ba4b00a0c93ec93b"), "{said}");

    let Some(mut sgdisk) = tool("sgdisk") else { return };
    let said = run(sgdisk.arg("--verify").arg(&path));
    assert!(said.contains("No problems found"), "{said}");

    // As a CD shows it: the file of the volume.
    let esp = directory.path().join("esp");
    let mut extract = tool("xorriso").unwrap();
    run(extract.args(["-osirrox", "on", "-indev"]).arg(&path).args(["-extract", "/ESP.IMG"]).arg(&esp));
    let image = fs::read(&path).unwrap();
    assert!(fs::read(&esp).unwrap() == image[1 << 20..image.len() - (1 << 20)]);
    let Some(mut fsck) = tool("fsck.fat") else { return };
    run(fsck.arg("-n").arg(&esp));
    let found = directory.path().join("program");
    run(tool("mcopy").unwrap().arg("-i").arg(&esp).arg("::EFI/BOOT/BOOTX64.EFI").arg(&found));
    assert!(fs::read(&found).unwrap() == program);

    let again = directory.path().join("again.iso");
    write(&again, &program);
    assert!(fs::read(&again).unwrap() == image);
}
