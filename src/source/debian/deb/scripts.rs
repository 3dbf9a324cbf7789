//! What a maintainer script does, as far as its words tell. Nobody runs it here; somebody has to know what is
//! left undone.

mod accounts;

use std::collections::BTreeSet;

pub use accounts::Account;

/// Where debhelper's own lines begin and end: caches, units and the like, which are looked after without.
const GENERATED: [&str; 2] = ["# Automatically added by", "# End automatically added section"];

/// Words of scripts, by what it takes to have their effect without them.
const ACTIONS: [(Action, &[&str]); 7] = [
    (Action::Accounts, &["addgroup", "adduser", "groupadd", "useradd", "usermod"]),
    (Action::Owners, &["chgrp", "chmod", "chown", "dpkg-statoverride", "setfacl"]),
    (Action::Capabilities, &["setcap"]),
    (Action::Files, &["cp", "install", "ln", "mkdir", "mknod", "mv", "tee", "touch", "ucf"]),
    (Action::Alternatives, &["update-alternatives"]),
    (Action::Diversions, &["dpkg-divert"]),
    (Action::Secrets, &["make-ssl-cert", "openssl", "ssh-keygen", "uuidgen"]),
];

/// A kind of thing that scripts do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Makes or changes accounts.
    Accounts,
    /// Gives files owners or modes.
    Owners,
    /// Gives programs capabilities.
    Capabilities,
    /// Makes files, folders or links.
    Files,
    /// Chooses one of several programs of a name.
    Alternatives,
    /// Moves files of other packages out of the way.
    Diversions,
    /// Makes keys or certificates.
    Secrets,
    /// Has other files do its work, which are named after a dot.
    Sources,
}

/// Words of `script` that do something to the system, sorted, each once: names of programs, and paths of the
/// files that it sources. A command that makes an account stands with its name, as [`Account::of`] reads it.
/// What debhelper wrote counts only where `generated` says so, except for diversions, which nothing here stands
/// in for.
pub fn words(script: &[u8], generated: bool) -> Vec<String> {
    let text = String::from_utf8_lossy(script).replace("\\\n", " ");
    let variables = accounts::variables(&text);
    let mut found = BTreeSet::new();
    let mut commands = 0;
    let mut skipping = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with(GENERATED[0]) {
            skipping = !generated;
        } else if line.starts_with(GENERATED[1]) {
            skipping = false;
        }
        if line.starts_with('#') {
            continue;
        }
        let line = line.split(" #").next().unwrap_or_default();
        let mut before = "";
        let mut words = line.split(|c: char| c.is_whitespace() || ";|&()`{}\"'".contains(c)).peekable();
        while let Some(word) = words.next() {
            let name = word.rsplit('/').next().unwrap_or(word);
            // Scripts are told by the word `install` that they run because of one.
            let told = name == "install" && !words.peek().is_some_and(|next| next.starts_with('-'));
            let does = action(name).filter(|action| !skipping || *action == Action::Diversions);
            if does == Some(Action::Accounts) {
                let after = word.as_ptr().addr() - line.as_ptr().addr() + word.len();
                let rest = if commands < accounts::COMMANDS { &line[after..] } else { "" };
                found.insert(accounts::command(name, rest, &variables));
                commands += 1;
            } else if does.is_some() && !told {
                found.insert(name.to_owned());
            } else if !skipping
                && before == "."
                && word.starts_with('/')
                && !word.ends_with("/debconf/confmodule")
            {
                found.insert(word.to_owned());
            }
            before = word;
        }
    }
    found.into_iter().collect()
}

/// What a word that [`words`] gives stands for.
pub fn action(word: &str) -> Option<Action> {
    if word.starts_with('/') {
        return Some(Action::Sources);
    }
    let word = word.split(' ').next().unwrap_or_default();
    ACTIONS.iter().find(|(_, words)| words.contains(&word)).map(|(action, _)| *action)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\n\
        if [ \"$1\" = \"install\" ]; then\n install -d /y;  # chown is not called here\n  . /usr/share/x/functions\n\
        \x20 su postgres -c \"touch /var/x\" || /usr/sbin/adduser --system x; ln -s a b\nfi\n\
        # Automatically added by dh_installsystemd/13\nmkdir /x\n# End automatically added section\nmkdirs\n";

    #[test]
    fn words_that_do_something() {
        assert_eq!(
            words(SCRIPT.as_bytes(), false),
            ["/usr/share/x/functions", "adduser x", "install", "ln", "touch"]
        );
        let diverting = SCRIPT.replace("mkdir /x", "dpkg-divert --package x --rename /usr/bin/y; mkdir /x");
        assert_eq!(
            words(diverting.as_bytes(), false).iter().filter(|word| *word == "dpkg-divert").count(),
            1
        );
        assert!(!words(diverting.as_bytes(), false).contains(&"mkdir".to_owned()));
        assert!(words(SCRIPT.as_bytes(), true).contains(&"mkdir".to_owned()));
        assert!(words(b"#!/bin/sh\ncase $1 in install|upgrade) exit 0;; esac\n", true).is_empty());
        assert_eq!(action("adduser"), Some(Action::Accounts));
        assert_eq!(action("echo"), None);
    }
}
