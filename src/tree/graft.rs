//! Hanging one tree below a folder of another.

use std::collections::HashMap;

use super::{Kind, NodeId, Origin, Tree, TreeError};

impl Tree {
    /// Copies all of `other`, its root included, to `path`; bodies are shared, hard links stay hard links.
    pub fn graft(&mut self, path: &str, other: &Tree, origin: Origin) -> Result<(), TreeError> {
        let mut copies: HashMap<NodeId, NodeId> = HashMap::new();
        for (below, id) in other.walk() {
            let mut target = path.trim_end_matches('/').as_bytes().to_vec();
            if !below.is_empty() {
                target.push(b'/');
                target.extend_from_slice(&below);
            }
            let node = other.node(id);
            let kind = match &node.kind {
                Kind::Directory(_) => Kind::Directory(Default::default()),
                kind => kind.clone(),
            };
            match copies.get(&id) {
                Some(&copy) => self.link(&target, copy)?,
                None => {
                    let copy = self.put(&target, node.meta.clone(), kind, origin)?;
                    copies.insert(id, copy);
                }
            }
        }
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
        large.graft("usr/c", &small, origin).unwrap();
        assert_eq!(large.lookup("usr/c/a/x"), large.lookup("usr/c/y"));
        let node = large.node(large.lookup("usr/c/y").unwrap());
        assert_eq!((node.meta.uid, node.meta.gid, large.origin_name(node.origin)), (3, 4, "container"));
        assert_eq!(large.lookup("usr/c/bin/x"), large.lookup("usr/c/y"));
    }
}
