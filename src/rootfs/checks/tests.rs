mod libraries;
mod programs;
mod rights;

use super::*;
use crate::manifest::{Container, ContainerImage, Volume};
use crate::rootfs::containers::Config;
use crate::rootfs::containers::mounts::Mounts;
use crate::rootfs::{Accounts, state, tmpfiles};
use crate::tree::{Kind, Meta};

/// What a small ELF file says.
#[derive(Default)]
struct Elf<'a> {
    interpreter: &'a str,
    needed: &'a [&'a str],
    runpath: &'a str,
    rpath: &'a str,
    dlopen: &'a str,
}

impl Elf<'_> {
    /// One page, mapped as it is: header, program headers, then what they point to.
    fn bytes(&self) -> Vec<u8> {
        let mut strings = vec![0];
        let mut dynamic: Vec<(u64, u64)> = Vec::new();
        let mut add = |tag, text: &str| {
            dynamic.push((tag, strings.len() as u64));
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
        };
        self.needed.iter().for_each(|library| add(1, library));
        if !self.runpath.is_empty() {
            add(29, self.runpath);
        }
        if !self.rpath.is_empty() {
            add(15, self.rpath);
        }
        let mut note = Vec::new();
        if !self.dlopen.is_empty() {
            for number in [4, self.dlopen.len() as u32, 0x407c_0c0a] {
                note.extend_from_slice(&number.to_le_bytes());
            }
            note.extend_from_slice(b"FDO\0");
            note.extend_from_slice(self.dlopen.as_bytes());
            note.resize(note.len().next_multiple_of(4), 0);
        }
        let interpreter =
            if self.interpreter.is_empty() { String::new() } else { format!("{}\0", self.interpreter) };
        let start = 64 + 56 * 4;
        let interpreter_at = start + note.len();
        let strings_at = interpreter_at + interpreter.len();
        let dynamic_at = (strings_at + strings.len()).next_multiple_of(8);
        dynamic.extend([(5, strings_at as u64), (0, 0)]);

        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let half = |bytes: &mut Vec<u8>, value: u16| bytes.extend_from_slice(&value.to_le_bytes());
        let word = |bytes: &mut Vec<u8>, value: u32| bytes.extend_from_slice(&value.to_le_bytes());
        let long = |bytes: &mut Vec<u8>, value: usize| bytes.extend_from_slice(&(value as u64).to_le_bytes());
        half(&mut bytes, 3);
        half(&mut bytes, 62);
        word(&mut bytes, 1);
        [0, 64, 0].into_iter().for_each(|value| long(&mut bytes, value));
        word(&mut bytes, 0);
        [64, 56, 4, 64, 0, 0].into_iter().for_each(|value| half(&mut bytes, value));
        for (kind, at, len) in [
            (1, 0, dynamic_at + dynamic.len() * 16),
            (2, dynamic_at, dynamic.len() * 16),
            (if note.is_empty() { 0 } else { 4 }, start, note.len()),
            (if interpreter.is_empty() { 0 } else { 3 }, interpreter_at, interpreter.len()),
        ] {
            word(&mut bytes, kind);
            word(&mut bytes, 4);
            [at, at, at, len, len, 4].into_iter().for_each(|value| long(&mut bytes, value));
        }
        bytes.extend(note);
        bytes.extend(interpreter.as_bytes());
        bytes.extend(strings);
        bytes.resize(dynamic_at, 0);
        for (tag, value) in dynamic {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

/// Findings as text, without severity.
fn found(tree: &Tree, inputs: &Inputs) -> Vec<String> {
    check(tree, inputs).iter().map(Finding::to_string).collect()
}

/// Asserts that there is one finding for each part, in this order, which it contains.
#[track_caller]
fn assert_found(tree: &Tree, inputs: &Inputs, parts: &[&str]) {
    let found = found(tree, inputs);
    assert_eq!(found.len(), parts.len(), "{found:#?}");
    for (found, part) in found.iter().zip(parts) {
        assert!(found.contains(part), "{found:?} does not contain {part:?}");
    }
}

fn elf(tree: &mut Tree, path: &str, elf: &Elf<'_>) {
    tree.file(path, 0o755, elf.bytes()).unwrap();
}

/// A tree of an image with all that gives others rights.
fn dangerous() -> Tree {
    let mut tree = Tree::new(0);
    let origin = tree.origin("sample");
    let mut put = |path: &str, mode: u16, kind: Kind| {
        let id = tree.put(path, Meta::new(mode), kind, origin).unwrap();
        tree.node_mut(id);
    };
    put("bin/su", 0o4755, Kind::File("".into()));
    put("dev/vda", 0o666, Kind::BlockDevice(254, 0));
    put("dev/null", 0o600, Kind::CharDevice(1, 3));
    put("app/log", 0o666, Kind::File("".into()));
    put("app/pipe", 0o622, Kind::Fifo);
    put("app/drop", 0o777, Kind::Directory(Default::default()));
    put("tmp", 0o1777, Kind::Directory(Default::default()));
    put("link", 0o777, Kind::Symlink(b"app".to_vec()));
    tree
}

#[test]
fn links_into_what_is_filled_at_boot_are_no_findings() {
    let mut tree = Tree::new(0);
    tree.file("usr/bin/x", 0o755, "").unwrap();
    for (path, target) in [
        ("etc/mtab", "../proc/self/mounts"),
        ("etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"),
        ("home", "var/home"),
        ("etc/unit", "/dev/null"),
        ("etc/up", "../../../usr/bin/x"),
        ("etc/far", "../home/core/x"),
        ("usr/lib/modules/6.12/build", "/usr/src/linux"),
        ("usr/gone", "/usr/bin/y"),
        ("usr/relative", "bin/y"),
        ("usr/circle", "circle"),
    ] {
        tree.symlink(path, target).unwrap();
    }
    assert_found(
        &tree,
        &Inputs::default(),
        &[
            "/usr/circle (keller) leads to circle in circles",
            "/usr/gone (keller) leads to /usr/bin/y, which is not in the image",
            "/usr/relative (keller) leads to bin/y (/usr/bin/y), which is not in the image",
        ],
    );
}

/// A tree with a default target that wants the given units, each with its text.
fn units(units: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new(0);
    tree.file("usr/lib/systemd/system/default.target", 0o644, "[Unit]\nRequires=basic.target\n").unwrap();
    tree.file("usr/lib/systemd/system/basic.target", 0o644, "[Unit]\n").unwrap();
    elf(&mut tree, "usr/bin/there", &Elf::default());
    for (name, text) in units {
        tree.file(format!("usr/lib/systemd/system/{name}"), 0o644, *text).unwrap();
        let link = format!("etc/systemd/system/default.target.wants/{name}");
        tree.symlink(link, format!("/usr/lib/systemd/system/{name}")).unwrap();
    }
    tree
}

#[test]
fn units_that_cannot_start() {
    let tree = units(&[
        (
            "good.service",
            "[Service]\nExecStart=@/usr/bin/there x\nExecStartPre=-/usr/bin/gone\nExecStop=there\nUser=root\n",
        ),
        ("gone.service", "[Service]\nExecStart=/usr/bin/gone\nExecReload=+/usr/bin/kill \\\n  x\n"),
        ("user.service", "[Service]\nExecStart=/usr/bin/there\nUser=nobody-here\n"),
        ("dynamic.service", "[Service]\nExecStart=/usr/bin/there\nUser=any\nDynamicUser=yes\n"),
        ("off.service", "[Unit]\nConditionPathExists=/etc/gone\n[Service]\nExecStart=/usr/bin/gone\n"),
        ("later.service", "[Service]\nExecStart=/var/lib/later/run\n"),
        ("needs.service", "[Unit]\nRequires=absent.service dev-sda.device\nWants=optional.service\n"),
        ("s.socket", "[Socket]\nListenStream=1\n"),
        ("t.timer", "[Timer]\nUnit=other.service\n"),
    ]);
    let mut tree = tree;
    for name in ["s.service", "other.service", "idle.service"] {
        tree.file(format!("usr/lib/systemd/system/{name}"), 0o644, "[Service]\nExecStart=/usr/bin/gone\n")
            .unwrap();
    }
    assert_found(
        &tree,
        &Inputs::default(),
        &[
            "/usr/lib/systemd/system/gone.service (keller) has ExecReload=/usr/bin/kill, which",
            "/usr/lib/systemd/system/gone.service (keller) has ExecStart=/usr/bin/gone, which is not in the image",
            "/usr/lib/systemd/system/needs.service (keller) has Requires=absent.service, a unit",
            "/usr/lib/systemd/system/other.service (keller) has ExecStart=/usr/bin/gone",
            "/usr/lib/systemd/system/s.service (keller) has ExecStart=/usr/bin/gone",
            "/usr/lib/systemd/system/user.service (keller) has User=nobody-here, an account",
        ],
    );
}

#[test]
fn enablement_templates_drop_ins_masks_and_quadlets() {
    let mut tree = units(&[
        ("fixed.service", "[Service]\nExecStart=/usr/bin/gone\n"),
        ("masked.service", "[Service]\nExecStart=/usr/bin/gone\n"),
        ("web.service", ""),
    ]);
    tree.file(
        "etc/systemd/system/fixed.service.d/10.conf",
        0o644,
        "[Service]\nExecStart=\nExecStart=there\n",
    )
    .unwrap();
    tree.symlink("etc/systemd/system/masked.service", "/dev/null").unwrap();
    tree.file("usr/lib/systemd/system/run@.service", 0o644, "[Service]\nExecStart=/usr/bin/%i\n").unwrap();
    for name in ["run@there.service", "run@gone.service", "absent.service", "hello.service"] {
        let target = format!("../{name}");
        tree.symlink(format!("etc/systemd/system/basic.target.wants/{name}"), target).unwrap();
    }
    tree.file("etc/containers/systemd/hello.container", 0o644, "").unwrap();
    let generator = "usr/lib/systemd/system-generators/podman-system-generator";
    tree.symlink(generator, "../../../libexec/podman/quadlet").unwrap();
    tree.file("usr/libexec/podman/quadlet", 0o755, "").unwrap();
    assert_found(
        &tree,
        &Inputs::default(),
        &[
            "/etc/systemd/system/basic.target.wants/absent.service (keller) enables absent.service, a unit",
            "/usr/lib/systemd/system/run@.service (keller) has ExecStart=/usr/bin/gone",
        ],
    );
}

/// The errors alone.
fn errors(tree: &Tree) -> Vec<String> {
    let errors =
        check(tree, &Inputs::default()).into_iter().filter(|found| found.severity == Severity::Error);
    errors.map(|found| found.to_string()).collect()
}

#[test]
fn the_finished_root_is_judged_with_its_containers() {
    let mut tree = Tree::new(0);
    let origin = tree.origin("container web");
    let place = format!("{}/web/rootfs", crate::rootfs::containers::FOLDER);
    tree.graft(&place, dangerous(), origin).unwrap();
    let allowed = |device: &str| Allowed {
        setuid: vec!["/bin/su".into()],
        device_nodes: vec!["/dev/vda".into(), device.into()],
        world_writable: vec!["/app".into(), "/dev/vda".into()],
    };
    let found = |tree: &Tree, allowed: Allowed| {
        let images = [(place.clone(), allowed)];
        finished(tree, &Inputs::default(), &images).iter().map(Finding::to_string).collect::<Vec<_>>()
    };
    let said = found(&tree, allowed("/dev/zero"));
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(
        said[0].contains("/usr/share/keller/containers (container web) has mode 0755 and owner 0:0"),
        "{said:#?}"
    );
    assert!(
        said[1].contains("/web/rootfs/dev/null (container web) is the character device 1:3"),
        "{said:#?}"
    );
    let id = tree.lookup(crate::rootfs::containers::FOLDER).unwrap();
    tree.node_mut(id).meta.mode = 0o700;
    assert_eq!(found(&tree, allowed("/dev/null")), [""; 0]);
    // An image's owners are its own affair, those of its store are not.
    let meta = |tree: &mut Tree, path: &str| {
        let id = tree.lookup(path).unwrap();
        tree.node_mut(id).meta.uid = 4242;
    };
    meta(&mut tree, &format!("{place}/app/log"));
    assert_eq!(found(&tree, allowed("/dev/null")), [""; 0]);
    tree.file(format!("{place}x"), 0o600, "").unwrap();
    meta(&mut tree, &format!("{place}x"));
    let said = found(&tree, allowed("/dev/null"));
    assert!(said.len() == 1 && said[0].contains("/web/rootfsx (keller) belongs to user 4242"), "{said:#?}");
    tree.remove(format!("{place}x").as_bytes());
    // What one image may have, the node's own root may not.
    tree.put("bin/su", Meta::new(0o4755), Kind::File("".into()), origin).unwrap();
    assert_eq!(found(&tree, allowed("/dev/null")).len(), 1);
}

/// An instance can want others whose names have its own in them, and each of those as many.
#[test]
fn instances_without_end() {
    let wants: Vec<_> = (0..200).map(|number| format!("a@%i{number}.service")).collect();
    let text = format!("[Unit]\nWants={}\n", wants.join(" "));
    let tree = units(&[("a@.service", &text), ("a@x.service", &text)]);
    let told = said(&tree);
    assert!(
        told.iter().any(|line| line.contains("more than 10000 units are started at boot, or by what is")),
        "{told:?}"
    );
    // Names that double.
    let tree = units(&[
        ("a@.service", "[Unit]\nWants=a@%i%i.service\n"),
        ("a@x.service", "[Unit]\nWants=a@%i%i.service\n"),
    ]);
    assert_eq!(said(&tree), [""; 0]);
}

/// A directory of drop-ins for all services is looked at for each.
#[test]
fn drop_ins_without_end() {
    let names: Vec<_> = (0..60).map(|number| format!("u{number}.service")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), "[Service]\n")).collect();
    let mut tree = units(&all);
    for number in 0..2000 {
        tree.file(format!("usr/lib/systemd/system/service.d/{number}.conf"), 0o644, "").unwrap();
    }
    let told = said(&tree);
    assert!(
        told.iter().any(|line| line.starts_with("the drop-ins of all units are more than 100000")),
        "{told:?}"
    );
}

fn said(tree: &Tree) -> Vec<String> {
    check(tree, &Inputs::default()).iter().map(ToString::to_string).collect()
}
