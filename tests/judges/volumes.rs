//! Volumes of containers, made by systemd-tmpfiles as on a node: once, and never changed again.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use keller::manifest::{Container, ContainerImage, Volume};
use keller::rootfs::Accounts;
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
        image: ContainerImage::Archive { path: "x".into(), reference: None, allowed: Default::default() },
        command: Vec::new(),
        environment: Default::default(),
        ports: Vec::new(),
        volumes: names.iter().map(volume).collect(),
        host_network: false,
        start: true,
        new_privileges: false,
        scratch: Container::SCRATCH,
        said: Default::default(),
    };
    let image = Image { reference: String::new(), tree: image, config: Config::default() };
    let mut tree = Tree::new(0);
    tree.symlink("srv", "var/srv").unwrap();
    let account = Account { uid, gid, groups: Vec::new() };
    volumes::install(&mut tree, &container, &image, &account, &Accounts::default()).unwrap();

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

/// Adds the volumes of the container `name`, which runs as user and group `id` of an image that has none of the places.
fn install(tree: &mut Tree, name: &str, id: u32, hosts: &[&str]) -> Result<(), String> {
    let volume =
        |host: &&str| Volume { host: (*host).to_owned(), container: "/data".to_owned(), read_only: false };
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
    let account = Account { uid: id, gid: id, groups: Vec::new() };
    volumes::install(tree, &container, &image, &account, &Accounts::default())
        .map_err(|error| error.to_string())
}

/// What systemd-tmpfiles says to the lines of `tree` at two boots, and the owners of `paths` after them; of those
/// that are not there, none.
fn boots(tree: &Tree, paths: &[&str]) -> (String, Vec<Option<u32>>) {
    let root = tempfile::tempdir().unwrap();
    tree.write_to_folder(root.path()).unwrap();
    let mut said = String::new();
    for _ in 0..2 {
        let mut tmpfiles = trixie(&["systemd"], "usr/bin/systemd-tmpfiles").unwrap();
        let output =
            tmpfiles.arg("--create").arg(format!("--root={}", root.path().display())).output().unwrap();
        said += &String::from_utf8_lossy(&output.stderr);
    }
    let owner = |path: &&str| {
        let path = root.path().join(path.trim_start_matches('/'));
        fs::metadata(path).ok().map(|meta| meta.uid())
    };
    (said, paths.iter().map(owner).collect())
}

/// Volumes of two containers, one in the other, below the private directory of a third account: what keller takes,
/// systemd-tmpfiles makes, with the owners that each container wants, whichever container comes first. What keller
/// refuses, systemd-tmpfiles does not make.
#[test]
fn volumes_of_two_containers_in_a_third_account_s_directory() {
    let Some(_) = trixie(&["systemd"], "usr/bin/systemd-tmpfiles") else { return };
    if !is_root() {
        println!("SKIPPED: only root can give files away");
        return;
    }
    const THIRD: &str = "/var/lib/third";
    let (mut taken, mut refused) = (0, 0);
    for third in [0, 3, 10] {
        for (outer_id, inner_id) in [(10, 10), (10, 20), (3, 20), (3, 3), (0, 20), (20, 0)] {
            for (outer, inner) in [
                ("/var/lib/third/a", "/var/lib/third/a/b"),
                ("/var/lib/third/a", "/var/lib/third/a/x/y/b"),
                ("/var/lib/third/x/a", "/var/lib/third/x/a/y/b"),
                ("/var/lib/third/x/a", "/var/lib/third/x/b"),
                ("/var/lib/third", "/var/lib/third/a/b"),
            ] {
                let private = format!("d {THIRD} :0700 :{third} :{third} - -\n");
                let lines = |first_is_outer: bool| -> Result<Tree, String> {
                    let mut tree = Tree::new(0);
                    tree.file("usr/lib/tmpfiles.d/a.conf", 0o644, private.clone()).unwrap();
                    let containers = [("outer", outer_id, outer), ("inner", inner_id, inner)];
                    let order = if first_is_outer { [0, 1] } else { [1, 0] };
                    for (name, id, host) in order.map(|index| containers[index]) {
                        install(&mut tree, name, id, &[host])?;
                    }
                    Ok(tree)
                };
                let case = format!("{third}: {outer_id} {outer}, {inner_id} {inner}");
                let outer_owner = if outer == THIRD { third } else { outer_id };
                match [lines(true), lines(false)] {
                    [Ok(one), Ok(other)] => {
                        for tree in [one, other] {
                            let (said, owners) = boots(&tree, &[THIRD, outer, inner]);
                            assert_eq!(said, "", "{case}");
                            assert_eq!(owners, [third, outer_owner, inner_id].map(Some), "{case}");
                        }
                        taken += 1;
                    }
                    [Err(one), Err(other)] => {
                        let (above, _) = outer.rsplit_once('/').unwrap();
                        let told = format!(
                            "container inner has the volume {inner}, which no node would make: {above} belongs to user \
                             {third}, and {outer} in it to user {outer_owner}"
                        );
                        assert!(one.starts_with(&told) && other.starts_with(&told), "{case}: {one}\n{other}");
                        let mut tree = Tree::new(0);
                        let own = format!("d {outer} :0755 :{outer_id} :{outer_id} - -\n");
                        let lines = format!("{private}{own}d {inner} :0755 :{inner_id} :{inner_id} - -\n");
                        tree.file("usr/lib/tmpfiles.d/a.conf", 0o644, lines).unwrap();
                        let (said, owners) = boots(&tree, &[inner]);
                        assert!(said.contains("Detected unsafe path transition"), "{case}: {said}");
                        assert_eq!(owners, [None], "{case}");
                        refused += 1;
                    }
                    [one, other] => panic!("{case}: {:?} {:?}", one.err(), other.err()),
                }
            }
        }
    }
    assert!(taken > 40 && refused > 10, "{taken} {refused}");
}

fn own() -> (u32, u32) {
    let id = |flag: &str| run(Command::new("id").arg(flag)).trim().parse().unwrap();
    (id("-u"), id("-g"))
}
