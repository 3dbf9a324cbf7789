//! crun starts a bundle of keller's by the very commands of its unit, and what runs inside looks around.

use std::fs;
use std::path::Path;
use std::process::Command;

use keller::base::Size;
use keller::manifest::{Container, Runtime};
use keller::rootfs::Accounts;
use keller::rootfs::containers;
use serde_json::Value;

use super::quadlet::{container, image, root};
use super::tool::as_root;
use super::trixie::trixie;

/// Looks around as a program of the container may, and then fills what it can write to.
const LOOK: &str = "b=/bin/busybox; $b grep NoNewPrivs /proc/self/status; $b grep Seccomp: /proc/self/status
    $b grep CapEff /proc/self/status; $b cat /proc/mounts | $b grep ' / '
    $b stat -c 'root %a' /; $b test -s /proc/kcore && echo kcore; $b unshare -m true || echo closed
    $b dd if=/dev/zero of=/fill bs=64k 2>/dev/null || $b stat -c 'filled %s' /fill
    i=0; while $b touch /$i 2>/dev/null; do i=$((i+1)); [ $i -gt 9999 ] && break; done; echo files $i";

/// A root with the container's bundle, its own files in `folder` on disk, since crun starts it from there.
fn bundle(folder: &Path, container: &Container) -> Option<(String, Value)> {
    let shell = trixie(&["busybox-static"], "usr/bin/busybox")?;
    let shell = fs::read(shell.get_args().last().unwrap()).unwrap();
    let mut image = image("one");
    image.tree.file("bin/busybox", 0o755, shell).unwrap();
    for place in ["proc", "sys", "dev", "run"] {
        image.tree.directory(place, 0o755).unwrap();
    }
    image.config.entrypoint = ["/bin/busybox", "sh", "-c", LOOK].map(str::to_owned).to_vec();
    let mut tree = root();
    containers::install(&mut tree, Runtime::Crun, container, image, &Accounts::default()).unwrap();
    tree.write_to_folder(folder).unwrap();
    let read = |path: &str| String::from_utf8(tree.read(path).unwrap()).unwrap();
    let config = serde_json::from_str(&read("usr/share/keller/containers/one/config.json")).unwrap();
    Some((read("usr/lib/systemd/system/one.service"), config))
}

/// Runs the unit's commands in order, with the node's directories in `scratch`; gives what the container printed.
fn started(container: &Container) -> Option<String> {
    let crun = trixie(&["podman"], "usr/bin/crun")?;
    let crun = std::iter::once(crun.get_program()).chain(crun.get_args());
    let crun: Vec<_> = crun.map(|word| word.to_str().unwrap().to_owned()).collect();
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name).display().to_string();
    let (node, run) = (scratch.path().join("root"), at("run"));
    fs::create_dir(&node).unwrap();
    let (unit, mut config) = bundle(&node, container)?;
    let placed = |text: &str| {
        let text = text.replace("/usr/share/keller", &format!("{}/usr/share/keller", node.display()));
        text.replace("/run/keller", &run)
    };
    // Of the machine, not of the container: raising a limit takes a capability that tests need not have.
    config["process"]["rlimits"] = Value::Array(Vec::new());
    let bundle = node.join("usr/share/keller/containers/one/config.json");
    fs::write(bundle, placed(&config.to_string())).unwrap();
    let (mut script, mut directories) = (String::from("set -e\n"), String::new());
    for line in unit.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        match key {
            "RuntimeDirectory" => {
                let made = value.split(' ').map(|path| placed(&format!("/run/{path}")));
                directories = made.collect::<Vec<_>>().join(" ");
            }
            // As systemd does before each command.
            "ExecStartPre" | "ExecStart" => {
                script += &format!("mkdir -p {directories}; chmod 0700 {directories}\n");
            }
            _ => {}
        }
        match key {
            "ExecStartPre" if !value.starts_with('-') => script += &format!("{}\n", placed(value)),
            "ExecStart" => {
                let words = value.strip_prefix("crun ").unwrap();
                let engine = format!("{} --root {} --cgroup-manager=disabled", crun.join(" "), at("engine"));
                // crun takes no hierarchy of two versions, which hosts may have, and needs none here.
                script += &format!("mount -t cgroup2 none /sys/fs/cgroup\ngrep ' {run}/' /proc/mounts\n");
                script += &format!("{engine} {} 2>&1\n", placed(words));
            }
            _ => {}
        }
    }
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some(format!("{}\n{script}", String::from_utf8_lossy(&text)))
}

#[test]
fn a_container_has_no_more_than_it_should() {
    if !as_root("start a container") {
        return;
    }
    for new_privileges in [false, true] {
        let container = Container { new_privileges, scratch: Size(2 << 20), ..container("one") };
        let Some(said) = started(&container) else { return };
        let line = |start: &str| {
            let found = said.lines().find(|line| line.starts_with(start));
            found.unwrap_or_else(|| panic!("nothing begins with {start:?}:\n{said}")).to_owned()
        };
        assert!(line("NoNewPrivs").ends_with(if new_privileges { '0' } else { '1' }), "{said}");
        assert!(line("Seccomp:").ends_with('2'), "{said}");
        // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT, SETFCAP.
        assert!(line("CapEff").ends_with("00000000800405fb"), "{said}");
        let mount = |place: &str| {
            let on_node = |line: &&str| line.starts_with("one /") && line.contains(place);
            said.lines().find(on_node).unwrap_or_else(|| panic!("{said}"))
        };
        assert!(mount("/scratch tmpfs ").contains("rw,nosuid,nodev,"), "{said}");
        let root = mount("/root overlay ");
        assert!(root.contains("nodev,") && root.contains("nosuid,") != new_privileges, "{root}");
        // Under podman, whose mounts are nosuid, `new_privileges` goes by this.
        assert!(!line("one / overlay ").contains("nosuid"), "{said}");
        assert_eq!(line("root "), "root 755", "{said}");
        assert!(!said.contains("kcore\n") && said.contains("\nclosed\n"), "{said}");
        let filled: u64 = line("filled ")["filled ".len()..].parse().unwrap();
        assert!((1 << 20..=2 << 20).contains(&filled), "{filled}");
        // 512 in all, some of which are directories and the file that fills it.
        let files: u64 = line("files ")["files ".len()..].parse().unwrap();
        assert!((100..512).contains(&files), "{files}");
    }
}
