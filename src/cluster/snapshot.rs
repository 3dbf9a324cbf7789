//! A snapshot of etcd as a file: the database of bbolt (go.etcd.io/bbolt, page.go and bucket.go), then its SHA-256. That is
//! what `etcdctl snapshot save` writes and `etcdctl snapshot restore` takes.
//!
//! A page has a header, then elements; those of a branch name further pages, those of a leaf have keys and values. A bucket
//! is a tree of its own, whose root a value names; a small one lies in the value itself.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use prost::Message as _;
use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

use crate::base::digest::Hasher;
use crate::base::on_disk::{FromBytes, le, on_disk, whole};
use crate::base::terminal::said;
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, Fingerprint, json, limits};

/// Bytes of the hash at the end.
pub const HASH: u64 = 32;
/// bbolt writes whole sectors.
const SECTOR: u64 = 512;
const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
/// Of an element: its value is a bucket.
const IS_BUCKET: u32 = 0x01;
/// More than a tree of 2^64 entries has.
const DEEPEST: u32 = 64;
/// A page of a value of 1.5 MiB, the most that etcd takes, with room.
const LARGEST_PAGE: u64 = 64 << 20;
/// A page of two keys of 32 KiB, the most that bbolt takes, with room. One of each level is held at a time.
const LARGEST_BRANCH: u64 = 1 << 20;

on_disk! {
    /// `page`.
    Header: 16 bytes {
        id: le::U64,
        flags: le::U16,
        count: le::U16,
        overflow: le::U32,
    }
}

on_disk! {
    /// `meta`.
    Meta: 64 bytes {
        magic: le::U32,
        version: le::U32,
        page_size: le::U32,
        flags: le::U32,
        root: le::U64,
        sequence: le::U64,
        freelist: le::U64,
        pgid: le::U64,
        txid: le::U64,
        /// FNV-1a of all before it.
        checksum: le::U64,
    }
}

on_disk! {
    /// `branchPageElement`.
    BranchElement: 16 bytes {
        pos: le::U32,
        ksize: le::U32,
        pgid: le::U64,
    }
}

on_disk! {
    /// `leafPageElement`.
    LeafElement: 16 bytes {
        flags: le::U32,
        /// From this element on.
        pos: le::U32,
        ksize: le::U32,
        vsize: le::U32,
    }
}

on_disk! {
    /// `bucket`.
    Bucket: 16 bytes {
        /// 0: the page follows.
        root: le::U64,
        sequence: le::U64,
    }
}

/// Why a file is no snapshot.
#[derive(Debug, ThisError)]
pub enum Error {
    /// It was cut off, or something was added.
    #[error("it has {0} bytes, which no snapshot has: it was cut short, or is none")]
    Length(u64),
    /// Bytes have changed.
    #[error("its hash is not that of its bytes: it was cut short or changed, and must not be restored")]
    Hash,
    /// Not a database.
    #[error("it is not a database of etcd: {0}")]
    Shape(&'static str),
    /// Reading failed.
    #[error("reading it: {0}")]
    Io(#[from] io::Error),
}

/// What a snapshot has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Content {
    /// Of the store.
    pub revision: i64,
    /// That are there at this revision.
    pub keys: u64,
    /// The members of the cluster that it is of.
    pub members: Vec<Listed>,
}

/// A member as the database has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Nothing as long as it was never started.
    #[serde(default)]
    pub name: String,
    /// Where other members reach it.
    #[serde(default, rename(deserialize = "peerURLs"))]
    pub peer_urls: Vec<String>,
}

/// What an entry of the store has of a key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// Reads a whole snapshot: its hash first, then what it has.
pub fn read(file: &File) -> Result<Content, Error> {
    let len = file.metadata()?.len();
    if len % SECTOR != HASH || len < SECTOR {
        return Err(Error::Length(len));
    }
    let size = len - HASH;
    let mut told = [0; 32];
    file.read_exact_at(&mut told, size)?;
    if digest(file, size)? != Digest::from_bytes(told) {
        return Err(Error::Hash);
    }
    Database::open(file, size)?.content()
}

fn digest(file: &File, size: u64) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let part = to_usize((size - at).min(1 << 20));
        file.read_exact_at(&mut buffer[..part], at)?;
        io::Write::write_all(&mut hasher, &buffer[..part])?;
        at += to_u64(part);
    }
    Ok(hasher.finish())
}

struct Database<'a> {
    file: &'a File,
    size: u64,
    page_size: u64,
    root: u64,
    /// Bytes of the pages that may still be read: each page of a tree is read once, so that all have no more than the file.
    left: Cell<u64>,
}

impl<'a> Database<'a> {
    fn open(file: &'a File, size: u64) -> Result<Self, Error> {
        // Both pages have it; the one that was written last counts.
        let mut first = [0; Header::SIZE + Meta::SIZE];
        file.read_exact_at(&mut first, 0)?;
        let guess = meta(&first).map_or(4096, |meta| u64::from(meta.page_size.get()));
        let mut second = first;
        file.read_exact_at(&mut second, guess)?;
        let newest = [meta(&first), meta(&second)].into_iter().flatten().max_by_key(|meta| meta.txid.get());
        let newest = newest.ok_or(Error::Shape("neither of its first pages is whole"))?;
        let page_size = u64::from(newest.page_size.get());
        if !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) {
            return Err(Error::Shape("its pages have no size that pages have"));
        }
        Ok(Self { file, size, page_size, root: newest.root.get(), left: Cell::new(size) })
    }

    fn content(&self) -> Result<Content, Error> {
        let mut roots = [None, None];
        self.walk(self.page(self.root)?, 0, &mut |is_bucket, key, value| {
            if let (true, Some(at)) =
                (is_bucket, [&b"key"[..], b"members"].iter().position(|name| *name == key))
            {
                // A root, or a bucket that has room beside others in a page.
                let value = Some(value).filter(|value| to_u64(value.len()) <= self.page_size);
                roots[at] = Some(value.ok_or(Error::Shape("a bucket has no root"))?.to_vec());
            }
            Ok(())
        })?;
        let [keys, members] = roots;
        let mut content = Content { revision: 1, keys: 0, members: Vec::new() };
        let mut there = HashSet::new();
        self.bucket(keys.as_deref(), &mut |entry, value| {
            // `lease.Revision`: main, `_`, sub, each of eight bytes; then `t` where the key was deleted.
            let main = entry.get(..8).and_then(|main| main.try_into().ok()).map(i64::from_be_bytes);
            content.revision = main.ok_or(Error::Shape("an entry has no revision"))?.max(content.revision);
            let key = KeyValue::decode(value).map_err(|_| Error::Shape("an entry has no key"))?.key;
            // A part of it tells keys apart, and there may be many.
            let key = Fingerprint::of(&key).short();
            let _ = if entry.get(17) == Some(&b't') { there.remove(&key) } else { there.insert(key) };
            Ok(())
        })?;
        content.keys = to_u64(there.len());
        let listed = &mut content.members;
        self.bucket(members.as_deref(), &mut |_, value| {
            if listed.len() == limits::ETCD_MEMBERS {
                return Err(Error::Shape("it has more members than a cluster"));
            }
            let mut one: Listed = json::parse(value, limits::ETCD_MEMBERS)
                .map_err(|_| Error::Shape("a member cannot be read"))?;
            one.peer_urls
                .iter_mut()
                .chain([&mut one.name])
                .for_each(|text| *text = said(text, limits::ETCD_WORD));
            listed.push(one);
            Ok(())
        })?;
        content.members.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(content)
    }

    /// All entries of a bucket, in order.
    fn bucket(
        &self,
        value: Option<&[u8]>,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let value = value.ok_or(Error::Shape("a bucket is missing"))?;
        let (bucket, inline) =
            Bucket::read_from_prefix(value).map_err(|_| Error::Shape("a bucket has no root"))?;
        let page = match bucket.root.get() {
            0 => inline.to_vec(),
            root => self.page(root)?,
        };
        self.walk(page, 0, &mut |_, key, value| each(key, value))
    }

    fn page(&self, id: u64) -> Result<Vec<u8>, Error> {
        const OUTSIDE: Error = Error::Shape("a page lies outside of it");
        let at = id.checked_mul(self.page_size).filter(|at| *at < self.size).ok_or(OUTSIDE)?;
        let mut header = [0; Header::SIZE];
        self.file.read_exact_at(&mut header, at)?;
        let (header, _) = Header::read_from_prefix(&header).map_err(|_| OUTSIDE)?;
        let len = (u64::from(header.overflow.get()) + 1) * self.page_size;
        let largest = if header.flags.get() == BRANCH { LARGEST_BRANCH } else { LARGEST_PAGE };
        if header.id.get() != id || len > largest || at + len > self.size {
            return Err(OUTSIDE);
        }
        let left = self.left.get().checked_sub(len).ok_or(Error::Shape("a page lies in several places"))?;
        self.left.set(left);
        let mut page = vec![0; to_usize(len)];
        self.file.read_exact_at(&mut page, at)?;
        Ok(page)
    }

    fn walk(
        &self,
        page: Vec<u8>,
        depth: u32,
        each: &mut dyn FnMut(bool, &[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        const TORN: Error = Error::Shape("a page is torn");
        let (header, elements) = Header::read_from_prefix(&page).map_err(|_| TORN)?;
        let count = usize::from(header.count.get());
        let part = |at: usize, pos: u32, len: u32| {
            let from = at.checked_add(usize::try_from(pos).ok()?)?;
            elements.get(from..from.checked_add(usize::try_from(len).ok()?)?)
        };
        match header.flags.get() {
            LEAF => {
                let all = whole::<LeafElement>(elements).get(..count).ok_or(TORN)?;
                for (at, element) in all.iter().enumerate() {
                    let (at, keys, values) =
                        (at * LeafElement::SIZE, element.ksize.get(), element.vsize.get());
                    let key = part(at, element.pos.get(), keys).ok_or(TORN)?;
                    let value = part(at, element.pos.get().checked_add(keys).ok_or(TORN)?, values);
                    each(element.flags.get() & IS_BUCKET != 0, key, value.ok_or(TORN)?)?;
                }
                Ok(())
            }
            BRANCH if depth < DEEPEST => {
                let all = whole::<BranchElement>(elements).get(..count).ok_or(TORN)?;
                all.iter().try_for_each(|element| self.walk(self.page(element.pgid.get())?, depth + 1, each))
            }
            _ => Err(Error::Shape("a page is of another kind")),
        }
    }
}

/// A page's `meta`, if it is whole.
fn meta(page: &[u8]) -> Option<Meta> {
    let bytes = page.get(Header::SIZE..Header::SIZE + Meta::SIZE)?;
    let meta = Meta::read_from_bytes(bytes).ok()?;
    let sum = bytes[..Meta::SIZE - 8]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    (meta.magic.get() == MAGIC && meta.version.get() == VERSION && meta.checksum.get() == sum).then_some(meta)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const PAGE: usize = 4096;

    /// A database with `pages` behind the first two, the root being the first of them.
    fn database(pages: &[Vec<u8>]) -> File {
        let meta = |at: u64| {
            let mut meta = Vec::new();
            [MAGIC, VERSION, 4096, 0].iter().for_each(|field| meta.extend(field.to_le_bytes()));
            [2, 0, 0, 9, at].iter().for_each(|field: &u64| meta.extend(field.to_le_bytes()));
            let sum = meta.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
            });
            [header(at, 4, 0, 0), meta, sum.to_le_bytes().to_vec()].concat()
        };
        let mut bytes = Vec::new();
        for page in [meta(0), meta(1)].iter().chain(pages) {
            bytes.extend(page);
            bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.write_all(Digest::of(&bytes).as_bytes()).unwrap();
        file
    }

    fn header(id: u64, flags: u16, count: u16, overflow: u32) -> Vec<u8> {
        let (flags, count) = (flags.to_le_bytes(), count.to_le_bytes());
        [&id.to_le_bytes()[..], &flags, &count, &overflow.to_le_bytes()].concat()
    }

    /// A branch that leads `count` times to the page `to`.
    fn branch(id: u64, to: u64, count: u16, overflow: u32) -> Vec<u8> {
        let element = [&[0; 8][..], &to.to_le_bytes()].concat();
        [header(id, BRANCH, count, overflow), element.repeat(usize::from(count))].concat()
    }

    /// What a member sends who wants its reader busy, or out of memory.
    #[test]
    fn a_page_is_read_once() {
        let leaf = |id| header(id, LEAF, 0, 0);
        let says = |pages: &[Vec<u8>]| read(&database(pages)).unwrap_err().to_string();
        let several = "it is not a database of etcd: a page lies in several places";
        assert_eq!(says(&[branch(2, 2, 200, 0)]), several, "a circle");
        // 200^9 ways to the leaf.
        let mut levels: Vec<_> = (2..11).map(|id| branch(id, id + 1, 200, 0)).collect();
        levels.push(leaf(11));
        assert_eq!(says(&levels), several);
        // Pages of 40 KiB that lie in each other, and of 2 MiB.
        let mut nested: Vec<_> = (2..40).map(|id| branch(id, id + 1, 1, 9)).collect();
        nested.extend(vec![Vec::from([0]); 20]);
        assert_eq!(says(&nested), several);
        let mut large = vec![branch(2, 3, 1, 511), leaf(3)];
        large.extend(vec![Vec::from([0]); 600]);
        assert_eq!(says(&large), "it is not a database of etcd: a page lies outside of it");
        // One that is whole has all of its pages once.
        let empty = says(&[branch(2, 3, 1, 0), leaf(3)]);
        assert_eq!(empty, "it is not a database of etcd: a bucket is missing");
    }
}
