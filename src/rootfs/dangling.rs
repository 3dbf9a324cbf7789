//! Links that lead nowhere because what they led to was pruned: they go with it, unless an overlay or `files`
//! brings back what they lead to.

use super::checks::links::{Destination, destination};
use crate::tree::{Kind, NodeId, Tree, TreeError, show};

/// Most names that are told; what else there is is counted.
const TOLD: usize = 3;

/// Paths of the links that lead to something in the tree.
pub fn leading(tree: &Tree) -> Vec<Vec<u8>> {
    let paths = tree.walk().into_iter();
    let links = paths.filter(|(_, id)| matches!(tree.node(*id).kind, Kind::Symlink(_))).map(|(path, _)| path);
    links.filter(|path| matches!(destination(tree, path), Destination::Found(_))).collect()
}

/// Links that were taken out because they lead nowhere.
#[derive(Debug, Default)]
pub struct LeftOut(Vec<Link>);

#[derive(Debug)]
struct Link {
    path: Vec<u8>,
    /// The directory that had it.
    parent: Option<NodeId>,
    node: NodeId,
    /// Where it leads, over other links too.
    target: Vec<u8>,
}

impl LeftOut {
    /// Takes those of `leading` out of the tree that lead nowhere now.
    pub fn take(tree: &mut Tree, leading: Vec<Vec<u8>>) -> Self {
        let lost = |path: Vec<u8>| {
            let node = tree.lookup(&path)?;
            let target = match destination(tree, &path) {
                Destination::Found(_) => return None,
                Destination::Missing(target) => target,
                // What led somewhere does so in no circle, and by no way that is too long.
                Destination::Loop | Destination::Far => Vec::new(),
            };
            Some(Link { parent: tree.lookup(above(&path)), path, node, target })
        };
        let lost: Vec<Link> = leading.into_iter().filter_map(lost).collect();
        for link in &lost {
            tree.remove(&link.path);
        }
        Self(lost)
    }

    /// Puts back the links that lead somewhere again, where nothing else took their place.
    ///
    /// # Errors
    /// Those of [`Tree::link`], which no path that the tree had itself gives.
    pub fn put_back(&mut self, tree: &mut Tree) -> Result<(), TreeError> {
        let free = |tree: &Tree, link: &Link| {
            // The directory may have become a link to another one since.
            tree.lookup(above(&link.path)) == link.parent && tree.lookup(&link.path).is_none()
        };
        let (free, taken): (Vec<_>, Vec<_>) = self.0.drain(..).partition(|link| free(tree, link));
        // All at once first, as a link may lead to another.
        for link in &free {
            tree.link(&link.path, link.node)?;
        }
        let leads = |link: &Link| matches!(destination(tree, &link.path), Destination::Found(_));
        let lost: Vec<_> = free.into_iter().filter(|link| !leads(link)).collect();
        for link in &lost {
            tree.remove(&link.path);
        }
        self.0 = taken.into_iter().chain(lost).collect();
        self.0.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(())
    }

    /// Their paths, and what each led to.
    pub fn links(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.0.iter().map(|link| (link.path.clone(), link.target.clone())).collect()
    }

    /// Some of their paths and the number of the others.
    pub fn told(&self) -> Vec<String> {
        let mut told: Vec<String> =
            self.0.iter().take(TOLD).map(|link| format!("/{}", show(&link.path))).collect();
        if self.0.len() > TOLD {
            told.push(format!("and {} others", self.0.len() - TOLD));
        }
        told
    }
}

/// The path of the directory that has `path`.
fn above(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    &path[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::prune::Patterns;

    #[test]
    fn links_go_with_what_they_led_to() {
        let mut tree = Tree::new(0);
        tree.file("usr/share/perl5/a", 0o644, "").unwrap();
        tree.file("usr/bin/b", 0o755, "").unwrap();
        for (path, target) in [
            ("usr/lib/a", "../share/perl5/a"),
            ("usr/lib/a2", "a"),
            ("usr/lib/perl", "/usr/share/perl5"),
            ("usr/lib/b", "/usr/bin/b"),
            ("usr/lib/c", "/usr/bin/c"),
            ("etc/mtab", "../proc/self/mounts"),
        ] {
            tree.symlink(path, target).unwrap();
        }
        let leading = leading(&tree);
        tree.prune(&Patterns::new(&["/usr/share/perl5".into()], &[]).unwrap());
        let left_out = LeftOut::take(&mut tree, leading);
        assert_eq!(left_out.told(), ["/usr/lib/a", "/usr/lib/a2", "/usr/lib/perl"]);
        assert!(["usr/lib/a", "usr/lib/a2", "usr/lib/perl"].iter().all(|path| tree.lookup(path).is_none()));
        assert!(["usr/lib/b", "usr/lib/c", "etc/mtab"].iter().all(|path| tree.lookup(path).is_some()));
    }

    #[test]
    fn links_come_back_with_what_they_lead_to() {
        let mut tree = Tree::new(0);
        for path in ["usr/share/a/a", "usr/share/b/b", "usr/share/c/c", "usr/share/d", "usr/share/e"] {
            tree.file(path, 0o644, "").unwrap();
        }
        for (path, target) in [
            ("top", "usr/share/a/a"),
            ("usr/lib/a2", "a"),
            ("usr/lib/a", "../share/a/a"),
            ("usr/lib/b", "/usr/share/b"),
            ("usr/lib/c", "/usr/share/c"),
            ("usr/lib/only/d", "/usr/share/d"),
            ("usr/lib/e", "/usr/share/e"),
        ] {
            tree.symlink(path, target).unwrap();
        }
        let leading = leading(&tree);
        let node = tree.lookup("usr/lib/a").unwrap();
        tree.prune(&Patterns::new(&["/usr/share".into()], &[]).unwrap());
        let mut left_out = LeftOut::take(&mut tree, leading);
        assert_eq!(left_out.told(), ["/top", "/usr/lib/a", "/usr/lib/a2", "and 4 others"]);

        tree.file("usr/share/a/a", 0o644, "mended").unwrap();
        // What took the place of a link stays, also with what it led to at hand.
        tree.file("usr/lib/b/own", 0o644, "").unwrap();
        tree.file("usr/share/b/b", 0o644, "").unwrap();
        // The directory of a link became a link.
        tree.remove("usr/lib/only");
        tree.symlink("usr/lib/only", "../share").unwrap();
        left_out.put_back(&mut tree).unwrap();
        assert_eq!(left_out.told(), ["/usr/lib/b", "/usr/lib/c", "/usr/lib/e", "and 1 others"]);
        assert_eq!(tree.lookup("usr/lib/a"), Some(node), "with owner, time and origin");
        assert_eq!(tree.read("top").unwrap(), b"mended");
        assert_eq!(tree.read("usr/lib/a2").unwrap(), b"mended");
        assert!(matches!(tree.node(tree.lookup("usr/lib/b").unwrap()).kind, Kind::Directory(_)));

        tree.file("usr/share/d", 0o644, "").unwrap();
        tree.file("usr/share/e", 0o644, "").unwrap();
        left_out.put_back(&mut tree).unwrap();
        assert_eq!(left_out.told(), ["/usr/lib/b", "/usr/lib/c", "/usr/lib/only/d"]);
        assert!(tree.lookup("usr/lib/e").is_some() && tree.lookup("usr/lib/c").is_none());
        assert!(matches!(tree.node(tree.lookup("usr/share/d").unwrap()).kind, Kind::File(_)));
    }
}
