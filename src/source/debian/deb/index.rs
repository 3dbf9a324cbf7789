//! What stands behind the data of an unpacked package: everything that was learned while unpacking.
//!
//! ```text
//! data.tar, decompressed
//! index                    little-endian numbers, byte strings after their length
//! footer, 32 bytes         magic 16, start of the index 8, its length 4, its CRC-32 4
//! ```
//!
//! All of it is the body of a sealed file, which tells whether it is whole.

use std::collections::BTreeMap;
use std::io;

use crate::base::seal::Sealed;
use crate::base::width::{to_index, to_usize};
use crate::base::{Digest, limits};
use crate::tree::Meta;
use crate::tree::from_tar::{Body, Member};

use super::{Control, Package};

/// Names this form, for the key under which unpacked packages are kept. A change here makes them anew.
pub const FORMAT: &str = "unpacked-6";

const MAGIC: &[u8; 16] = b"keller-unpack-2\n";

const FOOTER: u64 = 32;

/// The first read from the end, in bytes: holds the index of most packages.
const TAIL: u64 = 64 << 10;

/// Why a file is no unpacked package.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is cut short, or was never one.
    #[error("the unpacked package is damaged: {what}")]
    Corrupt {
        /// What is wrong.
        what: &'static str,
    },
    /// It could not be read.
    #[error("reading the unpacked package: {0}")]
    Io(#[from] io::Error),
}

/// The bytes that follow data of `start` bytes.
pub fn encode(package: &Package, start: u64) -> Vec<u8> {
    let mut out = Encoder(Vec::new());
    out.bytes(package.control.text().as_bytes());
    out.count(package.scripts.len());
    for (name, digest) in &package.scripts {
        out.bytes(name.as_bytes());
        out.0.extend_from_slice(digest.as_bytes());
    }
    out.count(package.actions.len());
    for (name, words) in &package.actions {
        out.bytes(name.as_bytes());
        out.texts(words);
    }
    out.count(package.members.len());
    for member in &package.members {
        out.member(member);
    }
    let (len, crc) = (out.0.len(), crc32fast::hash(&out.0));
    out.0.extend_from_slice(MAGIC);
    out.long(start);
    out.count(len);
    out.number(crc);
    out.0
}

/// Reads the index of an unpacked package.
pub fn load(file: &Sealed) -> Result<Package, IndexError> {
    let size = file.len();
    let corrupt = |what| IndexError::Corrupt { what };
    let mut tail = vec![0; to_usize(size.min(TAIL))];
    file.read_at(&mut tail, size.saturating_sub(TAIL))?;
    let footer = tail.split_off(tail.len().checked_sub(to_usize(FOOTER)).ok_or(corrupt("no footer"))?);
    let mut footer = Decoder(footer.strip_prefix(MAGIC).ok_or(corrupt("no footer"))?);
    let (Some(start), Some(len), Some(crc)) = (footer.long(), footer.number(), footer.number()) else {
        return Err(corrupt("no footer"));
    };
    if start.checked_add(u64::from(len) + FOOTER) != Some(size) {
        return Err(corrupt("wrong length"));
    }
    if u64::from(len) > limits::PACKAGE_INDEX {
        return Err(corrupt("an index that is larger than any"));
    }
    let index = match tail.len().checked_sub(to_index(len)) {
        Some(at) => tail.split_off(at),
        None => {
            let mut index = vec![0; to_index(len)];
            file.read_at(&mut index, start)?;
            index
        }
    };
    if crc32fast::hash(&index) != crc {
        return Err(corrupt("wrong checksum"));
    }
    Decoder(&index).package(start).ok_or(corrupt("unreadable index"))
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn number(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn long(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(u32::try_from(count).expect("a package has less than 4 GiB of headers"));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn texts(&mut self, texts: &[String]) {
        self.count(texts.len());
        texts.iter().for_each(|text| self.bytes(text.as_bytes()));
    }

    fn member(&mut self, member: &Member) {
        self.bytes(&member.path);
        let meta = &member.meta;
        self.number(u32::from(meta.mode));
        self.number(meta.uid);
        self.number(meta.gid);
        self.long(meta.mtime.cast_unsigned());
        self.count(meta.xattrs.len());
        for (name, value) in &meta.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
        match &member.body {
            Body::Directory => self.0.push(b'd'),
            Body::File { offset, len } => {
                self.0.push(b'-');
                self.long(*offset);
                self.long(*len);
            }
            Body::Link(target) => {
                self.0.push(b'h');
                self.bytes(target);
            }
            Body::Symlink(target) => {
                self.0.push(b'l');
                self.bytes(target);
            }
            Body::CharDevice(major, minor) | Body::BlockDevice(major, minor) => {
                self.0.push(if matches!(member.body, Body::CharDevice(..)) { b'c' } else { b'b' });
                self.number(*major);
                self.number(*minor);
            }
            Body::Fifo => self.0.push(b'p'),
        }
    }
}

struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    fn long(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = to_index(self.number()?);
        self.take(len).map(<[u8]>::to_vec)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn texts(&mut self) -> Option<Vec<String>> {
        (0..self.number()?).map(|_| self.text()).collect()
    }

    fn package(&mut self, data: u64) -> Option<Package> {
        let control = Control::parse(&self.text()?).ok()?;
        let mut scripts = BTreeMap::new();
        for _ in 0..self.number()? {
            let name = self.text()?;
            scripts.insert(name, Digest::from_bytes(self.take(32)?.try_into().ok()?));
        }
        let mut actions = BTreeMap::new();
        for _ in 0..self.number()? {
            let name = self.text()?;
            actions.insert(name, self.texts()?);
        }
        let members = (0..self.number()?).map(|_| self.member(data)).collect::<Option<_>>()?;
        self.0.is_empty().then_some(Package { control, scripts, actions, members })
    }

    fn member(&mut self, data: u64) -> Option<Member> {
        let path = self.bytes()?;
        let mode = u16::try_from(self.number()?).ok()?;
        let (uid, gid, mtime) = (self.number()?, self.number()?, self.long()?.cast_signed());
        let xattrs =
            (0..self.number()?).map(|_| Some((self.bytes()?, self.bytes()?))).collect::<Option<_>>()?;
        let body = match self.take(1)?[0] {
            b'd' => Body::Directory,
            b'-' => {
                let (offset, len) = (self.long()?, self.long()?);
                if offset.checked_add(len)? > data {
                    return None;
                }
                Body::File { offset, len }
            }
            b'h' => Body::Link(self.bytes()?),
            b'l' => Body::Symlink(self.bytes()?),
            b'c' => Body::CharDevice(self.number()?, self.number()?),
            b'b' => Body::BlockDevice(self.number()?, self.number()?),
            b'p' => Body::Fifo,
            _ => return None,
        };
        Some(Member { path, meta: Meta { mode, uid, gid, mtime, xattrs }, body })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::base::seal::{Key, SealError, Sealer};

    fn sample(members: usize) -> Package {
        let bodies = [
            Body::Directory,
            Body::File { offset: 1, len: 2 },
            Body::Link(b"a".to_vec()),
            Body::Symlink(b"/b".to_vec()),
            Body::CharDevice(1, 3),
            Body::BlockDevice(8, 0),
            Body::Fifo,
        ];
        let xattrs = BTreeMap::from([(b"security.capability".to_vec(), vec![0, 1, 255])]);
        let meta = Meta { mode: 0o4755, uid: 1, gid: u32::MAX, mtime: 1 << 33, xattrs };
        let member = |index: usize| Member {
            path: format!("d/{index}").into_bytes(),
            meta: meta.clone(),
            body: bodies[index % bodies.len()].clone(),
        };
        Package {
            control: Control::parse("Package: a\nVersion: 1\n").unwrap(),
            scripts: BTreeMap::from([("postinst".to_owned(), Digest::of("x"))]),
            actions: BTreeMap::from([("preinst".to_owned(), vec!["dpkg-divert".to_owned()])]),
            members: (0..members).map(member).collect(),
        }
    }

    const KEY: Key = Key::from_bytes([7; 32]);

    fn sealed(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut sealer = Sealer::new(&file, &KEY, FORMAT, "key");
        sealer.write_all(bytes).unwrap();
        sealer.finish().unwrap();
        file
    }

    fn opened(file: &File) -> Result<Sealed, SealError> {
        let file = file.try_clone().unwrap();
        Sealed::open(file, Path::new("sample"), &KEY, (FORMAT, "key"), Box::new(|_| ()))
    }

    #[test]
    fn comes_back_whole_or_not_at_all() {
        // The larger one does not fit the first read.
        for members in [0, 7, 2000] {
            let package = sample(members);
            let bytes = [&b"data"[..], &encode(&package, 4)].concat();
            let file = sealed(&bytes);
            assert_eq!(load(&opened(&file).unwrap()).unwrap(), package);
            // Sealed as it is.
            for shorter in [0, 3, 31, 32, bytes.len() - 1] {
                let mut short = bytes[..shorter].to_vec();
                let refused = |bytes: &[u8]| load(&opened(&sealed(bytes)).unwrap());
                assert!(matches!(refused(&short), Err(IndexError::Corrupt { .. })), "{shorter} bytes");
                short.resize(bytes.len(), 0);
                assert!(refused(&short).is_err(), "{shorter} bytes and zeros");
            }
            // Cut short since it was sealed.
            let len = file.metadata().unwrap().len();
            for shorter in [0, 3, 31, 32, len - 1] {
                file.set_len(shorter).unwrap();
                assert!(opened(&file).is_err(), "{shorter} bytes");
                file.set_len(len).unwrap();
                assert!(opened(&file).is_err(), "{shorter} bytes and zeros");
            }
        }
    }
}
