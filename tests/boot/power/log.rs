//! A recording of all that a virtual machine wrote to its disk, by QEMU's block driver `blklogwrites`.
//!
//! Source: QEMU, block/blklogwrites.c; Linux, Documentation/admin-guide/device-mapper/log-writes.rst. A
//! superblock in the first sector; then each entry has a sector of its own and its data behind that. An entry
//! is logged when the disk has confirmed it, so that a flush follows all that it makes durable.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::SECTOR;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FORCE_UNIT_ACCESS: u64 = 2;
const DISCARD: u64 = 4;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Write,
    /// All that was written before is durable.
    Flush,
    /// The content is of no more use.
    Discard,
}

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub kind: Kind,
    /// First sector on the disk.
    pub sector: u64,
    /// Sectors.
    pub count: u64,
    /// Where the data are in the log, in bytes.
    data: u64,
}

pub struct Log {
    file: File,
    pub entries: Vec<Entry>,
}

impl Log {
    /// Reads a log to its end. The superblock's count is brought up to date only now and then.
    pub fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let words = |at: u64| {
            let mut bytes = [0; 32];
            file.read_exact_at(&mut bytes, at).unwrap();
            [0, 8, 16, 24].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
        };
        let [magic, version, _, sector] = words(0);
        assert_eq!((magic, version, sector as u32 as usize), (MAGIC, VERSION, SECTOR));
        let mut at = SECTOR as u64;
        let mut entries = Vec::new();
        let end = file.metadata().unwrap().len();
        while at + SECTOR as u64 <= end {
            // The length of the data, which comes fourth, is always 0 with QEMU.
            let [sector, count, flags, _] = words(at);
            at += SECTOR as u64;
            // QEMU 10 loses the entry of zeros that are written as such, as the kernel does with new inode tables;
            // that nothing else was lost is seen at the end, by the disk itself.
            if (sector, count, flags) == (0, 0, 0) {
                continue;
            }
            let kind = match flags {
                // No disk of ours is told to force anything; as a plain write it would only be less sure.
                0 | FORCE_UNIT_ACCESS => Kind::Write,
                FLUSH => Kind::Flush,
                DISCARD => Kind::Discard,
                other => panic!("entry {} of the log has flags {other}", entries.len()),
            };
            entries.push(Entry { kind, sector, count, data: at });
            if kind == Kind::Write {
                at += count * SECTOR as u64;
            }
        }
        assert_eq!(at, end);
        Self { file, entries }
    }

    /// What an entry wrote.
    pub fn data(&self, entry: &Entry) -> Vec<u8> {
        let mut bytes = vec![0; entry.count as usize * SECTOR];
        self.file.read_exact_at(&mut bytes, entry.data).unwrap();
        bytes
    }

    /// How many entries had been logged when the log had `length` bytes.
    pub fn entries_at(&self, length: u64) -> usize {
        self.entries.partition_point(|entry| entry.data <= length)
    }
}
