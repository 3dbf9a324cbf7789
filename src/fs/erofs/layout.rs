//! What an image will hold and in which order, before anything has an address.
//!
//! The order is chosen for small differences between two versions of a tree:
//!
//! 1. the superblock, alone in its block;
//! 2. inodes whose content is inlined or that have none: directories, links, devices. Their bytes
//!    depend on names and inode numbers only, so that new content in a file does not touch them;
//! 3. inodes of regular files, 64 bytes each, which hold block addresses and so follow every change of
//!    a file's length;
//! 4. blocks of large directories and of long links;
//! 5. the bodies of files, each from a block boundary on.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Error;
use super::format::{
    BLOCK, Dirent, InodeExtended, NAME_LEN, XATTR_PREFIXES, XATTR_UNIT, XattrEntry, XattrIbodyHeader,
    encode_dev, mode,
};
use super::known::Known;
use crate::base::Fingerprint;
use crate::base::on_disk::{FromZeros, IntoBytes};
use crate::base::width::to_u64;
use crate::tree::{Content, Kind, Meta, NodeId, Tree, show};

/// Bytes of the longest link target: the kernel's PATH_MAX without the NUL.
pub const MAX_TARGET: usize = 4095;

/// Everything that goes into an image, in its order.
#[derive(Debug)]
pub struct Layout<'t> {
    /// Inodes in the order of the inode table; the root comes first.
    pub table: Vec<Record<'t>>,
    /// Where each node of the tree stands in `table`, by [`NodeId::index`].
    pub position: Vec<Option<usize>>,
    /// Of each file body in `table`, by its position, if wanted: what names its bytes, and their fingerprint where it
    /// was looked at.
    pub marks: Vec<Mark>,
    /// For messages. The path of each record would take more memory than all else of it.
    names: Names<'t>,
}

/// What tells a body from others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    /// See [`Content::identity`].
    pub identity: Option<Fingerprint>,
    /// Of its bytes.
    pub print: Option<Fingerprint>,
    /// The first of its blocks in the earlier image.
    pub earlier: Option<u32>,
}

/// Finds the first path of a node.
#[derive(Debug)]
struct Names<'t> {
    tree: &'t Tree,
    /// The directory of each node's first name, by [`NodeId::index`]; none has the root.
    parents: Vec<Option<NodeId>>,
}

impl Names<'_> {
    fn path(&self, mut id: NodeId) -> Vec<u8> {
        let mut parts = Vec::new();
        while let Some(parent) = self.parents[id.index()] {
            parts.extend(self.tree.children(parent).find(|(_, child)| *child == id).map(|(name, _)| name));
            id = parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    fn show(&self, id: NodeId) -> String {
        show(&self.path(id))
    }
}

/// One inode.
#[derive(Debug)]
pub struct Record<'t> {
    /// The node that it is of.
    pub id: NodeId,
    /// Owner, mode, time.
    pub meta: &'t Meta,
    /// Number of names; a directory's with `.` and its children's `..`.
    pub nlink: u32,
    /// Extended attributes as they stand behind the inode; empty when there are none.
    pub xattrs: Vec<u8>,
    /// What it holds.
    pub body: Body<'t>,
}

/// What an inode holds.
#[derive(Debug)]
pub enum Body<'t> {
    /// A directory.
    Directory(Directory<'t>),
    /// A link and its target.
    Symlink(&'t [u8]),
    /// A device, pipe or socket: type bits of its mode and device number.
    Special(u16, u32),
    /// A regular file and the position of an earlier one that has the same bytes.
    File(&'t Content, Option<usize>),
}

/// A directory's entries in the kernel's order, cut into blocks.
#[derive(Debug)]
pub struct Directory<'t> {
    /// Names, `.` and `..` among them, with their nodes, ordered as unsigned bytes: the kernel searches
    /// by halves.
    pub entries: Vec<(&'t [u8], NodeId)>,
    /// Which entries each block holds.
    pub blocks: Vec<Range<usize>>,
    /// Bytes in all: whole blocks and what the last one uses.
    pub size: u64,
}

impl<'t> Directory<'t> {
    fn new(id: NodeId, parent: NodeId, children: impl Iterator<Item = (&'t [u8], NodeId)>) -> Self {
        let mut entries: Vec<(&[u8], NodeId)> = vec![(b".", id), (b"..", parent)];
        entries.extend(children);
        entries.sort_unstable_by_key(|(name, _)| *name);
        let mut blocks = Vec::new();
        let (mut start, mut used) = (0, 0);
        for (index, (name, _)) in entries.iter().enumerate() {
            let need = to_u64(Dirent::SIZE + name.len());
            if used + need > BLOCK {
                blocks.push(start..index);
                (start, used) = (index, 0);
            }
            used += need;
        }
        blocks.push(start..entries.len());
        let size = (to_u64(blocks.len()) - 1) * BLOCK + used;
        Self { entries, blocks, size }
    }
}

impl Record<'_> {
    /// `i_mode`: type and permissions.
    pub fn mode(&self) -> u16 {
        let kind = match self.body {
            Body::Directory(_) => mode::IFDIR,
            Body::Symlink(_) => mode::IFLNK,
            Body::Special(kind, _) => kind,
            Body::File(..) => mode::IFREG,
        };
        kind | self.meta.mode & !mode::IFMT
    }

    /// `i_size`, in bytes.
    pub fn size(&self) -> u64 {
        match &self.body {
            Body::Directory(directory) => directory.size,
            Body::Symlink(target) => to_u64(target.len()),
            Body::Special(..) => 0,
            Body::File(content, _) => content.len(),
        }
    }

    /// Bytes of content behind the inode. Those of a file never are: a tail of another length would
    /// move all inodes after it, and files would not begin at block boundaries.
    pub fn inlined(&self) -> u64 {
        let tail = self.size() % BLOCK;
        let fits = self.head() + tail <= BLOCK;
        match self.body {
            Body::Directory(_) | Body::Symlink(_) if fits => tail,
            _ => 0,
        }
    }

    /// Bytes in the inode table: inode, attributes, inlined content.
    pub fn span(&self) -> u64 {
        self.head() + self.inlined()
    }

    /// Bytes in blocks outside the inode table, not rounded.
    pub fn outside(&self) -> u64 {
        self.size() - self.inlined()
    }

    fn head(&self) -> u64 {
        to_u64(InodeExtended::SIZE + self.xattrs.len())
    }
}

impl<'t> Layout<'t> {
    /// Orders `tree`. `dedupe` reads files of equal length, to store equal ones once, but for those that `known` has
    /// read before. With `known`, bodies get marks.
    ///
    /// # Errors
    /// What EROFS cannot hold; with `dedupe` also content that cannot be read.
    pub fn new(tree: &'t Tree, dedupe: bool, known: Option<&Known>) -> Result<Self, Error> {
        let (mut table, mut files): (Vec<Record<'t>>, Vec<_>) = (Vec::new(), Vec::new());
        let mut links = vec![0u32; tree.capacity()];
        let mut names = Names { tree, parents: vec![None; tree.capacity()] };
        let mut pending = vec![(&b""[..], tree.root(), tree.root())];
        while let Some((name, id, parent)) = pending.pop() {
            let node = tree.node(id);
            links[id.index()] += 1;
            if links[id.index()] > 1 {
                if matches!(node.kind, Kind::Directory(_)) {
                    let path = [names.path(parent).as_slice(), name].join(&b'/');
                    let path = show(path.strip_prefix(b"/").unwrap_or(&path));
                    return Err(Error::DirectoryLinkedTwice { path });
                }
                continue;
            }
            if id != tree.root() {
                names.parents[id.index()] = Some(parent);
            }
            let path = || names.show(id);
            let start = pending.len();
            for (name, child) in tree.children(id) {
                check_name(&path, name)?;
                pending.push((name, child, id));
            }
            pending[start..].reverse();
            let body = body(tree, id, parent, &path)?;
            let xattrs = xattrs(&node.meta, &path)?;
            let record = Record { id, meta: &node.meta, nlink: 0, xattrs, body };
            let zone = if matches!(record.body, Body::File(..)) { &mut files } else { &mut table };
            zone.push(record);
        }
        table.append(&mut files);

        let mut position = vec![None; tree.capacity()];
        for (at, record) in table.iter_mut().enumerate() {
            position[record.id.index()] = Some(at);
            record.nlink = match record.body {
                Body::Directory(_) => 2 + subdirectories(tree, record.id),
                _ => links[record.id.index()],
            };
        }
        let mut layout = Self { table, position, marks: Vec::new(), names };
        if let Some(known) = known {
            layout.mark(known);
        }
        if dedupe {
            layout.share_bodies()?;
        }
        Ok(layout)
    }

    /// The first path of a record, for messages.
    pub fn path(&self, record: &Record<'_>) -> Vec<u8> {
        self.names.path(record.id)
    }

    /// Finds what is known of each body.
    fn mark(&mut self, known: &Known) {
        use rayon::prelude::*;
        let mark = |record: &Record<'_>| match record.body {
            Body::File(content, _) if !content.is_empty() => {
                let identity = content.identity();
                let known = identity.and_then(|identity| known.get(&identity));
                let print = known.and_then(|body| body.print);
                Mark { identity, print, earlier: known.map(|body| body.block) }
            }
            _ => Mark::default(),
        };
        self.marks = self.table.par_iter().map(mark).collect();
    }

    /// Lets files with equal bytes share them. Only files of one length are compared, by fingerprint.
    fn share_bodies(&mut self) -> Result<(), Error> {
        use rayon::prelude::*;
        let mut by_length: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, record) in self.table.iter().enumerate() {
            if let Body::File(content, _) = record.body
                && !content.is_empty()
            {
                by_length.entry(content.len()).or_default().push(at);
            }
        }
        let candidates: Vec<usize> =
            by_length.into_values().filter(|alike| alike.len() > 1).flatten().collect();
        let prints: Vec<(u64, Fingerprint, usize)> = candidates
            .into_par_iter()
            .map(|at| {
                let record = &self.table[at];
                let Body::File(content, _) = record.body else { unreachable!("only files are candidates") };
                if let Some(print) = self.marks.get(at).and_then(|mark| mark.print) {
                    return Ok((content.len(), print, at));
                }
                let (print, size) = Fingerprint::of_reader(&mut content.reader())
                    .map_err(|source| Error::Content { path: self.names.show(record.id), source })?;
                Ok((size, print, at))
            })
            .collect::<Result<_, Error>>()?;
        let mut first: BTreeMap<(u64, Fingerprint), usize> = BTreeMap::new();
        for (size, print, at) in prints {
            if let Some(mark) = self.marks.get_mut(at) {
                mark.print = Some(print);
            }
            let earliest = *first.entry((size, print)).or_insert(at);
            if let Body::File(_, same) = &mut self.table[at].body
                && earliest != at
            {
                *same = Some(earliest);
            }
        }
        Ok(())
    }
}

fn check_name(directory: &dyn Fn() -> String, name: &[u8]) -> Result<(), Error> {
    let plain =
        !name.is_empty() && name != b"." && name != b".." && !name.iter().any(|b| [b'/', 0].contains(b));
    if plain && name.len() <= NAME_LEN {
        return Ok(());
    }
    Err(Error::Name { directory: directory(), name: show(name) })
}

fn subdirectories(tree: &Tree, id: NodeId) -> u32 {
    let is_directory = |child: &NodeId| matches!(tree.node(*child).kind, Kind::Directory(_));
    let count = tree.children(id).filter(|(_, child)| is_directory(child)).count();
    u32::try_from(count).expect("a tree has fewer nodes")
}

fn body<'t>(
    tree: &'t Tree,
    id: NodeId,
    parent: NodeId,
    path: &dyn Fn() -> String,
) -> Result<Body<'t>, Error> {
    let device = |kind, major, minor| match encode_dev(major, minor) {
        Some(dev) => Ok(Body::Special(kind, dev)),
        None => Err(Error::Device { path: path(), major, minor }),
    };
    match &tree.node(id).kind {
        Kind::Directory(_) => Ok(Body::Directory(Directory::new(id, parent, tree.children(id)))),
        Kind::File(content) => Ok(Body::File(content, None)),
        Kind::Symlink(target) if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) => {
            Err(Error::Target { path: path(), target: show(target) })
        }
        Kind::Symlink(target) => Ok(Body::Symlink(target)),
        Kind::CharDevice(major, minor) => device(mode::IFCHR, *major, *minor),
        Kind::BlockDevice(major, minor) => device(mode::IFBLK, *major, *minor),
        Kind::Fifo => Ok(Body::Special(mode::IFIFO, 0)),
        Kind::Socket => Ok(Body::Special(mode::IFSOCK, 0)),
    }
}

/// The attributes of one inode as they stand behind it.
fn xattrs(meta: &Meta, path: &dyn Fn() -> String) -> Result<Vec<u8>, Error> {
    if meta.xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = XattrIbodyHeader::new_zeroed().as_bytes().to_vec();
    for (name, value) in &meta.xattrs {
        let refused = || Error::Xattr { path: path(), name: show(name), size: value.len() };
        let (e_name_index, rest) = split_name(name).ok_or_else(refused)?;
        let entry = XattrEntry {
            e_name_len: u8::try_from(rest.len()).map_err(|_| refused())?,
            e_name_index,
            e_value_size: u16::try_from(value.len()).map_err(|_| refused())?.into(),
        };
        bytes.extend(entry.as_bytes());
        bytes.extend(rest);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(XATTR_UNIT), 0);
    }
    if bytes.len() > super::format::xattr_ibody_size(u16::MAX) {
        return Err(Error::XattrsTooLarge { path: path(), size: bytes.len() });
    }
    Ok(bytes)
}

/// The name index of an attribute and what of its name is stored.
fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    XATTR_PREFIXES.iter().find_map(|(index, prefix)| {
        let rest = name.strip_prefix(*prefix)?;
        // A prefix that ends in a dot wants a rest, a whole name wants none.
        (rest.is_empty() != prefix.ends_with(b".")).then_some((*index, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_names() {
        assert_eq!(split_name(b"security.capability"), Some((6, b"capability".as_slice())));
        assert_eq!(split_name(b"system.posix_acl_default"), Some((3, b"".as_slice())));
        for unknown in ["system.posix_acl_accessory", "user.", "btrfs.x", ""] {
            assert_eq!(split_name(unknown.as_bytes()), None, "{unknown}");
        }
    }

    #[test]
    fn files_come_last_and_links_are_counted() {
        let mut tree = Tree::new(0);
        let file = tree.file("a/file", 0o644, "x").unwrap();
        tree.link("b/again", file).unwrap();
        tree.symlink("z", "a").unwrap();
        let layout = Layout::new(&tree, false, None).unwrap();
        let order: Vec<_> = layout.table.iter().map(|r| (show(&layout.path(r)), r.nlink)).collect();
        let expected = [("", 4), ("a", 2), ("b", 2), ("z", 1), ("a/file", 2)];
        assert_eq!(order, expected.map(|(path, nlink)| (path.to_owned(), nlink)));
    }

    #[test]
    fn dots_take_their_place_in_the_order() {
        let mut tree = Tree::new(0);
        for name in ["-", "...", "a"] {
            tree.file(name, 0o644, "").unwrap();
        }
        let directory = Directory::new(tree.root(), tree.root(), tree.children(tree.root()));
        let names: Vec<_> = directory.entries.iter().map(|(name, _)| show(name)).collect();
        assert_eq!(names, ["-", ".", "..", "...", "a"]);
    }

    #[test]
    fn blocks_of_a_directory_overlap_in_nothing() {
        let names: Vec<String> = (0..3000).map(|i| format!("entry-{i:05}")).collect();
        let id = Tree::new(0).root();
        let directory = Directory::new(id, id, names.iter().map(|name| (name.as_bytes(), id)));
        assert_eq!(directory.entries.len(), 3002);
        assert_eq!(directory.blocks.last().unwrap().end, 3002);
        assert!(directory.blocks.windows(2).all(|pair| pair[0].end == pair[1].start));
    }

    #[test]
    fn what_cannot_be_held_is_refused() {
        let mut tree = Tree::new(0);
        tree.symlink("link", "").unwrap();
        assert!(matches!(Layout::new(&tree, false, None), Err(Error::Target { .. })));
        let mut tree = Tree::new(0);
        tree.file("x".repeat(256), 0o644, "").unwrap();
        assert!(matches!(Layout::new(&tree, false, None), Err(Error::Name { .. })));
        let mut tree = Tree::new(0);
        let meta = &mut tree.node_mut(tree.root()).meta;
        meta.xattrs.insert(b"odd.name".to_vec(), vec![]);
        assert!(matches!(Layout::new(&tree, false, None), Err(Error::Xattr { .. })));
        let mut tree = Tree::new(0);
        let directory = tree.directory("d", 0o755).unwrap();
        tree.link("d/itself", directory).unwrap();
        assert!(matches!(Layout::new(&tree, false, None), Err(Error::DirectoryLinkedTwice { .. })));
    }
}
