//! EROFS, the read-only file system of the root: uncompressed, blocks of 4 KiB.
//!
//! [`mod@format`] is what stands on disk, [`layout`] decides what goes where, [`writer`] lays it down,
//! [`reader`] gives the tree back, and [`known`] is what one image tells of the next.

pub mod format;
pub mod known;
pub mod layout;
pub mod reader;
pub mod writer;

pub use known::Known;
pub use reader::{Image, ReadError};
pub use writer::{Options, Output, plan, plan_after};

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that no file system can hold, or longer than 255 bytes.
    #[error("name {name:?} in directory /{directory} is not a valid file name of at most 255 bytes")]
    Name {
        /// The directory, without leading slash.
        directory: String,
        /// The name.
        name: String,
    },
    /// A link target that is empty, has a NUL or is longer than 4095 bytes.
    #[error("/{path} links to {target:?}, which is no path of 1 to 4095 bytes")]
    Target {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// Only one name can be a directory's.
    #[error("directory /{path} has a second name")]
    DirectoryLinkedTwice {
        /// One of its names.
        path: String,
    },
    /// Device numbers beyond 12 and 20 bits.
    #[error("/{path} is device {major}:{minor}, beyond 12 and 20 bits")]
    Device {
        /// The device.
        path: String,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// An attribute of an unknown namespace, with too long a name or more than 65,535 bytes.
    #[error("/{path} has extended attribute {name:?} of {size} bytes, which EROFS cannot hold")]
    Xattr {
        /// The file.
        path: String,
        /// The attribute's full name.
        name: String,
        /// Bytes of its value.
        size: usize,
    },
    /// All attributes of one file together.
    #[error("/{path} has {size} bytes of extended attributes, more than EROFS can hold")]
    XattrsTooLarge {
        /// The file.
        path: String,
        /// Bytes that they take.
        size: usize,
    },
    /// Block addresses have 32 bits.
    #[error("image needs {blocks} blocks of 4096 bytes, more than 2^32 - 1")]
    TooLarge {
        /// Blocks that it needs.
        blocks: u64,
    },
    /// A file's bytes could not be had.
    #[error("reading the content of /{path}: {source}")]
    Content {
        /// The file.
        path: String,
        /// What the disk said.
        source: std::io::Error,
    },
    /// The output refused.
    #[error("writing the image: {0}")]
    Output(#[source] std::io::Error),
}
