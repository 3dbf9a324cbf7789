//! The manifest's JSON Schema and the reference for people, both out of `raw`.

use serde_json::Value as Json;

use super::raw::{Raw, RawBuild};
use crate::written::schema::{definitions, schema, section};

/// JSON Schema (draft 2020-12) of a manifest.
pub fn manifest() -> Json {
    schema::<Raw>()
}

/// JSON Schema of the file that `image: {build: …}` names.
pub fn container_image() -> Json {
    schema::<RawBuild>()
}

/// What stands before the tables: how to write a manifest.
const INTRODUCTION: &str = include_str!("guide.md");

/// The reference as Markdown: docs/manifest.md.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    let root = manifest();
    page.push_str("\n## Fields\n");
    section(&mut page, &root, &root);
    definitions(&mut page, &root);
    let mut image = container_image();
    refer(&mut image, &root);
    page.push_str("\n## Container images\n");
    section(&mut page, &image, &image);
    page
}

/// Fields of `image` that are the manifest's are told there.
fn refer(image: &mut Json, manifest: &Json) {
    let Some(Json::Object(fields)) = image.get_mut("properties") else { return };
    for (name, field) in fields {
        if manifest.pointer(&format!("/properties/{name}")) == Some(field) {
            field["description"] = "As in a manifest.".into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::written::schema::{fields, text};

    #[test]
    fn has_no_null_and_every_field_a_description() {
        for root in [manifest(), container_image()] {
            assert!(!root.to_string().contains("null"));
            let all = std::iter::once(&root).chain(root["$defs"].as_object().unwrap().values());
            for (name, field) in all.filter_map(fields).flatten() {
                assert!(!text(field, "description").is_empty(), "{name}");
            }
        }
    }
}
