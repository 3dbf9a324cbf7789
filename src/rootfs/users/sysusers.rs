//! sysusers.d: accounts that packages ask for. Format: sysusers.d(5) of systemd 257.

use super::super::conf_d::{self, Backslash, ConfFile};
use super::super::error::Error;
use super::{Class, NO_LOGIN, Wanted, WantedUser};
use crate::tree::Tree;

/// Adds what every sysusers.d file of the tree asks for. Ranges (`r`) are not looked at: numbers are
/// chosen once and recorded in the lock.
pub fn collect(tree: &Tree, wanted: &mut Wanted) -> Result<(), Error> {
    let files = conf_d::files(tree, "sysusers.d")?;
    let mut members = Vec::new();
    for file in &files {
        for line in file.lines() {
            let (number, text) = line;
            let words = words(text).map_err(|what| file.malformed(number, what))?;
            let mut fields = words.iter().map(|word| if word == "-" { "" } else { word });
            let mut next = || fields.next().unwrap_or_default();
            let (kind, name, id) = (next(), next(), next());
            let (description, home, shell) = (next(), next(), next());
            match kind.trim_end_matches(['!', '+']) {
                "u" => {
                    let user = Line { name, id, description, home, shell, locked: kind.contains('!') };
                    user.add(tree, file, number, wanted)?;
                }
                "g" => {
                    let (gid, _) = ids(tree, file, number, id)?;
                    wanted.group(name, gid, Class::System, &file.path)?;
                }
                // Both may be defined further down.
                "m" => members.push((file, name.to_owned(), id.to_owned())),
                "r" => {}
                other => return Err(file.malformed(number, format!("unknown type {other:?}"))),
            }
        }
    }
    for (file, user, group) in members {
        if !wanted.users.contains_key(&user) {
            let line = Line { name: &user, id: "", description: "", home: "", shell: "", locked: false };
            line.add(tree, file, 0, wanted)?;
        }
        wanted.group(&group, None, Class::System, &file.path)?;
        wanted.join(&user, &[group]);
    }
    Ok(())
}

/// Fields of a line: `parse_line()` of systemd's sysusers.c.
fn words(mut text: &[u8]) -> Result<Vec<String>, &'static str> {
    let words = std::iter::from_fn(|| conf_d::word(&mut text, Backslash::Quotes).transpose());
    let words: Vec<_> = words.collect::<Result<_, _>>()?;
    words.into_iter().map(|word| String::from_utf8(word).map_err(|_| "a word that is no UTF-8")).collect()
}

/// A line of type `u`; what was `-` is empty.
struct Line<'a> {
    name: &'a str,
    id: &'a str,
    description: &'a str,
    home: &'a str,
    shell: &'a str,
    locked: bool,
}

impl Line<'_> {
    fn add(&self, tree: &Tree, file: &ConfFile, line: usize, wanted: &mut Wanted) -> Result<(), Error> {
        let (uid, group) = ids(tree, file, line, self.id)?;
        let or =
            |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        // Without a group in the line, one of the user's name and number is made.
        let group = match group {
            Some(group) => group,
            None => {
                wanted.group(self.name, uid, Class::System, &file.path)?;
                self.name.to_owned()
            }
        };
        let login = if self.name == "root" { "/bin/sh" } else { NO_LOGIN };
        let user = WantedUser {
            source: file.path.clone(),
            uid,
            group,
            description: self.description.to_owned(),
            home: or(self.home, "/"),
            shell: or(self.shell, login),
            locked: self.locked,
            password: None,
            ssh_keys: Vec::new(),
            class: Class::System,
        };
        wanted.user(self.name, user)
    }
}

/// The third field: the number, and name or number of the group if it is named besides.
fn ids(
    tree: &Tree,
    file: &ConfFile,
    line: usize,
    field: &str,
) -> Result<(Option<u32>, Option<String>), Error> {
    if field.starts_with('/') {
        let node = tree.node(tree.resolve(field)?);
        return Ok((Some(node.meta.uid), Some(node.meta.gid.to_string())));
    }
    let (user, group) = match field.split_once(':') {
        Some((user, group)) => (user, Some(group.to_owned())),
        None => (field, None),
    };
    let uid = match user {
        "" | "-" => None,
        number => {
            let parsed = number.parse();
            Some(parsed.map_err(|_| file.malformed(line, format!("{number:?} is no id")))?)
        }
    };
    Ok((uid, group))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(text: &str) -> Wanted {
        let mut tree = Tree::new(0);
        tree.file("usr/lib/sysusers.d/x.conf", 0o644, text).unwrap();
        let mut wanted = Wanted::default();
        collect(&tree, &mut wanted).unwrap();
        wanted
    }

    #[test]
    fn every_kind_of_line() {
        let wanted = collected(
            "u root 0 - /root /bin/bash\nu nobody 65534:65534 -\nu _apt 42:65534 - /nonexistent /usr/sbin/nologin\n\
             u sshd -:nogroup \"sshd user\" /run/sshd\ng nogroup 65534 -\ng tty 5 -\nu! net - \"Net\"\n\
             m net tty\nm other extra\nr - 500-900\n",
        );
        let user = |name: &str| &wanted.users[name];
        assert_eq!((user("root").uid, user("root").group.as_str()), (Some(0), "root"));
        assert_eq!(wanted.groups["root"].gid, Some(0));
        assert_eq!((user("_apt").uid, user("_apt").group.as_str()), (Some(42), "65534"));
        assert!(!wanted.groups.contains_key("_apt") && !wanted.groups.contains_key("nobody"));
        assert_eq!((user("sshd").uid, user("sshd").group.as_str()), (None, "nogroup"));
        assert_eq!(user("sshd").home, "/run/sshd");
        assert!(user("net").locked && !user("sshd").locked);
        assert_eq!((user("net").home.as_str(), user("net").shell.as_str()), ("/", NO_LOGIN));
        assert!(wanted.groups.contains_key("net") && wanted.groups.contains_key("extra"));
        assert!(wanted.users.contains_key("other"));
        assert!(wanted.memberships.contains(&("net".into(), "tty".into())));
    }

    #[test]
    fn bad_lines_are_named() {
        let mut tree = Tree::new(0);
        tree.file("usr/lib/sysusers.d/x.conf", 0o644, "\nu a ten").unwrap();
        let error = collect(&tree, &mut Wanted::default()).unwrap_err().to_string();
        assert_eq!(error, "/usr/lib/sysusers.d/x.conf:2: \"ten\" is no id");
    }
}
