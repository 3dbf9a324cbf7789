//! Directories of the host that containers use.
//!
//! Those on the state partition are made before the first start of their container, and never changed again:
//! what a database made 0700 stays so. A fresh one gets mode and owner of the image's directory at that place, as
//! podman does it for its volumes. One that belongs to root in the image says nothing, since every base image has
//! some, and becomes the user's that the container runs as: a volume that nobody can write to is of no use.

use std::collections::BTreeMap;

use super::spec::Account;
use super::{ContainerError, Image};
use crate::manifest::{Container, Volume};
use crate::rootfs::tmpfiles::line::Access;
use crate::rootfs::tmpfiles::shipped::Crossing;
use crate::rootfs::tmpfiles::shipped::SHIPPED_PLACE;
use crate::rootfs::tmpfiles::{self, line, shipped};
use crate::rootfs::{Accounts, Error};
use crate::tree::{Kind, Tree, TreeError, show};

/// What the node makes at each boot, or an operator mounts: nothing there is known at build.
const NODES_OWN: [&[u8]; 11] =
    [b"boot", b"dev", b"efi", b"etc", b"media", b"mnt", b"proc", b"run", b"sys", b"tmp", b"var"];

/// How the name of a container's file of lines begins; its name follows.
const FILE: &str = "keller-volumes-";
/// Where those files are.
const FOLDER: &str = "usr/lib/tmpfiles.d";
/// What stands in them before lines for directories that are no volumes: another container's may be one of them.
const ABOVE: &[u8] = b"# Above volumes, with the owner of what they are in:";

/// What the lines of other containers say.
#[derive(Default)]
struct Others {
    /// Volumes by path, and whose they are.
    volumes: Vec<(Vec<u8>, String)>,
    /// Directories that are only above them, and the file with the line.
    above: BTreeMap<Vec<u8>, String>,
}

impl Others {
    fn of(tree: &Tree) -> Result<Self, TreeError> {
        let mut others = Self::default();
        let Ok(folder) = tree.resolve(FOLDER) else { return Ok(others) };
        let names = tree.children(folder).map(|(name, _)| show(name));
        for name in names.filter(|name| name.starts_with(FILE) && name.ends_with(".conf")) {
            let container = &name[FILE.len()..name.len() - ".conf".len()];
            let file = format!("{FOLDER}/{name}");
            let bytes = tree.read_if_there(&file)?.unwrap_or_default();
            let mut is_above = false;
            for text in bytes.split(|byte| *byte == b'\n') {
                is_above |= text == ABOVE;
                match place(text) {
                    Some(path) if is_above => drop(others.above.insert(path, file.clone())),
                    Some(path) => others.volumes.push((path, container.to_owned())),
                    None => {}
                }
            }
        }
        Ok(others)
    }

    /// Takes the line away that makes `path` as a directory above a volume: it is one itself.
    fn give_up(&self, tree: &mut Tree, path: &[u8]) -> Result<(), TreeError> {
        let Some(file) = self.above.get(path) else { return Ok(()) };
        let bytes = tree.read(file)?;
        let kept = bytes.split(|byte| *byte == b'\n').filter(|text| place(text).as_deref() != Some(path));
        let kept: Vec<&[u8]> = kept.collect();
        tree.file(file, 0o644, kept.join(&b'\n')).map(drop)
    }
}

/// The path that a line of one of these files makes.
fn place(text: &[u8]) -> Option<Vec<u8>> {
    line::Line::parse(text).ok().filter(|_| text.starts_with(b"d "))?.place()
}

/// Adds lines that make the directories of `container` on the state partition. They do not depend on the order of the
/// containers, but where two have one volume: it is as the first wants it.
///
/// # Errors
/// `NoFolder` for one that is neither in the root nor can be made, since the root is read-only; `Crossed` for one that
/// systemd-tmpfiles refuses to make.
pub fn install(
    tree: &mut Tree,
    container: &Container,
    image: &Image,
    account: &Account,
    accounts: &Accounts,
) -> Result<(), ContainerError> {
    let unread = |error| unreadable(container, error);
    let made = tmpfiles::made(tree).map_err(unread)?;
    let links = shipped::links(tree).map_err(unread)?;
    let mut above = shipped::directories(tree, accounts).map_err(unread)?;
    let others = Others::of(tree)?;
    let mut wanted: Vec<(Vec<u8>, Access)> = Vec::new();
    let mut volumes = Vec::new();
    for volume in &container.volumes {
        let real = shipped::real(tree, &links, volume.host.as_bytes());
        let path = shipped::absolute(&real);
        let on_state = match real.first() {
            Some(first) if first == b"var" => (real.len() > 1).then_some(path),
            Some(first) if NODES_OWN.contains(&&first[..]) || tree.exists(&path) => None,
            // Nothing is there, and only in what is shipped can room be made.
            Some(_) => match shipped::open(tree, &path, &mut above)? {
                Some(place) => Some(place),
                None => return Err(not_made(tree, container, volume, &path)),
            },
            None => None,
        };
        let Some(path) = on_state else { continue };
        volumes.push((volume, path.clone()));
        shipped::between(&mut above, &path);
        let is_made = made.contains(&path) && !others.above.contains_key(&path);
        if !is_made && !wanted.iter().any(|(known, _)| *known == path) {
            let access = fresh(volume, image, account);
            above.insert(path.clone(), access);
            wanted.push((path, access));
        }
    }
    // Once all of them are known: one may be in another, of this container or of one before.
    for (path, _) in &others.volumes {
        shipped::between(&mut above, path);
    }
    if let Some((volume, crossing)) =
        volumes.iter().find_map(|(volume, path)| Some((volume, shipped::crossing(&above, path)?)))
    {
        return Err(crossed(&container.name, &volume.host, &crossing));
    }
    if let Some((path, name, crossing)) =
        others.volumes.iter().find_map(|(path, name)| Some((path, name, shipped::crossing(&above, path)?)))
    {
        return Err(crossed(name, &known(path), &crossing));
    }
    above.retain(|path, _| !made.contains(path) && !wanted.iter().any(|(known, _)| known == path));
    for (path, _) in &wanted {
        others.give_up(tree, path)?;
    }
    let lines = |directories: &mut dyn Iterator<Item = (Vec<u8>, Access)>| -> String {
        directories.map(|(path, access)| line::make('d', &path, Some(access), None)).collect()
    };
    let mut text = lines(&mut wanted.into_iter());
    if !above.is_empty() {
        text += &format!("{}\n{}", show(ABOVE), lines(&mut above.into_iter()));
    }
    if !text.is_empty() {
        tree.file(format!("{FOLDER}/{FILE}{}.conf", container.name), 0o644, text)?;
    }
    Ok(())
}

/// Why no room can be made for the volume at `real`.
fn not_made(tree: &Tree, container: &Container, volume: &Volume, real: &[u8]) -> ContainerError {
    let crossing = real
        .starts_with(SHIPPED_PLACE.as_bytes())
        .then(|| shipped::crossing(&shipped::keeping_out(tree, real), &shipped::on_state(real)));
    match crossing.flatten() {
        Some(crossing) => crossed(&container.name, &volume.host, &crossing),
        None => no_folder(container, volume, real),
    }
}

/// A path as the user knows it, without the place on the state partition.
fn known(path: &[u8]) -> String {
    show(path.strip_prefix(shipped::PLACE.as_bytes()).unwrap_or(path))
}

fn crossed(container: &str, path: &str, crossing: &Crossing) -> ContainerError {
    ContainerError::Crossed {
        container: container.to_owned(),
        path: path.to_owned(),
        above: known(&crossing.above.0),
        above_uid: crossing.above.1,
        below: known(&crossing.below.0),
        below_uid: crossing.below.1,
    }
}

fn no_folder(container: &Container, volume: &Volume, real: &[u8]) -> ContainerError {
    let leads = real != tmpfiles::clean(volume.host.as_bytes());
    ContainerError::NoFolder {
        container: container.name.clone(),
        path: volume.host.clone(),
        leads: if leads { format!(" (it leads to {})", show(real)) } else { String::new() },
    }
}

fn unreadable(container: &Container, error: Error) -> ContainerError {
    ContainerError::Read { container: container.name.clone(), source: std::io::Error::other(error) }
}

/// Mode, user and group of the volume where it is made.
fn fresh(volume: &Volume, image: &Image, account: &Account) -> Access {
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

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::manifest::ContainerImage;
    use crate::rootfs::users::{Class, WantedUser};
    use crate::tree::Meta;

    fn lines(volumes: &[(&str, &str)], tree: &mut Tree, image: &Image) -> Result<String, String> {
        let volume = |(host, container): &(&str, &str)| Volume {
            host: (*host).into(),
            container: (*container).into(),
            read_only: false,
        };
        let container = Container {
            name: "db".into(),
            image: ContainerImage::Archive { path: "x".into(), reference: None, allowed: Default::default() },
            command: Vec::new(),
            environment: Default::default(),
            ports: Vec::new(),
            volumes: volumes.iter().map(volume).collect(),
            host_network: false,
            start: true,
            new_privileges: false,
            scratch: Container::SCRATCH,
            said: Default::default(),
        };
        let account = Account { uid: 1000, gid: 1001, groups: Vec::new() };
        install(tree, &container, image, &account, &accounts()).map_err(|error| error.to_string())?;
        let text = tree.read("usr/lib/tmpfiles.d/keller-volumes-db.conf").unwrap_or_default();
        Ok(String::from_utf8(text).unwrap())
    }

    /// The node's: one that lines know by name.
    fn accounts() -> Accounts {
        let mut accounts = Accounts::default();
        let user = WantedUser {
            source: String::new(),
            uid: None,
            group: "theirs".into(),
            description: String::new(),
            home: String::new(),
            shell: String::new(),
            locked: false,
            password: None,
            ssh_keys: Vec::new(),
            class: Class::System,
        };
        accounts.users.insert("theirs".to_owned(), (7, 7, user));
        accounts
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
    fn a_volume_inside_of_what_is_shipped_is_on_the_state_partition() {
        let mut tree = root();
        let shipped = "usr/lib/keller/shipped";
        tree.file(format!("{shipped}/opt/app/bin/run"), 0o755, "").unwrap();
        tree.file(format!("{shipped}/usr/local/share/site/index"), 0o644, "").unwrap();
        tree.directory(format!("{shipped}/opt/app/private"), 0o750).unwrap();
        let links = format!(
            "L /var/opt/app - - - - /{shipped}/opt/app\n\
             L /var/usrlocal/share/site - - - - /{shipped}/usr/local/share/site\n\
             L /srv/www - - - - ../lib/www\nL? /var/srv/some - - - - /usr\n"
        );
        tree.file("usr/lib/tmpfiles.d/keller.conf", 0o644, links.replace("/srv/www", "/var/srv/www"))
            .unwrap();
        let volumes = [
            ("/opt/app/data", "/data"),
            ("/opt/app/data/deeper", "/new"),
            ("/opt/app/private/keys", "/new"),
            ("/usr/local/share/site/up", "/new"),
            ("/usr/local/share/other", "/new"),
            ("/srv/www/up", "/new"),
            ("/srv/some/up", "/new"),
            ("/opt/app/bin", "/bin"),
        ];
        let expected = "d /var/lib/keller/shipped/opt/app/data :0700 :999 :999 - -\n\
            d /var/lib/keller/shipped/opt/app/data/deeper :0755 :1000 :1001 - -\n\
            d /var/lib/keller/shipped/opt/app/private/keys :0755 :1000 :1001 - -\n\
            d /var/lib/keller/shipped/usr/local/share/site/up :0755 :1000 :1001 - -\n\
            d /var/usrlocal/share/other :0755 :1000 :1001 - -\n\
            d /var/lib/www/up :0755 :1000 :1001 - -\n\
            d /var/srv/some/up :0755 :1000 :1001 - -\n\
            # Above volumes, with the owner of what they are in:\n\
            d /var/lib/keller/shipped/opt/app/private :0750 :0 :0 - -\n";
        assert_eq!(lines(&volumes, &mut tree, &image()).unwrap(), expected);
        let Kind::Symlink(target) = &tree.node(tree.lookup(format!("{shipped}/opt/app/data")).unwrap()).kind
        else {
            panic!("no link");
        };
        assert_eq!(target, b"/var/lib/keller/shipped/opt/app/data");
        let text = lines(&[("/opt/app/bin/run/x", "/new")], &mut tree, &image()).unwrap_err();
        assert!(text.contains("/opt/app/bin/run"), "{text}");
    }

    #[test]
    fn what_is_between_a_volume_and_a_directory_above_it_has_its_owner() {
        let volumes = [
            ("/var/lib/theirs/a/b", "/data"),
            ("/var/lib/db", "/data"),
            ("/var/lib/db/x/y", "/new"),
            ("/var/lib/none/x", "/data"),
        ];
        let expected = "d /var/lib/theirs/a/b :0700 :999 :999 - -\n\
            d /var/lib/db :0700 :999 :999 - -\n\
            d /var/lib/db/x/y :0755 :1000 :1001 - -\n\
            d /var/lib/none/x :0700 :999 :999 - -\n\
            # Above volumes, with the owner of what they are in:\n\
            d /var/lib/db/x :0755 :999 :999 - -\n\
            d /var/lib/theirs/a :0755 :3 :3 - -\n";
        assert_eq!(lines(&volumes, &mut root(), &image()).unwrap(), expected);
    }

    #[test]
    fn a_volume_in_another_one_that_is_in_a_third_account_s_directory() {
        let shipped = |owner: u32| {
            let mut tree = root();
            let (meta, kind) = (Meta::new(0o750).owned(owner, owner), Kind::Directory(Default::default()));
            tree.put("usr/lib/keller/shipped/opt/app", meta, kind, Default::default()).unwrap();
            let link = "L /var/opt/app - - - - /usr/lib/keller/shipped/opt/app\nd /var/home/core 0700 1000 1000\n\
                        d /var/lib/named 0700 theirs -\n";
            tree.file("usr/lib/tmpfiles.d/keller.conf", 0o644, link).unwrap();
            tree
        };
        let (outer, inner) = (("/opt/app/data", "/data"), ("/opt/app/data/db", "/new"));
        for volumes in [[outer, inner], [inner, outer]] {
            let told = lines(&volumes, &mut shipped(5), &image()).unwrap_err();
            assert_eq!(
                told,
                "container db has the volume /opt/app/data/db, which no node would make: /opt/app belongs to user 5, and \
                 /opt/app/data in it to user 999, and systemd-tmpfiles makes nothing below such a pair; leave this volume \
                 out where another one holds it, or name a directory elsewhere, such as /var/lib/db"
            );
            // Root's and the volume's own are no others.
            for owner in [0, 999] {
                assert!(lines(&volumes, &mut shipped(owner), &image()).is_ok());
            }
        }
        for (volumes, below) in [
            (
                [("/var/lib/theirs/a", "/data"), ("/var/lib/theirs/a/b", "/new")],
                "/var/lib/theirs/a in it to user 999",
            ),
            (
                [("/var/lib/named/a", "/data"), ("/var/lib/named/a/b", "/new")],
                "/var/lib/named belongs to user 7, and /var/lib/named/a in it to user 999",
            ),
            (
                [("/home/core/db", "/data"), ("/home/core/db/x/y", "/new")],
                "/var/home/core/db in it to user 999",
            ),
        ] {
            let told = lines(&volumes, &mut shipped(5), &image()).unwrap_err();
            assert!(told.contains(below), "{told}");
            assert!(lines(&volumes[..1], &mut shipped(5), &image()).is_ok());
        }
    }

    #[test]
    fn a_place_that_cannot_be_made_is_refused() {
        let mut tree = root();
        tree.file("usr/lib/tmpfiles.d/x.conf", 0o644, "L /var/srv/site - - - - /usr/share/site\n").unwrap();
        let text = lines(&[("/srv/site/up", "/data")], &mut tree, &image()).unwrap_err();
        assert!(text.contains("the volume /srv/site/up (it leads to /usr/share/site/up), which"), "{text}");
        // Below a directory of one account in that of another systemd-tmpfiles makes nothing.
        let mut tree = root();
        for (path, owner) in [("opt/app", 1), ("opt/app/theirs", 2)] {
            let path = format!("usr/lib/keller/shipped/{path}");
            let (meta, kind) = (Meta::new(0o700).owned(owner, owner), Kind::Directory(Default::default()));
            tree.put(path, meta, kind, Default::default()).unwrap();
        }
        let links = "L /var/opt/app - - - - /usr/lib/keller/shipped/opt/app\n";
        tree.file("usr/lib/tmpfiles.d/keller.conf", 0o644, links).unwrap();
        let text = lines(&[("/opt/app/theirs/data", "/data")], &mut tree, &image()).unwrap_err();
        assert!(text.contains("/opt/app/theirs/data"), "{text}");
        assert!(text.contains("/opt/app belongs to user 1, and /opt/app/theirs in it to user 2"), "{text}");
        assert!(lines(&[("/opt/app/data", "/data")], &mut tree, &image()).is_ok());
        for host in ["/data", "/usr/share/nosuch"] {
            let text = lines(&[(host, "/data")], &mut root(), &image()).unwrap_err();
            assert!(text.contains("container db") && text.contains(host) && text.contains("/var"), "{text}");
        }
    }
}
