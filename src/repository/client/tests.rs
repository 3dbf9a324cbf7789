//! A node before a repository that is old, damaged, foreign, or held back.

mod hostile;

use std::fs;

use super::*;
use crate::agent::record::Record;
use crate::agent::{Wanted, choice, look};
use crate::base::Chain;
use crate::repository::Folder;
use crate::repository::publish::Options;
use crate::repository::testing::{Fault, Faulty, NOW, Publisher, copy, day, made, options, times};

struct Node {
    publisher: Publisher,
    /// As the image has it.
    root_json: Vec<u8>,
}

impl Node {
    fn new(versions: &[&str]) -> Self {
        let publisher = Publisher::new();
        versions.iter().for_each(|version| drop(publisher.publish(version)));
        Self { root_json: publisher.root_json(), publisher }
    }

    fn look(&self, now: i64) -> Result<Vec<String>, String> {
        let folder = Folder::new(self.publisher.repository());
        self.publisher.look(&self.root_json, &folder, now)
    }

    fn look_at(&self, faults: Vec<(&str, Fault)>) -> String {
        let remote = Faulty::new(&self.publisher.repository(), faults);
        self.publisher.look(&self.root_json, &remote, 0).unwrap_err()
    }

    /// A copy of the repository as it is.
    fn keep(&self) -> Folder {
        let kept = self.publisher.folder.path().join(format!("kept-{}", rand_name(self)));
        copy(&self.publisher.repository(), &kept);
        Folder::new(kept)
    }
}

fn rand_name(node: &Node) -> usize {
    fs::read_dir(node.publisher.folder.path()).unwrap().count()
}

/// What a node takes, by the rule that nodes go by.
fn newest(trusted: &Trusted<'_>, id: &str, version: &str, channel: &str) -> Option<Document> {
    let node = choice::Node { id, version, channel };
    look::find(trusted, node, &Record::default(), &Wanted::default()).unwrap().document
}

#[test]
fn what_is_published_is_found() {
    let node = Node::new(&["1.0.0", "1.0.1"]);
    assert_eq!(node.look(0).unwrap(), ["1.0.1", "1.0.0"]);
    let folder = Folder::new(node.publisher.repository());
    let trusted = Client::update(&node.root_json, &folder, &node.publisher.datastore(), NOW).unwrap();
    let document = newest(&trusted, "node", "1.0.0", "stable").unwrap();
    assert_eq!((document.id.as_str(), document.version.as_str()), ("node", "1.0.1"));
    assert_eq!(document.root.root_hash, made("1.0.1").root_hash());
    assert!(newest(&trusted, "node", "1.0.1", "stable").is_none());
    assert!(newest(&trusted, "node", "1.0.0", "beta").is_none());
    assert!(newest(&trusted, "other", "1.0.0", "stable").is_none());
    // Nothing but what is kept is left behind.
    let mut names: Vec<_> = fs::read_dir(node.publisher.datastore())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["latest_known_time.json", "lock", "snapshot.json", "targets.json", "timestamp.json"]);
}

#[test]
fn three_versions_back_with_a_step_in_between() {
    let node = Node::new(&["1.0.0", "1.0.1", "1.0.2"]);
    let minimum = Some("1.0.2".to_owned());
    node.publisher.add_with(&made("2.0.0"), &Options { minimum, ..options(&["stable"]) }, 0).unwrap();
    let folder = Folder::new(node.publisher.repository());
    let trusted = Client::update(&node.root_json, &folder, &node.publisher.datastore(), NOW).unwrap();
    let next = |version| newest(&trusted, "node", version, "stable").map(|document| document.version);
    assert_eq!(next("0.9").as_deref(), Some("1.0.2"));
    assert_eq!(next("1.0.0").as_deref(), Some("1.0.2"));
    assert_eq!(next("1.0.2").as_deref(), Some("2.0.0"));
    assert_eq!(next("2.0.0"), None);
}

#[test]
fn expired() {
    let node = Node::new(&["1.0.0"]);
    let text = node.look(15).unwrap_err();
    assert_eq!(
        text,
        "the timestamp metadata has expired on 2026-06-15 00:00 UTC, and it is 2026-06-16 00:00 UTC: \
         `keller publish --refresh` renews it at the publisher's"
    );
    // What was refused is not remembered, neither the state nor the time.
    node.publisher.refresh(1).unwrap();
    assert_eq!(node.look(1).unwrap(), ["1.0.0"]);
    node.publisher.refresh(15).unwrap();
    assert_eq!(node.look(20).unwrap(), ["1.0.0"]);
    node.publisher.keys().renew(day(650)).unwrap();
    node.publisher.refresh(640).unwrap();
    let text = node.look(651).unwrap_err();
    assert!(
        text.starts_with("the root metadata has expired on 2028-03-") && text.contains("keys renew"),
        "{text}"
    );
}

#[test]
fn no_way_back() {
    let node = Node::new(&["1.0.0"]);
    let old = node.keep();
    node.publisher.publish("1.0.1");
    assert_eq!(node.look(0).unwrap().len(), 2);
    let text = node.publisher.look(&node.root_json, &old, 0).unwrap_err();
    assert_eq!(
        text,
        "the timestamp metadata is version 1, and this node has seen version 2: the server has an old copy of \
         the repository, or somebody replays one"
    );
    // A new timestamp beside an old list of releases.
    let kept = fs::read(old.path().join("metadata/1.snapshot.json")).unwrap();
    let text = node.look_at(vec![("2.snapshot.json", Fault::Bytes(kept))]);
    assert!(text.starts_with("metadata/2.snapshot.json is not what timestamp.json says"), "{text}");
    let kept = fs::read(old.path().join("metadata/1.targets.json")).unwrap();
    let text = node.look_at(vec![("2.targets.json", Fault::Bytes(kept))]);
    assert!(text.starts_with("metadata/2.targets.json is not what snapshot.json says"), "{text}");
    assert_eq!(node.look(0).unwrap().len(), 2);
    // Held back until it has expired.
    assert!(node.look(14).is_ok());
    assert!(node.look(15).unwrap_err().contains("has expired"));
}

#[test]
fn others_keys() {
    let node = Node::new(&["1.0.0"]);
    let other = Node::new(&["6.6.6"]);
    let remote = Folder::new(other.publisher.repository());
    let text = node.publisher.look(&node.root_json, &remote, 0).unwrap_err();
    assert_eq!(
        text,
        "metadata/timestamp.json is not signed by the keys that timestamp has in root 1, 0 of 1 signatures are \
         good: this is another repository, or somebody else has written to it"
    );
    other.publisher.rotate(RoleType::Root);
    other.publisher.refresh(0).unwrap();
    let text = node.publisher.look(&node.root_json, &remote, 0).unwrap_err();
    assert!(
        text.starts_with("metadata/2.root.json is not signed by the keys that root has in root 1"),
        "{text}"
    );
    assert_eq!(node.look(0).unwrap(), ["1.0.0"]);
}

#[test]
fn keys_rotate_several_times_in_a_row() {
    let node = Node::new(&["1.0.0"]);
    assert!(node.look(0).is_ok());
    for role in [RoleType::Root, RoleType::Timestamp, RoleType::Root, RoleType::Snapshot, RoleType::Targets] {
        node.publisher.rotate(role);
    }
    node.publisher.publish("1.0.1");
    assert_eq!(node.look(0).unwrap().len(), 2);
    for version in 2..=6 {
        assert!(node.publisher.datastore().join(format!("{version}.root.json")).exists());
    }
    // The chain is walked from where the node is: a server cannot hide what was seen.
    let text = node.look_at(vec![("7.root.json", Fault::Broken)]);
    assert_eq!(text, "reading metadata/7.root.json: status 500");
    let remote = Faulty::new(&node.publisher.repository(), vec![(".root.json", Fault::Missing)]);
    assert!(node.publisher.look(&node.root_json, &remote, 0).is_ok());
    assert_eq!(remote.asked.lock().unwrap()[0], "metadata/7.root.json");
    // Roots of another chain on the state partition lead nowhere.
    let other = Node::new(&["1.0.0"]);
    other.publisher.rotate(RoleType::Root);
    let stranger = fs::read(other.publisher.keys_folder().join("2.root.json")).unwrap();
    fs::write(node.publisher.datastore().join("2.root.json"), stranger).unwrap();
    assert_eq!(node.look(0).unwrap().len(), 2);
}

#[test]
fn a_missing_step() {
    let node = Node::new(&["1.0.0"]);
    for role in [RoleType::Timestamp, RoleType::Root, RoleType::Root] {
        node.publisher.rotate(role);
    }
    node.publisher.refresh(0).unwrap();
    node.publisher.refresh(0).unwrap();
    fs::remove_file(node.publisher.repository().join("metadata/2.root.json")).unwrap();
    let text = node.look(0).unwrap_err();
    assert!(
        text.starts_with("metadata/2.root.json is not in the repository, but 3.root.json is: publish again"),
        "{text}"
    );
    // The publisher notices, and heals it.
    let repaired = node.publisher.refresh(0);
    assert!(repaired.is_ok(), "{:?}", repaired.err());
    assert_eq!(node.look(0).unwrap(), ["1.0.0"]);
}

#[test]
fn a_server_that_fails() {
    let node = Node::new(&["1.0.0"]);
    for path in ["timestamp.json", "1.snapshot.json", "1.targets.json"] {
        let text = node.look_at(vec![(path, Fault::Missing)]);
        let expected = format!("metadata/{path} is not on the server: the address must be that of");
        assert!(text.starts_with(&expected), "{text}");
        let text = node.look_at(vec![(path, Fault::Broken)]);
        assert_eq!(text, format!("reading metadata/{path}: status 500"));
        let text = node.look_at(vec![(path, Fault::Endless)]);
        assert!(text.starts_with(&format!("metadata/{path} has more than the ")), "{text}");
        let text = node.look_at(vec![(path, Fault::Bytes(b"<html>".to_vec()))]);
        assert!(text.starts_with(&format!("metadata/{path} ")), "{text}");
    }
    let text = node.look_at(vec![("2.root.json", Fault::Endless)]);
    assert!(text.starts_with("metadata/2.root.json has more than the 256.0 KiB"), "{text}");
    let text = node.look_at(vec![("timestamp.json", Fault::Bytes(b"<html>".to_vec()))]);
    assert!(text.starts_with("metadata/timestamp.json cannot be understood: "), "{text}");
    assert_eq!(node.look(0).unwrap(), ["1.0.0"]);
}

#[test]
fn clocks() {
    let node = Node::new(&["1.0.0"]);
    // In the future, and right again: nothing was believed there.
    assert!(node.look(4000).unwrap_err().contains("has expired"));
    assert!(node.look(3).is_ok());
    assert!(node.look(3).is_ok());
    let text = node.look(1).unwrap_err();
    assert_eq!(
        text,
        "the clock shows 2026-06-02 00:00 UTC, and metadata of 2026-06-04 00:00 UTC was good on this node before: \
         wait for time synchronisation; if the clock was in the future once, `keller update reset-clock` forgets it"
    );
    let text = node.look(-20_000).unwrap_err();
    assert!(text.starts_with("the clock shows 1971-"), "{text}");
    assert!(forget_time(&node.publisher.datastore()).unwrap());
    assert!(!forget_time(&node.publisher.datastore()).unwrap());
    assert!(node.look(1).is_ok());
    fs::write(node.publisher.datastore().join("latest_known_time.json"), "soon").unwrap();
    assert!(node.look(0).is_ok());
    let folder = Folder::new(node.publisher.repository());
    let error =
        Client::update(&node.root_json, &folder, &node.publisher.datastore(), i64::MAX).err().unwrap();
    assert!(matches!(error, RepositoryError::Clock { .. }));
    // Some seconds are what a time server corrects.
    let late = |seconds| Client::update(&node.root_json, &folder, &node.publisher.datastore(), NOW + seconds);
    assert!(late(100).is_ok() && late(0).is_ok() && late(-300).is_err());
}

#[test]
fn documents() {
    let node = Node::new(&["1.0.0", "1.0.1"]);
    let folder = Folder::new(node.publisher.repository());
    let datastore = node.publisher.datastore();
    let trusted = Client::update(&node.root_json, &folder, &datastore, NOW).unwrap();
    let [newer, older] = trusted.releases() else { panic!() };
    let bytes = fs::read(folder.path().join(newer.path())).unwrap();
    let said = |result: Result<Document, RepositoryError>| Chain(&result.unwrap_err()).to_string();
    let text = said(parse(&bytes, older, "x".to_owned()));
    assert_eq!(text, "x is the release document of node 1.0.1, not of node 1.0.0");
    let later = br#"{"format": 3, "layers": []}"#;
    let text = said(parse(later, newer, "x".to_owned()));
    assert_eq!(
        text,
        "the release document of 1.0.1 has format 3, and this keller knows up to 2: go to a version in between first"
    );
    assert!(said(parse(b"{}", newer, "x".to_owned())).starts_with("x is no release document: "));
    let path = newer.path();
    for (fault, expected) in [
        (Fault::Missing, "is not on the server"),
        (Fault::Broken, "status 500"),
        (Fault::Endless, "has more than the"),
        (Fault::Bytes(bytes[..100].to_vec()), "is not what the list of releases says"),
    ] {
        let remote = Faulty::new(folder.path(), vec![(&path, fault)]);
        let trusted = Client::update(&node.root_json, &remote, &datastore, NOW).unwrap();
        let text = said(trusted.document(newer));
        assert!(text.contains(expected), "{text}");
    }
    let mut huge = newer.clone();
    huge.document.size = u64::MAX;
    assert!(said(trusted.document(&huge)).contains("has more than the 1.0 MiB"));
}

#[test]
fn the_nodes_own_disk() {
    let node = Node::new(&["1.0.0"]);
    let datastore = node.publisher.datastore();
    assert!(node.look(0).is_ok());
    // Cut off by a loss of power: a folder left over, files with half of their bytes.
    fs::create_dir(datastore.join("scratch-old")).unwrap();
    for name in ["timestamp.json", "snapshot.json", "targets.json"] {
        fs::write(datastore.join(name), "{").unwrap();
    }
    assert!(node.look(0).is_ok());
    assert!(!datastore.join("scratch-old").exists());
    let held = Datastore::open(&datastore).unwrap();
    assert_eq!(node.look(0).unwrap_err(), "another keller is looking at the repository just now");
    drop(held);
    fs::remove_dir_all(&datastore).unwrap();
    fs::write(&datastore, "a file").unwrap();
    assert!(node.look(0).unwrap_err().starts_with("opening "));
    let text = node.publisher.look(b"{}", &Folder::new("nowhere"), 0).unwrap_err();
    assert!(text.starts_with("opening ") || text.starts_with("the root of trust"), "{text}");
}

#[test]
fn versions_driven_up_by_a_stolen_key() {
    let node = Node::new(&["1.0.0"]);
    for _ in 0..50 {
        node.publisher.refresh(0).unwrap();
    }
    assert!(node.look(0).is_ok());
    // The publisher starts over from a copy, with a new timestamp key.
    node.publisher.rotate(RoleType::Timestamp);
    fs::remove_dir_all(node.publisher.repository()).unwrap();
    let keys = node.publisher.keys();
    let mut repository = crate::repository::Repository::open(node.publisher.repository(), &keys).unwrap();
    let image = made("1.0.0");
    let root = image.root.as_slice();
    repository
        .add(&image.image(&root), &options(&["stable"]), times(0), &crate::base::progress::Silent)
        .unwrap();
    assert_eq!(node.look(0).unwrap(), ["1.0.0"]);
}
