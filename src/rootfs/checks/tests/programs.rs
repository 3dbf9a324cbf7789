//! Programs, and what starts them.

use super::*;
use crate::rootfs::checks::programs::of_container;

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
        of_container(&tree, container, &config).map(|(_, _, unfit)| unfit.to_string())
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
            of_container(&tree, container, &config).is_some()
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
