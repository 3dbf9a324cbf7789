//! The two places for a root: while one runs, the other takes the update. How a slot says what is in it
//! follows the Discoverable Partitions Specification (GUIDs) and systemd-sysupdate (labels).

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use super::gpt::{Entry, Table, attributes, types};
use crate::base::Digest;
use crate::verity::partition_guids;

/// Half of the A/B pair. Each has a root partition and a verity partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The one that a new image fills.
    A,
    /// The one that a new image leaves empty.
    B,
}

impl Slot {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// Label of partitions that hold nothing; systemd-sysupdate installs into these.
pub const EMPTY_LABEL: &str = "_empty";
/// End of a verity partition's label.
const VERITY_SUFFIX: &str = "_verity";

/// What a slot holds: one version of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Release {
    /// IMAGE_ID; has no `_`.
    pub id: String,
    /// IMAGE_VERSION; has no `_`.
    pub version: String,
    /// Of the verity tree.
    pub root_hash: Digest,
}

/// What a partition table says of one partition of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PARTUUID.
    pub guid: Uuid,
    /// PARTLABEL.
    pub label: String,
    /// See [`attributes`].
    pub attributes: u64,
}

impl Release {
    /// Identity of the root partition: its GUID is the first half of the root hash.
    pub fn root(&self) -> Identity {
        let label = format!("{}_{}", self.id, self.version);
        Identity { guid: partition_guids(&self.root_hash).0, label, attributes: attributes::READ_ONLY }
    }

    /// Identity of the verity partition: its GUID is the second half of the root hash.
    pub fn verity(&self) -> Identity {
        let label = format!("{}_{}{VERITY_SUFFIX}", self.id, self.version);
        Identity { guid: partition_guids(&self.root_hash).1, label, attributes: attributes::READ_ONLY }
    }
}

/// The root hash that belongs to two GUIDs.
pub fn root_hash(root: Uuid, verity: Uuid) -> Digest {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(root.as_bytes());
    bytes[16..].copy_from_slice(verity.as_bytes());
    Digest::from_bytes(bytes)
}

/// Identities of the root and the verity partition of a slot that holds nothing. They carry no-auto, since
/// there is nothing that systemd's tools could mount; `disk` keeps them apart from those of other disks.
pub fn empty(disk: Uuid, slot: Slot) -> (Identity, Identity) {
    let identity = |what: &str| Identity {
        guid: derived_guid(disk, &format!("{what}-{slot}")),
        label: EMPTY_LABEL.to_owned(),
        attributes: attributes::READ_ONLY | attributes::NO_AUTO,
    };
    (identity("root"), identity("verity"))
}

/// A GUID that follows from another and a name: version 8 of RFC 9562, by SHA-256.
pub fn derived_guid(from: Uuid, name: &str) -> Uuid {
    let digest = Digest::of([from.as_bytes(), name.as_bytes()].concat());
    let bytes = digest.as_bytes()[..16].try_into().expect("half of 32 bytes");
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The two partitions of one slot in a table.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'t> {
    /// The root partition.
    pub root: &'t Entry,
    /// The verity partition.
    pub verity: &'t Entry,
}

/// A table that does not have the partitions of an A/B disk.
#[derive(Debug, thiserror::Error)]
#[error("expected two root and two verity partitions, but the disk has {roots} and {verities}")]
pub struct SlotError {
    /// Root partitions.
    pub roots: usize,
    /// Verity partitions.
    pub verities: usize,
}

/// The slots of a table, A and B in the order of their numbers.
///
/// # Errors
/// When there are not exactly two of each.
pub fn slots(table: &Table) -> Result<[(Slot, Parts<'_>); 2], SlotError> {
    let roots: Vec<&Entry> = table.by_type(types::ROOT).collect();
    let verities: Vec<&Entry> = table.by_type(types::ROOT_VERITY).collect();
    let (&[root_a, root_b], &[verity_a, verity_b]) = (roots.as_slice(), verities.as_slice()) else {
        return Err(SlotError { roots: roots.len(), verities: verities.len() });
    };
    Ok([
        (Slot::A, Parts { root: root_a, verity: verity_a }),
        (Slot::B, Parts { root: root_b, verity: verity_b }),
    ])
}

/// Slot A of a table as an image ships it, with nothing but an EFI system partition beside; none where there is
/// anything else, as on the disk of a node.
pub fn shipped(table: &Table) -> Option<Parts<'_>> {
    let only = |type_guid| {
        let mut all = table.by_type(type_guid);
        all.next().filter(|_| all.next().is_none())
    };
    let (root, verity, _) = (only(types::ROOT)?, only(types::ROOT_VERITY)?, only(types::ESP)?);
    (table.entries.len() == 3).then_some(Parts { root, verity })
}

impl Parts<'_> {
    /// What the slot holds, by its labels and GUIDs; nothing when empty or when the two labels disagree,
    /// as they do while an update is being written.
    pub fn release(&self) -> Option<Release> {
        let (id, version) = self.root.label.split_once('_')?;
        if id.is_empty() || self.verity.label.strip_suffix(VERITY_SUFFIX)? != self.root.label {
            return None;
        }
        Some(Release {
            id: id.to_owned(),
            version: version.to_owned(),
            root_hash: root_hash(self.root.guid, self.verity.guid),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_the_halves_of_the_root_hash() {
        let hash: Digest =
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f".parse().unwrap();
        let release = Release { id: "node".to_owned(), version: "1.0".to_owned(), root_hash: hash };
        assert_eq!(release.root().guid.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(release.verity().label, "node_1.0_verity");
        assert_eq!(root_hash(release.root().guid, release.verity().guid), hash);
    }

    #[test]
    fn empty_slots_differ_by_disk_and_slot() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_ne!(empty(one, Slot::A).0.guid, empty(one, Slot::B).0.guid);
        assert_ne!(empty(one, Slot::A).0.guid, empty(two, Slot::A).0.guid);
        assert_eq!(empty(one, Slot::A).0.guid.get_version_num(), 8);
    }
}
