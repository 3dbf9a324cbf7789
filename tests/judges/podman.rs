//! What podman gives a container by default, and what keller gives it under crun and containerd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keller::manifest::Runtime;
use keller::rootfs::Accounts;
use keller::rootfs::containers;
use serde_json::{Value, json};

use super::quadlet::{container, image, root};
use super::tool::{as_root, script};
use super::trixie::trixie;

/// Where images lie in a root.
const STORE: &str = "usr/share/keller/containers";

/// What podman hands the runtime is kept, and no container is made.
const RUNTIME: &str = "#!/bin/sh
while [ $# -gt 0 ]; do
  [ \"$1\" = --bundle ] && cp \"$2/config.json\" \"${0%/*}/config.json\" && cat /proc/self/mounts >\"${0%/*}/mounts\"
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

/// What podman does for a container: the specification that it writes, and what is mounted then.
struct Made {
    specification: Value,
    mounts: String,
}

/// Has podman make a container with these options and words, `storage` being its storage.conf, up to where the
/// runtime would start it. `prepare` fills the directory it works in, whose path stands for `@` in all of them.
fn made(storage: &str, options: &[&str], words: &[&str], prepare: impl Fn(&Path)) -> Option<Made> {
    let (tree, podman) = podman()?;
    let conmon = self::words(&trixie(&["podman"], "usr/bin/conmon")?).join(" ");
    let scratch = tempfile::tempdir().unwrap();
    prepare(scratch.path());
    let at = |name: &str| scratch.path().join(name).display().to_string();
    let placed = |text: &str| text.replace('@', &scratch.path().display().to_string());
    script(&scratch.path().join("conmon"), &format!("#!/bin/sh\nexec {conmon} \"$@\"\n"));
    script(&scratch.path().join("runtime"), RUNTIME);
    for network in ["netavark", "aardvark-dns"] {
        script(&scratch.path().join(network), "#!/bin/sh\n");
    }
    let settings = format!("[engine]\nevents_logger=\"none\"\nhelper_binaries_dir=[\"{}\"]\n", at(""));
    fs::write(scratch.path().join("containers.conf"), settings).unwrap();
    fs::write(scratch.path().join("storage.conf"), placed(storage)).unwrap();
    let mut global = self::words(&podman);
    for (option, value) in [
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
    let create = ["create", "--name=one", "--network=none", "--pull=never", &seccomp].into_iter();
    let create = create.chain(options.iter().copied()).chain(words.iter().copied()).map(&placed);
    for words in [create.collect(), vec!["init".to_owned(), "one".to_owned()]] {
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
    let read = |name: &str| fs::read_to_string(scratch.path().join(name)).unwrap();
    Some(Made { specification: serde_json::from_str(&read("config.json")).unwrap(), mounts: read("mounts") })
}

/// The specification that podman writes for a container with these options.
fn specification(options: &[&str]) -> Option<Value> {
    let storage = "[storage]\ndriver = \"vfs\"\ngraphroot = \"@/store\"\nrunroot = \"@/run\"\n";
    let rootfs = |scratch: &Path| {
        fs::create_dir_all(scratch.join("rootfs/bin")).unwrap();
        script(&scratch.join("rootfs/bin/app"), "#!/bin/app\n");
    };
    Some(made(storage, options, &["--rootfs", "@/rootfs", "/bin/app"], rootfs)?.specification)
}

/// The specification in the bundle that keller makes.
fn bundle(runtime: Runtime, new_privileges: bool) -> Value {
    let mut tree = root();
    let container = keller::manifest::Container { new_privileges, ..container("one") };
    containers::install(&mut tree, runtime, &container, image("one"), &Accounts::default()).unwrap();
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
    if !as_root("have podman write a specification") {
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
    if !as_root("have podman write a specification") {
        return;
    }
    let Some(theirs) = specification(&[]) else { return };
    // What is false is left out.
    assert_eq!(theirs["process"].get("noNewPrivileges"), None);
}

#[test]
fn podman_takes_its_image_from_the_closed_store() {
    if !as_root("have podman mount an image") {
        return;
    }
    let conf = include_str!("../../overlays/podman/usr/share/containers/storage.conf");
    let conf = conf
        .replace("/run/containers/storage", "@/run")
        .replace("/var/lib/containers/storage", "@/state")
        .replace("/usr/share/keller", "@/root/usr/share/keller");
    let prepare = |scratch: &Path| {
        let mut tree = root();
        containers::install(
            &mut tree,
            Runtime::Podman,
            &container("one"),
            image("one"),
            &Accounts::default(),
        )
        .unwrap();
        fs::create_dir(scratch.join("root")).unwrap();
        tree.write_to_folder(&scratch.join("root")).unwrap();
        // What is written as any user leaves modes out.
        for (path, id) in tree.walk().into_iter().filter(|(path, _)| path.starts_with(STORE.as_bytes())) {
            let place = scratch.join("root").join(str::from_utf8(&path).unwrap());
            let mode = u32::from(tree.node(id).meta.mode);
            if !place.is_symlink() {
                fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        let mode = fs::metadata(scratch.join("root").join(STORE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    };
    let Some(made) = made(&conf, &[], &["localhost/one:latest"], prepare) else { return };
    assert_eq!(made.specification["process"]["args"], json!(["/app"]));
    let root = made.specification["root"]["path"].as_str().unwrap();
    let mount = made.mounts.lines().find(|line| line.split(' ').nth(1) == Some(root));
    let mount = mount.unwrap_or_else(|| panic!("{root} is not mounted:\n{}", made.mounts));
    assert!(mount.starts_with("overlay ") && mount.contains(",nosuid,nodev,"), "{mount}");
    assert!(mount.contains("/root/usr/share/keller/containers/storage/overlay/"), "{mount}");
}
