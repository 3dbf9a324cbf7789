//! Where a manifest says what: names can be looked for only in the finished tree, and whoever reads that one
//! is missing wants to know which line to change.

use std::collections::BTreeMap;

use crate::written::Place;

/// Places of names, by the field that has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said(BTreeMap<(String, String), Vec<(Place, bool)>>);

impl Said {
    /// Notes that `field` says `name` at `place`; `carried` when that file lies inside keller.
    pub(super) fn note(&mut self, field: &str, name: &str, place: Place, carried: bool) {
        self.0.entry((field.to_owned(), name.to_owned())).or_default().push((place, carried));
    }

    /// The place to change: in a file of the user's own where there is one.
    pub fn place(&self, field: &str, name: &str) -> Option<&Place> {
        let places = self.0.get(&(field.to_owned(), name.to_owned()))?;
        places.iter().find(|(_, carried)| !carried).or(places.first()).map(|(place, _)| place)
    }

    /// Whether only components that keller carries say so. They fit many nodes: an entry of theirs that finds
    /// nothing is nobody's mistake.
    pub fn is_carried(&self, field: &str, name: &str) -> bool {
        let places = self.0.get(&(field.to_owned(), name.to_owned()));
        places.is_some_and(|places| places.iter().all(|(_, carried)| *carried))
    }

    /// `FIELD names NAME`, with the place before it where it is known.
    pub fn names(&self, field: &str, name: &str) -> String {
        self.at(field, name, &format!("{field} names {name}"))
    }

    /// `text` with the place of `name` in `field` before it.
    pub fn at(&self, field: &str, name: &str, text: &str) -> String {
        match self.place(field, name) {
            Some(place) => format!("{place}: {text}"),
            None => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_line_comes_first() {
        let place = |file: &str, line| Place { file: file.into(), line, column: 3 };
        let mut said = Said::default();
        said.note("setuid", "/usr/bin/su", place("keller:base.yaml", 9), true);
        assert!(said.is_carried("setuid", "/usr/bin/su"));
        said.note("setuid", "/usr/bin/su", place("node.yaml", 2), false);
        assert!(!said.is_carried("setuid", "/usr/bin/su") && !said.is_carried("setuid", "/other"));
        assert_eq!(said.names("setuid", "/usr/bin/su"), "node.yaml:2:3: setuid names /usr/bin/su");
        assert_eq!(said.names("setuid", "/x"), "setuid names /x");
    }
}
