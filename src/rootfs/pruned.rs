//! What `prune` has left out, for messages: where it is the cause of what is missing, they name the pattern, and how
//! to bring the file back.

use std::collections::BTreeMap;

use super::checks::links::{Destination, destination};
use super::checks::programs::Unfit;
use super::services;
use crate::tree::prune::Pruned;
use crate::tree::{Tree, show};

/// How many links one path may cross: the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;

/// Names that a tree had before it was pruned.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    patterns: Vec<String>,
    /// Place in `patterns` of what took each name, but for directories.
    names: BTreeMap<Vec<u8>, usize>,
    /// Links that went with what they led to, and where they lead without it.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The file of each unit before, as [`services::sources`] has them.
    units: BTreeMap<String, String>,
}

impl Taken {
    /// What the patterns did, and the links that went with it, each with what it led to.
    pub fn new(
        pruned: Vec<Pruned>,
        links: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
        units: BTreeMap<String, String>,
    ) -> Self {
        let mut taken = Self { links: links.into_iter().collect(), units, ..Self::default() };
        for one in pruned {
            let pattern = taken.patterns.len();
            taken.names.extend(one.files.into_iter().map(|name| (name, pattern)));
            taken.patterns.push(one.pattern);
        }
        taken
    }

    /// What took away that which `path` led to, and the way out; nothing where something is there, or nothing ever was.
    pub fn way_out(&self, tree: &Tree, path: &str) -> Option<String> {
        let mut path = match destination(tree, path.as_bytes()) {
            // A mask stands in the place of what it hides.
            Destination::Missing(target) if target == b"dev/null" => path.trim_start_matches('/').into(),
            Destination::Missing(target) => target,
            Destination::Found(_) | Destination::Loop | Destination::Far => return None,
        };
        for _ in 0..MAX_LINKS {
            if let Some(pattern) = self.names.get(&path) {
                let (pattern, path) = (&self.patterns[*pattern], show(&path));
                return Some(format!(
                    "`prune: [{pattern}]` leaves out /{path}, and `keep: [/{path}]` brings it back"
                ));
            }
            path = self.by_link(&path)?;
        }
        None
    }

    /// The pattern that took the file of this absolute path, or what it led to as a link.
    pub fn pattern(&self, path: &str) -> Option<&str> {
        let path = path.trim_start_matches('/').as_bytes();
        let target = self.links.get(path).map_or(path, Vec::as_slice);
        self.names.get(target).map(|pattern| self.patterns[*pattern].as_str())
    }

    /// Where `path` leads by a link that went too, at its end or on the way.
    fn by_link(&self, path: &[u8]) -> Option<Vec<u8>> {
        let ends = (0..=path.len()).rev().filter(|end| *end == path.len() || path[*end] == b'/');
        let mut found = ends.filter_map(|end| Some((self.links.get(&path[..end])?, &path[end..])));
        found.next().map(|(target, rest)| [target.as_slice(), rest].concat())
    }

    /// As [`Taken::way_out`], of the file that `unit` is, or of which it would be made.
    pub fn unit(&self, tree: &Tree, unit: &str) -> Option<String> {
        self.way_out(tree, services::file_of(&self.units, unit)?)
    }

    /// As [`Taken::way_out`], of the program `name`, which is `unfit`, or of its interpreter; `folders` are the
    /// directories that have programs.
    pub fn program(&self, tree: &Tree, name: &str, unfit: &Unfit, folders: &[&str]) -> Option<String> {
        match unfit {
            Unfit::Missing => self.named(tree, name, folders),
            Unfit::NoInterpreter { interpreter } => self.named(tree, interpreter, folders),
            _ => None,
        }
    }

    /// As [`Taken::way_out`], of a program by its path, or by its name in one of `folders`.
    pub fn named(&self, tree: &Tree, name: &str, folders: &[&str]) -> Option<String> {
        match name.contains('/') {
            true => self.way_out(tree, name),
            false => folders.iter().find_map(|folder| self.way_out(tree, &format!("{folder}/{name}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dangling::{LeftOut, leading};
    use super::*;
    use crate::tree::prune::Patterns;

    #[test]
    fn what_is_missing_is_traced_to_its_pattern() {
        let mut tree = Tree::new(0);
        for path in ["usr/bin/mawk", "usr/bin/sh", "usr/share/perl/a", "usr/lib/systemd/system/a.service"] {
            tree.file(path, 0o755, "").unwrap();
        }
        for (path, target) in [
            ("bin", "usr/bin"),
            ("usr/bin/awk", "/etc/alternatives/awk"),
            ("etc/alternatives/awk", "/usr/bin/mawk"),
            ("usr/lib/perl", "../share/perl"),
        ] {
            tree.symlink(path, target).unwrap();
        }
        let units = services::sources(&tree).unwrap();
        let leading = leading(&tree);
        let texts = ["/usr/bin/m*", "/usr/share", "/usr/lib/systemd/system"].map(str::to_owned);
        let pruned = tree.prune(&Patterns::new(&texts, &[]).unwrap());
        let left_out = LeftOut::take(&mut tree, leading);
        let taken = Taken::new(pruned, left_out.links(), units);
        let told = |path: &str| taken.way_out(&tree, path);
        let mawk =
            "`prune: [/usr/bin/m*]` leaves out /usr/bin/mawk, and `keep: [/usr/bin/mawk]` brings it back";
        for path in ["/usr/bin/mawk", "bin/mawk", "/bin/awk", "/etc/alternatives/awk"] {
            assert_eq!(told(path).as_deref(), Some(mawk), "{path}");
        }
        assert!(told("/usr/lib/perl/a").unwrap().contains("leaves out /usr/share/perl/a,"));
        for path in ["/usr/bin/sh", "/usr/bin/never", "/usr/share/perl", ""] {
            assert_eq!(told(path), None, "{path}");
        }
        assert_eq!(taken.named(&tree, "awk", &["/usr/sbin", "/usr/bin"]).as_deref(), Some(mawk));
        let unit = taken.unit(&tree, "a.service").unwrap();
        assert!(
            unit.starts_with(
                "`prune: [/usr/lib/systemd/system]` leaves out /usr/lib/systemd/system/a.service"
            )
        );
        assert_eq!(taken.unit(&tree, "b.service"), None);
    }
}
