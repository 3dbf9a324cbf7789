//! A whole build: the image to the byte, the files beside it, and what is said on the way.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use keller::base::progress::Silent;
use keller::base::{Digest, Size};
use keller::fs::{erofs, fat};
use keller::image::inspect;
use keller::tree::Content;

use super::project::Project;
use crate::dump::dump;
use crate::judges::tool::{run, tool};

/// What an image has, to the byte, as text that can be compared: of the parts first, then of the whole.
fn portrait(image: &Path) -> String {
    let open = || File::open(image).unwrap();
    let inspection = inspect::inspect(open(), true, &Silent).unwrap();
    assert!(inspection.problems.is_empty(), "{:?}", inspection.problems);
    let mut text = String::new();
    for part in &inspection.partitions {
        let (start, size) = (Size(part.start), Size(part.size));
        text += &format!("{} {} {start} {size} {} {:?}\n", part.label, part.kind, part.guid, part.flags);
    }
    let entry = &inspection.entries[0];
    text += &format!("\n{}\n{}\n\nroot\n", entry.path, entry.cmdline);
    let part = |kind: &str| inspection.partitions.iter().find(|part| part.kind == kind).unwrap();
    let root = part("root-x86-64");
    let content = Content::Slice { file: Arc::new(open()), offset: root.start, len: root.size };
    text += &dump(&erofs::Image::open(content).unwrap().tree().unwrap()).unwrap();
    text += "\nesp\n";
    let esp = part("esp");
    let window = Content::Slice { file: Arc::new(open()), offset: esp.start, len: esp.size };
    let bytes = std::io::Cursor::new(window.to_vec().unwrap());
    let mut volume = fat::Reader::open(bytes).unwrap();
    for file in volume.list().unwrap() {
        let Some(size) = file.size else { continue };
        let digest = Digest::of_reader(&mut volume.file(&file.path).unwrap()).unwrap().0;
        text += &format!("{} {size} {digest}\n", file.path);
    }
    text
}

/// Compares with the file `name`, or writes it anew with KELLER_BLESS=1: then read the difference.
fn pinned(name: &str, text: &str) {
    let path = Path::new("tests/cli").join(name);
    if std::env::var_os("KELLER_BLESS").is_some() {
        std::fs::write(path, text).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (old, new) = (lines(&kept), lines(text));
    assert!(
        kept == text,
        "the bytes of the image changed. Gone:\n  {}\nNew:\n  {}\nWith KELLER_BLESS=1, {} is written anew.",
        old.difference(&new).cloned().collect::<Vec<_>>().join("\n  "),
        new.difference(&old).cloned().collect::<Vec<_>>().join("\n  "),
        path.display()
    );
}

#[test]
fn every_byte_is_pinned() {
    let project = Project::new();
    project.edit("runtime: podman", OUTPUTS);
    let ran = project.build(&[]).good();
    let suffixes = ["raw.zst", "vmdk", "fixed.vhd", "vhd", "qcow2", "raw"];
    assert_eq!(ran.out, suffixes.map(|suffix| format!("node/out/tiny_1.2.3.{suffix}\n")).concat());
    let names: Vec<String> = project.names("node/out").into_keys().collect();
    let mut expected = suffixes.map(|suffix| format!("tiny_1.2.3.{suffix}"));
    expected.sort();
    assert_eq!(names, [&["SHA256SUMS".to_owned(), "build.json".to_owned()], &expected[..]].concat());

    let sums = project.text("node/out/SHA256SUMS");
    // build.json names the lock, and the lock the key that this test has made.
    let images: String =
        sums.lines().filter(|line| !line.ends_with("build.json")).map(|line| format!("{line}\n")).collect();
    pinned("image.txt", &(images + "\n" + &portrait(&project.path("node/out/tiny_1.2.3.raw"))));

    let mut lock = project.json("node/node.lock");
    let release = lock["provenance"]["releases"]["debian trixie"].take();
    assert_eq!(release["date"], super::archive::RELEASED);
    assert_eq!(release["signed_by"][0], super::archive::KEY.fingerprint().to_hex());
    assert!(lock["provenance"]["judged_at"].take().as_i64().unwrap() > super::archive::RELEASED);
    pinned("lock.json", &(serde_json::to_string_pretty(&lock).unwrap() + "\n"));
    assert!(!project.text("node/node.lock").contains("mirror"), "a lock never says where");

    if let Some(mut sha256sum) = tool("sha256sum") {
        run(sha256sum.args(["--check", "--strict", "SHA256SUMS"]).current_dir(project.path("node/out")));
    }
    if tool("qemu-img").is_some() {
        for suffix in ["qcow2", "vmdk", "vhd", "fixed.vhd"] {
            let images = ["tiny_1.2.3.raw".to_owned(), format!("tiny_1.2.3.{suffix}")];
            let format = if suffix.ends_with("vhd") { "vpc" } else { suffix };
            let mut compare = tool("qemu-img").expect("as before");
            compare.args(["compare", "-f", "raw", "-F", format]).args(images);
            run(compare.current_dir(project.path("node/out")));
        }
    }
    if let Some(mut zstd) = tool("zstd") {
        run(zstd.args(["-t", "tiny_1.2.3.raw.zst"]).current_dir(project.path("node/out")));
    }
}

/// Every format, as a field of the manifest.
const OUTPUTS: &str = "outputs: [qcow2, raw, vhd, vhd-fixed, vmdk, raw.zst]\nruntime: podman";

/// Nothing of where, when or by how many processors a build is made is in a file of any format.
#[test]
fn two_builds_elsewhere_give_the_same_files() {
    let build = |threads: &str| {
        let project = Project::new();
        project.edit("runtime: podman", OUTPUTS);
        project.build(&["--output", "elsewhere", "--threads", threads]).good();
        let sums = project.text("elsewhere/SHA256SUMS");
        sums.lines().filter(|line| !line.ends_with("build.json")).map(str::to_owned).collect::<Vec<_>>()
    };
    let sums = build("1");
    assert_eq!(sums.len(), 6);
    assert_eq!(build("3"), sums);
}

/// A disk that a format cannot hold is refused before anything is built.
#[test]
fn a_disk_that_is_too_large_for_an_output_is_refused() {
    let project = Project::new();
    project.edit("runtime: podman", "outputs: [raw, vhd-fixed]\nruntime: podman");
    project.edit("min: 64MiB", "min: 2040GiB");
    let ran = project.build(&[]);
    let said = "outputs: a vhd holds a disk of 2040GiB at most, and `disk` asks for 2.0 TiB: make it smaller, or leave this \
                output out";
    assert!(ran.error().contains(said), "{}", ran.err);
    assert!(!project.path("node/out").exists());
}

#[test]
fn the_report_says_what_was_built() {
    let project = Project::new();
    let ran = project.build(&["--json"]).good();
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(said["files"], serde_json::json!(["node/out/tiny_1.2.3.raw"]));
    let report = project.json("node/out/build.json");
    assert_eq!(said["build"], report);
    assert_eq!((&report["id"], &report["version"]), (&"tiny".into(), &"1.2.3".into()));
    assert_eq!(report["packages"]["greeter"], "2.0-1");
    assert_eq!(report["containers"]["hello"]["libgreet1"], "2.0-1");
    assert_eq!(report["kernel_version"], super::archive::KERNEL);
    assert_eq!(report["keller_sha256"], Digest::of(project.read("fake-keller")).to_hex());
    assert_eq!(report["lock_sha256"], Digest::of(project.read("node/node.lock")).to_hex());
    assert_eq!(report["image"], project.path("node/out/tiny_1.2.3.raw").metadata().unwrap().len());
    assert_eq!(report["disk"], 324 << 20);
    let cmdline = report["cmdline"].as_str().unwrap();
    assert!(
        cmdline.contains(report["root_hash"].as_str().unwrap()) && cmdline.ends_with(" quiet"),
        "{cmdline}"
    );
}

#[test]
fn a_version_of_the_command_line_is_the_version_everywhere() {
    let (project, other) = (Project::new(), Project::new());
    project.build(&[]).good();
    let lock = project.read("node/node.lock");
    let ran = project.build(&["--version", "2.0.0~rc1", "--locked"]).good();
    assert_eq!(ran.out, "node/out/tiny_2.0.0~rc1.raw\n");
    // The lock pins packages; a version changes none.
    assert_eq!(project.read("node/node.lock"), lock);
    assert_eq!(project.json("node/out/build.json")["version"], "2.0.0~rc1");
    let shown = project.run(&["inspect", "node/out/tiny_2.0.0~rc1.raw"]).good().out;
    for part in ["Slot a     tiny 2.0.0~rc1", "tiny 2.0.0~rc1 (keller", "EFI/Linux/tiny_2.0.0~rc1.efi"] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    // The same bytes as if the manifest said so.
    other.edit("version: 1.2.3", "version: 2.0.0~rc1");
    other.build(&[]).good();
    let sums = |project: &Project| project.text("node/out/SHA256SUMS").lines().next_back().map(str::to_owned);
    assert_eq!(sums(&project), sums(&other));
    assert!(sums(&other).unwrap().ends_with("tiny_2.0.0~rc1.raw"));

    for (version, said) in [
        ("1_2", "`_` stands between id and version"),
        ("1+2", "begins the boot counter"),
        ("", "begin with a letter or digit"),
        ("-1", "begin with a letter or digit"),
    ] {
        let ran = project.build(&[&format!("--version={version}")]);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.contains(said), "{}", ran.err);
    }
    let ran = project.build(&["--version", &"1".repeat(30)]);
    assert!(ran.error().starts_with("error: --version: id tiny and version 1111"), "{}", ran.err);
    assert!(ran.err.contains("at most 28 characters"), "{}", ran.err);
}

#[test]
fn quiet_says_nothing() {
    let project = Project::new();
    let ran = project.build(&["-q"]).good();
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    project.edit("greeter]", "greter]");
    let ran = project.build(&["--quiet"]);
    assert!(ran.error().contains("no archive has a package greter; did you mean greeter?"), "{}", ran.err);
    assert!(ran.err.starts_with("error: "), "{}", ran.err);
}

#[test]
fn the_same_bytes_anywhere() {
    let sums = |project: &Project| project.text("node/out/SHA256SUMS").lines().next_back().map(str::to_owned);
    let one = Project::new();
    one.build(&["--threads", "1"]).good();
    let image = sums(&one).filter(|line| line.ends_with(".raw")).unwrap();

    // Another folder, umask, locale, number of threads; a lock made anew out of a store fetched anew.
    let other = Project::new();
    let command = other.build_command(&["--threads", "3", "--check"]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    shell
        .current_dir(other.path("."))
        .env_clear()
        .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    shell.env("LC_ALL", "tr_TR.UTF-8").env("TZ", "Asia/Kolkata");
    run(&mut shell);
    assert_eq!(sums(&other), Some(image.clone()));

    // Nothing but lock and store.
    std::fs::remove_dir_all(one.path("mirror")).unwrap();
    std::fs::remove_file(one.path("logo")).unwrap();
    std::fs::remove_dir_all(one.path("node/out")).unwrap();
    let lock = one.read("node/node.lock");
    one.build(&["--locked", "--offline"]).good();
    assert_eq!(sums(&one), Some(image));
    assert_eq!(one.read("node/node.lock"), lock);
}

#[test]
fn exit_codes() {
    let project = Project::new();
    for arguments in [&["build", "--no-such-flag"][..], &["biuld"], &[], &["lock"], &["build", "-q", "-v"]] {
        let ran = project.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains("Usage: keller"), "{}", ran.err);
    }
    let ran = project.run(&["build", "--keller", "fake-keller", "gone.yaml"]);
    assert!(ran.error().contains("gone.yaml") && ran.error().contains("No such file"), "{}", ran.err);
    let ran = project.run(&["build", "--keller", "logo", "node/node.yaml"]);
    assert!(ran.error().contains("logo is not a static x86_64 program"), "{}", ran.err);
    assert_eq!(project.run(&["--version"]).good().out, format!("keller {}\n", env!("CARGO_PKG_VERSION")));
}
