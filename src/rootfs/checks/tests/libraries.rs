//! Libraries that programs load and open.

use super::*;

#[test]
fn libraries_are_searched_as_the_loader_does() {
    let mut tree = Tree::new(0);
    let needs = |library| Elf { needed: library, ..Elf::default() };
    elf(&mut tree, "usr/lib/x86_64-linux-gnu/libc.so.6", &Elf::default());
    elf(&mut tree, "usr/lib/x86_64-linux-gnu/app/libown.so", &needs(&["libc.so.6"]));
    elf(&mut tree, "opt/lib/libopt.so", &Elf::default());
    tree.file("usr/lib/x86_64-linux-gnu/libscript.so", 0o644, "GROUP ( libc.so.6 )").unwrap();
    tree.file("etc/ld.so.conf", 0o644, "include /etc/ld.so.conf.d/*.conf\n").unwrap();
    tree.file("etc/ld.so.conf.d/opt.conf", 0o644, "/opt/lib\n").unwrap();
    elf(&mut tree, "usr/bin/a", &needs(&["libc.so.6", "libopt.so"]));
    elf(
        &mut tree,
        "usr/bin/origin",
        &Elf {
            needed: &["libown.so"],
            runpath: "/nowhere:$ORIGIN/../lib/x86_64-linux-gnu/app",
            ..Elf::default()
        },
    );
    assert_found(&tree, &Inputs::default(), &[]);
    elf(&mut tree, "usr/bin/b", &needs(&["libown.so", "libscript.so"]));
    elf(&mut tree, "usr/bin/c", &needs(&["libgone.so.1"]));
    elf(&mut tree, "usr/bin/d", &needs(&["libgone.so.1"]));
    elf(&mut tree, "usr/bin/e", &Elf { interpreter: "/lib64/ld-linux-x86-64.so.2", ..Elf::default() });
    assert_found(
        &tree,
        &Inputs::default(),
        &[
            "/usr/bin/b (keller) needs libown.so, which is at /usr/lib/x86_64-linux-gnu/app/libown.so, but in no directory that is searched: leave /usr/bin/b, which looks elsewhere, out with `prune`, add the directory to /etc/ld.so.conf.d, or accept its absence",
            "/usr/bin/b (keller) needs libscript.so,",
            "/usr/bin/c (keller) needs libgone.so.1, which is not in the image, as does /usr/bin/d: add the package that has it, or accept its absence with `missing_libraries: {libgone.so.1: \"the reason\"}`",
            "/usr/bin/e (keller) is started by /lib64/ld-linux-x86-64.so.2, which is not in the image",
        ],
    );
}

#[test]
fn a_private_library_may_rely_on_who_loads_it() {
    let mut tree = Tree::new(0);
    elf(&mut tree, "usr/lib/app/libcore.so", &Elf { needed: &["libshared.so"], ..Elf::default() });
    elf(&mut tree, "usr/lib/app/libshared.so", &Elf::default());
    let both = ["libcore.so", "libshared.so"];
    elf(&mut tree, "usr/bin/a", &Elf { needed: &both, runpath: "/usr/lib/app", ..Elf::default() });
    assert_found(&tree, &Inputs::default(), &[]);
    elf(&mut tree, "usr/bin/b", &Elf { needed: &both[..1], runpath: "/usr/lib/app", ..Elf::default() });
    assert_found(&tree, &Inputs::default(), &["/usr/lib/app/libcore.so (keller) needs libshared.so"]);
}

#[test]
fn what_is_loaded_already_answers_to_its_name() {
    // As in samba: a private library without a RUNPATH needs another one, which others of the program loaded.
    let mut tree = Tree::new(0);
    let samba = "usr/lib/samba";
    let private = |needed| Elf { needed, runpath: "/usr/lib/samba", ..Elf::default() };
    elf(&mut tree, "usr/lib/x86_64-linux-gnu/libdcerpc.so", &private(&["libcliauth.so", "libutil.so"]));
    elf(&mut tree, &format!("{samba}/libcliauth.so"), &private(&["libasn1.so"]));
    elf(&mut tree, &format!("{samba}/libutil.so"), &private(&["libgenrand.so"]));
    elf(&mut tree, &format!("{samba}/libasn1.so"), &Elf { needed: &["libgenrand.so"], ..Elf::default() });
    elf(&mut tree, &format!("{samba}/libgenrand.so"), &Elf::default());
    elf(&mut tree, "usr/lib/ld.so", &Elf::default());
    let program = Elf { interpreter: "/usr/lib/ld.so", needed: &["libdcerpc.so"], ..Elf::default() };
    elf(&mut tree, "usr/bin/net", &program);
    assert_found(&tree, &Inputs::default(), &[]);
    elf(&mut tree, &format!("{samba}/libutil.so"), &private(&[]));
    assert_found(&tree, &Inputs::default(), &["libasn1.so (keller) needs libgenrand.so"]);
}

#[test]
fn a_library_that_was_taken_away_is_named_with_its_way_back() {
    let mut tree = Tree::new(0);
    let needed = ["libffi.so.8", "libgio-2.0.so.0", "libsasl2.so.2", "libssl.so.3", "libother.so.1"];
    elf(&mut tree, "usr/bin/a", &Elf { needed: &needed, ..Elf::default() });
    let path = "/usr/lib/x86_64-linux-gnu/libgio-2.0.so.0";
    let inputs = Inputs {
        libraries: BTreeMap::from([("libgio-2.0.so.0".to_owned(), path.to_owned())]),
        assumed: ["libffi8", "libsasl2-2", "libssl3t64", "libother"].map(str::to_owned).into(),
        ..Inputs::default()
    };
    let assumed = |package: &str| {
        format!("`assume` takes {package} as present; add {package} to `packages`, which takes that away, or")
    };
    let pruned = format!("`prune` takes {path} away; bring it back with `keep: [\"{path}*\"]`, or accept");
    assert_found(
        &tree,
        &inputs,
        &[
            &assumed("libffi8"),
            &pruned,
            "add the package that has it, or accept",
            &assumed("libsasl2-2"),
            &assumed("libssl3t64"),
        ],
    );
}

#[test]
fn an_rpath_holds_for_all_that_is_loaded() {
    let mut tree = Tree::new(0);
    let jre = "usr/lib/jvm/java-21";
    elf(&mut tree, &format!("{jre}/lib/libfirst.so"), &Elf { needed: &["libsecond.so"], ..Elf::default() });
    elf(&mut tree, &format!("{jre}/lib/libsecond.so"), &Elf { needed: &["libthird.so"], ..Elf::default() });
    elf(&mut tree, &format!("{jre}/lib/deep/libthird.so"), &Elf::default());
    let interpreter = "/lib64/ld-linux-x86-64.so.2";
    elf(&mut tree, interpreter, &Elf::default());
    let java = Elf { interpreter, needed: &["libfirst.so"], ..Elf::default() };
    let rpath = "$ORIGIN/../lib:${ORIGIN}/../lib/deep";
    elf(&mut tree, &format!("{jre}/bin/java"), &Elf { rpath, ..java });
    assert_found(&tree, &Inputs::default(), &[]);
    // RUNPATH is for what the program itself asks for.
    let java = Elf { interpreter, needed: &["libfirst.so"], runpath: rpath, ..Elf::default() };
    elf(&mut tree, &format!("{jre}/bin/java"), &java);
    assert_found(
        &tree,
        &Inputs::default(),
        &["libfirst.so (keller) needs libsecond.so", "libsecond.so (keller) needs libthird.so"],
    );
}

#[test]
fn what_is_opened_by_name_finds_what_its_package_loaded_before() {
    let mut tree = Tree::new(0);
    let jre = "usr/lib/jvm/java-21/lib";
    elf(&mut tree, &format!("{jre}/server/libjvm.so"), &Elf::default());
    elf(&mut tree, &format!("{jre}/libjava.so"), &Elf { needed: &["libjvm.so"], ..Elf::default() });
    let both = ["libjava.so", "libjvm.so"];
    elf(&mut tree, &format!("{jre}/libnet.so"), &Elf { needed: &both, runpath: "$ORIGIN", ..Elf::default() });
    let one = ["libjava.so", "libnet.so"];
    elf(&mut tree, &format!("{jre}/libnio.so"), &Elf { needed: &one, runpath: "$ORIGIN", ..Elf::default() });
    assert_found(&tree, &Inputs::default(), &[]);
    // So is what lies beside it, whoever brought it.
    let origin = tree.origin("beside");
    let plugin = Elf { needed: &["libnet.so"], ..Elf::default() }.bytes();
    tree.put(format!("{jre}/plugin.so"), Meta::new(0o755), Kind::File(plugin.into()), origin).unwrap();
    assert_found(&tree, &Inputs::default(), &[]);
    // A program has nobody before it, and another package's directory is not searched.
    elf(&mut tree, "usr/lib/ld.so", &Elf::default());
    let program = Elf { interpreter: "/usr/lib/ld.so", needed: &["libjvm.so"], ..Elf::default() };
    elf(&mut tree, &format!("{jre}/tool"), &program);
    let origin = tree.origin("other");
    let meta = Meta::new(0o755);
    let plugin = Elf { needed: &["libjvm.so"], ..Elf::default() }.bytes();
    tree.put("usr/lib/other/plugin.so", meta, Kind::File(plugin.into()), origin).unwrap();
    assert_found(
        &tree,
        &Inputs::default(),
        &[
            "/usr/lib/jvm/java-21/lib/tool (keller) needs libjvm.so, which is at /usr/lib/jvm/java-21/lib/server/libjvm.so, but in no directory that is searched, as does /usr/lib/other/plugin.so",
        ],
    );
}

#[test]
fn libraries_opened_at_run_time() {
    let note = |priority: &str| {
        format!(
            r#"[{{"soname":["libx.so.2","libx.so.1"],"feature":"x","description":"Does x","priority":"{priority}"}}]"#
        )
    };
    let mut inputs = Inputs::default();
    for (priority, count) in [("required", 1), ("recommended", 1), ("suggested", 0)] {
        let mut tree = Tree::new(0);
        elf(&mut tree, "usr/bin/a", &Elf { dlopen: &note(priority), ..Elf::default() });
        let parts = ["opens libx.so.2 or libx.so.1 for x (Does x), which is not in the image"];
        assert_found(&tree, &inputs, &parts[..count]);
        elf(&mut tree, "usr/lib/libx.so.1", &Elf::default());
        assert_found(&tree, &inputs, &[]);
    }
    let mut tree = Tree::new(0);
    elf(&mut tree, "usr/bin/a", &Elf { dlopen: &note("required"), ..Elf::default() });
    inputs.missing_libraries.insert("libx.so.1".to_owned(), "not wanted".to_owned());
    assert_found(&tree, &inputs, &[]);
    inputs.missing_libraries.insert("liby.so.1".to_owned(), "not wanted".to_owned());
    assert_found(
        &tree,
        &inputs,
        &["missing_libraries names liby.so.1, which nothing misses: remove the entry"],
    );
}
