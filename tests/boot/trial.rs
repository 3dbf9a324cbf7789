//! Two versions on one disk, the newer on trial: it becomes good, or the older one comes back. What a good one outlives.

use std::time::{Duration, Instant};

use keller::disk::Slot;

use super::pair::{install, newer, older};
use super::{BOOT, Node};

#[test]
fn a_healthy_version_is_blessed_an_operator_goes_back_and_the_node_outlives_pid_1_and_a_bad_block() {
    let image = older("healthy");
    install(&image, newer(), Some(3));
    let mut node = Node::boot(&image, &["--persist"]);
    assert_eq!(node.settled(), "running");
    let status = wait_for(&node, "good");
    assert_eq!((&status["version"], &status["slot"]), (&"1.0.1".into(), &"b".into()));
    assert_eq!((&status["entry"], &status["counter"]), (&"pair_1.0.1.efi".into(), &().into()));
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
    assert_eq!(status["next"], "pair_1.0.0.efi");

    // What a good version outlives, on the same node: a boot under emulation takes 40 s of a processor.
    super::watchdog::starts_it_over(&mut node, super::watchdog::QEMUS);
    super::corruption::panics_and_starts_over(&mut node, &image, Slot::A);
}

/// Waits until the node runs 1.0.0, verified and healthy, after 1.0.1 has fallen back, and the boot loader has
/// `entries`. Gives the reason that the agent found.
pub fn is_back(node: &Node, entries: [&str; 2]) -> String {
    is_back_from(node, "1.0.1", &entries)
}

/// The same after several newer versions, of which the agent names `newest`.
pub fn is_back_from(node: &Node, newest: &str, entries: &[&str]) -> String {
    let begun = Instant::now();
    while String::from_utf8_lossy(&node.try_run("cat /etc/version-of-this").stdout) != "1.0.0\n" {
        assert!(begun.elapsed() < 4 * BOOT, "it did not fall back");
        std::thread::sleep(Duration::from_secs(2));
    }
    assert_eq!(node.settled(), "running");
    let root = node.run("findmnt --noheadings --output SOURCE,OPTIONS /");
    assert!(root.starts_with("/dev/mapper/root") && root.contains("ro,"), "{root}");
    let status = wait_for(node, "fallen-back");
    assert_eq!((&status["version"], &status["slot"]), (&"1.0.0".into(), &"a".into()));
    assert_eq!(status["entries"], serde_json::json!(entries));
    assert_eq!(status["health"]["good"], true);
    // The state can be told before the agent has written down the reason.
    loop {
        let status = wait_for(node, "fallen-back");
        if let Some(why) = status["update"]["rejected"][newest].as_str() {
            return why.to_owned();
        }
        assert!(begun.elapsed() < 6 * BOOT, "no reason: {status}");
        std::thread::sleep(Duration::from_secs(2));
    }
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
