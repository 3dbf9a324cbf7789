//! JSON Schemas of types that people write, and tables of their fields for people.

use std::fmt::Write;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json};

/// JSON Schema (draft 2020-12) of `T`.
pub(crate) fn schema<T: JsonSchema>() -> Json {
    let root = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut json = root.to_value();
    without_null(&mut json);
    json
}

/// A field that may be left out is an `Option` in Rust; written, it is never null.
fn without_null(json: &mut Json) {
    match json {
        Json::Object(object) => {
            if let Some(Json::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Json::Array(branches)) = object.get_mut("anyOf") {
                branches.retain(|branch| branch.get("type").is_none_or(|kind| kind != "null"));
                if let [Json::Object(only)] = &branches[..] {
                    let only = only.clone();
                    object.remove("anyOf");
                    for (key, value) in only {
                        object.entry(key).or_insert(value);
                    }
                }
            }
            object.remove("default");
            object.values_mut().for_each(without_null);
        }
        Json::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

pub(crate) fn text<'j>(schema: &'j Json, key: &str) -> &'j str {
    schema.get(key).and_then(Json::as_str).unwrap_or_default()
}

fn paragraph(schema: &Json) -> String {
    text(schema, "description").split('\n').collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

pub(crate) fn fields(schema: &Json) -> Option<&Map<String, Json>> {
    schema.get("properties").and_then(Json::as_object)
}

/// What one map is for and a table of its fields; `root` holds what they refer to.
pub(crate) fn section(page: &mut String, schema: &Json, root: &Json) {
    let Some(fields) = fields(schema) else { return };
    let required: Vec<&str> = match schema.get("required").and_then(Json::as_array) {
        Some(list) => list.iter().filter_map(Json::as_str).collect(),
        None => Vec::new(),
    };
    write!(page, "\n{}\n\n| Field | Value | Meaning |\n|---|---|---|\n", paragraph(schema))
        .expect("a String takes everything");
    for (name, field) in fields {
        let needed = if required.contains(&name.as_str()) { " (required)" } else { "" };
        writeln!(page, "| `{name}`{needed} | {} | {} |", kind(field, root), paragraph(field))
            .expect("a String takes everything");
    }
}

/// The maps that `schema` speaks of, each once, in the order of first mention.
pub(crate) fn definitions(page: &mut String, root: &Json) {
    let mut done = Vec::new();
    let mut waiting: Vec<&Json> = vec![root];
    while !waiting.is_empty() {
        let schema = waiting.remove(0);
        for field in fields(schema).into_iter().flatten().map(|(_, field)| field) {
            let mut names = Vec::new();
            references(field, &mut names);
            for name in names {
                let Some(target) = root.pointer(&format!("/$defs/{name}")) else { continue };
                if done.contains(&name) || fields(target).is_none() {
                    continue;
                }
                write!(page, "\n### {name}\n").expect("a String takes everything");
                section(page, target, root);
                done.push(name);
                waiting.push(target);
            }
        }
    }
}

fn references(schema: &Json, names: &mut Vec<String>) {
    match schema {
        Json::Object(object) => {
            if let Some(name) =
                object.get("$ref").and_then(Json::as_str).and_then(|at| at.strip_prefix("#/$defs/"))
            {
                names.push(name.to_owned());
            }
            object.values().for_each(|value| references(value, names));
        }
        Json::Array(items) => items.iter().for_each(|item| references(item, names)),
        _ => {}
    }
}

/// What a value looks like, in a few words, with links to the maps below.
fn kind(schema: &Json, root: &Json) -> String {
    if let Some(name) = text(schema, "$ref").strip_prefix("#/$defs/") {
        return match root.pointer(&format!("/$defs/{name}")) {
            Some(target) if fields(target).is_none() => kind(target, root),
            _ => format!("[{name}](#{name})"),
        };
    }
    if let Some(Json::Array(words)) = schema.get("oneOf").or(schema.get("enum")) {
        let word = |word: &Json| match (word.as_str(), text(word, "const")) {
            (Some(word), _) => format!("`{word}`"),
            (None, "") => String::new(),
            (None, word) => format!("`{word}` ({})", meaning(schema, word)),
        };
        return words.iter().map(word).collect::<Vec<_>>().join(", ");
    }
    if let Some(Json::Array(branches)) = schema.get("anyOf") {
        return branches.iter().map(|branch| kind(branch, root)).collect::<Vec<_>>().join(" or ");
    }
    match text(schema, "type") {
        "array" => {
            format!("list of {}", schema.get("items").map_or("text".into(), |item| kind(item, root)))
        }
        "object" => match schema.get("additionalProperties").filter(|others| others.is_object()) {
            Some(others) => format!("map of {}", kind(others, root)),
            None => "map".into(),
        },
        "boolean" => "`true` or `false`".into(),
        "integer" => "whole number".into(),
        _ => "text".into(),
    }
}

/// What is said of one word of a closed set.
fn meaning(schema: &Json, word: &str) -> String {
    let branches = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    let description = branches.filter(|branch| text(branch, "const") == word).map(paragraph).next();
    description.unwrap_or_default().trim_end_matches('.').to_owned()
}
