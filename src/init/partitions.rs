//! What the kernel knows of a disk's partitions.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::disk::gpt::Table;
use crate::disk::sys;
pub(super) use crate::disk::sys::read_again;

/// Changes one partition: `BLKPG` of linux/blkpg.h, `_IO(0x12, 105)`.
const CHANGE_PARTITION: u64 = 0x1269;
/// `BLKPG_ADD_PARTITION`.
const ADD: i32 = 1;
/// `BLKPG_RESIZE_PARTITION`.
const RESIZE: i32 = 3;

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Request {
    operation: i32,
    flags: i32,
    data_len: i32,
    data: *mut Partition,
}

/// `struct blkpg_partition`.
#[repr(C)]
struct Partition {
    /// In bytes.
    start: i64,
    /// In bytes.
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// Tells the kernel of the partitions of `table` that it does not know so on the disk `name`, which is open as `disk`: new
/// ones, and ones that have grown. Works while other partitions are in use, and they themselves.
pub(super) fn tell(disk: &File, name: &str, table: &Table) -> io::Result<()> {
    for entry in &table.entries {
        let told = match sys::extent(name, entry.number) {
            None => change(disk, ADD, entry.number, entry.start, entry.size),
            Some((start, size)) if (start, size) == (entry.start, entry.size) => Ok(()),
            Some((start, _)) if start == entry.start => {
                change(disk, RESIZE, entry.number, entry.start, entry.size)
            }
            Some((start, _)) => {
                let expected = entry.start;
                let problem = format!("by the kernel it begins at byte {start}, by the table at {expected}");
                Err(io::Error::other(problem))
            }
        };
        told.map_err(|error| io::Error::new(error.kind(), format!("partition {}: {error}", entry.number)))?;
    }
    Ok(())
}

fn change(disk: &File, operation: i32, number: u32, start: u64, size: u64) -> io::Result<()> {
    let narrow = |value: u64| i64::try_from(value).map_err(io::Error::other);
    let mut partition = Partition {
        start: narrow(start)?,
        length: narrow(size)?,
        number: i32::try_from(number).map_err(io::Error::other)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let data_len = i32::try_from(size_of::<Partition>()).map_err(io::Error::other)?;
    let request = Request { operation, flags: 0, data_len, data: &mut partition };
    // SAFETY: the kernel reads a Request and the Partition that it points to; both outlive the call.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), CHANGE_PARTITION, &request) })
}

fn check(result: i32) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
