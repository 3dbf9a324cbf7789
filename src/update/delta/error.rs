//! What can go wrong on a node, sorted by blame.

use std::io;

use crate::base::Digest;
use crate::update::RemoteError;

/// Why a root or a unified kernel image could not be had. What was written before stays in the target, and
/// the next call goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The target partition cannot hold it.
    #[error("expected room for {size} bytes of root in the target, but have {room}")]
    TooSmall {
        /// Of the image, in bytes.
        size: u64,
        /// Of the target, in bytes.
        room: u64,
    },
    /// A patch was asked for, and there is none from what is here.
    #[error("there is no patch from what is here")]
    NoPatch,
    /// A newer form than this keller knows.
    #[error("{file} is of version {version}, and this keller knows up to {known}")]
    Unsupported {
        /// Which.
        file: &'static str,
        /// As it says.
        version: u16,
        /// The newest that is known.
        known: u16,
    },
    /// No sense in it: a damaged or a foreign file.
    #[error("{file} is damaged: {what}")]
    Damaged {
        /// Which.
        file: &'static str,
        /// What about it.
        what: String,
    },
    /// Not the file that was signed.
    #[error("expected {file} with digest {expected}, but have {have}")]
    Digest {
        /// Which.
        file: &'static str,
        /// As signed.
        expected: Digest,
        /// Of what came.
        have: Digest,
    },
    /// A frame that gives other bytes than it should.
    #[error("frame {frame} of run {run}, at byte {at} of the frames, is damaged: {what}")]
    Frame {
        /// Of the image, from 0.
        run: usize,
        /// Of the run, from 0.
        frame: usize,
        /// Where the frame begins.
        at: u64,
        /// What about it.
        what: String,
    },
    /// All frames of a run were read, and yet its bytes are not those that the index speaks of.
    #[error("run {run}, at byte {at} of the frames, holds other blocks than the index says")]
    Run {
        /// Of the image, from 0.
        run: usize,
        /// Where its first frame begins.
        at: u64,
    },
    /// A segment of a patch that does not give what it should.
    #[error("segment {segment} of {file}, at its byte {at}, is damaged: {what}")]
    Segment {
        /// Which: a patch, or one from nothing.
        file: &'static str,
        /// From 0.
        segment: usize,
        /// Where it begins in the file.
        at: u64,
        /// What about it.
        what: String,
    },
    /// A file ends before its end.
    #[error("{path} ends at byte {at} of {size}")]
    Short {
        /// In the repository.
        path: String,
        /// Bytes that came.
        at: u64,
        /// Bytes that were announced.
        size: u64,
    },
    /// The server gives another stretch than the one that was asked for.
    #[error("expected {path} from byte {expected} on, but it begins at {have}")]
    Misplaced {
        /// In the repository.
        path: String,
        /// As asked for.
        expected: u64,
        /// As given.
        have: u64,
    },
    /// The server, or the way to it, has failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The connection broke.
    #[error("reading {path} at byte {at}")]
    Broken {
        /// In the repository.
        path: String,
        /// Where.
        at: u64,
        /// How.
        source: io::Error,
    },
    /// The running version cannot be read.
    #[error("reading the running version at byte {at}")]
    Old {
        /// Where.
        at: u64,
        /// How.
        source: io::Error,
    },
    /// The target cannot be read.
    #[error("reading the target at byte {at}")]
    ReadTarget {
        /// Where.
        at: u64,
        /// How.
        source: io::Error,
    },
    /// The target cannot be written.
    #[error("writing the target at byte {at}")]
    WriteTarget {
        /// Where.
        at: u64,
        /// How.
        source: io::Error,
    },
}

impl DeltaError {
    /// Whether another way may still lead there: the file of this one is not there, or not what it should be.
    pub fn is_of_this_way(&self) -> bool {
        matches!(
            self,
            Self::Unsupported { .. }
                | Self::Damaged { .. }
                | Self::Digest { .. }
                | Self::Frame { .. }
                | Self::Run { .. }
                | Self::Segment { .. }
                | Self::Short { .. }
                | Self::Remote(RemoteError::Missing { .. })
        )
    }
}

/// Why the files of a version could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A root is made of whole blocks, and of fewer than an index counts.
    #[error("expected a root of 4096-byte blocks, at most 64 GiB, but have {size} bytes")]
    Size {
        /// In bytes.
        size: u64,
    },
    /// A unified kernel image, or a patch of one, that no node would take.
    #[error("expected a unified kernel image of at most {limit} bytes, but have {size}")]
    Uki {
        /// In bytes.
        size: u64,
        /// In bytes.
        limit: u64,
    },
    /// An image cannot be read.
    #[error("reading the root at byte {at}")]
    Read {
        /// Where.
        at: u64,
        /// How.
        source: io::Error,
    },
    /// The compressor, or where its output goes.
    #[error("writing {file}")]
    Write {
        /// Which.
        file: &'static str,
        /// How.
        source: io::Error,
    },
}
