//! The verified root as `/` of a program, before it is that of all.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
use rustix::thread::UnshareFlags;

/// Where the root is mounted until it becomes `/`.
pub(super) const ROOT: &str = "/sysroot";

/// What a program may look for besides its own files.
const SHARED: [(&str, &str); 3] =
    [("/dev", "/sysroot/dev"), ("/proc", "/sysroot/proc"), ("/sys", "/sysroot/sys")];

/// A program of the root, with the root as its `/` and with the devices. It gets mounts of its own, which
/// are gone when it ends.
pub(super) fn in_root(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TERM", "linux").current_dir("/");
    let enter = || {
        // SAFETY: the new name space is the child's own, which has one thread and shares no descriptors.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        for (from, to) in SHARED {
            mount_bind_recursive(from, to)?;
        }
        rustix::process::chroot(ROOT)?;
        rustix::process::chdir("/")?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only.
    unsafe { command.pre_exec(enter) };
    command
}
