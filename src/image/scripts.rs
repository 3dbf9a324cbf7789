//! Maintainer scripts: nobody runs them, so whoever wants a package hears what they would have done.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Digest, Progress};
use crate::lock::solver::MANIFEST;
use crate::lock::{self, LockedPackage};
use crate::manifest;
use crate::rootfs::checks::ScriptAccount;
use crate::source::debian::deb::scripts::{Account, Action, action};

/// Those that run when a package comes into a system.
const AT_INSTALLATION: [&str; 2] = ["preinst", "postinst"];

/// What is known of a package's scripts.
#[derive(Clone, Debug, Default)]
pub struct Scripts {
    /// By name.
    pub digests: BTreeMap<String, Digest>,
    /// Words of each that do something to the system.
    pub actions: BTreeMap<String, Vec<String>>,
}

/// Tells what scripts would do that `packages` have not locked as they are, and gives the digests to lock. Packages that
/// keller's own components want are passed over: those say themselves what their packages need.
pub fn settle(
    packages: &BTreeMap<String, LockedPackage>,
    scripts: BTreeMap<String, Scripts>,
    progress: &dyn Progress,
) -> lock::Scripts {
    let cared_for = cared_for(packages);
    let mut lines = Vec::new();
    let mut found = lock::Scripts::new();
    for (name, Scripts { digests, actions }) in scripts {
        let Some(package) = packages.get(&name) else { continue };
        for script in AT_INSTALLATION {
            if let Some(words) = actions.get(script)
                && package.scripts.get(script) != digests.get(script)
                && !cared_for.contains(&name)
            {
                lines.push(format!("\n  {name} {script}: {}", undone(words)));
            }
        }
        found.insert(name, digests);
    }
    if !lines.is_empty() {
        progress.note(&format!(
            "no script of a package is run. These would make what the manifest has to say where it is \
             wanted (`keller schema --markdown`, \"No scripts are run\"):{}",
            lines.concat()
        ));
    }
    found
}

/// Accounts that scripts at installation would make, of packages for which no component of keller's speaks.
pub fn accounts(
    packages: &BTreeMap<String, LockedPackage>,
    scripts: &BTreeMap<String, Scripts>,
) -> Vec<ScriptAccount> {
    let cared_for = cared_for(packages);
    let mut found = Vec::new();
    for (package, scripts) in scripts.iter().filter(|(package, _)| !cared_for.contains(*package)) {
        for script in AT_INSTALLATION {
            let words = scripts.actions.get(script).into_iter().flatten();
            found.extend(words.filter_map(|word| Account::of(word)).map(|account| ScriptAccount {
                package: package.clone(),
                script,
                account,
            }));
        }
    }
    found
}

/// Packages that a component of keller's own wants, directly or not.
pub fn cared_for(packages: &BTreeMap<String, LockedPackage>) -> BTreeSet<String> {
    let carried = manifest::carried_packages();
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for (name, package) in packages {
            let wanted =
                |by: &String| if by == MANIFEST { carried.contains(name) } else { found.contains(by) };
            if package.wanted_by.iter().any(wanted) {
                found.insert(name.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// `accounts (adduser), files (cp, ln)`.
fn undone(words: &[String]) -> String {
    let mut kinds: BTreeMap<Action, Vec<&str>> = BTreeMap::new();
    for word in words {
        if let Some(action) = action(word) {
            kinds.entry(action).or_default().push(word);
        }
    }
    let said: Vec<_> = kinds
        .iter()
        .map(|(action, words)| {
            let what = match action {
                Action::Accounts => "accounts",
                Action::Owners => "owners and modes",
                Action::Capabilities => {
                    "capabilities, given by `files: [{path: PROGRAM, capabilities: [cap_net_raw+ep]}]` and \
                     `setuid: [PROGRAM]`"
                }
                Action::Files => "files",
                Action::Alternatives => "alternatives",
                Action::Diversions => "diversions",
                Action::Secrets => "keys",
                Action::Sources => "functions",
            };
            format!("{what} ({})", words.join(", "))
        })
        .collect();
    said.join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::base::progress::{TaskId, Unit};

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Progress for Notes {
        fn begin(&self, _: &str, _: u64, _: Unit) -> TaskId {
            TaskId(0)
        }
        fn advance(&self, _: TaskId, _: u64) {}
        fn end(&self, _: TaskId) {}
        fn note(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
        fn warn(&self, _: &str) {}
    }

    fn package(wanted_by: &str) -> LockedPackage {
        LockedPackage {
            version: "1".into(),
            architecture: "all".into(),
            archive: "debian".into(),
            path: "pool/x".into(),
            size: 0,
            sha256: Digest::of(""),
            wanted_by: vec![wanted_by.into()],
            scripts: BTreeMap::new(),
        }
    }

    #[test]
    fn what_a_metapackage_brings_is_the_users() {
        let packages: BTreeMap<String, _> = [
            ("gnupg", MANIFEST),
            ("gpg-wks-client", "gnupg"),
            ("helper", "gpg-wks-client"),
            ("passwd", MANIFEST),
        ]
        .map(|(name, by)| (name.to_owned(), package(by)))
        .into();
        assert_eq!(cared_for(&packages), ["passwd".to_owned()].into());
    }

    #[test]
    fn capabilities_are_told_with_both_fields_that_give_them() {
        assert_eq!(
            undone(&["setcap".to_owned()]),
            "capabilities, given by `files: [{path: PROGRAM, capabilities: [cap_net_raw+ep]}]` and `setuid: [PROGRAM]` \
             (setcap)"
        );
    }

    #[test]
    fn told_once_and_only_of_what_the_user_wants() {
        let mut packages: BTreeMap<String, _> =
            [("passwd", MANIFEST), ("login", "passwd"), ("nginx", MANIFEST), ("nginx-common", "nginx")]
                .map(|(name, by)| (name.to_owned(), package(by)))
                .into();
        let scripts = |text: &str| -> BTreeMap<String, Scripts> {
            let words = vec!["adduser".to_owned(), "ln".to_owned()];
            let one = Scripts {
                digests: BTreeMap::from([("postinst".to_owned(), Digest::of(text))]),
                actions: BTreeMap::from([("postinst".to_owned(), words)]),
            };
            ["passwd", "login", "nginx-common"].map(|name| (name.to_owned(), one.clone())).into()
        };
        let notes = Notes::default();
        for text in ["one", "one", "another"] {
            let found = settle(&packages, scripts(text), &notes);
            for (name, digests) in found {
                packages.get_mut(&name).unwrap().scripts = digests;
            }
        }
        let notes = notes.0.into_inner().unwrap();
        assert_eq!(notes.len(), 2, "{notes:?}");
        let line = "nginx-common postinst: accounts (adduser), files (ln)";
        assert!(notes[0].contains(line) && !notes[0].contains("passwd"), "{}", notes[0]);
    }
}
