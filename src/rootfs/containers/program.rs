//! What a container starts: looked up in its image as the runtime will, so that what cannot start fails the build.

use std::io::Read;

use super::ContainerError;
use super::image::{DEFAULT_PATH, Image};
use super::mounts::{Mounts, There};
use super::spec::{self, Account};
use crate::manifest::Container;
use crate::tree::{Content, Kind, Meta, NodeId, show};

/// ELF header, e_machine: where it stands, and what an x86_64 kernel starts (EM_386 and EM_X86_64).
const MACHINE_AT: usize = 18;
const OURS: [u16; 2] = [3, 62];
/// Further machines of elf.h, for messages.
const MACHINES: [(u16, &str); 7] = [
    (8, "MIPS"),
    (21, "64-bit PowerPC"),
    (22, "s390x"),
    (40, "32-bit Arm"),
    (183, "64-bit Arm"),
    (243, "RISC-V"),
    (258, "LoongArch"),
];
/// As much of a file as the kernel looks at to tell what it is (BINPRM_BUF_SIZE), in bytes.
const HEAD: u64 = 256;

/// The user that the container runs as, once it is sure that there is something that it can run.
///
/// # Errors
/// `NoCommand`, `Program`, `User` or `Tree`.
pub fn check(container: &Container, image: &Image) -> Result<Account, ContainerError> {
    let user = image.config.user.as_deref();
    let account = spec::account(&image.tree, user)?.ok_or_else(|| ContainerError::User {
        container: container.name.clone(),
        user: user.unwrap_or("root").to_owned(),
    })?;
    let command = if container.command.is_empty() { &image.config.command } else { &container.command };
    let Some(program) = image.config.entrypoint.iter().chain(command).next() else {
        return Err(ContainerError::NoCommand { container: container.name.clone() });
    };
    let refused = |why: String| ContainerError::Program {
        container: container.name.clone(),
        program: program.clone(),
        why,
    };
    let mounts = Mounts::of(&image.tree, container);
    let found: Vec<There> = candidates(container, image, program)
        .iter()
        .map(|path| mounts.look(&image.tree, path.as_bytes()))
        .collect();
    // What a volume holds is known on the node alone.
    if found.contains(&There::Volume) {
        return Ok(account);
    }
    let mut why = match program.contains('/') {
        true => "is not in the image".to_owned(),
        false => format!("is not in the image's PATH ({})", path_variable(container, image)),
    };
    for there in found {
        let There::Node(id) = there else { continue };
        match runs(image, &mounts, id, &account) {
            Ok(()) => return Ok(account),
            Err(cause) => why = cause,
        }
    }
    Err(refused(why))
}

fn path_variable<'a>(container: &'a Container, image: &'a Image) -> &'a str {
    let of = |set: &'a std::collections::BTreeMap<String, String>| set.get("PATH").map(String::as_str);
    of(&container.environment).or_else(|| of(&image.config.environment)).unwrap_or(DEFAULT_PATH)
}

/// Paths at which the runtime looks for `program`, first to last.
fn candidates(container: &Container, image: &Image, program: &str) -> Vec<String> {
    let workdir = image.config.workdir.as_deref().unwrap_or("/");
    let in_workdir = |path: &str| format!("{}/{path}", workdir.trim_end_matches('/'));
    match program {
        _ if program.starts_with('/') => vec![program.to_owned()],
        _ if program.contains('/') => vec![in_workdir(program)],
        "" => Vec::new(),
        _ => path_variable(container, image)
            .split(':')
            .map(|folder| match folder {
                "" => in_workdir(program),
                _ if folder.starts_with('/') => format!("{}/{program}", folder.trim_end_matches('/')),
                _ => in_workdir(&format!("{folder}/{program}")),
            })
            .collect(),
    }
}

/// Whether the kernel would start the file for this user.
fn runs(image: &Image, mounts: &Mounts, id: NodeId, account: &Account) -> Result<(), String> {
    let node = image.tree.node(id);
    let content = match &node.kind {
        Kind::File(content) => content,
        Kind::Directory(_) => return Err("is a directory".to_owned()),
        _ => return Err("is not a file".to_owned()),
    };
    if !may_execute(&node.meta, account) {
        let Meta { mode, uid, gid, .. } = node.meta;
        let user = account.uid;
        return Err(format!("may not be executed by user {user}: its mode is {mode:04o}, of {uid}:{gid}"));
    }
    let head = head(content).map_err(|error| format!("cannot be read: {error}"))?;
    if let Some(machine) = foreign(&head) {
        return Err(format!("is for {machine}, and keller's nodes are x86_64"));
    }
    if let Some(interpreter) = interpreter(&head)
        && mounts.look(&image.tree, interpreter) == There::Nothing
    {
        return Err(format!("is a script for {}, which is not in the image", show(interpreter)));
    }
    Ok(())
}

fn may_execute(meta: &Meta, account: &Account) -> bool {
    let in_group = account.gid == meta.gid || account.groups.contains(&meta.gid);
    let bits = match () {
        () if account.uid == 0 => 0o111,
        () if account.uid == meta.uid => 0o100,
        () if in_group => 0o010,
        () => 0o001,
    };
    meta.mode & bits != 0
}

fn head(content: &Content) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    content.reader().take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}

/// The machine of an ELF file that is not ours.
fn foreign(head: &[u8]) -> Option<String> {
    let machine: [u8; 2] =
        head.strip_prefix(b"\x7fELF").and(head.get(MACHINE_AT..MACHINE_AT + 2))?.try_into().ok()?;
    // EI_DATA: 2 is big-endian.
    let machine = if head[5] == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let name = || MACHINES.iter().find(|(known, _)| *known == machine).map(|(_, name)| (*name).to_owned());
    (!OURS.contains(&machine)).then(|| name().unwrap_or_else(|| format!("ELF machine {machine}")))
}

fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?.trim_ascii();
    line.split(|byte| b" \t".contains(byte)).next().filter(|path| path.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::manifest::{ContainerImage, Volume};
    use crate::tree::Tree;

    fn elf(machine: u8) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64, 0);
        bytes[MACHINE_AT] = machine;
        bytes
    }

    fn container() -> Container {
        Container {
            name: "web".into(),
            image: ContainerImage::Archive {
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

    fn image() -> Image {
        let mut tree = Tree::new(0);
        tree.file("usr/bin/app", 0o755, elf(62)).unwrap();
        tree.file("usr/bin/arm", 0o755, elf(183)).unwrap();
        tree.file("opt/tool/run", 0o750, "#!/bin/sh -e\n").unwrap();
        tree.file("usr/bin/data", 0o644, "x").unwrap();
        tree.symlink("bin", "usr/bin").unwrap();
        tree.symlink("usr/bin/link", "app").unwrap();
        Image { reference: String::new(), tree, config: Config::default() }
    }

    fn said(words: &[&str], change: impl Fn(&mut Container, &mut Image)) -> String {
        let (mut container, mut image) = (container(), image());
        image.config.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        change(&mut container, &mut image);
        check(&container, &image)
            .map_or_else(|error| error.to_string(), |account| format!("uid {}", account.uid))
    }

    #[test]
    fn programs_are_looked_up_as_the_runtime_does() {
        for good in ["/usr/bin/app", "/bin/link", "app", "bin/app", "./usr/bin/app"] {
            assert_eq!(said(&[good], |_, _| {}), "uid 0", "{good}");
        }
        assert_eq!(said(&["app"], |_, image| image.config.user = Some("7".into())), "uid 7");
        assert_eq!(said(&["bin/app"], |_, image| image.config.workdir = Some("/usr".into())), "uid 0");
        let path = |path: &str, change: bool| {
            said(&["app"], |container, image| {
                let environment =
                    if change { &mut container.environment } else { &mut image.config.environment };
                environment.insert("PATH".into(), path.into());
            })
        };
        assert_eq!(path("/opt:/usr/bin", false), "uid 0");
        assert!(path("/opt", false).contains("is not in the image's PATH (/opt)"));
        assert!(path("/opt", true).contains("is not in the image's PATH (/opt)"));
    }

    #[test]
    fn what_cannot_start_is_told() {
        for (program, why) in [
            ("/nosuch", "is not in the image"),
            ("nosuch", "is not in the image's PATH"),
            ("/usr/bin/arm", "is for 64-bit Arm"),
            ("/usr/bin/data", "may not be executed by user 0: its mode is 0644, of 0:0"),
            ("/usr/bin", "is a directory"),
            ("/opt/tool/run", "is a script for /bin/sh, which is not in the image"),
            ("", "is not in the image"),
        ] {
            let text = said(&[program], |_, _| {});
            assert!(text.contains(why) && text.contains("container web"), "{program}: {text}");
        }
        let text = said(&["/opt/tool/run"], |_, image| image.config.user = Some("7:7".into()));
        assert!(text.contains("by user 7: its mode is 0750"), "{text}");
        let text = said(&[], |_, _| {});
        assert!(text.contains("add `command`"), "{text}");
        let text = said(&["app"], |_, image| image.config.user = Some("nosuch".into()));
        assert!(text.contains("nosuch"), "{text}");
        // A volume may hold it.
        let volume = Volume { host: "/srv/x".into(), container: "/mnt/app".into(), read_only: false };
        let with = |program: &str, change: &dyn Fn(&mut Container, &mut Image)| {
            said(&[program], |container, image| {
                container.volumes.push(volume.clone());
                change(container, image);
            })
        };
        assert_eq!(with("/mnt/app/bin/x", &|_, _| {}), "uid 0");
        assert!(with("/mnt/application", &|_, _| {}).contains("is not in the image"));
        // So it is behind a link, in PATH, relative to where the container starts, and with an interpreter.
        let link = |_: &mut Container, image: &mut Image| {
            image.tree.symlink("usr/bin/tool", "../../mnt/app/bin/tool").unwrap();
            image.tree.symlink("usr/bin/python", "/mnt/app/python").unwrap();
            image.tree.file("usr/bin/script", 0o755, "#!/usr/bin/python\n").unwrap();
            image.tree.symlink("app", "/mnt/app").unwrap();
            image.config.environment.insert("PATH".into(), "/usr/bin".into());
        };
        for program in ["/usr/bin/tool", "tool", "/app/x", "script"] {
            assert_eq!(with(program, &link), "uid 0", "{program}");
        }
        assert!(with("nosuch", &link).contains("is not in the image's PATH"));
        let path = |_: &mut Container, image: &mut Image| {
            image.config.environment.insert("PATH".into(), "/usr/bin:/mnt/app/bin".into());
        };
        assert_eq!(with("nosuch", &path), "uid 0");
        assert_eq!(with("./x", &|_, image| image.config.workdir = Some("/mnt/app".into())), "uid 0");
        // The engine mounts at what a link leads to.
        let moved = |_: &mut Container, image: &mut Image| {
            image.tree.symlink("mnt", "srv/mnt").unwrap();
        };
        assert_eq!(with("/srv/mnt/app/x", &moved), "uid 0");
    }
}
