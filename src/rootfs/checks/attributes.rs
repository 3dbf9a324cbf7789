//! Extended attributes that say to the kernel what a mode does not: who may what besides it, what overlayfs hides,
//! what a security module thinks of a file.

use super::many::{Found, report};
use super::{Finding, Inputs, View, named};
use crate::tree::{is_plain_attribute, show};

/// Reports attributes other than users' own and capabilities, which are a matter of `setuid`.
pub(super) fn check(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, id) in &view.paths {
        for name in view.tree.node(*id).meta.xattrs.keys().filter(|name| !is_plain_attribute(name)) {
            let problem = format!("has the attribute {}, which the kernel would obey", show(name));
            found.push(Found { path, id: *id, name: named(path), problem });
        }
    }
    report(view, found, &|_| inputs.leave_out())
}
