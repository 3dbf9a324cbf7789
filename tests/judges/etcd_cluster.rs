//! keller's own client, and what `keller cluster` does, against etcds of trixie that form a cluster on loopback.

mod authority;
mod renewal;
mod restart;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keller::agent::etcd::promote::{self, Looked};
use keller::agent::etcd::restore::{self, Beginning};
use keller::base::progress::Silent;
use keller::cluster::view::Role;
use keller::cluster::wound::{self, Kind};
use keller::cluster::{Access, View, backup, change, rights};
use keller::etcd::{Client, Credentials, Disbelief, Error};
use keller::node::cluster::Cluster;
use keller::pki::etcd::{self, Member};
use keller::pki::{self, Authority, Owner, Wanted};

use super::etcd::Running;
use super::trixie::trixie;

const PACKAGES: [&str; 2] = ["etcd-client", "etcd-server"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const PATIENCE: Duration = Duration::from_secs(10);
/// On a machine that does much else.
const LONG: Duration = Duration::from_secs(120);

/// Members with certificates, an address each, and a directory for their data.
struct Rack {
    folder: tempfile::TempDir,
    hosts: BTreeMap<String, IpAddr>,
    clients: Authority,
    peers: Authority,
    now: i64,
}

/// Writes a file for its owner alone, as `keller cluster init` does.
fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn me() -> Owner {
    Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

impl Rack {
    /// Addresses of loopback that are this test's alone: by its number, and that of its process.
    fn new() -> Self {
        Self::aged(0)
    }

    /// The same with certificates that were made so many days ago.
    fn aged(days: i64) -> Self {
        static SERIAL: AtomicU8 = AtomicU8::new(0);
        let block = 128 + (SERIAL.fetch_add(1, Ordering::Relaxed) % 25) * 5;
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let hosts = NAMES.into_iter().zip(block..);
        let hosts = hosts.map(|(name, at)| (name.to_owned(), IpAddr::from([127, at, high, low]))).collect();
        let now = jiff_now();
        let [clients, peers] = ["clients", "peers"].map(|name| Authority::make(name).unwrap());
        let rack = Self { folder: tempfile::tempdir().unwrap(), hosts, clients, peers, now };
        for name in NAMES {
            let member = Member::of_cluster(name, rack.hosts[name]);
            let made = now - days * 86_400;
            let given = etcd::issue(&member, &rack.clients, &rack.peers, made).unwrap();
            etcd::take(&rack.pki(name), &given, &member, me()).unwrap();
        }
        rack
    }

    /// A client that is no member, with a certificate in the name `name`.
    fn admit(&self, name: &str) {
        let wanted = Wanted { role: pki::Role::Client, name: name.to_owned(), hosts: Vec::new() };
        fs::create_dir(self.pki(name)).unwrap();
        let pair = self.clients.issue(&wanted, self.now).unwrap().to_pem();
        fs::write(self.pki(name).join(etcd::CLIENT), pair).unwrap();
        fs::write(self.pki(name).join(etcd::CA), self.clients.certificate_pem()).unwrap();
    }

    fn pki(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("pki-{name}"))
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("data-{name}"))
    }

    fn peer(&self, name: &str) -> String {
        format!("https://{}:{}", self.hosts[name], etcd::PEER_PORT)
    }

    /// How the node `me`, whose document lists `names`, asks.
    fn access(&self, me: &str, names: &[&str]) -> Access {
        let members = names.iter().map(|name| ((*name).to_owned(), self.hosts[*name]));
        let cluster = Cluster { name: "rack1".to_owned(), me: me.to_owned(), members: members.collect() };
        let access = Access::of_node(Some(cluster), &self.pki(me)).unwrap();
        Access { patience: PATIENCE, ..access }
    }

    fn credentials(&self, name: &str) -> Credentials {
        let read = |file| fs::read(self.pki(name).join(file)).unwrap();
        Credentials::new(&read(etcd::CA), &read(etcd::CLIENT)).unwrap()
    }

    fn client(&self, name: &str) -> Client {
        self.access(name, &[name]).connect((self.hosts[name], etcd::CLIENT_PORT).into()).unwrap()
    }

    /// Starts etcd of `name`, in a cluster of `names` that is `state`.
    fn start(&self, name: &str, names: &[&str], state: &str) -> Option<Running> {
        let mut command = trixie(&PACKAGES, "usr/bin/etcd")?;
        let client = format!("https://{}:{}", self.hosts[name], etcd::CLIENT_PORT);
        let all: Vec<String> = names.iter().map(|name| format!("{name}={}", self.peer(name))).collect();
        command.env_clear().envs(etcd::environment(&self.pki(name).display().to_string()));
        command.envs([
            ("ETCD_NAME", name.to_owned()),
            ("ETCD_DATA_DIR", self.data(name).display().to_string()),
            ("ETCD_LISTEN_CLIENT_URLS", client.clone()),
            ("ETCD_ADVERTISE_CLIENT_URLS", client),
            ("ETCD_LISTEN_PEER_URLS", self.peer(name)),
            (etcd::PEER_URLS, self.peer(name)),
            (etcd::CLUSTER, all.join(",")),
            ("ETCD_INITIAL_CLUSTER_STATE", state.to_owned()),
            ("ETCD_INITIAL_CLUSTER_TOKEN", "rack1".to_owned()),
            ("ETCD_UNSAFE_NO_FSYNC", "true".to_owned()),
            // Whoever joins gets a snapshot, as in a cluster that is older than a test.
            ("ETCD_SNAPSHOT_COUNT", "10".to_owned()),
            ("ETCD_EXPERIMENTAL_SNAPSHOT_CATCHUP_ENTRIES", "10".to_owned()),
        ]);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log(name)).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Some(Running(command.spawn().unwrap()))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("log-{name}"))
    }

    /// Starts `names` as a new cluster; gives them once they agree.
    fn begin(&self, names: &[&str]) -> Option<BTreeMap<String, Running>> {
        let mut running = BTreeMap::new();
        for name in names {
            running.insert((*name).to_owned(), self.start(name, names, "new")?);
        }
        let access = self.access(names[0], names);
        self.until("all agree", || {
            View::of(&access).votes() == (names.len(), names.len(), names.len() / 2 + 1)
        });
        Some(running)
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            if begun.elapsed() > LONG {
                panic!("not so: {what}\n{}", self.logs(2000));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The last `most` bytes that each etcd has said.
    fn logs(&self, most: usize) -> String {
        let logs: Vec<_> = NAMES.iter().filter_map(|name| fs::read_to_string(self.log(name)).ok()).collect();
        let tails = logs.iter().map(|log| &log[log.len().saturating_sub(most)..]);
        tails.collect::<Vec<_>>().join("\n\n")
    }

    fn etcdctl(&self, name: &str, arguments: &[&str]) -> String {
        super::tool::run(self.etcdctl_as(name, name).args(arguments))
    }

    /// etcdctl with the certificate of `who`, which asks the member `name`.
    fn etcdctl_as(&self, who: &str, name: &str) -> Command {
        let mut command = trixie(&PACKAGES, "usr/bin/etcdctl").expect("etcd of the same packages runs");
        let (ca, client) = (self.pki(who).join(etcd::CA), self.pki(who).join(etcd::CLIENT));
        command.env_clear().arg("--endpoints").arg(format!("https://{}:2379", self.hosts[name]));
        command.arg("--cacert").arg(ca).arg("--cert").arg(&client).arg("--key").arg(&client);
        command
    }
}

fn jiff_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn kinds(view: &View, now: i64) -> Vec<(Kind, Option<String>)> {
    wound::wounds(view, now).into_iter().map(|wound| (wound.kind, wound.member)).collect()
}

#[test]
fn the_client_asks_over_mutual_tls_and_says_who_is_wrong() {
    let rack = Rack::new();
    let Some(running) = rack.begin(&["a"]) else { return };
    let at = (rack.hosts["a"], etcd::CLIENT_PORT).into();
    let mut client = rack.client("a");
    let known = client.status().unwrap();
    assert!(known.status.version.starts_with("3."), "{known:?}");
    assert_eq!(known.clock_ahead_seconds, Some(0.0));
    let members = client.members().unwrap();
    assert_eq!((members.len(), members[0].name.as_str(), members[0].is_learner), (1, "a", false));
    assert_eq!(known.status.leader, members[0].id);
    assert_eq!(client.alarms().unwrap(), []);
    rack.etcdctl("a", &["put", "key", "value"]);
    let (keys, revision) = client.count().unwrap();
    assert_eq!((keys, revision), (1, client.agree().unwrap().revision));
    // What etcd itself refuses comes in its own words, and the connection stays good.
    let refused = client.promote(7).unwrap_err();
    assert!(
        refused.to_string().starts_with(&format!("{at} refuses: etcdserver: member not found")),
        "{refused}"
    );
    assert_eq!(client.count().unwrap(), (keys, revision));

    // Another cluster's certificate, and another cluster's authority.
    let stranger = Rack::new();
    let read = |rack: &Rack, file| fs::read(rack.pki("a").join(file)).unwrap();
    let connect = |authority: &[u8], identity: &[u8]| {
        let credentials = Credentials::new(authority, identity).unwrap();
        Client::connect(at, &credentials, PATIENCE).and_then(|mut client| client.status()).unwrap_err()
    };
    let error = connect(&read(&stranger, etcd::CA), &read(&rack, etcd::CLIENT));
    assert_eq!(error, Error::Disbelieved { endpoint: at, cause: Disbelief::OtherAuthority });
    let error = connect(&read(&rack, etcd::CA), &read(&stranger, etcd::CLIENT));
    assert!(matches!(error, Error::NotAccepted { .. }), "{error:?}");
    let garbage = Credentials::new(b"", b"").unwrap_err().to_string();
    assert_eq!(
        garbage,
        "the certificates for etcd cannot be used: the authority: its file has no certificate"
    );

    drop(running);
    assert!(matches!(client.status().unwrap_err(), Error::Broken { .. }));
    let error = Client::connect(at, &rack.credentials("a"), PATIENCE).unwrap_err();
    assert_eq!(
        error,
        Error::Unreachable { endpoint: at, cause: "Connection refused (os error 111)".to_owned() }
    );
}

/// Somebody who accepts a connection and says nothing costs the time that was given, and no more.
#[test]
fn who_says_nothing_is_given_up() {
    let rack = Rack::new();
    let at = std::net::SocketAddr::from((rack.hosts["a"], etcd::CLIENT_PORT));
    let listener = std::net::TcpListener::bind(at).unwrap();
    let begun = Instant::now();
    let after = Duration::from_millis(300);
    let error = Client::connect(at, &rack.credentials("a"), after).unwrap_err();
    assert_eq!(error, Error::Late { endpoint: at, after });
    assert!(begun.elapsed() < Duration::from_secs(30));
    drop(listener);
}

/// A member is lost with its disk, and a machine of the same name takes its place; then the cluster grows.
#[test]
fn a_lost_member_is_replaced_and_the_cluster_grows() {
    let rack = Rack::new();
    let abc = ["a", "b", "c"];
    let Some(mut running) = rack.begin(&abc) else { return };
    let access = rack.access("a", &abc);
    let view = View::of(&access);
    assert_eq!(kinds(&view, rack.now), []);
    assert_eq!(view.members.iter().filter(|member| member.role == Role::Leader).count(), 1);
    let refused = |result: Result<change::Changed, keller::base::failure::Failure>| {
        keller::base::Chain(&result.unwrap_err()).to_string()
    };
    let error = refused(change::replace(&access, "c", "c", None));
    assert!(error.contains("c works"), "{error}");
    rack.etcdctl("a", &["put", "key", "value"]);
    // Within a second or two.
    for _ in 0..3 {
        change::add(&rack.access("a", &NAMES), "d", None).unwrap();
        change::remove(&rack.access("a", &NAMES), "d").unwrap();
    }

    drop(running.remove("c"));
    fs::remove_dir_all(rack.data("c")).unwrap();
    rack.until("c is missed", || View::of(&access).votes() == (3, 2, 2));
    assert_eq!(kinds(&View::of(&access), rack.now), [(Kind::Unreachable, Some("c".to_owned()))]);
    let error = refused(change::remove(&access, "b"));
    assert!(
        error.contains("the cluster would stop") && error.contains("bring back those that do not work: c"),
        "{error}"
    );
    let error = refused(change::add(&access, "d", Some(rack.hosts["d"])));
    assert!(error.contains("keller cluster replace c"), "{error}");

    let changed = change::replace(&access, "c", "c", None).unwrap();
    assert_eq!((changed.removed.as_deref(), changed.added.as_deref()), (Some("c"), Some("c")));
    assert!(change::replace(&access, "c", "c", None).unwrap().was_so, "said again, nothing happens");
    assert_eq!(kinds(&View::of(&access), rack.now), [(Kind::NeverStarted, Some("c".to_owned()))]);
    // A learner that has not come is nobody's to promote.
    let leader = View::of(&access).leading().unwrap().name.clone();
    assert_eq!(promote::look(&mut rack.client(&leader)).unwrap(), Looked::Nothing);
    running.insert("c".to_owned(), rack.start("c", &abc, "existing").unwrap());
    promoted(&rack, &access, "c");
    assert_eq!(rack.etcdctl("c", &["get", "key"]), "key\nvalue\n");

    // One more, whose document lists all; the others' documents do not.
    let abcd = ["a", "b", "c", "d"];
    change::add(&access, "d", Some(rack.hosts["d"])).unwrap();
    running.insert("d".to_owned(), rack.start("d", &abcd, "existing").unwrap());
    promoted(&rack, &access, "d");
    assert_eq!(View::of(&access).votes(), (4, 4, 3));
    // The leader goes as any other.
    let leader = View::of(&access).leading().unwrap().name.clone();
    change::remove(&access, &leader).unwrap();
    rack.until("three are left", || {
        let view = View::of(&access);
        view.votes() == (3, 3, 2) && view.leading().is_some()
    });
    drop(running.remove(&leader));
    let gone = View::of(&access).member(&leader).map(|member| member.role);
    assert!(matches!(gone, Some(Role::Outside) | None), "{gone:?}");
}

/// The agents of all members look; the leader's gives the vote.
fn promoted(rack: &Rack, access: &Access, name: &str) {
    rack.until(&format!("{name} has a vote"), || {
        for member in View::of(access).members.iter().filter(|member| member.is_good(View::of(access).id)) {
            let Some(endpoint) = member.endpoint else { continue };
            let looked = access.connect(endpoint).and_then(|mut client| promote::look(&mut client));
            if looked == Ok(Looked::Promoted(name.to_owned())) {
                return true;
            }
        }
        false
    });
    rack.until("all agree", || {
        let view = View::of(access);
        let (all, good, _) = view.votes();
        all == good && view.member(name).is_some_and(|member| member.votes())
    });
}

/// Where a learner is killed.
const DEATHS: [(&str, fn(&Rack, &Access) -> bool); 4] = [
    ("just after it starts", |rack, _| rack.data("d").join("member/wal").exists()),
    ("while it receives the snapshot", |rack, _| receives(&rack.data("d").join("member/snap"))),
    ("once it works, without a vote", |_, access| {
        View::of(access).member("d").is_some_and(|d| !d.is_new && d.answered().is_some())
    }),
    ("just after its promotion", |rack, access| {
        promoted(rack, access, "d");
        true
    }),
];

/// etcd receives a snapshot under a name that begins so.
fn receives(directory: &Path) -> bool {
    let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with("tmp"))
}

/// A learner is killed wherever it is: the others go on, and once it is back it gets its vote and has all keys.
#[test]
fn a_learner_that_is_killed_gets_its_vote_all_the_same() {
    let rack = Rack::new();
    let Some(_running) = rack.begin(&["a", "b", "c"]) else { return };
    let large = rack.folder.path().join("large");
    fs::write(&large, "x".repeat(1_000_000)).unwrap();
    for at in 0..32 {
        let mut put = rack.etcdctl_as("a", "a");
        put.args(["put", &format!("large-{at}")]).stdin(fs::File::open(&large).unwrap());
        assert!(put.output().unwrap().status.success());
    }
    let access = rack.access("a", &NAMES);
    for (keys, (when, is_there)) in (33..).zip(DEATHS) {
        let added = change::add(&access, "d", None);
        added.unwrap_or_else(|failure| panic!("{failure:#}\n{}", rack.logs(20_000)));
        let begun = Instant::now();
        let d = rack.start("d", &NAMES, "existing").unwrap();
        while !is_there(&rack, &access) {
            assert!(begun.elapsed() < LONG, "it is not killed {when}");
        }
        drop(d);
        // Said again, it is so; and nobody else comes in before it.
        assert!(change::add(&access, "d", None).unwrap().was_so, "{when}");
        rack.etcdctl("a", &["put", when, "value"]);
        assert!(View::of(&access).has_quorum(), "{when}");
        let d = rack.start("d", &NAMES, "existing").unwrap();
        rack.until(&format!("one that was killed {when} has a vote"), || {
            let view = View::of(&access);
            if let Some(leader) = view.leading().and_then(|leader| leader.endpoint) {
                let _ = access.connect(leader).and_then(|mut client| promote::look(&mut client));
            }
            view.votes() == (4, 4, 3) && view.member("d").is_some_and(|d| d.votes())
        });
        assert_eq!(rack.client("d").count().unwrap().0, keys, "{when}");
        change::remove(&access, "d").unwrap();
        drop(d);
        fs::remove_dir_all(rack.data("d")).unwrap();
        rack.until("three agree", || View::of(&access).votes() == (3, 3, 2));
    }
}

/// Two of three are gone with their disks.
#[test]
fn a_backup_brings_back_what_was_there() {
    let rack = Rack::new();
    let abc = ["a", "b", "c"];
    let Some(mut running) = rack.begin(&abc) else { return };
    let access = rack.access("a", &abc);
    let long = "x".repeat(3000);
    for at in 0..8 {
        rack.etcdctl("a", &["put", &format!("key-{at}"), &long]);
    }
    rack.etcdctl("a", &["put", "key-1", "other"]);
    rack.etcdctl("a", &["del", "key-2"]);
    let file = rack.folder.path().join("backup");
    let made = backup::backup(&access, &file, &Silent).unwrap();
    let (keys, revision) = rack.client("a").count().unwrap();
    assert_eq!((made.content.keys, made.content.revision), (7, revision), "{made:?}");
    assert_eq!(keys, 7);
    assert_eq!(made.bytes, fs::metadata(&file).unwrap().len());
    // etcd's own tool finds the same.
    let mut etcdutl = trixie(&PACKAGES, "usr/bin/etcdutl").unwrap();
    let told = super::tool::run(etcdutl.args(["snapshot", "status", "-w", "json"]).arg(&file));
    let told: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(told["revision"], revision, "{told}");

    // Cut short, longer, changed, another cluster's.
    let whole = fs::read(&file).unwrap();
    let bad = rack.folder.path().join("bad");
    let refused = |bytes: &[u8], access: &Access| {
        fs::write(&bad, bytes).unwrap();
        keller::base::Chain(&restore::judge(&bad, access).unwrap_err()).to_string()
    };
    let mut changed = whole.clone();
    changed[5000] ^= 1;
    for (bytes, says) in [
        (&whole[..whole.len() / 2], "cut short"),
        (&whole[..whole.len() - 512], "cut short or changed"),
        (&whole[..0], "0 bytes"),
        (&changed, "its hash is not that of its bytes"),
    ] {
        let error = refused(bytes, &access);
        assert!(error.contains(says), "{error}");
    }
    let error = refused(&whole, &Rack::new().access("a", &abc));
    assert!(error.contains("it is of another cluster: its members are a at https://127."), "{error}");
    assert_eq!(restore::judge(&file, &access).unwrap(), made.content);

    // What is written after it is not in it.
    rack.etcdctl("a", &["put", "later", "value"]);
    running.clear();
    for name in abc {
        fs::remove_dir_all(rack.data(name)).unwrap();
    }
    let beginning = Beginning { name: "a".into(), peer_url: rack.peer("a"), token: "rack1-2".into() };
    let mut etcdctl = trixie(&PACKAGES, "usr/bin/etcdctl").unwrap();
    restore::prepare(&mut etcdctl, &file, &rack.data("a"), &beginning, me()).unwrap();
    running.insert("a".to_owned(), rack.start("a", &abc, "new").unwrap());
    rack.until("a works alone", || View::of(&access).votes() == (1, 1, 1));
    assert_eq!(rack.client("a").count().unwrap(), (7, revision));
    assert_eq!(rack.etcdctl("a", &["get", "key-1"]), "key-1\nother\n");
    // The others join as those that were lost.
    for (at, name) in [(2, "b"), (3, "c")] {
        change::add(&access, name, None).unwrap();
        running.insert(name.to_owned(), rack.start(name, &abc[..at], "existing").unwrap());
        promoted(&rack, &access, name);
    }
    assert_eq!(rack.client("c").count().unwrap().0, 7);
}

/// What a client node may do, and what it may not.
#[test]
fn a_client_node_has_what_is_below_its_name() {
    let rack = Rack::new();
    let Some(_running) = rack.begin(&["a"]) else { return };
    ["w1", "w2", "operator", "stranger"].iter().for_each(|name| rack.admit(name));
    let access = rack.access("a", &["a"]);
    let says = |who: &str, arguments: &[&str]| {
        let output = rack.etcdctl_as(who, "a").args(arguments).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    assert!(says("stranger", &["put", "other", "value"]).0, "without rights, every certificate may");
    let clients = ["w1", "w2"].map(str::to_owned);
    assert!(!rights::grant(&access, &clients).unwrap().was_on);
    assert!(rights::grant(&access, &clients).unwrap().was_on, "said again, it is so");
    let operator = Access { credentials: rack.credentials("operator"), ..access.clone() };
    assert!(rights::grant(&operator, &clients).unwrap().was_on);
    let error = rights::grant(&access, &["a".to_owned()]).unwrap_err();
    assert!(keller::base::Chain(&error).to_string().contains("a is a member's or an operator's name"));

    for (who, arguments) in [
        ("w1", &["put", "w1/key", "value"][..]),
        ("w1", &["get", "--prefix", "w1/"]),
        ("w1", &["del", "w1/key"]),
        ("w2", &["put", "w2/key", "value"]),
        ("operator", &["get", "--prefix", ""]),
        ("a", &["put", "any", "value"]),
    ] {
        let (is_done, text) = says(who, arguments);
        assert!(is_done, "{who} {arguments:?}: {text}");
    }
    let peer = ["member", "add", "x", "--learner", "--peer-urls=https://10.0.0.9:2380"];
    for (who, arguments) in [
        ("w1", &["put", "w2/key", "value"][..]),
        ("w1", &["get", "w2/key"]),
        ("w1", &["put", "w1", "value"]),
        ("w1", &["put", "w10", "value"]),
        ("w1", &["get", "--prefix", ""]),
        ("w1", &["del", "--prefix", "w"]),
        ("w1", &peer),
        ("w1", &["user", "add", "x:y"]),
        ("w1", &["auth", "disable"]),
        ("w1", &["snapshot", "save", "/dev/null"]),
        ("stranger", &["get", "w1/key"]),
    ] {
        let (is_done, text) = says(who, arguments);
        assert!(!is_done, "{who} {arguments:?}: {text}");
    }
    // Whoever may not read the cluster's keys still sees that it works.
    let client = Access { credentials: rack.credentials("w1"), ..access.clone() };
    assert_eq!(View::of(&client).votes(), (1, 1, 1));
    // Members come and go as before.
    change::add(&access, "b", Some(rack.hosts["b"])).unwrap();
    let error = keller::base::Chain(&change::remove(&operator, "b").unwrap_err()).to_string();
    let unnamed = format!("{}:2380", rack.hosts["b"]);
    assert!(error.contains(&format!("it has {unnamed}, a")), "{error}");
    change::remove(&operator, &unnamed).unwrap();
}

/// What a person reads, from the program itself, from outside.
#[test]
fn status_from_outside() {
    let rack = Rack::new();
    let Some(running) = rack.begin(&["a"]) else { return };
    let operator = rack.folder.path().join("operator");
    fs::create_dir(&operator).unwrap();
    for file in [etcd::CA, etcd::CLIENT] {
        fs::copy(rack.pki("a").join(file), operator.join(file)).unwrap();
    }
    let list = serde_json::json!({ "name": "rack1", "members": { "a": rack.hosts["a"] } });
    fs::write(operator.join("cluster.json"), list.to_string()).unwrap();
    let status = |json: bool, home: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keller"));
        command.args(["cluster", "status", "--operator"]).arg(home);
        command.args(json.then_some("--json"));
        let output = command.output().unwrap();
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = status(false, &operator);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("rack1: 1 of 1 members with a vote work, 0 may fail\n"), "{text}");
    assert!(
        text.contains("leader")
            && text.contains("yes")
            && ["364 days", "365 days"].iter().any(|days| text.contains(days)),
        "{text}"
    );
    let (_, text) = status(true, &operator);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["quorum"], &json["leader"]), (&true.into(), &"a".into()));
    assert_eq!(json["members"][0]["clock_ahead_seconds"], 0.0);
    drop(running);
    let (code, text) = status(false, &operator);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cannot be reached: Connection refused") && text.contains("way out: "), "{text}");
    let (code, text) = status(false, rack.folder.path());
    assert!(code == Some(1) && text.contains("the directory `operator`"), "{text}");
}
