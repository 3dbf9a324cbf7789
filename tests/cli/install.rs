//! `keller install`: an image onto a file, a loop device, and onto nothing where there is a reason.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keller::base::Digest;
use keller::base::progress::Silent;
use keller::disk::gpt;
use keller::disk::{Device, FileDevice, ReadAt, SectorSize, Window};
use keller::fs::fat;
use keller::node::Policy;
use keller::project::install::{
    BootEntry, DocumentOrigin, Ground, Install, Origin, Refusal, State, Target, Then, after,
};
use serde_json::{Value, json};

use super::project::{Project, Ran};
use crate::http_server::{Act, Server};
use crate::judges::tool::{as_root, run, tool};

pub const IMAGE: &str = "node/out/tiny_1.2.3.raw";
const PACKED: &str = "node/out/tiny_1.2.3.raw.zst";
pub const SIZE: u64 = 400 << 20;
const DOCUMENT: &str = "node: 1\nname: rack1-07\ncredentials: {web.key: s3cret}\n";

/// A project with an image in the formats that are installed.
fn project() -> Project {
    let project = Project::new();
    project.edit("runtime: podman", "outputs: [raw, raw.zst, qcow2]\nruntime: podman");
    project.build(&[]).good();
    project.write("rack1.yaml", DOCUMENT);
    project
}

/// An empty disk, as a file.
pub fn blank(project: &Project, name: &str, size: u64) {
    File::create(project.path(name)).unwrap().set_len(size).unwrap();
}

/// Whether there is nothing on the disk `name`.
pub fn is_blank(project: &Project, name: &str) -> bool {
    fs::read(project.path(name)).unwrap().iter().all(|byte| *byte == 0)
}

pub fn inspected(project: &Project, path: &str) -> Value {
    serde_json::from_str(&project.run(&["inspect", "--verify", "--json", path]).good().out).unwrap()
}

/// The document in the ESP of the disk at `path`.
pub fn document(project: &Project, path: &str) -> Option<String> {
    let disk = FileDevice::image(File::open(project.path(path)).unwrap(), SectorSize::B512).unwrap();
    let table = gpt::read(&disk, SectorSize::B512).unwrap().table;
    let esp = table.esp(None).unwrap();
    let mut reader = fat::Reader::open(Window::new(&disk, esp.start, esp.size)).unwrap();
    let bytes = reader.read("EFI/keller/node.yaml", 1 << 20).ok()?;
    Some(String::from_utf8(bytes).unwrap())
}

/// What is on the disk must be what is in the image, and a disk that starts.
fn same(project: &Project, disk: &str) {
    let (image, disk) = (inspected(project, IMAGE), inspected(project, disk));
    assert_eq!((&disk["form"], &disk["problems"]), (&json!("node"), &json!([])));
    assert_eq!(disk["slots"][0], image["slots"][0]);
    assert_eq!(disk["slots"][0]["root"]["verified"], true);
    assert_eq!(disk["slots"][1]["release"], Value::Null);
    assert_eq!(disk["entries"], image["entries"]);
    let labels: Vec<_> = disk["partitions"].as_array().unwrap().iter().map(|part| &part["label"]).collect();
    let expected =
        ["esp", "tiny_1.2.3", "tiny_1.2.3_verity", "_empty", "_empty", "keller-reserve", "keller-state"];
    assert_eq!(labels.len(), expected.len());
    assert!(expected.iter().all(|label| labels.iter().any(|found| *found == label)), "{labels:?}");
    // What a boot entry names is this disk's for good: of version 4, which the first boot leaves.
    for guid in [&disk["disk_guid"], &disk["partitions"][0]["guid"]] {
        assert_eq!(guid.as_str().unwrap().as_bytes()[14], b'4', "{guid}");
    }
}

#[test]
fn an_image_becomes_the_disk_of_a_node() {
    let project = project();
    blank(&project, "disk", SIZE);
    let ran = project.run(&["install", "--json", "--document", "rack1.yaml", IMAGE, "disk"]).good();
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&said["state"], &said["version"], &said["document"]),
        (&json!("installed"), &json!("1.2.3"), &json!(true))
    );
    assert!(said["next"].as_str().unwrap().starts_with("start the machine from disk"), "{said}");
    same(&project, "disk");
    assert_eq!(document(&project, "disk").as_deref(), Some(DOCUMENT));
    if let Some(mut sgdisk) = tool("sgdisk") {
        let said = run(sgdisk.arg("--verify").arg(project.path("disk")));
        assert!(said.contains("No problems found"), "{said}");
    }

    // Once more: nothing is written, whatever was to be wiped.
    let before = Digest::of(project.read("disk"));
    for more in [&["--document", "rack1.yaml"][..], &[], &["--wipe", "other"]] {
        let ran = project.run(&[&["install", IMAGE, "disk"], more].concat()).good();
        assert!(
            ran.out.starts_with("disk has tiny 1.2.3 already: nothing was written\nnext: start"),
            "{}",
            ran.out
        );
    }
    assert_eq!(Digest::of(project.read("disk")), before);

    // Another document is another node: what is there goes only when it is named.
    project.write("rack2.yaml", DOCUMENT.replace("07", "08"));
    let ran = project.run(&["install", "--document", "rack2.yaml", IMAGE, "disk"]);
    let guid = said["disk_guid"].as_str().unwrap();
    let end = format!("If that is meant, add --wipe {}", &guid[..8]);
    let error = ran.error().to_owned();
    assert!(
        error.starts_with("error: disk is not empty, it has a partition table (GPT) with 7 partitions: "),
        "{error}"
    );
    assert!(error.contains("tiny_1.2.3 (erofs)") && error.ends_with(&end), "{error}");
    assert_eq!(Digest::of(project.read("disk")), before);
    let ran = project.run(&["install", "--document", "rack2.yaml", "--wipe", "00000000", IMAGE, "disk"]);
    assert_eq!(ran.error(), format!("error: --wipe 00000000 names another disk: disk is {}", &guid[..8]));
    project.run(&["install", "--document", "rack2.yaml", "--wipe", &guid[..8], IMAGE, "disk"]).good();
    same(&project, "disk");
    assert_eq!(document(&project, "disk"), Some(DOCUMENT.replace("07", "08")));
}

#[test]
fn a_disk_may_have_a_state_and_nothing_else() {
    let project = project();
    blank(&project, "disk", SIZE);
    let only = |disk: &str, more: &[&str]| {
        project.run(&[&["install", "--json", "--only-state"], more, &[IMAGE, disk]].concat())
    };
    let said: Value = serde_json::from_str(&only("disk", &[]).good().out).unwrap();
    assert_eq!((&said["state"], &said["only_state"]), (&json!("installed"), &json!(true)));
    assert!(said["next"].as_str().unwrap().starts_with("start the machine from memory again"), "{said}");
    let disk = FileDevice::image(File::open(project.path("disk")).unwrap(), SectorSize::B512).unwrap();
    let table = gpt::read(&disk, SectorSize::B512).unwrap().table;
    let labels: Vec<_> = table.entries.iter().map(|entry| entry.label.as_str()).collect();
    assert_eq!(labels, ["keller-reserve", "keller-state"]);
    // The state has what the reserve leaves, but for the place of each table.
    assert_eq!(table.entries.iter().map(|entry| entry.size).sum::<u64>(), SIZE - (2 << 20));
    if let Some(mut sgdisk) = tool("sgdisk") {
        let said = run(sgdisk.arg("--verify").arg(project.path("disk")));
        assert!(said.contains("No problems found"), "{said}");
    }
    let found = inspected(&project, "disk");
    assert_eq!((&found["form"], &found["problems"]), (&json!("state"), &json!([])));
    let before = Digest::of(project.read("disk"));
    let said: Value = serde_json::from_str(&only("disk", &[]).good().out).unwrap();
    assert_eq!(said["state"], "already");
    assert_eq!(Digest::of(project.read("disk")), before);

    // It is somebody's: nothing else takes it unasked.
    let error = project.run(&["install", IMAGE, "disk"]).error().to_owned();
    assert!(
        error.starts_with("error: disk is not empty, it has a partition table (GPT) with 2 partitions"),
        "{error}"
    );
    let error = project.run(&["install", "--keep-state", IMAGE, "disk"]).error().to_owned();
    assert!(error.contains("has no state that could be kept"), "{error}");
    blank(&project, "small", 20 << 20);
    let error = project.run(&["install", "--only-state", IMAGE, "small"]).error().to_owned();
    assert!(error.starts_with("error: small has 20.0 MiB, and") && is_blank(&project, "small"), "{error}");
    blank(&project, "other", SIZE);
    project.run(&["install", IMAGE, "other"]).good();
    assert!(project.run(&["install", "--only-state", IMAGE, "other"]).error().contains("is not empty"));
}

#[test]
fn an_image_comes_in_each_way() {
    let project = project();
    let packed = project.read(PACKED);
    // As zstd does by itself: one frame, without its size.
    project.write("one.zst", zstd::encode_all(&project.read(IMAGE)[..], 1).unwrap());
    let server = Server::start();
    server.put("/tiny.raw.zst", packed.clone(), &[Act::ResetAt(packed.len() / 2), Act::Serve]);
    let (url, digest) = (server.url("/tiny.raw.zst"), Digest::of(&packed).to_hex());
    for (name, arguments) in [
        ("frames", &["install", PACKED, "frames"][..]),
        ("one", &["install", "one.zst", "one"]),
        ("web", &["install", "--sha256", &digest, &url, "web"]),
    ] {
        blank(&project, name, SIZE);
        project.run(arguments).good();
        same(&project, name);
    }
    let ranges = server.seen().iter().filter(|request| request.headers.contains_key("range")).count();
    assert_eq!(ranges, 1, "it goes on where the connection broke");

    blank(&project, "input", SIZE);
    let mut child = project.keller(&["install", "-", "input"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&packed).unwrap();
    Ran::of(&child.wait_with_output().unwrap()).good();
    same(&project, "input");
}

/// Runs `keller install` with `arguments`, which must be refused with words that begin so, and leave the disk as it is.
fn refused(project: &Project, arguments: &[&str], said: &str) {
    let ran = project.run(&[&["install"], arguments].concat());
    assert!(ran.error().strip_prefix("error: ").unwrap().starts_with(said), "{said}\n{}", ran.err);
    assert!(is_blank(project, "disk"), "{arguments:?}");
}

#[test]
fn images_that_are_not_right_are_refused_before_anything_is_written() {
    let project = project();
    blank(&project, "disk", SIZE);
    let zeros = "0".repeat(64);
    let digest = Digest::of(project.read(IMAGE));
    refused(
        &project,
        &["--sha256", &zeros, IMAGE, "disk"],
        &format!(
            "{IMAGE} has other bytes than --sha256 says: expected SHA-256 {zeros}, but have {digest}. Fetch it again"
        ),
    );
    refused(
        &project,
        &["https://images.example/node.raw", "disk"],
        "https://images.example/node.raw needs --sha256 DIGEST",
    );
    let qcow2 = "node/out/tiny_1.2.3.qcow2";
    let said = format!("{qcow2} is a qcow2 image: convert it with `qemu-img convert -O raw IMAGE OUTPUT`");
    refused(&project, &[qcow2, "disk"], &said);
    refused(&project, &["rack1.yaml", "disk"], "rack1.yaml is not an image of keller: no partition table");
    refused(&project, &["missing.raw", "disk"], "reading missing.raw: No such file");

    // One bit of the root, with sums that were made of it and without any; one of the packed image.
    let mut bytes = project.read(IMAGE);
    bytes[(66 << 20) + (200 << 10)] ^= 4;
    project.write("node/bad.raw", &bytes);
    refused(
        &project,
        &["node/bad.raw", "disk"],
        "node/bad.raw is damaged: its root does not match its root hash: data block 50",
    );
    project.write("node/SHA256SUMS", format!("{zeros}  other.raw\n{digest}  bad.raw\n"));
    refused(
        &project,
        &["node/bad.raw", "disk"],
        "node/bad.raw has other bytes than node/SHA256SUMS says: expected",
    );
    let mut packed = project.read(PACKED);
    let middle = packed.len() / 2;
    packed[middle] ^= 4;
    project.write("bad.raw.zst", &packed);
    let ran = project.run(&["install", "bad.raw.zst", "disk"]);
    assert!(ran.error().contains("bad.raw.zst is"), "{}", ran.err);
    project.write("short.raw.zst", &packed[..middle]);
    refused(
        &project,
        &["short.raw.zst", "disk"],
        "short.raw.zst is damaged: the compressed image is cut short",
    );
    project.write("short.raw", &bytes[..bytes.len() / 2]);
    refused(&project, &["short.raw", "disk"], "short.raw is not an image of keller: the image is cut short");

    // What was installed is a node, and a second one would have its identity.
    blank(&project, "installed", SIZE);
    project.run(&["install", IMAGE, "installed"]).good();
    refused(
        &project,
        &["installed", "disk"],
        "installed is not an image of keller: it is the disk of a node",
    );
    assert!(is_blank(&project, "disk"));
}

#[test]
fn disks_that_are_not_right_are_refused() {
    let project = project();
    blank(&project, "disk", SIZE);
    blank(&project, "small", 300 << 20);
    refused(
        &project,
        &[IMAGE, "small"],
        "small has 300.0 MiB, and a node of this image needs 324.0 MiB: it lacks 24.0 MiB. Name a larger disk",
    );
    assert!(is_blank(&project, "small"));
    refused(&project, &[IMAGE, "node"], "node is a directory: name a whole disk, such as /dev/sda");
    refused(&project, &[IMAGE, "/dev/null"], "/dev/null is neither a disk nor a file: name a whole disk");
    refused(&project, &[IMAGE, "missing"], "looking at missing: No such file");
    refused(
        &project,
        &[IMAGE],
        "no disk was named: add one, such as /dev/sda, or --disk serial=NUMBER. This machine ",
    );
    refused(
        &project,
        &["--disk", "serial=not-there", IMAGE],
        "no disk matches serial=not-there (the running system's disk is left out). This machine ",
    );
    for (things, at, bytes) in
        [("ext2, ext3 or ext4", 1080, &[0x53, 0xef][..]), ("data that keller does not know", 4000, b"x")]
    {
        blank(&project, "used", SIZE);
        File::options().write(true).open(project.path("used")).unwrap().write_all_at(bytes, at).unwrap();
        refused(
            &project,
            &[IMAGE, "used"],
            &format!("used is not empty, it has {things}: what is there would be lost. If"),
        );
    }
    // An image that was copied by other means says nothing of how far that came.
    project.write("copied", project.read(IMAGE));
    File::options().write(true).open(project.path("copied")).unwrap().set_len(SIZE).unwrap();
    refused(
        &project,
        &[IMAGE, "copied"],
        "copied is not empty, it has a partition table (GPT) with 3 partitions: ",
    );

    project.write("bad.yaml", "node: 1\nnaem: x\n");
    let ran = project.run(&["install", "--document", "bad.yaml", IMAGE, "disk"]);
    assert!(ran.error().contains("naem"), "{}", ran.err);
    let ran = project.run(&["install", "--json", "--disk", "serial=not-there", IMAGE]);
    let said: Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert!(said["error"].as_str().unwrap().starts_with("no disk matches serial=not-there"), "{said}");
    for (arguments, said) in [
        (&["--keep-state", "--wipe", "S1", IMAGE, "disk"][..], "cannot be used with"),
        (&["--disk", "size=5", IMAGE], "size=5 is not a range"),
        (&["--disk", "bus=sata", IMAGE], "\"sata\" is not a bus"),
        (&["--disk", "serial=x", IMAGE, "disk"], "cannot be used with"),
        (&["--sha256", "abc", IMAGE, "disk"], "expected 64 hexadecimal digits"),
    ] {
        let ran = project.run(&[&["install"], arguments].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.contains(said), "{}", ran.err);
    }
    assert!(is_blank(&project, "disk"));
}

/// A file as a block device, until the end of the test.
struct Loop(String);

impl Loop {
    /// None where this machine gives none, which is told.
    fn of(project: &Project, name: &str) -> Option<Self> {
        if !as_root("set up loop devices") {
            return None;
        }
        let output = tool("losetup")?.args(["--find", "--show"]).arg(project.path(name)).output().unwrap();
        if !output.status.success() {
            println!("SKIPPED: no loop device: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(Self(String::from_utf8(output.stdout).unwrap().trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn an_image_goes_onto_a_block_device() {
    let project = project();
    blank(&project, "disk", SIZE);
    let Some(device) = Loop::of(&project, "disk") else { return };
    let device = device.0.as_str();
    // Somebody has it for themselves.
    let alone = {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().read(true).custom_flags(libc::O_EXCL).open(device).unwrap()
    };
    refused(&project, &[IMAGE, device], &format!("{device} is in use by another program"));
    drop(alone);
    // Whatever firmware this machine has must not hear of it.
    let ran = project.run(&["install", "--no-boot-entry", "--document", "rack1.yaml", PACKED, device]).good();
    assert!(ran.out.contains("every block read back and verified"), "{}", ran.out);
    assert!(ran.out.contains("\n  entry    none"), "{}", ran.out);
    let said = inspected(&project, device);
    assert_eq!((&said["form"], &said["problems"]), (&json!("node"), &json!([])));
    same(&project, "disk");
    assert_eq!(document(&project, "disk").as_deref(), Some(DOCUMENT));
    let ran = project.run(&["install", "--document", "rack1.yaml", PACKED, device]).good();
    assert!(ran.out.contains("already"), "{}", ran.out);
    // It has no number of its own, so that the table's id names it.
    let guid = said["disk_guid"].as_str().unwrap();
    project.write("rack2.yaml", DOCUMENT.replace("07", "08"));
    let ran = project.run(&["install", "--document", "rack2.yaml", PACKED, device]);
    assert!(ran.error().ends_with(&format!("add --wipe {}", &guid[..8])), "{}", ran.err);
}

#[test]
fn documents_for_machines_that_run_from_memory() {
    let project = Project::new();
    project.write("rack.yaml", "node: 1\ninstall: {disk: serial=S1}\n");
    project.write("wrong.yaml", "node: 1\ninstall: {disk: sda}\n");
    let said = project.build(&["--install", "rack.yaml"]);
    let expected =
        "--install rack.yaml: no output carries documents: add iso, netboot or netboot-http to `outputs`";
    assert!(said.error().contains(expected), "{}", said.err);
    project.edit("runtime: podman", "outputs: [netboot, iso]\nruntime: podman");
    let said = project.build(&["--install", "wrong.yaml"]);
    assert!(said.error().contains("does not describe a disk"), "{}", said.err);
    project.build(&["--install", "rack.yaml"]).good();
    blank(&project, "disk", SIZE);
    for ending in [".netboot.efi", ".iso"] {
        let path = format!("node/out/tiny_1.2.3{ending}");
        let bytes = project.read(&path);
        let document = b"install: {disk: serial=S1}";
        assert!(bytes.windows(document.len()).any(|window| window == document), "{ending}");
        // What starts it may hand over a command line of its own: then this one is read.
        let cmdline = b"live/cmdline\0";
        let at = bytes.windows(cmdline.len()).position(|window| window == cmdline).unwrap();
        let text = String::from_utf8_lossy(&bytes[at..at + 200]).into_owned();
        assert!(text.contains("roothash="), "{text}");
        let said = project.run(&["inspect", &path]);
        assert!(said.error().contains("inspect the raw image that was built with it"), "{}", said.err);
        refused(
            &project,
            &[&path, "disk"],
            &format!("{path} is not a disk, but what a machine is started from"),
        );
    }
}

/// Nobody is there to look: neither another version, nor another document, nor a `wipe` that names the disk loses a node.
#[test]
fn an_unattended_machine_keeps_a_node_of_any_version() {
    let project = project();
    blank(&project, "disk", SIZE);
    project.run(&["install", "--document", "rack1.yaml", IMAGE, "disk"]).good();
    project.build(&["--version", "1.2.4"]).good();
    project.write("rack2.yaml", DOCUMENT.replace("07", "08"));
    let guid = inspected(&project, "disk")["disk_guid"].as_str().unwrap().to_owned();
    let before = Digest::of(project.read("disk"));
    let request = |disk: &str| Install {
        image: Origin::File(project.path("node/out/tiny_1.2.4.raw")),
        sha256: None,
        target: Target::Path(project.path(disk)),
        wipe: Some(guid.clone()),
        keep_state: false,
        only_state: false,
        document: Some(DocumentOrigin::File(project.path("rack2.yaml"))),
        document_sha256: None,
        boot_entry: true,
        unattended: true,
    };
    let watch = || Ok(Arc::default());
    let report = request("disk").run(&watch, &Silent).unwrap();
    assert_eq!((report.state, report.version.as_str()), (State::Already, "1.2.3"));
    assert_eq!(Digest::of(project.read("disk")), before);
    // A file is no disk of this machine's firmware, so that a restart would lead here again.
    assert_eq!(report.boot_entry, Some(BootEntry::NotWanted));
    assert_eq!(after(&report, Then::Reboot), Then::Stay);

    // Power failed while a copy of its table was written: the node mends that at its next start.
    File::options().write(true).open(project.path("disk")).unwrap().write_all_at(&[0; 512], 512).unwrap();
    let torn = Digest::of(project.read("disk"));
    assert_eq!(request("disk").run(&watch, &Silent).unwrap().state, State::Already);
    assert_eq!(Digest::of(project.read("disk")), torn);

    blank(&project, "other", SIZE);
    let report = request("other").run(&watch, &Silent).unwrap();
    assert_eq!((report.state, report.version.as_str()), (State::Installed, "1.2.4"));
    assert_eq!(document(&project, "other"), Some(DOCUMENT.replace("07", "08")));
    assert_eq!(after(&report, Then::Poweroff), Then::Poweroff);
}

/// What is on the state partition of the disk `name`, and its GUID.
fn state(project: &Project, name: &str) -> (Vec<u8>, uuid::Uuid) {
    let disk = FileDevice::image(File::open(project.path(name)).unwrap(), SectorSize::B512).unwrap();
    let table = gpt::read(&disk, SectorSize::B512).unwrap().table;
    let entry = table.entries.iter().find(|entry| entry.label == "keller-state").unwrap();
    let mut bytes = vec![0; entry.size as usize];
    disk.read_at(&mut bytes, entry.start).unwrap();
    (bytes, entry.guid)
}

/// Gives the disk `name`, which was installed, a state, as the first boot does: a file system, and a GUID of its own.
fn start(project: &Project, name: &str) {
    let file = File::options().read(true).write(true).open(project.path(name)).unwrap();
    let mut disk = FileDevice::image(file, SectorSize::B512).unwrap();
    let found = gpt::read(&disk, SectorSize::B512).unwrap();
    let mut table = found.table.clone();
    let entry = table.entries.iter().find(|entry| entry.label == "keller-state").unwrap().clone();
    let guid = uuid::Uuid::from_u128(0x11111111_2222_4333_8444_555555555555);
    table.rename(entry.number, guid, &entry.label, entry.attributes).unwrap();
    gpt::rewrite(&mut disk, &found, &table).unwrap();
    disk.write_at(&[0x53, 0xef], entry.start + 1080).unwrap();
    let words = b"what nobody may lose";
    disk.write_at(words, entry.start + (3 << 20)).unwrap();
    disk.write_at(words, entry.end() - words.len() as u64).unwrap();
}

#[test]
fn a_system_is_replaced_and_its_state_kept() {
    let project = project();
    blank(&project, "disk", SIZE);
    let keep = |version: &str, more: &[&str]| {
        let image = format!("node/out/tiny_{version}.raw");
        project.run(&[&["install", "--keep-state", &image, "disk"], more].concat())
    };
    let none = "error: disk has no state that could be kept: ";
    assert_eq!(
        keep("1.2.3", &[]).error().split(". Install").next().unwrap(),
        format!("{none}it has no partition table that can be read")
    );
    project.run(&["install", "--document", "rack1.yaml", IMAGE, "disk"]).good();
    assert!(keep("1.2.3", &[]).error().starts_with(&format!("{none}its node was never started")));
    start(&project, "disk");
    let before = (state(&project, "disk"), inspected(&project, "disk"));
    project.build(&["--version", "1.2.4"]).good();

    // Somebody else's image.
    project.edit("id: tiny", "id: other");
    fs::remove_file(project.path("node/node.lock")).unwrap();
    project.build(&["--version", "1.2.5"]).good();
    let ran = project.run(&["install", "--keep-state", "node/out/other_1.2.5.raw", "disk"]);
    assert!(
        ran.error().starts_with("error: the state on disk belongs to image tiny, but this image is other"),
        "{}",
        ran.err
    );
    assert_eq!(inspected(&project, "disk"), before.1);

    // A document in the ESP of a node that nobody started is gone with it: what the state has of one counts.
    let ran = keep("1.2.4", &[]).good();
    assert!(ran.out.contains("\n  state    as it was"), "{}", ran.out);
    let after = inspected(&project, "disk");
    assert_eq!(state(&project, "disk"), before.0);
    assert_eq!((&after["form"], &after["problems"]), (&json!("node"), &json!([])));
    assert_eq!(after["slots"][0]["root"]["verified"], true);
    assert_eq!(after["slots"][0]["release"]["version"], "1.2.4");
    assert_eq!(after["slots"][1]["release"], Value::Null);
    assert_eq!(after["disk_guid"], before.1["disk_guid"]);
    assert_eq!(document(&project, "disk"), None);
    // Once more, by hand: it is replaced whatever is there.
    let ran = keep("1.2.3", &["--document", "rack1.yaml", "--json"]).good();
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&said["state"], &said["kept_state"]), (&json!("installed"), &json!(true)));
    assert_eq!(state(&project, "disk"), before.0);
    assert_eq!(document(&project, "disk").as_deref(), Some(DOCUMENT));
}

/// A machine by itself, with rack1.yaml.
pub fn ground(project: &Project, image: &str, disk: &str) -> Ground {
    Ground {
        image: project.path(image),
        policy: Policy::default(),
        document: project.path("rack1.yaml"),
        remote: None,
        sys: project.path("sys"),
        pauses: &[],
        root: project.path("live"),
        clock: Duration::ZERO,
        disk: Some(project.path(disk)),
    }
}

#[test]
fn an_unattended_machine_replaces_only_an_older_system() {
    let project = project();
    blank(&project, "disk", SIZE);
    project.run(&["install", IMAGE, "disk"]).good();
    start(&project, "disk");
    let kept = state(&project, "disk");
    project.build(&["--version", "1.2.4"]).good();
    project.write("rack1.yaml", format!("{DOCUMENT}install: {{disk: serial=none, keep: state}}\n"));
    let run = |version: &str| {
        let image = format!("node/out/tiny_{version}.raw");
        let done = ground(&project, &image, "disk").install(&|| Ok(Arc::default()), &Silent);
        done.map(|done| done.unwrap().0)
    };
    assert_eq!(run("1.2.3").unwrap().state, State::Already);
    let report = run("1.2.4").unwrap();
    assert_eq!((report.state, report.kept_state), (State::Installed, true));
    for version in ["1.2.4", "1.2.3"] {
        let report = run(version).unwrap();
        assert_eq!((report.state, report.version.as_str()), (State::Already, "1.2.4"), "{version}");
    }
    assert_eq!(state(&project, "disk"), kept);
    // Nothing is there that could be kept.
    blank(&project, "disk", SIZE);
    assert!(run("1.2.4").unwrap_err().is::<Refusal>());
    assert!(is_blank(&project, "disk"));

    project.write("both.yaml", "node: 1\ninstall: {disk: serial=S1, keep: state, wipe: S1}\n");
    let ran = project.run(&["node", "check", "both.yaml"]);
    assert!(ran.err.contains("`keep` and `wipe` exclude each other"), "{}", ran.err);
}

/// What the server was told, message by message.
fn told(server: &Server) -> Vec<Value> {
    let seen = server.seen();
    assert!(seen.iter().all(|request| request.headers["content-type"] == "application/json"), "{seen:?}");
    seen.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
}

#[test]
fn an_unattended_installation_reports_to_a_server() {
    let project = project();
    blank(&project, "disk", SIZE);
    let server = Server::start();
    // The first message meets with a server that has a bad moment.
    let url = server.url("/report?token=s3cret").replace("http://", "http://me:s3cret@");
    server.put("/report?token=s3cret", "", &[Act::Status(503), Act::Serve]);
    let document = format!("{DOCUMENT}install: {{disk: serial=none, report: \"{url}\"}}\n");
    project.write("rack1.yaml", &document);
    let run = |disk: &str| {
        let done = ground(&project, IMAGE, disk).install(&|| Ok(Arc::default()), &Silent);
        done.map(|done| done.unwrap().0)
    };
    assert_eq!(run("disk").unwrap().state, State::Installed);
    assert_eq!(run("disk").unwrap().state, State::Already);
    let refused = run("node").unwrap_err();
    assert!(refused.is::<Refusal>(), "{refused}");
    let messages = told(&server);
    let states: Vec<&str> = messages.iter().map(|message| message["state"].as_str().unwrap()).collect();
    let expected = ["begun", "begun", "installed", "begun", "already", "begun", "refused"];
    assert_eq!(states, expected);
    let (installed, refusal) = (&messages[2], &messages[6]);
    assert_eq!((&installed["name"], &installed["version"]), (&json!("rack1-07"), &json!("1.2.3")));
    assert_eq!((&installed["reason"], &refusal["reason"]), (&Value::Null, &json!(refused.to_string())));
    assert!(messages.iter().all(|message| message.get("serial").is_some()), "{messages:?}");
    // The server knows us by the address that it was given; what is told has none of the document's secrets.
    let seen = server.seen();
    assert!(seen.iter().all(|request| request.headers["authorization"].starts_with("Basic ")), "{seen:?}");
    assert!(!messages.iter().any(|message| message.to_string().contains("s3cret")), "{messages:?}");

    // Nobody is there, and it is installed all the same.
    server.put("/report?token=s3cret", "", &[Act::Status(404)]);
    blank(&project, "other", SIZE);
    assert_eq!(run("other").unwrap().state, State::Installed);
    assert_eq!(server.seen().len(), messages.len() + 2, "what will not pass is not tried again");
}

#[test]
fn an_address_of_reports_is_judged_and_never_shown() {
    let project = Project::new();
    for (address, said) in [
        ("ftp://me:s3cret@deploy.example/x", "this is no address at http or https"),
        ("deploy.example/s3cret", "this is no address at http or https"),
    ] {
        project.write("rack.yaml", format!("node: 1\ninstall: {{disk: sda, report: \"{address}\"}}\n"));
        let ran = project.run(&["node", "check", "rack.yaml"]);
        assert!(ran.err.contains(said) && ran.err.contains("does not say which disk"), "{}", ran.err);
        assert!(!ran.err.contains("s3cret"), "{}", ran.err);
    }
}
