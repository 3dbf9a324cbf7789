//! Overlays: file trees that people keep beside a manifest, or that are embedded in keller.
//!
//! Of a folder on disk only names, bytes, symbolic links and the owner's execute bit count, so that a
//! checkout's umask, owner and times cannot reach an image: files are 0644 or 0755, folders 0755, all of
//! root, at the tree's epoch. What a checkout cannot say stands in the file `.meta` at the overlay's root:
//!
//! ```text
//! # path                 mode  owner  group
//! etc/sudoers.d/core     0440  root   root
//! var/lib/etcd/          0700  etcd   etcd      a slash at the end: the folder is made when missing
//! usr/bin/ping           0755  root   root   cap_net_raw+ep
//! etc/mtab               ->    ../proc/self/mounts
//! ```
//!
//! Owners are names or numbers. Names are kept until the image's users are known: [`Overlay::own`].
//! `.gitkeep` files are left out; they only keep a folder alive in git. So is what other programs leave in a
//! directory of sources (`litter`), unless `.meta` names it: then it comes along with all that is in it. A line
//! about a directory of another name is about that alone.

mod litter;
mod meta;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::base::capabilities::ATTRIBUTE;
use crate::base::{Digest, Hasher, Size, input, limits};

use super::content::holes;
use super::{Content, Kind, Meta, NodeId, Tree, TreeError, show};

pub use meta::{Line, MetaError, Stated};

/// Name of the file with modes, owners and links, at an overlay's root.
pub const META: &str = ".meta";

const GITKEEP: &[u8] = b".gitkeep";

/// setuid, setgid and sticky.
pub const SPECIAL: u16 = 0o7000;
/// Others may read.
pub const READ_BY_ALL: u16 = 0o004;
/// The owner may execute.
pub const EXECUTE: u16 = 0o100;

/// A file that is embedded in keller: path, bytes, whether it is executable.
pub type Embedded<'a> = (&'a str, &'a [u8], bool);

/// A file tree to be laid over a root.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// The files, with their final modes.
    pub tree: Tree,
    /// What `.meta` says of files and folders, by path without leading slash.
    pub stated: BTreeMap<Vec<u8>, Stated>,
    /// What other programs left there and is not part of the tree, with the mode it would have; see `litter`.
    pub left_out: Vec<(Vec<u8>, u16)>,
    /// What only some may read on disk, or is setuid there, of which `.meta` says nothing, with its mode there.
    pub opened: Vec<(Vec<u8>, u16)>,
}

/// Why an overlay could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A line of `.meta`.
    #[error("{}:{line}: {source}", .file.display())]
    Meta {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: MetaError,
    },
    /// Sockets, devices and pipes do not belong into a folder of sources.
    #[error("{} is neither a file, a directory nor a symbolic link", .path.display())]
    Special {
        /// The path.
        path: PathBuf,
    },
    /// An owner that the image does not have.
    #[error("{META} gives /{path} to {what} {name:?}, which the image does not have")]
    Owner {
        /// The path in the image.
        path: String,
        /// `user` or `group`.
        what: &'static str,
        /// As written.
        name: String,
    },
    /// Paths that make no tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The disk.
    #[error("reading {}: {source}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> OverlayError + use<> {
    let path = path.to_owned();
    move |source| OverlayError::Io { path, source }
}

impl Overlay {
    /// Reads the folder `folder`; nodes get the origin `name` and the time `epoch`.
    ///
    /// # Errors
    /// See [`OverlayError`].
    pub fn from_folder(folder: &Path, name: &str, epoch: i64) -> Result<Self, OverlayError> {
        let mut overlay = Self::empty(name, epoch);
        let meta = folder.join(META);
        let text = match input::read_text(&meta, limits::TEXT) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(&meta)(error)),
        };
        let named = text.lines().filter_map(|line| match Line::parse(line) {
            Ok(Some(Line::Stated { path, .. })) => Some(path.trim_matches('/').as_bytes().to_vec()),
            _ => None,
        });
        let mut size = FolderSize::default();
        overlay.folder(folder, &mut Vec::new(), &named.collect(), false, &mut size)?;
        overlay.state(&text, &meta)?;
        let stated = &overlay.stated;
        overlay.opened.retain(|(path, _)| !stated.contains_key(path));
        Ok(overlay)
    }

    /// Takes files that are embedded in keller. Gives the same as the folder that they came from.
    ///
    /// # Errors
    /// Those of `.meta`.
    pub fn from_embedded(files: &[Embedded<'_>], name: &str, epoch: i64) -> Result<Self, OverlayError> {
        let mut overlay = Self::empty(name, epoch);
        let mut meta = None;
        for (path, bytes, executable) in files {
            if *path == META {
                meta = Some(*bytes);
                continue;
            }
            let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
            if last.as_bytes() == GITKEEP {
                overlay.put(folder.as_bytes(), 0o755, Kind::Directory(BTreeMap::new()))?;
                continue;
            }
            let mode = if *executable { 0o755 } else { 0o644 };
            overlay.put(path.as_bytes(), mode, Kind::File(bytes.to_vec().into()))?;
        }
        if let Some(bytes) = meta {
            let file = Path::new(name).join(META);
            let text = str::from_utf8(bytes)
                .map_err(|error| failed(&file)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
            overlay.state(text, &file)?;
        }
        Ok(overlay)
    }

    /// The nodes of `root`, into which the overlay was merged just now, that [`Overlay::stated`] is about:
    /// the overlay's own, and directories that it shares.
    ///
    /// # Errors
    /// `Tree` when one is not there.
    pub fn laid(&self, root: &Tree) -> Result<BTreeMap<Vec<u8>, NodeId>, OverlayError> {
        let laid = self.stated.keys().map(|path| Ok((path.clone(), self.find(root, path)?)));
        laid.collect::<Result<_, TreeError>>().map_err(OverlayError::from)
    }

    /// What of `root` is at `path`. A directory that met a link to a directory was merged into that one.
    fn find(&self, root: &Tree, path: &[u8]) -> Result<NodeId, TreeError> {
        let absent = || TreeError::NotFound { path: show(path) };
        let id = self.tree.lookup(path).ok_or_else(absent)?;
        match self.tree.node(id).kind {
            Kind::Directory(_) => root.resolve(path),
            _ => root.lookup(path).ok_or_else(absent),
        }
    }

    /// Gives what this overlay has laid over `root` the owners that `.meta` names by number, before names have theirs.
    pub fn own_numbers(&self, root: &mut Tree, laid: &BTreeMap<Vec<u8>, NodeId>) {
        for (path, stated) in &self.stated {
            let there = self.find(root, path).ok();
            let Some(id) = there.filter(|id| laid.get(path) == Some(id)) else { continue };
            let meta = &mut root.node_mut(id).meta;
            meta.uid = stated.owner.parse().unwrap_or(meta.uid);
            meta.gid = stated.group.parse().unwrap_or(meta.gid);
        }
    }

    /// Gives the nodes `laid` in `root` the modes, owners and capabilities of [`Overlay::stated`]; what was
    /// put in a node's place since keeps its own. `user` and `group` know the image's numbers. Says which
    /// nodes have them.
    ///
    /// # Errors
    /// `Owner` when a name is unknown.
    pub fn own(
        &self,
        root: &mut Tree,
        laid: &BTreeMap<Vec<u8>, NodeId>,
        user: &dyn Fn(&str) -> Option<u32>,
        group: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<Vec<(Vec<u8>, NodeId)>, OverlayError> {
        let mut owned = Vec::new();
        for (path, stated) in &self.stated {
            let there = self.find(root, path).ok();
            let Some(id) = there.filter(|id| laid.get(path) == Some(id)) else { continue };
            let number = |what, name: &str, known: &dyn Fn(&str) -> Option<u32>| {
                name.parse().ok().or_else(|| known(name)).ok_or_else(|| OverlayError::Owner {
                    path: show(path),
                    what,
                    name: name.to_owned(),
                })
            };
            let uid = number("user", &stated.owner, user)?;
            let gid = number("group", &stated.group, group)?;
            let meta = &mut root.node_mut(id).meta;
            (meta.mode, meta.uid, meta.gid) = (stated.mode, uid, gid);
            match stated.capabilities {
                Some(capabilities) => meta.xattrs.insert(ATTRIBUTE.to_vec(), capabilities.to_bytes()),
                None => meta.xattrs.remove(ATTRIBUTE),
            };
            owned.push((path.clone(), id));
        }
        Ok(owned)
    }

    /// Names the overlay's content in a lock. Times do not count, as none of them is the overlay's own.
    ///
    /// # Errors
    /// Of the disk, when a large file cannot be read.
    pub fn digest(&self) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        hasher.update(digest(&self.tree)?.as_bytes());
        for (path, stated) in &self.stated {
            text(&mut hasher, path);
            text(&mut hasher, stated.owner.as_bytes());
            text(&mut hasher, stated.group.as_bytes());
            if let Some(capabilities) = stated.capabilities {
                text(&mut hasher, &capabilities.to_bytes());
            }
        }
        Ok(hasher.finish())
    }

    fn empty(name: &str, epoch: i64) -> Self {
        let mut tree = Tree::new(epoch);
        let origin = tree.origin(name);
        let root = tree.root();
        tree.node_mut(root).origin = origin;
        Self { tree, stated: BTreeMap::new(), left_out: Vec::new(), opened: Vec::new() }
    }

    fn put(&mut self, path: &[u8], mode: u16, kind: Kind) -> Result<(), TreeError> {
        let origin = self.tree.node(self.tree.root()).origin;
        let meta = Meta::new(mode).at(self.tree.epoch);
        self.tree.put(path, meta, kind, origin).map(drop)
    }

    fn folder(
        &mut self,
        folder: &Path,
        below: &mut Vec<u8>,
        named: &BTreeSet<Vec<u8>>,
        whole: bool,
        size: &mut FolderSize,
    ) -> Result<(), OverlayError> {
        let mut entries = fs::read_dir(folder)
            .and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
            })
            .map_err(failed(folder))?;
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap_or_default().as_bytes();
            if below.is_empty() && name == META.as_bytes() {
                continue;
            }
            let above = below.len();
            if above > 0 {
                below.push(b'/');
            }
            below.extend_from_slice(name);
            let kept = whole || named.contains(&below[..]);
            if name == GITKEEP && !kept {
                below.truncate(above);
                continue;
            }
            let metadata = fs::symlink_metadata(&path).map_err(failed(&path))?;
            let kind = metadata.file_type();
            size.add(below)?;
            if litter::is_litter(name) && !kept {
                self.left_out.push((below.clone(), usual_mode(&metadata)));
                below.truncate(above);
                continue;
            }
            let on_disk = (metadata.permissions().mode() & 0o7777) as u16;
            let special = kind.is_file() && on_disk & SPECIAL != 0;
            if special || (!kind.is_symlink() && on_disk & READ_BY_ALL == 0) {
                self.opened.push((below.clone(), on_disk));
            }
            if kind.is_dir() {
                self.put(below, usual_mode(&metadata), Kind::Directory(BTreeMap::new()))?;
                self.folder(&path, below, named, whole || (kept && litter::is_litter(name)), size)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(failed(&path))?;
                let kind = Kind::Symlink(target.as_os_str().as_bytes().to_vec());
                self.put(below, usual_mode(&metadata), kind)?;
            } else if kind.is_file() {
                let mode = usual_mode(&metadata);
                let content = size.content(&path, &metadata).map_err(failed(&path))?;
                self.put(below, mode, Kind::File(content))?;
            } else {
                return Err(OverlayError::Special { path });
            }
            below.truncate(above);
        }
        Ok(())
    }

    fn state(&mut self, text: &str, file: &Path) -> Result<(), OverlayError> {
        for (index, line) in text.lines().enumerate() {
            let at = |source| OverlayError::Meta { file: file.to_owned(), line: index + 1, source };
            match Line::parse(line).map_err(at)? {
                None => {}
                Some(Line::Link { path, target }) => {
                    if self.tree.exists(&path) {
                        return Err(at(MetaError::Exists { path }));
                    }
                    self.put(path.as_bytes(), 0o777, Kind::Symlink(target.into_bytes()))?;
                }
                Some(Line::Stated { path, directory, stated }) => {
                    let path = path.trim_matches('/').as_bytes().to_vec();
                    if directory && !self.tree.exists(&path) {
                        self.put(&path, stated.mode, Kind::Directory(BTreeMap::new()))?;
                    }
                    let id =
                        self.tree.lookup(&path).ok_or_else(|| at(MetaError::Absent { path: show(&path) }))?;
                    let node = self.tree.node_mut(id);
                    stated.judge(&show(&path), &node.kind, directory).map_err(at)?;
                    node.meta.mode = stated.mode;
                    if self.stated.insert(path.clone(), stated).is_some() {
                        return Err(at(MetaError::Exists { path: show(&path) }));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a file, directory or link of a disk gets: of its mode only the owner's execute bit counts.
fn usual_mode(metadata: &fs::Metadata) -> u16 {
    match metadata.file_type() {
        kind if kind.is_symlink() => 0o777,
        kind if kind.is_file() && metadata.permissions().mode() & u32::from(EXECUTE) == 0 => 0o644,
        _ => 0o755,
    }
}

/// What a directory on disk has so far.
#[derive(Default)]
struct FolderSize {
    nodes: usize,
    names: u64,
    /// Bytes of files in memory.
    held: u64,
    /// Bytes of all files that take no room on the disk.
    holes: u64,
}

impl FolderSize {
    /// Counts one more name.
    fn add(&mut self, path: &[u8]) -> Result<(), TreeError> {
        (self.nodes, self.names) = (self.nodes + 1, self.names + path.len() as u64);
        let shown = || show(path);
        if path.iter().filter(|byte| **byte == b'/').count() > limits::DEPTH {
            return Err(TreeError::TooDeep { path: shown(), limit: limits::DEPTH });
        }
        if self.nodes > limits::NODES {
            return Err(TreeError::TooMany { path: shown(), limit: limits::NODES });
        }
        match self.names > limits::NAMES {
            true => Err(TreeError::TooLong { path: shown(), limit: limits::NAMES }),
            false => Ok(()),
        }
    }

    fn content(&mut self, path: &Path, metadata: &fs::Metadata) -> io::Result<Content> {
        let len = metadata.len();
        self.holes = self.holes.saturating_add(holes(metadata));
        if self.holes > limits::HOLES {
            let most = Size(limits::HOLES).human();
            let text = format!("with it, more than {most} of the overlay are holes: leave some files out");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if len > limits::SMALL_FILE || self.held + len > limits::HELD {
            return Content::foreign(path);
        }
        self.held += len;
        match input::read(path, limits::SMALL_FILE) {
            // It has grown since.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Content::foreign(path),
            read => Ok(read?.into()),
        }
    }
}

/// Names a tree's content: paths, types, modes, owners by number, attributes, links and bytes. Times and
/// origins do not count.
///
/// # Errors
/// Of the disk under the bodies.
pub fn digest(tree: &Tree) -> io::Result<Digest> {
    let files = tree.walk().into_iter().filter_map(|(_, id)| match &tree.node(id).kind {
        Kind::File(content) => Some((id, content)),
        _ => None,
    });
    let files: BTreeMap<_, _> = files.collect();
    let digests: BTreeMap<_, _> =
        files.into_par_iter().map(|(id, content)| Ok((id, content.digest()?))).collect::<io::Result<_>>()?;
    let mut hasher = Hasher::new();
    let mut first: BTreeMap<_, Vec<u8>> = BTreeMap::new();
    for (path, id) in tree.walk() {
        let node = tree.node(id);
        text(&mut hasher, &path);
        if let Some(known) = first.get(&id) {
            hasher.update(b"h");
            text(&mut hasher, known);
            continue;
        }
        hasher.update([node.kind.letter() as u8]);
        for number in [u32::from(node.meta.mode), node.meta.uid, node.meta.gid] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update((node.meta.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &node.meta.xattrs {
            text(&mut hasher, name);
            text(&mut hasher, value);
        }
        match &node.kind {
            Kind::File(_) => hasher.update(digests[&id].as_bytes()),
            Kind::Symlink(target) => text(&mut hasher, target),
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                hasher.update(major.to_le_bytes());
                hasher.update(minor.to_le_bytes());
            }
            Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        }
        first.insert(id, path);
    }
    Ok(hasher.finish())
}

/// Takes in bytes after their length, so that no two sequences look alike.
fn text(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests;
