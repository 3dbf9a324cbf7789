//! The binary index of `modules.*.bin`: a trie with compressed paths.
//!
//! The format is that of libkmod's index files, version 2.1; all numbers are big-endian. A node is: its
//! prefix (NUL-terminated, if any), then first and last child byte with an offset for each byte between
//! (if it has children), then a count of values and each value as priority and NUL-terminated text (if
//! any). An offset's high bits say which of the three parts the node has.

use crate::base::on_disk::{IntoBytes, be, on_disk};
use crate::base::width::to_index;

const MAGIC: u32 = 0xB007_F457;
const VERSION: u32 = 0x0002_0001;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;

on_disk! {
    /// What the file begins with.
    Header: 12 bytes {
        magic: be::U32,
        version: be::U32,
        /// Where the first node is, and what parts it has.
        root_offset: be::U32,
    }
}

/// Values by key, to be written as an index file. Keys and values are 7-bit text without NUL.
///
/// The trie itself is never in memory: its nodes are what sorted keys have in common, and a million of them would take
/// half a gigabyte.
#[derive(Debug, Default)]
pub struct Trie<'v> {
    /// All keys, one after the other.
    keys: Vec<u8>,
    entries: Vec<Entry<'v>>,
}

/// A key with one of its values.
#[derive(Clone, Copy, Debug)]
struct Entry<'v> {
    /// Where in [`Trie::keys`] it begins.
    start: usize,
    length: u32,
    priority: u32,
    value: &'v [u8],
}

impl Entry<'_> {
    fn key<'k>(&self, keys: &'k [u8]) -> &'k [u8] {
        &keys[self.start..][..to_index(self.length)]
    }
}

/// An index that is larger than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl<'v> Trie<'v> {
    /// An index without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `value` under `key`; a search gives the values of lower `priority` first, and of equals the one that was added
    /// last, as depmod has it.
    pub fn insert(&mut self, key: &[u8], value: &'v [u8], priority: u32) {
        let (start, length) =
            (self.keys.len(), u32::try_from(key.len()).expect("limits::CONFIGURATION is less"));
        self.keys.extend(key);
        self.entries.push(Entry { start, length, priority, value });
    }

    /// The index as a file of at most `most` bytes.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn into_bytes(self, most: usize) -> Result<Vec<u8>, TooLarge> {
        let Self { keys, mut entries } = self;
        entries.reverse();
        entries.sort_by_key(|entry| (entry.key(&keys), entry.priority));
        let mut writer = Writer { keys: &keys, out: vec![0; Header::SIZE], most };
        let parts = writer.node(&entries, 0, 0)?;
        let start = u32::try_from(Header::SIZE).expect("twelve");
        let header =
            Header { magic: MAGIC.into(), version: VERSION.into(), root_offset: (start | parts).into() };
        writer.out[..Header::SIZE].copy_from_slice(header.as_bytes());
        Ok(writer.out)
    }
}

/// Writes nodes, each before those below it.
struct Writer<'k> {
    keys: &'k [u8],
    out: Vec<u8>,
    most: usize,
}

impl Writer<'_> {
    /// Writes the node of `entries`, whose keys begin with the same `above` bytes and then have `prefix` more in common, with
    /// all nodes below it. Says which parts it has.
    fn node(&mut self, entries: &[Entry<'_>], above: usize, prefix: usize) -> Result<u32, TooLarge> {
        let depth = above + prefix;
        let ends = entries.partition_point(|entry| entry.key(self.keys).len() == depth);
        let (values, below) = entries.split_at(ends);
        let byte = |entry: &Entry<'_>| entry.key(self.keys)[depth];
        let range = below.first().zip(below.last()).map(|(first, last)| (byte(first), byte(last)));
        let mut parts = 0;
        if let Some(entry) = entries.first().filter(|_| prefix > 0) {
            parts |= HAS_PREFIX;
            self.out.extend(&entry.key(self.keys)[above..depth]);
            self.out.push(0);
        }
        let table = self.out.len() + 2;
        if let Some((first, last)) = range {
            parts |= HAS_CHILDREN;
            self.out.extend([first, last]);
            self.out.resize(table + size_of::<u32>() * (usize::from(last - first) + 1), 0);
        }
        if !values.is_empty() {
            parts |= HAS_VALUES;
            let count = u32::try_from(values.len()).expect("far below 256 MiB");
            self.out.extend(count.to_be_bytes());
        }
        for Entry { priority, value, .. } in values {
            self.out.extend(priority.to_be_bytes());
            self.out.extend(*value);
            self.out.push(0);
            self.fits()?;
        }
        self.fits()?;
        let Some((lowest, _)) = range else { return Ok(parts) };
        for child in below.chunk_by(|one, other| byte(one) == byte(other)) {
            let place = table + size_of::<u32>() * usize::from(byte(&child[0]) - lowest);
            let offset = u32::try_from(self.out.len()).expect("far below 256 MiB");
            let (first, last) = (child[0].key(self.keys), child[child.len() - 1].key(self.keys));
            let shared =
                first[depth + 1..].iter().zip(&last[depth + 1..]).take_while(|(a, b)| a == b).count();
            let offset = offset | self.node(child, depth + 1, shared)?;
            self.out[place..][..size_of::<u32>()].copy_from_slice(&offset.to_be_bytes());
        }
        Ok(parts)
    }

    fn fits(&self) -> Result<(), TooLarge> {
        if self.out.len() > self.most { Err(TooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_shares_prefixes() {
        let mut trie = Trie::new();
        trie.insert(b"ext4", b"one", 2);
        trie.insert(b"ext2", b"two", 1);
        trie.insert(b"ext4", b"zero", 0);
        let bytes = trie.into_bytes(usize::MAX).unwrap();
        let expected = [
            &[0xB0, 0x07, 0xF4, 0x57, 0, 2, 0, 1, 0x20, 0, 0, 12][..],
            // The root: one child, `e`.
            b"ee",
            &[0xA0, 0, 0, 18],
            // `xt`, children `2` to `4`.
            b"xt\0",
            b"24",
            &[0x40, 0, 0, 35, 0, 0, 0, 0, 0x40, 0, 0, 47],
            &[0, 0, 0, 1, 0, 0, 0, 1],
            b"two\0",
            &[0, 0, 0, 2, 0, 0, 0, 0],
            b"zero\0",
            &[0, 0, 0, 2],
            b"one\0",
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn many_values_of_one_key_and_tables_of_all_bytes() {
        // Of equal priorities the last comes first; to put each before those that are there would take the square of it.
        let values: Vec<String> = (0..200_000).map(|number| number.to_string()).collect();
        let mut trie = Trie::new();
        values.iter().for_each(|value| trie.insert(b"a", value.as_bytes(), 7));
        let bytes = trie.into_bytes(4 << 20).unwrap();
        assert_eq!(bytes[12..26], [b'a', b'a', 0x40, 0, 0, 18, 0, 3, 0x0d, 0x40, 0, 0, 0, 7]);
        assert_eq!(bytes[26..33], *b"199999\0");
        // Two children far apart have a table of a kilobyte, in each of many nodes.
        let mut trie = Trie::new();
        for number in 0..1 << 16 {
            let key: Vec<u8> = (0..16).map(|bit| if number >> bit & 1 == 0 { 1 } else { 127 }).collect();
            trie.insert(&key, b"x", 0);
        }
        assert_eq!(trie.into_bytes(16 << 20).unwrap_err(), TooLarge);
    }
}
