//! Standard output and standard error: who reads them, who has gone, and what programs read there after a failure.

use std::process::Stdio;

use serde_json::Value;

use super::project::{Project, Ran};

/// The writing end of a pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_has_gone_is_no_failure_of_ours() {
    let project = Project::new();
    project.build(&[]).good();
    project.run(&["keys", "init", "keys"]).good();
    for arguments in [
        &["--help"][..],
        &["schema"],
        &["schema", "--markdown"],
        &["completion", "bash"],
        &["check", "node/node.yaml"],
        &["inspect", "node/out/tiny_1.2.3.raw"],
        &["inspect", "--json", "node/out/tiny_1.2.3.raw"],
        &["lock", "--json", "node/node.yaml"],
        &["keys", "show", "keys"],
        &["store", "list"],
        &["init", "fresh"],
        &["build", "--keller", "fake-keller", "node/node.yaml"],
    ] {
        let ran = Ran::of(&project.keller(arguments).stdout(unread()).output().unwrap());
        // Help is written by the parser of arguments.
        let code = if arguments == ["--help"] { 0 } else { 141 };
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.err);
        assert!(!ran.err.contains("panicked") && !ran.err.contains("error"), "{}", ran.err);
    }
}

#[test]
fn messages_that_nobody_reads_keep_no_work_from_being_done() {
    let project = Project::new();
    for arguments in [&[][..], &["-v"], &["--json"]] {
        let ran = Ran::of(&project.build_command(arguments).stderr(unread()).output().unwrap());
        assert_eq!(ran.code, Some(0), "{arguments:?}");
        assert!(ran.out.contains("tiny_1.2.3.raw"), "{}", ran.out);
    }
    let ran = Ran::of(&project.keller(&["check", "gone.yaml"]).stderr(unread()).output().unwrap());
    assert_eq!(ran.code, Some(1));
    let ran = Ran::of(&project.keller(&["biuld"]).stderr(unread()).output().unwrap());
    assert_eq!(ran.code, Some(2));
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let project = Project::new();
    for arguments in
        [&["schema"][..], &["completion", "zsh"], &["check", "node/node.yaml"], &["--help"], &["--version"]]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = Ran::of(&project.keller(arguments).stdout(full).output().unwrap());
        let said = "error: writing to standard output: No space left on device (os error 28)";
        assert_eq!(ran.error(), said, "{arguments:?}");
    }
}

/// What a failure says as JSON. Standard error has it in words.
fn failure(ran: &Ran) -> Value {
    let last = ran.out.lines().next_back().unwrap_or_else(|| panic!("no JSON: {ran:?}"));
    let said: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{last}: {error}"));
    let error = said["error"].as_str().unwrap_or_else(|| panic!("{said}"));
    assert!(ran.err.contains(error), "{} has not {error}", ran.err);
    let chain: Vec<&str> =
        said["chain"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
    assert!(chain.iter().all(|step| error.contains(step)), "{said}");
    assert!(error.starts_with(chain[0]), "{said}");
    said
}

#[test]
fn every_verb_fails_in_json_too() {
    let project = Project::new();
    project.write("broken.yaml", "keller: 1\nid: Node\nversion: 1_2\n");
    let build = ["build", "--json", "--keller", "fake-keller"];
    let cases: &[(&[&str], i32, &str)] = &[
        (&["check", "--json", "gone.yaml"], 1, "gone.yaml"),
        (&["lock", "--json", "gone.yaml"], 1, "gone.yaml"),
        (&["run", "--json", "--keller", "fake-keller", "gone.yaml"], 1, "gone.yaml"),
        (&["boot", "--json", "gone.raw"], 1, "opening gone.raw"),
        (&["inspect", "--json", "gone.raw"], 1, "inspecting gone.raw"),
        (&["publish", "--json", "gone.raw", "--to", "repository"], 1, "reading the keys in keys"),
        (&["keys", "show", "--json"], 1, "reading the keys in keys"),
        (&["store", "gc", "--json", "--keep", "gone.lock"], 1, "reading gone.lock"),
        (&["init", "--json", "9lives"], 1, "cannot be the name of an image"),
        (&["biuld", "--json"], 2, "unrecognized subcommand 'biuld'"),
        (&["--json", "build", "--ofline"], 2, "unexpected argument '--ofline'"),
        (&["boot", "--json", "--memory", "256MiB", "x.raw"], 2, "a node needs at least 512MiB"),
        (&["completion", "--json", "bash"], 2, "cannot be used with a script for a shell"),
        (&["schema", "--json", "--markdown"], 2, "cannot be used with the reference as Markdown"),
        (&["agent", "--json"], 2, "cannot be used with what goes to the journal"),
    ];
    for (arguments, code, said) in cases {
        let ran = project.run(arguments);
        assert_eq!(ran.code, Some(*code), "{arguments:?}: {}", ran.err);
        assert!(failure(&ran)["error"].as_str().unwrap().contains(said), "{arguments:?}: {}", ran.out);
        println!("{}", ran.out.trim_end());
    }

    // Places: of a manifest, with what would be right.
    let said = failure(&project.run(&[&build[..], &["broken.yaml"]].concat()));
    let places = said["places"].as_array().unwrap();
    assert_eq!(places.len(), 2, "{said}");
    assert_eq!(
        (&places[1]["file"], &places[1]["line"], &places[1]["column"]),
        (&"broken.yaml".into(), &3.into(), &10.into())
    );
    assert!(places[1]["help"].as_str().unwrap().contains("use letters, digits, `.`, `-`"), "{said}");
    let checked = failure(&project.run(&["check", "--json", "broken.yaml"]));
    assert_eq!((&checked["places"], &checked["errors"]), (&said["places"], &said["places"]));

    // Of a name that no archive has, and of packages that cannot be together.
    project.edit("greeter]", "greter, systemd]");
    let said = failure(&project.run(&[&build[..], &["node/node.yaml"]].concat()));
    let place = &said["places"][0];
    assert_eq!((&place["file"], &place["line"]), (&"node/node.yaml".into(), &6.into()));
    assert_eq!(place["message"], "no archive has a package greter; did you mean greeter?");
    assert_eq!(said["chain"][0], "building node/node.yaml");

    // Where nothing goes wrong there is no error.
    let fine = project.run(&["check", "--json", "node/node.yaml"]).good();
    assert!(serde_json::from_str::<Value>(&fine.out).unwrap().get("error").is_none(), "{}", fine.out);
}
