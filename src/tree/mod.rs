//! A file tree in memory: the one form in which roots, container layers and the ESP exist before bytes.
//!
//! Names are bytes. Directories are ordered by name, so that whatever is written from a tree comes out in
//! one order. A hard link is a second name for the same [`NodeId`].

pub mod content;
pub mod from_folder;
pub mod from_tar;
pub mod graft;
pub mod layer;
pub mod merge;
pub mod prune;
pub mod to_folder;

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use content::{Bodies, Content, NoBodies};

use crate::base::input::TooLarge;
use crate::base::{Size, limits};

/// Names a node of one [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// A number from 0 to [`Tree::capacity`], for tables beside the tree.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Names who put a node into a tree: a package, an overlay, the builder. See [`Tree::origin_name`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(u16);

/// Origin of the entries of `files`.
pub const FILES_ORIGIN: &str = "files";
/// How the origin of an overlay begins; its name follows. No package has a blank in its name.
pub const OVERLAY_ORIGIN: &str = "overlay ";

/// What `stat` says of a node besides its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Extended attributes by their full names, e.g. `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// Owned by root, without extended attributes, at time 0.
    pub fn new(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
    }

    /// The same with another owner and group.
    pub fn owned(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }

    /// The same with another time.
    pub fn at(self, mtime: i64) -> Self {
        Self { mtime, ..self }
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Children by name; a name is not empty, not `.` or `..`, and has no `/` and no NUL.
    Directory(BTreeMap<Vec<u8>, NodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link and its target as written.
    Symlink(Vec<u8>),
    /// Major and minor number.
    CharDevice(u32, u32),
    /// Major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// The type as `ls -l` writes it.
    pub fn letter(&self) -> char {
        match self {
            Self::Directory(_) => 'd',
            Self::File(_) => '-',
            Self::Symlink(_) => 'l',
            Self::CharDevice(..) => 'c',
            Self::BlockDevice(..) => 'b',
            Self::Fifo => 'p',
            Self::Socket => 's',
        }
    }
}

/// One inode.
#[derive(Clone, Debug)]
pub struct Node {
    /// Owner, mode, time, attributes.
    pub meta: Meta,
    /// Type and what goes with it.
    pub kind: Kind,
    /// Who put it there.
    pub origin: Origin,
}

/// Why a tree could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A path that climbs out of the tree, or has an empty or NUL-carrying part.
    #[error("unsafe path {path:?}")]
    UnsafePath {
        /// The path as given.
        path: String,
    },
    /// Two sources want one path.
    #[error("{path} is in {first} and in {second}")]
    Conflict {
        /// The path.
        path: String,
        /// Who has it already.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// A part of the path is no directory.
    #[error("{path} is not a directory")]
    NotDirectory {
        /// The part that is none.
        path: String,
    },
    /// Nothing is there.
    #[error("{path} does not exist in the tree")]
    NotFound {
        /// The path.
        path: String,
    },
    /// Links that lead a long way round.
    #[error("{path} leads over more than {limit} directories and links")]
    TooFar {
        /// The path.
        path: String,
        /// [`limits::STEPS`].
        limit: usize,
    },
    /// Links that lead to themselves.
    #[error("too many symbolic links at {path}")]
    LinkLoop {
        /// Where it was given up.
        path: String,
    },
    /// A path below more directories than are walked.
    #[error("{path} lies below more than {limit} directories")]
    TooDeep {
        /// The path, cut short.
        path: String,
        /// [`limits::DEPTH`].
        limit: usize,
    },
    /// More files, directories and links than fit into memory.
    #[error(
        "more than {limit} files, directories and links, with {path}: leave some out, or make packages, overlays and \
         images with fewer"
    )]
    TooMany {
        /// The first that is too much.
        path: String,
        /// [`limits::NODES`] or [`limits::ROOT_NODES`].
        limit: usize,
    },
    /// Names that are too long in sum.
    #[error("the paths and attributes in one tree, with {path}, have more than {} together", Size(*.limit).human())]
    TooLong {
        /// The first that is too much.
        path: String,
        /// [`limits::NAMES`] or [`limits::ROOT_NAMES`], in bytes.
        limit: u64,
    },
    /// Files to work with, each of which may be as large as one may be.
    #[error("reading {path}: all files that are read have more than {} together", Size(*.limit).human())]
    TooMuch {
        /// The file.
        path: String,
        /// [`limits::READ`], in bytes.
        limit: u64,
    },
    /// The disk under the content.
    #[error("reading {path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// What the disk said.
        source: std::io::Error,
    },
}

/// How many symbolic links one path may cross: the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;

/// Whether the extended attribute `name` may be part of an image: a user's own, or a file's capabilities, which are
/// judged like setuid bits. Of the others, `system.posix_acl_access` grants rights beside the mode, `trusted.overlay.*`
/// hides files, and `security.*` speaks to modules that judge by it.
pub fn is_plain_attribute(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability"
}

/// Paths for messages.
pub fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Paths for messages, in one line: a name could otherwise pass for a line of the program's own.
pub fn show_line(path: &[u8]) -> String {
    show(path).replace('\n', r"\u{a}")
}

/// A file tree; see the module.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    origins: Vec<String>,
    /// Bytes read by [`Tree::read`] so far, with clones.
    read: Arc<AtomicU64>,
    /// Bytes of paths, targets and attributes that all layers brought.
    layered: u64,
    /// The time of nodes that the builder makes, in seconds since 1970.
    pub epoch: i64,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Tree {
    /// Only a root directory, 0755 root:root. `epoch` is the time of what the builder itself makes.
    pub fn new(epoch: i64) -> Self {
        let root = Node {
            meta: Meta::new(0o755).at(epoch),
            kind: Kind::Directory(BTreeMap::new()),
            origin: Origin(0),
        };
        let origins = vec!["keller".to_owned()];
        Self { nodes: vec![root], origins, read: Arc::default(), layered: 0, epoch }
    }

    /// The root directory.
    pub const fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// Upper bound of [`NodeId::index`]; nodes that were removed still count.
    pub fn capacity(&self) -> usize {
        self.nodes.len()
    }

    /// Makes a name for who adds nodes; the same text gives the same origin.
    pub fn origin(&mut self, name: &str) -> Origin {
        let index = self.origins.iter().position(|known| known == name).unwrap_or_else(|| {
            self.origins.push(name.to_owned());
            self.origins.len() - 1
        });
        Origin(u16::try_from(index).expect("fewer than 65,536 origins"))
    }

    /// The text behind an origin.
    pub fn origin_name(&self, origin: Origin) -> &str {
        &self.origins[origin.0 as usize]
    }

    /// Whether the node `id` is of the user's own overlays and `files`, as against packages.
    pub fn is_users(&self, id: NodeId) -> bool {
        let origin = self.origin_name(self.node(id).origin);
        origin == FILES_ORIGIN || origin.starts_with(OVERLAY_ORIGIN)
    }

    /// The node `id`.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The node `id`, to change.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// Children of a directory by name; nothing for any other kind.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        let children = match &self.node(id).kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        };
        children.into_iter().flatten().map(|(name, id)| (name.as_slice(), *id))
    }

    /// The node at `path`; links on the way are followed inside the tree, a link at its end is not.
    pub fn lookup(&self, path: impl AsRef<[u8]>) -> Option<NodeId> {
        self.walk_to(path.as_ref(), false).ok()
    }

    /// The node at `path`, with a link at its end followed too, as a program on the node would see it.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory` or `LinkLoop`.
    pub fn resolve(&self, path: impl AsRef<[u8]>) -> Result<NodeId, TreeError> {
        self.walk_to(path.as_ref(), true)
    }

    /// The whole content of the regular file at `path`, links followed.
    ///
    /// Such files are read whole to work with them, and may come from anybody: one has at most
    /// [`limits::CONFIGURATION`] bytes, and all together, each time anew, [`limits::READ`].
    ///
    /// # Errors
    /// Those of [`Tree::resolve`], `Io`, `TooMuch`.
    pub fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, TreeError> {
        let path = path.as_ref();
        match &self.node(self.resolve(path)?).kind {
            Kind::File(content) => self.content(content, &show(path)),
            _ => Err(TreeError::NotFound { path: show(path) }),
        }
    }

    /// As [`Tree::read`]; nothing where a path leads to nothing that could be read: no such file, a link that leads
    /// nowhere, a directory.
    ///
    /// # Errors
    /// Those of a file that is there, and cannot be read or is too large.
    pub fn read_if_there(&self, path: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, TreeError> {
        match self.read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(TreeError::NotFound { .. } | TreeError::NotDirectory { .. } | TreeError::LinkLoop { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Tree::read`], of a file's `content` that is at hand; `path` is for messages.
    ///
    /// # Errors
    /// `Io`, `TooMuch`.
    pub fn content(&self, content: &Content, path: &str) -> Result<Vec<u8>, TreeError> {
        let failed = |source| TreeError::Io { path: path.to_owned(), source };
        if content.len() > limits::CONFIGURATION {
            return Err(failed(TooLarge { limit: limits::CONFIGURATION }.into()));
        }
        if self.read.fetch_add(content.len(), Ordering::Relaxed) + content.len() > limits::READ {
            return Err(TreeError::TooMuch { path: path.to_owned(), limit: limits::READ });
        }
        content.to_vec().map_err(failed)
    }

    /// Whether something, links at the end not followed, is at `path`.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> bool {
        self.lookup(path).is_some()
    }

    /// Every node by every name it has, parents before children, ordered by name; the root comes first
    /// as an empty path. Paths have no leading slash.
    pub fn walk(&self) -> Vec<(Vec<u8>, NodeId)> {
        let mut found = Vec::with_capacity(self.nodes.len());
        self.visit(&mut |path, id| found.push((path.to_vec(), id)));
        found
    }

    /// Calls `each` with all that [`Tree::walk`] gives. Of a tree with hundreds of thousands of names, all paths at once
    /// would take more memory than the tree.
    pub fn visit(&self, each: &mut dyn FnMut(&[u8], NodeId)) {
        let mut paths = self.paths();
        while let Some((path, id)) = paths.next() {
            each(path, id);
        }
    }

    /// As [`Tree::visit`], one path after the other.
    pub fn paths(&self) -> Paths<'_> {
        Paths { tree: self, path: Vec::new(), open: Vec::new(), is_begun: false }
    }

    /// How many names each node has, by [`NodeId::index`]; 0 for nodes that were removed. Directories
    /// count one for each name in a parent only, without `.` and `..`.
    pub fn link_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.nodes.len()];
        self.visit(&mut |_, id| counts[id.index()] += 1);
        counts
    }

    /// Forgets nodes that have no name any more, and says how many are left. Any [`NodeId`] from before is of no use.
    pub fn forget_unnamed(&mut self) -> usize {
        let counts = self.link_counts();
        let mut next = 0;
        let ids: Vec<NodeId> = counts
            .iter()
            .map(|count| {
                let id = NodeId(next);
                next += u32::from(*count > 0);
                id
            })
            .collect();
        let mut counts = counts.iter();
        self.nodes.retain(|_| counts.next().is_some_and(|count| *count > 0));
        for node in &mut self.nodes {
            if let Kind::Directory(children) = &mut node.kind {
                children.values_mut().for_each(|id| *id = ids[id.index()]);
            }
        }
        self.nodes.shrink_to_fit();
        self.nodes.len()
    }

    /// Puts a new node at `path`, replacing what is there (a directory only by a directory, which keeps
    /// its children). Missing parents are made as 0755 root:root of the same origin.
    pub fn put(
        &mut self,
        path: impl AsRef<[u8]>,
        meta: Meta,
        kind: Kind,
        origin: Origin,
    ) -> Result<NodeId, TreeError> {
        let path = path.as_ref();
        let Some((parent, name)) = self.parent_of(path, origin)? else {
            self.node_mut(self.root()).meta = meta;
            return Ok(self.root());
        };
        if let Some(existing) = self.child(parent, &name) {
            let old_is_directory = matches!(self.node(existing).kind, Kind::Directory(_));
            let new_is_directory = matches!(kind, Kind::Directory(_));
            match (old_is_directory, new_is_directory) {
                (true, true) => {
                    let node = self.node_mut(existing);
                    node.meta = meta;
                    node.origin = origin;
                    return Ok(existing);
                }
                (true, false) if self.children(existing).next().is_some() => {
                    return Err(TreeError::Conflict {
                        path: show(path),
                        first: format!(
                            "{} (a directory with content)",
                            self.origin_name(self.node(existing).origin)
                        ),
                        second: self.origin_name(origin).to_owned(),
                    });
                }
                _ => {}
            }
        }
        let id = self.add(Node { meta, kind, origin });
        self.set_child(parent, name, id);
        Ok(id)
    }

    /// Gives the existing node `id` a further name: a hard link.
    pub fn link(&mut self, path: impl AsRef<[u8]>, id: NodeId) -> Result<(), TreeError> {
        let path = path.as_ref();
        let origin = self.node(id).origin;
        let Some((parent, name)) = self.parent_of(path, origin)? else {
            return Err(TreeError::UnsafePath { path: show(path) });
        };
        self.set_child(parent, name, id);
        Ok(())
    }

    /// Takes the name at `path` away, with all below it. Says whether there was one.
    pub fn remove(&mut self, path: impl AsRef<[u8]>) -> bool {
        let Ok(parts) = split(path.as_ref()) else { return false };
        let Some((name, parents)) = parts.split_last() else { return false };
        let Ok(parent) = self.walk_to(&parents.join(&b'/'), true) else { return false };
        match &mut self.node_mut(parent).kind {
            Kind::Directory(children) => children.remove(*name).is_some(),
            _ => false,
        }
    }

    /// A regular file made by the builder, root:root, at the tree's epoch. Replaces what is there.
    pub fn file(
        &mut self,
        path: impl AsRef<[u8]>,
        mode: u16,
        content: impl Into<Content>,
    ) -> Result<NodeId, TreeError> {
        self.put(path, Meta::new(mode).at(self.epoch), Kind::File(content.into()), Origin(0))
    }

    /// A symbolic link made by the builder. Replaces what is there.
    pub fn symlink(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Result<NodeId, TreeError> {
        let kind = Kind::Symlink(target.as_ref().to_vec());
        self.put(path, Meta::new(0o777).at(self.epoch), kind, Origin(0))
    }

    /// A directory made by the builder; one that exists is left as it is.
    pub fn directory(&mut self, path: impl AsRef<[u8]>, mode: u16) -> Result<NodeId, TreeError> {
        if let Ok(id) = self.resolve(&path)
            && matches!(self.node(id).kind, Kind::Directory(_))
        {
            return Ok(id);
        }
        self.put(path, Meta::new(mode).at(self.epoch), Kind::Directory(BTreeMap::new()), Origin(0))
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("fewer than 2^32 nodes"));
        self.nodes.push(node);
        id
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(parent).kind {
            Kind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn set_child(&mut self, parent: NodeId, name: Vec<u8>, id: NodeId) {
        match &mut self.node_mut(parent).kind {
            Kind::Directory(children) => children.insert(name, id),
            _ => unreachable!("parents are directories"),
        };
    }

    /// The directory that holds `path`, made if missing, and the last name; nothing for the root.
    fn parent_of(&mut self, path: &[u8], origin: Origin) -> Result<Option<(NodeId, Vec<u8>)>, TreeError> {
        let parts = split(path)?;
        let Some((name, parents)) = parts.split_last() else { return Ok(None) };
        let shown = |count: usize| format!("/{}", show(&parents[..count].join(&b'/')));
        // From the root to where the walk has come: each part goes on there, so that a path costs as much as it is
        // long.
        let mut trail = vec![self.root()];
        let mut links = 0;
        for (index, part) in parents.iter().enumerate() {
            let parent = *trail.last().expect("the root stays");
            match self.child(parent, part) {
                None => {
                    if index >= limits::DEPTH {
                        return Err(TreeError::TooDeep { path: shown(limits::DEPTH), limit: limits::DEPTH });
                    }
                    let id = self.add(Node {
                        meta: Meta::new(0o755).at(self.epoch),
                        kind: Kind::Directory(BTreeMap::new()),
                        origin,
                    });
                    self.set_child(parent, part.to_vec(), id);
                    trail.push(id);
                }
                Some(_) => {
                    let whole = || shown(index + 1);
                    self.follow(&mut trail, part, true, &mut links, &whole)?;
                    let id = *trail.last().expect("the root stays");
                    if !matches!(self.node(id).kind, Kind::Directory(_)) {
                        return Err(TreeError::NotDirectory { path: whole() });
                    }
                }
            }
        }
        let parent = *trail.last().expect("the root stays");
        if parents.len() > limits::DEPTH {
            return Err(TreeError::TooDeep { path: shown(limits::DEPTH), limit: limits::DEPTH });
        }
        Ok(Some((parent, name.to_vec())))
    }

    fn walk_to(&self, path: &[u8], follow_last: bool) -> Result<NodeId, TreeError> {
        let mut trail = vec![self.root()];
        self.follow(&mut trail, path, follow_last, &mut 0, &|| show(path))?;
        Ok(*trail.last().expect("the root stays"))
    }

    /// Goes on from the end of `trail`, the directories from the root to where a walk has come, along `path`.
    fn follow(
        &self,
        trail: &mut Vec<NodeId>,
        path: &[u8],
        follow_last: bool,
        links: &mut usize,
        whole: &dyn Fn() -> String,
    ) -> Result<(), TreeError> {
        let mut pending: Vec<&[u8]> = path.split(|b| *b == b'/').rev().collect();
        // Parts that are a name; where none is left, a link is the last.
        let mut names = pending.iter().filter(|part| !part.is_empty()).count();
        let mut steps = 0;
        while let Some(part) = pending.pop() {
            names -= usize::from(!part.is_empty());
            steps += 1;
            if steps > limits::STEPS {
                return Err(TreeError::TooFar { path: whole(), limit: limits::STEPS });
            }
            match part {
                b"" | b"." => continue,
                b".." => {
                    if trail.len() > 1 {
                        trail.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let here = *trail.last().expect("the root stays");
            let Kind::Directory(children) = &self.node(here).kind else {
                return Err(TreeError::NotDirectory { path: whole() });
            };
            let Some(&child) = children.get(part) else {
                return Err(TreeError::NotFound { path: whole() });
            };
            match &self.node(child).kind {
                Kind::Symlink(target) if names > 0 || follow_last => {
                    *links += 1;
                    if *links > MAX_LINKS {
                        return Err(TreeError::LinkLoop { path: whole() });
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    let before = pending.len();
                    pending.extend(target.split(|b| *b == b'/').rev());
                    names += pending[before..].iter().filter(|part| !part.is_empty()).count();
                }
                _ => trail.push(child),
            }
        }
        Ok(())
    }

    /// Refuses a tree with more than `most_nodes` names, whose paths have more than `most_names` bytes, or that is deeper
    /// than [`limits::DEPTH`], before something walks it.
    ///
    /// # Errors
    /// `TooDeep`, `TooMany` or `TooLong`.
    pub fn check_size(&self, most_nodes: usize, most_names: u64) -> Result<(), TreeError> {
        let (mut nodes, mut names) = (0, 0);
        // The walk itself is bounded by the first of the limits that is passed.
        let mut pending = vec![(self.root(), 0_u64, 0_usize)];
        while let Some((id, above, depth)) = pending.pop() {
            for (name, child) in self.children(id) {
                let length = above + name.len() as u64 + u64::from(depth > 0);
                // Containers add up here, each of which has as many as one may have.
                let attributes = from_tar::attributes_in_memory(&self.node(child).meta.xattrs);
                (nodes, names) = (nodes + 1, names + length + attributes);
                let path = || show(name);
                if depth > limits::DEPTH {
                    return Err(TreeError::TooDeep { path: path(), limit: limits::DEPTH });
                }
                if nodes > most_nodes {
                    return Err(TreeError::TooMany { path: path(), limit: most_nodes });
                }
                if names > most_names {
                    return Err(TreeError::TooLong { path: path(), limit: most_names });
                }
                pending.push((child, length, depth + 1));
            }
        }
        Ok(())
    }

    /// Puts a new node into the directory `parent`, which has none of this name. A walk that has come to `parent`
    /// already need not begin at the root again.
    pub(crate) fn put_in(&mut self, parent: NodeId, name: &[u8], node: Node) -> NodeId {
        let id = self.add(node);
        self.set_child(parent, name.to_vec(), id);
        id
    }

    /// Gives `id` a name in the directory `parent`.
    pub(crate) fn link_in(&mut self, parent: NodeId, name: &[u8], id: NodeId) {
        self.set_child(parent, name.to_vec(), id);
    }
}

/// A walk over all names of a tree: see [`Tree::paths`].
pub struct Paths<'t> {
    tree: &'t Tree,
    /// Of what came last.
    path: Vec<u8>,
    /// Directories that the walk is in: what is left of each, and how long its path is.
    open: Vec<(btree_map::Iter<'t, Vec<u8>, NodeId>, usize)>,
    is_begun: bool,
}

impl Paths<'_> {
    /// The next path and its node. No iterator's, since the path is overwritten with the next.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Option<(&[u8], NodeId)> {
        if !std::mem::replace(&mut self.is_begun, true) {
            let root = self.tree.root();
            self.enter(root);
            return Some((self.path.as_slice(), root));
        }
        let (name, id) = loop {
            let (left, length) = self.open.last_mut()?;
            self.path.truncate(*length);
            match left.next() {
                Some((name, id)) => break (name, *id),
                None => drop(self.open.pop()),
            }
        };
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.enter(id);
        Some((self.path.as_slice(), id))
    }

    fn enter(&mut self, id: NodeId) {
        if let Kind::Directory(children) = &self.tree.node(id).kind {
            self.open.push((children.iter(), self.path.len()));
        }
    }
}

/// The parts of a path that may be written to: `.` and empty parts are dropped, `..` and NUL refused.
fn split(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(TreeError::UnsafePath { path: show(path) }),
            part if part.contains(&0) => return Err(TreeError::UnsafePath { path: show(path) }),
            part => parts.push(part),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_inside_only() {
        let mut tree = Tree::new(0);
        tree.directory("usr/bin", 0o755).unwrap();
        tree.symlink("bin", "usr/bin").unwrap();
        tree.file("/bin/sh", 0o755, "#!").unwrap();
        assert_eq!(tree.read("usr/bin/sh").unwrap(), b"#!");
        tree.symlink("up", "../../../usr").unwrap();
        assert_eq!(tree.read("up/bin/sh").unwrap(), b"#!");
        tree.symlink("loop", "loop").unwrap();
        assert!(matches!(tree.resolve("loop"), Err(TreeError::LinkLoop { .. })));
        assert!(matches!(tree.file("../x", 0o644, ""), Err(TreeError::UnsafePath { .. })));
        assert!(matches!(tree.file("bin/sh/x", 0o644, ""), Err(TreeError::NotDirectory { .. })));
    }

    #[test]
    fn hard_links_and_walk_order() {
        let mut tree = Tree::new(0);
        let id = tree.file("b/x", 0o644, "1").unwrap();
        tree.link("a", id).unwrap();
        let paths: Vec<_> = tree.walk().into_iter().map(|(path, _)| show(&path)).collect();
        assert_eq!(paths, ["", "a", "b", "b/x"]);
        assert_eq!(tree.link_counts()[id.index()], 2);
        assert!(tree.remove("a") && !tree.remove("a"));
    }

    /// A path of `depth` directories and a file.
    fn deep(depth: usize) -> String {
        "d/".repeat(depth) + "x"
    }

    #[test]
    fn depth_has_a_limit_that_is_named() {
        let mut tree = Tree::new(0);
        tree.file(deep(limits::DEPTH), 0o644, "").unwrap();
        let error = tree.file(deep(limits::DEPTH + 1), 0o644, "").unwrap_err();
        assert!(matches!(error, TreeError::TooDeep { limit: 256, .. }), "{error}");
        assert!(error.to_string().ends_with("lies below more than 256 directories"), "{error}");
        assert!(tree.directory(deep(2000), 0o755).is_err());
        // A link leads down as well.
        tree.symlink("bottom", "d/".repeat(limits::DEPTH)).unwrap();
        assert!(tree.file("bottom/y", 0o644, "").is_ok());
        tree.check_size(limits::NODES, limits::NAMES).unwrap();
        tree.file("bottom/e/f/z", 0o644, "").unwrap();
        assert!(matches!(tree.check_size(limits::NODES, limits::NAMES), Err(TreeError::TooDeep { .. })));
    }

    #[test]
    fn a_walk_has_an_end() {
        let mut tree = Tree::new(0);
        tree.directory("a", 0o755).unwrap();
        // 30 links, each of which goes the same way round 30 times.
        let round = "a/../".repeat(30);
        tree.symlink("l0", format!("{round}a")).unwrap();
        for link in 1..30 {
            tree.symlink(format!("l{link}"), format!("{round}l{}", link - 1)).unwrap();
        }
        assert!(tree.resolve("l9").is_ok());
        let error = tree.resolve("l29").unwrap_err();
        assert_eq!(error.to_string(), "l29 leads over more than 1024 directories and links");
        assert!(tree.lookup("l29/x").is_none() && tree.file("l29/x", 0o644, "").is_err());
    }

    #[test]
    fn parents_are_found_from_where_the_walk_has_come() {
        let mut tree = Tree::new(0);
        tree.directory("usr/lib", 0o755).unwrap();
        tree.symlink("lib", "usr/lib").unwrap();
        tree.symlink("usr/lib/up", "../..").unwrap();
        tree.symlink("usr/lib/root", "/usr").unwrap();
        tree.file("lib/up/lib/root/x", 0o644, "1").unwrap();
        assert_eq!(tree.read("usr/x").unwrap(), b"1");
        tree.symlink("gone", "nowhere").unwrap();
        let told = |result: Result<NodeId, TreeError>| result.unwrap_err().to_string();
        assert_eq!(told(tree.file("lib/up/gone/x", 0o644, "")), "/lib/up/gone does not exist in the tree");
        assert_eq!(told(tree.file("lib/root/x/y", 0o644, "")), "/lib/root/x is not a directory");
    }
}
