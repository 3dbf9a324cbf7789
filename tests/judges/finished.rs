//! A finished root as its own programs see it: accounts through nss-systemd, units through systemctl.
//!
//! Judged by a whole tree of packages only: KELLER_JUDGE_TREE names a folder with unpacked ones, and the
//! test must be root, since the tree's own programs are started in it with chroot.

use std::path::Path;
use std::process::Command;

use keller::base::Size;
use keller::lock::Ids;
use keller::manifest::{
    Debian, Disk, Etc, Health, Kernel, Manifest, Recipe, RootFilesystem, Runtime, Services, SystemUser, User,
};
use keller::rootfs::{self, BuildInfo};
use keller::tree::{Kind, Tree};

use super::folder;
use super::tool::run;

fn manifest() -> Manifest {
    let system = |name: &str| SystemUser {
        name: name.into(),
        uid: None,
        home: format!("/var/lib/{name}"),
        groups: vec!["systemd-journal".into()],
        description: "distributed store".into(),
    };
    Manifest {
        said: Default::default(),
        folder: Default::default(),
        id: "node".into(),
        version: "1.0.0".into(),
        debian: Debian {
            suite: "trixie".into(),
            components: vec!["main".into()],
            updates: true,
            security: true,
            mirror: None,
            security_mirror: None,
            allow_expired: false,
            keys: None,
            repositories: Vec::new(),
        },
        recipe: Recipe { system_users: vec![system("etcd")], ..Recipe::default() },
        users: vec![User {
            name: "core".into(),
            uid: 1000,
            groups: vec!["sudo".into(), "systemd-journal".into()],
            ssh_keys: vec!["ssh-ed25519 AAAA core".into()],
            shell: "/bin/bash".into(),
            password_hash: Some("$y$j9T$none$none".into()),
        }],
        services: Services {
            enable: ["ssh.service", "systemd-networkd.service", "systemd-resolved.service", "etcd.service"]
                .map(str::to_owned)
                .to_vec(),
            mask: vec!["systemd-ssh-generator".into()],
        },
        kernel: Kernel { load: vec!["br_netfilter".into()], ..Kernel::default() },
        etc: Etc::default(),
        runtime: Runtime::default(),
        interfaces: Vec::new(),
        containers: Vec::new(),
        kv: None,
        health: Health {
            units: Vec::new(),
            etcd: false,
            containers: true,
            command: Vec::new(),
            network: false,
            stable_seconds: 5,
            deadline_seconds: 120,
            give_up_after: 2,
        },
        disk: Disk {
            esp: Size::mib(512),
            root: Size::mib(1024),
            filesystem: RootFilesystem::default(),
            reserve: Some(Size::mib(256)),
            state_min: Size::mib(512),
            state_grow: true,
            sector_size: 512,
        },
        node: keller::node::Policy::default(),
        update: None,
        netboot_url: None,
        outputs: Vec::new(),
    }
}

#[test]
fn accounts_and_units_of_a_whole_root() {
    let Some(source) = std::env::var_os("KELLER_JUDGE_TREE") else {
        println!("SKIPPED: KELLER_JUDGE_TREE is not set");
        return;
    };
    let mut tree = folder::load(Path::new(&source));
    let manifest = manifest();
    let start = std::time::Instant::now();
    let ids = rootfs::ids(&tree, &manifest.users, &manifest.recipe, &Ids::default()).unwrap();
    let build = BuildInfo { keller: "0.1.0".into() };
    let accounts = rootfs::accounts(&tree, &manifest.users, &manifest.recipe, &ids).unwrap();
    let report = rootfs::finish(&mut tree, &manifest, &accounts, &build, None).unwrap();
    println!("finished in {:?}: {:#?}", start.elapsed(), report.services);
    println!("{ids:?}");
    dangling(&tree);

    let place = tempfile::tempdir().unwrap();
    let root = match std::env::var_os("KELLER_JUDGE_KEEP") {
        Some(kept) => kept.into(),
        None => place.path().to_owned(),
    };
    folder::store(&tree, &root);
    let inside = |program: &str, arguments: &[&str]| {
        run(Command::new("chroot").arg(&root).arg(program).args(arguments).env("PATH", "/usr/bin:/usr/sbin"))
    };
    assert_eq!(
        inside("getent", &["passwd", "etcd"]),
        "etcd:x:993:993:distributed store:/var/lib/etcd:/usr/sbin/nologin\n"
    );
    assert_eq!(inside("getent", &["passwd", "1000"]), "core:x:1000:1000:core:/home/core:/bin/bash\n");
    assert_eq!(inside("getent", &["group", "sudo"]), "sudo:x:27:core\n");
    assert_eq!(inside("getent", &["group", "systemd-journal"]), "systemd-journal:x:999:core,etcd\n");
    assert_eq!(
        inside("id", &["core"]),
        "uid=1000(core) gid=1000(core) groups=1000(core),27(sudo),999(systemd-journal)\n"
    );
    assert_eq!(inside("id", &["-nG", "etcd"]), "etcd systemd-journal\n");
    assert!(inside("getent", &["shadow", "core"]).starts_with("core:$y$j9T$none$none:"));
    assert!(inside("getent", &["shadow", "etcd"]).starts_with("etcd:!"));
    assert_eq!(
        inside("getent", &["passwd", "sshd"]),
        "sshd:x:994:65534:sshd user:/run/sshd:/usr/sbin/nologin\n"
    );
    assert!(inside("systemctl", &["get-default"]).starts_with("multi-user.target\n"));
    // Nobody is missing: the real systemd-sysusers finds nothing to do.
    let missing = inside("systemd-sysusers", &["--dry-run"]);
    assert!(!missing.contains("Creating"), "{missing}");
}

/// Links of the tree that lead nowhere, apart from those that lead to what a boot makes.
fn dangling(tree: &Tree) {
    for (path, id) in tree.walk() {
        let path = String::from_utf8(path).unwrap();
        if let Kind::Symlink(target) = &tree.node(id).kind
            && tree.resolve(&path).is_err()
        {
            println!("leads nowhere here: /{path} -> {}", String::from_utf8_lossy(target));
        }
    }
}
