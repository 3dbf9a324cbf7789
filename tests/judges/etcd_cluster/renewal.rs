//! New certificates for members that run: asked for through the cluster's own keys, signed by the program itself, and shown
//! by the same etcd.

use std::path::PathBuf;
use std::process::Command;

use keller::agent::etcd::renew::{Looked, Pairs};
use keller::cluster::wound::Kind;
use keller::cluster::{View, rights};
use keller::pki::etcd::{self, Member};
use keller::pki::{Authority, end_of, end_of_der};

use super::{Rack, kinds, me};

const DAY: i64 = 86_400;
const REQUEST: &str = "/keller/requests/b";

impl Rack {
    fn pairs(&self, name: &str) -> Pairs {
        let member = Member::of_cluster(name, self.hosts[name]);
        Pairs { directory: self.pki(name), member, etcd: me() }
    }

    /// What the agent of `name` does every half a minute.
    fn look(&self, name: &str) -> Looked {
        self.pairs(name).look(&mut self.client(name), self.now, false).unwrap()
    }

    fn asks(&self, name: &str) {
        let looked = self.look(name);
        assert!(matches!(looked, Looked::Asks { refused: None, .. }), "{looked:?}");
    }

    /// The directory that `keller cluster init` would have made, with a list of `names`.
    fn cluster_directory(&self, names: &[&str]) -> PathBuf {
        let directory = self.folder.path().join("rack1");
        let operator = directory.join("operator");
        std::fs::create_dir_all(&operator).unwrap();
        let write = |name: &str, text: String| super::private(&directory.join(name), &text);
        write("authority.pem", self.clients.to_pem());
        write("peer-authority.pem", self.peers.to_pem());
        let wanted =
            keller::pki::Wanted { role: keller::pki::Role::Client, name: "operator".into(), hosts: vec![] };
        write("operator/client.pem", self.clients.issue(&wanted, self.now).unwrap().to_pem());
        write("operator/ca.pem", self.clients.certificate_pem());
        let members: std::collections::BTreeMap<_, _> =
            names.iter().map(|name| (*name, self.hosts[*name])).collect();
        write(
            "operator/cluster.json",
            serde_json::json!({ "name": "rack1", "members": members }).to_string(),
        );
        directory
    }
}

/// `keller cluster sign`: how it ends and what it says.
fn sign(directory: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keller"));
    let output = command.args(["cluster", "sign"]).arg(directory).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn a_member_asks_and_the_same_etcd_shows_what_was_signed() {
    let rack = Rack::aged(300);
    let abc = ["a", "b", "c"];
    let Some(mut running) = rack.begin(&abc) else { return };
    ["w1"].iter().for_each(|name| rack.admit(name));
    let access = rack.access("a", &abc);
    rights::grant(&access, &["w1".to_owned()]).unwrap();
    let directory = rack.cluster_directory(&abc);
    assert_eq!(sign(&directory, &[]), (Some(0), "no member asks for certificates\n".to_owned()));
    assert_eq!(kinds(&View::of(&access), rack.now), []);

    // It asks, and goes on asking: the same.
    rack.asks("b");
    let request = rack.etcdctl("a", &["get", "--print-value-only", REQUEST]);
    rack.asks("b");
    assert_eq!(rack.etcdctl("a", &["get", "--print-value-only", REQUEST]), request);
    assert!(request.contains("BEGIN CERTIFICATE REQUEST") && !request.contains("PRIVATE"), "{request}");
    assert_eq!(kinds(&View::of(&access), rack.now), [(Kind::Asks, Some("b".to_owned()))]);
    // Who else may not write there, or read it.
    for arguments in [&["put", REQUEST, "x"][..], &["put", "/keller/signed/b", "x"], &["get", REQUEST]] {
        let output = rack.etcdctl_as("w1", "a").args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
    }

    let (code, text) = sign(&directory, &["--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("b: asks since ") && text.contains("; new ones would last until "), "{text}");
    assert_eq!(rack.etcdctl("a", &["get", "--print-value-only", REQUEST]), request);
    let (code, text) = sign(&directory, &["--member", "a"]);
    assert_eq!((code, text.as_str()), (Some(1), "a: not signed: it asks for no certificates\n"));

    let shown = |name: &str| {
        let access = rack.access("a", &[name]);
        let client = end_of_der(&rack.client(name).shown().certificate).unwrap();
        let peer = access.peer_shown(rack.hosts[name]).unwrap().unwrap();
        (client, end_of_der(&peer.certificate).unwrap())
    };
    let old = rack.now + 65 * DAY;
    assert_eq!(shown("b"), (old, old));
    let (code, text) = sign(&directory, &["--json"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    let until = said["requests"][0]["until"].as_i64().unwrap();
    assert!(code == Some(0) && said["requests"][0]["member"] == "b" && until > old + 200 * DAY, "{text}");
    assert_eq!(kinds(&View::of(&access), rack.now), [], "it is not told any more");
    assert_eq!(shown("b"), (old, old), "what is signed counts once the member has taken it");

    let process = running.get_mut("b").unwrap().0.id();
    assert_eq!(rack.look("b"), Looked::Took { ends: until });
    assert_eq!(shown("b"), (until, until));
    assert_eq!(end_of(&std::fs::read(rack.pki("b").join(etcd::CLIENT)).unwrap()).unwrap(), until);
    assert_eq!(running.get_mut("b").unwrap().0.try_wait().unwrap(), None, "etcd {process} runs on");
    assert_eq!(rack.etcdctl("a", &["get", "--prefix", "/keller/"]), "");
    assert!(!rack.pki("b").join("pending.json").exists());
    assert_eq!(rack.look("b"), Looked::Nothing);
    assert_eq!(shown("a"), (old, old));

    // The others follow, and what is written meanwhile is everywhere.
    rack.asks("a");
    rack.asks("c");
    let (code, text) = sign(&directory, &[]);
    assert_eq!((code, text.lines().count()), (Some(0), 2), "{text}");
    for name in ["a", "c"] {
        assert!(matches!(rack.look(name), Looked::Took { .. }));
    }
    rack.etcdctl("a", &["put", "key", "value"]);
    assert_eq!(rack.etcdctl("c", &["get", "key"]), "key\nvalue\n");
    // A member that starts over with them is in the cluster as before.
    drop(running.remove("b"));
    running.insert("b".to_owned(), rack.start("b", &abc, "existing").unwrap());
    rack.until("all agree", || View::of(&rack.access("b", &abc)).votes() == (3, 3, 2));
    assert_eq!(kinds(&View::of(&rack.access("b", &abc)), rack.now), []);
}

/// Without rights, whoever has a certificate writes whatever they want.
#[test]
fn what_others_wrote_is_refused_and_keeps_nobody_from_certificates() {
    let rack = Rack::aged(300);
    let Some(_running) = rack.begin(&["a", "b"]) else { return };
    // d is in the list of the directory, and not in the cluster.
    let directory = rack.cluster_directory(&["a", "b", "d"]);
    let put = |key: &str, value: &str| {
        let file = rack.folder.path().join("value");
        std::fs::write(&file, value).unwrap();
        let mut command = rack.etcdctl_as("a", "a");
        command.args(["put", key]).stdin(std::fs::File::open(&file).unwrap());
        command.output().unwrap().status.success()
    };
    let refused = |name: &str, word: &str| {
        let (code, text) = sign(&directory, &["--member", name]);
        assert!(code == Some(1) && text.contains(": not signed: ") && text.contains(word), "{text}: {word}");
        assert_eq!(rack.etcdctl("a", &["get", "--prefix", "--keys-only", "/keller/signed/"]), "");
    };
    assert!(!put(REQUEST, &"x".repeat(2 << 20)), "etcd takes no more than 1.5 MiB");
    assert!(put(REQUEST, &"x".repeat(1 << 20)));
    refused("b", "it has 1048576 bytes");
    for (value, word) in [
        ("\u{1b}[2Jgarbage", "cannot be read"),
        ("{\"form\": 9}", "form 9"),
        ("{\"form\": 1, \"member\": \"b\"}", "cannot be read"),
    ] {
        assert!(put(REQUEST, value));
        refused("b", word);
    }
    // Another member's request; another's key in the member's own; names of nobody.
    rack.asks("a");
    let of_a = rack.etcdctl("a", &["get", "--print-value-only", "/keller/requests/a"]);
    assert!(put(REQUEST, of_a.trim_end()));
    refused("b", "it names \"a\"");
    rack.etcdctl("a", &["del", REQUEST]);
    rack.asks("b");
    let of_b = rack.etcdctl("a", &["get", "--print-value-only", REQUEST]);
    let [a, mut b] = [&of_a, &of_b].map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
    b["requests"]["peer.pem"] = a["requests"]["peer.pem"].clone();
    assert!(put(REQUEST, &b.to_string()));
    refused("b", "the member's key has not signed it");
    for name in ["d", "x", "\u{1b}[2J"] {
        assert!(put(&format!("/keller/requests/{name}"), of_b.trim_end()));
    }
    refused("d", "the cluster does not have it in its list of members");
    refused("x", "it is no member by the list");
    // Of what is no name of a node, nothing reaches the terminal as it is.
    let (code, text) = sign(&directory, &["--dry-run"]);
    assert!(code == Some(1) && text.contains("u{1b}[2J: not signed") && !text.contains('\u{1b}'), "{text}");

    // An answer of another cluster is not taken. The next look asks as before, and so many others change nothing.
    let stranger = Authority::make("clients").unwrap();
    let request = keller::pki::renewal::Request::read(of_b.trim_end().as_bytes(), &rack.pairs("b").member);
    let foreign = request.unwrap().sign(&rack.pairs("b").member, &stranger, &rack.peers, rack.now).unwrap();
    assert!(put("/keller/signed/b", &foreign.text));
    let looked = rack.look("b");
    let is_told = |refused: &Option<String>| {
        refused.as_ref().is_some_and(|text| text.contains("server.pem: another authority signed it"))
    };
    assert!(matches!(&looked, Looked::Asks { refused, .. } if is_told(refused)), "{looked:?}");
    for at in 0..20 {
        assert!(put(&format!("/keller/requests/a-{at}"), "x"));
    }
    let (code, text) = sign(&directory, &[]);
    assert!(
        code == Some(1) && text.contains("more than 16 requests stand below /keller/requests/"),
        "{text}"
    );
    assert!(
        text.contains("a: asks since ") && text.lines().any(|line| line.starts_with("b: asks since ")),
        "{text}"
    );
    for name in ["a", "b"] {
        let looked = rack.look(name);
        assert!(matches!(looked, Looked::Took { .. }), "{looked:?}");
    }
}
