//! The EFI system partition of the node. systemd mounts it at /boot when somebody looks there, and
//! systemd-bless-boot renames entries in it through that mount.

use std::fs;
use std::io;

use super::failure::{Doing, Failure};
use crate::boot::entries::{self, BootEntry, FOLDER};

/// Where systemd-gpt-auto-generator has it mounted on demand.
pub const MOUNT: &str = "/boot";

/// The entries, as the boot loader orders them: the first is the one that it would start.
pub fn entries() -> Result<Vec<BootEntry>, Failure> {
    let folder = format!("{MOUNT}/{FOLDER}");
    let list = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        list => list.doing(format!("reading {folder}"))?,
    };
    let names = list.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<BootEntry> = names.filter_map(|name| entries::parse(&name)).collect();
    found.sort_by(|a, b| a.file.cmp(&b.file));
    entries::order(&mut found);
    Ok(found)
}

/// Whether `entries` have one besides `version` that has proven itself: only then is it worth something to give
/// up on `version`.
pub fn another_is_good(entries: &[BootEntry], version: &str) -> bool {
    entries.iter().any(|entry| entry.version != version && entry.counter.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proven_entry_is_a_way_back() {
        let list = |names: &[&str]| names.iter().filter_map(|name| entries::parse(name)).collect::<Vec<_>>();
        assert!(another_is_good(&list(&["n_1.efi", "n_2+1-2.efi"]), "2"));
        assert!(!another_is_good(&list(&["n_1+0-3.efi", "n_2+1-2.efi"]), "2"));
        assert!(!another_is_good(&list(&["n_1.efi"]), "1"));
    }
}
