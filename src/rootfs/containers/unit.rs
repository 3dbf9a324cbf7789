//! containerd and crun: a root directory in the verified root, a writable overlay in memory, a systemd unit.

use super::{ContainerError, FOLDER, Image, closed, program, spec, volumes};
use crate::manifest::{Container, Runtime};
use crate::rootfs::Accounts;
use crate::rootfs::text::unit::{Unit, word};
use crate::tree::Tree;

/// Where their writable overlays are mounted.
const RUN: &str = "/run/keller/containers";

const UNITS: &str = "usr/lib/systemd/system";

/// Bytes of a container's scratch memory for each file in it that it may make: a page. Without a limit of its own a
/// tmpfs takes as many files as half of the node's memory has pages.
const BYTES_PER_INODE: u64 = 4096;

/// Adds the root directory, the runtime specification and `<name>.service`. Says where the root directory is.
pub fn install(
    tree: &mut Tree,
    runtime: Runtime,
    container: &Container,
    image: Image,
    accounts: &Accounts,
) -> Result<String, ContainerError> {
    let unsupported = |what, mend| ContainerError::Unsupported {
        container: container.name.clone(),
        what,
        runtime: if runtime == Runtime::Crun { "crun" } else { "containerd" },
        mend,
    };
    if !container.host_network && !container.ports.is_empty() {
        return Err(unsupported("published ports", "set `host_network: true`, or `runtime: podman`"));
    }
    let (engine, package) = match runtime {
        Runtime::Crun => ("/usr/bin/crun", "crun"),
        _ => ("/usr/bin/ctr", "containerd"),
    };
    super::need(tree, container, engine, package)?;
    super::need(tree, container, "/usr/bin/mount", "mount")?;
    super::need(tree, container, "/usr/bin/mkdir", "coreutils")?;
    let account = program::check(container, &image)?;
    let name = &container.name;
    let folder = format!("{FOLDER}/{name}");
    closed(tree, FOLDER)?;
    closed(tree, &folder)?;
    let origin = tree.origin(&format!("container {name}"));
    let root = format!("{RUN}/{name}/root");
    let unit = format!("{name}.service");
    let config = spec::config(container, &image, &account, &root, &format!("/system.slice/{unit}/container"));
    tree.file(format!("{folder}/config.json"), 0o600, config.to_string())?;
    tree.file(format!("{UNITS}/{unit}"), 0o644, service(runtime, container, &image, &folder))?;
    if container.start {
        tree.symlink(format!("{UNITS}/multi-user.target.wants/{unit}"), format!("../{unit}"))?;
    }
    volumes::install(tree, container, &image, &account, accounts)?;
    let rootfs = format!("{folder}/rootfs");
    tree.graft(&rootfs, image.tree, origin)?;
    Ok(rootfs)
}

/// Whether the unit waits until the node has a network: where the container serves or uses that of the host.
pub fn waits_for_network(container: &Container) -> bool {
    container.host_network || !container.ports.is_empty()
}

/// The unit. Each start finds the image's own files and nothing of the run before, as it is with podman: what
/// is to be kept belongs into volumes. What it writes elsewhere is in a tmpfs of its own: it can fill that, but not the
/// node's /run. Nobody but root comes near its files: neither in the verified root, nor where they are mounted, where
/// its setuid programs would be the node's. The container is a group below the unit's own, so limits and signals
/// of the unit reach it and `systemctl status` shows its processes, also where containerd has started them.
fn service(runtime: Runtime, container: &Container, image: &Image, folder: &str) -> String {
    let name = container.name.as_str();
    // What a crash has left behind: of containerd also over a reboot, which ends the tasks but not the record of
    // the container.
    let (before, after): (&[&str], &[&str]) = match runtime {
        Runtime::Crun => (&["crun delete --force"], &["crun delete --force"]),
        _ => (
            &["ctr --namespace keller containers delete"],
            &["ctr --namespace keller tasks delete --force", "ctr --namespace keller containers delete"],
        ),
    };
    let config = format!("/{folder}/config.json");
    let bundle = format!("/{folder}");
    let start: &[&str] = match runtime {
        Runtime::Crun => &["crun", "run", "--bundle", &bundle, name],
        _ => &["ctr", "--namespace", "keller", "run", "--rm", "--config", &config, name],
    };
    let mut unit = Unit::default();
    unit.section("Unit").set("Description", &format!("Container {name}"));
    if waits_for_network(container) {
        unit.set("Wants", "network-online.target").set("After", "network-online.target");
    }
    if runtime != Runtime::Crun {
        unit.set("Requires", "containerd.service").set("After", "containerd.service");
    }
    for volume in &container.volumes {
        unit.set("RequiresMountsFor", &word(&volume.host));
    }
    let run = format!("{RUN}/{name}");
    let place = run.trim_start_matches("/run/");
    unit.section("Service").set("Type", "exec").set("Delegate", "yes").set("DelegateSubgroup", "supervisor");
    // Not what is below it: systemd sets the mode anew before each command, and then it would be that of what is mounted.
    unit.set("RuntimeDirectory", place).set("RuntimeDirectoryMode", "0700");
    // Usually there is nothing, and the engine complains of it.
    let clean = |unit: &mut Unit, key: &str, commands: &[&str]| {
        for command in commands {
            unit.command(key, "-", &["sh", "-c", &format!("exec {command} {name} 2>/dev/null")]);
        }
    };
    clean(&mut unit, "ExecStartPre", before);
    let (root, scratch) = (format!("{run}/root"), format!("{run}/scratch"));
    let (upper, work) = (format!("{scratch}/upper"), format!("{scratch}/work"));
    let size = container.scratch.bytes();
    let options = format!("size={size},nr_inodes={},mode=0700,nosuid,nodev", size / BYTES_PER_INODE);
    unit.command("ExecStartPre", "", &["mkdir", "--parents", &root, &scratch]);
    unit.command("ExecStartPre", "", &["mount", "-t", "tmpfs", name, "-o", &options, &scratch]);
    unit.command("ExecStartPre", "", &["mkdir", &upper, &work]);
    let suid = if container.new_privileges { "suid" } else { "nosuid" };
    let options = format!("{suid},nodev,lowerdir=/{folder}/rootfs,upperdir={upper},workdir={work}");
    unit.command("ExecStartPre", "", &["mount", "-t", "overlay", name, "-o", &options, &root]);
    unit.command("ExecStart", "", start);
    clean(&mut unit, "ExecStopPost", after);
    unit.command("ExecStopPost", "-", &["umount", "--lazy", &root]);
    unit.command("ExecStopPost", "-", &["umount", "--lazy", &scratch]);
    // The engine hands every signal that it gets on to the container.
    if let Some(signal) = image.config.stop_signal {
        unit.set("KillSignal", &signal.to_string());
    }
    unit.set("KillMode", "mixed").set("TimeoutStopSec", "10").set("Restart", "always").set("RestartSec", "2");
    unit.section("Install").set("WantedBy", "multi-user.target");
    unit.finish()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn container() -> Container {
        Container {
            name: "web".into(),
            image: crate::manifest::ContainerImage::Archive {
                path: "web.tar".into(),
                reference: None,
                allowed: Default::default(),
            },
            command: Vec::new(),
            environment: Default::default(),
            ports: Vec::new(),
            volumes: Vec::new(),
            host_network: false,
            start: true,
            new_privileges: false,
            scratch: Container::SCRATCH,
            said: Default::default(),
        }
    }

    #[test]
    fn a_unit_for_each_engine() {
        let config = Config { stop_signal: "3".parse().ok(), ..Config::default() };
        let image = Image { reference: String::new(), tree: Tree::new(0), config };
        let text = service(Runtime::Containerd, &container(), &image, "usr/share/keller/containers/web");
        assert!(text.contains("Requires=containerd.service\n"), "{text}");
        assert!(
            text.contains("RuntimeDirectory=keller/containers/web\nRuntimeDirectoryMode=0700\n"),
            "{text}"
        );
        let start =
            "ctr --namespace keller run --rm --config /usr/share/keller/containers/web/config.json web";
        assert!(text.contains(&format!("ExecStart={start}\n")), "{text}");
        let text = service(Runtime::Crun, &container(), &image, "usr/share/keller/containers/web");
        assert!(
            text.contains("ExecStart=crun run --bundle /usr/share/keller/containers/web web\n"),
            "{text}"
        );
        assert!(!text.contains("containerd"));
        assert!(text.contains("KillSignal=SIGQUIT\n"), "{text}");
    }

    #[test]
    fn who_waits_for_the_network() {
        let image = Image { reference: String::new(), tree: Tree::new(0), config: Config::default() };
        let ports = vec![crate::manifest::Port { host: 80, container: 80, udp: false }];
        for (container, waits) in [
            (container(), false),
            (Container { host_network: true, ..container() }, true),
            (Container { ports, ..container() }, true),
        ] {
            let quadlet = super::super::podman::quadlet_file(&container, &image);
            assert_eq!(quadlet.contains("network-online.target"), waits, "{quadlet}");
            let unit = service(Runtime::Crun, &container, &image, "x");
            assert_eq!(unit.contains("network-online.target"), waits, "{unit}");
        }
    }

    #[test]
    fn what_the_engine_lacks_is_told() {
        let mut tree = Tree::new(0);
        let ports = vec![crate::manifest::Port { host: 80, container: 80, udp: false }];
        let container = Container { ports, ..container() };
        let image = Image { reference: String::new(), tree: Tree::new(0), config: Default::default() };
        let error = install(&mut tree, Runtime::Crun, &container, image.clone(), &Accounts::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("published ports") && error.contains("`host_network: true`"), "{error}");
        let container = Container { ports: Vec::new(), ..container };
        let error = install(&mut tree, Runtime::Crun, &container, image.clone(), &Accounts::default())
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "container web needs /usr/bin/crun, which is not in the root: add crun to `packages`"
        );
    }
}
