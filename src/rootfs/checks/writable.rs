//! What everybody may write to. The verified root itself is read-only, but /etc is not, nor is what containers see of
//! their images, and a file moves with its mode.

use std::collections::BTreeSet;

use super::many::{Entries, Found, report};
use super::{Finding, Inputs, View, named};
use crate::tree::{Kind, Node};

const OTHERS_WRITE: u16 = 0o002;
const STICKY: u16 = 0o1000;

/// Whether everybody may change the file, or names in the directory that are another's. A device that is left out
/// (`leaves_devices`) is open to nobody.
fn is_open(node: &Node, leaves_devices: bool) -> bool {
    match node.kind {
        // The mode of a link is that of no file.
        Kind::Symlink(_) => false,
        Kind::CharDevice(..) | Kind::BlockDevice(..) if leaves_devices => false,
        Kind::Directory(_) if node.meta.mode & STICKY != 0 => false,
        _ => node.meta.mode & OTHERS_WRITE != 0,
    }
}

/// Reports such files and directories that the manifest does not allow.
pub(super) fn check(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let allowed = Entries::new(&inputs.allowed.world_writable);
    let mut found = Vec::new();
    for (path, id) in &view.paths {
        let node = view.tree.node(*id);
        if !is_open(node, inputs.leaves_devices) {
            continue;
        }
        let name = named(path);
        if allowed.allow(&name) {
            continue;
        }
        let mode = node.meta.mode;
        let problem = match node.kind {
            Kind::Directory(_) => {
                format!("may be written to by everybody, and has no sticky bit (mode {mode:04o})")
            }
            _ => format!("may be written to by everybody (mode {mode:04o})"),
        };
        found.push(Found { path, id: *id, name, problem });
    }
    report(view, found, &|entry| inputs.allow("world_writable", entry))
}

/// Names of all such files and directories.
pub(super) fn names(view: &View<'_>, leaves_devices: bool) -> BTreeSet<String> {
    let open = view.paths.iter().filter(|(_, id)| is_open(view.tree.node(*id), leaves_devices));
    open.map(|(path, _)| named(path)).collect()
}
