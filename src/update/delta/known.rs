//! What a version before has been compressed to: the next one takes over what holds the same bytes.
//!
//! Whatever is taken over is decompressed first and compared with the bytes that it is to stand for. So it needs no
//! other proof, and a file of the repository that has rotted, or was exchanged, costs time but never a version.

use std::collections::HashMap;
use std::io;

use zstd::zstd_safe::{CParameter, Strategy};

use super::error::DeltaError;
use super::frame::{Decoder, Entry, LEVEL};
use super::index::{Index, MOST_IN_FRAME, entry_size};
use super::runs::{BLOCK, SHORT};
use super::unfinished::{Kind, Unfinished};
use crate::base::device::ReadAt;
use crate::base::width::to_usize;

/// Where zstd's fastest saves less than a fiftieth of a frame, nothing saves much.
const HOPELESS: usize = 50;

/// The frames of a version before.
pub struct KnownFrames<'a> {
    file: &'a (dyn ReadAt + Sync),
    /// By the heads of the digests of its blocks: where a frame begins, and its bytes.
    places: HashMap<Box<[u8]>, (u64, u16)>,
}

impl<'a> KnownFrames<'a> {
    /// Reads the table of the frames in `file`, to which `index` belongs.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`; `Old` where it cannot be read.
    pub fn read(index: &[u8], file: &'a (dyn ReadAt + Sync)) -> Result<Self, DeltaError> {
        let index = Index::read(index)?;
        let (at, size) = (index.table(), file.size());
        if size != index.frames_size {
            let what = format!("{size} bytes, expected {}", index.frames_size);
            return Err(DeltaError::Damaged { file: "the frames", what });
        }
        let mut table = vec![0; to_usize(size - at)];
        file.read_at(&mut table, at).map_err(|source| DeltaError::Old { at, source })?;
        let mut places = HashMap::new();
        for run in &index.runs {
            let bytes = &table[to_usize(run.entry)..][..entry_size(run.run.blocks, index.frame_blocks)];
            let Some(entry) = Entry::parse(bytes, run, index.frame_blocks) else { continue };
            let mut at = run.at;
            for (length, heads) in entry.lengths().zip(entry.heads().chunks(index.frame_blocks)) {
                places.entry(heads.as_flattened().into()).or_insert((at, length));
                at += u64::from(length);
            }
        }
        Ok(Self { file, places })
    }

    /// A frame that says it holds blocks with these heads, in `frame`; gives where it begins.
    fn find(&self, heads: &[[u8; SHORT]], frame: &mut Vec<u8>) -> Option<u64> {
        let (at, length) = self.places.get(heads.as_flattened())?;
        frame.resize(usize::from(*length), 0);
        self.file.read_at(frame, *at).is_ok().then_some(*at)
    }
}

/// Makes frames on one processor.
pub(super) struct Encoder {
    quick: zstd::bulk::Compressor<'static>,
    thorough: zstd::bulk::Compressor<'static>,
    decoder: Decoder,
    decoded: Vec<u8>,
}

impl Encoder {
    /// `level` is zstd's.
    pub(super) fn new(level: i32) -> io::Result<Self> {
        let mut thorough = zstd::bulk::Compressor::new(level)?;
        if level == LEVEL {
            // What the level has for longer inputs, with tables for 32 KiB: frames grow by 0.3 %, and take two thirds
            // of the time.
            for parameter in [
                CParameter::Strategy(Strategy::ZSTD_btopt),
                CParameter::WindowLog(15),
                CParameter::ChainLog(15),
                CParameter::HashLog(14),
                CParameter::SearchLog(3),
                CParameter::MinMatch(3),
                CParameter::TargetLength(24),
            ] {
                thorough.set_parameter(parameter)?;
            }
        }
        let (quick, decoder) = (zstd::bulk::Compressor::new(1)?, Decoder::new()?);
        Ok(Self { quick, thorough, decoder, decoded: vec![0; MOST_IN_FRAME * BLOCK] })
    }

    /// The frame of `blocks`, whose digests have these heads; and where it was taken over from, in the known file. What is made is
    /// kept for the next try.
    pub(super) fn frame(
        &mut self,
        blocks: &[u8],
        heads: &[[u8; SHORT]],
        known: Option<&KnownFrames>,
        unfinished: Option<&Unfinished>,
    ) -> io::Result<(Vec<u8>, Option<u64>)> {
        let mut frame = Vec::new();
        if let Some(at) = known.and_then(|known| known.find(heads, &mut frame))
            && self.makes(&frame, blocks)
        {
            return Ok((frame, Some(at)));
        }
        let name = heads.as_flattened();
        if let Some(left) = unfinished.and_then(|it| it.find(Kind::Frame, name))
            && self.makes(&left, blocks)
        {
            return Ok((left, None));
        }
        let frame = self.compress(blocks)?;
        if let Some(unfinished) = unfinished {
            unfinished.keep(Kind::Frame, name, &frame);
        }
        Ok((frame, None))
    }

    /// Whether `frame` is of these blocks.
    fn makes(&mut self, frame: &[u8], blocks: &[u8]) -> bool {
        let decoded = &mut self.decoded[..blocks.len()];
        self.decoder.decode(frame, decoded).is_ok() && decoded == blocks
    }

    fn compress(&mut self, blocks: &[u8]) -> io::Result<Vec<u8>> {
        let quick = self.quick.compress(blocks)?;
        if quick.len() + blocks.len() / HOPELESS > blocks.len() {
            return Ok(quick);
        }
        self.thorough.compress(blocks)
    }
}

#[cfg(test)]
mod tests;
