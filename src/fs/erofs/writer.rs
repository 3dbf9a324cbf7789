//! Writes an image, strictly from its first byte to its last.
//!
//! Addresses point forward and backward, so the one function that lays down an image runs twice: first
//! against a counter, which finds every address, then with these addresses against the output. No
//! arithmetic of the layout exists a second time that could disagree.

use std::io::{self, Write};

use uuid::Uuid;

use super::Error;
use super::format::{
    BLKSZBITS, BLOCK, Dirent, FEATURE_COMPAT_MTIME, FEATURE_COMPAT_SB_CHKSUM, I_DATALAYOUT_BIT,
    I_VERSION_EXTENDED, INODE_FLAT_INLINE, INODE_FLAT_PLAIN, InodeExtended, SLOT, SUPER_MAGIC_V1,
    SUPER_OFFSET, SuperBlock, XATTR_UNIT, XattrIbodyHeader, checksum, file_type,
};
use super::known::{self, Known};
use super::layout::{Body, Directory, Layout, Record};
use crate::base::align;
use crate::base::on_disk::{FromZeros, IntoBytes};
use crate::base::width::{halves, to_u64, to_usize};
use crate::tree::{Content, Tree, show};

/// Bytes handed to the output at once: large enough that a verity writer behind keeps all cores busy.
const BATCH: usize = 4 << 20;

/// What an image is made with besides its tree.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The file system's name for itself.
    pub uuid: Uuid,
    /// Seconds since 1970, shown as the time the image was made.
    pub build_time: i64,
    /// Label, NUL-padded.
    pub volume_name: [u8; 16],
    /// Store files with equal bytes once; costs a second read of files of equal length.
    pub dedupe: bool,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Blocks of 4096 bytes, all of the image.
    pub blocks: u64,
    /// Blocks before the first file body.
    pub metadata_blocks: u64,
    /// Number of inodes.
    pub inodes: u64,
}

/// A tree with an address for everything in it.
#[derive(Debug)]
pub struct Plan<'t> {
    layout: Layout<'t>,
    options: Options,
    places: Places,
}

/// Addresses, by position in the inode table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    /// Inode numbers.
    nid: Vec<u64>,
    /// First block outside the inode table; 0 where there is none.
    block: Vec<u64>,
    /// First block of file bodies.
    data: u64,
    /// Blocks of the image.
    end: u64,
}

/// Finds a place for everything in `tree`.
///
/// # Errors
/// What EROFS cannot hold; when `options.dedupe` is set also content that cannot be read.
pub fn plan<'t>(tree: &'t Tree, options: &Options) -> Result<Plan<'t>, Error> {
    planned(Layout::new(tree, options.dedupe, None)?, options)
}

/// The same, of a tree of which an earlier image may have some bodies: what it had of them is in `known`.
///
/// # Errors
/// Those of [`plan`].
pub fn plan_after<'t>(tree: &'t Tree, options: &Options, known: &Known) -> Result<Plan<'t>, Error> {
    planned(Layout::new(tree, options.dedupe, Some(known))?, options)
}

fn planned<'t>(layout: Layout<'t>, options: &Options) -> Result<Plan<'t>, Error> {
    let count = layout.table.len();
    let unknown = Places { nid: vec![0; count], block: vec![0; count], data: 0, end: 0 };
    let places = lay_down(&layout, options, &unknown, false, &mut Counter(0))?;
    if u32::try_from(places.end).is_err() {
        return Err(Error::TooLarge { blocks: places.end });
    }
    Ok(Plan { layout, options: *options, places })
}

impl Plan<'_> {
    /// Bytes that [`Plan::write`] will write.
    pub fn size(&self) -> u64 {
        self.places.end * BLOCK
    }

    /// What [`Plan::write`] will have written.
    pub fn summary(&self) -> Summary {
        Summary {
            blocks: self.places.end,
            metadata_blocks: self.places.data,
            inodes: to_u64(self.layout.table.len()),
        }
    }

    /// Writes the image in order, in large pieces.
    ///
    /// # Errors
    /// `Content` when the bytes of a file cannot be read, `Output` when `out` refuses.
    pub fn write(&self, out: &mut impl Write) -> Result<Summary, Error> {
        self.emit(&mut Emitter::new(&mut Whole(out)), false)
    }

    /// Writes the image in order, and has `out` take what the earlier one has of it.
    ///
    /// # Errors
    /// Those of [`Plan::write`].
    pub fn write_after(&self, out: &mut impl Output) -> Result<Summary, Error> {
        self.emit(&mut Emitter::new(out), true)
    }

    fn emit(&self, sink: &mut Emitter<'_, impl Output>, takes: bool) -> Result<Summary, Error> {
        let places = lay_down(&self.layout, &self.options, &self.places, takes, sink)?;
        sink.flush()?;
        debug_assert_eq!(places, self.places, "both passes lay down the same image");
        Ok(self.summary())
    }

    /// What the image that was written tells of the next: nothing without [`plan_after`].
    pub fn known(&self) -> Known {
        let marks = self.layout.marks.iter().enumerate();
        let bodies = marks.filter_map(|(at, mark)| {
            let block = address(self.places.block[at]);
            Some((mark.identity?, known::Body { print: mark.print, block }))
        });
        bodies.collect()
    }
}

/// Lays an image down on `sink` with the addresses in `known`; returns where everything really was. `takes`: bodies that
/// the earlier image has are taken of it.
fn lay_down(
    layout: &Layout,
    options: &Options,
    known: &Places,
    takes: bool,
    sink: &mut impl Sink,
) -> Result<Places, Error> {
    let table = &layout.table;
    let mut found = Places { block: vec![0; table.len()], ..Places::default() };

    sink.put(&first_block(options, table.len(), known))?;
    for (at, record) in table.iter().enumerate() {
        // What fits a block must not cross into the next: the kernel maps inlined content by page.
        sink.align(SLOT)?;
        if sink.position() % BLOCK + record.span() > BLOCK {
            sink.align(BLOCK)?;
        }
        found.nid.push(sink.position() / SLOT);
        sink.put(inode(record, known.nid[at], known.block[at]).as_bytes())?;
        sink.put(&record.xattrs)?;
        if record.inlined() > 0 {
            sink.put(&content(layout, record, known)[to_usize(record.outside())..])?;
        }
    }
    sink.align(BLOCK)?;
    for (at, record) in table.iter().enumerate() {
        if !matches!(record.body, Body::File(..)) && record.outside() > 0 {
            found.block[at] = sink.position() / BLOCK;
            sink.put(&content(layout, record, known)[..to_usize(record.outside())])?;
            sink.align(BLOCK)?;
        }
    }
    found.data = sink.position() / BLOCK;
    for (at, record) in table.iter().enumerate() {
        match record.body {
            Body::File(_, Some(earlier)) => found.block[at] = found.block[earlier],
            Body::File(body, None) if !body.is_empty() => {
                found.block[at] = sink.position() / BLOCK;
                match layout.marks.get(at).and_then(|mark| mark.earlier).filter(|_| takes) {
                    Some(block) => sink.take(u64::from(block), body.len().div_ceil(BLOCK))?,
                    None => sink.body(body, &|| layout.path(record))?,
                }
                sink.align(BLOCK)?;
            }
            _ => {}
        }
    }
    found.end = sink.position() / BLOCK;
    Ok(found)
}

/// The block with the superblock; inodes begin in the next, so that nothing else changes with it.
fn first_block(options: &Options, inodes: usize, known: &Places) -> Vec<u8> {
    let mut superblock = SuperBlock {
        magic: SUPER_MAGIC_V1.into(),
        feature_compat: (FEATURE_COMPAT_SB_CHKSUM | FEATURE_COMPAT_MTIME).into(),
        blkszbits: BLKSZBITS,
        root_nid: u16::try_from(known.nid[0]).expect("the root's inode is the first").into(),
        inos: to_u64(inodes).into(),
        build_time: options.build_time.cast_unsigned().into(),
        blocks: address(known.end).into(),
        uuid: options.uuid.into_bytes(),
        volume_name: options.volume_name,
        ..SuperBlock::new_zeroed()
    };
    let mut block = vec![0; to_usize(BLOCK)];
    let place = to_usize(SUPER_OFFSET)..to_usize(SUPER_OFFSET) + SuperBlock::SIZE;
    block[place.clone()].copy_from_slice(superblock.as_bytes());
    superblock.checksum = checksum(&block[to_usize(SUPER_OFFSET)..]).into();
    block[place].copy_from_slice(superblock.as_bytes());
    block
}

fn inode(record: &Record, nid: u64, block: u64) -> InodeExtended {
    let layout = if record.inlined() > 0 { INODE_FLAT_INLINE } else { INODE_FLAT_PLAIN };
    let i_xattr_icount = match record.xattrs.len() {
        0 => 0,
        size => (size - XattrIbodyHeader::SIZE) / XATTR_UNIT + 1,
    };
    InodeExtended {
        i_format: (I_VERSION_EXTENDED | layout << I_DATALAYOUT_BIT).into(),
        i_xattr_icount: u16::try_from(i_xattr_icount).expect("the layout refuses more").into(),
        i_mode: record.mode().into(),
        i_size: record.size().into(),
        i_u: match record.body {
            Body::Special(_, device) => device.into(),
            _ => address(block).into(),
        },
        // Only for programs that know inode numbers of 32 bits; a number beyond is cut for them.
        i_ino: halves(nid)[0].into(),
        i_uid: record.meta.uid.into(),
        i_gid: record.meta.gid.into(),
        i_mtime: record.meta.mtime.cast_unsigned().into(),
        i_nlink: record.nlink.into(),
        ..InodeExtended::new_zeroed()
    }
}

/// A number of blocks as the format has it.
fn address(block: u64) -> u32 {
    u32::try_from(block).expect("the first pass refuses an image of more blocks")
}

/// The bytes of a directory or of a link.
fn content(layout: &Layout, record: &Record, known: &Places) -> Vec<u8> {
    match &record.body {
        Body::Directory(directory) => directory_bytes(layout, directory, known),
        Body::Symlink(target) => target.to_vec(),
        Body::Special(..) | Body::File(..) => Vec::new(),
    }
}

fn directory_bytes(layout: &Layout, directory: &Directory, known: &Places) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(to_usize(directory.size));
    for block in &directory.blocks {
        bytes.resize(bytes.len().next_multiple_of(to_usize(BLOCK)), 0);
        let entries = &directory.entries[block.clone()];
        let mut nameoff = entries.len() * Dirent::SIZE;
        for (name, id) in entries {
            let at = layout.position[id.index()].expect("every name's node is in the table");
            let file_type = file_type(layout.table[at].mode());
            let place = u16::try_from(nameoff).expect("names are cut to blocks");
            let dirent = Dirent { nid: known.nid[at].into(), nameoff: place.into(), file_type, reserved: 0 };
            bytes.extend(dirent.as_bytes());
            nameoff += name.len();
        }
        bytes.extend(entries.iter().flat_map(|(name, _)| *name));
    }
    bytes
}

/// Where an image is written that follows another.
pub trait Output: Write {
    /// Takes so many blocks of the earlier image, from its block `from` on, as the next ones; whole blocks come before.
    ///
    /// # Errors
    /// Of the disks.
    fn take(&mut self, from: u64, blocks: u64) -> io::Result<()>;
}

/// Where an image is written of which nothing is known.
struct Whole<'w, W>(&'w mut W);

impl<W: Write> Write for Whole<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Output for Whole<'_, W> {
    fn take(&mut self, _: u64, _: u64) -> io::Result<()> {
        unreachable!("there is no earlier image")
    }
}

/// Takes an image in order.
trait Sink {
    /// Bytes so far.
    fn position(&self) -> u64;
    /// The next bytes.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error>;
    /// The next `count` bytes are zero; fewer than a block.
    fn zeros(&mut self, count: u64) -> Result<(), Error>;
    /// The bytes of a file; `path` is for messages.
    fn body(&mut self, content: &Content, path: &dyn Fn() -> Vec<u8>) -> Result<(), Error>;
    /// Blocks of the earlier image; see [`Output::take`].
    fn take(&mut self, from: u64, blocks: u64) -> Result<(), Error>;
    /// Zeros up to a multiple of `unit`, at most [`BLOCK`].
    fn align(&mut self, unit: u64) -> Result<(), Error> {
        self.zeros(align::padding(self.position(), unit))
    }
}

/// The first pass: only lengths.
struct Counter(u64);

impl Sink for Counter {
    fn position(&self) -> u64 {
        self.0
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.0 += to_u64(bytes.len());
        Ok(())
    }

    fn zeros(&mut self, count: u64) -> Result<(), Error> {
        self.0 += count;
        Ok(())
    }

    fn body(&mut self, content: &Content, _: &dyn Fn() -> Vec<u8>) -> Result<(), Error> {
        self.0 += content.len();
        Ok(())
    }

    fn take(&mut self, _: u64, blocks: u64) -> Result<(), Error> {
        self.0 += blocks * BLOCK;
        Ok(())
    }
}

/// The second pass: small things gather in a buffer, so that the output sees large pieces only.
struct Emitter<'w, W> {
    out: &'w mut W,
    buffer: Vec<u8>,
    filled: usize,
    /// Blocks to be taken behind what is in the buffer: the first, and how many. Those of bodies that stand in one order
    /// before and now become one stretch.
    taken: (u64, u64),
    flushed: u64,
}

impl<'w, W: Output> Emitter<'w, W> {
    fn new(out: &'w mut W) -> Self {
        Self { out, buffer: vec![0; BATCH], filled: 0, taken: (0, 0), flushed: 0 }
    }

    /// The free part of the buffer, at most `wanted` bytes of it; taken as filled.
    fn room(&mut self, wanted: u64) -> Result<&mut [u8], Error> {
        if self.filled == self.buffer.len() || self.taken.1 > 0 {
            self.flush()?;
        }
        let start = self.filled;
        self.filled += to_usize(wanted.min(to_u64(self.buffer.len() - start)));
        Ok(&mut self.buffer[start..self.filled])
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.out.write_all(&self.buffer[..self.filled]).map_err(Error::Output)?;
        self.flushed += to_u64(self.filled);
        self.filled = 0;
        let (from, blocks) = std::mem::take(&mut self.taken);
        if blocks > 0 {
            self.out.take(from, blocks).map_err(Error::Output)?;
            self.flushed += blocks * BLOCK;
        }
        Ok(())
    }
}

impl<W: Output> Sink for Emitter<'_, W> {
    fn position(&self) -> u64 {
        self.flushed + to_u64(self.filled) + self.taken.1 * BLOCK
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = self.room(to_u64(bytes.len()))?;
            let (now, later) = bytes.split_at(room.len());
            room.copy_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), Error> {
        while count > 0 {
            let room = self.room(count)?;
            room.fill(0);
            count -= to_u64(room.len());
        }
        Ok(())
    }

    fn body(&mut self, content: &Content, path: &dyn Fn() -> Vec<u8>) -> Result<(), Error> {
        let mut offset = 0;
        while offset < content.len() {
            let room = self.room(content.len() - offset)?;
            content.read_at(room, offset).map_err(|source| Error::Content { path: show(&path()), source })?;
            offset += to_u64(room.len());
        }
        Ok(())
    }

    fn take(&mut self, from: u64, blocks: u64) -> Result<(), Error> {
        let (first, count) = self.taken;
        if count > 0 && first + count != from {
            self.flush()?;
        }
        self.taken = match self.taken {
            (_, 0) => (from, blocks),
            (first, count) => (first, count + blocks),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const OPTIONS: Options = Options { uuid: Uuid::nil(), build_time: 0, volume_name: [0; 16], dedupe: true };

    #[test]
    fn an_empty_tree_is_two_blocks() {
        let mut image = Vec::new();
        let summary = plan(&Tree::new(0), &OPTIONS).unwrap().write(&mut image).unwrap();
        assert_eq!(summary, Summary { blocks: 2, metadata_blocks: 2, inodes: 1 });
        assert_eq!(image.len(), 8192);
    }

    #[test]
    fn bodies_take_whole_blocks_and_equal_ones_none() {
        let blocks = |sizes: &[usize], dedupe| {
            let mut tree = Tree::new(0);
            for (at, size) in sizes.iter().enumerate() {
                tree.file(format!("{at}"), 0o644, vec![1; *size]).unwrap();
            }
            let summary = plan(&tree, &Options { dedupe, ..OPTIONS }).unwrap().summary();
            summary.blocks - summary.metadata_blocks
        };
        assert_eq!(blocks(&[0, 1, 4095, 4096, 4097], true), 5);
        assert_eq!(blocks(&[5000, 5000, 5000], true), 2);
        assert_eq!(blocks(&[5000, 5000, 5000], false), 6);
    }

    #[test]
    fn the_output_sees_large_pieces_only() {
        struct Pieces(Vec<usize>);
        impl Write for Pieces {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes.len());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut tree = Tree::new(0);
        for at in 0..1000 {
            tree.file(format!("{at}"), 0o644, vec![at as u8; 10_000 + at]).unwrap();
        }
        let mut pieces = Pieces(Vec::new());
        plan(&tree, &OPTIONS).unwrap().write(&mut pieces).unwrap();
        let (last, whole) = pieces.0.split_last().unwrap();
        assert!(whole.iter().all(|size| *size == BATCH) && last.is_multiple_of(to_usize(BLOCK)));
    }

    #[test]
    fn failures_name_who_is_to_blame() {
        let mut tree = Tree::new(0);
        let file = Arc::new(tempfile::tempfile().unwrap());
        tree.file("etc/gone", 0o644, Content::Slice { file, offset: 0, len: 10 }).unwrap();
        let error = plan(&tree, &OPTIONS).and_then(|plan| plan.write(&mut io::sink())).unwrap_err();
        assert!(matches!(error, Error::Content { path, .. } if path == "etc/gone"));
        let mut full = [0; 5000];
        let error = plan(&Tree::new(0), &OPTIONS).unwrap().write(&mut full.as_mut_slice()).unwrap_err();
        assert!(matches!(error, Error::Output(_)));
    }
}
