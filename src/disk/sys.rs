//! Disks as the running kernel shows them.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel lists disks. It writes `!` here for a `/` in /dev.
pub const BLOCK: &str = "/sys/block";

/// The kernel's name of partition `number` of `disk`, e.g. `nvme0n1p3` of `nvme0n1`; none where it shows none.
pub fn partition(disk: &str, number: u32) -> Option<String> {
    let is_it = |path: &PathBuf| {
        fs::read_to_string(path.join("partition")).is_ok_and(|text| text.trim().parse() == Ok(number))
    };
    let disk = Path::new(BLOCK).join(disk.replace('/', "!"));
    let mut parts = fs::read_dir(disk).ok()?.flatten().map(|entry| entry.path());
    Some(parts.find(is_it)?.file_name()?.to_string_lossy().replace('!', "/"))
}
