//! What there is to choose from: all packages of all archives, and what is asked for.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use crate::base::limits;
use crate::base::width::to_index;
use crate::manifest::Place;
use crate::source::debian::packages::{Heading, Index, Record};
use crate::source::debian::version::{self, Relation, compare};

/// One name that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Package name.
    pub name: &'a str,
    /// The only version that will do, if any.
    pub version: Option<&'a str>,
    /// Who asked.
    pub place: &'a Place,
}

impl<'a> Request<'a> {
    /// Reads `name` or `name=version`.
    pub fn parse(text: &'a str, place: &'a Place) -> Self {
        match text.split_once('=') {
            Some((name, version)) => Self { name: name.trim(), version: Some(version.trim()), place },
            None => Self { name: text, version: None, place },
        }
    }
}

/// What is wanted of a solution.
#[derive(Clone, Debug, Default)]
pub struct Query<'a> {
    /// Packages asked for.
    pub requests: Vec<Request<'a>>,
    /// Names taken as present in any version, as is what they provide.
    pub assume: BTreeSet<&'a str>,
    /// What is preferred: names chosen before, each with the version to keep, or none to take the newest.
    pub previous: BTreeMap<&'a str, Option<&'a str>>,
}

/// A package and the archive that has it.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    /// As in [`super::LockedPackage::archive`].
    pub archive: &'a str,
    /// What the index says.
    pub record: Record<'a>,
}

/// All packages of all archives, by name.
pub struct Universe<'a> {
    /// With their archives, sorted by name; of one name the highest version first.
    packages: Vec<(&'a str, Heading<'a>)>,
    /// Names in order, with their packages.
    pub(super) names: Vec<(&'a str, Range<u32>)>,
    /// Sorted by name; of one name in the order in which packages are tried.
    provisions: Vec<Provision<'a>>,
}

/// A package provides a name.
struct Provision<'a> {
    head: u128,
    name: &'a str,
    /// A place in the order of preference.
    priority: u8,
    package: u32,
    version: Option<&'a str>,
}

/// More than any archives have.
#[derive(Debug, thiserror::Error)]
#[error(
    "all indexes together have more than {limit} {what}, the most that are read: name fewer archives or components"
)]
pub struct TooMany {
    /// `packages`, say.
    what: &'static str,
    /// From [`limits`].
    limit: usize,
}

/// A place in the order of preference among providers.
fn priority(package: &Heading<'_>) -> u8 {
    match package.priority {
        "required" => 0,
        "important" => 1,
        "standard" => 2,
        "optional" => 3,
        _ => 4,
    }
}

/// The first bytes of a name. They have the order of names, and tell most of them apart without a look at the index.
fn head(name: &str) -> u128 {
    let mut bytes = [0; 16];
    let length = name.len().min(bytes.len());
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    u128::from_be_bytes(bytes)
}

/// Sorts by name, the highest version first, and of one version those first whose file can be used. Among equals, the
/// order of archives stays.
fn sort(packages: &mut Vec<(&str, Heading<'_>)>) {
    let mut order: Vec<_> = packages.iter().map(|(_, heading)| head(heading.name)).zip(0..).collect();
    order.sort_by(|(head_a, a), (head_b, b)| {
        head_a.cmp(head_b).then_with(|| {
            let (a, b) = (&packages[*a].1, &packages[*b].1);
            a.name
                .cmp(b.name)
                .then_with(|| match a.version == b.version {
                    true => Ordering::Equal,
                    false => compare(b.version, a.version),
                })
                .then_with(|| a.record().file.is_err().cmp(&b.record().file.is_err()))
        })
    });
    *packages = order.into_iter().map(|(_, place)| packages[place]).collect();
}

impl<'a> Universe<'a> {
    /// Puts indexes together. Of a package that stands in several in the same version, the first counts whose
    /// file can be used.
    ///
    /// # Errors
    /// `TooMany`.
    pub fn new(indexes: impl IntoIterator<Item = (&'a str, &'a Index)>) -> Result<Self, TooMany> {
        let mut packages: Vec<(&str, Heading<'a>)> = indexes
            .into_iter()
            .flat_map(|(archive, index)| index.headings().map(move |heading| (archive, heading)))
            .take(limits::INDEX_PACKAGES + 1)
            .collect();
        if packages.len() > limits::INDEX_PACKAGES {
            return Err(TooMany { what: "packages", limit: limits::INDEX_PACKAGES });
        }
        sort(&mut packages);
        packages.dedup_by(|(_, b), (_, a)| a.name == b.name && compare(a.version, b.version).is_eq());
        let mut names: Vec<(&str, Range<u32>)> = Vec::new();
        for (id, (_, package)) in (0..).zip(&packages) {
            match names.last_mut() {
                Some((name, range)) if *name == package.name => range.end = id + 1,
                _ => names.push((package.name, id..id + 1)),
            }
        }
        let mut provisions = Vec::new();
        for (id, (_, package)) in
            (0..).zip(&packages).filter(|(_, (_, package))| !package.provides.is_empty())
        {
            // A provision that cannot be read provides nothing.
            for Relation { name, bound, .. } in version::relations(package.provides).flatten() {
                if provisions.len() == limits::INDEX_PROVIDED {
                    return Err(TooMany { what: "provided names", limit: limits::INDEX_PROVIDED });
                }
                let version = bound.map(|(_, version)| version);
                provisions.push(Provision {
                    head: head(name),
                    name,
                    priority: priority(package),
                    package: id,
                    version,
                });
            }
        }
        provisions.sort_unstable_by_key(|provision| {
            (provision.head, provision.name, provision.priority, provision.package)
        });
        let too_many = |what| Err(TooMany { what, limit: limits::INDEX_ALIKE });
        if names.iter().any(|(_, range)| range.len() > limits::INDEX_ALIKE) {
            return too_many("versions of one package");
        }
        if provisions.chunk_by(|a, b| a.name == b.name).any(|alike| alike.len() > limits::INDEX_ALIKE) {
            return too_many("packages that provide one name");
        }
        Ok(Self { packages, names, provisions })
    }

    pub(super) fn package(&self, id: u32) -> Package<'a> {
        let (archive, heading) = self.packages[to_index(id)];
        Package { archive, record: heading.record() }
    }

    pub(super) fn heading(&self, id: u32) -> &Heading<'a> {
        &self.packages[to_index(id)].1
    }

    /// The packages of this name, the highest version first.
    pub fn versions(&self, name: &str) -> impl ExactSizeIterator<Item = &Heading<'a>> {
        let range = self.ids(name);
        self.packages[to_index(range.start)..to_index(range.end)].iter().map(|(_, heading)| heading)
    }

    /// The number of a name that packages have.
    pub(super) fn name_id(&self, name: &str) -> Option<u32> {
        let place = self.names.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        Some(u32::try_from(place).expect("limits::INDEX_PACKAGES is less"))
    }

    /// All names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.names.iter().map(|(name, _)| *name)
    }

    /// Names of packages that provide `name`, in order of preference.
    pub(super) fn providers(&self, name: &str) -> Vec<&'a str> {
        let all = self.provisions(name).iter().map(|provision| self.heading(provision.package).name);
        let mut seen = HashSet::new();
        all.filter(|provider| seen.insert(*provider)).collect()
    }

    fn provisions(&self, name: &str) -> &[Provision<'a>] {
        let begin = self.provisions.partition_point(|provision| provision.name < name);
        let rest = &self.provisions[begin..];
        &rest[..rest.partition_point(|provision| provision.name == name)]
    }

    pub(super) fn ids(&self, name: &str) -> Range<u32> {
        self.name_id(name).map_or(0..0, |id| self.names[to_index(id)].1.clone())
    }

    pub(super) fn name_of(&self, package: u32) -> u32 {
        let place = self.names.partition_point(|(_, packages)| packages.end <= package);
        u32::try_from(place).expect("limits::INDEX_PACKAGES is less")
    }

    /// What [`Universe::meeting`] costs, in steps of [`limits::SOLVER`]: one for each package that is looked at, and more
    /// where its version is compared with a long one.
    pub(super) fn cost(&self, relation: &Relation<'_>) -> usize {
        let looked_at = self.ids(relation.name).len() + self.provisions(relation.name).len();
        1 + looked_at * relation.cost()
    }

    /// Packages that meet `relation`, grouped by name: the one of that name first, then providers.
    pub(super) fn meeting(&self, relation: &Relation<'_>) -> Members {
        let mut found = Members::default();
        let real = self.ids(relation.name).filter(|id| relation.admits(self.heading(*id).version));
        let provided = self.provisions(relation.name).iter();
        let provided =
            provided.filter(|it| relation.admits_provided(it.version)).map(|provision| provision.package);
        for id in real.chain(provided) {
            found.add(self.name_of(id), id);
        }
        found
    }
}

/// Packages grouped by name, names in the order in which they first came.
#[derive(Default)]
pub(super) struct Members {
    pub(super) groups: Vec<(u32, Vec<u32>)>,
    /// Where a name stands in `groups`.
    places: HashMap<u32, usize>,
    pub(super) known: HashSet<u32>,
}

impl Members {
    /// Adds a package to the group of its name, once.
    pub(super) fn add(&mut self, name: u32, id: u32) {
        if !self.known.insert(id) {
            return;
        }
        let place = *self.places.entry(name).or_insert(self.groups.len());
        match self.groups.get_mut(place) {
            Some((_, ids)) => ids.push(id),
            None => self.groups.push((name, vec![id])),
        }
    }
}
