//! Units, drop-ins, and what enables and masks them: below /run/systemd/system, which systemd reads before what the
//! image has in /usr/lib, and after what an operator has in /etc (systemd.unit(5)).

use std::collections::BTreeSet;

use super::super::Document;
use super::{Image, READABLE, Rendered};

const FOLDER: &str = "/run/systemd/system";
const IMAGE: [&str; 2] = ["/etc/systemd/system", "/usr/lib/systemd/system"];

pub(super) fn render(document: &Document, image: &dyn Image, rendered: &mut Rendered) {
    for unit in &document.units {
        if let Some(text) = &unit.content {
            rendered.file(format!("{FOLDER}/{}", unit.name), READABLE, text.as_bytes());
        }
        for (file, text) in &unit.drop_ins {
            rendered.file(format!("{FOLDER}/{}.d/{file}", unit.name), READABLE, text.as_bytes());
        }
    }
    for name in &document.mask {
        rendered.link(format!("{FOLDER}/{name}"), "/dev/null");
    }
    let mut pending: Vec<String> = document.enable.clone();
    let mut seen = BTreeSet::new();
    while let Some(name) = pending.pop() {
        if seen.insert(name.clone()) {
            pending.extend(enable(&name, document, image, rendered));
        }
    }
}

/// Links the unit as its `[Install]` says; gives the names of those that go along.
fn enable(name: &str, document: &Document, image: &dyn Image, rendered: &mut Rendered) -> Vec<String> {
    let Some((path, text)) = find(name, document, image) else {
        rendered.warnings.push(format!("`enable` names {name}, and there is no such unit"));
        return Vec::new();
    };
    let install = install(&text);
    let words = |key: &str| -> Vec<String> {
        let values = install.iter().filter(|(found, _)| found == key);
        values.flat_map(|(_, value)| value.split_whitespace().map(str::to_owned)).collect()
    };
    let mut linked = false;
    for (key, suffix) in [("WantedBy", "wants"), ("RequiredBy", "requires"), ("UpheldBy", "upholds")] {
        for by in words(key) {
            rendered.link(format!("{FOLDER}/{by}.{suffix}/{name}"), &path);
            linked = true;
        }
    }
    for alias in words("Alias").iter().filter(|alias| *alias != name) {
        rendered.link(format!("{FOLDER}/{alias}"), &path);
        linked = true;
    }
    let also = words("Also");
    if !linked && also.is_empty() {
        rendered
            .warnings
            .push(format!("`enable` names {name}, whose [Install] does not say what starts it: `WantedBy=`"));
    }
    also
}

/// Where the unit lies on the node, and its text. An instance has the text of its template.
fn find(name: &str, document: &Document, image: &dyn Image) -> Option<(String, String)> {
    let template = name.split_once('@').and_then(|(base, rest)| {
        let (_, kind) = rest.rsplit_once('.')?;
        Some(format!("{base}@.{kind}"))
    });
    for file in std::iter::once(name.to_owned()).chain(template) {
        let own = document.units.iter().find(|unit| unit.name == file).and_then(|unit| unit.content.clone());
        if let Some(text) = own {
            return Some((format!("{FOLDER}/{file}"), text));
        }
        for folder in IMAGE {
            let path = format!("{folder}/{file}");
            if let Some(text) = image.read(&path) {
                return Some((path, text));
            }
        }
    }
    None
}

/// Keys and values of the section `[Install]`.
fn install(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let mut inside = false;
    let mut found = Vec::new();
    for line in joined.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[Install]";
        } else if inside
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}
