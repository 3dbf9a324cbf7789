//! What keller says of itself, and the verbs that need no archive.

use super::project::Project;

const VERBS: [&str; 18] = [
    "run",
    "build",
    "boot",
    "lab",
    "inspect",
    "install",
    "lock",
    "publish",
    "keys",
    "store",
    "check",
    "init",
    "schema",
    "node",
    "update",
    "etc",
    "agent",
    "completion",
];

#[test]
fn every_verb_explains_itself() {
    let project = Project::new();
    let help = project.run(&["--help"]).good().out;
    assert_eq!(project.run(&["help"]).good().out, help);
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    for code in ["0  ", "1  ", "2  ", "130", "141"] {
        assert!(help.contains(&format!("\n  {code}  ")), "exit code {code} is not in {help}");
    }
    assert!(help.contains("\"places\": [{file, line, column, message, help}, …]"), "{help}");
    for verb in VERBS {
        let line = help.lines().find(|line| line.trim_start().starts_with(&format!("{verb} ")));
        assert!(line.is_some_and(|line| line.trim().len() > verb.len() + 10), "{verb} is not in {help}");
        let own = project.run(&[verb, "--help"]).good().out;
        assert_eq!(project.run(&["help", verb]).good().out, own);
        assert!(own.contains("\nExample"), "{verb} has no examples:\n{own}");
        assert!(!own.to_lowercase().contains("folder"), "{verb} does not say directory:\n{own}");
        assert!(own.contains(&format!("  keller {verb} ")), "{verb}:\n{own}");
        assert!(own.contains(&format!("Usage: keller {verb}")), "{verb}:\n{own}");
        // Arguments and flags: each with words.
        for (line, next) in own.lines().zip(own.lines().skip(1).chain([""])) {
            if line.trim_start().starts_with('-') {
                let (_, words) = line.trim().split_once("  ").unwrap_or((line, next.trim()));
                assert!(words.trim().len() > 5, "{verb}: {line:?} is not explained");
            }
        }
    }
}

#[test]
fn examples_are_of_this_keller() {
    let project = Project::new();
    for verb in VERBS.iter().map(|verb| vec![*verb]).chain([vec!["store", "gc"], vec![]]) {
        let own = project.run(&[&verb[..], &["--help"]].concat()).good().out;
        let examples = own.lines().skip_while(|line| !line.starts_with("Example"));
        let mut count = 0;
        for example in examples.filter_map(|line| line.strip_prefix("  keller ")) {
            // A column of explanation follows after two blanks, a redirection after `>`.
            let command = example.split("  ").next().unwrap().split(" > ").next().unwrap();
            let words = command.split_whitespace().map(|word| word.trim_matches('\'')).collect::<Vec<_>>();
            // `--help` stops before anything is done, but not before every flag was read.
            let ran = project.run(&[&words[..], &["--help"]].concat());
            assert_eq!(ran.code, Some(0), "keller {command}: {}", ran.err);
            count += 1;
        }
        assert!(count > 0, "{verb:?}");
    }
}

#[test]
fn slips_are_answered() {
    let project = Project::new();
    let said = |arguments: &[&str]| {
        let ran = project.run(arguments);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        ran.err
    };
    assert!(said(&["biuld"]).contains("'build'"));
    assert!(said(&["build", "--ofline"]).contains("'--offline'"));
    assert!(said(&["boot", "x.raw", "--forward", "80"]).contains("two port numbers, such as 8080:80"));
    assert!(said(&["boot", "x.raw", "--memory", "much"]).contains("much"));
    assert!(said(&["boot", "x.raw", "--memory", "256MiB"]).contains("a node needs at least 512MiB"));
    assert!(said(&["run", "--memory", "256MiB"]).contains("a node needs at least 512MiB"));
    assert!(said(&["boot", "x.raw", "--memory", "600000000"]).contains("expected whole MiB"));
    assert!(said(&["boot", "x.raw", "--cpus", "0"]).contains("0 is not in 1..=255"));
    assert!(said(&["boot", "x.raw", "--forward", "8080:0"]).contains("two port numbers"));
    assert!(said(&["boot", "x.raw", "--sector-size", "1024"]).contains("expected 512 or 4096"));
    assert!(said(&["boot", "x.raw", "--bus", "sata"]).contains("expected virtio, nvme, ahci, usb or scsi"));
    assert!(
        said(&["boot", "x.raw", "--bus", "megasas"]).contains("firmware that comes with QEMU has no driver")
    );
    assert!(said(&["boot", "x.raw", "--nic", "e1000"]).contains("as in igb,mute"));
    assert!(said(&["boot", "x.raw", "--disk", "1048577"]).contains("expected whole MiB"));
    assert!(said(&["boot", "x.raw", "--timeout", "10"]).contains("--expect"));
    assert!(said(&["boot", "x.raw", "--expect", ""]).contains("--expect"));
}

#[test]
fn completion_for_each_shell() {
    let project = Project::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = project.run(&["completion", shell]).good().out;
        for word in ["keller", "inspect", "offline", "update-all"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let script = project.run(&["completion", "bash"]).good().out;
    project.write("completion", script);
    let test = ". ./completion; COMP_WORDS=(keller insp); COMP_CWORD=1; _keller keller insp keller; echo ${COMPREPLY[@]}";
    match std::process::Command::new("bash").args(["-c", test]).current_dir(project.path(".")).output() {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "inspect\n"),
        Err(error) => println!("SKIPPED: bash: {error}"),
    }
}

#[test]
fn a_project_to_begin_with() {
    let project = Project::new();
    let said = project.run(&["init", "fresh"]).good().out;
    assert!(said.contains("keller check fresh/node.yaml"), "{said}");
    let checked = project.run(&["check", "fresh/node.yaml"]).good().out;
    assert!(checked.starts_with("fresh ") && checked.ends_with("nothing wrong\n"), "{checked}");
    let ran = project.run(&["init", "fresh"]);
    assert_eq!(ran.error(), "error: fresh is not empty; --force writes into it all the same");
    let ran = project.run(&["init", "9lives"]);
    assert!(
        ran.error().contains("cannot be the name of an image") && ran.error().contains("--id"),
        "{}",
        ran.err
    );
    assert!(!project.path("9lives").exists());
    project.run(&["init", "--copy", "--id", "whole", "copied"]).good();
    project.run(&["check", "copied/node.yaml"]).good();
    project.run(&["check"]).good();
}

#[test]
fn the_schema_is_a_schema() {
    let project = Project::new();
    let schema = project.run(&["schema"]).good().out;
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert!(schema["properties"]["packages"].is_object() && schema["$schema"].is_string());
    let container = project.run(&["schema", "--container"]).good().out;
    assert!(
        serde_json::from_str::<serde_json::Value>(&container).unwrap()["properties"]["entrypoint"]
            .is_object()
    );
    assert!(project.run(&["schema", "--markdown"]).good().out.starts_with('#'));
    assert_eq!(project.run(&["schema", "--markdown", "--container"]).code, Some(2));
}

#[test]
fn a_flag_that_would_do_nothing_is_refused() {
    let project = Project::new();
    let list = ["publish", "--to", "x", "--list"];
    let refresh = ["publish", "--to", "x", "--refresh"];
    for (args, flag) in [
        (vec!["run", "--no-sums"], "--no-sums"),
        ([&list[..], &["--channel", "beta"]].concat(), "--channel"),
        ([&list[..], &["--expires", "3d"]].concat(), "--expires"),
        ([&list[..], &["--patches", "1"]].concat(), "--patches"),
        ([&list[..], &["--notes", "x"]].concat(), "--notes"),
        (vec!["publish", "--to", "x", "--promote", "1.0", "--minimum", "1"], "--minimum"),
        ([&refresh[..], &["--channel", "beta"]].concat(), "--channel"),
        ([&refresh[..], &["--level", "3"]].concat(), "--level"),
        ([&refresh[..], &["--id", "node"]].concat(), "--id"),
        (vec!["publish", "--to", "x", "--id", "node", "image.raw"], "--id"),
        (vec!["delta", "apply", "from", "to", "--old-uki", "x"], "--uki"),
    ] {
        let ran = project.run(&args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(flag), "{args:?}: {}", ran.err);
    }
}
