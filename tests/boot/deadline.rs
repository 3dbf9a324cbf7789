//! A new version that never becomes healthy: the old one is back after the last deadline.

use super::pair::{install, newer_with, older};
use super::trial::is_back;
use super::{BOOT, Node};

#[test]
#[ignore = "long: ci/test --long"]
fn a_version_that_is_not_healthy_falls_back_without_a_hand_on_it() {
    let bad = "  command: [/usr/bin/false]\n  deadline: 150s\n";
    let image = older("sick");
    install(&image, &newer_with("sick", bad), Some(2));
    // Long enough on a slow machine for all else to become healthy: the reason must be the command.
    let mut node = Node::start(&image, &["--persist"], 8080);
    node.answers(8080, 4 * BOOT);
    let why = is_back(&node, ["pair_1.0.0.efi", "pair_1.0.1+0-2.efi"]);
    assert!(why.contains("not healthy in time: the health command failed: exit status: 1"), "{why}");
}
