//! Whether a node document is for a machine of a lab.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::input;
use crate::node::{self, Choice, Document, InterfaceKind};
use crate::written::form::{Wrong, wrong};

/// The address of each machine's first card, as QEMU counts them.
const FIRST_CARD: &str = "52:54:00:12:34:56";

/// A machine as its document sees it.
pub(super) struct Known<'a> {
    /// Its name, which is also its serial number.
    pub(super) name: &'a str,
    /// The addresses of all machines' cards on the lab's Ethernet, by name.
    pub(super) cards: &'a BTreeMap<String, String>,
}

impl Known<'_> {
    fn mac(&self) -> &str {
        &self.cards[self.name]
    }
}

/// Checks that the document in `file` is for the machine; gives what is probably not meant.
pub(super) fn check(file: &Path, known: &Known<'_>) -> Result<Option<String>, Wrong> {
    let bytes = match input::read(file, node::LARGEST + 1) {
        Ok(bytes) => bytes,
        Err(error) => {
            return wrong(format!("cannot be read: {error}"), "name a node document (docs/node.md)");
        }
    };
    let shown = file.display();
    let documents = match node::read(&file.to_string_lossy(), &bytes) {
        Ok(documents) => documents,
        Err(wrongs) => {
            let first = wrongs.brief().into_iter().next().unwrap_or_default();
            let what = format!("is not a good node document: {first}");
            return wrong(what, format!("keller node check {shown} tells all that is wrong with it"));
        }
    };
    let macs = [known.mac(), FIRST_CARD].map(str::to_owned).into();
    let machine = node::Machine { serial: Some(known.name.to_owned()), uuid: None, macs };
    match machine.choose(&documents) {
        Choice::One(document) => fits(document, known),
        Choice::None => wrong(
            format!("has no document for the machine `{}`: each is for another", known.name),
            format!("`match: {{serial: {}}}`, or a document without a `match`", known.name),
        ),
        Choice::Many(count) => wrong(
            format!("has {count} documents for the machine `{}`", known.name),
            "let `match` tell them apart",
        ),
    }
}

fn fits(document: &Document, known: &Known<'_>) -> Result<Option<String>, Wrong> {
    if let Some(name) = &document.name
        && name.split('.').next() != Some(known.name)
    {
        return wrong(
            format!("makes a node `{name}` of the machine `{}`", known.name),
            "give the machine the document's name, or the document another name",
        );
    }
    let macs: Vec<String> = document.interfaces.iter().filter_map(|one| mac(&one.kind)).collect();
    let others = || known.cards.iter().filter(|(name, _)| *name != known.name);
    if let Some((name, mac)) = others().find(|(_, mac)| macs.contains(mac)) {
        return wrong(
            format!("is for the card {mac}, which is that of the machine `{name}`"),
            format!("the card of `{}` is {}", known.name, known.mac()),
        );
    }
    let is_open = document
        .interfaces
        .iter()
        .any(|one| matches!(one.kind, InterfaceKind::Named(_) | InterfaceKind::Path(_)));
    Ok((!is_open && !macs.iter().any(|mac| mac == known.mac())).then(|| {
        format!(
            "{}: its document sets up no card on the lab's Ethernet: that one is `card: {{mac: \"{}\"}}`",
            known.name,
            known.mac()
        )
    }))
}

fn mac(kind: &InterfaceKind) -> Option<String> {
    match kind {
        InterfaceKind::Mac(mac) => Some(mac.to_lowercase()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_for_the_machine_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("n.yaml");
        let cards = [("a", "52:54:00:00:00:0a"), ("b", "52:54:00:00:00:0b")];
        let cards = cards.map(|(name, mac)| (name.to_owned(), mac.to_owned())).into();
        let known = Known { name: "a", cards: &cards };
        let check = |text: &str| {
            std::fs::write(&file, text).unwrap();
            check(&file, &known).map_err(|wrong| format!("{} — {}", wrong.what, wrong.help))
        };
        let card = |mac: &str| {
            format!(
                "network: {{interfaces: [{{name: lab, card: {{mac: \"{mac}\"}}, addresses: [10.1.0.1/24]}}]}}\n"
            )
        };
        let good = format!("node: 1\nname: a.example.org\n{}", card("52:54:00:00:00:0A"));
        assert_eq!(check(&good), Ok(None));
        let said = check("node: 1\nname: a\n").unwrap().unwrap();
        assert!(
            said.contains("no card on the lab's Ethernet") && said.contains("52:54:00:00:00:0a"),
            "{said}"
        );
        let any = "network: {interfaces: [{name: lab, card: {name: \"en*\"}, dhcp: ipv4}]}\n";
        assert_eq!(check(&format!("node: 1\n{any}")), Ok(None));
        for (text, expected) in [
            ("node: 1\nname: b\n".to_owned(), "makes a node `b` of the machine `a`"),
            ("node: 1\nmatch: {serial: z}\n".to_owned(), "no document for the machine `a`"),
            ("node: 1\nnmae: a\n".to_owned(), "is not a good node document"),
            (format!("node: 1\n{}", card("52:54:00:00:00:0b")), "which is that of the machine `b`"),
        ] {
            let said = check(&text).unwrap_err();
            assert!(said.contains(expected), "{said}");
        }
        // Of several, the one for this machine counts.
        let both = format!("node: 1\nname: b\nmatch: {{serial: b}}\n---\n{good}match: {{serial: a}}\n");
        assert_eq!(check(&both), Ok(None));
    }
}
