//! Files that give whoever starts them more rights: setuid, setgid, capabilities.

use super::links::name_on_node;
use super::{Finding, Inputs, Severity, View};
use crate::tree::Kind;

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;

/// Where the kernel keeps a file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// Reports such files that the manifest does not allow, and entries of it that allow nothing.
pub fn check(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let allowed = &inputs.setuid;
    let mut findings = Vec::new();
    let mut used = vec![false; allowed.len()];
    for (path, id) in &view.paths {
        let node = view.tree.node(*id);
        // On a directory setgid only passes its group on.
        if !matches!(node.kind, Kind::File(_)) {
            continue;
        }
        let what: Vec<_> = [
            (node.meta.mode & SETUID != 0, "setuid"),
            (node.meta.mode & SETGID != 0, "setgid"),
            (node.meta.xattrs.contains_key(CAPABILITY), "given capabilities"),
        ]
        .into_iter()
        .filter_map(|(is_so, what)| is_so.then_some(what))
        .collect();
        if what.is_empty() {
            continue;
        }
        let path = name_on_node(path);
        let text = format!("/{}", crate::tree::show(path));
        if let Some(index) = allowed.iter().position(|allowed| *allowed == text) {
            used[index] = true;
            continue;
        }
        let problem = format!(
            "is {} (mode {:04o}, owner {}:{})",
            what.join(" and "),
            node.meta.mode,
            node.meta.uid,
            node.meta.gid
        );
        let advice = format!("allow it with `setuid: [{text}]`, or leave it out with `prune`");
        findings.push(view.finding(Severity::Error, path, *id, problem, advice));
    }
    for (path, _) in allowed.iter().zip(used).filter(|(_, used)| !used) {
        // What a component allows need not be there.
        if inputs.said.is_carried("setuid", path) {
            continue;
        }
        let problem = format!("setuid allows {path}, which is not there or has no such bits");
        findings.push(Finding {
            severity: Severity::Warning,
            path: String::new(),
            origin: "manifest".to_owned(),
            problem: inputs.said.at("setuid", path, &problem),
            advice: "remove the entry".to_owned(),
        });
    }
    findings
}
