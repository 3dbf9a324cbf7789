//! Symbolic links that lead nowhere.

use super::{Finding, Inputs, Severity, View};
use crate::base::limits;
use crate::rootfs::tmpfiles::FACTORY;
use crate::rootfs::tmpfiles::shipped::SHIPPED_PLACE;
use crate::tree::{Kind, NodeId, Tree, show};

/// Folders that are empty in the image and filled at boot: kernel file systems (`proc`, `sys`, `dev`), memory
/// (`run`, `tmp`), the state partition (`var`), the ESP (`boot`, `efi`). A link into them cannot be judged.
const FILLED_AT_BOOT: [&[u8]; 8] = [b"boot", b"dev", b"efi", b"proc", b"run", b"sys", b"tmp", b"var"];

/// Links that packages ship dangling, by the beginning and end of their path, each for a reason.
const TOLERATED: [(&[u8], &[u8]); 2] = [
    // Lead to the headers for building modules, a package that no node has.
    (b"usr/lib/modules/", b"/build"),
    (b"usr/lib/modules/", b"/source"),
];

/// How many links one path may cross: the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;

/// Most links that are told; each may be a long text.
const MOST_TOLD: usize = 1000;

/// Where a path leads on the node.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination {
    /// To something in the image.
    Found(NodeId),
    /// To a path that the image does not have, without leading slash.
    Missing(Vec<u8>),
    /// In circles.
    Loop,
    /// Over more than [`limits::WAY`] names.
    Far,
}

impl Destination {
    /// Whether only the running node can say what is there.
    pub fn is_filled_at_boot(&self) -> bool {
        match self {
            Self::Missing(path) => {
                let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
                FILLED_AT_BOOT.contains(&first)
            }
            _ => false,
        }
    }
}

/// Follows `path` and every link on it.
pub fn destination(tree: &Tree, path: &[u8]) -> Destination {
    let mut pending: Vec<&[u8]> = names(path).collect();
    let mut trail: Vec<(&[u8], Option<NodeId>)> = Vec::new();
    let (mut links, mut steps) = (0, 0);
    while let Some(part) = pending.pop() {
        steps += 1;
        if steps > limits::WAY {
            return Destination::Far;
        }
        if part == b".." {
            trail.pop();
            continue;
        }
        let here = trail.last().map_or(Some(tree.root()), |(_, id)| *id);
        let child = here.and_then(|id| match &tree.node(id).kind {
            Kind::Directory(children) => children.get(part).copied(),
            _ => None,
        });
        match child.map(|id| (id, &tree.node(id).kind)) {
            Some((_, Kind::Symlink(target))) => {
                links += 1;
                if links > MAX_LINKS {
                    return Destination::Loop;
                }
                if target.starts_with(b"/") {
                    trail.clear();
                }
                pending.extend(names(target).take(limits::WAY + 1));
            }
            other => trail.push((part, other.map(|(id, _)| id))),
        }
    }
    match trail.last() {
        None => Destination::Found(tree.root()),
        Some((_, Some(id))) => Destination::Found(*id),
        Some((_, None)) => {
            let names: Vec<_> = trail.into_iter().map(|(name, _)| name).collect();
            Destination::Missing(names.join(&b'/'))
        }
    }
}

/// The names in `path`, from the last to the first. What means nothing costs nothing later.
fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.rsplit(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

/// As [`destination`], on a node that has booted: what the image has of places on the state partition is there,
/// as links and copies that are made at boot.
pub fn on_node(tree: &Tree, path: &[u8]) -> Destination {
    let mut found = destination(tree, path);
    for _ in 0..MAX_LINKS {
        let Destination::Missing(place) = &found else { return found };
        match kept(tree, place) {
            Some(next) => found = next,
            None => return found,
        }
    }
    Destination::Loop
}

/// Where that leads which the image keeps for `place`, a path on the state partition without leading slash.
fn kept(tree: &Tree, place: &[u8]) -> Option<Destination> {
    let factory = format!("/{FACTORY}/var/");
    let [opt, local] = ["opt", "usr/local"].map(|below| format!("{SHIPPED_PLACE}/{below}/"));
    let places = [(&b"var/opt/"[..], opt), (b"var/usrlocal/", local), (b"var/", factory)];
    places.into_iter().find_map(|(on_node, in_image)| {
        let kept = [in_image.as_bytes(), place.strip_prefix(on_node)?].concat();
        match destination(tree, &kept) {
            Destination::Missing(missing) if missing == kept[1..] => None,
            found => Some(found),
        }
    })
}

/// The path on the node of what the image has at `path`: without [`SHIPPED_PLACE`], to which links lead. Both
/// without leading slash.
pub fn name_on_node(path: &[u8]) -> &[u8] {
    let below = path.strip_prefix(&SHIPPED_PLACE.as_bytes()[1..]);
    below.and_then(|below| below.strip_prefix(b"/")).unwrap_or(path)
}

/// Reports dangling and circular links.
pub(super) fn check(view: &View<'_>, inputs: &Inputs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, id) in &view.paths {
        let Kind::Symlink(target) = &view.tree.node(*id).kind else { continue };
        let destination = destination(view.tree, path);
        let problem = match &destination {
            Destination::Found(_) => continue,
            _ if destination.is_filled_at_boot() => continue,
            _ if inputs.mounts.cover(view.tree, path) => continue,
            // Reported with the unit's name by the check of units.
            Destination::Missing(_) if is_enablement(path) => continue,
            Destination::Missing(_)
                if TOLERATED.iter().any(|(start, end)| path.starts_with(start) && path.ends_with(end)) =>
            {
                continue;
            }
            Destination::Missing(missing)
                if missing.as_slice() == target.strip_prefix(b"/").unwrap_or(b"/") =>
            {
                format!("leads to {}, which is not in the image", show(target))
            }
            Destination::Missing(missing) => {
                format!("leads to {} (/{}), which is not in the image", show(target), show(missing))
            }
            Destination::Loop => format!("leads to {} in circles", show(target)),
            Destination::Far => format!("leads to {} over more than {} names", show(target), limits::WAY),
        };
        if findings.len() == MOST_TOLD {
            let problem = "is one of more links that lead nowhere than are told".to_owned();
            let advice = format!("mend the {MOST_TOLD} that are told first");
            findings.push(view.finding(Severity::Error, path, *id, problem, advice));
            break;
        }
        let advice = "add what it leads to, or leave the link out with `prune`".to_owned();
        findings.push(view.finding(Severity::Error, path, *id, problem, advice));
    }
    findings
}

/// Whether a link enables a unit: it lies in `*.wants` or its like below a folder `systemd`.
fn is_enablement(path: &[u8]) -> bool {
    let mut parts = path.rsplit(|byte| *byte == b'/').skip(1);
    let folder = parts.next().unwrap_or_default();
    [&b".wants"[..], b".requires", b".upholds"].iter().any(|end| folder.ends_with(end))
        && parts.next() == Some(b"system")
        && parts.next() == Some(b"systemd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_round_have_an_end() {
        let mut tree = Tree::new(0);
        tree.directory("d", 0o755).unwrap();
        tree.file("end", 0o644, "").unwrap();
        // Names that mean nothing are no way.
        tree.symlink("dots", "./".repeat(2000) + "end").unwrap();
        assert_eq!(destination(&tree, b"dots"), Destination::Found(tree.lookup(b"end").unwrap()));
        tree.symlink("round", "d/../".repeat(100) + "end").unwrap();
        assert_eq!(destination(&tree, b"round"), Destination::Found(tree.lookup(b"end").unwrap()));
        tree.symlink("far", "d/../".repeat(limits::WAY / 2) + "end").unwrap();
        assert_eq!(destination(&tree, b"far"), Destination::Far);
        tree.symlink("self", "self").unwrap();
        assert_eq!(destination(&tree, b"self"), Destination::Loop);
    }
}
