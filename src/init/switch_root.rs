//! Makes the verified root `/` and starts its init.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::mount::mount_move;

use super::chroot::ROOT;
use crate::base::failure::{Doing, Failure};

/// What moves over.
const MOVED: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];
/// What is started unless the command line has an `init=`.
const INIT: [&str; 2] = ["/usr/lib/systemd/systemd", "/sbin/init"];

/// Picks the program that the root is handed to.
pub(super) fn find_init(asked: Option<&str>) -> Result<String, Failure> {
    let exists = |path: &&str| {
        // Links lead to places in the root, so only their presence can be checked from here.
        fs::symlink_metadata(Path::new(ROOT).join(path.trim_start_matches('/'))).is_ok()
    };
    let candidates: Vec<&str> = asked.map_or(INIT.to_vec(), |path| vec![path]);
    candidates.iter().find(|path| exists(path)).map(|path| (*path).to_owned()).ok_or_else(|| {
        Failure::new(
            "looking for the root's init",
            format!("the root has no {}", candidates.join(" and no ")),
        )
    })
}

/// Moves the kernel's file systems, frees the initramfs, and becomes `init`. Returns only why it did not.
pub(super) fn hand_over(init: &str) -> Failure {
    match enter() {
        Err(failure) => failure,
        // The environment is what the kernel gave us: HOME, TERM and words of the command line.
        Ok(()) => Failure::new(format!("starting {init}"), Command::new(init).exec()),
    }
}

fn enter() -> Result<(), Failure> {
    for path in MOVED {
        let target = format!("{ROOT}{path}");
        mount_move(path, &target).doing(format!("moving {path} to {target}"))?;
    }
    let here = fs::metadata("/").doing("looking at the initramfs")?.dev();
    empty(Path::new("/"), here);
    std::env::set_current_dir(ROOT).doing(format!("entering {ROOT}"))?;
    mount_move(".", "/").doing("moving the root to /")?;
    rustix::process::chroot(".").doing("changing to the root")?;
    std::env::set_current_dir("/").doing("entering /")
}

/// Deletes what is on the file system `device` from `folder` down: a file system in memory gives its memory
/// back. What cannot be deleted stays and costs only memory.
fn empty(folder: &Path, device: u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.dev() != device {
            continue;
        }
        if meta.is_dir() {
            empty(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether the kernel has the initramfs in memory, so that emptying it cannot hit a disk.
pub(super) fn is_in_memory() -> io::Result<bool> {
    const RAMFS: i64 = 0x8584_58f6_u32 as i64;
    const TMPFS: i64 = 0x0102_1994;
    let path = CString::new(Path::new("/").as_os_str().as_bytes())?;
    let kind = rustix::fs::statfs(path.as_c_str())?.f_type as i64;
    Ok(kind == RAMFS || kind == TMPFS)
}
