//! VMware's disk format in the form that is sent and imported, `streamOptimized`: each grain of the disk compressed, in
//! order, with a marker before it; tables behind the grains that they are about, and the directory of them at the end.
//!
//! Source: VMware, "Virtual Disk Format 5.0", sections "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse
//! Extents". All numbers little-endian, places in sectors of 512 bytes. What the specification calls RFC 1951 is a
//! stream of RFC 1950 in all files that there are. CID and longContentID follow from the content.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::disk::{CLUSTER, Disk};
use super::stream::Stream;
use crate::base::on_disk::{FromZeros, IntoBytes, le, on_disk};
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, align};

/// With which a file begins.
pub(super) const MAGIC: &[u8; 4] = b"KDMV";
const SECTOR: u64 = 512;
const GRAIN_SECTORS: u64 = CLUSTER / SECTOR;
/// Grains that a table is about: 32 MiB of the disk.
const TABLE_ENTRIES: u32 = 512;
/// Where the description begins, in bytes, and its room.
const DESCRIPTION_AT: u64 = SECTOR;
const DESCRIPTION_SECTORS: u64 = 20;
/// Sectors before the first grain, as VMware's programs have it.
const OVERHEAD: u64 = 128;
/// Flags: line ends can be judged; grains are compressed; there are markers.
const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;
/// The directory's place is in the footer.
const AT_END: u64 = u64::MAX;
/// DEFLATE.
const COMPRESSED: u16 = 1;
/// Of DEFLATE.
const LEVEL: u32 = 6;

on_disk! {
    /// `SparseExtentHeader`.
    Header: 512 bytes {
        magic_number: [u8; 4],
        version: le::U32,
        flags: le::U32,
        capacity: le::U64,
        grain_size: le::U64,
        descriptor_offset: le::U64,
        descriptor_size: le::U64,
        num_gtes_per_gt: le::U32,
        rgd_offset: le::U64,
        gd_offset: le::U64,
        over_head: le::U64,
        unclean_shutdown: u8,
        /// `\n`, a blank, `\r\n`: a transfer as text would change them.
        end_lines: [u8; 4],
        compress_algorithm: le::U16,
        pad: [u8; 433],
    }
}

on_disk! {
    /// `Marker` of what is no grain.
    Marker: 512 bytes {
        num_sectors: le::U64,
        size: le::U32,
        kind: le::U32,
        pad: [u8; 496],
    }
}

on_disk! {
    /// `GrainMarker`, with the compressed grain behind it.
    GrainMarker: 12 bytes {
        lba: le::U64,
        size: le::U32,
    }
}

/// Kinds of [`Marker`].
#[derive(Clone, Copy)]
enum Kind {
    EndOfStream,
    GrainTable,
    GrainDirectory,
    Footer,
}

impl Marker {
    fn of(kind: Kind, sectors: u64) -> Self {
        Self { num_sectors: sectors.into(), kind: (kind as u32).into(), ..Self::new_zeroed() }
    }
}

/// Writes `disk`.
pub(super) fn write(disk: &Disk<'_>, out: &mut Stream<'_>) -> io::Result<()> {
    let header = Header {
        magic_number: *MAGIC,
        version: 3.into(),
        flags: FLAGS.into(),
        capacity: align::units(disk.size(), SECTOR).into(),
        grain_size: GRAIN_SECTORS.into(),
        descriptor_offset: (DESCRIPTION_AT / SECTOR).into(),
        descriptor_size: DESCRIPTION_SECTORS.into(),
        num_gtes_per_gt: TABLE_ENTRIES.into(),
        gd_offset: AT_END.into(),
        over_head: OVERHEAD.into(),
        end_lines: *b"\n \r\n",
        compress_algorithm: COMPRESSED.into(),
        ..Header::new_zeroed()
    };
    out.write_all(header.as_bytes())?;
    out.write_all(description(header.capacity.get(), &disk.identity()?).as_bytes())?;
    out.pad(OVERHEAD * SECTOR)?;

    let span = CLUSTER * u64::from(TABLE_ENTRIES);
    let mut directory = Vec::new();
    for start in (0..disk.size()).step_by(to_usize(span)) {
        directory.push(table(disk, start, out)?);
    }
    let bytes: Vec<u8> = directory.into_iter().flat_map(u32::to_le_bytes).collect();
    out.write_all(Marker::of(Kind::GrainDirectory, align::units(to_u64(bytes.len()), SECTOR)).as_bytes())?;
    let directory_at = out.position() / SECTOR;
    out.write_all(&bytes)?;
    out.pad(SECTOR)?;
    out.write_all(Marker::of(Kind::Footer, 1).as_bytes())?;
    out.write_all(Header { gd_offset: directory_at.into(), ..header }.as_bytes())?;
    out.write_all(Marker::of(Kind::EndOfStream, 0).as_bytes())
}

/// Writes the grains of one table, from the byte `start` of the disk, and the table; gives its place, 0 where all are
/// zeros.
fn table(disk: &Disk<'_>, start: u64, out: &mut Stream<'_>) -> io::Result<u32> {
    let span = CLUSTER * u64::from(TABLE_ENTRIES);
    let grains: Vec<u64> = disk.used_in(start..start + span).flatten().collect();
    if grains.is_empty() {
        return Ok(0);
    }
    let made = grains.into_par_iter().map(|grain| {
        let mut bytes = vec![0; to_usize(CLUSTER)];
        disk.read(&mut bytes, grain * CLUSTER)?;
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(LEVEL));
        encoder.write_all(&bytes)?;
        Ok((grain, encoder.finish()?))
    });
    let made: Vec<(u64, Vec<u8>)> = made.collect::<io::Result<_>>()?;
    let mut entries = vec![0; to_usize(TABLE_ENTRIES.into())];
    for (grain, bytes) in made {
        entries[to_usize(grain - start / CLUSTER)] = sector(out.position())?;
        let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let marker = GrainMarker { lba: (grain * GRAIN_SECTORS).into(), size: size.into() };
        out.write_all(marker.as_bytes())?;
        out.write_all(&bytes)?;
        out.pad(SECTOR)?;
    }
    let bytes: Vec<u8> = entries.into_iter().flat_map(u32::to_le_bytes).collect();
    out.write_all(Marker::of(Kind::GrainTable, to_u64(bytes.len()) / SECTOR).as_bytes())?;
    let at = sector(out.position())?;
    out.write_all(&bytes)?;
    Ok(at)
}

/// Bytes of the disk in `file`.
pub(super) fn size(file: &File) -> io::Result<u64> {
    let mut header = Header::new_zeroed();
    file.read_exact_at(header.as_mut_bytes(), 0)?;
    header
        .capacity
        .get()
        .checked_mul(SECTOR)
        .ok_or_else(|| io::Error::other("damaged vmdk: its capacity cannot be"))
}

/// The number of the sector at `position`, which tables hold in 32 bits.
fn sector(position: u64) -> io::Result<u32> {
    u32::try_from(position / SECTOR).map_err(|_| io::Error::other("a vmdk file ends at 2 TiB"))
}

/// What the disk is, as text. The extent's name means nothing where it is part of the file.
fn description(capacity: u64, identity: &Digest) -> String {
    let hex = identity.to_hex();
    // The last of the four numbers of longContentID is the CID, and a CID of all ones is none.
    let content = format!("{}{:08x}", &hex[..24], content_id(identity));
    // 255 heads and 63 sectors are what every BIOS makes of a disk of more than 8 GiB.
    let cylinders = align::units(capacity, 255 * 63).min(65535);
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={:08x}\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
         # Extent description\nRW {capacity} SPARSE \"disk.vmdk\"\n\n\
         # The Disk Data Base\n#DDB\n\n\
         ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\n\
         ddb.longContentID = \"{content}\"\nddb.virtualHWVersion = \"4\"\n",
        content_id(identity)
    )
}

fn content_id(identity: &Digest) -> u32 {
    let bytes = identity.as_bytes()[12..16].try_into().expect("four of 32 bytes");
    u32::from_be_bytes(bytes).min(u32::MAX - 1)
}

/// Whether `file`, which begins as a vmdk does, is anything but one file that holds its disk by itself: whoever made it has
/// chosen what else is read.
///
/// # Errors
/// What the disk says.
pub fn leads_elsewhere(mut file: &File) -> io::Result<bool> {
    let mut header = Header::new_zeroed();
    match file.read_exact_at(header.as_mut_bytes(), 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
        result => result?,
    }
    // Without a capacity the description is the disk, and it may name any file. QEMU reads it from its fixed place,
    // whatever the header says, and takes a parent's name from there.
    let mut text = vec![0; to_usize(DESCRIPTION_SECTORS * SECTOR)];
    file.seek(SeekFrom::Start(DESCRIPTION_AT))?;
    let count = file.take(to_u64(text.len())).read(&mut text)?;
    let parents =
        text[..count].windows(PARENT.len()).filter(|word| word.eq_ignore_ascii_case(PARENT)).count();
    let none = text[..count].windows(NO_PARENT.len()).filter(|word| *word == NO_PARENT).count();
    Ok(header.capacity == 0 || parents != none)
}

/// A word of the description's lines about another disk, and the line that says that there is none.
const PARENT: &[u8] = b"parent";
const NO_PARENT: &[u8] = b"parentCID=ffffffff";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::on_disk::FromBytes;

    fn sample() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100 << 20).unwrap();
        file.write_all_at(&[1; 512], 0).unwrap();
        // Does not compress: bytes of a digest after the other.
        let noise: Vec<u8> =
            (0_u32..5000).flat_map(|number| *Digest::of(number.to_le_bytes()).as_bytes()).collect();
        file.write_all_at(&noise, 70 << 20).unwrap();
        file
    }

    fn written() -> File {
        let (sample, file) = (sample(), tempfile::tempfile().unwrap());
        let mut out = Stream::new(&file, false);
        write(&Disk::survey(&sample, 0).unwrap(), &mut out).unwrap();
        out.finish().unwrap();
        file
    }

    /// What a stream reader does: no seek, every marker in its turn.
    #[test]
    fn a_reader_that_never_goes_back_finds_everything() {
        let mut file = written();
        file.seek(SeekFrom::Start(OVERHEAD * SECTOR)).unwrap();
        let (mut grains, mut kinds) = (Vec::new(), Vec::new());
        loop {
            let mut sector = [0; 512];
            file.read_exact(&mut sector).unwrap();
            let (marker, head) = GrainMarker::read_from_prefix(&sector).unwrap();
            if marker.size != 0 {
                let size = to_usize(marker.size.get().into());
                let mut bytes = head.to_vec();
                bytes.resize((12 + size).next_multiple_of(512) - 12, 0);
                file.read_exact(&mut bytes[head.len()..]).unwrap();
                let mut grain = Vec::new();
                flate2::read::ZlibDecoder::new(&bytes[..size]).read_to_end(&mut grain).unwrap();
                assert_eq!(to_u64(grain.len()), CLUSTER);
                let mut there = vec![0; grain.len()];
                sample().read_exact_at(&mut there, marker.lba.get() * SECTOR).unwrap();
                assert!(grain == there);
                grains.push(marker.lba.get() / GRAIN_SECTORS);
                continue;
            }
            let marker = Marker::read_from_bytes(&sector).unwrap();
            kinds.push(marker.kind.get());
            if marker.kind == Kind::EndOfStream as u32 {
                break;
            }
            file.seek_relative(i64::try_from(marker.num_sectors.get() * SECTOR).unwrap()).unwrap();
        }
        assert_eq!(file.read(&mut [0]).unwrap(), 0);
        assert_eq!(kinds, [1, 1, 2, 3, 0]);
        assert_eq!(grains, [0, 1120, 1121, 1122]);
    }

    #[test]
    fn a_disk_that_is_not_all_in_the_file_is_told() {
        assert!(!leads_elsewhere(&written()).unwrap());
        let changed = |at: u64, bytes: &[u8]| {
            let file = written();
            file.write_all_at(bytes, at).unwrap();
            leads_elsewhere(&file).unwrap()
        };
        assert!(!changed(4, &[1]));
        assert!(changed(12, &[0; 8]));
        assert!(changed(5000, b"parentFileNameHint=\"/etc/passwd\""));
        assert!(changed(10_700, b"PARENTfilenamehint=\"x\""));
        let text = description(2048, &Digest::of(""));
        let at = DESCRIPTION_AT + to_u64(text.find("ffffffff").unwrap());
        assert!(changed(at, b"00000001"));
        let short = tempfile::tempfile().unwrap();
        short.write_all_at(MAGIC, 0).unwrap();
        assert!(leads_elsewhere(&short).unwrap());
    }

    #[test]
    fn content_ids_are_never_all_ones() {
        assert_eq!(content_id(&Digest::from_bytes([255; 32])), 0xffff_fffe);
        let text = description(6_332_416, &Digest::from_bytes([0x12; 32]));
        assert!(text.contains("CID=12121212\nparentCID=ffffffff\n"), "{text}");
        assert!(text.contains("ddb.longContentID = \"12121212121212121212121212121212\""), "{text}");
        assert!(text.contains("ddb.geometry.cylinders = \"395\""), "{text}");
    }
}
