//! What the volumes of a container hide of its image, or add to it: known on the node alone.

use crate::manifest::Container;
use crate::rootfs::tmpfiles::shipped::{Links, absolute, real, real_until};
use crate::tree::{NodeId, Tree};

/// Where volumes are mounted in an image, by their real paths.
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<Vec<u8>>);

/// What is at a path of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// This, of the image.
    Node(NodeId),
    /// Nothing.
    Nothing,
    /// Whatever the volume has that the path leads through.
    Volume,
}

impl Mounts {
    /// Those of `container`, whose image is `tree`: the engine mounts at what links lead to.
    pub fn of(tree: &Tree, container: &Container) -> Self {
        let place = |path: &String| absolute(&real(tree, &Links::new(), path.as_bytes()));
        Self(container.volumes.iter().map(|volume| place(&volume.container)).collect())
    }

    /// Follows `path` and every link on it, from the root.
    pub fn look(&self, tree: &Tree, path: &[u8]) -> There {
        let is_mount = |here: &[u8]| self.0.iter().any(|mount| mount == here);
        match real_until(tree, &Links::new(), path, &is_mount) {
            None => There::Volume,
            Some(parts) => tree.lookup(absolute(&parts)).map_or(There::Nothing, There::Node),
        }
    }

    /// Whether `path` leads into a volume.
    pub fn cover(&self, tree: &Tree, path: &[u8]) -> bool {
        !self.0.is_empty() && self.look(tree, path) == There::Volume
    }

    /// Whether a volume may have the program `name`, which is searched in `folders` where it is not a path.
    pub fn cover_program(&self, tree: &Tree, name: &str, folders: &[&str]) -> bool {
        match name.contains('/') {
            true => self.cover(tree, name.as_bytes()),
            false => folders.iter().any(|folder| self.cover(tree, format!("{folder}/{name}").as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_links_into_volumes() {
        let mut tree = Tree::new(0);
        tree.file("data/bin/app", 0o755, "").unwrap();
        tree.file("usr/bin/app", 0o755, "").unwrap();
        tree.symlink("data/own", "/usr/bin").unwrap();
        for (path, target) in [
            ("usr/bin/direct", "/data/bin/app"),
            ("usr/bin/relative", "../../data/nosuch"),
            ("usr/bin/twice", "direct"),
            ("usr/bin/out", "/data/own/app"),
            ("usr/bin/back", "/datax/../usr/bin/app"),
            ("usr/bin/circle", "circle"),
            ("bin", "usr/bin"),
            ("srv", "usr/srv"),
        ] {
            tree.symlink(path, target).unwrap();
        }
        let mounts = Mounts(vec![b"/data".to_vec(), b"/usr/bin/file".to_vec()]);
        for path in
            ["/data", "/data/bin/app", "/usr/bin/direct", "/bin/relative", "bin/twice", "/usr/bin/out"]
        {
            assert_eq!(mounts.look(&tree, path.as_bytes()), There::Volume, "{path}");
        }
        assert_eq!(mounts.look(&tree, b"/bin/file"), There::Volume);
        let app = There::Node(tree.lookup("usr/bin/app").unwrap());
        assert_eq!(mounts.look(&tree, b"/bin/app"), app);
        assert_eq!(mounts.look(&tree, b"/usr/bin/back"), app);
        for path in ["/nosuch", "/usr/bin/app/x", "/databin"] {
            assert_eq!(mounts.look(&tree, path.as_bytes()), There::Nothing, "{path}");
        }
        assert!(!mounts.cover(&tree, b"/usr/bin/circle") && !Mounts::default().cover(&tree, b"/data"));
    }
}
