//! The dm-verity hash tree of a file system and its root hash.
//!
//! Format: Linux, `Documentation/admin-guide/device-mapper/verity.rst`; superblock: cryptsetup, `verity.c`
//! (`struct verity_sb`). Hash type 1, SHA-256, data and hash blocks of 4096 bytes; the hash device holds
//! the superblock's block, then the levels of the tree from its top down. Byte for byte what
//! `veritysetup format --salt --uuid` writes.

mod earlier;

use std::fmt;
use std::io::{self, Read, Write};

use rayon::prelude::*;
use uuid::Uuid;

use crate::base::on_disk::{FromBytes, FromZeros, IntoBytes, le, on_disk};
use crate::base::width::{to_index, to_u64, to_usize};
use crate::base::{Digest, Hasher};

pub use earlier::Earlier;

/// Bytes of a data block and of a hash block.
pub const BLOCK: usize = to_index(BLOCK_SIZE);
/// The same as the superblock has it.
const BLOCK_SIZE: u32 = 4096;
/// Bytes of a digest in the tree.
const DIGEST: usize = 32;
/// Digests in a hash block.
const FAN_OUT: u64 = to_u64(BLOCK / DIGEST);
/// Bytes hashed at once, when they come in smaller pieces.
const BATCH: usize = 4 << 20;
/// Blocks that one thread hashes in a row: 256 KiB, so that handing out work costs nothing.
const STRETCH: usize = 64;

/// `signature` of the superblock.
const SIGNATURE: &[u8; 8] = b"verity\0\0";
/// Bytes of the salt's field: no salt is longer.
const MAX_SALT: usize = 256;

/// What a file system is: the hash over all of its blocks. Only this module makes one, out of the blocks
/// themselves or of digests that an earlier tree has of them, so that whoever holds one has the bytes before.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootHash(Digest);

impl RootHash {
    /// The hash, 32 bytes.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootHash({})", self.0)
    }
}

/// GUIDs of the data and of the hash partition under the root hash `root`: its first and its last 128
/// bits, as UUIDs whose text has the same digits (Discoverable Partitions Specification).
pub fn partition_guids(root: &Digest) -> (Uuid, Uuid) {
    let (data, hash) = root.as_bytes().split_at(16);
    let uuid = |half: &[u8]| Uuid::from_bytes(half.try_into().expect("half of 32 bytes"));
    (uuid(data), uuid(hash))
}

/// What went wrong while hashing or checking.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More salt than the superblock has room for.
    #[error("expected at most {MAX_SALT} bytes of salt, but have {len}")]
    SaltTooLong {
        /// Bytes of the salt.
        len: usize,
    },
    /// No whole number of blocks, or none at all.
    #[error("expected a positive multiple of {BLOCK} bytes of data, but have {len}")]
    Unaligned {
        /// Bytes of data.
        len: u64,
    },
    /// No verity superblock.
    #[error("no verity superblock at the start of the hash tree")]
    NotVerity,
    /// A sound superblock of another kind than we write.
    #[error("unsupported {what}: {value}")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// What it says.
        value: String,
    },
    /// The superblock, which no hash protects, disagrees with the tree.
    #[error("superblock names {blocks} data blocks, but the hash tree covers another number")]
    DataBlocks {
        /// As the superblock says.
        blocks: u64,
    },
    /// Data or tree end early.
    #[error("{what} ends before its block {block} of {blocks}")]
    Short {
        /// `data` or `hash tree`.
        what: &'static str,
        /// The first block that is not there in full.
        block: u64,
        /// Blocks that it should have.
        blocks: u64,
    },
    /// A block of the tree is not what the level above says.
    #[error("hash tree block {block}: expected digest {expected}, but have {actual}")]
    TreeBlock {
        /// Its number on the hash device; the superblock is 0.
        block: u64,
        /// As the tree says.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// A block of data is not what the tree says.
    #[error("data block {block}: expected digest {expected}, but have {actual}")]
    DataBlock {
        /// Its number; the first is 0.
        block: u64,
        /// As the tree says.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// The disk under data or tree.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What goes into a superblock besides the data.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hashed before each block; at most 256 bytes.
    pub salt: Vec<u8>,
    /// The hash device's name for itself.
    pub uuid: Uuid,
}

/// A hash tree over finished data.
#[derive(Clone, Debug)]
pub struct HashTree {
    /// What the kernel is told.
    pub root_hash: RootHash,
    /// The whole content of the hash device, superblock included.
    pub bytes: Vec<u8>,
}

/// Bytes of the hash device, superblock included, for `data_blocks` blocks of data.
pub fn tree_size(data_blocks: u64) -> u64 {
    let blocks: u64 = level_blocks(data_blocks).iter().sum();
    (1 + blocks) * to_u64(BLOCK)
}

/// Blocks of each level, the leaves' first. A single block of data needs no tree: its digest is the root.
fn level_blocks(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut below = data_blocks;
    while below > 1 {
        below = below.div_ceil(FAN_OUT);
        levels.push(below);
    }
    levels
}

/// Passes data on to `W` and hashes it on the way, on all threads of the pool. Holds 32 bytes for each
/// block that went by and a batch at most.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    options: Options,
    salted: Salted,
    /// Bytes that make no batch yet.
    pending: Vec<u8>,
    /// Digests of the blocks so far.
    leaves: Vec<u8>,
    len: u64,
}

impl<W: Write + Send> Writer<W> {
    /// Hashes what is written to it and passes it on to `inner`, in pieces of whole batches.
    ///
    /// # Errors
    /// `SaltTooLong`.
    pub fn new(inner: W, options: Options) -> Result<Self, Error> {
        let len = options.salt.len();
        if len > MAX_SALT {
            return Err(Error::SaltTooLong { len });
        }
        let salted = Salted::new(&options.salt);
        Ok(Self { inner, options, salted, pending: Vec::new(), leaves: Vec::new(), len: 0 })
    }

    /// Ends the data and gives its tree. `inner` has been flushed.
    ///
    /// # Errors
    /// `Unaligned`; `Io` of the last write.
    pub fn finish(mut self) -> Result<HashTree, Error> {
        if self.len == 0 || !self.len.is_multiple_of(to_u64(BLOCK)) {
            return Err(Error::Unaligned { len: self.len });
        }
        let pending = std::mem::take(&mut self.pending);
        self.pass(&pending)?;
        self.inner.flush()?;
        Ok(build(&self.options, &self.salted, self.leaves))
    }

    /// Hashes and passes on whole blocks.
    fn pass(&mut self, blocks: &[u8]) -> io::Result<()> {
        let Self { inner, salted, leaves, .. } = self;
        let (hashed, written) = rayon::join(|| salted.digests(blocks), || inner.write_all(blocks));
        leaves.extend(hashed);
        written
    }
}

impl<W: Write + Send> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        if !self.pending.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BATCH - self.pending.len()));
            self.pending.extend_from_slice(now);
            rest = later;
            if self.pending.len() == BATCH {
                let batch = std::mem::take(&mut self.pending);
                self.pass(&batch)?;
                self.pending = batch;
                self.pending.clear();
            }
        }
        // What comes in batches is hashed where it lies.
        let (batches, later) = rest.split_at(rest.len() / BATCH * BATCH);
        if !batches.is_empty() {
            self.pass(batches)?;
        }
        self.pending.extend_from_slice(later);
        self.len += to_u64(bytes.len());
        Ok(bytes.len())
    }

    /// Passes on what is in whole blocks; a last part of a block waits for the rest.
    fn flush(&mut self) -> io::Result<()> {
        let whole = self.pending.len() / BLOCK * BLOCK;
        let rest = self.pending.split_off(whole);
        let blocks = std::mem::replace(&mut self.pending, rest);
        self.pass(&blocks)?;
        self.inner.flush()
    }
}

/// A hasher that has taken in the salt: cloned for each block.
#[derive(Clone)]
struct Salted(Hasher);

impl fmt::Debug for Salted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salted")
    }
}

impl Salted {
    fn new(salt: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(salt);
        Self(hasher)
    }

    fn digest(&self, block: &[u8]) -> Digest {
        let mut hasher = self.0.clone();
        hasher.update(block);
        hasher.finish()
    }

    /// The digests of all blocks in `bytes`, one after the other.
    fn digests(&self, bytes: &[u8]) -> Vec<u8> {
        let mut digests = vec![0; bytes.len() / BLOCK * DIGEST];
        let stretches = digests.par_chunks_mut(STRETCH * DIGEST).zip(bytes.par_chunks(STRETCH * BLOCK));
        stretches.for_each(|(digests, blocks)| {
            for (digest, block) in digests.chunks_exact_mut(DIGEST).zip(blocks.chunks_exact(BLOCK)) {
                digest.copy_from_slice(self.digest(block).as_bytes());
            }
        });
        digests
    }
}

/// Stacks the levels over `leaves`, at least one digest.
fn build(options: &Options, salted: &Salted, leaves: Vec<u8>) -> HashTree {
    let data_blocks = to_u64(leaves.len() / DIGEST);
    let mut bytes = leaves;
    let mut above: Vec<Vec<u8>> = Vec::new();
    let mut root = None;
    for blocks in level_blocks(data_blocks) {
        let level = above.last_mut().unwrap_or(&mut bytes);
        level.resize(to_usize(blocks) * BLOCK, 0);
        let digests = salted.digests(level);
        match blocks {
            1 => root = Some(digests),
            _ => above.push(digests),
        }
    }
    // A single block of data has no tree.
    let root = root.unwrap_or_else(|| std::mem::take(&mut bytes)).try_into().expect("one digest is left");
    let mut head = superblock(options, data_blocks).to_vec();
    above.iter().rev().for_each(|level| head.extend(level));
    // The leaves are nearly all of it: they stay where they are, as far as that can be.
    bytes.splice(0..0, head);
    HashTree { root_hash: RootHash(Digest::from_bytes(root)), bytes }
}

on_disk! {
    /// `struct verity_sb`.
    SuperBlock: 512 bytes {
        signature: [u8; 8],
        version: le::U32,
        hash_type: le::U32,
        uuid: [u8; 16],
        algorithm: [u8; 32],
        data_block_size: le::U32,
        hash_block_size: le::U32,
        data_blocks: le::U64,
        salt_size: le::U16,
        _pad1: [u8; 6],
        salt: [u8; MAX_SALT],
        _pad2: [u8; 168],
    }
}

/// The name of the hash, NUL-padded to its field.
const ALGORITHM: [u8; 32] = *b"sha256\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn superblock(options: &Options, data_blocks: u64) -> [u8; BLOCK] {
    let mut salt = [0; MAX_SALT];
    salt[..options.salt.len()].copy_from_slice(&options.salt);
    let superblock = SuperBlock {
        signature: *SIGNATURE,
        version: 1.into(),
        hash_type: 1.into(),
        uuid: options.uuid.into_bytes(),
        algorithm: ALGORITHM,
        data_block_size: BLOCK_SIZE.into(),
        hash_block_size: BLOCK_SIZE.into(),
        data_blocks: data_blocks.into(),
        salt_size: u16::try_from(options.salt.len()).expect("the salt fits its field").into(),
        salt,
        ..SuperBlock::new_zeroed()
    };
    let mut block = [0; BLOCK];
    block[..SuperBlock::SIZE].copy_from_slice(superblock.as_bytes());
    block
}

/// The options and the number of data blocks that a superblock names.
///
/// # Errors
/// `NotVerity`; `Unsupported` or `SaltTooLong` for one that we do not write.
pub fn parse_superblock(block: &[u8; BLOCK]) -> Result<(Options, u64), Error> {
    let Ok((found, _)) = SuperBlock::ref_from_prefix(block) else { return Err(Error::NotVerity) };
    if &found.signature != SIGNATURE {
        return Err(Error::NotVerity);
    }
    for (what, value, known) in [
        ("superblock version", found.version, 1),
        ("hash type", found.hash_type, 1),
        ("data block size", found.data_block_size, BLOCK_SIZE),
        ("hash block size", found.hash_block_size, BLOCK_SIZE),
    ] {
        if value != known {
            return Err(Error::Unsupported { what, value: value.get().to_string() });
        }
    }
    if found.algorithm != ALGORITHM {
        let name = found.algorithm.split(|byte| *byte == 0).next().unwrap_or_default();
        let value = String::from_utf8_lossy(name).into_owned();
        return Err(Error::Unsupported { what: "hash algorithm", value });
    }
    let len = usize::from(found.salt_size);
    let salt = found.salt.get(..len).ok_or(Error::SaltTooLong { len })?.to_vec();
    Ok((Options { salt, uuid: Uuid::from_bytes(found.uuid) }, found.data_blocks.get()))
}

/// Reads all of `data` that `tree` covers and checks every block, the tree's own before.
///
/// # Errors
/// `TreeBlock` or `DataBlock` names the first block that differs.
pub fn verify(data: &mut impl Read, tree: &mut impl Read, root: &Digest) -> Result<(), Error> {
    let mut block = [0; BLOCK];
    if fill(tree, &mut block)? < BLOCK {
        return Err(Error::NotVerity);
    }
    let (options, data_blocks) = parse_superblock(&block)?;
    if data_blocks == 0 {
        return Err(Error::DataBlocks { blocks: 0 });
    }
    let salted = Salted::new(&options.salt);
    let levels = level_blocks(data_blocks);
    let blocks = 1 + levels.iter().sum::<u64>();

    // Each level, from the top down, is checked against the digests in the one above.
    let mut digests = root.as_bytes().to_vec();
    let mut number = 1;
    for count in levels.iter().rev() {
        let level = read_level(tree, *count, number, blocks)?;
        if let Some((at, expected, actual)) = first_difference(&digests, &salted.digests(&level)) {
            return Err(Error::TreeBlock { block: number + at, expected, actual });
        }
        check_count(&digests, *count, data_blocks)?;
        number += count;
        digests = level;
    }
    check_count(&digests, data_blocks, data_blocks)?;

    let mut batch = vec![0; BATCH];
    let mut number = 0;
    while number < data_blocks {
        let left = (data_blocks - number).saturating_mul(to_u64(BLOCK));
        let want = to_usize(left.min(to_u64(BATCH)));
        let have = fill(data, &mut batch[..want])?;
        let known = &digests[to_usize(number) * DIGEST..];
        if let Some((at, expected, actual)) = first_difference(known, &salted.digests(&batch[..have])) {
            return Err(Error::DataBlock { block: number + at, expected, actual });
        }
        number += to_u64(have / BLOCK);
        if have < want {
            return Err(Error::Short { what: "data", block: number, blocks: data_blocks });
        }
    }
    Ok(())
}

/// Digests behind the first `count` belong to blocks that a check would leave out.
fn check_count(digests: &[u8], count: u64, data_blocks: u64) -> Result<(), Error> {
    let behind = digests.get(to_usize(count) * DIGEST..);
    if behind.is_some_and(|rest| rest.iter().all(|byte| *byte == 0)) {
        return Ok(());
    }
    Err(Error::DataBlocks { blocks: data_blocks })
}

/// Reads `count` blocks; memory grows with what is really there, not with what a superblock claims.
fn read_level(tree: &mut impl Read, count: u64, number: u64, blocks: u64) -> Result<Vec<u8>, Error> {
    let mut level = Vec::new();
    let want = count.saturating_mul(to_u64(BLOCK));
    tree.take(want).read_to_end(&mut level)?;
    if to_u64(level.len()) < want {
        let block = number + to_u64(level.len() / BLOCK);
        return Err(Error::Short { what: "hash tree", block, blocks });
    }
    Ok(level)
}

/// Fills `buffer` as far as `reader` goes; the number of bytes.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Where `actual` first differs from the digests in `expected`, which may go on behind.
fn first_difference(expected: &[u8], actual: &[u8]) -> Option<(u64, Digest, Digest)> {
    let digest = |bytes: &[u8]| Digest::from_bytes(bytes.try_into().expect("cut to size"));
    let mut pairs = expected.chunks_exact(DIGEST).zip(actual.chunks_exact(DIGEST));
    let at = pairs.position(|(expected, actual)| expected != actual)?;
    let range = at * DIGEST..(at + 1) * DIGEST;
    Some((to_u64(at), digest(&expected[range.clone()]), digest(&actual[range])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { salt: b"salt".to_vec(), uuid: Uuid::from_u128(7) }
    }

    fn data(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK).map(|at| (at / 7 + at / BLOCK) as u8).collect()
    }

    fn tree(data: &[u8], piece: usize) -> (HashTree, Vec<u8>) {
        let mut passed = Vec::new();
        let mut writer = Writer::new(&mut passed, options()).unwrap();
        for piece in data.chunks(piece) {
            writer.write_all(piece).unwrap();
        }
        (writer.finish().unwrap(), passed)
    }

    #[test]
    fn pieces_do_not_matter() {
        let data = data(2500);
        let (expected, passed) = tree(&data, data.len());
        assert!(passed == data);
        assert_eq!(to_u64(expected.bytes.len()), tree_size(2500));
        for piece in [1000, BLOCK, 5000, BATCH - 1, BATCH, BATCH + 1] {
            let (tree, passed) = tree(&data, piece);
            assert!(passed == data && tree.bytes == expected.bytes);
            assert_eq!(tree.root_hash, expected.root_hash);
        }
    }

    #[test]
    fn a_flush_in_between_does_not_matter() {
        let data = data(3);
        let mut passed = Vec::new();
        let mut writer = Writer::new(&mut passed, options()).unwrap();
        writer.write_all(&data[..5000]).unwrap();
        writer.flush().unwrap();
        writer.write_all(&data[5000..]).unwrap();
        let flushed = writer.finish().unwrap();
        assert!(passed == data);
        assert_eq!(flushed.root_hash, tree(&data, 4096).0.root_hash);
    }

    #[test]
    fn only_whole_blocks_are_taken() {
        for len in [0, 1, 4095, 4097] {
            let mut writer = Writer::new(io::sink(), options()).unwrap();
            writer.write_all(&vec![0; len]).unwrap();
            assert!(matches!(writer.finish(), Err(Error::Unaligned { .. })), "{len}");
        }
        let long = Options { salt: vec![0; 257], ..options() };
        assert!(matches!(Writer::new(io::sink(), long), Err(Error::SaltTooLong { len: 257 })));
    }

    #[test]
    fn the_first_bad_block_is_named() {
        let data = data(1500);
        let HashTree { root_hash, bytes, .. } = tree(&data, BATCH).0;
        let root = root_hash.digest();
        verify(&mut data.as_slice(), &mut bytes.as_slice(), &root).unwrap();
        for block in [0, 1, 128, 1023, 1024, 1499] {
            let mut bad = data.clone();
            bad[block * BLOCK + 5] ^= 1;
            *bad.last_mut().unwrap() ^= 1;
            let error = verify(&mut bad.as_slice(), &mut bytes.as_slice(), &root).unwrap_err();
            assert!(
                matches!(error, Error::DataBlock { block: found, .. } if found == to_u64(block)),
                "{error}"
            );
        }
        for block in 1..bytes.len() / BLOCK {
            let mut bad = bytes.clone();
            bad[block * BLOCK + 5] ^= 1;
            let error = verify(&mut data.as_slice(), &mut bad.as_slice(), &root).unwrap_err();
            assert!(
                matches!(error, Error::TreeBlock { block: found, .. } if found == to_u64(block)),
                "{error}"
            );
        }
        let error = verify(&mut data.as_slice(), &mut bytes.as_slice(), &Digest::of("")).unwrap_err();
        assert!(matches!(error, Error::TreeBlock { block: 1, .. }));
    }

    #[test]
    fn cut_and_foreign_input_is_an_error() {
        let data = data(300);
        let HashTree { root_hash, bytes, .. } = tree(&data, BATCH).0;
        let root = root_hash.digest();
        for len in [0, 1, BLOCK, 299 * BLOCK + 4095] {
            let error = verify(&mut &data[..len], &mut bytes.as_slice(), &root).unwrap_err();
            let expected = to_u64(len / BLOCK);
            assert!(
                matches!(error, Error::Short { what: "data", block, .. } if block == expected),
                "{error}"
            );
        }
        for len in [0, 511, BLOCK, 2 * BLOCK, bytes.len() - 1] {
            assert!(verify(&mut data.as_slice(), &mut &bytes[..len], &root).is_err(), "{len}");
        }
        for claimed in [0u64, 1, 2, 128, 256, 299, 301, 400, 128 * 128 + 1] {
            let mut bad = bytes.clone();
            SuperBlock::mut_from_prefix(&mut bad).unwrap().0.data_blocks.set(claimed);
            let longer = [data.as_slice(), &[0; 200 * BLOCK]].concat();
            let result = verify(&mut longer.as_slice(), &mut bad.as_slice(), &root);
            assert!(result.is_err(), "{claimed} blocks");
        }
        // A superblock that claims 2^64 - 1 blocks must cost neither memory nor time.
        let mut bad = bytes;
        SuperBlock::mut_from_prefix(&mut bad).unwrap().0.data_blocks.set(u64::MAX);
        assert!(verify(&mut data.as_slice(), &mut bad.as_slice(), &root).is_err());
    }

    #[test]
    fn guids_have_the_digits_of_the_hash() {
        let (tree, _) = tree(&data(2), BLOCK);
        let (first, last) = partition_guids(&tree.root_hash.digest());
        assert_eq!(format!("{}{}", first.simple(), last.simple()), tree.root_hash.to_string());
    }
}
