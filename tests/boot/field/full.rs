//! A container whose volume takes the last of /var, block by block and inode by inode: an update and the journal have
//! their room.

use super::Node;
use crate::boot::update::own_updates;
use crate::updates::World;

/// In the container `kept`, as its root: all blocks of the state partition that it can have.
const BLOCKS: &str =
    "for bs in 1M 4k; do busybox dd if=/dev/zero of=/data/blocks.$bs bs=$bs; done; busybox sync";

pub fn var_takes_neither_an_update_nor_the_journal(node: &Node) {
    let world = World::of("field", &["1.0.1", "1.0.2"]);
    own_updates(node, &world, "");
    let part = "lsblk --noheadings --list --output NAME,PARTLABEL | grep keller-reserve | cut -d' ' -f1";
    let part = format!("/dev/{}", node.run(part));
    for (directory, place) in [("journal", "/var/log/journal"), ("update", "/var/lib/keller/update")] {
        let mounted = node.run(&format!("findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS {place}"));
        let words: Vec<&str> = mounted.split_whitespace().collect();
        assert_eq!(words[..2], [&format!("{part}[/{directory}]"), "ext4"]);
        assert!(["nosuid", "nodev", "noexec"].iter().all(|flag| words[2].contains(flag)), "{mounted}");
    }
    assert_eq!(node.run("stat -c '%a %U %G' /var/log/journal"), "2755 root systemd-journal");
    let facts: serde_json::Value = serde_json::from_str(&node.run("cat /run/keller/boot.json")).unwrap();
    assert_eq!(facts["reserve"], part);
    journal_leaves_one_half(node);

    fill(node, BLOCKS);
    assert!(!node.try_run("sudo dd if=/dev/zero of=/srv/more bs=1M count=16").status.success());
    assert_eq!(node.run("df --output=avail /var | tail -n 1").trim(), "0");
    logs(node, "blocks");
    takes(node, "1.0.1");
    node.run("sudo rm -f /srv/more /srv/app/data/blocks.1M /srv/app/data/blocks.4k");

    let inodes = node.run("df --output=iavail /var | tail -n 1");
    let inodes = inodes.trim();
    fill(
        node,
        &format!(
            "busybox mkdir /data/inodes; cd /data/inodes; busybox seq {inodes} | busybox xargs touch; busybox sync"
        ),
    );
    // What podman has given back at the end of the command is taken as well.
    node.run("sudo sh -c 'n=0; while touch /srv/more.$n; do n=$((n+1)); done' 2>/dev/null");
    assert!(!node.try_run("sudo touch /srv/one-more").status.success());
    logs(node, "inodes");
    takes(node, "1.0.2");
    let state = node.run("sudo keller update status");
    assert!(state.contains("1.0.2"), "{state}");
}

/// By journald's own account.
fn journal_leaves_one_half(node: &Node) {
    let room: u64 =
        node.run("df --block-size=1 --output=size /var/log/journal | tail -n 1").trim().parse().unwrap();
    // What comes last holds: the base has a limit of its own, for disks without a reserve.
    let limits = node.run("systemd-analyze cat-config systemd/journald.conf");
    let last = |key: &str| limits.lines().filter_map(|line| line.strip_prefix(key)).next_back();
    let half = (room / 2).to_string();
    assert_eq!(["SystemMaxUse=", "SystemKeepFree="].map(last), [Some(&half[..]); 2], "{limits}");
    let said = node
        .run("sudo journalctl --boot --output=cat --unit=systemd-journald.service | grep 'System Journal'");
    assert!(said.contains("/var/log/journal/"), "{said}");
}

/// What podman itself cannot write at its end is no part of it.
fn fill(node: &Node, command: &str) {
    let said = node.try_run(&format!("sudo podman exec --user 0 kept sh -c '{command}'"));
    println!("{}", String::from_utf8_lossy(&said.stderr));
}

/// A line in a file of the journal that has to be made first.
fn logs(node: &Node, of: &str) {
    node.run("sudo journalctl --rotate");
    for said in [format!("no {of} are left"), format!("none of the {of}")] {
        node.run(&format!("echo '{said}' | systemd-cat --identifier neighbour"));
    }
    node.run("sudo journalctl --sync");
    let files = "journalctl --directory=/var/log/journal --output=cat --no-pager --identifier=neighbour";
    let found = node.run(&format!("{files} --grep '{of}'"));
    assert_eq!(found, format!("no {of} are left\nnone of the {of}"));
}

fn takes(node: &Node, version: &str) {
    let output = node.try_run(&format!("sudo keller update stage --version {version}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    println!("{said}");
}
