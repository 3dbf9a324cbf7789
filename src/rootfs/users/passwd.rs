//! /etc/passwd, group, shadow, gshadow, subuid and subgid: passwd(5), shadow(5), subuid(5).

use super::super::error::Error;
use super::{Accounts, Class, Wanted, WantedUser};
use crate::base::limits;
use crate::tree::{Meta, Tree};

/// Debian's static accounts, with one number for ever.
const MASTERS: [&str; 2] = ["/usr/share/base-passwd/passwd.master", "/usr/share/base-passwd/group.master"];
/// What every system has, for a tree without base-passwd.
const LEAST_USERS: &str =
    "root:*:0:0:root:/root:/bin/sh\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const LEAST_GROUPS: &str = "root:*:0:\nnogroup:*:65534:\n";
/// Group that may read password hashes.
const SHADOW: u32 = 42;
/// Numbers in user namespaces of people: from useradd's defaults in /etc/login.defs.
const FIRST_SUBORDINATE: u64 = 100_000;
const SUBORDINATES: u64 = 65_536;
/// The first number of people's accounts, which get the first stretch of subordinate numbers.
const FIRST_PERSON: u32 = 1000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Adds the accounts of base-passwd.
pub fn masters(tree: &Tree, wanted: &mut Wanted) -> Result<(), Error> {
    let [users, groups] = MASTERS;
    for (path, line, fields) in table(tree, groups, LEAST_GROUPS, 4)? {
        let gid = number(&path, line, &fields[2])?;
        wanted.group(&fields[0], Some(gid), Class::Static, &path)?;
    }
    for (path, line, fields) in table(tree, users, LEAST_USERS, 7)? {
        let gid = number(&path, line, &fields[3])?;
        let group = wanted.groups.iter().find(|(_, group)| group.gid == Some(gid));
        let user = WantedUser {
            uid: Some(number(&path, line, &fields[2])?),
            group: group.map_or_else(|| gid.to_string(), |(name, _)| name.clone()),
            description: fields[4].clone(),
            home: fields[5].clone(),
            shell: fields[6].clone(),
            locked: false,
            password: None,
            ssh_keys: Vec::new(),
            class: Class::Static,
            source: path,
        };
        wanted.user(&fields[0], user)?;
    }
    Ok(())
}

/// Writes the account files of /etc with the accounts that `keep` picks. Nobody has a password there:
/// people's are in their userdb records.
///
/// # Errors
/// `Taken` if somebody else brought such a file.
pub fn write(tree: &mut Tree, accounts: &Accounts, keep: impl Fn(Class) -> bool) -> Result<(), Error> {
    let today = (tree.epoch / SECONDS_PER_DAY).max(1);
    let mut users: Vec<_> = accounts.users.iter().filter(|(_, (.., user))| keep(user.class)).collect();
    let mut groups: Vec<_> = accounts.groups.iter().filter(|(_, (_, class))| keep(*class)).collect();
    users.sort_by_key(|(_, (uid, ..))| *uid);
    groups.sort_by_key(|(_, (gid, _))| *gid);

    let mut passwd = String::new();
    let mut shadow = String::new();
    for (name, (uid, gid, user)) in users {
        let WantedUser { description, home, shell, .. } = user;
        passwd += &format!("{name}:x:{uid}:{gid}:{description}:{home}:{shell}\n");
        // `*` bars passwords only, `!*` is what Debian gives accounts of packages.
        let password = if user.class == Class::Static { "*" } else { "!*" };
        let expires = if user.locked { "1" } else { "" };
        shadow += &format!("{name}:{password}:{today}:0:99999:7::{expires}:\n");
    }
    let mut group = String::new();
    let mut gshadow = String::new();
    for (name, (gid, _)) in groups {
        let of_group = accounts.memberships.iter().filter(|(_, joined)| joined == name);
        let kept = |user: &str| accounts.users.get(user).is_some_and(|(.., user)| keep(user.class));
        let members: Vec<_> = of_group.map(|(user, _)| user.as_str()).filter(|user| kept(user)).collect();
        let members = members.join(",");
        group += &format!("{name}:x:{gid}:{members}\n");
        gshadow += &format!("{name}:*::{members}\n");
    }
    let mut subordinate = String::new();
    for (name, uid, ..) in accounts.people() {
        let first = FIRST_SUBORDINATE + u64::from(uid.saturating_sub(FIRST_PERSON)) * SUBORDINATES;
        subordinate += &format!("{name}:{first}:{SUBORDINATES}\n");
    }

    place(tree, "etc/passwd", 0o644, passwd)?;
    place(tree, "etc/group", 0o644, group)?;
    // A container without base-passwd has no such group, nor a program that is setgid to it.
    let owner = if accounts.groups.values().any(|(gid, _)| *gid == SHADOW) { SHADOW } else { 0 };
    for (path, text) in [("etc/shadow", shadow), ("etc/gshadow", gshadow)] {
        let id = place(tree, path, 0o640, text)?;
        tree.node_mut(id).meta = Meta::new(0o640).owned(0, owner).at(tree.epoch);
    }
    place(tree, "etc/subuid", 0o644, subordinate.clone())?;
    place(tree, "etc/subgid", 0o644, subordinate)?;
    Ok(())
}

fn place(tree: &mut Tree, path: &str, mode: u16, text: String) -> Result<crate::tree::NodeId, Error> {
    if let Some(id) = tree.lookup(path) {
        let origin = tree.origin_name(tree.node(id).origin).to_owned();
        return Err(Error::Taken { path: format!("/{path}"), from: "`users` and `system_users`", origin });
    }
    Ok(tree.file(path, mode, text)?)
}

/// Lines of colon-separated fields, each with its file and number.
fn table(
    tree: &Tree,
    path: &str,
    default: &str,
    width: usize,
) -> Result<Vec<(String, usize, Vec<String>)>, Error> {
    let text = match tree.exists(path) {
        true => String::from_utf8_lossy(&tree.read(path)?).into_owned(),
        false => default.to_owned(),
    };
    let lines = text.lines().zip(1..).filter(|(text, _)| !text.is_empty());
    lines
        .enumerate()
        .map(|(before, (text, line))| {
            if before >= limits::ACCOUNTS {
                return Err(Error::too_many_accounts(path, line));
            }
            let fields: Vec<String> = text.split(':').map(str::to_owned).collect();
            if fields.len() != width {
                let what = format!("expected {width} fields, but have {}", fields.len());
                return Err(Error::Malformed { path: path.to_owned(), line, what });
            }
            Ok((path.to_owned(), line, fields))
        })
        .collect()
}

fn number(path: &str, line: usize, text: &str) -> Result<u32, Error> {
    text.parse().map_err(|_| Error::Malformed {
        path: path.to_owned(),
        line,
        what: format!("{text:?} is no id"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Ids;

    #[test]
    fn least_accounts() {
        let mut tree = Tree::new(SECONDS_PER_DAY * 20_000);
        let wanted = Wanted::collect(&tree, &[], &[], &[]).unwrap();
        let accounts = wanted.with_ids(&Ids::default()).unwrap();
        write(&mut tree, &accounts, |_| true).unwrap();
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
        assert_eq!(tree.read("etc/passwd").unwrap(), passwd.as_bytes());
        assert_eq!(tree.read("etc/group").unwrap(), b"root:x:0:\nnogroup:x:65534:\n");
        let shadow = "root:*:20000:0:99999:7:::\nnobody:*:20000:0:99999:7:::\n";
        assert_eq!(tree.read("etc/shadow").unwrap(), shadow.as_bytes());
        let meta = &tree.node(tree.lookup("etc/shadow").unwrap()).meta;
        assert_eq!((meta.mode, meta.gid), (0o640, 0), "without a group shadow the files are root's");
        assert!(matches!(write(&mut tree, &accounts, |_| true), Err(Error::Taken { .. })));
    }
}
