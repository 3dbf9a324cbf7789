//! Microsoft's VHD, for Azure, Hyper-V and XenServer: fixed, the disk itself with a footer, or dynamic, in blocks of 2 MiB.
//!
//! Source: Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0. All numbers big-endian.
//!
//! The geometry can name but few sizes. Programs that go by the name of the creating application take the footer's
//! current size where that is `qem2`, which QEMU gives to a disk whose size must hold (its option `force_size`, since
//! 2.5); Hyper-V and Azure take it always. Without it QEMU before version 10 would cut off the end of the disk, and the
//! backup partition table with it. The time is 0 and the identifier follows from the content, so that one disk has one
//! VHD.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use uuid::{Builder, Uuid};

use super::disk::{CHUNK, CLUSTER, Disk};
use super::stream::Stream;
use crate::base::align;
use crate::base::on_disk::{FromZeros, IntoBytes, be, on_disk};
use crate::base::width::{to_u64, to_usize};

/// With which a dynamic file begins and each ends.
pub(super) const COOKIE: &[u8; 8] = b"conectix";
const SECTOR: u64 = 512;
const BLOCK: u64 = 2 << 20;
/// A bit for each sector of a block.
const BITMAP: usize = 512;
const _: () = assert!(BLOCK / SECTOR == 8 * to_u64(BITMAP));
/// Where the table of blocks lies: behind footer and header.
const TABLE_AT: u64 = 1536;
/// No place.
const NOWHERE: u64 = u64::MAX;
const VERSION: u32 = 0x0001_0000;

/// How the disk lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed = 2,
    Dynamic = 3,
}

on_disk! {
    /// `Hard Disk Footer Format`.
    Footer: 512 bytes {
        cookie: [u8; 8],
        features: be::U32,
        file_format_version: be::U32,
        data_offset: be::U64,
        time_stamp: be::U32,
        creator_application: [u8; 4],
        creator_version: be::U32,
        creator_host_os: [u8; 4],
        original_size: be::U64,
        current_size: be::U64,
        cylinders: be::U16,
        heads: u8,
        sectors: u8,
        disk_type: be::U32,
        checksum: be::U32,
        unique_id: [u8; 16],
        saved_state: u8,
        reserved: [u8; 427],
    }
}

on_disk! {
    /// `Dynamic Disk Header Format`.
    Header: 1024 bytes {
        cookie: [u8; 8],
        data_offset: be::U64,
        table_offset: be::U64,
        header_version: be::U32,
        max_table_entries: be::U32,
        block_size: be::U32,
        checksum: be::U32,
        parent: [u8; 984],
    }
}

/// Whether `file` ends as a fixed VHD does, whose disk has no sign at its begin.
pub(super) fn ends(mut file: &File) -> io::Result<bool> {
    let end = file.seek(SeekFrom::End(0))?;
    let Some(size) = end.checked_sub(to_u64(Footer::SIZE)) else { return Ok(false) };
    let mut footer = Footer::new_zeroed();
    file.read_exact_at(footer.as_mut_bytes(), size)?;
    Ok(footer.cookie == *COOKIE && footer.disk_type == Kind::Fixed as u32 && footer.current_size == size)
}

/// Bytes of the disk in `file`, by the footer at its end.
pub(super) fn size(mut file: &File) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut footer = Footer::new_zeroed();
    file.read_exact_at(footer.as_mut_bytes(), end.saturating_sub(to_u64(Footer::SIZE)))?;
    match footer.cookie == *COOKIE {
        true => Ok(footer.current_size.get()),
        false => Err(io::Error::other("damaged vhd: it does not end with its footer")),
    }
}

/// Writes `disk` as `kind`.
pub(super) fn write(disk: &Disk<'_>, kind: Kind, out: &mut Stream<'_>) -> io::Result<()> {
    let size = align::up(disk.size(), SECTOR);
    let identity = disk.identity()?.as_bytes()[..16].try_into().expect("a digest is longer");
    let footer = footer(size, kind, Builder::from_custom_bytes(identity).into_uuid());
    match kind {
        Kind::Fixed => content(disk, 0, size, out)?,
        Kind::Dynamic => dynamic(disk, &footer, out)?,
    }
    out.write_all(footer.as_bytes())
}

fn footer(size: u64, kind: Kind, unique_id: Uuid) -> Footer {
    let (cylinders, heads, sectors) = geometry(size / SECTOR);
    let mut footer = Footer {
        cookie: *COOKIE,
        // The bit that is always set.
        features: 2.into(),
        file_format_version: VERSION.into(),
        data_offset: if kind == Kind::Dynamic { to_u64(Footer::SIZE) } else { NOWHERE }.into(),
        creator_application: *b"qem2",
        creator_version: 0x0005_0003.into(),
        creator_host_os: *b"Wi2k",
        original_size: size.into(),
        current_size: size.into(),
        cylinders: cylinders.into(),
        heads,
        sectors,
        disk_type: (kind as u32).into(),
        unique_id: *unique_id.as_bytes(),
        ..Footer::new_zeroed()
    };
    footer.checksum = checksum(footer.as_bytes()).into();
    footer
}

/// The ones' complement of the sum of all bytes, the field itself taken as 0.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(0, |sum: u32, byte| sum.wrapping_add((*byte).into()))
}

/// Cylinders, heads and sectors per track of a disk of `total` sectors: the specification's appendix, "CHS Calculation".
fn geometry(total: u64) -> (u16, u8, u8) {
    let total = total.min(65535 * 16 * 255);
    let (heads, sectors) = if total >= 65535 * 16 * 63 {
        (16, 255)
    } else {
        let heads = (total / 17).div_ceil(1024).max(4);
        if heads <= 16 && total / 17 < heads * 1024 {
            (heads, 17)
        } else if total / 31 < 16 * 1024 {
            (16, 31)
        } else {
            (16, 63)
        }
    };
    let small = |number: u64| u8::try_from(number).expect("at most 255");
    let cylinders = u16::try_from(total / sectors / heads).expect("at most 65535");
    (cylinders, small(heads), small(sectors))
}

/// A copy of the footer, the header, the table, and each block that is not zeros with its bitmap.
fn dynamic(disk: &Disk<'_>, footer: &Footer, out: &mut Stream<'_>) -> io::Result<()> {
    // As many as the disk has blocks: Azure wants no more.
    let count = align::units(disk.size(), BLOCK);
    let mut header = Header {
        cookie: *b"cxsparse",
        data_offset: NOWHERE.into(),
        table_offset: TABLE_AT.into(),
        header_version: VERSION.into(),
        max_table_entries: narrow(count)?.into(),
        block_size: narrow(BLOCK)?.into(),
        ..Header::new_zeroed()
    };
    header.checksum = checksum(header.as_bytes()).into();
    out.write_all(footer.as_bytes())?;
    out.write_all(header.as_bytes())?;

    let mut next = TABLE_AT + align::up(count * 4, SECTOR);
    for block in 0..count {
        let place = if is_used(disk, block) { narrow(next / SECTOR)? } else { u32::MAX };
        if place != u32::MAX {
            next += to_u64(BITMAP) + BLOCK;
        }
        out.write_all(&place.to_be_bytes())?;
    }
    let rest = to_usize(align::up(count * 4, SECTOR) - count * 4);
    out.write_all(&vec![0xff; rest])?;
    for block in (0..count).filter(|block| is_used(disk, *block)) {
        // Every sector is there: zeros among them are holes of the file.
        out.write_all(&[0xff; BITMAP])?;
        content(disk, block * BLOCK, (block + 1) * BLOCK, out)?;
    }
    Ok(())
}

fn is_used(disk: &Disk<'_>, block: u64) -> bool {
    disk.used_in(block * BLOCK..(block + 1) * BLOCK).next().is_some()
}

fn narrow(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::Error::other("a VHD has at most 2040 GiB"))
}

/// The disk from byte `start` to byte `end`; zeros become holes.
fn content(disk: &Disk<'_>, start: u64, end: u64, out: &mut Stream<'_>) -> io::Result<()> {
    let mut buffer = vec![0; to_usize(CHUNK)];
    let mut at = start;
    for run in disk.used_in(start..end) {
        let run = run.start * CLUSTER..(run.end * CLUSTER).min(end);
        out.skip(run.start - at)?;
        for offset in run.clone().step_by(to_usize(CHUNK)) {
            let part = &mut buffer[..to_usize((run.end - offset).min(CHUNK))];
            disk.read(part, offset)?;
            out.write_all(part)?;
        }
        at = run.end;
    }
    out.skip(end - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes on both sides of each of its borders.
    #[test]
    fn the_geometry_is_that_of_the_specification() {
        for (total, expected) in [
            (1, (0, 4, 17)),
            (65_535, (963, 4, 17)),
            (278_527, (1023, 16, 17)),
            (278_528, (561, 16, 31)),
            (507_903, (1023, 16, 31)),
            (507_904, (503, 16, 63)),
            (6_332_416, (6282, 16, 63)),
            (66_059_279, (65534, 16, 63)),
            (66_059_280, (16191, 16, 255)),
            (267_382_800, (65535, 16, 255)),
            (u64::MAX, (65535, 16, 255)),
        ] {
            assert_eq!(geometry(total), expected, "{total}");
        }
    }

    #[test]
    fn sums_hold() {
        let footer = footer(3 << 30, Kind::Fixed, Uuid::from_u128(7));
        let sum = footer.checksum.get();
        assert_eq!(checksum(Footer { checksum: 0.into(), ..footer }.as_bytes()), sum);
        assert_eq!(footer.data_offset, NOWHERE);
    }
}
