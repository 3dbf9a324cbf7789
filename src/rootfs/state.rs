//! Directories that lead to the state partition: what packages and overlays have in them is moved, and keeps
//! its bytes and its meaning.
//!
//! - `/opt` and `/usr/local`: what an image ships stays in the verified root, so that an update brings its next
//!   version, and a link leads to it. A directory without content is the node's own, also inside of what is
//!   shipped ([`shipped`]).
//! - `/home`, `/root`, `/srv`: made on the state partition at first boot like what is below `/var`, and the
//!   node's own from then on.
//! - Links in or through them lead to where they led ([`super::links`]).
//! - Lines of tmpfiles.d make what is missing and never change what is there.

use std::collections::{BTreeMap, BTreeSet};

use super::error::Error;
use super::links;
use super::tmpfiles::line::{Access, Line, make};
use super::tmpfiles::shipped::{self, Directories, Links, SHIPPED_PLACE};
use super::tmpfiles::{self, FACTORY};
use super::users::Accounts;
use crate::tree::{Kind, NodeId, Tree, show};

/// Directories that lead to the state partition: path, target of the link, place below /var.
const STATE_FOLDERS: [(&str, &str, &str); 5] = [
    ("/home", "var/home", "/var/home"),
    ("/opt", "var/opt", "/var/opt"),
    ("/root", "var/roothome", "/var/roothome"),
    ("/srv", "var/srv", "/var/srv"),
    ("/usr/local", "../var/usrlocal", "/var/usrlocal"),
];
/// Of these, what an image ships is read where it is, through links, so that an update brings its next
/// version; in the others it belongs to the node once it is there. With the depth at which links begin.
const SHIPPED: [(&str, usize); 2] = [("/opt", 1), ("/usr/local", 2)];
/// Directories of /usr/local that programs expect.
const LOCAL_FOLDERS: [&str; 6] = ["bin", "etc", "lib", "sbin", "share", "src"];
const STATE_LINES: &str = "usr/lib/tmpfiles.d/10-keller-state.conf";
/// Mode of a service's home: etcd refuses a data directory that others may read.
const SERVICE_HOME: u16 = 0o700;
/// Mode of a directory of which nobody has said anything.
const UNSAID: u16 = 0o755;
/// Mode of a person's home, and of root's.
const HOME: u16 = 0o700;

/// What an image ships below one of [`SHIPPED`], by its path in it with a leading slash.
#[derive(Default)]
struct Shipped {
    /// What stays in the verified root.
    units: Vec<(Vec<u8>, NodeId)>,
    /// Directories that are the node's own.
    directories: Vec<(Vec<u8>, NodeId)>,
}

/// Turns the directories that a node writes to into links below /var, and has them made at boot, with a home
/// for everybody. `homes` are service accounts whose home is below /var.
///
/// # Errors
/// `OnePlace` where two paths would be one on the node.
pub fn write(tree: &mut Tree, accounts: &Accounts, homes: &[String]) -> Result<(), Error> {
    let mut lines = "# Directories of the state partition, which is blank at first.\n".to_owned();
    let modes: BTreeMap<&str, Access> = STATE_FOLDERS
        .iter()
        .filter_map(|(path, ..)| Some((*path, access(tree, tree.lookup(path)?))))
        .collect();
    let local = LOCAL_FOLDERS.map(|folder| {
        let path = format!("/usr/local/{folder}");
        directory_access(tree, &path).unwrap_or((0o755, 0, 0))
    });
    keep_links(tree);
    let (mut links, mut inside) = (Links::new(), Directories::new());
    for (path, depth) in SHIPPED {
        ship(tree, path, depth, &mut lines, &mut links)?;
    }
    for place in links.values() {
        shipped::own_empty(tree, place, &mut inside)?;
    }
    let mut moved = Vec::new();
    for (path, target, place) in STATE_FOLDERS {
        if let Some(id) = tree.lookup(path) {
            move_below(tree, id, path.as_bytes(), place.as_bytes())?;
            tree.remove(path);
        }
        tree.symlink(path, target)?;
        moved.push((path, place));
    }
    tmpfiles::relocate(tree, &moved)?;
    shipped::settle(tree, accounts, &links, &mut inside)?;
    for (place, access) in inside {
        lines += &make('d', &place, Some(access), None);
    }

    let line = |place: &str, access| make('d', place.as_bytes(), Some(access), None);
    for (path, _, place) in STATE_FOLDERS.iter().filter(|(path, ..)| *path != "/root") {
        lines += &line(place, modes.get(path).copied().unwrap_or((0o755, 0, 0)));
    }
    for (folder, access) in LOCAL_FOLDERS.iter().zip(local) {
        lines += &line(&format!("/var/usrlocal/{folder}"), access);
    }
    if let Some(gid) = accounts.gid("systemd-journal") {
        lines += &line("/var/log/journal", (0o2755, 0, gid));
    }
    // One by one: systemd's provision.conf makes the directory, so that a copy of it would be a double.
    let roots = modes.get("/root").copied().filter(|(mode, ..)| *mode != UNSAID);
    lines += &line("/var/roothome", roots.unwrap_or((HOME, 0, 0)));
    for name in ["bashrc", "profile"] {
        let source = format!("/usr/share/base-files/dot.{name}");
        if tree.exists(&source) {
            let place = format!("/var/roothome/.{name}");
            lines += &make('C', place.as_bytes(), None, Some(source.as_bytes()));
        }
    }
    let skeleton: Vec<_> = match tree.resolve("etc/skel") {
        Ok(id) => tree.children(id).map(|(name, id)| (name.to_vec(), id)).collect(),
        Err(_) => Vec::new(),
    };
    for (name, uid, gid, _) in accounts.people() {
        let place = format!("/var/home/{name}");
        let access = said(tree, &place, (HOME, uid, gid));
        lines += &home(tree, &place, access, &skeleton)?;
    }
    for name in homes {
        let Some((uid, gid, user)) = accounts.users.get(name) else { continue };
        if user.home.starts_with("/var/") {
            lines += &line(&user.home, said(tree, &user.home, (SERVICE_HOME, *uid, *gid)));
        }
    }
    let lines = without_doubles(tree, &lines)?;
    tree.file(STATE_LINES, 0o644, lines)?;
    Ok(())
}

fn access(tree: &Tree, id: NodeId) -> Access {
    let meta = &tree.node(id).meta;
    (meta.mode, meta.uid, meta.gid)
}

fn directory_access(tree: &Tree, path: &str) -> Option<Access> {
    let id = tree.lookup(path)?;
    matches!(tree.node(id).kind, Kind::Directory(_)).then(|| access(tree, id))
}

/// What a manifest or an overlay says of the home at `place`: it is then its account's. One that only holds
/// what they have in it is root's, and gets `usual`.
fn said(tree: &Tree, place: &str, usual: Access) -> Access {
    directory_access(tree, place).filter(|(_, uid, _)| *uid == usual.1).unwrap_or(usual)
}

/// A line that makes a home. One with content is copied whole from [`FACTORY`], where it has its owner already,
/// and only while it is missing or empty.
fn home(
    tree: &mut Tree,
    place: &str,
    (mode, uid, gid): Access,
    content: &[(Vec<u8>, NodeId)],
) -> Result<String, Error> {
    if content.is_empty() {
        return Ok(make('d', place.as_bytes(), Some((mode, uid, gid)), None));
    }
    let waiting = format!("/{FACTORY}{place}");
    let id = tree.directory(&waiting, mode)?;
    (tree.node_mut(id).meta.uid, tree.node_mut(id).meta.gid) = (uid, gid);
    let mut copies = tmpfiles::Copies::default();
    for (name, id) in content {
        let path = [waiting.as_bytes(), b"/", name].concat();
        tmpfiles::copy(tree, *id, &path, &mut copies, &|meta| (meta.uid, meta.gid) = (uid, gid))?;
    }
    Ok(make('C', place.as_bytes(), None, Some(waiting.as_bytes())))
}

/// Takes out lines for paths that a line of a package makes already: systemd warns of doubles.
fn without_doubles(tree: &Tree, lines: &str) -> Result<String, Error> {
    let made = tmpfiles::made(tree)?;
    let place = |line: &str| Line::parse(line.as_bytes()).ok().and_then(|line| line.place());
    let kept = lines
        .lines()
        .filter(|line| line.starts_with('#') || !place(line).is_some_and(|path| made.contains(&path)));
    Ok(kept.map(|line| format!("{line}\n")).collect())
}

/// Rewrites links that would lead elsewhere once what they are in, or pass through, is moved.
fn keep_links(tree: &mut Tree) {
    let units: BTreeSet<Vec<u8>> = SHIPPED
        .iter()
        .flat_map(|(path, depth)| {
            let units = tree.lookup(path).map(|id| sorted(tree, id, *depth).units).unwrap_or_default();
            units.into_iter().map(|(below, _)| [&path.as_bytes()[1..], &below].concat())
        })
        .collect();
    let moved: Vec<links::Moved<'_>> = STATE_FOLDERS
        .iter()
        .map(|(path, ..)| links::Moved {
            path: &path[1..],
            unit_depth: SHIPPED.iter().find(|(shipped, _)| shipped == path).map(|(_, depth)| *depth),
        })
        .collect();
    for (path, id) in tree.walk() {
        if let Kind::Symlink(target) = &tree.node(id).kind
            && let Some(target) = links::kept(tree, &path, target, &moved, &units)
        {
            tree.node_mut(id).kind = Kind::Symlink(target);
        }
    }
}

/// Sorts what is below `top`, links beginning at `depth`.
fn sorted(tree: &Tree, top: NodeId, depth: usize) -> Shipped {
    let mut shipped = Shipped::default();
    let mut pending = vec![(top, Vec::new(), 0)];
    while let Some((folder, below, level)) = pending.pop() {
        for (name, child) in tree.children(folder) {
            let below = [&below[..], b"/", name].concat();
            let is_directory = matches!(tree.node(child).kind, Kind::Directory(_));
            if is_directory && (level + 1 < depth || tree.children(child).next().is_none()) {
                shipped.directories.push((below.clone(), child));
                pending.push((child, below, level + 1));
            } else {
                shipped.units.push((below, child));
            }
        }
    }
    shipped.units.sort();
    shipped.directories.sort();
    shipped
}

/// Moves what is below `path` to [`SHIPPED_PLACE`] and adds lines that link to it from the state directory.
fn ship(
    tree: &mut Tree,
    path: &str,
    depth: usize,
    lines: &mut String,
    links: &mut Links,
) -> Result<(), Error> {
    let Some(id) = tree.lookup(path) else { return Ok(()) };
    let state = STATE_FOLDERS.iter().find(|(folder, ..)| *folder == path).map_or("", |(.., state)| state);
    let Shipped { units, directories } = sorted(tree, id, depth);
    let local: Vec<Vec<u8>> = LOCAL_FOLDERS.iter().map(|folder| format!("/{folder}").into_bytes()).collect();
    for (below, id) in directories.iter().filter(|(below, _)| depth == 1 || !local.contains(below)) {
        *lines += &make('d', &[state.as_bytes(), below].concat(), Some(access(tree, *id)), None);
    }
    for (below, id) in &units {
        let from = [path.as_bytes(), below].concat();
        let on_node = [state.as_bytes(), below].concat();
        if tree.exists(&on_node) {
            return Err(Error::OnePlace { first: show(&from), second: show(&on_node) });
        }
        let place = [SHIPPED_PLACE.as_bytes(), &from].concat();
        put(tree, *id, &from, &place)?;
        // Without `+`: what a node has put in its place stays.
        *lines += &make('L', &on_node, None, Some(&place));
        links.insert(on_node, place);
    }
    tree.remove(path);
    Ok(())
}

/// Gives everything below the directory `id` at `from` a place below `to`.
fn move_below(tree: &mut Tree, id: NodeId, from: &[u8], to: &[u8]) -> Result<(), Error> {
    let children: Vec<_> = tree.children(id).map(|(name, child)| (name.to_vec(), child)).collect();
    for (name, child) in children {
        put(tree, child, &[from, b"/", &name].concat(), &[to, b"/", &name].concat())?;
    }
    Ok(())
}

/// Puts the node `id` with all below it at `to`; a directory that is there keeps what it has.
fn put(tree: &mut Tree, id: NodeId, from: &[u8], to: &[u8]) -> Result<(), Error> {
    let is_directory = |id: NodeId| matches!(tree.node(id).kind, Kind::Directory(_));
    let there = tree.lookup(to);
    if there.is_some_and(|there| !is_directory(there) || !is_directory(id)) {
        return Err(Error::OnePlace { first: show(from), second: show(to) });
    }
    if is_directory(id) {
        let node = tree.node(id);
        let (meta, origin) = (node.meta.clone(), node.origin);
        tree.put(to, meta, Kind::Directory(BTreeMap::new()), origin)?;
        move_below(tree, id, from, to)
    } else {
        Ok(tree.link(to, id)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::base_files;
    use super::*;

    #[test]
    fn state_folders_are_links() {
        let mut tree = Tree::new(0);
        tree.file("opt/vendor/bin/tool", 0o755, "tool").unwrap();
        tree.file("usr/local/bin/mine", 0o755, "mine").unwrap();
        tree.directory("usr/local/lib", 0o755).unwrap();
        tree.file("srv/www/index.html", 0o644, "hello").unwrap();
        tree.file("usr/lib/tmpfiles.d/home.conf", 0o644, "Q /home 0755 - - -\nq /srv 0755 - - -\n").unwrap();
        base_files::folders(&mut tree).unwrap();
        write(&mut tree, &Accounts::default(), &[]).unwrap();
        let target = |path: &str| match &tree.node(tree.lookup(path).unwrap()).kind {
            Kind::Symlink(target) => show(target),
            _ => "no link".into(),
        };
        assert_eq!(target("home"), "var/home");
        assert_eq!(target("usr/local"), "../var/usrlocal");
        assert_eq!(tree.read("usr/lib/keller/shipped/opt/vendor/bin/tool").unwrap(), b"tool");
        assert_eq!(tree.read("srv/www/index.html").unwrap(), b"hello");
        let lines = String::from_utf8(tree.read(STATE_LINES).unwrap()).unwrap();
        assert!(lines.contains("L /var/opt/vendor - - - - /usr/lib/keller/shipped/opt/vendor\n"), "{lines}");
        assert!(
            lines.contains("L /var/usrlocal/bin/mine - - - - /usr/lib/keller/shipped/usr/local/bin/mine\n")
        );
        assert!(!lines.contains("d /var/home ") && !lines.contains("d /var/srv "), "{lines}");
        assert_eq!(
            tree.read("usr/lib/tmpfiles.d/home.conf").unwrap(),
            b"Q /var/home 0755 - - -\nq /var/srv 0755 - - -\n"
        );
    }

    #[test]
    fn links_and_names_keep_their_meaning() {
        let mut tree = Tree::new(0);
        tree.file("usr/bin/python3", 0o755, "python").unwrap();
        tree.file("usr/share/www/index", 0o644, "index").unwrap();
        tree.file("opt/My App/lib/100%", 0o644, "body").unwrap();
        tree.file(b"opt/My App/t\xe4st", 0o644, "latin").unwrap();
        let links: [(&str, &str, &str); 13] = [
            ("opt/My App/bin/python", "../../../usr/bin/python3", "/usr/bin/python3"),
            ("opt/My App/own", "lib/../lib/100%", "lib/../lib/100%"),
            ("opt/My App/sibling", "../other/x", "../other/x"),
            ("opt/My App/state", "../empty/x", "/opt/empty/x"),
            ("opt/current", "My App", "My App"),
            ("opt/other/x", "../../srv/www", "/srv/www"),
            ("opt/other/root", "../..", "/"),
            ("usr/local/bin/tool", "../lib/tool", "../lib/tool"),
            ("usr/local/bin/env", "../../bin/python3", "/usr/bin/python3"),
            ("usr/local/lib/tool", "/usr/bin/python3", "/usr/bin/python3"),
            ("srv/www/index", "../../usr/share/www/index", "/usr/share/www/index"),
            ("usr/bin/app", "../../opt/My App/../../usr/bin/python3", "/usr/bin/python3"),
            ("usr/bin/plain", "../../opt/other/x", "../../opt/other/x"),
        ];
        for (path, target, _) in links {
            tree.symlink(path, target).unwrap();
        }
        let empty = tree.directory("opt/empty", 0o750).unwrap();
        tree.node_mut(empty).meta.uid = 7;
        write(&mut tree, &Accounts::default(), &[]).unwrap();
        for (path, target, expected) in links {
            let place = match path.strip_prefix("srv/") {
                Some(below) => format!("var/srv/{below}"),
                None if path.starts_with("usr/bin") => path.to_owned(),
                None => format!("usr/lib/keller/shipped/{path}"),
            };
            match &tree.node(tree.lookup(&place).unwrap()).kind {
                Kind::Symlink(now) => assert_eq!(show(now), expected, "{path} -> {target}"),
                other => panic!("{path}: {other:?}"),
            }
        }
        assert_eq!(tree.read(b"usr/lib/keller/shipped/opt/My App/t\xe4st").unwrap(), b"latin");
        let lines = show(&tree.read(STATE_LINES).unwrap());
        assert!(
            lines.contains("L \"/var/opt/My App\" - - - - /usr/lib/keller/shipped/opt/My App\n"),
            "{lines}"
        );
        assert!(lines.contains("d /var/opt/empty :0750 :7 :0 - -\n"), "{lines}");
        assert!(
            lines.lines().filter(|line| line.starts_with("d ")).all(|line| line.contains(" :")),
            "{lines}"
        );
    }

    #[test]
    fn a_line_for_a_shipped_directory_does_not_hide_it() {
        let mut tree = Tree::new(0);
        tree.file("opt/app/bin/run", 0o755, "").unwrap();
        let lines = "d /opt/app 0750 0 7\nL+ /opt/app/now - - - - bin\nd /opt/app/cache 0700 nobody\n";
        tree.file("usr/lib/tmpfiles.d/app.conf", 0o644, lines).unwrap();
        write(&mut tree, &Accounts::default(), &[]).unwrap();
        let meta = &tree.node(tree.lookup("usr/lib/keller/shipped/opt/app").unwrap()).meta;
        assert_eq!((meta.mode, meta.gid), (0o750, 7));
        let ours = show(&tree.read(STATE_LINES).unwrap());
        assert!(ours.contains("L /var/opt/app - - - - /usr/lib/keller/shipped/opt/app\n"), "{ours}");
        assert!(ours.contains("d /var/lib/keller/shipped/opt/app :0750 :0 :7 - -\n"), "{ours}");
        let theirs = show(&tree.read("usr/lib/tmpfiles.d/app.conf").unwrap());
        assert_eq!(
            theirs,
            "# In the image already: d /var/opt/app 0750 0 7\n\
             # In the image already: L+ /var/opt/app/now - - - - bin\n\
             d /var/lib/keller/shipped/opt/app/cache 0700 nobody\n"
        );
        let Kind::Symlink(target) =
            &tree.node(tree.lookup("usr/lib/keller/shipped/opt/app/now").unwrap()).kind
        else {
            panic!("no link");
        };
        assert_eq!(target, b"bin");
    }

    #[test]
    fn two_paths_that_would_be_one() {
        let mut tree = Tree::new(0);
        tree.file("opt/vendor/x", 0o644, "").unwrap();
        tree.directory("var/opt/vendor", 0o755).unwrap();
        let error = write(&mut tree, &Accounts::default(), &[]).unwrap_err().to_string();
        assert!(
            error.contains("/opt/vendor") && error.contains("/var/opt/vendor") && error.contains("prune"),
            "{error}"
        );
    }

    #[test]
    fn roots_files_come_also_where_a_package_makes_the_home() {
        let mut tree = Tree::new(0);
        tree.file("usr/share/base-files/dot.bashrc", 0o644, "root's").unwrap();
        let provision = "d- /root :0700 root :root -\nd- /root/.ssh :0700 root :root -\n";
        tree.file("usr/lib/tmpfiles.d/provision.conf", 0o644, provision).unwrap();
        write(&mut tree, &Accounts::default(), &[]).unwrap();
        let lines = show(&tree.read(STATE_LINES).unwrap());
        assert!(
            lines.contains("C /var/roothome/.bashrc - - - - /usr/share/base-files/dot.bashrc\n"),
            "{lines}"
        );
        assert!(!lines.contains("/var/roothome :0700"), "{lines}");
        assert_eq!(
            tree.read("usr/lib/tmpfiles.d/provision.conf").unwrap(),
            b"d- /var/roothome :0700 root :root -\nd- /var/roothome/.ssh :0700 root :root -\n"
        );
    }
}
