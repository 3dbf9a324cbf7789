//! Three machines become a cluster of etcd, as docs/cluster.md has it: out of one image, and of a node document for each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keller::lab::{self, Client, Request, State};
use keller::node;
use keller::pki::etcd;
use keller::project::lab::Up;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::scratch::Scratch;
use super::turn::Turn;
use super::{BOOT, keller};
use crate::judges::tool::run;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long a cluster may take to be one again: its members are emulated, three on two processors.
const SETTLES: Duration = Duration::from_secs(300);

/// Whoever cannot have an answer asks another member.
const ANSWER_SECONDS: &str = "15";

/// A small node with etcd.
const MANIFEST: &str = "keller: 1\nid: member\nversion: 1.0.0\n\
    include: [keller:manifests/components/base.yaml, keller:manifests/components/kernel-cloud.yaml, \
    keller:manifests/components/ssh.yaml, keller:manifests/components/etcd.yaml]\n\
    users: [{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}]\n\
    kernel: {cmdline: [\"console=ttyS0,115200\"]}\n\
    network:\n  interfaces:\n  - {name: first, card: {name: \"en*\"}, dhcp: ipv4, addresses: [10.55.0.1/24]}\n  \
    - {name: lab, vlan: {of: first, id: 7}, addresses: [10.99.0.1/24]}\n\
    health: {stable: 1s, deadline: 20min}\n\
    disk: {esp: 128MiB, root: 512MiB, reserve: 64MiB, state: {min: 512MiB}}\noutputs: [raw]\n";

/// Address of the member at `place` in [`NAMES`].
fn address(place: usize) -> String {
    format!("10.9.0.{}", place + 1)
}

/// The documents of a cluster, as `keller cluster init` makes them.
fn documents(scratch: &Path) -> PathBuf {
    let of = |(place, name): (usize, &&str)| {
        format!(
            "node: 1\nname: {name}\nmatch: {{serial: {name}}}\nnetwork:\n  interfaces:\n    - {{name: lab, card: {{mac: \
             \"{}\"}}, addresses: [{}/24]}}\n",
            lab::mac(name),
            address(place)
        )
    };
    let with = scratch.join("nodes.yaml");
    fs::write(&with, NAMES.iter().enumerate().map(of).collect::<Vec<_>>().join("---\n")).unwrap();
    let out = scratch.join("rack1");
    let mut init = keller();
    init.args(["cluster", "init", "rack1", "--with"]).arg(&with).arg("--out").arg(&out);
    for (place, name) in NAMES.iter().enumerate() {
        init.args(["--member", &format!("{name}={}", address(place))]);
    }
    run(&mut init);
    out
}

/// Three machines, and curl as a client of each etcd: the cluster's own Ethernet is reached through ssh.
struct Three {
    lab: Client,
    up: Mutex<Up>,
    /// By name: what leads from a socket of [`Three::way`] to each member.
    ways: Mutex<BTreeMap<&'static str, Child>>,
    /// What a client shows and believes.
    client: PathBuf,
    ca: PathBuf,
    /// A socket's path has at most 107 bytes.
    sockets: TempDir,
    scratch: Scratch,
    turn: Turn,
}

impl Three {
    fn start(name: &str) -> Self {
        let scratch = Scratch::new(name);
        fs::write(scratch.join("node.yaml"), MANIFEST).unwrap();
        let out = scratch.join("out");
        run(keller().args(["build", "--quiet", "--output"]).arg(&out).arg(scratch.join("node.yaml")));
        let rack = documents(&scratch);
        let text = fs::read(rack.join("a.yaml")).unwrap();
        let document = node::read("a.yaml", &text).unwrap().remove(0);
        let give = |file: &str| {
            let path = scratch.join(file);
            fs::write(&path, &document.credentials[&format!("{}{file}", node::cluster::PREFIX)].0).unwrap();
            path
        };
        let (client, ca) = (give(etcd::CLIENT), give(etcd::CA));
        let machines = NAMES.map(|name| format!("{{name: {name}, node: rack1/{name}.yaml}}")).join(", ");
        let file = scratch.join("lab.yaml");
        let text = format!("lab: 1\nimage: out/member_1.0.0.raw\nmemory: 640MiB\nmachines: [{machines}]\n");
        fs::write(&file, text).unwrap();
        let turn = Turn::several(NAMES.len());
        let up = super::lab::start(&scratch, &file);
        let lab = up.running.client();
        lab.wait(&[], 2 * BOOT).unwrap_or_else(|error| panic!("{error}"));
        let three = Self {
            lab,
            up: Mutex::new(up),
            ways: Mutex::default(),
            client,
            ca,
            sockets: TempDir::new().unwrap(),
            scratch,
            turn,
        };
        NAMES.iter().for_each(|name| three.lead_to(name));
        three
    }

    /// Makes the way to a member anew: that of a machine that was off leads nowhere.
    fn lead_to(&self, name: &'static str) {
        let place = NAMES.iter().position(|one| *one == name).unwrap();
        let forward = format!("{}:{}:{}", self.way(name).display(), address(place), etcd::CLIENT_PORT);
        let mut ssh = self.lab.ssh(name, &[]).unwrap_or_else(|error| panic!("{error}"));
        ssh.args(["-N", "-o", "StreamLocalBindUnlink=yes", "-L", &forward])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut ways = self.ways.lock().unwrap();
        if let Some(mut old) = ways.remove(name) {
            let _ = old.kill();
            let _ = old.wait();
        }
        ways.insert(name, ssh.spawn().expect("ssh is installed"));
    }

    /// The socket at which the way to a member begins.
    fn way(&self, name: &str) -> PathBuf {
        self.sockets.path().join(name)
    }

    /// What a member answers; nothing where it does not, or not in time.
    fn ask(&self, name: &str, path: &str, request: &Value) -> Option<Value> {
        let mut curl = Command::new("curl");
        curl.arg("--unix-socket").arg(self.way(name));
        curl.args(["--silent", "--fail", "--max-time", ANSWER_SECONDS, "--cacert"]).arg(&self.ca);
        curl.arg("--cert").arg(&self.client).args(["--data", &request.to_string()]);
        let output = curl.arg(format!("https://127.0.0.1/v3/{path}")).output();
        serde_json::from_slice(&output.expect("curl is installed").stdout).ok()
    }

    /// The member that all of `names` take for their leader, once they do.
    fn leader(&self, names: &[&'static str]) -> &'static str {
        let deadline = Instant::now() + SETTLES;
        loop {
            let status = names.iter().map(|name| (*name, self.ask(name, "maintenance/status", &json!({}))));
            let status: Vec<_> = status.collect();
            let id = |part: &Option<Value>, pointer: &str| {
                part.as_ref().and_then(|part| part.pointer(pointer)?.as_str().map(str::to_owned))
            };
            let leader = id(&status[0].1, "/leader").filter(|leader| leader != "0");
            let agree = status.iter().all(|(_, status)| id(status, "/leader") == leader);
            let who = status
                .iter()
                .find(|(_, status)| leader.is_some() && id(status, "/header/member_id") == leader);
            if let (true, Some((name, _))) = (agree, who) {
                return name;
            }
            assert!(Instant::now() < deadline, "{status:?}\n{}", self.tails());
            thread::sleep(Duration::from_secs(2));
        }
    }

    /// What a member itself has below `w/`, whatever the others have.
    fn written_at(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let (from, to) = (STANDARD.encode("w/"), STANDARD.encode("w0"));
        let request = json!({"key": from, "range_end": to, "serializable": true});
        let answer = self.ask(name, "kv/range", &request)?;
        let text = |pair: &Value, part: &str| {
            String::from_utf8(STANDARD.decode(pair[part].as_str().unwrap()).unwrap()).unwrap()
        };
        let pairs = answer["kvs"].as_array().into_iter().flatten();
        Some(pairs.map(|pair| (text(pair, "key"), text(pair, "value"))).collect())
    }

    /// Waits until a member has all of `keys`.
    fn has(&self, name: &str, keys: &[usize]) {
        let deadline = Instant::now() + SETTLES;
        loop {
            let written = self.written_at(name);
            let is_there = |written: &BTreeMap<String, String>, number: &usize| {
                written.get(&key(*number)) == Some(&number.to_string())
            };
            let missing: Option<Vec<_>> = written
                .as_ref()
                .map(|written| keys.iter().filter(|number| !is_there(written, number)).collect());
            match missing {
                Some(missing) if missing.is_empty() => return,
                missing => assert!(
                    Instant::now() < deadline,
                    "{name} lacks {missing:?} of {}\n{}",
                    keys.len(),
                    self.tails()
                ),
            }
            thread::sleep(Duration::from_secs(2));
        }
    }

    /// What a machine prints.
    fn run(&self, name: &str, command: &str) -> String {
        let mut ssh = self.lab.ssh(name, &[command.to_owned()]).unwrap_or_else(|error| panic!("{error}"));
        let output = ssh.stdin(Stdio::null()).output().expect("ssh is installed");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn request(&self, request: &Request) {
        self.lab.ask(request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    }

    /// The ends of all consoles.
    fn tails(&self) -> String {
        let tail = |name| {
            let console = self.scratch.join(format!("lab/{name}/console.log"));
            let text = String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let journal = match self.lab.machine(name).map(|machine| machine.state) {
                Ok(State::Ready) => self.run(name, "sudo journalctl -u etcd -o cat --no-pager | tail -n 8"),
                _ => String::new(),
            };
            format!("{name}:\n{}\n{journal}\n", lines[lines.len().saturating_sub(8)..].join("\n"))
        };
        NAMES.map(tail).concat()
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        for way in self.ways.get_mut().unwrap().values_mut() {
            let _ = way.kill();
            let _ = way.wait();
        }
        for machine in self.lab.status().into_iter().flat_map(|status| status.machines) {
            self.turn.note(machine.process);
        }
        let _ = self.lab.ask(&Request::Stop {});
        while self.up.get_mut().unwrap().running.next(Duration::from_secs(60)).is_ok() {}
    }
}

fn key(number: usize) -> String {
    format!("w/{number:06}")
}

/// Writes a key each second, to whichever member takes it, until `ends`; puts the acknowledged ones into `done`.
fn write(three: &Three, done: &Mutex<Vec<usize>>, ends: &AtomicBool) {
    let mut turn = 0;
    for number in 0.. {
        if ends.load(Ordering::SeqCst) {
            return;
        }
        let request =
            json!({"key": STANDARD.encode(key(number)), "value": STANDARD.encode(number.to_string())});
        match three.ask(NAMES[turn % NAMES.len()], "kv/put", &request) {
            Some(_) => done.lock().unwrap().push(number),
            None => turn += 1,
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Waits until so many more keys are acknowledged.
fn more(done: &Mutex<Vec<usize>>, count: usize, three: &Three) {
    let before = done.lock().unwrap().len();
    let deadline = Instant::now() + SETTLES;
    while done.lock().unwrap().len() < before + count {
        assert!(Instant::now() < deadline, "after {before} keys no more are taken\n{}", three.tails());
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn three_machines_form_a_cluster_that_loses_no_write() {
    let three = Three::start("cluster");
    three.leader(&NAMES);
    let (done, ends) = (Mutex::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(&three, &done, &ends));
        // Whatever fails here, the writer ends.
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more(&done, 5, &three);
            let lost = three.leader(&NAMES);
            three.request(&Request::Kill { name: lost.to_owned() });
            assert_eq!(three.lab.machine(lost).unwrap().state, State::Off);
            more(&done, 5, &three);
            three.request(&Request::Start { name: lost.to_owned() });
            three.lab.wait(&[lost.to_owned()], BOOT).unwrap_or_else(|error| panic!("{error}"));
            three.lead_to(lost);
            let leader = three.leader(&NAMES);
            // One that lives and hears nobody takes nothing on.
            three.request(&Request::Cut { a: leader.to_owned(), b: None });
            more(&done, 5, &three);
            let status = three.lab.status().unwrap();
            assert!(status.cables.iter().filter(|cable| cable.cut).count() == 2 && status.lost_frames > 0);
            three.request(&Request::Mend { a: leader.to_owned(), b: None });
            three.leader(&NAMES);
        }));
        ends.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        judged.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let done = done.into_inner().unwrap();
    NAMES.iter().for_each(|name| three.has(name, &done));

    // Each spoke to the others and to nobody else; what Linux tells a group (ARP, IPv6) beside.
    let status = three.lab.status().unwrap();
    for from in NAMES {
        for to in NAMES.into_iter().filter(|to| *to != from) {
            let is = |machine: &Option<String>, name: &str| machine.as_deref() == Some(name);
            let hit = |one: &lab::Traffic| is(&one.from_machine, from) && is(&one.to_machine, to);
            assert!(status.traffic.iter().any(|one| hit(one) && one.frames > 20), "{from}, {to}: {status:?}");
        }
    }
    let strange = super::lab::strangers(&status);
    assert!(strange.is_empty(), "{strange:?}");

    // What the manifest has for all nodes is there, but for what the document has under the same name.
    let addresses = three.run("a", "ip -brief address");
    assert!(addresses.contains("10.55.0.1/24") && addresses.contains("10.9.0.1/24"), "{addresses}");
    assert!(!addresses.contains("10.99."), "{addresses}");

    let open = three.run("a", "sudo ss -H -tln 'sport = :2379 or sport = :2380' | awk '{print $4}' | sort");
    assert_eq!(open, "10.9.0.1:2379\n10.9.0.1:2380\n127.0.0.1:2379");
    for port in [etcd::CLIENT_PORT, etcd::PEER_PORT] {
        let plain = format!(
            "timeout 20 bash -c 'exec 3<>/dev/tcp/10.9.0.2/{port}; printf \"GET /version HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3' | grep -c etcdserver; true"
        );
        assert_eq!(three.run("a", &plain), "0", "port {port} answers without TLS");
    }
    let secret = "sudo journalctl -b --no-pager | grep -c 'PRIVATE[ ]KEY'; ps -eo args | grep -c 'PRIVATE[ ]KEY'; true";
    assert_eq!(three.run("a", secret), "0\n0");
}
