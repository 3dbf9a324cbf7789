//! An update repository whose metadata asks for much, as its publisher meets it.

use super::within;
use crate::cli::project::Project;

/// A list of objects, each of which takes a hundred times its seven bytes once it is read.
pub fn costly(bytes: usize) -> String {
    format!("[{}0]", r#"{"":0},"#.repeat(bytes / 7))
}

fn told(project: &Project) -> String {
    let arguments = ["publish", "--to", "repository", "--keys", "keys", "--list"];
    within(&mut project.keller(&arguments)).error().to_owned()
}

#[test]
fn metadata_that_costs_more_than_its_bytes() {
    let project = Project::new();
    project.run(&["keys", "init", "keys"]).good();
    std::fs::create_dir_all(project.path("repository/metadata")).unwrap();
    let root = project.read("keys/1.root.json");
    for name in ["1.root.json", "timestamp.json"] {
        let path = format!("repository/metadata/{name}");
        project.write("repository/metadata/1.root.json", &root);
        for (bytes, said) in [
            (
                format!(r#"{{"signatures":[],"signed":{{"x":{}}}}}"#, costly(15 << 20)),
                "more than 200000 values, the most that are read",
            ),
            ("[".repeat(1 << 20), "recursion limit exceeded"),
            (r#"{"signed":{},"signed":{}}"#.to_owned(), "\"signed\" stands twice in one object"),
            (
                format!(r#"{{"signatures":[{}0]}}"#, r#"{"keyid":"00","sig":"00"},"#.repeat(100_000)),
                "more than 200000 values",
            ),
            ("{".to_owned(), "EOF while parsing"),
        ] {
            project.write(&path, bytes);
            let told = told(&project);
            assert!(told.contains(&format!("metadata/{name}")) && told.contains(said), "{told}");
        }
        let holes = std::fs::File::create(project.path(&path)).unwrap();
        holes.set_len(1 << 40).unwrap();
        let told = told(&project);
        assert!(told.contains(name) && told.contains("it has more than the 16.0 MiB"), "{told}");
        std::fs::remove_file(project.path(&path)).unwrap();
        std::fs::create_dir(project.path(&path)).unwrap();
        assert!(self::told(&project).contains("it is a directory, not a regular file"));
        std::fs::remove_dir(project.path(&path)).unwrap();
    }
}

/// Roots by the thousand, which the publisher's keys do not have.
#[test]
fn roots_without_end() {
    let project = Project::new();
    project.run(&["keys", "init", "keys"]).good();
    std::fs::create_dir_all(project.path("repository/metadata")).unwrap();
    let root = project.text("keys/1.root.json");
    for number in 1..3000 {
        let text = root.replace("\"version\": 1", &format!("\"version\": {number}"));
        project.write(&format!("repository/metadata/{number}.root.json"), text);
    }
    let told = told(&project);
    assert!(told.contains("2999") && told.contains("keys"), "{told}");
}
