//! A service of a new version that dies at once: the old one is back after two starts, or one.

use super::pair::{install, newer_that_dies, older};
use super::trial::is_back;
use super::{BOOT, Node};

/// What `why` says of it after `starts`.
fn expected(starts: &str) -> String {
    format!("dies.service exited with status 3{starts}: no table of customers (more in ")
}

#[test]
fn after_two_starts_the_old_version_is_back() {
    let image = older("dies-twice");
    install(&image, &newer_that_dies("dies-twice-new", ""), Some(3));
    let mut node = Node::start(&image, &["--persist"], 8080);
    node.answers(8080, 4 * BOOT);
    // Two of its three tries were taken, and the third is not left.
    let why = is_back(&node, ["pair_1.0.0.efi", "pair_1.0.1+0-2.efi"]);
    println!("{why}");
    assert!(why.starts_with(&expected(" on 2 starts")), "{why}");
    let story = node.run("cat /var/lib/keller/update/fallback-1.0.1.txt");
    assert!(
        story.contains("the last lines of dies.service:") && story.contains("code=exited, status=3"),
        "{story}"
    );
}

#[test]
#[ignore = "long: ci/test --long"]
fn after_one_start_where_the_manifest_says_so() {
    let image = older("dies-once");
    install(&image, &newer_that_dies("dies-once-new", "  give_up_after: 1\n"), Some(3));
    let mut node = Node::start(&image, &["--persist"], 8080);
    node.answers(8080, 4 * BOOT);
    let why = is_back(&node, ["pair_1.0.0.efi", "pair_1.0.1+0-1.efi"]);
    println!("{why}");
    assert!(why.starts_with(&expected("")), "{why}");
}
