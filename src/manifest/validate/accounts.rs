//! Users and system users.

use super::{At, Firsts, Validator, text};
use crate::manifest::raw::{RawGroup, RawSystemUser, RawUser};
use crate::manifest::{Group, SystemUser, User};

/// systemd.io, "Users, Groups, UIDs and GIDs on systemd Systems": regular users.
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=59_999;

/// Debian policy 9.2.2: 0–99 are allocated by Debian, 100–999 are free for the system.
const SYSTEM: std::ops::RangeInclusive<u32> = 100..=999;

/// The first account of each name and of each id.
pub(super) struct Accounts {
    names: Firsts<String>,
    ids: Firsts<u32>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { names: Firsts::new(), ids: Firsts::new() }
    }
}

impl Validator<'_> {
    /// Accounts of people, which `accounts` then has.
    pub(super) fn users(&mut self, users: Vec<At<RawUser>>, accounts: &mut Accounts) -> Vec<User> {
        users.into_iter().filter_map(|at| self.user(at.value, accounts)).collect()
    }

    /// Accounts of services, of names and ids that `accounts` does not have.
    pub(super) fn system_users(
        &mut self,
        users: Vec<At<RawSystemUser>>,
        mut accounts: Accounts,
    ) -> Vec<SystemUser> {
        users.into_iter().filter_map(|at| self.system_user(at.value, &mut accounts)).collect()
    }

    pub(super) fn groups(&mut self, groups: Vec<At<RawGroup>>) -> Vec<Group> {
        let mut accounts = Accounts::default();
        let mut checked = Vec::new();
        for At { value: RawGroup { name, gid }, .. } in groups {
            self.once(&name, gid.as_ref(), &mut accounts);
            if let Some(gid) = gid.as_ref().filter(|gid| !SYSTEM.contains(&gid.value)) {
                self.error(gid.mark, format!("{} is not an id for a system group", gid.value))
                    .help("from 100 to 999, or leave it out: then keller chooses and the lock records it");
            }
            if let Some(name) = self.checked(name, text::system_account) {
                checked.push(Group { name, gid: gid.map(|at| at.value) });
            }
        }
        checked
    }

    fn once(&mut self, name: &At<String>, id: Option<&At<u32>>, accounts: &mut Accounts) {
        if let Some(first) = accounts.names.note(name.value.clone(), name.mark) {
            self.error(name.mark, format!("the account `{}` stands here a second time", name.value))
                .related(first, "the first is here");
        }
        if let Some(id) = id
            && let Some(first) = accounts.ids.note(id.value, id.mark)
        {
            self.error(id.mark, format!("the id {} is taken", id.value))
                .help("each account has an id of its own")
                .related(first, "by this account");
        }
    }

    fn user(&mut self, raw: RawUser, accounts: &mut Accounts) -> Option<User> {
        self.once(&raw.name, Some(&raw.uid), accounts);
        self.note("users", &raw.name.value, raw.name.mark);
        for group in &raw.groups {
            self.note("users.groups", &format!("{} {}", raw.name.value, group.value), group.mark);
        }
        for (field, at) in [("users.shell", raw.shell.as_ref()), ("users.ssh_keys", raw.ssh_keys.first())] {
            if let Some(at) = at {
                self.note(field, &raw.name.value, at.mark);
            }
        }
        if !PEOPLE.contains(&raw.uid.value) {
            self.error(raw.uid.mark, format!("{} is not the id of a person's account", raw.uid.value))
                .help("from 1000 to 59999; accounts of services go into `system_users`");
        }
        Some(User {
            name: self.checked(raw.name, text::account)?,
            uid: raw.uid.value,
            groups: self.list(raw.groups, text::system_account),
            ssh_keys: self.list(raw.ssh_keys, text::ssh_key),
            shell: raw
                .shell
                .and_then(|at| self.checked(at, text::account_path))
                .unwrap_or("/bin/bash".into()),
            password_hash: raw.password_hash.and_then(|at| self.checked(at, text::password_hash)),
        })
    }

    fn system_user(&mut self, raw: RawSystemUser, accounts: &mut Accounts) -> Option<SystemUser> {
        self.once(&raw.name, raw.uid.as_ref(), accounts);
        self.note("system_users", &raw.name.value, raw.name.mark);
        for group in &raw.groups {
            let name = format!("{} {}", raw.name.value, group.value);
            self.note("system_users.groups", &name, group.mark);
        }
        if let Some(uid) = raw.uid.as_ref().filter(|uid| !SYSTEM.contains(&uid.value)) {
            self.error(uid.mark, format!("{} is not an id for a system user", uid.value))
                .help("from 100 to 999, or leave it out: then keller chooses and the lock records it");
        }
        Some(SystemUser {
            name: self.checked(raw.name, text::system_account)?,
            uid: raw.uid.map(|at| at.value),
            home: raw.home.and_then(|at| self.checked(at, text::account_path)).unwrap_or("/".into()),
            groups: self.list(raw.groups, text::system_account),
            description: raw
                .description
                .and_then(|at| self.checked(at, text::account_text))
                .unwrap_or_default(),
        })
    }
}
