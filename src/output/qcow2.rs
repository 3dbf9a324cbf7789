//! QEMU's copy-on-write format, version 3: written from a raw image, read back into one.
//!
//! Source: QEMU, `docs/interop/qcow2.txt`. All numbers big-endian. What we write has clusters of 64 KiB,
//! reference counts of 16 bits, no backing file, no compression, and comes in one order (header, reference
//! counts, L1, L2 tables, data), so that the same disk gives the same bytes.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::disk::{CHUNK, CLUSTER, Disk};
use super::sparse::{data_in, is_zero};
use super::stream::Stream;
use crate::base::align;
use crate::base::on_disk::{FromZeros, IntoBytes, be, on_disk};
use crate::base::width::{to_index, to_u64, to_usize};

/// With which a file begins.
pub(super) const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Field `header_length` as we write it: up to and without `compression_type`.
const HEADER_LENGTH: u32 = 104;
const _: () = assert!(Header::SIZE == to_index(HEADER_LENGTH));
const CLUSTER_BITS: u32 = 16;
const _: () = assert!(CLUSTER == 1 << CLUSTER_BITS);
/// Entries in an L1 or L2 table's cluster.
const TABLE_ENTRIES: u64 = CLUSTER / 8;
/// 16-bit reference counts: `refcount_order` 4.
const REFCOUNT_ORDER: u32 = 4;
/// Reference counts in a block of them.
const BLOCK_ENTRIES: u64 = CLUSTER / 2;
/// Flag of an L1 or L2 entry: the reference count is exactly one.
const COPIED: u64 = 1 << 63;
/// Flag of an L2 entry: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// Flag of an L2 entry: the cluster reads as zeros.
const ZERO: u64 = 1;
/// Bits of an L1 or L2 entry that are the offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

on_disk! {
    /// The header, up to and without what version 3 calls additional fields.
    Header: 104 bytes {
        magic: [u8; 4],
        version: be::U32,
        backing_file_offset: be::U64,
        backing_file_size: be::U32,
        cluster_bits: be::U32,
        size: be::U64,
        crypt_method: be::U32,
        /// Entries of the L1 table.
        l1_size: be::U32,
        l1_table_offset: be::U64,
        refcount_table_offset: be::U64,
        refcount_table_clusters: be::U32,
        nb_snapshots: be::U32,
        snapshots_offset: be::U64,
        incompatible_features: be::U64,
        compatible_features: be::U64,
        autoclear_features: be::U64,
        refcount_order: be::U32,
        header_length: be::U32,
    }
}

/// Why a qcow2 image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// No qcow2 image.
    #[error("no qcow2 image: the signature is missing")]
    NotQcow2,
    /// A feature that we do not read.
    #[error("the qcow2 image has {feature}; convert it first: qemu-img convert -O raw IMAGE OUTPUT")]
    Unsupported {
        /// e.g. `compressed clusters`.
        feature: &'static str,
    },
    /// Numbers that cannot be right.
    #[error("damaged qcow2 image: {what} {value} lies beyond the file's {size} bytes or makes no sense")]
    Corrupt {
        /// Which number.
        what: &'static str,
        /// The number.
        value: u64,
        /// Of the file.
        size: u64,
    },
    /// The disks.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes `disk` as qcow2. Clusters that are holes or zeros are left out.
pub(super) fn write(disk: &Disk<'_>, out: &mut Stream<'_>) -> io::Result<()> {
    let size = disk.size();
    let used: u64 = disk.used().iter().map(|run| run.end - run.start).sum();
    let tables_of = |run: &Range<u64>| run.start / TABLE_ENTRIES..=(run.end - 1) / TABLE_ENTRIES;
    let mut l2_tables: Vec<u64> = disk.used().iter().flat_map(tables_of).collect();
    l2_tables.dedup();
    let l1_entries = align::units(align::units(size, CLUSTER), TABLE_ENTRIES);
    let l1_clusters = align::units(l1_entries * 8, CLUSTER).max(1);
    let content = 1 + l1_clusters + to_u64(l2_tables.len()) + used;
    // The blocks of reference counts count themselves and the table that lists them.
    let (mut blocks, mut block_table) = (1, 1);
    while blocks * BLOCK_ENTRIES < content + blocks + block_table {
        blocks += 1;
        block_table = align::units(blocks * 8, CLUSTER);
    }
    let block_table_at = CLUSTER;
    let blocks_at = block_table_at + block_table * CLUSTER;
    let l1_at = blocks_at + blocks * CLUSTER;
    let l2_at = l1_at + l1_clusters * CLUSTER;
    let data_at = l2_at + to_u64(l2_tables.len()) * CLUSTER;
    let total = content + blocks + block_table;

    let header = Header {
        magic: *MAGIC,
        version: 3.into(),
        cluster_bits: CLUSTER_BITS.into(),
        size: size.into(),
        l1_size: u32::try_from(l1_entries).map_err(io::Error::other)?.into(),
        l1_table_offset: l1_at.into(),
        refcount_table_offset: block_table_at.into(),
        refcount_table_clusters: u32::try_from(block_table).map_err(io::Error::other)?.into(),
        refcount_order: REFCOUNT_ORDER.into(),
        header_length: HEADER_LENGTH.into(),
        ..Header::new_zeroed()
    };
    put(out, header.as_bytes(), 1)?;
    put(out, &entries((0..blocks).map(|index| blocks_at + index * CLUSTER)), block_table)?;
    let counts: Vec<u8> = (0..total).flat_map(|_| 1_u16.to_be_bytes()).collect();
    put(out, &counts, blocks)?;
    let l1 = (0..l1_entries).map(|index| match l2_tables.binary_search(&index) {
        Ok(place) => (l2_at + to_u64(place) * CLUSTER) | COPIED,
        Err(_) => 0,
    });
    put(out, &entries(l1), l1_clusters)?;
    let mut data = data_at;
    let mut clusters = disk.clusters().peekable();
    for number in l2_tables {
        let mut table = vec![0; to_usize(TABLE_ENTRIES)];
        while let Some(cluster) = clusters.next_if(|cluster| cluster / TABLE_ENTRIES == number) {
            table[to_usize(cluster % TABLE_ENTRIES)] = data | COPIED;
            data += CLUSTER;
        }
        put(out, &entries(table.into_iter()), 1)?;
    }
    let mut buffer = vec![0; to_usize(CHUNK)];
    for run in disk.used() {
        let run = run.start * CLUSTER..run.end * CLUSTER;
        for offset in run.clone().step_by(to_usize(CHUNK)) {
            let part = &mut buffer[..to_usize((run.end - offset).min(CHUNK))];
            disk.read(part, offset)?;
            out.write_all(part)?;
        }
    }
    Ok(())
}

/// The header's extension that names the backing file's format, and the one that ends them.
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// Makes the empty `to` a disk of `size` bytes that reads from the image at `path`, an absolute path to a file of
/// `format`, as QEMU calls it, until it is written to.
///
/// # Errors
/// What the disk says; a path that is too long for the format.
pub fn layer(to: &File, size: u64, path: &[u8], format: &str) -> io::Result<()> {
    let path_size = u32::try_from(path.len()).ok().filter(|size| *size < 1024);
    let path_size =
        path_size.ok_or_else(|| io::Error::other("the path of the image has more than 1023 bytes"))?;
    let mut extension = BACKING_FORMAT.to_be_bytes().to_vec();
    extension.extend(u32::try_from(format.len()).map_err(io::Error::other)?.to_be_bytes());
    extension.extend(format.as_bytes());
    // Of a multiple of 8 bytes; eight zeros end the list.
    extension.resize(extension.len().next_multiple_of(8) + 8, 0);
    let l1_entries = align::units(align::units(size, CLUSTER), TABLE_ENTRIES);
    let l1_clusters = align::units(l1_entries * 8, CLUSTER).max(1);
    // Header, table of reference counts, one block of them, L1 table.
    let total = 3 + l1_clusters;
    if total > BLOCK_ENTRIES {
        return Err(io::Error::other("no disk can be that large"));
    }
    let header = Header {
        magic: *MAGIC,
        version: 3.into(),
        backing_file_offset: (to_u64(Header::SIZE) + to_u64(extension.len())).into(),
        backing_file_size: path_size.into(),
        cluster_bits: CLUSTER_BITS.into(),
        size: size.into(),
        l1_size: u32::try_from(l1_entries).map_err(io::Error::other)?.into(),
        l1_table_offset: (3 * CLUSTER).into(),
        refcount_table_offset: CLUSTER.into(),
        refcount_table_clusters: 1.into(),
        refcount_order: REFCOUNT_ORDER.into(),
        header_length: HEADER_LENGTH.into(),
        ..Header::new_zeroed()
    };
    let mut out = Stream::new(to, false);
    put(&mut out, &[header.as_bytes(), &extension, path].concat(), 1)?;
    put(&mut out, &(2 * CLUSTER).to_be_bytes(), 1)?;
    let counts: Vec<u8> = (0..total).flat_map(|_| 1_u16.to_be_bytes()).collect();
    put(&mut out, &counts, 1)?;
    out.skip(l1_clusters * CLUSTER)?;
    out.finish().map(drop)
}

fn entries(values: impl Iterator<Item = u64>) -> Vec<u8> {
    values.flat_map(u64::to_be_bytes).collect()
}

/// Writes `bytes`, padded to `clusters` clusters.
fn put(out: &mut Stream<'_>, bytes: &[u8], clusters: u64) -> io::Result<()> {
    out.write_all(bytes)?;
    out.write_all(&vec![0; to_usize(clusters * CLUSTER) - bytes.len()])
}

/// Whether `file` begins as a qcow2 image does.
///
/// # Errors
/// What the disk says.
pub fn is_qcow2(file: &File) -> io::Result<bool> {
    let mut magic = [0; 4];
    match file.read_exact_at(&mut magic, 0) {
        Ok(()) => Ok(&magic == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Flag of `incompatible_features`: the data lies in another file.
const EXTERNAL_DATA: u64 = 1 << 2;

/// Whether `file` is a qcow2 image that reads from another file, which whoever made it has chosen: a backing file or an
/// external data file.
///
/// # Errors
/// What the disk says.
pub fn leads_elsewhere(file: &File) -> io::Result<bool> {
    let mut header = Header::new_zeroed();
    match file.read_exact_at(header.as_mut_bytes(), 0) {
        // Version 2 has no more than 72 bytes of it, and nothing need follow.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        result => result?,
    }
    let has_data_file = header.version == 3 && header.incompatible_features.get() & EXTERNAL_DATA != 0;
    Ok(header.magic == *MAGIC && (header.backing_file_offset != 0 || has_data_file))
}

/// What the header of an image says that can be read here.
struct Shape {
    /// Bytes of a cluster.
    cluster: u64,
    /// Bytes of the disk.
    size: u64,
    /// Clusters of the disk.
    clusters: u64,
    l1_entries: u32,
    /// Where the L1 table begins, in bytes.
    l1_at: u64,
}

impl Shape {
    /// Reads and judges the header.
    fn read(from: &File) -> Result<Self, Qcow2Error> {
        let file_size = from.metadata()?.len();
        let corrupt = |what, value| Qcow2Error::Corrupt { what, value, size: file_size };
        if !is_qcow2(from)? {
            return Err(Qcow2Error::NotQcow2);
        }
        let mut header = Header::new_zeroed();
        from.read_exact_at(header.as_mut_bytes(), 0)
            .map_err(|_| corrupt("header of bytes", HEADER_LENGTH.into()))?;
        let version = header.version.get();
        // Bit 0 of the incompatible features says that reference counts may be stale, which reading survives.
        let features = [
            (!matches!(version, 2 | 3), "an unknown version"),
            (header.backing_file_offset != 0, "a backing file"),
            (header.crypt_method != 0, "encryption"),
            (
                version == 3 && header.incompatible_features.get() & !1 != 0,
                "features that this reader does not know",
            ),
        ];
        if let Some((_, feature)) = features.into_iter().find(|(has, _)| *has) {
            return Err(Qcow2Error::Unsupported { feature });
        }
        let (bits, size, l1_entries) = (header.cluster_bits.get(), header.size.get(), header.l1_size.get());
        if !(9..=21).contains(&bits) {
            return Err(corrupt("cluster_bits", bits.into()));
        }
        let cluster = 1_u64 << bits;
        let clusters = align::units(size, cluster);
        // The format's own limit: 32 MiB of L1 table.
        if l1_entries > 1 << 22
            || i64::try_from(size).is_err()
            || u64::from(l1_entries) < clusters.div_ceil(cluster / 8)
        {
            return Err(corrupt("l1_size", l1_entries.into()));
        }
        Ok(Self { cluster, size, clusters, l1_entries, l1_at: header.l1_table_offset.get() })
    }
}

/// Bytes of the disk inside of the qcow2 image `from`.
///
/// # Errors
/// As [`expand`].
pub fn size(from: &File) -> Result<u64, Qcow2Error> {
    Ok(Shape::read(from)?.size)
}

/// Writes the disk inside of the qcow2 image `from` to the empty file `to`, leaving holes: images of ours,
/// and such as QEMU has written to since, but none with a backing file, compression or encryption.
///
/// # Errors
/// `NotQcow2`, `Unsupported`, `Corrupt`; what the disks say.
pub fn expand(from: &File, to: &File) -> Result<(), Qcow2Error> {
    let file_size = from.metadata()?.len();
    let corrupt = |what, value| Qcow2Error::Corrupt { what, value, size: file_size };
    let Shape { cluster, size, clusters, l1_entries, l1_at } = Shape::read(from)?;
    let per_table = cluster / 8;
    let table = |at: u64, count: u64, what| -> Result<Vec<u64>, Qcow2Error> {
        if at.checked_add(count * 8).is_none_or(|end| end > file_size) {
            return Err(corrupt(what, at));
        }
        let mut values = vec![be::U64::ZERO; to_usize(count)];
        from.read_exact_at(values.as_mut_bytes(), at)?;
        Ok(values.into_iter().map(be::U64::get).collect())
    };
    to.set_len(size)?;
    // A table or a cluster that is named again and again would be read again and again: none is, of a disk alone.
    // Holes are not read: a small file could have any number of them.
    let mut left = data_in(from, 0..file_size)?;
    let mut take = |what, at: u64, count: u64| {
        let end = at.saturating_add(count).min(file_size);
        let data = data_in(from, at.min(end)..end)?;
        left = left.checked_sub(data).ok_or_else(|| corrupt(what, at))?;
        Ok::<_, Qcow2Error>(data > 0)
    };
    let mut buffer = vec![0; to_usize(cluster)];
    for (l1, first) in
        table(l1_at, l1_entries.into(), "L1 table at")?.into_iter().zip((0..).step_by(to_usize(per_table)))
    {
        if l1 & OFFSET == 0 || first >= clusters {
            continue;
        }
        if (l1 & OFFSET).saturating_add(cluster) > file_size {
            return Err(corrupt("L2 table at", l1 & OFFSET));
        }
        // A file of holes may say that it has petabytes.
        if !take("L2 table, which overlaps with others, at", l1 & OFFSET, cluster)? {
            continue;
        }
        for (l2, number) in table(l1 & OFFSET, per_table, "L2 table at")?.into_iter().zip(first..clusters) {
            if l2 & COMPRESSED != 0 {
                return Err(Qcow2Error::Unsupported { feature: "compressed clusters" });
            }
            let at = l2 & OFFSET;
            if l2 & ZERO != 0 || at == 0 {
                continue;
            }
            let part = &mut buffer[..to_usize((size - number * cluster).min(cluster))];
            // The last cluster of a file need not be there in full.
            let there = to_usize(file_size.saturating_sub(at).min(to_u64(part.len())));
            if there == 0 {
                return Err(corrupt("data cluster at", at));
            }
            if !take("data cluster, which overlaps with others, at", at, to_u64(there))? {
                continue;
            }
            part[there..].fill(0);
            from.read_exact_at(&mut part[..there], at)?;
            if !is_zero(part) {
                to.write_all_at(part, number * cluster)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::raw;

    /// Data at cluster borders, across L2 tables, and zeros that are not holes.
    fn sample() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len((600 << 20) + 512).unwrap();
        for (at, bytes) in [
            (0, vec![1; 512]),
            (CLUSTER - 1, vec![2; 2]),
            (10 * CLUSTER, vec![0; 3 * to_usize(CLUSTER)]),
            ((512 << 20) - 1, vec![3; to_usize(CLUSTER * 40)]),
            (600 << 20, vec![4; 512]),
        ] {
            file.write_all_at(&bytes, at).unwrap();
        }
        file
    }

    fn written_of(disk: &File) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut out = Stream::new(&file, false);
        write(&Disk::survey(disk, 0).unwrap(), &mut out).unwrap();
        out.finish().unwrap();
        file
    }

    fn written() -> File {
        written_of(&sample())
    }

    #[test]
    fn there_and_back() {
        let (image, back) = (written(), tempfile::tempfile().unwrap());
        // Header, table, block, L1, two L2 and 2 + 41 + 1 data clusters.
        assert_eq!(image.metadata().unwrap().len(), (4 + 2 + 44) * CLUSTER);
        expand(&image, &back).unwrap();
        assert_eq!(raw::digest(&back).unwrap(), raw::digest(&sample()).unwrap());
        let empty = tempfile::tempfile().unwrap();
        empty.set_len(1 << 20).unwrap();
        let image = written_of(&empty);
        let back = tempfile::tempfile().unwrap();
        expand(&image, &back).unwrap();
        assert_eq!(raw::digest(&back).unwrap(), raw::digest(&empty).unwrap());
    }

    #[test]
    fn a_cluster_has_one_place() {
        let told = |l2: bool| {
            let file = written();
            let mut header = [0; Header::SIZE];
            file.read_exact_at(&mut header, 0).unwrap();
            let l1_at = u64::from_be_bytes(header[40..48].try_into().unwrap());
            let mut first = [0; 8];
            file.read_exact_at(&mut first, l1_at).unwrap();
            // All entries of the first table of clusters, or of the table of tables, lead to one place.
            let at = if l2 { u64::from_be_bytes(first) & OFFSET } else { l1_at };
            file.read_exact_at(&mut first, at).unwrap();
            let count = if l2 { CLUSTER / 8 } else { 2 };
            (0..count).for_each(|entry| file.write_all_at(&first, at + entry * 8).unwrap());
            let size = file.metadata().unwrap().len();
            let raw = tempfile::tempfile().unwrap();
            let result = expand(&file, &raw);
            use std::os::unix::fs::MetadataExt;
            assert!(raw.metadata().unwrap().blocks() * 512 <= size + CLUSTER);
            result.map_err(|error| error.to_string())
        };
        let error = told(true).unwrap_err();
        assert!(error.contains("data cluster, which overlaps with others, at"), "{error}");
        // As many tables as there are must still fit into the file.
        assert!(
            told(false).is_ok_and(|()| true) || told(false).unwrap_err().contains("overlaps with others")
        );
    }

    #[test]
    fn what_is_not_read_is_refused() {
        let refusal = |at: u64, bytes: &[u8]| {
            let image = written();
            image.write_all_at(bytes, at).unwrap();
            expand(&image, &tempfile::tempfile().unwrap()).unwrap_err().to_string()
        };
        assert!(refusal(0, b"x").contains("signature"));
        assert!(refusal(4, &[0, 0, 0, 9]).contains("unknown version"));
        assert!(refusal(8, &[1]).contains("a backing file; convert it first: qemu-img convert"));
        let leads = |at: u64, bytes: &[u8]| {
            let image = written();
            image.write_all_at(bytes, at).unwrap();
            leads_elsewhere(&image).unwrap()
        };
        assert!(!leads(0, b"") && leads(15, &[1]) && leads(79, &[4]) && !leads(79, &[1]));
        assert!(refusal(20, &[0, 0, 0, 60]).contains("cluster_bits 60"));
        assert!(refusal(40, &[1]).contains("L1 table at"));
        assert!(refusal(3 * CLUSTER, &[0x00, 0x77]).contains("L2 table at"));
        assert!(refusal(4 * CLUSTER, &[0x40]).contains("compressed"));
        let short = written();
        short.set_len(5 * CLUSTER).unwrap();
        assert!(expand(&short, &tempfile::tempfile().unwrap()).is_err());
        short.set_len(50).unwrap();
        assert!(expand(&short, &tempfile::tempfile().unwrap()).is_err());
    }
}
