//! The kernel's own file systems, and the verified root.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::chroot::ROOT;
use super::verity;
use crate::base::failure::{Doing, Failure};
use crate::boot::cmdline::RootFs;

/// A file system to mount.
struct Mount<'a> {
    source: &'a str,
    target: &'a str,
    kind: &'a str,
    flags: MountFlags,
    options: &'a str,
}

/// Flags and sizes are those of systemd (src/shared/mount-setup.c), which takes these mounts over as they are.
const KERNEL: [Mount<'static>; 4] = [
    Mount { source: "proc", target: "/proc", kind: "proc", flags: CLOSED, options: "" },
    Mount { source: "sysfs", target: "/sys", kind: "sysfs", flags: CLOSED, options: "" },
    Mount {
        source: "devtmpfs",
        target: "/dev",
        kind: "devtmpfs",
        flags: MountFlags::NOSUID,
        options: "mode=0755,size=4m,nr_inodes=1m",
    },
    Mount {
        source: "tmpfs",
        target: "/run",
        kind: "tmpfs",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        options: "mode=0755,size=20%,nr_inodes=800k",
    },
];

const CLOSED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Mounts `/proc`, `/sys`, `/dev` and `/run`.
pub(super) fn mount_kernel() -> Result<(), Failure> {
    for Mount { source, target, kind, flags, options } in &KERNEL {
        fs::create_dir_all(target).doing(format!("making {target}"))?;
        attach(source, target, kind, *flags, options)?;
    }
    Ok(())
}

/// Mounts the firmware's variables, where there are any.
pub(super) fn mount_firmware_variables() {
    let target = "/sys/firmware/efi/efivars";
    if Path::new(target).exists() {
        // Without them, two disks with one image cannot be told apart; one disk needs no telling.
        let _ = attach("efivarfs", target, "efivarfs", CLOSED, "");
    }
}

/// Mounts the verified root, never to be written.
pub(super) fn mount_verified(root_fs: RootFs) -> Result<(), Failure> {
    // ext4 would replay its journal even on a read-only mount, and the device cannot be written.
    let options = match root_fs {
        RootFs::Erofs => "",
        RootFs::Ext4 => "noload",
    };
    fs::create_dir_all(ROOT).doing(format!("making {}", ROOT))?;
    attach(verity::DEVICE, ROOT, root_fs.name(), MountFlags::RDONLY, options)
}

/// Mounts one file system.
pub(super) fn attach(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), Failure> {
    let what = || format!("mounting {source} as {kind} on {target}");
    let data = CString::new(options).doing(what())?;
    mount(source, target, kind, flags, (!options.is_empty()).then_some(data.as_c_str())).map_err(|error| {
        let failure = Failure::new(what(), error);
        match error {
            Errno::NOENT => failure.help("the image must have this directory"),
            Errno::NODEV => failure.help("the kernel or the initramfs lacks this file system"),
            _ => failure,
        }
    })
}
