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
