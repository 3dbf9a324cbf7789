//! Whose files are: what `.meta` of an overlay and `files:` say reaches the node, and only what it was said of.

use std::fs::File;
use std::sync::Arc;

use keller::base::progress::Silent;
use keller::fs::erofs;
use keller::image::inspect;
use keller::tree::{Content, Meta, Tree};

use super::archive::Package;
use super::elf;
use super::project::Project;
use crate::judges::tool::{run, tool};

const CAPABILITY: &[u8] = b"security.capability";

/// The root of the image that was built.
fn root(project: &Project) -> Tree {
    let open = || File::open(project.path("node/out/tiny_1.2.3.raw")).unwrap();
    let inspection = inspect::inspect(open(), false, &Silent).unwrap();
    let part = inspection.partitions.iter().find(|part| part.kind == "root-x86-64").unwrap();
    let content = Content::Slice { file: Arc::new(open()), offset: part.start, len: part.size };
    erofs::Image::open(content).unwrap().tree().unwrap()
}

fn meta<'a>(tree: &'a Tree, path: &str) -> &'a Meta {
    &tree.node(tree.lookup(path).unwrap_or_else(|| panic!("{path} is not there"))).meta
}

fn overlay(project: &Project, name: &str, files: &[&str], text: &str) {
    for path in files {
        let path = format!("node/{name}/{path}");
        std::fs::create_dir_all(project.path(path.rsplit_once('/').unwrap().0)).unwrap();
        project.write(&path, format!("of {name}\n"));
    }
    project.write(&format!("node/{name}/.meta"), text);
}

/// The lines of tmpfiles.d that keller wrote.
fn lines(tree: &Tree) -> String {
    let read = |name: &str| tree.read(format!("usr/lib/tmpfiles.d/{name}")).unwrap_or_default();
    String::from_utf8([read("10-keller-state.conf"), read("50-keller-var.conf")].concat()).unwrap()
}

#[test]
fn what_a_node_writes_to_has_its_owners() {
    let project = Project::new();
    let text = "var/lib/app/ 0700 greet greet\nvar/lib/greet/ 0750 greet greet\n\
        var/lib/app/secret 0600 greet greet\nusr/local/bin/app 0755 root root cap_net_bind_service+ep\n\
        usr/local/lib/ 0775 root greet\nopt/vendor/tool 0750 root greet\nopt/data/ 0770 greet greet\n\
        home/core/.ssh/ 0700 core core\nhome/core/.ssh/authorized_keys 0600 core core\n\
        root/ 0750 root greet\nsrv/www/ 0750 greet greet\netc/app/secret.conf 0640 root greet\n";
    let files = [
        "var/lib/app/secret",
        "usr/local/bin/app",
        "opt/vendor/tool",
        "home/core/.ssh/authorized_keys",
        "etc/app/secret.conf",
        "usr/lib/tmpfiles.d/app.conf",
    ];
    overlay(&project, "overlay", &files, text);
    // A line about what is there already does not count against what an overlay says.
    project.write("node/overlay/usr/lib/tmpfiles.d/app.conf", "z /etc/app/secret.conf 0644 root root\n");
    project.edit("files:\n", "setuid: [/usr/local/bin/app]\nfiles:\n");
    project.build(&[]).good();
    let tree = root(&project);
    let said = lines(&tree);
    let uid = meta(&tree, "usr/share/factory/var/lib/app/secret").uid;
    assert!(uid != 0, "{said}");
    for line in [
        format!("d /var/lib/app :0700 :{uid} :{uid} "),
        format!("d /var/lib/greet :0750 :{uid} :{uid} "),
        format!("d /var/usrlocal/lib :0775 :0 :{uid} "),
        format!("d /var/opt/data :0770 :{uid} :{uid} "),
        "d /var/home/core/.ssh :0700 :1000 :1000 ".to_owned(),
        format!("d /var/roothome :0750 :0 :{uid} "),
        format!("d /var/srv/www :0750 :{uid} :{uid} "),
    ] {
        assert!(said.contains(&line), "{line} is not in\n{said}");
    }
    let access = |path: &str| {
        let meta = meta(&tree, path);
        (meta.mode, meta.uid, meta.gid)
    };
    assert_eq!(access("usr/share/factory/var/lib/app"), (0o700, uid, uid));
    assert_eq!(access("usr/share/factory/var/lib/app/secret"), (0o600, uid, uid));
    assert_eq!(access("usr/share/factory/var/home/core/.ssh"), (0o700, 1000, 1000));
    assert_eq!(access("usr/share/factory/var/home/core/.ssh/authorized_keys"), (0o600, 1000, 1000));
    assert_eq!(access("usr/lib/keller/shipped/opt/vendor/tool"), (0o750, 0, uid));
    assert_eq!(access("etc/app/secret.conf"), (0o640, 0, uid));
    let app = meta(&tree, "usr/lib/keller/shipped/usr/local/bin/app");
    assert_eq!(app.xattrs.get(CAPABILITY).map(Vec::len), Some(20));
}

#[test]
fn files_in_opt_and_usr_local_are_read_in_the_verified_root() {
    let mut project = Project::new();
    project.archive.add(&Package::new("vendor", "1").file("opt/vendor/run", elf::program()));
    project.publish();
    project.edit("greeter]", "greeter, vendor]");
    project.edit(
        "files:\n",
        "files:\n  - {path: /opt/vendor/run, mode: \"0750\", group: greet}\n  \
         - {path: /opt/site/conf, content: mine, owner: greet}\n  \
         - {path: /opt/site/cache, directory: true, owner: greet, mode: \"0700\"}\n  \
         - {path: /usr/local/bin/tool, content: \"#!/usr/bin/greet\\n\", mode: \"0755\"}\n",
    );
    project.build(&[]).good();
    let tree = root(&project);
    let shipped = "usr/lib/keller/shipped";
    let run = meta(&tree, &format!("{shipped}/opt/vendor/run"));
    let uid = run.gid;
    assert!(run.mode == 0o750 && uid != 0, "{:o} {uid}", run.mode);
    assert_eq!(tree.read(format!("{shipped}/opt/site/conf")).unwrap(), b"mine");
    assert_eq!(meta(&tree, &format!("{shipped}/opt/site/conf")).uid, uid);
    assert_eq!(meta(&tree, &format!("{shipped}/usr/local/bin/tool")).mode, 0o755);
    let said = lines(&tree);
    for line in [
        format!("L /var/opt/site - - - - /{shipped}/opt/site"),
        format!("L /var/usrlocal/bin/tool - - - - /{shipped}/usr/local/bin/tool"),
        format!("d /var/lib/keller/shipped/opt/site/cache :0700 :{uid} :"),
    ] {
        assert!(said.contains(&line), "{line} is not in\n{said}");
    }
}

#[test]
fn directories_that_a_script_would_give_to_a_service() {
    let mut project = Project::new();
    let data = "var/lib/greet/data";
    project.archive.add(&Package::new("vendor", "1").member(&format!("./{data}"), b'5', ""));
    project.publish();
    project.edit("greeter]", "greeter, vendor]");
    let told = project.build(&[]).good().err;
    let entry = format!("{{path: /{data}, owner: greet, group: greet}}");
    let said = format!(
        "/{data} (vendor) is root's, in the home of greet, who cannot write to it: where vendor's script gives it to greet, \
         write `files: [{entry}]`"
    );
    assert!(told.contains(&said), "{told}");
    // The way out is one, and so is a directory of the manifest's own.
    project.edit(
        "files:\n",
        &format!("files:\n  - {entry}\n  - {{path: /srv/new, directory: true, owner: greet}}\n"),
    );
    let told = project.build(&[]).good().err;
    assert!(!told.contains("who cannot write to it"), "{told}");
    let said = lines(&root(&project));
    let line =
        said.lines().find(|line| line.contains(&format!(" /{data} "))).unwrap_or_else(|| panic!("{said}"));
    let owner = line.split(' ').nth(3).unwrap();
    assert!(line.starts_with(&format!("d /{data} :0755 :")) && owner != ":0", "{line}");
    assert!(said.contains(&format!("d /var/srv/new :0755 {owner} :0 ")), "{said}");
}

#[test]
fn what_replaces_a_file_does_not_take_its_rights() {
    let project = Project::new();
    overlay(
        &project,
        "overlay",
        &["usr/bin/a", "usr/bin/b", "usr/bin/c", "etc/x"],
        "usr/bin/a 4755 root root\nusr/bin/b 0755 root greet cap_net_raw+ep\n\
         usr/bin/c 4755 root root\netc/x 0600 root root\n",
    );
    overlay(&project, "second", &["usr/bin/b", "usr/bin/c"], "usr/bin/b 0755 root root\n");
    project.edit("overlays: [overlay]", "overlays: [overlay, {path: second, replace: true}]");
    project.edit(
        "files:\n",
        "files:\n  - {path: /usr/bin/a, content: new, mode: '0755', replace: true}\n  \
         - {path: /etc/x, mode: '0640', group: greet}\n",
    );
    project.build(&[]).good();
    let tree = root(&project);
    for program in ["usr/bin/a", "usr/bin/b"] {
        let meta = meta(&tree, program);
        assert_eq!((meta.mode, meta.uid, meta.gid), (0o755, 0, 0), "{program}");
        assert!(!meta.xattrs.contains_key(CAPABILITY), "{program}");
    }
    assert_eq!(meta(&tree, "usr/bin/c").mode, 0o644);
    let x = meta(&tree, "etc/x");
    assert!(x.mode == 0o640 && x.gid != 0, "{:o} {}", x.mode, x.gid);
}

#[test]
fn modes_on_disk_that_do_not_count_are_told() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new();
    for (path, mode) in [("secret", 0o600), ("run", 0o755), ("plain", 0o644), ("said", 0o600)] {
        project.write(&format!("node/{path}"), path);
        std::fs::set_permissions(
            project.path(&format!("node/{path}")),
            std::fs::Permissions::from_mode(mode),
        )
        .unwrap();
    }
    let entries =
        ["secret", "run", "plain"].map(|path| format!("  - {{path: /etc/{path}, source: {path}}}\n"));
    let said = "  - {path: /etc/said, source: said, mode: \"0600\"}\n";
    project.edit("  - {path: /etc/greet.d", &(entries.concat() + said + "  - {path: /etc/greet.d"));
    std::fs::create_dir_all(project.path("node/overlay/srv/repo/.git")).unwrap();
    project.write("node/overlay/srv/repo/.git/HEAD", "");
    let told = project.build(&[]).good().err;
    println!("{told}");
    for part in [
        "files: modes on disk do not count, and /etc/secret, whose source has 0600, will be open to all on a node with 0644; \
         `mode: \"0600\"` says what it is to have",
        "and /etc/run, whose source has 0755, will be a plain file on a node with 0644; `mode: \"0755\"`",
        "a line in .meta takes it along: `srv/repo/.git 0755 root root`",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    assert!(!told.contains("/etc/plain") && !told.contains("/etc/said"), "{told}");
}

#[test]
fn libraries_outside_of_usr_lib_are_in_the_loaders_cache() {
    let mut project = Project::new();
    project.archive.add(
        &Package::new("vendor", "1")
            .file("usr/local/lib/liblocal.so.1", elf::needing("libopt.so.2"))
            .file("opt/vendor/lib/libopt.so.2", elf::needing("liblocal.so.1"))
            .file("usr/bin/uses", elf::needing("liblocal.so.1"))
            .file("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n")
            .file("etc/ld.so.conf.d/vendor.conf", "/usr/local/lib\n/opt/vendor/lib\n"),
    );
    project.publish();
    project.edit("greeter]", "greeter, vendor]");
    project.build(&[]).good();
    let tree = root(&project);
    // The names are those of the node, on which links lead from /var to what the image ships.
    assert!(tree.exists("usr/lib/keller/shipped/usr/local/lib/liblocal.so.1"));
    let Some(mut ldconfig) = tool("ldconfig") else { return };
    let cache = project.path("cache");
    std::fs::write(&cache, tree.read("etc/ld.so.cache").unwrap()).unwrap();
    let listed = run(ldconfig.arg("-p").arg("-C").arg(&cache));
    println!("{listed}");
    for entry in
        ["liblocal.so.1 (libc6,x86-64) => /usr/local/lib/liblocal.so.1", "=> /opt/vendor/lib/libopt.so.2"]
    {
        assert!(listed.contains(entry), "{entry} is not in {listed}");
    }
    // A library that the cache does not have is missed.
    std::fs::create_dir_all(project.path("node/overlay/etc/ld.so.conf.d")).unwrap();
    project.write("node/overlay/etc/ld.so.conf.d/vendor.conf", "/usr/local/lib\n");
    project.edit("overlays: [overlay]", "overlays: [{path: overlay, replace: true}]");
    let told = project.build(&[]).error().to_owned();
    assert!(
        told.contains(
            "needs libopt.so.2, which is at /opt/vendor/lib/libopt.so.2, but in no directory that is searched"
        ),
        "{told}"
    );
}

#[test]
fn the_owner_of_a_path_is_its_owner_by_number() {
    let project = Project::new();
    let text = "var/lib/own/ 0700 500 500\nvar/lib/mixed/ 0700 501 greet\netc/said 0640 502 502\netc/own.conf 0600 own own\n";
    let files =
        ["var/lib/own/x", "var/lib/mixed/x", "etc/own.conf", "etc/said", "usr/lib/sysusers.d/own.conf"];
    overlay(&project, "overlay", &files, text);
    let lines = "u own /var/lib/own\nu mixed /var/lib/mixed\nu said /etc/said\ng said /etc/said\n";
    project.write("node/overlay/usr/lib/sysusers.d/own.conf", lines);
    let told = project.build(&[]).good().err;
    assert!(!told.contains("sysusers.d/own.conf"), "{told}");
    let record = |tree: &Tree, name: &str| tree.read(format!("usr/lib/userdb/{name}.user")).unwrap();
    let tree = root(&project);
    for (name, uid) in [("own", 500), ("mixed", 501), ("said", 502)] {
        let record: serde_json::Value = serde_json::from_slice(&record(&tree, name)).unwrap();
        assert_eq!(record["uid"], uid, "{record}");
    }
    assert_eq!((meta(&tree, "etc/own.conf").uid, meta(&tree, "etc/own.conf").gid), (500, 500));
    let lock = project.text("node/node.lock");
    assert!(!lock.contains("\"own\""), "{lock}");

    // A number that the manifest gives somebody else is not to be had.
    project.edit("system_users:\n", "system_users:\n  - {name: other, uid: 500, home: /var/lib/other}\n");
    let told = project.build(&[]).good().err;
    assert!(told.contains("the owner of /var/lib/own has id 500, which own cannot have"), "{told}");
    assert!(meta(&root(&project), "etc/own.conf").uid > 502);
}
