//! `ci/test` itself, as far as it can be tried without running all tests.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

use crate::judges::tool::script;

/// A checkout with nothing but ci/test, beside programs that say `free` MiB are free and that nothing more is run.
fn run(directory: &Path, free: u32, arguments: &[&str]) -> Output {
    let df = format!("echo header; echo x 900000 1 {free} 1% /mount\n");
    let ran = |name: &str| format!("touch \"$PWD/{name}-ran\"; exit 9\n");
    run_beside(directory, &[("df", &df), ("cargo", &ran("cargo")), ("apt-get", &ran("apt"))], arguments)
}

/// The same beside such shell scripts.
fn run_beside(directory: &Path, programs: &[(&str, &str)], arguments: &[&str]) -> Output {
    for (name, text) in programs {
        let program = directory.join("bin").join(name);
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        script(&program, &format!("#!/bin/sh\n{text}"));
    }
    fs::create_dir_all(directory.join("ci")).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/test"), directory.join("ci/test")).unwrap();
    let path = format!("{}:{}", directory.join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.arg(directory.join("ci/test")).args(arguments).env("PATH", path);
    command.env("KELLER_STORE", directory.join("store")).env("TMPDIR", directory.join("not-there-yet"));
    command.output().unwrap()
}

#[test]
fn too_little_room_is_said_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let tests = directory.path().join("target/x86_64-unknown-linux-gnu/tmp");
    for name in ["trixie/systemd", "sick.disk"] {
        fs::create_dir_all(tests.join(name)).unwrap();
    }
    for arguments in [&[][..], &["--quick"]] {
        let output = run(directory.path(), 300, arguments);
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}{errors}");
        assert!(said.starts_with("ci/test: 300 MiB are free in /mount, and this run needs about "), "{said}");
        assert!(
            errors.starts_with("ci/test: too little: free some, or put the store (KELLER_STORE)"),
            "{errors}"
        );
        for ran in ["cargo-ran", "apt-ran"] {
            assert!(!directory.path().join(ran).exists(), "{ran}: {said}{errors}");
        }
    }
    // What an earlier run left is room, too.
    assert!(tests.join("trixie/systemd").exists() && !tests.join("sick.disk").exists());
}

#[test]
fn a_second_run_in_a_checkout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("target/x86_64-unknown-linux-gnu/tmp/of-the-first");
    fs::create_dir_all(&made).unwrap();
    let lock = directory.path().join("target/ci-test.lock");
    // A process that runs, and one that cannot.
    let alive =
        format!("process {} runs it in this checkout since 12:34:56: wait for its end", std::process::id());
    for (holder, said) in [
        (std::process::id().to_string(), &alive[..]),
        ("4194305".into(), "still runs, though its process 4194305"),
    ] {
        fs::write(&lock, format!("{holder} 12:34:56\n")).unwrap();
        let first = File::open(&lock).unwrap();
        first.lock().unwrap();
        let output = run(directory.path(), 300_000, &["--quick"]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.starts_with("ci/test: ") && errors.contains(said), "{errors}");
        assert!(made.exists() && !directory.path().join("cargo-ran").exists(), "{errors}");
    }
    // Once the first has ended, the next one goes on.
    let output = run(directory.path(), 300_000, &["--quick"]);
    assert!(!made.exists(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn enough_room_is_said_and_the_run_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), 300_000, &["--quick"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("ci/test: 300000 MiB are free in /mount"), "{said}");
    let went_on = ["cargo-ran", "apt-ran"].iter().any(|ran| directory.path().join(ran).exists());
    assert!(went_on, "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_took_how_long_is_told_whether_the_tests_pass_or_not() {
    let cargo = |status: u8| {
        format!(
            "case \"$*\" in
            *fmt*) exit 1 ;;
            *--no-run*) exit 0 ;;
            *'--test main'*) : ;;
            *) exit 0 ;;
            esac
            echo '...boot::disk::torn: a machine ran for 26 s and took 12 s of a processor'
            echo '{{\"a machine ran for 5 s\": 1}}'
            echo 'boot::trial::good: a machine ran for 725 s and took 300 s of a processor'
            echo '.boot::disk::torn: a machine ran for 12 s and took 9 s of a processor'
            exit {status}\n"
        )
    };
    // Whatever it compiles: the laws of this checkout are tried elsewhere.
    let rustc = "for last; do :; done; printf '#!/bin/sh\\n' > \"$last\"; chmod +x \"$last\"\n";
    for status in [0, 7] {
        let directory = tempfile::tempdir().unwrap();
        let programs = [
            ("df", "echo header; echo x 900000 1 300000 1% /mount\n"),
            ("cargo", &cargo(status)),
            ("rustc", rustc),
            ("clippy-driver", "exit 1\n"),
            ("apt-get", "exit 0\n"),
        ];
        let output = run_beside(directory.path(), &programs, &[]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.success(), status == 0, "{said}{}", String::from_utf8_lossy(&output.stderr));
        let machines = "ci/test:   300 s of a processor,   725 s,  1 machines: boot::trial::good\n\
             ci/test:    21 s of a processor,    38 s,  2 machines: boot::disk::torn\n\
             ci/test:   321 s of a processor,   763 s: all machines\n";
        assert!(said.contains(machines), "{said}");
        let units = said.lines().find(|line| line.starts_with("ci/test: units: "));
        assert!(units.is_some_and(|line| line.ends_with(" s of processors")), "{said}");
        let ends = said.trim_end().lines().last().unwrap().starts_with("ci/test: all of it: ");
        assert_eq!(ends, status == 0, "{said}");
    }
}
