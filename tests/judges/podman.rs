//! What podman gives a container by default, and what keller gives it under crun and containerd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keller::manifest::Runtime;
use keller::rootfs::containers;
use serde_json::{Value, json};

use super::quadlet::{container, image, root};
use super::trixie::trixie;
use crate::boot::parts::is_root;

/// What podman hands the runtime is kept, and no container is made.
const RUNTIME: &str = "#!/bin/sh
while [ $# -gt 0 ]; do
  [ \"$1\" = --bundle ] && cp \"$2/config.json\" \"${0%/*}/config.json\"
  shift
done
exit 1
";

/// The tree of podman's packages, and a command for podman.
fn podman() -> Option<(PathBuf, Command)> {
    let command = trixie(&["podman"], "usr/bin/podman")?;
    let program = PathBuf::from(command.get_args().last().unwrap());
    Some((program.ancestors().nth(3).unwrap().to_owned(), command))
}

fn words(command: &Command) -> Vec<String> {
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    all.map(|word| word.to_str().unwrap().to_owned()).collect()
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The specification that podman writes for a container with these options.
fn specification(options: &[&str]) -> Option<Value> {
    let (tree, podman) = podman()?;
    let conmon = words(&trixie(&["podman"], "usr/bin/conmon")?).join(" ");
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name).display().to_string();
    script(&scratch.path().join("conmon"), &format!("#!/bin/sh\nexec {conmon} \"$@\"\n"));
    script(&scratch.path().join("runtime"), RUNTIME);
    for network in ["netavark", "aardvark-dns"] {
        script(&scratch.path().join(network), "#!/bin/sh\n");
    }
    fs::create_dir_all(scratch.path().join("rootfs/bin")).unwrap();
    script(&scratch.path().join("rootfs/bin/app"), "#!/bin/app\n");
    let settings = format!("[engine]\nevents_logger=\"none\"\nhelper_binaries_dir=[\"{}\"]\n", at(""));
    fs::write(scratch.path().join("containers.conf"), settings).unwrap();
    fs::write(scratch.path().join("storage.conf"), "[storage]\ndriver = \"vfs\"\n").unwrap();
    let mut global = words(&podman);
    for (option, value) in [
        ("root", at("store")),
        ("runroot", at("run")),
        ("tmpdir", at("tmp")),
        ("conmon", at("conmon")),
        ("runtime", at("runtime")),
        ("network-config-dir", at("networks")),
        ("cgroup-manager", "cgroupfs".to_owned()),
    ] {
        global.push(format!("--{option}={value}"));
    }
    let profile = tree.join("usr/share/containers/seccomp.json");
    let seccomp = format!("--security-opt=seccomp={}", profile.display());
    let create =
        ["create", "--name=one", "--network=none", &seccomp].into_iter().chain(options.iter().copied());
    let rootfs = at("rootfs");
    for words in [create.chain(["--rootfs", &rootfs, "/bin/app"]).collect(), vec!["init", "one"]] {
        // What podman mounts goes with the namespace.
        let mut command = Command::new("unshare");
        command.arg("--mount").args(&global).args(words);
        command.env("CONTAINERS_CONF", at("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", at("storage.conf"));
        command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        // The second cannot succeed: this runtime makes nothing.
        assert!(output.status.success() || scratch.path().join("config.json").exists(), "{text}");
    }
    Some(serde_json::from_slice(&fs::read(scratch.path().join("config.json")).unwrap()).unwrap())
}

/// The specification in the bundle that keller makes.
fn bundle(runtime: Runtime, new_privileges: bool) -> Value {
    let mut tree = root();
    let container = keller::manifest::Container { new_privileges, ..container("one") };
    containers::install(&mut tree, runtime, &container, &image("one")).unwrap();
    serde_json::from_slice(&tree.read("usr/share/keller/containers/one/config.json").unwrap()).unwrap()
}

/// Paths as a set: podman names one of them twice.
fn set(paths: &Value) -> Vec<&str> {
    let mut paths: Vec<&str> = paths.as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

#[test]
fn the_profile_of_system_calls_is_that_of_debian() {
    let Some((tree, _)) = podman() else { return };
    let theirs = fs::read_to_string(tree.join("usr/share/containers/seccomp.json")).unwrap();
    let ours = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/rootfs/containers/seccomp.json"));
    assert_eq!(ours.unwrap(), theirs, "copy the file of the newer package");
}

#[test]
fn a_bundle_takes_away_what_podman_does() {
    if !is_root() {
        println!("SKIPPED: only root can have podman write a specification");
        return;
    }
    let Some(theirs) = specification(&["--security-opt=no-new-privileges"]) else { return };
    for runtime in [Runtime::Crun, Runtime::Containerd] {
        let ours = bundle(runtime, false);
        for key in ["maskedPaths", "readonlyPaths"] {
            assert_eq!(set(&ours["linux"][key]), set(&theirs["linux"][key]), "{key}");
        }
        assert_eq!(ours["linux"]["seccomp"], theirs["linux"]["seccomp"]);
        assert_eq!(ours["linux"]["resources"]["devices"], theirs["linux"]["resources"]["devices"]);
        assert_eq!(ours["process"]["capabilities"], theirs["process"]["capabilities"]);
        assert_eq!(ours["process"]["noNewPrivileges"], theirs["process"]["noNewPrivileges"]);
        assert_eq!(ours["process"]["noNewPrivileges"], json!(true));
    }
}

#[test]
fn new_privileges_are_those_of_podman() {
    assert_eq!(bundle(Runtime::Crun, true)["process"]["noNewPrivileges"], json!(false));
    if !is_root() {
        println!("SKIPPED: only root can have podman write a specification");
        return;
    }
    let Some(theirs) = specification(&[]) else { return };
    // What is false is left out.
    assert_eq!(theirs["process"].get("noNewPrivileges"), None);
}
