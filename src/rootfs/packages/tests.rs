use super::*;
use crate::base::progress::Silent;

/// A package of text files, each holding the package's name.
pub(super) fn package(name: &str, fields: &str, paths: &[&str]) -> Unpacked {
    let control = Control::parse(&format!("Package: {name}\nVersion: 1\n{fields}")).unwrap();
    let mut tree = Tree::new(0);
    let origin = tree.origin(name);
    for path in paths {
        let kind = match path.split_once(" -> ") {
            Some((_, target)) => crate::tree::Kind::Symlink(target.into()),
            None => crate::tree::Kind::File(name.as_bytes().to_vec().into()),
        };
        let path = path.split(" -> ").next().unwrap();
        tree.put(path, crate::tree::Meta::new(0o644), kind, origin).unwrap();
    }
    Unpacked {
        name: name.to_owned(),
        version: "1".to_owned(),
        control,
        scripts: BTreeMap::new(),
        actions: BTreeMap::new(),
        tree,
    }
}

#[test]
fn base_files_comes_first() {
    let packages =
        vec![package("bash", "", &["bin/bash"]), package("base-files", "", &["usr/bin/x", "bin -> usr/bin"])];
    let tree = assemble(0, packages, &Silent).unwrap();
    assert_eq!(tree.read("usr/bin/bash").unwrap(), b"bash");
}

#[test]
fn replaces_decides_in_both_orders() {
    for (fields, winner) in [("Replaces: b\n", "a"), ("Replaces: b (<< 1)\n", "")] {
        let packages = vec![package("a", fields, &["x"]), package("b", "", &["x"])];
        let result = assemble(0, packages, &Silent);
        match result {
            Ok(tree) => assert_eq!(tree.read("x").unwrap(), winner.as_bytes()),
            Err(error) => {
                assert_eq!(winner, "");
                assert_eq!(
                    error.to_string(),
                    "packages have the same path, so that one of them must be left out:\n  /x is in a and in b"
                );
            }
        }
    }
    let packages = vec![package("a", "", &["x"]), package("b", "Replaces: a\n", &["x"])];
    assert_eq!(assemble(0, packages, &Silent).unwrap().read("x").unwrap(), b"b");
}

#[test]
fn conflicts_of_all_packages_name_diversions() {
    let mut diverting = package("b", "", &["x"]);
    diverting.actions.insert("preinst".to_owned(), vec!["dpkg-divert".to_owned()]);
    let packages = vec![package("a", "", &["x", "y"]), diverting, package("c", "", &["y"])];
    let text = assemble(0, packages, &Silent).unwrap_err().to_string();
    assert!(text.contains("/x is in a and in b\n  /y is in a and in c"), "{text}");
    assert!(text.contains("dpkg-divert is called by b: preinst"), "{text}");
}

#[test]
fn numbers_of_people_are_nobodys_in_a_package() {
    let mut wrong = package("vendor", "", &["opt/a", "opt/b", "opt/c"]);
    for (path, uid, gid, mode) in
        [("opt/a", 1000, 1000, 0o4755), ("opt/b", 1001, 42, 0o640), ("opt/c", 300, 0, 0o600)]
    {
        let id = wrong.tree.lookup(path).unwrap();
        wrong.tree.node_mut(id).meta = crate::tree::Meta::new(mode).owned(uid, gid);
    }
    let said = wrong.to_root().unwrap();
    assert!(said.starts_with("vendor: /opt/a (and 1 more) belongs to id 1000"), "{said}");
    let meta = |path: &str| {
        let meta = &wrong.tree.node(wrong.tree.lookup(path).unwrap()).meta;
        (meta.mode, meta.uid, meta.gid)
    };
    assert_eq!(
        [meta("opt/a"), meta("opt/b"), meta("opt/c")],
        [(0o755, 0, 0), (0o640, 0, 42), (0o600, 300, 0)]
    );
    assert!(wrong.to_root().is_none());
}

#[test]
fn the_root_is_roots_and_open_to_all() {
    for names in [["a", "b"], ["b", "a"], ["a", "base-files"]] {
        let packages = names.map(|name| {
            let mut package = package(name, "", &[&format!("usr/{name}")]);
            let root = package.tree.root();
            let strange = crate::tree::Meta::new(if name == "a" { 0o700 } else { 0o2777 }).owned(33, 34);
            package.tree.node_mut(root).meta = strange.at(7);
            package
        });
        let tree = assemble(0, packages.into(), &Silent).unwrap();
        let meta = &tree.node(tree.root()).meta;
        assert_eq!((meta.mode, meta.uid, meta.gid, meta.mtime), (0o755, 0, 0, 7), "{names:?}");
        assert!(meta.xattrs.is_empty());
    }
}

#[test]
fn packages_have_sums() {
    let input = |size| PackageInput {
        name: "a".to_owned(),
        version: "1".to_owned(),
        deb: tempfile::tempfile().unwrap(),
        sha256: Digest::of(""),
        size,
    };
    let package = |members: usize, path: usize, control: usize| Package {
        control: Control::parse(&format!("Package: a\nVersion: 1\nX: {}\n", "x".repeat(control))).unwrap(),
        scripts: BTreeMap::new(),
        actions: BTreeMap::new(),
        members: vec![
            crate::tree::from_tar::Member {
                path: vec![b'x'; path],
                meta: crate::tree::Meta::new(0o644),
                body: crate::tree::from_tar::Body::Directory,
            };
            members
        ],
    };
    let told = |sums: &Sums, package: &Package, size, unpacked| {
        (0..1000).find_map(|_| sums.add(&input(size), package, unpacked).err()).map(|error| error.to_string())
    };
    let one = ", a being the one with which they do";
    assert_eq!(told(&Sums::default(), &package(1, 1, 1), 1 << 20, 100 << 20), None);
    assert_eq!(
        told(&Sums::default(), &package(1, 1, 1), 1 << 10, 200 << 20).unwrap(),
        format!("the packages unpack to more than 1.0 GiB besides 100 times the size of each{one}")
    );
    assert_eq!(
        told(&Sums::default(), &package(5000, 1, 1), 1, 1).unwrap(),
        format!("the packages have more than 200000 files, directories and links together{one}")
    );
    let long =
        format!("paths, attributes and control files of the packages have more than 32.0 MiB together{one}");
    assert_eq!(told(&Sums::default(), &package(10, 4000, 1), 1, 1).unwrap(), long);
    assert_eq!(told(&Sums::default(), &package(1, 1, 500_000), 1, 1).unwrap(), long);
}

#[test]
fn many_packages_with_one_file_are_no_choice() {
    let replaces: Vec<_> = (0..20).map(|number| format!("p{number}")).collect();
    let fields = format!("Replaces: {}\n", replaces.join(", "));
    let some = |count: usize| {
        let packages = replaces[..count].iter().map(|name| package(name, &fields, &["x"])).collect();
        assemble(0, packages, &Silent).unwrap_err().to_string()
    };
    assert!(some(20).contains("/x is in p0 and in p1"), "{}", some(20));
}

#[test]
fn paths_that_become_long_where_a_link_leads() {
    let long = ["n".repeat(200).as_str(); 19].join("/");
    let link = format!("a -> {long}");
    let led = |count: usize| {
        let names: Vec<_> = (0..count).map(|number| format!("a/{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let packages = vec![package("one", "", &[&link, &format!("{long}/x")]), package("two", "", &names)];
        assemble(0, packages, &Silent)
    };
    assert!(led(1000).unwrap().exists(format!("{long}/7")));
    let error = led(9000).unwrap_err().to_string();
    let told = "have more than 32.0 MiB together: leave one of the packages out";
    assert!(
        error.starts_with("where links of packages lead, all paths, with ") && error.ends_with(told),
        "{error}"
    );
}
