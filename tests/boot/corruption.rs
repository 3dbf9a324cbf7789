//! One flipped bit in a file that is first read after login.

use std::time::Duration;

use keller::disk::Slot;

use super::pair::flip_a_bit;
use super::scratch::Disk;
use super::{Node, image};

/// Read by nothing at boot.
const FILE: &str = "/usr/share/common-licenses/GPL-3";

#[test]
fn flipped_bit_panics_and_reboots() {
    let image = Disk::copy(image(), "flipped");
    flip_a_bit(&image, Slot::A, FILE);
    let mut node = Node::boot(&image, &[]);
    let _ = node.try_run(&format!("cat {FILE}"));
    node.expect("verity", Duration::from_secs(60));
    node.expect("Kernel panic - not syncing", Duration::from_secs(60));
    // The firmware or the next kernel speaks: the node did reboot.
    node.expect("Linux version", Duration::from_secs(180));
}
