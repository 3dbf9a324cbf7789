//! containerd and crun: a root folder in the verified root, a writable overlay in memory, a systemd unit.

use super::spec::{self, Account};
use super::{ContainerError, Image};
use crate::manifest::{Container, Runtime};
use crate::tree::{Tree, TreeError};

/// Where the roots of containers lie in the verified root.
const ROOTS: &str = "usr/share/keller/containers";

/// Where their writable overlays are mounted.
const RUN: &str = "/run/keller/containers";

const UNITS: &str = "usr/lib/systemd/system";

/// Adds the root folder, the runtime specification and `<name>.service`.
pub fn install(
    tree: &mut Tree,
    runtime: Runtime,
    container: &Container,
    image: &Image,
) -> Result<(), ContainerError> {
    let unsupported = |what, mend| ContainerError::Unsupported {
        container: container.name.clone(),
        what,
        runtime: if runtime == Runtime::Crun { "crun" } else { "containerd" },
        mend,
    };
    if !container.host_network && !container.ports.is_empty() {
        return Err(unsupported("published ports", "set `host_network: true`, or `runtime: podman`"));
    }
    let account = spec::account(&image.tree, image.config.user.as_deref())
        .ok_or_else(|| unsupported("a user that its /etc/passwd does not have", "name one that it has"))?;
    let (engine, package) = match runtime {
        Runtime::Crun => ("/usr/bin/crun", "crun"),
        _ => ("/usr/bin/ctr", "containerd"),
    };
    super::need(tree, container, engine, package)?;
    super::need(tree, container, "/usr/bin/mount", "mount")?;
    let name = &container.name;
    let folder = format!("{ROOTS}/{name}");
    let origin = tree.origin(&format!("container {name}"));
    tree.graft(&format!("{folder}/rootfs"), &image.tree, origin)?;
    let root = format!("{RUN}/{name}/root");
    let unit = format!("{name}.service");
    let config = spec::config(container, image, &account, &root, &format!("/system.slice/{unit}/container"));
    tree.file(format!("{folder}/config.json"), 0o644, config.to_string())?;
    tree.file(format!("{UNITS}/{unit}"), 0o644, service(runtime, name, &folder))?;
    if container.start {
        tree.symlink(format!("{UNITS}/multi-user.target.wants/{unit}"), format!("../{unit}"))?;
    }
    volume_folders(tree, container, &account)?;
    Ok(())
}

/// The unit. Each start finds the image's own files and nothing of the run before, as it is with podman: what
/// is to be kept belongs into volumes. The container is a group below the unit's own, so limits and signals
/// of the unit reach it and `systemctl status` shows its processes, also where containerd has started them.
fn service(runtime: Runtime, name: &str, folder: &str) -> String {
    // What a crash has left behind: of containerd also over a reboot, which ends the tasks but not the record of
    // the container.
    let (requires, before, after, start): (_, &[&str], &[&str], _) = match runtime {
        Runtime::Crun => (
            "",
            &["crun delete --force"],
            &["crun delete --force"],
            format!("crun run --bundle /{folder} {name}"),
        ),
        _ => (
            "Requires=containerd.service\nAfter=containerd.service\n",
            &["ctr --namespace keller containers delete"],
            &["ctr --namespace keller tasks delete --force", "ctr --namespace keller containers delete"],
            format!("ctr --namespace keller run --rm --config /{folder}/config.json {name}"),
        ),
    };
    // Usually there is nothing, and the engine complains of it.
    let clean = |key: &str, commands: &[&str]| -> String {
        let line = |command: &&str| format!("{key}=-sh -c \"exec {command} {name} 2>/dev/null\"\n");
        commands.iter().map(line).collect()
    };
    let run = format!("{RUN}/{name}");
    let place = run.trim_start_matches("/run/");
    let mut text = format!(
        "[Unit]\nDescription=Container {name}\nWants=network-online.target\n\
         After=network-online.target\n{requires}\n\
         [Service]\nType=exec\nDelegate=yes\nDelegateSubgroup=supervisor\n\
         RuntimeDirectory={place}/root {place}/upper {place}/work\n"
    );
    text += &clean("ExecStartPre", before);
    text += &format!(
        "ExecStartPre=mount -t overlay {name} -o \
         lowerdir=/{folder}/rootfs,upperdir={run}/upper,workdir={run}/work {run}/root\n\
         ExecStart={start}\n"
    );
    text += &clean("ExecStopPost", after);
    text += &format!("ExecStopPost=-umount --lazy {run}/root\n");
    text += "KillMode=mixed\nTimeoutStopSec=10\nRestart=always\nRestartSec=2\n\n\
             [Install]\nWantedBy=multi-user.target\n";
    text
}

/// Folders on the state partition that volumes name are made at boot, for the container's user.
pub fn volume_folders(tree: &mut Tree, container: &Container, account: &Account) -> Result<(), TreeError> {
    let lines: String = container
        .volumes
        .iter()
        .filter(|volume| volume.host.starts_with("/var/"))
        .map(|volume| format!("d {} 0755 {} {} -\n", volume.host, account.uid, account.gid))
        .collect();
    if !lines.is_empty() {
        tree.file(format!("usr/lib/tmpfiles.d/keller-volumes-{}.conf", container.name), 0o644, lines)?;
    }
    Ok(())
}

/// Words of a command as systemd.service(5) "Command lines" wants them.
pub fn words(words: &[String]) -> String {
    words.iter().map(|text| word(text)).collect::<Vec<_>>().join(" ")
}

/// One word, quoted; `%` and `$` stand for themselves.
pub fn word(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '%' | '$' => quoted.extend([letter, letter]),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(words(&["a b".into(), "50%".into(), "\"$x\"".into()]), r#""a b" "50%%" "\"$$x\"""#);
    }

    #[test]
    fn a_unit_for_each_engine() {
        let text = service(Runtime::Containerd, "web", "usr/share/keller/containers/web");
        assert!(text.contains("Requires=containerd.service\n"), "{text}");
        assert!(text.contains("RuntimeDirectory=keller/containers/web/root keller/containers/web/upper "));
        let start =
            "ctr --namespace keller run --rm --config /usr/share/keller/containers/web/config.json web";
        assert!(text.contains(&format!("ExecStart={start}\n")), "{text}");
        let text = service(Runtime::Crun, "web", "usr/share/keller/containers/web");
        assert!(
            text.contains("ExecStart=crun run --bundle /usr/share/keller/containers/web web\n"),
            "{text}"
        );
        assert!(!text.contains("containerd"));
    }

    #[test]
    fn what_the_engine_lacks_is_told() {
        let mut tree = Tree::new(0);
        let container = Container {
            name: "web".into(),
            image: crate::manifest::ContainerImage::Archive("web.tar".into()),
            command: Vec::new(),
            environment: Default::default(),
            ports: vec![crate::manifest::Port { host: 80, container: 80, udp: false }],
            volumes: Vec::new(),
            host_network: false,
            start: true,
        };
        let image = Image { reference: String::new(), tree: Tree::new(0), config: Default::default() };
        let error = install(&mut tree, Runtime::Crun, &container, &image).unwrap_err().to_string();
        assert!(error.contains("published ports") && error.contains("`host_network: true`"), "{error}");
        let container = Container { ports: Vec::new(), ..container };
        let error = install(&mut tree, Runtime::Crun, &container, &image).unwrap_err().to_string();
        assert_eq!(
            error,
            "container web needs /usr/bin/crun, which is not in the root: add crun to `packages`"
        );
    }
}
