//! What is known of a machine, and which of several documents is its own.

use super::Document;

/// What is known of a machine before its drivers are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Serial number.
    pub serial: Option<String>,
    /// UUID in lower case.
    pub uuid: Option<String>,
}

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

    fn fits(&self, document: &Document) -> bool {
        let wanted = &document.matches;
        let same = |wanted: &Option<String>, found: &Option<String>| {
            wanted.is_none() || (found.is_some() && wanted == found)
        };
        same(&wanted.serial, &self.serial) && same(&wanted.uuid, &self.uuid)
    }

    /// How it is known, for messages.
    pub fn shown(&self) -> String {
        let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
        format!("serial {}, UUID {}", or(&self.serial), or(&self.uuid))
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
            match (Machine { serial: known(serial), uuid: known(uuid) }).choose(&documents) {
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
}
