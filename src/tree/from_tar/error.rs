//! What can be wrong with a tar archive.

use std::io;

use crate::base::Size;

/// Why an archive could not be read. `member` is the path as the archive writes it.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// A path that leads out of the tree or cannot be the name of a file.
    #[error("member {member:?} has an unsafe path: {why}")]
    UnsafePath {
        /// The member.
        member: String,
        /// What is unsafe about it.
        why: &'static str,
    },
    /// An extended attribute that the kernel would obey.
    #[error(
        "member {member:?} has the attribute {name}: an image may have users' own and security.capability"
    )]
    Attribute {
        /// The member.
        member: String,
        /// Of the attribute.
        name: String,
    },
    /// A member that would be written through a symbolic link of the same archive.
    #[error("member {member:?} lies below {link:?}, which the same archive makes a symbolic link")]
    BelowLink {
        /// The member.
        member: String,
        /// The link.
        link: String,
    },
    /// A member below something that is neither a directory nor a link.
    #[error("member {member:?} lies below {parent:?}, which is not a directory")]
    BelowFile {
        /// The member.
        member: String,
        /// What is above it.
        parent: String,
    },
    /// Two members with one path that do not agree.
    #[error("member {member:?} occurs twice")]
    Duplicate {
        /// The member.
        member: String,
    },
    /// A hard link to what is not in the archive before it.
    #[error("hard link {member:?} leads to {target:?}, which is no file before it in the same archive")]
    LinkTarget {
        /// The member.
        member: String,
        /// Where it leads.
        target: String,
    },
    /// More members than the limit.
    #[error("more than {limit} members")]
    TooMany {
        /// `members` of [`Limits`](super::Limits).
        limit: usize,
    },
    /// More files and directories than the limit, those included that the archive leaves out.
    #[error("more than {limit} files and directories, with member {member:?} and the directories above it")]
    TooManyNodes {
        /// The member at which the limit is passed.
        member: String,
        /// [`NODES`](crate::base::limits::NODES).
        limit: usize,
    },
    /// More bytes than the limit; found before they are read.
    #[error("member {member:?} brings the archive to {size} bytes, more than the {limit} that are allowed")]
    TooLarge {
        /// The member at which the limit is passed.
        member: String,
        /// Size of the archive up to the end of this member.
        size: u64,
        /// `bytes` of [`Limits`](super::Limits).
        limit: u64,
    },
    /// Names or attributes that would fill the memory.
    #[error("{what} up to member {member:?} have more than {} together", Size(*.limit).human())]
    Names {
        /// `paths, targets and attributes`, or `attributes of one file`.
        what: &'static str,
        /// The member with which it is too much.
        member: String,
        /// In bytes.
        limit: u64,
    },
    /// A feature of tar that is not read here.
    #[error("member {member:?} is {what}, which is not supported")]
    Unsupported {
        /// The member.
        member: String,
        /// The feature.
        what: String,
    },
    /// Bytes that are no tar archive.
    #[error("damaged archive at byte {offset}: {what}")]
    Corrupt {
        /// Where in the uncompressed archive.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The archive ends before its end marker.
    #[error("the archive ends early, at byte {offset}")]
    Truncated {
        /// Its length.
        offset: u64,
    },
    /// The archive could not be read or decompressed.
    #[error("reading the archive at byte {offset}: {source}")]
    Read {
        /// Where in the uncompressed archive.
        offset: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// The copy could not be written.
    #[error("writing the unpacked archive: {source}")]
    Write {
        /// What the disk said.
        source: io::Error,
    },
}
