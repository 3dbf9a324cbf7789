//! Other authorities for a cluster that runs, step by step, with a writer all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keller::agent::etcd::restart::step_aside;
use keller::base::progress::Silent;
use keller::cluster::trust::{self, Asked};
use keller::cluster::wound::Kind;
use keller::cluster::{Access, View};
use keller::etcd::{Client, Credentials, Disbelief, Error};
use keller::pki::etcd::{self, Kept, Member};
use keller::pki::{self, Authority, Bundle, Wanted};

use super::{LONG, PATIENCE, Rack, kinds, me};

const ABC: [&str; 3] = ["a", "b", "c"];
/// The client that writes.
const WRITER: &str = "writer";

/// Who signs and who is believed besides, for clients and for members.
struct Step {
    clients: Authority,
    peers: Authority,
    /// Whether an etcd has to start over for it.
    restarts: bool,
}

/// A cluster's directory without documents, in which addresses of loopback would be refused.
fn directory(rack: &Rack) -> PathBuf {
    let directory = rack.folder.path().join("rack1");
    let operator = directory.join("operator");
    fs::create_dir_all(&operator).unwrap();
    let ends = rack.now + 3653 * 86_400;
    let [clients, peers] =
        ["old clients", "old peers"].map(|name| Authority::make_until(name, ends).unwrap());
    let wanted = Wanted { role: pki::Role::Client, name: "operator".to_owned(), hosts: Vec::new() };
    let members: BTreeMap<&str, _> = ABC.iter().map(|name| (*name, rack.hosts[*name])).collect();
    for (path, text) in [
        (directory.join("authority.pem"), clients.to_pem()),
        (directory.join("peer-authority.pem"), peers.to_pem()),
        (operator.join(etcd::CA), clients.certificate_pem()),
        (operator.join(etcd::CLIENT), clients.issue(&wanted, rack.now).unwrap().to_pem()),
        (
            operator.join("cluster.json"),
            serde_json::json!({ "name": "rack1", "members": members }).to_string(),
        ),
    ] {
        super::private(&path, &text);
    }
    directory
}

/// `keller cluster authority`.
fn authority(rack: &Rack, flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keller"));
    command.args(["cluster", "authority"]).arg(rack.folder.path().join("rack1")).args(flags);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

impl Step {
    /// As the directory has it now.
    fn read(directory: &Path, restarts: bool) -> Self {
        let [clients, peers] = ["authority", "peer-authority"].map(|name| {
            let read = |end: &str| fs::read(directory.join(format!("{name}{end}.pem"))).ok();
            let signs = Authority::read(&read("").unwrap()).unwrap();
            let next = read(".next").map(|next| Authority::read(&next).unwrap().believed());
            let last = read(".last").map(|last| Bundle::read(&last).unwrap());
            match next.or(last) {
                Some(beside) => signs.beside(beside),
                None => signs,
            }
        });
        Self { clients, peers, restarts }
    }

    fn give(&self, rack: &Rack, name: &str) -> Kept {
        let member = Member::of_cluster(name, rack.hosts[name]);
        let given = etcd::issue(&member, &self.clients, &self.peers, rack.now).unwrap();
        etcd::take(&rack.pki(name), &given, &member, me()).unwrap()
    }

    /// The writer's program reads its files each time.
    fn give_writer(&self, rack: &Rack) {
        let wanted = Wanted { role: pki::Role::Client, name: WRITER.to_owned(), hosts: Vec::new() };
        fs::create_dir_all(rack.pki(WRITER)).unwrap();
        for (file, text) in [
            (etcd::CA, self.clients.believed().to_pem()),
            (etcd::CLIENT, self.clients.issue(&wanted, rack.now).unwrap().to_pem()),
        ] {
            keller::base::atomic::write(&rack.pki(WRITER).join(file), text).unwrap();
        }
    }

    /// What a member shows that has it.
    fn asked(&self, is_last: bool) -> [Asked; 2] {
        [&self.clients, &self.peers].map(|authority| {
            let all = authority.believed().names();
            Asked { shown: Some(all[0].clone()), believed: all.into_iter().collect(), alone: is_last }
        })
    }
}

/// Keys that were acknowledged, and when the last one was.
struct Written {
    keys: Vec<String>,
    last: Instant,
    longest: Duration,
}

fn write(rack: &Rack, written: &Mutex<Written>, ends: &AtomicBool) {
    for at in 0.. {
        let key = format!("key-{at:05}");
        let is_acknowledged = |name: &str| {
            let mut put = rack.etcdctl_as(WRITER, name);
            put.args(["--command-timeout=3s", "--dial-timeout=3s", "put", &key, "value"]);
            put.output().unwrap().status.success()
        };
        // Each time another one is asked first.
        if ABC.into_iter().cycle().skip(at % 3).take(3).any(is_acknowledged) {
            let mut written = written.lock().unwrap();
            written.keys.push(key);
            written.longest = written.longest.max(written.last.elapsed());
            written.last = Instant::now();
        }
        if ends.load(Ordering::SeqCst) {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn more(written: &Mutex<Written>, count: usize) {
    let wanted = written.lock().unwrap().keys.len() + count;
    let begun = Instant::now();
    while written.lock().unwrap().keys.len() < wanted {
        assert!(begun.elapsed() < LONG, "nothing is written any more");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn authorities_are_replaced_under_a_writer() {
    let rack = Rack::new();
    let directory = directory(&rack);
    let first = Step::read(&directory, true);
    ABC.iter().for_each(|name| drop(first.give(&rack, name)));
    first.give_writer(&rack);
    let Some(running) = rack.begin(&ABC) else { return };
    let before = fs::read(rack.pki(WRITER).join(etcd::CLIENT)).unwrap();
    let running = Mutex::new(running);
    let written = Mutex::new(Written { keys: Vec::new(), last: Instant::now(), longest: Duration::ZERO });
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(&rack, &written, &ends));
        // Whatever fails here, the writer ends.
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more(&written, 3);
            let (code, text) = authority(&rack, &[]);
            assert!(
                code == Some(0) && text.contains("nothing is to be done before a year is left"),
                "{text}"
            );
            for at in 1..=3 {
                let (code, text) = authority(&rack, if at == 1 { &["--begin"] } else { &[] });
                assert_eq!(code, Some(0), "{text}");
                assert!(text.starts_with(&format!("rack1, step {at} of 3: ")), "{text}");
                let (step, is_last) = (&Step::read(&directory, at != 2), at == 3);
                // A client nobody waits for: between two steps it may be at either.
                if is_last {
                    step.give_writer(&rack);
                }
                for (done, name) in ABC.iter().enumerate() {
                    behind(&rack, step, is_last, &ABC[done..]);
                    let kept = step.give(&rack, name);
                    assert_eq!((kept.made.len(), kept.wants_restart), (3, step.restarts));
                    if step.restarts {
                        start_over(&rack, name, &running);
                    }
                    rack.until(&format!("{name} is in quorum at step {at}"), || {
                        View::of(&rack.access(name, &ABC)).votes() == (3, 3, 2)
                    });
                    more(&written, 2);
                }
                behind(&rack, step, is_last, &[]);
                if is_last {
                    let (code, text) = authority(&rack, &[]);
                    assert!(code == Some(0) && text.contains("nothing is to be done before"), "{text}");
                }
                assert_eq!(kinds(&View::of(&rack.access("a", &ABC)), rack.now), []);
                step.give_writer(&rack);
            }
            more(&written, 3);
        }));
        ends.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        judged.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let Written { keys, longest, .. } = written.into_inner().unwrap();
    println!("{} keys, at most {longest:?} apart", keys.len());
    assert!(longest < Duration::from_secs(60), "{longest:?}");
    for name in ABC {
        let all = rack.etcdctl(name, &["get", "--prefix", "key-", "--keys-only", "--consistency=s"]);
        let all: BTreeSet<&str> = all.lines().collect();
        let lost: Vec<_> = keys.iter().filter(|key| !all.contains(key.as_str())).collect();
        assert!(lost.is_empty(), "{name} has lost {lost:?}");
    }

    // Whoever has the old key makes nobody believe anything any more.
    let at = (rack.hosts["b"], etcd::CLIENT_PORT).into();
    let (old, new) = (first.clients, Step::read(&directory, true).clients);
    let connect = |authority: &Authority, identity: &[u8]| {
        let credentials = Credentials::new(authority.certificate_pem().as_bytes(), identity).unwrap();
        Client::connect(at, &credentials, PATIENCE).and_then(|mut client| client.status())
    };
    assert!(connect(&new, &fs::read(rack.pki(WRITER).join(etcd::CLIENT)).unwrap()).is_ok());
    assert!(matches!(connect(&new, &before).unwrap_err(), Error::NotAccepted { .. }));
    assert_eq!(
        connect(&old, &before).unwrap_err(),
        Error::Disbelieved { endpoint: at, cause: Disbelief::OtherAuthority }
    );
    drop(running);
}

/// A member starts over as `keller node apply` has it: the others are asked before, and it leads no more.
fn start_over(rack: &Rack, name: &str, running: &Mutex<BTreeMap<String, super::Running>>) {
    let access = rack.access(name, &ABC);
    step_aside(&access, LONG, &Silent).unwrap();
    rack.until("another one leads", || View::of(&access).leading().is_some_and(|leader| leader.name != name));
    drop(running.lock().unwrap().remove(name));
    // With one that is off, no other one may go.
    let other = if name == "b" { "a" } else { "b" };
    let access = rack.access(other, &ABC);
    rack.until("one is missed", || View::of(&access).votes() == (3, 2, 2));
    let refused = step_aside(&access, Duration::ZERO, &Silent).unwrap_err();
    let says = format!("without {other} the cluster would stop. First bring back {name}");
    assert!(keller::base::Chain(&refused).to_string().ends_with(&says), "{refused}");
    running.lock().unwrap().insert(name.to_owned(), rack.start(name, &ABC, "new").unwrap());
}

/// The members that are behind are these, as a member sees it, and whoever has no certificate for the port of members.
fn behind(rack: &Rack, step: &Step, is_last: bool, names: &[&str]) {
    let [clients, peers] = step.asked(is_last);
    if !names.is_empty() {
        let (code, text) = authority(rack, &[]);
        assert_eq!(code, Some(1), "{text}");
        let is_named = |name: &&&str| text.contains(&format!("\n  {name}: at the port of clients it "));
        assert_eq!(ABC.iter().filter(is_named).copied().collect::<Vec<_>>(), names, "{text}");
    }
    let access = rack.access("a", &ABC);
    let pem = step.peers.believed().to_pem();
    let outside =
        Access { peer: Some(Credentials::without_identity(pem.as_bytes()).unwrap()), ..access.clone() };
    for access in [&access, &outside] {
        let view = View::of(access);
        let lagging = trust::lagging(&view, &clients, &peers);
        let lagging: Vec<&str> = lagging.iter().map(|lag| lag.member.as_str()).collect();
        assert_eq!(lagging, names, "{:?}", trust::lagging(&view, &clients, &peers));
        let differ = kinds(&view, rack.now).iter().filter(|(kind, _)| *kind == Kind::Differ).count();
        assert_eq!(differ, if names.is_empty() || names.len() == ABC.len() { 0 } else { 2 });
    }
}
