//! Device nodes that packages, overlays and images bring: whoever may open one has the device.

use std::collections::BTreeSet;

use super::many::{Entries, Found, report};
use super::{Finding, Inputs, View, named};
use crate::tree::Kind;

/// Reports device nodes that the manifest does not allow. The character device 0:0 is never one: in a layer, overlayfs
/// takes it for the mark of a removed file.
pub(super) fn check(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let allowed = Entries::new(&inputs.allowed.device_nodes);
    let (mut marks, mut found) = (Vec::new(), Vec::new());
    for (path, id) in &view.paths {
        let (kind, major, minor) = match view.tree.node(*id).kind {
            Kind::CharDevice(major, minor) => ("character", major, minor),
            Kind::BlockDevice(major, minor) => ("block", major, minor),
            _ => continue,
        };
        let name = named(path);
        let mode = view.tree.node(*id).meta.mode;
        let problem = format!("is the {kind} device {major}:{minor} (mode {mode:04o})");
        if (kind, major, minor) == ("character", 0, 0) {
            let problem = format!("{problem}, by which overlayfs marks what is removed");
            marks.push(Found { path, id: *id, name, problem });
        } else if !allowed.allow(&name) {
            found.push(Found { path, id: *id, name, problem });
        }
    }
    let mut findings = report(view, marks, &|_| inputs.leave_out());
    findings.extend(report(view, found, &|entry| inputs.allow("device_nodes", entry)));
    findings
}

/// Names of all device nodes.
pub(super) fn names(view: &View<'_>) -> BTreeSet<String> {
    let is = |id| matches!(view.tree.node(id).kind, Kind::CharDevice(..) | Kind::BlockDevice(..));
    view.paths.iter().filter(|(_, id)| is(*id)).map(|(path, _)| named(path)).collect()
}
