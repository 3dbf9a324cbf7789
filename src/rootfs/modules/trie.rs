//! The binary index of `modules.*.bin`: a trie with compressed paths.
//!
//! The format is that of libkmod's index files, version 2.1; all numbers are big-endian. A node is: its
//! prefix (NUL-terminated, if any), then first and last child byte with an offset for each byte between
//! (if it has children), then a count of values and each value as priority and NUL-terminated text (if
//! any). An offset's high bits say which of the three parts the node has.

use std::collections::BTreeMap;

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
#[derive(Debug, Default)]
pub struct Trie {
    prefix: Vec<u8>,
    children: BTreeMap<u8, Trie>,
    /// By priority; of equals, the one inserted last comes first, as depmod has it.
    values: Vec<(u32, Vec<u8>)>,
}

impl Trie {
    /// An index without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `value` under `key`; a search gives the values of lower `priority` first.
    pub fn insert(&mut self, key: &[u8], value: &[u8], priority: u32) {
        let mut node = self;
        let mut rest = key;
        loop {
            let shared = node.prefix.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if shared < node.prefix.len() {
                node.split(shared);
            }
            rest = &rest[shared..];
            let Some((&byte, below)) = rest.split_first() else {
                let place = node.values.partition_point(|(other, _)| *other < priority);
                node.values.insert(place, (priority, value.to_vec()));
                return;
            };
            // A new child takes the whole rest as its prefix, so the next round ends there.
            node = node
                .children
                .entry(byte)
                .or_insert_with(|| Self { prefix: below.to_vec(), ..Self::default() });
            rest = below;
        }
    }

    /// The index as a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let start = u32::try_from(Header::SIZE).expect("twelve");
        let header = Header {
            magic: MAGIC.into(),
            version: VERSION.into(),
            root_offset: (start | self.parts()).into(),
        };
        let mut out = Vec::with_capacity(Header::SIZE + to_index(self.total()));
        out.extend(header.as_bytes());
        self.write(&mut out);
        out
    }

    /// Keeps the first `at` bytes of the prefix; the rest goes to a single child.
    fn split(&mut self, at: usize) {
        let tail = self.prefix.split_off(at);
        let child = Self {
            prefix: tail[1..].to_vec(),
            children: std::mem::take(&mut self.children),
            values: std::mem::take(&mut self.values),
        };
        self.children.insert(tail[0], child);
    }

    fn parts(&self) -> u32 {
        let mut parts = 0;
        if !self.prefix.is_empty() {
            parts |= HAS_PREFIX;
        }
        if !self.children.is_empty() {
            parts |= HAS_CHILDREN;
        }
        if !self.values.is_empty() {
            parts |= HAS_VALUES;
        }
        parts
    }

    fn child_range(&self) -> Option<(u8, u8)> {
        let (first, _) = self.children.first_key_value()?;
        let (last, _) = self.children.last_key_value()?;
        Some((*first, *last))
    }

    /// Bytes of this node alone.
    fn size(&self) -> u32 {
        let mut size = 0;
        if !self.prefix.is_empty() {
            size += self.prefix.len() + 1;
        }
        if let Some((first, last)) = self.child_range() {
            size += 2 + 4 * (usize::from(last - first) + 1);
        }
        if !self.values.is_empty() {
            size += 4 + self.values.iter().map(|(_, value)| 4 + value.len() + 1).sum::<usize>();
        }
        u32::try_from(size).expect("an index is far below 256 MiB")
    }

    /// Bytes of this node and all below.
    fn total(&self) -> u32 {
        self.size() + self.children.values().map(Self::total).sum::<u32>()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut child_offset = u32::try_from(out.len()).expect("far below 256 MiB") + self.size();
        if !self.prefix.is_empty() {
            out.extend(&self.prefix);
            out.push(0);
        }
        if let Some((first, last)) = self.child_range() {
            out.extend([first, last]);
            for byte in first..=last {
                let offset = self.children.get(&byte).map_or(0, |child| {
                    let offset = child_offset | child.parts();
                    child_offset += child.total();
                    offset
                });
                out.extend(offset.to_be_bytes());
            }
        }
        if !self.values.is_empty() {
            let count = u32::try_from(self.values.len()).expect("far below 256 MiB");
            out.extend(count.to_be_bytes());
            for (priority, value) in &self.values {
                out.extend(priority.to_be_bytes());
                out.extend(value);
                out.push(0);
            }
        }
        for child in self.children.values() {
            child.write(out);
        }
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
        let bytes = trie.to_bytes();
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
}
