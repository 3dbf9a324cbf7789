//! What is written inside of a directory of /opt or /usr/local that the image ships, made by systemd-tmpfiles as on
//! a node: on the state partition, never in the root.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use keller::lock::Ids;
use keller::manifest::{Container, ContainerImage, Volume};
use keller::rootfs::Accounts;
use keller::rootfs::containers::spec::Account;
use keller::rootfs::containers::{Config, Image, volumes};
use keller::rootfs::tmpfiles::empty_var;
use keller::rootfs::{Wanted, state};
use keller::tree::{Kind, Meta, Tree, show};

use super::fixture::is_root;
use super::tmpfiles::{boot, listing, write};

const INSIDE: &str = "var/lib/keller/shipped";

/// Lines of a package, for what it ships and for what it does not.
const LINES: &str = "d /opt/app 0755 - -
d /opt/app/cache 0750 7 8 10d
d /opt/app/run/deep 0711
f /opt/app/run/pid 0640 7 8 - text
L /opt/app/newest - - - - releases/1
C /opt/app/copied - - - - /usr/share/skel
z /opt/app/bin 0711
D /opt/app/empty 0701 5 6
d /usr/local/share/site/pages 0755
d /srv/www/cache 0755
d /opt/other 0755
L /srv/linked - - - - /srv/www
";

/// A root as its packages and overlays have it.
fn shipped(version: &str) -> Tree {
    let mut tree = Tree::new(0);
    let empty = |mode, uid| (Meta::new(mode).owned(uid, uid), Kind::Directory(BTreeMap::new()));
    tree.file("opt/app/bin/run", 0o755, version).unwrap();
    tree.file("opt/app/releases/1/x", 0o644, version).unwrap();
    tree.file("usr/local/share/site/index", 0o644, version).unwrap();
    tree.file("srv/www/index", 0o644, version).unwrap();
    tree.file("usr/share/skel", 0o604, "skeleton").unwrap();
    tree.symlink("opt/app/current", "releases/1").unwrap();
    for (path, mode, uid) in
        [("opt/app/logs", 0o750, 9), ("opt/app/empty", 0o755, 0), ("opt/app/private/keys", 0o755, 0)]
    {
        let (meta, kind) = empty(mode, uid);
        tree.put(path, meta, kind, Default::default()).unwrap();
    }
    let private = tree.lookup("opt/app/private").unwrap();
    tree.node_mut(private).meta.mode = 0o700;
    tree.file("opt/app/private/own", 0o600, version).unwrap();
    tree
}

fn finish(tree: &mut Tree, hosts: &[&str]) {
    let accounts = Wanted::collect(tree, &[], &[], &[]).unwrap().with_ids(&Ids::default()).unwrap();
    state::write(tree, &accounts, &[]).unwrap();
    empty_var(tree).unwrap();
    let volume =
        |host: &&str| Volume { host: (*host).to_owned(), container: "/data".to_owned(), read_only: false };
    for (name, hosts) in [("one", hosts), ("two", &hosts[..hosts.len().min(2)])] {
        let container = Container {
            name: name.to_owned(),
            image: ContainerImage::Archive { path: "x".into(), reference: None, allowed: Default::default() },
            command: Vec::new(),
            environment: Default::default(),
            ports: Vec::new(),
            volumes: hosts.iter().map(volume).collect(),
            host_network: false,
            start: true,
            new_privileges: false,
            scratch: Container::SCRATCH,
            said: Default::default(),
        };
        let image = Image { reference: String::new(), tree: Tree::new(0), config: Config::default() };
        let account = Account { uid: 1000, gid: 1001, groups: Vec::new() };
        volumes::install(tree, &container, &image, &account, &Accounts::default()).unwrap();
    }
}

/// Boots `tree` on what is in `root/var` already, and shows that nothing is written into the root.
fn booted(root: &Path, tree: &Tree) -> Option<BTreeMap<Vec<u8>, String>> {
    let _ = fs::remove_dir_all(root.join("usr"));
    for link in ["opt", "srv", "home", "root"] {
        let _ = fs::remove_file(root.join(link));
    }
    write(tree, root);
    let before = listing(&root.join("usr"));
    assert_eq!(boot(root)?, "");
    assert_eq!(listing(&root.join("usr")), before);
    Some(listing(root))
}

/// Where the kernel finds `path` once `root` is its root.
fn leads(root: &Path, path: &str) -> String {
    let parts = |path: &str| path.split('/').rev().map(str::to_owned).collect::<Vec<_>>();
    let (mut pending, mut trail) = (parts(path), Vec::new());
    while let Some(part) = pending.pop().filter(|_| trail.len() < 40) {
        match part.as_str() {
            "" | "." => continue,
            ".." => drop(trail.pop()),
            _ => trail.push(part),
        }
        if let Ok(target) = fs::read_link(root.join(trail.join("/"))) {
            let target = target.into_os_string().into_string().unwrap();
            trail.pop();
            if target.starts_with('/') {
                trail.clear();
            }
            pending.extend(parts(&target));
        }
    }
    format!("/{}", trail.join("/"))
}

#[test]
fn what_is_written_inside_of_what_is_shipped_is_on_the_state_partition() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    let mut tree = shipped("1.0.0");
    tree.file("usr/lib/tmpfiles.d/app.conf", 0o644, LINES).unwrap();
    let hosts = ["/opt/app/data", "/opt/app/current/db", "/opt/app/logs", "/usr/local/share/site/up/load"];
    let further =
        ["/opt/app/bin", "/opt/new/data", "/srv/www/up", "/srv/linked/up2", "/opt/app/cache/deeper"];
    finish(&mut tree, &[&hosts[..], &further].concat());
    let root = tempfile::tempdir().unwrap();
    let Some(found) = booted(root.path(), &tree) else { return };
    let line = |path: &str| found.get(path.as_bytes()).map_or("nothing", String::as_str);
    for (below, expected) in [
        ("opt/app/data", "d0755 1000:1001 "),
        ("opt/app/releases/1/db", "d0755 1000:1001 "),
        ("opt/app/logs", "d0750 9:9 "),
        ("opt/app/cache", "d0750 7:8 "),
        ("opt/app/cache/deeper", "d0755 1000:1001 "),
        ("opt/app/run/deep", "d0711 0:0 "),
        ("opt/app/run/pid", "-0640 7:8 text"),
        ("opt/app/empty", "d0701 5:6 "),
        ("opt/app/copied", "-0604 0:0 skeleton"),
        ("opt/app/private", "d0700 0:0 "),
        ("opt/app/private/keys", "d0755 0:0 "),
        ("usr/local/share/site/pages", "d0755 0:0 "),
        ("usr/local/share/site/up/load", "d0755 1000:1001 "),
    ] {
        assert_eq!(line(&format!("{INSIDE}/{below}")), expected, "{below}");
        // The path that everybody knows leads there, and so does the one that a program finds of itself.
        for known in [format!("/{below}"), format!("/usr/lib/keller/shipped/{below}")] {
            let place = match below {
                "opt/app/private" => format!("/usr/lib/keller/shipped/{below}"),
                _ => format!("/{INSIDE}/{below}"),
            };
            assert_eq!(leads(root.path(), &known), place, "{known}");
        }
    }
    for (path, expected) in [
        ("usr/lib/keller/shipped/opt/app/bin", "d0711 0:0 "),
        ("usr/lib/keller/shipped/opt/app/newest", "l0777 0:0 releases/1"),
        ("usr/lib/keller/shipped/opt/app/logs", "l0777 0:0 /var/lib/keller/shipped/opt/app/logs"),
        ("var/opt/app", "l0777 0:0 /usr/lib/keller/shipped/opt/app"),
        ("var/opt/other", "d0755 0:0 "),
        ("var/opt/new/data", "d0755 1000:1001 "),
        ("var/srv/www/cache", "d0755 0:0 "),
        ("var/srv/www/up", "d0755 1000:1001 "),
        ("var/srv/www/up2", "d0755 1000:1001 "),
        ("var/srv/www/index", "-0644 0:0 1.0.0"),
    ] {
        assert_eq!(line(path), expected, "{path}");
    }
}

#[test]
fn a_node_that_took_an_update_gets_the_new_volume() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut old = shipped("1.0.0");
    finish(&mut old, &[]);
    let Some(_) = booted(root.path(), &old) else { return };
    fs::write(root.path().join(INSIDE).join("opt/app/logs/log"), "kept").unwrap();
    let mut new = shipped("1.0.1");
    new.file("opt/app/lib/new", 0o644, "new").unwrap();
    new.file("usr/lib/tmpfiles.d/app.conf", 0o644, "d /opt/app/cache 0700 7 8\n").unwrap();
    finish(&mut new, &["/opt/app/data"]);
    let found = booted(root.path(), &new).unwrap();
    let line = |path: &str| found.get(path.as_bytes()).map_or("nothing", String::as_str);
    assert_eq!(line(&format!("{INSIDE}/opt/app/data")), "d0755 1000:1001 ");
    assert_eq!(line(&format!("{INSIDE}/opt/app/cache")), "d0700 7:8 ");
    assert_eq!(line(&format!("{INSIDE}/opt/app/logs/log")), "-0644 0:0 kept");
    assert_eq!(line("var/opt/app"), "l0777 0:0 /usr/lib/keller/shipped/opt/app");
    let shipped = new.read("usr/lib/keller/shipped/opt/app/lib/new").unwrap();
    assert_eq!(show(&shipped), "new");
}

/// One layout a tree: below a private directory that is not root's, with and without shipped directories between,
/// a line twice below it, an empty directory.
#[test]
fn what_is_deep_below_a_private_directory_is_made_at_every_boot() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    let mut tree = Tree::new(0);
    for name in ["app", "lines", "own"] {
        let path = format!("opt/{name}");
        tree.file(format!("{path}/lib/deep/x"), 0o644, "x").unwrap();
        let id = tree.lookup(&path).unwrap();
        (tree.node_mut(id).meta.mode, tree.node_mut(id).meta.uid, tree.node_mut(id).meta.gid) = (0o750, 1, 1);
    }
    let (meta, kind) = (Meta::new(0o750).owned(1, 1), Kind::Directory(BTreeMap::new()));
    tree.put("opt/own/lib/deep/logs", meta, kind, Default::default()).unwrap();
    let lines = "d /opt/lines/data/db 0700 1 1\nd /opt/lines/data/more/db 0700 1 1\nf /opt/lines/lib/deep/a/pid 0600 1 1\n";
    tree.file("usr/lib/tmpfiles.d/app.conf", 0o644, lines).unwrap();
    let hosts =
        ["/opt/app/data/db", "/opt/app/data/other/db", "/opt/app/lib/deep/new/db", "/opt/app/lib/top"];
    finish(&mut tree, &hosts);
    let root = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let Some(found) = booted(root.path(), &tree) else { return };
        let line =
            |path: &str| found.get(format!("{INSIDE}/{path}").as_bytes()).map_or("nothing", String::as_str);
        for (path, expected) in [
            ("opt/app", "d0750 1:1 "),
            ("opt/app/data", "d0755 1:1 "),
            ("opt/app/data/db", "d0755 1000:1001 "),
            ("opt/app/data/other", "d0755 1:1 "),
            ("opt/app/data/other/db", "d0755 1000:1001 "),
            ("opt/app/lib", "d0755 1:1 "),
            ("opt/app/lib/deep/new", "d0755 1:1 "),
            ("opt/app/lib/deep/new/db", "d0755 1000:1001 "),
            ("opt/app/lib/top", "d0755 1000:1001 "),
            ("opt/lines/data", "d0755 1:1 "),
            ("opt/lines/data/db", "d0700 1:1 "),
            ("opt/lines/data/more", "d0755 1:1 "),
            ("opt/lines/data/more/db", "d0700 1:1 "),
            ("opt/lines/lib/deep/a/pid", "-0600 1:1 "),
            ("opt/own/lib/deep", "d0755 1:1 "),
            ("opt/own/lib/deep/logs", "d0750 1:1 "),
        ] {
            assert_eq!(line(path), expected, "{path}");
        }
    }
}
