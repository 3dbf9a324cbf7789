//! `keller lab` without machines: the program that plays QEMU stands in their place (see `boot`), so that all that keller
//! does around them can be tried in a moment.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::boot::{end, is_gone, project};
use super::project::{Project, Ran};

/// Far more than any of it takes, for a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// `keller lab up` with `arguments`, in the project's directory `lab`, until all `count` machines are ready.
struct Lab<'a> {
    project: &'a Project,
    child: Child,
}

impl<'a> Lab<'a> {
    fn up(project: &'a Project, arguments: &[&str], count: usize) -> Self {
        let mut command = up(project, arguments);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..count {
            let Some(line) = lines.next() else {
                panic!("no lab: {:?}", Ran::of(&child.wait_with_output().unwrap()))
            };
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            assert_eq!(event["event"], "ready", "{event}");
        }
        // Read on: a reader that has gone ends the lab.
        std::thread::spawn(move || lines.for_each(drop));
        Self { project, child }
    }

    fn ask(&self, arguments: &[&str]) -> Ran {
        // Before the name: what follows that of `ssh` is run on the machine.
        self.project.run(&[&["lab"], &arguments[..1], &["--dir", "lab"], &arguments[1..]].concat())
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ask(&["status", "--json"]).good().out).unwrap()
    }

    fn machine(&self, number: usize) -> Value {
        self.status()["machines"][number].clone()
    }

    /// What it says when it refuses.
    fn refuses(&self, arguments: &[&str]) -> String {
        self.ask(arguments).error().to_owned()
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn up(project: &Project, arguments: &[&str]) -> std::process::Command {
    let arguments = [&["lab", "up", "--json", "--no-kvm", "--dir", "lab"], arguments].concat();
    let mut command = project.keller(&arguments);
    // Not the host's QEMU.
    command.env("PATH", "/nowhere").env("MACHINES", project.path("machines"));
    command
}

const TWO: [&str; 6] = ["--image", "disk.raw", "--machine", "a", "--machine", "b"];

#[test]
fn without_a_lab_each_verb_says_so() {
    let project = Project::new();
    std::fs::create_dir(project.path("empty")).unwrap();
    for directory in ["none", "empty"] {
        for verb in [&["status"][..], &["kill", "a"], &["cut", "a", "b"], &["ssh", "a"], &["stop"], &["wait"]]
        {
            let ran = project.run(&[&["lab"], &verb[..1], &["--dir", directory], &verb[1..]].concat());
            let said = format!(
                "error: no lab runs in {directory}: `keller lab up` starts one there, and --dir names another directory"
            );
            assert_eq!((ran.error(), ran.code), (said.as_str(), Some(1)));
        }
    }
    assert!(!project.path("none").exists(), "a question makes no directory");
    let ran = project.run(&["lab", "kill", "a", "--dir", "none", "--json"]);
    let answer: Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert!(answer["error"].as_str().unwrap().starts_with("no lab runs in none"), "{answer}");
}

#[test]
fn machines_are_killed_started_paused_and_wiped() {
    let project = project();
    let lab = Lab::up(&project, &TWO, 2);
    let status = lab.status();
    let names: Vec<_> = status["machines"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    let before = lab.machine(0);
    assert_eq!((&before["state"], &before["address"]), (&"ready".into(), &"10.77.0.1/24".into()));
    let process = before["process"].as_u64().unwrap().to_string();

    assert!(
        lab.refuses(&["wipe", "a"]).contains("a runs, and its disk cannot be taken from it: `lab kill a`")
    );
    assert!(lab.refuses(&["start", "a"]).contains("a runs already: it is ready"));
    assert!(lab.refuses(&["resume", "a"]).contains("a is not paused"));
    assert!(lab.refuses(&["kill", "z"]).ends_with("no machine of this lab is named \"z\": there are a, b"));
    assert_eq!(lab.ask(&["pause", "a"]).good().out, "a is paused\n");
    assert!(lab.refuses(&["pause", "a"]).contains("a is paused already"));
    assert!(lab.refuses(&["wait"]).contains("a is paused"));
    lab.ask(&["resume", "a"]).good();
    lab.ask(&["wait", "a"]).good();

    assert_eq!(lab.ask(&["kill", "a"]).good().out, "a is off\n");
    assert!(is_gone(&process));
    assert_eq!(
        (lab.machine(0)["why"].as_str(), lab.machine(1)["state"].as_str()),
        (Some("its power was cut"), Some("ready"))
    );
    for verb in [&["kill", "a"][..], &["pause", "a"], &["ssh", "a"], &["stop", "a"]] {
        assert!(lab.refuses(verb).contains("`lab start a`"), "{verb:?}");
    }
    let disk = project.read("lab/a/disk.qcow2");
    project.write("lab/a/disk.qcow2", [&disk[..], b"written by the guest"].concat());
    lab.ask(&["start", "a"]).good();
    lab.ask(&["wait"]).good();
    // The ways in are the same, and so is the disk.
    assert_eq!(lab.machine(0)["ssh_port"], before["ssh_port"]);
    assert!(project.read("lab/a/disk.qcow2").ends_with(b"written by the guest"));
    lab.ask(&["kill", "a"]).good();
    lab.ask(&["wipe", "a"]).good();
    assert_eq!(project.read("lab/a/disk.qcow2"), disk);
    lab.ask(&["start", "a"]).good();

    // One that ends by itself stays in the lab.
    lab.ask(&["stop", "b"]).good();
    let deadline = Instant::now() + LIMIT;
    while lab.machine(1)["state"] != "off" {
        assert!(Instant::now() < deadline, "{}", lab.status());
    }
    assert_eq!(lab.machine(1)["why"], "it shut down");

    let mut lab = lab;
    lab.ask(&["stop"]).good();
    assert_eq!(end(&mut lab.child), Some(0));
    assert!(
        project.names("machines").keys().filter(|name| !name.contains('.')).all(|machine| is_gone(machine))
    );
    // Consoles stay; disks, the key and the socket do not.
    let left = project.names("lab");
    let left: Vec<&str> = left.keys().map(String::as_str).collect();
    assert_eq!(left, ["a/console.log", "a/node.yaml", "b/console.log", "b/node.yaml", "lab.lock"]);
    assert!(project.text("lab/a/console.log").contains("line 0 of the guest"));
    assert!(project.text("lab/b/node.yaml").contains("addresses: [10.77.0.2/24]"));
}

#[test]
fn cables_are_cut_and_mended() {
    let project = project();
    let lab = Lab::up(&project, &[&TWO[..], &["--machine", "c"]].concat(), 3);
    assert_eq!(lab.ask(&["cut", "a", "b"]).good().out, "a – b: cut\n");
    assert_eq!(lab.ask(&["delay", "c", "a", "200ms"]).good().out, "a – b: cut\na – c: 200 ms later\n");
    lab.ask(&["loss", "a", "c", "0.5%"]).good();
    let shown = lab.ask(&["status"]).good().out;
    assert!(shown.contains("\ncable a – b: cut\ncable a – c: 200 ms later, 0.5% lost\n"), "{shown}");
    let status = lab.status();
    assert_eq!(status["cables"][1]["lost_of_a_million"], 5000);
    lab.ask(&["delay", "a", "c", "0"]).good();
    lab.ask(&["loss", "a", "c", "0%"]).good();
    assert_eq!(lab.ask(&["mend", "a"]).good().out, "all cables are whole\n");
    assert_eq!(lab.ask(&["cut", "c"]).good().out, "a – c: cut\nb – c: cut\n");
    assert!(lab.refuses(&["cut", "a", "a"]).contains("a has no cable to itself"));
    assert!(lab.refuses(&["delay", "a", "z", "1s"]).contains("there are a, b, c"));
    for (arguments, said) in
        [(["delay", "a", "b", "soon"], "such as 200ms"), (["loss", "a", "b", "10"], "such as 10%")]
    {
        let ran = lab.ask(&arguments);
        assert!(ran.code == Some(2) && ran.err.contains(said), "{}", ran.err);
    }
}

#[test]
fn the_socket_takes_requests_and_nothing_else() {
    let project = project();
    let lab = Lab::up(&project, &TWO, 2);
    let socket = project.path("lab/lab.control");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(project.path("lab")).unwrap().permissions().mode() & 0o777, 0o700);
    let asked = |request: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // It may be refused before all of it was read.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(asked(b"{\"do\":\"kill\",\"name\":\"z\"}\n").starts_with("{\"error\":\"no machine"));
    for (request, said) in [
        (&b"{\"do\":\"fly\"}\n"[..], "cannot be understood"),
        (b"{\"do\":\"kill\"}\n", "cannot be understood"),
        (b"\xff\n", "cannot be understood"),
        (b"", "a request is a line"),
        (b"{\"do\":\"status\"}", "a request is a line"),
        (&[b'x'; 5000], "a request is a line of at most 4096 bytes"),
    ] {
        let answer = asked(request);
        assert!(answer.starts_with("{\"error\":") && answer.contains(said), "{answer}");
    }
    // The console comes over the same socket.
    let mut console = UnixStream::connect(&socket).unwrap();
    console.write_all(b"{\"do\":\"console\",\"name\":\"a\"}\n").unwrap();
    let mut lines = BufReader::new(console).lines();
    assert_eq!(lines.next().unwrap().unwrap(), r#"{"done":{"console":"a"}}"#);
    assert!(lines.take(50).any(|line| line.unwrap().ends_with("of the guest")));
    lab.ask(&["status"]).good();

    // One lab a directory.
    let ran = Ran::of(&up(&project, &TWO).output().unwrap());
    assert!(ran.error().contains("/lab already") && ran.error().contains("keller lab stop"), "{}", ran.err);
    lab.ask(&["status"]).good();
}

#[test]
fn disks_are_kept_on_demand_and_never_thrown_away_in_silence() {
    let project = project();
    let keep = [&TWO[..], &["--keep"]].concat();
    let mut lab = Lab::up(&project, &keep, 2);
    let disk = project.read("lab/a/disk.qcow2");
    project.write("lab/a/disk.qcow2", [&disk[..], b"written by the guest"].concat());
    kill_process(Pid::from_child(&lab.child), Signal::INT).unwrap();
    assert_eq!(end(&mut lab.child), Some(130));
    // They were asked to shut down.
    let down = project.names("machines").keys().filter(|name| name.ends_with(".powered-down")).count();
    assert_eq!(down, 2);
    assert!(project.read("lab/a/disk.qcow2").ends_with(b"written by the guest"));
    assert!(!project.path("lab/lab.identity").exists() && !project.path("lab/lab.control").exists());

    let refused = |arguments: &[&str]| Ran::of(&up(&project, arguments).output().unwrap()).error().to_owned();
    let said = refused(&TWO);
    assert!(said.contains("--keep goes on with it, --fresh throws it away"), "{said}");
    let mut lab = Lab::up(&project, &keep, 2);
    lab.ask(&["stop"]).good();
    assert_eq!(end(&mut lab.child), Some(0));
    assert!(project.read("lab/a/disk.qcow2").ends_with(b"written by the guest"));
    project.write("disk.raw", [1; 8192]);
    let said = refused(&keep);
    assert!(said.contains("over another image"), "{said}");
    assert!(project.read("lab/a/disk.qcow2").ends_with(b"written by the guest"));
    let fresh = [&TWO[..], &["--fresh"]].concat();
    let mut lab = Lab::up(&project, &fresh, 2);
    lab.ask(&["stop"]).good();
    assert_eq!(end(&mut lab.child), Some(0));
    assert!(!project.path("lab/a/disk.qcow2").exists());
}

#[test]
fn a_lab_ends_with_whoever_reads_it_and_leaves_no_machine() {
    for signal in [Some(Signal::KILL), None] {
        let project = project();
        let mut child = up(&project, &TWO).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        match signal {
            Some(signal) => kill_process(Pid::from_child(&child), signal).unwrap(),
            None => drop(output),
        }
        assert_eq!(end(&mut child), if signal.is_some() { None } else { Some(141) });
        let deadline = Instant::now() + LIMIT;
        while !project.names("machines").keys().all(|machine| machine.contains('.') || is_gone(machine)) {
            assert!(Instant::now() < deadline, "machines run on");
        }
        // What a killed one left is in nobody's way.
        drop(Lab::up(&project, &TWO, 2));
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_starts() {
    let project = project();
    project.write("b.yaml", "node: 1\nname: b\n");
    let image = ["--image", "disk.raw", "--machine"];
    for (arguments, said) in [
        (vec!["a", "--machine", "a"], "--machine: a stands here twice"),
        (vec!["A"], "--machine: A is not the name of a machine"),
        (vec!["a=b.yaml"], "--machine: b.yaml makes a node `b` of the machine `a`"),
        (vec!["a=none.yaml"], "--machine: none.yaml cannot be read"),
        (vec!["a", "--image", "none.raw"], "none.raw cannot be opened"),
    ] {
        let mut all = [&image[..], &arguments].concat();
        if arguments.contains(&"--image") {
            all.drain(..2);
        }
        let ran = Ran::of(&up(&project, &all).output().unwrap());
        assert!(ran.error().contains(said) && ran.code == Some(1), "{}", ran.err);
    }
    for arguments in [
        &[][..],
        &["--machine", "a"],
        &["lab.yaml", "--machine", "a", "--image", "disk.raw"],
        &["lab.yaml", "--memory", "1GiB"],
        &["--image", "disk.raw"],
    ] {
        assert_eq!(Ran::of(&up(&project, arguments).output().unwrap()).code, Some(2), "{arguments:?}");
    }
    let small = [&image[..], &["a", "--disk", "1MiB"]].concat();
    project.write("disk.raw", vec![0; 2 << 20]);
    let ran = Ran::of(&up(&project, &small).output().unwrap());
    assert!(
        ran.error().contains("machine a: a disk of 1MiB is too small: a node of disk.raw needs 2"),
        "{}",
        ran.err
    );
    project.write("lab.yaml", "lab: 1\nmachines: [{name: a}]\n");
    let ran = Ran::of(&up(&project, &["lab.yaml"]).output().unwrap());
    assert!(ran.error().contains("lab.yaml:2:12: the machine `a` has no image"), "{}", ran.err);
    assert!(!project.path("lab").exists() || !project.path("lab/a").exists());
}

#[test]
fn a_file_to_begin_with() {
    let project = project();
    assert!(project.run(&["lab", "init", "lab.yaml"]).good().out.contains("keller lab up lab.yaml"));
    assert!(project.run(&["lab", "init", "lab.yaml"]).error().contains("lab.yaml is there already"));
    let checked = project.run(&["lab", "check", "--image", "disk.raw", "lab.yaml"]).good().out;
    assert!(checked.starts_with("a  card 52:54:00:") && checked.ends_with("nothing wrong\n"), "{checked}");
    let schema: Value = serde_json::from_str(&project.run(&["lab", "schema"]).good().out).unwrap();
    assert!(schema["properties"]["machines"].is_object() && schema["$schema"].is_string());
    let lab = Lab::up(&project, &["lab.yaml", "--image", "disk.raw"], 3);
    let machine = lab.machine(2);
    assert_eq!(
        (&machine["address"], machine["forwards"][0][1].as_u64()),
        (&"10.77.0.30/24".into(), Some(8080))
    );
}
