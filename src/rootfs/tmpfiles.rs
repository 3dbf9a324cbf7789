//! tmpfiles.d: what concerns /etc is done at build time, and what packages ship below /var becomes lines
//! that make it at boot, since /var is blank when a node starts for the first time.
//!
//! Format: tmpfiles.d(5) of systemd 257.

use std::collections::{BTreeMap, BTreeSet};

use super::conf_d;
use super::error::Error;
use super::users::Accounts;
use crate::tree::{Content, Kind, Meta, NodeId, Tree, show};

/// Lines for what packages ship in /var.
const VAR_LINES: &str = "usr/lib/tmpfiles.d/50-keller-var.conf";
/// Where files of /var wait to be copied; the folder that systemd has for it.
const FACTORY: &str = "usr/share/factory";
/// Letters of lines that make something at a path.
const MAKERS: &str = "dDqQvVefFLCpcb";

/// One line.
#[derive(Debug)]
struct Line {
    letter: char,
    modifiers: String,
    path: String,
    mode: Option<u16>,
    user: String,
    group: String,
    argument: String,
}

impl Line {
    /// Nothing for fields that are absent or `-`; `:` and `~` before a mode or owner only matter for what
    /// exists already.
    fn parse(words: &[String]) -> Option<Self> {
        let field = |at: usize| {
            let word = words.get(at).map(String::as_str).filter(|word| *word != "-").unwrap_or_default();
            word.trim_start_matches([':', '~']).to_owned()
        };
        let (letter, modifiers) = words.first()?.split_at_checked(1)?;
        Some(Self {
            letter: letter.chars().next()?,
            modifiers: modifiers.to_owned(),
            path: words.get(1)?.clone(),
            mode: u16::from_str_radix(&field(2), 8).ok(),
            user: field(3),
            group: field(4),
            argument: words.get(6..).unwrap_or_default().join(" "),
        })
    }
}

fn lines(tree: &Tree) -> Result<Vec<Line>, Error> {
    let mut found = Vec::new();
    for file in conf_d::files(tree, "tmpfiles.d")? {
        for line in file.lines() {
            let (_, words) = line?;
            found.extend(Line::parse(&words));
        }
    }
    Ok(found)
}

/// Paths that the tree's lines make.
pub fn made(tree: &Tree) -> Result<BTreeSet<String>, Error> {
    let makers = lines(tree)?.into_iter().filter(|line| MAKERS.contains(line.letter));
    Ok(makers.map(|line| line.path).collect())
}

/// Does at build time what the tree's tmpfiles.d lines would do to /etc at every boot, so that there is
/// nothing left to write into it. Lines that depend on the machine (credentials, specifiers) stay.
pub fn bake_etc(tree: &mut Tree, accounts: &Accounts) -> Result<(), Error> {
    for line in lines(tree)? {
        if !line.path.starts_with("/etc/")
            || line.path.contains(['%', '*', '?'])
            || line.modifiers.contains('^')
        {
            continue;
        }
        let exists = tree.exists(&line.path);
        let replaces = line.modifiers.contains('+');
        match line.letter {
            'd' | 'D' | 'q' | 'Q' | 'v' => {
                let id = tree.directory(&line.path, 0o755)?;
                adjust(tree, id, &line, accounts);
            }
            'f' | 'F' if !exists || replaces => {
                let id = tree.file(&line.path, 0o644, line.argument.clone())?;
                adjust(tree, id, &line, accounts);
            }
            'L' if !exists || replaces => {
                let target = factory_default(&line);
                let absolute = match line.path.rsplit_once('/') {
                    Some((folder, _)) if !target.starts_with('/') => format!("{folder}/{target}"),
                    _ => target.clone(),
                };
                // What is missing may have been pruned; what is made at boot is always missing.
                let at_boot =
                    ["/run/", "/proc/", "/dev/"].iter().any(|place| clean(&absolute).starts_with(place));
                if at_boot || tree.resolve(&absolute).is_ok() {
                    tree.symlink(&line.path, &target)?;
                }
            }
            'C' if !exists => {
                let source = factory_default(&line);
                if let Ok(source) = tree.resolve(&source) {
                    let id = copy(tree, source, &line.path)?;
                    adjust(tree, id, &line, accounts);
                }
            }
            'z' | 'm' if exists => {
                let id = tree.resolve(&line.path)?;
                adjust(tree, id, &line, accounts);
            }
            _ => {}
        }
    }
    Ok(())
}

fn factory_default(line: &Line) -> String {
    if line.argument.is_empty() { format!("/{FACTORY}{}", line.path) } else { line.argument.clone() }
}

fn adjust(tree: &mut Tree, id: NodeId, line: &Line, accounts: &Accounts) {
    let meta = &mut tree.node_mut(id).meta;
    meta.mode = line.mode.unwrap_or(meta.mode);
    meta.uid = accounts.uid(&line.user).unwrap_or(meta.uid);
    meta.gid = accounts.gid(&line.group).unwrap_or(meta.gid);
}

fn copy(tree: &mut Tree, source: NodeId, path: &str) -> Result<NodeId, Error> {
    let node = tree.node(source).clone();
    let Kind::Directory(children) = node.kind else {
        return Ok(tree.put(path, node.meta, node.kind, node.origin)?);
    };
    let copied = tree.put(path, node.meta, Kind::Directory(BTreeMap::new()), node.origin)?;
    for (name, child) in children {
        copy(tree, child, &format!("{path}/{}", show(&name)))?;
    }
    Ok(copied)
}

/// A path without `.`, `..` and double slashes, as the kernel would walk it were there no links.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Rewrites the paths of lines that lie in one of the folders `moved` (from, to), e.g. /home: tmpfiles
/// refuses to make something through a link.
pub fn relocate(tree: &mut Tree, moved: &[(&str, &str)]) -> Result<(), Error> {
    for file in conf_d::files(tree, "tmpfiles.d")? {
        let mut changed = false;
        let text: String = file
            .text
            .lines()
            .map(|line| {
                let new = relocated(line, moved);
                changed |= new.is_some();
                new.unwrap_or_else(|| line.to_owned()) + "\n"
            })
            .collect();
        if changed {
            let id = tree.resolve(&file.path)?;
            tree.node_mut(id).kind = Kind::File(Content::from(text));
        }
    }
    Ok(())
}

fn relocated(line: &str, moved: &[(&str, &str)]) -> Option<String> {
    let gap = line.find(char::is_whitespace)?;
    let start = gap + line[gap..].find(|character: char| !character.is_whitespace())?;
    let path = &line[start..];
    let (from, to) = moved.iter().find(|(from, _)| {
        path.strip_prefix(from).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ' ', '\t']))
    })?;
    (!line.starts_with('#')).then(|| format!("{}{to}{}", &line[..start], &path[from.len()..]))
}

/// Empties /var. What was there becomes lines that make it at boot: folders and links as they are, files
/// as copies of what waits in [`FACTORY`]. Paths that some line makes already are left to that line.
pub fn empty_var(tree: &mut Tree) -> Result<(), Error> {
    let made = made(tree)?;
    let Some(var) = tree.lookup("var") else { return Ok(()) };
    let mut text = String::new();
    for (path, id) in tree.walk() {
        if !path.starts_with(b"var/") {
            continue;
        }
        let path = format!("/{}", show(&path));
        let node = tree.node(id).clone();
        let Meta { mode, uid, gid, .. } = node.meta;
        if made.contains(&path) {
            continue;
        }
        let place = escaped(&path);
        let mut line = |letter: &str, argument: &str| {
            text += &format!("{letter} {place} {mode:04o} {uid} {gid} - {argument}\n");
        };
        match &node.kind {
            Kind::Directory(_) => line("d", "-"),
            Kind::File(_) => {
                line("C", &escaped(&format!("/{FACTORY}{path}")));
                tree.put(format!("{FACTORY}{path}"), node.meta, node.kind, node.origin)?;
            }
            Kind::Symlink(target) => text += &format!("L {place} - - - - {}\n", escaped(&show(target))),
            Kind::Fifo => line("p", "-"),
            Kind::CharDevice(major, minor) => line("c", &format!("{major}:{minor}")),
            Kind::BlockDevice(major, minor) => line("b", &format!("{major}:{minor}")),
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

/// A path as one word of a line.
fn escaped(path: &str) -> String {
    let path = path.replace('%', "%%");
    if !path.contains(|character: char| character.is_whitespace() || "\\\"'".contains(character)) {
        return path;
    }
    let characters = path.chars().map(|character| match character {
        '"' | '\\' => format!("\\{character}"),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        other => other.to_string(),
    });
    format!("\"{}\"", characters.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

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
                "d /var/lib/pg 1700 983 983 - -",
                "C \"/var/lib/pg/a b\" 0600 983 983 - \"/usr/share/factory/var/lib/pg/a b\"",
            ]
        );
        assert!(tree.children(tree.lookup("var").unwrap()).next().is_none());
        assert_eq!(tree.read("usr/share/factory/var/lib/pg/a b").unwrap(), b"x");
    }

    #[test]
    fn moved_folders() {
        let moved = [("/home", "/var/home"), ("/root", "/var/roothome")];
        assert_eq!(relocated("Q /home 0755 - - -", &moved).unwrap(), "Q /var/home 0755 - - -");
        assert_eq!(
            relocated("d- /root/.ssh :0700 root", &moved).unwrap(),
            "d- /var/roothome/.ssh :0700 root"
        );
        assert!(relocated("d /homestead 0755", &moved).is_none());
        assert!(relocated("# see /home", &moved).is_none());
    }
}
