//! ext4, the other choice for the root: written through the crate `mkext4`, single files read through `ext4-view`.
//!
//! The crate always makes a journal; an empty one of the least size that `e2fsck` accepts is left. A
//! verified root is mounted read-only and never replays it. Block size is 4096, which verity needs.

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};

use ext4_view::{Ext4, Ext4Error, Ext4Read};
use mkext4::{FsBuilder, InodeCount, InodeHandle, Layout, RegionSink, SpecialKind};
use uuid::Uuid;

use crate::base::align;
use crate::base::device::ReadAt;
use crate::base::on_disk::{FromBytes, IntoBytes, le, on_disk};
use crate::base::width::{to_u64, to_usize};
use crate::tree::{Content, Kind, Meta, Node, NodeId, Tree, show};

/// The file `path` of the file system in `partition`, of at most `limit` bytes; none where it has no such file.
///
/// # Errors
/// A file system that is damaged, a file that is too large, what the disk says.
pub fn read_file(
    partition: impl ReadAt + 'static,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> {
    let volume = Ext4::load(Box::new(Partition(partition)))?;
    let path = format!("/{path}");
    let size = match volume.metadata(path.as_str()) {
        Ok(metadata) => metadata.len(),
        Err(Ext4Error::NotFound) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match size > limit {
        true => Err(format!("{path} has {size} bytes, and at most {limit} are read").into()),
        false => Ok(Some(volume.read(path.as_str())?)),
    }
}

/// What the crate reads from.
struct Partition<D>(D);

impl<D: ReadAt> Ext4Read for Partition<D> {
    fn read(
        &mut self,
        start: u64,
        bytes: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.0.read_at(bytes, start)?)
    }
}

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Blocks of the journal. Fewer than 1024 are corrupt without a word from the crate.
const JOURNAL_BLOCKS: u32 = 1024;
/// Blocks of the smallest image: the crate wants four times its journal.
const MIN_BLOCKS: u64 = 4 * JOURNAL_BLOCKS as u64;
/// Blocks of a block group: as many as one bitmap block has bits.
const BLOCKS_PER_GROUP: u64 = 32_768;
/// Inodes in a block of the inode table.
const INODES_PER_BLOCK: u64 = 16;
/// Inodes that ext4 keeps to itself, `lost+found` among them.
const RESERVED_INODES: u64 = 11;
/// Bytes of a link target that fits into the inode.
const FAST_SYMLINK: usize = 59;
/// Seconds since 1970 that an inode can hold: 34 bits from 1901 on.
const TIMES: std::ops::Range<i64> = -(1 << 31)..(1 << 34) - (1 << 31);
/// How often a size that proves too small is raised by 1/32.
const ATTEMPTS: usize = 16;
/// Bytes that are gathered before they are written.
const BATCH: usize = 4 << 20;

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The crate takes names as text.
    #[error("the name of /{path} is not UTF-8, which is needed for ext4 here")]
    NotUtf8 {
        /// The file or link.
        path: String,
    },
    /// ext4 has its own.
    #[error("/lost+found is in the tree, but ext4 makes its own")]
    LostAndFound,
    /// A time before 1901 or after 2446.
    #[error("/{path} has time {mtime}, which ext4 cannot hold")]
    Time {
        /// The file.
        path: String,
        /// Seconds since 1970.
        mtime: i64,
    },
    /// Only one name can be a directory's.
    #[error("directory /{path} has a second name")]
    DirectoryLinkedTwice {
        /// One of its names.
        path: String,
    },
    /// What the crate does not take: attributes, device numbers, lengths of names.
    #[error("adding /{path}: {source}")]
    Refused {
        /// The file.
        path: String,
        /// What the crate said.
        source: mkext4::Error,
    },
    /// No layout was found, e.g. in a size that is too small.
    #[error("laying out {size} bytes: {source}")]
    Layout {
        /// Bytes of the image.
        size: u64,
        /// What the crate said.
        source: mkext4::Error,
    },
    /// Content that could not be read, or an output that refused.
    #[error("writing the content of /{path}: {source}")]
    Content {
        /// The file.
        path: String,
        /// What the crate said.
        source: mkext4::Error,
    },
    /// The output refused.
    #[error("writing the image: {0}")]
    Output(#[source] mkext4::Error),
}

/// What an image is made with besides its tree.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file system's name for itself; also seeds the hashes of directories.
    pub uuid: Uuid,
    /// Seconds since 1970, the time of what the file system itself makes.
    pub time: i64,
    /// Label, at most 16 bytes.
    pub label: Option<String>,
    /// Bytes of the image, a multiple of 4096; without it as few as are needed.
    pub size: Option<u64>,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Blocks of 4096 bytes, all of the image.
    pub blocks: u64,
    /// Inodes of the tree.
    pub inodes: u64,
}

/// A tree with an address for everything in it.
#[derive(Debug)]
pub struct Plan<'t> {
    layout: Layout,
    bodies: Vec<(InodeHandle, &'t Content, Vec<u8>)>,
    inodes: u64,
}

/// Finds a place for everything in `tree`.
///
/// # Errors
/// All kinds but `Content` and `Output`.
pub fn plan<'t>(tree: &'t Tree, options: &Options) -> Result<Plan<'t>, Error> {
    let inodes = to_u64(tree.link_counts().iter().filter(|count| **count > 0).count());
    let mut size = options.size.unwrap_or_else(|| estimate(tree, inodes) * BLOCK);
    for attempt in 1.. {
        let (builder, bodies) = declare(tree, options, size, inodes)?;
        match builder.seal() {
            Ok(layout) => return Ok(Plan { layout, bodies, inodes }),
            Err(_) if options.size.is_none() && attempt < ATTEMPTS => {
                size = align::up(size + size / 32, BLOCK);
            }
            Err(source) => return Err(Error::Layout { size, source }),
        }
    }
    unreachable!("the last attempt returns")
}

impl Plan<'_> {
    /// Bytes of the image.
    pub fn size(&self) -> u64 {
        self.layout.image_len()
    }

    /// Writes the image from the position of `out` on. Free blocks are left out: what is there must read
    /// as zeros, as in a new file.
    ///
    /// # Errors
    /// `Content` or `Output`.
    pub fn write(&self, out: &mut (impl Write + Seek)) -> Result<Summary, Error> {
        let failed = |source: io::Error| Error::Output(source.into());
        let mut sink = Gather::new(out).map_err(failed)?;
        let mut writer = self.layout.writer(&mut sink).map_err(Error::Output)?;
        for (handle, content, path) in &self.bodies {
            writer
                .fill(*handle, &mut content.reader())
                .map_err(|source| Error::Content { path: show(path), source })?;
        }
        writer.finish().map_err(Error::Output)?;
        sink.finish(self.size()).map_err(failed)?;
        Ok(Summary { blocks: self.size() / BLOCK, inodes: self.inodes })
    }
}

/// Tells the crate every name in `tree`.
#[allow(clippy::type_complexity, reason = "the pair is taken apart at once")]
fn declare<'t>(
    tree: &'t Tree,
    options: &Options,
    size: u64,
    inodes: u64,
) -> Result<(FsBuilder, Vec<(InodeHandle, &'t Content, Vec<u8>)>), Error> {
    let mut settings = mkext4::Options::new(size, options.uuid.into_bytes(), options.time);
    settings.label = options.label.clone();
    settings.inodes = InodeCount::Exact(u32::try_from(inodes + RESERVED_INODES).unwrap_or(u32::MAX));
    // Room that only root may fill is of no use where nobody writes.
    settings.reserved_percent = 0;
    settings.journal_blocks = Some(JOURNAL_BLOCKS);
    let mut builder = FsBuilder::new(settings).map_err(|source| Error::Layout { size, source })?;

    let mut bodies = Vec::new();
    let mut known: BTreeMap<NodeId, InodeHandle> = BTreeMap::from([(tree.root(), mkext4::ROOT)]);
    let refused = |path: &[u8]| {
        let path = show(path);
        move |source| Error::Refused { path, source }
    };
    builder.set_meta(mkext4::ROOT, meta(&tree.node(tree.root()).meta, b"")?).map_err(refused(b""))?;
    attributes(&mut builder, mkext4::ROOT, &tree.node(tree.root()).meta, b"")?;

    let below = |path: &[u8], id: NodeId, parent: InodeHandle| -> Vec<_> {
        let join = |name: &[u8]| if path.is_empty() { name.to_vec() } else { [path, name].join(&b'/') };
        let children = tree.children(id).map(|(name, child)| (join(name), name, child, parent));
        children.collect::<Vec<_>>().into_iter().rev().collect()
    };
    let mut pending = below(b"", tree.root(), mkext4::ROOT);
    while let Some((path, name, id, parent)) = pending.pop() {
        let node = tree.node(id);
        let not_utf8 = |_| Error::NotUtf8 { path: show(&path) };
        if path == b"lost+found" {
            return Err(Error::LostAndFound);
        }
        let name = std::str::from_utf8(name).map_err(not_utf8)?;
        if let Some(handle) = known.get(&id) {
            if matches!(node.kind, Kind::Directory(_)) {
                return Err(Error::DirectoryLinkedTwice { path: show(&path) });
            }
            builder.hardlink(parent, name, *handle).map_err(refused(&path))?;
            continue;
        }
        let meta = meta(&node.meta, &path)?;
        let special = |builder: &mut FsBuilder, kind| builder.mknod(parent, name, meta, kind);
        let handle = match &node.kind {
            Kind::Directory(_) => builder.mkdir(parent, name, meta),
            Kind::File(content) => builder.file(parent, name, meta, content.len()),
            Kind::Symlink(target) => {
                builder.symlink(parent, name, std::str::from_utf8(target).map_err(not_utf8)?, meta)
            }
            Kind::CharDevice(major, minor) => {
                special(&mut builder, SpecialKind::Char { major: *major, minor: *minor })
            }
            Kind::BlockDevice(major, minor) => {
                special(&mut builder, SpecialKind::Block { major: *major, minor: *minor })
            }
            Kind::Fifo => special(&mut builder, SpecialKind::Fifo),
            Kind::Socket => special(&mut builder, SpecialKind::Socket),
        };
        let handle = handle.map_err(refused(&path))?;
        attributes(&mut builder, handle, &node.meta, &path)?;
        known.insert(id, handle);
        pending.extend(below(&path, id, handle));
        if let Kind::File(content) = &node.kind
            && !content.is_empty()
        {
            bodies.push((handle, content, path));
        }
    }
    Ok((builder, bodies))
}

fn meta(meta: &Meta, path: &[u8]) -> Result<mkext4::Meta, Error> {
    if !TIMES.contains(&meta.mtime) {
        return Err(Error::Time { path: show(path), mtime: meta.mtime });
    }
    Ok(mkext4::Meta::new(meta.mode, meta.uid, meta.gid, (meta.mtime, 0)))
}

fn attributes(builder: &mut FsBuilder, handle: InodeHandle, meta: &Meta, path: &[u8]) -> Result<(), Error> {
    for (name, value) in &meta.xattrs {
        let name = std::str::from_utf8(name).map_err(|_| Error::NotUtf8 { path: show(path) })?;
        let value = match name {
            "system.posix_acl_access" | "system.posix_acl_default" => packed_acl(value),
            _ => value.clone(),
        };
        builder
            .set_xattr(handle, name, &value)
            .map_err(|source| Error::Refused { path: show(path), source })?;
    }
    Ok(())
}

on_disk! {
    /// `struct posix_acl_xattr_entry`.
    AclEntry: 8 bytes {
        e_tag: le::U16,
        e_perm: le::U16,
        e_id: le::U32,
    }
}

/// An access list as ext4 stores it (Linux, `fs/ext4/acl.h`): version 1, and without ids where the tag
/// has none. What programs see is version 2 with an id in each entry (`include/uapi/linux/posix_acl_xattr.h`).
fn packed_acl(list: &[u8]) -> Vec<u8> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    let mut packed = 1u32.to_le_bytes().to_vec();
    let mut rest = list.get(4..).unwrap_or_default();
    while let Ok((entry, after)) = AclEntry::ref_from_prefix(rest) {
        packed.extend([entry.e_tag, entry.e_perm].as_bytes());
        if matches!(entry.e_tag.get(), USER | GROUP) {
            packed.extend(entry.e_id.as_bytes());
        }
        rest = after;
    }
    packed
}

/// Blocks that are enough for `tree` as the crate lays it out: an upper bound, for it has no estimator.
fn estimate(tree: &Tree, inodes: u64) -> u64 {
    // The journal, lost+found's four blocks and a few for their extents.
    let mut content = u64::from(JOURNAL_BLOCKS) + 16;
    let mut seen = vec![false; tree.capacity()];
    tree.visit(&mut |_, id| {
        if !std::mem::replace(&mut seen[id.index()], true) {
            content += node_blocks(tree.node(id));
        }
    });
    let mut blocks = content;
    // More blocks need more groups, whose tables need more blocks: this grows to a fixed point.
    loop {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let inode_table =
            align::up((inodes + RESERVED_INODES).div_ceil(groups), INODES_PER_BLOCK) / INODES_PER_BLOCK;
        let descriptors = 1 + (groups * 32).div_ceil(BLOCK);
        // Copies of the superblock in groups 1 and the powers of 3, 5 and 7; all is counted, it is little.
        let tables = groups * (2 + inode_table + descriptors) + inode_table;
        let total = content + tables;
        if total <= blocks {
            return blocks.max(MIN_BLOCKS);
        }
        blocks = total;
    }
}

/// Blocks that one node takes besides its inode, at most.
fn node_blocks(node: &Node) -> u64 {
    // Attributes that do not fit the inode take one block.
    let attributes = u64::from(!node.meta.xattrs.is_empty());
    attributes
        + match &node.kind {
            Kind::Directory(children) => {
                // 8 bytes and the name, rounded up to 4; a block may stay empty by one name's length.
                let bytes: u64 = children.keys().map(|name| align::up(8 + to_u64(name.len()), 4)).sum();
                let leaves = bytes / (BLOCK - 12 - 264) + 1;
                // Root and inner nodes of the hash tree hold some 500 leaves each.
                leaves + leaves / 500 + 2
            }
            Kind::File(body) => {
                let blocks = align::units(body.len(), BLOCK);
                // Extents end at groups with tables in them; beyond four they take blocks of some 340.
                let groups = blocks / BLOCKS_PER_GROUP;
                blocks + if groups > 0 { groups / 100 + 2 } else { 0 }
            }
            Kind::Symlink(target) => u64::from(target.len() > FAST_SYMLINK),
            _ => 0,
        }
}

/// Joins what is adjacent into large writes and leaves out zeros, which a new file has already.
struct Gather<'w, W> {
    out: &'w mut W,
    /// Where the image begins in `out`.
    base: u64,
    /// Bytes to be written at `start` of the image.
    buffer: Vec<u8>,
    start: u64,
    /// The end of what was written so far.
    end: u64,
}

impl<'w, W: Write + Seek> Gather<'w, W> {
    fn new(out: &'w mut W) -> io::Result<Self> {
        let base = out.stream_position()?;
        Ok(Self { out, base, buffer: Vec::with_capacity(BATCH), start: 0, end: 0 })
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.out.seek(SeekFrom::Start(self.base + self.start))?;
            self.out.write_all(&self.buffer)?;
            self.end = self.end.max(self.start + to_u64(self.buffer.len()));
            self.buffer.clear();
        }
        Ok(())
    }

    /// Ends an image of `size` bytes; `out` stands behind it.
    fn finish(mut self, size: u64) -> io::Result<()> {
        if self.end.max(self.start + to_u64(self.buffer.len())) < size {
            self.data(size - 1, &[0])?;
        }
        self.flush()?;
        self.out.seek(SeekFrom::Start(self.base + size))?;
        Ok(())
    }
}

impl<W: Write + Seek> RegionSink for Gather<'_, W> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset != self.start + to_u64(self.buffer.len()) || self.buffer.len() + bytes.len() > BATCH {
            self.flush()?;
            self.start = offset;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn zeros(&mut self, offset: u64, len: u64) -> io::Result<()> {
        // Only the rest of a last block is worth keeping a run of files together.
        if len < BLOCK && offset == self.start + to_u64(self.buffer.len()) {
            self.buffer.resize(self.buffer.len() + to_usize(len), 0);
        }
        Ok(())
    }
}
