//! A new version that hangs: nothing in it can help, its hardware watchdog does. One that hangs before its root is in
//! [`super::early`].

use std::path::Path;
use std::time::Duration;

use super::gdb::Gdb;
use super::monitor::Monitor;
use super::pair::{install, newer_with, older, on_trial};
use super::trial::is_back;
use super::{BOOT, Node};

const ENTRIES: [&str; 2] = ["pair_1.0.0.efi", "pair_1.0.1+0-1.efi"];

fn boot(image: &Path, arguments: [String; 2], more: &[String]) -> Node {
    let arguments: Vec<&str> = arguments.iter().chain(more).map(String::as_str).collect();
    Node::start(image, &[&["--persist", "--cpus", "2"], arguments.as_slice()].concat(), 8080)
}

#[test]
#[ignore = "long: ci/test --long"]
fn a_kernel_that_hangs_ends_in_the_old_version() {
    let image = on_trial("kernel-hangs", 1, |_| ());
    let sockets = tempfile::tempdir().unwrap();
    let (monitor, gdb) = (sockets.path().join("monitor"), sockets.path().join("gdb"));
    let mut node = boot(&image, Monitor::arguments(&monitor), &Gdb::arguments(&gdb));
    node.expect("Using hardware watchdog 'i6300ESB timer'", BOOT);
    let mut monitor = Monitor::connect(&monitor);
    Gdb::connect(&gdb).hang_all();
    let took = monitor.wait_for("WATCHDOG", Duration::from_secs(120));
    eprintln!("the watchdog reset it after {took:.0?}");
    node.answers(8080, BOOT);
    let why = is_back(&node, ENTRIES);
    assert!(why.contains("its boots left no journal"), "{why}");
}

#[test]
#[ignore = "long: ci/test --long"]
fn a_processor_that_hangs_panics_on_trial_and_the_old_version_knows_why() {
    // Never ends, and is in the kernel most of the time.
    let slow = "  command: [dd, if=/dev/zero, of=/dev/null, bs=1M]\n  deadline: 10min\n";
    let image = older("stuck");
    install(&image, &newer_with("stuck", slow), Some(1));
    let sockets = tempfile::tempdir().unwrap();
    let gdb = sockets.path().join("gdb");
    let mut node = boot(&image, Gdb::arguments(&gdb), &[]);
    node.answers(8080, BOOT);
    node.run("until grep -qx dd /proc/[0-9]*/comm; do sleep 1; done");
    Gdb::connect(&gdb).hang_one();
    node.expect("Kernel panic - not syncing: softlockup", Duration::from_secs(120));
    let why = is_back(&node, ENTRIES);
    assert!(why.contains("Kernel panic - not syncing: softlockup: hung tasks"), "{why}");
}
