//! The default node: what the first line of the promise says, over ssh.

use super::scratch::Disk;
use super::{Node, image};

/// Warnings that a healthy node may log, each with its reason.
const ALLOWED_WARNINGS: &str = include_str!("allowed-warnings.txt");

#[test]
fn default_node_is_whole_and_keeps_what_it_was_given() {
    let image = Disk::copy(image(), "default");
    let mut node = Node::boot(&image, &["--persist", "--cpus", "2"]);
    assert_eq!(
        node.settled(),
        "running",
        "{}",
        node.run("systemctl --failed --no-legend; journalctl -b -p 3 --no-pager")
    );
    assert_eq!(node.run("systemctl --failed --no-legend"), "");
    assert!(node.page().contains("Hello"), "{}", node.page());
    let health = node.run("etcdctl endpoint health 2>&1");
    assert!(health.contains("is healthy"), "{health}");

    let root = node.run("findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS /");
    assert!(root.starts_with("/dev/mapper/root") && root.contains("erofs") && root.contains("ro"), "{root}");
    let table = node.run("sudo dmsetup table root 2>/dev/null || cat /sys/block/dm-0/dm/name");
    assert!(table.contains("root") || table.contains("verity"), "{table}");
    assert!(!node.try_run("sudo touch /usr/x").status.success(), "/usr can be written");

    let warnings = node.run("sudo journalctl -b -p 4 -o cat --no-pager");
    let unexpected: Vec<&str> =
        warnings.lines().filter(|line| !line.trim().is_empty() && !allowed(line)).collect();
    assert!(unexpected.is_empty(), "warnings in the journal:\n{}", unexpected.join("\n"));

    // Neither LLMNR nor multicast DNS.
    let open = node.run("sudo ss --listening --numeric --tcp --udp --no-header");
    assert!(open.contains(":22 ") && !open.contains(":5355 ") && !open.contains(":5353 "), "{open}");

    let machine = node.run("cat /etc/machine-id");
    let disk = node.run("lsblk -ndo PTUUID /dev/vda");
    node.run("echo kept | sudo tee /etc/kept && echo kept > ~/kept && sync");
    node.reboot();
    assert_eq!(node.settled(), "running");
    assert_eq!(node.run("cat /etc/kept ~/kept"), "kept\nkept");
    assert_eq!(node.run("cat /etc/machine-id"), machine);
    assert_eq!(node.run("lsblk -ndo PTUUID /dev/vda"), disk);
    assert!(node.page().contains("Hello"));
}

/// Whether a line of the list, which is a reason after `#` and a piece of text, covers the warning.
fn allowed(warning: &str) -> bool {
    ALLOWED_WARNINGS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .any(|text| warning.contains(text))
}
