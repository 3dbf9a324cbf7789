//! Documents from several places → one, as components of a manifest are merged: maps merge, lists add up, and a value that
//! two of them have must be the same.

use super::policy::SIGN;
use super::{Document, LARGEST, Machine, Policy, parse, validate};
use crate::written::Diagnostics;
use crate::written::decode::decode;
use crate::written::diagnostic::Report;
use crate::written::place::{Mark, Sources};
use crate::written::yaml::{Node, Value};

/// Makes one document of those that `files`, bytes with the name that people know them by, have for `machine`. Each has
/// one, which [`Machine::choose`] has found, and which counts by `policy`.
///
/// # Errors
/// Where two of them disagree, with both places, and what makes no sense in the whole.
pub fn merge(
    files: &[(String, Vec<u8>)],
    machine: &Machine,
    policy: &Policy,
) -> Result<Document, Diagnostics> {
    let mut sources = Sources::default();
    let mut report = Report::default();
    let mut merged: Option<Node> = None;
    for (name, bytes) in files {
        let found = parse(name, bytes, &mut sources, &mut report).unwrap_or_default();
        let (mut nodes, documents): (Vec<Node>, Vec<Document>) = found.into_iter().unzip();
        let Some(index) = machine.choose_index(&documents) else {
            // What was wrong with it has been told.
            if !documents.is_empty() {
                let what = format!("not exactly one document of {name} is for this machine");
                report.error(nodes[0].mark, what).help("let `match` tell them apart");
            }
            continue;
        };
        let node = nodes.swap_remove(index);
        // More may be known of the machine than when each was judged alone.
        if let Err(why) = policy.check(&documents[index]) {
            report.error(node.mark, why).help(SIGN);
        }
        match &mut merged {
            None => merged = Some(node),
            Some(merged) => take(merged, node, "", &mut report),
        }
    }
    let whole = merged.filter(|_| report.is_empty()).and_then(|node| {
        let text = format!("{}\n", json(&node));
        if text.len() as u64 > LARGEST {
            let what =
                format!("together the documents are larger than the {LARGEST} bytes that one can have");
            report.error(node.mark, what).help("large files belong into an image");
            return None;
        }
        match decode(&node) {
            Ok(raw) => Some(validate::document(raw, text, &mut report)),
            Err(fault) => {
                report.error(fault.mark.unwrap_or(node.mark), fault.message);
                None
            }
        }
    });
    match whole {
        Some(document) if report.is_empty() => Ok(document),
        _ => {
            if report.is_empty() {
                report.error(Mark::top(0), "no document here is for this machine");
            }
            Err(report.finish(&sources))
        }
    }
}

impl Document {
    /// Whether an installed node that has this document misses nothing of `whole`: neither for whom one is nor what an installer
    /// does concerns it.
    pub fn says_all_of(&self, whole: &Self) -> bool {
        let of_a_node = |document: &Self| Self {
            matches: super::Match::default(),
            install: None,
            text: String::new(),
            ..document.clone()
        };
        of_a_node(self) == of_a_node(whole)
    }
}

/// Takes `new` into `old`, which is at `path`.
fn take(old: &mut Node, new: Node, path: &str, report: &mut Report) {
    match (&mut old.value, new.value) {
        (Value::Map(entries), Value::Map(more)) => {
            for entry in more {
                let inner = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                match entries.iter_mut().find(|known| known.key == entry.key) {
                    Some(known) => take(&mut known.value, entry.value, &inner, report),
                    None => entries.push(entry),
                }
            }
        }
        (Value::List(items), Value::List(more)) => {
            for item in more {
                if !items.iter().any(|known| known.same(&item)) {
                    items.push(item);
                }
            }
        }
        (_, value) => {
            let new = Node { value, ..new };
            if !old.same(&new) {
                report
                    .error(new.mark, format!("two documents disagree on `{path}`"))
                    .help("let one of them say it, or both the same")
                    .related(old.mark, "the other says it here");
            }
        }
    }
}

/// The tree as JSON, which is YAML; here a value has no type but text.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Scalar { text, .. } => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            serde_json::Value::Object(entries.iter().map(|e| (e.key.clone(), json(&e.value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::read;

    fn merged(texts: &[&str]) -> Result<Document, String> {
        let name = |index: usize| ["the first", "the second"][index].to_owned();
        let files: Vec<_> =
            texts.iter().enumerate().map(|(index, text)| (name(index), text.as_bytes().to_vec())).collect();
        let machine = Machine { serial: Some("S1".to_owned()), ..Machine::default() };
        merge(&files, &machine, &Policy::default()).map_err(|wrong| wrong.brief().join("\n"))
    }

    #[test]
    fn what_two_say_adds_up() {
        let first = "node: 1\nname: other\n---\nnode: 1\nname: one\nmatch: {serial: S1}\nenable: [a.service]\n\
                     network: {interfaces: [{name: left, card: {name: ens1}, mtu: 1500}]}\nlabels: {rack: '07'}\n";
        let second = "node: 1\nname: one\nenable: [b.service, a.service]\ncredentials: {key: \"Hush: \\\"\\n\"}\n\
                      files: [{path: /etc/a, content: \"# x\\n\", mode: 0640}]\n";
        let document = merged(&[first, second]).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(document.name.as_deref(), Some("one"));
        assert_eq!(document.enable, ["a.service", "b.service"]);
        assert_eq!(document.credentials["key"].0, b"Hush: \"\n");
        // What is kept of it says the same.
        let again = read("the copy", document.text.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(Document { text: document.text.clone(), ..again[0].clone() }, document);
    }

    #[test]
    fn a_part_may_say_all() {
        let all = "node: 1\nname: one\nenable: [a.service]\n";
        let part = |text: &str| read("x", text.as_bytes()).unwrap()[0].clone();
        for (other, says_all) in [
            ("node: 1\n", true),
            ("node: 1\nmatch: {serial: S1}\ninstall: {disk: serial=D1}\n", true),
            ("node: 1\nname: one\nenable: [a.service]\n", true),
            ("node: 1\nenable: [b.service]\n", false),
            ("node: 1\nlabels: {a: b}\n", false),
        ] {
            let whole = merged(&[all, other]).unwrap_or_else(|wrong| panic!("{wrong}"));
            assert_eq!(part(all).says_all_of(&whole), says_all, "{other}");
        }
    }

    #[test]
    fn who_disagrees_is_named_with_both_places() {
        let told = merged(&["node: 1\nname: one\n", "node: 1\nlabels: {a: b}\nname: two\n"]).unwrap_err();
        assert!(told.contains("the second:3:7: two documents disagree on `name`"), "{told}");
        assert!(told.contains("the first:2:7: the other says it here"), "{told}");
        // No secret is told, and what makes no sense together neither passes.
        let key = |value: &str| format!("node: 1\ncredentials: {{key: {value}}}\n");
        let told = merged(&[&key("Hush1"), &key("Hush2")]).unwrap_err();
        assert!(told.contains("`credentials.key`") && !told.contains("Hush"), "{told}");
        let told = merged(&["node: 1\nenable: [a.service]\n", "node: 1\nmask: [a.service]\n"]).unwrap_err();
        assert!(told.contains("`a.service` is enabled and masked"), "{told}");
        let card = |mac: &str| {
            format!(
                "node: 1\nnetwork: {{interfaces: [{{name: left, card: {{mac: \"52:54:00:00:00:{mac}\"}}}}]}}\n"
            )
        };
        assert!(merged(&[&card("01"), &card("01")]).is_ok());
        let told = merged(&[&card("01"), &card("02")]).unwrap_err();
        assert!(told.contains("the interface `left` stands here a second time"), "{told}");
    }
}
