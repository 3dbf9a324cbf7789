//! sysusers.d: accounts that packages and overlays ask for. Format: [`mod@line`].
//!
//! What is made is what systemd-sysusers makes on an empty root that has base-passwd's accounts: groups first,
//! then users, each in the order of its lines; of two lines for one name the first counts, and a number that
//! somebody has already gives way to a free one (`process_item()`, `add_group()` and `add_user()` of systemd
//! 257's sysusers.c). Free numbers are not chosen here but by [`super::allocate()`], and recorded in the lock.

pub mod line;

use std::collections::{BTreeMap, BTreeSet};

use self::line::{Id, Line, Primary, User};
use super::super::conf_d;
use super::super::error::Error;
use super::{Class, NO_LOGIN, Wanted, WantedGroup, WantedUser};
use crate::base::limits;
use crate::tree::Tree;

/// Numbers that the owner of a path may have where no line of type `r` says which: those of the system.
const SYSTEM: std::ops::RangeInclusive<u32> = 1..=999;

/// A line that does not do what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Absolute path of the file.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// Whether the line does nothing at all.
    pub ignored: bool,
    /// Whether it is the owner of the line's path that is wrong.
    pub of_path: bool,
}

/// Where a line stands.
#[derive(Clone, Debug, Default)]
struct Place {
    path: String,
    line: usize,
}

/// Lines that count, in their order.
#[derive(Default)]
struct Lines {
    users: Vec<(Place, User)>,
    groups: Vec<(Place, String, Id)>,
    members: Vec<(Place, String, String)>,
}

/// Adds what every sysusers.d file of the tree asks for, and notes in `wanted` which lines do not do what they
/// say. `wanted` has base-passwd's accounts.
///
/// # Errors
/// Of the tree.
pub fn collect(tree: &Tree, wanted: &mut Wanted) -> Result<(), Error> {
    let (mut lines, mut count) = (Lines::default(), 0);
    for file in conf_d::files(tree, "sysusers.d")? {
        for (number, text) in file.lines() {
            count += 1;
            if count > limits::ACCOUNTS {
                return Err(Error::too_many_accounts(&file.path, number));
            }
            let place = Place { path: file.path.clone(), line: number };
            match Line::parse(text) {
                Ok(line) => lines.add(line, place, wanted),
                Err(error) => place.ignored(wanted, error.to_string()),
            }
        }
    }
    lines.imply();
    let known = |names: Vec<(&String, Option<u32>)>| {
        names.into_iter().filter_map(|(name, id)| Some((id?, name.clone()))).collect()
    };
    let mut making = Making {
        tree,
        static_users: wanted.users.keys().cloned().collect(),
        static_groups: wanted.groups.keys().cloned().collect(),
        uids: known(wanted.users.iter().map(|(name, user)| (name, user.uid)).collect()),
        gids: known(wanted.groups.iter().map(|(name, group)| (name, group.gid)).collect()),
        wanted,
    };
    for (place, name, id) in &lines.groups {
        making.group(place, name, id);
    }
    for (place, user) in &lines.users {
        making.user(place, user, &lines);
    }
    for (place, user, group) in lines.members {
        if !wanted.groups.contains_key(&group) {
            place.ignored(wanted, format!("there is no group {group}"));
        } else if wanted.users.contains_key(&user) {
            wanted.join(&user, &[group]);
        }
    }
    Ok(())
}

impl Place {
    fn note(&self, wanted: &mut Wanted, what: String, ignored: bool, of_path: bool) {
        // A line of type `m` implies accounts, of which there is nothing to say.
        if self.line > 0 {
            wanted.problems.push(Problem {
                path: self.path.clone(),
                line: self.line,
                what,
                ignored,
                of_path,
            });
        }
    }

    fn ignored(&self, wanted: &mut Wanted, what: String) {
        self.note(wanted, what, true, false);
    }
}

impl Lines {
    fn add(&mut self, line: Line, place: Place, wanted: &mut Wanted) {
        let same = |first: &Place, equal: bool, place: &Place, wanted: &mut Wanted| {
            if !equal {
                let what = format!("{}:{} says otherwise, and the first line counts", first.path, first.line);
                place.ignored(wanted, what);
            }
        };
        match line {
            Line::User(user) => match self.users.iter().find(|(_, known)| known.name == user.name) {
                Some((first, known)) => same(first, *known == user, &place, wanted),
                None => self.users.push((place, user)),
            },
            Line::Group { name, id } => match self.groups.iter().find(|(_, known, _)| *known == name) {
                Some((first, _, known)) => same(first, *known == id, &place, wanted),
                None => self.groups.push((place, name, id)),
            },
            Line::Member { user, group } => self.members.push((place, user, group)),
            Line::Range(range) => wanted.ranges.push(range),
        }
    }

    /// Adds users and groups that only lines of type `m` name.
    fn imply(&mut self) {
        let mut groups: Vec<&String> = Vec::new();
        for (_, _, group) in &self.members {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        for group in groups {
            for (place, user, _) in self.members.iter().filter(|(.., of)| of == group) {
                if !self.users.iter().any(|(_, known)| known.name == *user) {
                    let place = Place { path: place.path.clone(), line: 0 };
                    self.users.push((place, User { name: user.clone(), ..User::default() }));
                }
            }
            let known = self.users.iter().any(|(_, user)| user.name == *group)
                || self.groups.iter().any(|(_, name, _)| name == group);
            if !known {
                let path = self.members.iter().find(|(.., of)| of == group).map(|(place, ..)| &place.path);
                let place = Place { path: path.cloned().unwrap_or_default(), line: 0 };
                self.groups.push((place, group.clone(), Id::Open));
            }
        }
    }
}

/// Accounts while they are made.
struct Making<'a> {
    tree: &'a Tree,
    wanted: &'a mut Wanted,
    /// Accounts that were there before.
    static_users: BTreeSet<String>,
    static_groups: BTreeSet<String>,
    /// Who has which number.
    uids: BTreeMap<u32, String>,
    gids: BTreeMap<u32, String>,
}

impl Making<'_> {
    /// Makes the group of a line of type `g`.
    fn group(&mut self, place: &Place, name: &str, id: &Id) {
        if let Id::Number(gid) = id {
            if self.static_groups.contains(name) {
                let known = self.wanted.groups.get(name).and_then(|group| group.gid);
                self.differs(place, name, *gid, known);
            } else if let Some(owner) = self.gids.get(gid).cloned() {
                self.taken(place, "group", name, *gid, &owner);
            } else {
                self.place_group(place, name, Some(*gid));
                return;
            }
        }
        self.group_of(place, name, id, None);
    }

    /// Makes a group with the number `uid`, if it is free, or that of the group of what is at a path.
    fn group_of(&mut self, place: &Place, name: &str, id: &Id, uid: Option<u32>) {
        if self.static_groups.contains(name) {
            return;
        }
        let mut gid = uid.filter(|uid| self.gid_is_free(*uid, name));
        if gid.is_none()
            && let Id::OfPath(path) = id
        {
            gid =
                self.of_path(place, name, path, |(_, gid)| gid, |making, gid| making.gid_is_free(gid, name));
        }
        self.place_group(place, name, gid);
    }

    fn place_group(&mut self, place: &Place, name: &str, gid: Option<u32>) {
        if let Some(gid) = gid {
            self.gids.insert(gid, name.to_owned());
        }
        let group = WantedGroup { source: place.path.clone(), gid, class: Class::System };
        self.wanted.groups.insert(name.to_owned(), group);
    }

    fn user(&mut self, place: &Place, user: &User, lines: &Lines) {
        let name = &user.name;
        let asked = match user.id {
            Id::Number(uid) => Some(uid),
            _ => None,
        };
        // Whether the group is there already, and so may have the number of another name.
        let mut strict = true;
        let group = match &user.group {
            Primary::Number(_) if self.static_groups.contains(name) => name.clone(),
            Primary::Number(gid) => {
                if !self.gids.contains_key(gid) {
                    place.ignored(
                        self.wanted,
                        format!("there is no group with id {gid} to be that of {name}"),
                    );
                    return;
                }
                gid.to_string()
            }
            Primary::Named(group) => {
                if !self.wanted.groups.contains_key(group) {
                    place.ignored(self.wanted, format!("there is no group {group} to be that of {name}"));
                    return;
                }
                group.clone()
            }
            Primary::Own => {
                let queued = lines.groups.iter().any(|(_, group, _)| group == name);
                strict = queued && !self.static_groups.contains(name);
                if !strict {
                    self.group_of(&Place { line: 0, ..place.clone() }, name, &user.id, asked);
                }
                name.clone()
            }
        };
        let gid = match &user.group {
            Primary::Number(gid) if group != *name => Some(*gid),
            _ => self.wanted.groups.get(&group).and_then(|group| group.gid),
        };
        if self.static_users.contains(name) {
            let known = self.wanted.users.get(name).and_then(|user| user.uid);
            if let Some(asked) = asked {
                self.differs(place, name, asked, known);
            }
            return;
        }
        let uid = self.uid(place, user, gid, strict);
        if let Some(uid) = uid {
            self.uids.insert(uid, name.clone());
        }
        let login = if uid == Some(0) { ("/root", "/bin/sh") } else { ("/", NO_LOGIN) };
        let wanted = WantedUser {
            source: place.path.clone(),
            uid,
            group,
            description: user.description.clone().unwrap_or_default(),
            home: user.home.clone().unwrap_or_else(|| login.0.to_owned()),
            shell: user.shell.clone().unwrap_or_else(|| login.1.to_owned()),
            locked: user.locked,
            password: None,
            ssh_keys: Vec::new(),
            class: Class::System,
        };
        self.wanted.users.insert(name.clone(), wanted);
    }

    /// The number of a user, or nothing where it is to be chosen.
    fn uid(&mut self, place: &Place, user: &User, gid: Option<u32>, strict: bool) -> Option<u32> {
        let name = &user.name;
        match &user.id {
            Id::Number(uid) => {
                let other = self
                    .uids
                    .get(uid)
                    .or_else(|| self.gids.get(uid).filter(|group| !strict && *group != name));
                match other.cloned() {
                    None => return Some(*uid),
                    Some(other) => self.taken(place, "user", name, *uid, &other),
                }
            }
            Id::OfPath(path) => {
                let found = self.of_path(
                    place,
                    name,
                    path,
                    |(uid, _)| uid,
                    |making, uid| making.uid_is_free(uid, name),
                );
                if found.is_some() {
                    return found;
                }
            }
            Id::Open => {}
        }
        gid.filter(|gid| self.uid_is_free(*gid, name))
    }

    /// A number that no user and no group of another name has.
    fn uid_is_free(&self, uid: u32, name: &str) -> bool {
        !self.uids.contains_key(&uid) && self.gids.get(&uid).is_none_or(|group| group == name)
    }

    fn gid_is_free(&self, gid: u32, name: &str) -> bool {
        !self.gids.contains_key(&gid) && self.uids.get(&gid).is_none_or(|user| user == name)
    }

    /// The number of the owner of `path`, if it may be had.
    fn of_path(
        &mut self,
        place: &Place,
        name: &str,
        path: &str,
        pick: impl Fn((u32, u32)) -> u32,
        free: impl Fn(&Self, u32) -> bool,
    ) -> Option<u32> {
        let Ok(node) = self.tree.resolve(path) else {
            place.note(
                self.wanted,
                format!("there is no {path}: {name} gets another id than its owner's"),
                false,
                true,
            );
            return None;
        };
        let meta = &self.tree.node(node).meta;
        let id = pick((meta.uid, meta.gid));
        let ranges = &self.wanted.ranges;
        let in_range = if ranges.is_empty() {
            SYSTEM.contains(&id)
        } else {
            ranges.iter().any(|range| range.contains(&id))
        };
        let good = id != 0 && in_range && self.wanted.fixed.is_free(id, name) && free(self, id);
        if !good {
            let what =
                format!("the owner of {path} has id {id}, which {name} cannot have: it gets another one");
            place.note(self.wanted, what, false, true);
        }
        good.then_some(id)
    }

    fn taken(&mut self, place: &Place, kind: &str, name: &str, id: u32, other: &str) {
        let what = format!("{kind} {name} gets another id than {id}, which {other} has");
        place.note(self.wanted, what, false, false);
    }

    /// Says that an account that is there already does not get the number of a line.
    fn differs(&mut self, place: &Place, name: &str, asked: u32, known: Option<u32>) {
        if let Some(known) = known.filter(|known| *known != asked) {
            let what = format!("{name} is there already, with id {known}: it does not get id {asked}");
            place.note(self.wanted, what, false, false);
        }
    }
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

    /// Each is compared with all others in several places.
    #[test]
    fn lines_have_a_number() {
        let mut tree = Tree::new(0);
        let lines = |count: usize| "r - 500-900\n".repeat(count);
        tree.file("usr/lib/sysusers.d/x.conf", 0o644, lines(limits::ACCOUNTS)).unwrap();
        collect(&tree, &mut Wanted::default()).unwrap();
        tree.file("usr/lib/sysusers.d/y.conf", 0o644, "u one -\n").unwrap();
        let told = collect(&tree, &mut Wanted::default()).unwrap_err().to_string();
        let said = "/usr/lib/sysusers.d/y.conf:1: there are more than 5000 lines of accounts, the most that are read";
        assert_eq!(told, said);
    }

    #[test]
    fn bad_lines_are_named_and_spoil_no_other() {
        let wanted = collected("\nu a ten\nu b -\n");
        let [problem] = &wanted.problems[..] else { panic!("{:?}", wanted.problems) };
        assert_eq!((problem.path.as_str(), problem.line), ("/usr/lib/sysusers.d/x.conf", 2));
        assert_eq!((problem.what.as_str(), problem.ignored), ("\"ten\" is no id", true));
        assert!(wanted.users.contains_key("b") && !wanted.users.contains_key("a"));
    }
}
