//! What may hold for thousands of paths of one tree: told of each while they are few, and of the directories that have
//! them where they are many. And the entries of a manifest that allow them.

use std::collections::{BTreeMap, BTreeSet};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::{Finding, Severity, View};
use crate::base::terminal::acts;
use crate::tree::{NodeId, show};

/// Findings of one kind that are told one by one; of more than these, [`GROUPS`] directories are told.
const SHOWN: usize = 20;
/// Most directories that are told of one kind.
const GROUPS: usize = 10;
/// Names that stand in the finding of a directory, besides the number of all others.
const NAMED: usize = 3;

/// A path of which something is told.
pub(super) struct Found<'a> {
    pub path: &'a [u8],
    pub id: NodeId,
    /// What the manifest names it by.
    pub name: String,
    /// As in [`Finding::problem`].
    pub problem: String,
}

/// Tells `found`, paths with one kind of problem. `advice` is for an entry of a manifest that names one of them, or a
/// directory that has several.
pub(super) fn report(
    view: &View<'_>,
    mut found: Vec<Found<'_>>,
    advice: &dyn Fn(&str) -> String,
) -> Vec<Finding> {
    found.sort_by(|one, other| one.name.cmp(&other.name));
    let error = |found: &Found<'_>, problem: String, entry: &str| {
        view.finding(Severity::Error, found.path, found.id, problem, advice(&entry_of(entry)))
    };
    if found.len() <= SHOWN {
        return found.iter().map(|found| error(found, found.problem.clone(), &found.name)).collect();
    }
    let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
    let told = groups(&names, GROUPS).into_iter().map(|(entry, members)| {
        let (first, others) = (&found[members[0]], &members[1..]);
        let mut also: Vec<String> =
            others.iter().take(NAMED - 1).map(|index| format!("/{}", show(found[*index].path))).collect();
        if others.len() >= NAMED {
            also.push(format!("{} more below {entry}", others.len() + 1 - NAMED));
        }
        match also.split_last() {
            None => error(first, first.problem.clone(), &entry),
            Some((last, rest)) => {
                let rest = if rest.is_empty() { String::new() } else { rest.join(", ") + " and " };
                error(first, format!("{}; the same holds of {rest}{last}", first.problem), &entry)
            }
        }
    });
    told.collect()
}

/// A list of at most `most` entries that allow `names`: the names themselves, or directories that have them.
pub(super) fn list(names: &BTreeSet<String>, most: usize) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let entries: Vec<_> = groups(&names, most).keys().map(|entry| entry_of(entry)).collect();
    format!("[{}]", entries.join(", "))
}

/// At most `most` paths, and which of `names` each stands for: the names themselves if they are few enough, else the
/// directories at one depth, as far down as possible, of which there are few enough.
fn groups(names: &[&str], most: usize) -> BTreeMap<String, Vec<usize>> {
    let deepest = names.iter().map(|name| name.matches('/').count()).max().unwrap_or(0);
    let mut found = (1..=deepest).rev().filter_map(|depth| at_depth(names, depth, most));
    found.next().unwrap_or_else(|| BTreeMap::from([("/".to_owned(), (0..names.len()).collect())]))
}

/// As [`groups`], with directories of `depth` parts; nothing if they are more than `most`.
fn at_depth(names: &[&str], depth: usize, most: usize) -> Option<BTreeMap<String, Vec<usize>>> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, name) in names.iter().enumerate() {
        let end = name.match_indices('/').nth(depth).map_or(name.len(), |(end, _)| end);
        if groups.len() == most && !groups.contains_key(&name[..end]) {
            return None;
        }
        groups.entry(name[..end].to_owned()).or_default().push(index);
    }
    Some(groups)
}

/// `name` as an entry of a list in YAML: what would be a pattern's sign stands for itself, and what cannot stand in one
/// line for any letter.
fn entry_of(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '*' | '?' | '[' | ']' | '{' | '}' | '\\' => pattern.extend(['\\', letter]),
            letter if acts(letter) || letter == char::REPLACEMENT_CHARACTER => pattern.push('?'),
            letter => pattern.push(letter),
        }
    }
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-+@~=".contains(letter);
    match pattern.chars().all(is_plain) {
        true => pattern,
        false => format!("'{}'", pattern.replace('\'', "''")),
    }
}

/// Entries of `setuid`, `device_nodes` or `world_writable`: patterns as in `prune`, each of which stands for what it
/// matches and all below it. A name that looks like a pattern stands for itself, too.
pub(super) struct Entries<'a> {
    texts: &'a [String],
    patterns: GlobSet,
    /// Of the patterns, their places in `texts`.
    places: Vec<usize>,
    /// Places in `texts` by text.
    names: BTreeMap<&'a str, usize>,
}

impl<'a> Entries<'a> {
    /// The entries `texts`, which the manifest's reader has looked at: one that is no pattern is a name.
    pub(super) fn new(texts: &'a [String]) -> Self {
        let (mut set, mut places, mut names) = (GlobSetBuilder::new(), Vec::new(), BTreeMap::new());
        for (place, text) in texts.iter().enumerate() {
            let text = text.trim_end_matches('/');
            names.insert(text, place);
            if let Ok(glob) = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build() {
                set.add(glob);
                places.push(place);
            }
        }
        match set.build() {
            Ok(patterns) => Self { texts, patterns, places, names },
            // Of patterns that are good one by one, too many for one automaton.
            Err(_) => Self { texts, patterns: GlobSet::empty(), places: Vec::new(), names },
        }
    }

    /// Whether one of them is for `name`.
    pub(super) fn allow(&self, name: &str) -> bool {
        above(name).any(|part| self.names.contains_key(part) || self.patterns.is_match(part))
    }

    /// Those that are for none of `names`.
    pub(super) fn idle(&self, names: &BTreeSet<String>) -> Vec<&'a String> {
        let mut idle: BTreeSet<usize> = (0..self.texts.len()).collect();
        let mut known = BTreeSet::new();
        for part in names.iter().flat_map(|name| above(name)) {
            if idle.is_empty() || !known.insert(part) {
                continue;
            }
            for place in self.patterns.matches(part) {
                idle.remove(&self.places[place]);
            }
            if let Some(place) = self.names.get(part) {
                idle.remove(place);
            }
        }
        idle.into_iter().map(|place| &self.texts[place]).collect()
    }
}

/// The path `name` and those of all directories above it; that of the root is empty.
fn above(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.rsplit_once('/').map(|(above, _)| above))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn entries_are_patterns_that_stand_for_what_is_below() {
        let allows = |entry: &str, name: &str| Entries::new(&strings(&[entry])).allow(name);
        for (entry, name) in [
            ("/app", "/app"),
            ("/app", "/app/x/y"),
            ("/", "/x"),
            ("/app/*.log", "/app/a.log"),
            ("/app/**/cache", "/app/x/y/cache/z"),
            ("/{srv,app}/data", "/srv/data/x"),
            // Names that would be something else as a pattern, or no pattern at all.
            ("/app/[id].js", "/app/[id].js"),
            ("/usr/bin/[", "/usr/bin/["),
            (r"/app/\[id\].js", "/app/[id].js"),
        ] {
            assert!(allows(entry, name), "{entry} {name}");
        }
        for (entry, name) in [("/app", "/apple"), ("/app/x", "/app"), ("/app/*.log", "/app/x/a.log")] {
            assert!(!allows(entry, name), "{entry} {name}");
        }
        let texts = strings(&["/app", "/app/*.log", "/srv/*", "/gone", "/usr/bin/["]);
        let names = BTreeSet::from(["/app/x".to_owned(), "/usr/bin/[".to_owned()]);
        assert_eq!(Entries::new(&texts).idle(&names), ["/app/*.log", "/srv/*", "/gone"]);
    }

    #[test]
    fn names_are_offered_so_that_they_are_taken() {
        for name in ["/a", "/a b", "/it's", "/app/[id].js", "/{a,b}", r"/back\slash", "/#x", "/a*?", "/ü,:"]
        {
            let yaml = format!("entry: [{}]", entry_of(name));
            let read: BTreeMap<String, Vec<String>> = serde_saphyr::from_str(&yaml).unwrap();
            let entries = &read["entry"];
            assert!(entries.len() == 1 && Entries::new(entries).allow(name), "{name}: {yaml}");
        }
        assert_eq!(entry_of("/a\nb"), "'/a?b'");
    }

    #[test]
    fn many_names_become_the_directories_that_have_them() {
        let names = |names: &[&str], most| list(&names.iter().map(|name| (*name).to_owned()).collect(), most);
        assert_eq!(names(&["/a/x", "/a/y"], 2), "[/a/x, /a/y]");
        assert_eq!(names(&["/a/x", "/a/y", "/b"], 2), "[/a, /b]");
        assert_eq!(names(&["/a/b/x", "/a/b/y", "/a/c/x", "/d/e/f/g"], 3), "[/a/b, /a/c, /d/e]");
        // A directory that is open itself, with a name beside it that comes between it and what it has.
        assert_eq!(names(&["/a", "/a-b", "/a/x", "/a/y"], 2), "[/a, /a-b]");
        assert_eq!(names(&["/a", "/b", "/c"], 2), "[/]");
    }
}
