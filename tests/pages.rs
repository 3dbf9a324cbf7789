//! Pages that promise a test for each row: what they name is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PAGES: [&str; 2] = ["docs/bad-input.md", "docs/failures.md"];

#[test]
fn boots_that_a_page_names_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in PAGES {
        let text = fs::read_to_string(root.join(page)).unwrap();
        // Every second piece stands between backticks.
        let names: Vec<&str> =
            text.split('`').skip(1).step_by(2).filter_map(|name| name.strip_prefix("boot::")).collect();
        assert!(!names.is_empty(), "{page} names no tests");
        for name in names {
            let module = root.join("tests/boot").join(name);
            let sources = [module.with_extension("rs"), module];
            assert!(sources.iter().any(|path| path.exists()), "{page}: there is no boot::{name}");
        }
    }
}

/// All sources below `folder`, as one text.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}

/// Modules of tests below `folder`, which is `module`, and their functions, each by its whole name.
fn names(folder: &Path, module: &str, known: &mut BTreeSet<String>) {
    let inside = |name: &str| if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let module = if ["mod", "lib", "main"].contains(&name) { module.to_owned() } else { inside(name) };
        known.insert(module.clone());
        if path.is_dir() {
            names(&path, &module, known);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let inner = if text.contains("\nmod tests {") { "tests::" } else { "" };
            let tests =
                text.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
            known.extend(tests.map(|(test, _)| format!("{module}::{inner}{test}")));
        }
    }
}

#[test]
fn tests_of_bad_input_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/bad-input.md")).unwrap();
    let mut known = BTreeSet::new();
    names(&root.join("src"), "", &mut known);
    names(&root.join("tests"), "", &mut known);
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| What"));
    let mut tested = 0;
    for row in rows {
        let column = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in column.split('`').skip(1).step_by(2) {
            assert!(known.contains(name), "there is no test {name}: {row}");
            tested += 1;
        }
        let is_as_before = ["the same", "the former"].iter().any(|word| column.starts_with(word));
        assert!(column.contains('`') || is_as_before, "{row} names no test");
    }
    assert!(tested > 150, "{tested}");
}

#[test]
fn tests_of_refusals_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/bare-metal.md")).unwrap();
    let (_, refusals) = page.split_once("\n## Refusals\n").unwrap();
    let code = sources(&root.join("src")) + &sources(&root.join("tests"));
    let rows = refusals.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Why"));
    let mut tested = 0;
    for row in rows {
        let test = row.trim_end_matches("` |").rsplit('`').next().unwrap();
        assert!(code.contains(&format!("fn {test}()")), "there is no test {test}: {row}");
        tested += 1;
    }
    assert!(tested > 30, "{tested}");
    // What keller refuses stands there: each text's begin, up to what is filled in or the first name.
    let texts = fs::read_to_string(root.join("src/install/refusal.rs")).unwrap();
    let kinds = texts.split("#[error(").skip(1).count();
    assert!(tested > kinds, "{kinds} kinds of refusals, {tested} rows");
}

#[test]
fn pages_say_directory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut wrong = Vec::new();
    for page in pages.chain([root.join("README.md"), root.join("src/manifest/guide.md")]) {
        for (line, number) in fs::read_to_string(&page).unwrap().lines().zip(1..) {
            // Names of the source stand between backticks.
            let prose: String = line.split('`').step_by(2).collect();
            if prose.to_lowercase().contains("folder") {
                wrong.push(format!("{}:{number}: {line}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
