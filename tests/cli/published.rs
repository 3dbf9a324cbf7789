//! `keller install --repository`: an image out of the signed repository that updates come from.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use keller::base::Digest;
use keller::base::progress::Silent;
use keller::disk::gpt;
use keller::disk::{FileDevice, ReadAt, SectorSize};
use keller::node::Remote;
use keller::project::install::{Asked, Ground, Origin, Refusal, State, Wanted};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::install::{SIZE, blank, ground, inspected, is_blank};
use super::project::{Project, Ran};
use crate::heard::Heard;
use crate::http_server::{Act, Server};

const KEY: &str = "node/keys/root.json";

/// A project whose repository has 1.0.0 in stable and 1.0.1 in beta.
fn project() -> Project {
    project_of(1 << 20)
}

/// The same with so many bytes in each root that nothing compresses.
fn project_of(noise: u32) -> Project {
    let project = Project::new();
    project.run(&["keys", "init", "node/keys"]).good();
    project.edit(
        "runtime: podman",
        "update: {url: \"https://updates.example/tiny\", keys: keys}\nruntime: podman",
    );
    for (version, channel) in [("1.0.0", "stable"), ("1.0.1", "beta")] {
        project.write("node/overlay/etc/motd", format!("this is {version}\n"));
        let noise: Vec<u8> =
            (0..noise / 32).flat_map(|at| *Digest::of(at.to_le_bytes()).as_bytes()).collect();
        project.write("node/overlay/etc/noise", noise);
        project.build(&["--version", version, "--no-sums"]).good();
        publish(&project, &[&image(version), "--channel", channel, "--level", "1"]).good();
    }
    project
}

fn image(version: &str) -> String {
    format!("node/out/tiny_{version}.raw")
}

fn publish(project: &Project, arguments: &[&str]) -> Ran {
    project.run(&[&["publish", "--to", "repository", "--keys", "node/keys"], arguments].concat())
}

/// All files of the repository, at a web server.
fn served(project: &Project) -> Server {
    let server = Server::start();
    for name in project.names("repository").into_keys() {
        server.put(&format!("/r/{name}"), project.read(&format!("repository/{name}")), &[Act::Serve]);
    }
    server
}

fn install(project: &Project, repository: &str, more: &[&str]) -> Ran {
    project.run(&[&["install", "--root-key", KEY, "--repository", repository], more].concat())
}

/// The partitions of slot A and the ESP, byte by byte, by their names.
fn content(project: &Project, path: &str) -> Vec<(String, Vec<u8>)> {
    let disk = FileDevice::image(File::open(project.path(path)).unwrap(), SectorSize::B512).unwrap();
    let table = gpt::read_any(&disk).unwrap().table;
    let shipped = table.entries.iter().take(3);
    shipped
        .map(|entry| {
            let mut bytes = vec![0; entry.size as usize];
            disk.read_at(&mut bytes, entry.start).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(end);
            (entry.label.clone(), bytes)
        })
        .collect()
}

#[test]
fn the_newest_of_a_channel_becomes_a_node() {
    let project = project();
    let server = served(&project);
    let url = server.url("/r");
    blank(&project, "disk", SIZE);
    let ran = install(&project, &url, &["--json", "disk"]).good();
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&said["state"], &said["id"], &said["version"]),
        (&json!("installed"), &json!("tiny"), &json!("1.0.0"))
    );
    // What the build wrote is what is there.
    assert!(content(&project, "disk") == content(&project, &image("1.0.0")));
    let found = inspected(&project, "disk");
    assert_eq!((&found["form"], &found["problems"]), (&json!("node"), &json!([])));
    assert_eq!(found["slots"][0]["root"]["verified"], true);

    // Again: what is there stays. By a directory, another channel, and a version.
    let ran = install(&project, "repository", &["disk"]).good();
    assert!(ran.out.starts_with("disk has tiny 1.0.0 already: nothing was written"), "{}", ran.out);
    for (name, more) in
        [("beta", &["--channel", "beta"][..]), ("version", &["--version", "1.0.1", "--id", "tiny"])]
    {
        blank(&project, name, SIZE);
        let ran = install(&project, "repository", &[more, &[name]].concat()).good();
        assert!(ran.out.starts_with(&format!("tiny 1.0.1 is on {name} (")), "{}", ran.out);
        assert!(content(&project, name) == content(&project, &image("1.0.1")));
    }
    // No directory and no file stays behind.
    let own = project.path("tmp");
    fs::create_dir(&own).unwrap();
    blank(&project, "last", SIZE);
    let mut command = project.keller(&["install", "--root-key", KEY, "--repository", "repository", "last"]);
    Ran::of(&command.env("TMPDIR", &own).output().unwrap()).good();
    assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
}

#[test]
fn what_is_put_together_is_what_the_build_wrote() {
    let project = project();
    for (version, wanted) in
        [("1.0.0", Wanted::Newest("stable".to_owned())), ("1.0.1", Wanted::Version("1.0.1".to_owned()))]
    {
        let repository = project.path("repository").display().to_string();
        let asked = Asked { repository, root_key: Some(project.path(KEY)), wanted, id: None };
        let Origin::Published(published) = asked.origin().unwrap() else { panic!("another origin") };
        let metadata = tempfile::tempdir().unwrap();
        let image_bytes = published.image(metadata.path(), &Silent).unwrap();
        let mut bytes = vec![0; image_bytes.size() as usize];
        image_bytes.read_at(&mut bytes, 0).unwrap();
        assert!(bytes == project.read(&image(version)), "{version}");
    }
}

#[test]
fn a_download_that_breaks_is_resumed() {
    // Of three segments or more, each of which is fetched again where it is not whole.
    let project = project_of(40 << 20);
    let server = served(&project);
    let document = project.names("repository/targets").into_keys().find(|name| name.ends_with("_1.0.0.json"));
    let document: Value = project.json(&format!("repository/targets/{}", document.unwrap()));
    let blob = document["root"]["ways"]["full"]["sha256"].as_str().unwrap().to_owned();
    let bytes = project.read(&format!("repository/blobs/{blob}"));
    // After the head of the file, the server is away for longer than a stream waits.
    let cut = bytes.len() * 9 / 10;
    let acts = [Act::Serve, Act::ResetAt(cut), Act::Close, Act::Serve];
    server.put(&format!("/r/blobs/{blob}"), bytes.clone(), &acts);
    blank(&project, "disk", SIZE);
    let ran = install(&project, &server.url("/r"), &["disk"]).good();
    assert!(ran.err.contains("the next try is in 1 s"), "{}", ran.err);
    assert!(content(&project, "disk") == content(&project, &image("1.0.0")));
    let sent = server.sent(0)[&format!("/r/blobs/{blob}")];
    assert!(sent < bytes.len() as u64 * 3 / 2, "{sent} of {}", bytes.len());
}

/// Must be refused with these words, and leave the disk as it is.
fn refused(project: &Project, ran: &Ran, said: &[&str]) {
    let error = ran.error();
    assert!(said.iter().all(|said| error.contains(said)), "{said:?}\n{error}");
    assert!(is_blank(project, "disk"));
}

#[test]
fn repositories_that_are_not_right_are_refused() {
    let project = project();
    blank(&project, "disk", SIZE);
    let local = |more: &[&str]| install(&project, "repository", &[more, &["disk"]].concat());
    let ran = project.run(&["install", "--repository", "repository", "disk"]);
    refused(&project, &ran, &["error: nothing says whose signatures count: add --root-key FILE"]);
    let ran = local(&["--channel", "nightly"]);
    refused(
        &project,
        &ran,
        &["error: no version of tiny is in channel nightly; there are versions in: beta, stable. Name one"],
    );
    let ran = local(&["--version", "9"]);
    refused(&project, &ran, &["error: 9 of tiny is not published; there is: 1.0.1, 1.0.0. Name one"]);
    refused(&project, &local(&["--id", "big"]), &["error: repository has no image big, it has: tiny. Name"]);
    refused(&project, &install(&project, "none", &["disk"]), &["none, the repository, is not a directory"]);

    // Somebody else's keys; a root of trust that is none.
    project.run(&["keys", "init", "other"]).good();
    let arguments = ["install", "--root-key", "other/root.json", "--repository", "repository", "disk"];
    let ran = project.run(&arguments);
    refused(&project, &ran, &["looking for an image at repository: ", "this is another repository"]);
    project.write("other/root.json", "{}");
    refused(&project, &project.run(&arguments), &["the root of trust", "cannot be used"]);

    // Nothing there, and no server.
    let server = Server::start();
    let ran = install(&project, &server.url("/r"), &["disk"]);
    refused(&project, &ran, &["is not on the server: the address must be that of the repository's root"]);

    // A machine without room for it.
    if let Some(small) = Small::mounted(&project) {
        let mut command =
            project.keller(&["install", "--root-key", KEY, "--repository", "repository", "disk"]);
        let ran = Ran::of(&command.env("TMPDIR", project.path(small.0)).output().unwrap());
        refused(&project, &ran, &["tiny 1.0.0 of repository takes ", " until it is on the disk, and "]);
    }
    // Two images.
    project.edit("id: tiny", "id: other");
    fs::remove_file(project.path("node/node.lock")).unwrap();
    project.build(&["--version", "1.0.5", "--no-sums"]).good();
    publish(&project, &["node/out/other_1.0.5.raw", "--level", "1"]).good();
    refused(
        &project,
        &local(&[]),
        &["error: repository has several images: other, tiny. Name one of them by --id"],
    );
    // A channel that only one of them has says which one is meant.
    blank(&project, "beta", SIZE);
    install(&project, "repository", &["--channel", "beta", "beta"]).good();
}

/// A file system of a MiB in memory, until the end of the test.
struct Small(&'static str, std::path::PathBuf);

impl Small {
    fn mounted(project: &Project) -> Option<Self> {
        let path = project.path("small");
        fs::create_dir(&path).unwrap();
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path).status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("SKIPPED: no tmpfs can be mounted here");
            return None;
        }
        Some(Self("small", path))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.1).status();
    }
}

#[test]
fn damage_and_age_are_told() {
    let project = project();
    blank(&project, "disk", SIZE);
    // Every blob has one other byte in its middle.
    for name in project.names("repository/blobs").into_keys() {
        let path = project.path(&format!("repository/blobs/{name}"));
        let file = File::options().read(true).write(true).open(path).unwrap();
        let (mut byte, at) = ([0], file.metadata().unwrap().len() / 2);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    }
    let ran = install(&project, "repository", &["disk"]);
    refused(&project, &ran, &["fetching tiny 1.0.0 of repository: expected ", " with digest "]);

    publish(&project, &["--refresh", "--expires", "1s"]).good();
    sleep(Duration::from_secs(2));
    let ran = install(&project, "repository", &["disk"]);
    refused(
        &project,
        &ran,
        &[
            "looking for an image at repository: the ",
            " metadata has expired on ",
            "`keller publish --refresh`",
        ],
    );
}

fn end(child: &Child, signal: Signal) {
    let _ = kill_process(Pid::from_child(child), signal);
}

#[test]
fn an_interruption_leaves_nothing() {
    let project = project();
    let server = served(&project);
    blank(&project, "disk", SIZE);
    fs::create_dir(project.path("tmp")).unwrap();
    let document = project.names("repository/targets").into_keys().find(|name| name.ends_with("_1.0.0.json"));
    let document: Value = project.json(&format!("repository/targets/{}", document.unwrap()));
    let blob = document["root"]["ways"]["full"]["sha256"].as_str().unwrap().to_owned();
    for (path, act) in
        [(format!("blobs/{blob}"), Act::HangAt(5000)), ("metadata/timestamp.json".to_owned(), Act::Hang)]
    {
        server.put(&format!("/r/{path}"), project.read(&format!("repository/{path}")), &[act]);
        let asked = server.seen().len();
        let url = server.url("/r");
        let mut command = project.keller(&["install", "--root-key", KEY, "--repository", &url, "disk"]);
        let child = command.env("TMPDIR", project.path("tmp")).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server.seen()[asked..].iter().any(|request| request.line.ends_with(&path)) {
            assert!(Instant::now() < deadline, "{path} was never asked for");
            sleep(Duration::from_millis(20));
        }
        sleep(Duration::from_millis(200));
        let began = Instant::now();
        end(&child, Signal::INT);
        let ran = Ran::of(&child.wait_with_output().unwrap());
        assert!(began.elapsed() < Duration::from_secs(15), "it did not end at once");
        assert_eq!(ran.code, Some(130), "{}", ran.err);
        assert!(ran.err.trim_end().ends_with("error: interrupted: nothing was written"), "{}", ran.err);
        assert_eq!(fs::read_dir(project.path("tmp")).unwrap().count(), 0);
        assert!(is_blank(&project, "disk"));
    }
}

#[test]
fn an_unattended_machine_takes_the_newest_version() {
    let project = project();
    let server = served(&project);
    // The machine runs 1.0.0; its document has another channel than its image.
    fs::create_dir_all(project.path("live/usr/lib/keller")).unwrap();
    fs::create_dir_all(project.path("live/etc/keller")).unwrap();
    let built = json!({"id": "tiny", "version": "1.0.0", "epoch": 7,
        "health": {"units": [], "etcd": false, "command": [], "stable_seconds": 5, "deadline_seconds": 120},
        "update": {"url": server.url("/r"), "channel": "stable", "automatic": true, "window": null,
            "interval_seconds": 3600}});
    project.write("live/usr/lib/keller/agent.json", built.to_string());
    project.write("rack1.yaml", "node: 1\nname: rack1\ninstall: {disk: serial=none, image: repository}\n");
    let run = |disk: &str, heard: &Heard| {
        let done = ground(&project, &image("1.0.0"), disk).install(&|| Ok(Arc::default()), heard);
        done.map(|done| done.unwrap().0)
    };
    let heard = Heard::default();
    let error = format!("{:#}", run("disk", &heard).unwrap_err());
    assert!(
        error.contains("reading where the image comes from") && error.contains("says whom to trust"),
        "{error}"
    );
    project.write("live/usr/lib/keller/root.json", project.read(KEY));
    project.write("live/etc/keller/update.yaml", "{channel: beta}");
    // The server has a bad moment, longer than its client is patient.
    let path = "metadata/timestamp.json";
    let bad = [Act::Status(503), Act::Status(503), Act::Status(503), Act::Status(503), Act::Serve];
    server.put(&format!("/r/{path}"), project.read(&format!("repository/{path}")), &bad);
    blank(&project, "disk", SIZE);
    let report = run("disk", &heard).unwrap();
    assert_eq!((report.state, report.version.as_str()), (State::Installed, "1.0.1"));
    let warnings = heard.warnings();
    assert!(warnings.iter().any(|said| said.ends_with("; the next try is in 1 s")), "{warnings:?}");
    // The ESP has the document, too.
    assert!(content(&project, "disk")[1..] == content(&project, &image("1.0.1"))[1..]);

    // A disk that has it, in whatever version, needs no repository.
    let asked = server.seen().len();
    project.write("live/etc/keller/update.yaml", "{channel: stable}");
    let report = run("disk", &heard).unwrap();
    assert_eq!((report.state, report.version.as_str()), (State::Already, "1.0.1"));
    assert_eq!(server.seen().len(), asked);
    // With `keep: state`, a newer version would be taken: the repository is asked for its number, and for no more.
    project.write(
        "rack1.yaml",
        "node: 1\ninstall: {disk: serial=none, image: repository, keep: state}\nupdate: {channel: beta}\n",
    );
    let report = run("disk", &heard).unwrap();
    assert_eq!((report.state, report.version.as_str()), (State::Already, "1.0.1"));
    let lines: Vec<String> = server.seen()[asked..].iter().map(|request| request.line.clone()).collect();
    assert!(lines.iter().any(|line| line.contains("/metadata/")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("/blobs/")), "{lines:?}");
    // What will not pass is no reason to wait.
    project.write(
        "rack1.yaml",
        "node: 1\ninstall: {disk: serial=none, image: repository}\nupdate: {channel: nightly}\n",
    );
    blank(&project, "other", SIZE);
    let refused = run("other", &heard).unwrap_err();
    assert!(refused.is::<Refusal>() && is_blank(&project, "other"), "{refused}");
}

/// The document and the image both come from elsewhere than the medium.
#[test]
fn a_document_that_is_fetched_asks_for_the_repository() {
    let project = project();
    let server = served(&project);
    fs::create_dir_all(project.path("live/usr/lib/keller")).unwrap();
    let built = json!({"id": "tiny", "version": "1.0.5", "epoch": 7,
        "health": {"units": [], "etcd": false, "command": [], "stable_seconds": 5, "deadline_seconds": 120},
        "update": {"url": server.url("/r"), "channel": "beta", "automatic": true, "window": null,
            "interval_seconds": 3600}});
    project.write("live/usr/lib/keller/agent.json", built.to_string());
    project.write("live/usr/lib/keller/root.json", project.read(KEY));
    let text = "node: 1\nname: rack1\ninstall: {disk: serial=none, image: repository}\n";
    server.put("/n.yaml", text, &[Act::Serve]);
    let remote = Remote::new(server.url("/n.yaml").parse().unwrap(), Some(Digest::of(text)), Vec::new());
    let remote = Some(remote.unwrap());
    let run = |disk: &str, heard: &Heard| {
        blank(&project, disk, SIZE);
        let ground = Ground { remote: remote.clone(), ..ground(&project, &image("1.0.0"), disk) };
        ground.install(&|| Ok(Arc::default()), heard).map(|done| done.unwrap().0)
    };
    let heard = Heard::default();
    let report = run("disk", &heard).unwrap();
    assert_eq!((report.version.as_str(), report.document), ("1.0.1", true));
    assert!(heard.text().contains(" is 1.0.1, and this machine runs 1.0.5: "), "{}", heard.text());

    // A version whose nodes would not read what was fetched: no node without its document.
    project.edit("runtime: podman", "node: {sources: [smbios]}\nruntime: podman");
    project.build(&["--version", "1.0.6", "--no-sums"]).good();
    publish(&project, &[&image("1.0.6"), "--channel", "beta", "--level", "1"]).good();
    for name in project.names("repository").into_keys() {
        server.put(&format!("/r/{name}"), project.read(&format!("repository/{name}")), &[Act::Serve]);
    }
    let refused = format!("{:#}", run("other", &heard).unwrap_err());
    assert!(refused.starts_with("a node of this image reads no document from its ESP"), "{refused}");
    assert!(is_blank(&project, "other"));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let project = Project::new();
    let repository = ["--repository", "https://updates.example/tiny"];
    for (arguments, said) in [
        (&["x.raw", "disk"][..], "'[IMAGE]' cannot be used with '--repository <URL>'"),
        (&["--disk", "serial=S1", "disk"], "'--disk <WORDS>' cannot be used with '[DISK]'"),
        (&["--sha256", &"0".repeat(64), "disk"], "cannot be used with"),
        (&["--version", "1.0.0", "--channel", "beta", "disk"], "cannot be used with"),
    ] {
        let ran = project.run(&[&["install"], &repository[..], arguments].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.contains(said), "{}", ran.err);
    }
    for flag in ["--channel", "--version", "--id", "--root-key"] {
        let ran = project.run(&["install", flag, "x", "x.raw", "disk"]);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.contains("--repository <URL>"), "{}", ran.err);
    }
}
