use std::fs;

use super::super::directory::LOCK;
use super::super::{Init, Issue};
use super::*;
use crate::cluster::view::{Answer, Role as Part, Seen, Trust};
use crate::etcd::{Error, Known, Status};
use crate::pki::{Owner, Pair};

const NOW: i64 = 1_800_000_000;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A directory, and nodes that have been given documents of it: what a handshake tells of them is what they took.
struct Rack {
    home: tempfile::TempDir,
    directory: PathBuf,
}

impl Rack {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("rack1");
        let members = NAMES.iter().zip(1..).map(|(name, last)| ((*name).to_owned(), [10, 0, 0, last].into()));
        Init {
            name: "rack1".to_owned(),
            members: members.collect(),
            clients: vec!["w1".to_owned()],
            with: None,
            directory: directory.clone(),
            now: NOW,
        }
        .run()
        .unwrap();
        let rack = Self { home, directory };
        NAMES.iter().for_each(|name| rack.apply(name));
        rack
    }

    /// The same, with copies of all files.
    fn copy(&self) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut pending = vec![self.home.path().to_owned()];
        while let Some(from) = pending.pop() {
            let to = home.path().join(from.strip_prefix(self.home.path()).unwrap());
            if from.is_dir() {
                fs::create_dir_all(&to).unwrap();
                pending.extend(fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                fs::copy(&from, &to).unwrap();
            }
        }
        let directory = home.path().join("rack1");
        Self { home, directory }
    }

    fn node(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("node-{name}"))
    }

    fn document(&self, name: &str) -> Document {
        let path = self.directory.join(format!("{name}.yaml"));
        node::read("x", &fs::read(path).unwrap()).unwrap().remove(0)
    }

    /// `keller node apply`, as far as certificates go.
    fn apply(&self, name: &str) {
        let document = self.document(name);
        let given = FILES.map(|file| (file, document.credentials[&format!("{PREFIX}{file}")].0.clone()));
        let member = Member::of_cluster(name, document.cluster.unwrap().address());
        let me = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        etcd::take(&self.node(name), &given.into(), &member, me).unwrap();
        self.believe_each_other();
    }

    fn pair(&self, name: &str, file: &str) -> Pair {
        Pair::read(&fs::read(self.node(name).join(file)).unwrap()).unwrap()
    }

    fn bundle(&self, name: &str, file: &str) -> Bundle {
        Bundle::read(&fs::read(self.node(name).join(file)).unwrap()).unwrap()
    }

    /// No member is locked out, and the operator is not.
    fn believe_each_other(&self) {
        let there: Vec<_> = NAMES.iter().filter(|name| self.node(name).exists()).collect();
        let operator = self.directory.join(OPERATOR);
        let [asks, believes] = [etcd::CLIENT, etcd::CA].map(|file| fs::read(operator.join(file)).unwrap());
        let (asks, believes) = (Pair::read(&asks).unwrap(), Bundle::read(&believes).unwrap());
        for one in &there {
            let (clients, peers) = (self.bundle(one, etcd::CA), self.bundle(one, etcd::PEER_CA));
            for other in &there {
                assert!(peers.has_signed(self.pair(other, etcd::PEER).certificate()), "{one} {other}");
                assert!(clients.has_signed(self.pair(other, etcd::SERVER).certificate()), "{one} {other}");
                assert!(clients.has_signed(self.pair(other, etcd::CLIENT).certificate()), "{one} {other}");
            }
            assert!(
                clients.has_signed(asks.certificate())
                    && believes.has_signed(self.pair(one, etcd::SERVER).certificate())
            );
        }
    }

    fn look(&self, off: &[&str]) -> View {
        let trust = |name: &str, pair, bundle| Trust {
            shown: pki::names_of(self.pair(name, pair).certificate()).unwrap().issuer,
            believed: self.bundle(name, bundle).names().into_iter().collect(),
        };
        let answer = |name: &str| Answer {
            known: Known { status: Status::default(), clock_ahead_seconds: None },
            certificate_ends: None,
            peer_ends: None,
            clients: Some(trust(name, etcd::SERVER, etcd::CA)),
            peers: Some(trust(name, etcd::PEER, etcd::PEER_CA)),
            agrees: Ok(()),
            members: None,
            alarms: Vec::new(),
            requests: Vec::new(),
        };
        let endpoint = ([10, 0, 0, 1], 2379).into();
        let is_off = || Error::Unreachable { endpoint, cause: "no".to_owned() };
        let members = NAMES.iter().map(|name| Seen {
            name: (*name).to_owned(),
            id: Some(1),
            endpoint: Some(endpoint),
            peer_urls: Vec::new(),
            role: Part::Follower,
            is_new: false,
            answer: Some(if off.contains(name) { Err(is_off()) } else { Ok(answer(name)) }),
        });
        View {
            name: "rack1".to_owned(),
            id: Some(7),
            members: members.collect(),
            alarms: Vec::new(),
            requests: Vec::new(),
            certificates: Vec::new(),
            leader: None,
        }
    }

    fn replace(&self, begin: bool) -> Replace {
        Replace { directory: self.directory.clone(), begin, without: Vec::new(), now: NOW + 86_400 }
    }

    fn run(&self, begin: bool) -> (Stage, Did) {
        let replaced = self.replace(begin).run(&|_| self.look(&[])).unwrap();
        (replaced.stage, replaced.did)
    }

    /// Gives all nodes their documents; in between, the next step is refused.
    fn apply_all(&self, names: [&str; 3]) {
        for (at, name) in names.iter().enumerate() {
            let replaced = self.replace(false).run(&|_| self.look(&[])).unwrap();
            let behind: BTreeSet<&str> = replaced.behind.iter().map(|lag| lag.member.as_str()).collect();
            assert_eq!((behind, replaced.wrote.len()), (names[at..].iter().copied().collect(), 0));
            self.apply(name);
        }
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let all = [self.directory.clone(), self.directory.join(OPERATOR)];
        let paths =
            all.iter().flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        paths.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    fn authority(&self, file: &str) -> String {
        fs::read_to_string(self.directory.join(file)).unwrap()
    }
}

fn keys(text: &str) -> usize {
    text.matches("PRIVATE KEY-----\n").count() / 2
}

#[test]
fn three_steps_replace_both_authorities_and_nobody_is_locked_out() {
    let rack = Rack::new();
    assert_eq!(rack.run(false), (Stage::Alone, Did::Nothing));
    let old = AUTHORITIES.map(|file| rack.authority(file));
    assert_eq!(rack.run(true), (Stage::Next, Did::Advanced));
    assert_eq!(AUTHORITIES.map(|file| rack.authority(file)), old, "the old ones still sign");
    rack.apply_all(["a", "b", "c"]);
    let shown = |name| pki::names_of(rack.pair(name, etcd::SERVER).certificate()).unwrap().issuer;
    let before = shown("a");
    assert_eq!(rack.run(false), (Stage::Last, Did::Advanced));
    let new = AUTHORITIES.map(|file| rack.authority(file));
    assert!(new.iter().zip(&old).all(|(new, old)| new != old && keys(new) == 1));
    for file in ["authority.last.pem", "peer-authority.last.pem"] {
        assert_eq!(keys(&rack.authority(file)), 0, "the key of the old one is gone");
        assert!(!rack.directory.join(file.replace("last", "next")).exists());
    }
    rack.apply_all(["c", "a", "b"]);
    assert_ne!(shown("a"), before);
    assert_eq!(rack.run(false), (Stage::Alone, Did::Advanced));
    rack.apply_all(["b", "c", "a"]);
    assert_eq!(rack.run(false), (Stage::Alone, Did::Nothing));
    assert_eq!(AUTHORITIES.map(|file| rack.authority(file)), new);
    // Nothing of the old ones is left, in any document.
    for (path, bytes) in rack.files().into_iter().filter(|(path, _)| !path.ends_with(LOCK)) {
        let text = String::from_utf8(bytes).unwrap();
        let old: Vec<String> =
            old.iter().map(|old| old[old.find("-----BEGIN CERT").unwrap()..].to_owned()).collect();
        let line = |old: &String| text.contains(old.lines().nth(3).unwrap());
        assert!(!old.iter().any(line), "{}", path.display());
    }
    let names =
        fs::read_dir(&rack.directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let wanted =
        [LOCK, "a.yaml", "authority.pem", "b.yaml", "c.yaml", "operator", "peer-authority.pem", "w1.yaml"];
    assert_eq!(names.collect::<BTreeSet<_>>(), wanted.map(str::to_owned).into());
    // The client goes along.
    let w1 = rack.document("w1");
    let pem = |file| w1.credentials[&format!("{PREFIX}{file}")].0.clone();
    assert!(rack.bundle("a", etcd::CA).is_same(&Bundle::read(&pem(etcd::CA)).unwrap()));
    assert!(rack.bundle("a", etcd::CA).has_signed(Pair::read(&pem(etcd::CLIENT)).unwrap().certificate()));
    // Once more, as in ten years: without being asked for.
    let late = Replace { now: NOW + 3_400 * 86_400, ..rack.replace(false) };
    assert_eq!(late.run(&|_| rack.look(&[])).unwrap().stage, Stage::Next);
}

/// Each write of each step is the last one before power fails; the same verb goes on from there.
#[test]
fn a_power_cut_after_any_write_is_gone_on_from() {
    let mut rack = Rack::new();
    for then in [Stage::Next, Stage::Last, Stage::Alone] {
        let begin = then == Stage::Next;
        let plan = rack.replace(begin).try_run(&|_| rack.look(&[])).unwrap();
        assert!(plan.writes.len() >= 6, "{:?}", plan.wrote);
        assert_eq!(plan.did, Did::Advanced);
        let mut whole = None;
        for done in 0..=plan.writes.len() {
            let cut = rack.copy();
            let again = |write: &Write| {
                let moved = |path: &Path| cut.directory.join(path.strip_prefix(&rack.directory).unwrap());
                match write {
                    Write::File(path, text) => Write::File(moved(path), text.clone()),
                    Write::Rename(from, to) => Write::Rename(moved(from), moved(to)),
                    Write::Remove(path) => Write::Remove(moved(path)),
                }
            };
            plan.writes[..done].iter().for_each(|write| again(write).run().unwrap());
            // Whoever is given a document now is at one step or the other.
            let half = cut.copy();
            NAMES.iter().for_each(|name| half.apply(name));
            let issue = Issue {
                directory: half.directory.clone(),
                members: vec![("d".to_owned(), Some([10, 0, 0, 4].into()))],
                clients: Vec::new(),
                with: None,
                operator: false,
                now: NOW,
            };
            issue.run().unwrap();

            // The rest comes, however often it is asked for, and all nodes get to the next step.
            let mut stage = then;
            for at in 0..3 {
                let (at, did) = match cut.replace(begin && done + at == 0).run(&|_| cut.look(&[])) {
                    Ok(replaced) => (replaced.stage, replaced.did),
                    Err(error) => panic!("{done} of {:?}: {error:#}", plan.wrote),
                };
                stage = at;
                if did == Did::Waits || did == Did::Nothing {
                    break;
                }
            }
            assert_eq!(stage, then, "{done} of {:?}", plan.wrote);
            NAMES.iter().for_each(|name| cut.apply(name));
            let next = cut.replace(false).try_run(&|_| cut.look(&[])).unwrap();
            let wanted = if then == Stage::Alone { Did::Nothing } else { Did::Advanced };
            assert_eq!((next.did, next.behind), (wanted, vec![]), "{done} of {:?}", plan.wrote);
            whole = Some(cut);
        }
        rack = whole.unwrap();
    }
}

#[test]
fn members_that_are_gone_are_named_and_those_that_answer_are_waited_for() {
    let rack = Rack::new();
    rack.run(true);
    ["a", "b"].iter().for_each(|name| rack.apply(name));
    let waits = rack.replace(false).run(&|_| rack.look(&["c"])).unwrap();
    assert_eq!((waits.did, waits.behind.len(), waits.behind[0].answers), (Did::Waits, 1, false));
    assert!(waits.behind[0].why.contains("cannot be reached"), "{:?}", waits.behind);
    let without = |name: &str, off: &[&str]| {
        Replace { without: vec![name.to_owned()], ..rack.replace(false) }.try_run(&|_| rack.look(off))
    };
    let error = without("c", &[]).unwrap_err().to_string();
    assert!(error.contains("c is named with --without, and answers"), "{error}");
    let error = without("x", &[]).unwrap_err().to_string();
    assert!(error.contains("the cluster has no member x: it has a, b, c"), "{error}");
    assert_eq!(without("c", &["c"]).unwrap().stage, Stage::Last);
    assert_eq!(without("c", &["b", "c"]).unwrap().behind[0].member, "b");
    let error = rack.replace(true).run(&|_| rack.look(&[])).unwrap_err().to_string();
    assert!(error.contains("leave out --begin"), "{error}");
    // What is made meanwhile is of the authority that signs, and believes both.
    let issue = |members: &[(&str, Option<&str>)]| Issue {
        directory: rack.directory.clone(),
        members: members
            .iter()
            .map(|(name, ip)| ((*name).to_owned(), ip.map(|ip| ip.parse().unwrap())))
            .collect(),
        clients: Vec::new(),
        with: None,
        operator: false,
        now: NOW,
    };
    issue(&[("c", None)]).run().unwrap();
    rack.apply("c");
    assert_eq!(rack.run(false), (Stage::Last, Did::Advanced));
    issue(&[("a", None), ("d", Some("10.0.0.4"))]).run().unwrap();
    rack.apply("a");
    let d = rack.document("d");
    let pem = |file| d.credentials[&format!("{PREFIX}{file}")].0.clone();
    assert_eq!(pem(etcd::PEER_CA), rack.document("a").credentials[&format!("{PREFIX}{}", etcd::PEER_CA)].0);
    assert_eq!(Bundle::read(&pem(etcd::CA)).unwrap().names().len(), 2);
}

#[test]
fn directories_that_are_not_of_one_cluster_are_refused_and_stay_as_they_are() {
    let (whole, other) = (Rack::new(), Rack::new());
    whole.run(true);
    let says = |rack: &Rack| {
        let before = rack.files();
        let error = rack.replace(false).run(&|_| rack.look(&[])).unwrap_err();
        assert_eq!(rack.files(), before);
        format!("{error:#}")
    };
    type Hurt = fn(&Rack, &Rack);
    fn take(rack: &Rack, other: &Rack, name: &str) {
        fs::copy(other.directory.join(name), rack.directory.join(name)).unwrap();
    }
    let cases: [(Hurt, &str); 9] = [
        (
            |rack, other| take(rack, other, "operator/client.pem"),
            "operator/client.pem is of another authority than that in",
        ),
        (|rack, other| take(rack, other, "b.yaml"), "b.yaml is of another authority than that in"),
        (|rack, other| take(rack, other, "w1.yaml"), "keller cluster issue DIR --client w1"),
        (|rack, other| take(rack, other, "authority.pem"), "is of another authority"),
        (
            |rack, _| fs::write(rack.directory.join("authority.next.pem"), "x").unwrap(),
            "authority.next.pem: ",
        ),
        (
            |rack, _| {
                let other = crate::pki::Authority::make("other").unwrap().certificate_pem();
                fs::write(rack.directory.join("peer-authority.last.pem"), other).unwrap();
                fs::remove_file(rack.directory.join("peer-authority.next.pem")).unwrap();
                fs::write(rack.directory.join("authority.next.pem"), rack.authority("peer-authority.pem"))
                    .unwrap();
            },
            "are at different steps",
        ),
        (
            |rack, _| {
                fs::copy(rack.directory.join("b.yaml"), rack.directory.join("a.yaml")).unwrap();
            },
            "a.yaml is not the document of a",
        ),
        (
            |rack, _| fs::remove_file(rack.directory.join("operator/cluster.json")).unwrap(),
            "one that `keller cluster init` made?",
        ),
        (
            |rack, _| fs::remove_dir_all(rack.directory.join("operator")).unwrap(),
            "one that `keller cluster init` made?",
        ),
    ];
    for (at, (hurt, wanted)) in cases.iter().enumerate() {
        let rack = whole.copy();
        hurt(&rack, &other);
        if at == 8 {
            let error = format!("{:#}", rack.replace(false).run(&|_| rack.look(&[])).unwrap_err());
            assert!(error.contains(wanted), "{error}");
            continue;
        }
        let error = says(&rack);
        assert!(error.contains(wanted), "case {at}: {error}");
    }
    // A document whose authorities were spoilt gets them back; one that is not here is told of.
    let rack = whole.copy();
    let path = rack.directory.join("a.yaml");
    fs::write(&path, fs::read_to_string(&path).unwrap().replacen("BEGIN CERT", "BEGIN CERTI", 1)).unwrap();
    fs::remove_file(rack.directory.join("c.yaml")).unwrap();
    let replaced = rack.replace(false).run(&|_| rack.look(&[])).unwrap();
    assert_eq!(
        (replaced.did, replaced.wrote, replaced.missing),
        (Did::Finished, vec![path], vec!["c".to_owned()])
    );
    rack.apply("a");
    // The directory of an earlier keller has no peers' authorities for the operator.
    let rack = Rack::new();
    fs::remove_file(rack.directory.join(OPERATOR).join(etcd::PEER_CA)).unwrap();
    assert_eq!(rack.run(false), (Stage::Alone, Did::Nothing));
    assert!(rack.directory.join(OPERATOR).join(etcd::PEER_CA).exists());
}
