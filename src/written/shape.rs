//! Compares a tree with the JSON Schema of the manifest: unknown fields, wrong types, missing fields, words
//! out of a fixed set. Everything is told at once; what does not fit is then cut out of the tree, so that the
//! rest can be checked further.

use serde_json::Value as Json;

use super::diagnostic::Report;
use super::yaml::{Node, Value};
use crate::base::near::{near, question};

/// Checks `node` against `schema` (a root schema with `$defs`) and cuts out what does not fit. False: nothing
/// of it can be used.
pub(crate) fn check(node: &mut Node, schema: &Json, report: &mut Report) -> bool {
    Checker { root: schema, report }.check(node, schema, "the file")
}

struct Checker<'a> {
    root: &'a Json,
    report: &'a mut Report,
}

fn kind(node: &Node) -> &'static str {
    match &node.value {
        Value::Null => "nothing",
        Value::Scalar { .. } => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

fn type_of(schema: &Json) -> &str {
    schema.get("type").and_then(Json::as_str).unwrap_or_default()
}

/// The words of a closed set, if `schema` is one.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(list) = schema.get("enum").and_then(Json::as_array) {
        return list.iter().map(Json::as_str).collect();
    }
    let one_of = schema.get("oneOf").and_then(Json::as_array)?;
    let mut words = Vec::new();
    for branch in one_of {
        match branch.get("const").and_then(Json::as_str) {
            Some(word) => words.push(word),
            None => words.extend(branch.get("enum")?.as_array()?.iter().filter_map(Json::as_str)),
        }
    }
    Some(words)
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

impl<'a> Checker<'a> {
    fn follow(&self, schema: &'a Json) -> &'a Json {
        match schema.get("$ref").and_then(Json::as_str) {
            Some(reference) => {
                let target = self.root.pointer(reference.trim_start_matches('#'));
                self.follow(target.expect("schemars gives every reference its target"))
            }
            None => schema,
        }
    }

    fn expected(&self, schema: &'a Json) -> String {
        let schema = self.follow(schema);
        if let Some(words) = words(schema) {
            return format!("one of {}", quoted(&words));
        }
        if let Some(branches) = schema.get("anyOf").and_then(Json::as_array) {
            return branches.iter().map(|branch| self.expected(branch)).collect::<Vec<_>>().join(" or ");
        }
        match type_of(schema) {
            "object" => "a map",
            "array" => "a list",
            "boolean" => "`true` or `false`",
            "integer" => "a whole number",
            _ => "text",
        }
        .to_owned()
    }

    fn wrong(&mut self, node: &Node, schema: &'a Json, name: &str) -> bool {
        let expected = self.expected(schema);
        let wanted = type_of(self.follow(schema));
        let problem =
            self.report.error(node.mark, format!("{name} must be {expected}, but is {}", kind(node)));
        match (&node.value, wanted) {
            (Value::Null, "array") => problem.help("write `[]` for none, or remove the line"),
            (Value::Null, _) => problem.help("write a value, or remove the line"),
            (Value::Scalar { text, .. }, "array") => problem.help(format!("write `[{text}]`")),
            _ => problem,
        };
        false
    }

    fn check(&mut self, node: &mut Node, schema: &'a Json, name: &str) -> bool {
        let schema = self.follow(schema);
        if let Some(branches) = schema.get("anyOf").and_then(Json::as_array) {
            let fits = |branch: &&Json| {
                matches!(
                    (&node.value, type_of(self.follow(branch))),
                    (Value::Scalar { .. }, "string") | (Value::List(_), "array") | (Value::Map(_), "object")
                )
            };
            return match branches.iter().find(fits) {
                Some(branch) => self.check(node, branch, name),
                None => self.wrong(node, schema, name),
            };
        }
        if let Some(words) = words(schema) {
            let Value::Scalar { text, .. } = &node.value else { return self.wrong(node, schema, name) };
            if words.contains(&text.as_str()) {
                return true;
            }
            let problem = self.report.error(node.mark, format!("{name} cannot be `{text}`"));
            problem.help(match near(text, words.iter().copied()).first() {
                Some(near) => format!("{} It can be {}", question(&[format!("`{near}`")]), quoted(&words)),
                None => format!("it can be {}", quoted(&words)),
            });
            return false;
        }
        match (&mut node.value, type_of(schema)) {
            (Value::Map(_), "object") => self.map(node, schema, name),
            (Value::List(items), "array") => {
                let item = schema.get("items").unwrap_or(&Json::Null);
                let name = format!("an item of {name}");
                items.retain_mut(|node| self.check(node, item, &name));
                true
            }
            (Value::Scalar { .. }, "string") => true,
            (Value::Scalar { .. }, "boolean") => self.boolean(node, name),
            (Value::Scalar { .. }, "integer") => self.integer(node, schema, name),
            _ => self.wrong(node, schema, name),
        }
    }

    fn boolean(&mut self, node: &Node, name: &str) -> bool {
        let Value::Scalar { text, .. } = &node.value else { return false };
        if matches!(text.as_str(), "true" | "false") {
            return true;
        }
        let problem =
            self.report.error(node.mark, format!("{name} must be `true` or `false`, but is `{text}`"));
        match text.to_ascii_lowercase().as_str() {
            "yes" | "y" | "on" | "1" | "true" => problem.help("write `true`"),
            "no" | "n" | "off" | "0" | "false" => problem.help("write `false`"),
            _ => problem,
        };
        false
    }

    fn integer(&mut self, node: &Node, schema: &Json, name: &str) -> bool {
        let Value::Scalar { text, .. } = &node.value else { return false };
        let largest = match schema.get("maximum").and_then(Json::as_u64) {
            Some(maximum) => maximum,
            None if schema.get("format").and_then(Json::as_str) == Some("uint32") => u32::MAX.into(),
            None => u64::MAX,
        };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits && text.parse().is_ok_and(|number: u64| number <= largest) {
            return true;
        }
        self.report
            .error(node.mark, format!("{name} must be a whole number, but is `{text}`"))
            .help(format!("digits only, from 0 to {largest}"));
        false
    }

    fn map(&mut self, node: &mut Node, schema: &'a Json, name: &str) -> bool {
        let Value::Map(entries) = &mut node.value else { return false };
        let outer = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
        let fields = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let required: Vec<&str> = match schema.get("required").and_then(Json::as_array) {
            Some(required) => required.iter().filter_map(Json::as_str).collect(),
            None => Vec::new(),
        };
        let mut missing = required.clone();
        entries.retain_mut(|entry| {
            let inner = match outer {
                Some(outer) => format!("`{outer}.{}`", entry.key),
                None => format!("`{}`", entry.key),
            };
            missing.retain(|field| *field != entry.key);
            if let Some(schema) = fields.and_then(|fields| fields.get(&entry.key)).or(others) {
                return self.check(&mut entry.value, schema, &inner);
            }
            let known: Vec<&str> = fields.into_iter().flatten().map(|(field, _)| field.as_str()).collect();
            let near = near(&entry.key, known.iter().copied()).into_iter().next();
            // A slip in the name of a required field is one mistake, not two.
            missing.retain(|field| Some(*field) != near.as_deref());
            self.report.error(entry.mark, format!("unknown field {inner}")).help(match near {
                Some(near) => question(&[format!("`{near}`")]),
                None => format!("known here: {}", quoted(&known)),
            });
            false
        });
        for field in missing {
            self.report
                .error(node.mark, format!("{name} has no `{field}`"))
                .help(format!("add `{field}: …`"));
        }
        required.iter().all(|field| node.get(field).is_some())
    }
}
