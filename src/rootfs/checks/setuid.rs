//! Files that give whoever starts them more rights: setuid, setgid, capabilities.

use std::collections::BTreeSet;

use super::many::{Entries, Found, report};
use super::{Finding, Inputs, View, named};
use crate::tree::{Kind, Meta, Node};

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;

/// Where the kernel keeps a file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// What gives whoever starts `node` more rights, in words.
fn powers(node: &Node) -> Vec<&'static str> {
    // On a directory setgid only passes its group on.
    if !matches!(node.kind, Kind::File(_)) {
        return Vec::new();
    }
    let all = [
        (node.meta.mode & SETUID != 0, "setuid"),
        (node.meta.mode & SETGID != 0, "setgid"),
        (node.meta.xattrs.contains_key(CAPABILITY), "given capabilities"),
    ];
    all.into_iter().filter_map(|(is_so, what)| is_so.then_some(what)).collect()
}

/// Reports such files that the manifest does not allow.
pub(super) fn check(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let allowed = Entries::new(&inputs.allowed.setuid);
    let mut found = Vec::new();
    for (path, id) in &view.paths {
        let node = view.tree.node(*id);
        let what = powers(node);
        if what.is_empty() {
            continue;
        }
        let name = named(path);
        if allowed.allow(&name) {
            continue;
        }
        let Meta { mode, uid, gid, .. } = node.meta;
        let problem = format!("is {} (mode {mode:04o}, owner {uid}:{gid})", what.join(" and "));
        found.push(Found { path, id: *id, name, problem });
    }
    report(view, found, &|entry| inputs.allow("setuid", entry))
}

/// Names of all such files.
pub(super) fn names(view: &View<'_>) -> BTreeSet<String> {
    let with_power = view.paths.iter().filter(|(_, id)| !powers(view.tree.node(*id)).is_empty());
    with_power.map(|(path, _)| named(path)).collect()
}

/// Reports entries of the manifest that allow nothing.
pub(super) fn idle(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let idle = Entries::new(&inputs.allowed.setuid).idle(&names(view));
    // What a component allows need not be there.
    let told = idle.into_iter().filter(|path| !inputs.said.is_carried("setuid", path));
    told.map(|path| inputs.unused("setuid", path, "which is not there or has no such bits")).collect()
}
