use super::*;

#[test]
fn links_are_followed_inside_only() {
    let mut tree = Tree::new(0);
    tree.directory("usr/bin", 0o755).unwrap();
    tree.symlink("bin", "usr/bin").unwrap();
    tree.file("/bin/sh", 0o755, "#!").unwrap();
    assert_eq!(tree.read("usr/bin/sh").unwrap(), b"#!");
    tree.symlink("up", "../../../usr").unwrap();
    assert_eq!(tree.read("up/bin/sh").unwrap(), b"#!");
    tree.symlink("loop", "loop").unwrap();
    assert!(matches!(tree.resolve("loop"), Err(TreeError::LinkLoop { .. })));
    assert!(matches!(tree.file("../x", 0o644, ""), Err(TreeError::UnsafePath { .. })));
    assert!(matches!(tree.file("bin/sh/x", 0o644, ""), Err(TreeError::NotDirectory { .. })));
}

#[test]
fn hard_links_and_walk_order() {
    let mut tree = Tree::new(0);
    let id = tree.file("b/x", 0o644, "1").unwrap();
    tree.link("a", id).unwrap();
    let paths: Vec<_> = tree.walk().into_iter().map(|(path, _)| show(&path)).collect();
    assert_eq!(paths, ["", "a", "b", "b/x"]);
    assert_eq!(tree.link_counts()[id.index()], 2);
    assert!(tree.remove("a") && !tree.remove("a"));
}

/// A path of `depth` directories and a file.
fn deep(depth: usize) -> String {
    "d/".repeat(depth) + "x"
}

#[test]
fn depth_has_a_limit_that_is_named() {
    let mut tree = Tree::new(0);
    tree.file(deep(limits::DEPTH), 0o644, "").unwrap();
    let error = tree.file(deep(limits::DEPTH + 1), 0o644, "").unwrap_err();
    assert!(matches!(error, TreeError::TooDeep { limit: 256, .. }), "{error}");
    assert!(error.to_string().ends_with("lies below more than 256 directories"), "{error}");
    assert!(tree.directory(deep(2000), 0o755).is_err());
    // A link leads down as well.
    tree.symlink("bottom", "d/".repeat(limits::DEPTH)).unwrap();
    assert!(tree.file("bottom/y", 0o644, "").is_ok());
    tree.check_size(limits::NODES, limits::NAMES).unwrap();
    tree.file("bottom/e/f/z", 0o644, "").unwrap();
    assert!(matches!(tree.check_size(limits::NODES, limits::NAMES), Err(TreeError::TooDeep { .. })));
}

#[test]
fn a_walk_has_an_end() {
    let mut tree = Tree::new(0);
    tree.directory("a", 0o755).unwrap();
    // 30 links, each of which goes the same way round 30 times.
    let round = "a/../".repeat(30);
    tree.symlink("l0", format!("{round}a")).unwrap();
    for link in 1..30 {
        tree.symlink(format!("l{link}"), format!("{round}l{}", link - 1)).unwrap();
    }
    assert!(tree.resolve("l9").is_ok());
    let error = tree.resolve("l29").unwrap_err();
    assert_eq!(error.to_string(), "l29 leads over more than 1024 directories and links");
    assert!(tree.lookup("l29/x").is_none() && tree.file("l29/x", 0o644, "").is_err());
}

#[test]
fn parents_are_found_from_where_the_walk_has_come() {
    let mut tree = Tree::new(0);
    tree.directory("usr/lib", 0o755).unwrap();
    tree.symlink("lib", "usr/lib").unwrap();
    tree.symlink("usr/lib/up", "../..").unwrap();
    tree.symlink("usr/lib/root", "/usr").unwrap();
    tree.file("lib/up/lib/root/x", 0o644, "1").unwrap();
    assert_eq!(tree.read("usr/x").unwrap(), b"1");
    tree.symlink("gone", "nowhere").unwrap();
    let told = |result: Result<NodeId, TreeError>| result.unwrap_err().to_string();
    assert_eq!(told(tree.file("lib/up/gone/x", 0o644, "")), "/lib/up/gone does not exist in the tree");
    assert_eq!(told(tree.file("lib/root/x/y", 0o644, "")), "/lib/root/x is not a directory");
}

#[test]
fn all_walks_of_a_tree_have_a_sum() {
    let mut tree = Tree::new(0);
    tree.file("a/b", 0o644, "").unwrap();
    tree.clone().step(usize::try_from(limits::WALKED).unwrap() + 1);
    for error in [tree.resolve("a/b").map(drop), tree.check_size(10, 10)] {
        let told = "lead over more than 100000000 directories and links together";
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("all paths that are followed in one tree lead") && error.contains(told),
            "{error}"
        );
    }
    // A tree that takes another one in takes its walks over.
    let mut node = Tree::new(0);
    let origin = node.origin("x");
    node.graft("c", tree, origin).unwrap();
    assert!(matches!(node.check_size(10, 100), Err(TreeError::Exhausted { .. })));
}
