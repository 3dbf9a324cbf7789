//! One flipped bit in a file that is first read after login.

use std::path::Path;
use std::time::Duration;

use keller::disk::Slot;

use super::Node;
use super::pair::flip_a_bit;

/// Read by nothing at boot.
const FILE: &str = "/usr/share/common-licenses/GPL-3";

/// The disk `image` of a node that runs from `slot` goes bad; the node panics and starts over.
pub(super) fn panics_and_starts_over(node: &mut Node, image: &Path, slot: Slot) {
    flip_a_bit(image, slot, FILE);
    node.drain();
    let _ = node.try_run(&format!("cat {FILE}"));
    node.expect("verity", Duration::from_secs(60));
    node.expect("Kernel panic - not syncing", Duration::from_secs(60));
    // The firmware or the next kernel speaks: the node did reboot.
    node.expect("Linux version", Duration::from_secs(180));
}
