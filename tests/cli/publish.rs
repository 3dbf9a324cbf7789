//! `keller keys` and `keller publish` as an operator meets them, with images that `keller build` made.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use keller::base::Digest;
use keller::repository::{Client, Folder};
use rustix::process::{Pid, Signal, kill_process};

use super::project::{Project, Ran};
use crate::http_server::Server;
use crate::unfold::unfold;

/// A project with keys and images of these versions, `node/out/tiny_VERSION.raw`.
fn project(versions: &[&str]) -> Project {
    let project = Project::new();
    project.run(&["keys", "init", "node/keys"]).good();
    project.edit(
        "runtime: podman",
        "update: {url: \"https://updates.example/tiny\", keys: keys}\nruntime: podman",
    );
    let mut before = "1.2.3";
    for version in versions {
        project.edit(&format!("version: {before}"), &format!("version: {version}"));
        project.write("node/overlay/etc/motd", format!("this is {version}\n"));
        project.build(&["--no-sums"]).good();
        before = version;
    }
    project
}

fn image(version: &str) -> String {
    format!("node/out/tiny_{version}.raw")
}

fn publish(project: &Project, arguments: &[&str]) -> Ran {
    project.run(&[&["publish", "--to", "repository", "--keys", "node/keys"], arguments].concat())
}

/// What a node sees that has seen nothing before.
fn seen(project: &Project, folder: &str) -> Vec<String> {
    let datastore = tempfile::tempdir().unwrap();
    let now = jiff::Timestamp::now().as_second();
    let remote = Folder::new(project.path(folder));
    let root = project.read("node/keys/1.root.json");
    let trusted =
        Client::update(&root, &remote, datastore.path(), now).unwrap_or_else(|error| panic!("{error}"));
    for listing in trusted.releases() {
        let document = trusted.document(listing).unwrap();
        for path in document.files() {
            let bytes = std::fs::read(project.path(folder).join(&path)).unwrap();
            assert_eq!(path, format!("blobs/{}", Digest::of(&bytes)));
        }
    }
    trusted.releases().iter().map(|listing| listing.version.clone()).collect()
}

#[test]
fn from_keys_to_a_repository() {
    let project = project(&["1.0.0", "1.0.1"]);
    let said = project.run(&["keys", "show", "node/keys"]).good().out;
    assert!(
        said.starts_with("root.json version 1, good until ") && said.contains("timestamp  1 of 1  "),
        "{said}"
    );
    let said = publish(&project, &[&image("1.0.0"), "--notes", "the first"]).good().out;
    assert!(said.starts_with("tiny 1.0.0            stable\n  in full            root "), "{said}");
    let ran = publish(&project, &[&image("1.0.1"), "--json", "--channel", "beta"]).good();
    let added: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&added["new"], &added["channels"][0]), (&true.into(), &"beta".into()));
    assert_eq!(added["patches"][0]["from"], "1.0.0");
    assert!(added["patches"][0]["root"].as_u64().unwrap() < added["root"].as_u64().unwrap());
    let said = publish(&project, &[&image("1.0.1"), "--channel", "beta"]).good().out;
    assert!(said.ends_with("it was published before\n"), "{said}");
    let said = publish(&project, &["--promote", "1.0.1"]).good().out;
    assert_eq!(said, "tiny 1.0.1            beta,stable\n");
    assert_eq!(publish(&project, &["--withdraw", "1.0.1"]).good().out, "tiny 1.0.1            beta\n");
    let listed = publish(&project, &["--list"]).good().out;
    assert_eq!(listed, "tiny 1.0.1            beta\ntiny 1.0.0            stable\n");
    let listed: serde_json::Value =
        serde_json::from_str(&publish(&project, &["--list", "--json"]).good().out).unwrap();
    assert_eq!(listed[0]["layout"]["root"], 64 << 20);
    for role in ["timestamp", "snapshot", "targets", "root"] {
        let said = project.run(&["keys", "rotate", role, "node/keys"]).good().out;
        assert!(said.ends_with("replaced\nnext: keller publish --refresh --to DIR\n"), "{said}");
    }
    assert!(project.run(&["keys", "renew", "node/keys"]).good().out.starts_with("root.json is version 6"));
    assert!(publish(&project, &["--refresh", "--expires", "30d"]).good().out.starts_with("good until "));
    assert_eq!(seen(&project, "repository"), ["1.0.1", "1.0.0"]);
    let shown: serde_json::Value =
        serde_json::from_str(&project.run(&["keys", "show", "--json", "node/keys"]).good().out).unwrap();
    assert_eq!((&shown["version"], &shown["thresholds"]["root"]), (&6.into(), &1.into()));
}

/// Disks in the field stay as they are: what an image has of the reserve is nothing that a version needs.
#[test]
fn versions_with_and_without_a_reserve_share_a_repository() {
    let project = Project::new();
    project.run(&["keys", "init", "node/keys"]).good();
    project.edit(
        "runtime: podman",
        "update: {url: \"https://updates.example/tiny\", keys: keys}\nruntime: podman",
    );
    let (mut version, mut reserve) = ("1.2.3", "reserve: 64MiB");
    for (next, wanted) in
        [("1.0.0", "reserve: none"), ("1.0.1", "reserve: 64MiB"), ("1.0.2", "reserve: none")]
    {
        project.edit(&format!("version: {version}"), &format!("version: {next}"));
        project.edit(reserve, wanted);
        project.build(&["--no-sums"]).good();
        (version, reserve) = (next, wanted);
        let shown = project.run(&["inspect", "--json", &image(version)]).good().out;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let mut roles =
            shown["node"]["partitions"].as_array().unwrap().iter().map(|part| part[0].as_str().unwrap());
        assert_eq!(roles.clone().any(|role| role == "reserve"), wanted != "reserve: none");
        assert_eq!(roles.next_back(), Some("state"));
        publish(&project, &[&image(version)]).good();
    }
    assert_eq!(seen(&project, "repository"), ["1.0.2", "1.0.1", "1.0.0"]);
}

/// Images were whole disks once, which a new keller may still be given; nodes of both are held to the same sizes.
#[test]
fn a_whole_disk_is_published_by_the_sizes_of_its_table() {
    let project = project(&["1.0.0", "1.0.1"]);
    unfold(&project.path(&image("1.0.0")));
    for version in ["1.0.0", "1.0.1"] {
        publish(&project, &[&image(version)]).good();
    }
    let listed = publish(&project, &["--list", "--json"]).good().out;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["layout"], listed[1]["layout"]);
    assert_eq!(listed[1]["layout"]["root"], 64 << 20);
}

#[test]
fn what_is_refused() {
    let project = project(&["1.0.0"]);
    let said = |ran: Ran| ran.error().to_owned();
    let text = said(project.run(&["publish", &image("1.0.0"), "--to", "repository"]));
    assert!(text.contains("keys has no root.json: `keller keys init keys` makes keys"), "{text}");
    let text = said(project.run(&["keys", "init", "node/keys"]));
    assert!(text.starts_with("error: making keys: node/keys/root.json is there already"), "{text}");
    let text = said(publish(&project, &["--refresh"]));
    assert!(text.contains("has nothing published yet"), "{text}");
    let text = said(project.run(&["publish", "--list", "--to", "none", "--keys", "node/keys"]));
    assert_eq!(text, "error: none is not there");
    let text = said(publish(&project, &["node/node.yaml"]));
    assert!(
        text.starts_with("error: publishing node/node.yaml: ") && text.contains("not a disk image"),
        "{text}"
    );
    assert_eq!(publish(&project, &[]).code, Some(2));
    assert_eq!(publish(&project, &["--refresh", "--list"]).code, Some(2));
    assert_eq!(publish(&project, &[&image("1.0.0"), "--expires", "soon"]).code, Some(2));

    // An image of other keys, and none of which a node would take more.
    project.run(&["keys", "init", "other"]).good();
    let text = said(project.run(&["publish", &image("1.0.0"), "--to", "elsewhere", "--keys", "other"]));
    assert!(text.contains("the root of trust in 1.0.0 is none of those in other"), "{text}");

    // One bit in the root, which only its hash tree can tell.
    let file = File::options().read(true).write(true).open(project.path(&image("1.0.0"))).unwrap();
    let place = (66 << 20) + (200 << 10);
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ 4], place).unwrap();
    let text = said(publish(&project, &[&image("1.0.0")]));
    assert!(text.contains("it is not whole: slot a: data block "), "{text}");
    file.write_all_at(&byte, place).unwrap();
    assert!(!project.path("repository/blobs").exists());
    publish(&project, &[&image("1.0.0")]).good();
    let text = said(project.run(&["publish", "--refresh", "--to", "repository", "--keys", "other"]));
    assert!(text.contains("the repository has another 1.root.json than other"), "{text}");
}

#[test]
fn ended_at_any_moment() {
    let project = project(&["1.0.0", "1.0.1"]);
    publish(&project, &[&image("1.0.0")]).good();
    for role in ["timestamp", "root"] {
        project.run(&["keys", "rotate", role, "node/keys"]).good();
    }
    copy(&project.path("repository"), &project.path("kept"));
    let began = Instant::now();
    publish(&project, &[&image("1.0.1")]).good();
    let time = began.elapsed();
    let blobs = || {
        let all = std::fs::read_dir(project.path("repository/blobs")).unwrap();
        all.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let expected = blobs();
    let (mut old, mut went_on) = (0, 0);
    for moment in 0..20u32 {
        let _ = std::fs::remove_dir_all(project.path("repository"));
        copy(&project.path("kept"), &project.path("repository"));
        let arguments =
            ["publish", "--to", "repository", "--keys", "node/keys", &image("1.0.1")].map(str::to_owned);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let child = project.keller(&arguments).spawn().unwrap();
        sleep(time * moment / 18);
        let signal = if moment % 2 == 0 { Signal::KILL } else { Signal::INT };
        let _ = kill_process(Pid::from_child(&child), signal);
        let ran = Ran::of(&child.wait_with_output().unwrap());
        assert!(ran.code == Some(0) || ran.signal == Some(signal.as_raw()), "{}", ran.err);
        let versions = seen(&project, "repository");
        assert!(versions == ["1.0.0"] || versions == ["1.0.1", "1.0.0"], "{versions:?}");
        old += usize::from(versions.len() == 1);
        let ran = publish(&project, &[&image("1.0.1")]).good();
        // What was compressed before counts, and the files are those of a publication that nothing has held up.
        went_on += usize::from(ran.err.contains("an earlier publication was cut short"));
        assert!(!project.path("repository/unfinished").exists());
        assert_eq!(
            (seen(&project, "repository"), blobs()),
            (vec!["1.0.1".to_owned(), "1.0.0".to_owned()], expected.clone())
        );
    }
    println!(
        "{old} of 20 ended before the new version was there, and {went_on} of the next ones went on from there"
    );
    assert!(old > 0 && went_on > 0, "nothing was interrupted");
}

#[test]
fn what_nobody_needs_goes() {
    let project = project(&["1.0.0", "1.0.1", "1.0.2"]);
    publish(&project, &[&image("1.0.0")]).good();
    publish(&project, &[&image("1.0.1")]).good();
    let blobs = || std::fs::read_dir(project.path("repository/blobs")).unwrap().count();
    let before = blobs();
    // What it would be, and a list of reasons.
    let plan = publish(&project, &["--prune", "--keep", "1", "--patches", "0", "--dry-run", "--json"]).good();
    let plan: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
    assert_eq!((&plan["dry_run"], &plan["unlisted"][0]["version"]), (&true.into(), &"1.0.0".into()));
    assert_eq!(plan["kept"][0]["needs"][0], serde_json::json!({ "for": "channel", "of": "stable" }));
    assert_eq!((&plan["removed"]["files"], plan["waiting"]["files"].as_u64() > Some(5)), (&0.into(), true));
    assert_eq!((blobs(), seen(&project, "repository").len()), (before, 2));
    // With a version, which keeps what the next patches start from: nothing goes yet.
    let added = publish(&project, &[&image("1.0.2"), "--keep", "1", "--json"]).good();
    let added: serde_json::Value = serde_json::from_str(&added.out).unwrap();
    assert_eq!((&added["new"], added["pruned"]["kept"].as_array().unwrap().len()), (&true.into(), 3));
    let said = publish(&project, &["--prune", "--keep", "1", "--patches", "2"]).good().out;
    assert!(
        said.starts_with(
            "tiny 1.0.2            stays: among the newest in stable, the next patches start from it, the newest\n\
             tiny 1.0.1            stays: the next patches start from it\n\
             tiny 1.0.0            is no longer listed\ndeleted: 0 files, 0 B\nwaiting: "
        ),
        "{said}"
    );
    assert_eq!(seen(&project, "repository"), ["1.0.2", "1.0.1"]);
    assert!(blobs() > before);
    assert_eq!(publish(&project, &["--list"]).good().out.lines().count(), 2);
    // Files alone, without a key that signs.
    for role in ["targets", "snapshot", "timestamp"] {
        for key in std::fs::read_dir(project.path("node/keys/private")).unwrap().flatten() {
            if key.file_name().to_string_lossy().starts_with(role) {
                std::fs::rename(key.path(), project.path(&format!("{role}.pem"))).unwrap();
            }
        }
    }
    let error = publish(&project, &["--prune", "--keep", "1", "--patches", "0"]);
    assert!(error.error().contains("signing for targets takes 1 of its keys"), "{}", error.err);
    let all = blobs();
    assert!(publish(&project, &["--prune", "--grace", "0"]).good().out.starts_with("deleted: "));
    assert!(blobs() + 5 < all);
    assert_eq!(seen(&project, "repository"), ["1.0.2", "1.0.1"]);
    let said = publish(&project, &["--prune", "--grace", "0"]).good().out;
    assert!(said.starts_with("deleted: 0 files, 0 B\nremaining, with those that wait: "), "{said}");
    // Flags without an effect, and what is not there.
    for flags in [
        &["--prune", "--patches", "1"][..],
        &["--prune", "--expires", "3d"],
        &["--prune", "--id", "tiny"],
        &["--prune", "--channel", "beta"],
        &["--prune", "--keep", "0"],
        &["--prune", &image("1.0.2")],
        &["--refresh", "--keep", "3"],
        &[&image("1.0.2"), "--grace", "1d"],
        &[&image("1.0.2"), "--keep", "1", "--dry-run"],
    ] {
        let ran = publish(&project, flags);
        assert_eq!(ran.code, Some(2), "{flags:?}: {}", ran.err);
    }
    let error = project.run(&["publish", "--prune", "--to", "none", "--keys", "node/keys"]);
    assert_eq!(error.error(), "error: none is not there");
    assert!(!project.path("none").exists());
}

/// What a bench counts is what a node would fetch: a new one, and one whose version has left the list.
#[test]
fn what_a_node_would_fetch() {
    let project = project(&["1.0.0", "1.0.1"]);
    publish(&project, &[&image("1.0.0")]).good();
    publish(&project, &[&image("1.0.1"), "--keep", "1", "--patches", "1", "--grace", "0"]).good();
    let server = Server::start();
    for directory in ["metadata", "targets", "blobs"] {
        for entry in std::fs::read_dir(project.path("repository").join(directory)).unwrap().flatten() {
            let path = format!("/{directory}/{}", entry.file_name().to_str().unwrap());
            server.put(&path, std::fs::read(entry.path()).unwrap(), &[]);
        }
    }
    let url = server.url("/");
    let fetch = |runs: &str| {
        let since = server.seen().len();
        let arguments =
            ["delta", "fetch", &url, "--trust", "node/keys/root.json", "--id", "tiny", "--to", "fetched"];
        let fetched = project.run(&[&arguments[..], &["--runs", runs]].concat()).good();
        let fetched: serde_json::Value = serde_json::from_str(&fetched.out).unwrap();
        let sent: u64 = server.sent(since).values().sum();
        assert_eq!(fetched["bytes"], sent, "{fetched}");
        fetched
    };
    let fetched = fetch("0");
    assert_eq!((&fetched["version"], &fetched["root"]["way"]), (&"1.0.1".into(), &"full".into()));
    assert!(fetched["metadata"].as_u64() > Some(1000));
    assert!(fetch("1.0.1")["version"].is_null());
}

/// Killed and interrupted while it publishes and prunes: a node finds all of what it sees.
#[test]
fn pruning_ended_at_any_moment() {
    let project = project(&["1.0.0", "1.0.1", "1.0.2"]);
    publish(&project, &[&image("1.0.0")]).good();
    publish(&project, &[&image("1.0.1")]).good();
    let begin = |arguments: &[&str]| {
        let common =
            ["publish", "--to", "repository", "--keys", "node/keys", "--patches", "1", "--grace", "0"];
        project.keller(&[&common, arguments].concat()).spawn().unwrap()
    };
    let again = || {
        let _ = std::fs::remove_dir_all(project.path("repository"));
        copy(&project.path("kept"), &project.path("repository"));
    };
    let new = image("1.0.2");
    let (old, all, short) = (&["1.0.1", "1.0.0"][..], &["1.0.2", "1.0.1", "1.0.0"][..], &["1.0.2"][..]);
    for (arguments, may) in [
        (&[new.as_str(), "--keep", "1"][..], [old, all, short]),
        (&["--prune", "--keep", "1"], [all, all, short]),
    ] {
        let _ = std::fs::remove_dir_all(project.path("kept"));
        copy(&project.path("repository"), &project.path("kept"));
        let began = Instant::now();
        assert!(begin(arguments).wait().unwrap().success());
        let mut time = began.elapsed();
        assert_eq!(seen(&project, "repository"), short);
        let (mut tried, mut ended) = (0, 0);
        while tried < 16 || ended < 4 {
            assert!(tried < 160, "only {ended} of {tried} were ended");
            again();
            let began = Instant::now();
            let child = begin(arguments);
            sleep(time * (tried % 16) / 15);
            let signal = if tried % 2 == 0 { Signal::KILL } else { Signal::INT };
            let _ = kill_process(Pid::from_child(&child), signal);
            let ran = Ran::of(&child.wait_with_output().unwrap());
            assert!(ran.code == Some(0) || ran.signal == Some(signal.as_raw()), "{}", ran.err);
            tried += 1;
            match ran.code {
                // The machine was busier when the time was taken: what is tried next comes earlier.
                Some(_) => time = time.min(began.elapsed()),
                None => ended += 1,
            }
            let versions = seen(&project, "repository");
            assert!(may.iter().any(|it| versions == **it), "{versions:?}");
            assert!(begin(arguments).wait().unwrap().success());
            assert_eq!(seen(&project, "repository"), short);
        }
        println!("{ended} of {tried} were ended");
        again();
        publish(&project, &[&new]).good();
    }
}

#[test]
fn keys_are_made_whole_or_not_at_all() {
    let project = Project::new();
    for moment in 0..12u64 {
        let folder = format!("keys-{moment}");
        let child = project.keller(&["keys", "init", "--root-keys", "5", &folder]).spawn().unwrap();
        sleep(Duration::from_micros(moment * 700));
        let _ = kill_process(Pid::from_child(&child), Signal::INT);
        let _ = child.wait_with_output().unwrap();
        let shown = project.run(&["keys", "show", &folder]);
        if shown.code != Some(0) {
            assert!(shown.error().contains("keller keys init"), "{}", shown.err);
            project.run(&["keys", "init", &folder]).good();
        }
        project.run(&["keys", "rotate", "timestamp", &folder]).good();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn without_keys_the_way_to_make_them_is_named() {
    let project = Project::new();
    project.edit(
        "runtime: podman",
        "update: {url: \"https://updates.example/tiny\", keys: keys}\nruntime: podman",
    );
    for (there, said) in
        [(false, "there is no directory node/keys of keys"), (true, "node/keys has no root.json")]
    {
        if there {
            std::fs::create_dir(project.path("node/keys")).unwrap();
        }
        for verb in [&["check"][..], &["build", "--keller", "fake-keller"], &["lock"]] {
            let ran = project.run(&[verb, &["node/node.yaml"]].concat());
            assert_eq!(ran.code, Some(1), "{}", ran.err);
            assert!(ran.err.contains(&format!("node/node.yaml:20:53: {said}\n")), "{}", ran.err);
            assert!(ran.err.contains("= `keller keys init node/keys` makes keys"), "{}", ran.err);
        }
        for arguments in
            [&["keys", "show", "node/keys"][..], &["publish", "x.raw", "--keys", "node/keys", "--to", "r"]]
        {
            let ran = project.run(arguments);
            let error = ran.error();
            assert!(
                error.ends_with("node/keys has no root.json: `keller keys init node/keys` makes keys"),
                "{error}"
            );
        }
    }
    // What the message names is what helps.
    project.run(&["keys", "init", "node/keys"]).good();
    project.run(&["check", "node/node.yaml"]).good();
}
