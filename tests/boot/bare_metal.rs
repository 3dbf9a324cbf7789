//! What docs/bare-metal.md promises of machines, tried on more kinds of them than the stick of the shorter test: a CD,
//! NVMe, SATA and SAS disks, a bond, a state that is kept, the network at each start, no disk at all. Each says how many
//! seconds it took from power-on: docs/benchmarks.md has what they said.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::install::{disk_guid, manifest, runs_from_disk};
use super::scratch::Scratch;
use super::update::run;
use super::{BOOT, Node, keller};
use crate::unfold;

/// Builds `manifest` with `document` for the machines that are started from it; gives the directory of what was built.
fn build(scratch: &Path, output: &str, manifest: &str, document: &str) -> PathBuf {
    fs::write(scratch.join("node.yaml"), manifest).unwrap();
    fs::write(scratch.join("rack.yaml"), document).unwrap();
    let arguments = ["build", "--quiet", "--install", "rack.yaml", "--output", output, "node.yaml"];
    run(keller().current_dir(scratch).args(arguments));
    scratch.join(output)
}

/// A file of zeros of `size` bytes.
fn blank(path: PathBuf, size: u64) -> PathBuf {
    File::create(&path).unwrap().set_len(size).unwrap();
    path
}

fn qemu(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("--qemu-arg={word}")).collect()
}

/// A disk on a controller of its kind, as arguments of `keller boot`.
fn disk(path: &Path, id: &str, device: &str) -> Vec<String> {
    qemu(&["-drive", &format!("file={},format=raw,if=none,id={id}", path.display()), "-device", device])
}

/// A CD at the second place of the firmware's order.
fn cd(iso: &Path) -> Vec<String> {
    let drive = format!("file={},format=raw,if=none,id=cd,media=cdrom,readonly=on", iso.display());
    qemu(&["-drive", &drive, "-device", "ide-cd,bus=ide.2,drive=cd,bootindex=1"])
}

/// A disk from which nothing starts, for the first place of the firmware's order, which `keller boot` gives to its own disk.
fn nothing(scratch: &Path) -> PathBuf {
    blank(scratch.join("nothing.raw"), 1 << 20)
}

fn start(image: &Path, arguments: &[Vec<String>]) -> Node {
    let arguments: Vec<&str> = arguments.iter().flatten().map(String::as_str).collect();
    Node::start(image, &arguments, 8080)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn off(mut node: Node) {
    let _ = node.try_run("sudo systemctl poweroff");
    node.expect("Power down", BOOT);
}

/// What `keller inspect --verify` says of a disk or an image, which has nothing wrong with it.
fn inspected(disk: &Path) -> Value {
    let output = keller().args(["inspect", "--verify", "--json"]).arg(disk).output().expect("keller starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The parts of it that a node has in common with its image.
fn is_the_same(disk: &Path, image: &Path) {
    let (disk, image) = (inspected(disk), inspected(image));
    assert_eq!(disk["slots"][0], image["slots"][0]);
    for part in ["root_hash", "cmdline", "size", "initrd_size"] {
        assert_eq!(disk["entries"][0][part], image["entries"][0][part], "{part}");
    }
}

/// Installs an image that comes by standard input, as `ssh build cat IMAGE | keller install - DISK` does.
fn install_from_pipe(node: &Node, image: &Path, words: &str) -> String {
    let mut ssh = Command::new(&node.ssh[0]);
    ssh.args(&node.ssh[1..]).args(["-o", "LogLevel=ERROR", "--", "sudo TMPDIR=/var keller install"]);
    ssh.arg(words).arg("-").stdin(File::open(image).unwrap()).stderr(Stdio::piped());
    let output = ssh.output().expect("ssh is installed");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

const BOND: &str = "node: 1
name: metal-node
network:
  interfaces:
    - {name: left, card: {mac: \"52:54:00:12:34:56\"}}
    - {name: right, card: {mac: \"52:54:00:12:34:57\"}}
    - {name: bond0, bond: {of: [left, right]}, addresses: [10.0.2.15/24], gateways: [10.0.2.2], dns: [10.0.2.3]}
install: ";

#[test]
#[ignore = "long: ci/test --long"]
fn a_cd_installs_onto_disks_of_each_kind_and_a_newer_one_keeps_the_state() {
    let scratch = Scratch::new("metal");
    let outputs = "raw, raw.zst, iso";
    let document = |install: &str| format!("{BOND}{install}\n");
    let out = build(
        &scratch,
        "out",
        &manifest("metal", "kernel-metal", outputs),
        &document("{disk: \"bus=nvme\"}"),
    );
    let image = out.join("metal_1.0.0.raw");
    let size = unfold::node(&image).disk_size;
    let file = |name: &str| blank(scratch.join(name), size);
    let (nvme, sata, sas) = (file("nvme.raw"), file("sata.raw"), file("sas.raw"));

    let mut node = start(
        &nvme,
        &[
            words(&[
                "--persist",
                "--bus",
                "nvme",
                "--memory",
                "2GiB",
                "--nic",
                "virtio",
                "--nic",
                "virtio,mute",
            ]),
            cd(&out.join("metal_1.0.0.iso")),
            disk(&sata, "sata", "ide-hd,bus=ide.3,drive=sata,serial=SATA"),
            qemu(&["-device", "megasas,id=raid"]),
            disk(&sas, "sas", "scsi-hd,bus=raid.0,drive=sas,serial=SAS"),
        ],
    );
    let powered = Instant::now();
    node.expect("metal 1.0.0 is on /dev/nvme0n1", 6 * BOOT);
    println!(
        "boot::bare_metal: from power-on with a CD to an installed NVMe disk: {} s",
        powered.elapsed().as_secs()
    );
    node.answers(8080, 2 * BOOT);
    let facts = runs_from_disk(&node);
    println!("boot::bare_metal: ... and to ssh of the node on it: {} s", powered.elapsed().as_secs());
    assert_eq!(node.settled(), "running");
    assert_eq!(node.run("hostname"), "metal-node");
    let links = node.run("ip -brief address; cat /proc/net/bonding/bond0");
    assert!(links.contains("10.0.2.15/24") && links.matches("Slave Interface:").count() == 2, "{links}");

    // By hand from here on: a RAID controller's disk and a SATA disk, with an image that comes through ssh.
    let compressed = out.join("metal_1.0.0.raw.zst");
    let said = install_from_pipe(&node, &compressed, "--disk serial=SATA");
    assert!(said.contains("metal 1.0.0 is on /dev/sd"), "{said}");
    let said = install_from_pipe(&node, &compressed, "--disk serial=SAS");
    assert!(said.contains("metal 1.0.0 is on /dev/sd"), "{said}");
    node.run("echo mine | sudo tee /var/lib/mine > /dev/null; sync");
    let identity = "cat /etc/machine-id; sudo cat /var/lib/ssh/ssh_host_ed25519_key.pub";
    let before = node.run(identity);
    off(node);
    for disk in [&nvme, &sata, &sas] {
        is_the_same(disk, &image);
    }
    // The firmware of QEMU has no driver for the RAID controller: its disk starts where it has one.
    for disk in [&sata, &sas] {
        let mut node = start(disk, &[words(&["--persist", "--bus", "ahci"])]);
        node.answers(8080, BOOT);
        assert_eq!(node.settled(), "running");
        assert_ne!(disk_guid(&runs_from_disk(&node)), disk_guid(&facts));
        off(node);
    }

    // A CD with the next version, which comes first at each start.
    let next = build(
        &scratch,
        "next",
        &manifest("metal", "kernel-metal", "raw, iso").replace("1.0.0", "1.0.1"),
        &document("{disk: \"bus=nvme\", keep: state}"),
    );
    let mut node = start(
        &nothing(&scratch),
        &[
            words(&["--persist", "--memory", "2GiB", "--nic", "virtio", "--nic", "virtio,mute"]),
            cd(&next.join("metal_1.0.1.iso")),
            disk(&nvme, "target", "nvme,serial=N1,drive=target,bootindex=2"),
        ],
    );
    node.expect("metal 1.0.1 is on /dev/nvme0n1", 6 * BOOT);
    node.answers(8080, 2 * BOOT);
    runs_from_disk(&node);
    assert_eq!(node.settled(), "running");
    assert_eq!(node.run("cat /var/lib/mine"), "mine");
    assert_eq!(node.run(identity), before);
    assert_eq!(node.run(". /etc/os-release; echo $IMAGE_VERSION"), "1.0.1");
    off(node);
    is_the_same(&nvme, &next.join("metal_1.0.1.raw"));
}

#[test]
#[ignore = "long: ci/test --long"]
fn a_machine_that_starts_from_the_network_first_is_installed_once() {
    let scratch = Scratch::new("pxe");
    let document = "node: 1\nname: pxe-node\ninstall: {disk: serial=TARGET}\n";
    let manifest = manifest("pxe", "kernel-cloud", "raw, netboot");
    let out = build(&scratch, "out", &manifest, document);
    let image = out.join("pxe_1.0.0.raw");
    let target = blank(scratch.join("target.raw"), unfold::node(&image).disk_size);
    let boot_server =
        format!("user,id=pxe,net=10.0.3.0/24,tftp={},bootfile=pxe_1.0.0.netboot.efi", out.display());
    let mut node = start(
        &nothing(&scratch),
        &[
            words(&["--persist", "--memory", "1GiB"]),
            qemu(&["-netdev", &boot_server, "-device", "virtio-net-pci,netdev=pxe,bootindex=1"]),
            disk(&target, "target", "virtio-blk-pci,drive=target,serial=TARGET,bootindex=2"),
        ],
    );
    let powered = Instant::now();
    node.expect("pxe 1.0.0 is on /dev/vd", 6 * BOOT);
    println!(
        "boot::bare_metal: from power-on by PXE to an installed disk: {} s",
        powered.elapsed().as_secs()
    );
    // The installation has the firmware start the disk next.
    node.answers(8080, 4 * BOOT);
    let first = runs_from_disk(&node);
    assert_eq!(node.run("hostname"), "pxe-node");
    for _ in 0..3 {
        let _ = node.try_run("sudo systemctl reboot");
        node.expect("has pxe 1.0.0 already: nothing was written", 4 * BOOT);
        let facts = runs_from_disk(&node);
        assert_eq!(disk_guid(&facts), disk_guid(&first));
    }
    assert_eq!(node.settled(), "running");
    off(node);
    is_the_same(&target, &image);
}

#[test]
#[ignore = "long: ci/test --long"]
fn a_machine_without_a_disk_is_a_node_as_well() {
    let scratch = Scratch::new("diskless");
    let manifest = fs::read_to_string("manifests/node.yaml").unwrap();
    let manifest = super::patient(&manifest).replace("- components/", "- keller:manifests/components/");
    let manifest =
        manifest.replace("{build: ", "{build: keller:manifests/").replace("outputs: [raw]", "outputs: [iso]");
    let out = build(&scratch, "out", &manifest, "node: 1\nname: diskless\n");
    let iso = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    let iso = iso.into_iter().find(|path| path.extension().is_some_and(|end| end == "iso")).unwrap();
    let state = blank(scratch.join("state.raw"), 2 << 30);
    let mut node = start(
        &nothing(&scratch),
        &[
            words(&["--persist", "--memory", "2GiB"]),
            cd(&iso),
            disk(&state, "state", "virtio-blk-pci,drive=state,serial=STATE"),
        ],
    );
    let powered = Instant::now();
    node.answers(8080, 4 * BOOT);
    println!(
        "boot::bare_metal: from power-on with a CD to ssh of a node without a disk: {} s",
        powered.elapsed().as_secs()
    );
    is_a_node_from_memory(&node);
    let forgotten = node.run("cat /etc/machine-id");

    let only_state = "sudo keller install --only-state --disk serial=STATE /run/keller/live/disk.raw";
    let said = node.run(only_state);
    assert!(said.contains("is for the state of a node that runs from memory"), "{said}");
    node.reboot();
    is_a_node_from_memory(&node);
    let kept = node.run("cat /etc/machine-id");
    assert_ne!(kept, forgotten);
    node.run("sudo etcdctl --command-timeout 60s put kept here");
    let refused = node.try_run(only_state);
    assert!(String::from_utf8_lossy(&refused.stdout).contains("already: nothing was written"), "{refused:?}");
    node.reboot();
    is_a_node_from_memory(&node);
    assert_eq!(node.run("cat /etc/machine-id"), kept);
    assert_eq!(node.run("sudo etcdctl --command-timeout 60s get kept"), "kept\nhere");
    assert!(node.run("journalctl --list-boots --quiet --no-pager | wc -l").parse::<u32>().unwrap() >= 2);
}

/// The default node, started from a CD.
fn is_a_node_from_memory(node: &Node) {
    assert_eq!(node.settled(), "running");
    assert_eq!(node.run("hostname"), "diskless");
    assert!(node.page().contains("Hello"), "{}", node.page());
    assert!(node.run("cat /run/keller/boot.json").contains("\"live\": true"));
    assert_eq!(node.run("sudo etcdctl --command-timeout 60s put a b"), "OK");
}
