//! Unpacked packages against dpkg-deb and tar: path, type, mode, owner, time, target and digest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use keller::base::Digest;
use keller::base::progress::Silent;
use keller::rootfs::checks::{Inputs, check};
use keller::rootfs::packages::{PackageInput, Unpacked, assemble, unpack};
use keller::store::Store;
use keller::tree::{Kind, Tree};

use super::tool::tool;

/// One line for each path: type and mode, owner, time, size or device, target, digest.
type Listing = BTreeMap<String, String>;

fn ours(tree: &Tree) -> Listing {
    let mut listing = Listing::new();
    for (path, id) in tree.walk() {
        let node = tree.node(id);
        let meta = &node.meta;
        let (size, tail) = match &node.kind {
            Kind::File(content) => {
                let (digest, size) = Digest::of_reader(&mut content.reader()).unwrap();
                (size.to_string(), digest.to_hex())
            }
            Kind::Symlink(target) => ("0".to_owned(), String::from_utf8(target.clone()).unwrap()),
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                (format!("{major},{minor}"), String::new())
            }
            _ => ("0".to_owned(), String::new()),
        };
        let time = jiff::Timestamp::from_second(meta.mtime).unwrap().strftime("%Y-%m-%d %H:%M:%S");
        let letter = node.kind.letter();
        let line = format!("{letter}{:04o} {}/{} {time} {size} {tail}", meta.mode, meta.uid, meta.gid);
        listing.insert(String::from_utf8(path).unwrap(), line);
    }
    listing
}

/// `rwxr-sr-x` as a number.
fn mode(letters: &str) -> u16 {
    letters.bytes().enumerate().fold(0, |mode, (index, letter)| {
        let bit = 1 << (8 - index);
        let special = 1 << (11 - index / 3);
        mode | match letter {
            b'-' => 0,
            b's' | b't' => bit | special,
            b'S' | b'T' => special,
            _ => bit,
        }
    })
}

/// What tar lists of the package's data; digests from the files as dpkg-deb extracts them.
fn theirs(deb: &Path) -> Option<Listing> {
    let folder = tempfile::tempdir().unwrap();
    let extracted = tool("dpkg-deb")?.arg("-x").arg(deb).arg(folder.path()).status().unwrap();
    assert!(extracted.success(), "dpkg-deb -x {}", deb.display());
    let (mut dpkg, mut tar) = (tool("dpkg-deb")?, tool("tar")?);
    let mut data = dpkg.arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped()).spawn().unwrap();
    let output = tar
        .args(["--numeric-owner", "--full-time", "--quoting-style=literal", "-tvf", "-"])
        .env("TZ", "UTC")
        .stdin(data.stdout.take().unwrap())
        .output()
        .unwrap();
    let unpacked = data.wait().unwrap();
    assert!(output.status.success() && unpacked.success());
    let clean = |path: &str| path.trim_start_matches("./").trim_end_matches('/').to_owned();
    let mut listing = Listing::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut rest = line;
        let mut field = || {
            let (field, tail) = rest.trim_start().split_once(' ').unwrap();
            rest = tail;
            field
        };
        let (kind, owner, size, date, time) = (field(), field(), field(), field(), field());
        let (letter, mode) = (&kind[..1], mode(&kind[1..10]));
        let line = |path: &str, letter: &str, tail: &str| {
            (clean(path), format!("{letter}{mode:04o} {owner} {date} {time} {size} {tail}"))
        };
        let (path, line) = match letter {
            "h" => {
                let (path, target) = rest.split_once(" link to ").unwrap();
                (clean(path), listing[&clean(target)].clone())
            }
            "l" => {
                let (path, target) = rest.split_once(" -> ").unwrap();
                line(path, "l", target)
            }
            "-" => {
                let digest = Digest::of(fs::read(folder.path().join(rest)).unwrap());
                line(rest, "-", &digest.to_hex())
            }
            other => line(rest, other, ""),
        };
        listing.insert(path, line);
    }
    Some(listing)
}

fn input(deb: &Path) -> Option<PackageInput> {
    let output =
        tool("dpkg-deb")?.args(["-W", "--showformat=${Package} ${Version}"]).arg(deb).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (name, version) = text.split_once(' ').unwrap();
    let (sha256, size) = Digest::of_reader(&mut File::open(deb).unwrap()).unwrap();
    let deb = File::open(deb).unwrap();
    Some(PackageInput { name: name.to_owned(), version: version.to_owned(), deb, sha256, size })
}

fn judge(unpacked: &Unpacked, deb: &Path) {
    let (ours, theirs) = (ours(&unpacked.tree), theirs(deb).unwrap());
    for (path, line) in &theirs {
        assert_eq!(ours.get(path), Some(line), "{} of {}", path, unpacked.name);
    }
    assert_eq!(ours.len(), theirs.len(), "{}", unpacked.name);
}

/// A package with everything that dpkg-deb packs without being root.
fn build(folder: &Path, compression: &str) -> Option<PathBuf> {
    let root = folder.join(compression);
    for directory in ["DEBIAN", "usr/bin", "usr/share/doc/sample"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let control = "Package: sample\nVersion: 1:2.0-3~x\nArchitecture: all\nMaintainer: A <a@b.example>\nReplaces: old (<< 2)\nDescription: x\n";
    fs::write(root.join("DEBIAN/control"), control).unwrap();
    fs::write(root.join("DEBIAN/postinst"), "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(root.join("DEBIAN/postinst"), fs::Permissions::from_mode(0o755)).unwrap();
    let file = |path: &str, bytes: &[u8], mode| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    file("usr/bin/a", &[0x7f; 5000], 0o4755);
    file("usr/bin/empty", b"", 0o2750);
    file(&format!("usr/share/{}/{}", "d".repeat(120), "n".repeat(200)), b"long", 0o644);
    file("usr/share/gr\u{fc}n", b"x", 0o600);
    fs::hard_link(root.join("usr/bin/a"), root.join("usr/bin/z")).unwrap();
    symlink("t".repeat(300), root.join("usr/bin/far")).unwrap();
    symlink("../../etc", root.join("usr/bin/link")).unwrap();
    fs::set_permissions(root.join("usr/share/doc/sample"), fs::Permissions::from_mode(0o1777)).unwrap();
    let deb = folder.join(format!("{compression}.deb"));
    let status = tool("dpkg-deb")?
        .args(["--root-owner-group", &format!("-Z{compression}"), "-b"])
        .args([&root, &deb])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    Some(deb)
}

#[test]
fn each_compression_gives_what_dpkg_gives() {
    let folder = tempfile::tempdir().unwrap();
    for compression in ["none", "gzip", "xz", "zstd"] {
        let Some(deb) = build(folder.path(), compression) else { return };
        let store = Store::open(folder.path().join("store")).unwrap();
        for _cold_then_warm in 0..2 {
            let inputs = [input(&deb).unwrap()];
            let unpacked = unpack(&inputs, &store, 0, &Silent).unwrap();
            judge(&unpacked[0], &deb);
            let digest = Digest::of("#!/bin/sh\nexit 0\n");
            assert_eq!(unpacked[0].scripts, BTreeMap::from([("postinst".to_owned(), digest)]));
            assert!(unpacked[0].control.replaces("old", "1"));
        }
    }
}

/// Needs KELLER_TEST_DEBS, a folder of packages that go together; shows how long each part takes.
#[test]
#[ignore = "needs real packages in KELLER_TEST_DEBS"]
fn real_packages_give_what_dpkg_gives() {
    let folder = std::env::var_os("KELLER_TEST_DEBS").expect("KELLER_TEST_DEBS names a folder of packages");
    let mut debs: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    debs.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    debs.sort();
    let store_folder = tempfile::tempdir().unwrap();
    let store = Store::open(store_folder.path()).unwrap();
    let inputs: Vec<_> = debs.iter().map(|deb| input(deb).expect("dpkg-deb is needed")).collect();
    for state in ["cold", "warm"] {
        let start = std::time::Instant::now();
        let unpacked = unpack(&inputs, &store, 0, &Silent).unwrap();
        let unpacking = start.elapsed();
        let tree = assemble(0, unpacked.clone(), &Silent).unwrap();
        eprintln!(
            "{state}: {unpacking:?}, assembled {} nodes in {:?}",
            tree.capacity(),
            start.elapsed() - unpacking
        );
        let start = std::time::Instant::now();
        let findings = check(&tree, &Inputs::default());
        eprintln!("{state}: {} findings in {:?}", findings.len(), start.elapsed());
        if state == "warm" {
            findings.iter().for_each(|finding| eprintln!("{:?}: {finding}", finding.severity));
            unpacked.iter().zip(&debs).for_each(|(unpacked, deb)| judge(unpacked, deb));
        }
    }
}
