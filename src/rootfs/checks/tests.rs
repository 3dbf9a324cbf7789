mod libraries;

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

#[test]
fn programs_of_packages_that_somebody_asked_for() {
    let mut tree = Tree::new(0);
    elf(&mut tree, "usr/bin/env", &Elf::default());
    let origin = tree.origin("perl");
    let mut put = |path: &str, text: &str| {
        tree.put(path, Meta::new(0o755), Kind::File(text.to_owned().into()), origin).map(drop).unwrap();
    };
    put("usr/bin/prove", "#!/usr/bin/perl\n");
    put("usr/bin/cpan", "#!/usr/bin/env perl\n");
    put("usr/bin/other", "#!/usr/bin/lua\n");
    put("usr/share/perl/helper", "#!/usr/bin/python3\n");
    let mut inputs = Inputs::default();
    let severities = |inputs: &Inputs| {
        check(&tree, inputs).iter().map(|found| (found.severity, found.path.clone())).collect::<Vec<_>>()
    };
    assert!(severities(&inputs).iter().all(|(severity, _)| *severity == Severity::Warning));
    inputs.assumed = ["perl-base", "python3-minimal"].map(str::to_owned).into();
    assert!(severities(&inputs).iter().all(|(severity, _)| *severity == Severity::Warning));
    inputs.foreign.insert("perl".to_owned());
    let errors = severities(&inputs).into_iter().filter(|(severity, _)| *severity == Severity::Error);
    assert_eq!(errors.map(|(_, path)| path).collect::<Vec<_>>(), ["/usr/bin/cpan", "/usr/bin/prove"]);
    let told = found(&tree, &inputs);
    let advice = "`assume` takes perl-base as present; add perl-base to `packages`, which takes that away";
    assert!(told.iter().filter(|told| told.contains(advice)).count() == 2, "{told:#?}");
}

#[test]
fn damaged_programs_do_not_stop_the_check() {
    let whole =
        Elf { needed: &["liba.so"], runpath: "/x", rpath: "/y", dlopen: "[{}]", interpreter: "/i" }.bytes();
    let mut tree = Tree::new(0);
    for len in 0..whole.len() {
        tree.file(format!("usr/bin/{len}"), 0o755, &whole[..len]).unwrap();
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        tree.file(format!("usr/lib/{at}"), 0o755, bytes).unwrap();
    }
    assert!(found(&tree, &Inputs::default()).iter().any(|text| text.contains("is no sound ELF file")));
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
fn scripts_for_absent_interpreters_are_warnings() {
    let mut tree = Tree::new(0);
    elf(&mut tree, "usr/bin/sh", &Elf::default());
    elf(&mut tree, "usr/bin/env", &Elf::default());
    tree.symlink("bin", "usr/bin").unwrap();
    for (path, mode, line) in [
        ("usr/bin/a", 0o755, "#!/bin/sh -e"),
        ("usr/bin/b", 0o755, "#! /usr/bin/perl -w"),
        ("usr/bin/c", 0o755, "#!/usr/bin/perl"),
        ("usr/bin/d", 0o755, "#!/usr/bin/env -S A=b python3 -u"),
        ("usr/bin/e", 0o644, "#!/usr/bin/ruby"),
        ("usr/bin/f", 0o755, "#!/usr/bin/env sh"),
    ] {
        tree.file(path, mode, format!("{line}\nrest\n")).unwrap();
    }
    let found = check(&tree, &Inputs::default());
    assert!(found.iter().all(|finding| finding.severity == Severity::Warning));
    assert_found(
        &tree,
        &Inputs::default(),
        &[
            "/usr/bin/b (keller) is a script for /usr/bin/perl, which is not in the image, as does /usr/bin/c",
            "/usr/bin/d (keller) is a script for python3",
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

#[test]
fn programs_are_read_by_systemds_rules() {
    let mut tree = units(&[
        ("quoted.service", "[Service]\nExecStart=\"/usr/lib/My App/run\" x\n"),
        ("escaped.service", "[Service]\nExecStart=/usr/lib/My\\x20App/r\\165n\n"),
        ("umlaut.service", "[Service]\nExecStart='/usr/lib/K\\u00e4se/run'\n"),
        (
            "semicolon.service",
            "[Service]\nExecStart=/usr/bin/there a \\; /usr/bin/gone \";\" /usr/bin/gone\n",
        ),
        ("inside.service", "[Service]\nExecStart=/usr/bin/there 'a ; /usr/bin/gone'\n"),
        (
            "folded.service",
            "[Service]\nExecStart=/usr/bin/there \\\n# ; /usr/bin/gone\n;/usr/bin/gone\n  x\n",
        ),
        ("node.service", "[Service]\nExecStart=${PROGRAM} x\nExecStop=$PROGRAM\n"),
        ("cfg.service", "[Service]\nExecStart=%E/app/run\nExecStop=%S/app/run\n"),
        ("path.service", "[Service]\nEnvironment='PATH=/usr/lib/My App'\nExecStart=/usr/bin/by-env\n"),
        (
            "wants.service",
            "[Unit]\nRequires=\"quoted.service\" 'dev-a\\x2db.device'\n[Service]\nExecStart=there\n",
        ),
    ]);
    for folder in ["usr/lib/My App", "usr/lib/K\u{e4}se", "etc/app"] {
        elf(&mut tree, &format!("{folder}/run"), &Elf::default());
    }
    elf(&mut tree, "usr/bin/env", &Elf::default());
    tree.file("usr/bin/by-env", 0o755, "#!/usr/bin/env run\n").unwrap();
    assert_eq!(errors(&tree), [""; 0]);
    let tree = units(&[
        ("a.service", "[Service]\nExecStart=\"/usr/lib/My App/run\"\n"),
        ("b.service", "[Service]\nExecStart=\"/usr/bin/there\" ; /usr/bin/second\n"),
        ("c.service", "[Service]\nExecStart=/usr/bin/there \"open\n"),
        ("d.service", "[Service]\nExecStart=bin/there\n"),
        ("e.service", "[Service]\nExecStart=/usr/bin/there \\\\\nExecStop=/usr/bin/third\n"),
    ]);
    assert_found(
        &tree,
        &Inputs::default(),
        &[
            "/a.service (keller) has ExecStart=/usr/lib/My App/run, which is not in the image",
            "/b.service (keller) has ExecStart=/usr/bin/second, which is not in the image",
            "/c.service (keller) has ExecStart=/usr/bin/there \"open, in which a quote is left open",
            "/d.service (keller) has ExecStart=bin/there, in which the program is neither a plain name nor",
            "/e.service (keller) has ExecStop=/usr/bin/third, which is not in the image",
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
fn interpreters_and_loaders_that_lie_on_the_state_partition() {
    let mut tree = units(&[
        ("a.service", "[Service]\nExecStart=/opt/vendor/bin/run\n"),
        ("b.service", "[Service]\nExecStart=/usr/bin/by-node\n"),
        ("c.service", "[Service]\nEnvironment=A=b \"PATH=/opt/js/bin:/usr/bin\"\nExecStart=by-deno\n"),
        ("d.service", "[Service]\nExecSearchPath=/opt/js/bin\nExecStart=tool\n"),
        ("e.service", "[Service]\nExecStart=/usr/bin/by-path\nExecStart=/usr/bin/by-srv\n"),
        ("f.service", "[Service]\nExecStart=/usr/local/bin/loaded\n"),
    ]);
    for (path, line) in [
        ("opt/vendor/bin/run", "#!/opt/vendor/venv/bin/python3"),
        ("usr/bin/by-node", "#!/usr/bin/env node"),
        ("usr/bin/by-deno", "#!/usr/bin/env -S deno run"),
        ("opt/js/bin/tool", "#!/usr/bin/env deno"),
        ("usr/bin/by-path", "#!/usr/bin/env /opt/js/bin/deno"),
        ("usr/bin/by-srv", "#!/srv/venv/bin/python3"),
        ("usr/bin/by-none", "#!/opt/vendor/venv/bin/none"),
    ] {
        tree.file(path, 0o755, line).unwrap();
    }
    for path in [
        "opt/python/bin/python3",
        "usr/local/bin/node",
        "opt/js/bin/deno",
        "srv/venv/bin/python3",
        "usr/bin/env",
    ] {
        elf(&mut tree, path, &Elf::default());
    }
    tree.symlink("opt/vendor/venv/bin/python3", "/opt/python/bin/python3").unwrap();
    for library in ["ld.so", "libown.so"] {
        elf(&mut tree, &format!("opt/vendor/lib/{library}"), &Elf::default());
    }
    let (interpreter, runpath) = ("/opt/vendor/lib/ld.so", "/opt/vendor/lib");
    let loaded = Elf { interpreter, runpath, needed: &["libown.so"], ..Elf::default() };
    elf(&mut tree, "usr/local/bin/loaded", &loaded);
    tree.file("usr/lib/systemd/system/g.service", 0o644, "[Service]\nExecStart=/usr/bin/by-deno\n").unwrap();
    tree.file("usr/lib/systemd/system/h.service", 0o644, "[Service]\nExecStart=/usr/bin/by-none\n").unwrap();
    state::write(&mut tree, &Accounts::default(), &[]).unwrap();
    tmpfiles::empty_var(&mut tree).unwrap();
    assert_eq!(errors(&tree), [""; 0]);
    for name in ["g.service", "h.service"] {
        let link = format!("etc/systemd/system/default.target.wants/{name}");
        tree.symlink(link, format!("/usr/lib/systemd/system/{name}")).unwrap();
    }
    let errors = errors(&tree);
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].contains("/usr/bin/by-deno, which is a script for deno, which is not"), "{errors:#?}");
    assert!(
        errors[1].contains("which is a script for /opt/vendor/venv/bin/none, which is not"),
        "{errors:#?}"
    );
}

#[test]
fn a_containers_interpreter_is_searched_in_its_own_path() {
    let mut tree = Tree::new(0);
    tree.file("usr/bin/app", 0o755, "#!/usr/bin/env node").unwrap();
    tree.file("usr/bin/venv", 0o755, "#!/opt/venv/bin/python3").unwrap();
    elf(&mut tree, "usr/bin/env", &Elf::default());
    elf(&mut tree, "opt/node/bin/node", &Elf::default());
    let mut container = Container {
        name: "app".into(),
        image: ContainerImage::Archive {
            path: "/app.tar".into(),
            reference: None,
            allowed: Default::default(),
        },
        command: Vec::new(),
        environment: BTreeMap::new(),
        ports: Vec::new(),
        volumes: Vec::new(),
        host_network: false,
        start: true,
        new_privileges: false,
        scratch: Container::SCRATCH,
        said: Default::default(),
    };
    let unfit = |container: &Container, program: &str, path: Option<&str>| {
        let path = path.map(|path| ("PATH".to_owned(), path.to_owned()));
        let config = Config {
            entrypoint: vec![program.to_owned()],
            environment: path.into_iter().collect(),
            ..Config::default()
        };
        programs::of_container(&tree, container, &config).map(|(_, _, unfit)| unfit.to_string())
    };
    let path = Some("/opt/node/bin:/usr/bin");
    for program in ["/usr/bin/app", "app"] {
        assert_eq!(unfit(&container, program, path), None);
        let told = unfit(&container, program, None);
        assert_eq!(told.as_deref(), Some("is a script for node, which is not in the image"));
    }
    assert!(unfit(&container, "/usr/bin/venv", path).is_some());
    // What a volume brings is known only on the node.
    container.volumes.push(Volume {
        host: "/srv/venv".into(),
        container: "/opt/venv".into(),
        read_only: true,
    });
    assert_eq!(unfit(&container, "/usr/bin/venv", path), None);
}

#[test]
fn what_leads_into_a_containers_volume_is_known_on_the_node() {
    let mut tree = Tree::new(0);
    tree.symlink("usr/bin/app", "/data/app").unwrap();
    tree.symlink("usr/bin/python3", "/data/venv/bin/python3").unwrap();
    tree.symlink("usr/lib/lost", "/database").unwrap();
    tree.file("usr/bin/script", 0o755, "#!/usr/bin/env python3").unwrap();
    tree.file("usr/bin/direct", 0o755, "#!/data/venv/bin/python3").unwrap();
    elf(&mut tree, "usr/bin/env", &Elf::default());
    let mut container = Container {
        name: "app".into(),
        image: ContainerImage::Archive {
            path: "/app.tar".into(),
            reference: None,
            allowed: Default::default(),
        },
        command: Vec::new(),
        environment: BTreeMap::new(),
        ports: Vec::new(),
        volumes: Vec::new(),
        host_network: false,
        start: true,
        new_privileges: false,
        scratch: Container::SCRATCH,
        said: Default::default(),
    };
    let told = |container: &Container| {
        let inputs = Inputs { mounts: Mounts::of(&tree, container), ..Inputs::default() };
        let findings = check(&tree, &inputs).into_iter().map(|finding| finding.path);
        let programs = ["/usr/bin/app", "app", "script", "direct"].into_iter().filter(|program| {
            let config = Config { entrypoint: vec![(*program).to_owned()], ..Config::default() };
            programs::of_container(&tree, container, &config).is_some()
        });
        findings.chain(programs.map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(
        told(&container),
        [
            "/usr/bin/app",
            "/usr/bin/python3",
            "/usr/lib/lost",
            "/usr/bin/direct",
            "/usr/bin/script",
            "/usr/bin/app",
            "app",
            "script",
            "direct"
        ]
    );
    container.volumes.push(Volume { host: "/srv/x".into(), container: "/data".into(), read_only: true });
    assert_eq!(told(&container), ["/usr/lib/lost"]);
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
