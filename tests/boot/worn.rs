//! A version that was good, and whose disk goes bad beside another.

use keller::boot::starts;
use keller::disk::Slot;

use super::disk::boot_until;
use super::pair::{entries_of, flip_a_bit, install, newer, older};

/// Read when /init is done, and before anything can say that the boot is good.
const FILE: &str = "/usr/lib/systemd/systemd";

#[test]
fn a_bad_block_in_a_blessed_version_ends_in_the_other() {
    let image = older("worn");
    install(&image, newer(), None);
    flip_a_bit(&image, Slot::B, FILE);
    let console = boot_until("pair login:", &image, &[]);
    let panics = console.matches("Kernel panic - not syncing").count();
    assert_eq!(panics, starts::LIMIT as usize, "{console}");
    assert!(console.contains("pair_1.0.1+0.efi from now on"), "{console}");

    assert_eq!(entries_of(&image), ["pair_1.0.0.efi", "pair_1.0.1+0.efi"]);
}
