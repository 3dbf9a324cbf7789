//! Why a version was not put into a slot, or an entry not changed.

use std::io;

use crate::base::{Digest, Size};
use crate::boot::uki::UkiError;
use crate::disk::Slot;
use crate::disk::gpt::GptError;
use crate::disk::slot::SlotError;
use crate::fs::fat::editor::EditError;
use crate::fs::fat::reader::ReadError;
use crate::verity;

/// Whatever it is, the running version is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// What runs already.
    #[error("version {version} is running, and one version must not be in both slots")]
    IsRunning {
        /// The version.
        version: String,
    },
    /// A version of something else.
    #[error("this node is of image {expected}, and the new version is of image {actual}")]
    OtherImage {
        /// What the node is.
        expected: String,
        /// What the new version is.
        actual: String,
    },
    /// A version for other disks.
    #[error("this disk has sectors of {actual} bytes, and the new version is for sectors of {expected}")]
    SectorSize {
        /// As the release document says.
        expected: u32,
        /// Of the disk.
        actual: u32,
    },
    /// An id or a version that the boot loader would not read as such.
    #[error("the boot loader would not read {file} as version {version} of {id}")]
    Name {
        /// The entry's file.
        file: String,
        /// IMAGE_ID.
        id: String,
        /// IMAGE_VERSION.
        version: String,
    },
    /// A salt that is none.
    #[error("the salt of the hash tree is not hexadecimal: {salt}")]
    Salt {
        /// As the release document says.
        salt: String,
    },
    /// Too large for the disk's layout.
    #[error("the {what} has {has}, but slot {slot} has room for {room}: this disk's layout cannot take it")]
    DoesNotFit {
        /// `root file system` or `hash tree`.
        what: &'static str,
        /// In bytes.
        has: Size,
        /// In bytes.
        room: Size,
        /// Where it should go.
        slot: Slot,
    },
    /// Too large for the ESP, even without what is no longer needed there.
    #[error(
        "{what} needs {needs} in the EFI system partition, and {free} can be had; remove other files there"
    )]
    EspFull {
        /// The file.
        what: String,
        /// In bytes.
        needs: Size,
        /// In bytes.
        free: Size,
    },
    /// Not the kernel image that was signed.
    #[error("the kernel image has digest {actual}, but {expected} is the signed one")]
    Uki {
        /// As the release document says.
        expected: Digest,
        /// Of the bytes.
        actual: Digest,
    },
    /// A kernel image for another root.
    #[error("the kernel image names root hash {actual}, but the root has {expected}")]
    UkiRoot {
        /// As the release document says.
        expected: Digest,
        /// On the kernel's command line.
        actual: String,
    },
    /// Not a kernel image at all.
    #[error("reading the new kernel image")]
    UkiForm(#[from] UkiError),
    /// Not systemd-boot.
    #[error("these bytes are not systemd-boot: {problem}")]
    NotALoader {
        /// What is wrong.
        problem: String,
    },

    /// Not a disk of keller.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// The wrong disk.
    #[error("no slot of this disk holds the running version, root hash {root_hash}")]
    NotThisDisk {
        /// Of the running version.
        root_hash: Digest,
    },
    /// A disk on which one cannot tell what runs.
    #[error("both slots say that they hold the running version, root hash {root_hash}")]
    InBothSlots {
        /// Of the running version.
        root_hash: Digest,
    },
    /// The one slot that must not be touched.
    #[error("slot {slot} holds the running version")]
    SlotIsRunning {
        /// The slot.
        slot: Slot,
    },
    /// A partition that is not the slot's.
    #[error("the device given for the {what} of slot {slot} is another partition than the table names")]
    WrongDevice {
        /// `root` or `hash tree`.
        what: &'static str,
        /// The slot.
        slot: Slot,
    },
    /// Nothing to fall back to.
    #[error(
        "the EFI system partition has no entry for the running version, so there is nothing to fall back to"
    )]
    NoWayBack,
    /// No such entry.
    #[error("the EFI system partition has no entry {file}")]
    NoSuchEntry {
        /// The entry's file.
        file: String,
    },
    /// A demotion after which nothing would be left to boot.
    #[error("{file} is the only entry that can be booted")]
    OnlyEntry {
        /// The entry's file.
        file: String,
    },

    /// What was written is not what is there, or not what was signed.
    #[error("the root in slot {slot} reads back with root hash {actual}, but {expected} is the signed one")]
    Root {
        /// The slot.
        slot: Slot,
        /// As the release document says.
        expected: Digest,
        /// As computed from what the disk has.
        actual: Digest,
    },
    /// A file in the ESP that is not what was written.
    #[error("{path} in the EFI system partition does not read back as it was written")]
    File {
        /// The file.
        path: String,
    },
    /// The table is not what was written.
    #[error("the partition table does not read back as it was written")]
    TableDiffers,

    /// The partition table.
    #[error(transparent)]
    Table(#[from] GptError),
    /// Changing the ESP.
    #[error("changing the EFI system partition")]
    Edit(#[from] EditError),
    /// Reading the ESP.
    #[error("reading the EFI system partition")]
    Read(#[from] ReadError),
    /// Hashing.
    #[error(transparent)]
    Verity(#[from] verity::Error),
    /// The disk.
    #[error("{action} of slot {slot}")]
    Io {
        /// e.g. `writing the root`.
        action: &'static str,
        /// The slot.
        slot: Slot,
        /// What the disk said.
        source: io::Error,
    },
}
