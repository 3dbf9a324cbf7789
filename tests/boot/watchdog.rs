//! A node whose PID 1 has stopped: only hardware can help, and does.

use std::time::{Duration, Instant};

use super::{BOOT, Node};

/// Stops PID 1 of a node that is up, and waits until its watchdog has started it over.
pub(super) fn starts_it_over(node: &mut Node) {
    let log = node.run("sudo journalctl --boot --output=cat --no-pager");
    assert!(log.contains("watchdog i6300ESB timer armed, 90 seconds"), "/init has not armed it");
    assert!(log.contains("Using hardware watchdog 'i6300ESB timer'"), "systemd has not taken it over");
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
