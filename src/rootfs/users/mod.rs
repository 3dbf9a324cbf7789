//! Accounts: who wants which, with which number, and where they are written.
//!
//! Accounts of base-passwd are the same in every version of an image, so they stand in /etc/passwd and
//! /etc/group, where programs that read nothing else find them. All others, of packages and of the
//! manifest, are userdb records in /usr/lib/userdb, which nss-systemd reads: an /etc/passwd that was
//! changed on a node, and so hides the one of a later version, hides none of them. A container has no
//! nss-systemd; its accounts all stand in /etc.

pub mod allocate;
pub mod passwd;
pub mod sysusers;
pub mod userdb;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::error::Error;
use crate::lock::Ids;
use crate::manifest::{Group, SystemUser, User};
use crate::tree::Tree;

pub use allocate::allocate;

/// The shell of accounts that nobody logs in to.
pub const NO_LOGIN: &str = "/usr/sbin/nologin";

/// Where an account comes from, and so where it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Of base-passwd, with one number for ever: /etc/passwd.
    Static,
    /// Of a package or of `system_users`.
    System,
    /// Of `users`: somebody who logs in.
    Person,
}

/// A user that somebody wants; numbers that are open are allocated later.
#[derive(Clone, Debug)]
pub struct WantedUser {
    /// Who wants it, for messages.
    pub source: String,
    /// A number that it must have.
    pub uid: Option<u32>,
    /// Name of its primary group; a number as text for a group that has no name here.
    pub group: String,
    /// Shown name.
    pub description: String,
    /// Home folder.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// Nobody may log in, by no means.
    pub locked: bool,
    /// Crypt hash of the password.
    pub password: Option<String>,
    /// Lines of authorized_keys.
    pub ssh_keys: Vec<String>,
    /// See [`Class`].
    pub class: Class,
}

/// A group that somebody wants.
#[derive(Clone, Debug)]
pub struct WantedGroup {
    /// Who wants it, for messages.
    pub source: String,
    /// A number that it must have.
    pub gid: Option<u32>,
    /// See [`Class`].
    pub class: Class,
}

/// All accounts of a tree and a manifest, before open numbers are chosen.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// By name.
    pub users: BTreeMap<String, WantedUser>,
    /// By name.
    pub groups: BTreeMap<String, WantedGroup>,
    /// User and group.
    pub memberships: BTreeSet<(String, String)>,
    /// Out of which open numbers are chosen; where there is none, out of those of the system.
    pub ranges: Vec<RangeInclusive<u32>>,
    /// Lines of sysusers.d that do not do what they say.
    pub problems: Vec<sysusers::Problem>,
    /// Numbers that a manifest names, with who gets them: a line of sysusers.d that goes by a path gives way.
    pub fixed: Fixed,
}

/// Users and groups by number.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

/// All accounts with their numbers.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// By name, with user and group number.
    pub users: BTreeMap<String, (u32, u32, WantedUser)>,
    /// By name, with number.
    pub groups: BTreeMap<String, (u32, Class)>,
    /// User and group.
    pub memberships: BTreeSet<(String, String)>,
}

impl Fixed {
    /// Whether nobody of another name has the number.
    fn is_free(&self, id: u32, name: &str) -> bool {
        [&self.users, &self.groups].iter().all(|known| known.get(&id).is_none_or(|known| known == name))
    }
}

impl Wanted {
    /// Nobody yet, with the numbers that the accounts of a manifest have.
    pub fn fixed(people: &[User], system: &[SystemUser], groups: &[Group]) -> Self {
        let people = people.iter().map(|user| (user.uid, user.name.clone()));
        let system = system.iter().filter_map(|user| Some((user.uid?, user.name.clone())));
        let users: BTreeMap<u32, String> = people.chain(system).collect();
        let groups = groups.iter().filter_map(|group| Some((group.gid?, group.name.clone())));
        Self { fixed: Fixed { groups: groups.collect(), users }, ..Self::default() }
    }

    /// Collects the accounts of base-passwd, of every sysusers.d file and of the manifest.
    pub fn collect(
        tree: &Tree,
        people: &[User],
        system: &[SystemUser],
        groups: &[Group],
    ) -> Result<Self, Error> {
        let mut wanted = Self::fixed(people, system, groups);
        passwd::masters(tree, &mut wanted)?;
        sysusers::collect(tree, &mut wanted)?;
        for group in groups {
            wanted.group(&group.name, group.gid, Class::System, "groups")?;
        }
        for user in system {
            let source = "system_users".to_owned();
            wanted.group(&user.name, user.uid, Class::System, &source)?;
            wanted.user(
                &user.name,
                WantedUser {
                    source,
                    uid: user.uid,
                    group: user.name.clone(),
                    description: user.description.clone(),
                    home: user.home.clone(),
                    shell: NO_LOGIN.to_owned(),
                    locked: false,
                    password: None,
                    ssh_keys: Vec::new(),
                    class: Class::System,
                },
            )?;
            wanted.join(&user.name, &user.groups);
        }
        for user in people {
            let source = "users".to_owned();
            if let Some(known) = wanted.users.get(&user.name) {
                return Err(Error::AccountExists { name: user.name.clone(), by: known.source.clone() });
            }
            if let Some(known) = wanted.groups.get(&user.name) {
                return Err(Error::NamesAGroup { name: user.name.clone(), by: known.source.clone() });
            }
            wanted.group(&user.name, Some(user.uid), Class::Person, &source)?;
            wanted.user(
                &user.name,
                WantedUser {
                    source,
                    uid: Some(user.uid),
                    group: user.name.clone(),
                    description: String::new(),
                    home: format!("/home/{}", user.name),
                    shell: user.shell.clone(),
                    locked: false,
                    password: user.password_hash.clone(),
                    ssh_keys: user.ssh_keys.clone(),
                    class: Class::Person,
                },
            )?;
            wanted.join(&user.name, &user.groups);
        }
        for (user, group) in &wanted.memberships {
            if !wanted.groups.contains_key(group) {
                return Err(Error::UnknownGroup { user: user.clone(), group: group.clone() });
            }
        }
        Ok(wanted)
    }

    /// The accounts with the numbers of `ids` where they are open.
    ///
    /// # Errors
    /// `NotLocked` if `ids` lacks one; `IdTaken` if two have one number.
    pub fn with_ids(self, ids: &Ids) -> Result<Accounts, Error> {
        let number = |fixed: Option<u32>, locked: &BTreeMap<String, u32>, name: &String| {
            fixed.or_else(|| locked.get(name).copied()).ok_or_else(|| Error::NotLocked { name: name.clone() })
        };
        let mut accounts = Accounts { memberships: self.memberships, ..Accounts::default() };
        let mut taken: BTreeMap<u32, String> = BTreeMap::new();
        for (name, group) in self.groups {
            let gid = number(group.gid, &ids.groups, &name)?;
            if let Some(first) = taken.insert(gid, name.clone()) {
                return Err(Error::IdTaken { kind: "group", id: gid, first, second: name });
            }
            accounts.groups.insert(name, (gid, group.class));
        }
        taken.clear();
        for (name, user) in self.users {
            let uid = number(user.uid, &ids.users, &name)?;
            if let Some(first) = taken.insert(uid, name.clone()) {
                return Err(Error::IdTaken { kind: "user", id: uid, first, second: name });
            }
            let gid = match accounts.groups.get(&user.group) {
                Some((gid, _)) => *gid,
                None => user
                    .group
                    .parse()
                    .map_err(|_| Error::UnknownGroup { user: name.clone(), group: user.group.clone() })?,
            };
            accounts.users.insert(name, (uid, gid, user));
        }
        Ok(accounts)
    }

    /// Wants a user; what an earlier source said of it stays, unless the numbers differ.
    fn user(&mut self, name: &str, user: WantedUser) -> Result<(), Error> {
        match self.users.get_mut(name) {
            Some(known) if user.class == Class::Person => {
                return Err(Error::AccountExists { name: name.to_owned(), by: known.source.clone() });
            }
            Some(known) => {
                known.uid = agreed(name, known.uid, &known.source, user.uid, &user.source)?;
                // A manifest says more than a package: a home, a shell.
                if user.source == "system_users" && known.class != Class::Static {
                    let uid = known.uid;
                    *known = WantedUser { uid, ..user };
                }
            }
            None => {
                self.users.insert(name.to_owned(), user);
            }
        }
        Ok(())
    }

    fn group(&mut self, name: &str, gid: Option<u32>, class: Class, source: &str) -> Result<(), Error> {
        match self.groups.get_mut(name) {
            Some(known) => known.gid = agreed(name, known.gid, &known.source, gid, source)?,
            None => {
                self.groups.insert(name.to_owned(), WantedGroup { source: source.to_owned(), gid, class });
            }
        }
        Ok(())
    }

    fn join(&mut self, user: &str, groups: &[String]) {
        self.memberships.extend(groups.iter().map(|group| (user.to_owned(), group.clone())));
    }
}

fn agreed(
    name: &str,
    first: Option<u32>,
    first_source: &str,
    second: Option<u32>,
    second_source: &str,
) -> Result<Option<u32>, Error> {
    match (first, second) {
        (Some(first), Some(second)) if first != second => Err(Error::IdsDiffer {
            name: name.to_owned(),
            first,
            first_source: first_source.to_owned(),
            second,
            second_source: second_source.to_owned(),
        }),
        _ => Ok(first.or(second)),
    }
}

impl Accounts {
    /// Number of the user `name`, which may itself be a number.
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.users.get(name).map(|(uid, ..)| *uid).or_else(|| name.parse().ok())
    }

    /// Number of the group `name`, which may itself be a number.
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.groups.get(name).map(|(gid, _)| *gid).or_else(|| name.parse().ok())
    }

    /// People, by name.
    pub fn people(&self) -> impl Iterator<Item = (&str, u32, u32, &WantedUser)> {
        self.users
            .iter()
            .filter(|(_, (.., user))| user.class == Class::Person)
            .map(|(name, (uid, gid, user))| (name.as_str(), *uid, *gid, user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str, uid: u32) -> User {
        User {
            name: name.into(),
            uid,
            groups: vec!["sudo".into()],
            ssh_keys: vec!["ssh-ed25519 AAAA core".into()],
            shell: "/bin/bash".into(),
            password_hash: None,
        }
    }

    fn system(name: &str, uid: Option<u32>) -> SystemUser {
        let home = format!("/var/lib/{name}");
        SystemUser { name: name.into(), uid, home, groups: Vec::new(), description: String::new() }
    }

    fn tree() -> Tree {
        let mut tree = Tree::new(86_400 * 20_000);
        let masters = "usr/share/base-passwd";
        tree.file(format!("{masters}/passwd.master"), 0o644, "root:*:0:0:root:/root:/bin/bash\n").unwrap();
        tree.file(format!("{masters}/group.master"), 0o644, "root:*:0:\nsudo:*:27:\nshadow:*:42:\n").unwrap();
        let sysusers = "u! systemd-network - \"systemd Network Management\"\ng input -\nm root input\n";
        tree.file("usr/lib/sysusers.d/a.conf", 0o644, sysusers).unwrap();
        tree
    }

    #[test]
    fn numbers_come_from_the_lock() {
        let tree = tree();
        let wanted = Wanted::collect(&tree, &[person("core", 1000)], &[system("etcd", None)], &[]).unwrap();
        let ids = allocate(&wanted, &Ids::default()).unwrap();
        let accounts = wanted.clone().with_ids(&ids).unwrap();
        assert_eq!(accounts.uid("systemd-network"), Some(998));
        assert_eq!(accounts.gid("etcd"), Some(993));
        assert_eq!(accounts.gid("shadow"), Some(42));
        assert_eq!(accounts.uid("core"), Some(1000));
        assert!(accounts.memberships.contains(&("root".into(), "input".into())));
        let error = wanted.with_ids(&Ids::default()).unwrap_err();
        assert!(matches!(error, Error::NotLocked { .. }), "{error}");
    }

    #[test]
    fn groups_of_the_manifest() {
        let group = |name: &str, gid| Group { name: name.into(), gid };
        let member = User { groups: vec!["shared".into()], ..person("core", 1000) };
        let groups = [group("shared", None), group("fixed", Some(200))];
        let wanted = Wanted::collect(&tree(), &[member], &[], &groups).unwrap();
        let ids = allocate(&wanted, &Ids::default()).unwrap();
        assert!(ids.groups.contains_key("shared") && !ids.groups.contains_key("fixed"));
        let accounts = wanted.with_ids(&ids).unwrap();
        assert_eq!((accounts.gid("shared"), accounts.gid("fixed")), (Some(ids.groups["shared"]), Some(200)));
        assert!(accounts.memberships.contains(&("core".into(), "shared".into())));
        let error = Wanted::collect(&tree(), &[], &[], &[group("sudo", Some(300))]).unwrap_err().to_string();
        assert!(error.contains("sudo has id 27") && error.contains("id 300 from groups"), "{error}");
    }

    #[test]
    fn disagreement_is_an_error() {
        let tree = tree();
        let error = Wanted::collect(&tree, &[], &[system("shadow", Some(900))], &[]).unwrap_err();
        assert!(matches!(&error, Error::IdsDiffer { name, .. } if name == "shadow"), "{error}");
        let error = Wanted::collect(&tree, &[person("a", 1000), person("b", 1000)], &[], &[])
            .unwrap()
            .with_ids(&Ids {
                groups: [("input".into(), 992), ("systemd-network".into(), 998)].into(),
                ..Ids::default()
            })
            .unwrap_err();
        assert!(matches!(error, Error::IdTaken { id: 1000, .. }), "{error}");
    }
}
