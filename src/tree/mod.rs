//! A file tree in memory: the one form in which roots, container layers and the ESP exist before bytes.
//!
//! Names are bytes. Directories are ordered by name, so that whatever is written from a tree comes out in
//! one order. A hard link is a second name for the same [`NodeId`].

pub mod content;
mod error;
pub mod from_folder;
pub mod from_tar;
pub mod graft;
pub mod layer;
pub mod merge;
mod node;
pub mod prune;
pub mod to_folder;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use content::{Bodies, Content, NoBodies};
pub use error::TreeError;
pub use node::{Kind, Meta, Node, NodeId, Origin};
pub use walk::Paths;

use crate::base::input::TooLarge;
use crate::base::limits;

/// Origin of the entries of `files`.
pub const FILES_ORIGIN: &str = "files";
/// How the origin of an overlay begins; its name follows. No package has a blank in its name.
pub const OVERLAY_ORIGIN: &str = "overlay ";

/// How many symbolic links one path may cross: the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;

/// Whether the extended attribute `name` may be part of an image: a user's own, or a file's capabilities, which are
/// judged like setuid bits. Of the others, `system.posix_acl_access` grants rights beside the mode, `trusted.overlay.*`
/// hides files, and `security.*` speaks to modules that judge by it.
pub fn is_plain_attribute(name: &[u8]) -> bool {
    name.strip_prefix(b"user.").is_some_and(|rest| !rest.is_empty()) || name == b"security.capability"
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
    /// Steps of all walks so far, with clones: see [`limits::WALKED`].
    walked: Arc<AtomicU64>,
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
        let (read, walked) = (Arc::default(), Arc::default());
        Self { nodes: vec![root], origins, read, walked, layered: 0, epoch }
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
        if self.nodes.len() > limits::ADDED_TO {
            return Err(TreeError::TooMany { path: show(path), limit: limits::ADDED_TO });
        }
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
        if self.is_exhausted() {
            return Err(TreeError::Exhausted { limit: limits::WALKED });
        }
        let mut steps = 0;
        // What was walked counts wherever the walk ends.
        let mut walk = || {
            steps += 1;
            self.step(1);
            steps
        };
        while let Some(part) = pending.pop() {
            names -= usize::from(!part.is_empty());
            if walk() > limits::STEPS {
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

    /// Counts `count` steps of a walk.
    pub(crate) fn step(&self, count: usize) {
        self.walked.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Whether so many steps were walked that each further walk is refused. [`Tree::check_size`] tells of it.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.walked.load(Ordering::Relaxed) > limits::WALKED
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
mod tests;
