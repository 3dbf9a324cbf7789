//! A member of a cluster before its etcd starts: asks the others what they have, and waits until it may.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::door::{self, Answer, Door};
use super::gate::{self, Own, Peer, Seat, Step, Told};
use super::listed::{Listed, MOST_SHOWN, joined, strange, url};
use crate::agent::clock;
use crate::base::failure::{Doing, Failure};
use crate::base::progress::Progress;
use crate::base::terminal::said;
use crate::base::{Chain, atomic, limits};
use crate::http;
use crate::node::cluster::{CLUSTER, Cluster, FILES};
use crate::pki::{self, Bundle, etcd};

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(2);
/// For one answer: a machine without KVM that starts its own etcd needs more than five seconds for it.
const PATIENCE: Duration = Duration::from_secs(15);
/// A list of members has some 200 bytes for each.
const MOST_BYTES: u64 = 64 << 10;
/// An operator's word; it is forgotten with the boot.
const TOLD: &str = "/run/keller/etcd-bootstrap";
/// Below the directory of its data, once a member has any.
const LOG: &str = "member/wal";

/// The cluster that this node's document names; none where there is none.
pub fn cluster() -> Result<Option<Cluster>, Failure> {
    match fs::read(CLUSTER) {
        Ok(text) => serde_json::from_slice(&text).map(Some).doing(format!("reading {CLUSTER}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(format!("reading {CLUSTER}"), error)),
    }
}

/// An operator's word that a new cluster begins although a listed member does not answer.
pub fn bootstrap() -> Result<Cluster, Failure> {
    let doing = "beginning a new cluster";
    let Some(cluster) = cluster()? else {
        return Err(Failure::new(doing, "this node is in no cluster: its node document has no `cluster`"));
    };
    if has_entries(&log(&cluster)) {
        return Err(Failure::new(doing, format!("{} has data of the cluster {}", cluster.me, cluster.name)));
    }
    atomic::write(TOLD.as_ref(), "").doing(format!("writing {TOLD}"))?;
    Ok(cluster)
}

fn log(cluster: &Cluster) -> PathBuf {
    Path::new(etcd::DATA).join(&cluster.name).join(LOG)
}

fn has_entries(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// Where a member finds and leaves what it knows.
struct Places {
    /// Certificates.
    directory: PathBuf,
    /// See [`LOG`].
    log: PathBuf,
    /// See [`etcd::AGREED`].
    agreed: PathBuf,
    /// See [`TOLD`].
    told: PathBuf,
    /// For etcd.
    environment: PathBuf,
    /// Of every member.
    port: u16,
    /// What the clock shows, in seconds since 1970.
    shown: fn() -> i64,
}

/// Returns once the etcd of this member may start, and has written how it begins. Says what it waits for.
pub fn wait(progress: &dyn Progress) -> Result<(), Failure> {
    let missing = || Failure::new("looking for this node's cluster", format!("there is no {CLUSTER}"));
    let cluster = cluster()?.ok_or_else(missing)?;
    let places = Places {
        directory: etcd::DIRECTORY.into(),
        log: log(&cluster),
        agreed: etcd::AGREED.into(),
        told: TOLD.into(),
        environment: etcd::ENVIRONMENT.into(),
        port: etcd::PEER_PORT,
        shown: clock::shown,
    };
    wait_in(&cluster, &places, PAUSE, progress)
}

fn wait_in(
    cluster: &Cluster,
    places: &Places,
    pause: Duration,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let mut told_lines = Vec::new();
    let mut door: Option<Door> = None;
    loop {
        let mut lines = Vec::new();
        if let Some(why) = over(places) {
            // Nobody would believe this member, and the door would go on with what it has.
            door = None;
            tell(vec![why], &mut told_lines, progress);
            thread::sleep(pause);
            continue;
        }
        let own = own(cluster, places);
        if own != Own::Data {
            // The address may not be there yet.
            match open(&mut door, cluster, places, own) {
                Ok(()) => {}
                Err(failure) => lines.push(Chain(&failure).to_string()),
            }
        }
        let told = if places.told.exists() { Told::Bootstrap } else { Told::Nothing };
        let looks = if own == Own::Data { BTreeMap::new() } else { look(cluster, places) };
        let peers = looks.iter().map(|(name, look)| (name.clone(), look.peer.clone())).collect();
        match gate::step(own, &peers, told) {
            // Nobody could have heard that this member agrees.
            Step::Start | Step::Agree if !lines.is_empty() => {}
            Step::Start => return start(places, own),
            Step::Join => {
                // Another member may not have heard of the invitation yet.
                let inviting = looks.into_values().find(|look| look.peer == Peer::Runs(Seat::Free));
                let list = inviting.and_then(|look| look.list).unwrap_or_default();
                return begin(places, "existing", Some(&joined(cluster, &list, places.port)));
            }
            Step::Agree => {
                write(&places.agreed, &agreement(cluster))?;
                progress.detail("all members are there and none has data: a new cluster begins");
                continue;
            }
            Step::Wait(why) => lines.extend(why),
        }
        tell(lines, &mut told_lines, progress);
        thread::sleep(pause);
    }
}

/// Says what etcd waits for, where it is something else than before.
fn tell(lines: Vec<String>, told: &mut Vec<String>, progress: &dyn Progress) {
    if lines != *told {
        progress.detail(&format!("etcd waits: {}", lines.join("; ")));
        *told = lines;
    }
}

/// Why the certificates of this member are good for nothing by the clock, if so: the one that ended first.
fn over(places: &Places) -> Option<String> {
    let now = (places.shown)();
    let end = |file: &'static str| {
        let text = fs::read(places.directory.join(file)).ok()?;
        // Of several authorities one is enough.
        let end = match [etcd::CA, etcd::PEER_CA].contains(&file) {
            true => Bundle::read(&text).map(|authorities| authorities.ends()),
            false => pki::end_of(&text),
        };
        Some((end.ok()?, file))
    };
    let (ended, file) = FILES.into_iter().filter_map(end).min().filter(|(end, _)| *end <= now)?;
    let date =
        |at: i64| jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string());
    Some(format!(
        "{file} of this member ended at {}, and the clock shows {}. If the clock is right: `keller cluster issue`, and \
         `keller node apply` here; if not, set it (`timedatectl`). One of the two is enough (docs/operations.md, \"A \
         certificate of etcd has expired\")",
        date(ended),
        date(now)
    ))
}

fn start(places: &Places, own: Own) -> Result<(), Failure> {
    // Data outlive what was agreed before there were any.
    if own == Own::Data
        && let Err(error) = fs::remove_file(&places.agreed)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(Failure::new(format!("removing {}", places.agreed.display()), error));
    }
    begin(places, "new", None)
}

/// What this member has.
fn own(cluster: &Cluster, places: &Places) -> Own {
    if has_entries(&places.log) {
        return Own::Data;
    }
    match fs::read_to_string(&places.agreed) {
        Ok(text) if text == agreement(cluster) => Own::Agreed,
        _ => Own::Empty,
    }
}

/// What is agreed on: a cluster of these members.
fn agreement(cluster: &Cluster) -> String {
    format!("{}: {}\n", cluster.name, shown(&cluster.members))
}

fn shown(members: &BTreeMap<String, IpAddr>) -> String {
    members.iter().map(|(name, ip)| format!("{name} at {ip}")).collect::<Vec<_>>().join(", ")
}

fn open(door: &mut Option<Door>, cluster: &Cluster, places: &Places, own: Own) -> Result<(), Failure> {
    if let Some(door) = door {
        door.say(own);
        return Ok(());
    }
    let address = SocketAddr::new(cluster.address(), places.port);
    let answer = Answer {
        cluster: cluster.name.clone(),
        member: cluster.me.clone(),
        members: cluster.members.clone(),
        has: own,
    };
    *door = Some(Door::open(address, &places.directory, answer)?);
    Ok(())
}

/// What a peer said.
struct Look {
    peer: Peer,
    /// The members of the cluster that it runs in.
    list: Option<Vec<Listed>>,
}

fn look(cluster: &Cluster, places: &Places) -> BTreeMap<String, Look> {
    let ask = |(name, ip): (&str, IpAddr)| (name.to_owned(), ask(cluster, places, name, ip));
    // At once: a peer that is off costs its whole time.
    thread::scope(|scope| {
        let asked: Vec<_> = cluster.peers().map(|peer| scope.spawn(move || ask(peer))).collect();
        asked.into_iter().filter_map(|one| one.join().ok()).collect()
    })
}

fn ask(cluster: &Cluster, places: &Places, name: &str, ip: IpAddr) -> Look {
    let only = |peer| Look { peer, list: None };
    let body = match get(places, ip, door::PATH) {
        Ok(body) => body,
        Err(error) if is_of_tls(&error) => return only(Peer::Other(Chain(&error).to_string())),
        Err(error) => return only(Peer::Silent(Chain(&error).to_string())),
    };
    if let Ok(answer) = serde_json::from_slice::<Answer>(&body) {
        return only(match answer {
            Answer { cluster: other, .. } if other != cluster.name => Peer::Other(format!(
                "it is of the cluster {}, and this member of {}",
                said(&other, MOST_SHOWN),
                cluster.name
            )),
            Answer { member, .. } if member != name => {
                Peer::Other(format!("{} answers at its address, {ip}", said(&member, MOST_SHOWN)))
            }
            Answer { members, .. } if members != cluster.members => Peer::Lists(format!(
                "its node document lists {}, and this member's {}: give both the same list. A member that is to join \
                 later waits here until the cluster runs and has added it",
                said(&shown(&members), limits::ETCD_WORD),
                shown(&cluster.members)
            )),
            Answer { has, .. } => Peer::Waits(has),
        });
    }
    let list = get(places, ip, "/members").map(|body| serde_json::from_slice::<Vec<Listed>>(&body));
    match list {
        Ok(Ok(list)) => {
            if let Some(why) = strange(&list) {
                return only(Peer::Other(why));
            }
            let own = url(cluster.address(), places.port);
            let seat = match list.iter().find(|member| member.urls.contains(&own)) {
                None => Seat::None,
                Some(member) if member.name.is_empty() => Seat::Free,
                Some(_) => Seat::Taken,
            };
            Look { peer: Peer::Runs(seat), list: Some(list) }
        }
        Ok(Err(error)) => only(Peer::Other(format!("its answer is not etcd's: {error}"))),
        // It has just been there: its etcd starts or ends.
        Err(error) => only(Peer::Silent(Chain(&error).to_string())),
    }
}

fn get(places: &Places, ip: IpAddr, path: &str) -> io::Result<Vec<u8>> {
    let read = |name: &str| fs::read(places.directory.join(name));
    let url = url(ip, places.port) + path;
    http::get_as(&url, &read(etcd::PEER_CA)?, &read(etcd::PEER)?, PATIENCE, MOST_BYTES)
}

/// Whether somebody was there, and was not believed or did not believe us. An `io::Error` hides what it carries from those
/// who ask for its source.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>()
        || carried.is_some_and(|carried| is_of_tls(carried))
        || error.source().is_some_and(is_of_tls)
}

/// Writes how etcd begins.
fn begin(places: &Places, state: &str, members: Option<&str>) -> Result<(), Failure> {
    let mut text = format!("ETCD_INITIAL_CLUSTER_STATE={state}\n");
    text.extend(members.map(|members| format!("ETCD_INITIAL_CLUSTER={members}\n")));
    write(&places.environment, &text)
}

/// Once this is done, it is on the disk.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = atomic::write(path, text).and_then(|()| atomic::sync_name(path));
    written.doing(format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU16, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::base::progress::{Silent, TaskId, Unit};
    use crate::pki::etcd::Member;
    use crate::pki::{Authority, Owner};

    /// What each test's members listen on: tests run side by side.
    static PORT: AtomicU16 = AtomicU16::new(23_800);

    /// When certificates are made.
    const NOW: i64 = 1_800_000_000;

    struct Machine {
        cluster: Cluster,
        places: Places,
        directory: tempfile::TempDir,
    }

    fn authorities() -> (Authority, Authority) {
        (Authority::make("clients").unwrap(), Authority::make("peers").unwrap())
    }

    fn machine(me: &str, port: u16, (clients, peers): &(Authority, Authority)) -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let ip = |last: u8| IpAddr::from([127, 0, 0, last]);
        let members = [("a", 1), ("b", 2), ("c", 3)].map(|(name, last)| (name.to_owned(), ip(last)));
        let cluster = Cluster { name: "rack1".to_owned(), me: me.to_owned(), members: members.into() };
        let at = |name: &str| directory.path().join(name);
        let member = Member::of_cluster(me, cluster.address());
        let given = crate::pki::etcd::issue(&member, clients, peers, NOW).unwrap();
        let owner =
            Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
        etcd::take(&at("pki"), &given, &member, owner).unwrap();
        let places = Places {
            directory: at("pki"),
            log: at("wal"),
            agreed: at("agreed"),
            told: at("told"),
            environment: at("environment"),
            port,
            shown: || NOW,
        };
        Machine { cluster, places, directory }
    }

    /// What was told, the last of it.
    #[derive(Default)]
    struct Heard(Mutex<String>);

    impl Progress for Heard {
        fn begin(&self, stage: &str, total: u64, unit: Unit) -> TaskId {
            Silent.begin(stage, total, unit)
        }
        fn advance(&self, _: TaskId, _: u64) {}
        fn end(&self, _: TaskId) {}
        fn note(&self, _: &str) {}
        fn warn(&self, _: &str) {}
        fn detail(&self, text: &str) {
            *self.0.lock().unwrap() = text.to_owned();
        }
    }

    impl Heard {
        fn says(&self, text: &str) {
            let begun = Instant::now();
            while !self.0.lock().unwrap().contains(text) {
                assert!(begun.elapsed() < Duration::from_secs(60), "{text:?}: {:?}", self.0.lock().unwrap());
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn begins(machine: &Machine) -> String {
        wait_in(&machine.cluster, &machine.places, Duration::from_millis(20), &Silent).unwrap();
        fs::read_to_string(&machine.places.environment).unwrap()
    }

    #[test]
    fn three_empty_members_begin_together() {
        let port = PORT.fetch_add(1, Ordering::SeqCst);
        let authorities = authorities();
        let machines = ["a", "b", "c"].map(|name| machine(name, port, &authorities));
        let heard = Heard::default();
        thread::scope(|scope| {
            let [a, b, c] = &machines;
            let first = scope.spawn(|| wait_in(&a.cluster, &a.places, Duration::from_millis(20), &heard));
            let second = scope.spawn(|| begins(b));
            heard.says("c does not answer");
            assert!(!first.is_finished() && !second.is_finished());
            let third = scope.spawn(|| begins(c));
            let begun = Instant::now();
            while !machines.iter().all(|machine| machine.places.agreed.exists()) {
                assert!(begun.elapsed() < Duration::from_secs(60), "not all agree");
                thread::sleep(Duration::from_millis(20));
            }
            // The first that starts no longer answers. An etcd that runs would tell the others, and here is none.
            machines.iter().for_each(|machine| fs::write(&machine.places.told, "").unwrap());
            first.join().unwrap().unwrap();
            for text in [second.join().unwrap(), third.join().unwrap()] {
                assert_eq!(text, "ETCD_INITIAL_CLUSTER_STATE=new\n");
            }
        });
        // With data it asks nobody.
        let a = &machines[0];
        assert!(a.places.agreed.exists());
        fs::create_dir(&a.places.log).unwrap();
        fs::write(a.places.log.join("0.wal"), "x").unwrap();
        begins(a);
        assert!(!a.places.agreed.exists());
        assert!(a.directory.path().exists());
    }

    /// By a clock that is ahead, or after a year: no etcd that others would not believe, and one as soon as either is mended.
    #[test]
    fn a_member_whose_certificates_have_ended_waits() {
        static CLOCK: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(NOW + 366 * 86_400);
        let authorities = authorities();
        let mut a = machine("a", PORT.fetch_add(1, Ordering::SeqCst), &authorities);
        a.cluster.members.retain(|name, _| name == "a");
        a.places.shown = || CLOCK.load(Ordering::SeqCst);
        fs::create_dir(&a.places.log).unwrap();
        fs::write(a.places.log.join("0.wal"), "x").unwrap();
        let heard = Heard::default();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait_in(&a.cluster, &a.places, Duration::from_millis(20), &heard));
            heard.says(
                "of this member ended at 2028-01-15T08:00:00Z, and the clock shows 2028-01-16T08:00:00Z",
            );
            assert!(!waiting.is_finished() && !a.places.environment.exists());
            CLOCK.store(NOW, Ordering::SeqCst);
            waiting.join().unwrap().unwrap();
        });
        // New ones are as good as another clock.
        CLOCK.store(NOW + 366 * 86_400, Ordering::SeqCst);
        assert!(over(&a.places).is_some());
        let member = Member::of_cluster("a", a.cluster.address());
        let given =
            crate::pki::etcd::issue(&member, &authorities.0, &authorities.1, NOW + 300 * 86_400).unwrap();
        let owner =
            Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
        etcd::take(&a.places.directory, &given, &member, owner).unwrap();
        assert_eq!(over(&a.places), None);
        // An authority that has ended stops nothing where another one is believed.
        let old = Authority::make_until("old", NOW).unwrap().certificate_pem();
        fs::write(a.places.directory.join(etcd::CA), old.clone() + &authorities.0.certificate_pem()).unwrap();
        assert_eq!(over(&a.places), None);
        fs::write(a.places.directory.join(etcd::CA), old).unwrap();
        assert!(over(&a.places).unwrap().starts_with("ca.pem of this member ended"));
    }

    /// While the authorities are replaced: one member believes both and shows certificates of the old one, the next shows
    /// new ones, and the last believes the new one alone.
    #[test]
    fn members_at_different_steps_of_a_replacement_begin_together() {
        let port = PORT.fetch_add(1, Ordering::SeqCst);
        let [old, new] = [authorities(), authorities()];
        let again = |authority: &Authority| Authority::read(authority.to_pem().as_bytes()).unwrap();
        let beside = |by: &(Authority, Authority), other: &(Authority, Authority)| {
            let clients = again(&by.0).beside(other.0.believed());
            (clients, again(&by.1).beside(other.1.believed()))
        };
        let (first, second) = (beside(&old, &new), beside(&new, &old));
        let machines = [("a", &first), ("b", &second), ("c", &first)];
        let machines = machines.map(|(name, authorities)| machine(name, port, authorities));
        thread::scope(|scope| {
            let others = machines.iter().map(|one| scope.spawn(|| begins(one))).collect::<Vec<_>>();
            let begun = Instant::now();
            while !machines.iter().all(|machine| machine.places.agreed.exists()) {
                assert!(begun.elapsed() < Duration::from_secs(60), "not all agree");
                thread::sleep(Duration::from_millis(20));
            }
            machines.iter().for_each(|machine| fs::write(&machine.places.told, "").unwrap());
            others.into_iter().for_each(|one| assert!(one.join().unwrap().ends_with("=new\n")));
        });
        // One that has gone on, beside one that is a step behind, and one that was two behind.
        let port = PORT.fetch_add(1, Ordering::SeqCst);
        let [b, c] = [("b", &second), ("c", &first)].map(|(name, of)| machine(name, port, of));
        let a = machine("a", port, &new);
        let _doors = [&b, &c].map(|one| {
            let mut door = None;
            open(&mut door, &one.cluster, &one.places, Own::Empty).unwrap();
            door
        });
        let looks = look(&a.cluster, &a.places);
        assert_eq!(looks["b"].peer, Peer::Waits(Own::Empty));
        assert!(matches!(looks["c"].peer, Peer::Other(_)), "{:?}", looks["c"].peer);
    }

    #[test]
    fn a_stranger_at_the_port_is_named_and_never_passed_over() {
        let port = PORT.fetch_add(1, Ordering::SeqCst);
        let ours = authorities();
        let (a, stranger) = (machine("a", port, &ours), machine("b", port, &authorities()));
        let other = machine("c", port, &ours);
        fs::write(&a.places.told, "").unwrap();
        let answer = |cluster: &str, machine: &Machine| {
            let answer = Answer {
                cluster: cluster.to_owned(),
                member: machine.cluster.me.clone(),
                members: machine.cluster.members.clone(),
                has: Own::Empty,
            };
            Door::open(SocketAddr::new(machine.cluster.address(), port), &machine.places.directory, answer)
                .unwrap()
        };
        let (_b, _c) = (answer("rack1", &stranger), answer("rack2", &other));
        // On a machine that does much else a door may close before all was said.
        let answers = |looks: &BTreeMap<String, Look>| {
            !["b", "c"].iter().any(|name| matches!(looks[*name].peer, Peer::Silent(_)))
        };
        let looks = std::iter::repeat_with(|| look(&a.cluster, &a.places)).take(20).find(answers).unwrap();
        let peer = |name: &str| looks[name].peer.clone();
        assert!(matches!(peer("b"), Peer::Other(_)), "{:?}", peer("b"));
        assert_eq!(peer("c"), Peer::Other("it is of the cluster rack2, and this member of rack1".to_owned()));
        // Who shows nothing, or too much, learns nothing and holds up nobody.
        let mut mute = std::net::TcpStream::connect((other.cluster.address(), port)).unwrap();
        mute.write_all(&[0; 10_000]).unwrap();
        assert!(matches!(look(&a.cluster, &a.places)["c"].peer, Peer::Other(_)));
    }

    /// As when a node that is to join is switched on together with those that begin.
    #[test]
    fn members_of_two_lists_begin_nothing_together() {
        let port = PORT.fetch_add(1, Ordering::SeqCst);
        let authorities = authorities();
        let [mut a, mut b, c] = ["a", "b", "c"].map(|name| machine(name, port, &authorities));
        for first in [&mut a, &mut b] {
            first.cluster.members.remove("c");
        }
        let heard = Heard::default();
        thread::scope(|scope| {
            let joining = scope.spawn(|| wait_in(&c.cluster, &c.places, Duration::from_millis(20), &heard));
            let mut door = None;
            open(&mut door, &b.cluster, &b.places, Own::Empty).unwrap();
            // The two of one list go on.
            let first = scope.spawn(|| begins(&a));
            let list = "b: its node document lists a at 127.0.0.1, b at 127.0.0.2, and this member's a at 127.0.0.1, b at \
                        127.0.0.2, c at 127.0.0.3: give both the same list";
            heard.says(list);
            open(&mut door, &b.cluster, &b.places, Own::Agreed).unwrap();
            assert_eq!(first.join().unwrap(), "ETCD_INITIAL_CLUSTER_STATE=new\n");
            assert!(!joining.is_finished() && !c.places.agreed.exists() && !c.places.environment.exists());
            // Whoever has agreed on one list has not on another.
            assert_eq!(own(&a.cluster, &a.places), Own::Agreed);
            assert_eq!(own(&c.cluster, &a.places), Own::Empty);
            // It joins, so that the thread ends.
            drop(door);
            let invited = r#"[{"name": "b", "peerURLs": []}, {"peerURLs": ["https://127.0.0.3:PORT"]}]"#;
            play_etcd(&b, Box::leak(invited.replace("PORT", &port.to_string()).into_boxed_str()));
            joining.join().unwrap().unwrap();
        });
    }

    /// Plays the etcd of `machine`, whose list of members is `list`, as often as it is asked.
    fn play_etcd(machine: &Machine, list: &'static str) {
        let config = std::sync::Arc::new(door::config(&machine.places.directory).unwrap());
        let listener = std::net::TcpListener::bind((machine.cluster.address(), machine.places.port)).unwrap();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, stream);
                let mut head = [0; 512];
                let Ok(len) = io::Read::read(&mut stream, &mut head) else { continue };
                let (status, body) = match head[..len].starts_with(b"GET /members ") {
                    true => ("200 OK", list),
                    false => ("404 Not Found", "404 page not found"),
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
    }

    #[test]
    fn a_member_without_data_joins_only_where_a_list_has_it() {
        let port = 23_799;
        let authorities = authorities();
        let [a, b, c] = ["a", "b", "c"].map(|name| machine(name, port, &authorities));
        let old = r#"[{"id": 1, "peerURLs": ["https://127.0.0.2:23799"], "name": "b"}]"#;
        let new = r#"[{"id": 1, "peerURLs": ["https://127.0.0.2:23799"], "name": "b"},
                      {"id": 2, "peerURLs": ["https://127.0.0.1:23799"]}]"#;
        // One of them has not heard of the invitation yet.
        play_etcd(&b, old);
        let heard = Heard::default();
        thread::scope(|scope| {
            let joining = scope.spawn(|| wait_in(&a.cluster, &a.places, Duration::from_millis(20), &heard));
            heard.says("`keller cluster add`, with the name of this member, on b");
            assert!(!joining.is_finished());
            play_etcd(&c, new);
            joining.join().unwrap().unwrap();
        });
        let text = fs::read_to_string(&a.places.environment).unwrap();
        let list = "b=https://127.0.0.2:23799,a=https://127.0.0.1:23799";
        assert_eq!(text, format!("ETCD_INITIAL_CLUSTER_STATE=existing\nETCD_INITIAL_CLUSTER={list}\n"));
    }

    /// A request that comes byte by byte ends as one that never comes.
    #[test]
    fn who_drips_is_not_waited_for() {
        let machine = machine("a", 23_798, &authorities());
        let mut door = None;
        open(&mut door, &machine.cluster, &machine.places, Own::Empty).unwrap();
        let mut stream = std::net::TcpStream::connect((machine.cluster.address(), 23_798)).unwrap();
        // The begin of a record of TLS that promises more.
        let begun = Instant::now();
        let mut bytes = [22, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(0));
        while bytes.next().is_some_and(|byte| stream.write_all(&[byte]).is_ok()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is still waited for");
            thread::sleep(Duration::from_millis(200));
        }
    }
}
