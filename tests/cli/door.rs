//! The library's front door, as the command line goes through it, and an installer or a lab would: no arguments, no
//! words printed, values in and out.

use std::path::{Path, PathBuf};
use std::process::Command;

use keller::base::progress::Silent;
use keller::lock::resolve::Update;
use keller::project::inspect::inspect;
use keller::project::{Build, Inputs, Policy, Relock};

use super::project::{Project, Ran};

/// Where [`goes_through_the_door`] works. The door reads the environment for the store, its key and the mirror, so that
/// it is tried in a process with one of its own.
const PLACE: &str = "PLACE_OF_THE_DOOR";

fn through_the_door(project: &Project) -> Ran {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "cli::door::goes_through_the_door", "--nocapture"]).env_clear();
    command.env("HOME", project.path("")).env(PLACE, project.path(""));
    command.env("KELLER_STORE", project.path("store")).env("KELLER_MIRROR", project.path("mirror/debian"));
    Ran::of(&command.output().unwrap())
}

#[test]
fn a_program_builds_what_keller_does() {
    let project = Project::new();
    project.edit("runtime: podman", "outputs: [qcow2, raw]\nruntime: podman");
    through_the_door(&project).good();
    let ran = project.build(&["--locked", "--offline"]).good();
    assert!(!ran.err.contains("node.lock"), "{}", ran.err);
    for file in ["SHA256SUMS", "build.json"] {
        assert_eq!(project.text(&format!("door/{file}")), project.text(&format!("node/out/{file}")));
    }
    assert_eq!(project.names("door"), project.names("node/out"));
}

/// Plays another program that builds images; as a test of its own it does nothing.
#[test]
fn goes_through_the_door() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let (node, lock) = (place.join("node/node.yaml"), place.join("node/node.lock"));
    let build = Build {
        manifest: Some(node.clone()),
        version: None,
        output: Some(place.join("door")),
        policy: Policy::Locked,
        check: false,
        sums: true,
        install: None,
        keller: Some(place.join("fake-keller")),
        allow_debug: false,
        inputs: Inputs::default(),
    };
    let refused = |build: &Build| format!("{:#}", build.run(&Silent).unwrap_err());
    let missing = format!("there is no lock {}: make it with `keller lock`", lock.display());
    assert_eq!(refused(&build), format!("building {}: {missing}", node.display()));
    assert!(!place.join("door").exists() && !lock.exists());

    let relock = Relock { manifest: node, update: Update::Nothing, inputs: Inputs::default() };
    let first = relock.run(&Silent).unwrap();
    assert!(first.changed && first.path == lock && lock.is_file());
    let again = relock.run(&Silent).unwrap();
    assert!(!again.changed && again.lock == first.lock);

    let elsewhere = Inputs { store: Some(place.join("empty")), offline: true, ..Inputs::default() };
    let said = refused(&Build { inputs: elsewhere, ..build.clone() });
    assert!(said.contains("of the lock's files"), "{said}");

    let built = build.run(&Silent).unwrap();
    let files: Vec<&Path> = built.files.iter().map(|(_, path)| path.as_path()).collect();
    assert_eq!(files, [place.join("door/tiny_1.2.3.qcow2"), place.join("door/tiny_1.2.3.raw")]);
    assert_eq!(built.bootable(), place.join("door/tiny_1.2.3.raw"));
    assert_eq!((built.pages(), built.project.lock), (vec![8080], lock));
    let inspection = inspect(&place.join("door/tiny_1.2.3.qcow2"), true, &Silent).unwrap();
    assert!(inspection.problems.is_empty(), "{:?}", inspection.problems);
    assert_eq!(inspection.slots[0].release.as_ref().unwrap().root_hash, built.report.sizes.root_hash);
}
