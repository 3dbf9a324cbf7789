//! Small input that asks for much: each is refused with the limit that it passes, and keller takes no more memory for it
//! than a build may take.

mod documents;
mod images;
mod kernels;
mod libraries;
mod locks;
mod mirrors;
mod repositories;

use std::io::Write;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use keller::base::Digest;
use serde_json::json;

use super::archive::{Archive, KERNEL, Package};
use super::elf;
use super::project::{Project, Ran};
use crate::deb::{Entry, deb_with, file, tar, xz};
use crate::judges::fixture::Small;

/// Most memory of a build, in KiB: docs/design.md, "Numbers to hold".
const MOST: u64 = 300 << 10;

/// A run and the most memory that it had at any time, in KiB. One that hangs is ended, and fails.
fn measured(command: &mut Command) -> (Ran, u64) {
    let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let (status, begun) = (format!("/proc/{}/status", child.id()), Instant::now());
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        // The kernel's own high-water mark. That of wait4(2) would have the memory of this process in it.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let size =
            line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|size| size.trim().parse().ok());
        peak = peak.max(size.unwrap_or(0));
        if begun.elapsed() > Duration::from_secs(300) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |mut file: std::fs::File| {
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        bytes
    };
    (Ran::of(&Output { status, stdout: text(out), stderr: text(err) }), peak)
}

/// What a build says that must fail, within the memory of a build. How long it took is shown, and not judged: it hangs on
/// the machine.
pub fn refusal(project: &Project, arguments: &[&str]) -> String {
    let ran = within(&mut project.build_command(arguments));
    let error = ran.error().to_owned();
    assert_eq!(project.names("node/out").len(), 0, "{error}");
    error
}

/// A run within the memory of a build, and shown.
fn within(command: &mut Command) -> Ran {
    let begun = Instant::now();
    let (ran, peak) = measured(command);
    let (mib, seconds) = (peak >> 10, begun.elapsed().as_secs_f64());
    let shown: String = ran.err.trim().chars().take(300).collect();
    println!("{}: {mib} MiB, {seconds:.1} s: {shown}\n", std::thread::current().name().unwrap_or_default());
    assert!(peak < MOST, "{peak} KiB: {}", ran.err);
    ran
}

/// `count` times the xz stream of `bytes`, which is one stream to a decoder.
pub fn times(bytes: &[u8], count: usize) -> Vec<u8> {
    xz(bytes).repeat(count)
}

#[test]
fn an_index_of_one_line() {
    let project = Project::new();
    let index = |bytes: Vec<u8>| {
        Archive::write_files(project.archive.files_with(bytes), &project.path("mirror/debian"));
        refusal(&project, &[])
    };
    let place =
        "reading the packages of archive debian, suite trixie: decoding main/binary-amd64/Packages.xz: ";
    // 3 GiB.
    let told = index([xz(b"Package: app\nDepends: "), times(&vec![b'x'; 64 << 20], 48)].concat());
    assert!(
        told.ends_with(&format!("{place}line 2 has more than the 1.0 MiB that are read of one")),
        "{told}"
    );
    // 64 GiB of lines that say nothing.
    let line = format!("Tag: {}\n", "x".repeat(500_000));
    let told = index(times(line.repeat(64).as_bytes(), 2000));
    assert!(told.ends_with(&format!("{place}it unpacks to more than 1.0 GiB")), "{told}");
    // 40 million lines that are empty.
    let told = index(times(&vec![b'\n'; 10 << 20], 4));
    assert!(told.ends_with(&format!("{place}it has more than 20000000 lines")), "{told}");
    // Packages without end, and one package whose fields have none.
    let paragraph = format!("Package: a\nVersion: {}\nArchitecture: all\n\n", "1".repeat(2000));
    let told = index(times(paragraph.repeat(1000).as_bytes(), 100));
    assert!(told.contains(&format!("{place}the names, versions and relations up to its line ")), "{told}");
    assert!(told.ends_with("have more than 64.0 MiB together"), "{told}");
    let field = format!("Depends: {}\n", "x".repeat(1000)).repeat(2000);
    let told = index([xz(b"Package: a\nVersion: 1\n"), times(field.as_bytes(), 200)].concat());
    assert!(told.ends_with("have more than 64.0 MiB together"), "{told}");
}

/// The project with `package` in place of the one that greets.
pub fn with(package: &Package, deb: Vec<u8>) -> Project {
    let mut project = Project::new();
    project.archive.pool.retain(|path, _| !path.contains("greeter"));
    project.archive.add_deb(package, deb);
    project.publish();
    project
}

pub const CONTROL: &str =
    "Package: greeter\nVersion: 2.0-1\nArchitecture: amd64\nInstalled-Size: 900000000\n";

pub fn package_with(data: &[u8]) -> String {
    let greeter = Package::new("greeter", "2.0-1").field("Installed-Size: 900000000");
    refusal(&with(&greeter, deb_with(CONTROL, "data.tar.xz", data)), &[])
}

#[test]
fn a_path_of_two_thousand_directories() {
    let path = "d/".repeat(2000) + "x";
    let name = ("././@LongLink", b'L', "", path.len() as u64, path.as_bytes());
    let told = package_with(&xz(&tar(&[name, file("x", b"")])));
    assert!(told.contains("unpacking greeter 2.0-1: data.tar.xz: member \"d/d/"), "{told}");
    assert!(told.ends_with("it lies below more than 256 directories"), "{told}");
}

/// A header and what follows it, as the beginning of a larger archive.
pub fn part(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = tar(entries);
    bytes.truncate(bytes.len() - 1024);
    bytes
}

#[test]
fn more_members_and_names_than_fit_into_memory() {
    // The same name again and again, which is refused when the tree is made: before that, all of them are read.
    let members = part(&vec![("./d", b'5', "", 0, &b""[..]); 10_000]);
    let told = package_with(&times(&members, 30));
    assert!(told.ends_with("data.tar.xz: more than 200000 members"), "{told}");
    let path = format!("{}x", format!("{}/", "n".repeat(200)).repeat(20));
    let name = ("././@LongLink", b'L', "", path.len() as u64, path.as_bytes());
    let long = part(&[name, ("x", b'5', "", 0, b"")].repeat(100));
    let told = package_with(&times(&long, 200));
    assert!(told.ends_with("have more than 32.0 MiB together"), "{told}");
}

#[test]
fn windows_of_gigabytes() {
    // The header of a frame that asks for 2 GiB, and one of 3 bytes.
    let data = [0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 25, 0, 0, b'a', b'b', b'c'];
    let greeter = Package::new("greeter", "2.0-1");
    let project = with(&greeter, deb_with(CONTROL, "data.tar.zst", &data));
    let told = refusal(&project, &[]);
    assert!(told.contains("unpacking greeter 2.0-1: data.tar.zst: "), "{told}");
    assert!(
        told.contains("it asks for 2.0 GiB of memory to be decompressed, and 128.0 MiB are given"),
        "{told}"
    );
}

#[test]
fn a_module_of_gigabytes() {
    let mut project = Project::new();
    let module = [xz(&elf::module(&[], &[], &[])), times(&vec![0; 64 << 20], 32)].concat();
    let path = format!("usr/lib/modules/{KERNEL}/kernel/drivers/net/large.ko.xz");
    project.archive.add(&Package::new("linux-extra-tiny", "6.12-1").file(&path, module));
    project.publish();
    project.edit("greeter]", "greeter, linux-extra-tiny]");
    let told = refusal(&project, &[]);
    assert!(
        told.contains(&format!("/{path}")) && told.ends_with("it unpacks to more than 64.0 MiB"),
        "{told}"
    );
}

#[test]
fn a_module_that_names_a_great_many_things() {
    for (word, limit) in
        [("parm", "names more than 100000 aliases and symbols"), ("alias", "names more than 100000")]
    {
        let lines: Vec<String> = (0..200_000).map(|number| format!("{word}=p{number}:x")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut project = Project::new();
        let path = format!("usr/lib/modules/{KERNEL}/kernel/drivers/net/large.ko.xz");
        let module = xz(&elf::module(&lines, &[], &[]));
        project.archive.add(&Package::new("linux-extra-tiny", "6.12-1").file(&path, module));
        project.publish();
        project.edit("greeter]", "greeter, linux-extra-tiny]");
        let told = refusal(&project, &[]);
        assert!(told.contains(&format!("/{path}")) && told.contains(limit), "{told}");
    }
}

/// A container's image whose layers are `layers`, compressed as they come, in an OCI layout.
pub fn layout(project: &Project, layers: &[Vec<u8>]) {
    layout_of(project, layers, r#"{"config":{"Cmd":["/x"]}}"#);
}

/// The same with this configuration.
fn layout_of(project: &Project, layers: &[Vec<u8>], config: &str) {
    let blobs = project.path("node/image/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.to_hex()), bytes).unwrap();
        json!({ "digest": format!("sha256:{digest}"), "size": bytes.len() })
    };
    let layers: Vec<_> = layers.iter().map(|layer| put(layer)).collect();
    let config = put(config.as_bytes());
    let manifest = put(json!({ "config": config, "layers": layers }).to_string().as_bytes());
    project.write("node/image/index.json", json!({ "manifests": [manifest] }).to_string());
    project.write("node/image/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    if project.text("node/node.yaml").contains("build: hello.yaml") {
        project.edit("{build: hello.yaml}", "{archive: image}");
    }
}

/// A layer with one file of `size` zeros.
pub fn zeros(name: &str, size: u64) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&part(&[(name, b'0', "", size, b"")])[..512]).unwrap();
    std::io::copy(
        &mut std::io::Read::take(std::io::repeat(0), size.next_multiple_of(512) + 1024),
        &mut encoder,
    )
    .unwrap();
    encoder.finish().unwrap()
}

#[test]
fn layers_that_unpack_to_more_than_they_can_be() {
    let project = Project::new();
    layout(&project, &[zeros("a", 300 << 20)]);
    let told = refusal(&project, &[]);
    assert!(
        told.contains(": layer blobs/sha256/") && told.contains("member \"a\" brings the archive to"),
        "{told}"
    );
    assert!(told.ends_with(" that are allowed"), "{told}");
    let layer = xz(&tar(&[file("x", b"")]));
    layout(&project, &vec![layer.clone(); 501]);
    let told = refusal(&project, &[]);
    assert!(
        told.ends_with("the image has 501 layers, and at most 500 are read: build it with fewer"),
        "{told}"
    );
}

/// A layer of `count` small files, as packages of a language are laid out: many directories with a few files each. `seed`
/// makes its names and bodies others than those of another one.
fn many_files(count: usize, seed: usize) -> Vec<u8> {
    let names: Vec<(String, String)> = (0..count)
        .map(|number| {
            let (package, file) = (number / 10, number % 10);
            let name = format!("srv/application/node_modules/package-{seed}-{package}/lib/module-{file}.js");
            (name, format!("{seed} {number}"))
        })
        .collect();
    let program = elf::program();
    let mut entries: Vec<Entry<'_>> = names.iter().map(|(name, body)| file(name, body.as_bytes())).collect();
    entries.push(file("bin/x", &program));
    zstd::encode_all(tar(&entries).as_slice(), 1).unwrap()
}

/// What a node of a company has: ten images of an interpreted language. No limit of keller's is near, and neither is the
/// memory of a build.
#[test]
fn ten_images_of_thirty_thousand_files() {
    let project = Project::new();
    let mut containers = String::new();
    for number in 0..10 {
        layout(&project, &[many_files(30_000, number)]);
        std::fs::rename(project.path("node/image"), project.path(&format!("node/image{number}"))).unwrap();
        containers += &format!(
            "  - {{name: c{number}, image: {{archive: image{number}}}, command: [/bin/x], host_network: true}}\n"
        );
    }
    project.edit("  - {name: hello, image: {archive: image}, ports: [\"8080:80\"]}\n", &containers);
    project.edit("root: 64MiB", "root: 2GiB");
    let (ran, peak) = measured(&mut project.build_command(&[]));
    println!("ten images: {} MiB", peak >> 10);
    ran.good();
    assert!(peak < MOST, "{peak} KiB");
    // More than any node has are refused while images are read.
    let many: String = (0..20)
        .map(|number| format!("  - {{name: d{number}, image: {{archive: image0}}, command: [/bin/x]}}\n"))
        .collect();
    project.edit(&containers, &many);
    std::fs::remove_dir_all(project.path("node/out")).unwrap();
    let told = refusal(&project, &[]);
    let limit = "have more than 400000 files, directories and links together: make their images with fewer, or leave \
                 containers out";
    assert!(
        told.starts_with("error: building node/node.yaml: the containers up to d") && told.ends_with(limit),
        "{told}"
    );
}

/// Nearly as many names as packages may have, of several: what the threads that unpack them have freed is there for those
/// that write.
#[test]
fn packages_with_a_hundred_and_seventy_thousand_names() {
    let mut project = Project::new();
    let names = ["anise", "basil", "chives", "dill", "fennel", "thyme"];
    for name in names {
        let path = |number| format!("usr/share/{name}/directory-{}/file-{}", number / 10, number % 10);
        let whole = Package::new(name, "1");
        let whole = (0..26_000).fold(whole, |package, number| package.file(&path(number), "x"));
        project.archive.add(&whole);
    }
    project.publish();
    project.edit("greeter]", &format!("greeter, {}]", names.join(", ")));
    within(&mut project.build_command(&[])).good();
}

/// Layers that replace what those before them have: only what an image has in the end counts.
#[test]
fn layers_that_replace_each_other_count_once() {
    let project = Project::new();
    let layer = many_files(60_000, 1);
    layout(&project, &vec![layer; 4]);
    project.edit("{archive: image}", "{archive: image}, command: [/bin/x]");
    project.edit("root: 64MiB", "root: 1GiB");
    let (ran, peak) = measured(&mut project.build_command(&[]));
    println!("four layers: {} MiB", peak >> 10);
    ran.good();
    assert!(peak < MOST, "{peak} KiB");
}

#[test]
fn a_disk_that_is_full_while_unpacking() {
    // What is downloaded fits, and what is unpacked does not.
    let mut project = Project::new();
    let ballast = Package::new("ballast", "1").file("usr/share/ballast", vec![1; 20 << 20]);
    project.archive.add(&ballast);
    project.publish();
    project.edit("greeter]", "greeter, ballast]");
    let full = project.path("full-store");
    let Some(_small) = Small::mount(&full, "8m") else { return };
    let told = refusal(&project, &["--store", "full-store"]);
    assert!(told.contains("unpacking ballast: no space left in full-store for "), "{told}");
    assert!(told.ends_with("or name a directory elsewhere by --store or KELLER_STORE"), "{told}");

    let project = Project::new();
    layout(&project, &[zeros("a", 20 << 20)]);
    let full = project.path("full-tmp");
    let Some(_small) = Small::mount(&full, "8m") else { return };
    let (ran, _) = measured(project.build_command(&[]).env("TMPDIR", &full));
    let error = ran.error();
    let told = format!("no space left in {} for layer blobs/sha256/", full.display());
    assert!(error.contains(&told) && error.ends_with("or name a directory elsewhere by TMPDIR"), "{error}");

    let project = Project::new();
    let out = project.path("node/out");
    let Some(_small) = Small::mount(&out, "100k") else { return };
    let (ran, _) = measured(&mut project.build_command(&[]));
    let error = ran.error();
    let told = "writing node/out/tiny_1.2.3.raw (no space is left in node/out: free some, or name another directory \
                with --output): ";
    assert!(error.contains(told), "{error}");
}

#[test]
fn directories_in_the_place_of_files() {
    let project = Project::new();
    for name in ["tiny_1.2.3.raw", "SHA256SUMS", "build.json"] {
        std::fs::create_dir_all(project.path("node/out").join(name)).unwrap();
        let told = refusal(&project, &[]);
        let expected = format!(
            "error: node/out/{name} is a directory, and a file of this name is to be written: move it away, or name \
             another directory with --output"
        );
        assert_eq!(told, expected);
        std::fs::remove_dir(project.path("node/out").join(name)).unwrap();
    }
    std::fs::create_dir(project.path("node/node.lock")).unwrap();
    let told = refusal(&project, &[]);
    assert!(told.ends_with("reading node/node.lock: it is a directory, not a regular file"), "{told}");
}

#[test]
fn numbers_without_bound() {
    let project = Project::new();
    let ran = project.run(&["keys", "init", "--root-keys", "100000", "keys"]);
    let told =
        "error: making keys: 100000 root keys are more than the 64 of which nodes could read root.json";
    assert_eq!(ran.error(), told);
    assert!(!project.path("keys").exists());
    let ran = project.build(&["--threads", "1000000"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("at most 1024 are started"), "{}", ran.err);
    let ran = project.run(&["keys", "init", "--root-keys", "64", "--root-threshold", "64", "keys"]);
    ran.good();
    project.run(&["keys", "rotate", "root", "keys"]).good();
    let size = project.path("keys/2.root.json").metadata().unwrap().len();
    assert!(size < 256 << 10, "nodes read no more than 256 KiB of a root, and it has {size} bytes");
}
