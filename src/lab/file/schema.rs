//! The lab file's JSON Schema and the reference for people, both out of `raw`.

use serde_json::Value as Json;

use super::raw::Raw;
use crate::written::schema::{definitions, schema, section};

/// What stands before the tables.
const INTRODUCTION: &str = include_str!("guide.md");

/// JSON Schema (draft 2020-12) of a lab file.
pub fn file() -> Json {
    schema::<Raw>()
}

/// The reference as Markdown: docs/lab.md.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    let root = file();
    page.push_str("\n## Fields of the lab file\n");
    section(&mut page, &root, &root);
    definitions(&mut page, &root);
    page
}
