//! A publisher who has the keys and means harm, or a server that has none.

use std::num::NonZeroU64;

use serde_json::{Value, json};
use tough::schema::{Snapshot, Targets, Timestamp};

use super::*;
use crate::repository::keys::sign;

/// Objects of seven bytes each, which take a hundred times as much once they are read.
fn costly(count: usize) -> String {
    format!("[{}0]", r#"{"":0},"#.repeat(count))
}

/// `role` as JSON, signed by the keys that the node's publisher has for it.
fn signed<T: Role + serde::de::DeserializeOwned>(node: &Node, role: Value) -> Fault {
    let role: T = serde_json::from_value(role).unwrap();
    let keys = node.publisher.keys();
    let signers = keys.signers(&keys.root().signed, T::TYPE).unwrap();
    Fault::Bytes(metadata::bytes(&sign(role, signers)))
}

/// What leads to `targets`, besides which there are `others`.
fn led(node: &Node, targets: Value, others: &[&str]) -> Vec<(&'static str, Fault)> {
    let version = json!({ "version": 1 });
    let mut meta = json!({ "targets.json": version });
    others.iter().for_each(|name| meta[format!("{name}.json")] = version.clone());
    let common = |kind: &str, meta: Value| json!({ "_type": kind, "spec_version": "1.0.0", "version": 1, "expires": "2026-06-10T00:00:00Z", "meta": meta });
    vec![
        ("metadata/1.targets.json", signed::<Targets>(node, targets)),
        ("metadata/1.snapshot.json", signed::<Snapshot>(node, common("snapshot", meta))),
        (
            "metadata/timestamp.json",
            signed::<Timestamp>(node, common("timestamp", json!({ "snapshot.json": version }))),
        ),
    ]
}

fn list(more: Value) -> Value {
    let mut list = json!({
        "_type": "targets", "spec_version": "1.0.0", "version": 1, "expires": "2026-06-10T00:00:00Z", "targets": {},
    });
    list.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    list
}

#[test]
fn json_that_costs_more_than_its_bytes() {
    let node = Node::new(&["1.0.0"]);
    let bytes = |text: String| Fault::Bytes(text.into_bytes());
    for (path, count) in [("1.targets.json", 500_000), ("2.root.json", 35_000)] {
        let text = node.look_at(vec![(path, bytes(costly(count)))]);
        assert!(text.starts_with(&format!("metadata/{path} cannot be understood: ")), "{text}");
        assert!(
            count < 100_000 || text.contains("more than 200000 values, the most that are read"),
            "{text}"
        );
    }
    for (text, said) in [
        ("[".repeat(200_000), "invalid type: sequence"),
        (r#"{"signed":{},"signed":{}}"#.to_owned(), "\"signed\" stands twice in one object"),
    ] {
        let told = node.look_at(vec![("timestamp.json", bytes(text))]);
        assert!(
            told.starts_with("metadata/timestamp.json cannot be understood: ") && told.contains(said),
            "{told}"
        );
    }
    assert_eq!(node.look(0).unwrap(), ["1.0.0"]);
}

/// Each list may name thousands of others, each of which may name more, or itself.
#[test]
fn delegations_are_not_followed() {
    let node = Node::new(&["1.0.0"]);
    for name in ["others", "targets", "snapshot"] {
        let keys = node.publisher.keys();
        let root = serde_json::to_value(&keys.root().signed).unwrap();
        let role = &root["roles"]["targets"];
        let delegated = json!({
            "name": name, "keyids": role["keyids"], "threshold": 1, "paths": ["*"], "terminating": false,
        });
        let delegations = json!({ "keys": root["keys"], "roles": [delegated] });
        let faults = led(&node, list(json!({ "delegations": delegations })), &[name]);
        let told = node.look_at(faults);
        let said = format!(
            "metadata/1.{name}.json cannot be understood: it is the list of somebody to whom the repository delegates, and \
             nodes read none"
        );
        assert_eq!(told, said);
    }
    assert_eq!(node.look(0).unwrap(), ["1.0.0"]);
}

/// The roots from 2 to `last`, each by the same keys, with so many bytes besides.
fn chain(node: &Node, last: u64, padding: usize) -> Vec<(String, Fault)> {
    let keys = node.publisher.keys();
    let mut root = serde_json::to_value(&keys.root().signed).unwrap();
    root["padding"] = "x".repeat(padding).into();
    let one = |version: u64| {
        root["version"] = version.into();
        (format!("metadata/{version}.root.json"), signed::<Root>(node, root.clone()))
    };
    (2..=last).map(one).collect()
}

#[test]
fn roots_without_end() {
    let node = Node::new(&["1.0.0"]);
    let chain = chain(&node, 20, 240 << 10);
    let faults = chain.iter().map(|(path, fault)| match fault {
        Fault::Bytes(bytes) => (path.as_str(), Fault::Bytes(bytes.clone())),
        _ => unreachable!("a chain has bytes"),
    });
    let told = node.look_at(faults.collect());
    assert!(
        told.contains(".root.json cannot be understood: all roots up to it have more than 4.0 MiB together"),
        "{told}"
    );
    // What was verified counts: the next look goes on behind it.
    assert!(node.publisher.datastore().join("15.root.json").exists());
}

#[test]
fn numbers_at_their_end() {
    let node = Node::new(&["1.0.0"]);
    let keys = node.publisher.keys();
    let mut root = serde_json::to_value(&keys.root().signed).unwrap();
    root["version"] = (u64::MAX - 1).into();
    let Fault::Bytes(shipped) = signed::<Root>(&node, root) else { unreachable!("it is bytes") };
    let folder = Folder::new(node.publisher.repository());
    let told = node.publisher.look(&shipped, &folder, 0).unwrap_err();
    assert_eq!(
        told,
        "the root of trust cannot be used: its version 18446744073709551614 leaves none for the roots after it"
    );
    // A node takes the last version that there can be; its publisher has none for the next.
    let path = node.publisher.repository().join("metadata/timestamp.json");
    let mut timestamp: Signed<Timestamp> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    timestamp.signed.version = NonZeroU64::MAX;
    let signers = keys.signers(&keys.root().signed, RoleType::Timestamp).unwrap();
    fs::write(&path, metadata::bytes(&sign(timestamp.signed, signers))).unwrap();
    assert_eq!(node.look(0).unwrap(), ["1.0.0"]);
    let told = Chain(&node.publisher.refresh(0).unwrap_err()).to_string();
    assert!(
        told.contains("metadata/timestamp.json") && told.contains("version 18446744073709551615 is the last"),
        "{told}"
    );
    // Times that are none.
    for expires in ["+10000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "-9999-01-01T00:00:00Z", "soon"] {
        let text =
            String::from_utf8(fs::read(&path).unwrap()).unwrap().replace("2026-06-15T00:00:00Z", expires);
        let told = node.look_at(vec![("timestamp.json", Fault::Bytes(text.into_bytes()))]);
        assert!(told.starts_with("metadata/timestamp.json "), "{told}");
    }
}

/// Signatures by the thousand, of which one is good.
#[test]
fn signatures_without_end() {
    let node = Node::new(&["1.0.0"]);
    let path = node.publisher.repository().join("metadata/timestamp.json");
    let mut timestamp: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let good = timestamp["signatures"][0].clone();
    let bad = |number: usize| json!({ "keyid": format!("{number:064x}"), "sig": good["sig"] });
    let signatures: Vec<Value> = (0..900).map(bad).chain([good.clone()]).collect();
    timestamp["signatures"] = signatures.into();
    fs::write(&path, timestamp.to_string()).unwrap();
    assert_eq!(node.look(0).unwrap(), ["1.0.0"]);
}
