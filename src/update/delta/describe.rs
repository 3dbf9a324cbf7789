//! What an index, a frames file or a patch says of itself, as text.

use std::fmt::Write as _;
use std::io::{self, Read};

use super::error::DeltaError;
use super::{frame, frames, index, patch};

/// Reads the beginning of a file of this room, tells which it is and what it holds.
///
/// # Errors
/// A file that is none of these, or makes no sense.
pub fn describe(file: &mut dyn Read) -> Result<String, DescribeError> {
    let mut bytes = Vec::new();
    file.take(index::LIMIT).read_to_end(&mut bytes)?;
    let mut text = String::new();
    match bytes.get(..8) {
        Some(magic) if magic == index::MAGIC => {
            let index = index::Index::read(&bytes)?;
            let blocks: usize = index.runs.iter().map(|run| run.run.blocks).sum();
            let (runs, size, frames, in_frame) =
                (index.runs.len(), index.size, index.frames_size, index.frame_blocks);
            let _ = writeln!(
                text,
                "index: {runs} runs of {blocks} blocks, image {size}, frames {frames} bytes, of {in_frame} blocks each"
            );
            for run in &index.runs {
                let (first, at, length) = (run.first, run.at, run.length);
                let digest = hex::encode(run.run.digest);
                let _ = writeln!(text, "{first:>9} {:>4} {digest} {at:>10} {length:>8}", run.run.blocks);
            }
        }
        Some(magic) if magic == frames::MAGIC => {
            let frame = bytes.get(index::FRAMES_HEADER..).map(frame::first_frame);
            let _ =
                writeln!(text, "frames: the first of {:?} bytes", frame.and_then(Result::ok).unwrap_or(0));
        }
        Some(magic) if magic == patch::MAGIC => patch::describe(&bytes, &mut text)?,
        _ => return Err(DescribeError::Foreign),
    }
    Ok(text)
}

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// Another file.
    #[error("neither an index nor frames nor a patch")]
    Foreign,
    /// A damaged file.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// An unreadable file.
    #[error("reading")]
    Io(#[from] io::Error),
}
