//! A walk over all names of a tree.

use std::collections::btree_map;

use super::node::{Kind, NodeId};
use super::{Tree, TreeError, from_tar, show};
use crate::base::limits;

impl Tree {
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

    /// Refuses a tree in which paths have been followed so far that from some moment on nothing was found any more.
    ///
    /// # Errors
    /// `Exhausted`.
    pub fn check_walks(&self) -> Result<(), TreeError> {
        if self.is_exhausted() {
            return Err(TreeError::Exhausted { limit: limits::WALKED });
        }
        Ok(())
    }

    /// Refuses a tree with more than `most_nodes` names, whose paths have more than `most_names` bytes, or that is deeper
    /// than [`limits::DEPTH`], before something walks it.
    ///
    /// # Errors
    /// `TooDeep`, `TooMany` or `TooLong`.
    pub fn check_size(&self, most_nodes: usize, most_names: u64) -> Result<(), TreeError> {
        self.check_walks()?;
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
