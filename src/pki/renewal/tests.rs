//! A member asks, an operator signs, the member takes: and what else could stand in etcd.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::super::etcd::{self, CA, PEER_CA};
use super::*;
use crate::base::Chain;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;
/// When a third of a certificate's life is left.
const LATE: i64 = NOW + 250 * DAY;

fn me() -> Owner {
    Owner::this_process()
}

/// Two authorities, and a directory for each member.
struct Rack {
    home: tempfile::TempDir,
    clients: Authority,
    peers: Authority,
}

impl Rack {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let ends = NOW + 3650 * DAY;
        let [clients, peers] = ["clients", "peers"].map(|name| Authority::make_until(name, ends).unwrap());
        Self { home, clients, peers }
    }

    fn member(name: &str) -> Member {
        let last = name.as_bytes()[0] - b'a' + 1;
        Member::of_cluster(name, [10, 0, 0, last].into())
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    /// As a document that was made at `now` gives it.
    fn give(&self, name: &str, now: i64) {
        let given = etcd::issue(&Self::member(name), &self.clients, &self.peers, now).unwrap();
        etcd::take(&self.at(name), &given, &Self::member(name), me()).unwrap();
    }

    fn renewal(&self, name: &str) -> Renewal {
        Renewal::open(&self.at(name), Self::member(name), me()).unwrap()
    }

    fn ask(&self, name: &str) -> String {
        match self.renewal(name).need(LATE).unwrap() {
            Need::Ask { request, .. } => request,
            Need::Nothing { .. } => panic!("{name} needs nothing"),
        }
    }

    fn sign(&self, name: &str, request: &str, now: i64) -> Result<Answer, Refusal> {
        let member = Self::member(name);
        Request::read(request.as_bytes(), &member)?.sign(&member, &self.clients, &self.peers, now)
    }

    fn file(&self, name: &str, file: &str) -> Vec<u8> {
        fs::read(self.at(name).join(file)).unwrap()
    }

    fn ends(&self, name: &str) -> [i64; 3] {
        [etcd::SERVER, etcd::PEER, etcd::CLIENT].map(|file| pair::end_of(&self.file(name, file)).unwrap())
    }
}

#[test]
fn a_member_asks_in_time_and_takes_what_is_signed() {
    let rack = Rack::new();
    rack.give("b", NOW);
    let nothing = Need::Nothing { is_pending: false };
    assert_eq!(rack.renewal("b").need(NOW + 243 * DAY).unwrap(), nothing);
    assert!(!rack.at("b").join(PENDING).exists());
    let before = ["server.pem", "peer.pem", "client.pem"].map(|file| rack.file("b", file));
    let request = rack.ask("b");
    let changed = || fs::metadata(rack.at("b")).map(|meta| (meta.ctime(), meta.ctime_nsec())).unwrap();
    let before_look = changed();
    assert_eq!(rack.ask("b"), request, "said again, it is the same");
    assert_eq!(changed(), before_look, "a look writes nothing");
    // No key leaves the node, or lies open on it.
    assert!(!request.contains("PRIVATE"), "{request}");
    assert_eq!(fs::metadata(rack.at("b").join(PENDING)).unwrap().permissions().mode() & 0o777, 0o600);
    let signed = rack.sign("b", &request, LATE).unwrap();
    assert!(!signed.text.contains("PRIVATE") && signed.ends == LATE + LIFETIME_SECONDS, "{signed:?}");
    assert_eq!(rack.renewal("b").take(signed.text.as_bytes()).unwrap().unwrap(), signed.ends);
    assert_eq!(rack.ends("b"), [signed.ends; 3]);
    for (file, before) in ["server.pem", "peer.pem", "client.pem"].into_iter().zip(before) {
        let key = |text: &[u8]| Pair::read(text).unwrap().key.public_key_raw().to_vec();
        assert_ne!(key(&rack.file("b", file)), key(&before), "{file} has a new key");
    }
    assert_eq!(rack.renewal("b").need(LATE).unwrap(), Need::Nothing { is_pending: true });
    rack.renewal("b").settle().unwrap();
    assert_eq!(rack.renewal("b").need(LATE).unwrap(), nothing);
}

/// Wherever the power goes, what is there works, and the next look goes on.
#[test]
fn a_power_cut_between_any_two_files_is_mended() {
    for cut in 0..=3 {
        let rack = Rack::new();
        rack.give("b", NOW);
        let signed = rack.sign("b", &rack.ask("b"), LATE).unwrap();
        let pending = rack.file("b", PENDING);
        let old = ["server.pem", "peer.pem", "client.pem"].map(|file| (file, rack.file("b", file)));
        rack.renewal("b").take(signed.text.as_bytes()).unwrap().unwrap();
        for (file, text) in &old[cut..] {
            fs::write(rack.at("b").join(file), text).unwrap();
        }
        assert_eq!(rack.file("b", PENDING), pending);
        let need = rack.renewal("b").need(LATE).unwrap();
        assert_eq!(matches!(need, Need::Nothing { is_pending: true }), cut == 3, "{cut}: {need:?}");
        assert_eq!(rack.renewal("b").take(signed.text.as_bytes()).unwrap().unwrap(), signed.ends, "{cut}");
        assert_eq!(rack.ends("b"), [signed.ends; 3], "{cut}");
    }
    // Without the answer, it asks once more with the same keys, by the certificate that it has now.
    let rack = Rack::new();
    rack.give("b", NOW);
    let request = rack.ask("b");
    let client = rack.file("b", etcd::CLIENT);
    let signed = rack.sign("b", &request, LATE).unwrap();
    rack.renewal("b").take(signed.text.as_bytes()).unwrap().unwrap();
    fs::write(rack.at("b").join(etcd::CLIENT), client).unwrap();
    let again = rack.ask("b");
    assert_ne!(again, request);
    let later = rack.sign("b", &again, LATE + DAY).unwrap();
    assert_eq!(rack.renewal("b").take(later.text.as_bytes()).unwrap().unwrap(), signed.ends + DAY);
}

#[test]
fn damaged_keys_are_made_anew() {
    let rack = Rack::new();
    rack.give("b", NOW);
    let first = rack.ask("b");
    for damage in [&b""[..], b"{}", b"\xff", &rack.file("b", PENDING)[..300]] {
        fs::write(rack.at("b").join(PENDING), damage).unwrap();
        let request = rack.ask("b");
        assert_ne!(request, first);
        assert!(rack.sign("b", &request, LATE).is_ok());
    }
    // What was signed for the keys that are gone is not taken.
    let signed = rack.sign("b", &first, LATE).unwrap();
    let refused = rack.renewal("b").take(signed.text.as_bytes()).unwrap().unwrap_err();
    assert!(matches!(refused, Refusal::OtherKey), "{refused}");
    assert_eq!(rack.ends("b"), [NOW + LIFETIME_SECONDS; 3]);
}

/// What anybody who may write to etcd could put there.
#[test]
fn what_the_member_did_not_write_is_not_signed() {
    let rack = Rack::new();
    ["a", "b"].iter().for_each(|name| rack.give(name, NOW));
    let request = rack.ask("b");
    let asked = || serde_json::from_str::<Asked>(&request).unwrap();
    let own = Fresh::make().unwrap().request("b").unwrap();
    let with = |change: &dyn Fn(&mut Asked)| {
        let mut asked = asked();
        change(&mut asked);
        serde_json::to_string(&asked).unwrap()
    };
    let says = |request: &str, word: &str| {
        let refused = rack.sign("b", request, LATE).unwrap_err();
        assert!(Chain(&refused).to_string().contains(word), "{refused}: {word}");
    };
    says(&rack.ask("a"), "it names \"a\"");
    says(
        &with(&|asked| asked.requests.insert("peer.pem".into(), own.clone()).map(drop).unwrap()),
        "not signed",
    );
    says(&with(&|asked| asked.since += 1), "the member's key has not signed it");
    says(&with(&|asked| asked.signature.clear()), "the member's key has not signed it");
    says(
        &with(&|asked| asked.requests.remove("client.pem").map(drop).unwrap()),
        "client.pem: the file has no request",
    );
    says(&with(&|asked| asked.form = 2), "form 2");
    says(&with(&|asked| asked.certificate.clear()), "the file has no certificate");
    // A member in another's name, and a client in a member's: each has a certificate of this cluster.
    let a = Pair::read(&rack.file("a", etcd::PEER)).unwrap();
    let client = Pair::read(&rack.file("b", etcd::CLIENT)).unwrap();
    let stranger = Rack::new();
    stranger.give("b", NOW);
    let other = Pair::read(&stranger.file("b", etcd::PEER)).unwrap();
    for (pair, word) in [(a, "for other names"), (client, "another authority"), (other, "another authority")]
    {
        let mut pending = Pending::make().unwrap();
        pending.ask(&Rack::member("b"), &pair, LATE).unwrap();
        says(&pending.request, word);
    }
    // The certificate of the member with another's signature.
    let mut pending = Pending::make().unwrap();
    pending.ask(&Rack::member("b"), &Pair::read(&rack.file("a", etcd::PEER)).unwrap(), LATE).unwrap();
    let mut forged: Asked = serde_json::from_str(&pending.request).unwrap();
    forged.certificate = asked().certificate;
    says(&serde_json::to_string(&forged).unwrap(), "the member's key has not signed it");
    // Bytes.
    says("", "cannot be read");
    says("[1]", "cannot be read");
    says(&format!("{{\"form\": 1, \"x\": [{}1]}}", "1,".repeat(100)), "more than 32 values");
    says(&request.replace("\"form\":1", "\"form\":1,\"form\":1"), "cannot be read");
    says(&"x".repeat(2 << 20), "it has 2097152 bytes");
    // Too late, and for nothing.
    assert!(matches!(rack.sign("b", &request, NOW + 366 * DAY).unwrap_err(), Refusal::Ended));
    assert!(matches!(rack.sign("b", &request, NOW).unwrap_err(), Refusal::NoLater));
    assert!(rack.sign("b", &request, LATE).is_ok());
}

/// Of the request only the key counts.
#[test]
fn names_and_uses_come_from_the_list() {
    let rack = Rack::new();
    rack.give("b", NOW);
    let mut pending = Pending::make().unwrap();
    let peer = Pair::read(&rack.file("b", etcd::PEER)).unwrap();
    pending.ask(&Rack::member("b"), &peer, LATE).unwrap();
    let mut asked: Asked = serde_json::from_str(&pending.request).unwrap();
    let mut params = super::super::wanted::subject("root", NOW);
    params.subject_alt_names = vec![rcgen::SanType::IpAddress([10, 0, 0, 9].into())];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    for (file, key) in &pending.keys {
        let key = rcgen::KeyPair::try_from(pem::parse(key).unwrap().contents()).unwrap();
        let request = params.serialize_request(&key).unwrap();
        asked.requests.insert(file.clone(), pair::block("CERTIFICATE REQUEST", request.der()));
    }
    asked.signature = STANDARD.encode(peer.key.sign(&asked.vouched()).unwrap());
    let signed = rack.sign("b", &serde_json::to_string(&asked).unwrap(), LATE).unwrap();
    let signed: Signed = serde_json::from_str(&signed.text).unwrap();
    for (file, wanted) in Rack::member("b").wanted() {
        let der = pair::read_certificate(signed.certificates[file].as_bytes()).unwrap();
        let certificate = pair::parse(&der).unwrap();
        assert!(pair::is_for(&certificate, &wanted) && !certificate.is_ca(), "{file}");
    }
}

/// Keys of another kind, and requests that do not prove theirs.
#[test]
fn a_request_proves_its_key() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let params = super::super::wanted::subject("b", NOW);
    let request = params.serialize_request(&key).unwrap();
    let text = pair::block("CERTIFICATE REQUEST", request.der());
    assert!(matches!(Proven::read(&text), Err(Error::OtherAlgorithm)));
    let good = Fresh::make().unwrap().request("b").unwrap();
    let der = pem::parse(&good).unwrap().into_contents();
    let mut forged = der.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(Proven::read(&pair::block("CERTIFICATE REQUEST", &forged)), Err(Error::NoProof)));
    let longer = [&der[..], b"x"].concat();
    assert!(matches!(Proven::read(&pair::block("CERTIFICATE REQUEST", &longer)), Err(Error::Request(_))));
    let short = &der[..der.len() / 2];
    assert!(matches!(Proven::read(&pair::block("CERTIFICATE REQUEST", short)), Err(Error::Request(_))));
    assert!(matches!(Proven::read(&pair::block("CERTIFICATE", &der)), Err(Error::Missing(_))));
    assert!(matches!(Proven::read(&(good.clone() + &good)), Err(Error::Missing(_))));
    assert!(Proven::read(&good).is_ok());
}

/// What stands in etcd as an answer is anybody's.
#[test]
fn only_what_is_signed_for_the_keys_that_wait_is_taken() {
    let rack = Rack::new();
    rack.give("b", NOW);
    let request = rack.ask("b");
    let good = rack.sign("b", &request, LATE).unwrap();
    let before = rack.ends("b");
    let says = |answer: &str, word: &str| {
        let refused = rack.renewal("b").take(answer.as_bytes()).unwrap().unwrap_err();
        assert!(Chain(&refused).to_string().contains(word), "{refused}: {word}");
        assert_eq!(rack.ends("b"), before, "{word}");
    };
    let with = |change: &dyn Fn(&mut Signed)| {
        let mut signed: Signed = serde_json::from_str(&good.text).unwrap();
        change(&mut signed);
        serde_json::to_string(&signed).unwrap()
    };
    // Another cluster's authorities sign whatever they are asked.
    let stranger = Rack::new();
    let member = Rack::member("b");
    let theirs = Request::read(request.as_bytes(), &member).unwrap();
    let peers = Authority::read(stranger.peers.to_pem().as_bytes()).unwrap().beside(rack.peers.believed());
    let theirs = theirs.sign(&member, &stranger.clients, &peers, LATE).unwrap();
    says(&theirs.text, "server.pem: another authority signed it");
    // One of the three is another's.
    let foreign: Signed = serde_json::from_str(&theirs.text).unwrap();
    let swap = |signed: &mut Signed| {
        signed.certificates.insert("client.pem".into(), foreign.certificates["client.pem"].clone());
    };
    says(&with(&swap), "client.pem: another authority signed it");
    // For another key; for another use; for another member.
    rack.give("a", NOW);
    let of_a = rack.sign("a", &rack.ask("a"), LATE).unwrap();
    says(&of_a.text, "it names \"a\"");
    says(&of_a.text.replace("\"member\":\"a\"", "\"member\":\"b\""), "other keys than those that wait");
    let (server, client) = {
        let pending: Pending = serde_json::from_slice(&rack.file("b", PENDING)).unwrap();
        (pending.keys["server.pem"].clone(), pending.keys["client.pem"].clone())
    };
    assert_ne!(server, client);
    let other = Member { client: "operator".into(), ..Rack::member("b") };
    let request_of_other = Request::read(request.as_bytes(), &other).unwrap();
    let other = request_of_other.sign(&other, &rack.clients, &rack.peers, LATE).unwrap();
    says(&other.text, "client.pem: it is for other names or another use");
    says(
        &with(&|signed| drop(signed.certificates.remove("peer.pem"))),
        "peer.pem: the file has no certificate",
    );
    says("{}", "cannot be read");
    says(&"x".repeat(2 << 20), "it has 2097152 bytes");
    // What is there ends later: an operator's document came meanwhile.
    rack.give("b", LATE + DAY);
    let refused = rack.renewal("b").take(good.text.as_bytes()).unwrap().unwrap_err();
    assert!(matches!(refused, Refusal::NoLater), "{refused}");
    assert_eq!(rack.renewal("b").need(LATE + DAY).unwrap(), Need::Nothing { is_pending: true });
}

/// A node's document holds what it was made with, and is read at each boot.
#[test]
fn an_older_document_takes_nothing_back() {
    let rack = Rack::new();
    rack.give("b", NOW);
    let signed = rack.sign("b", &rack.ask("b"), LATE).unwrap();
    rack.renewal("b").take(signed.text.as_bytes()).unwrap().unwrap();
    rack.give("b", NOW);
    assert_eq!(rack.ends("b"), [signed.ends; 3]);
    rack.give("b", LATE + DAY);
    assert_eq!(rack.ends("b"), [signed.ends + DAY; 3], "a newer one counts");
    // One of another authority counts, older or not, also while both are believed.
    let next = Rack::new();
    let again = |authority: &Authority| Authority::read(authority.to_pem().as_bytes()).unwrap();
    let clients = again(&next.clients).beside(rack.clients.believed());
    let peers = again(&next.peers).beside(rack.peers.believed());
    let given = etcd::issue(&Rack::member("b"), &clients, &peers, NOW).unwrap();
    etcd::take(&rack.at("b"), &given, &Rack::member("b"), me()).unwrap();
    assert_eq!(rack.ends("b"), [NOW + LIFETIME_SECONDS; 3]);
    rack.give("b", LATE);
    let other = Rack::new();
    let given = etcd::issue(&Rack::member("b"), &other.clients, &other.peers, NOW).unwrap();
    let kept = etcd::take(&rack.at("b"), &given, &Rack::member("b"), me()).unwrap();
    assert!(kept.wants_restart && kept.made.len() == 3, "{kept:?}");
    assert_eq!(rack.ends("b"), [NOW + LIFETIME_SECONDS; 3]);
    assert_eq!(rack.file("b", CA), other.clients.certificate_pem().into_bytes());
}

/// While an authority is replaced, members believe two.
#[test]
fn each_of_several_authorities_is_believed() {
    let (old, new) = (Rack::new(), Rack::new());
    old.give("b", NOW);
    let request = old.ask("b");
    let again = |authority: &Authority| Authority::read(authority.to_pem().as_bytes()).unwrap();
    let clients = again(&new.clients).beside(old.clients.believed());
    let peers = again(&new.peers).beside(old.peers.believed());
    let member = Rack::member("b");
    let asked = Request::read(request.as_bytes(), &member).unwrap();
    let unknown = asked.sign(&member, &new.clients, &new.peers, LATE).unwrap_err();
    assert!(matches!(unknown, Refusal::Stranger(_)), "{unknown}");
    let signed = asked.sign(&member, &clients, &peers, LATE).unwrap();
    // The member believes one until its document says otherwise.
    assert!(old.renewal("b").take(signed.text.as_bytes()).unwrap().is_err());
    fs::write(old.at("b").join(CA), clients.believed().to_pem()).unwrap();
    fs::write(old.at("b").join(PEER_CA), peers.believed().to_pem()).unwrap();
    assert_eq!(old.renewal("b").take(signed.text.as_bytes()).unwrap().unwrap(), signed.ends);
    assert_eq!(old.renewal("b").need(LATE).unwrap(), Need::Nothing { is_pending: true });
}

/// Where the authority ends, there is nothing to ask for.
#[test]
fn nothing_is_asked_of_an_authority_that_ends() {
    let ends = NOW + LIFETIME_SECONDS;
    let [clients, peers] = ["clients", "peers"].map(|name| Authority::make_until(name, ends).unwrap());
    let rack = Rack { home: tempfile::tempdir().unwrap(), clients, peers };
    rack.give("b", NOW);
    assert_eq!(rack.renewal("b").need(LATE).unwrap(), Need::Nothing { is_pending: false });
}
