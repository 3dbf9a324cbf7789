//! Device nodes that packages, overlays and images bring: whoever may open one has the device.

use std::collections::BTreeSet;

use super::{Finding, Inputs, Severity, View, named};
use crate::tree::Kind;

/// Reports device nodes that the manifest does not allow. The character device 0:0 is never one: in a layer, overlayfs
/// takes it for the mark of a removed file.
pub fn check(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let mut findings = Vec::new();
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
            findings.push(view.finding(Severity::Error, path, *id, problem, inputs.leave_out()));
        } else if !inputs.device_nodes.contains(&name) {
            let advice = inputs.allow("device_nodes", &name);
            findings.push(view.finding(Severity::Error, path, *id, problem, advice));
        }
    }
    findings
}

/// Names of all device nodes.
pub fn names(view: &View<'_>) -> BTreeSet<String> {
    let is = |id| matches!(view.tree.node(id).kind, Kind::CharDevice(..) | Kind::BlockDevice(..));
    view.paths.iter().filter(|(_, id)| is(*id)).map(|(path, _)| named(path)).collect()
}
