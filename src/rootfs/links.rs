//! Links that lead to where they led, although directories on their way are moved.
//!
//! A moved directory is a link on the node: a path that enters it by its old name still arrives, but `..` in it
//! leads to where it lies now. A link whose way leaves such a directory by `..` is given the absolute path from
//! there on.

use std::collections::BTreeSet;

use crate::tree::{Kind, Tree};

/// How many links one path may cross: the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;

/// A directory that is moved.
#[derive(Clone, Copy, Debug)]
pub struct Moved<'a> {
    /// Where it is, without leading slash.
    pub path: &'a str,
    /// Where it is moved in units: how deep in it they lie.
    pub unit_depth: Option<usize>,
}

impl Moved<'_> {
    fn depth(&self) -> usize {
        self.path.split('/').count()
    }

    fn holds(&self, trail: &[Vec<u8>]) -> bool {
        let parts = self.path.split('/').map(str::as_bytes);
        trail.len() >= self.depth() && parts.zip(trail).all(|(part, name)| part == name.as_slice())
    }
}

/// The target that the link at `path` needs once `moved` are moved, of which `units` are what is moved together;
/// nothing where `target` still does. Paths are without leading slashes.
pub fn kept(
    tree: &Tree,
    path: &[u8],
    target: &[u8],
    moved: &[Moved<'_>],
    units: &BTreeSet<Vec<u8>>,
) -> Option<Vec<u8>> {
    let parts = |path: &[u8]| path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let at = |trail: &[Vec<u8>]| moved.iter().position(|moved| moved.holds(trail));
    let mut trail = match target.starts_with(b"/") {
        true => Vec::new(),
        false => parts(path),
    };
    trail.pop();
    // Whether the way began in a moved directory and has not left it: then old names are not crossed.
    let mut inside = at(&trail).is_some();
    let mut pending: Vec<Vec<u8>> = parts(target);
    pending.reverse();
    let mut links = 0;
    let mut left = None;
    while let Some(part) = pending.pop() {
        let before = at(&trail);
        match &part[..] {
            b"" | b"." => continue,
            b".." => drop(trail.pop()),
            _ => trail.push(part),
        }
        let last = pending.iter().all(|part| matches!(&part[..], b"" | b"."));
        if let Some(id) = tree.lookup(trail.join(&b'/'))
            && let Kind::Symlink(target) = &tree.node(id).kind
            && !last
        {
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            trail.pop();
            if target.starts_with(b"/") {
                trail.clear();
                inside = false;
            }
            pending.extend(parts(target).into_iter().rev());
            continue;
        }
        let now = at(&trail);
        let leaves = before.is_some() && now != before;
        let missing = inside
            && now.is_some_and(|now| {
                let unit = moved[now].unit_depth.map(|depth| moved[now].depth() + depth);
                unit == Some(trail.len()) && !units.contains(&trail.join(&b'/'))
            });
        if leaves || missing {
            inside = false;
            left = Some([&trail[..], &pending.iter().rev().cloned().collect::<Vec<_>>()].concat());
        }
    }
    let parts = left?.into_iter().filter(|part| !matches!(&part[..], b"" | b"."));
    let absolute: Vec<u8> = parts.flat_map(|part| [b"/", &part[..]].concat()).collect();
    Some(if absolute.is_empty() { b"/".to_vec() } else { absolute })
}
