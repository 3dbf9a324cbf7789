//! Which of the published versions a node goes to.

use std::cmp::Ordering;

use super::record::Record;
use crate::base::version;

/// What is known of a published version before its document is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
    /// The channels that it is in.
    pub channels: Vec<String>,
}

/// An operator's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// This version, older or newer, in whatever channel.
    pub version: Option<String>,
    /// Also when it fell back before.
    pub again: bool,
}

/// Why a version that was asked for cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwanted {
    /// It runs.
    #[error("{version} is what runs")]
    Runs {
        /// The version.
        version: String,
    },
    /// Nobody has it.
    #[error("{version} is not published for {id}; there is: {}", known(.published))]
    Unknown {
        /// The version.
        version: String,
        /// IMAGE_ID of the node.
        id: String,
        /// What is there, newest first.
        published: Vec<String>,
    },
    /// Nobody has it any more.
    #[error("{version} of {id} is no longer published: its publisher has taken it out of the repository; choose one of these: {}", known(.published))]
    TakenOut {
        /// The version.
        version: String,
        /// IMAGE_ID of the node.
        id: String,
        /// What is there, newest first.
        published: Vec<String>,
    },
    /// It was given up.
    #[error("{version} was given up before ({why}); --again takes it all the same")]
    Rejected {
        /// The version.
        version: String,
        /// Why.
        why: String,
    },
}

fn known(versions: &[String]) -> String {
    if versions.is_empty() { "none".to_owned() } else { versions.join(", ") }
}

impl Unwanted {
    /// The same, where `was_published` tells that somebody had it once.
    pub fn knowing(self, was_published: impl Fn(&str, &str) -> bool) -> Self {
        match self {
            Self::Unknown { version, id, published } if was_published(&id, &version) => {
                Self::TakenOut { version, id, published }
            }
            other => other,
        }
    }
}

/// What a node is, for the choice.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// IMAGE_ID.
    pub id: &'a str,
    /// IMAGE_VERSION of what runs.
    pub version: &'a str,
    /// The channel that it follows.
    pub channel: &'a str,
}

/// The versions to go to, the most wanted first: the newest of the channel, and older ones for a node that cannot
/// go to that in one step. What fell back is left out until a newer one or an operator's word.
pub fn choose<'o>(
    node: Node<'_>,
    record: &Record,
    wanted: &Wanted,
    offers: &'o [Offer],
) -> Result<Vec<&'o Offer>, Unwanted> {
    let mut own: Vec<&Offer> = offers.iter().filter(|offer| offer.id == node.id).collect();
    own.sort_by(|a, b| version::compare(&b.version, &a.version));
    if let Some(version) = &wanted.version {
        let version = version.clone();
        if version == node.version {
            return Err(Unwanted::Runs { version });
        }
        if let Some(why) = record.rejected.get(&version).filter(|_| !wanted.again) {
            return Err(Unwanted::Rejected { version, why: why.clone() });
        }
        let found: Vec<&Offer> = own.iter().copied().filter(|offer| offer.version == version).collect();
        return match found.is_empty() {
            false => Ok(found),
            true => Err(Unwanted::Unknown {
                version,
                id: node.id.to_owned(),
                published: own.iter().map(|offer| offer.version.clone()).collect(),
            }),
        };
    }
    let is_newer = |offer: &&Offer| version::compare(&offer.version, node.version) == Ordering::Greater;
    let in_channel = |offer: &&Offer| offer.channels.iter().any(|channel| channel == node.channel);
    let is_pinned = |offer: &&Offer| record.pinned.as_ref().is_none_or(|pinned| *pinned == offer.version);
    let is_fine = |offer: &&Offer| wanted.again || !record.rejected.contains_key(&offer.version);
    Ok(own
        .into_iter()
        .filter(is_newer)
        .filter(|offer| record.pinned.is_some() || in_channel(offer))
        .filter(is_pinned)
        .filter(is_fine)
        .collect())
}

/// The versions that a node would go to if they had not fallen back, newest first, each with the reason.
pub fn passed_over(node: Node<'_>, record: &Record, offers: &[Offer]) -> Vec<(String, String)> {
    let again = Wanted { version: None, again: true };
    let all = choose(node, record, &again, offers).unwrap_or_default();
    let why = |offer: &&Offer| Some((offer.version.clone(), record.rejected.get(&offer.version)?.clone()));
    all.iter().filter_map(why).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(version: &str, channel: &str) -> Offer {
        Offer { id: "node".to_owned(), version: version.to_owned(), channels: vec![channel.to_owned()] }
    }

    fn chosen(record: &Record, wanted: &Wanted) -> Result<Vec<String>, Unwanted> {
        let mut offers = vec![
            offer("0.9", "stable"),
            offer("1.0", "stable"),
            offer("1.10", "stable"),
            offer("1.9", "stable"),
        ];
        offers.extend([offer("2.0", "beta"), Offer { id: "other".to_owned(), ..offer("3.0", "stable") }]);
        let node = Node { id: "node", version: "1.0", channel: "stable" };
        choose(node, record, wanted, &offers)
            .map(|found| found.into_iter().map(|offer| offer.version.clone()).collect())
    }

    #[test]
    fn the_newest_of_the_channel_that_did_not_fall_back() {
        let mut record = Record::default();
        assert_eq!(chosen(&record, &Wanted::default()).unwrap(), ["1.10", "1.9"]);
        record.rejected.insert("1.10".to_owned(), "it hung".to_owned());
        assert_eq!(chosen(&record, &Wanted::default()).unwrap(), ["1.9"]);
        let node = Node { id: "node", version: "1.0", channel: "stable" };
        let offers = [offer("1.10", "stable"), offer("1.9", "stable"), offer("2.0", "beta")];
        let passed = passed_over(node, &record, &offers);
        assert_eq!(passed, [("1.10".to_owned(), "it hung".to_owned())]);
        record.pinned = Some("2.0".to_owned());
        assert_eq!(chosen(&record, &Wanted::default()).unwrap(), ["2.0"]);
        record.pinned = Some("1.0".to_owned());
        assert!(chosen(&record, &Wanted::default()).unwrap().is_empty());
    }

    #[test]
    fn an_operators_word_goes_further() {
        let mut record = Record::default();
        let word = |version: &str, again| Wanted { version: Some(version.to_owned()), again };
        assert_eq!(chosen(&record, &word("0.9", false)).unwrap(), ["0.9"]);
        assert!(matches!(chosen(&record, &word("1.0", false)), Err(Unwanted::Runs { .. })));
        let unknown = chosen(&record, &word("7", false)).unwrap_err().to_string();
        assert_eq!(unknown, "7 is not published for node; there is: 2.0, 1.10, 1.9, 1.0, 0.9");
        record.rejected.insert("1.10".to_owned(), "it hung".to_owned());
        assert!(chosen(&record, &word("1.10", false)).unwrap_err().to_string().contains("--again"));
        assert_eq!(chosen(&record, &word("1.10", true)).unwrap(), ["1.10"]);
    }
}
