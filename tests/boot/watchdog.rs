//! A node whose PID 1 has stopped: only hardware can help, and does.

use std::time::{Duration, Instant};

use super::scratch::Scratch;
use super::update::run;
use super::{BOOT, Node, behind, keller};

/// Of QEMU's, as every machine of `keller boot` has it.
pub(super) const QEMUS: &str = "i6300ESB timer";

/// The kernel for real machines, without the driver of QEMU's.
#[test]
#[ignore = "long: ci/test --long"]
fn intels_starts_a_node_over_too() {
    let folder = Scratch::new("itco");
    let text = format!(
        "keller: 1\nid: itco\nversion: 1.0.0\n{}\
         users: [{{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}}]\n\
         kernel: {{cmdline: [\"console=ttyS0,115200\", module_blacklist=i6300esb], initramfs_modules: auto}}\n\
         disk: {{esp: 128MiB, root: 512MiB, reserve: 64MiB, state: {{min: 256MiB}}}}\noutputs: [raw]\n",
        behind::METAL
    );
    std::fs::write(folder.join("node.yaml"), text).unwrap();
    run(keller().current_dir(&*folder).args(["build", "--quiet", "--output", ".", "node.yaml"]));
    let mut node = Node::boot(&folder.join("itco_1.0.0.raw"), &[]);
    assert_eq!(node.settled(), "running");
    starts_it_over(&mut node, "iTCO_wdt");
}

/// Stops PID 1 of a node that is up, and waits until its watchdog, with this name, has started it over.
pub(super) fn starts_it_over(node: &mut Node, name: &str) {
    let log = node.run("sudo journalctl --boot --output=cat --no-pager");
    assert!(log.contains(&format!("watchdog {name} armed, 90 seconds")), "/init has not armed it");
    assert!(log.contains(&format!("Using hardware watchdog '{name}'")), "systemd has not taken it over");
    let boot = node.run("cat /proc/sys/kernel/random/boot_id");
    // systemd freezes when it has crashed: nothing is left that pings.
    let _ = node.try_run("sudo kill -ABRT 1");
    let deadline = Instant::now() + BOOT;
    loop {
        let output = node.try_run("cat /proc/sys/kernel/random/boot_id");
        let now = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && now != boot {
            break;
        }
        assert!(Instant::now() < deadline, "the watchdog did nothing:\n{}", node.drain());
        std::thread::sleep(Duration::from_secs(3));
    }
    assert_eq!(node.settled(), "running");
}
