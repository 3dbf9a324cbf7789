//! The device mapper's ioctls, as far as one device with one target needs them.
//!
//! Source: Linux, include/uapi/linux/dm-ioctl.h.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::base::on_disk::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};
use crate::base::width::{to_index, to_u64};

/// Where the device mapper listens; devtmpfs makes the node when the module is loaded.
const CONTROL: &str = "/dev/mapper/control";

/// The interface's version that we speak; the kernel refuses another major number.
const VERSION: [u32; 3] = [4, 0, 0];

/// `DM_READONLY_FLAG`.
const READ_ONLY: u32 = 1;

/// Commands, the last byte of the ioctl number.
#[derive(Clone, Copy, Debug)]
enum Command {
    /// `DM_DEV_CREATE`.
    Create = 3,
    /// `DM_DEV_REMOVE`.
    Remove = 4,
    /// `DM_DEV_SUSPEND`, which without the suspend flag resumes: the new table becomes the live one.
    Resume = 6,
    /// `DM_TABLE_LOAD`.
    LoadTable = 9,
}

/// `struct dm_ioctl`: numbers in the machine's own order.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// `struct dm_target_spec`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
struct TargetSpec {
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; 16],
}

const HEADER: usize = size_of::<Header>();
const HEADER_BYTES: u32 = 312;
const SPEC: usize = size_of::<TargetSpec>();
const _: () = assert!(HEADER == to_index(HEADER_BYTES) && SPEC == 40);

/// What a whole device is mapped to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// e.g. `verity`.
    pub kind: &'static str,
    /// Size of the device, in 512-byte sectors.
    pub sectors: u64,
    /// As in the table line, without start, length and kind.
    pub parameters: String,
}

/// Makes the read-only device `name`; gives the N of its node `/dev/dm-N`.
pub(super) fn create(name: &str, uuid: &str, target: &Target) -> io::Result<u32> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
    let control = control.as_fd();
    let header = header(name, uuid)?;
    let number = rustix::fs::minor(ioctl(control, Command::Create, header, &[])?.dev);
    // From here on the device is known by its name; a request with both is refused.
    let header = Header { uuid: [0; 129], ..header };
    let load = Header { target_count: 1, flags: READ_ONLY, ..header };
    let started = ioctl(control, Command::LoadTable, load, &encode(target)?)
        .and_then(|_| ioctl(control, Command::Resume, header, &[]));
    if let Err(error) = started {
        let _ = ioctl(control, Command::Remove, header, &[]);
        return Err(io::Error::new(
            error.kind(),
            format!("{error} (table: {} {})", target.kind, target.parameters),
        ));
    }
    Ok(number)
}

fn header(name: &str, uuid: &str) -> io::Result<Header> {
    fn field<const N: usize>(text: &str) -> io::Result<[u8; N]> {
        let mut field = [0; N];
        // The last byte stays the NUL.
        field[..N - 1]
            .get_mut(..text.len())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{text} is too long")))?
            .copy_from_slice(text.as_bytes());
        Ok(field)
    }
    Ok(Header {
        version: VERSION,
        data_size: 0,
        data_start: HEADER_BYTES,
        target_count: 0,
        open_count: 0,
        flags: 0,
        event_nr: 0,
        padding: 0,
        dev: 0,
        name: field(name)?,
        uuid: field(uuid)?,
        data: [0; 7],
    })
}

/// The target as it follows the header.
fn encode(target: &Target) -> io::Result<Vec<u8>> {
    let len = (SPEC + target.parameters.len() + 1).next_multiple_of(8);
    let mut spec = TargetSpec { length: target.sectors, next: narrow(len)?, ..TargetSpec::new_zeroed() };
    spec.target_type[..target.kind.len()].copy_from_slice(target.kind.as_bytes());
    let mut bytes = Vec::with_capacity(len);
    bytes.extend(spec.as_bytes());
    bytes.extend(target.parameters.as_bytes());
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Sends one request; gives the header as the kernel left it.
fn ioctl(control: BorrowedFd<'_>, command: Command, header: Header, payload: &[u8]) -> io::Result<Header> {
    let mut buffer = [&[0; HEADER], payload].concat();
    let header = Header { data_size: narrow(buffer.len())?, ..header };
    buffer[..HEADER].copy_from_slice(header.as_bytes());
    // _IOWR(0xfd, command, struct dm_ioctl)
    let request = (3 << 30) | (to_u64(HEADER) << 16) | (0xfd << 8) | command as u64;
    // SAFETY: the kernel reads and writes data_size bytes, which is the buffer's length, and copies them, so that
    // they need not be aligned.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), request, buffer.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let (header, _) = Header::read_from_prefix(&buffer).expect("the buffer begins with a header");
    Ok(header)
}

fn narrow(size: usize) -> io::Result<u32> {
    u32::try_from(size).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the table is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_padded_and_ends_with_nul() {
        let target = Target { kind: "verity", sectors: 8, parameters: "1 a b".to_owned() };
        let bytes = encode(&target).unwrap();
        assert_eq!(bytes.len(), 48);
        assert_eq!((&bytes[24..30], &bytes[40..46]), (&b"verity"[..], &b"1 a b\0"[..]));
        assert!(header(&"x".repeat(127), "").is_ok());
        assert!(header(&"x".repeat(128), "").is_err());
    }
}
