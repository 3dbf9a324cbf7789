//! One frame, and the entry of a run in the block table: see [`frames`](super::frames) for how they lie.

use std::io;

use super::index::{Indexed, entry_size};
use super::runs::SHORT;
use crate::base::on_disk::{FromBytes, le};

/// zstd's level for what is made once and fetched by many. 19 makes frames smaller by 1 %, and takes four times as long.
pub const LEVEL: i32 = 15;

/// An entry of the block table.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    lengths: &'a [le::U16],
    heads: &'a [[u8; SHORT]],
}

impl<'a> Entry<'a> {
    /// The entry of `run`, in an image with so many blocks in a frame; none if it is another.
    pub(super) fn parse(bytes: &'a [u8], run: &Indexed, in_frame: usize) -> Option<Self> {
        let (lengths, heads) = bytes.split_at_checked(2 * run.run.blocks.div_ceil(in_frame))?;
        let entry = Self { lengths: <[le::U16]>::ref_from_bytes(lengths).ok()?, heads: heads.as_chunks().0 };
        let is_whole = bytes.len() == entry_size(run.run.blocks, in_frame);
        (is_whole && entry.frames().sum::<usize>() == run.length).then_some(entry)
    }

    /// Bytes of each frame.
    pub(super) fn frames(&self) -> impl Iterator<Item = usize> {
        self.lengths.iter().map(|length| usize::from(*length))
    }

    /// The same as they lie in the table.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u16> {
        self.lengths.iter().map(|length| length.get())
    }

    /// The heads of all digests.
    pub(super) fn heads(&self) -> &'a [[u8; SHORT]] {
        self.heads
    }

    /// The head of each block's digest.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &'a [u8; SHORT]> + use<'a> {
        self.heads.iter()
    }
}

/// Decompresses frames of one size of block.
pub(super) struct Decoder(zstd::bulk::Decompressor<'static>);

impl Decoder {
    /// A decoder.
    pub(super) fn new() -> io::Result<Self> {
        zstd::bulk::Decompressor::new().map(Self)
    }

    /// Fills `blocks` from one frame, which must hold just that.
    pub(super) fn decode(&mut self, frame: &[u8], blocks: &mut [u8]) -> Result<(), String> {
        match self.0.decompress_to_buffer(frame, blocks) {
            Ok(length) if length == blocks.len() => Ok(()),
            Ok(length) => Err(format!("{length} bytes of {}", blocks.len())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Bytes of the first frame in `stretch`; an error if there is no whole one.
pub(super) fn first_frame(stretch: &[u8]) -> Result<usize, String> {
    zstd::zstd_safe::find_frame_compressed_size(stretch)
        .map_err(|code| zstd::zstd_safe::get_error_name(code).to_owned())
}
