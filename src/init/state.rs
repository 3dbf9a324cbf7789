//! The state partition: /var, all that outlives updates.

use std::fs;

use rustix::mount::MountFlags;

use super::console::Console;
use super::root::attach;
use super::volume::Volume;
use crate::base::failure::{Doing, Failure};
use crate::disk::layout::STATE_LABEL;

/// What is ours on it.
pub(super) const HOME: &str = "/sysroot/var/lib/keller";

const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Its file system.
pub(super) const VOLUME: Volume = Volume {
    label: STATE_LABEL,
    name: "state",
    mount: "/sysroot/var",
    flags: FLAGS,
    // Root can still log in and remove files.
    making: &["-m", "1"],
};

/// Mounts a state that is gone at reboot.
pub(super) fn mount_memory(console: &Console) -> Result<(), Failure> {
    attach("tmpfs", VOLUME.mount, "tmpfs", FLAGS, "mode=0755")?;
    console.warn("state in memory: nothing of it outlives this boot");
    Ok(())
}

/// Makes the directory for what is ours.
pub(super) fn make_home() -> Result<(), Failure> {
    fs::create_dir_all(HOME).doing(format!("making {HOME}"))
}
