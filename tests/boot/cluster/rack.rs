//! A rack of machines in a lab, whose etcds are one cluster, with curl as a client of each.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keller::lab::{self, Client, Request, State};
use keller::node;
use keller::pki::etcd;
use keller::project::cluster::{Init, Issue};
use keller::project::lab::Up;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::boot::scratch::{Disk, Scratch};
use crate::boot::turn::Turn;
use crate::boot::{BOOT, build_raw, lab as laboratory};

/// All names that a machine of a rack may have, in the order of their addresses.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// How long a cluster may take to be one again: its members are emulated, three and more on two processors.
pub(super) const SETTLES: Duration = Duration::from_secs(300);

/// Whoever cannot have an answer asks another member.
const ANSWER_SECONDS: &str = "15";

/// A small node with etcd.
pub(super) const MANIFEST: &str = "keller: 1\nid: member\nversion: 1.0.0\n\
    include: [keller:manifests/components/base.yaml, keller:manifests/components/kernel-cloud.yaml, \
    keller:manifests/components/ssh.yaml, keller:manifests/components/etcd.yaml]\n\
    users: [{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}]\n\
    kernel: {cmdline: [\"console=ttyS0,115200\"]}\n\
    network:\n  interfaces:\n  - {name: first, card: {name: \"en*\"}, dhcp: ipv4, addresses: [10.55.0.1/24]}\n  \
    - {name: lab, vlan: {of: first, id: 7}, addresses: [10.99.0.1/24]}\n\
    health: {stable: 1s, deadline: 20min}\n\
    disk: {esp: 128MiB, root: 512MiB, reserve: 64MiB, state: {min: 768MiB}}\noutputs: [raw]\n";

/// Its image, built once for all tests.
fn image() -> &'static Path {
    static IMAGE: OnceLock<Disk> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let scratch = Scratch::new("member");
        let manifest = scratch.join("node.yaml");
        fs::write(&manifest, MANIFEST).unwrap();
        build_raw(scratch, &[manifest.as_os_str()])
    })
}

/// Address of a machine.
pub(super) fn address(name: &str) -> IpAddr {
    let place = NAMES.iter().position(|one| *one == name).unwrap();
    IpAddr::from([10, 9, 0, u8::try_from(place + 1).unwrap()])
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// What a rack begins as.
pub(super) struct Beginning {
    /// Of its directory.
    pub test: &'static str,
    /// Members that `keller cluster init` lists.
    pub first: &'static [&'static str],
    /// Members that `keller cluster issue` lists later, one after the other.
    pub others: &'static [&'static str],
    /// Those that have power from the beginning.
    pub on: &'static [&'static str],
    /// How many days ago the certificates were made.
    pub age_days: i64,
    /// A machine whose clock shows something else.
    pub clock: Option<(&'static str, String)>,
}

impl Beginning {
    /// All its machines.
    fn names(&self) -> Vec<&'static str> {
        [self.first, self.others].concat()
    }

    /// The documents, as `keller cluster init` and `keller cluster issue` make them, in `rack1` of `scratch`.
    fn documents(&self, scratch: &Path) -> PathBuf {
        let with = |names: &[&str]| {
            let of = |name: &&str| {
                format!(
                    "node: 1\nname: {name}\nmatch: {{serial: {name}}}\nnetwork:\n  interfaces:\n    - {{name: lab, card: \
                     {{mac: \"{}\"}}, addresses: [{}/24]}}\n",
                    lab::mac(name),
                    address(name)
                )
            };
            let file = scratch.join("nodes.yaml");
            fs::write(&file, names.iter().map(of).collect::<Vec<_>>().join("---\n")).unwrap();
            Some(file)
        };
        let now = now() - self.age_days * 86_400;
        let directory = scratch.join("rack1");
        let named = |name: &&str| ((*name).to_owned(), address(name));
        let init = Init {
            name: "rack1".to_owned(),
            members: self.first.iter().map(named).collect(),
            clients: vec!["w1".to_owned()],
            with: with(self.first),
            directory: directory.clone(),
            now,
        };
        init.run().unwrap();
        for name in self.others {
            issue(&directory, &[(name, Some(address(name)))], with(&[name]), now);
        }
        directory
    }
}

/// Makes certificates as of `now`.
pub(super) fn issue(rack: &Path, members: &[(&str, Option<IpAddr>)], with: Option<PathBuf>, now: i64) {
    let members = members.iter().map(|(name, ip)| ((*name).to_owned(), *ip)).collect();
    let issue =
        Issue { directory: rack.to_owned(), members, clients: Vec::new(), with, operator: false, now };
    issue.run().unwrap();
}

/// Machines of a lab. The cluster's own Ethernet is reached through ssh.
pub(super) struct Rack {
    pub lab: Client,
    names: Vec<&'static str>,
    up: Mutex<Up>,
    /// By name: what leads from a socket of [`Rack::way`] to each member.
    ways: Mutex<BTreeMap<&'static str, Child>>,
    /// What a client shows and believes.
    client: PathBuf,
    ca: PathBuf,
    /// A socket's path has at most 107 bytes.
    sockets: TempDir,
    /// Connections that commands share are those of one start of a machine.
    starts: AtomicUsize,
    scratch: Scratch,
    turn: Turn,
}

impl Rack {
    /// Makes the machines, and waits for those that are on.
    pub(super) fn start(beginning: &Beginning) -> Self {
        Self::of(image(), beginning)
    }

    /// The same with machines of `image`.
    pub(super) fn of(image: &Path, beginning: &Beginning) -> Self {
        let scratch = Scratch::new(beginning.test);
        let rack = beginning.documents(&scratch);
        let first = beginning.first[0];
        let text = fs::read(rack.join(format!("{first}.yaml"))).unwrap();
        let document = node::read("x", &text).unwrap().remove(0);
        let give = |file: &str| {
            let path = scratch.join(file);
            fs::write(&path, &document.credentials[&format!("{}{file}", node::cluster::PREFIX)].0).unwrap();
            path
        };
        let (client, ca) = (give(etcd::CLIENT), give(etcd::CA));
        let names = beginning.names();
        let clock = |name: &str| match &beginning.clock {
            Some((machine, clock)) if *machine == name => format!(", clock: {clock}"),
            _ => String::new(),
        };
        let machine = |name: &&str| format!("{{name: {name}, node: rack1/{name}.yaml{}}}", clock(name));
        let machines = names.iter().map(machine).collect::<Vec<_>>().join(", ");
        let file = scratch.join("lab.yaml");
        let text = format!("lab: 1\nimage: {}\nmemory: 640MiB\nmachines: [{machines}]\n", image.display());
        fs::write(&file, text).unwrap();
        let turn = Turn::several(names.len());
        let up = laboratory::start(&scratch, &file);
        let rack = Self {
            lab: up.running.client(),
            names,
            up: Mutex::new(up),
            ways: Mutex::default(),
            client,
            ca,
            sockets: TempDir::new().unwrap(),
            starts: AtomicUsize::new(0),
            scratch,
            turn,
        };
        rack.names.iter().filter(|name| !beginning.on.contains(name)).for_each(|name| rack.kill(name));
        rack.awaits(beginning.on);
        beginning.on.iter().for_each(|name| rack.lead_to(name));
        rack
    }

    /// The directory that `keller cluster init` made.
    pub(super) fn directory(&self) -> PathBuf {
        self.scratch.join("rack1")
    }

    /// Waits until ssh answers.
    pub(super) fn awaits(&self, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.lab.wait(&names, 2 * BOOT).unwrap_or_else(|error| panic!("{error}\n{}", self.tails()));
    }

    /// Gives machines power, and waits for them.
    pub(super) fn power_on(&self, names: &[&str]) {
        self.starts.fetch_add(1, Ordering::SeqCst);
        names.iter().for_each(|name| self.request(&Request::Start { name: (*name).to_owned() }));
        self.awaits(names);
    }

    /// Has the next command on each machine log in anew: one that has started over knows no earlier connection.
    pub(super) fn forget_connections(&self) {
        self.starts.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn kill(&self, name: &str) {
        self.request(&Request::Kill { name: name.to_owned() });
        assert_eq!(self.lab.machine(name).unwrap().state, State::Off);
    }

    /// Makes the way to a member anew: that of a machine that was off leads nowhere.
    pub(super) fn lead_to(&self, name: &'static str) {
        let forward = format!("{}:{}:{}", self.way(name).display(), address(name), etcd::CLIENT_PORT);
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
    pub(super) fn leader(&self, names: &[&'static str]) -> &'static str {
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
    pub(super) fn has(&self, name: &str, keys: &[usize]) {
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

    /// What a machine prints, standard error in it. A login takes an emulated processor a second: commands share one.
    pub(super) fn run(&self, name: &str, command: &str) -> String {
        self.feed(name, command, Stdio::null())
    }

    /// Writes a file into the home of core.
    pub(super) fn send(&self, name: &str, file: &Path) {
        let path = file.file_name().unwrap().to_string_lossy();
        let said = self.feed(name, &format!("cat > {path}"), fs::File::open(file).unwrap().into());
        assert_eq!(said, "");
    }

    fn feed(&self, name: &str, command: &str, input: Stdio) -> String {
        let mut ssh = self.lab.ssh(name, &[]).unwrap_or_else(|error| panic!("{error}"));
        let socket = self.sockets.path().join(format!("{name}{}", self.starts.load(Ordering::SeqCst)));
        ssh.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "-o", "ConnectTimeout=30", "-S"]);
        ssh.arg(socket).args(["-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"]);
        ssh.args(["--", &format!("exec 2>&1; {command}")]);
        let output = ssh.stdin(input).stderr(Stdio::null()).output().expect("ssh is installed");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// What `keller cluster` says to root of a machine.
    pub(super) fn keller(&self, name: &str, arguments: &str) -> String {
        self.run(name, &format!("sudo keller cluster {arguments}"))
    }

    /// What `keller cluster status` finds, asked on a machine.
    pub(super) fn status(&self, on: &str) -> Option<Value> {
        serde_json::from_str(&self.keller(on, "status --json")).ok()
    }

    /// Waits until `look` finds something.
    pub(super) fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        self.within(SETTLES, what, look)
    }

    /// The same within `limit`.
    pub(super) fn within<T>(&self, limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "{what} has not come about\n{}", self.tails());
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Waits until each of `names` has a vote and works, and all of the cluster do, asked on a machine.
    pub(super) fn votes(&self, on: &str, names: &[&str]) {
        let mut last = None;
        let is_member = |status: &Value, name: &str| {
            status["members"].as_array().into_iter().flatten().any(|member| {
                let votes = member["role"] == "leader" || member["role"] == "follower";
                member["name"] == name && votes && member["good"] == true
            })
        };
        let deadline = Instant::now() + SETTLES;
        while !last.as_ref().is_some_and(|status: &Value| {
            names.iter().all(|name| is_member(status, name)) && status["good"] == status["voters"]
        }) {
            assert!(Instant::now() < deadline, "{names:?} have no votes: {last:?}\n{}", self.tails());
            last = self.status(on);
        }
    }

    /// Waits until etcd of a machine says `text` while it waits.
    pub(super) fn waits(&self, name: &str, text: &str) -> String {
        self.until(&format!("{name} says {text:?}"), || {
            let said = self
                .run(name, "sudo journalctl -b -u etcd -o cat --no-pager | grep 'etcd waits' | tail -n 1");
            said.contains(text).then_some(said)
        })
    }

    /// Does something, and says how many seconds it took.
    pub(super) fn step<T>(&self, what: &str, act: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = act();
        println!("{:>5} s  {what}", begun.elapsed().as_secs());
        done
    }

    pub(super) fn request(&self, request: &Request) {
        self.lab.ask(request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    }

    /// The ends of all consoles.
    pub(super) fn tails(&self) -> String {
        let tail = |name: &&str| {
            let console = self.scratch.join(format!("lab/{name}/console.log"));
            let text = String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let journal = match self.lab.machine(name).map(|machine| machine.state) {
                Ok(State::Ready) => self.run(
                    name,
                    "sudo journalctl -u etcd -u keller-etcd-promotion -o cat --no-pager | tail -n 12",
                ),
                _ => String::new(),
            };
            format!("{name}:\n{}\n{journal}\n", lines[lines.len().saturating_sub(8)..].join("\n"))
        };
        self.names.iter().map(tail).collect()
    }
}

impl Drop for Rack {
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

pub(super) fn key(number: usize) -> String {
    format!("w/{number:06}")
}

/// Writes a key each second, to whichever member takes it, until `ends`; puts the acknowledged ones into `done`.
pub(super) fn write(rack: &Rack, members: &[&str], done: &Mutex<Vec<usize>>, ends: &AtomicBool) {
    let mut turn = 0;
    for number in 0.. {
        if ends.load(Ordering::SeqCst) {
            return;
        }
        let request =
            json!({"key": STANDARD.encode(key(number)), "value": STANDARD.encode(number.to_string())});
        match rack.ask(members[turn % members.len()], "kv/put", &request) {
            Some(_) => done.lock().unwrap().push(number),
            None => turn += 1,
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Waits until so many more keys are acknowledged.
pub(super) fn more(done: &Mutex<Vec<usize>>, count: usize, rack: &Rack) {
    let before = done.lock().unwrap().len();
    let deadline = Instant::now() + SETTLES;
    while done.lock().unwrap().len() < before + count {
        assert!(Instant::now() < deadline, "after {before} keys no more are taken\n{}", rack.tails());
        thread::sleep(Duration::from_millis(200));
    }
}
