//! The `control` file of a package: deb-control(5).

use std::cmp::Ordering;
use std::str::FromStr;

use deb822_fast::Paragraph;

use crate::source::debian::version::compare;

/// Fields of one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    fields: Paragraph,
    text: String,
}

/// What is wrong with a control file.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No paragraph of fields.
    #[error("{what}")]
    Syntax {
        /// What the parser said.
        what: String,
    },
    /// A field that every package has.
    #[error("field {field} is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A relation to a package that cannot be read.
    #[error("field {field} has the relation {relation:?}, which cannot be read")]
    Relation {
        /// Its name.
        field: &'static str,
        /// The relation as written.
        relation: String,
    },
}

impl Control {
    /// Reads the text of a `control` file.
    ///
    /// # Errors
    /// When it is no paragraph, lacks a package or version, or has a `Replaces` that cannot be read.
    pub fn parse(text: &str) -> Result<Self, ControlError> {
        let fields =
            Paragraph::from_str(text).map_err(|error| ControlError::Syntax { what: error.to_string() })?;
        let control = Self { fields, text: text.to_owned() };
        for field in ["Package", "Version"] {
            if control.get(field).is_none_or(str::is_empty) {
                return Err(ControlError::Missing { field });
            }
        }
        for relation in control.replaces_field() {
            Replaced::parse(relation)
                .ok_or_else(|| ControlError::Relation { field: "Replaces", relation: relation.to_owned() })?;
        }
        Ok(control)
    }

    /// A field's value; names are compared without regard to case.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(str::trim)
    }

    /// The text as it stood in the package.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `Package`.
    pub fn name(&self) -> &str {
        self.get("Package").unwrap_or_default()
    }

    /// `Version`.
    pub fn version(&self) -> &str {
        self.get("Version").unwrap_or_default()
    }

    /// Whether files of `name` in `version` may be replaced by files of this package: its `Replaces` names
    /// it. As for dpkg, virtual packages do not count.
    pub fn replaces(&self, name: &str, version: &str) -> bool {
        self.replaces_field().filter_map(Replaced::parse).any(|relation| relation.matches(name, version))
    }

    /// Names in its `Replaces`.
    pub fn replaced(&self) -> impl Iterator<Item = &str> {
        self.replaces_field().filter_map(Replaced::parse).map(|relation| relation.name)
    }

    fn replaces_field(&self) -> impl Iterator<Item = &str> {
        self.get("Replaces").unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty())
    }
}

/// One relation of `Replaces`: `name[:arch] [(op version)]`.
struct Replaced<'a> {
    name: &'a str,
    bound: Option<(&'a str, &'a str)>,
}

impl<'a> Replaced<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, bound) = match text.split_once('(') {
            Some((name, bound)) => (name, Some(bound.strip_suffix(')')?.trim())),
            None => (text, None),
        };
        let name = name.trim().split(':').next().filter(|name| !name.is_empty())?;
        if name.contains(char::is_whitespace) {
            return None;
        }
        let bound = match bound {
            Some(bound) => {
                let version = bound.trim_start_matches(['<', '>', '=']);
                let operator = &bound[..bound.len() - version.len()];
                if !["<<", "<=", "=", ">=", ">>", "<", ">"].contains(&operator) {
                    return None;
                }
                Some((operator, Some(version.trim()).filter(|version| !version.is_empty())?))
            }
            None => None,
        };
        Some(Self { name, bound })
    }

    fn matches(&self, name: &str, version: &str) -> bool {
        if self.name != name {
            return false;
        }
        let Some((operator, bound)) = self.bound else { return true };
        let order = compare(version, bound);
        match operator {
            "<<" => order == Ordering::Less,
            // The single signs mean "or equal": deb-control(5) keeps this old form.
            "<=" | "<" => order != Ordering::Greater,
            "=" => order == Ordering::Equal,
            ">=" | ">" => order != Ordering::Less,
            _ => order == Ordering::Greater,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_replaces() {
        let control = Control::parse(
            "Package: a\nVersion: 1:2-3\nInstalled-Size: 12\nReplaces: b (<< 2~), c:any,\n d (>= 1), e (= 0)\nDescription: x\n y\n",
        )
        .unwrap();
        assert_eq!((control.name(), control.version()), ("a", "1:2-3"));
        assert_eq!(control.get("Installed-Size"), Some("12"));
        let answers = [("b", "1.9"), ("b", "2"), ("c", "7"), ("d", "1"), ("e", "1"), ("f", "1")]
            .map(|(name, version)| control.replaces(name, version));
        assert_eq!(answers, [true, false, true, true, false, false]);
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        assert!(matches!(Control::parse("Package: a\n"), Err(ControlError::Missing { field: "Version" })));
        let bad = Control::parse("Package: a\nVersion: 1\nReplaces: b (~ 1)\n");
        assert!(matches!(bad, Err(ControlError::Relation { .. })));
    }
}
