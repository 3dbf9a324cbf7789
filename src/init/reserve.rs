//! The reserve: a file system of its own for the journal and for the records of updates, so that whatever fills
//! /var takes neither away. Reserved blocks or quotas of the state's file system would not hold: root of a container is
//! uid 0, inodes have no such reserve, and root changes the project of its files.
//!
//! Where there is none, as on disks that were made before it was, or where it cannot be used, its directories are those of
//! /var. The agent is told when it is there and cannot be used: an update of a node that has forgotten its pin is nothing
//! that anybody asked for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount_bind, unmount};

use super::console::Console;
use super::disks::Disk;
use super::root::attach;
use super::volume::Volume;
use super::{state, table};
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

/// Its directories, and where they belong in the state.
const JOURNAL: (&str, &str) = ("journal", "log/journal");
const UPDATE: (&str, &str) = ("update", "lib/keller/update");

/// Of the machine's memory, where the state is in memory as well: 100 MiB of the least machine.
const MEMORY: &str = "mode=0755,size=10%";

/// Where journald is told its share. Of all drop-ins, wherever they are, the last by name holds (journald.conf(5)).
const LIMITS: &str = "/run/systemd/journald.conf.d/50-keller-reserve.conf";

/// What a boot has of it.
#[derive(Debug)]
pub(super) enum Reserve {
    /// The disk was made without one.
    None,
    /// The partition, mounted, and its device.
    Partition(Entry, String),
    /// A file system in memory.
    Memory,
    /// There is one that cannot be used, and why.
    Unusable(String),
}

/// Mounts the reserve of `disk`, if it has one that can be used.
pub(super) fn mount(console: &Console, disk: &Disk, reset: Option<Reset>) -> Reserve {
    let Some(entry) = disk.found.table.entries.iter().find(|entry| entry.label == RESERVE_LABEL) else {
        console.say("no reserve partition: the journal and the records of updates are in /var");
        return Reserve::None;
    };
    let mounted = fs::create_dir_all(VOLUME.mount).doing(format!("making {}", VOLUME.mount));
    let mounted = mounted.and_then(|()| disk.partition(entry.number)).and_then(|device| {
        let standing = table::standing(&disk.found.table, entry);
        VOLUME.mount(console, &device, standing, reset).map(|_| device)
    });
    match mounted {
        Ok(device) => Reserve::Partition(entry.clone(), device),
        Err(failure) => {
            let way_out = format!(
                "the node goes on without it; `e2fsck`, or `mke2fs -t ext4 -b 4096 -L {RESERVE_LABEL}`, mends it \
                 before the next boot"
            );
            let failure = failure.help(way_out);
            console.warn(&Chain(&failure).to_string());
            Reserve::Unusable(reason(&failure))
        }
    }
}

/// Mounts one that is gone at reboot.
pub(super) fn mount_memory() -> Result<Reserve, Failure> {
    fs::create_dir_all(VOLUME.mount).doing(format!("making {}", VOLUME.mount))?;
    attach("tmpfs", VOLUME.mount, "tmpfs", FLAGS, MEMORY).map(|()| Reserve::Memory)
}

impl Reserve {
    /// Number of the partition that is in use.
    pub(super) fn number(&self) -> Option<u32> {
        match self {
            Self::Partition(entry, _) => Some(entry.number),
            _ => None,
        }
    }

    /// Puts its directories where they belong, each for itself, and tells journald its share. Gives the device that is
    /// in use, and why the records of updates are out of reach, if they are.
    pub(super) fn settle(self, console: &Console) -> (Option<String>, Option<String>) {
        let (device, mut forgetful) = match self {
            Self::None => return (None, None),
            Self::Unusable(why) => return (None, Some(why)),
            Self::Partition(_, device) => (Some(device), None),
            Self::Memory => (None, Some("the state is in memory".to_owned())),
        };
        let told = |failure: &Failure| console.warn(&Chain(failure).to_string());
        let journal = bind(JOURNAL).and_then(|()| share(Path::new(VOLUME.mount)));
        let _ = journal.inspect_err(told);
        if let Err(failure) = bind(UPDATE) {
            told(&failure);
            forgetful = Some(reason(&failure));
        }
        let unmounted =
            unmount(VOLUME.mount, UnmountFlags::empty()).doing(format!("unmounting {}", VOLUME.mount));
        let _ = unmounted.inspect_err(told);
        (device, forgetful)
    }
}

/// What was done and what went wrong, in one line; the way out is in the kernel's log.
fn reason(failure: &Failure) -> String {
    let lines = failure.lines();
    let lines: Vec<&str> =
        lines.iter().map(|line| line.trim()).filter(|line| !line.starts_with("way out: ")).collect();
    lines.join(": ")
}

fn bind((name, place): (&str, &str)) -> Result<(), Failure> {
    let source = Path::new(VOLUME.mount).join(name);
    let doing = || format!("putting {name} of the reserve at {place}");
    fs::create_dir_all(&source).doing(doing())?;
    let place = directory(Path::new(state::VOLUME.mount), place).doing(doing())?;
    mount_bind(&source, &place).doing(doing())
}

/// The directory `place` below `state`, made where it is missing. What is there may be anybody's who has been root of the
/// node: nothing of it is a link, or the mount would lie where that leads.
fn directory(state: &Path, place: &str) -> io::Result<PathBuf> {
    let mut path = state.to_owned();
    for part in place.split('/') {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(io::Error::other(format!("{} is no directory", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&path)?,
            Err(error) => return Err(error),
        }
    }
    Ok(path)
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
    fn a_reason_is_one_line() {
        let failure = Failure::new("looking at it", "it is not ours").help("mend it");
        assert_eq!(reason(&failure), "looking at it: it is not ours");
    }

    #[test]
    fn no_link_leads_a_mount_elsewhere() {
        let state = tempfile::tempdir().unwrap();
        let found = directory(state.path(), "lib/keller/update").unwrap();
        assert!(found.is_dir() && found == state.path().join("lib/keller/update"));
        assert_eq!(directory(state.path(), "lib/keller/update").unwrap(), found);
        std::os::unix::fs::symlink("lib", state.path().join("log")).unwrap();
        let error = directory(state.path(), "log/journal").unwrap_err().to_string();
        assert!(error.ends_with("/log is no directory"), "{error}");
        assert!(!state.path().join("lib/journal").exists());
    }

    #[test]
    fn the_journal_leaves_one_half_free() {
        let text = limits(200 << 20);
        assert!(text.ends_with("[Journal]\nSystemMaxUse=104857600\nSystemKeepFree=104857600\n"), "{text}");
    }
}
