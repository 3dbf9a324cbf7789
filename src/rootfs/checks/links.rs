//! Symbolic links that lead nowhere.

use super::{Finding, Inputs, Severity, View};
use crate::rootfs::state::SHIPPED_PLACE;
use crate::rootfs::tmpfiles::FACTORY;
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

/// Where a path leads on the node.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination {
    /// To something in the image.
    Found(NodeId),
    /// To a path that the image does not have, without leading slash.
    Missing(Vec<u8>),
    /// In circles.
    Loop,
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
    let parts = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut pending = parts(path);
    let mut trail: Vec<(Vec<u8>, Option<NodeId>)> = Vec::new();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                trail.pop();
                continue;
            }
            _ => {}
        }
        let here = trail.last().map_or(Some(tree.root()), |(_, id)| *id);
        let child = here.and_then(|id| match &tree.node(id).kind {
            Kind::Directory(children) => children.get(&part).copied(),
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
                pending.extend(parts(target));
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
        };
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
