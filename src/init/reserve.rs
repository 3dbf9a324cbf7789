//! The reserve: a file system of its own for the journal and for the records of updates, so that whatever fills
//! /var takes neither away. Reserved blocks or quotas of the state's file system would not hold: root of a container is
//! uid 0, inodes have no such reserve, and root changes the project of its files.
//!
//! No node waits for it. Where there is none, as on disks that were made before it was, or where it cannot be used, its
//! directories are those of /var.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount_bind, unmount};

use super::console::Console;
use super::disks::BootDisk;
use super::root::attach;
use super::table;
use super::volume::Volume;
use crate::base::Chain;
use crate::base::failure::{Doing, Failure};
use crate::boot::cmdline::Reset;
use crate::disk::gpt::Entry;
use crate::disk::layout::RESERVE_LABEL;

/// Nothing on it is ever run.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Its file system, which is mounted as a whole only until its directories are where they belong.
const VOLUME: Volume = Volume {
    label: RESERVE_LABEL,
    name: "reserve",
    mount: "/reserve",
    flags: FLAGS,
    // All on it is root's, and it has some hundred files: one inode for 64 KiB.
    making: &["-m", "0", "-i", "65536"],
};

/// Its directories, and where they belong in the root.
const DIRECTORIES: [(&str, &str); 2] =
    [("journal", "/sysroot/var/log/journal"), ("update", "/sysroot/var/lib/keller/update")];

/// Of the machine's memory, where the state is in memory as well: 100 MiB of the least machine.
const MEMORY: &str = "mode=0755,size=10%";

/// Where journald is told its share: what an operator has in /etc comes later, by journald.conf(5).
const LIMITS: &str = "/run/systemd/journald.conf.d/50-keller-reserve.conf";

/// Mounts the reserve of `disk`, if it has one that can be used; says which partition it is.
pub fn mount(console: &Console, disk: &BootDisk, reset: Option<Reset>) -> Option<(Entry, String)> {
    let Some(entry) = disk.found.table.entries.iter().find(|entry| entry.label == RESERVE_LABEL) else {
        console.say("no reserve partition: the journal and the records of updates are in /var");
        return None;
    };
    let mounted = fs::create_dir_all(VOLUME.mount).doing(format!("making {}", VOLUME.mount));
    let mounted = mounted.and_then(|()| disk.partition(entry.number)).and_then(|device| {
        let is_new = table::is_as_shipped(entry.guid);
        VOLUME.mount(console, &device, is_new, reset).map(|_| device)
    });
    match mounted {
        Ok(device) => Some((entry.clone(), device)),
        Err(failure) => {
            let way_out = format!(
                "the node goes on without it; `e2fsck`, or `mke2fs -t ext4 -b 4096 -L {RESERVE_LABEL}`, mends it \
                 before the next boot"
            );
            console.warn(&Chain(&failure.help(way_out)).to_string());
            None
        }
    }
}

/// Mounts one that is gone at reboot.
pub fn mount_memory() -> Result<(), Failure> {
    fs::create_dir_all(VOLUME.mount).doing(format!("making {}", VOLUME.mount))?;
    attach("tmpfs", VOLUME.mount, "tmpfs", FLAGS, MEMORY)
}

/// Puts the directories of the mounted reserve where they belong, and tells journald its share.
pub fn settle(console: &Console) {
    let settled = share(Path::new(VOLUME.mount))
        .and_then(|()| DIRECTORIES.iter().try_for_each(|(name, place)| bind(name, place)))
        .and_then(|()| {
            unmount(VOLUME.mount, UnmountFlags::empty()).doing(format!("unmounting {}", VOLUME.mount))
        });
    if let Err(failure) = settled {
        console.warn(&Chain(&failure).to_string());
    }
}

fn bind(name: &str, place: &str) -> Result<(), Failure> {
    let source = Path::new(VOLUME.mount).join(name);
    let doing = || format!("putting {name} of the reserve at {place}");
    fs::create_dir_all(&source).and_then(|()| fs::create_dir_all(place)).doing(doing())?;
    mount_bind(&source, place).doing(doing())
}

/// The journal has one half and leaves the other one free.
fn share(reserve: &Path) -> Result<(), Failure> {
    let doing = || format!("writing {LIMITS}");
    let room = rustix::fs::statvfs(reserve).doing(doing())?;
    let directory = Path::new(LIMITS).parent().unwrap_or(Path::new("/run"));
    fs::create_dir_all(directory).doing(doing())?;
    fs::write(LIMITS, limits(room.f_blocks * room.f_frsize)).doing(doing())
}

/// What journald.conf(5) says for a reserve with `room` bytes.
fn limits(room: u64) -> String {
    let half = room / 2;
    format!(
        "# Of the reserve partition, the other half is for updates.\n[Journal]\nSystemMaxUse={half}\nSystemKeepFree={half}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_leaves_one_half_free() {
        let text = limits(200 << 20);
        assert!(text.ends_with("[Journal]\nSystemMaxUse=104857600\nSystemKeepFree=104857600\n"), "{text}");
    }
}
