//! Directories that packages ship as root's inside of the home of a service: their scripts would give them away, and the
//! service cannot write to them.

use super::{Finding, Severity, sorted};
use crate::manifest::SystemUser;
use crate::rootfs::error::Error;
use crate::rootfs::tmpfiles;
use crate::tree::{Kind, Tree, show};

/// Reports them, while they are still in the tree. Where the tree `boots`, a line of tmpfiles.d that speaks of one counts.
///
/// # Errors
/// What the tree says of a file of lines.
pub fn check(tree: &Tree, users: &[SystemUser], boots: bool) -> Result<Vec<Finding>, Error> {
    let made = if boots { tmpfiles::made(tree)? } else { Default::default() };
    let mut findings = Vec::new();
    for user in users.iter().filter(|user| user.home.starts_with("/var/")) {
        let mut pending: Vec<_> =
            tree.lookup(&user.home).map(|id| (user.home.clone().into_bytes(), id)).into_iter().collect();
        while let Some((above, id)) = pending.pop() {
            for (name, child) in tree.children(id) {
                let path = [&above[..], b"/", name].concat();
                let node = tree.node(child);
                if !matches!(node.kind, Kind::Directory(_)) || tree.is_users(child) {
                    continue;
                }
                // 0o002: everybody may write.
                if node.meta.uid == 0 && node.meta.mode & 0o002 == 0 && !made.contains(&path) {
                    findings.push(finding(tree.origin_name(node.origin), &show(&path), &user.name));
                } else {
                    pending.push((path, child));
                }
            }
        }
    }
    Ok(sorted(findings))
}

fn finding(package: &str, path: &str, user: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        path: path.to_owned(),
        origin: package.to_owned(),
        problem: format!("is root's, in the home of {user}, who cannot write to it"),
        advice: format!(
            "where {package}'s script gives it to {user}, write `files: [{{path: {path}, owner: {user}, group: {user}}}]`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_service_cannot_write_to() {
        let mut tree = Tree::new(0);
        for (path, mode, uid) in [
            ("var/lib/app/data", 0o755, 0),
            ("var/lib/app/data/deeper", 0o755, 0),
            ("var/lib/app/own", 0o700, 300),
            ("var/lib/app/own/roots", 0o755, 0),
            ("var/lib/app/spool", 0o1777, 0),
            ("var/lib/app/made", 0o755, 0),
            ("var/lib/other/data", 0o755, 0),
        ] {
            let id = tree.directory(path, mode).unwrap();
            (tree.node_mut(id).meta.uid, tree.node_mut(id).meta.mode) = (uid, mode);
        }
        tree.file("var/lib/app/file", 0o644, "").unwrap();
        tree.file("usr/lib/tmpfiles.d/app.conf", 0o644, "d /var/lib/app/made 0750 app app\n").unwrap();
        let user = |name: &str, home: &str| SystemUser {
            name: name.into(),
            uid: None,
            home: home.into(),
            groups: Vec::new(),
            description: String::new(),
        };
        let users = [user("app", "/var/lib/app"), user("none", "/"), user("gone", "/var/lib/gone")];
        let paths = |boots| {
            check(&tree, &users, boots).unwrap().into_iter().map(|found| found.path).collect::<Vec<_>>()
        };
        assert_eq!(paths(true), ["/var/lib/app/data", "/var/lib/app/own/roots"]);
        assert_eq!(paths(false), ["/var/lib/app/data", "/var/lib/app/made", "/var/lib/app/own/roots"]);
    }
}
