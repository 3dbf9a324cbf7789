//! What containers bring is theirs alone: nobody on the node but root comes to it.

use super::{Finding, Severity, View};
use crate::rootfs::containers::FOLDER;

/// Where keller puts itself, what it tells the node, and what containers bring.
const OWN: [&str; 3] = ["usr/bin/keller", "usr/lib/keller", "usr/share/keller"];

/// Whom a directory is open to that only its owner may enter.
const CLOSED: u16 = 0o700;

/// Reports a directory of images that others may enter.
pub(super) fn check(view: &View<'_>) -> Vec<Finding> {
    let Some(id) = view.tree.lookup(FOLDER) else { return Vec::new() };
    let meta = &view.tree.node(id).meta;
    if (meta.mode & 0o7777, meta.uid, meta.gid) == (CLOSED, 0, 0) {
        return Vec::new();
    }
    let problem = format!(
        "has mode {:04o} and owner {}:{}, and holds what containers bring",
        meta.mode, meta.uid, meta.gid
    );
    let advice = "only root may enter it: leave it out of packages and overlays".to_owned();
    vec![view.finding(Severity::Error, FOLDER.as_bytes(), id, problem, advice)]
}

/// Reports what packages, overlays and `files` bring in keller's own places: it would be lost, be taken for keller's, or
/// be a link that leads what containers bring to where everybody comes.
pub(super) fn brought(view: &View<'_>) -> Vec<Finding> {
    let there = OWN.iter().filter_map(|path| Some((path, view.tree.lookup(path)?)));
    let told = there.map(|(path, id)| {
        let problem = "is a place that keller alone fills".to_owned();
        let advice = "leave it out of packages, overlays and `files`".to_owned();
        view.finding(Severity::Error, path.as_bytes(), id, problem, advice)
    });
    told.collect()
}
