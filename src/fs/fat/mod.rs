//! FAT32, for the EFI system partition: a writer that makes a whole file system out of a tree in one go, a
//! reader for what others may have changed since, and an editor for changes that a loss of power cannot spoil.
//!
//! Source: "Microsoft Extensible Firmware Initiative FAT32 File System Specification", version 1.03, named
//! FATGEN below.

pub mod editor;
mod error;
mod folder;
mod format;
mod geometry;
mod names;
pub mod reader;
mod table;
mod volume;
mod writer;

use std::io;

use crate::base::Size;

pub use editor::{EditError, Editor};
pub use reader::Reader;
pub use writer::{Summary, write};

/// What a file system is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Of the partition, in bytes.
    pub size: u64,
    /// Bytes in a logical sector: 512 or 4096, as the disk has.
    pub sector_size: u32,
    /// Serial number of the volume.
    pub volume_id: u32,
    /// Name of the volume: up to 11 of `A-Z 0-9 _ -` and space; empty for none.
    pub label: String,
    /// Time of the volume's label in seconds since 1970; files and folders have their own.
    pub mtime: i64,
}

/// Why a tree cannot become a FAT32 file system.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// A node that FAT has no form for.
    #[error("{path}: FAT has no {kind}, only files and directories")]
    Kind {
        /// Where in the tree.
        path: String,
        /// e.g. `symbolic link`.
        kind: &'static str,
    },
    /// A name that FAT has no form for.
    #[error("{path}: FAT does not allow a name that {problem}")]
    Name {
        /// Where in the tree.
        path: String,
        /// e.g. `ends with a dot`.
        problem: &'static str,
    },
    /// Two names that FAT takes for one.
    #[error("{first} and {second} have the same name on FAT, which ignores case")]
    Clash {
        /// Where in the tree.
        first: String,
        /// Where in the tree.
        second: String,
    },
    /// More than 4 GiB - 1 in a file, or more than 65,536 records in a folder.
    #[error("{path} has {size} {unit}, but FAT allows {limit} at most")]
    TooLarge {
        /// Where in the tree.
        path: String,
        /// How many.
        size: u64,
        /// `bytes` or `records`.
        unit: &'static str,
        /// The most there may be.
        limit: u64,
    },
    /// A volume label with characters that are not for one.
    #[error(
        "expected a volume label of up to 11 capital letters, digits, _, - and spaces, but have {label:?}"
    )]
    Label {
        /// As given.
        label: String,
    },
    /// A sector size that disks do not have.
    #[error("expected sectors of 512 or 4096 bytes, but have {bytes}")]
    SectorSize {
        /// As given.
        bytes: u32,
    },
    /// A partition in which the content, or FAT32 itself, has no room.
    #[error("{} is too small: {reason}; the smallest size that works is {smallest}", Size(*size))]
    TooSmall {
        /// Of the partition.
        size: u64,
        /// Why.
        reason: &'static str,
        /// In whole MiB.
        smallest: Size,
    },
    /// A partition that FAT32's 32-bit sector numbers cannot address.
    #[error("{} is too large for FAT32 with sectors of {sector_size} bytes", Size(*size))]
    PartitionTooLarge {
        /// Of the partition.
        size: u64,
        /// In bytes.
        sector_size: u32,
    },
    /// The content of a file in the tree.
    #[error("reading {path}: {source}")]
    Read {
        /// Where in the tree.
        path: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The image.
    #[error("writing the FAT file system: {0}")]
    Write(#[source] io::Error),
}
