//! What would only show on the node, found while building: every check goes over the finished tree, and
//! everything that it finds is reported at once.

mod attributes;
mod closed;
mod devices;
mod elf;
pub mod homes;
mod interpreters;
mod libraries;
pub mod lines;
pub mod links;
mod many;
mod names;
mod owners;
pub mod programs;
mod script_accounts;
mod setuid;
mod units;
mod unread;
mod waits;
mod whiteouts;
mod writable;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use self::many::Entries;
use crate::manifest::{Allowed, Manifest, Recipe, Said};
use crate::rootfs::containers::mounts::Mounts;
use crate::rootfs::pruned::Taken;
use crate::rootfs::tmpfiles::FACTORY;
use crate::tree::{Content, Kind, Node, NodeId, Tree, TreeError, show};

pub use script_accounts::ScriptAccount;

/// What the manifest and the image's accounts allow.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// What may give others rights.
    pub allowed: Allowed,
    /// Device nodes of the tree are left out before it is part of a node.
    pub leaves_devices: bool,
    /// The tree is that of an image, of which nothing can be left out.
    pub is_archive: bool,
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
    /// What `prune` has left out.
    pub pruned: Arc<Taken>,
    /// Where the recipe says what.
    pub said: Said,
    /// Volumes, where the tree is a container's.
    pub mounts: Mounts,
}

/// Bits of a mode that say something of others' rights: setuid, setgid, and that everybody may write.
const OF_OTHERS: u16 = 0o6002;

/// Most entries of a list that a message offers.
const LISTED: usize = 40;

impl Inputs {
    /// What `recipe` says.
    pub fn of(recipe: &Recipe) -> Self {
        let Recipe { allowed, missing_libraries, assume, said, .. } = recipe;
        Self {
            allowed: allowed.clone(),
            missing_libraries: missing_libraries.clone(),
            assumed: assume.keys().filter(|name| said.is_carried("assume", name)).cloned().collect(),
            said: said.clone(),
            ..Self::default()
        }
    }

    /// What lets that stay as it is which `entry` names.
    fn allow(&self, field: &str, entry: &str) -> String {
        match self.is_archive {
            true => format!("allow it with `image: {{archive: …, {field}: [{entry}]}}`"),
            false => format!("allow it with `{field}: [{entry}]`, or leave it out with `prune`"),
        }
    }

    /// The entry `path` of `field` allows nothing.
    fn unused(&self, field: &str, path: &str, why: &str) -> Finding {
        Finding {
            severity: Severity::Warning,
            path: String::new(),
            origin: "manifest".to_owned(),
            problem: self.said.at(field, path, &format!("{field} allows {path}, {why}")),
            advice: "remove the entry".to_owned(),
        }
    }

    /// What to do about something that nothing allows.
    fn leave_out(&self) -> String {
        match self.is_archive {
            true => "make the image without it".to_owned(),
            false => "leave it out with `prune`, or make its package or overlay without it".to_owned(),
        }
    }
}

/// The name by which a manifest allows what is at `path`: as packages and overlays have it, wherever the fix-ups have
/// put it.
fn named(path: &[u8]) -> String {
    let path = links::name_on_node(path);
    let waiting = path.strip_prefix(FACTORY.as_bytes()).and_then(|path| path.strip_prefix(b"/"));
    let path = waiting.filter(|path| path.starts_with(b"var/")).unwrap_or(path);
    format!("/{}", show(path))
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
    /// Files that could not be read, and why. A check would take them for empty.
    unread: Mutex<BTreeSet<String>>,
}

impl<'a> View<'a> {
    fn of(tree: &'a Tree) -> Self {
        Self::with(tree, tree.walk())
    }

    /// Only `paths` of the tree.
    fn with(tree: &'a Tree, paths: Vec<(Vec<u8>, NodeId)>) -> Self {
        Self { tree, paths, unread: Mutex::default() }
    }

    /// The file at `path`; nothing where there is none, or where [`View::unread`] tells of it.
    fn read(&self, path: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.told(self.tree.read_if_there(path)).flatten()
    }

    /// As [`View::read`], of a file at hand; `path` is for messages.
    fn content(&self, content: &Content, path: &str) -> Option<Vec<u8>> {
        self.told(self.tree.content(content, path))
    }

    fn told<T>(&self, read: Result<T, TreeError>) -> Option<T> {
        read.map_err(|error| self.tell_unread(error.to_string())).ok()
    }

    /// Tells of something that was not looked at.
    fn tell_unread(&self, what: String) {
        self.unread.lock().expect("nothing panics with it").insert(what);
    }

    /// What could not be read.
    fn unread(&self) -> Vec<Finding> {
        let unread = self.unread.lock().expect("nothing panics with it");
        let finding = |problem: &String| Finding {
            severity: Severity::Error,
            path: String::new(),
            origin: String::new(),
            problem: problem.clone(),
            advice: "make it smaller, or leave it out".to_owned(),
        };
        unread.iter().map(finding).collect()
    }

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
    let view = View::of(tree);
    let (_, mut findings) = all(&view, inputs);
    findings.extend(view.unread());
    sorted(findings)
}

/// As [`check`], and whether the names in `manifest` are names of something in the tree, the root of a node
/// that has all but its containers.
pub fn check_node(tree: &Tree, inputs: &Inputs, manifest: &Manifest) -> Vec<Finding> {
    let view = View::of(tree);
    let (units, mut findings) = all(&view, inputs);
    findings.extend(names::check(&view, inputs, &units, manifest));
    findings.extend(unread::check(&view));
    findings.extend(view.unread());
    sorted(findings)
}

/// Checks what packages, overlays and `files` bring, before fix-ups make lines for systemd-tmpfiles of some of it: what
/// lies below /var in a package is made by such lines, devices too.
pub fn brought(tree: &Tree, inputs: &Inputs) -> Vec<Finding> {
    let view = View::of(tree);
    let mut findings = devices::check(&view, inputs);
    findings.extend(writable::check(&view, inputs));
    findings.extend(attributes::check(&view, inputs));
    findings.extend(idle(&view, inputs));
    sorted(findings)
}

/// Checks that packages, overlays and `files` bring nothing to keller's own places, before it fills them.
pub fn own(tree: &Tree) -> Vec<Finding> {
    closed::brought(&View::with(tree, Vec::new()))
}

/// Checks the root of an image that comes as an archive: what it would let others do. Its numbers of owners are its
/// own affair, but those that its accounts do not have are told.
pub fn image(tree: &Tree, inputs: &Inputs) -> Vec<Finding> {
    let view = View::of(tree);
    let mut findings = rights(&view, inputs);
    findings.extend(setuid::idle(&view, inputs));
    findings.extend(idle(&view, inputs));
    let mut owners = owners::check(&view, inputs);
    owners.iter_mut().for_each(|finding| finding.severity = Severity::Warning);
    findings.extend(owners);
    findings.extend(whiteouts::check(&view, inputs));
    sorted(findings)
}

/// All that an image's root has of what [`image`] reports, as the lists that would allow it.
pub fn wanted(tree: &Tree) -> String {
    let view = View::of(tree);
    let mut lists = String::new();
    for (field, names) in [
        ("setuid", setuid::names(&view)),
        ("device_nodes", devices::names(&view)),
        ("world_writable", writable::names(&view, true)),
    ] {
        if !names.is_empty() {
            lists += &format!("\n    {field}: {}", many::list(&names, LISTED));
        }
    }
    match lists.is_empty() {
        true => lists,
        false => format!("\n  what the image has, to choose from:{lists}"),
    }
}

/// Checks the root of an image that is made out of packages, besides what [`check`] does: it is a layer.
pub fn layer(tree: &Tree, inputs: &Inputs) -> Vec<Finding> {
    whiteouts::check(&View::of(tree), inputs)
}

/// Checks the root that will be written, containers included. `images`: where in it the root directory of each is, and
/// what is allowed there.
pub fn finished(tree: &Tree, inputs: &Inputs, images: &[(String, Allowed)]) -> Vec<Finding> {
    let mut inputs = inputs.clone();
    for (place, allowed) in images {
        let below = |path: &String| format!("/{}{path}", globset::escape(place));
        inputs.allowed.setuid.extend(allowed.setuid.iter().map(below));
        inputs.allowed.device_nodes.extend(allowed.device_nodes.iter().map(below));
        inputs.allowed.world_writable.extend(allowed.world_writable.iter().map(below));
    }
    // All paths of a root with its images would take more memory than the tree: only those are kept that are told of.
    let mut paths = Vec::new();
    tree.visit(&mut |path, id| {
        if gives_rights(tree.node(id)) {
            paths.push((path.to_vec(), id));
        }
    });
    let view = View::with(tree, paths);
    let mut findings = rights(&view, &inputs);
    findings.extend(closed::check(&view));
    // What is in an image has the owners that its own accounts name.
    let is_inside = |path: &[u8]| {
        let below = |place: &str| path.strip_prefix(place.as_bytes());
        images.iter().any(|(place, _)| below(place).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'))
    };
    let mut paths = Vec::new();
    tree.visit(&mut |path, id| {
        let meta = &tree.node(id).meta;
        if (meta.uid, meta.gid) != (0, 0) && !is_inside(path) {
            paths.push((path.to_vec(), id));
        }
    });
    findings.extend(owners::check(&View::with(tree, paths), &inputs));
    sorted(findings)
}

/// Whether a check of [`rights`] may have something to say of `node`.
fn gives_rights(node: &Node) -> bool {
    let is_device = matches!(node.kind, Kind::CharDevice(..) | Kind::BlockDevice(..));
    let is_link = matches!(node.kind, Kind::Symlink(_));
    is_device || !node.meta.xattrs.is_empty() || !is_link && node.meta.mode & OF_OTHERS != 0
}

/// What gives others rights that the manifest does not allow.
fn rights(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let mut findings = setuid::check(view, inputs);
    findings.extend(devices::check(view, inputs));
    findings.extend(writable::check(view, inputs));
    findings.extend(attributes::check(view, inputs));
    findings
}

/// Entries that allow what is not there.
fn idle(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let there = devices::names(view);
    let devices = Entries::new(&inputs.allowed.device_nodes).idle(&there).into_iter();
    let devices = devices.map(|path| ("device_nodes", path, "which is not there or is no device"));
    let open =
        Entries::new(&inputs.allowed.world_writable).idle(&writable::names(view, inputs.leaves_devices));
    let open = open.into_iter().map(|path| match inputs.leaves_devices && there.contains(path) {
        true => ("world_writable", path, "a device, which is left out"),
        false => ("world_writable", path, "which is not there or is not open to everybody"),
    });
    let told = devices.chain(open).filter(|(field, path, _)| !inputs.said.is_carried(field, path));
    told.map(|(field, path, why)| inputs.unused(field, path, why)).collect()
}

fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort();
    findings.dedup();
    findings
}

fn all<'a>(view: &'a View<'a>, inputs: &'a Inputs) -> (units::Units<'a>, Vec<Finding>) {
    let scanned = programs::scan(view);
    let mut findings: Vec<_> = scanned.is_cut.then(programs::too_much).into_iter().collect();
    let programs = scanned.programs;
    findings.extend(libraries::check(view, &programs, inputs));
    findings.extend(interpreters::check(view, &programs, inputs));
    findings.extend(links::check(view, inputs));
    findings.extend(owners::check(view, inputs));
    findings.extend(setuid::check(view, inputs));
    findings.extend(setuid::idle(view, inputs));
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
