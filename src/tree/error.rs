//! Why a tree could not be changed or read.

use crate::base::Size;

/// Why a tree could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A path that climbs out of the tree, or has an empty or NUL-carrying part.
    #[error("unsafe path {path:?}")]
    UnsafePath {
        /// The path as given.
        path: String,
    },
    /// Two sources want one path.
    #[error("{path} is in {first} and in {second}")]
    Conflict {
        /// The path.
        path: String,
        /// Who has it already.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// A part of the path is no directory.
    #[error("{path} is not a directory")]
    NotDirectory {
        /// The part that is none.
        path: String,
    },
    /// Nothing is there.
    #[error("{path} does not exist in the tree")]
    NotFound {
        /// The path.
        path: String,
    },
    /// Links that lead a long way round.
    #[error("{path} leads over more than {limit} directories and links")]
    TooFar {
        /// The path.
        path: String,
        /// [`crate::base::limits::STEPS`].
        limit: usize,
    },
    /// Ways that are long, walked again and again.
    #[error(
        "all paths that are followed in one tree lead over more than {limit} directories and links together: leave out \
         what has most links"
    )]
    Exhausted {
        /// [`crate::base::limits::WALKED`].
        limit: u64,
    },
    /// Links that lead to themselves.
    #[error("too many symbolic links at {path}")]
    LinkLoop {
        /// Where it was given up.
        path: String,
    },
    /// A path below more directories than are walked.
    #[error("{path} lies below more than {limit} directories")]
    TooDeep {
        /// The path, cut short.
        path: String,
        /// [`crate::base::limits::DEPTH`].
        limit: usize,
    },
    /// More files, directories and links than fit into memory.
    #[error(
        "more than {limit} files, directories and links, with {path}: leave some out, or make packages, overlays and \
         images with fewer"
    )]
    TooMany {
        /// The first that is too much.
        path: String,
        /// [`crate::base::limits::NODES`] or [`crate::base::limits::ROOT_NODES`].
        limit: usize,
    },
    /// Names that are too long in sum.
    #[error("the paths and attributes in one tree, with {path}, have more than {} together", Size(*.limit).human())]
    TooLong {
        /// The first that is too much.
        path: String,
        /// [`crate::base::limits::NAMES`] or [`crate::base::limits::ROOT_NAMES`], in bytes.
        limit: u64,
    },
    /// Files to work with, each of which may be as large as one may be.
    #[error("reading {path}: all files that are read have more than {} together", Size(*.limit).human())]
    TooMuch {
        /// The file.
        path: String,
        /// [`crate::base::limits::READ`], in bytes.
        limit: u64,
    },
    /// The disk under the content.
    #[error("reading {path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// What the disk said.
        source: std::io::Error,
    },
}
