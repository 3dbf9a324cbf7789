//! Laying one tree over another, with every conflict named.
//!
//! Directories are shared: the first one's owner and mode hold. A directory that meets a symbolic link to a
//! directory goes where the link leads, so that `./bin/` of a package lands in base-files' `/usr/bin`.
//! Anything else that two trees have at one path is a conflict, unless the tree laid over may replace it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::{Kind, Node, NodeId, Origin, Tree, TreeError, show};

/// A path that two trees have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The path, without leading slash.
    pub path: String,
    /// Whose it was.
    pub first: String,
    /// Who came with it again.
    pub second: String,
    /// Whether one of them is a directory: then nobody can win.
    pub directory: bool,
}

/// All conflicts of one merge.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Paths that two trees have.
    #[error("{}", Conflict::list(.0))]
    Conflicts(Vec<Conflict>),
    /// Symbolic links that lead to themselves, where a directory is needed.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Conflicts that are written out; the rest is counted.
const SHOWN: usize = 20;

impl Conflict {
    /// One conflict as it is; several with a line for each, as long as there are not too many.
    pub fn list(conflicts: &[Self]) -> String {
        if let [one] = conflicts {
            return one.to_string();
        }
        let mut lines: String = conflicts.iter().take(SHOWN).map(|one| format!("\n  {one}")).collect();
        if conflicts.len() > SHOWN {
            lines.push_str(&format!("\n  and {} more", conflicts.len() - SHOWN));
        }
        lines
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, first, second, directory } = self;
        write!(f, "/{path} is in {first} and in {second}")?;
        if *directory { f.write_str(" (a directory and something else)") } else { Ok(()) }
    }
}

impl Tree {
    /// Lays `other` over this tree; its nodes keep the names of their origins, bodies are shared. Of two files
    /// that have one path, that of `other` stays where it `replaces`; else they are a conflict.
    ///
    /// # Errors
    /// `Conflicts` with all of them; the tree then has everything of `other` that did not conflict.
    pub fn merge(&mut self, other: &Tree, replaces: bool) -> Result<(), MergeError> {
        let origins = other.origins.iter().map(|name| self.origin(name)).collect();
        let mut merge =
            Merge { tree: self, other, replaces, origins, copies: HashMap::new(), conflicts: Vec::new() };
        let root = merge.tree.root();
        merge.directory(other.root(), root, &mut Vec::new())?;
        if merge.conflicts.is_empty() { Ok(()) } else { Err(MergeError::Conflicts(merge.conflicts)) }
    }
}

struct Merge<'a> {
    tree: &'a mut Tree,
    other: &'a Tree,
    replaces: bool,
    /// Of `other`, by their index there.
    origins: Vec<Origin>,
    /// Nodes of `other` that are in the tree already: further names are hard links.
    copies: HashMap<NodeId, NodeId>,
    conflicts: Vec<Conflict>,
}

impl Merge<'_> {
    fn directory(&mut self, from: NodeId, to: NodeId, path: &mut Vec<u8>) -> Result<(), TreeError> {
        let other = self.other;
        for (name, id) in other.children(from) {
            let above = path.len();
            if above > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            self.name(id, to, name, path)?;
            path.truncate(above);
        }
        Ok(())
    }

    fn name(&mut self, id: NodeId, parent: NodeId, name: &[u8], path: &mut Vec<u8>) -> Result<(), TreeError> {
        let node = self.other.node(id);
        let is_directory = matches!(node.kind, Kind::Directory(_));
        let Some(existing) = self.tree.child(parent, name) else {
            let copy = self.copy(id);
            self.tree.set_child(parent, name.to_vec(), copy);
            return if is_directory { self.directory(id, copy, path) } else { Ok(()) };
        };
        let shared = self.shared(existing, path)?;
        if is_directory && let Some(target) = shared {
            return self.directory(id, target, path);
        }
        let directory = is_directory || matches!(self.tree.node(existing).kind, Kind::Directory(_));
        if self.replaces && !directory {
            let copy = self.copy(id);
            self.tree.set_child(parent, name.to_vec(), copy);
            return Ok(());
        }
        self.conflicts.push(Conflict {
            path: show(path),
            first: self.tree.origin_name(self.tree.node(existing).origin).to_owned(),
            second: self.other.origin_name(node.origin).to_owned(),
            directory,
        });
        Ok(())
    }

    /// The directory that `existing` is or, as a link, leads to.
    fn shared(&self, existing: NodeId, path: &[u8]) -> Result<Option<NodeId>, TreeError> {
        let found = match self.tree.node(existing).kind {
            Kind::Directory(_) => existing,
            Kind::Symlink(_) => match self.tree.resolve(path) {
                Ok(target) => target,
                Err(TreeError::NotFound { .. } | TreeError::NotDirectory { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
            _ => return Ok(None),
        };
        Ok(matches!(self.tree.node(found).kind, Kind::Directory(_)).then_some(found))
    }

    fn copy(&mut self, id: NodeId) -> NodeId {
        if let Some(copy) = self.copies.get(&id) {
            return *copy;
        }
        let node = self.other.node(id);
        let kind = match &node.kind {
            Kind::Directory(_) => Kind::Directory(BTreeMap::new()),
            kind => kind.clone(),
        };
        let origin = self.origins[node.origin.0 as usize];
        let copy = self.tree.add(Node { meta: node.meta.clone(), kind, origin });
        self.copies.insert(id, copy);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::super::Meta;
    use super::*;

    fn tree(origin: &str, paths: &[&str]) -> Tree {
        let mut tree = Tree::new(0);
        let origin = tree.origin(origin);
        for path in paths {
            let (path, kind) = match path.split_once(" -> ") {
                Some((path, target)) => (path, Kind::Symlink(target.into())),
                None if path.ends_with('/') => (*path, Kind::Directory(BTreeMap::new())),
                None => (*path, Kind::File(path.as_bytes().to_vec().into())),
            };
            tree.put(path, Meta::new(0o755), kind, origin).unwrap();
        }
        tree
    }

    fn conflicts(result: Result<(), MergeError>) -> Vec<String> {
        match result {
            Err(MergeError::Conflicts(found)) => found.into_iter().map(|found| found.path).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn directories_follow_links_of_the_tree_below() {
        let mut root = tree("base-files", &["usr/bin/", "usr/lib/", "bin -> usr/bin", "lib -> usr/lib"]);
        root.merge(&tree("dash", &["bin/sh", "lib/x/y"]), false).unwrap();
        assert_eq!(root.read("usr/bin/sh").unwrap(), b"bin/sh");
        assert!(root.exists("usr/lib/x/y"));
        let error = root.merge(&tree("bash", &["usr/bin/sh"]), false).unwrap_err();
        assert_eq!(error.to_string(), "/usr/bin/sh is in dash and in bash");
    }

    #[test]
    fn all_conflicts_at_once_and_directories_never_win() {
        let mut root = tree("a", &["x", "y", "d/z"]);
        assert_eq!(conflicts(root.clone().merge(&tree("b", &["x", "y"]), false)), ["x", "y"]);
        assert_eq!(conflicts(root.clone().merge(&tree("b", &["x/"]), true)), ["x"]);
        assert_eq!(conflicts(root.clone().merge(&tree("b", &["d"]), true)), ["d"]);
        root.merge(&tree("b", &["x -> y"]), true).unwrap();
        assert_eq!(root.node(root.lookup("x").unwrap()).kind.letter(), 'l');
    }

    #[test]
    fn hard_links_and_metadata() {
        let mut root = tree("a", &["d/", "first"]);
        let mut other = tree("b", &["d/x"]);
        let id = other.lookup("d/x").unwrap();
        other.link("first", id).unwrap();
        other.link("y", id).unwrap();
        other.node_mut(other.lookup("d").unwrap()).meta.mode = 0o700;
        root.merge(&other, true).unwrap();
        assert_eq!(root.lookup("d/x"), root.lookup("y"));
        assert_eq!(root.lookup("d/x"), root.lookup("first"));
        assert_eq!(root.node(root.lookup("d").unwrap()).meta.mode, 0o755);
    }
}
