//! tmpfiles.d: what concerns /etc is done at build time, and what packages ship below /var becomes lines
//! that make it at boot, since /var is blank when a node starts for the first time.
//!
//! A line of which the build cannot know all, or that systemd-tmpfiles would refuse, is left as it is: the
//! node does it, or says what is wrong with it. Format: [`mod@line`].

pub mod line;
pub mod mistakes;
pub mod owners;
pub mod shipped;

use std::collections::{BTreeMap, BTreeSet};

use self::line::{Line, make};
use super::conf_d;
use super::error::Error;
use super::users::Accounts;
use crate::base::limits;
use crate::base::width::to_u64;
use crate::tree::{Content, Kind, Meta, NodeId, Tree, TreeError, show};

/// Lines for what packages ship in /var.
const VAR_LINES: &str = "usr/lib/tmpfiles.d/50-keller-var.conf";
/// Where files of /var wait to be copied; the directory that systemd has for it.
pub const FACTORY: &str = "usr/share/factory";
/// Letters of lines that make something at a path. `e` only adjusts and cleans directories that are there.
const MAKERS: &[u8] = b"dDqQvfFLCpcb";
/// Modifiers with which a line does at boot what it does here: only at boot (`!`), may fail (`-`), in place
/// of what is there (`+`), is undone by --purge (`$`).
const ANSWERED: &[u8] = b"!-+$";
/// Modifiers of lines that make something only on some nodes: a credential (`^`), a target that is there (`?`).
const ON_SOME_NODES: &[u8] = b"^?";

fn lines(tree: &Tree) -> Result<Vec<Line>, Error> {
    let files = conf_d::files(tree, "tmpfiles.d")?;
    Ok(files.iter().flat_map(|file| file.lines()).filter_map(|(_, text)| Line::parse(text).ok()).collect())
}

/// Absolute paths that the tree's lines make.
pub fn made(tree: &Tree) -> Result<BTreeSet<Vec<u8>>, Error> {
    let makers = lines(tree)?.into_iter().filter(|line| {
        MAKERS.contains(&line.letter) && !line.modifiers.iter().any(|sign| ON_SOME_NODES.contains(sign))
    });
    Ok(makers.filter_map(|line| line.place()).collect())
}

/// A line of which the build knows all.
struct Answered {
    letter: u8,
    path: Vec<u8>,
    /// In place of what is there.
    replaces: bool,
    mode: Option<Set<u16>>,
    /// The mode is less what is there does not have.
    masked: bool,
    uid: Option<Set<u32>>,
    gid: Option<Set<u32>>,
    argument: Vec<u8>,
}

/// A mode or an owner.
struct Set<T> {
    value: T,
    /// What is there keeps its own.
    only_new: bool,
}

impl Answered {
    fn of(line: &Line, accounts: &Accounts) -> Option<Self> {
        if line.modifiers.iter().any(|sign| !ANSWERED.contains(sign)) {
            return None;
        }
        let prefix = line.mode.iter().take_while(|byte| b":~".contains(byte)).count();
        let (prefix, digits) = line.mode.split_at(prefix);
        let colon: &[u8] = if prefix.contains(&b':') { b":" } else { b"" };
        let octal = |text: &str| u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
        let mode = field(&[colon, digits].concat(), octal)?;
        Some(Self {
            masked: prefix.contains(&b'~'),
            letter: line.letter,
            path: line.place()?,
            replaces: line.modifiers.contains(&b'+') || line.letter == b'F',
            mode,
            uid: field(&line.user, |name| accounts.uid(name).or_else(|| root(name)))?,
            gid: field(&line.group, |name| accounts.gid(name).or_else(|| root(name)))?,
            argument: line.argument()?,
        })
    }

    fn source(&self) -> Vec<u8> {
        if self.argument.is_empty() {
            [b"/", FACTORY.as_bytes(), &self.path].concat()
        } else {
            self.argument.clone()
        }
    }

    /// `mask_perms` of systemd's tmpfiles.c for what is there.
    fn adjust_masked(&self, kind: char, meta: &mut Meta) {
        let before = meta.mode;
        self.adjust(meta, false);
        if self.masked && self.mode.as_ref().is_some_and(|mode| !mode.only_new) {
            let absent = [0o111, 0o222, 0o444].into_iter().filter(|bits| before & bits == 0);
            let special = (kind != 'd').then_some(0o7000);
            meta.mode &= absent.chain(special).fold(0o7777, |mask, bits| mask & !bits);
        }
    }

    fn adjust(&self, meta: &mut Meta, new: bool) {
        fn set<T: Copy>(value: &mut T, to: Option<&Set<T>>, new: bool) {
            if let Some(to) = to.filter(|to| new || !to.only_new) {
                *value = to.value;
            }
        }
        set(&mut meta.mode, self.mode.as_ref(), new);
        set(&mut meta.uid, self.uid.as_ref(), new);
        set(&mut meta.gid, self.gid.as_ref(), new);
    }
}

/// systemd knows root without any account file.
fn root(name: &str) -> Option<u32> {
    (name == "root").then_some(0)
}

/// A field of mode, user or group: nothing at all if the build cannot know it.
#[expect(clippy::option_option, reason = "unknown is not the same as absent")]
fn field<T>(text: &[u8], known: impl Fn(&str) -> Option<T>) -> Option<Option<Set<T>>> {
    if text.is_empty() {
        return Some(None);
    }
    let (only_new, text) = text.strip_prefix(b":").map_or((false, text), |text| (true, text));
    let answer = line::answered(text)?;
    let value = known(str::from_utf8(&answer).ok()?)?;
    Some(Some(Set { value, only_new }))
}

/// Does at build time what the tree's tmpfiles.d lines would do to /etc at every boot, so that there is
/// nothing left to write into it. Lines that depend on the machine (credentials, specifiers) stay.
pub fn bake_etc(tree: &mut Tree, accounts: &Accounts) -> Result<(), Error> {
    let mut copies = Copies::default();
    for line in lines(tree)? {
        let in_etc = |line: &Answered| line.path.starts_with(b"/etc/") && !line.masked;
        if let Some(line) = Answered::of(&line, accounts).filter(in_etc) {
            bake(tree, &line, &mut copies)?;
        }
    }
    Ok(())
}

/// What lines have copied so far. One line can copy what another one has, so that each doubles it.
#[derive(Debug, Default)]
pub struct Copies {
    nodes: usize,
    /// Bytes of their paths.
    names: u64,
}

impl Copies {
    /// Counts one more, whose `children` come next.
    fn add(&mut self, path: &[u8], children: usize) -> Result<(), TreeError> {
        let path_of = || show(path);
        (self.nodes, self.names) = (self.nodes + 1, self.names + to_u64(path.len()));
        if self.nodes + children > limits::NODES {
            return Err(TreeError::TooMany { path: path_of(), limit: limits::NODES });
        }
        if self.names > limits::NAMES {
            return Err(TreeError::TooLong { path: path_of(), limit: limits::NAMES });
        }
        Ok(())
    }
}

/// Does one line, and says whether nothing is left of it to do; something may be in its way, which the node says.
///
/// # Errors
/// More copies than a root holds.
fn bake(tree: &mut Tree, line: &Answered, copies: &mut Copies) -> Result<bool, TreeError> {
    let path = &line.path;
    let there = tree.lookup(path);
    let kind = |id: NodeId| tree.node(id).kind.letter();
    Ok(match (line.letter, there.map(kind)) {
        (b'd' | b'D' | b'q' | b'Q' | b'v', None | Some('d')) => {
            let made = tree.directory(path, 0o755);
            made.is_ok_and(|id| adjusted(tree, line, id, there.is_none()))
        }
        (b'f' | b'F', None | Some('-')) => {
            let id = match there {
                Some(id) => Ok(id),
                None => tree.file(path, 0o644, line.argument.clone()),
            };
            id.is_ok_and(|id| {
                if line.replaces {
                    tree.node_mut(id).kind = Kind::File(line.argument.clone().into());
                }
                adjusted(tree, line, id, there.is_none())
            })
        }
        (b'L', kind) if kind.is_none() || line.replaces => link(tree, line),
        // What is there stays.
        (b'L', Some(_)) => true,
        (b'C', None) => {
            let Ok(source) = tree.resolve(line.source()) else { return Ok(false) };
            // Owners are the line's throughout, the mode only that of the uppermost.
            let adjust = |meta: &mut Meta| {
                let mode = meta.mode;
                line.adjust(meta, true);
                meta.mode = mode;
            };
            copy(tree, source, path, copies, &adjust)?;
            tree.lookup(path).is_some_and(|id| adjusted(tree, line, id, true))
        }
        (b'z' | b'm', Some(_)) if !line::is_pattern(path) => {
            tree.resolve(path).is_ok_and(|id| adjusted(tree, line, id, false))
        }
        (b'p', Some('p')) => there.is_some_and(|id| adjusted(tree, line, id, false)),
        _ => false,
    })
}

/// Gives a node what the line says of it.
fn adjusted(tree: &mut Tree, line: &Answered, id: NodeId, new: bool) -> bool {
    let node = tree.node_mut(id);
    match new {
        true => line.adjust(&mut node.meta, true),
        false => line.adjust_masked(node.kind.letter(), &mut node.meta),
    }
    true
}

/// A link is made where it leads somewhere: what is missing may have been pruned. What is made at boot is
/// always missing.
fn link(tree: &mut Tree, line: &Answered) -> bool {
    let target = line.source();
    let folder = &line.path[..line.path.iter().rposition(|byte| *byte == b'/').unwrap_or_default()];
    let absolute = if target.starts_with(b"/") { target.clone() } else { [folder, b"/", &target].concat() };
    let at_boot = [&b"/run/"[..], b"/proc/", b"/dev/"];
    let leads =
        at_boot.iter().any(|place| clean(&absolute).starts_with(place)) || tree.resolve(&absolute).is_ok();
    // A directory with content in its place stays, which the node says.
    leads && tree.symlink(&line.path, &target).is_ok()
}

/// Copies the node `source` with all below it to `path`, where nothing is; `adjust` changes what each node says
/// of itself. What cannot be placed is left out.
///
/// # Errors
/// More `copies` than a root holds.
pub fn copy(
    tree: &mut Tree,
    source: NodeId,
    path: &[u8],
    copies: &mut Copies,
    adjust: &dyn Fn(&mut Meta),
) -> Result<(), TreeError> {
    copies.add(path, tree.children(source).count())?;
    let node = tree.node(source).clone();
    let (children, kind) = match node.kind {
        Kind::Directory(children) => (children, Kind::Directory(BTreeMap::new())),
        kind => (BTreeMap::new(), kind),
    };
    let mut meta = node.meta;
    adjust(&mut meta);
    if tree.put(path, meta, kind, node.origin).is_ok() {
        for (name, child) in children {
            copy(tree, child, &[path, b"/", &name].concat(), copies, adjust)?;
        }
    }
    Ok(())
}

/// A path without `.`, `..` and double slashes, as the kernel would walk it were there no links.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.into_iter().flat_map(|part| [b"/", part].concat()).collect()
}

/// Rewrites the paths of lines that lie in one of the directories `moved` (from, to), e.g. /home: tmpfiles
/// refuses to make something through a link.
pub fn relocate(tree: &mut Tree, moved: &[(&str, &str)]) -> Result<(), Error> {
    for file in conf_d::files(tree, "tmpfiles.d")? {
        let mut changed = false;
        let lines: Vec<Vec<u8>> = file
            .bytes
            .split(|byte| *byte == b'\n')
            .map(|line| {
                let new = relocated(line, moved);
                changed |= new.is_some();
                new.unwrap_or_else(|| line.to_vec())
            })
            .collect();
        if changed {
            let id = tree.resolve(&file.path)?;
            tree.node_mut(id).kind = Kind::File(Content::from(lines.join(&b'\n')));
        }
    }
    Ok(())
}

fn relocated(text: &[u8], moved: &[(&str, &str)]) -> Option<Vec<u8>> {
    let stripped = conf_d::stripped(text);
    let line = Line::parse(stripped).ok().filter(|_| !stripped.starts_with(b"#"))?;
    let inside = |path: &[u8]| {
        moved.iter().find_map(|(from, to)| {
            let rest = path.strip_prefix(from.as_bytes())?;
            (rest.is_empty() || rest.starts_with(b"/")).then(|| [to.as_bytes(), rest].concat())
        })
    };
    // What is only known on the node may still lie below a directory that is known here.
    let path = inside(&line.path).or_else(|| inside(&line.place()?).map(|path| line::literal(&path)))?;
    Some(line.moved(stripped, &path))
}

/// Empties /var. What was there becomes lines that make it at boot: directories and links as they are, files
/// as copies of what waits in [`FACTORY`]. Paths that some line makes already are left to that line.
pub fn empty_var(tree: &mut Tree) -> Result<(), Error> {
    let made = made(tree)?;
    let Some(var) = tree.lookup("var") else { return Ok(()) };
    let mut text = String::new();
    for (path, id) in tree.walk() {
        if !path.starts_with(b"var/") {
            continue;
        }
        let path = [b"/", &path[..]].concat();
        if made.contains(&path) {
            continue;
        }
        let node = tree.node(id).clone();
        let access = Some((node.meta.mode, node.meta.uid, node.meta.gid));
        match &node.kind {
            Kind::Directory(_) => text += &make('d', &path, access, None),
            Kind::File(_) => {
                let waiting = [b"/", FACTORY.as_bytes(), &path].concat();
                text += &make('C', &path, None, Some(&waiting));
                waiting_directories(tree, &path)?;
                tree.put(waiting, node.meta, node.kind, node.origin)?;
            }
            Kind::Symlink(target) => text += &make('L', &path, None, Some(target)),
            Kind::Fifo => text += &make('p', &path, access, None),
            Kind::CharDevice(major, minor) => {
                text += &make('c', &path, access, Some(format!("{major}:{minor}").as_bytes()));
            }
            Kind::BlockDevice(major, minor) => {
                text += &make('b', &path, access, Some(format!("{major}:{minor}").as_bytes()));
            }
            Kind::Socket => {}
        }
    }
    tree.node_mut(var).kind = Kind::Directory(BTreeMap::new());
    if !text.is_empty() {
        tree.file(
            VAR_LINES,
            0o644,
            format!("# What packages ship in /var, which is blank at first.\n{text}"),
        )?;
    }
    Ok(())
}

/// Makes the directories below /var that `path` is in also where files wait: a home is copied from there whole.
fn waiting_directories(tree: &mut Tree, path: &[u8]) -> Result<(), Error> {
    let ends = path.iter().enumerate().skip(b"/var/".len()).filter(|(_, byte)| **byte == b'/');
    for (end, _) in ends {
        let directory = &path[..end];
        let waiting = [b"/", FACTORY.as_bytes(), directory].concat();
        if let Some(id) = tree.lookup(directory).filter(|_| !tree.exists(&waiting)) {
            let node = tree.node(id);
            let (meta, origin) = (node.meta.clone(), node.origin);
            tree.put(waiting, meta, Kind::Directory(BTreeMap::new()), origin)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::show;

    #[test]
    fn etc_is_done_at_build_time() {
        let mut tree = Tree::new(0);
        tree.file("etc/default/keyboard", 0o644, "").unwrap();
        let text = "d /etc/credstore 0700 root root\nL+ /etc/mtab - - - - ../proc/self/mounts\n\
            L+ /etc/vconsole.conf - - - - default/keyboard\nL /etc/gone - - - - /usr/share/pruned\n\
            f^ /etc/hosts - - - - network.hosts\nL! /etc/resolv.conf - - - - ../run/systemd/x\n\
            f /etc/issue 0600 - - - hello there\nd /run/x 0755 - -\n";
        tree.file("usr/lib/tmpfiles.d/x.conf", 0o644, text).unwrap();
        bake_etc(&mut tree, &Accounts::default()).unwrap();
        assert_eq!(tree.node(tree.lookup("etc/credstore").unwrap()).meta.mode, 0o700);
        let names: Vec<_> = tree.children(tree.lookup("etc").unwrap()).map(|(name, _)| show(name)).collect();
        assert_eq!(names, ["credstore", "default", "issue", "mtab", "resolv.conf", "vconsole.conf"]);
        assert_eq!(tree.read("etc/issue").unwrap(), b"hello there");
    }

    #[test]
    fn var_becomes_lines() {
        let mut tree = Tree::new(0);
        let origin = tree.origin("p");
        let folder = || Kind::Directory(BTreeMap::new());
        tree.put("var/lib/pg", Meta::new(0o1700).owned(983, 983), folder(), origin).unwrap();
        tree.put("var/lib/pg/a b", Meta::new(0o600).owned(983, 983), Kind::File("x".into()), origin).unwrap();
        tree.symlink("var/run", "/run").unwrap();
        tree.file("usr/lib/tmpfiles.d/var.conf", 0o644, "d /var/lib 0755\nL /var/run - - - - ../run\n")
            .unwrap();
        empty_var(&mut tree).unwrap();
        let text = String::from_utf8(tree.read(VAR_LINES).unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "d /var/lib/pg :1700 :983 :983 - -",
                "C \"/var/lib/pg/a b\" - - - - /usr/share/factory/var/lib/pg/a b",
            ]
        );
        assert!(tree.children(tree.lookup("var").unwrap()).next().is_none());
        assert_eq!(tree.read("usr/share/factory/var/lib/pg/a b").unwrap(), b"x");
    }

    #[test]
    fn a_line_that_only_cleans_makes_nothing() {
        let mut tree = Tree::new(0);
        tree.directory("var/cache/app", 0o750).unwrap();
        tree.file("usr/lib/tmpfiles.d/app.conf", 0o644, "d /var/cache\ne /var/cache/app 0750 - - 10d\n")
            .unwrap();
        empty_var(&mut tree).unwrap();
        let text = show(&tree.read(VAR_LINES).unwrap());
        assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), ["d /var/cache/app :0750 :0 :0 - -"]);
    }

    #[test]
    fn lines_that_the_build_cannot_do_stay_for_the_node() {
        let mut tree = Tree::new(0);
        tree.file("etc/there", 0o600, "mine").unwrap();
        tree.directory("etc/full/of", 0o755).unwrap();
        let text = br#"f /run/x 0644 root root - Don't panic
f /etc/panic 0644 root root - Don't "panic" \\ 100%%
f /etc/%m - - - - x
f /etc/on - - - - %H
d /etc/nobodys 0700 vendor -
d /etc/masked ~0700 - -
f~ /etc/coded - - - - aGk=
f= /etc/other
d? /etc/odd
f /etc/"open
d "/etc/My App" 0750 0 4 -
d /etc/t\xe4st
f /etc/there :0644 :1 - - other
f /etc/full 0600
L+ /etc/full - - - - /run/x
"#;
        tree.file("usr/lib/tmpfiles.d/x.conf", 0o644, &text[..]).unwrap();
        bake_etc(&mut tree, &Accounts::default()).unwrap();
        let names: Vec<_> =
            tree.children(tree.lookup("etc").unwrap()).map(|(name, _)| name.to_vec()).collect();
        let expected: [&[u8]; 5] = [b"My App", b"full", b"panic", b"there", b"t\xe4st"];
        assert_eq!(names, expected);
        assert_eq!(tree.read("etc/panic").unwrap(), b"Don't \"panic\" \\ 100%");
        let meta = |path: &str| &tree.node(tree.lookup(path).unwrap()).meta;
        assert_eq!((meta("etc/My App").mode, meta("etc/My App").gid), (0o750, 4));
        assert_eq!((meta("etc/there").mode, meta("etc/there").uid), (0o600, 0));
        assert_eq!(tree.read("etc/there").unwrap(), b"mine");
        let made = made(&tree).unwrap();
        assert!(
            made.contains(&b"/etc/My App"[..])
                && made.contains(&b"/run/x"[..])
                && !made.contains(&b"/etc/%m"[..])
        );
    }

    #[test]
    fn copies_take_the_owner_of_their_line() {
        let mut tree = Tree::new(0);
        tree.put("usr/skel/a/b", Meta::new(0o640).owned(7, 7), Kind::File("x".into()), Default::default())
            .unwrap();
        tree.file("usr/lib/tmpfiles.d/x.conf", 0o644, "C /etc/skel 0700 3 :4 - /usr/skel\n").unwrap();
        bake_etc(&mut tree, &Accounts::default()).unwrap();
        let meta = |path: &str| {
            let meta = &tree.node(tree.lookup(path).unwrap()).meta;
            (meta.mode, meta.uid, meta.gid)
        };
        assert_eq!([meta("etc/skel"), meta("etc/skel/a/b")], [(0o700, 3, 4), (0o640, 3, 4)]);
    }

    #[test]
    fn names_in_var_are_bytes() {
        let mut tree = Tree::new(0);
        let folder = || Kind::Directory(BTreeMap::new());
        for name in [&b"with space"[..], b"50%", b"t\xe4", b"$x\\\"'"] {
            let path = [b"var/lib/", name].concat();
            tree.put(&path, Meta::new(0o755), folder(), Default::default()).unwrap();
            tree.file([&path[..], b"/f"].concat(), 0o644, "x").unwrap();
        }
        tree.symlink("var/lib/l", b"../ \xff ").unwrap();
        empty_var(&mut tree).unwrap();
        let text = tree.read(VAR_LINES).unwrap();
        assert!(text.is_ascii(), "{}", show(&text));
        let made = made(&tree).unwrap();
        for (path, id) in tree.walk() {
            if let (Some(place), Kind::File(_)) = (path.strip_prefix(FACTORY.as_bytes()), &tree.node(id).kind)
            {
                assert!(made.contains(place), "{}", show(place));
            }
        }
        let link = text.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"L ")).unwrap();
        assert_eq!(Line::parse(link).unwrap().argument().unwrap(), b"../ \xff ");
    }

    #[test]
    fn moved_folders() {
        let moved = [("/home", "/var/home"), ("/root", "/var/roothome")];
        let relocated = |line: &str| relocated(line.as_bytes(), &moved).map(|line| show(&line));
        assert_eq!(relocated("Q /home 0755 - - -").unwrap(), "Q /var/home 0755 - - -");
        assert_eq!(relocated("d- /root/.ssh :0700 root").unwrap(), "d- /var/roothome/.ssh :0700 root");
        assert_eq!(
            relocated(" f \"/home/my app/%m\"  0644 - - - it's ").unwrap(),
            "f \"/var/home/my app/%m\"  0644 - - - it's"
        );
        assert_eq!(relocated("d %h/50%%").unwrap(), "d /var/roothome/50%%");
        assert!(relocated("d /homestead 0755").is_none());
        assert!(relocated("# see /home").is_none());
        assert!(relocated("#f /home").is_none());
    }

    #[test]
    fn lines_that_copy_what_others_have_copied() {
        let doubled = |times: u32| {
            let mut tree = Tree::new(0);
            tree.file("etc/d0/x", 0o644, "").unwrap();
            let lines: String = (1..=times)
                .map(|number| {
                    let above = number - 1;
                    format!(
                        "C /etc/d{number}/a - - - - /etc/d{above}\nC /etc/d{number}/b - - - - /etc/d{above}\n"
                    )
                })
                .collect();
            tree.file("usr/lib/tmpfiles.d/x.conf", 0o644, lines).unwrap();
            bake_etc(&mut tree, &Accounts::default()).map(|()| tree.capacity())
        };
        assert!(doubled(5).unwrap() > 150);
        let error = doubled(40).unwrap_err().to_string();
        assert!(error.starts_with("more than 200000 files, directories and links, with /etc/d1"), "{error}");
    }
}
