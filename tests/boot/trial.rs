//! Two versions on one disk, the newer on trial: it becomes good, or the older one comes back.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keller::base::device::{Device, ReadAt, Window};
use keller::disk::gpt::{self, Entry, types};
use keller::disk::{FileDevice, SectorSize, slot};
use keller::fs::fat::{Editor, Reader};

use super::{BOOT, Node, keller};

#[test]
fn a_healthy_version_is_blessed_and_an_operator_goes_back() {
    let (image, newer) = (build("healthy", "1.0.0", ""), build("healthy", "1.0.1", ""));
    install(&image, &newer, "healthy");
    let mut node = Node::boot(&image, &["--persist"]);
    assert_eq!(node.settled(), "running");
    let status = wait_for(&node, "good");
    assert_eq!((&status["version"], &status["slot"]), (&"1.0.1".into(), &"b".into()));
    assert_eq!((&status["entry"], &status["counter"]), (&"healthy_1.0.1.efi".into(), &().into()));
    assert_eq!(status["health"]["good"], true);
    assert_eq!(node.run("cat /proc/sys/kernel/softlockup_panic"), "0");
    assert!(!node.try_run("keller update status").status.success(), "it is for root");

    node.run("echo mine | sudo tee /etc/version-of-this");
    let diff = node.try_run("sudo keller etc diff");
    let diff = String::from_utf8_lossy(&diff.stdout).into_owned();
    assert!(diff.contains("/etc/version-of-this: changed in 1.0.1"), "{diff}");
    assert!(diff.contains("-1.0.0") && diff.contains("+1.0.1") && diff.contains("+mine"), "{diff}");

    let said = node.run("sudo keller update rollback");
    assert!(said.contains("1.0.0 runs from the next boot on"), "{said}");
    node.reboot();
    let status = wait_for(&node, "fallen-back");
    assert_eq!((&status["version"], &status["slot"]), (&"1.0.0".into(), &"a".into()));
    assert_eq!(status["update"]["rejected"]["1.0.1"], "rolled back by hand");
    assert_eq!(status["next"], "healthy_1.0.0.efi");
}

#[test]
fn a_version_that_is_not_healthy_falls_back_without_a_hand_on_it() {
    let bad = "health: {command: [/usr/bin/false], deadline: 40s}\n";
    let (image, newer) = (build("sick", "1.0.0", ""), build("sick", "1.0.1", bad));
    install(&image, &newer, "sick");
    let node = Node::boot(&image, &["--persist"]);
    let begun = Instant::now();
    while String::from_utf8_lossy(&node.try_run("cat /etc/os-release").stdout)
        .lines()
        .all(|line| line != "IMAGE_VERSION=\"1.0.0\"")
    {
        assert!(begun.elapsed() < 4 * BOOT, "it did not fall back");
        std::thread::sleep(Duration::from_secs(2));
    }
    assert_eq!(node.settled(), "running");
    let status = wait_for(&node, "fallen-back");
    assert_eq!(status["next"], "sick_1.0.0.efi");
    let why = status["update"]["rejected"]["1.0.1"].as_str().unwrap();
    assert!(why.contains("not healthy in time: the health command failed: exit status: 1"), "{why}");
    assert!(node.run("sudo ls /boot/EFI/Linux").contains("sick_1.0.1+0-3.efi"));
}

/// The status, once it is in `state`.
pub fn wait_for(node: &Node, state: &str) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let text = node.run("sudo keller update status --json");
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        if status["state"] == state && !status["health"].is_null() {
            return status;
        }
        assert!(begun.elapsed() < BOOT, "{text}");
        std::thread::sleep(Duration::from_secs(3));
    }
}

/// A node that is made in seconds, in one version of two.
fn build(id: &str, version: &str, health: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(id);
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = folder.join("node.yaml");
    let text = format!(
        "keller: 1\nid: {id}\nversion: {version}\n\
         include: [keller:manifests/components/base.yaml, keller:manifests/components/kernel-cloud.yaml, \
         keller:manifests/components/ssh.yaml]\n\
         users: [{{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}}]\n\
         files: [{{path: /etc/version-of-this, content: \"{version}\\n\"}}]\n\
         kernel: {{cmdline: [\"console=ttyS0,115200\"]}}\n{health}\
         disk: {{esp: 128MiB, root: 512MiB, state: {{min: 256MiB}}}}\noutputs: [raw]\n"
    );
    std::fs::write(&manifest, text).unwrap();
    // What an earlier run locked may be gone from the mirror.
    let _ = std::fs::remove_file(folder.join("node.lock"));
    let image = folder.join(format!("{id}_{version}.raw"));
    let _ = std::fs::remove_file(image.with_extension("uefi-vars"));
    let status = keller().args(["build", "--quiet", "--output"]).arg(&folder).arg(&manifest).status();
    assert!(status.expect("keller starts").success(), "{id} {version} does not build");
    image
}

/// Puts what `newer` has into the second slot of `image`, with three tries.
fn install(image: &Path, newer: &Path, id: &str) {
    let from = FileDevice::image(File::open(newer).unwrap(), SectorSize::B512).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let mut to = FileDevice::image(file, SectorSize::B512).unwrap();
    let source = gpt::read_any(&from).unwrap();
    let target = gpt::read_any(&to).unwrap();
    let [(_, full), _] = slot::slots(&source.table).unwrap();
    let [_, (_, idle)] = slot::slots(&target.table).unwrap();
    let mut table = target.table.clone();
    for (full, idle) in [(full.root, idle.root), (full.verity, idle.verity)] {
        let mut bytes = vec![0; 1 << 20];
        for at in (0..full.size).step_by(bytes.len()) {
            from.read_at(&mut bytes, full.start + at).unwrap();
            if bytes.iter().any(|byte| *byte != 0) {
                to.write_at(&bytes, idle.start + at).unwrap();
            }
        }
        table.rename(idle.number, full.guid, &full.label, full.attributes).unwrap();
    }
    gpt::rewrite(&mut to, &target, &table).unwrap();

    let esp = entry(&from, types::ESP);
    let path = format!("EFI/Linux/{id}_1.0.1.efi");
    let uki = Reader::open(Window::new(&from, esp.start, esp.size)).unwrap().read(&path, 1 << 30).unwrap();
    let esp = entry(&to, types::ESP);
    let mut esp = Window::new(&mut to, esp.start, esp.size);
    let path = format!("EFI/Linux/{id}_1.0.1+3.efi");
    Editor::open(&mut esp).unwrap().put(&path, &mut uki.as_slice(), uki.len() as u64).unwrap();
    to.flush().unwrap();
}

fn entry(disk: &FileDevice, kind: uuid::Uuid) -> Entry {
    gpt::read_any(disk).unwrap().table.by_type(kind).next().unwrap().clone()
}
