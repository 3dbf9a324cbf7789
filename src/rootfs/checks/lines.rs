//! Lines of sysusers.d and tmpfiles.d that do not do what they say.
//!
//! systemd logs such a line at every boot and passes over it, where nobody looks. One of the user's own files is
//! an error; one of a package is told.

use super::super::error::Error;
use super::super::users::{Wanted, passwd, sysusers};
use super::{Finding, Severity, sorted};
use crate::tree::Tree;

/// Checks the sysusers.d files of a tree that has all packages, overlays and files.
///
/// # Errors
/// Of the tree.
pub fn sysusers(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let mut wanted = Wanted::default();
    passwd::masters(tree, &mut wanted)?;
    sysusers::collect(tree, &mut wanted)?;
    let findings = wanted.problems.into_iter().map(|problem| {
        let name = "sysusers.d";
        let Place { origin, of_user } = Place::of(tree, &problem.path);
        let advice = match (problem.ignored, of_user) {
            (true, true) => format!("systemd-sysusers passes over the line, and so would the build; mend it: {name}(5)"),
            (true, false) => format!(
                "the line does nothing, as on Debian; a file of the same name in /etc/{name} (`overlays` or `files`) \
                 takes the place of this one"
            ),
            (false, _) => "systemd-sysusers does the same; ask for a free id, or for none".to_owned(),
        };
        Finding {
            severity: if problem.ignored && of_user { Severity::Error } else { Severity::Warning },
            path: format!("{}:{}", problem.path, problem.line),
            origin,
            problem: format!("says what it does not do: {}", problem.what),
            advice,
        }
    });
    Ok(sorted(findings.collect()))
}

/// Who has brought a file.
struct Place {
    origin: String,
    of_user: bool,
}

impl Place {
    fn of(tree: &Tree, path: &str) -> Self {
        let Ok(id) = tree.resolve(path) else { return Self { origin: String::new(), of_user: false } };
        let node = tree.node(id);
        Self { origin: tree.origin_name(node.origin).to_owned(), of_user: tree.is_users(id) }
    }
}
