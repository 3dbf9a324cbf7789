//! Disks as the running kernel shows them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Where the kernel lists disks. It writes `!` here for a `/` in /dev.
pub const BLOCK: &str = "/sys/block";

/// The unit of `start` and `size` there, in bytes, whatever sectors the disk has.
const SECTOR: u64 = 512;

/// The kernel's name of partition `number` of `disk`, e.g. `nvme0n1p3` of `nvme0n1`; none where it shows none.
pub fn partition(disk: &str, number: u32) -> Option<String> {
    Some(directory(disk, number)?.file_name()?.to_string_lossy().replace('!', "/"))
}

/// Start and size of partition `number` of `disk` in bytes, as the kernel has them; none where it shows none.
pub fn extent(disk: &str, number: u32) -> Option<(u64, u64)> {
    let directory = directory(disk, number)?;
    let says = |file: &str| -> Option<u64> {
        let text = fs::read_to_string(directory.join(file)).ok()?;
        text.trim().parse::<u64>().ok()?.checked_mul(SECTOR)
    };
    Some((says("start")?, says("size")?))
}

/// Reads the table and the sizes again: `BLKRRPART` of linux/fs.h, `_IO(0x12, 95)`.
const READ_AGAIN: u64 = 0x125f;

/// Has the kernel read a disk's table again.
///
/// # Errors
/// Fails while a partition of it is in use.
pub fn read_again(disk: &File) -> io::Result<()> {
    // SAFETY: this request has no argument.
    match unsafe { libc::ioctl(disk.as_raw_fd(), READ_AGAIN) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn directory(disk: &str, number: u32) -> Option<PathBuf> {
    let is_it = |path: &PathBuf| {
        fs::read_to_string(path.join("partition")).is_ok_and(|text| text.trim().parse() == Ok(number))
    };
    let disk = Path::new(BLOCK).join(disk.replace('/', "!"));
    let mut parts = fs::read_dir(disk).ok()?.flatten().map(|entry| entry.path());
    parts.find(is_it)
}
