//! Places of the state partition inside of what an image ships.
//!
//! `/opt/app` that a package ships is a link into the read-only root ([`crate::rootfs::state`]). What is written
//! inside of it (a directory that is shipped empty, a line of tmpfiles.d, a container's volume) is a link there
//! that leads below [`PLACE`], as bootc's documentation ("Filesystem", `/opt`) has it done by hand. All else stays
//! the image's, so that an update brings its next version. The opposite, a directory of the state partition with a
//! link for each shipped name, would fail on a node that took an update: an earlier version has left a link in its
//! place, which no line of tmpfiles.d replaces. Nor would a program find it that asks where it lies itself, since
//! that is in the root.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::line::{self, Access, Line, make};
use super::{Answered, Copies, MAKERS, ON_SOME_NODES, bake, clean, lines};
use crate::rootfs::conf_d;
use crate::rootfs::error::Error;
use crate::rootfs::users::Accounts;
use crate::tree::{Content, Kind, Meta, NodeId, Tree, TreeError};

/// Where what an image ships below /opt and /usr/local stays in the root.
pub const SHIPPED_PLACE: &str = "/usr/lib/keller/shipped";
/// What [`SHIPPED_PLACE`] is in the root, on the state partition.
pub const PLACE: &str = "/var/lib/keller/shipped";
/// How many links one path may cross: the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;
/// What a line is that the image needs no more.
const DONE: &[u8] = b"# In the image already: ";

/// Links that are made at boot: absolute path to target.
pub type Links = BTreeMap<Vec<u8>, Vec<u8>>;
/// Directories that are to be made at boot, by absolute path.
pub type Directories = BTreeMap<Vec<u8>, Access>;

/// Links that the tree's lines make; of two for one path systemd-tmpfiles takes the first.
///
/// # Errors
/// What the tree says of a file of lines.
pub fn links(tree: &Tree) -> Result<Links, Error> {
    let mut links = Links::new();
    for line in lines(tree)? {
        let everywhere = !line.modifiers.iter().any(|sign| ON_SOME_NODES.contains(sign));
        if line.letter == b'L'
            && everywhere
            && let (Some(path), Some(target)) = (line.place(), line.source())
        {
            links.entry(path).or_insert(target);
        }
    }
    Ok(links)
}

/// The parts of `path` where its links lead on a node, those of the tree and `links`, also where nothing is yet:
/// systemd-tmpfiles makes nothing through a link.
pub fn real(tree: &Tree, links: &Links, path: &[u8]) -> Vec<Vec<u8>> {
    real_until(tree, links, path, &|_| false).unwrap_or_default()
}

/// The same for a path that is not to pass what `stops`; nothing where it does.
pub fn real_until(
    tree: &Tree,
    links: &Links,
    path: &[u8],
    stops: &dyn Fn(&[u8]) -> bool,
) -> Option<Vec<Vec<u8>>> {
    let parts = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (mut pending, mut trail, mut crossed) = (parts(path), Vec::<Vec<u8>>::new(), 0);
    while let Some(part) = pending.pop() {
        match &part[..] {
            b"" | b"." => {}
            b".." => drop(trail.pop()),
            _ => {
                trail.push(part);
                let here = absolute(&trail);
                if stops(&here) {
                    return None;
                }
                let target = match tree.lookup(&here).map(|id| &tree.node(id).kind) {
                    Some(Kind::Symlink(target)) => Some(target),
                    Some(_) => None,
                    None => links.get(&here),
                };
                if let Some(target) = target.filter(|_| crossed < MAX_LINKS) {
                    crossed += 1;
                    trail.pop();
                    if target.starts_with(b"/") {
                        trail.clear();
                    }
                    pending.extend(parts(target));
                }
            }
        }
    }
    Some(trail)
}

/// The absolute path of `parts`.
pub fn absolute(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.iter().flat_map(|part| [b"/", &part[..]].concat()).collect()
}

/// What follows on `folder` in the path of something inside of it, with its slash.
fn inside<'a>(path: &'a [u8], folder: &str) -> Option<&'a [u8]> {
    path.strip_prefix(folder.as_bytes()).filter(|rest| rest.starts_with(b"/"))
}

/// Makes room for `path`, which is inside of what is shipped but is not there: the first part that is missing
/// becomes a link to the state partition. Gives the path's place there; nothing for a path that is elsewhere, that
/// is there, or where systemd-tmpfiles would make nothing (see [`crossing`]). `made` gets directories above it, those
/// that keep others out among them.
///
/// # Errors
/// What the tree says where something else than a directory is above `path`.
pub fn open(tree: &mut Tree, path: &[u8], made: &mut Directories) -> Result<Option<Vec<u8>>, TreeError> {
    let Some(below) = inside(path, SHIPPED_PLACE) else { return Ok(None) };
    let mut ends = (SHIPPED_PLACE.len() + 1..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
    let Some(end) = ends.find(|end| !tree.exists(&path[..*end])) else { return Ok(None) };
    let private = keeping_out(tree, &path[..end]);
    if crossing(&private, &on_state(&path[..end])).is_some() {
        return Ok(None);
    }
    tree.symlink(&path[..end], on_state(&path[..end]))?;
    made.extend(private);
    let place = [PLACE.as_bytes(), below].concat();
    between(made, &place);
    Ok(Some(place))
}

/// What `path`, which is [`SHIPPED_PLACE`] or in it, is on the state partition.
pub fn on_state(path: &[u8]) -> Vec<u8> {
    [PLACE.as_bytes(), &path[SHIPPED_PLACE.len()..]].concat()
}

/// Counterparts, on the state partition, of the directories above `path`, in what is shipped, that keep others out.
pub fn keeping_out(tree: &Tree, path: &[u8]) -> Directories {
    let mut private = Directories::new();
    for end in (SHIPPED_PLACE.len() + 1..path.len()).filter(|at| path[*at] == b'/') {
        let Some(id) = tree.lookup(&path[..end]) else { break };
        private.extend(keeps_out(&tree.node(id).meta).map(|access| (on_state(&path[..end]), access)));
    }
    private
}

/// Two directories, by path and uid, one in the other: the first is not root's, and the second somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The one above.
    pub above: (Vec<u8>, u32),
    /// The one in it.
    pub below: (Vec<u8>, u32),
}

/// Those of `directories` above `path` below which systemd-tmpfiles makes nothing, since whoever has the one above could
/// put a link in place of the one in it: `unsafe_transition()` of systemd's chase.c.
pub fn crossing(directories: &Directories, path: &[u8]) -> Option<Crossing> {
    let mut above: Option<(Vec<u8>, u32)> = None;
    for end in (1..path.len()).filter(|at| path[*at] == b'/') {
        let Some((_, uid, _)) = directories.get(&path[..end]) else { continue };
        let here = (path[..end].to_vec(), *uid);
        match above {
            Some(above) if above.1 != *uid => return Some(Crossing { above, below: here }),
            _ => above = Some(here).filter(|(_, uid)| *uid != 0),
        }
    }
    None
}

/// Adds to `made` what is missing between `place` and a directory above it in `made` that is not root's, with the
/// owner of that: systemd-tmpfiles would make it as root's, and would make nothing below it at the next boot.
pub fn between(made: &mut Directories, place: &[u8]) {
    let mut owner = None;
    for end in (1..place.len()).filter(|at| place[*at] == b'/') {
        match (made.get(&place[..end]), owner) {
            (Some((_, uid, gid)), _) => owner = (*uid != 0).then_some((*uid, *gid)),
            (None, Some((uid, gid))) => drop(made.insert(place[..end].to_vec(), (0o755, uid, gid))),
            (None, None) => {}
        }
    }
}

/// Directories that the tree's lines make, as far as those say mode and owner by number, or by a name of `accounts`.
///
/// # Errors
/// What the tree says of a file of lines.
pub fn directories(tree: &Tree, accounts: &Accounts) -> Result<Directories, Error> {
    let mut directories = Directories::new();
    for line in lines(tree)?.iter().filter(|line| b"dDvqQ".contains(&line.letter)) {
        if let Some(line) = Answered::of(line, accounts) {
            let number = |set: &Option<super::Set<u32>>| set.as_ref().map_or(0, |set| set.value);
            let mode = line.mode.as_ref().map_or(0o755, |set| set.value);
            directories.entry(line.path.clone()).or_insert((mode, number(&line.uid), number(&line.gid)));
        }
    }
    Ok(directories)
}

/// Mode and owner of a directory that not everybody may pass. Its counterpart on the state partition has them too:
/// there is a way past this one.
fn keeps_out(meta: &Meta) -> Option<Access> {
    (meta.mode & 0o001 == 0).then_some((meta.mode, meta.uid, meta.gid))
}

/// Turns directories without content below `path`, in what is shipped, into links to the state partition: they are
/// the node's own. `made` gets what they lead to.
///
/// # Errors
/// What the tree refuses.
pub fn own_empty(tree: &mut Tree, path: &[u8], made: &mut Directories) -> Result<(), TreeError> {
    let Some(top) = tree.lookup(path) else { return Ok(()) };
    // What is in one directory shares what is above it.
    let mut pending = vec![(top, path.to_vec(), Rc::new(Directories::new()))];
    let mut last = None;
    while let Some((id, path, mut above)) = pending.pop() {
        let node = tree.node(id);
        let Kind::Directory(children) = &node.kind else { continue };
        let on_state = on_state(&path);
        let (access, mtime, origin) =
            ((node.meta.mode, node.meta.uid, node.meta.gid), node.meta.mtime, node.origin);
        if children.is_empty() {
            // systemd-tmpfiles makes nothing below a directory of somebody else, who could put a link there.
            if above.values().any(|(_, uid, _)| *uid != 0 && *uid != access.1) {
                continue;
            }
            tree.put(&path, Meta::new(0o777).at(mtime), Kind::Symlink(on_state.clone()), origin)?;
            if !last.as_ref().is_some_and(|last| Rc::ptr_eq(last, &above)) {
                tree.step(above.len());
                made.extend(above.iter().map(|(path, access)| (path.clone(), *access)));
                last = Some(above);
            }
            between(made, &on_state);
            made.insert(on_state, access);
            continue;
        }
        if let Some(access) = keeps_out(&node.meta) {
            Rc::make_mut(&mut above).insert(on_state, access);
        }
        for (name, child) in children {
            pending.push((*child, [&path[..], b"/", name].concat(), above.clone()));
        }
    }
    Ok(())
}

/// Has the tree's lines write where they can: `links` lead to what is shipped. A line about what the image has there
/// is done now, since the root is read-only; one that makes something new gets a place on the state partition. A line
/// of type `Z` does both. What can be neither stays as it is, for [`left_over`]. `made` gets directories above a place.
///
/// # Errors
/// What the tree says of a file of lines.
pub fn settle(
    tree: &mut Tree,
    accounts: &Accounts,
    links: &Links,
    made: &mut Directories,
) -> Result<(), Error> {
    if links.is_empty() {
        return Ok(());
    }
    for file in conf_d::files(tree, "tmpfiles.d")? {
        let mut changed = false;
        let (mut lines, mut further) = (Vec::new(), Vec::new());
        for text in file.bytes.split(|byte| *byte == b'\n') {
            let new = settled(tree, accounts, links, text, made, &mut further);
            changed |= new.is_some();
            lines.push(new.unwrap_or_else(|| text.to_vec()));
        }
        if changed {
            let id = tree.resolve(&file.path)?;
            // At the end, so that all other lines keep their numbers.
            let ends = lines.last().is_some_and(Vec::is_empty) && !further.is_empty();
            let rest = [further, vec![Vec::new(); usize::from(ends)]].concat();
            lines.truncate(lines.len() - usize::from(ends));
            tree.node_mut(id).kind = Kind::File(Content::from([lines, rest].concat().join(&b'\n')));
        }
    }
    Ok(())
}

/// Where `line` about `path` does something: links of the tree and `links` are followed.
fn led(tree: &Tree, links: &Links, letter: u8, path: &[u8]) -> Vec<u8> {
    match path.iter().rposition(|byte| *byte == b'/') {
        // A link is made at its own path, wherever one leads that is there.
        Some(slash) if letter == b'L' => {
            [&absolute(&real(tree, links, &path[..slash])), &path[slash..]].concat()
        }
        _ => absolute(&real(tree, links, path)),
    }
}

/// The line instead of `text`; `further` gets lines besides.
fn settled(
    tree: &mut Tree,
    accounts: &Accounts,
    links: &Links,
    text: &[u8],
    made: &mut Directories,
    further: &mut Vec<Vec<u8>>,
) -> Option<Vec<u8>> {
    let stripped = conf_d::stripped(text);
    let line = Line::parse(stripped).ok().filter(|_| !stripped.starts_with(b"#"))?;
    let path = line.place()?;
    let real = led(tree, links, line.letter, &path);
    if inside(&real, PLACE).is_some() {
        if MAKERS.contains(&line.letter) {
            between(made, &real);
        }
        return (real != path).then(|| line.moved(stripped, &line::literal(&real)));
    }
    let below = inside(&real, SHIPPED_PLACE)?.to_vec();
    if tree.exists(&real) {
        let answered = Answered { path: real, ..Answered::of(&line, accounts)? };
        if !done(tree, answered) {
            return None;
        }
        if line.letter == b'Z' {
            // Of what is in there, the node's own is on the state partition.
            further.push(line.moved(stripped, &line::literal(&[PLACE.as_bytes(), &below].concat())));
        }
        return Some([DONE, stripped].concat());
    }
    if !MAKERS.contains(&line.letter) {
        return None;
    }
    if line.letter == b'L'
        && let Some(target) = line.source()
    {
        let folder = &real[..real.iter().rposition(|byte| *byte == b'/').unwrap_or_default()];
        if tree.exists(folder) {
            return tree.symlink(&real, target).ok().map(|_| [DONE, stripped].concat());
        }
        let target = match target.starts_with(b"/") {
            true => target,
            false => clean(&[folder, b"/", &target].concat()),
        };
        let line = |place: Vec<u8>| make('L', &place, None, Some(&target)).trim_end().as_bytes().to_vec();
        return open(tree, &real, made).ok().flatten().map(line);
    }
    // Something else than a directory in its way is for the node to say.
    let place = open(tree, &real, made).ok().flatten();
    place.map(|place| line.moved(stripped, &line::literal(&place)))
}

/// The place in the image, as a user knows it, that a line is about which nothing has settled: the root is read-only.
/// Nothing for a line that only keeps others from cleaning (`x`), and for one that makes or adjusts nothing.
pub fn left_over(tree: &Tree, links: &Links, text: &[u8]) -> Option<Vec<u8>> {
    let line = Line::parse(text).ok().filter(|line| !b"xX".contains(&line.letter))?;
    // What is known of a path of which only the node knows the rest.
    let path = line.place().or_else(|| {
        let known = line.path.split(|byte| *byte == b'/').take_while(|part| line::answered(part).is_some());
        line::answered(&known.collect::<Vec<_>>().join(&b'/')).filter(|path| path.starts_with(b"/"))
    })?;
    inside(&led(tree, links, line.letter, &path), SHIPPED_PLACE).map(<[u8]>::to_vec)
}

/// Does a line about something that the image has; whether nothing of it is left to do.
fn done(tree: &mut Tree, line: Answered) -> bool {
    // Nothing is copied: what a line is about is there.
    let bake = |tree: &mut Tree, line: &Answered| bake(tree, line, &mut Copies::default()).unwrap_or(false);
    match line.letter {
        b'e' => bake(tree, &Answered { letter: b'd', ..line }),
        b'Z' if !line::is_pattern(&line.path) => {
            let top = tree.lookup(&line.path);
            top.is_some_and(|top| adjust_all(tree, top, &line))
        }
        b'C' => copied(tree, &line),
        _ => bake(tree, &line),
    }
}

/// A copy leaves what is there, but for the mode and owner that its line names, if both are of one kind.
fn copied(tree: &mut Tree, line: &Answered) -> bool {
    if line.mode.is_none() && line.uid.is_none() && line.gid.is_none() {
        return true;
    }
    let Ok(source) = tree.resolve(line.source()) else { return true };
    let Some(id) = tree.lookup(&line.path) else { return false };
    if tree.node(id).kind.letter() == tree.node(source).kind.letter() {
        line.adjust(&mut tree.node_mut(id).meta, true);
    }
    true
}

fn adjust_all(tree: &mut Tree, id: NodeId, line: &Answered) -> bool {
    let kind = tree.node(id).kind.letter();
    if kind != 'l' {
        line.adjust_masked(kind, &mut tree.node_mut(id).meta);
    }
    let children: Vec<NodeId> = tree.children(id).map(|(_, child)| child).collect();
    // Any number of lines can be about one large directory.
    tree.step(1 + children.len());
    for child in children {
        if tree.is_exhausted() {
            break;
        }
        adjust_all(tree, child, line);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::show;

    /// A root in which /var/opt/app leads to what is shipped, and its lines once they are settled.
    fn settled(text: &str) -> (Tree, Vec<String>) {
        let mut tree = Tree::new(0);
        let app = format!("{SHIPPED_PLACE}/opt/app");
        tree.file(format!("{app}/bin/run"), 0o755, "run").unwrap();
        tree.file(format!("{app}/conf"), 0o640, "conf").unwrap();
        tree.directory(format!("{app}/etc"), 0o755).unwrap();
        tree.symlink(format!("{app}/run"), "/run/app").unwrap();
        tree.file("usr/lib/tmpfiles.d/0.conf", 0o644, format!("L /var/opt/app - - - - {app}\n")).unwrap();
        tree.file("usr/lib/tmpfiles.d/app.conf", 0o644, text).unwrap();
        let links = links(&tree).unwrap();
        settle(&mut tree, &Accounts::default(), &links, &mut Directories::new()).unwrap();
        let text = show(&tree.read("usr/lib/tmpfiles.d/app.conf").unwrap());
        let told = |line: &str| {
            let left = left_over(&tree, &links, line.as_bytes()).filter(|_| !line.starts_with('#'));
            left.map(|place| format!("{}: ", show(&place))).unwrap_or_default() + line
        };
        let lines = text.lines().map(told).collect();
        (tree, lines)
    }

    #[test]
    fn a_line_is_done_or_stays_and_is_told() {
        for line in [
            "L+ /var/opt/app/bin - - - - /usr/bin",
            "f /var/opt/app/etc",
            "d /var/opt/app/conf",
            "e /var/opt/app/conf 0755",
            "p /var/opt/app/conf",
            "c /var/opt/app/conf - - - - 1:3",
            "w /var/opt/app/conf - - - - text",
            "z /var/opt/app/* 0600",
            "Z /var/opt/app nobodys",
            "r /var/opt/app/conf",
        ] {
            let place = line.split(' ').nth(1).unwrap().strip_prefix("/var").unwrap();
            assert_eq!(settled(&format!("{line}\n")).1, [format!("{place}: {line}")]);
        }
        let (_, lines) =
            settled("d /var/opt/app/%m/x\nx /var/opt/app/bin\nd /var/lib/app\nd /var/opt/apple/%m\n");
        let expected =
            ["/opt/app: d /var/opt/app/%m/x", "x /var/opt/app/bin", "d /var/lib/app", "d /var/opt/apple/%m"];
        assert_eq!(lines, expected);
        for line in [
            "L /var/opt/app/bin - - - - /usr/bin",
            "f /var/opt/app/conf",
            "d /var/opt/app/etc 0750",
            "e /var/opt/app/etc",
            "C /var/opt/app/etc - - - - /usr/nowhere",
            "L+ /var/opt/app/run - - - - /run/other",
        ] {
            assert_eq!(settled(&format!("{line}\n")).1, [format!("# In the image already: {line}")]);
        }
    }

    #[test]
    fn a_line_for_all_below_is_about_both_parts() {
        let (tree, lines) = settled("Z /var/opt/app ~0755 1 2\nd /var/opt/app/new 0700 1 1\n");
        let expected = [
            "# In the image already: Z /var/opt/app ~0755 1 2",
            "d /var/lib/keller/shipped/opt/app/new 0700 1 1",
            "Z /var/lib/keller/shipped/opt/app ~0755 1 2",
        ];
        assert_eq!(lines, expected);
        assert!(tree.read("usr/lib/tmpfiles.d/app.conf").unwrap().ends_with(b"2\n"));
        let access = |path: &str| {
            let meta = &tree.node(tree.lookup(format!("{SHIPPED_PLACE}/opt/app{path}")).unwrap()).meta;
            (meta.mode, meta.uid, meta.gid)
        };
        assert_eq!([access(""), access("/bin/run")], [(0o755, 1, 2); 2]);
        // Nobody may execute it, so that nobody will.
        assert_eq!(access("/conf"), (0o644, 1, 2));
    }
}
