//! Writes an image onto a disk. Until the last step the disk has no partition table, so that a loss of power leaves nothing
//! that starts; a mark says that an installation has begun, by which the next one knows that there is nothing to lose.

use std::io;
use std::sync::Arc;

use super::document;
use super::image::{Image, check_root, content, each_piece};
use super::keep::{self, Kept, Plan, Spared};
use super::marks::{END, UNFINISHED, UNFINISHED_AT};
use crate::base::chain::{is_full, is_too_large};
use crate::base::device::{Device, ReadAt, Shared, Uncached};
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, Progress, Task, Unit};
use crate::disk::gpt::{self, GptError, Table};
use crate::disk::slot;
use crate::verity;

/// A step of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Whatever an earlier life of the disk has at its ends goes.
    Clear,
    /// A mark says whose state is kept.
    Mark,
    /// The table names that state and nothing else.
    Strip,
    /// All partitions of the image.
    Content,
    /// What the disk has of them, past the cache.
    ReadBack,
    /// Whether that root is what its root hash says, as `keller inspect --verify` asks.
    Verify,
    /// The node document goes into the ESP.
    Document,
    /// The table makes it a disk that starts.
    Table,
    /// The mark goes.
    Finish,
}

/// In the order in which nothing half is ever found.
pub(super) const ORDER: [Step; 7] =
    [Step::Clear, Step::Content, Step::ReadBack, Step::Verify, Step::Document, Step::Table, Step::Finish];

/// The same where a state is kept: there is a table at every moment.
pub(super) const KEEPING: [Step; 8] = [
    Step::Mark,
    Step::Strip,
    Step::Content,
    Step::ReadBack,
    Step::Verify,
    Step::Document,
    Step::Table,
    Step::Finish,
];

/// The same where the disk gets its table and nothing else.
const BARE: [Step; 3] = [Step::Clear, Step::Table, Step::Finish];

/// What is written.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// What has the content.
    pub bytes: &'a Arc<dyn Shared>,
    /// Where it lies there, and where it goes.
    pub image: &'a Table,
    /// The digest of all of it.
    pub content: Digest,
    /// The table of the node.
    pub table: &'a Table,
    /// The state that stays.
    pub kept: Option<&'a Kept>,
    /// Whether the table is all.
    pub only_state: bool,
    /// The text of the node document.
    pub document: Option<&'a [u8]>,
}

impl<'a> Job<'a> {
    /// Makes a disk by `plan` out of `image`.
    pub(super) fn new(image: &'a Image, plan: &'a Plan, document: Option<&'a [u8]>) -> Self {
        Self {
            bytes: &image.bytes,
            image: &image.table,
            content: image.content,
            table: &plan.table,
            kept: plan.kept.as_ref(),
            only_state: plan.only_state,
            document,
        }
    }
}

impl Job<'_> {
    fn interrupted(&self) -> WriteError {
        WriteError::Interrupted { kept: self.kept.is_some() }
    }
}

/// A file that stands in for a disk needs the room of one.
fn cure(error: &io::Error) -> &'static str {
    match is_full(error) {
        _ if is_too_large(error) => {
            "Raise `ulimit -f`, or name a file on a file system that takes one of this size"
        }
        true => "No space is left where it lies: free some, or name a file elsewhere",
        false => "The disk is failing, or was taken away: use another one",
    }
}

/// Why a disk was not written, or not wholly. It has no partition table then, but where its last writes fail.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The image.
    #[error("reading the image at byte {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// What its disk said.
        source: io::Error,
    },
    /// The disk.
    #[error("writing at byte {offset}: {source}. {}", cure(.source))]
    Write {
        /// Where.
        offset: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// The disk's cache.
    #[error("flushing the disk: {cause}. {cure}", cause = .0, cure = cure(.0))]
    Flush(#[source] io::Error),
    /// The root, as the disk has it.
    #[error("verifying what the disk has of the root: {0}")]
    Verify(#[source] verity::Error),
    /// The disk, when it was read.
    #[error("reading back: {0}. The disk is failing: use another one")]
    ReadBack(#[source] io::Error),
    /// Other bytes.
    #[error(
        "the disk does not have what was written to it: it is failing, or smaller than it says. Use another one"
    )]
    Other,
    /// The node document.
    #[error("putting the node document into the ESP: {0}")]
    Document(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The table.
    #[error(transparent)]
    Table(#[from] GptError),
    /// Ctrl-C, before the disk was touched.
    #[error("interrupted: nothing was written")]
    BeforeAnything,
    /// Ctrl-C.
    #[error("interrupted: {}", match .kept {
        true => "the state is untouched; `keller install --keep-state` again completes the system",
        false => "the disk has no partition table and starts nothing; `keller install` again completes it",
    })]
    Interrupted {
        /// Whether a state is kept.
        kept: bool,
    },
}

impl WriteError {
    /// Whether somebody wanted to stop.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::BeforeAnything | Self::Interrupted { .. })
    }
}

/// Does `job`. `is_stopped` is asked all along.
///
/// # Errors
/// See [`WriteError`].
pub(super) fn write<D: Device>(
    disk: &mut D,
    job: &Job<'_>,
    is_stopped: &dyn Fn() -> bool,
    progress: &dyn Progress,
) -> Result<(), WriteError> {
    match job.kept {
        None if job.only_state => steps(disk, job, &BARE, is_stopped, progress),
        None => steps(disk, job, &ORDER, is_stopped, progress),
        Some(kept) => {
            let mut spared = Spared { disk, part: kept.place.clone() };
            steps(&mut spared, job, &KEEPING, is_stopped, progress)
        }
    }
}

/// Does the steps of `order`, which only tests change.
fn steps<D: Device>(
    disk: &mut D,
    job: &Job<'_>,
    order: &[Step],
    is_stopped: &dyn Fn() -> bool,
    progress: &dyn Progress,
) -> Result<(), WriteError> {
    for step in order {
        // With its table, the disk is whole.
        if *step != Step::Finish && is_stopped() {
            return Err(job.interrupted());
        }
        match step {
            Step::Clear => clear(disk)?,
            Step::Mark => {
                let id = job.kept.map_or("", |kept| &kept.id);
                keep::mark(disk, id).map_err(|source| WriteError::Write { offset: UNFINISHED_AT, source })?;
            }
            Step::Strip => {
                if let Some(kept) = job.kept {
                    replace(disk, &kept.meanwhile)?;
                }
            }
            Step::Content => copy(disk, job, is_stopped, progress)?,
            Step::ReadBack => read_back(disk, job, progress)?,
            Step::Verify => verify(disk, job, progress)?,
            Step::Document => {
                if let Some(text) = job.document {
                    document::put(disk, job.table, text).map_err(WriteError::Document)?;
                }
            }
            Step::Table if job.kept.is_some() => replace(disk, job.table)?,
            Step::Table => lay(disk, job.table)?,
            Step::Finish => {
                put(disk, &vec![0; to_usize(disk.sector_size().bytes())], UNFINISHED_AT)?;
                flush(disk)?;
            }
        }
    }
    Ok(())
}

fn put<D: Device>(disk: &mut D, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
    disk.write_at(bytes, offset).map_err(|source| WriteError::Write { offset, source })
}

fn flush<D: Device>(disk: &mut D) -> Result<(), WriteError> {
    disk.flush().map_err(WriteError::Flush)
}

/// Both ends become blank, but for the mark: tables, and most of what systems know file systems and RAID members by.
fn clear<D: Device>(disk: &mut D) -> Result<(), WriteError> {
    let mut head = vec![0; to_usize(END)];
    head[to_usize(UNFINISHED_AT)..][..UNFINISHED.len()].copy_from_slice(UNFINISHED);
    put(disk, &head, 0)?;
    let sector = disk.sector_size().bytes();
    let tail = (disk.size().saturating_sub(END) / sector * sector).max(END);
    put(disk, &vec![0; to_usize(disk.size() / sector * sector - tail)], tail)?;
    flush(disk)
}

fn copy<D: Device>(
    disk: &mut D,
    job: &Job<'_>,
    is_stopped: &dyn Fn() -> bool,
    progress: &dyn Progress,
) -> Result<(), WriteError> {
    let total = job.image.entries.iter().map(|entry| entry.size).sum();
    let task = Task::new(progress, "writing", total, Unit::Bytes);
    each_piece(job.image, |offset, count| {
        if is_stopped() {
            return Err(job.interrupted());
        }
        let mut piece = vec![0; count];
        job.bytes.read_at(&mut piece, offset).map_err(|source| WriteError::Read { offset, source })?;
        put(disk, &piece, offset)?;
        task.advance(to_u64(count));
        Ok(())
    })?;
    flush(disk)
}

fn read_back<D: Device>(disk: &mut D, job: &Job<'_>, progress: &dyn Progress) -> Result<(), WriteError> {
    let _task = Task::new(progress, "reading back", 0, Unit::Bytes);
    let content = content(&Uncached(&*disk), job.image).map_err(WriteError::ReadBack)?;
    if content == job.content { Ok(()) } else { Err(WriteError::Other) }
}

fn verify<D: Device>(disk: &mut D, job: &Job<'_>, progress: &dyn Progress) -> Result<(), WriteError> {
    let release = slot::shipped(job.image).and_then(|parts| Some((parts, parts.release()?)));
    let (parts, release) = release.ok_or(WriteError::Other)?;
    check_root(&Uncached(&*disk), parts, &release, "verifying the disk", progress).map_err(WriteError::Verify)
}

fn replace<D: Device>(disk: &mut D, table: &Table) -> Result<(), WriteError> {
    if keep::replace(disk, table)? { Ok(()) } else { Err(WriteError::Other) }
}

fn lay<D: Device>(disk: &mut D, table: &Table) -> Result<(), WriteError> {
    gpt::lay(disk, table)?;
    let found = gpt::read(&Uncached(&*disk), table.sector_size)?;
    if found.table == *table { Ok(()) } else { Err(WriteError::Other) }
}

#[cfg(test)]
mod tests;
