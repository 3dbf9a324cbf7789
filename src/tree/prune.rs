//! Leaving paths out of a tree by pattern.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::{Kind, NodeId, Tree};

/// A pattern that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("pattern {pattern:?}: {what}")]
pub struct PatternError {
    /// As given.
    pub pattern: String,
    /// What is wrong with it.
    pub what: String,
}

/// What one pattern did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// As given.
    pub pattern: String,
    /// Names that were removed, directories included. None means that the pattern may be dropped: it matches nothing,
    /// or only what another one takes or `keep` holds.
    pub names: u64,
    /// Bytes of files that have no name any more.
    pub bytes: u64,
    /// The names, in order, but for directories.
    pub files: Vec<Vec<u8>>,
}

/// Compiled `prune` and `keep` patterns. They are absolute; `*` and `?` stay within a folder, `**` does
/// not, `{a,b}` and `[ab]` are alternatives. What matches a folder holds for all below it.
#[derive(Clone, Debug)]
pub struct Patterns {
    prune: GlobSet,
    keep: GlobSet,
    texts: Vec<String>,
    keep_texts: Vec<String>,
}

impl Patterns {
    /// Compiles patterns as [`crate::tree`]'s callers have them: with a leading slash.
    ///
    /// # Errors
    /// The first pattern that is relative or cannot be read.
    pub fn new(prune: &[String], keep: &[String]) -> Result<Self, PatternError> {
        Ok(Self {
            prune: compile(prune)?,
            keep: compile(keep)?,
            texts: prune.to_vec(),
            keep_texts: keep.to_vec(),
        })
    }

    /// Patterns that match nothing in `tree`, which nobody has pruned yet: `prune`, then `keep`, in their order.
    pub fn idle(&self, tree: &Tree) -> [Vec<&str>; 2] {
        let paths = tree.walk();
        [(&self.prune, &self.texts), (&self.keep, &self.keep_texts)].map(|(set, texts)| {
            let mut idle: BTreeSet<usize> = (0..texts.len()).collect();
            for (path, _) in &paths {
                if idle.is_empty() {
                    break;
                }
                for found in set.matches(Path::new(OsStr::from_bytes(path))) {
                    idle.remove(&found);
                }
            }
            idle.into_iter().map(|index| texts[index].as_str()).collect()
        })
    }
}

fn compile(patterns: &[String]) -> Result<GlobSet, PatternError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let error = |what: String| PatternError { pattern: pattern.clone(), what };
        let Some(relative) = pattern.strip_prefix('/') else {
            return Err(error("expected an absolute path such as /usr/share/doc".to_owned()));
        };
        let relative = relative.trim_end_matches('/');
        if relative.is_empty() {
            return Err(error("this is the whole tree".to_owned()));
        }
        let glob = GlobBuilder::new(relative)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|failure| error(failure.kind().to_string()))?;
        set.add(glob);
    }
    set.build().map_err(|failure| PatternError { pattern: String::new(), what: failure.to_string() })
}

impl Tree {
    /// Removes what the patterns say; of a folder that is to go, what `keep` matches stays, with the
    /// folders above it. A folder that lost all it had goes too. One result for each `prune` pattern, in
    /// their order: where several match one name, the first counts.
    pub fn prune(&mut self, patterns: &Patterns) -> Vec<Pruned> {
        let mut pruned: Vec<_> = patterns
            .texts
            .iter()
            .map(|pattern| Pruned { pattern: pattern.clone(), ..Pruned::default() })
            .collect();
        let before = self.link_counts();
        let mut gone = BTreeMap::new();
        let root = self.root();
        Walk { tree: self, patterns, pruned: &mut pruned, gone: &mut gone }.below(
            root,
            &mut Vec::new(),
            None,
        );
        for (id, (names, pattern)) in gone {
            if let Kind::File(content) = &self.node(id).kind
                && names == before[id.index()]
            {
                pruned[pattern].bytes += content.len();
            }
        }
        pruned
    }
}

struct Walk<'a> {
    tree: &'a mut Tree,
    patterns: &'a Patterns,
    pruned: &'a mut [Pruned],
    /// Removed names of each node and the pattern that took the last one.
    gone: &'a mut BTreeMap<NodeId, (u32, usize)>,
}

impl Walk<'_> {
    /// `matched` is the pattern that a folder above matches. Says whether the folder lost all it had.
    fn below(&mut self, folder: NodeId, path: &mut Vec<u8>, matched: Option<usize>) -> bool {
        let Kind::Directory(children) = &self.tree.node(folder).kind else { return false };
        // Names are copied, as the folder changes while they are gone through.
        let children: Vec<_> = children.iter().map(|(name, id)| (name.clone(), *id)).collect();
        let mut removed = BTreeSet::new();
        for (name, id) in children {
            let above = path.len();
            if above > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if self.goes(id, path, matched) {
                removed.insert(name);
            }
            path.truncate(above);
        }
        let Kind::Directory(children) = &mut self.tree.node_mut(folder).kind else { return false };
        children.retain(|name, _| !removed.contains(name));
        !removed.is_empty() && children.is_empty()
    }

    fn goes(&mut self, id: NodeId, path: &mut Vec<u8>, matched: Option<usize>) -> bool {
        let text = Path::new(OsStr::from_bytes(path));
        if self.patterns.keep.is_match(text) {
            return false;
        }
        let matched = matched.or_else(|| self.patterns.prune.matches(text).first().copied());
        let is_directory = matches!(self.tree.node(id).kind, Kind::Directory(_));
        let empty = is_directory && self.tree.children(id).next().is_none();
        let emptied = is_directory && self.below(id, path, matched);
        let Some(pattern) = matched else { return emptied };
        if is_directory && !empty && !emptied {
            return false;
        }
        self.pruned[pattern].names += 1;
        if !is_directory {
            self.pruned[pattern].files.push(path.clone());
        }
        let gone = self.gone.entry(id).or_default();
        *gone = (gone.0 + 1, pattern);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prune(tree: &mut Tree, prune: &[&str], keep: &[&str]) -> Vec<(u64, u64)> {
        let texts = |patterns: &[&str]| patterns.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let patterns = Patterns::new(&texts(prune), &texts(keep)).unwrap();
        tree.prune(&patterns).into_iter().map(|done| (done.names, done.bytes)).collect()
    }

    fn sample() -> Tree {
        let mut tree = Tree::new(0);
        for path in ["doc/a/copyright", "doc/a/readme", "doc/b/copyright", "lib/x.so", "lib/y/z.so"] {
            tree.file(path, 0o644, "12345").unwrap();
        }
        tree.directory("empty", 0o755).unwrap();
        tree
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.walk().into_iter().skip(1).map(|(path, _)| super::super::show(&path)).collect()
    }

    #[test]
    fn folders_files_and_exceptions() {
        let mut tree = sample();
        assert_eq!(
            prune(&mut tree, &["/doc", "/lib/*.so", "/nothing"], &["/doc/*/copyright"]),
            [(1, 5), (1, 5), (0, 0)]
        );
        assert_eq!(
            paths(&tree),
            [
                "doc",
                "doc/a",
                "doc/a/copyright",
                "doc/b",
                "doc/b/copyright",
                "empty",
                "lib",
                "lib/y",
                "lib/y/z.so"
            ]
        );
        let mut tree = sample();
        prune(&mut tree, &["/doc", "/**/*.so"], &[]);
        assert_eq!(paths(&tree), ["empty"]);
        let mut tree = sample();
        prune(&mut tree, &["/doc/**"], &["/doc/a"]);
        assert_eq!(paths(&tree)[..3], ["doc", "doc/a", "doc/a/copyright"]);
    }

    #[test]
    fn exceptions_that_match_nothing() {
        let keep =
            ["/doc", "/doc/a/copyright", "/lib/*.so", "/nothing", "/doc/*/nothing", "/lib/y/", "/libs"]
                .map(str::to_owned);
        let patterns = Patterns::new(&["/doc".to_owned()], &keep).unwrap();
        let [prune, keep] = patterns.idle(&sample());
        assert!(prune.is_empty());
        assert_eq!(keep, ["/nothing", "/doc/*/nothing", "/libs"]);
    }

    #[test]
    fn bytes_of_hard_links_count_when_the_last_name_goes() {
        let mut tree = sample();
        let id = tree.lookup("lib/x.so").unwrap();
        tree.link("other", id).unwrap();
        assert_eq!(prune(&mut tree, &["/lib/x.so"], &[]), [(1, 0)]);
        assert_eq!(prune(&mut tree, &["/other"], &[]), [(1, 5)]);
    }

    #[test]
    fn refuses_relative_and_broken_patterns() {
        for bad in ["usr", "/", "/usr/[a", "/{a"] {
            assert!(Patterns::new(&[bad.to_owned()], &[]).is_err(), "{bad}");
        }
    }
}
