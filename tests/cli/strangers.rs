//! Text of strangers on the user's terminal: what a terminal would act upon is shown, and not done.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::archive::Package;
use super::project::{Project, Ran};

const IMAGE: &str = "node/out/tiny_1.2.3.raw";

/// Gives partition 1 the label `label`, in both tables, with their checksums made good.
fn label(project: &Project, label: &str) {
    let image = File::options().read(true).write(true).open(project.path(IMAGE)).unwrap();
    let size = image.metadata().unwrap().len();
    let mut name: Vec<u8> = label.encode_utf16().flat_map(u16::to_le_bytes).collect();
    name.resize(72, 0);
    for header in [512, size - 512] {
        let mut block = [0; 512];
        image.read_exact_at(&mut block, header).unwrap();
        assert_eq!(&block[..8], b"EFI PART");
        let number = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
        let entries = u64::from_le_bytes(block[72..80].try_into().unwrap()) * 512;
        let mut table = vec![0; (number(80) * number(84)) as usize];
        image.read_exact_at(&mut table, entries).unwrap();
        table[56..128].copy_from_slice(&name);
        image.write_all_at(&table, entries).unwrap();
        block[88..92].copy_from_slice(&crc32fast::hash(&table).to_le_bytes());
        block[16..20].fill(0);
        let length = u32::from_le_bytes(block[12..16].try_into().unwrap()) as usize;
        let sum = crc32fast::hash(&block[..length]);
        block[16..20].copy_from_slice(&sum.to_le_bytes());
        image.write_all_at(&block, header).unwrap();
    }
}

/// Nothing that a terminal would act upon.
fn harmless(ran: &Ran) {
    for text in [&ran.out, &ran.err] {
        let acts = |letter: &char| {
            (letter.is_control() && !matches!(letter, '\n' | '\t'))
                || matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
        };
        assert_eq!(text.chars().find(acts), None, "{text:?}");
    }
}

#[test]
fn labels_of_partitions() {
    let project = Project::new();
    project.build(&[]).good();
    for (name, shown) in [
        ("\u{1b}[2J\u{1b}]0;owned\u{7}", r"\u{1b}[2J\u{1b}]0;owned\u{7}"),
        ("a\u{9b}31mb\rc", r"a\u{9b}31mb\u{d}c"),
        ("esp\u{202e}gnp.exe", r"esp\u{202e}gnp.exe"),
        ("x\nerror: all is lost", r"x\u{a}error: all is lost"),
        ("es\u{200b}p\u{e0041}\u{fe0f}\u{feff}", r"es\u{200b}p\u{e0041}\u{fe0f}\u{feff}"),
    ] {
        label(&project, name);
        let ran = project.run(&["inspect", IMAGE]);
        harmless(&ran);
        assert!(ran.out.contains(shown), "{}", ran.out);
        let ran = project.run(&["inspect", "--json", IMAGE]);
        harmless(&ran);
        let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(said["partitions"][0]["label"], name, "JSON keeps it");
    }
}

#[test]
fn errors_warnings_and_arguments() {
    let mut project = Project::new();
    // A member of a package, a file of an overlay, a word of the command line, a path.
    let deb = Package::new("evil", "1").member("./usr/\u{1b}[31mred", b'2', "/").member(
        "./usr/\u{1b}[31mred/x",
        b'0',
        "",
    );
    project.archive.add(&deb);
    project.publish();
    project.edit("greeter]", "greeter, evil]");
    let ran = project.build(&[]);
    harmless(&ran);
    assert!(ran.error().contains(r"\u{1b}[31mred"), "{}", ran.err);
    project.edit("greeter, evil]", "greeter]");
    project.write("node/overlay/etc/\u{1b}]0;x\u{7}\u{202e}~", "");
    let ran = project.build(&[]);
    harmless(&ran);
    assert!(ran.err.contains(r"\u{1b}]0;x\u{7}\u{202e}~"), "{}", ran.err);
    // A name of two lines could pass for a word of keller's own.
    std::fs::remove_file(project.path("node/overlay/etc/\u{1b}]0;x\u{7}\u{202e}~")).unwrap();
    project.write("node/overlay/etc/x\nerror: all is lost~", "");
    let ran = project.build(&[]);
    assert!(ran.err.contains(r"x\u{a}error: all is lost~") && !ran.err.contains("\nerror: "), "{}", ran.err);
    for arguments in [
        &["inspect", "\u{1b}[2Jx"][..],
        &["\u{1b}[2Jx"],
        &["build", "--\u{1b}[2Jx"],
        &["check", "\u{9b}2J\u{2066}"],
    ] {
        let ran = project.run(arguments);
        assert_ne!(ran.code, Some(0));
        harmless(&ran);
        let has_escape = arguments.concat().contains('\u{9b}') || arguments[0] == "inspect";
        assert!(!has_escape || ran.err.contains(r"\u{"), "{}", ran.err);
        harmless(&project.run(&[arguments, &["--json"]].concat()));
    }
}

/// No line of `ran` is one that a stranger wrote.
fn forged(ran: &Ran) {
    for text in [&ran.out, &ran.err] {
        let line = text.lines().find(|line| line.starts_with("error: all is lost"));
        assert_eq!(line, None, "{text}");
    }
}

#[test]
fn a_name_of_two_lines_makes_no_message_of_its_own() {
    const TWO: &str = "x\nerror: all is lost";
    let quoted = serde_json::to_string(TWO).unwrap();
    let project = Project::new();
    project.run(&["lock", "node/node.yaml"]).good();
    // A link and a pipe of an overlay, and what they lead to.
    let path = project.path("node/overlay/etc").join(TWO);
    std::os::unix::fs::symlink(format!("/gone/{TWO}"), &path).unwrap();
    let ran = project.build(&[]);
    assert!(ran.error().contains("/etc/x\n  error: all is lost"), "{}", ran.err);
    forged(&ran);
    std::fs::remove_file(&path).unwrap();
    // The manifest of somebody else: what it names, says and lacks.
    for (from, to) in [
        ("runtime: podman", format!("runtime: {quoted}")),
        ("overlays: [overlay]", format!("overlays: [{quoted}]")),
        ("version: 1.2.3", format!("version: 1.2.3\n{quoted}: 1")),
        (
            "prune: [/usr/share/doc]",
            format!("prune: [{}]", serde_json::to_string(&format!("/{TWO}")).unwrap()),
        ),
    ] {
        project.edit(from, &to);
        forged(&project.run(&["check", "node/node.yaml"]));
        forged(&project.build(&[]));
        project.edit(&to, from);
    }
    // A lock, a document, and an argument.
    let lock = project.text("node/node.lock");
    project.write("node/node.lock", lock.replacen("\"tiny\"", &quoted, 1));
    let ran = project.build(&[]);
    assert!(ran.error().contains("is the lock of x\n  error: all is lost"), "{}", ran.err);
    forged(&ran);
    project.write("doc.yaml", format!("node: 1\nname: a\nmatch: {{serial: {quoted}}}\n"));
    let ran = project.run(&["node", "check", "doc.yaml"]).good();
    assert!(ran.out.contains(r"serial x\u{a}error: all is lost"), "{}", ran.out);
    forged(&ran);
    forged(&project.run(&["inspect", TWO]));
    let said: serde_json::Value =
        serde_json::from_str(&project.run(&["inspect", "--json", TWO]).out).unwrap();
    assert!(said["error"].as_str().unwrap().contains(TWO), "JSON keeps it");
}
