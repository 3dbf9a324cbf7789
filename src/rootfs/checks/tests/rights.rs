//! What gives others rights.

use super::*;

#[test]
fn owners_bits_and_capabilities() {
    let mut tree = Tree::new(0);
    let origin = tree.origin("sample");
    let mut put =
        |path: &str, meta: Meta| tree.put(path, meta, Kind::File("".into()), origin).map(drop).unwrap();
    put("usr/bin/a", Meta::new(0o4755));
    put("usr/bin/b", Meta::new(0o2755).owned(0, 42));
    let mut capable = Meta::new(0o755);
    capable.xattrs.insert(b"security.capability".to_vec(), vec![1]);
    put("usr/bin/c", capable);
    put("usr/bin/d", Meta::new(0o644).owned(996, 0));
    put("usr/bin/e", Meta::new(0o644).owned(996, 0));
    tree.directory("usr/shared", 0o2775).unwrap();
    let mut inputs = Inputs { groups: BTreeMap::from([("shadow".to_owned(), 42)]), ..Inputs::default() };
    assert_found(
        &tree,
        &inputs,
        &[
            "/usr/bin/a (sample) is setuid (mode 4755, owner 0:0): allow it with `setuid: [/usr/bin/a]`",
            "/usr/bin/b (sample) is setgid (mode 2755, owner 0:42)",
            "/usr/bin/c (sample) is given capabilities",
            "/usr/bin/d (sample) belongs to user 996, which is no user of the image, as does /usr/bin/e",
        ],
    );
    inputs.allowed.setuid =
        ["/usr/bin/a", "/usr/bin/b", "/usr/bin/c", "/usr/bin/z"].map(str::to_owned).to_vec();
    inputs.users.insert("sample".to_owned(), 996);
    assert_found(&tree, &inputs, &["setuid allows /usr/bin/z, which is not there"]);
}

#[test]
fn bits_of_what_moves_are_allowed_by_its_path_on_the_node() {
    let mut tree = Tree::new(0);
    let origin = tree.origin("sample");
    let mut meta = Meta::new(0o755);
    meta.xattrs.insert(b"security.capability".to_vec(), vec![1]);
    tree.put("usr/local/bin/app", meta, Kind::File("".into()), origin).unwrap();
    tree.put("opt/vendor/su", Meta::new(0o4755), Kind::File("".into()), origin).unwrap();
    state::write(&mut tree, &Accounts::default(), &[]).unwrap();
    let mut inputs = Inputs::default();
    assert_found(
        &tree,
        &inputs,
        &[
            "/opt/vendor/su (sample) is setuid (mode 4755, owner 0:0): allow it with `setuid: [/opt/vendor/su]`",
            "/usr/local/bin/app (sample) is given capabilities (mode 0755, owner 0:0): allow it with `setuid: [/usr/local/bin/app]`",
        ],
    );
    inputs.allowed.setuid = ["/usr/local/bin/app", "/opt/vendor/su"].map(str::to_owned).to_vec();
    assert_found(&tree, &inputs, &[]);
}

#[test]
fn what_gives_others_rights_is_refused_unless_it_is_named() {
    let tree = dangerous();
    let found = |inputs: &Inputs| image(&tree, inputs).iter().map(Finding::to_string).collect::<Vec<_>>();
    let inputs = Inputs { is_archive: true, leaves_devices: true, ..Inputs::default() };
    let expected = [
        "/app/drop (sample) may be written to by everybody, and has no sticky bit (mode 0777): allow it with \
         `image: {archive: …, world_writable: [/app/drop]}`",
        "/app/log (sample) may be written to by everybody (mode 0666): ",
        "/app/pipe (sample) may be written to by everybody (mode 0622): ",
        "/bin/su (sample) is setuid (mode 4755, owner 0:0): allow it with `image: {archive: …, setuid: [/bin/su]}`",
        "/dev/null (sample) is the character device 1:3 (mode 0600): ",
        "/dev/vda (sample) is the block device 254:0 (mode 0666): allow it with \
         `image: {archive: …, device_nodes: [/dev/vda]}`",
    ];
    let said = found(&inputs);
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said} does not begin with {expected}");
    }
    assert_eq!(
        wanted(&tree),
        "\n  what the image has, to choose from:\n    setuid: [/bin/su]\n    device_nodes: [/dev/null, /dev/vda]\
         \n    world_writable: [/app/drop, /app/log, /app/pipe]"
    );
    let allowed = Allowed {
        setuid: vec!["/bin/su".into()],
        device_nodes: vec!["/dev/vda".into(), "/dev/null".into(), "/dev/zero".into()],
        world_writable: vec!["/app".into(), "/dev/vda".into(), "/srv".into()],
    };
    let allowed = Inputs { allowed, ..inputs };
    assert_eq!(
        found(&allowed),
        [
            "device_nodes allows /dev/zero, which is not there or is no device: remove the entry",
            "world_writable allows /dev/vda, a device, which is left out: remove the entry",
            "world_writable allows /srv, which is not there or is not open to everybody: remove the entry",
        ]
    );
    // On a node a device is there, and who may write to it is another matter than whether it may be there.
    let allowed = Allowed { device_nodes: vec!["/dev".into()], ..Allowed::default() };
    let node = Inputs { allowed, ..Inputs::default() };
    let said: Vec<_> = brought(&tree, &node).iter().map(Finding::to_string).collect();
    assert!(said.iter().any(|line| line.starts_with("/dev/vda (sample) may be written to")), "{said:#?}");
    assert!(!said.iter().any(|line| line.contains("device_nodes")), "{said:#?}");
}

/// An image as an installer of a web application leaves it: each line would be one of thousands.
#[test]
fn thousands_of_names_are_told_by_their_directories() {
    let mut tree = Tree::new(0);
    let origin = tree.origin("sample");
    for number in 0..3_000 {
        let path = format!("app/node_modules/p{number:04}/index.js");
        tree.put(path, Meta::new(0o666), Kind::File("".into()), origin).unwrap();
        tree.put(format!("bin/s{number:04}"), Meta::new(0o4755), Kind::File("".into()), origin).unwrap();
        tree.put(format!("dev/d{number:04}"), Meta::new(0o666), Kind::BlockDevice(8, number), origin)
            .unwrap();
        tree.put(format!("gone/g{number:04}"), Meta::new(0), Kind::CharDevice(0, 0), origin).unwrap();
        tree.put(format!("lib/.wh.{number:04}"), Meta::new(0o644), Kind::File("".into()), origin).unwrap();
    }
    tree.put("srv/up load", Meta::new(0o777), Kind::Directory(Default::default()), origin).unwrap();
    let inputs = Inputs { is_archive: true, leaves_devices: true, ..Inputs::default() };
    let said: Vec<_> = image(&tree, &inputs).iter().map(Finding::to_string).collect();
    assert_eq!(
        said,
        [
            "/app/node_modules/p0000/index.js (sample) may be written to by everybody (mode 0666); the same holds of \
             /app/node_modules/p0001/index.js, /app/node_modules/p0002/index.js and 2997 more below \
             /app/node_modules: allow it with `image: {archive: …, world_writable: [/app/node_modules]}`",
            "/bin/s0000 (sample) is setuid (mode 4755, owner 0:0); the same holds of /bin/s0001, /bin/s0002 and 2997 \
             more below /bin: allow it with `image: {archive: …, setuid: [/bin]}`",
            "/dev/d0000 (sample) is the block device 8:0 (mode 0666); the same holds of /dev/d0001, /dev/d0002 and \
             2997 more below /dev: allow it with `image: {archive: …, device_nodes: [/dev]}`",
            "/gone/g0000 (sample) is the character device 0:0 (mode 0000), by which overlayfs marks what is removed; \
             the same holds of /gone/g0001, /gone/g0002 and 2997 more below /gone: make the image without it",
            "/lib/.wh.0000 (sample) has a name that marks something as removed in the layers of an image; the same \
             holds of /lib/.wh.0001, /lib/.wh.0002 and 2997 more below /lib: make the image without it",
            "/srv/up load (sample) may be written to by everybody, and has no sticky bit (mode 0777): allow it with \
             `image: {archive: …, world_writable: ['/srv/up load']}`",
        ]
    );
    assert_eq!(
        wanted(&tree),
        "\n  what the image has, to choose from:\n    setuid: [/bin]\n    device_nodes: [/dev, /gone]\
         \n    world_writable: [/app/node_modules, '/srv/up load']"
    );
    let allowed = Allowed {
        setuid: vec!["/bin".into()],
        device_nodes: vec!["/dev/d*".into(), "/gone".into()],
        world_writable: vec!["/app/**/*.js".into(), "/srv/up load".into()],
    };
    let allowed = Inputs { allowed, ..inputs };
    let said: Vec<_> = image(&tree, &allowed).iter().map(Finding::to_string).collect();
    assert_eq!(said.len(), 2, "{said:#?}");
}

#[test]
fn devices_of_packages_are_refused_before_they_become_lines() {
    let mut tree = Tree::new(0);
    let origin = tree.origin("package");
    tree.put("var/lib/x/sda", Meta::new(0o660), Kind::BlockDevice(8, 0), origin).unwrap();
    let hides = tree.put("etc/gone", Meta::new(0o600), Kind::CharDevice(0, 0), origin).unwrap();
    let id = tree.put("etc/open", Meta::new(0o646), Kind::File("".into()), origin).unwrap();
    tree.node_mut(id).meta.xattrs.insert(b"system.posix_acl_access".to_vec(), vec![2]);
    let said = |tree: &Tree, inputs: &Inputs| {
        brought(tree, inputs).iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
    };
    let text = said(&tree, &Inputs::default());
    for part in [
        "/var/lib/x/sda (package) is the block device 8:0 (mode 0660): allow it with `device_nodes: [/var/lib/x/sda]`",
        "/etc/gone (package) is the character device 0:0 (mode 0600), by which overlayfs marks what is removed",
        "/etc/open (package) has the attribute system.posix_acl_access, which the kernel would obey",
        "/etc/open (package) may be written to by everybody (mode 0646)",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // The mark of overlayfs is none that a name could allow.
    let allowed = Allowed {
        device_nodes: vec!["/var/lib/x/sda".into(), "/etc/gone".into()],
        world_writable: vec!["/etc/open".into()],
        ..Allowed::default()
    };
    let inputs = Inputs { allowed: allowed.clone(), ..Inputs::default() };
    assert_eq!(said(&tree, &inputs).lines().count(), 2);
    tree.node_mut(hides).kind = Kind::CharDevice(1, 5);
    tree.node_mut(id).meta.xattrs.clear();
    assert_eq!(said(&tree, &inputs), "");
    // A file that packages ship in /var waits elsewhere, under its own name.
    tree.put("var/lib/x/open", Meta::new(0o666), Kind::File("".into()), origin).unwrap();
    tmpfiles::empty_var(&mut tree).unwrap();
    let allowed = Allowed { world_writable: vec!["/var/lib/x/open".into()], ..allowed };
    let allowed = Inputs { allowed, ..inputs };
    let said: Vec<_> = finished(&tree, &allowed, &[]).iter().map(Finding::to_string).collect();
    assert!(said.iter().all(|line| !line.contains("/var/lib/x/open")), "{said:#?}");
}

#[test]
fn marks_of_layers_are_no_names() {
    let mut tree = Tree::new(0);
    tree.file("etc/.wh.passwd", 0o644, "").unwrap();
    tree.file("etc/.white", 0o644, "").unwrap();
    let said = layer(&tree, &Inputs::default());
    assert_eq!(said.len(), 1);
    assert!(said[0].to_string().contains("/etc/.wh.passwd"), "{}", said[0]);
}
