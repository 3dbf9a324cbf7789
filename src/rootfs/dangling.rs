//! Links that lead nowhere because what they led to was pruned: they go with it.

use super::checks::links::{Destination, destination};
use crate::tree::{Kind, Tree, show};

/// Most names that are told; what else there is is counted.
const TOLD: usize = 3;

/// Paths of the links that lead to something in the tree.
pub fn leading(tree: &Tree) -> Vec<Vec<u8>> {
    let paths = tree.walk().into_iter();
    let links = paths.filter(|(_, id)| matches!(tree.node(*id).kind, Kind::Symlink(_))).map(|(path, _)| path);
    links.filter(|path| matches!(destination(tree, path), Destination::Found(_))).collect()
}

/// Removes those of `leading` that lead nowhere now; gives some of their paths and the number of the others.
pub fn remove(tree: &mut Tree, leading: Vec<Vec<u8>>) -> Vec<String> {
    let gone = |path: &Vec<u8>| {
        tree.lookup(path).is_some() && !matches!(destination(tree, path), Destination::Found(_))
    };
    let gone: Vec<Vec<u8>> = leading.into_iter().filter(gone).collect();
    for path in &gone {
        tree.remove(path);
    }
    let mut told: Vec<String> = gone.iter().take(TOLD).map(|path| format!("/{}", show(path))).collect();
    if gone.len() > TOLD {
        told.push(format!("and {} others", gone.len() - TOLD));
    }
    told
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
        assert_eq!(remove(&mut tree, leading), ["/usr/lib/a", "/usr/lib/a2", "/usr/lib/perl"]);
        assert!(["usr/lib/b", "usr/lib/c", "etc/mtab"].iter().all(|path| tree.lookup(path).is_some()));
    }
}
