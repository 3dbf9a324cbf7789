//! /usr/lib/userdb: JSON user and group records, which nss-systemd reads without any daemon.
//!
//! Formats: systemd's JSON User Records and JSON Group Records; file names as nss-systemd(8) has them. A
//! record is found by name, and by number through a link; password hashes stand in a second file that
//! only root may read.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::error::Error;
use super::{Accounts, Class, WantedUser};
use crate::tree::Tree;

const FOLDER: &str = "usr/lib/userdb";
/// nss-systemd looks at the names of these files only, but takes an empty file for a mask.
const MEMBERSHIP: &str = "{}\n";

/// Writes records for all accounts that are not static, and memberships of all.
pub fn write(tree: &mut Tree, accounts: &Accounts) -> Result<(), Error> {
    for (name, (uid, gid, user)) in &accounts.users {
        if user.class == Class::Static {
            continue;
        }
        record(tree, name, *uid, "user", 0o644, &user_record(name, *uid, *gid, user))?;
        if let Some(hash) = &user.password {
            let secret = json!({ "privileged": { "hashedPassword": [hash] } });
            record(tree, name, *uid, "user-privileged", 0o600, &secret)?;
        }
    }
    for (name, (gid, class)) in &accounts.groups {
        if *class == Class::Static {
            continue;
        }
        let group = json!({ "disposition": disposition(*class), "gid": gid, "groupName": name });
        record(tree, name, *gid, "group", 0o644, &group)?;
    }
    for (user, group) in &accounts.memberships {
        tree.file(format!("{FOLDER}/{user}:{group}.membership"), 0o644, MEMBERSHIP)?;
    }
    Ok(())
}

fn user_record(name: &str, uid: u32, gid: u32, user: &WantedUser) -> Value {
    let mut fields: BTreeMap<&str, Value> = BTreeMap::from([
        ("userName", json!(name)),
        ("uid", json!(uid)),
        ("gid", json!(gid)),
        ("disposition", json!(disposition(user.class))),
        ("homeDirectory", json!(user.home)),
        ("shell", json!(user.shell)),
    ]);
    if !user.description.is_empty() {
        fields.insert("realName", json!(user.description));
    }
    if user.locked {
        fields.insert("locked", json!(true));
    }
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into()
}

fn disposition(class: Class) -> &'static str {
    if class == Class::Person { "regular" } else { "system" }
}

fn record(tree: &mut Tree, name: &str, id: u32, kind: &str, mode: u16, record: &Value) -> Result<(), Error> {
    tree.file(format!("{FOLDER}/{name}.{kind}"), mode, format!("{record:#}\n"))?;
    tree.symlink(format!("{FOLDER}/{id}.{kind}"), format!("{name}.{kind}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_by_name_and_number() {
        let user = WantedUser {
            source: "users".into(),
            uid: Some(1000),
            group: "core".into(),
            description: String::new(),
            home: "/home/core".into(),
            shell: "/bin/bash".into(),
            locked: false,
            password: Some("$y$hash".into()),
            ssh_keys: Vec::new(),
            class: Class::Person,
        };
        let accounts = Accounts {
            users: [("core".to_owned(), (1000, 1000, user))].into(),
            groups: [("core".to_owned(), (1000, Class::Person)), ("sudo".to_owned(), (27, Class::Static))]
                .into(),
            memberships: [("core".to_owned(), "sudo".to_owned())].into(),
        };
        let mut tree = Tree::new(0);
        write(&mut tree, &accounts).unwrap();
        let read = |path: &str| String::from_utf8(tree.read(format!("{FOLDER}/{path}")).unwrap()).unwrap();
        assert_eq!(
            read("1000.user"),
            "{\n  \"disposition\": \"regular\",\n  \"gid\": 1000,\n  \"homeDirectory\": \"/home/core\",\n  \
             \"shell\": \"/bin/bash\",\n  \"uid\": 1000,\n  \"userName\": \"core\"\n}\n"
        );
        assert!(read("1000.user-privileged").contains("$y$hash"));
        assert_eq!(read("core:sudo.membership"), MEMBERSHIP);
        assert!(!tree.exists(format!("{FOLDER}/sudo.group")));
        let secret = tree.lookup(format!("{FOLDER}/core.user-privileged")).unwrap();
        assert_eq!(tree.node(secret).meta.mode, 0o600);
    }
}
