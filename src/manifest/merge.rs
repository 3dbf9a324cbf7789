//! Includes → one tree.
//!
//! Lists add up and maps merge. A single value may be set again by a file that includes the one that set it,
//! directly or not: whoever composes decides. Two files of which neither includes the other may not differ,
//! unless a file that includes both decides. Nor do lists contradict each other across files: a package that
//! a file wants takes away the `assume` of a file below it, and so do `enable` and `mask` of units.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::files::Location;
use super::sources::Sources;
use crate::base::{Size, limits};
use crate::written::diagnostic::Report;
use crate::written::place::Mark;
use crate::written::shape;
use crate::written::yaml::{self, Entry, Node, Value};

/// Fields that are lists but one value: an argument vector of two files is nobody's intention.
const WHOLE: [&str; 3] = ["health.command", "entrypoint", "command"];

/// Fields that only the outermost file may have.
const OUTERMOST: [&str; 3] = ["keller", "id", "version"];

/// Pairs of fields that cannot both have a name: the outer file's word holds, whichever of the two it is.
const OPPOSITES: [[&str; 2]; 2] = [["packages", "assume"], ["services.enable", "services.mask"]];

/// More files than any project has; bounds the work that a generated manifest can cause.
const MOST_FILES: usize = 256;

/// Reads a file and all that it includes.
pub(super) struct Loader<'a> {
    pub sources: &'a mut Sources,
    pub report: &'a mut Report,
    /// The schema of each file.
    pub schema: &'a Json,
    /// What was read: the source of each location, none when it could not be read.
    seen: BTreeMap<Location, Option<u32>>,
    /// Which sources each source includes, directly or not.
    below: BTreeMap<u32, BTreeSet<u32>>,
    /// Included files before those that include them.
    order: Vec<Node>,
}

/// One step of the way that led to a file.
struct Step {
    identity: Location,
    name: String,
    /// Where it is named.
    by: Option<Mark>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(sources: &'a mut Sources, report: &'a mut Report, schema: &'a Json) -> Self {
        Self { sources, report, schema, seen: BTreeMap::new(), below: BTreeMap::new(), order: Vec::new() }
    }

    /// The merged tree of the file at `location`, named at `by`; none when that file itself cannot be read.
    pub(super) fn load(mut self, location: Location, by: Option<Mark>) -> Option<Node> {
        self.file(location, by, &mut Vec::new())?;
        let mut files = std::mem::take(&mut self.order).into_iter();
        let mut merged = files.next()?;
        for file in files {
            self.merge(&mut merged, file, "");
        }
        for [a, b] in OPPOSITES {
            self.overrule(&mut merged, a, b);
            self.overrule(&mut merged, b, a);
        }
        let top = self.sources.get(merged.mark.source).name.display().to_string();
        self.rivals(&merged, "", &top);
        Some(merged)
    }

    fn unreadable(&mut self, location: &Location, by: Option<Mark>, error: &std::io::Error) {
        let mark = by.unwrap_or_else(|| Mark::top(self.sources.add(location.clone(), String::new())));
        let problem = self.report.error(mark, format!("reading {location}: {error}"));
        if by.is_some() && error.kind() == std::io::ErrorKind::NotFound {
            problem
                .help("paths are relative to the file that names them; `keller:…` names what keller carries");
        }
    }

    fn file(&mut self, location: Location, by: Option<Mark>, way: &mut Vec<Step>) -> Option<u32> {
        let identity = location.identity();
        if let Some(start) = way.iter().position(|step| step.identity == identity) {
            self.cycle(&way[start..], by);
            return None;
        }
        if let Some(seen) = self.seen.get(&identity) {
            return *seen;
        }
        self.seen.insert(identity.clone(), None);
        if self.seen.len() > MOST_FILES {
            if let Some(mark) = by {
                self.report.error(mark, format!("more than {MOST_FILES} files are included"));
            }
            return None;
        }
        let bytes = location.read().map_err(|error| self.unreadable(&location, by, &error)).ok()?;
        if !self.sources.sum.file(bytes.len()) {
            let most = Size(limits::TEXT).human();
            let large = format!("all files of this manifest have more than {most} together");
            self.unreadable(&location, by, &std::io::Error::new(std::io::ErrorKind::FileTooLarge, large));
            return None;
        }
        let source = self.sources.add(location.clone(), String::from_utf8_lossy(&bytes).into_owned());
        self.seen.insert(identity.clone(), Some(source));
        let text = yaml::decode(source, &bytes, self.report)?;
        let mut node = yaml::read(source, text, &mut self.sources.sum, self.report)?;
        if !shape::check(&mut node, self.schema, self.report) {
            return None;
        }
        if by.is_some() {
            self.outermost_only(&node);
        }
        let mut below = BTreeSet::new();
        way.push(Step { identity, name: location.to_string(), by });
        for (text, mark) in take_includes(&mut node) {
            if let Some(included) = self.file(location.resolve(&text), Some(mark), way) {
                below.insert(included);
                below.extend(self.below.get(&included).into_iter().flatten());
            }
        }
        way.pop();
        self.below.insert(source, below);
        self.order.push(node);
        Some(source)
    }

    fn cycle(&mut self, way: &[Step], by: Option<Mark>) {
        let Some(mark) = by else { return };
        let chain: Vec<&str> = way.iter().chain(&way[..1]).map(|step| step.name.as_str()).collect();
        let problem = self.report.error(mark, "these files include each other in a circle");
        problem.help(format!("{}: remove one of these includes", chain.join(" → ")));
        for step in way.iter().skip(1) {
            if let Some(mark) = step.by {
                problem.related(mark, "included here");
            }
        }
    }

    fn outermost_only(&mut self, node: &Node) {
        for entry in OUTERMOST.iter().filter_map(|field| node.get(field)) {
            self.report
                .error(entry.mark, format!("a component cannot say `{}`", entry.key))
                .help("only the manifest that is built says it");
        }
    }

    /// Takes `new` into `old`; `new` comes after all that it includes.
    fn merge(&mut self, old: &mut Node, new: Node, path: &str) {
        let whole = WHOLE.contains(&path);
        match (&mut old.value, new.value) {
            (Value::Map(entries), Value::Map(more)) => {
                for entry in more {
                    let inner =
                        if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                    match entries.iter_mut().find(|known| known.key == entry.key) {
                        Some(known) => self.merge(&mut known.value, entry.value, &inner),
                        None => entries.push(entry),
                    }
                }
                // The outermost file comes last: what is missing from the whole is missing there.
                old.mark = new.mark;
            }
            (Value::List(items), Value::List(more)) if !whole => items.extend(more),
            (_, value) => {
                let new = Node { value, ..new };
                let none = BTreeSet::new();
                let below = self.below.get(&new.mark.source).unwrap_or(&none);
                let mut old_ones = std::mem::take(&mut old.rivals);
                old_ones.push(std::mem::replace(old, new));
                old_ones.retain(|node| !below.contains(&node.mark.source) && !node.same(old));
                old.rivals = old_ones;
            }
        }
    }

    /// Takes names out of the field `loser` that a file further out has in the field `winner`.
    fn overrule(&self, merged: &mut Node, winner: &str, loser: &str) {
        let said: Vec<(String, u32)> =
            names(merged, winner).map(|(name, mark)| (name.to_owned(), mark.source)).collect();
        let overruled = |name: &str, mark: Mark| {
            let mut by = said.iter().filter(|(said, _)| said == name);
            by.any(|(_, source)| self.below.get(source).is_some_and(|below| below.contains(&mark.source)))
        };
        match loser.split('.').try_fold(merged, |node, key| node.get_mut(key)).map(|node| &mut node.value) {
            Some(Value::Map(entries)) => entries.retain(|entry| !overruled(&entry.key, entry.mark)),
            Some(Value::List(items)) => items.retain(|item| match &item.value {
                Value::Scalar { text, .. } => !overruled(text, item.mark),
                _ => true,
            }),
            _ => {}
        }
    }

    fn rivals(&mut self, node: &Node, path: &str, top: &str) {
        if !node.rivals.is_empty() {
            let shown = |node: &Node| match &node.value {
                Value::Scalar { text, .. } => format!("`{text}`"),
                _ => "something else".to_owned(),
            };
            let mut all: Vec<&Node> = node.rivals.iter().chain([node]).collect();
            all.sort_by_key(|node| node.mark);
            let problem = self
                .report
                .error(all[0].mark, format!("two files disagree on `{path}`: here it is {}", shown(all[0])));
            problem.help(format!("remove one, or let {top} decide by setting `{path}`"));
            for rival in &all[1..] {
                problem.related(rival.mark, format!("here it is {}", shown(rival)));
            }
        }
        if let Value::Map(entries) = &node.value {
            for entry in entries {
                let inner = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                self.rivals(&entry.value, &inner, top);
            }
        }
    }
}

/// The names in the list or the map at `path`, such as `services.mask`, and where they stand.
pub(super) fn names<'a>(node: &'a Node, path: &str) -> impl Iterator<Item = (&'a str, Mark)> {
    let found = path.split('.').try_fold(node, |node, key| node.get(key).map(|entry| &entry.value));
    let (list, map): (&[Node], &[Entry]) = match found.map(|node| &node.value) {
        Some(Value::List(items)) => (items, &[]),
        Some(Value::Map(entries)) => (&[], entries),
        _ => (&[], &[]),
    };
    let items = list.iter().filter_map(|item| match &item.value {
        Value::Scalar { text, .. } => Some((text.as_str(), item.mark)),
        _ => None,
    });
    items.chain(map.iter().map(|entry| (entry.key.as_str(), entry.mark)))
}

/// The values of `include`, which has then done its work.
fn take_includes(node: &mut Node) -> Vec<(String, Mark)> {
    let Value::Map(entries) = &mut node.value else { return Vec::new() };
    let Some(index) = entries.iter().position(|entry| entry.key == "include") else { return Vec::new() };
    let Value::List(items) = entries.remove(index).value.value else { return Vec::new() };
    let texts = items.into_iter().filter_map(|item| match item.value {
        Value::Scalar { text, .. } => Some((text, item.mark)),
        _ => None,
    });
    texts.collect()
}
