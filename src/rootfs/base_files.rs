//! The root's outermost folders: what stays, what is a mount point, and what leads to the state partition.

use std::collections::BTreeMap;

use super::error::Error;
use super::tmpfiles;
use super::tmpfiles::line::Line;
use super::users::Accounts;
use crate::manifest::SystemUser;
use crate::tree::{Kind, Meta, NodeId, Tree, show};

/// Folders that lead to the state partition: path, target of the link, place below /var.
const STATE_FOLDERS: [(&str, &str, &str); 5] = [
    ("/home", "var/home", "/var/home"),
    ("/opt", "var/opt", "/var/opt"),
    ("/root", "var/roothome", "/var/roothome"),
    ("/srv", "var/srv", "/var/srv"),
    ("/usr/local", "../var/usrlocal", "/var/usrlocal"),
];
/// Of these, what an image ships is read where it is, through links, so that an update brings its next
/// version; in the others it belongs to the node once it is there. With the depth at which links begin.
const SHIPPED: [(&str, usize); 2] = [("/opt", 1), ("/usr/local", 2)];
/// Where the content of [`SHIPPED`] stays.
const SHIPPED_PLACE: &str = "usr/lib/keller/shipped";
/// Folders of /usr/local that programs expect.
const LOCAL_FOLDERS: [&str; 6] = ["bin", "etc", "lib", "sbin", "share", "src"];
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
const STATE_LINES: &str = "usr/lib/tmpfiles.d/10-keller-state.conf";
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

/// Turns the folders that a node writes to into links below /var, and has them made at boot, with a home
/// for everybody. `homes` are service accounts whose home is below /var.
pub fn state(tree: &mut Tree, accounts: &Accounts, homes: &[String]) -> Result<(), Error> {
    let mut lines = "# Folders of the state partition, which is blank at first.\n".to_owned();
    for (path, depth) in SHIPPED {
        ship(tree, path, depth, &mut lines)?;
    }
    let mut moved = Vec::new();
    for (path, target, place) in STATE_FOLDERS {
        if let Some(id) = tree.lookup(path) {
            move_below(tree, id, place)?;
            tree.remove(path);
        }
        tree.symlink(path, target)?;
        moved.push((path, place));
    }
    tmpfiles::relocate(tree, &moved)?;

    lines += "d /var/home 0755 0 0 - -\nd /var/srv 0755 0 0 - -\nd /var/opt 0755 0 0 - -\n";
    lines += "d /var/roothome 0700 0 0 - -\n";
    for name in ["bashrc", "profile"] {
        let source = format!("usr/share/base-files/dot.{name}");
        if tree.exists(&source) {
            lines += &format!("C /var/roothome/.{name} 0644 0 0 - /{source}\n");
        }
    }
    lines += "d /var/usrlocal 0755 0 0 - -\n";
    for folder in LOCAL_FOLDERS {
        lines += &format!("d /var/usrlocal/{folder} 0755 0 0 - -\n");
    }
    if let Some(gid) = accounts.gid("systemd-journal") {
        lines += &format!("d /var/log/journal 2755 0 {gid} - -\n");
    }
    for (name, uid, gid, _) in accounts.people() {
        // `:` leaves mode and owner of a home that exists as its owner set them.
        let skeleton = tree.exists("etc/skel");
        let (letter, source) = if skeleton { ("C", "/etc/skel") } else { ("d", "-") };
        lines += &format!("{letter} /var/home/{name} :0700 :{uid} :{gid} - {source}\n");
    }
    for name in homes {
        let Some((uid, gid, user)) = accounts.users.get(name) else { continue };
        if user.home.starts_with("/var/") {
            lines += &format!("d {} {SERVICE_HOME:04o} {uid} {gid} - -\n", user.home);
        }
    }
    let lines = without_doubles(tree, &lines)?;
    tree.file(STATE_LINES, 0o644, lines)?;
    Ok(())
}

/// Takes out lines for paths that a line of a package makes already: systemd warns of doubles.
fn without_doubles(tree: &Tree, lines: &str) -> Result<String, Error> {
    let made = tmpfiles::made(tree)?;
    let place = |line: &str| Line::parse(line.as_bytes()).ok().and_then(|line| line.place());
    let kept = lines
        .lines()
        .filter(|line| line.starts_with('#') || !place(line).is_some_and(|path| made.contains(&path)));
    Ok(kept.map(|line| format!("{line}\n")).collect())
}

/// Moves what is below `path` to [`SHIPPED_PLACE`] and adds lines that link to it from the state folder.
fn ship(tree: &mut Tree, path: &str, depth: usize, lines: &mut String) -> Result<(), Error> {
    let Some(id) = tree.lookup(path) else { return Ok(()) };
    let place = format!("/{SHIPPED_PLACE}{path}");
    let state = STATE_FOLDERS.iter().find(|(folder, ..)| *folder == path).map_or("", |(.., state)| state);
    let mut pending = vec![(id, String::new(), 0)];
    let mut shipped = Vec::new();
    while let Some((folder, below, level)) = pending.pop() {
        for (name, child) in tree.children(folder) {
            let below = format!("{below}/{}", show(name));
            if matches!(tree.node(child).kind, Kind::Directory(_)) && level + 1 < depth {
                pending.push((child, below, level + 1));
            } else {
                shipped.push((below, child));
            }
        }
    }
    shipped.sort();
    // Empty folders alone are nothing to ship: they are made anyway.
    shipped
        .retain(|(_, id)| !matches!(&tree.node(*id).kind, Kind::Directory(children) if children.is_empty()));
    for (below, id) in &shipped {
        put(tree, *id, &format!("{place}{below}"))?;
        lines.push_str(&format!("L+ {state}{below} - - - - {place}{below}\n"));
    }
    tree.remove(path);
    Ok(())
}

/// Gives everything below the folder `id` a place below `to`.
fn move_below(tree: &mut Tree, id: NodeId, to: &str) -> Result<(), Error> {
    let children: Vec<_> = tree.children(id).map(|(name, child)| (show(name), child)).collect();
    for (name, child) in children {
        put(tree, child, &format!("{to}/{name}"))?;
    }
    Ok(())
}

/// Puts the node `id` with all below it at `path`; a folder that is there keeps what it has.
fn put(tree: &mut Tree, id: NodeId, path: &str) -> Result<(), Error> {
    let node = tree.node(id);
    if let Kind::Directory(_) = node.kind {
        let (meta, origin) = (node.meta.clone(), node.origin);
        tree.put(path, meta, Kind::Directory(BTreeMap::new()), origin)?;
        move_below(tree, id, path)
    } else {
        Ok(tree.link(path, id)?)
    }
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

    #[test]
    fn state_folders_are_links() {
        let mut tree = Tree::new(0);
        tree.file("opt/vendor/bin/tool", 0o755, "tool").unwrap();
        tree.file("usr/local/bin/mine", 0o755, "mine").unwrap();
        tree.directory("usr/local/lib", 0o755).unwrap();
        tree.file("srv/www/index.html", 0o644, "hello").unwrap();
        tree.file("usr/lib/tmpfiles.d/home.conf", 0o644, "Q /home 0755 - - -\nq /srv 0755 - - -\n").unwrap();
        folders(&mut tree).unwrap();
        state(&mut tree, &Accounts::default(), &[]).unwrap();
        let target = |path: &str| match &tree.node(tree.lookup(path).unwrap()).kind {
            Kind::Symlink(target) => show(target),
            _ => "no link".into(),
        };
        assert_eq!(target("home"), "var/home");
        assert_eq!(target("usr/local"), "../var/usrlocal");
        assert_eq!(tree.read("usr/lib/keller/shipped/opt/vendor/bin/tool").unwrap(), b"tool");
        assert_eq!(tree.read("srv/www/index.html").unwrap(), b"hello");
        let lines = String::from_utf8(tree.read(STATE_LINES).unwrap()).unwrap();
        assert!(lines.contains("L+ /var/opt/vendor - - - - /usr/lib/keller/shipped/opt/vendor\n"), "{lines}");
        assert!(
            lines.contains("L+ /var/usrlocal/bin/mine - - - - /usr/lib/keller/shipped/usr/local/bin/mine\n")
        );
        assert!(!lines.contains("d /var/home ") && !lines.contains("d /var/srv "), "{lines}");
        assert_eq!(
            tree.read("usr/lib/tmpfiles.d/home.conf").unwrap(),
            b"Q /var/home 0755 - - -\nq /var/srv 0755 - - -\n"
        );
    }
}
