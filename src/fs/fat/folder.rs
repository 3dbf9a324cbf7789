//! The entries of a folder out of its records. Source: FATGEN, "FAT Directory Structure" and "FAT Long
//! Directory Entries".

use std::ops::Range;

use super::format::{
    DIRECTORY, LAST_PIECE, LONG_NAME, LongRecord, PIECE, RECORD_SIZE, Record, SMALL_EXTENSION, SMALL_NAME,
    VOLUME_LABEL,
};
use super::names::{Short, checksum};
use super::volume::CLUSTER_BITS;
use crate::base::on_disk::{transmute_ref, whole};

/// First byte of a record that is not in use any more.
pub(super) const DELETED: u8 = 0xe5;

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The long name, or the short one where there is no other.
    pub name: String,
    /// As the record has it.
    pub short: Short,
    /// The first cluster; 0 for an empty file.
    pub start: u32,
    /// In bytes; nothing for a folder.
    pub size: Option<u64>,
    /// Which records of the folder it takes: pieces of the long name first, the short one last.
    pub records: Range<usize>,
}

impl Entry {
    /// Whether the entry answers to `name`, in whatever case, by its long name or its short one.
    pub(super) fn has_name(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.name.to_lowercase() == name || shown(&self.short, 0).to_lowercase() == name
    }
}

/// What is in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Folder {
    /// In their order, without `.`, `..` and the volume's label.
    pub entries: Vec<Entry>,
    /// The record from which on none is in use.
    pub end: usize,
}

/// Whether one of these records says that it and all further ones were never used.
pub(super) fn has_end(bytes: &[u8]) -> bool {
    bytes.iter().step_by(RECORD_SIZE).any(|first| *first == 0)
}

/// Reads the records of a folder's clusters.
pub(super) fn decode(bytes: &[u8]) -> Folder {
    let records: &[Record] = whole(bytes);
    let mut entries = Vec::new();
    let mut long = LongName::default();
    for (index, record) in records.iter().enumerate() {
        let attributes = record.dir_attr;
        match record.dir_name[0] {
            0 => return Folder { entries, end: index },
            DELETED => long = LongName::default(),
            _ if attributes & 0x3f == LONG_NAME => long.piece(transmute_ref!(record)),
            _ if attributes & VOLUME_LABEL != 0 => long = LongName::default(),
            _ => {
                let short = record.dir_name;
                let (name, pieces) = match std::mem::take(&mut long).of(&short) {
                    Some((name, pieces)) => (name, pieces),
                    None => (shown(&short, record.dir_nt_res), 0),
                };
                let start = record.cluster() & CLUSTER_BITS;
                let size = u64::from(record.dir_file_size);
                let size = (attributes & DIRECTORY == 0).then_some(size);
                if name != "." && name != ".." {
                    entries.push(Entry { name, short, start, size, records: index - pieces..index + 1 });
                }
            }
        }
    }
    Folder { entries, end: records.len() }
}

/// The volume's label among the records of the root.
pub(super) fn label(bytes: &[u8]) -> Option<String> {
    let records: &[Record] = whole(bytes);
    let used = records.iter().take_while(|record| record.dir_name[0] != 0);
    let is_label = |record: &&Record| {
        record.dir_name[0] != DELETED
            && record.dir_attr & 0x3f != LONG_NAME
            && record.dir_attr & VOLUME_LABEL != 0
    };
    let found = used.into_iter().find(is_label)?;
    Some(String::from_utf8_lossy(&found.dir_name).trim_end().to_owned())
}

/// A short name as text; `case` is its `DIR_NTRes`.
fn shown(short: &Short, case: u8) -> String {
    let part = |bytes: &[u8], small: bool| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if small { text.to_ascii_lowercase() } else { text }
    };
    let base = part(&short[..8], case & SMALL_NAME != 0);
    let extension = part(&short[8..], case & SMALL_EXTENSION != 0);
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// A long name in the making: its pieces come last first, before the record that they belong to.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    /// How many pieces there were.
    pieces: usize,
    /// The piece that must come next; 0 when all are there.
    expected: u8,
    sum: u8,
}

impl LongName {
    fn piece(&mut self, record: &LongRecord) {
        let (order, last) = (record.ldir_ord & 0x3f, record.ldir_ord & LAST_PIECE != 0);
        if last {
            *self = Self { units: Vec::new(), pieces: 0, expected: order, sum: record.ldir_chksum };
        }
        if order == 0 || order != self.expected || record.ldir_chksum != self.sum {
            *self = Self::default();
            return;
        }
        let mut piece: Vec<u16> = record.units().collect();
        debug_assert_eq!(piece.len(), PIECE);
        if last {
            let end = piece.iter().position(|unit| *unit == 0).unwrap_or(piece.len());
            piece.truncate(end);
        }
        piece.append(&mut self.units);
        self.units = piece;
        self.pieces += 1;
        self.expected -= 1;
    }

    /// The name, and the number of its pieces, if it is whole and belongs to `short`.
    fn of(self, short: &Short) -> Option<(String, usize)> {
        let whole = self.expected == 0 && !self.units.is_empty() && self.sum == checksum(short);
        whole.then(|| (String::from_utf16_lossy(&self.units), self.pieces))
    }
}
