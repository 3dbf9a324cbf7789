//! The dependency solver: which packages, in which version, make a set that is complete and free of conflicts.
//!
//! Debian's relations are given to resolvo (a CDCL solver) with real packages only. A dependency becomes the
//! list of all packages that meet it: per alternative the package of that name first, then its providers by
//! priority and name. A conflict forbids the very packages that it hits, under whatever name they are asked
//! for. So nothing virtual takes part, and a conflict's explanation speaks of packages that exist.
//!
//! What the solver gives may hold packages that it tried for an alternative which another package met later;
//! [`solve`] walks from the requests once more and keeps what is needed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::rc::Rc;

use resolvo::conflict::{ConflictCause, ConflictEdge, ConflictNode};
use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, Dependencies, DependencyProvider, Interner,
    KnownDependencies, NameId, Problem, Requirement, SolvableId, Solver, SolverCache, StringId,
    UnsolvableOrCancelled, VersionSetId, VersionSetUnionId,
};

use super::explain::{self, Link, RequestError, Unsolvable};
use super::universe::{Members, Package, Query, TooMany, Universe};
use crate::base::limits;
use crate::base::width::{to_index, to_u64};
use crate::source::debian::version::{self, ParseRelationError, Relation, compare};

/// The word that stands in `wanted_by` for what was asked for by name.
pub const MANIFEST: &str = "manifest";

/// Steps that count for a round of the solver, which looks at what a decision leads to. There is about one for each package
/// that is chosen.
const ROUND: usize = 5_000;

/// Steps that count for a set of versions, which stays in memory with what the solver knows of it: 320 bytes (measured
/// with 4 million).
const SET: usize = 100;

/// A chosen package.
#[derive(Clone, Debug)]
pub struct Chosen<'a> {
    /// The package.
    pub package: Package<'a>,
    /// [`MANIFEST`] first, then names of packages in order.
    pub wanted_by: Vec<String>,
}

/// Why there is no solution.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// Names that cannot be meant.
    #[error("{}", explain::lines(.0))]
    Requests(Vec<RequestError>),
    /// Packages that do not go together.
    #[error(transparent)]
    Unsolvable(#[from] Unsolvable),
    /// More than any archives have.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// More packages than a root has.
    #[error(
        "what is asked for needs more than {} packages, the most of one root or container",
        limits::PACKAGES
    )]
    TooLarge,
    /// Relations so entangled that no choice was found in time.
    #[error(
        "the relations of these packages are too entangled: no choice was found in {} steps; ask for fewer packages, or \
         pin versions as `NAME=VERSION`",
        limits::SOLVER
    )]
    Entangled,
}

/// Some packages of one name, as a resolvo version set.
struct Set {
    name: u32,
    ids: HashSet<u32>,
    /// The whole relation, for explanations: `libc6 (>= 2.38)`. All sets of one relation share it.
    text: Rc<str>,
}

/// A dependency, seen against the universe.
#[derive(Clone)]
enum Demand {
    /// By an assumed package.
    Met,
    /// By one of these; by nothing when empty.
    AnyOf(Vec<(u32, Vec<u32>)>),
}

/// Answers resolvo's questions. Its ids are indexes into the universe and into `sets` and `unions`.
struct Provider<'u, 'a> {
    universe: &'u Universe<'a>,
    query: &'u Query<'a>,
    /// Assumed names and what they provide.
    assumed: BTreeSet<&'a str>,
    sets: RefCell<Vec<Set>>,
    unions: RefCell<Vec<Vec<VersionSetId>>>,
    strings: RefCell<Vec<String>>,
    /// Dependencies seen before, by their text.
    known: RefCell<HashMap<String, Option<Requirement>>>,
    /// Steps so far: see [`limits::SOLVER`].
    steps: Cell<u64>,
}

impl<'u, 'a> Provider<'u, 'a> {
    fn new(universe: &'u Universe<'a>, query: &'u Query<'a>) -> Self {
        let mut assumed = query.assume.clone();
        for name in &query.assume {
            for package in universe.versions(name) {
                assumed.extend(version::relations(package.provides).flatten().map(|relation| relation.name));
            }
        }
        Self {
            universe,
            query,
            assumed,
            sets: RefCell::default(),
            unions: RefCell::default(),
            strings: RefCell::default(),
            known: RefCell::default(),
            steps: Cell::default(),
        }
    }

    fn step(&self, count: usize) {
        self.steps.set(self.steps.get().saturating_add(to_u64(count)));
    }

    /// Whether so much was done that no answer is waited for.
    fn is_exhausted(&self) -> bool {
        self.steps.get() > limits::SOLVER
    }

    fn demand(&self, alternatives: &[Relation<'_>]) -> Demand {
        if alternatives.iter().any(|relation| self.assumed.contains(relation.name)) {
            return Demand::Met;
        }
        let mut members = Members::default();
        for relation in alternatives.iter().take_while(|_| !self.is_exhausted()) {
            for (name, ids) in self.meeting(relation) {
                ids.into_iter().for_each(|id| members.add(name, id));
            }
        }
        let mut members = members.groups;
        let name = |id: u32| self.universe.names[to_index(id)].0;
        members.sort_by_key(|(id, _)| !self.query.previous.contains_key(name(*id)));
        Demand::AnyOf(members)
    }

    /// As [`Universe::meeting`]; what is looked at counts as work.
    fn meeting(&self, relation: &Relation<'_>) -> Vec<(u32, Vec<u32>)> {
        self.step(self.universe.cost(relation));
        self.universe.meeting(relation).groups
    }

    fn set(&self, name: u32, ids: Vec<u32>, text: &Rc<str>) -> VersionSetId {
        self.step(SET);
        let mut sets = self.sets.borrow_mut();
        sets.push(Set { name, ids: ids.into_iter().collect(), text: text.clone() });
        VersionSetId(narrow(sets.len() - 1))
    }

    /// The id of a name that no package has.
    fn nothing(&self) -> u32 {
        narrow(self.universe.names.len())
    }

    /// The requirement for a dependency, `None` when an assumed package meets it.
    fn requirement(&self, alternatives: &[Relation<'_>]) -> Option<Requirement> {
        let text = explain::group(alternatives);
        if let Some(known) = self.known.borrow().get(&text) {
            return *known;
        }
        let requirement = match self.demand(alternatives) {
            Demand::Met => None,
            Demand::AnyOf(members) => Some(self.any_of(members, &text.as_str().into())),
        };
        self.known.borrow_mut().insert(text, requirement);
        requirement
    }

    fn any_of(&self, members: Vec<(u32, Vec<u32>)>, text: &Rc<str>) -> Requirement {
        let sets: Vec<_> = members.into_iter().map(|(name, ids)| self.set(name, ids, text)).collect();
        match sets[..] {
            [] => self.set(self.nothing(), Vec::new(), text).into(),
            [single] => single.into(),
            _ => {
                let mut unions = self.unions.borrow_mut();
                unions.push(sets);
                VersionSetUnionId(narrow(unions.len() - 1)).into()
            }
        }
    }

    fn text(&self, requirement: Requirement) -> Rc<str> {
        let set = match requirement {
            Requirement::Single(set) => set,
            Requirement::Union(union) => self.unions.borrow()[to_index(union.0)][0],
        };
        self.sets.borrow()[to_index(set.0)].text.clone()
    }

    fn dependencies(&self, id: u32) -> Result<KnownDependencies, ParseRelationError> {
        let record = self.universe.package(id).record;
        let mut known = KnownDependencies::default();
        for group in version::groups(record.depends).take_while(|_| !self.is_exhausted()) {
            known.requirements.extend(self.requirement(&group?).map(ConditionalRequirement::from));
        }
        for relation in version::relations(record.conflicts).take_while(|_| !self.is_exhausted()) {
            let relation = relation?;
            let text = relation.to_string().into();
            // A package is never in conflict with its own name: that is how it replaces what it provides.
            let hits =
                self.meeting(&relation).into_iter().filter(|(name, _)| *name != self.universe.name_of(id));
            for (name, hit) in hits {
                let (all, hit) =
                    (self.universe.names[to_index(name)].1.clone(), HashSet::<u32>::from_iter(hit));
                self.step(all.len());
                let spared = all.filter(|id| !hit.contains(id)).collect();
                known.constrains.push(self.set(name, spared, &text));
            }
        }
        Ok(known)
    }
}

impl Interner for Provider<'_, '_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, id: SolvableId) -> impl Display + '_ {
        let record = self.universe.heading(id.into_raw());
        format!("{} {}", record.name, record.version)
    }
    fn display_name(&self, id: NameId) -> impl Display + '_ {
        self.universe.names.get(to_index(id.into_raw())).map_or("?", |(name, _)| name)
    }
    fn display_version_set(&self, id: VersionSetId) -> impl Display + '_ {
        self.sets.borrow()[to_index(id.0)].text.clone()
    }
    fn display_string(&self, id: StringId) -> impl Display + '_ {
        self.strings.borrow()[to_index(id.0)].clone()
    }
    fn version_set_name(&self, id: VersionSetId) -> NameId {
        NameId::from_raw(self.sets.borrow()[to_index(id.0)].name)
    }
    fn solvable_name(&self, id: SolvableId) -> NameId {
        NameId::from_raw(self.universe.name_of(id.into_raw()))
    }
    fn version_sets_in_union(&self, id: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        self.unions.borrow()[to_index(id.0)].clone().into_iter()
    }
    fn resolve_condition(&self, _: ConditionId) -> Condition {
        unreachable!("no requirement has a condition")
    }
}

impl DependencyProvider for Provider<'_, '_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        self.step(candidates.len());
        let ids = &self.sets.borrow()[to_index(set.0)].ids;
        candidates.iter().copied().filter(|id| ids.contains(&id.into_raw()) != inverse).collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let (_, range) = self.universe.names.get(to_index(name.into_raw()))?;
        Some(Candidates {
            candidates: range.clone().map(SolvableId::from_raw).collect(),
            ..Candidates::default()
        })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, candidates: &mut [SolvableId]) {
        candidates.sort_by_key(|id| {
            let record = self.universe.heading(id.into_raw());
            let kept = self.query.previous.get(record.name).copied().flatten();
            (kept != Some(record.version), id.into_raw())
        });
    }

    async fn get_dependencies(&self, id: SolvableId) -> Dependencies {
        match self.dependencies(id.into_raw()) {
            Ok(known) => Dependencies::Known(known),
            Err(error) => {
                let mut strings = self.strings.borrow_mut();
                strings.push(error.to_string());
                Dependencies::Unknown(StringId(narrow(strings.len() - 1)))
            }
        }
    }

    fn should_cancel_with_value(&self) -> Option<Box<dyn Any>> {
        self.step(ROUND);
        self.is_exhausted().then(|| Box::new(()) as Box<dyn Any>)
    }
}

/// Packages that meet `query`, by name. The same universe and query give the same answer.
pub fn solve<'a>(
    universe: &Universe<'a>,
    query: &Query<'a>,
) -> Result<BTreeMap<&'a str, Chosen<'a>>, SolveError> {
    let wrong = query.requests.iter().filter_map(|request| explain::request(universe, query, request));
    let wrong: Vec<_> = wrong.take(explain::MOST_REQUESTS).collect();
    if !wrong.is_empty() {
        return Err(SolveError::Requests(wrong));
    }
    // What is to be renewed is held to its newest version, unless that leaves no solution.
    let newest: Vec<u32> = query
        .previous
        .iter()
        .filter(|(_, version)| version.is_none())
        .filter_map(|(name, _)| universe.ids(name).next())
        .collect();
    match attempt(universe, query, &newest) {
        Err(SolveError::Unsolvable(_)) if !newest.is_empty() => attempt(universe, query, &[]),
        result => result,
    }
}

fn attempt<'a>(
    universe: &Universe<'a>,
    query: &Query<'a>,
    newest: &[u32],
) -> Result<BTreeMap<&'a str, Chosen<'a>>, SolveError> {
    let provider = Provider::new(universe, query);
    let requirements = query
        .requests
        .iter()
        .map(|request| {
            let admitted = universe.ids(request.name).filter(|id| {
                request.version.is_none_or(|version| compare(universe.heading(*id).version, version).is_eq())
            });
            let text = request
                .version
                .map_or(request.name.to_owned(), |version| format!("{} (= {version})", request.name));
            provider
                .set(
                    universe.name_id(request.name).expect("requests were looked at"),
                    admitted.collect(),
                    &text.into(),
                )
                .into()
        })
        .collect();
    let pinned: BTreeSet<&str> = query
        .requests
        .iter()
        .filter(|request| request.version.is_some())
        .map(|request| request.name)
        .collect();
    let constraints = newest
        .iter()
        .filter(|id| !pinned.contains(universe.heading(**id).name))
        .map(|id| provider.set(universe.name_of(*id), vec![*id], &universe.heading(*id).version.into()))
        .collect();
    let mut solver = Solver::new(provider);
    match solver.solve(Problem::new().requirements(requirements).constraints(constraints)) {
        Ok(solution) => {
            let solution = solution.into_iter().map(|id| id.into_raw()).collect();
            needed(solver.provider(), &solution)
        }
        Err(UnsolvableOrCancelled::Unsolvable(conflict)) => {
            let links = links(solver.provider(), &conflict.graph(&solver));
            Err(explain::unsolvable(universe, query, &links).into())
        }
        Err(UnsolvableOrCancelled::Cancelled(_)) => Err(SolveError::Entangled),
    }
}

/// The packages of `solution` that the requests need, and why. A group that several packages of the solution
/// meet keeps none of them by itself: it takes one that is needed anyhow, else the first.
fn needed<'a>(
    provider: &Provider<'_, 'a>,
    solution: &BTreeSet<u32>,
) -> Result<BTreeMap<&'a str, Chosen<'a>>, SolveError> {
    let universe = provider.universe;
    let mut wanted_by: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    let mut queue = VecDeque::new();
    for request in &provider.query.requests {
        let chosen = universe.ids(request.name).find(|id| solution.contains(id));
        if let Some(id) = chosen.filter(|id| wanted_by.insert(*id, BTreeSet::new()).is_none()) {
            queue.push_back(id);
        }
    }
    let asked: BTreeSet<u32> = wanted_by.keys().copied().collect();
    let mut open: Vec<(&str, Vec<u32>)> = Vec::new();
    loop {
        while let Some(id) = queue.pop_front() {
            let record = universe.package(id).record;
            for group in version::groups(record.depends).flatten() {
                if provider.is_exhausted() {
                    return Err(SolveError::Entangled);
                }
                let Demand::AnyOf(members) = provider.demand(&group) else { continue };
                let members: Vec<u32> =
                    members.into_iter().flat_map(|(_, ids)| ids).filter(|id| solution.contains(id)).collect();
                match members[..] {
                    [only] => {
                        if !wanted_by.contains_key(&only) {
                            queue.push_back(only);
                        }
                        wanted_by.entry(only).or_default().insert(record.name);
                    }
                    _ => open.push((record.name, members)),
                }
            }
        }
        provider.step(open.iter().map(|(_, members)| 1 + members.len()).sum());
        if provider.is_exhausted() {
            return Err(SolveError::Entangled);
        }
        open.retain(|(by, members)| match members.iter().find(|id| wanted_by.contains_key(id)) {
            Some(met) => {
                wanted_by.entry(*met).or_default().insert(by);
                false
            }
            None => !members.is_empty(),
        });
        if open.is_empty() {
            break;
        }
        let (by, members) = open.remove(0);
        wanted_by.entry(members[0]).or_default().insert(by);
        queue.push_back(members[0]);
    }
    let chosen = wanted_by
        .into_iter()
        .map(|(id, by)| {
            let package = universe.package(id);
            let manifest = asked.contains(&id).then_some(MANIFEST);
            let packages = by.into_iter().filter(|name| *name != package.record.name);
            let wanted_by = manifest.into_iter().chain(packages).map(str::to_owned).collect();
            (package.record.name, Chosen { package, wanted_by })
        })
        .collect::<BTreeMap<_, _>>();
    match chosen.len() > limits::PACKAGES {
        true => Err(SolveError::TooLarge),
        false => Ok(chosen),
    }
}

/// The conflict as resolvo sees it, in words of packages; sorted, since its own order is not fixed.
fn links(provider: &Provider<'_, '_>, graph: &resolvo::conflict::ConflictGraph) -> Vec<Link> {
    let nodes = graph.graph.raw_nodes();
    let package = |node: &ConflictNode| match node {
        ConflictNode::Solvable(id) => Some(id.into_raw()),
        _ => None,
    };
    let mut links = BTreeSet::new();
    for edge in graph.graph.raw_edges() {
        let (from, to) = (&nodes[edge.source().index()].weight, &nodes[edge.target().index()].weight);
        links.insert(match (edge.weight, package(from), to) {
            (ConflictEdge::Requires(requirement), from, ConflictNode::Solvable(to)) => {
                Link::Needs { from, to: to.into_raw(), text: provider.text(requirement) }
            }
            (ConflictEdge::Requires(requirement), from, _) => {
                Link::Lacks { from, text: provider.text(requirement) }
            }
            (
                ConflictEdge::Conflict(ConflictCause::ForbidMultipleInstances),
                Some(from),
                ConflictNode::Solvable(to),
            ) => Link::Twice { one: from.min(to.into_raw()), other: from.max(to.into_raw()) },
            (
                ConflictEdge::Conflict(ConflictCause::Constrains(set)),
                Some(from),
                ConflictNode::Solvable(to),
            ) => Link::Clash {
                from,
                to: to.into_raw(),
                text: provider.sets.borrow()[to_index(set.0)].text.clone(),
            },
            (ConflictEdge::Conflict(_), Some(package), ConflictNode::Excluded(reason)) => {
                Link::Unusable { package, reason: provider.strings.borrow()[to_index(reason.0)].clone() }
            }
            _ => continue,
        });
    }
    links.into_iter().collect()
}

/// What the solver numbers has numbers of 32 bits.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("there is a limit to its work")
}
