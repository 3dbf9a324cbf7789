//! What is known of a machine, and which of several documents is its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Document;

/// What is known of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Serial number.
    pub serial: Option<String>,
    /// UUID in lower case.
    pub uuid: Option<String>,
    /// Addresses of its cards, in lower case; without their drivers none is known.
    pub macs: BTreeSet<String>,
}

/// Firmware's tables, for which the kernel needs no module.
const FIRMWARE: &str = "class/dmi/id";
/// Cards, and what is made of them.
const INTERFACES: &str = "class/net";

/// Which document is a machine's.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// This one.
    One(&'a Document),
    /// All are for others.
    None,
    /// More than one fits; so many.
    Many(usize),
}

impl Machine {
    /// The machine whose kernel shows itself at `sys`, which is /sys.
    pub fn of(sys: &Path) -> Self {
        let read = |path: &Path| {
            let text = fs::read_to_string(path).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let firmware = |name: &str| read(&sys.join(FIRMWARE).join(name));
        let mut macs = BTreeSet::new();
        for entry in fs::read_dir(sys.join(INTERFACES)).into_iter().flatten().flatten() {
            let card = entry.path();
            // What is no device is made of others, and has an address of theirs.
            if !card.join("device").exists() {
                continue;
            }
            // A bond gives its cards one address; each keeps its own here.
            let own = read(&card.join("bonding_slave/perm_hwaddr")).or_else(|| read(&card.join("address")));
            macs.extend(own.map(|mac| mac.to_lowercase()));
        }
        let uuid = firmware("product_uuid").map(|uuid| uuid.to_lowercase());
        Self { serial: firmware("product_serial"), uuid, macs }
    }

    /// Whether none of `documents` has a `match` that fits, and one would if a card of its address were known.
    pub fn lacks_card(&self, documents: &[Document]) -> bool {
        if documents.iter().any(|document| document.has_match() && self.fits(document)) {
            return false;
        }
        documents.iter().any(|document| {
            let wanted = document.matches.mac.as_ref().is_some_and(|mac| !self.macs.contains(mac));
            let known = Self { macs: document.matches.mac.iter().cloned().collect(), ..self.clone() };
            wanted && known.fits(document)
        })
    }

    /// The document whose `match` fits; else the one without a `match`.
    pub fn choose<'a>(&self, documents: &'a [Document]) -> Choice<'a> {
        let fitting: Vec<&Document> =
            documents.iter().filter(|document| document.has_match() && self.fits(document)).collect();
        match fitting[..] {
            [one] => Choice::One(one),
            [] => match documents.iter().find(|document| !document.has_match()) {
                Some(any) => Choice::One(any),
                None => Choice::None,
            },
            _ => Choice::Many(fitting.len()),
        }
    }

    /// The place among `documents` of the one that is chosen.
    pub(super) fn choose_index(&self, documents: &[Document]) -> Option<usize> {
        match self.choose(documents) {
            Choice::One(one) => documents.iter().position(|document| std::ptr::eq(document, one)),
            Choice::None | Choice::Many(_) => None,
        }
    }

    fn fits(&self, document: &Document) -> bool {
        let wanted = &document.matches;
        let same = |wanted: &Option<String>, found: &Option<String>| {
            wanted.is_none() || (found.is_some() && wanted == found)
        };
        same(&wanted.serial, &self.serial)
            && same(&wanted.uuid, &self.uuid)
            && wanted.mac.as_ref().is_none_or(|mac| self.macs.contains(mac))
    }

    /// How it is known, for messages.
    pub fn shown(&self) -> String {
        let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
        let macs: Vec<&str> = self.macs.iter().map(String::as_str).collect();
        let cards = if macs.is_empty() { "none that is known".to_owned() } else { macs.join(" ") };
        format!("serial {}, UUID {}, cards {cards}", or(&self.serial), or(&self.uuid))
    }
}

impl Document {
    /// Whether it is for certain machines only.
    pub fn has_match(&self) -> bool {
        self.matches != super::Match::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::read;

    #[test]
    fn a_match_comes_before_none() {
        let text = "node: 1\nname: any\n---\nnode: 1\nname: one\nmatch: {serial: S1}\n---\nnode: 1\nname: two\n\
                    match: {uuid: 9D9CBA0E-AAAA-4BBB-8CCC-0123456789AB}\n";
        let documents = read("x", text.as_bytes()).unwrap();
        let name = |serial: &str, uuid: &str| {
            let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            match (Machine { serial: known(serial), uuid: known(uuid), ..Machine::default() })
                .choose(&documents)
            {
                Choice::One(document) => document.name.clone().unwrap(),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(name("S1", ""), "one");
        assert_eq!(name("S2", "9d9cba0e-aaaa-4bbb-8ccc-0123456789ab"), "two");
        assert_eq!(name("", ""), "any");
        assert_eq!(name("S1", "9d9cba0e-aaaa-4bbb-8ccc-0123456789ab"), "Many(2)");
        assert_eq!(Machine::default().choose(&documents[1..]), Choice::None);
        // Each keeps its own text only.
        assert_eq!(documents[1].text, "---\nnode: 1\nname: one\nmatch: {serial: S1}\n");
    }

    #[test]
    fn any_card_of_the_machine_will_do() {
        let sys = tempfile::tempdir().unwrap();
        let card = |name: &str, files: &[(&str, &str)]| {
            for (file, text) in files {
                let path = sys.path().join("class/net").join(name).join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        };
        card("lo", &[("address", "00:00:00:00:00:00\n")]);
        card("ens1", &[("address", "52:54:00:00:00:01\n"), ("device/vendor", "x")]);
        let first = Machine::of(sys.path());
        let text = "node: 1\nname: any\n---\nnode: 1\nname: one\nmatch: {mac: 52-54-00-00-00-0A}\n";
        let documents = read("x", text.as_bytes()).unwrap();
        let name = |machine: &Machine| match machine.choose(&documents) {
            Choice::One(document) => document.name.clone(),
            _ => None,
        };
        assert_eq!(first.macs.iter().collect::<Vec<_>>(), ["52:54:00:00:00:01"]);
        assert_eq!((name(&first).as_deref(), first.lacks_card(&documents)), (Some("any"), true));
        // A card that appears late, and that a bond has given another address.
        let late = [("address", "52:54:00:00:00:01\n"), ("bonding_slave/perm_hwaddr", "52:54:00:00:00:0A\n")];
        card("ens2", &[&late[..], &[("device/vendor", "x")]].concat());
        let second = Machine::of(sys.path());
        assert_eq!((name(&second).as_deref(), second.lacks_card(&documents)), (Some("one"), false));
        // Of a document for another serial number no card is waited for.
        let other = read("x", b"node: 1\nmatch: {serial: S9, mac: 52:54:00:00:00:99}\n").unwrap();
        assert!(!second.lacks_card(&other));
    }
}
