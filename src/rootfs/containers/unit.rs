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

/// Adds the root folder, the runtime specification, a mount unit and `<name>.service`.
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
        return Err(unsupported("published ports", "set network: host, or runtime: podman"));
    }
    let account = spec::account(&image.tree, image.config.user.as_deref())
        .ok_or_else(|| unsupported("a user that its /etc/passwd does not have", "name one that it has"))?;
    let name = &container.name;
    let folder = format!("{ROOTS}/{name}");
    let origin = tree.origin(&format!("container {name}"));
    tree.graft(&format!("{folder}/rootfs"), &image.tree, origin)?;
    let root = format!("{RUN}/{name}/root");
    let config = spec::config(container, image, account, &root);
    tree.file(format!("{folder}/config.json"), 0o644, config.to_string())?;

    let mount = format!("run-keller-containers-{}-root.mount", name.replace('-', "\\x2d"));
    tree.file(format!("{UNITS}/{mount}"), 0o644, mount_unit(name))?;
    tree.file(
        format!("usr/lib/tmpfiles.d/keller-container-{name}.conf"),
        0o644,
        format!("d {RUN}/{name}/upper 0755 root root -\nd {RUN}/{name}/work 0755 root root -\n"),
    )?;
    tree.file(format!("{UNITS}/{name}.service"), 0o644, service(runtime, name, &mount, &folder))?;
    if container.start {
        tree.symlink(
            format!("{UNITS}/multi-user.target.wants/{name}.service"),
            format!("../{name}.service"),
        )?;
    }
    volume_folders(tree, container, account)?;
    Ok(())
}

fn mount_unit(name: &str) -> String {
    format!(
        "[Unit]\nDescription=Writable root of container {name}\nDefaultDependencies=no\n\
         After=systemd-tmpfiles-setup.service\nConflicts=umount.target\nBefore=umount.target\n\n\
         [Mount]\nWhat=overlay\nWhere={RUN}/{name}/root\nType=overlay\n\
         Options=lowerdir=/{ROOTS}/{name}/rootfs,upperdir={RUN}/{name}/upper,workdir={RUN}/{name}/work\n"
    )
}

fn service(runtime: Runtime, name: &str, mount: &str, folder: &str) -> String {
    let mut text = format!(
        "[Unit]\nDescription=Container {name}\nAfter=network-online.target {mount}\n\
         Wants=network-online.target\nRequires={mount}\n"
    );
    let (engine, clean, start) = match runtime {
        Runtime::Crun => (
            "",
            format!("/usr/bin/crun delete --force {name}"),
            format!("/usr/bin/crun run --bundle /{folder} {name}"),
        ),
        _ => (
            "Requires=containerd.service\nAfter=containerd.service\n",
            format!("/usr/bin/ctr --namespace keller containers delete {name}"),
            format!("/usr/bin/ctr --namespace keller run --rm --config /{folder}/config.json {name}"),
        ),
    };
    text.push_str(engine);
    text.push_str(&format!(
        "\n[Service]\nExecStartPre=-{clean}\nExecStart={start}\nExecStopPost=-{clean}\n\
         KillMode=mixed\nRestart=always\nRestartSec=2\n\n[Install]\nWantedBy=multi-user.target\n"
    ));
    text
}

/// Folders on the state partition that volumes name are made at boot, for the container's user.
pub fn volume_folders(tree: &mut Tree, container: &Container, account: Account) -> Result<(), TreeError> {
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
}
