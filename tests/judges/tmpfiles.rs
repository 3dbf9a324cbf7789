//! tmpfiles.d lines as systemd-tmpfiles of trixie does them: what keller writes makes what packages shipped,
//! and what keller does at build time is what the tool would have done.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use keller::rootfs::Accounts;
use keller::rootfs::tmpfiles::{bake_etc, empty_var, owners};
use keller::tree::{Kind, Meta, Tree, show};

use super::fixture::is_root;
use super::tool::run;
use super::trixie::trixie;

/// Names that a careless writer loses: blanks, quotes, specifiers, escapes, umlauts, no UTF-8, long ones.
const NAMES: [&[u8]; 16] = [
    b"plain",
    b"with space",
    b" blanks at the ends ",
    b"fifty%percent",
    b"%h",
    b"$HOME",
    b"it's \"quoted\"",
    b"back\\slash\\n",
    b"-",
    b"#no comment",
    b"line\nbreak",
    b"tab\tand \x01",
    "gr\u{fc}\u{df}e \u{1f600}".as_bytes(),
    b"latin t\xe4st",
    b"*?[a]{b}",
    &[b'n'; 255],
];

/// A line for each path below `folder`: type, mode, owner, and target or text.
pub fn listing(folder: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let (letter, tail) = match () {
                () if stat.is_dir() => ('d', Vec::new()),
                () if stat.is_symlink() => {
                    ('l', fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
                }
                () => ('-', fs::read(&path).unwrap()),
            };
            let name = path.strip_prefix(folder).unwrap().as_os_str().as_bytes().to_vec();
            let mode = if letter == 'l' { 0o777 } else { stat.mode() & 0o7777 };
            found.insert(
                name,
                format!("{letter}{mode:04o} {}:{} {}", stat.uid(), stat.gid(), tail.escape_ascii()),
            );
            if letter == 'd' {
                pending.push(path);
            }
        }
    }
    found
}

/// The same of what lies below `top` in a tree.
fn wanted(tree: &Tree, top: &[u8]) -> BTreeMap<Vec<u8>, String> {
    let below = tree.walk().into_iter().filter_map(|(path, id)| Some((path.strip_prefix(top)?.to_vec(), id)));
    below
        .map(|(path, id)| {
            let node = tree.node(id);
            let tail = match &node.kind {
                Kind::Symlink(target) => target.clone(),
                Kind::File(content) => content.to_vec().unwrap(),
                _ => Vec::new(),
            };
            let Meta { mode, uid, gid, .. } = node.meta;
            let letter = node.kind.letter();
            (path, format!("{letter}{mode:04o} {uid}:{gid} {}", tail.escape_ascii()))
        })
        .collect()
}

fn same(found: &BTreeMap<Vec<u8>, String>, expected: &BTreeMap<Vec<u8>, String>) {
    for path in found.keys().chain(expected.keys()) {
        assert_eq!(found.get(path), expected.get(path), "{}", show(path));
    }
}

/// Writes the files below usr and etc of a tree.
pub fn write(tree: &Tree, root: &Path) {
    for (path, id) in tree.walk() {
        let place = root.join(OsStr::from_bytes(&path));
        let node = tree.node(id);
        match &node.kind {
            Kind::Directory(_) => fs::create_dir_all(&place).unwrap(),
            Kind::Symlink(target) => std::os::unix::fs::symlink(OsStr::from_bytes(target), &place).unwrap(),
            Kind::File(content) => {
                fs::write(&place, content.to_vec().unwrap()).unwrap();
            }
            _ => {}
        }
        if !matches!(node.kind, Kind::Symlink(_)) {
            fs::set_permissions(&place, fs::Permissions::from_mode(u32::from(node.meta.mode))).unwrap();
            std::os::unix::fs::chown(&place, Some(node.meta.uid), Some(node.meta.gid)).unwrap();
        }
    }
}

/// Runs systemd-tmpfiles on the root; what it said.
pub fn boot(root: &Path) -> Option<String> {
    let mut command = trixie(&["systemd"], "usr/bin/systemd-tmpfiles")?;
    command.arg("--create").arg("--boot").arg(format!("--root={}", root.display()));
    Some(run(&mut command))
}

#[test]
fn var_comes_back_byte_by_byte_and_stays_as_it_is() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    let mut tree = Tree::new(0);
    for (number, name) in NAMES.iter().enumerate() {
        let path = [b"var/lib/", *name].concat();
        let owner = 100 + number as u32;
        let meta = |mode| Meta::new(mode).owned(owner, owner + 1);
        tree.put(&path, meta(0o750), Kind::Directory(BTreeMap::new()), Default::default()).unwrap();
        let body = Kind::File(name.to_vec().into());
        tree.put([&path[..], b"/", name].concat(), meta(0o640), body, Default::default()).unwrap();
        tree.symlink([&path[..], b"/to"].concat(), name).unwrap();
    }
    let expected = wanted(&tree, b"var/");
    empty_var(&mut tree).unwrap();
    let root = tempfile::tempdir().unwrap();
    write(&tree, root.path());
    let Some(said) = boot(root.path()) else { return };
    assert_eq!(said, "");
    let mut found = listing(&root.path().join("var"));
    same(&found, &expected);

    // A node's own changes outlive the next boot: mode, owner, content, a link that leads elsewhere.
    let place = root.path().join("var/lib/plain");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&place, Some(999), Some(999)).unwrap();
    fs::write(place.join("plain"), "changed").unwrap();
    fs::set_permissions(place.join("plain"), fs::Permissions::from_mode(0o600)).unwrap();
    found = listing(&root.path().join("var"));
    boot(root.path()).unwrap();
    same(&listing(&root.path().join("var")), &found);
}

/// Lines of packages for paths that the packages ship as well, one for each letter that asks for no more.
const OTHERS_LINES: &str = "d /var/m 0755
d /var/m/d 0750 0 0 10d
D /var/m/D 0750
q /var/m/q 0750
Q /var/m/Q 0750
v /var/m/v 0750
e /var/m/e 0750 0 0 10d
z /var/m/z 0750
Z /var/m/Z 0750
m /var/m/m 0750
x /var/m/x - - - 10d
X /var/m/X - - - 10d
f /var/m/f 0640 - - - same
F /var/m/F 0640 - - - same
f+ /var/m/f+ 0640 - - - same
w /var/m/w - - - - same
C /var/m/C 0640 - - - /usr/skel
L /var/m/L - - - - same
L+ /var/m/L+ - - - - same
";

#[test]
fn what_packages_ship_is_there_whatever_their_own_lines_do() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    let mut tree = Tree::new(0);
    tree.file("usr/lib/tmpfiles.d/m.conf", 0o644, OTHERS_LINES).unwrap();
    tree.file("usr/skel", 0o640, "same").unwrap();
    for line in OTHERS_LINES.lines().skip(1) {
        let path = line.split(' ').nth(1).unwrap();
        match &line[..1] {
            "f" | "F" | "w" | "C" => drop(tree.file(path, 0o640, "same").unwrap()),
            "L" => drop(tree.symlink(path, "same").unwrap()),
            _ => drop(tree.directory(path, 0o750).unwrap()),
        }
    }
    let expected = wanted(&tree, b"var/");
    empty_var(&mut tree).unwrap();
    let root = tempfile::tempdir().unwrap();
    write(&tree, root.path());
    let Some(said) = boot(root.path()) else { return };
    assert_eq!(said, "");
    same(&listing(&root.path().join("var")), &expected);
}

/// Lines for /etc that keller does at build time, or leaves.
const LINES: &[u8] = br#"f /run/x 0644 root root - Don't panic
f /etc/panic 0640 0 4 - Don't "panic" \\ \x41\n 100%%
d "/etc/My App" 0750 0 4 -
d /etc/t\xe4st :0711 - - 10d
D /etc/emptied 1777
f /etc/there :0644 :1 - - other
f /etc/set 0600 2 3 - other
f+ /etc/again 0644 - - - new text
F /etc/forced - - - - forced
L /etc/link - - - - ../usr/lib
L+ /etc/there2 - - - - there
C /etc/skel 0700 3 :4 - /usr/skel
z /etc/adjusted 0604 5 6
d /etc/%%literal
d- /etc/may-fail
d! /etc/at-boot 0700
f /etc/"open
f /etc/bad-escape 0644 - - - \q
d /etc/nobodys 0700 no-such-user -
f~ /etc/coded - - - - aGk=
f /etc/empty 0644 - - - -
f /etc/long 0644 - - - LONG
"#;

#[test]
fn what_is_done_at_build_time_is_what_the_tool_does() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    let mut tree = Tree::new(0);
    let lines = show(LINES).replace("LONG", &"long ".repeat(1000));
    tree.file("usr/lib/tmpfiles.d/x.conf", 0o644, lines).unwrap();
    for path in ["etc/there", "etc/set", "etc/again", "etc/forced", "etc/there2", "etc/adjusted"] {
        tree.file(path, 0o664, path).unwrap();
    }
    tree.put("usr/skel/a/b", Meta::new(0o640).owned(7, 7), Kind::File("x".into()), Default::default())
        .unwrap();
    let root = tempfile::tempdir().unwrap();
    write(&tree, root.path());
    let mut command = match trixie(&["systemd"], "usr/bin/systemd-tmpfiles") {
        Some(command) => command,
        None => return,
    };
    // It complains of three lines, which is told by its status.
    let output =
        command.args(["--create", "--boot"]).arg(format!("--root={}", root.path().display())).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    println!("{said}");
    bake_etc(&mut tree, &Accounts::default()).unwrap();
    let mut expected = listing(&root.path().join("etc"));
    assert_eq!(expected.remove(&b"coded"[..]).as_deref(), Some("-0644 0:0 hi"), "left to the node");
    same(&wanted(&tree, b"etc/"), &expected);
}

/// Lines that the tool passes over, and lines that look like them.
const CARELESS: &str = r#"d
d "/x
y /x
d* /x
d!! /x
d$ /var/ok
d= /var/ok2
f? /var/maybe
L? /var/maybe - - - - /etc
L? /var/nowhere - - - - /nowhere
h /var/ok - - - - +C
d x/y
d %S/fine
d /x 0999
d /x 07777777
d /x ~:0755
d /x 0x1ff
d /x 0755 nobodyknows
d /x 0755 :root :0
d /x 0755 - - 10x
d /x 0755 - - 10
d /y 0755 - - zz:10d
d /y 0755 - - ~aB:1w2d3.5h
d /z 0755 - - 5,6
d /z2 0755 - - "1h 30"
d /z3 0755 - - infinity
d /z4 0755 - - 5\x20x
w /x
c /x - - - - 1
c /x - - - - 1:x
L~ /x - - - - eA==
C~ /x - - - - eA==
z~ /etc
f~ /q - - - - !
f~ /q2 - - - - aGk=
f~ /q3 - - - - aGk
f /x2 - - - - \q
L /x3 - - - - \q
t /x4
a /x5
h /x6
C /x7 - - - - relative
C /x8 - - - - /etc
f^ /x9
d /xa 0755 - - - surplus
r! /xb
e /xc
d "" 0755
"" /x
d /xd "" "" "" "" ""
d /\xe4
D /xe - - - am:
D /xf - - - :10d
d /var/two 0700
d /var/two 0750
d /var/two 0700
D /var/two 0700
L /var/two - - - - x
z /var/two 0711
"#;

#[test]
fn lines_that_do_nothing_are_those_that_the_tool_passes_over() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    let letters = (b'A'..=b'z').filter(u8::is_ascii_alphabetic).map(char::from);
    // The tool has no place for attributes that it does not know.
    let argument = |letter: char| match letter.to_ascii_lowercase() {
        't' => "user.a=b",
        'h' => "+C",
        _ => "1:3",
    };
    let each = letters.map(|letter| {
        let argument = argument(letter);
        format!("{letter} /var/each-{letter} 0755 - - - {argument}\n{letter} /var/none-{letter}\n")
    });
    let modifiers =
        "!+-=~^$?*:".chars().map(|sign| format!("f{sign} /var/sign{} 0644 - - - aGk=\n", u32::from(sign)));
    let text = CARELESS.to_owned() + &each.collect::<String>() + &modifiers.collect::<String>();
    let mut tree = Tree::new(0);
    let overlay = tree.origin("overlay o");
    let meta = Meta::new(0o644);
    tree.put("etc/tmpfiles.d/x.conf", meta, Kind::File(text.clone().into()), overlay).unwrap();
    let root = tempfile::tempdir().unwrap();
    write(&tree, root.path());
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    let Some(mut command) = trixie(&["systemd"], "usr/bin/systemd-tmpfiles") else { return };
    let output =
        command.args(["--create", "--boot"]).arg(format!("--root={}", root.path().display())).output();
    let said = String::from_utf8_lossy(&output.unwrap().stderr).into_owned();
    println!("{said}");
    let place = root.path().join("etc/tmpfiles.d/x.conf:").display().to_string();
    let told: std::collections::BTreeSet<usize> =
        said.lines().filter_map(|line| line.strip_prefix(&place)?.split_once(':')?.0.parse().ok()).collect();
    let findings = keller::rootfs::checks::lines::tmpfiles(&tree, &Accounts::default()).unwrap();
    let line =
        |finding: &keller::rootfs::checks::Finding| finding.path.rsplit_once(':').unwrap().1.parse().unwrap();
    let found: std::collections::BTreeSet<usize> = findings.iter().map(line).collect();
    for number in told.symmetric_difference(&found) {
        println!("{number}: {:?} {}", text.lines().nth(number - 1).unwrap(), told.contains(number));
    }
    assert_eq!(found, told);
}

/// Lines of packages for paths of which the user says something else.
const STUBBORN: &str = "d /var/lib/d 0700 1 1
D /var/lib/D 0700 1 1
e /var/lib/e 0700 1 1
q /etc/q 0700 1 1
z /var/lib/z 0700 1 1
m /var/lib/m 0700
Z /var/lib/Z 0700 1 1
Z /var/lib/deep 0700 1 1
z /var/lib/pat* 0700 1 1
z \"/var/lib/st r*\" 0700 1 1
f /var/lib/f 0600 1 1 - theirs
f+ /etc/f+ 0600 1 1 - theirs
C /var/lib/C 0600 1 1 - /usr/theirs
L+ /etc/L - - - - theirs
L /var/lib/L - - - - theirs
w /etc/w - - - - theirs
z /etc/w 0600 1 1
d /var/lib/untouched 0711 3 3
";

#[test]
fn what_the_user_says_of_a_path_outlasts_a_packages_line() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    let mut tree = Tree::new(0);
    tree.file("usr/lib/tmpfiles.d/stubborn.conf", 0o644, STUBBORN).unwrap();
    tree.file("usr/lib/tmpfiles.d/~~last.conf", 0o644, "Z /var/lib/Z 0711 2 2\n").unwrap();
    tree.file("usr/theirs", 0o644, "theirs").unwrap();
    let package = tree.origin("package");
    let own = tree.origin("overlay o");
    let mut said = BTreeMap::new();
    let directories =
        ["d", "D", "e", "z", "m", "Z", "deep", "deep/in", "deep/in/it", "pattern", "st r[i]*ng"];
    for path in directories.iter().map(|name| format!("var/lib/{name}")).chain(["etc/q".to_owned()]) {
        let origin = if path.ends_with('D') { own } else { package };
        tree.put(&path, Meta::new(0o750).owned(7, 8), Kind::Directory(BTreeMap::new()), origin).unwrap();
        said.insert(format!("/{path}").into_bytes(), (0o750, 7, 8));
    }
    // Not said: a package's line counts for it.
    tree.directory("var/lib/deep/other", 0o755).unwrap();
    for path in ["var/lib/f", "etc/f+", "var/lib/C", "etc/w"] {
        tree.put(path, Meta::new(0o640).owned(7, 8), Kind::File("mine".into()), own).unwrap();
        said.insert(format!("/{path}").into_bytes(), (0o640, 7, 8));
    }
    for path in ["etc/L", "var/lib/L"] {
        tree.put(path, Meta::new(0o777), Kind::Symlink(b"mine".to_vec()), own).unwrap();
    }
    let expected: BTreeMap<_, _> = wanted(&tree, b"var/").into_iter().chain(wanted(&tree, b"etc/")).collect();
    owners::user_first(&mut tree, &said).unwrap();
    empty_var(&mut tree).unwrap();
    let root = tempfile::tempdir().unwrap();
    write(&tree, root.path());
    for _ in 0..2 {
        let Some(said) = boot(root.path()) else { return };
        assert_eq!(said, "");
        let mut found = listing(&root.path().join("var"));
        found.extend(listing(&root.path().join("etc")));
        assert_eq!(found.remove(&b"lib/untouched"[..]).as_deref(), Some("d0711 3:3 "));
        assert_eq!(found.remove(&b"lib/deep/other"[..]).as_deref(), Some("d0700 1:1 "));
        let mut expected = expected.clone();
        expected.remove(&b"lib/deep/other"[..]);
        same(&found, &expected);
    }
}

#[test]
fn homes_and_moved_directories_are_made_once() {
    if !is_root() {
        println!("SKIPPED: only root gives files to others");
        return;
    }
    let mut tree = Tree::new(0);
    tree.file("etc/skel/.profile", 0o644, "skeleton").unwrap();
    tree.file("usr/share/base-files/dot.bashrc", 0o644, "dots").unwrap();
    tree.file("opt/My App/100%", 0o644, "app").unwrap();
    tree.put("srv/db", Meta::new(0o750).owned(7, 8), Kind::Directory(BTreeMap::new()), Default::default())
        .unwrap();
    let core = keller::manifest::User {
        name: "core".into(),
        uid: 1000,
        groups: Vec::new(),
        ssh_keys: Vec::new(),
        shell: "/bin/sh".into(),
        password_hash: None,
    };
    let wanted = keller::rootfs::Wanted::collect(&tree, &[core], &[], &[]).unwrap();
    let accounts = wanted.with_ids(&keller::lock::Ids::default()).unwrap();
    keller::rootfs::state::write(&mut tree, &accounts, &[]).unwrap();
    empty_var(&mut tree).unwrap();
    let root = tempfile::tempdir().unwrap();
    write(&tree, root.path());
    let Some(said) = boot(root.path()) else { return };
    assert_eq!(said, "");
    let var = root.path().join("var");
    let found = listing(&var);
    let line = |path: &str| found.get(path.as_bytes()).map(String::as_str);
    assert_eq!(line("home/core"), Some("d0700 1000:1000 "));
    assert_eq!(line("home/core/.profile"), Some("-0644 1000:1000 skeleton"));
    assert_eq!(line("roothome"), Some("d0700 0:0 "));
    assert_eq!(line("roothome/.bashrc"), Some("-0644 0:0 dots"));
    assert_eq!(line("srv/db"), Some("d0750 7:8 "));
    assert_eq!(line("opt/My App"), Some("l0777 0:0 /usr/lib/keller/shipped/opt/My App"));

    // What a node has made of them outlives the next boot.
    fs::set_permissions(var.join("home/core"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::rename(var.join("home/core/.profile"), var.join("home/core/.zshrc")).unwrap();
    fs::set_permissions(var.join("srv"), fs::Permissions::from_mode(0o711)).unwrap();
    std::os::unix::fs::chown(var.join("srv/db"), Some(999), Some(999)).unwrap();
    fs::remove_file(var.join("opt/My App")).unwrap();
    fs::create_dir(var.join("opt/My App")).unwrap();
    fs::write(var.join("opt/My App/own"), "own").unwrap();
    let changed = listing(&var);
    boot(root.path()).unwrap();
    same(&listing(&var), &changed);
}
