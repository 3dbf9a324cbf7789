//! Volumes of containers, made by systemd-tmpfiles as on a node: once, and never changed again.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use keller::manifest::{Container, ContainerImage, Volume};
use keller::rootfs::containers::spec::Account;
use keller::rootfs::containers::{Config, Image, volumes};
use keller::tree::{Kind, Meta, Tree};

use super::tool::run;
use super::trixie::trixie;
use crate::boot::parts::is_root;

#[test]
fn a_volume_keeps_mode_and_owner_over_boots() {
    let Some(_) = trixie(&["systemd"], "usr/bin/systemd-tmpfiles") else { return };
    // Only root can give files away: others judge the modes.
    let (uid, gid) = if is_root() { (1000, 1001) } else { own() };
    let mut image = Tree::new(0);
    let folder = Kind::Directory(Default::default());
    image.put("data", Meta::new(0o750).owned(uid, gid), folder, Default::default()).unwrap();
    let names = ["with space", "fifty%percent", "50%%", "it's \"quoted\"", "back\\slash", "ü", "%S", "plain"];
    let volume = |name: &&str| Volume {
        host: format!("/srv/app/{name}"),
        container: "/data".to_owned(),
        read_only: false,
    };
    let container = Container {
        name: "db".to_owned(),
        image: ContainerImage::Archive { path: "x".into(), reference: None },
        command: Vec::new(),
        environment: Default::default(),
        ports: Vec::new(),
        volumes: names.iter().map(volume).collect(),
        host_network: false,
        start: true,
        new_privileges: false,
        scratch: Container::SCRATCH,
        allowed: Default::default(),
    };
    let image = Image { reference: String::new(), tree: image, config: Config::default() };
    let mut tree = Tree::new(0);
    tree.symlink("srv", "var/srv").unwrap();
    let account = Account { uid, gid, groups: Vec::new() };
    volumes::install(&mut tree, &container, &image, &account).unwrap();

    let root = tempfile::tempdir().unwrap();
    let lines = tree.read("usr/lib/tmpfiles.d/keller-volumes-db.conf").unwrap();
    let place = root.path().join("usr/lib/tmpfiles.d");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("keller-volumes-db.conf"), lines).unwrap();
    let boot = || {
        let mut tmpfiles = trixie(&["systemd"], "usr/bin/systemd-tmpfiles").unwrap();
        let said = run(tmpfiles.arg("--create").arg(format!("--root={}", root.path().display())));
        assert_eq!(said, "");
    };
    let access = |name: &str| {
        let meta = fs::metadata(root.path().join("var/srv/app").join(name)).unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    };
    boot();
    for name in names {
        assert_eq!(access(name), (0o750, uid, gid), "{name}");
        let path = root.path().join("var/srv/app").join(name);
        if is_root() {
            std::os::unix::fs::chown(&path, Some(999), Some(998)).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    assert_eq!(fs::read_dir(root.path().join("var/srv/app")).unwrap().count(), names.len());
    boot();
    let (uid, gid) = if is_root() { (999, 998) } else { (uid, gid) };
    for name in names {
        assert_eq!(access(name), (0o700, uid, gid), "{name}");
    }
}

/// What `keller` refuses a volume for: tmpfiles makes nothing below a directory of one account in that of another.
#[test]
fn tmpfiles_makes_nothing_below_directories_of_two_accounts() {
    let Some(_) = trixie(&["systemd"], "usr/bin/systemd-tmpfiles") else { return };
    if !is_root() {
        println!("SKIPPED: only root can give files away");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("usr/lib/tmpfiles.d");
    fs::create_dir_all(&place).unwrap();
    let lines = "d /var/app 0750 5 5\nd /var/app/data 0700 999 999\nd /var/app/data/db 0700 999 999\n\
        d /var/own 0750 999 999\nd /var/own/data 0700 999 999\nd /var/own/data/db 0700 5 5\n";
    fs::write(place.join("x.conf"), lines).unwrap();
    let mut tmpfiles = trixie(&["systemd"], "usr/bin/systemd-tmpfiles").unwrap();
    let output = tmpfiles.arg("--create").arg(format!("--root={}", root.path().display())).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Detected unsafe path transition") && said.contains("/var/app/data"), "{said}");
    let made = ["app/data", "app/data/db", "own/data", "own/data/db"]
        .map(|path| root.path().join("var").join(path).exists());
    assert_eq!(made, [true, false, true, true], "{said}");
}

fn own() -> (u32, u32) {
    let id = |flag: &str| run(Command::new("id").arg(flag)).trim().parse().unwrap();
    (id("-u"), id("-g"))
}
