//! The EFI system partition in the boot that gives it a GUID of its own.
//!
//! systemd-gpt-auto-generator mounts the partition on demand, but only if it has the GUID that the boot loader told, and
//! that one is of before. For this one boot its units are ours.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::console::Console;
use super::disks::BootDisk;
use crate::base::failure::{Doing, Failure};
use crate::boot::variables;
use crate::disk::gpt::Entry;

/// Where units of one boot are.
const UNITS: &str = "/run/systemd/system";

/// As the generator of systemd 257 has it.
const AUTOMOUNT: &str =
    "# In the first boot the boot loader tells another GUID of this partition than it has now.
[Unit]
Description=EFI System Partition Automount

[Automount]
Where=/boot
TimeoutIdleSec=120
";

/// Has `shipped`, as it was before the table was brought up to date, mounted on demand if it has another GUID now and
/// the generator would pass it over. A node works without that.
pub(super) fn mount_if_renamed(console: &Console, disk: &BootDisk, shipped: &Entry) {
    let is_there = |entry: &Entry| entry.number == shipped.number && entry.guid != shipped.guid;
    let renamed = disk.found.table.entries.iter().any(is_there);
    if !renamed || variables::partition() != Some(shipped.guid) {
        return;
    }
    if let Err(failure) = disk.partition(shipped.number).and_then(|device| lay(Path::new(UNITS), &device)) {
        console.warn(&failure.lines().join(": "));
    }
}

fn lay(units: &Path, device: &str) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let wants = units.join("local-fs.target.wants");
        fs::create_dir_all(&wants)?;
        fs::write(units.join("boot.mount"), mount(device))?;
        fs::write(units.join("boot.automount"), AUTOMOUNT)?;
        symlink("../boot.automount", wants.join("boot.automount"))
    };
    write().doing(format!("having {device} mounted at /boot on demand"))
}

fn mount(device: &str) -> String {
    format!(
        "[Unit]\nDescription=EFI System Partition\n\n[Mount]\nWhat={device}\nWhere=/boot\nType=vfat\n\
         Options=umask=0077,rw,nosuid,nodev,noexec,nosymfollow\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_are_laid() {
        let folder = tempfile::tempdir().unwrap();
        lay(folder.path(), "/dev/vda1").unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("boot.mount").contains("What=/dev/vda1\nWhere=/boot\n"));
        assert_eq!(read("local-fs.target.wants/boot.automount"), AUTOMOUNT);
    }
}
