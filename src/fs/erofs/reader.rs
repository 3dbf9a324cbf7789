//! Reads an uncompressed image back into a tree.
//!
//! The image is a [`Content`]: bytes in memory, or a stretch of a file such as a partition of a disk
//! image. Files of the tree are stretches of the same file, nothing is copied. An image is not trusted:
//! all work is bounded by its length.

use std::collections::BTreeMap;
use std::io;

use super::format::{
    BLKSZBITS, BLOCK, Dirent, FEATURE_COMPAT_SB_CHKSUM, I_ALL, I_DATALAYOUT_BIT, I_VERSION_EXTENDED,
    INODE_FLAT_INLINE, INODE_FLAT_PLAIN, InodeCompact, InodeExtended, NAME_LEN, SLOT, SUPER_MAGIC_V1,
    SUPER_OFFSET, SuperBlock, XATTR_PREFIXES, XATTR_UNIT, XattrEntry, XattrIbodyHeader, checksum, decode_dev,
    file_type, mode, xattr_ibody_size,
};
use super::layout::MAX_TARGET;
use crate::base::limits;
use crate::base::on_disk::{FromBytes, IntoBytes, le};
use crate::base::width::{to_u64, to_usize};
use crate::tree::{Content, Kind, Meta, Node, NodeId, Tree, TreeError};

/// Why an image was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No superblock where one should be.
    #[error("expected the EROFS magic {SUPER_MAGIC_V1:#x} at byte 1024, but have {magic:#x}")]
    NotErofs {
        /// What is there.
        magic: u32,
    },
    /// Shorter than an image can be, or than it says it is.
    #[error("image has {actual} bytes, but needs {expected}")]
    Short {
        /// Bytes that it should have at least.
        expected: u64,
        /// Bytes that it has.
        actual: u64,
    },
    /// A sound image with something that is not supported here.
    #[error("unsupported {what}: {value:#x}")]
    Unsupported {
        /// What it has.
        what: &'static str,
        /// The field that says so.
        value: u64,
    },
    /// More than is read of an image, which nobody may have signed.
    #[error("the {what} exceeds {limit}, the most that is read of an image")]
    TooMuch {
        /// What it has too much of.
        what: &'static str,
        /// From [`limits`].
        limit: u64,
    },
    /// The superblock is not what was written.
    #[error("expected superblock checksum {expected:#010x}, but have {actual:#010x}")]
    Checksum {
        /// As stored.
        expected: u32,
        /// As computed.
        actual: u32,
    },
    /// A structure that makes no sense.
    #[error("corrupt {what} of inode {nid}")]
    Corrupt {
        /// The part that is corrupt.
        what: &'static str,
        /// The inode number.
        nid: u64,
    },
    /// The names in the image make no tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The disk under the image.
    #[error("reading the image: {0}")]
    Io(#[from] io::Error),
}

/// An image whose superblock is sound.
#[derive(Debug)]
pub struct Image {
    source: Content,
    superblock: SuperBlock,
}

/// An inode of either form.
struct Inode {
    nid: u64,
    layout: u16,
    mode: u16,
    size: u64,
    /// First block, or device number.
    u: u32,
    meta: Meta,
    /// Where inlined content begins, in bytes of the image.
    tail: u64,
}

/// Bounds the work on one image: a sound one has no byte of content in two places, but for files that
/// share all of theirs.
struct Spent {
    /// Bytes that may still be read into memory.
    left: u64,
    /// Of the image, in bytes.
    whole: u64,
    /// Bodies in memory by first block and size.
    bodies: BTreeMap<(u32, u64), Content>,
}

/// Where a node lies: in which directory, how deep, and how many bytes the path has before its name.
#[derive(Clone, Copy)]
struct Place {
    parent: NodeId,
    depth: usize,
    above: usize,
}

/// What the names of an image take in memory, within [`limits`].
#[derive(Default)]
struct Names {
    nodes: usize,
    /// Of all paths.
    bytes: u64,
    /// Of all attributes.
    attributes: u64,
}

impl Names {
    fn charge(&mut self, path: usize, depth: usize) -> Result<(), ReadError> {
        (self.nodes, self.bytes) = (self.nodes + 1, self.bytes + to_u64(path));
        for (what, value, limit) in [
            ("length of a path", to_u64(path), to_u64(limits::PATH)),
            ("number of directories above a path", to_u64(depth.saturating_sub(1)), to_u64(limits::DEPTH)),
            ("number of files", to_u64(self.nodes), to_u64(limits::ROOT_NODES)),
            ("length of all paths together", self.bytes, limits::ROOT_NAMES),
        ] {
            if value > limit {
                return Err(ReadError::TooMuch { what, limit });
            }
        }
        Ok(())
    }

    fn attributes(&mut self, meta: &Meta) -> Result<(), ReadError> {
        let sizes = meta.xattrs.iter().map(|(name, value)| to_u64(name.len() + value.len()));
        self.attributes += sizes.sum::<u64>();
        match self.attributes > limits::NAMES {
            true => {
                Err(ReadError::TooMuch { what: "length of all attributes together", limit: limits::NAMES })
            }
            false => Ok(()),
        }
    }
}

impl Spent {
    fn charge(&mut self, amount: u64, nid: u64) -> Result<(), ReadError> {
        let Some(left) = self.left.checked_sub(amount) else {
            return Err(match self.whole > limits::HELD_OF_IMAGE {
                true => ReadError::TooMuch {
                    what: "content that is held in memory",
                    limit: limits::HELD_OF_IMAGE,
                },
                false => ReadError::Corrupt { what: "content (it overlaps with others)", nid },
            });
        };
        self.left = left;
        Ok(())
    }
}

impl Image {
    /// Checks the superblock of `source`.
    ///
    /// # Errors
    /// All kinds of [`ReadError`] but `Tree`.
    pub fn open(source: Content) -> Result<Self, ReadError> {
        let actual = source.len();
        if actual < BLOCK {
            return Err(ReadError::Short { expected: BLOCK, actual });
        }
        let mut block = [0; to_usize(BLOCK - SUPER_OFFSET)];
        source.read_at(&mut block, SUPER_OFFSET)?;
        let Ok((superblock, _)) = SuperBlock::read_from_prefix(&block) else {
            return Err(ReadError::Short { expected: BLOCK, actual });
        };
        if superblock.magic != SUPER_MAGIC_V1 {
            return Err(ReadError::NotErofs { magic: superblock.magic.get() });
        }
        for (what, value, known) in [
            ("block size", u64::from(superblock.blkszbits), u64::from(BLKSZBITS)),
            ("incompatible features", u64::from(superblock.feature_incompat), 0),
            ("directory block size", u64::from(superblock.dirblkbits), 0),
            ("extra devices", u64::from(superblock.extra_devices), 0),
        ] {
            if value != known {
                return Err(ReadError::Unsupported { what, value });
            }
        }
        if superblock.feature_compat.get() & FEATURE_COMPAT_SB_CHKSUM != 0 {
            // The field itself counts as zero.
            let unsigned = SuperBlock { checksum: 0.into(), ..superblock };
            block[..SuperBlock::SIZE].copy_from_slice(unsigned.as_bytes());
            let (expected, actual) = (superblock.checksum.get(), checksum(&block));
            if expected != actual {
                return Err(ReadError::Checksum { expected, actual });
            }
        }
        let expected = u64::from(superblock.blocks) * BLOCK;
        if actual < expected {
            return Err(ReadError::Short { expected, actual });
        }
        Ok(Self { source, superblock })
    }

    /// Bytes of the image; what is stored behind it is not part of it.
    pub fn size(&self) -> u64 {
        u64::from(self.superblock.blocks) * BLOCK
    }

    /// Every file of the image, with hard links as such.
    ///
    /// # Errors
    /// All kinds of [`ReadError`].
    pub fn tree(&self) -> Result<Tree, ReadError> {
        let mut tree = Tree::new(self.superblock.build_time.get().cast_signed());
        let origin = tree.origin("image");
        let mut known: BTreeMap<u64, NodeId> = BTreeMap::new();
        let whole = self.size();
        let mut spent = Spent { left: whole.min(limits::HELD_OF_IMAGE), whole, bodies: BTreeMap::new() };
        let root = u64::from(self.superblock.root_nid);
        let mut names = Names::default();
        let top = Place { parent: tree.root(), depth: 0, above: 0 };
        let mut pending = vec![(top, Vec::new(), root, file_type(mode::IFDIR), root)];
        while let Some((place, name, nid, entry_type, parent)) = pending.pop() {
            let length = place.above + name.len();
            names.charge(length, place.depth)?;
            let inode = self.inode(nid, &mut spent)?;
            if file_type(inode.mode) != entry_type {
                return Err(ReadError::Corrupt { what: "type (its directory entry has another)", nid });
            }
            if let Some(&id) = known.get(&nid) {
                if inode.mode & mode::IFMT == mode::IFDIR {
                    return Err(ReadError::Corrupt { what: "second name (it is a directory)", nid });
                }
                tree.link_in(place.parent, &name, id);
                continue;
            }
            let mut below = Vec::new();
            let kind = match inode.mode & mode::IFMT {
                mode::IFDIR => {
                    below = self.entries(&inode, parent, &mut spent)?;
                    Kind::Directory(BTreeMap::new())
                }
                mode::IFREG => Kind::File(self.body(&inode, &mut spent)?),
                mode::IFLNK if inode.size == 0 || inode.size > to_u64(MAX_TARGET) => {
                    return Err(ReadError::Corrupt { what: "link length", nid });
                }
                mode::IFLNK => Kind::Symlink(self.small(&inode, &mut spent)?),
                mode::IFCHR => {
                    let (major, minor) = decode_dev(inode.u);
                    Kind::CharDevice(major, minor)
                }
                mode::IFBLK => {
                    let (major, minor) = decode_dev(inode.u);
                    Kind::BlockDevice(major, minor)
                }
                mode::IFIFO => Kind::Fifo,
                mode::IFSOCK => Kind::Socket,
                _ => return Err(ReadError::Corrupt { what: "type", nid }),
            };
            names.attributes(&inode.meta)?;
            let id = if name.is_empty() {
                tree.put("", inode.meta, kind, origin)?
            } else {
                tree.put_in(place.parent, &name, Node { meta: inode.meta, kind, origin })
            };
            known.insert(nid, id);
            let above = if name.is_empty() { 0 } else { length + 1 };
            let place = Place { parent: id, depth: place.depth + 1, above };
            pending.extend(below.into_iter().map(|(name, child, kind)| (place, name, child, kind, nid)));
        }
        Ok(tree)
    }

    fn read(&self, offset: u64, len: u64, what: &'static str, nid: u64) -> Result<Vec<u8>, ReadError> {
        if offset.checked_add(len).is_none_or(|end| end > self.size()) {
            return Err(ReadError::Corrupt { what, nid });
        }
        let mut bytes = vec![0; to_usize(len)];
        self.source.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn inode(&self, nid: u64, spent: &mut Spent) -> Result<Inode, ReadError> {
        let base = u64::from(self.superblock.meta_blkaddr) * BLOCK;
        let offset = nid.checked_mul(SLOT).and_then(|offset| offset.checked_add(base));
        let offset = offset.ok_or(ReadError::Corrupt { what: "number", nid })?;
        let head = self.read(offset, to_u64(InodeCompact::SIZE), "number", nid)?;
        let cut_short = |_| ReadError::Corrupt { what: "number", nid };
        let compact = InodeCompact::read_from_bytes(&head).map_err(cut_short)?;
        let format = compact.i_format.get();
        if format & !I_ALL != 0 {
            return Err(ReadError::Corrupt { what: "format", nid });
        }
        let layout = format >> I_DATALAYOUT_BIT;
        if layout != INODE_FLAT_PLAIN && layout != INODE_FLAT_INLINE {
            return Err(ReadError::Unsupported { what: "data layout", value: layout.into() });
        }
        let (mut inode, size) = if format & I_VERSION_EXTENDED == 0 {
            let meta = Meta::new(0).owned(compact.i_uid.into(), compact.i_gid.into()).at(self
                .superblock
                .build_time
                .get()
                .cast_signed());
            let size = u64::from(compact.i_size);
            (Inode { nid, layout, mode: 0, size, u: compact.i_u.get(), meta, tail: 0 }, InodeCompact::SIZE)
        } else {
            let whole = self.read(offset, to_u64(InodeExtended::SIZE), "number", nid)?;
            let extended = InodeExtended::read_from_bytes(&whole)
                .map_err(|_| ReadError::Corrupt { what: "number", nid })?;
            let meta = Meta::new(0)
                .owned(extended.i_uid.get(), extended.i_gid.get())
                .at(extended.i_mtime.get().cast_signed());
            let (size, u) = (extended.i_size.get(), extended.i_u.get());
            (Inode { nid, layout, mode: 0, size, u, meta, tail: 0 }, InodeExtended::SIZE)
        };
        inode.mode = compact.i_mode.get();
        inode.meta.mode = inode.mode & !mode::IFMT;
        let attributes = to_u64(xattr_ibody_size(compact.i_xattr_icount.get()));
        inode.tail = offset + to_u64(size) + attributes;
        if attributes > 0 {
            spent.charge(attributes, nid)?;
            let bytes = self.read(offset + to_u64(size), attributes, "attributes", nid)?;
            inode.meta.xattrs = self.xattrs(&bytes, nid, spent)?;
        }
        Ok(inode)
    }

    fn xattrs(
        &self,
        bytes: &[u8],
        nid: u64,
        spent: &mut Spent,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ReadError> {
        let corrupt = ReadError::Corrupt { what: "attributes", nid };
        let Ok((header, mut rest)) = XattrIbodyHeader::read_from_prefix(bytes) else { return Err(corrupt) };
        let mut xattrs = BTreeMap::new();
        for _ in 0..header.h_shared_count {
            let Ok((id, after)) = le::U32::read_from_prefix(rest) else { return Err(corrupt) };
            rest = after;
            let start = u64::from(self.superblock.xattr_blkaddr) * BLOCK + u64::from(id) * to_u64(XATTR_UNIT);
            let head = self.read(start, to_u64(XattrEntry::SIZE), "shared attribute", nid)?;
            let Ok(entry) = XattrEntry::read_from_bytes(&head) else { return Err(corrupt) };
            let size = entry_size(&entry);
            spent.charge(to_u64(size), nid)?;
            let shared = self.read(start, to_u64(size), "shared attribute", nid)?;
            let (name, value, _) = xattr(&shared).ok_or(ReadError::Corrupt { what: "attributes", nid })?;
            xattrs.insert(name, value);
        }
        while !rest.is_empty() {
            let Some((name, value, after)) = xattr(rest) else { return Err(corrupt) };
            xattrs.insert(name, value);
            rest = after;
        }
        Ok(xattrs)
    }

    /// The whole content of a link or directory.
    fn small(&self, inode: &Inode, spent: &mut Spent) -> Result<Vec<u8>, ReadError> {
        spent.charge(inode.size, inode.nid)?;
        let tail = self.tail_size(inode)?;
        let start = u64::from(inode.u) * BLOCK;
        let mut bytes = match inode.size - tail {
            0 => Vec::new(),
            whole => self.read(start, whole, "content address", inode.nid)?,
        };
        bytes.extend(self.read(inode.tail, tail, "inlined content", inode.nid)?);
        Ok(bytes)
    }

    fn tail_size(&self, inode: &Inode) -> Result<u64, ReadError> {
        let tail = if inode.layout == INODE_FLAT_INLINE { inode.size % BLOCK } else { 0 };
        if inode.tail % BLOCK + tail > BLOCK {
            return Err(ReadError::Corrupt { what: "inlined content", nid: inode.nid });
        }
        Ok(tail)
    }

    /// The bytes of a regular file, as a stretch of the image where that is possible.
    fn body(&self, inode: &Inode, spent: &mut Spent) -> Result<Content, ReadError> {
        let corrupt = ReadError::Corrupt { what: "content address", nid: inode.nid };
        let tail = self.tail_size(inode)?;
        let start = u64::from(inode.u) * BLOCK;
        if inode.size == 0 {
            return Ok(Content::from(Vec::new()));
        }
        if inode.size > self.size() || (inode.size > tail && start + (inode.size - tail) > self.size()) {
            return Err(corrupt);
        }
        match &self.source {
            Content::Slice { file, offset, .. } if tail == 0 => {
                Ok(Content::Slice { file: file.clone(), offset: offset + start, len: inode.size })
            }
            Content::Device { device, offset, .. } if tail == 0 => {
                Ok(Content::Device { device: device.clone(), offset: offset + start, len: inode.size })
            }
            _ if tail > 0 => self.small(inode, spent).map(Content::from),
            _ => {
                let place = (inode.u, inode.size);
                if !spent.bodies.contains_key(&place) {
                    let body = self.small(inode, spent)?.into();
                    spent.bodies.insert(place, body);
                }
                Ok(spent.bodies[&place].clone())
            }
        }
    }

    /// Names, inode numbers and types in a directory, without `.` and `..`, in reverse order.
    fn entries(
        &self,
        inode: &Inode,
        parent: u64,
        spent: &mut Spent,
    ) -> Result<Vec<(Vec<u8>, u64, u8)>, ReadError> {
        let nid = inode.nid;
        let corrupt = |what| ReadError::Corrupt { what, nid };
        let bytes = self.small(inode, spent)?;
        let mut entries: Vec<(Vec<u8>, u64, u8)> = Vec::new();
        for block in bytes.chunks(to_usize(BLOCK)) {
            let (first, _) = Dirent::ref_from_prefix(block).map_err(|_| corrupt("directory block"))?;
            let count = usize::from(first.nameoff) / Dirent::SIZE;
            let (table, _) = <[Dirent]>::ref_from_prefix_with_elems(block, count)
                .map_err(|_| corrupt("directory block"))?;
            if table.is_empty() {
                return Err(corrupt("directory block"));
            }
            for (at, entry) in table.iter().enumerate() {
                let end = table.get(at + 1).map_or(block.len(), |next| usize::from(next.nameoff));
                let name = block.get(usize::from(entry.nameoff)..end).ok_or(corrupt("directory entry"))?;
                // The last name of a block is ended by the block or by a NUL.
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                if name.is_empty() || name.len() > NAME_LEN || name.contains(&b'/') {
                    return Err(corrupt("directory entry"));
                }
                if entries.last().is_some_and(|(last, ..)| last.as_slice() >= name) {
                    return Err(corrupt("order of names"));
                }
                if entries.len() > limits::ROOT_NODES {
                    let limit = to_u64(limits::ROOT_NODES);
                    return Err(ReadError::TooMuch { what: "number of files", limit });
                }
                entries.push((name.to_vec(), entry.nid.get(), entry.file_type));
            }
        }
        for (dot, expected) in [(b".".as_slice(), nid), (b"..", parent)] {
            let at = entries.iter().position(|(name, ..)| name == dot).ok_or(corrupt("dot entries"))?;
            if entries.remove(at).1 != expected {
                return Err(corrupt("dot entries"));
            }
        }
        entries.reverse();
        Ok(entries)
    }
}

fn entry_size(entry: &XattrEntry) -> usize {
    let size = XattrEntry::SIZE + usize::from(entry.e_name_len) + usize::from(entry.e_value_size);
    size.next_multiple_of(XATTR_UNIT)
}

/// Splits the first attribute off `bytes`: full name, value, rest.
fn xattr(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>, &[u8])> {
    let (entry, rest) = XattrEntry::read_from_prefix(bytes).ok()?;
    let (_, prefix) = XATTR_PREFIXES.iter().find(|(index, _)| *index == entry.e_name_index)?;
    let (name, rest) = rest.split_at_checked(usize::from(entry.e_name_len))?;
    let value = rest.get(..usize::from(entry.e_value_size))?;
    let after = bytes.get(entry_size(&entry)..)?;
    Some(([prefix, name].concat(), value.to_vec(), after))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::writer::{Options, plan};
    use super::*;

    /// A directory below `depth` others, with `files` files in it.
    fn chain(depth: usize, name: &str, files: usize) -> Tree {
        let mut tree = Tree::new(0);
        let origin = tree.origin("test");
        let mut node = |parent, name: &str, kind| {
            let node = Node { meta: Meta::new(0o755), kind, origin };
            tree.put_in(parent, name.as_bytes(), node)
        };
        let mut here = Tree::new(0).root();
        for _ in 0..depth {
            here = node(here, name, Kind::Directory(BTreeMap::new()));
        }
        for file in 0..files {
            node(here, &format!("{file}"), Kind::File(Vec::new().into()));
        }
        tree
    }

    fn back(tree: &Tree) -> Result<Tree, ReadError> {
        let options = Options { uuid: Uuid::nil(), build_time: 0, volume_name: [0; 16], dedupe: true };
        let mut image = Vec::new();
        plan(tree, &options).unwrap().write(&mut image).unwrap();
        Image::open(image.into())?.tree()
    }

    #[test]
    fn depth_and_names_have_limits() {
        let told = |tree: &Tree| back(tree).unwrap_err().to_string();
        let most = "the most that is read of an image";
        assert_eq!(
            told(&chain(2000, "d", 0)),
            format!("the number of directories above a path exceeds 256, {most}")
        );
        let long = "n".repeat(200);
        assert_eq!(told(&chain(22, &long, 0)), format!("the length of a path exceeds 4095, {most}"));
        // 4,000 bytes above each name.
        let told = told(&chain(20, &long, 34_000));
        assert_eq!(told, format!("the length of all paths together exceeds 134217728, {most}"));
    }

    /// Each of them by its name alone, however deep the directory lies.
    #[test]
    fn many_files_far_down() {
        let tree = back(&chain(limits::DEPTH, "d", 20_000)).unwrap();
        assert_eq!(tree.capacity(), 1 + limits::DEPTH + 20_000);
        assert_eq!(tree.walk().len(), tree.capacity());
        tree.check_size(limits::NODES, limits::NAMES).unwrap();
    }
}
