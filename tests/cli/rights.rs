//! What packages and images bring that would give others rights on a node: told by name, and built where it is named.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use keller::base::progress::Silent;
use keller::fs::erofs;
use keller::image::inspect;
use keller::tree::{Content, Kind, Tree};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::archive::Package;
use super::elf;
use super::project::Project;
use crate::judges::umoci;

/// A member of a layer: path, type, mode, attributes.
type Member<'a> = (&'a str, EntryType, u32, &'a [(&'a str, &'a [u8])]);

/// Programs and files as an image from anywhere has them.
const OPEN: [Member<'_>; 4] = [
    ("usr/bin/greet", EntryType::Regular, 0o755, &[]),
    ("usr/bin/su", EntryType::Regular, 0o4755, &[]),
    ("dev/disk", EntryType::Block, 0o600, &[]),
    ("data/x", EntryType::Regular, 0o666, &[]),
];

fn layer(members: &[Member<'_>]) -> Vec<u8> {
    let program = elf::program();
    let mut builder = Builder::new(Vec::new());
    for (path, kind, mode, attributes) in members {
        let pax = attributes.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), *value));
        let pax: Vec<_> = pax.collect();
        builder.append_pax_extensions(pax.iter().map(|(name, value)| (name.as_str(), *value))).unwrap();
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        let is_file = *kind == EntryType::Regular;
        header.set_size(if is_file { program.len() as u64 } else { 0 });
        if matches!(kind, EntryType::Block | EntryType::Char) {
            header.set_device_major(8).unwrap();
            header.set_device_minor(0).unwrap();
        }
        let body: &[u8] = if is_file { &program } else { &[] };
        builder.append_data(&mut header, path, body).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An OCI layout of [`OPEN`] at `path` of the project.
pub fn layout(project: &Project, path: &str, process: &Value) {
    umoci::layout(&project.path(path), &[layer(&OPEN)], process);
}

/// A project whose only container is an image of these members.
fn project(members: &[Member<'_>], process: &Value, image: &str, container: &str) -> Project {
    let project = Project::new();
    umoci::layout(&project.path("node/image.oci"), &[layer(members)], process);
    let own = format!("image: {{archive: image.oci{image}}}{container}}}");
    project.edit("image: {build: hello.yaml}, ports: [\"8080:80\"]}", &own);
    project
}

fn process() -> Value {
    json!({ "Entrypoint": ["/usr/bin/greet"] })
}

/// The root of the image at `path`.
fn root(path: &Path) -> Tree {
    let inspection = inspect::inspect(File::open(path).unwrap(), false, &Silent).unwrap();
    let part = inspection.partitions.iter().find(|part| part.kind == "root-x86-64").unwrap();
    let file = Arc::new(File::open(path).unwrap());
    let content = Content::Slice { file, offset: part.start, len: part.size };
    erofs::Image::open(content).unwrap().tree().unwrap()
}

/// Asserts that the only file of the image that everybody, or its owner's like, could use is behind a closed door.
fn closed(tree: &Tree) {
    let store = tree.node(tree.lookup("usr/share/keller/containers").unwrap());
    assert_eq!((store.meta.mode, store.meta.uid, store.meta.gid), (0o700, 0, 0));
    for (path, id) in tree.walk() {
        let (node, inside) = (tree.node(id), path.starts_with(b"usr/share/keller/containers/"));
        let name = String::from_utf8_lossy(&path);
        assert!(!matches!(node.kind, Kind::BlockDevice(..) | Kind::CharDevice(..)), "{name}");
        let setuid = matches!(node.kind, Kind::File(_)) && node.meta.mode & 0o6000 != 0;
        assert!(inside || !setuid, "{name}");
    }
}

#[test]
fn an_archive_is_told_and_then_closed() {
    let capability: &[(&str, &[u8])] = &[("security.capability", &[1, 0, 0, 2, 0, 32, 0, 0])];
    let mut members = OPEN.to_vec();
    members.push(("usr/bin/ping", EntryType::Regular, 0o755, capability));
    members.push(("usr/bin/wall", EntryType::Regular, 0o2755, &[]));
    let refused = project(&members, &process(), "", "");
    let text = refused.build(&[]).error().to_owned();
    for part in [
        "reading the image in ",
        "/usr/bin/su (image) is setuid (mode 4755, owner 0:0): allow it with `image: {archive: …, setuid: [/usr/bin/su]}`",
        "/usr/bin/wall (image) is setgid (mode 2755, owner 0:0)",
        "/usr/bin/ping (image) is given capabilities (mode 0755, owner 0:0)",
        "/dev/disk (image) is the block device 8:0 (mode 0600)",
        "/data/x (image) may be written to by everybody (mode 0666)",
        "\n    setuid: [/usr/bin/ping, /usr/bin/su, /usr/bin/wall]\n    device_nodes: [/dev/disk]\n    world_writable: [/data/x]",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let named = ", setuid: [/usr/bin/ping, /usr/bin/su, /usr/bin/wall], device_nodes: [/dev/disk], world_writable: [/data]";
    for (container, opened) in [("", false), (", new_privileges: true", true)] {
        let allowed = project(&members, &process(), named, container);
        allowed.build(&[]).good();
        let image = allowed.path("node/out/tiny_1.2.3.raw");
        let tree = root(&image);
        closed(&tree);
        let quadlet = tree.read("usr/share/containers/systemd/hello.container").unwrap();
        let quadlet = String::from_utf8(quadlet).unwrap();
        assert_eq!(quadlet.contains("\nNoNewPrivileges=true\n"), !opened, "{quadlet}");
        let inspection = inspect::inspect(File::open(&image).unwrap(), false, &Silent).unwrap();
        let shown = inspection.slots[0].root.as_ref().unwrap().new_privileges.clone();
        assert_eq!(shown, if opened { vec!["hello".to_owned()] } else { Vec::new() });
        let table = allowed.run(&["inspect", "node/out/tiny_1.2.3.raw"]).good().out;
        assert_eq!(table.contains("container hello: new privileges"), opened, "{table}");
    }
}

#[test]
fn attributes_and_whiteouts_of_layers_are_refused_by_name() {
    for (name, part) in [
        ("trusted.overlay.opaque", "has the attribute trusted.overlay.opaque"),
        ("trusted.overlay.redirect", "has the attribute trusted.overlay.redirect"),
        ("security.selinux", "has the attribute security.selinux"),
        ("system.posix_acl_access", "has the attribute system.posix_acl_access"),
    ] {
        let attributes: &[(&str, &[u8])] = &[(name, b"y")];
        let members = [OPEN[0], ("data/", EntryType::Directory, 0o755, attributes)];
        let text = project(&members, &process(), "", "").build(&[]).error().to_owned();
        assert!(text.contains(part) && text.contains("\"data\""), "{text}");
    }
    for (path, part) in [
        ("data/.wh.", "it is a whiteout without a name"),
        (".wh..", "it is the whiteout of a directory that it lies in"),
        ("data/.wh.x/y", "has a name that marks something as removed"),
    ] {
        let members = [OPEN[0], (path, EntryType::Regular, 0o644, &[][..])];
        let text = project(&members, &process(), "", "").build(&[]).error().to_owned();
        assert!(text.contains(part), "{text}");
    }
    let members = [OPEN[0], ("usr/share/gone", EntryType::Char, 0o600, &[][..])];
    let text = project(&members, &process(), "", "").build(&[]).error().to_owned();
    assert!(text.contains("/usr/share/gone (image) is the character device 8:0"), "{text}");
}

#[test]
fn users_of_an_image_are_users() {
    for user in ["0\n[Service]", "4294967296", "4294967295", "2147483648", "-1", "0:4294967296"] {
        let process = json!({ "Entrypoint": ["/usr/bin/greet"], "User": user });
        let ran = project(&OPEN[..1], &process, "", "").build(&[]);
        let shown = format!("{user:?}");
        assert!(ran.err.contains(&format!("its User {shown} is not a user: ")), "{}", ran.err);
        assert_eq!(ran.code, Some(1));
    }
}

#[test]
fn devices_of_packages_and_files_that_everybody_may_write_to() {
    let mut project = Project::new();
    project.archive.add(&Package::new("noded", "1").member("./var/lib/noded/sda", b'4', "").member(
        "./usr/lib/noded/mark",
        b'3',
        "",
    ));
    project.publish();
    project.edit("files:\n", "files:\n  - {path: /etc/open, content: x, mode: \"0666\"}\n");
    project.edit("packages: [", "packages: [noded, ");
    let text = project.build(&[]).error().to_owned();
    for part in [
        "/var/lib/noded/sda (noded) is the block device 0:0",
        "allow it with `device_nodes: [/var/lib/noded/sda]`",
        "/usr/lib/noded/mark (noded) is the character device 0:0 (mode 0644), by which overlayfs marks what is removed",
        "/etc/open (files) may be written to by everybody (mode 0666)",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn nothing_but_keller_fills_its_own_places() {
    let own = ["usr/bin/keller", "usr/lib/keller/image.json"];
    let store = "usr/share/keller/containers/storage/overlay-images/images.json";
    let project = Project::new();
    for path in own.into_iter().chain([store]) {
        let path = project.path(&format!("node/overlay/{path}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "not keller's").unwrap();
    }
    let text = project.build(&[]).error().to_owned();
    for place in ["usr/bin/keller", "usr/lib/keller", "usr/share/keller"] {
        let told = format!(
            "/{place} (overlay overlay) is a place that keller alone fills: leave it out of packages, overlays and `files`"
        );
        assert!(text.contains(&told), "{told} is not in\n{text}");
    }
    // A link would lead what a container brings to where everybody comes.
    let project = Project::new();
    project.edit("files:\n", "files:\n  - {path: /usr/share/keller, link: doc}\n");
    let text = project.build(&[]).error().to_owned();
    assert!(text.contains("/usr/share/keller (files) is a place that keller alone fills"), "{text}");
}
