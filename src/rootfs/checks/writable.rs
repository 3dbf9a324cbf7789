//! What everybody may write to. The verified root itself is read-only, but /etc is not, nor is what containers see of
//! their images, and a file moves with its mode.

use std::collections::BTreeSet;

use super::{Finding, Inputs, Severity, View, named};
use crate::tree::{Kind, Node};

const OTHERS_WRITE: u16 = 0o002;
const STICKY: u16 = 0o1000;

/// Whether everybody may change the file, or names in the directory that are another's.
fn is_open(node: &Node) -> bool {
    match node.kind {
        // The mode of a link is that of no file.
        Kind::Symlink(_) => false,
        Kind::Directory(_) if node.meta.mode & STICKY != 0 => false,
        _ => node.meta.mode & OTHERS_WRITE != 0,
    }
}

/// Whether the entry `allowed` is for `name`.
pub fn covers(allowed: &str, name: &str) -> bool {
    name.strip_prefix(allowed.trim_end_matches('/'))
        .is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// Reports such files and directories that the manifest does not allow.
pub fn check(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, id) in &view.paths {
        let node = view.tree.node(*id);
        if !is_open(node) {
            continue;
        }
        let name = named(path);
        if inputs.world_writable.iter().any(|allowed| covers(allowed, &name)) {
            continue;
        }
        let mode = node.meta.mode;
        let problem = match node.kind {
            Kind::Directory(_) => {
                format!("may be written to by everybody, and has no sticky bit (mode {mode:04o})")
            }
            _ => format!("may be written to by everybody (mode {mode:04o})"),
        };
        let advice = inputs.allow("world_writable", &name);
        findings.push(view.finding(Severity::Error, path, *id, problem, advice));
    }
    findings
}

/// Names of all such files and directories.
pub fn names(view: &View<'_>) -> BTreeSet<String> {
    let open = view.paths.iter().filter(|(_, id)| is_open(view.tree.node(*id)));
    open.map(|(path, _)| named(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_for_what_is_in_it() {
        assert!(covers("/app", "/app") && covers("/app", "/app/x/y") && covers("/", "/x"));
        assert!(!covers("/app", "/apple") && !covers("/app/x", "/app"));
    }
}
