//! Overlays as they lie on a disk, and in keller.

use std::fs::OpenOptions;
use std::os::unix::fs::symlink;

use super::*;

const META_TEXT: &str =
    "# comment\nbin/run 4750 root shadow\nvar/lib/etcd/ 0700 etcd 900\netc/mtab -> ../proc/self/mounts\n";

fn write(folder: &Path, path: &str, bytes: &str, mode: u32) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn folder_and_embedded_are_one() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "bin/run", "#!", 0o700);
    write(folder.path(), "etc/x", "x", 0o666);
    write(folder.path(), "srv/.gitkeep", "", 0o644);
    write(folder.path(), META, META_TEXT, 0o644);
    let overlay = Overlay::from_folder(folder.path(), "overlay", 7).unwrap();
    let embedded = Overlay::from_embedded(
        &[
            ("bin/run", b"#!", true),
            ("etc/x", b"x", false),
            ("srv/.gitkeep", b"", false),
            (META, META_TEXT.as_bytes(), false),
        ],
        "overlay",
        9,
    )
    .unwrap();
    assert_eq!(overlay.digest().unwrap(), embedded.digest().unwrap());
    let tree = &overlay.tree;
    let mode = |path: &str| tree.node(tree.lookup(path).unwrap()).meta.mode;
    assert_eq!(
        [mode("etc/x"), mode("bin/run"), mode("srv"), mode("var/lib/etcd")],
        [0o644, 0o4750, 0o755, 0o700]
    );
    assert!(!tree.exists(META) && !tree.exists("srv/.gitkeep"));

    let mut root = tree.clone();
    let known = |name: &str| match name {
        "root" => Some(0),
        "shadow" => Some(42),
        _ => None,
    };
    let laid = overlay.laid(&root).unwrap();
    let error = overlay.own(&mut root, &laid, &known, &known).unwrap_err();
    assert!(error.to_string().contains("/var/lib/etcd to user \"etcd\""), "{error}");
    overlay.own(&mut root, &laid, &|name| known(name).or(Some(901)), &known).unwrap();
    let owner = |path: &str| {
        let meta = &root.node(root.lookup(path).unwrap()).meta;
        (meta.uid, meta.gid)
    };
    assert_eq!([owner("bin/run"), owner("var/lib/etcd")], [(0, 42), (901, 900)]);
}

#[test]
fn what_other_programs_leave_does_not_come_along() {
    let folder = tempfile::tempdir().unwrap();
    for path in
        [".git/HEAD", "etc/.DS_Store", "etc/x~", "etc/.x.swp", "etc/#x#", "srv/.svn/entries", "srv/Thumbs.db"]
    {
        write(folder.path(), path, "", 0o644);
    }
    write(folder.path(), "etc/x", "", 0o644);
    write(folder.path(), "srv/repo/.git/HEAD", "", 0o644);
    symlink("nobody@host.1", folder.path().join("etc/.#x")).unwrap();
    write(folder.path(), META, "srv/repo/.git 0755 root root\n", 0o644);
    let overlay = Overlay::from_folder(folder.path(), "o", 0).unwrap();
    let left: Vec<_> = overlay.left_out.iter().map(|(path, _)| show(path)).collect();
    let expected =
        [".git", "etc/#x#", "etc/.#x", "etc/.DS_Store", "etc/.x.swp", "etc/x~", "srv/.svn", "srv/Thumbs.db"];
    assert_eq!(left, expected);
    let modes: Vec<_> = overlay.left_out.iter().map(|(_, mode)| *mode).collect();
    assert_eq!(modes, [0o755, 0o644, 0o777, 0o644, 0o644, 0o644, 0o755, 0o644]);
    assert!(overlay.tree.exists("srv/repo/.git/HEAD") && overlay.tree.exists("etc/x"));
    assert!(expected.iter().all(|path| !overlay.tree.exists(path)));
}

#[test]
fn litter_that_is_named_comes_whole() {
    let folder = tempfile::tempdir().unwrap();
    for path in
        ["a/.git/hooks/x~", "a/.git/.gitkeep", "a/x~", "b/.DS_Store", "b/.gitkeep", "c/.gitkeep", "d/y~"]
    {
        write(folder.path(), path, "", 0o644);
    }
    let meta = "a/ 0700 0 0\na/.git/ 0755 0 0\nb 0755 0 0\nc/.gitkeep 0644 0 0\nd/y~ 0600 0 0\n";
    write(folder.path(), META, meta, 0o644);
    let overlay = Overlay::from_folder(folder.path(), "o", 0).unwrap();
    let paths: Vec<_> = overlay.tree.walk().into_iter().map(|(path, _)| show(&path)).collect();
    let expected = [
        "a",
        "a/.git",
        "a/.git/.gitkeep",
        "a/.git/hooks",
        "a/.git/hooks/x~",
        "b",
        "c",
        "c/.gitkeep",
        "d",
        "d/y~",
    ];
    assert_eq!(
        paths.iter().filter(|path| !path.is_empty()).collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
    assert_eq!(overlay.left_out, [(b"a/x~".to_vec(), 0o644), (b"b/.DS_Store".to_vec(), 0o644)]);
}

#[test]
fn words_of_meta_that_would_do_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "bin/run", "", 0o755);
    fs::create_dir(folder.path().join("data")).unwrap();
    symlink("run", folder.path().join("bin/link")).unwrap();
    for (line, part) in [
        ("data 0755 0 0 cap_net_raw+ep", ".meta:1: data is a directory, and only a program has capabilities"),
        ("new/ 0755 0 0 cap_net_raw+ep", "new is a directory"),
        ("bin/link 0777 0 0 cap_net_raw+ep", "bin/link is a link, and only a program"),
        ("bin/run 0644 0 0 cap_net_raw+ep", "nobody may execute bin/run with mode 0644"),
        (
            "bin/link 0644 0 0",
            "mode 0644 does nothing on bin/link, which is a link: write 0777, or name what it leads to",
        ),
        (
            "data 4755 0 0",
            "mode 4755 does nothing on data, which is a directory: Linux knows setuid of programs only",
        ),
        ("bin/run 1755 0 0", "Linux knows the sticky bit of directories only"),
        ("bin/run 4644 0 0", "nobody may execute bin/run with mode 4644"),
        (
            "bin/run 2644 0 0",
            "nobody may execute bin/run with mode 2644: it needs execute bits to be setuid or setgid or to have capabilities",
        ),
        ("bin/run/ 0755 0 0", "bin/run is a file, and a slash at its end makes a directory"),
        ("bin/gone 0755 0 0", "`files` gives mode and owner to what a package has"),
    ] {
        write(folder.path(), META, line, 0o644);
        let error = Overlay::from_folder(folder.path(), "o", 0).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
    write(folder.path(), META, "bin/link 0777 0 7\ndata 3775 0 0\nbin/run 2755 0 0\n", 0o644);
    Overlay::from_folder(folder.path(), "o", 0).unwrap();
}

#[test]
fn capabilities_of_meta() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "bin/ping", "", 0o755);
    write(folder.path(), META, "bin/ping 0755 0 0 cap_net_raw+ep\n", 0o644);
    let overlay = Overlay::from_folder(folder.path(), "o", 0).unwrap();
    let mut root = overlay.tree.clone();
    let laid = overlay.laid(&root).unwrap();
    overlay.own(&mut root, &laid, &|_| None, &|_| None).unwrap();
    let meta = &root.node(root.lookup("bin/ping").unwrap()).meta;
    assert_eq!(meta.xattrs[ATTRIBUTE].len(), 20);
    let digest = overlay.digest().unwrap();
    write(folder.path(), META, "bin/ping 0755 0 0 cap_net_raw+p\n", 0o644);
    assert_ne!(Overlay::from_folder(folder.path(), "o", 0).unwrap().digest().unwrap(), digest);
    write(folder.path(), META, "bin/ping 0755 0 0 cap_net_row+p\n", 0o644);
    let error = Overlay::from_folder(folder.path(), "o", 0).unwrap_err().to_string();
    assert!(error.ends_with(".meta:1: there is no capability \"cap_net_row\""), "{error}");
}

#[test]
fn modes_that_do_not_count_are_told() {
    let folder = tempfile::tempdir().unwrap();
    for (path, mode) in
        [("a", 0o600), ("b", 0o440), ("c", 0o640), ("d", 0o644), ("e", 0o755), ("f", 0o4755), ("g", 0o700)]
    {
        write(folder.path(), path, "", mode);
    }
    write(folder.path(), META, "b 0440 root root\n", 0o644);
    let overlay = Overlay::from_folder(folder.path(), "o", 0).unwrap();
    let opened: Vec<_> = overlay.opened.iter().map(|(path, mode)| (show(path), *mode)).collect();
    let expected = [("a", 0o600), ("c", 0o640), ("f", 0o4755), ("g", 0o700)];
    assert_eq!(opened, expected.map(|(path, mode)| (path.to_owned(), mode)));
}

#[test]
fn the_digest_sees_bytes_bits_and_links_but_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let digest = || Overlay::from_folder(folder.path(), "o", 0).unwrap().digest().unwrap();
    write(folder.path(), "a", "1", 0o644);
    let first = digest();
    write(folder.path(), "a", "1", 0o600);
    assert_eq!(digest(), first);
    write(folder.path(), "a", "1", 0o755);
    let executable = digest();
    symlink("a", folder.path().join("b")).unwrap();
    let linked = digest();
    write(folder.path(), META, "a 0755 core root\n", 0o644);
    let all = [first, executable, linked, digest()];
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
}

#[test]
fn mistakes_in_meta_have_a_place() {
    let folder = tempfile::tempdir().unwrap();
    for (text, part) in [
        ("\nx 0644 root root\n", ".meta:2: there is no x"),
        ("x 99 root root", "mode"),
        ("x 0644 root", "expected"),
        ("../x -> y", "unsafe path"),
    ] {
        write(folder.path(), META, text, 0o644);
        let error = Overlay::from_folder(folder.path(), "o", 0).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_large_file_that_changes_gives_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let large = "x".repeat(300 << 10);
    write(folder.path(), "srv/large", &large, 0o644);
    write(folder.path(), "srv/small", "small", 0o644);
    let overlay = Overlay::from_folder(folder.path(), "overlay", 7).unwrap();
    let not_read_yet = Overlay::from_folder(folder.path(), "overlay", 7).unwrap();
    let digest = overlay.digest().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    write(folder.path(), "srv/small", "later", 0o644);
    // What is in memory already is in the digest and in the image.
    assert_eq!(overlay.tree.read("srv/small").unwrap(), b"small");
    let mut options = OpenOptions::new();
    io::Write::write_all(&mut options.write(true).open(folder.path().join("srv/large")).unwrap(), b"y")
        .unwrap();
    let told = not_read_yet.digest().unwrap_err().to_string();
    let path = folder.path().join("srv/large");
    assert_eq!(
        told,
        format!("{} changed while it was read: build again once nothing writes to it", path.display())
    );
    // It stands for the bytes that were read for it, and no others are given.
    assert_eq!(overlay.digest().unwrap(), digest);
    assert!(overlay.tree.read("srv/large").is_err());
}

#[test]
fn small_files_have_a_sum_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let body = "x".repeat(limits::SMALL_FILE as usize);
    let count = limits::HELD / limits::SMALL_FILE + 3;
    (0..count).for_each(|number| write(folder.path(), &format!("{number:04}"), &body, 0o644));
    let overlay = Overlay::from_folder(folder.path(), "overlay", 7).unwrap();
    let held = overlay
        .tree
        .walk()
        .into_iter()
        .filter(|(_, id)| matches!(overlay.tree.node(*id).kind, Kind::File(Content::Bytes(_))));
    assert_eq!(held.count() as u64, limits::HELD / limits::SMALL_FILE);
    assert_eq!(overlay.tree.read(format!("{:04}", count - 1)).unwrap(), body.as_bytes());
}

#[test]
fn holes_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let hole = |name: &str, len| fs::File::create(folder.path().join(name)).unwrap().set_len(len).unwrap();
    let told = || Overlay::from_folder(folder.path(), "overlay", 7).unwrap_err().to_string();
    hole("a", limits::HOLES - 1);
    Overlay::from_folder(folder.path(), "overlay", 7).unwrap();
    hole("b", 2);
    assert!(
        told().ends_with("/b: with it, more than 16.0 GiB of the overlay are holes: leave some files out"),
        "{}",
        told()
    );
    hole("a", 1 << 42);
    assert!(told().contains("/a: with it, more than 16.0 GiB of the overlay"), "{}", told());
    let error = Content::foreign(&folder.path().join("a")).unwrap_err().to_string();
    assert_eq!(error, "more than 16.0 GiB of it are holes");
}

#[test]
fn what_is_no_file_is_named_and_never_waited_for() {
    let told = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
        let error = Overlay::from_folder(folder.path(), "overlay", 7).unwrap_err();
        error.to_string().replace(&path.display().to_string(), "PATH")
    };
    assert_eq!(told(META), "reading PATH: it is a pipe, not a regular file");
    assert_eq!(told("x"), "PATH is neither a file, a directory nor a symbolic link");
}
