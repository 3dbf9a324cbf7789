//! What the signed list of releases remembers of versions that have been taken out of it, in a member of its own.
//!
//! Nodes that run such a version are still in the field: a version stays one thing, and the disks that its images have
//! bound every later version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tough::schema::Targets;

use super::release::{Layout, Listing};
use crate::base::Digest;
use crate::base::version::compare;
use crate::update::Document;
use crate::update::document::FORMAT;

/// Member of the list that is ours.
const MEMBER: &str = "keller";
/// Hexadecimal digits of a mark: enough that two images never share one by accident.
const MARK: usize = 16;

/// By IMAGE_ID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Former {
    #[serde(default)]
    former: BTreeMap<String, Image>,
    /// Members of later forms.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Image {
    /// What each version was, by [`mark`].
    versions: BTreeMap<String, String>,
    /// Those of its disks that no other is smaller than.
    disks: Vec<Disk>,
    /// The newest version whose nodes read only of versions in files of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reads_whole: Option<String>,
}

/// What bounds later versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Disk {
    /// Whose images have it.
    pub version: String,
    pub layout: Layout,
    /// Bytes of a logical sector.
    pub sector_size: u32,
    /// Bytes of the kernel image.
    pub uki: u64,
}

impl Disk {
    pub(super) fn of(listing: &Listing, document: &Document) -> Self {
        Self {
            version: listing.version.clone(),
            layout: listing.layout,
            sector_size: document.sector_size,
            uki: document.uki.size,
        }
    }

    /// Whether what fits this one fits `other`.
    fn bounds(&self, other: &Self) -> bool {
        let (own, its) = (self.layout, other.layout);
        own.esp <= its.esp && own.root <= its.root && own.verity <= its.verity && self.uki >= other.uki
    }
}

/// Tells images of one version apart.
pub(super) fn mark(root_hash: Digest, uki: Digest) -> String {
    let mut mark = Digest::of([root_hash.as_bytes().as_slice(), uki.as_bytes()].concat()).to_hex();
    mark.truncate(MARK);
    mark
}

impl Former {
    /// Out of the list. What cannot be read is an error, since it would be lost with the next list.
    pub(super) fn read(targets: &Targets) -> Result<Self, serde_json::Error> {
        targets
            ._extra
            .get(MEMBER)
            .map_or_else(|| Ok(Self::default()), |value| serde_json::from_value(value.clone()))
    }

    /// Puts it into `targets`.
    pub(super) fn write(&self, targets: &mut Targets) {
        let value = serde_json::to_value(self).expect("names and numbers");
        targets._extra.insert(MEMBER.to_owned(), value);
    }

    /// The image `id`.
    pub(super) fn image(&self, id: &str) -> Option<&Image> {
        self.former.get(id)
    }

    /// Remembers a version that is taken out.
    pub(super) fn add(&mut self, listing: &Listing, document: &Document) {
        let image = self.former.entry(listing.id.clone()).or_default();
        image.versions.insert(listing.version.clone(), mark(document.root.root_hash, document.uki.sha256));
        let is_newer = |known: &String| compare(&listing.version, known).is_gt();
        if document.reads < FORMAT && image.reads_whole.as_ref().is_none_or(is_newer) {
            image.reads_whole = Some(listing.version.clone());
        }
        let disk = Disk::of(listing, document);
        if !image.disks.iter().any(|known| known.bounds(&disk)) {
            image.disks.retain(|known| !disk.bounds(known));
            image.disks.push(disk);
        }
    }
}

impl Image {
    /// Its disks.
    pub(super) fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// The newest of them whose nodes read only of versions in files of their own.
    pub(super) fn reads_whole(&self) -> Option<&str> {
        self.reads_whole.as_deref()
    }

    /// The mark of `version`, if that has been taken out.
    pub(super) fn mark(&self, version: &str) -> Option<&str> {
        let is_it = |known: &&String| compare(known, version).is_eq();
        let known = self.versions.keys().find(is_it)?;
        self.versions.get(known).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(version: &str, esp: u64, root: u64, uki: u64) -> Disk {
        let layout = Layout { esp, root, verity: 1 };
        Disk { version: version.to_owned(), layout, sector_size: 512, uki }
    }

    #[test]
    fn what_bounds_is_remembered_and_nothing_besides() {
        assert!(disk("1", 4, 4, 2).bounds(&disk("2", 4, 5, 2)));
        assert!(!disk("1", 4, 4, 2).bounds(&disk("2", 4, 5, 3)));
        assert!(!disk("1", 4, 4, 2).bounds(&disk("2", 3, 5, 2)));
    }

    #[test]
    fn marks_tell_root_and_kernel_image_apart() {
        let (one, two) = (Digest::of("1"), Digest::of("2"));
        assert_eq!(mark(one, two).len(), MARK);
        assert_ne!(mark(one, two), mark(two, one));
        assert_ne!(mark(one, two), mark(one, one));
    }
}
