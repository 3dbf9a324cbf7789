//! Disks as they come: larger than the image, with large sectors, copied, torn, wiped.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keller::disk::layout::RESERVE_LABEL;
use keller::disk::{FileDevice, Role, SectorSize, gpt};
use keller::output::{self, Format};
use serde_json::{Value, json};

use super::scratch::{Disk, Scratch};
use super::turn::Turn;
use super::update::own_updates;
use super::{Node, keller, processors};
use crate::judges::tool::{run, tool};
use crate::unfold;
use crate::updates::World;

/// In seconds: until what is waited for, a machine may start several times.
const LIMIT: &str = "1440";

/// A node that is made in seconds: no containers, no etcd. `ssh_key` is for user core.
fn small_node(name: &str, disk: &str, ssh_key: &str) -> Disk {
    // What an earlier run locked may be gone from the mirror.
    let folder = Scratch::new(name);
    let manifest = folder.join("node.yaml");
    let text = format!(
        "keller: 1\nid: {name}\nversion: 1.0.0\n\
         include: [keller:manifests/components/base.yaml, keller:manifests/components/kernel-cloud.yaml, \
         keller:manifests/components/ssh.yaml]\n\
         users: [{{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: [{ssh_key}]}}]\n\
         kernel: {{cmdline: [\"console=ttyS0,115200\"]}}\nhealth: {{deadline: 10min}}\n\
         disk: {disk}\noutputs: [raw]\n"
    );
    std::fs::write(&manifest, text).unwrap();
    let status = keller().args(["build", "--quiet", "--output"]).arg(&*folder).arg(&manifest).status();
    assert!(status.expect("keller starts").success(), "{name} does not build");
    let image = folder.join(format!("{name}_1.0.0.raw"));
    folder.into_disk(image)
}

/// A key pair in `folder`: the file of the private half, and the public line.
fn own_key(folder: &Path) -> (PathBuf, String) {
    let file = folder.join("own-key");
    let public = file.with_extension("pub");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "own", "-f"]).arg(&file));
    (file, std::fs::read_to_string(public).unwrap().trim().to_owned())
}

/// As if the image had been written to a disk that has `more` bytes than a node needs; gives the least size of its state
/// partition.
fn enlarge(image: &Path, more: u64) -> u64 {
    let node = unfold::node(image);
    let file = OpenOptions::new().write(true).open(image).unwrap();
    file.set_len(node.disk_size + more).unwrap();
    node.partition(Role::State).size
}

/// Boots until `text` stands on the console and cuts the power there; gives all that the console showed.
pub(super) fn boot_until(text: &str, image: &Path, arguments: &[&str]) -> String {
    let mut command = keller();
    command.args(["boot", "--persist", "--timeout", LIMIT, "--expect", text]);
    command.args(processors(arguments)).args(arguments).arg(image);
    let output = Turn::take().output(&mut command);
    let console = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{console}{}", String::from_utf8_lossy(&output.stderr));
    console
}

fn contains(console: &str, texts: &[&str]) {
    for text in texts {
        assert!(console.contains(text), "no {text:?} on the console:\n{console}");
    }
}

/// Start and size in bytes of the state partition, and what keller thinks of the table.
fn inspect(image: &Path) -> (u64, u64) {
    let output = keller().args(["inspect", "--json"]).arg(image).output().expect("keller starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_str(&text).unwrap();
    let state = found["partitions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(state["label"], "keller-state");
    // No room that the table does not know of.
    assert_eq!(found["remarks"], json!([]));
    (state["start"].as_u64().unwrap(), state["size"].as_u64().unwrap())
}

/// Start and size in bytes of the reserve.
fn reserve(image: &Path) -> (u64, u64) {
    let disk = FileDevice::image(File::open(image).unwrap(), SectorSize::B512).unwrap();
    let table = gpt::read_any(&disk).unwrap().table;
    let entry = table.entries.iter().find(|entry| entry.label == RESERVE_LABEL).unwrap();
    (entry.start, entry.size)
}

/// By the judgement of e2fsck, once the journal of a machine without power has been replayed.
fn reserve_is_clean(image: &Path) {
    let Some(mut e2fsck) = tool("e2fsck") else { return };
    let (start, size) = reserve(image);
    let mut bytes = vec![0; size as usize];
    File::open(image).unwrap().read_exact_at(&mut bytes, start).unwrap();
    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&copy, bytes).unwrap();
    let replayed = e2fsck.args(["-f", "-p"]).arg(copy.path()).output().unwrap();
    assert!(replayed.status.code().is_some_and(|code| code < 4), "{replayed:?}");
    let text = run(tool("e2fsck").unwrap().args(["-f", "-n"]).arg(copy.path()));
    assert!(text.contains("keller-reserve: ") && !text.contains("Fix? no"), "{text}");
}

fn is_clean(image: &Path) {
    inspect(image);
    reserve_is_clean(image);
    if let Some(mut sgdisk) = tool("sgdisk") {
        let output = sgdisk.arg("--verify").arg(image).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("No problems found"), "{text}");
    }
}

/// The only version of `id` is the one that runs and that the boot loader starts next.
fn runs_as_before(node: &Node, id: &str) {
    let status: Value = serde_json::from_str(&node.run("sudo keller update status --json")).unwrap();
    let entry = format!("{id}_1.0.0.efi");
    assert_eq!(
        (&status["version"], &status["slot"], &status["entries"], &status["next"]),
        (&"1.0.0".into(), &"a".into(), &json!([entry]), &entry.into()),
        "{status}"
    );
}

/// The records of updates are out of reach: nobody can pin, and the agent leaves an update that it may take, here within
/// two minutes after the boot, to an operator.
fn takes_nothing_by_itself(node: &Node) {
    const WHY: &str = "it is neither blank nor a reserve file system, and nothing shall be lost";
    assert_eq!(node.settled(), "running");
    let world = World::of("misused", &["1.0.1"]);
    own_updates(node, &world, "automatic: true\\nwindow: 00:00-23:59\\ninterval: 1min\\n");
    node.run("sudo systemctl restart keller-agent");
    let pin = node.try_run("sudo keller update pin 1.0.0");
    let said = String::from_utf8_lossy(&pin.stderr).into_owned();
    assert!(!pin.status.success(), "{said}");
    contains(&said, &["pinning: the next boot would not know of it: looking at the reserve partition", WHY]);
    let log = "sudo journalctl --boot --output=cat --unit=keller-agent.service";
    let told = format!("timeout 600 sh -c 'until {log} | grep \"may be forgotten\"; do sleep 1; done'");
    let told = node.run(&told);
    contains(
        &told,
        &["1.0.1 is there; `keller update apply` takes it, since a pin or a fall-back may be forgotten", WHY],
    );
    runs_as_before(node, "misused");
    let status = node.run("sudo keller update status");
    contains(&status, &["what was remembered of updates is out of reach in this boot: looking at", WHY]);
    // An operator is obeyed.
    node.run("sudo keller update stage");
}

#[test]
#[ignore = "long: ci/test --long"]
fn large_sectors_an_ext4_root_and_a_disk_with_room() {
    const ROOM: u64 = 2 << 30;
    let disk = "{filesystem: ext4, sector_size: 4096, esp: 272MiB, root: 512MiB, reserve: none, state: {min: 128MiB}}";
    let keys = tempfile::tempdir().unwrap();
    let (own, public) = own_key(keys.path());
    let image = small_node("large-sectors", disk, &public);
    let least = enlarge(&image, ROOM);
    let mut node = Node::boot(&image, &["--persist", "--sector-size", "4096"]);
    assert_eq!(node.settled(), "running");
    let root = node.run("findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS /");
    assert!(root.contains("/dev/mapper/root") && root.contains("ext4") && root.contains("ro"), "{root}");
    assert_eq!(node.run("cat /sys/block/vda/queue/logical_block_size"), "4096");
    let size: u64 = node.run("df --block-size=1 --output=size /var | tail -n 1").trim().parse().unwrap();
    assert!(size > ROOM, "/var has {size} bytes");
    // As on all disks that were made before there was a reserve.
    assert!(!node.try_run("mountpoint --quiet /var/log/journal").status.success());
    assert!(!node.try_run("test -e /run/systemd/journald.conf.d/50-keller-reserve.conf").status.success());
    assert_eq!(node.run("stat -c '%a %U %G' /var/log/journal"), "2755 root systemd-journal");
    assert_eq!(node.run("sudo keller update pin 1.0.0"), "only 1.0.0 is taken from now on");
    let world = World::with_sectors(4096, "large-sectors", &["1.0.1"]);
    own_updates(&node, &world, "");
    let free = "$(df --block-size=1 --output=avail /var | tail -n 1)";
    node.run(&format!("sudo fallocate --length {free} /var/fill"));
    node.run("sudo sh -c 'for bs in 1M 4k; do dd if=/dev/zero of=/var/fill.$bs bs=$bs; done; sync' 2>&1 | grep 'No space'");
    let full = node.try_run("sudo keller update pin --none");
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    assert!(!full.status.success(), "{said}");
    assert!(said.contains("writing /var/lib/keller/update/state.json: No space left on device"), "{said}");

    let full = node.try_run("sudo keller update stage");
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    assert!(!full.status.success(), "{said}");
    assert!(said.contains("/var/lib/keller/update/metadata: No space left on device"), "{said}");
    // It comes up without any room, as it was.
    node.reboot();
    assert_eq!(node.run("df --output=avail /var | tail -n 1").trim(), "0");
    runs_as_before(&node, "large-sectors");
    node.run("sudo sh -c 'rm /var/fill*; mkdir -p /run/systemd/timesync; touch /run/systemd/timesync/synchronized'");
    node.run("sudo keller update stage");

    // The key of the manifest opens as well as the one that was handed over.
    let mut ssh = Command::new(&node.ssh[0]);
    let known = node.ssh.iter().position(|word| word == "-i").unwrap();
    ssh.args(&node.ssh[1..known]).arg("-i").arg(own).args(&node.ssh[known + 2..]);
    ssh.args(["-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "--", "id", "-un"]);
    assert_eq!(run(&mut ssh).trim(), "core");
    drop(node);
    let (_, grown) = inspect(&image);
    assert_eq!(grown, least + ROOM);
}

#[test]
fn a_disk_is_torn_copied_wiped_and_given_back() {
    let image = small_node("misused", "{esp: 64MiB, root: 512MiB, reserve: 64MiB, state: {min: 128MiB}}", "");
    // `keller boot` makes a raw image's disk large enough; this one is as large as the image.
    let small = image.with_extension("qcow2");
    let raw = File::open(&image).unwrap();
    let survey = output::Disk::survey(&raw, 0).unwrap();
    Format::Qcow2.write(&survey, &File::create_new(&small).unwrap(), false).unwrap();
    contains(
        &boot_until("Rebooting in", &small, &[]),
        &["and this node needs 1.3 GiB", "are missing", "way out: a larger disk"],
    );
    enlarge(&image, 1 << 30);
    contains(
        &boot_until("/etc mounted", &image, &[]),
        &[
            "is new: it is disk",
            "unfolded: 4 partitions made",
            "state partition grown to",
            "state made and mounted",
            "reserve made and mounted",
        ],
    );
    is_clean(&image);

    // The primary table is gone, the protective MBR is there.
    let file = File::options().read(true).write(true).open(&image).unwrap();
    file.write_all_at(&[0; 33 * 512], 512).unwrap();
    let console = boot_until("/etc mounted", &image, &[]);
    contains(&console, &["e2fsck: keller-state", "state checked and mounted", "reserve checked and mounted"]);
    assert!(!console.contains("is new"), "{console}");
    is_clean(&image);

    let copy = Disk::copy(&image, "copied");
    let drive = format!("if=none,id=second,format=raw,file={}", copy.display());
    let second = [
        "--qemu-arg=-drive",
        &format!("--qemu-arg={drive}"),
        "--qemu-arg=-device",
        "--qemu-arg=virtio-blk-pci,drive=second",
    ];
    contains(
        &boot_until("Rebooting in", &image, &second),
        &["2 disks carry this image (vda with disk GUID", "way out: detach all but one"],
    );
    drop(copy);

    // Somebody else's data on the state partition stays as it is.
    let (start, size) = inspect(&image);
    let foreign: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    file.write_all_at(&foreign, start).unwrap();
    contains(
        &boot_until("Rebooting in", &image, &[]),
        &["it is neither blank nor a state file system", "way out: keller.state=memory"],
    );
    let mut found = vec![0; foreign.len()];
    file.read_exact_at(&mut found, start).unwrap();
    assert!(found == foreign, "a partition that was refused has been written to");

    // A disk that lost its data reads as zeros, as a new one does; what is known of it tells them apart.
    rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
        start,
        size,
    )
    .unwrap();
    contains(&boot_until("Rebooting in", &image, &[]), &["it had a file system and now is blank"]);

    // The ways out, typed here by the firmware in place of a person at the boot menu.
    let typed = |words: &str| {
        [
            "--qemu-arg=-smbios".to_owned(),
            format!("--qemu-arg=type=11,value=io.systemd.stub.kernel-cmdline-extra={words}"),
        ]
    };
    let boot_with = |words: &str| {
        let arguments = typed(words);
        boot_until("starting /usr/lib/systemd", &image, &[&arguments[0], &arguments[1]])
    };
    contains(&boot_with("keller.state=memory"), &["state in memory: nothing of it outlives this boot"]);
    contains(
        &boot_with("keller.reset=state"),
        &["is made anew, all that was on it is gone", "state made", "reserve made"],
    );
    // No node waits for its reserve, and somebody else's data on it stays as well.
    let (start, _) = reserve(&image);
    file.write_all_at(&foreign, start).unwrap();
    let [option, value] = typed("keller.etc=factory");
    let node = Node::boot(&image, &["--persist", &option, &value]);
    contains(
        &node.seen,
        &[
            "the changes to /etc were put aside in /var/lib/keller/etc.1",
            "state checked",
            "it is neither blank nor a reserve file system",
        ],
    );
    takes_nothing_by_itself(&node);
    drop(node);
    file.read_exact_at(&mut found, start).unwrap();
    assert!(found == foreign, "a partition that was refused has been written to");
}

/// A copy by the map of an image leaves out its holes; this one leaves out all zeros, which are the same on a disk that had the
/// image before. What an old node had in the holes stays.
#[test]
#[ignore = "long: ci/test --long"]
fn a_sparse_copy_over_an_old_nodes_disk_makes_a_new_node() {
    let layout = "{esp: 64MiB, root: 512MiB, reserve: 64MiB, state: {min: 128MiB}}";
    let image = small_node("rewritten", layout, "");
    let disk = Disk::copy(&image, "rewritten-disk");
    enlarge(&disk, 1 << 30);
    let node = Node::boot(&disk, &["--persist"]);
    assert_eq!(node.settled(), "running");
    node.run("sudo sh -c 'echo old > /var/old; echo old > /etc/old; keller update pin 1.0.0; sync'");
    let own = "cat /etc/machine-id; sudo cut -d' ' -f2 /var/lib/ssh/ssh_host_ed25519_key.pub; lsblk -ndo PTUUID /dev/vda; \
               lsblk -no PARTUUID,UUID /dev/disk/by-partlabel/keller-state /dev/disk/by-partlabel/keller-reserve";
    let old = node.run(own);
    drop(node);

    run(Command::new("dd")
        .arg(format!("if={}", image.display()))
        .arg(format!("of={}", disk.display()))
        .args(["bs=64K", "conv=sparse,notrunc", "status=none"]));
    let node = Node::boot(&disk, &["--persist"]);
    contains(
        &node.seen,
        &["is new: it is disk", "unfolded: 4 partitions made", "state made", "reserve made"],
    );
    assert_eq!(node.settled(), "running");
    assert_eq!(node.run("ls -d /var/old /etc/old /var/lib/keller/etc.* 2>/dev/null; true"), "");
    let status = node.run("sudo keller update status");
    assert!(!status.contains("pinned"), "{status}");
    let new = node.run(own);
    let values: Vec<&str> = old.split_whitespace().collect();
    assert_eq!(values.len(), 7, "{old}");
    for value in values {
        assert!(!new.contains(value), "{value} is still there:\n{new}");
    }
    drop(node);
    is_clean(&disk);
}
