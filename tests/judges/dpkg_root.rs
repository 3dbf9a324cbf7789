//! Packages put together by keller, against dpkg in an empty root: the same packages, unpacked in an order that
//! their dependencies give, leave the same files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use keller::base::Digest;
use keller::base::progress::Silent;
use keller::rootfs::packages::{PackageInput, PackagesError, assemble, unpack};
use keller::store::Store;
use keller::tree::{Kind, Tree};

use super::fixture::is_root;
use super::folder;
use super::tool::tool;

/// A package: name, fields, and entries such as `d 0755 usr`, `f 0644 usr/x text` and `l usr/y target`.
struct Sample<'a>(&'a str, &'a str, &'a [&'a str]);

/// Builds the package; where dpkg-deb is missing, nothing.
fn build(place: &Path, Sample(name, fields, entries): &Sample<'_>) -> Option<PathBuf> {
    let root = place.join(name);
    fs::create_dir_all(root.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.example>\n{fields}Description: x\n"
    );
    fs::write(root.join("DEBIAN/control"), control).unwrap();
    let mut modes = Vec::new();
    let mut conffiles = String::new();
    for entry in *entries {
        let words: Vec<&str> = entry.splitn(4, ' ').collect();
        let (path, mode) = match words[..] {
            ["l", path, target] => {
                fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
                symlink(target, root.join(path)).unwrap();
                continue;
            }
            ["d", mode, path] => {
                fs::create_dir_all(root.join(path)).unwrap();
                (path, mode)
            }
            [kind @ ("f" | "c"), mode, path, text] => {
                fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
                fs::write(root.join(path), text).unwrap();
                if kind == "c" {
                    conffiles += &format!("/{path}\n");
                }
                (path, mode)
            }
            _ => panic!("{entry}"),
        };
        modes.push((root.join(path), u32::from_str_radix(mode, 8).unwrap()));
    }
    if !conffiles.is_empty() {
        fs::write(root.join("DEBIAN/conffiles"), conffiles).unwrap();
    }
    for (path, mode) in modes {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let deb = place.join(format!("{name}.deb"));
    let mut command = tool("dpkg-deb")?;
    command.args(["--root-owner-group", "-Znone", "-b"]).args([&root, &deb]);
    super::tool::run(&mut command);
    Some(deb)
}

/// What dpkg leaves when it is given the packages in this order; nothing if it refuses.
fn theirs(debs: &[PathBuf]) -> Option<BTreeMap<String, String>> {
    let root = tempfile::tempdir().unwrap();
    for path in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(root.path().join(path)).unwrap();
    }
    fs::write(root.path().join("var/lib/dpkg/status"), "").unwrap();
    let mut command = tool("dpkg").expect("dpkg-deb is there, and so is dpkg");
    command.arg(format!("--root={}", root.path().display()));
    command.args(["--force-unsafe-io", "--force-bad-path", "--no-triggers", "--abort-after=1", "--install"]);
    let output = command.args(debs).env("LC_ALL", "C").output().unwrap();
    if !output.status.success() {
        return None;
    }
    fs::remove_dir_all(root.path().join("var/lib/dpkg")).unwrap();
    for path in ["var/lib", "var"] {
        let _ = fs::remove_dir(root.path().join(path));
    }
    Some(listing(&folder::load(root.path())))
}

fn ours(debs: &[PathBuf], store: &Store) -> Result<BTreeMap<String, String>, String> {
    let inputs: Vec<_> = debs
        .iter()
        .map(|path| {
            let (sha256, size) = Digest::of_reader(&mut File::open(path).unwrap()).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            PackageInput { name, version: "1".to_owned(), deb: File::open(path).unwrap(), sha256, size }
        })
        .collect();
    let unpacked = unpack(&inputs, store, 0, &Silent).unwrap();
    match assemble(0, unpacked, &Silent) {
        Ok(tree) => Ok(listing(&tree)),
        Err(error @ PackagesError::Conflicts { .. }) => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

/// Type, mode, target or text by path.
fn listing(tree: &Tree) -> BTreeMap<String, String> {
    let line = |(path, id): (Vec<u8>, _)| {
        let node = tree.node(id);
        let tail = match &node.kind {
            Kind::Symlink(target) => target.clone(),
            Kind::File(content) => content.to_vec().unwrap(),
            _ => Vec::new(),
        };
        let mode = if matches!(node.kind, Kind::Symlink(_)) { 0o777 } else { node.meta.mode };
        (keller::tree::show(&path), format!("{}{mode:04o} {}", node.kind.letter(), keller::tree::show(&tail)))
    };
    tree.walk().into_iter().filter(|(path, _)| !path.is_empty()).map(line).collect()
}

/// Judges packages that are listed in an order of their dependencies.
fn judge(packages: &[Sample<'_>]) -> Option<(Result<BTreeMap<String, String>, String>, bool)> {
    let place = tempfile::tempdir().unwrap();
    let debs: Vec<_> = packages.iter().map(|package| build(place.path(), package)).collect::<Option<_>>()?;
    let store = Store::open(place.path().join("store")).unwrap();
    let ours = ours(&debs, &store);
    let theirs = theirs(&debs);
    if let (Ok(ours), Some(theirs)) = (&ours, &theirs) {
        assert_eq!(ours, theirs);
    }
    Some((ours, theirs.is_some()))
}

/// Judges packages of which both must make something, and the line at `path`.
fn same(packages: &[Sample<'_>], path: &str, line: &str) -> bool {
    if !is_root() {
        println!("SKIPPED: dpkg unpacks for root only");
        return false;
    }
    let Some((ours, theirs)) = judge(packages) else { return false };
    assert!(theirs, "dpkg refuses {path}");
    assert_eq!(ours.unwrap().get(path).map(String::as_str), Some(line), "{path}");
    true
}

/// Judges packages that both refuse.
fn refused(packages: &[Sample<'_>], said: &str) {
    let Some((ours, theirs)) = judge(packages) else { return };
    assert!(!theirs, "dpkg takes what is refused here: {said}");
    let ours = ours.unwrap_err();
    assert!(ours.contains(said), "{ours}");
}

#[test]
fn dependencies_decide_and_names_do_not() {
    // Names are against the order throughout: what is needed first sorts last.
    let after = "Depends: z\n";
    let goes = same(
        &[Sample("z", "", &["d 0750 srv/x"]), Sample("a", after, &["d 0700 srv/x", "f 0644 srv/x/f 1"])],
        "srv/x",
        "d0750 ",
    );
    if !goes {
        return;
    }
    same(&[Sample("z", "", &["d 0755 y", "l x y"]), Sample("a", after, &["f 0644 x/f 1"])], "y/f", "-0644 1");
    same(
        &[Sample("z", "", &["f 0644 s/x/f 1"]), Sample("a", after, &["d 0755 y", "l s/x ../y"])],
        "s/x/f",
        "-0644 1",
    );
    for (replacing, replaced) in [("Replaces: a\n", after), ("", "Depends: z\nReplaces: z\n")] {
        let text = if replaced == after { "-0600 z" } else { "-0644 a" };
        same(
            &[Sample("z", replacing, &["f 0600 e/x z"]), Sample("a", replaced, &["f 0644 e/x a"])],
            "e/x",
            text,
        );
    }
    same(
        &[
            Sample("z", "Replaces: a\n", &["c 0600 e/x z"]),
            Sample("a", "Depends: z\nReplaces: z\n", &["c 0644 e/x z"]),
        ],
        "e/x",
        "-0644 z",
    );
}

#[test]
fn conflicts_are_those_of_dpkg() {
    if !is_root() {
        println!("SKIPPED: dpkg unpacks for root only");
        return;
    }
    let after = "Depends: z\n";
    refused(
        &[Sample("z", "", &["f 0644 x same"]), Sample("a", after, &["f 0644 x same"])],
        "/x is in a and in z",
    );
    refused(
        &[Sample("z", "", &["l x nowhere"]), Sample("a", after, &["f 0644 x/f 1"])],
        "(a directory and something else)",
    );
    refused(
        &[Sample("z", "", &["f 0644 x 1"]), Sample("a", after, &["f 0644 x/f 1"])],
        "/x is in a and in z",
    );
    same(
        &[Sample("z", "", &["d 0755 y", "l x y"]), Sample("a", after, &["d 0755 y", "l x /y"])],
        "x",
        "l0777 y",
    );
}

/// Packages of which each needs the one before it, so that there is one order: what dpkg makes of them is what
/// keller makes of them, whatever they are called.
#[test]
fn random_packages_are_put_together_as_dpkg_does() {
    if !is_root() {
        println!("SKIPPED: dpkg unpacks for root only");
        return;
    }
    let mut state = 0x9e37_79b9_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % limit
    };
    let mut both = 0;
    for round in 0..30 {
        let names = [["z", "m", "a"], ["a", "z", "m"], ["m", "a", "z"]][round % 3];
        let mut entries: [Vec<String>; 3] = Default::default();
        for (number, entries) in entries.iter_mut().enumerate() {
            for path in ["b", "d", "d/e"] {
                match below(4) {
                    0 => entries.push(format!("d {} s/{path}", ["0755", "0750", "0711"][below(3)])),
                    1 if path != "d" => entries.push(format!("f 0644 s/{path}/f{} {number}", below(4))),
                    2 if path == "b" => entries.push("d 0755 s/d".to_owned()),
                    3 if path == "b" => entries.push("l s/b d".to_owned()),
                    _ => {}
                }
            }
            if entries.iter().any(|entry| entry == "l s/b d") {
                entries.retain(|entry| !entry.contains(" s/b/") && !entry.ends_with(" s/b"));
            }
        }
        let fields: Vec<String> = (0..3)
            .map(|number| {
                let mut fields = String::new();
                if number > 0 {
                    fields += &format!("Depends: {}\n", names[number - 1]);
                }
                if below(3) == 0 {
                    fields += &format!("Replaces: {}\n", names[(number + 1) % 3]);
                }
                fields
            })
            .collect();
        let lists: Vec<Vec<&str>> =
            entries.iter().map(|entries| entries.iter().map(String::as_str).collect()).collect();
        let samples: Vec<Sample<'_>> =
            (0..3).map(|number| Sample(names[number], &fields[number], &lists[number])).collect();
        let Some((ours, theirs)) = judge(&samples) else { return };
        both += usize::from(ours.is_ok() && theirs);
    }
    assert!(both >= 10, "{both} of 30 were put together by both");
}
