//! From a stick to a node: a machine with an empty disk installs without a hand on it, and starts from its disk ever after.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use super::scratch::Scratch;
use super::update::run;
use super::{BOOT, Node, keller};
use crate::unfold;

/// A small node with this component for its kernel.
pub(super) fn manifest(id: &str, kernel: &str, outputs: &str) -> String {
    format!(
        "keller: 1
id: {id}
version: 1.0.0
include:
  - keller:manifests/components/base.yaml
  - keller:manifests/components/{kernel}.yaml
  - keller:manifests/components/ssh.yaml
users: [{{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}}]
kernel: {{cmdline: [\"console=ttyS0,115200\"]}}
health: {{stable: 1s, deadline: 10min}}
disk: {{esp: 256MiB, root: 512MiB, reserve: 64MiB, state: {{min: 256MiB}}}}
outputs: [{outputs}]
"
    )
}

const DOCUMENT: &str = "node: 1
name: installed-node
network:
  interfaces:
    - name: uplink
      card: {name: \"en*\"}
      addresses: [10.0.2.15/24]
      gateways: [10.0.2.2]
      dns: [10.0.2.3]
install: {disk: serial=TARGET}
";

fn build(directory: &Path, output: &str) {
    let arguments = ["build", "--quiet", "--install", "rack.yaml", "--output", output, "node.yaml"];
    run(keller().current_dir(directory).args(arguments));
}

/// Waits until the machine runs from its disk; gives what it says of its boot.
pub(super) fn runs_from_disk(node: &Node) -> String {
    let deadline = Instant::now() + 3 * BOOT;
    loop {
        let output = node.try_run("cat /run/keller/boot.json");
        let facts = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && facts.contains("\"live\": false") {
            return facts;
        }
        assert!(Instant::now() < deadline, "it still runs from memory:\n{}", node.tail());
        std::thread::sleep(std::time::Duration::from_secs(3));
    }
}

pub(super) fn disk_guid(facts: &str) -> &str {
    facts.split("\"disk_guid\": \"").nth(1).and_then(|rest| rest.split('"').next()).expect("it is there")
}

#[test]
fn a_stick_installs_once_and_the_machine_is_a_node() {
    let directory = Scratch::new("stick");
    fs::write(directory.join("node.yaml"), manifest("stick", "kernel-cloud", "raw, iso, netboot")).unwrap();
    fs::write(directory.join("rack.yaml"), DOCUMENT).unwrap();
    build(&directory, "out");
    build(&directory, "again");
    for name in ["stick_1.0.0.iso", "stick_1.0.0.netboot.efi"] {
        let digest =
            |output: &str| keller::base::Digest::of(fs::read(directory.join(output).join(name)).unwrap());
        assert_eq!(digest("out"), digest("again"), "{name}");
    }
    fs::remove_dir_all(directory.join("again")).unwrap();

    let disk = directory.join("disk.raw");
    let size = unfold::node(&directory.join("out/stick_1.0.0.raw")).disk_size;
    File::create(&disk).unwrap().set_len(size).unwrap();
    let drive = format!("--qemu-arg=file={},format=raw,if=none,id=target", disk.display());
    let device = "--qemu-arg=virtio-blk-pci,drive=target,serial=TARGET,bootindex=1";
    let arguments = ["--memory", "1GiB", "--qemu-arg=-drive", &drive, "--qemu-arg=-device", device];
    // QEMU's firmware tries the stick first at each start, and forgets entries of disks that have no place in its order.
    let mut node = Node::start(&directory.join("out/stick_1.0.0.iso"), &arguments, 8080);
    node.expect("stick 1.0.0 is on /dev/vd", 4 * BOOT);
    node.answers(8080, BOOT);
    let facts = runs_from_disk(&node);
    assert_eq!(node.settled(), "running");
    assert_eq!(node.run("hostname"), "installed-node");
    let status = node.run("sudo keller node status");
    let from_esp = "installed-node, by the document from EFI/keller/node.yaml in the EFI system partition";
    assert!(status.starts_with(from_esp), "{status}");
    node.run("sudo test ! -e /boot/EFI/keller/node.yaml");
    let root_hash = node.run("sed -n 's/.*\"root_hash\": \"\\(.*\\)\",/\\1/p' /run/keller/boot.json");

    // The stick again, which leaves the disk alone.
    let _ = node.try_run("sudo systemctl reboot");
    node.expect("has stick 1.0.0 already: nothing was written", 2 * BOOT);
    let again = runs_from_disk(&node);
    assert_eq!(disk_guid(&again), disk_guid(&facts));
    let _ = node.try_run("sudo systemctl poweroff");
    node.expect("Power down", BOOT);
    drop(node);
    let inspected = keller().args(["inspect", "--verify"]).arg(&disk).output().expect("keller starts");
    let said = String::from_utf8_lossy(&inspected.stdout).into_owned();
    assert!(inspected.status.success() && said.contains(&root_hash), "{said}");
}
