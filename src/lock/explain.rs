//! Why packages cannot be had, as a chain from the manifest's line to the last reason.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Display};
use std::rc::Rc;

use super::universe::{Query, Request, Universe};
use crate::base::near::{did_you_mean, near};
use crate::manifest::Place;
use crate::manifest::files::EMBEDDED;
use crate::source::debian::version::{self, Relation, compare};

/// How many reasons are shown: further ones say the same about older versions.
const SHOWN_REASONS: usize = 6;

/// Most reasons that are looked for: each costs a way through the packages.
const MOST_REASONS: usize = 1000;

/// Most steps of all ways from the manifest to a reason.
const MOST_STEPS: usize = 100_000;

/// Most characters of one relation that are shown.
const LONGEST_SHOWN: usize = 1000;

/// Most names of the manifest that are told as wrong; each costs a look at all names.
pub(super) const MOST_REQUESTS: usize = 10;

/// Most packages or versions that are offered for one that there is not.
const MOST_OFFERED: usize = 20;

/// A fact of a conflict; packages are ids of the universe, no package stands for the manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Link {
    /// `to` would meet what `from` needs.
    Needs { from: Option<u32>, to: u32, text: Rc<str> },
    /// Nothing meets what `from` needs.
    Lacks { from: Option<u32>, text: Rc<str> },
    /// `from` is in conflict with `to`.
    Clash { from: u32, to: u32, text: Rc<str> },
    /// Two versions of one package.
    Twice { one: u32, other: u32 },
    /// The index says nonsense about it.
    Unusable { package: u32, reason: String },
}

/// A name of the manifest that cannot be meant.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// No archive has it.
    #[error("{}: no archive has a package {name}{}", At(.place), did_you_mean(.near))]
    Unknown {
        /// As asked for.
        name: String,
        /// Where.
        place: Place,
        /// Names that differ little.
        near: Vec<String>,
    },
    /// Several packages could be meant.
    #[error("{}: {name} is a virtual package; name one that provides it: {}", At(.place), .providers.join(", "))]
    Virtual {
        /// As asked for.
        name: String,
        /// Where.
        place: Place,
        /// Packages that provide it.
        providers: Vec<String>,
    },
    /// There is the package, but not in this version.
    #[error("{}: there is no {name} of version {version}, but {}", At(.place), .available.join(", "))]
    NoVersion {
        /// As asked for.
        name: String,
        /// As asked for.
        version: String,
        /// Where.
        place: Place,
        /// The versions that there are.
        available: Vec<String>,
    },
    /// Wanted and said to be there already.
    #[error("{}: {name} is asked for, but stands under `assume` too, as present without being unpacked", At(.place))]
    Assumed {
        /// As asked for.
        name: String,
        /// Where.
        place: Place,
    },
}

impl RequestError {
    /// Where the manifest has the name, and what is wrong with it, for programs.
    pub fn place(&self) -> (&Place, String) {
        let place = match self {
            Self::Unknown { place, .. }
            | Self::Virtual { place, .. }
            | Self::NoVersion { place, .. }
            | Self::Assumed { place, .. } => place,
        };
        let text = self.to_string();
        let at = format!("{}: ", At(place));
        (place, text.strip_prefix(&at).unwrap_or(&text).to_owned())
    }
}

/// A place as `file:line:column`.
struct At<'a>(&'a Place);

impl Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0.file.display(), self.0.line, self.0.column)
    }
}

/// So much of an index's text as is shown: a relation or a version may be a megabyte, and stand in every reason.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// One thing a line.
pub(super) fn lines<T: Display>(things: &[T]) -> String {
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A dependency as it stands in an index: `a (>= 1) | b`.
pub(super) fn group(alternatives: &[Relation<'_>]) -> String {
    alternatives.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

/// What is wrong with a request, if anything.
pub(super) fn request(
    universe: &Universe<'_>,
    query: &Query<'_>,
    request: &Request<'_>,
) -> Option<RequestError> {
    let (name, place) = (request.name.to_owned(), request.place.clone());
    if query.assume.contains(request.name) {
        return Some(RequestError::Assumed { name, place });
    }
    let mut available = universe.versions(request.name);
    if available.len() == 0 {
        let providers = universe.providers(request.name).into_iter();
        let providers: Vec<_> = providers.take(MOST_OFFERED).map(str::to_owned).collect();
        return Some(match providers.is_empty() {
            true => RequestError::Unknown { near: near(request.name, universe.names()), name, place },
            false => RequestError::Virtual { name, place, providers },
        });
    }
    let wanted = request.version?;
    if available.any(|package| compare(package.version, wanted).is_eq()) {
        return None;
    }
    let available = universe.versions(request.name).take(MOST_OFFERED);
    let available = available.map(|package| package.version.to_owned()).collect();
    Some(RequestError::NoVersion { name, version: wanted.to_owned(), place, available })
}

/// The way from the manifest to a package: each package with the dependency that leads on.
#[derive(Clone, Debug, PartialEq)]
pub struct Trail {
    /// The name that was asked for.
    pub asked: String,
    /// Where.
    pub place: Place,
    /// Name and version of a package and what it needs, which the next one would meet.
    pub steps: Vec<(String, String)>,
    /// Name and version of the package at the end.
    pub last: Option<String>,
}

impl Trail {
    fn begin(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n  {}: {} is asked for", At(&self.place), self.asked)?;
        self.steps.iter().try_for_each(|(package, needs)| write!(f, "\n    → {package} needs {needs}"))
    }

    /// Where the manifest asks, and for what, for programs.
    fn place(&self) -> (&Place, String) {
        (&self.place, format!("{} is asked for", self.asked))
    }

    /// The name, where a file inside keller asks for the package itself.
    fn carried(&self) -> Option<&str> {
        let is_carried = self.steps.is_empty() && self.place.file.to_string_lossy().starts_with(EMBEDDED);
        self.asked.split(' ').next().filter(|_| is_carried)
    }

    fn last(&self) -> &str {
        self.last.as_deref().unwrap_or(&self.asked)
    }
}

/// One reason for which there is no solution.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Something is needed that nothing meets.
    Lacks {
        /// The way to the package that needs it.
        trail: Trail,
        /// The dependency.
        needs: String,
        /// What there is instead, per alternative.
        instead: Vec<String>,
    },
    /// Two packages exclude each other.
    Clash {
        /// The way to the one that says so.
        trail: Trail,
        /// What it conflicts with, as it stands in the index.
        with: String,
        /// The way to the other.
        other: Trail,
    },
    /// Two versions of one package are needed.
    Twice {
        /// The way to the one.
        trail: Trail,
        /// The way to the other.
        other: Trail,
    },
    /// The archive's index makes no sense of the package.
    Unusable {
        /// The way to it.
        trail: Trail,
        /// What is wrong.
        reason: String,
    },
}

impl Reason {
    /// The ways that it speaks of.
    fn trails(&self) -> Vec<&Trail> {
        match self {
            Self::Lacks { trail, .. } | Self::Unusable { trail, .. } => vec![trail],
            Self::Clash { trail, other, .. } | Self::Twice { trail, other } => vec![trail, other],
        }
    }

    /// The names in it without their versions.
    fn shape(&self) -> String {
        let kind = match self {
            Self::Lacks { .. } => "lacks",
            Self::Clash { .. } => "clash",
            Self::Twice { .. } => "twice",
            Self::Unusable { .. } => "unusable",
        };
        let names = self.trails().into_iter().flat_map(|trail| {
            let packages = trail.steps.iter().map(|(package, _)| package).chain(&trail.last);
            std::iter::once(trail.asked.as_str())
                .chain(packages.filter_map(|package| package.split(' ').next()))
        });
        std::iter::once(kind).chain(names).collect::<Vec<_>>().join(" ")
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks { trail, needs, instead } => {
                trail.begin(f)?;
                if trail.last.is_some() {
                    write!(f, "\n    → {} needs {needs}", trail.last())?;
                }
                instead.iter().try_for_each(|line| write!(f, "\n    → {line}"))
            }
            Self::Clash { trail, with, other } => {
                trail.begin(f)?;
                write!(f, "\n    → {} conflicts with {with}", trail.last())?;
                other.begin(f)?;
                write!(f, "\n    → {} is what it conflicts with", other.last())?;
                match other.carried().or(trail.carried()) {
                    Some(name) => {
                        write!(
                            f,
                            "\n    → `assume: {{{name}: \"the reason\"}}` leaves {name} out for the other one"
                        )
                    }
                    None => Ok(()),
                }
            }
            Self::Twice { trail, other } => {
                trail.begin(f)?;
                write!(f, "\n    → {} would do", trail.last())?;
                other.begin(f)?;
                write!(
                    f,
                    "\n    → {} would do, but two versions of a package cannot be together",
                    other.last()
                )
            }
            Self::Unusable { trail, reason } => {
                trail.begin(f)?;
                write!(f, "\n    → {} cannot be used: {reason}", trail.last())
            }
        }
    }
}

/// No set of packages is complete and free of conflicts.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct Unsolvable {
    /// Why, each enough to rule something out; together they rule out everything.
    pub reasons: Vec<Reason>,
}

impl Unsolvable {
    /// Where the manifest asks for what cannot be together, each place once, for programs.
    pub fn places(&self) -> Vec<(&Place, String)> {
        let mut places = Vec::new();
        for (place, text) in self.reasons.iter().flat_map(Reason::trails).map(Trail::place) {
            if !places.iter().any(|(known, said)| *known == place && *said == text) {
                places.push((place, text));
            }
        }
        places
    }
}

impl Display for Unsolvable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no set of packages meets what is asked for:")?;
        self.reasons.iter().take(SHOWN_REASONS).try_for_each(|reason| reason.fmt(f))?;
        match self.reasons.len().saturating_sub(SHOWN_REASONS) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more reasons of the kind"),
        }
    }
}

/// Turns the facts of a conflict into reasons with the shortest way to each.
pub(super) fn unsolvable(universe: &Universe<'_>, query: &Query<'_>, links: &[Link]) -> Unsolvable {
    let map = Map::new(universe, query, links);
    let mut reasons: Vec<Reason> = Vec::new();
    let (mut shapes, mut steps) = (BTreeSet::new(), 0);
    for link in links {
        let reason = match link {
            Link::Needs { .. } => continue,
            Link::Lacks { from, text } => map.trail(*from, text).map(|trail| Reason::Lacks {
                trail,
                needs: cut(text),
                instead: instead(universe, text),
            }),
            Link::Clash { from, to, text } => map
                .trail(Some(*from), "")
                .zip(map.trail(Some(*to), ""))
                .map(|(trail, other)| Reason::Clash { trail, with: cut(text), other }),
            Link::Twice { one, other } => map
                .trail(Some(*one), "")
                .zip(map.trail(Some(*other), ""))
                .map(|(trail, other)| Reason::Twice { trail, other }),
            Link::Unusable { package, reason } => {
                map.trail(Some(*package), "").map(|trail| Reason::Unusable { trail, reason: reason.clone() })
            }
        };
        // Higher versions come first; what lower ones fail by is mostly the same again.
        steps += reason.iter().flat_map(Reason::trails).map(|trail| 1 + trail.steps.len()).sum::<usize>();
        reasons.extend(reason.filter(|reason| shapes.insert(reason.shape())));
        if reasons.len() == MOST_REASONS || steps > MOST_STEPS {
            break;
        }
    }
    // The shortest chains first: they are the easiest to follow.
    reasons.sort_by_key(|reason| match reason {
        Reason::Lacks { trail, .. } | Reason::Unusable { trail, .. } => trail.steps.len(),
        Reason::Clash { trail, other, .. } | Reason::Twice { trail, other } => {
            trail.steps.len() + other.steps.len()
        }
    });
    Unsolvable { reasons }
}

/// The shortest ways from the manifest to packages.
struct Map<'m, 'a> {
    universe: &'m Universe<'a>,
    query: &'m Query<'a>,
    /// From where and by which dependency a package was reached.
    reached: BTreeMap<u32, (Option<u32>, &'m str)>,
}

impl<'m, 'a> Map<'m, 'a> {
    fn new(universe: &'m Universe<'a>, query: &'m Query<'a>, links: &'m [Link]) -> Self {
        let mut below: BTreeMap<Option<u32>, Vec<(u32, &str)>> = BTreeMap::new();
        for link in links {
            if let Link::Needs { from, to, text } = link {
                below.entry(*from).or_default().push((*to, text));
            }
        }
        let mut reached = BTreeMap::new();
        let mut queue = VecDeque::from([None]);
        while let Some(at) = queue.pop_front() {
            for (to, text) in below.remove(&at).unwrap_or_default() {
                if let Entry::Vacant(place) = reached.entry(to) {
                    place.insert((at, text));
                    queue.push_back(Some(to));
                }
            }
        }
        Self { universe, query, reached }
    }

    /// The way to `package`, or to the manifest's own request `text`.
    fn trail(&self, package: Option<u32>, text: &str) -> Option<Trail> {
        let shown = |id: u32| {
            let record = self.universe.heading(id);
            cut(&format!("{} {}", record.name, record.version))
        };
        let mut steps = Vec::new();
        let mut asked = text;
        let mut at = package;
        while let Some(id) = at {
            let (from, needs) = *self.reached.get(&id)?;
            match from {
                Some(from) => steps.push((shown(from), cut(needs))),
                None => asked = needs,
            }
            at = from;
        }
        steps.reverse();
        let name = asked.split(' ').next().unwrap_or_default();
        let request = self.query.requests.iter().find(|request| request.name == name)?;
        Some(Trail { asked: cut(asked), place: request.place.clone(), steps, last: package.map(shown) })
    }
}

/// What there is in place of each alternative of a dependency that nothing meets.
fn instead(universe: &Universe<'_>, text: &str) -> Vec<String> {
    let alternatives = version::groups(text).flatten().next().unwrap_or_default();
    let line = |relation: &Relation<'_>| {
        let versions: BTreeSet<_> = universe.versions(relation.name).map(|package| package.version).collect();
        if !versions.is_empty() {
            let versions: Vec<_> = versions.into_iter().take(MOST_OFFERED).map(cut).collect();
            return format!("of {} there is only {}", relation.name, versions.join(", "));
        }
        let providers: Vec<_> = universe.providers(relation.name).into_iter().take(MOST_OFFERED).collect();
        if providers.is_empty() {
            format!("no archive has a package {}, nor one that provides it", relation.name)
        } else {
            format!("{} is provided by {}, but not in such a version", relation.name, providers.join(", "))
        }
    };
    alternatives.iter().take(MOST_OFFERED).map(|relation| cut(&line(relation))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_component_asks_for_can_be_left_out() {
        let trail = |asked: &str, file: &str, steps: &[(&str, &str)]| Trail {
            asked: asked.to_owned(),
            place: Place { file: file.into(), line: 1, column: 2 },
            steps: steps
                .iter()
                .map(|(package, needs)| ((*package).to_owned(), (*needs).to_owned()))
                .collect(),
            last: Some(format!("{asked} 1")),
        };
        let clash = |other: Trail| {
            let with = "time-daemon".to_owned();
            Reason::Clash { trail: trail("chrony", "node.yaml", &[]), with, other }.to_string()
        };
        let base = "keller:manifests/components/base.yaml";
        assert_eq!(
            clash(trail("systemd-timesyncd", base, &[])),
            "\n  node.yaml:1:2: chrony is asked for\n    → chrony 1 conflicts with time-daemon\n  \
             keller:manifests/components/base.yaml:1:2: systemd-timesyncd is asked for\n    \
             → systemd-timesyncd 1 is what it conflicts with\n    \
             → `assume: {systemd-timesyncd: \"the reason\"}` leaves systemd-timesyncd out for the other one"
        );
        // Their own manifest is not to be overruled, nor a package that another one needs.
        assert!(!clash(trail("ntpsec", "node.yaml", &[])).contains("assume"));
        assert!(!clash(trail("systemd", base, &[("systemd 1", "time-daemon")])).contains("assume"));
    }
}
