//! A new version whose kernel panics before it has come to anything.

use super::disk::boot_until;
use super::pair::{entries_of, on_trial, section};

#[test]
fn a_kernel_that_finds_no_init_ends_in_the_old_version() {
    let image = on_trial("no-init", 3, |uki| section(uki, ".initrd").fill(b'x'));
    let console = boot_until("multi-user.target", &image, &[]);
    // Each of its three tries is taken.
    assert_eq!(console.matches("Rebooting in 10 seconds").count(), 3, "{console}");
    let (new, old) = console.rsplit_once("Rebooting in 10 seconds").unwrap();
    assert!(new.contains("Kernel panic - not syncing: VFS: Unable to mount root fs"), "{new}");
    assert!(old.contains("root in partition 2") && old.contains("root verified and mounted"), "{old}");
    assert_eq!(entries_of(&image), ["pair_1.0.0.efi", "pair_1.0.1+0-3.efi"]);
}
