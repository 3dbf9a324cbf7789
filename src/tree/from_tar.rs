//! Tar archives as file trees.
//!
//! Formats: ustar and pax of POSIX.1-2017 (`pax`, "ustar Interchange Format" and "pax Header Block"), and
//! GNU tar's long names (types `L` and `K`). An archive is read once, front to back, while its very bytes
//! are copied to a file; the bodies of the tree are stretches of this copy.
//!
//! Archives are taken as hostile: what could lead out of the tree, through a link that the archive itself
//! made, or to two readings of one archive, is refused rather than repaired.

mod error;
mod pax;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use super::{Bodies, Kind, Meta, Node, NodeId, Origin, Tree, show};
use crate::base::limits;
use crate::base::width::{to_u64, to_usize};

pub use error::TarError;

/// Unit of tar: headers are one block, bodies are filled up to whole blocks.
const BLOCK: usize = 512;

/// Longest extension header (long name, pax records) that is read into memory, in bytes. Names end at 4096
/// and the kernel's limit for one attribute is 65,536, so this leaves room for a dozen large attributes.
const MAX_EXTENSION: u64 = 1 << 20;

/// Last second that ext4 can hold (34 bits from 1901 on: the year 2446).
const MAX_MTIME: i64 = 0x3_7fff_ffff;

/// How much of an archive is read before it counts as a bomb.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Members, extension headers not counted.
    pub members: usize,
    /// Bytes of the uncompressed archive, read or only announced by a header.
    pub bytes: u64,
}

/// One member of an archive, checked and with its extension headers applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Relative, without `.`, `..` or empty parts; empty for the root itself.
    pub path: Vec<u8>,
    /// Owner by number, mode, time, attributes.
    pub meta: Meta,
    /// Type and what goes with it.
    pub body: Body,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A folder.
    Directory,
    /// A regular file.
    File {
        /// Where its bytes begin in the uncompressed archive.
        offset: u64,
        /// How many they are.
        len: u64,
    },
    /// A further name for the member with this path.
    Link(Vec<u8>),
    /// A symbolic link and its target as written.
    Symlink(Vec<u8>),
    /// Major and minor number.
    CharDevice(u32, u32),
    /// Major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

impl Member {
    /// Bytes of its path, target and attributes, with the memory that these take besides.
    pub fn names(&self) -> u64 {
        let target = match &self.body {
            Body::Link(target) | Body::Symlink(target) => target.len(),
            _ => 0,
        };
        (self.path.len() + target) as u64 + attributes_in_memory(&self.meta.xattrs)
    }
}

/// Bytes of attributes with the memory that they take besides.
pub(super) fn attributes_in_memory(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    let [first, further] = limits::XATTR_COST;
    match xattrs.len() as u64 {
        0 => 0,
        count => attributes(xattrs) + first + further * (count - 1),
    }
}

/// Bytes of attributes, names and values.
fn attributes(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
}

/// Reads `archive` to its end and copies it, up to its end marker, to `copy`. The members come back in the
/// order of the archive, their offsets counted from the first byte of the copy.
///
/// # Errors
/// See [`TarError`]. What was copied until then is of no use.
pub fn read(archive: &mut dyn Read, copy: &mut dyn Write, limits: Limits) -> Result<Vec<Member>, TarError> {
    read_as(Form::Package, archive, copy, limits)
}

/// Reads a layer of a container's image, or an archive of one, as the tools for images do: a `/` before a path is
/// passed over, a name may have a line break, and the end marker and the padding before it may be missing.
///
/// # Errors
/// As [`read`].
pub fn read_layer(
    archive: &mut dyn Read,
    copy: &mut dyn Write,
    limits: Limits,
) -> Result<Vec<Member>, TarError> {
    read_as(Form::Layer, archive, copy, limits)
}

/// How strictly an archive is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As dpkg does.
    Package,
    /// As tools for images do.
    Layer,
}

/// Whether `head`, the first bytes of a stream, begin a tar archive: nothing else has that checksum. A name may begin
/// with the bytes that mark a compressed file.
pub fn begins(head: &[u8]) -> bool {
    head.first_chunk()
        .is_some_and(|block: &[u8; BLOCK]| *block != [0; BLOCK] && Header::parse(block, 0).is_ok())
}

fn read_as(
    form: Form,
    archive: &mut dyn Read,
    copy: &mut dyn Write,
    limits: Limits,
) -> Result<Vec<Member>, TarError> {
    let limit = limits.bytes;
    let mut stream = Stream { form, archive, copy, position: 0, limit, buffer: vec![0; 128 << 10] };
    let mut members = Vec::new();
    let mut names = 0;
    let mut extensions = 0;
    let mut extension = Extension::default();
    loop {
        let start = stream.position;
        let mut block = [0; BLOCK];
        let is_there = stream.block(&mut block)?;
        if block == [0; BLOCK] {
            if extension != Extension::default() {
                return Err(TarError::Corrupt { offset: start, what: "an extension of nothing".to_owned() });
            }
            if is_there {
                stream.drain()?;
            }
            return Ok(members);
        }
        let header = Header::parse(&block, start)?;
        if matches!(header.kind, b'L' | b'K' | b'x') {
            extensions += 1;
            if extensions > limits::EXTENSIONS {
                let what = format!("more than {} extension headers before a member", limits::EXTENSIONS);
                return Err(TarError::Corrupt { offset: start, what });
            }
        }
        match header.kind {
            b'L' => extension.path = Some(stream.text(&header)?),
            b'K' => extension.target = Some(stream.text(&header)?),
            b'x' => {
                extension.records(&stream.body(&header)?, start)?;
                extension.check(&header)?;
            }
            b'g' => {
                let mut global = Extension::default();
                global.records(&stream.body(&header)?, start)?;
                if global != Extension::default() {
                    return Err(TarError::Unsupported {
                        member: header.name(),
                        what: "a global pax header that changes members".to_owned(),
                    });
                }
            }
            _ => {
                if members.len() == limits.members {
                    return Err(TarError::TooMany { limit: limits.members });
                }
                let member = stream.member(&header, std::mem::take(&mut extension))?;
                extensions = 0;
                names += member.names();
                if names > limits::NAMES {
                    let (what, member) = ("the paths, targets and attributes", show(&member.path));
                    return Err(TarError::Names { what, member, limit: limits::NAMES });
                }
                members.push(member);
            }
        }
    }
}

/// Makes a tree of `members`, whose bodies are in `file` from byte `base` on. Directories that the archive
/// leaves out are 0755 root:root at `epoch`.
///
/// # Errors
/// `BelowLink`, `BelowFile`, `Duplicate` or `LinkTarget`.
pub fn tree(
    members: &[Member],
    file: &impl Bodies,
    base: u64,
    origin: &str,
    epoch: i64,
) -> Result<Tree, TarError> {
    let mut tree = Tree::new(epoch);
    let origin = tree.origin(origin);
    let root = tree.root();
    tree.node_mut(root).origin = origin;
    // Directories that only stand above a member so far; their own entry may still come.
    let mut implied = BTreeSet::from([root]);
    let mut size = TreeSize::default();
    for member in members {
        let Some((parent, name)) = descend(&mut tree, member, origin, &mut implied, &mut size)? else {
            if member.body != Body::Directory {
                let why = "only a directory can be the root";
                return Err(TarError::UnsafePath { member: show(&member.path), why });
            }
            implied.remove(&root);
            tree.node_mut(root).meta = member.meta.clone();
            continue;
        };
        size.add(member, member.path.len())?;
        if let Some(existing) = tree.child(parent, name) {
            let node = tree.node_mut(existing);
            let both = matches!(node.kind, Kind::Directory(_)) && member.body == Body::Directory;
            if both && implied.remove(&existing) {
                node.meta = member.meta.clone();
            } else if !both || node.meta != member.meta {
                return Err(TarError::Duplicate { member: show(&member.path) });
            }
            continue;
        }
        let kind = match &member.body {
            Body::Link(target) => {
                let id = existing_file(&tree, target).ok_or_else(|| TarError::LinkTarget {
                    member: show(&member.path),
                    target: show(target),
                })?;
                tree.set_child(parent, name.to_vec(), id);
                continue;
            }
            Body::Directory => Kind::Directory(BTreeMap::new()),
            Body::File { offset, len } => Kind::File(file.stretch(base + offset, *len)),
            Body::Symlink(target) => Kind::Symlink(target.clone()),
            Body::CharDevice(major, minor) => Kind::CharDevice(*major, *minor),
            Body::BlockDevice(major, minor) => Kind::BlockDevice(*major, *minor),
            Body::Fifo => Kind::Fifo,
        };
        let id = tree.add(Node { meta: member.meta.clone(), kind, origin });
        tree.set_child(parent, name.to_vec(), id);
    }
    Ok(tree)
}

/// What a tree has so far. A member of an archive may bring as many directories as its path has parts.
#[derive(Default)]
pub(super) struct TreeSize {
    nodes: usize,
    names: u64,
}

impl TreeSize {
    /// Counts one more name, with a path of `path` bytes.
    pub(super) fn add(&mut self, member: &Member, path: usize) -> Result<(), TarError> {
        (self.nodes, self.names) = (self.nodes + 1, self.names + path as u64);
        if self.nodes > limits::NODES {
            return Err(TarError::TooManyNodes { member: show(&member.path), limit: limits::NODES });
        }
        if self.names > limits::NAMES {
            let (what, member) = ("the paths of directories and members", show(&member.path));
            return Err(TarError::Names { what, member, limit: limits::NAMES });
        }
        Ok(())
    }
}

/// The directory that holds `member`, made where the archive left it out, and the member's own name.
fn descend<'a>(
    tree: &mut Tree,
    member: &'a Member,
    origin: Origin,
    implied: &mut BTreeSet<NodeId>,
    size: &mut TreeSize,
) -> Result<Option<(NodeId, &'a [u8])>, TarError> {
    if member.path.is_empty() {
        return Ok(None);
    }
    let mut here = tree.root();
    let mut rest = member.path.as_slice();
    while let Some(slash) = rest.iter().position(|byte| *byte == b'/') {
        let (part, below) = (&rest[..slash], &rest[slash + 1..]);
        rest = below;
        let Some(child) = tree.child(here, part) else {
            size.add(member, member.path.len() - below.len())?;
            let meta = Meta::new(0o755).at(tree.epoch);
            let id = tree.add(Node { meta, kind: Kind::Directory(BTreeMap::new()), origin });
            tree.set_child(here, part.to_vec(), id);
            implied.insert(id);
            here = id;
            continue;
        };
        let above = || show(&member.path[..member.path.len() - below.len() - 1]);
        match tree.node(child).kind {
            Kind::Directory(_) => here = child,
            Kind::Symlink(_) => {
                return Err(TarError::BelowLink { member: show(&member.path), link: above() });
            }
            _ => return Err(TarError::BelowFile { member: show(&member.path), parent: above() }),
        }
    }
    Ok(Some((here, rest)))
}

/// The node at `path` without following any link; nothing for a directory.
fn existing_file(tree: &Tree, path: &[u8]) -> Option<NodeId> {
    let found = path.split(|byte| *byte == b'/').try_fold(tree.root(), |id, part| tree.child(id, part))?;
    (!matches!(tree.node(found).kind, Kind::Directory(_))).then_some(found)
}

/// What extension headers say of the member after them.
#[derive(Default, PartialEq)]
struct Extension {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    sparse: bool,
}

impl Extension {
    /// Refuses attributes that no file can have. A member may have any number of headers before it.
    fn check(&self, header: &Header<'_>) -> Result<(), TarError> {
        let limit = limits::XATTRS as u64;
        if attributes(&self.xattrs) > limit {
            let member = self.path.as_ref().map_or_else(|| header.name(), |path| show(path));
            return Err(TarError::Names { what: "the attributes of one file", member, limit });
        }
        Ok(())
    }

    fn records(&mut self, body: &[u8], offset: u64) -> Result<(), TarError> {
        for record in pax::records(body) {
            let (key, value) = record.map_err(|what| TarError::Corrupt { offset, what: what.to_owned() })?;
            let number = || {
                str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                    TarError::Corrupt { offset, what: format!("pax record {} is no number", show(key)) }
                })
            };
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => {
                    self.mtime = Some(pax::seconds(value).ok_or_else(|| TarError::Corrupt {
                        offset,
                        what: "pax record mtime is no time".to_owned(),
                    })?);
                }
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                // Also the names of owners, which are for hosts that have a user database.
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
        }
        Ok(())
    }
}

/// One header block, its checksum verified.
struct Header<'a> {
    raw: &'a tar::Header,
    kind: u8,
    size: u64,
    offset: u64,
}

impl<'a> Header<'a> {
    fn parse(block: &'a [u8; BLOCK], offset: u64) -> Result<Self, TarError> {
        let raw = tar::Header::from_byte_slice(block);
        // The checksum is summed with its own field (bytes 148 to 155) as spaces.
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let field: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
        if raw.cksum().ok() != Some(sum - field + 8 * u32::from(b' ')) {
            return Err(TarError::Corrupt { offset, what: "wrong header checksum".to_owned() });
        }
        let size = raw.entry_size().map_err(|error| corrupt(offset, &error))?;
        Ok(Self { raw, kind: block[156], size, offset })
    }

    fn name(&self) -> String {
        show(&self.raw.path_bytes())
    }
}

fn corrupt(offset: u64, error: &io::Error) -> TarError {
    TarError::Corrupt { offset, what: error.to_string() }
}

/// The archive on its way into the copy.
struct Stream<'a> {
    form: Form,
    archive: &'a mut dyn Read,
    copy: &'a mut dyn Write,
    position: u64,
    limit: u64,
    buffer: Vec<u8>,
}

impl Stream<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        self.archive.read_exact(buffer).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated { offset: self.position },
            _ => TarError::Read { offset: self.position, source },
        })?;
        self.copy.write_all(buffer).map_err(|source| TarError::Write { source })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    /// Reads a header. Says whether there was one: a layer may end without a marker.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        self.expect(BLOCK as u64, "")?;
        let start = match self.form {
            Form::Package => 0,
            Form::Layer => self.up_to(&mut block[..1])?,
        };
        if self.form == Form::Layer && start == 0 {
            return Ok(false);
        }
        self.fill(&mut block[start..])?;
        Ok(true)
    }

    /// Fills `buffer` as far as the archive reaches; says how far.
    fn up_to(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.archive.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarError::Read { offset: self.position, source }),
            }
        }
        self.copy.write_all(&buffer[..filled]).map_err(|source| TarError::Write { source })?;
        self.position += filled as u64;
        Ok(filled)
    }

    /// Refuses what the next `len` bytes would make too large, before they are read.
    fn expect(&self, len: u64, member: &str) -> Result<(), TarError> {
        match self.position.checked_add(len) {
            Some(size) if size <= self.limit => Ok(()),
            size => Err(TarError::TooLarge {
                member: member.to_owned(),
                size: size.unwrap_or(u64::MAX),
                limit: self.limit,
            }),
        }
    }

    /// The body of an extension header.
    fn body(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        if header.size > MAX_EXTENSION {
            return Err(TarError::TooLarge {
                member: header.name(),
                size: header.size,
                limit: MAX_EXTENSION,
            });
        }
        let mut body = vec![0; to_usize(header.size).next_multiple_of(BLOCK)];
        self.expect(body.len() as u64, &header.name())?;
        self.fill(&mut body)?;
        body.truncate(to_usize(header.size));
        Ok(body)
    }

    /// The body of a long name: text that ends with a NUL.
    fn text(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let mut body = self.body(header)?;
        if body.last() == Some(&0) {
            body.pop();
        }
        Ok(body)
    }

    fn skip(&mut self, len: u64, member: &str) -> Result<(), TarError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let padded = len.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX);
        self.expect(padded, member)?;
        let mut rest = if self.form == Form::Layer { len } else { padded };
        while rest > 0 {
            let count = to_usize(rest.min(to_u64(buffer.len())));
            self.fill(&mut buffer[..count])?;
            rest -= count as u64;
        }
        if self.form == Form::Layer {
            self.up_to(&mut buffer[..to_usize(padded - len)])?;
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Reads what follows the end marker, so that decompressors check their checksums.
    fn drain(&mut self) -> Result<(), TarError> {
        loop {
            let count = match self.archive.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(TarError::Read { offset: self.position, source }),
            };
            self.expect(count as u64, "")?;
            self.position += count as u64;
        }
    }

    fn member(&mut self, header: &Header<'_>, extension: Extension) -> Result<Member, TarError> {
        let raw_path = extension.path.unwrap_or_else(|| header.raw.path_bytes().into_owned());
        let name = show(&raw_path);
        let unsupported = |what: &str| TarError::Unsupported { member: name.clone(), what: what.to_owned() };
        let path =
            clean(&raw_path, self.form).map_err(|why| TarError::UnsafePath { member: name.clone(), why })?;
        let offset = header.offset;
        let fails = |error: io::Error| corrupt(offset, &error);
        let id = |given: Option<u64>, field: io::Result<u64>| {
            let id = given.map_or(field, Ok).map_err(fails)?;
            // The last one is -1, which the kernel takes for nobody at all.
            let known = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
            known.ok_or_else(|| TarError::Corrupt {
                offset,
                what: format!("owner {id} can be nobody's number"),
            })
        };
        let mtime = match extension.mtime {
            Some(mtime) => mtime,
            // A time before 1970 has a two's complement here.
            None => header.raw.mtime().map_err(fails)?.cast_signed(),
        };
        if mtime > MAX_MTIME {
            return Err(unsupported("newer than the year 2446"));
        }
        let meta = Meta {
            mode: (header.raw.mode().map_err(fails)? & 0o7777) as u16,
            uid: id(extension.uid, header.raw.uid())?,
            gid: id(extension.gid, header.raw.gid())?,
            // EROFS has no time before 1970.
            mtime: mtime.max(0),
            xattrs: extension.xattrs,
        };
        let size = extension.size.unwrap_or(header.size);
        if extension.sparse || header.kind == b'S' {
            return Err(unsupported("a sparse file"));
        }
        let is_directory = header.kind == 0 && raw_path.ends_with(b"/") && size == 0;
        let body = match is_directory {
            // Before ustar, a folder was a file whose name ends with a slash.
            true => Body::Directory,
            false => self.kind(header, extension.target, size, &name)?,
        };
        match body {
            Body::File { len, .. } => self.skip(len, &name)?,
            // Readers do not agree on whether a body follows, so that two would see two archives.
            _ if size != 0 => return Err(unsupported("no file but has a size")),
            _ => {}
        }
        if matches!(body, Body::File { .. }) && path.is_empty() {
            return Err(TarError::UnsafePath { member: name, why: "only a directory can be the root" });
        }
        Ok(Member { path, meta, body })
    }

    /// What the member `name` is; `target` is where it leads by an extension.
    fn kind(
        &self,
        header: &Header<'_>,
        target: Option<Vec<u8>>,
        size: u64,
        name: &str,
    ) -> Result<Body, TarError> {
        let target =
            || target.unwrap_or_else(|| header.raw.link_name_bytes().unwrap_or_default().into_owned());
        let device = || {
            let fails = |error: io::Error| corrupt(header.offset, &error);
            let major = header.raw.device_major().map_err(fails)?.unwrap_or(0);
            let minor = header.raw.device_minor().map_err(fails)?.unwrap_or(0);
            Ok::<_, TarError>((major, minor))
        };
        Ok(match header.kind {
            b'0' | 0 | b'7' => Body::File { offset: self.position, len: size },
            b'1' => {
                let raw = target();
                let path = clean(&raw, self.form).ok().filter(|path| !path.is_empty());
                Body::Link(
                    path.ok_or_else(|| TarError::LinkTarget { member: name.to_owned(), target: show(&raw) })?,
                )
            }
            b'2' => {
                let target = target();
                if target.is_empty() || target.len() > limits::PATH || target.contains(&0) {
                    let why = "a symbolic link to nothing that could be a path";
                    return Err(TarError::UnsafePath { member: name.to_owned(), why });
                }
                Body::Symlink(target)
            }
            b'3' => device().map(|(major, minor)| Body::CharDevice(major, minor))?,
            b'4' => device().map(|(major, minor)| Body::BlockDevice(major, minor))?,
            b'5' => Body::Directory,
            b'6' => Body::Fifo,
            other => {
                let what = format!("of type {:?}", char::from(other));
                return Err(TarError::Unsupported { member: name.to_owned(), what });
            }
        })
    }
}

/// The path of a member without `.` and empty parts, or why it is refused.
fn clean(path: &[u8], form: Form) -> Result<Vec<u8>, &'static str> {
    if path.starts_with(b"/") && form == Form::Package {
        return Err("it is absolute");
    }
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err("it climbs with `..`"),
            part if part.contains(&0) => return Err("it contains NUL"),
            // dpkg's database has one path a line.
            part if part.contains(&b'\n') && form == Form::Package => return Err("it contains a line break"),
            part if part.len() > limits::NAME => return Err("a part of it is longer than 255 bytes"),
            _ => {}
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(part);
    }
    if path.is_empty() {
        return Err("it is empty");
    }
    if clean.len() > limits::PATH {
        return Err("it is longer than 4095 bytes");
    }
    if clean.iter().filter(|byte| **byte == b'/').count() > limits::DEPTH {
        return Err("it lies below more than 256 directories");
    }
    Ok(clean)
}

#[cfg(test)]
mod tests;
