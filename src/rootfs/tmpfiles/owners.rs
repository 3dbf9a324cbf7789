//! What the user says of a path, in `.meta` or `files`, against a package's lines of tmpfiles.d for it, which
//! systemd-tmpfiles would do at every boot.
//!
//! The user's word wins. A line for the very path gets the user's mode and owner, for what it makes anew (`:`):
//! what a node has changed since stays. A line that would put something else in the place of the user's own file is
//! taken out. A line that is about several paths (a pattern, `Z`) stays as it is for the others, and a line of type
//! `z` after it gives the path back what the user has said.

use std::collections::BTreeMap;

use super::line::{Access, Line, answered, is_pattern, literal};
use super::{Content, Kind, conf_d};
use crate::rootfs::error::Error;
use crate::tree::{NodeId, Tree};

/// Where lines go that have the last word: no package's file comes after it.
const LAST_LINES: &str = "usr/lib/tmpfiles.d/~keller-owners.conf";
/// Letters of lines that make or adjust one directory or node, with the mode and owner that they name.
const DIRECTORIES: &[u8] = b"dDvqQe";
const NODES: &[u8] = b"fFLCpcb";
/// Letters of lines whose path is a pattern.
const PATTERNS: &[u8] = b"zZm";
/// What a line is that a file of the user's takes the place of.
const USERS: &[u8] = b"# Left out, since the path is said otherwise: ";

/// What becomes of a line.
enum Verdict {
    Stays,
    /// The line instead.
    Becomes(Vec<u8>),
    /// It stays, and these paths are set again after it.
    Hits(Vec<Vec<u8>>),
}

/// Makes `said`, by absolute path, and the user's own files win over the lines of packages.
///
/// # Errors
/// Of the tree.
pub fn user_first(tree: &mut Tree, said: &BTreeMap<Vec<u8>, Access>) -> Result<(), Error> {
    let mut again: BTreeMap<Vec<u8>, Access> = BTreeMap::new();
    for file in conf_d::files(tree, "tmpfiles.d")? {
        let id = tree.resolve(&file.path)?;
        if tree.is_users(id) {
            continue;
        }
        let mut changed = false;
        let mut lines = Vec::new();
        for text in file.bytes.split(|byte| *byte == b'\n') {
            let verdict = judged(tree, said, conf_d::stripped(text));
            changed |= matches!(verdict, Verdict::Becomes(_));
            match verdict {
                Verdict::Becomes(line) => lines.push(line),
                Verdict::Stays => lines.push(text.to_vec()),
                Verdict::Hits(paths) => {
                    again.extend(paths.into_iter().map(|path| (path.clone(), said[&path])));
                    lines.push(text.to_vec());
                }
            }
        }
        if changed {
            tree.node_mut(id).kind = Kind::File(Content::from(lines.join(&b'\n')));
        }
    }
    if !again.is_empty() {
        // The deepest first: systemd-tmpfiles does not follow a path from one user's directory into another's.
        let lines: String = again.iter().rev().map(|(path, access)| last(path, *access)).collect();
        tree.file(
            LAST_LINES,
            0o644,
            format!("# What is said of paths that lines of packages are about too.\n{lines}"),
        )?;
    }
    Ok(())
}

fn judged(tree: &Tree, said: &BTreeMap<Vec<u8>, Access>, text: &[u8]) -> Verdict {
    let Some(line) = Line::parse(text).ok().filter(|_| !text.starts_with(b"#")) else {
        return Verdict::Stays;
    };
    if PATTERNS.contains(&line.letter) {
        return pattern(tree, said, &line, text);
    }
    let Some(place) = line.place() else { return Verdict::Stays };
    let there = tree.lookup(&place);
    if (NODES.contains(&line.letter) || line.letter == b'w') && there.is_some_and(|id| is_own(tree, id)) {
        return match undoes(tree, &line, &place, there) {
            true => Verdict::Becomes([USERS, text].concat()),
            false => Verdict::Stays,
        };
    }
    match said.get(&place) {
        // A copy sets modes at every boot, `:` or not, and what is to be copied is there.
        Some(_) if line.letter == b'C' && there.is_some() => Verdict::Becomes([USERS, text].concat()),
        Some(access) if DIRECTORIES.contains(&line.letter) || NODES.contains(&line.letter) => {
            Verdict::Becomes(with(&line, text, *access))
        }
        _ => Verdict::Stays,
    }
}

/// A file or link that the user brings.
fn is_own(tree: &Tree, id: NodeId) -> bool {
    tree.is_users(id) && !matches!(tree.node(id).kind, Kind::Directory(_))
}

/// Whether a line would change the user's own file: in /etc it is there before the line, on the state partition
/// it would not come at all.
fn undoes(tree: &Tree, line: &Line, place: &[u8], there: Option<NodeId>) -> bool {
    let same = there.is_some_and(|id| match &tree.node(id).kind {
        Kind::Symlink(target) => {
            line.letter == b'L' && line.argument().is_some_and(|argument| argument == *target)
        }
        _ => false,
    });
    let replaces = line.modifiers.contains(&b'+') || b"Fw".contains(&line.letter);
    let sets = [&line.mode, &line.user, &line.group].iter().any(|field| !field.is_empty());
    !same && (replaces || sets || !place.starts_with(b"/etc/"))
}

/// A line of type `z`, `Z` or `m`. One for the very path alone is taken out.
fn pattern(tree: &Tree, said: &BTreeMap<Vec<u8>, Access>, line: &Line, text: &[u8]) -> Verdict {
    let sets = [&line.mode, &line.user, &line.group].iter().any(|field| !field.is_empty());
    let Some(path) = answered(&line.path).filter(|_| sets) else { return Verdict::Stays };
    let alone = line.letter != b'Z' && !is_pattern(&path);
    if alone && line.place().is_some_and(|place| said.contains_key(&place)) {
        return Verdict::Becomes([USERS, text].concat());
    }
    let hit = said.keys().filter(|said| {
        let there = tree.resolve(said).is_ok_and(|id| !matches!(tree.node(id).kind, Kind::Symlink(_)));
        there && hits(&path, said, line.letter == b'Z')
    });
    match hit.cloned().collect::<Vec<_>>() {
        hit if hit.is_empty() => Verdict::Stays,
        hit => Verdict::Hits(hit),
    }
}

/// Whether the pattern is about `path`, or about a directory above it where it goes down.
fn hits(pattern: &[u8], path: &[u8], recursive: bool) -> bool {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(<[u8]>::to_vec)
            .collect()
    };
    let (pattern, path) = (parts(pattern), parts(path));
    let fits = pattern.len() == path.len() || (recursive && pattern.len() < path.len());
    fits && pattern.iter().zip(&path).all(|(pattern, part)| fits_part(pattern, part))
}

/// What stands for letters in a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Any number of any letters.
    Star,
    /// One letter, whichever. A class (`[a-z]`) counts as such too: a line too many does no harm.
    Any,
    Byte(u8),
}

/// The signs of a part of a pattern: glob(7).
fn signs(mut pattern: &[u8]) -> Vec<Sign> {
    let mut signs = Vec::new();
    while let Some((first, mut rest)) = pattern.split_first() {
        signs.push(match first {
            b'*' => Sign::Star,
            b'?' => Sign::Any,
            b'[' => match rest.iter().skip(1).position(|byte| *byte == b']') {
                Some(end) => {
                    rest = &rest[end + 2..];
                    Sign::Any
                }
                None => Sign::Byte(b'['),
            },
            b'\\' => match rest.split_first() {
                Some((quoted, tail)) => {
                    rest = tail;
                    Sign::Byte(*quoted)
                }
                None => Sign::Byte(b'\\'),
            },
            byte => Sign::Byte(*byte),
        });
        pattern = rest;
    }
    signs
}

/// Whether the pattern is about a part of a path. Only the last star is tried again: what an earlier one could take
/// besides, that one can take too.
fn fits_part(pattern: &[u8], part: &[u8]) -> bool {
    let signs = signs(pattern);
    let (mut at, mut here) = (0, 0);
    let mut star = None;
    while let Some(byte) = part.get(here) {
        match signs.get(at) {
            Some(Sign::Star) => {
                at += 1;
                star = Some((at, here));
                continue;
            }
            Some(Sign::Any) => {}
            Some(Sign::Byte(sign)) if sign == byte => {}
            _ => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                (at, here) = (after, from + 1);
                continue;
            }
        }
        (at, here) = (at + 1, here + 1);
    }
    signs[at..].iter().all(|sign| *sign == Sign::Star)
}

/// The line with another mode and owner.
fn with(line: &Line, text: &[u8], (mode, uid, gid): Access) -> Vec<u8> {
    let or_dash = |field: &[u8]| if field.is_empty() { b"-".to_vec() } else { field.to_vec() };
    let age = if line.age.is_empty() { "-".to_owned() } else { conf_d::quoted(&line.age) };
    let kind = [&[line.letter], &line.modifiers[..]].concat();
    let access = format!(" :{mode:04o} :{uid} :{gid} {age} ");
    [&kind[..], b" ", &text[line.path_at.clone()], access.as_bytes(), &or_dash(&line.rest)].concat()
}

/// A line that has the last word on `path`. systemd-tmpfiles does lines for one path together, where the first
/// stands: a backslash that means nothing makes it a path of its own.
fn last(path: &[u8], (mode, uid, gid): Access) -> String {
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let mut pattern = Vec::new();
    for (at, byte) in path.iter().enumerate() {
        if b"*?[\\".contains(byte) || (at == name && name > 1) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    format!("z {} {mode:04o} {uid} {gid}\n", conf_d::quoted(&literal(&pattern)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Meta, show};

    #[test]
    fn patterns() {
        for (pattern, path, recursive) in [
            ("/a/b", "/a/b", false),
            ("/a/*", "/a/b", false),
            ("/a", "/a/b/c", true),
            ("/a/?x[0-9]", "/a/bx7/c", true),
            ("/a/\\*", "/a/*", false),
            ("/*/b*d", "/a/bcd", false),
        ] {
            assert!(hits(pattern.as_bytes(), path.as_bytes(), recursive), "{pattern} {path}");
        }
        for (pattern, path, recursive) in
            [("/a", "/a/b", false), ("/a/b", "/a", true), ("/a/*", "/b/c", true)]
        {
            assert!(!hits(pattern.as_bytes(), path.as_bytes(), recursive), "{pattern} {path}");
        }
    }

    #[test]
    fn stars_cost_no_time() {
        let name = "a".repeat(255);
        for (pattern, fits) in [
            ("*a*a*a*a*a*a*a*b", false),
            ("*a*a*a*a*a*a*a*a", true),
            ("*?*?*?*?*?*?*?*[b]*c", false),
            ("**************\\b", false),
            ("*a?a*", true),
            ("*", true),
            ("a*a", true),
            ("", false),
        ] {
            assert_eq!(fits_part(pattern.as_bytes(), name.as_bytes()), fits, "{pattern}");
        }
        let many = format!("{}b", "*a".repeat(120));
        assert!(!fits_part(many.as_bytes(), name.as_bytes()));
        for (pattern, name, fits) in [
            ("*ab*ab", "abab", true),
            ("*ab", "aab", true),
            ("*ab*b", "ab", false),
            ("[", "[", true),
            ("a\\", "a\\", true),
            ("", "", true),
            ("?", "", false),
        ] {
            assert_eq!(fits_part(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn lines_get_what_is_said() {
        let mut tree = Tree::new(0);
        let text = "d!  \"/var/lib/a b\" 0700 - - 10d\nz /var/lib/x 0700\nZ /var/lib 0700 root root\nd /var/lib/other 0700\n\
            f /etc/mine 0600 - - - x\nL+ /etc/link - - - - else\n";
        tree.file("usr/lib/tmpfiles.d/p.conf", 0o644, text).unwrap();
        tree.directory("var/lib/a b", 0o750).unwrap();
        tree.directory("var/lib/x", 0o750).unwrap();
        let files = tree.origin("files");
        tree.put("etc/mine", Meta::new(0o640), Kind::File("mine".into()), files).unwrap();
        tree.put("etc/link", Meta::new(0o777), Kind::Symlink(b"there".to_vec()), files).unwrap();
        let said = ["/var/lib/a b", "/var/lib/x"].map(|path| (path.as_bytes().to_vec(), (0o750, 7, 8)));
        user_first(&mut tree, &said.into()).unwrap();
        assert_eq!(
            show(&tree.read("usr/lib/tmpfiles.d/p.conf").unwrap()),
            "d! \"/var/lib/a b\" :0750 :7 :8 10d -\n# Left out, since the path is said otherwise: z /var/lib/x 0700\n\
             Z /var/lib 0700 root root\nd /var/lib/other 0700\n\
             # Left out, since the path is said otherwise: f /etc/mine 0600 - - - x\n\
             # Left out, since the path is said otherwise: L+ /etc/link - - - - else\n"
        );
        let last = show(&tree.read(LAST_LINES).unwrap());
        let last: Vec<_> = last.lines().skip(1).collect();
        assert_eq!(last, [r#"z "/var/lib/\\x" 0750 7 8"#, r#"z "/var/lib/\\a b" 0750 7 8"#]);
    }
}
