//! JSON that strangers wrote: its values are counted, and its names compared, before anything is made of it.
//!
//! A byte of JSON can take a hundred in memory, as `{"":0}` does in a value of any shape, so that a limit on bytes alone
//! bounds little. A name that stands twice means one thing to this reader and another to the next: it is refused.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serializer};

/// What `bytes` say, if they have at most `most` values and no name stands twice in an object.
///
/// # Errors
/// What is wrong, with line and column.
pub fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], most: usize) -> serde_json::Result<T> {
    judge(bytes, most)?;
    serde_json::from_slice(bytes)
}

/// `path` as JSON has it, with U+FFFD in place of bytes that are not text: as they are, they have no place in JSON.
pub fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// [`text_of`] a field.
///
/// # Errors
/// Those of the serializer.
pub fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text_of(path))
}

/// Counts the values in `bytes`, and compares the names; keeps nothing.
///
/// # Errors
/// As [`parse`].
pub fn judge(bytes: &[u8], most: usize) -> serde_json::Result<()> {
    let left = Cell::new(most);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Values { left: &left, most }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// One value and all in it.
#[derive(Clone, Copy)]
struct Values<'a> {
    left: &'a Cell<usize>,
    most: usize,
}

impl Values<'_> {
    fn charge<E: Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.unwrap_or_default());
        left.map(drop)
            .ok_or_else(|| E::custom(format_args!("more than {} values, the most that are read", self.most)))
    }
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.charge()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut names: HashSet<String> = HashSet::new();
        while let Some(name) = object.next_key::<String>()? {
            if names.contains(&name) {
                let shown: String = name.chars().take(100).collect();
                return Err(A::Error::custom(format_args!("{shown:?} stands twice in one object")));
            }
            names.insert(name);
            object.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn told(text: &str, most: usize) -> String {
        parse::<Value>(text.as_bytes(), most).unwrap_err().to_string()
    }

    #[test]
    fn values_are_counted() {
        let text = r#"{"a": [1, -2.5, null, true], "b": {"a": "é\n"}}"#;
        assert_eq!(parse::<Value>(text.as_bytes(), 8).unwrap()["b"]["a"], "é\n");
        assert_eq!(told(text, 7), "more than 7 values, the most that are read at line 1 column 40");
        assert!(told(&format!("[{}0]", "0,".repeat(1000)), 1000).starts_with("more than 1000 values"));
    }

    #[test]
    fn a_name_stands_once() {
        assert_eq!(
            told(r#"{"a": {"b": 0, "\u0062": 1}}"#, 9),
            "\"b\" stands twice in one object at line 1 column 23"
        );
        assert!(parse::<Value>(br#"{"a": {"a": 0}, "b": {"a": 1}}"#, 9).is_ok());
        let long = "x".repeat(100_000);
        assert!(told(&format!(r#"{{"{long}":0,"{long}":0}}"#), 9).len() < 200);
    }

    #[test]
    fn what_is_no_json_is_told_as_ever() {
        assert!(told("{\"a\": ", 9).starts_with("EOF while parsing a value"));
        assert!(told("{} {}", 9).starts_with("trailing characters"));
        assert!(told(&"[".repeat(100_000), 200_000).starts_with("recursion limit exceeded"));
    }
}
