//! What the signed list of releases says of each: the custom metadata of its TUF target.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use tough::TargetName;
use tough::schema::{Hashes, Target, Targets};

use crate::base::{Digest, version};
use crate::update::Document;
use crate::update::document::Blob;

/// Member of a target's custom metadata that is ours.
const MEMBER: &str = "keller";

/// Room that a disk has for a version, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// For unified kernel images in the EFI system partition, all together.
    pub esp: u64,
    /// One slot's root partition.
    pub root: u64,
    /// One slot's verity partition.
    pub verity: u64,
}

/// A published version, as the list of releases has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
    /// The channels that it is in.
    pub channels: Vec<String>,
    /// The oldest version that may go to it in one step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<String>,
    /// The disks that images of it have.
    pub layout: Layout,
    /// Its release document.
    pub document: Blob,
}

/// The custom metadata of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Custom {
    id: String,
    version: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    channels: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    minimum: Option<String>,
    layout: Layout,
}

impl Listing {
    /// Of `document`, whose bytes are `blob`, in no channel.
    pub(super) fn of(document: &Document, blob: Blob, layout: Layout) -> Self {
        Self {
            id: document.id.clone(),
            version: document.version.clone(),
            channels: Vec::new(),
            minimum: document.minimum.clone(),
            layout,
            document: blob,
        }
    }

    /// Name of the target.
    pub(super) fn target_name(&self) -> String {
        format!("{}_{}.json", self.id, self.version)
    }

    /// Where the release document lies, relative to the repository's root.
    pub fn path(&self) -> String {
        format!("targets/{}.{}", self.document.sha256, self.target_name())
    }

    /// Whether a node that runs `version` may go to it in one step.
    pub fn is_reachable_from(&self, version: &str) -> bool {
        self.minimum.as_ref().is_none_or(|minimum| version::compare(version, minimum).is_ge())
    }

    /// Whether it is in `channel`.
    pub fn is_in(&self, channel: &str) -> bool {
        self.channels.iter().any(|own| own == channel)
    }

    pub(super) fn from_target(target: &Target) -> Option<Self> {
        let custom: Custom = serde_json::from_value(target.custom.get(MEMBER)?.clone()).ok()?;
        let sha256 = Digest::from_bytes(target.hashes.sha256.as_ref().try_into().ok()?);
        Some(Self {
            id: custom.id,
            version: custom.version,
            channels: custom.channels.into_iter().collect(),
            minimum: custom.minimum,
            layout: custom.layout,
            document: Blob { sha256, size: target.length },
        })
    }

    fn to_target(&self) -> Target {
        let custom = Custom {
            id: self.id.clone(),
            version: self.version.clone(),
            channels: self.channels.iter().cloned().collect(),
            minimum: self.minimum.clone(),
            layout: self.layout,
        };
        let custom = serde_json::to_value(custom).expect("names and numbers");
        Target {
            length: self.document.size,
            hashes: Hashes {
                sha256: self.document.sha256.as_bytes().to_vec().into(),
                _extra: HashMap::new(),
            },
            custom: HashMap::from([(MEMBER.to_owned(), custom)]),
            _extra: HashMap::new(),
        }
    }

    /// Ids in alphabetical order, of each the newest version first.
    pub fn order(&self, other: &Self) -> Ordering {
        let versions = || version::compare(&other.version, &self.version);
        self.id.cmp(&other.id).then_with(versions).then_with(|| self.version.cmp(&other.version))
    }
}

/// All that `targets` lists, in [`Listing::order`]. Targets of others, or whose name says something else than
/// what is in them, are left out.
pub(super) fn listings(targets: &Targets) -> Vec<Listing> {
    let mut found: Vec<Listing> = targets
        .targets
        .iter()
        .filter_map(|(name, target)| {
            Listing::from_target(target).filter(|listing| listing.target_name() == name.raw())
        })
        .collect();
    found.sort_by(Listing::order);
    found
}

/// Puts `listing` into `targets`, in place of what was there for this version.
///
/// # Errors
/// A version that makes no name of a file.
pub(super) fn list(targets: &mut Targets, listing: &Listing) -> Result<(), Box<tough::error::Error>> {
    let name = TargetName::new(listing.target_name()).map_err(Box::new)?;
    targets.add_target(name, listing.to_target());
    Ok(())
}

/// Takes `listing` out of `targets`.
pub(super) fn unlist(targets: &mut Targets, listing: &Listing) {
    targets.targets.retain(|name, _| name.raw() != listing.target_name());
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::repository::metadata::SPEC_VERSION;

    fn listing(version: &str, minimum: Option<&str>) -> Listing {
        Listing {
            id: "node".to_owned(),
            version: version.to_owned(),
            channels: vec!["stable".to_owned()],
            minimum: minimum.map(str::to_owned),
            layout: Layout { esp: 1, root: 2, verity: 3 },
            document: Blob::of(version.as_bytes()),
        }
    }

    #[test]
    fn what_is_listed_is_read() {
        let mut targets = Targets::new(SPEC_VERSION.to_owned(), NonZeroU64::MIN, jiff::Timestamp::UNIX_EPOCH);
        for version in ["1.9", "1.10", "1.0~rc1"] {
            list(&mut targets, &listing(version, None)).unwrap();
        }
        let versions: Vec<_> = listings(&targets).into_iter().map(|listing| listing.version).collect();
        assert_eq!(versions, ["1.10", "1.9", "1.0~rc1"]);
        assert_eq!(listings(&targets)[0], listing("1.10", None));
        let mut stranger = listing("3", None).to_target();
        targets.add_target(TargetName::new("node_4.json").unwrap(), stranger.clone());
        stranger.custom.clear();
        targets.add_target(TargetName::new("node_3.json").unwrap(), stranger);
        assert_eq!(listings(&targets).len(), 3);
    }

    #[test]
    fn a_minimum_is_a_lower_bound() {
        assert!(listing("3", None).is_reachable_from("0.1"));
        let bound = listing("3", Some("2.0"));
        assert!(bound.is_reachable_from("2.0") && bound.is_reachable_from("2.1"));
        assert!(!bound.is_reachable_from("2.0~rc1"));
    }
}
