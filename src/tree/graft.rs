//! Hanging one tree below a directory of another.

use std::sync::atomic::Ordering;

use super::{Kind, NodeId, Origin, Tree, TreeError, show};

impl Tree {
    /// Moves all of `other`, its root included, to `path`, where nothing is: names, bodies and hard links stay as they
    /// are, and no node is there twice, which of a large image would take much memory.
    ///
    /// # Errors
    /// `Conflict` where something is at `path`, and those of [`Tree::put`].
    pub fn graft(&mut self, path: &str, mut other: Tree, origin: Origin) -> Result<(), TreeError> {
        let Some((parent, name)) = self.parent_of(path.as_bytes(), origin)? else {
            return Err(TreeError::UnsafePath { path: path.to_owned() });
        };
        if let Some(existing) = self.child(parent, &name) {
            return Err(TreeError::Conflict {
                path: show(path.as_bytes()),
                first: self.origin_name(self.node(existing).origin).to_owned(),
                second: self.origin_name(origin).to_owned(),
            });
        }
        other.forget_unnamed();
        self.walked.fetch_add(other.walked.load(Ordering::Relaxed), Ordering::Relaxed);
        let above = self.nodes.len();
        let moved = |id: NodeId| NodeId(u32::try_from(above + id.index()).expect("fewer than 2^32 nodes"));
        let root = moved(other.root());
        self.nodes.reserve_exact(other.nodes.len());
        for mut node in other.nodes {
            if let Kind::Directory(children) = &mut node.kind {
                children.values_mut().for_each(|id| *id = moved(*id));
            }
            node.origin = origin;
            self.nodes.push(node);
        }
        self.set_child(parent, name, root);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Meta;
    use super::*;

    #[test]
    fn keeps_links_and_owners() {
        let mut small = Tree::new(7);
        let id = small.file("a/x", 0o640, "1").unwrap();
        small.node_mut(id).meta = Meta::new(0o640).owned(3, 4);
        small.link("y", id).unwrap();
        small.symlink("bin", "a").unwrap();
        let mut large = Tree::new(0);
        let origin = large.origin("container");
        // What was replaced stays behind.
        small.file("a/y", 0o640, "1").unwrap();
        small.file("a/y", 0o640, "2").unwrap();
        let before = large.capacity();
        large.graft("usr/c", small.clone(), origin).unwrap();
        assert_eq!(large.capacity(), before + 1 + 5, "usr, and what has a name in the other tree");
        assert_eq!(large.read("usr/c/a/y").unwrap(), b"2");
        assert_eq!(large.lookup("usr/c/a/x"), large.lookup("usr/c/y"));
        let node = large.node(large.lookup("usr/c/y").unwrap());
        assert_eq!((node.meta.uid, node.meta.gid, large.origin_name(node.origin)), (3, 4, "container"));
        assert_eq!(large.lookup("usr/c/bin/x"), large.lookup("usr/c/y"));
        let error = large.graft("usr/c", small, origin).unwrap_err();
        assert_eq!(error.to_string(), "usr/c is in container and in container");
    }
}
