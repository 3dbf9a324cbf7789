//! Directories of the host that containers use.
//!
//! Those on the state partition are made before the first start of their container, and never changed again:
//! what a database made 0700 stays so. A fresh one gets mode and owner of the image's directory at that place, as
//! podman does it for its volumes. One that belongs to root in the image says nothing, since every base image has
//! some, and becomes the user's that the container runs as: a volume that nobody can write to is of no use.

use super::spec::Account;
use super::{ContainerError, Image};
use crate::manifest::{Container, Volume};
use crate::rootfs::Error;
use crate::rootfs::tmpfiles::{self, line};
use crate::tree::{Kind, Tree};

/// What the node makes at each boot, or an operator mounts: nothing there is known at build.
const NODES_OWN: [&[u8]; 11] =
    [b"boot", b"dev", b"efi", b"etc", b"media", b"mnt", b"proc", b"run", b"sys", b"tmp", b"var"];

/// How many links one path may cross: the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;

/// Whether the directory `folder` is or holds `path`.
pub fn holds(folder: &str, path: &str) -> bool {
    let rest = path.strip_prefix(folder.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Adds lines that make the directories of `container` on the state partition.
///
/// # Errors
/// `NoFolder` for one that is neither in the root nor can be made, since the root is read-only.
pub fn install(
    tree: &mut Tree,
    container: &Container,
    image: &Image,
    account: &Account,
) -> Result<(), ContainerError> {
    let made = tmpfiles::made(tree).map_err(|error| unreadable(container, error))?;
    let mut lines = String::new();
    for volume in &container.volumes {
        let real = real(tree, volume.host.as_bytes());
        if real.first().is_some_and(|first| first == b"var") && real.len() > 1 {
            let path = [b"/", &real.join(&b'/')[..]].concat();
            if !made.contains(&path) {
                lines += &line::make('d', &path, Some(fresh(volume, image, account)), None);
            }
        } else if real.first().is_some_and(|first| !NODES_OWN.contains(&&first[..]))
            && tree.resolve(&volume.host).is_err()
        {
            return Err(ContainerError::NoFolder {
                container: container.name.clone(),
                path: volume.host.clone(),
            });
        }
    }
    if !lines.is_empty() {
        tree.file(format!("usr/lib/tmpfiles.d/keller-volumes-{}.conf", container.name), 0o644, lines)?;
    }
    Ok(())
}

fn unreadable(container: &Container, error: Error) -> ContainerError {
    ContainerError::Read { container: container.name.clone(), source: std::io::Error::other(error) }
}

/// Mode, user and group of the volume where it is made.
fn fresh(volume: &Volume, image: &Image, account: &Account) -> line::Access {
    let own = (account.uid, account.gid);
    let Ok(id) = image.tree.resolve(&volume.container) else { return (0o755, own.0, own.1) };
    let node = image.tree.node(id);
    if !matches!(node.kind, Kind::Directory(_)) {
        return (0o755, own.0, own.1);
    }
    let (uid, gid) = match (node.meta.uid, node.meta.gid) {
        (0, 0) => own,
        owner => owner,
    };
    (node.meta.mode, uid, gid)
}

/// The parts of `path` where its links lead, also where nothing is yet: systemd-tmpfiles makes nothing through
/// a link.
fn real(tree: &Tree, path: &[u8]) -> Vec<Vec<u8>> {
    let parts = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (mut pending, mut trail, mut links) = (parts(path), Vec::<Vec<u8>>::new(), 0);
    while let Some(part) = pending.pop() {
        match &part[..] {
            b"" | b"." => {}
            b".." => drop(trail.pop()),
            _ => {
                trail.push(part);
                let found = tree.lookup(trail.join(&b'/')).map(|id| &tree.node(id).kind);
                if let Some(Kind::Symlink(target)) = found
                    && links < MAX_LINKS
                {
                    links += 1;
                    trail.pop();
                    if target.starts_with(b"/") {
                        trail.clear();
                    }
                    pending.extend(parts(target));
                }
            }
        }
    }
    trail
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::manifest::ContainerImage;
    use crate::tree::Meta;

    fn lines(volumes: &[(&str, &str)], tree: &mut Tree, image: &Image) -> Result<String, String> {
        let volume = |(host, container): &(&str, &str)| Volume {
            host: (*host).into(),
            container: (*container).into(),
            read_only: false,
        };
        let container = Container {
            name: "db".into(),
            image: ContainerImage::Archive { path: "x".into(), reference: None },
            command: Vec::new(),
            environment: Default::default(),
            ports: Vec::new(),
            volumes: volumes.iter().map(volume).collect(),
            host_network: false,
            start: true,
        };
        let account = Account { uid: 1000, gid: 1001, groups: Vec::new() };
        install(tree, &container, image, &account).map_err(|error| error.to_string())?;
        let text = tree.read("usr/lib/tmpfiles.d/keller-volumes-db.conf").unwrap_or_default();
        Ok(String::from_utf8(text).unwrap())
    }

    fn root() -> Tree {
        let mut tree = Tree::new(0);
        tree.directory("usr/share/site", 0o755).unwrap();
        tree.directory("usr/local", 0o755).unwrap();
        tree.remove("usr/local");
        for (path, target) in
            [("srv", "var/srv"), ("home", "var/home"), ("opt", "var/opt"), ("usr/local", "../var/usrlocal")]
        {
            tree.symlink(path, target).unwrap();
        }
        tree.file("usr/lib/tmpfiles.d/a.conf", 0o644, "d /var/lib/theirs 0700 3 3\n").unwrap();
        tree
    }

    fn image() -> Image {
        let mut tree = Tree::new(0);
        let folder = || Kind::Directory(Default::default());
        tree.put("data", Meta::new(0o700).owned(999, 999), folder(), Default::default()).unwrap();
        tree.put("srv", Meta::new(0o755), folder(), Default::default()).unwrap();
        tree.put("shared", Meta::new(0o2770).owned(0, 50), folder(), Default::default()).unwrap();
        tree.file("file", 0o600, "").unwrap();
        Image { reference: String::new(), tree, config: Config::default() }
    }

    #[test]
    fn a_fresh_volume_is_as_the_image_has_it_and_is_never_changed() {
        let volumes = [
            ("/var/lib/db", "/data"),
            ("/var/lib/site", "/srv"),
            ("/var/lib/shared", "/shared"),
            ("/var/lib/new", "/new"),
            ("/var/lib/file", "/file"),
            ("/var/lib/with space", "/data"),
            ("/var/lib/theirs", "/data"),
            ("/srv/app/data", "/data"),
            ("/home/app", "/new"),
            ("/usr/local/app", "/new"),
            ("/var", "/host"),
            ("/run/podman/podman.sock", "/podman.sock"),
            ("/usr/share/site", "/site"),
            ("/", "/whole"),
        ];
        let expected = "d /var/lib/db :0700 :999 :999 - -\n\
            d /var/lib/site :0755 :1000 :1001 - -\n\
            d /var/lib/shared :2770 :0 :50 - -\n\
            d /var/lib/new :0755 :1000 :1001 - -\n\
            d /var/lib/file :0755 :1000 :1001 - -\n\
            d \"/var/lib/with space\" :0700 :999 :999 - -\n\
            d /var/srv/app/data :0700 :999 :999 - -\n\
            d /var/home/app :0755 :1000 :1001 - -\n\
            d /var/usrlocal/app :0755 :1000 :1001 - -\n";
        assert_eq!(lines(&volumes, &mut root(), &image()).unwrap(), expected);
    }

    #[test]
    fn a_place_that_cannot_be_made_is_refused() {
        for host in ["/data", "/usr/share/nosuch"] {
            let text = lines(&[(host, "/data")], &mut root(), &image()).unwrap_err();
            assert!(text.contains("container db") && text.contains(host) && text.contains("/var"), "{text}");
        }
    }
}
