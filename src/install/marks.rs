//! What lies on a disk, by the marks that systems leave at known places: tables, file systems, members of RAID and LVM.
//!
//! What is not known counts as well: only a disk whose first and last MiB are blank is empty. Sources: util-linux, libblkid,
//! `superblocks/` and `partitions/`; for mdadm, linux/md_p.h.

use std::io;

use serde::Serialize;

use super::printable;
use crate::base::Digest;
use crate::base::device::{ReadAt, Window};
use crate::base::width::{to_u64, to_usize};
use crate::disk::gpt::{self, Table, types};
pub(super) use crate::disk::state_disk::{KEEPS, UNFINISHED, UNFINISHED_AT};

/// What is looked at for anything at all at both ends of a disk, and what an installation makes blank first, in bytes.
pub(super) const END: u64 = 1 << 20;
/// What a table takes at both ends of a disk at most, in bytes: MBR, header and 16 KiB of entries, with sectors of 4096 bytes.
const TABLE: u64 = 24 << 10;

/// Bytes at a place.
type Magic = (&'static str, u64, &'static [u8]);

/// By what is known at the start of a disk or a partition.
const MAGICS: [Magic; 33] = [
    ("a LUKS volume", 0, b"LUKS\xba\xbe"),
    ("xfs", 0, b"XFSB"),
    ("squashfs", 0, b"hsqs"),
    ("a dm-verity hash tree", 0, b"verity\0\0"),
    ("Ceph BlueStore", 0, b"bluestore block device"),
    ("an Oracle ASM disk", 32, b"ORCLDISK"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("a BitLocker volume", 3, b"-FVE-FS-"),
    ("vfat", 54, b"FAT12   "),
    ("vfat", 54, b"FAT16   "),
    ("vfat", 82, b"FAT32   "),
    ("an LVM physical volume", 0, b"LABELONE"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("an LVM physical volume", 1024, b"LABELONE"),
    ("an LVM physical volume", 1536, b"LABELONE"),
    ("a member of an mdadm RAID", 0, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("a member of an mdadm RAID", 4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("erofs", 1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
    ("f2fs", 1024, &[0x10, 0x20, 0xf5, 0xf2]),
    ("hfs+", 1024, b"H+\0\x04"),
    ("ext2, ext3 or ext4", 1080, &[0x53, 0xef]),
    ("swap", 4086, b"SWAPSPACE2"),
    ("swap", 4086, b"SWAP-SPACE"),
    ("a bcache device", 4120, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca]),
    ("bcachefs", 4120, &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9]),
    ("a DRBD device", 4096, b"\x83\x74\x02\x6b"),
    ("an ISO 9660 image", 32769, b"CD001"),
    ("UDF", 32769, b"BEA01"),
    ("UDF", 32769, b"NSR02"),
    ("btrfs", 65600, b"_BHRfS_M"),
    ("reiserfs", 65588, b"ReIsEr"),
    ("VMFS", 1 << 20, &[0x0d, 0xd0, 0x01, 0xc0]),
];

/// The signature of a table's header.
const GPT: &[u8] = b"EFI PART";
/// `UBERBLOCK_MAGIC` of ZFS, and where its blocks are in the first label and in the last: each has 128 KiB of them.
const ZFS: u64 = 0x00ba_b10c;
const ZFS_RING: u64 = 128 << 10;

/// What lies on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Found {
    /// In words; empty where there is nothing to lose.
    pub things: Vec<String>,
    /// What tells this content from others: the GUID of a table, the signature of an MBR, else a digest.
    pub id: Option<String>,
    /// Whether an installation began here and did not come to its end.
    pub unfinished: bool,
}

impl Found {
    /// In one line.
    pub(super) fn line(&self) -> String {
        match (self.things.is_empty(), self.unfinished) {
            (true, true) => "an installation that was cut short".to_owned(),
            (true, false) => "nothing".to_owned(),
            (false, _) => self.things.join(", "),
        }
    }
}

/// Looks at `disk`.
///
/// # Errors
/// What the disk says.
pub(super) fn look(disk: &(impl ReadAt + ?Sized)) -> io::Result<Found> {
    let (head, tail) = (end(disk, 0)?, end(disk, disk.size().saturating_sub(END))?);
    let table = gpt::read_any(disk).ok().map(|found| found.table);
    let mut things: Vec<String> = signatures(disk)?.into_iter().map(str::to_owned).collect();
    let mut id = None;
    if let Some(table) = &table {
        things.push(partitions(disk, table)?);
        if let Some(id) = kept(disk)?
            && table.by_type(types::ROOT).next().is_none()
        {
            things.push(format!(
                "an installation that was cut short and keeps the state of {}",
                printable(&id)
            ));
        }
        id = Some(table.disk_guid.to_string());
    } else if things.is_empty()
        && let Some((text, signature)) = mbr(&head)
    {
        things.push(text);
        id = Some(signature);
    }
    let unfinished = things.is_empty() && is_unfinished(&head, &tail);
    if things.is_empty() && !unfinished && !(is_blank(&head) && is_blank(&tail)) {
        let remains = head.windows(GPT.len()).chain(tail.windows(GPT.len())).any(|bytes| bytes == GPT);
        let what = if remains { "a damaged partition table (GPT)" } else { "data that keller does not know" };
        things.push(what.to_owned());
    }
    if !things.is_empty() && id.is_none() {
        id = Some(Digest::of([head, tail].concat()).to_hex());
    }
    Ok(Found { things, id, unfinished })
}

/// The id of the image whose state an unfinished installation keeps, from its mark.
pub(super) fn kept(disk: &(impl ReadAt + ?Sized)) -> io::Result<Option<String>> {
    let mut sector = [0; 512];
    if disk.size() < END {
        return Ok(None);
    }
    disk.read_at(&mut sector, UNFINISHED_AT)?;
    let id = sector.strip_prefix(UNFINISHED).and_then(|rest| rest.strip_prefix(KEEPS));
    let id = id.and_then(|rest| rest.split(|byte| *byte == b'\n').next());
    Ok(id.and_then(|id| String::from_utf8(id.to_vec()).ok()).filter(|id| !id.is_empty()))
}

/// At most [`END`] bytes from `offset` on.
fn end(disk: &(impl ReadAt + ?Sized), offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; to_usize(disk.size().saturating_sub(offset).min(END))];
    disk.read_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// As disks are that nobody has written to: zeros, or ones where erased flash reads so.
fn is_blank(bytes: &[u8]) -> bool {
    is_full_of::<0>(bytes) || is_full_of::<0xff>(bytes)
}

fn is_full_of<const BYTE: u8>(bytes: &[u8]) -> bool {
    let block = [BYTE; 4096];
    bytes.chunks(block.len()).all(|piece| *piece == block[..piece.len()])
}

/// Whether an installation began here: its mark is there, and nothing else but what a table may have left.
fn is_unfinished(head: &[u8], tail: &[u8]) -> bool {
    let (table, at) = (to_usize(TABLE), to_usize(UNFINISHED_AT));
    let Some(rest) = head.get(at..).and_then(|bytes| bytes.strip_prefix(UNFINISHED)) else { return false };
    let before = is_full_of::<0>(&head[table..at]);
    before && is_full_of::<0>(rest) && is_full_of::<0>(&tail[..tail.len().saturating_sub(table)])
}

/// The names of all marks at the start and the end of `disk`, each once.
fn signatures(disk: &(impl ReadAt + ?Sized)) -> io::Result<Vec<&'static str>> {
    let mut names: Vec<&'static str> = Vec::new();
    let mut add = |name| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    for (name, offset, magic) in MAGICS {
        if has(disk, offset, magic)? {
            add(name);
        }
    }
    let size = disk.size();
    // Version 1.0 lies 8 KiB before the end, 0.90 in the last whole 64 KiB.
    let md = [(size / 512).saturating_sub(16) / 8 * 8 * 512, (size & !0xffff).saturating_sub(0x1_0000)];
    for offset in md {
        if offset > 0 && has(disk, offset, &[0xfc, 0x4e, 0x2b, 0xa9])? {
            add("a member of an mdadm RAID");
        }
    }
    let last = size.saturating_sub(512) / 512 * 512;
    if has(disk, last.saturating_sub(512), b"Intel Raid ISM Cfg Sig. ")? {
        add("a member of an Intel RAID");
    }
    if has(disk, last, &[0xde, 0x11, 0xde, 0x11])? {
        add("a member of a DDF RAID");
    }
    let labels = (size >> 18) << 18;
    for ring in [ZFS_RING, labels.saturating_sub(512 << 10) + ZFS_RING] {
        if is_zfs(disk, ring)? {
            add("a member of a ZFS pool");
        }
    }
    Ok(names)
}

fn has(disk: &(impl ReadAt + ?Sized), offset: u64, magic: &[u8]) -> io::Result<bool> {
    if offset.saturating_add(to_u64(magic.len())) > disk.size() {
        return Ok(false);
    }
    let mut bytes = vec![0; magic.len()];
    disk.read_at(&mut bytes, offset)?;
    Ok(bytes == magic)
}

fn is_zfs(disk: &(impl ReadAt + ?Sized), ring: u64) -> io::Result<bool> {
    if ring + ZFS_RING > disk.size() {
        return Ok(false);
    }
    let mut bytes = vec![0; to_usize(ZFS_RING)];
    disk.read_at(&mut bytes, ring)?;
    let is_one = |block: &[u8]| {
        block
            .first_chunk()
            .is_some_and(|magic| u64::from_le_bytes(*magic) == ZFS || u64::from_be_bytes(*magic) == ZFS)
    };
    Ok(bytes.chunks_exact(1024).any(is_one))
}

/// Most partitions that are named; of others only the number is told.
const NAMED: usize = 8;

fn partitions(disk: &(impl ReadAt + ?Sized), table: &Table) -> io::Result<String> {
    let mut parts = Vec::new();
    for entry in table.entries.iter().take(NAMED) {
        let content = signatures(&Window::new(disk, entry.start, entry.size))?;
        let label = match entry.label.is_empty() {
            true => entry.number.to_string(),
            false => printable(&entry.label),
        };
        parts.push(match content.first() {
            Some(content) => format!("{label} ({content})"),
            None => label,
        });
    }
    if table.entries.len() > NAMED {
        parts.push("…".to_owned());
    }
    let count = table.entries.len();
    let plural = if count == 1 { "" } else { "s" };
    let list = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    Ok(format!("a partition table (GPT) with {count} partition{plural}{list}"))
}

/// A partition table of the old kind with partitions, and its signature.
fn mbr(head: &[u8]) -> Option<(String, String)> {
    /// Type of the one partition before a GPT.
    const PROTECTIVE: u8 = 0xee;
    let sector = head.get(..512)?;
    if sector[510..] != [0x55, 0xaa] {
        return None;
    }
    let types = [446, 462, 478, 494].map(|at| sector[at + 4]);
    let count = types.iter().filter(|kind| **kind != 0 && **kind != PROTECTIVE).count();
    let signature = hex::encode(sector[440..444].iter().rev().copied().collect::<Vec<_>>());
    let plural = if count == 1 { "" } else { "s" };
    (count > 0).then(|| (format!("a partition table (MBR) with {count} partition{plural}"), signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SectorSize;
    use crate::disk::gpt::Entry;
    use uuid::Uuid;

    const SIZE: usize = 8 << 20;

    fn with(places: &[(usize, &[u8])]) -> Found {
        let mut disk = vec![0; SIZE];
        for (at, bytes) in places {
            disk[*at..][..bytes.len()].copy_from_slice(bytes);
        }
        look(disk.as_slice()).unwrap()
    }

    #[test]
    fn each_mark_is_seen_by_its_name() {
        for (name, offset, magic) in MAGICS {
            assert_eq!(with(&[(offset as usize, magic)]).things, [name], "{name}");
        }
        let zfs = ZFS.to_le_bytes();
        for (name, at, bytes) in [
            ("a member of a ZFS pool", (128 << 10) + 5 * 1024, &zfs[..]),
            ("a member of a ZFS pool", SIZE - (512 << 10) + (128 << 10), &zfs),
            ("a member of an mdadm RAID", SIZE - 8192, &[0xfc, 0x4e, 0x2b, 0xa9]),
            ("a member of an mdadm RAID", SIZE - 65536, &[0xfc, 0x4e, 0x2b, 0xa9]),
            ("a member of an Intel RAID", SIZE - 1024, b"Intel Raid ISM Cfg Sig. "),
            ("a member of a DDF RAID", SIZE - 512, &[0xde, 0x11, 0xde, 0x11]),
            ("data that keller does not know", 7000, b"x"),
            ("data that keller does not know", SIZE - 7000, b"x"),
            ("a damaged partition table (GPT)", SIZE - 512, GPT),
        ] {
            let found = with(&[(at, bytes)]);
            assert_eq!(found.things, [name]);
            assert!(found.id.is_some());
        }
    }

    #[test]
    fn blank_is_blank() {
        assert_eq!(with(&[]), Found::default());
        assert_eq!(look(vec![0xff; SIZE].as_slice()).unwrap(), Found::default());
        assert_eq!(look([].as_slice()).unwrap(), Found::default());
    }

    #[test]
    fn tables_are_named_with_what_is_in_them() {
        let mut sector = vec![0; 512];
        sector[440..444].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
        sector[450] = 0x83;
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let found = with(&[(0, &sector)]);
        assert_eq!(found.things, ["a partition table (MBR) with 1 partition"]);
        assert_eq!(found.id.as_deref(), Some("12345678"));

        let mut table = Table::new(Uuid::from_u128(9), SectorSize::B512, SIZE as u64).unwrap();
        for (number, label) in [(1, "home"), (2, "")] {
            let (start, size) = (u64::from(number) << 20, 1 << 20);
            let (type_guid, guid) = (types::LINUX, Uuid::from_u128(number.into()));
            table.entries.push(Entry {
                number,
                type_guid,
                guid,
                label: label.into(),
                start,
                size,
                attributes: 0,
            });
        }
        let mut disk = vec![0; SIZE];
        gpt::create(&mut io::Cursor::new(&mut disk[..]), &table).unwrap();
        disk[(1 << 20) + 1080..][..2].copy_from_slice(&[0x53, 0xef]);
        let found = look(disk.as_slice()).unwrap();
        let expected = "a partition table (GPT) with 2 partitions: home (ext2, ext3 or ext4), 2";
        assert_eq!(found.things, [expected]);
        assert_eq!(found.id, Some(Uuid::from_u128(9).to_string()));
    }

    #[test]
    fn only_an_installation_and_nothing_else_counts_as_unfinished() {
        let mark = (UNFINISHED_AT as usize, UNFINISHED);
        let found = with(&[mark, (512, GPT), (SIZE - 512, GPT)]);
        assert_eq!((found.line().as_str(), found.unfinished), ("an installation that was cut short", true));
        for other in [(30_000, &b"x"[..]), (SIZE - 30_000, b"x"), (UNFINISHED_AT as usize + 600, b"x")] {
            assert!(!with(&[mark, other]).unfinished);
        }
        assert_eq!(with(&[mark, (0, b"XFSB")]).things, ["xfs"]);
    }
}
