//! What would only show on the node, found while building: every check goes over the finished tree, and
//! everything that it finds is reported at once.

mod elf;
pub mod homes;
mod interpreters;
mod libraries;
pub mod lines;
pub mod links;
mod names;
mod owners;
pub mod programs;
mod script_accounts;
mod setuid;
mod units;
mod unread;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::manifest::{Manifest, Said};
use crate::rootfs::containers::mounts::Mounts;
use crate::tree::{NodeId, Tree, show};

pub use script_accounts::ScriptAccount;

/// What the manifest and the image's accounts allow.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Absolute paths that may be setuid or setgid or carry capabilities.
    pub setuid: Vec<String>,
    /// Libraries whose absence is accepted, each with its reason.
    pub missing_libraries: BTreeMap<String, String>,
    /// The image's users by name.
    pub users: BTreeMap<String, u32>,
    /// The image's groups by name.
    pub groups: BTreeMap<String, u32>,
    /// Accounts that scripts would make.
    pub script_accounts: Vec<ScriptAccount>,
    /// Packages that somebody wants for whom no component of keller's speaks.
    pub foreign: BTreeSet<String>,
    /// Packages that only components of keller's take as present.
    pub assumed: BTreeSet<String>,
    /// Paths of libraries by name, as packages brought them: `prune` may have taken some away.
    pub libraries: BTreeMap<String, String>,
    /// Where the manifest says what.
    pub said: Said,
    /// Volumes, where the tree is a container's.
    pub mounts: Mounts,
}

/// Paths of what is named like a shared library, by name; of several, the first.
pub fn libraries(tree: &Tree) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, _) in tree.walk() {
        let Ok(path) = String::from_utf8(path) else { continue };
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.contains(".so") {
            found.entry(name.to_owned()).or_insert_with(|| format!("/{path}"));
        }
    }
    found
}

/// Whether a finding fails the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It does.
    Error,
    /// It may well be as it should.
    Warning,
}

/// Something that is wrong with a tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Whether it fails the build.
    pub severity: Severity,
    /// Absolute path of what it is about; empty when it is about the manifest.
    pub path: String,
    /// The package or overlay that the path is from.
    pub origin: String,
    /// What is wrong, following on the path.
    pub problem: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}", self.problem)?;
        } else {
            write!(f, "{} ({}) {}", self.path, self.origin, self.problem)?;
        }
        write!(f, ": {}", self.advice)
    }
}

/// The tree and its paths, for all checks.
struct View<'a> {
    tree: &'a Tree,
    /// As [`Tree::walk`] gives them.
    paths: Vec<(Vec<u8>, NodeId)>,
}

impl View<'_> {
    fn finding(
        &self,
        severity: Severity,
        path: &[u8],
        id: NodeId,
        problem: String,
        advice: String,
    ) -> Finding {
        let origin = self.tree.origin_name(self.tree.node(id).origin).to_owned();
        Finding { severity, path: format!("/{}", show(path)), origin, problem, advice }
    }
}

/// Checks a finished tree. Errors come first, then by path.
pub fn check(tree: &Tree, inputs: &Inputs) -> Vec<Finding> {
    let view = View { tree, paths: tree.walk() };
    let (_, findings) = all(&view, inputs);
    sorted(findings)
}

/// As [`check`], and whether the names in `manifest` are names of something in the tree, the root of a node
/// that has all but its containers.
pub fn check_node(tree: &Tree, inputs: &Inputs, manifest: &Manifest) -> Vec<Finding> {
    let view = View { tree, paths: tree.walk() };
    let (units, mut findings) = all(&view, inputs);
    findings.extend(names::check(tree, &units, manifest));
    findings.extend(unread::check(&view));
    sorted(findings)
}

fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort();
    findings.dedup();
    findings
}

fn all<'a>(view: &'a View<'a>, inputs: &'a Inputs) -> (units::Units<'a>, Vec<Finding>) {
    let programs = programs::scan(view);
    let mut findings = libraries::check(view, &programs, inputs);
    findings.extend(interpreters::check(view, &programs, inputs));
    findings.extend(links::check(view, inputs));
    findings.extend(owners::check(view, inputs));
    findings.extend(setuid::check(view, inputs));
    let (units, found) = units::Units::of(view, inputs);
    findings.extend(found);
    findings.extend(script_accounts::check(&units, inputs));
    (units, findings)
}

/// `, as do 3 others, e.g. /x` for a finding that holds for several paths.
fn and_others(others: &[&[u8]]) -> String {
    match others {
        [] => String::new(),
        [one] => format!(", as does /{}", show(one)),
        [first, ..] => format!(", as do {} others, e.g. /{}", others.len(), show(first)),
    }
}

#[cfg(test)]
mod tests;
