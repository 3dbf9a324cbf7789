//! Our ld.so.cache as glibc's ldconfig sees it, beside the one that it writes itself.
//!
//! KELLER_JUDGE_TREE may name a folder with unpacked packages, to judge by a whole root besides.

use std::fs;
use std::path::Path;

use keller::rootfs::ldcache;

use super::folder;
use super::tool::{run, tool};

#[test]
fn cache_of_made_libraries() {
    let (Some(_), Some(_)) = (tool("cc"), tool("ldconfig")) else { return };
    let work = tempfile::tempdir().unwrap();
    let libraries = work.path().join("usr/lib/x86_64-linux-gnu");
    fs::create_dir_all(libraries.join("glibc-hwcaps/x86-64-v3")).unwrap();
    fs::create_dir_all(work.path().join("etc/ld.so.conf.d")).unwrap();
    fs::create_dir_all(work.path().join("opt/lib")).unwrap();
    std::os::unix::fs::symlink("usr/lib", work.path().join("lib")).unwrap();
    fs::write(work.path().join("etc/ld.so.conf"), "include /etc/ld.so.conf.d/*.conf\n").unwrap();
    fs::write(work.path().join("etc/ld.so.conf.d/b.conf"), "# more\n/opt/lib\n/lib/x86_64-linux-gnu\n")
        .unwrap();
    let source = work.path().join("library.c");
    fs::write(&source, "int f(void) { return 1; }").unwrap();
    let make = |path: &Path, soname: Option<&str>| {
        let mut cc = tool("cc").unwrap();
        cc.args(["-shared", "-nostdlib", "-o"]).arg(path).arg(&source);
        if let Some(soname) = soname {
            cc.arg(format!("-Wl,-soname,{soname}"));
        }
        run(&mut cc);
    };
    // Two versions of one soname without a link, as a package with a forgotten link has them.
    make(&libraries.join("liba.so.1.9"), Some("liba.so.1"));
    make(&libraries.join("liba.so.1.10"), Some("liba.so.1"));
    make(&libraries.join("libplain.so"), None);
    make(&libraries.join("libz.so.1.3.1"), Some("libz.so.1"));
    std::os::unix::fs::symlink("libz.so.1.3.1", libraries.join("libz.so.1")).unwrap();
    std::os::unix::fs::symlink("libz.so.1", libraries.join("libz.so")).unwrap();
    std::os::unix::fs::symlink("libgone.so.2", libraries.join("libgone.so")).unwrap();
    make(&libraries.join("glibc-hwcaps/x86-64-v3/libz.so.1.3.1"), Some("libz.so.1"));
    make(&work.path().join("opt/lib/libz.so.1"), Some("libz.so.1"));
    fs::write(libraries.join("libscript.so"), "INPUT(libz.so.1)\n").unwrap();
    compare(work.path());
}

#[test]
fn cache_of_a_whole_root() {
    let Some(tree) = std::env::var_os("KELLER_JUDGE_TREE") else {
        println!("SKIPPED: KELLER_JUDGE_TREE is not set");
        return;
    };
    if tool("ldconfig").is_some() {
        compare(Path::new(&tree));
    }
}

/// Compares the listings of our cache and of the one that ldconfig makes of the same folder.
fn compare(root: &Path) {
    let mut tree = folder::load(root);
    ldcache::write(&mut tree).unwrap();
    let out = tempfile::tempdir().unwrap();
    let ours = out.path().join("ours");
    fs::write(&ours, tree.read("etc/ld.so.cache").unwrap()).unwrap();
    let listing = |cache: &Path| {
        let text = run(tool("ldconfig").unwrap().arg("-p").arg("-C").arg(cache));
        let entries = text.lines().filter(|line| line.starts_with('\t'));
        // ldconfig before glibc 2.37 lists the loader, which nobody looks up.
        entries.filter(|line| !line.contains("ld-linux")).map(str::to_owned).collect::<Vec<_>>()
    };
    let ours = listing(&ours);

    // `ldconfig -r` wants no privilege as long as the files are the caller's own.
    let theirs = out.path().join("root");
    folder::store(&tree, &theirs);
    fs::remove_file(theirs.join("etc/ld.so.cache")).unwrap();
    fs::create_dir_all(theirs.join("var/cache/ldconfig")).unwrap();
    run(tool("ldconfig").unwrap().arg("-X").arg("-r").arg(&theirs));
    assert_eq!(ours, listing(&theirs.join("etc/ld.so.cache")));
    assert!(!ours.is_empty());
}
