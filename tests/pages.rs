//! Pages that promise a test for each row: what they name is there.

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
