//! Killed, or ended by Ctrl-C, at any moment: what has a final name is whole, the store is good, and the
//! next build makes what it would have made.

use std::collections::BTreeMap;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use keller::base::Digest;
use rustix::process::{Pid, Signal, kill_process};

use super::bad_input::sound;
use super::project::{Project, Ran};
use crate::http_server::{Act, Server};

/// Moments in a build at which it is ended, each by both signals.
const MOMENTS: u32 = 10;

fn end(child: &Child, signal: Signal) {
    let _ = kill_process(Pid::from_child(child), signal);
}

fn digests(project: &Project, folder: &str) -> BTreeMap<String, Digest> {
    let names = project.names(folder).into_keys();
    names.map(|name| (name.clone(), Digest::of(project.read(&format!("{folder}/{name}"))))).collect()
}

/// No temporary name is a final one; what has a final name must be what a whole build makes.
fn whole(project: &Project, expected: &BTreeMap<String, Digest>) {
    for (name, digest) in digests(project, "node/out") {
        if !name.starts_with('.') {
            assert_eq!(expected.get(&name), Some(&digest), "{name} is not whole");
        }
    }
    if project.path("node/node.lock").exists() {
        project.json("node/node.lock");
    }
}

#[test]
fn ended_at_any_moment() {
    let project = Project::new();
    project.edit("runtime: podman", "outputs: [qcow2, raw]\nruntime: podman");
    project.run(&["lock", "node/node.yaml"]).good();
    let began = Instant::now();
    project.build(&["--store", "cold"]).good();
    let time = began.elapsed();
    let expected = digests(&project, "node/out");
    for signal in [Signal::KILL, Signal::INT] {
        let mut seen = Vec::new();
        for moment in 0..MOMENTS {
            let _ = std::fs::remove_dir_all(project.path("node/out"));
            let _ = std::fs::remove_dir_all(project.path("cold"));
            let child = project.build_command(&["--store", "cold"]).spawn().unwrap();
            sleep(time * moment / MOMENTS);
            end(&child, signal);
            let ran = Ran::of(&child.wait_with_output().unwrap());
            seen.push(ran.err.lines().last().unwrap_or_default().to_owned());
            if ran.code != Some(0) {
                assert_eq!(ran.signal, Some(signal.as_raw()), "{}", ran.err);
            }
            whole(&project, &expected);
            if project.path("cold").exists() {
                sound(&project, "cold");
            }
        }
        println!("{signal:?}: {seen:?}");
        project.build(&["--store", "cold", "--locked"]).good();
        assert_eq!(digests(&project, "node/out"), expected);
    }
}

#[test]
fn ended_while_the_mirror_is_silent() {
    let project = Project::new();
    let server = Server::start();
    let kernel = "/debian/pool/main/linux-image-tiny_6.12-1_amd64.deb";
    for (path, bytes) in project.archive.files() {
        let path = format!("/debian/{path}");
        let acts = if path == kernel {
            &[Act::HangAt(500), Act::HangAt(700), Act::Serve][..]
        } else {
            &[Act::Serve]
        };
        server.put(&path, bytes, acts);
    }
    let mirror = server.url("/debian");
    for signal in [Signal::KILL, Signal::INT] {
        let asked = server.seen().len();
        let child = project.build_command(&["--mirror", &mirror]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !server.seen()[asked..].iter().any(|request| request.line.ends_with(kernel)) {
            assert!(Instant::now() < deadline, "the kernel was never asked for");
            sleep(Duration::from_millis(20));
        }
        // Time for the first bytes to be written.
        sleep(Duration::from_millis(200));
        let began = Instant::now();
        end(&child, signal);
        let ran = Ran::of(&child.wait_with_output().unwrap());
        // Before keller itself gives up on a silent server, which is after 20 s and more than once.
        assert!(began.elapsed() < Duration::from_secs(15), "it did not end at once");
        assert_eq!(ran.signal, Some(signal.as_raw()), "{}", ran.err);
        sound(&project, "store");
        let names = project.names("node");
        assert!(
            !names.contains_key("node.lock") && !names.keys().any(|name| name.starts_with("out/")),
            "{names:?}"
        );
    }
    project.build(&["--mirror", &mirror]).good();
}

#[test]
fn two_builds_share_a_store() {
    let project = Project::new();
    project.run(&["lock", "node/node.yaml"]).good();
    let outputs = ["one", "two", "three"];
    let children =
        outputs.map(|output| project.build_command(&["--store", "shared", "-o", output]).spawn().unwrap());
    for child in children {
        Ran::of(&child.wait_with_output().unwrap()).good();
    }
    let [one, two, three] = outputs.map(|output| project.read(&format!("{output}/SHA256SUMS")));
    assert!(one == two && two == three);
    sound(&project, "shared");
}

#[test]
fn scratch_directories_go_with_whoever_made_them() {
    let project = Project::new();
    project.run(&["lock", "node/node.yaml"]).good();
    project.build(&[]).good();
    std::fs::create_dir(project.path("scratch")).unwrap();
    std::fs::create_dir(project.path("clusters")).unwrap();
    let members: Vec<String> = (1..8).map(|n| format!("--member=m{n}=10.0.0.{n}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let cluster = [&["cluster", "init", "rack", "--out", "clusters/rack"][..], &members].concat();
    let check = ["build", "--check", "--keller", "fake-keller", "node/node.yaml"];
    // A second build in TMPDIR, and the private keys of a cluster beside its directory.
    for (arguments, folder, begin) in
        [(&check[..], "scratch", "keller-check-"), (&cluster, "clusters", ".keller-cluster-")]
    {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let mut command = project.keller(arguments);
            let child = command.env("TMPDIR", project.path("scratch")).spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let is_there = || {
                let mut entries = std::fs::read_dir(project.path(folder)).unwrap();
                entries.any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(begin))
            };
            while !is_there() && !project.path("clusters/rack").exists() {
                assert!(Instant::now() < deadline, "{arguments:?} made no directory");
                std::thread::yield_now();
            }
            end(&child, signal);
            let ran = Ran::of(&child.wait_with_output().unwrap());
            assert!(ran.code == Some(0) || ran.signal == Some(signal.as_raw()), "{ran:?}");
            assert!(!is_there(), "{arguments:?} left its directory");
            let _ = std::fs::remove_dir_all(project.path("clusters/rack"));
        }
    }
}
