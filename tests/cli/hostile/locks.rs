//! A lock that somebody has made for a project, or changed.

use serde_json::{Value, json};

use super::refusal;
use super::repositories::costly;
use crate::cli::project::Project;

/// A project that was locked, with an empty store, so that all is fetched anew.
fn locked() -> (Project, Value) {
    let project = Project::new();
    project.run(&["lock", "node/node.yaml"]).good();
    let _ = std::fs::remove_dir_all(project.path("store"));
    let lock = project.json("node/node.lock");
    (project, lock)
}

fn told(project: &Project, lock: impl AsRef<[u8]>) -> String {
    project.write("node/node.lock", lock);
    refusal(project, &["--locked"])
}

#[test]
fn what_is_no_lock() {
    let (project, lock) = locked();
    let text = lock.to_string();
    for (lock, said) in [
        ("[".repeat(1 << 20), "recursion limit exceeded"),
        (format!(r#"{{"keller_lock":1,"x":{}}}"#, "[".repeat(200)), "recursion limit exceeded"),
        (
            format!(r#"{{"keller_lock":1,"x":{}}}"#, costly(15 << 20)),
            "more than 300000 values, the most that are read",
        ),
        (text.replacen("\"id\"", "\"id\":\"other\",\"id\"", 1), "\"id\" stands twice in one object"),
        (text.replacen("\"id\"", "\"further\":0,\"id\"", 1), "unknown field `further`"),
        (
            text.replacen("\"keller_lock\":1", "\"keller_lock\":2", 1),
            "is a lock of form 2, but this keller knows only 1: use a newer keller",
        ),
        (text.replacen("\"keller_lock\":1", "\"keller_lock\":18446744073709551616", 1), "node.lock:1:"),
        (String::new(), "node.lock:1:0: EOF"),
    ] {
        let told = told(&project, &lock);
        assert!(told.contains("node/node.lock") && told.contains(said), "{told}");
        assert!(told.len() < 1000, "{} bytes", told.len());
    }
    let holes = std::fs::File::create(project.path("node/node.lock")).unwrap();
    holes.set_len(1 << 40).unwrap();
    let told = refusal(&project, &["--locked"]);
    assert!(
        told.ends_with("reading node/node.lock: it has more than the 16.0 MiB that are read of such a file"),
        "{told}"
    );
}

/// One long line with a mistake in it: what lies around the mistake is shown.
#[test]
fn a_line_of_megabytes() {
    let (project, lock) = locked();
    let text = lock.to_string().replacen("\"epoch\":", "\"epoch\":x", 1);
    let told = told(&project, format!("{text}{}", " ".repeat(15 << 20)));
    assert!(told.contains("expected value") && told.contains("\"epoch\":x"), "{told}");
    assert!(told.len() < 1000, "{} bytes", told.len());
}

/// Values of the right type that no archive has.
#[test]
fn packages_that_cannot_be() {
    let (project, lock) = locked();
    let greeter = |field: &str, value: Value| {
        let mut lock = lock.clone();
        // The container has it, too, and would bring it into the store.
        lock["packages"]["greeter"][field] = value.clone();
        lock["containers"]["hello"]["greeter"][field] = value;
        told(&project, lock.to_string())
    };
    for size in [json!(u64::MAX), json!(i64::MAX), json!(0)] {
        let is_large = size != 0;
        let told = greeter("size", size);
        let said = "bytes is more than the 16.0 GiB that are fetched: remove the file, and `keller lock` makes it anew";
        assert!(told.contains("greeter") && (!is_large || told.contains(said)), "{told}");
    }
    for path in [
        "../../../../etc/passwd",
        "/etc/passwd",
        "pool/\u{1b}[2J\n.deb",
        "https://other.example/x.deb",
        "",
        "pool/%2e%2e/%00",
    ] {
        let told = greeter("path", json!(path));
        assert!(told.contains("greeter") && !told.contains('\u{1b}'), "{told}");
    }
    let digest = lock["packages"]["greeter"]["sha256"].as_str().unwrap().to_owned();
    for wrong in [digest[1..].to_owned(), digest.replacen(|_| true, "g", 1), String::new(), "0".repeat(64)] {
        let told = greeter("sha256", json!(wrong));
        assert!(told.contains("node.lock:1:") || told.contains("greeter"), "{told}");
    }
    let told = greeter("archive", json!("\u{1b}[2J"));
    assert!(!told.contains('\u{1b}'), "{told}");
    let told = greeter("version", json!("1".repeat(1 << 20)));
    assert!(told.len() < 100_000, "{} bytes", told.len());
}

#[test]
fn a_million_packages() {
    let (project, lock) = locked();
    let greeter = &lock["packages"]["greeter"];
    let mut many = lock.clone();
    for number in 0..20_000 {
        many["packages"][format!("a{number}")] = greeter.clone();
    }
    let told_of = told(&project, many.to_string());
    assert!(
        told_of.contains("node/node.lock: packages: more than 5000 packages: remove the file"),
        "{told_of}"
    );
    let mut many = lock.clone();
    many["ids"]["users"] =
        (0..250_000).map(|number| (format!("{number}"), json!(1))).collect::<serde_json::Map<_, _>>().into();
    let told_of = told(&project, many.to_string());
    assert!(told_of.len() < 100_000, "{} bytes", told_of.len());
}
