//! The root's outermost directories: mount points, and what base-files' postinst makes.

use std::collections::BTreeMap;

use super::error::Error;
use super::users::Accounts;
use crate::manifest::SystemUser;
use crate::tree::{Kind, Meta, Tree};

/// Mount points, with their modes.
const MOUNT_POINTS: [(&str, u16); 10] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("efi", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
];
/// Folders of the root that are links into /usr.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// Mode of a service's home: etcd refuses a data folder that others may read.
const SERVICE_HOME: u16 = 0o700;

/// Makes the mount points, and what base-files' postinst makes in /etc.
pub fn folders(tree: &mut Tree) -> Result<(), Error> {
    for (path, mode) in MOUNT_POINTS {
        tree.directory(path, mode)?;
    }
    for (source, path) in [("profile", "etc/profile"), ("motd", "etc/motd")] {
        let source = format!("usr/share/base-files/{source}");
        if !tree.exists(path) && tree.exists(&source) {
            let content = tree.read(&source)?;
            tree.file(path, 0o644, content)?;
        }
    }
    if tree.exists("etc/dpkg/origins/debian") && !tree.exists("etc/dpkg/origins/default") {
        tree.symlink("etc/dpkg/origins/default", "debian")?;
    }
    Ok(())
}

/// What base-files' postinst makes for a container: its folders are its own, nothing leads elsewhere.
pub fn container_folders(tree: &mut Tree) -> Result<(), Error> {
    // base-files brings these links, and no package depends on it; the loader is asked for by such a path.
    for name in MERGED {
        if tree.lookup(name).is_none() && tree.exists(format!("usr/{name}")) {
            tree.symlink(name, format!("usr/{name}"))?;
        }
    }
    folders(tree)?;
    for path in
        ["home", "opt", "srv", "usr/local/bin", "usr/local/lib", "usr/local/sbin", "var/lib", "var/log"]
    {
        tree.directory(path, 0o755)?;
    }
    tree.directory("root", 0o700)?;
    if tree.lookup("var/tmp").is_none() {
        tree.put(
            "var/tmp",
            Meta::new(0o1777).at(tree.epoch),
            Kind::Directory(BTreeMap::new()),
            Default::default(),
        )?;
    }
    Ok(())
}

/// Gives a container's service accounts their homes below /var.
pub fn homes(tree: &mut Tree, accounts: &Accounts, services: &[SystemUser]) -> Result<(), Error> {
    for SystemUser { name, .. } in services {
        if let Some((uid, gid, user)) = accounts.users.get(name)
            && user.home.starts_with("/var/")
        {
            let id = tree.directory(&user.home, SERVICE_HOME)?;
            let meta = &mut tree.node_mut(id).meta;
            (meta.uid, meta.gid) = (*uid, *gid);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_base_files_finds_its_loader() {
        let mut tree = Tree::new(0);
        tree.file("usr/lib64/ld-linux-x86-64.so.2", 0o755, "loader").unwrap();
        container_folders(&mut tree).unwrap();
        assert!(tree.resolve("/lib64/ld-linux-x86-64.so.2").is_ok() && !tree.exists("bin"));
    }
}
