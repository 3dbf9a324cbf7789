//! Where partitions lie: pure arithmetic. The order is ESP, verity and root of slot A, root and verity of slot B,
//! reserve, state; the state partition comes last, so that it can grow with the disk. A disk may have no reserve.
//!
//! An image ends with the content of slot A's root: all else is made on the node ([`super::unfold`]), and nothing of what
//! an image has ever moves.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::gpt::{self, Entry, GptError, Table, types};
use super::slot::{self, Identity, Release, Slot};
use crate::base::device::SectorSize;
use crate::base::{Size, align};
use crate::verity;

/// Partitions begin and end at multiples of this, in bytes: no erase block or RAID stripe is split.
pub const ALIGNMENT: u64 = 1 << 20;
/// Label of the state partition.
pub const STATE_LABEL: &str = "keller-state";
/// Label of the reserve: the partition of the journal and of the records of updates.
pub const RESERVE_LABEL: &str = "keller-reserve";
/// Label of the EFI system partition.
pub const ESP_LABEL: &str = "esp";
/// Largest disk that is laid out, in bytes: 8 EiB overflow what files and block devices can address.
const DISK_LIMIT: u64 = 1 << 60;

/// Where a root says how large the partitions of its node are: [`Sizes`] as JSON. What is signed with the root is believed;
/// a partition table is not.
pub const PATH: &str = "usr/lib/keller/disk.json";

/// What a partition of a keller disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The EFI system partition.
    Esp,
    /// The root file system of a slot.
    Root(Slot),
    /// The verity tree of a slot.
    Verity(Slot),
    /// The journal and the records of updates, which nothing else on the node can fill.
    Reserve,
    /// What outlives updates.
    State,
}

impl Role {
    /// Every role, in the order of the partitions' numbers.
    pub const ALL: [Self; 7] = [
        Self::Esp,
        Self::Root(Slot::A),
        Self::Verity(Slot::A),
        Self::Root(Slot::B),
        Self::Verity(Slot::B),
        Self::Reserve,
        Self::State,
    ];

    /// Every role, in the order of the partitions' places.
    const PLACES: [Self; 7] = [
        Self::Esp,
        Self::Verity(Slot::A),
        Self::Root(Slot::A),
        Self::Root(Slot::B),
        Self::Verity(Slot::B),
        Self::Reserve,
        Self::State,
    ];

    /// Whether an image has it.
    pub(super) const fn is_shipped(self) -> bool {
        matches!(self, Self::Esp | Self::Root(Slot::A) | Self::Verity(Slot::A))
    }

    /// GUID of the partition's type.
    pub const fn type_guid(self) -> Uuid {
        match self {
            Self::Esp => types::ESP,
            Self::Root(_) => types::ROOT,
            Self::Verity(_) => types::ROOT_VERITY,
            Self::Reserve => types::LINUX,
            Self::State => types::VAR,
        }
    }

    /// What would be put there, and the line of the manifest that sets its size.
    const fn content(self) -> (&'static str, &'static str) {
        match self {
            Self::Esp => ("content of the ESP", "disk.esp"),
            Self::Root(_) => ("root file system", "disk.root"),
            // Its size follows from that of the root.
            Self::Verity(_) => ("verity tree", "disk.root"),
            Self::Reserve => ("reserve", "disk.reserve"),
            Self::State => ("state", "disk.state.min"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Esp => f.write_str("esp"),
            Self::Root(slot) => write!(f, "root-{slot}"),
            Self::Verity(slot) => write!(f, "root-{slot}-verity"),
            Self::Reserve => f.write_str("reserve"),
            Self::State => f.write_str("state"),
        }
    }
}

/// What the manifest says of a node's disk; sizes are rounded up to [`ALIGNMENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The EFI system partition.
    pub esp: Size,
    /// One slot's root partition.
    pub root: Size,
    /// The reserve; a disk without it has the journal and the records of updates on the state partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Size>,
    /// The state partition at least; it may take the rest of the disk.
    pub state: Size,
    /// Of the disk.
    pub sector_size: SectorSize,
}

/// One partition's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub role: Role,
    /// In bytes from the start of the disk.
    pub start: u64,
    /// In bytes.
    pub size: u64,
}

/// The whole disk of a node, as small as it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Of the disk.
    pub sector_size: SectorSize,
    /// In bytes, both partition tables included.
    pub disk_size: u64,
    /// In the order of [`Role::ALL`]: that of their numbers, from 1.
    pub partitions: Vec<Partition>,
}

/// Why there is no layout, or why something does not fit into it.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A partition without room.
    #[error("{setting} must not be 0")]
    Zero {
        /// The manifest's line.
        setting: &'static str,
    },
    /// A disk that nothing could address.
    #[error("{setting} has {size}, and all partitions together exceed 1 EiB")]
    TooLarge {
        /// The manifest's line that has the largest number.
        setting: &'static str,
        /// Its value.
        size: Size,
    },
    /// Content that does not fit.
    #[error("the {what} has {}, the {place} {}; set {setting} to at least {suggestion}", apart(*has, *room), apart(*room, *has))]
    DoesNotFit {
        /// e.g. `root file system`.
        what: &'static str,
        /// `slot` or `partition`.
        place: &'static str,
        /// Size of the content.
        has: Size,
        /// Size of the partition.
        room: Size,
        /// The manifest's line.
        setting: &'static str,
        /// A value that would do.
        suggestion: Size,
    },
}

/// `size` for people, but exact where that would look the same as `other`.
fn apart(size: Size, other: Size) -> String {
    if size.human() == other.human() { format!("{} bytes", size.bytes()) } else { size.human() }
}

impl Layout {
    /// Lays out a disk.
    ///
    /// # Errors
    /// `Zero`, `TooLarge`.
    pub fn plan(sizes: &Sizes) -> Result<Self, LayoutError> {
        let reserve = sizes.reserve.map(|size| (size, "disk.reserve"));
        let asked = [(sizes.esp, "disk.esp"), (sizes.root, "disk.root"), (sizes.state, "disk.state.min")];
        let asked = || asked.into_iter().chain(reserve);
        for (size, setting) in asked() {
            if size.bytes() == 0 {
                return Err(LayoutError::Zero { setting });
            }
            if size.bytes() > DISK_LIMIT {
                return Err(LayoutError::TooLarge { setting, size });
            }
        }
        let size_of = |role| match role {
            Role::Esp => align::up(sizes.esp.bytes(), ALIGNMENT),
            Role::Root(_) => align::up(sizes.root.bytes(), ALIGNMENT),
            Role::Verity(_) => align::up(verity_size(align::up(sizes.root.bytes(), ALIGNMENT)), ALIGNMENT),
            Role::Reserve => align::up(sizes.reserve.unwrap_or_default().bytes(), ALIGNMENT),
            Role::State => align::up(sizes.state.bytes(), ALIGNMENT),
        };
        let mut next = ALIGNMENT;
        let is_wanted = |role: &Role| *role != Role::Reserve || reserve.is_some();
        let mut partitions: Vec<Partition> = Vec::new();
        for role in Role::PLACES.into_iter().filter(is_wanted) {
            let partition = Partition { role, start: next, size: size_of(role) };
            next += partition.size;
            partitions.push(partition);
        }
        let number = |part: &Partition| Role::ALL.iter().position(|role| *role == part.role);
        partitions.sort_by_key(number);
        // The backup table has the last ALIGNMENT for itself.
        let disk_size = next + ALIGNMENT;
        if disk_size > DISK_LIMIT {
            let (size, setting) = asked().max().expect("three sizes or more");
            return Err(LayoutError::TooLarge { setting, size });
        }
        Ok(Self { sector_size: sizes.sector_size, disk_size, partitions })
    }

    /// The place of `role`, which every disk has but for the reserve's.
    pub fn partition(&self, role: Role) -> Partition {
        *self.partitions.iter().find(|partition| partition.role == role).expect("the role has a place")
    }

    /// Refuses content of `bytes` that `role`'s partition cannot hold.
    ///
    /// # Errors
    /// `DoesNotFit`, with a size that would do.
    pub fn check(&self, role: Role, bytes: u64) -> Result<(), LayoutError> {
        let room = self.partition(role).size;
        if bytes <= room {
            return Ok(());
        }
        let (what, setting) = role.content();
        let place = if matches!(role, Role::Root(_) | Role::Verity(_)) { "slot" } else { "partition" };
        let suggestion = match role {
            Role::Verity(_) => root_size_for(bytes),
            _ => align::up(bytes, ALIGNMENT),
        };
        let (has, room, suggestion) = (Size(bytes), Size(room), Size(suggestion));
        Err(LayoutError::DoesNotFit { what, place, has, room, setting, suggestion })
    }

    /// Bytes of an image whose root has `root` bytes.
    pub fn image_size(&self, root: u64) -> u64 {
        let place = self.partition(Role::Root(Slot::A));
        // The backup table has the last ALIGNMENT for itself.
        place.start + align::up(root, ALIGNMENT).min(place.size) + ALIGNMENT
    }

    /// The partition table of a new image: `release`, whose root has `root` bytes, in slot A, and nothing behind it. Every
    /// GUID follows from the root hash, so that one lock gives one image; a node gives its disk GUIDs of its own at
    /// first boot.
    ///
    /// # Errors
    /// A label that is longer than 36 characters, for an id and a version that are too long together.
    pub fn image_table(&self, release: &Release, root: u64) -> Result<Table, GptError> {
        let mut table = Table::new(disk_guid(release), self.sector_size, self.image_size(root))?;
        for (partition, number) in self.numbered().filter(|(partition, _)| partition.role.is_shipped()) {
            let mut entry = self.entry(partition, number, table.disk_guid, release)?;
            if partition.role == Role::Root(Slot::A) {
                entry.size = table.end_usable / ALIGNMENT * ALIGNMENT - entry.start;
            }
            table.entries.push(entry);
        }
        Ok(table)
    }

    /// The partition table of a whole disk with `release` in slot A, as images had it before they unfolded on the node.
    ///
    /// # Errors
    /// As [`Self::image_table`].
    pub fn table(&self, release: &Release) -> Result<Table, GptError> {
        let mut table = Table::new(disk_guid(release), self.sector_size, self.disk_size)?;
        for (partition, number) in self.numbered() {
            table.entries.push(self.entry(partition, number, table.disk_guid, release)?);
        }
        Ok(table)
    }

    /// The partitions, with their numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (Partition, u32)> {
        self.partitions.iter().copied().zip(1..)
    }

    fn entry(
        &self,
        partition: Partition,
        number: u32,
        disk: Uuid,
        release: &Release,
    ) -> Result<Entry, GptError> {
        let identity = match partition.role {
            Role::Root(Slot::A) => release.root(),
            Role::Verity(Slot::A) => release.verity(),
            role => role.unused(disk),
        };
        identity.entry(partition, number)
    }
}

impl Role {
    /// Identity of its partition on the disk `disk`, as long as nothing is on it.
    pub(super) fn unused(self, disk: Uuid) -> Identity {
        match self {
            Self::Esp => fixed(disk, ESP_LABEL, 0),
            // Whoever mounts by type shall leave both alone: init mounts them, and the specification ties
            // /var to a machine id through its GUID, which an image cannot know.
            Self::Reserve => fixed(disk, RESERVE_LABEL, gpt::attributes::NO_AUTO),
            Self::State => fixed(disk, STATE_LABEL, gpt::attributes::NO_AUTO),
            Self::Root(slot) => slot::empty(disk, slot).0,
            Self::Verity(slot) => slot::empty(disk, slot).1,
        }
    }
}

impl Identity {
    /// The entry of `partition`.
    pub(super) fn entry(self, partition: Partition, number: u32) -> Result<Entry, GptError> {
        let Self { guid, label, attributes } = self;
        let type_guid = partition.role.type_guid();
        let Partition { start, size, .. } = partition;
        gpt::check_label(&label)?;
        Ok(Entry { number, type_guid, guid, label, start, size, attributes })
    }
}

/// GUID of the disk of a new image.
fn disk_guid(release: &Release) -> Uuid {
    let (root, verity) = verity::partition_guids(&release.root_hash);
    slot::derived_guid(slot::derived_guid(root, &verity.to_string()), "disk")
}

fn fixed(disk: Uuid, label: &str, attributes: u64) -> Identity {
    Identity { guid: slot::derived_guid(disk, label), label: label.to_owned(), attributes }
}

/// Bytes of the superblock and the hash tree over `data` bytes: what a slot's verity partition must hold when
/// the root partition is full.
fn verity_size(data: u64) -> u64 {
    verity::tree_size(align::units(data, verity::BLOCK as u64))
}

/// The smallest root partition whose verity partition holds `tree` bytes.
fn root_size_for(tree: u64) -> u64 {
    let mut size = ALIGNMENT;
    while align::up(verity_size(size), ALIGNMENT) < tree {
        size += ALIGNMENT;
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;

    fn sizes() -> Sizes {
        Sizes {
            esp: Size::mib(512),
            root: Size::mib(1024),
            reserve: Some(Size::mib(256)),
            state: Size::mib(512),
            sector_size: SectorSize::B512,
        }
    }

    fn release(version: &str) -> Release {
        Release { id: "node".to_owned(), version: version.to_owned(), root_hash: Digest::of("root") }
    }

    fn places(layout: &Layout) -> Vec<String> {
        let parts = layout.partitions.iter();
        parts.map(|part| format!("{} {}+{}", part.role, Size(part.start), Size(part.size))).collect()
    }

    const BEFORE_THE_RESERVE: [&str; 5] = [
        "esp 1MiB+512MiB",
        "root-a 522MiB+1GiB",
        "root-a-verity 513MiB+9MiB",
        "root-b 1546MiB+1GiB",
        "root-b-verity 2570MiB+9MiB",
    ];

    #[test]
    fn partitions_follow_one_another() {
        let layout = Layout::plan(&sizes()).unwrap();
        let mut by_place = layout.partitions.clone();
        by_place.sort_by_key(|part| part.start);
        for pair in by_place.windows(2) {
            assert_eq!(pair[0].start + pair[0].size, pair[1].start);
        }
        let expected =
            [&BEFORE_THE_RESERVE[..], &["reserve 2579MiB+256MiB", "state 2835MiB+512MiB"]].concat();
        assert_eq!(places(&layout), expected);
        assert_eq!(Size(layout.disk_size), Size::mib(3348));
    }

    #[test]
    fn an_image_ends_with_the_content_of_its_root() {
        let layout = Layout::plan(&sizes()).unwrap();
        let (whole, root) = (layout.table(&release("1.0.0")).unwrap(), (200 << 20) + 4096);
        let table = layout.image_table(&release("1.0.0"), root).unwrap();
        table.check().unwrap();
        assert_eq!(layout.image_size(root), (522 + 201 + 1) << 20);
        assert_eq!(table.entries[1].size, 201 << 20);
        // Nothing of it moves, and nothing gets another name.
        let small = |entry: &Entry| Entry { size: 0, ..entry.clone() };
        let [some, all] = [&table, &whole].map(|table| table.entries.iter().map(small).collect::<Vec<_>>());
        assert_eq!((&some[..], table.disk_guid), (&all[..3], whole.disk_guid));
        assert!(slot::shipped(&table).is_some() && slot::shipped(&whole).is_none());
        assert!(slot::slots(&table).is_err());
        // A root that fills its slot.
        let full = layout.image_table(&release("1.0.0"), 1 << 30).unwrap();
        assert_eq!(full.entries[1].size, 1 << 30);
    }

    #[test]
    fn a_root_says_it_in_a_file() {
        let sizes = [sizes(), Sizes { reserve: None, sector_size: SectorSize::B4096, ..sizes() }];
        for sizes in sizes {
            let text = serde_json::to_string(&sizes).unwrap();
            assert_eq!(serde_json::from_str::<Sizes>(&text).unwrap(), sizes, "{text}");
        }
    }

    #[test]
    fn without_a_reserve_only_that_is_missing() {
        let with = Layout::plan(&sizes()).unwrap();
        let without = Layout::plan(&Sizes { reserve: None, ..sizes() }).unwrap();
        let expected = [&BEFORE_THE_RESERVE[..], &["state 2579MiB+512MiB"]].concat();
        assert_eq!(places(&without), expected);
        assert_eq!(Size(without.disk_size), Size::mib(3092));
        let [with, without] = [with, without].map(|layout| layout.table(&release("1.0.0")).unwrap().entries);
        let of = |entries: &[Entry]| -> Vec<(Uuid, String, u64)> {
            let rest = entries.iter().filter(|entry| entry.label != RESERVE_LABEL);
            rest.map(|entry| (entry.guid, entry.label.clone(), entry.attributes)).collect()
        };
        assert_eq!((with.len(), of(&with)), (7, of(&without)));
        assert_eq!(without.last().unwrap().number, 6);
        let reserve = &with[5];
        assert_eq!((reserve.type_guid, reserve.attributes), (types::LINUX, gpt::attributes::NO_AUTO));
    }

    #[test]
    fn verity_sizes_as_veritysetup_makes_them() {
        assert_eq!(verity_size(1 << 30), (1 + 1 + 16 + 2048) * 4096);
    }

    #[test]
    fn refusals_name_the_line_to_change() {
        let layout = Layout::plan(&sizes()).unwrap();
        layout.check(Role::Root(Slot::A), 1 << 30).unwrap();
        let error = layout.check(Role::Root(Slot::A), (1 << 30) + 1).unwrap_err().to_string();
        assert_eq!(
            error,
            "the root file system has 1073741825 bytes, the slot 1073741824 bytes; \
             set disk.root to at least 1025MiB"
        );
        let error = layout.check(Role::Verity(Slot::B), 20 << 20).unwrap_err().to_string();
        assert!(error.contains("set disk.root to at least"), "{error}");
        let huge = Sizes { state: Size(u64::MAX), ..sizes() };
        assert!(Layout::plan(&huge).unwrap_err().to_string().starts_with("disk.state.min has"));
        let huge = Sizes { reserve: Some(Size(u64::MAX)), ..sizes() };
        assert!(Layout::plan(&huge).unwrap_err().to_string().starts_with("disk.reserve has"));
        let zero = Sizes { reserve: Some(Size(0)), ..sizes() };
        assert_eq!(Layout::plan(&zero).unwrap_err().to_string(), "disk.reserve must not be 0");
        let zero = Sizes { esp: Size(0), ..sizes() };
        assert_eq!(Layout::plan(&zero).unwrap_err().to_string(), "disk.esp must not be 0");
    }

    #[test]
    fn the_table_says_what_is_where() {
        let layout = Layout::plan(&sizes()).unwrap();
        let table = layout.table(&release("1.0.0")).unwrap();
        table.check().unwrap();
        let [(_, a), (_, b)] = slot::slots(&table).unwrap();
        assert_eq!((a.release(), b.release()), (Some(release("1.0.0")), None));
        assert_eq!(b.root.label, "_empty");
        let mut guids: Vec<Uuid> = table.entries.iter().map(|entry| entry.guid).collect();
        guids.push(table.disk_guid);
        guids.sort();
        guids.dedup();
        assert_eq!(guids.len(), 8);
        assert!(matches!(layout.table(&release(&"1".repeat(25))), Err(GptError::LabelTooLong { .. })));
    }
}
