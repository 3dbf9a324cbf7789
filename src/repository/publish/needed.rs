//! Which published versions somebody still needs: a channel, the next version's patches, or a node that cannot go to
//! the newest in one step.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Listing, compare};

/// How much of the past a repository is to hold.
#[derive(Clone, Debug)]
pub struct Keep {
    /// How many versions of each channel, the newest; at least one.
    pub versions: usize,
    /// From how many versions the next one's patches start.
    pub patches: usize,
    /// Of several images, this one.
    pub id: Option<String>,
}

/// What a version is needed for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "for", content = "of", rename_all = "kebab-case")]
pub enum Need {
    /// It is among the newest of this channel.
    Channel(String),
    /// Nodes of this channel go by it, since they cannot go further in one step.
    Step(String),
    /// The next version's patches start from it too.
    Patch,
    /// It is the newest of its image, by which the next one's number is judged.
    Newest,
    /// It is of another image than the one that is meant.
    Other,
}

/// What each of `releases` is needed for, in their order; nothing for those that may go.
pub(super) fn needs(releases: &[Listing], keep: &Keep) -> Vec<BTreeSet<Need>> {
    let mut needs = vec![BTreeSet::new(); releases.len()];
    let mut images: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, listing) in releases.iter().enumerate() {
        if keep.id.as_ref().is_none_or(|id| *id == listing.id) {
            images.entry(&listing.id).or_default().push(number);
        } else {
            needs[number].insert(Need::Other);
        }
    }
    for mut own in images.into_values() {
        own.sort_by(|&a, &b| releases[a].order(&releases[b]));
        if let Some(&newest) = own.first() {
            needs[newest].insert(Need::Newest);
        }
        for &number in own.iter().take(keep.patches) {
            needs[number].insert(Need::Patch);
        }
        let channels: BTreeSet<&String> = own.iter().flat_map(|&number| &releases[number].channels).collect();
        for channel in channels {
            let listed: Vec<usize> =
                own.iter().copied().filter(|&number| releases[number].is_in(channel)).collect();
            for (place, &number) in listed.iter().take(keep.versions.max(1)).enumerate() {
                needs[number].insert(Need::Channel(channel.clone()));
                // Whichever of them is the newest once others have been withdrawn, or have fallen back on a node.
                for step in steps(releases, &listed[place..]) {
                    needs[step].insert(Need::Step(channel.clone()));
                }
            }
        }
    }
    needs
}

/// The versions that nodes, however old, take on their way through `listed`, a channel from its newest version on, but
/// for that one: each goes to the newest that it may.
fn steps(releases: &[Listing], listed: &[usize]) -> BTreeSet<usize> {
    let minimums = listed.iter().filter_map(|&number| releases[number].minimum.as_deref());
    let versions = listed.iter().map(|&number| releases[number].version.as_str());
    // All that tells one node's way from another's. Nothing stands for nodes that are older than all of these.
    let starts = minimums.chain(versions).map(Some).chain([None]);
    let mut steps = BTreeSet::new();
    for mut at in starts {
        let next = |at: Option<&str>| {
            listed.iter().copied().find(|&number| match at {
                Some(at) => {
                    let listing = &releases[number];
                    compare(&listing.version, at).is_gt() && listing.is_reachable_from(at)
                }
                None => releases[number].minimum.is_none(),
            })
        };
        while let Some(number) = next(at) {
            steps.insert(number);
            at = Some(&releases[number].version);
        }
    }
    steps.remove(&listed[0]);
    steps
}

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::*;
    use crate::update::document::Blob;

    /// `VERSION[>MINIMUM] [CHANNEL…]`, the newest first.
    fn releases(text: &[&str]) -> Vec<Listing> {
        let listing = |line: &&str| {
            let mut words = line.split(' ');
            let version = words.next().unwrap();
            let (version, minimum) = match version.split_once('>') {
                Some((version, minimum)) => (version, Some(minimum.to_owned())),
                None => (version, None),
            };
            Listing {
                id: "node".to_owned(),
                version: version.to_owned(),
                channels: words.map(str::to_owned).collect(),
                minimum,
                layout: Layout { esp: 1, root: 1, verity: 1 },
                document: Blob::of(version.as_bytes()),
            }
        };
        text.iter().map(listing).collect()
    }

    fn kept(text: &[&str], versions: usize, patches: usize) -> Vec<String> {
        let releases = releases(text);
        let needs = needs(&releases, &Keep { versions, patches, id: None });
        let kept = releases.iter().zip(&needs).filter(|(_, needs)| !needs.is_empty());
        kept.map(|(listing, _)| listing.version.clone()).collect()
    }

    const PLAIN: [&str; 5] = ["1.4 s", "1.3 s", "1.2 s", "1.1 s", "1.0 s"];

    #[test]
    fn the_newest_of_a_channel_and_what_patches_start_from() {
        assert_eq!(kept(&PLAIN, 1, 0), ["1.4"]);
        assert_eq!(kept(&PLAIN, 2, 0), ["1.4", "1.3"]);
        assert_eq!(kept(&PLAIN, 1, 3), ["1.4", "1.3", "1.2"]);
        assert_eq!(kept(&PLAIN, 9, 3).len(), 5);
        // None at all is no channel.
        assert_eq!(kept(&PLAIN, 0, 0), ["1.4"]);
    }

    #[test]
    fn each_channel_has_its_own() {
        let text = ["1.4 beta", "1.3 beta s", "1.2 s", "1.1 lts s", "1.0 lts"];
        assert_eq!(kept(&text, 1, 0), ["1.4", "1.3", "1.1"]);
        // A withdrawn one goes, unless it is the newest of all.
        assert_eq!(kept(&["1.2 s", "1.1", "1.0 s"], 2, 0), ["1.2", "1.0"]);
        assert_eq!(kept(&["1.2", "1.1 s", "1.0 s"], 1, 0), ["1.2", "1.1"]);
    }

    #[test]
    fn steps_stay() {
        // Nodes before 1.2 go to 1.3 first: 1.3 is the newest that they may.
        let text = ["1.4>1.2 s", "1.3 s", "1.2 s", "1.1 s", "1.0 s"];
        assert_eq!(kept(&text, 1, 0), ["1.4", "1.3"]);
        // Two steps: to 1.1, from there to 1.3, from there to 1.4.
        let text = ["1.4>1.2 s", "1.3>1.1 s", "1.2>1.1 s", "1.1 s", "1.0 s"];
        assert_eq!(kept(&text, 1, 0), ["1.4", "1.3", "1.1"]);
        // A step of another channel is none of this one.
        let text = ["1.4>1.2 s", "1.3 beta", "1.2 s", "1.1 s"];
        assert_eq!(kept(&text, 1, 0), ["1.4", "1.3", "1.2"]);
        // Once 1.4 is withdrawn, 1.3 is what nodes need a step for.
        let text = ["1.4 s", "1.3>1.1 s", "1.2>1.1 s", "1.1 s", "1.0 s"];
        assert_eq!(kept(&text, 1, 0), ["1.4"]);
        assert_eq!(kept(&text, 2, 0), ["1.4", "1.3", "1.1"]);
        // A minimum that was never published, and a way that ends before the newest.
        let text = ["2.0>1.5 s", "1.4 s", "1.3 s"];
        assert_eq!(kept(&text, 1, 0), ["2.0", "1.4"]);
    }

    /// Whatever may go, every node takes the same way as before.
    #[test]
    fn no_nodes_way_changes() {
        let mut seed = 7u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..500 {
            let count = 1 + random(9);
            let text: Vec<String> = (1..=count)
                .rev()
                .map(|number| {
                    let minimum = match random(3) {
                        0 => format!(">{}", random(number)),
                        _ => String::new(),
                    };
                    format!(
                        "{number}{minimum}{}{}",
                        [" s", ""][usize::from(random(6) == 0)],
                        [" b", ""][usize::from(random(2) == 0)]
                    )
                })
                .collect();
            let text: Vec<&str> = text.iter().map(String::as_str).collect();
            let all = releases(&text);
            let keep = Keep { versions: usize::try_from(1 + random(3)).unwrap(), patches: 0, id: None };
            let needs = needs(&all, &keep);
            let left: Vec<&Listing> =
                all.iter().zip(&needs).filter(|(_, needs)| !needs.is_empty()).map(|(one, _)| one).collect();
            let way = |all: &[&Listing], from: &str, channel: &str| {
                let mut way = vec![from.to_owned()];
                while let Some(next) = all.iter().find(|it| {
                    let at = way.last().unwrap();
                    it.is_in(channel) && compare(&it.version, at).is_gt() && it.is_reachable_from(at)
                }) {
                    way.push(next.version.clone());
                }
                way
            };
            let whole: Vec<&Listing> = all.iter().collect();
            for from in 0..=count {
                for channel in ["s", "b"] {
                    for from in [from.to_string(), format!("{from}.5")] {
                        assert_eq!(way(&whole, &from, channel), way(&left, &from, channel), "{text:?}");
                    }
                }
            }
        }
    }
}
