//! A document that a machine was given, or that the node has kept, and which one counts.

use crate::node::{self, Choice, Document, Machine, Policy, policy};
use crate::written::Diagnostics;

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
    /// Whether the machine gave it; else it is the copy.
    pub is_given: bool,
    /// Whether it is to take the place of the copy.
    pub is_new: bool,
    /// What was refused, and why.
    pub refused: Vec<String>,
}

/// Chooses between what the machine gives now and the copy that was kept. All that is given is merged; where a part of it
/// cannot be understood, or does not count by `policy`, all of it is as if it were not there, but for what is said of it. The
/// copy was judged when it was taken, and may be what several said together, which nobody has signed. `cards` gives what is
/// known of the machine once it has cards.
pub(super) fn decide(
    given: Vec<Result<Given, String>>,
    kept: Option<Given>,
    policy: &Policy,
    mut machine: Machine,
    cards: &dyn Fn(&[Document]) -> Machine,
) -> Decided {
    let mut refused = Vec::new();
    let new = whole(given, policy, &mut machine, cards, &mut refused);
    if let Some(document) = new {
        let is_new = kept.is_none_or(|kept| kept.bytes != document.0.text.as_bytes());
        return Decided { document: Some(document), is_given: true, is_new, refused };
    }
    let document = kept.and_then(|kept| {
        let documents = node::read_kept(&kept.source, &kept.bytes);
        understood(&kept, documents, &mut machine, cards, &mut refused)
    });
    Decided { document, is_given: false, is_new: false, refused }
}

/// What all sources say together.
fn whole(
    given: Vec<Result<Given, String>>,
    policy: &Policy,
    machine: &mut Machine,
    cards: &dyn Fn(&[Document]) -> Machine,
    refused: &mut Vec<String>,
) -> Option<(Document, String)> {
    let mut found: Vec<Given> = Vec::new();
    for given in given {
        match given {
            Ok(given) if found.iter().any(|other| other.bytes == given.bytes) => {}
            Ok(given) => found.push(given),
            Err(why) => refused.push(why),
        }
    }
    let all: Vec<_> = found
        .iter()
        .map(|given| {
            let documents = node::read(&given.source, &given.bytes);
            let found = understood(given, documents, machine, cards, refused)?;
            if let Err(why) = policy.check(&found.0) {
                refused.push(format!("{}: {why}; {}", given.source, policy::SIGN));
                return None;
            }
            Some(found)
        })
        .collect();
    if !refused.is_empty() || all.is_empty() {
        return None;
    }
    if let [one] = all.as_slice() {
        return one.clone();
    }
    let files: Vec<_> = found.into_iter().map(|given| (given.source, given.bytes)).collect();
    let sources: Vec<&str> = files.iter().map(|(source, _)| source.as_str()).collect();
    match node::merge(&files, machine, policy) {
        Ok(document) => Some((document, sources.join(" and "))),
        Err(diagnostics) => {
            refused.push(format!("{} say different things", sources.join(" and ")));
            refused.extend(diagnostics.brief());
            None
        }
    }
}

fn understood(
    given: &Given,
    documents: Result<Vec<Document>, Diagnostics>,
    machine: &mut Machine,
    cards: &dyn Fn(&[Document]) -> Machine,
    refused: &mut Vec<String>,
) -> Option<(Document, String)> {
    let documents = match documents {
        Ok(documents) => documents,
        Err(diagnostics) => {
            refused.extend(diagnostics.brief());
            return None;
        }
    };
    if machine.lacks_card(&documents) {
        *machine = cards(&documents);
    }
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
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::node::signature::{self, PublicKey};

    fn given(source: &str, text: &str) -> Given {
        Given { source: source.to_owned(), bytes: text.as_bytes().to_vec() }
    }

    /// The name in the document that counts, whether it is new, and what was refused.
    fn told(given: &[Given], kept: Option<&str>) -> (Option<String>, bool, String) {
        let machine = Machine { serial: Some("S1".to_owned()), ..Machine::default() };
        let with_card = Machine { macs: ["52:54:00:00:00:01".to_owned()].into(), ..machine.clone() };
        let given = given.iter().cloned().map(Ok).collect();
        let kept = kept.map(|text| self::given("the copy", text));
        let decided = decide(given, kept, &Policy::default(), machine, &|_| with_card.clone());
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
        let by_card = "node: 1\nname: any\n---\nnode: 1\nname: card\nmatch: {mac: \"52:54:00:00:00:01\"}\n";
        assert_eq!(told(&[given("a", by_card)], Some(old)), (name("card"), true, String::new()));
        let (found, _, differ) = told(&[given("a", new), given("b", old)], Some(old));
        assert_eq!(found, name("old"));
        for part in ["a and b say different things", "b:2:7: two documents disagree on `name`", "  a:2:7: "] {
            assert!(differ.contains(part), "{differ}");
        }
        // One adds to the other; and where one cannot be understood, the other is half of a document.
        let label = "node: 1\nlabels: {a: b}\n";
        let both = told(&[given("a", new), given("b", label)], Some(new));
        assert_eq!(both, (name("new"), true, String::new()));
        let half = told(&[given("a", new), given("b", "node: 2\n")], None);
        assert_eq!((half.0, half.1), (None, false));
    }

    /// A node that has had its network from it would be out of reach after an update.
    #[test]
    fn what_was_kept_before_there_was_a_rule_goes_on_to_count() {
        let old = "node: 1\nname: old\nnetwork:\n  interfaces:\n    - name: lan\n      card: {mac: \"52:54:00:00:00:01\"}\n      \
                   addresses: [10.0.0.255/24]\n      gateways: [10.0.0.1]\n      dns: [0.0.0.0]\n      ntp: [0.0.0.0]\n";
        assert_eq!(told(&[], Some(old)), (Some("old".to_owned()), false, String::new()));
        let (found, _, refused) = told(&[given("a", old)], None);
        assert!(found.is_none() && refused.contains("stands for all machines of its network"), "{refused}");
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
                "a: it is for another machine; this is serial S1, UUID unknown, cards none that is known",
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
    fn where_keys_are_named_only_what_they_have_signed_counts() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = PublicKey::new(pair.public_key().as_ref()).unwrap();
        let policy = Policy { sources: None, keys: vec![key] };
        let signed = |text: &str| text.to_owned() + &signature::line(pair.sign(text.as_bytes()).as_ref());
        let decided = |given: &[(&str, String)], kept: Option<&str>| {
            let given = given.iter().map(|(source, text)| Ok(self::given(source, text))).collect();
            let kept = kept.map(|text| self::given("the copy", text));
            let decided = decide(given, kept, &policy, Machine::default(), &|_| Machine::default());
            (decided.document.and_then(|(document, _)| document.name), decided.refused.join("\n"))
        };
        let (new, label) = ("node: 1\nname: new\n", "node: 1\nlabels: {a: b}\n");
        let old = Some("node: 1\nname: old\n");
        assert_eq!(decided(&[("a", signed(new))], old), (Some("new".to_owned()), String::new()));
        for (text, said) in [
            (
                new.to_owned(),
                "a: it is not signed; this image takes only documents that are signed with one of its keys",
            ),
            (signed(new).replace("new", "own"), "a: it was changed after it was signed"),
        ] {
            let (name, refused) = decided(&[("a", text.clone())], old);
            assert!(name.as_deref() == Some("old") && refused.contains(said), "{refused}");
            // One that is signed does not make up for it.
            let (name, refused) = decided(&[("b", signed(label)), ("a", text)], None);
            assert!(name.is_none() && refused.contains(said), "{refused}");
        }
        let both = decided(&[("a", signed(new)), ("b", signed(label))], old);
        assert_eq!(both, (Some("new".to_owned()), String::new()));
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
