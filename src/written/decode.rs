//! Tree → Rust types, by serde.
//!
//! The tree was checked against the schema of these very types before, so an error here is a fault of keller
//! and not of the user; it carries the place all the same.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::place::Mark;
use super::yaml::{Entry, Node, Value};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub mark: Mark,
}

/// One word for the usual case, a longer form for the rest.
#[derive(Clone, Debug)]
pub(crate) enum Short<T> {
    /// The word.
    Text(String),
    /// A map or list.
    Long(T),
}

/// Field that is read from the very map that has it: fields that several maps share are declared once. serde's own
/// `flatten` loses the places of values.
const SAME: &str = "$keller::same";

/// Name by which [`At`] asks the deserializer for a value with its mark; no user type can have it.
const AT: &str = "$keller::At";

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pair<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<At<T>, A::Error> {
                let missing = || de::Error::invalid_length(0, &"a value and its place");
                let value = seq.next_element()?.ok_or_else(missing)?;
                let packed = seq.next_element()?.ok_or_else(missing)?;
                Ok(At { value, mark: Mark::unpack(packed) })
            }
        }
        deserializer.deserialize_tuple_struct(AT, 2, Pair(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Short<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, a map or a list")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Short<T>, E> {
                Ok(Short::Text(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Short<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Short::Long)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Short<T>, A::Error> {
                T::deserialize(SeqAccessDeserializer::new(seq)).map(Short::Long)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Short<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Short_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<T>()] })
    }
}

/// What serde found; [`Fault::mark`] is the innermost value that it was reading.
#[derive(Debug)]
pub(crate) struct Fault {
    pub message: String,
    pub mark: Option<Mark>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), mark: None }
    }
}

/// Reads a `T` out of a tree.
pub(crate) fn decode<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<T, Fault> {
    T::deserialize(Source(node))
}

#[derive(Clone, Copy)]
struct Source<'de>(&'de Node);

impl<'de> Source<'de> {
    fn scalar<T: std::str::FromStr>(self, what: &str) -> Result<T, Fault> {
        let fault = || Fault { message: format!("expected {what}"), mark: Some(self.0.mark) };
        match &self.0.value {
            Value::Scalar { text, .. } => text.parse().map_err(|_| fault()),
            _ => Err(fault()),
        }
    }

    fn marked<T>(self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| Fault { mark: fault.mark.or(Some(self.0.mark)), ..fault })
    }
}

macro_rules! scalars {
    ($($method:ident $visit:ident $kind:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let value: $kind = self.scalar($what)?;
            self.marked(visitor.$visit(value))
        }
    )*};
}

impl<'de> Deserializer<'de> for Source<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.marked(match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Scalar { text, .. } => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Map(_) => visitor.visit_map(Entries::of(self.0, &[])),
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Map(_) => self.marked(visitor.visit_map(Entries::of(self.0, fields))),
            _ => self.deserialize_any(visitor),
        }
    }

    scalars! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_u16 visit_u64 u64, "a whole number";
        deserialize_u32 visit_u64 u64, "a whole number";
        deserialize_u64 visit_u64 u64, "a whole number";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == AT {
            visitor.visit_seq(WithMark { node: self.0, step: 0 })
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let word: String = self.scalar("a word")?;
        self.marked(visitor.visit_enum(word.into_deserializer()))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple map
        identifier ignored_any
    }
}

/// The two halves of an [`At`].
struct WithMark<'de> {
    node: &'de Node,
    step: u8,
}

impl<'de> SeqAccess<'de> for WithMark<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.step += 1;
        match self.step {
            1 => seed.deserialize(Source(self.node)).map(Some),
            2 => seed.deserialize(self.node.mark.pack().into_deserializer()).map(Some),
            _ => Ok(None),
        }
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.0.next().map(|node| seed.deserialize(Source(node))).transpose()
    }
}

/// The entries of a map, after the map itself where it is asked for.
struct Entries<'de> {
    same: Option<&'de Node>,
    rest: std::slice::Iter<'de, Entry>,
    /// Of the key that was given last.
    value: Option<&'de Node>,
}

impl<'de> Entries<'de> {
    /// Those of `map`, for a type with these fields.
    fn of(map: &'de Node, fields: &[&str]) -> Self {
        let entries: &[Entry] = if let Value::Map(entries) = &map.value { entries } else { &[] };
        Self { same: fields.contains(&SAME).then_some(map), rest: entries.iter(), value: None }
    }
}

/// A key is always a word.
struct Key<'de>(&'de str);

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.0)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        if let Some(map) = self.same.take() {
            self.value = Some(map);
            return seed.deserialize(Key(SAME)).map(Some);
        }
        let Some(entry) = self.rest.next() else { return Ok(None) };
        self.value = Some(&entry.value);
        seed.deserialize(Key(&entry.key))
            .map(Some)
            .map_err(|fault| Fault { mark: fault.mark.or(Some(entry.mark)), ..fault })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let value =
            self.value.take().ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(Source(value))
    }
}
