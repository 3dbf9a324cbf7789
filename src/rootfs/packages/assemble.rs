//! Unpacked packages become one root, all of them at once: what holds where several have one path.
//!
//! What dpkg leaves in an empty directory hangs on the order in which it is given packages, and that order
//! follows their dependencies ([`Order`]). Between packages that have no order, what dpkg decides by chance is
//! decided by what they contain, never by their names:
//!
//! - **Directories** are shared. Owner and mode are those of the package that comes first; between packages
//!   without order those that allow least. The time is the newest.
//! - **A link and a directory**: if the link comes first, the content of the directory goes where it leads;
//!   if the directory comes first, the link is left out, as dpkg does. Without an order the link holds, and
//!   so does a link directly in the root (`/bin`), which installers make before they unpack anything.
//! - **Links** that lead to one directory are no conflict.
//! - **Any other two files** of one path are a conflict, however alike they are, unless Replaces says whose
//!   stays. Of several, that one stays that replaces all others, directly or by way of each other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::order::Order;
use super::{DIVERT, PackagesError, Unpacked};
use crate::base::{Progress, limits};
use crate::rootfs::tmpfiles::clean;
use crate::tree::merge::Conflict;
use crate::tree::{Kind, Meta, Node, NodeId, Tree, TreeError, show};

/// How many links one path may cross: the kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;

/// Puts packages together into one root; see the module.
///
/// # Errors
/// `Conflicts` with all paths of which it is open whose file stays.
pub fn assemble(
    epoch: i64,
    mut packages: Vec<Unpacked>,
    progress: &dyn Progress,
) -> Result<Tree, PackagesError> {
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = packages.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(PackagesError::Twice { name: pair[0].name.clone() });
    }
    let mut union = Union::of(&packages)?;
    union.follow_links()?;
    let mut built = Built { tree: Tree::new(epoch), copies: HashMap::new(), error: None };
    union.build(ROOT, &mut Vec::new(), &mut built);
    let Union { notes, mut conflicts, .. } = union;
    for note in notes {
        progress.note(&note);
    }
    if let Some(error) = built.error {
        return Err(error);
    }
    if conflicts.is_empty() {
        // What lies where a link leads has a longer path than in its package.
        let limit = limits::NAMES;
        return match built.tree.check_size(limits::ROOT_NODES, limit) {
            Err(TreeError::TooLong { path, .. }) => Err(PackagesError::Led { path, limit }),
            _ => Ok(built.tree),
        };
    }
    conflicts.sort_by(|a, b| (&a.path, &a.first, &a.second).cmp(&(&b.path, &b.first, &b.second)));
    let diverts = diverting(&packages, &conflicts);
    Err(PackagesError::Conflicts { conflicts, diverts })
}

/// Scripts of packages in conflict that move other packages' files away.
fn diverting(packages: &[Unpacked], conflicts: &[Conflict]) -> Vec<String> {
    let involved: BTreeSet<&String> =
        conflicts.iter().flat_map(|found| [&found.first, &found.second]).collect();
    let involved = packages.iter().filter(|package| involved.contains(&package.name));
    let diverting = involved.flat_map(|package| {
        let scripts = package.actions.iter().filter(|(_, words)| words.contains(&DIVERT.to_owned()));
        scripts.map(|(script, _)| format!("{}: {script}", package.name))
    });
    diverting.collect()
}

/// A name in the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PlaceId(usize);

const ROOT: PlaceId = PlaceId(0);

/// A package's node at a place.
#[derive(Clone, Copy, Debug)]
struct Claim {
    package: usize,
    node: NodeId,
}

#[derive(Debug, Default)]
struct Place {
    parent: usize,
    /// In the parent: to look for it there would cost as much as that has children.
    name: Box<[u8]>,
    claims: Vec<Claim>,
    children: BTreeMap<Vec<u8>, PlaceId>,
}

/// All names of all packages.
struct Union<'a> {
    packages: &'a [Unpacked],
    order: Order,
    /// Names in the Replaces of each package.
    replaced: Vec<HashSet<&'a str>>,
    /// Whether the Replaces of one package is about another, as it was found: a field may have a megabyte, and two packages
    /// any number of files of one name.
    replacing: RefCell<HashMap<(usize, usize), bool>>,
    places: Vec<Place>,
    /// Places with a link and a directory that cannot be brought together.
    refused: BTreeSet<PlaceId>,
    notes: Vec<String>,
    conflicts: Vec<Conflict>,
}

/// The root, as far as it is put together.
struct Built {
    tree: Tree,
    /// Nodes that have a name already: further ones are hard links.
    copies: HashMap<(usize, NodeId), NodeId>,
    error: Option<PackagesError>,
}

/// Where a path leads.
enum Leads {
    To(PlaceId),
    /// Nowhere, or to no directory.
    Nowhere,
    /// Across a place of which it is not settled yet whether it is a link or a directory.
    Open,
}

impl<'a> Union<'a> {
    fn of(packages: &'a [Unpacked]) -> Result<Self, PackagesError> {
        let mut union = Self {
            packages,
            order: Order::of(packages)?,
            replaced: packages.iter().map(|package| package.control.replaced().collect()).collect(),
            replacing: RefCell::default(),
            places: vec![Place::default()],
            refused: BTreeSet::new(),
            notes: Vec::new(),
            conflicts: Vec::new(),
        };
        for (index, package) in packages.iter().enumerate() {
            union.claim(index, package.tree.root(), ROOT);
        }
        Ok(union)
    }

    fn claim(&mut self, package: usize, node: NodeId, place: PlaceId) {
        self.places[place.0].claims.push(Claim { package, node });
        for (name, child) in self.packages[package].tree.children(node) {
            let below = self.child(place, name);
            self.claim(package, child, below);
        }
    }

    fn child(&mut self, parent: PlaceId, name: &[u8]) -> PlaceId {
        if let Some(known) = self.places[parent.0].children.get(name) {
            return *known;
        }
        let id = PlaceId(self.places.len());
        self.places.push(Place { parent: parent.0, name: name.into(), ..Place::default() });
        self.places[parent.0].children.insert(name.to_vec(), id);
        id
    }

    fn node(&self, claim: &Claim) -> &'a Node {
        self.packages[claim.package].tree.node(claim.node)
    }

    fn name(&self, package: usize) -> &'a str {
        &self.packages[package].name
    }

    /// Claims of `place`: directories, symbolic links, anything else.
    fn sorted(&self, place: PlaceId) -> [Vec<Claim>; 3] {
        let mut sorted = [const { Vec::new() }; 3];
        for claim in &self.places[place.0].claims {
            let kind = match self.node(claim).kind {
                Kind::Directory(_) => 0,
                Kind::Symlink(_) => 1,
                _ => 2,
            };
            sorted[kind].push(*claim);
        }
        sorted
    }

    /// Settles every place that is a link in one package and a directory in another, until none is left.
    ///
    /// # Errors
    /// `Mixed` with more of them than any packages have: each is settled by a walk over all names.
    fn follow_links(&mut self) -> Result<(), PackagesError> {
        for round in 0.. {
            let mut open = Vec::new();
            self.mixed(ROOT, 0, &mut open);
            if let [.., (_, place)] = &open[..]
                && round + open.len() > limits::MIXED
            {
                let path = show(&self.path(*place));
                return Err(PackagesError::Mixed { path, limit: limits::MIXED });
            }
            // The uppermost first: what lies below may move with it.
            open.sort_by_key(|(depth, _)| *depth);
            let mut settled = false;
            for (depth, place) in &open {
                settled = self.settle(*place, *depth);
                if settled {
                    break;
                }
            }
            if !settled {
                // Links that lead across each other.
                self.refused.extend(open.iter().map(|(_, place)| *place));
                if open.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Places below `place` with links and directories, with their depths.
    fn mixed(&self, place: PlaceId, depth: usize, found: &mut Vec<(usize, PlaceId)>) {
        for child in self.places[place.0].children.values() {
            if !self.refused.contains(child) && self.is_mixed(*child) {
                found.push((depth + 1, *child));
            }
            self.mixed(*child, depth + 1, found);
        }
    }

    fn is_mixed(&self, place: PlaceId) -> bool {
        let [directories, links, _] = self.sorted(place);
        !directories.is_empty() && !links.is_empty()
    }

    /// Whether it is settled now what is at a place that is a link and a directory.
    fn settle(&mut self, place: PlaceId, depth: usize) -> bool {
        let [directories, links, _] = self.sorted(place);
        let before = |first: &Claim, second: &Claim| self.order.before(first.package, second.package);
        let first = |link: &&Claim| !directories.iter().any(|directory| before(directory, link));
        let holding: Vec<Claim> = links.iter().filter(|link| depth == 1 || first(link)).copied().collect();
        if holding.is_empty() {
            // As dpkg: a link whose place is a directory already is not made.
            let path = show(&self.path(place));
            for link in &links {
                let (link, directory) = (self.name(link.package), self.name(directories[0].package));
                self.notes
                    .push(format!("/{path}: a link in {link} and a directory in {directory}, which holds"));
            }
            self.drop_claims(place, |kind| matches!(kind, Kind::Symlink(_)));
            return true;
        }
        let mut targets = Vec::new();
        for link in &holding {
            match self.leads(place, *link) {
                Leads::To(target) => targets.push(target),
                Leads::Nowhere => {
                    self.refused.insert(place);
                    return true;
                }
                Leads::Open => return false,
            }
        }
        targets.dedup();
        match targets[..] {
            [target] if !self.inside(target, place) => {
                self.drop_claims(place, |kind| matches!(kind, Kind::Directory(_)));
                let children = std::mem::take(&mut self.places[place.0].children);
                children.into_iter().for_each(|(name, child)| self.adopt(target, &name, child));
            }
            _ => drop(self.refused.insert(place)),
        }
        true
    }

    fn drop_claims(&mut self, place: PlaceId, which: impl Fn(&Kind) -> bool) {
        let packages = self.packages;
        let kept = |claim: &Claim| !which(&packages[claim.package].tree.node(claim.node).kind);
        self.places[place.0].claims.retain(kept);
    }

    /// Puts the place `child` below `parent`, together with what has that name there.
    fn adopt(&mut self, parent: PlaceId, name: &[u8], child: PlaceId) {
        let Some(known) = self.places[parent.0].children.get(name).copied() else {
            self.places[parent.0].children.insert(name.to_vec(), child);
            self.places[child.0].parent = parent.0;
            return;
        };
        let Place { claims, children, .. } = std::mem::take(&mut self.places[child.0]);
        self.places[known.0].claims.extend(claims);
        children.into_iter().for_each(|(name, below)| self.adopt(known, &name, below));
    }

    /// Whether `place` is `above` or lies below it.
    fn inside(&self, mut place: PlaceId, above: PlaceId) -> bool {
        loop {
            if place == above {
                return true;
            }
            if place == ROOT {
                return false;
            }
            place = PlaceId(self.places[place.0].parent);
        }
    }

    /// The directory that the link `claim` at `place` leads to.
    fn leads(&self, place: PlaceId, claim: Claim) -> Leads {
        let Kind::Symlink(target) = &self.node(&claim).kind else { return Leads::Nowhere };
        let parts = |target: &'a [u8]| target.split(|byte| *byte == b'/').rev();
        let mut pending: Vec<&[u8]> = parts(target).collect();
        let (mut links, mut steps) = (1, 0);
        let parent = PlaceId(self.places[place.0].parent);
        let mut here = if target.starts_with(b"/") { ROOT } else { parent };
        while let Some(part) = pending.pop() {
            steps += 1;
            if steps > limits::STEPS {
                return Leads::Nowhere;
            }
            match part {
                b"" | b"." => continue,
                b".." => {
                    here = PlaceId(self.places[here.0].parent);
                    continue;
                }
                _ => {}
            }
            let Some(next) = self.places[here.0].children.get(part).copied() else { return Leads::Nowhere };
            let [directories, found, others] = self.sorted(next);
            if !others.is_empty() {
                return Leads::Nowhere;
            }
            match (&directories[..], &found[..]) {
                ([], [_, ..]) => {
                    let Some(target) = self.target(next, &found) else { return Leads::Nowhere };
                    links += 1;
                    if links > MAX_LINKS {
                        return Leads::Nowhere;
                    }
                    if target.starts_with(b"/") {
                        here = ROOT;
                    }
                    pending.extend(parts(target));
                }
                ([], []) => return Leads::Nowhere,
                (_, []) => here = next,
                _ if next == place || !self.refused.contains(&next) => {
                    return if next == place { Leads::Nowhere } else { Leads::Open };
                }
                _ => return Leads::Nowhere,
            }
        }
        Leads::To(here)
    }

    fn path(&self, place: PlaceId) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut here = place;
        while here != ROOT {
            let Place { parent, name, .. } = &self.places[here.0];
            names.push(name);
            here = PlaceId(*parent);
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Puts what is at `place`, a directory, and all below it into the root.
    fn build(&mut self, place: PlaceId, path: &mut Vec<u8>, built: &mut Built) {
        self.directory(place, path, built);
        let children: Vec<_> =
            self.places[place.0].children.iter().map(|(name, id)| (name.clone(), *id)).collect();
        for (name, child) in children {
            let above = path.len();
            if above > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let [directories, links, others] = self.sorted(child);
            let files = self.one_each(&[links, others].concat());
            match (directories.is_empty(), &files[..]) {
                (false, []) => self.build(child, path, built),
                (false, _) => self.clash(path, &[&directories[..1], &files].concat(), true),
                (true, [one]) => self.put(*one, path, built),
                (true, _) => match self.winner(child, &files) {
                    Some(winner) => self.put(winner, path, built),
                    None => self.clash(path, &files, false),
                },
            }
            path.truncate(above);
        }
    }

    /// Of several nodes that one package has at a place by way of a link, the last of its archive stays.
    fn one_each(&self, claims: &[Claim]) -> Vec<Claim> {
        let mut last: BTreeMap<usize, NodeId> = BTreeMap::new();
        for claim in claims {
            let node = last.entry(claim.package).or_insert(claim.node);
            *node = claim.node.max(*node);
        }
        last.into_iter().map(|(package, node)| Claim { package, node }).collect()
    }

    fn clash(&mut self, path: &[u8], claims: &[Claim], directory: bool) {
        for other in &claims[1..] {
            self.conflicts.push(Conflict {
                path: show(path),
                first: self.name(claims[0].package).to_owned(),
                second: self.name(other.package).to_owned(),
                directory,
            });
        }
    }

    /// Whose file stays, if that is said.
    fn winner(&self, place: PlaceId, claims: &[Claim]) -> Option<Claim> {
        self.alike(place, claims).or_else(|| self.replacing(claims))
    }

    /// Whether the Replaces of package `one` is about package `other`.
    fn replaces(&self, one: usize, other: usize) -> bool {
        let (a, b) = (&self.packages[one], &self.packages[other]);
        let judge = || self.replaced[one].contains(&*b.name) && a.control.replaces(&b.name, &b.version);
        *self.replacing.borrow_mut().entry((one, other)).or_insert_with(judge)
    }

    /// The file that Replaces, directly or by way of each other, lets stay.
    fn replacing(&self, claims: &[Claim]) -> Option<Claim> {
        // Of two that replace each other the later one holds.
        let beats = |one: usize, other: usize| {
            self.replaces(one, other) && (!self.replaces(other, one) || self.order.before(other, one))
        };
        if claims.len() > limits::CLAIMS {
            return None;
        }
        let wins = |one: &&Claim| {
            let mut beaten = BTreeSet::from([one.package]);
            loop {
                let next = claims.iter().map(|claim| claim.package).find(|other| {
                    !beaten.contains(other) && beaten.iter().any(|winner| beats(*winner, *other))
                });
                match next {
                    Some(next) => drop(beaten.insert(next)),
                    None => return beaten.len() == claims.len(),
                }
            }
        };
        match claims.iter().filter(wins).collect::<Vec<_>>()[..] {
            [winner] => Some(*winner),
            _ => None,
        }
    }

    /// The target of the links at `place`, unless they contradict each other.
    fn target(&self, place: PlaceId, links: &[Claim]) -> Option<&'a [u8]> {
        let text = |claim: &Claim| match &self.node(claim).kind {
            Kind::Symlink(target) => Some(target.as_slice()),
            _ => None,
        };
        let parent = self.path(PlaceId(self.places[place.0].parent));
        let absolute = |target: &[u8]| match target.starts_with(b"/") {
            true => clean(target),
            false => clean(&[&parent[..], b"/", target].concat()),
        };
        let first = text(links.first()?)?;
        let alike = |claim: &Claim| text(claim).is_some_and(|target| absolute(target) == absolute(first));
        if links.iter().all(alike) { Some(first) } else { text(&self.replacing(links)?) }
    }

    /// Of links that lead to one directory, the one that comes first; else the one with the least target.
    fn alike(&self, place: PlaceId, claims: &[Claim]) -> Option<Claim> {
        let target = |claim: &Claim| match self.leads(place, *claim) {
            Leads::To(target) => Some(target),
            Leads::Nowhere | Leads::Open => None,
        };
        let first = target(claims.first()?)?;
        if !claims.iter().all(|claim| target(claim) == Some(first)) {
            return None;
        }
        let first = self.order.first_of(&claims.iter().map(|claim| claim.package).collect::<Vec<_>>());
        let text = |claim: &&Claim| match &self.node(claim).kind {
            Kind::Symlink(target) => target.clone(),
            _ => Vec::new(),
        };
        let claims = claims.iter().filter(|claim| first.contains(&claim.package));
        claims.min_by_key(|claim| (text(claim), meta_key(&self.node(claim).meta))).copied()
    }

    /// Makes the directory at `path` with owner and mode of whose word counts.
    fn directory(&mut self, place: PlaceId, path: &[u8], built: &mut Built) {
        let [claims, ..] = self.sorted(place);
        let first = self.order.first_of(&claims.iter().map(|claim| claim.package).collect::<Vec<_>>());
        let candidates = claims.iter().filter(|claim| first.contains(&claim.package));
        let Some(chosen) = candidates.min_by_key(|claim| meta_key(&self.node(claim).meta)).copied() else {
            return;
        };
        let meta = &self.node(&chosen).meta;
        let newest = claims.iter().map(|claim| self.node(claim).meta.mtime).max().unwrap_or(meta.mtime);
        let holds = self.name(chosen.package);
        // The root is there before any package, for dpkg as well, and keeps what it has.
        let is_root = place == ROOT;
        for claim in &claims {
            if !is_root && !same(&self.node(claim).meta, meta) {
                let (path, other) = (show(path), self.name(claim.package));
                self.notes.push(format!(
                    "/{path}: {holds} and {other} differ in owner or mode, those of {holds} hold"
                ));
            }
        }
        let origin = built.tree.origin(holds);
        let meta = if is_root { Meta::new(0o755) } else { meta.clone() }.at(newest);
        let made = built.tree.put(path, meta, Kind::Directory(BTreeMap::new()), origin);
        if let Err(source) = made {
            built.error.get_or_insert(PackagesError::Place { name: holds.to_owned(), source });
        }
    }

    fn put(&self, claim: Claim, path: &[u8], built: &mut Built) {
        let node = self.node(&claim);
        let name = self.name(claim.package);
        let made = match built.copies.get(&(claim.package, claim.node)) {
            Some(copy) => built.tree.link(path, *copy),
            None => {
                let origin = built.tree.origin(name);
                let made = built.tree.put(path, node.meta.clone(), node.kind.clone(), origin);
                made.map(|copy| {
                    built.copies.insert((claim.package, claim.node), copy);
                })
            }
        };
        if let Err(source) = made {
            built.error.get_or_insert(PackagesError::Place { name: name.to_owned(), source });
        }
    }
}

fn same(one: &Meta, other: &Meta) -> bool {
    (one.mode, one.uid, one.gid, &one.xattrs) == (other.mode, other.uid, other.gid, &other.xattrs)
}

/// Orders owners and modes by how much they allow, then by themselves.
fn meta_key(meta: &Meta) -> (u32, u16, u32, u32, BTreeMap<Vec<u8>, Vec<u8>>) {
    ((meta.mode & 0o777).count_ones(), meta.mode, meta.uid, meta.gid, meta.xattrs.clone())
}
