//! A document that a machine was given, or that the node has kept, and which one counts.

use crate::node::{self, Choice, Document, Machine};

/// Bytes of a document, and where they came from, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub source: String,
    pub bytes: Vec<u8>,
}

/// Which document this boot goes by.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// With where it came from.
    pub document: Option<(Document, String)>,
    /// Whether it is to take the place of the copy.
    pub is_new: bool,
    /// What was refused, and why.
    pub refused: Vec<String>,
}

/// Chooses between what the machine gives now and the copy that was kept. What cannot be understood is as if it were
/// not there, but for what is said of it.
pub(super) fn decide(given: Vec<Result<Given, String>>, kept: Option<Given>, machine: &Machine) -> Decided {
    let mut refused = Vec::new();
    let new = one(given, &mut refused).and_then(|given| understood(&given, machine, &mut refused));
    if let Some(document) = new {
        let is_new = kept.is_none_or(|kept| kept.bytes != document.0.text.as_bytes());
        return Decided { document: Some(document), is_new, refused };
    }
    let document = kept.and_then(|kept| understood(&kept, machine, &mut refused));
    Decided { document, is_new: false, refused }
}

/// The one that all sources agree on.
fn one(given: Vec<Result<Given, String>>, refused: &mut Vec<String>) -> Option<Given> {
    let mut found: Vec<Given> = Vec::new();
    for given in given {
        match given {
            Ok(given) => found.push(given),
            Err(why) => refused.push(why),
        }
    }
    let first = found.first()?.clone();
    match found.iter().find(|other| other.bytes != first.bytes) {
        None => Some(first),
        Some(other) => {
            refused.push(format!("{} and {} say different things", first.source, other.source));
            None
        }
    }
}

fn understood(given: &Given, machine: &Machine, refused: &mut Vec<String>) -> Option<(Document, String)> {
    let documents = match node::read(&given.source, &given.bytes) {
        Ok(documents) => documents,
        Err(diagnostics) => {
            refused.extend(diagnostics.brief());
            return None;
        }
    };
    match machine.choose(&documents) {
        Choice::One(document) => Some((document.clone(), given.source.clone())),
        Choice::None => {
            refused.push(format!("{}: it is for another machine; this is {}", given.source, machine.shown()));
            None
        }
        Choice::Many(count) => {
            let many = format!("{}: {count} of its documents are for this machine", given.source);
            refused.push(format!("{many}, {}", machine.shown()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(source: &str, text: &str) -> Given {
        Given { source: source.to_owned(), bytes: text.as_bytes().to_vec() }
    }

    /// The name in the document that counts, whether it is new, and what was refused.
    fn told(given: &[Given], kept: Option<&str>) -> (Option<String>, bool, String) {
        let machine = Machine { serial: Some("S1".to_owned()), uuid: None };
        let given = given.iter().cloned().map(Ok).collect();
        let decided = decide(given, kept.map(|text| self::given("the copy", text)), &machine);
        let name = decided.document.and_then(|(document, _)| document.name);
        (name, decided.is_new, decided.refused.join("\n"))
    }

    #[test]
    fn a_new_document_counts_once_it_is_understood() {
        let (new, old) = ("node: 1\nname: new\n", "node: 1\nname: old\n");
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(told(&[], None), (None, false, String::new()));
        assert_eq!(told(&[], Some(old)), (name("old"), false, String::new()));
        assert_eq!(told(&[given("a", new)], Some(old)), (name("new"), true, String::new()));
        assert_eq!(told(&[given("a", new)], Some(new)), (name("new"), false, String::new()));
        assert_eq!(told(&[given("a", new), given("b", new)], None), (name("new"), true, String::new()));
        let differ = "a and b say different things".to_owned();
        assert_eq!(told(&[given("a", new), given("b", old)], Some(old)), (name("old"), false, differ));
    }

    #[test]
    fn what_is_refused_leaves_the_node_as_it_was() {
        let old = "node: 1\nname: old\n";
        for (text, said) in [
            ("node: 2\nanything: 3\n", "a:1:7: this keller reads documents of form 1, not 2"),
            ("name: x\n", "a:1:1: the document has no `node`"),
            ("node: 1\nnam: x\n", "a:2:1: unknown field `nam`"),
            (
                "node: 1\nmatch: {serial: S2}\n",
                "a: it is for another machine; this is serial S1, UUID unknown",
            ),
            ("", "a:1:1: there is no document here"),
            ("node: [", "this is not YAML"),
        ] {
            for (kept, name) in [(Some(old), Some("old".to_owned())), (None, None)] {
                let (found, is_new, refused) = told(&[given("a", text)], kept);
                assert_eq!((found, is_new), (name, false), "{text}");
                assert!(refused.contains(said), "{text}: {refused}");
            }
        }
    }

    #[test]
    fn no_secret_is_told() {
        let secret = "Hush0123456789";
        for text in [
            format!("node: 1\ncredentials: {{a: {secret}, a: {secret}}}\n"),
            format!("node: 1\ncredentials: {{a: {{base64: {secret}}}}}\n"),
            format!("node: 1\ncredentials: {{a b: {secret}}}\n"),
            format!("node: 1\ncredential: {{a: {secret}}}\n"),
            format!("node: 1\nusers: [{{name: core, password_hash: {secret}}}]\n"),
            format!("node: 1\ncredentials: [{secret}]\n"),
            format!("node: 1\ncredentials:\n  a: {secret}\n b: [{secret}\n"),
        ] {
            let refused = told(&[given("a", &text)], None).2;
            assert!(!refused.is_empty() && !refused.contains(secret), "{text}: {refused}");
            let shown = node::read("x", text.as_bytes()).unwrap_err().to_string();
            assert!(!shown.contains(secret), "{text}: {shown}");
        }
    }
}
