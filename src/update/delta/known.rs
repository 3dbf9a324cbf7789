//! What a version before has been compressed to: the next one takes over what holds the same bytes.
//!
//! Whatever is taken over is decompressed first and compared with the bytes that it is to stand for. So it needs no
//! other proof, and a file of the repository that has rotted, or was exchanged, costs time but never a version.

use std::collections::HashMap;
use std::io::{self, Read};

use zstd::zstd_safe::{CParameter, Strategy};

use super::error::DeltaError;
use super::frames::{Decoder, Entry, LEVEL};
use super::index::{Index, MOST_IN_FRAME, entry_size};
use super::patch::{self, Stored};
use super::runs::{BLOCK, RunDigest, SHORT};
use super::streams;
use crate::base::device::ReadAt;
use crate::base::width::{to_u64, to_usize};

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

    /// A frame that says it holds blocks with these heads, in `frame`.
    fn find(&self, heads: &[[u8; SHORT]], frame: &mut Vec<u8>) -> bool {
        let Some((at, length)) = self.places.get(heads.as_flattened()) else { return false };
        frame.resize(usize::from(*length), 0);
        self.file.read_at(frame, *at).is_ok()
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

    /// The frame of `blocks`, whose digests have these heads.
    pub(super) fn frame(
        &mut self,
        blocks: &[u8],
        heads: &[[u8; SHORT]],
        known: Option<&KnownFrames>,
    ) -> io::Result<Vec<u8>> {
        let mut frame = Vec::new();
        if known.is_some_and(|known| known.find(heads, &mut frame)) {
            let decoded = &mut self.decoded[..blocks.len()];
            if self.decoder.decode(&frame, decoded).is_ok() && decoded == blocks {
                return Ok(frame);
            }
        }
        let quick = self.quick.compress(blocks)?;
        if quick.len() + blocks.len() / HOPELESS > blocks.len() {
            return Ok(quick);
        }
        self.thorough.compress(blocks)
    }
}

/// The segments of all of a version before.
pub struct KnownSegments<'a> {
    file: &'a (dyn ReadAt + Sync),
    places: HashMap<RunDigest, Stored>,
}

impl<'a> KnownSegments<'a> {
    /// Reads the table of the whole in `file`.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`; `Old` where it cannot be read.
    pub fn read(file: &'a (dyn ReadAt + Sync)) -> Result<Self, DeltaError> {
        let segments = patch::stored(file)?;
        let places = segments.into_iter().map(|stored| (stored.digest, stored)).collect();
        Ok(Self { file, places })
    }

    /// The segment that makes `bytes`, whose blocks' digest is `digest`.
    pub(super) fn find(&self, digest: &RunDigest, bytes: &[u8]) -> Option<Vec<u8>> {
        let stored = self.places.get(digest)?;
        let mut segment = vec![0; stored.length];
        self.file.read_at(&mut segment, stored.at).ok()?;
        makes(&segment, bytes).unwrap_or(false).then_some(segment)
    }
}

/// Whether a segment from nothing makes `bytes` and no more. Its plan must be the one that takes them as they are.
fn makes(segment: &[u8], bytes: &[u8]) -> io::Result<bool> {
    let (mut plan, _, rest) = streams::take(segment)?;
    let (_, added, rest) = streams::take(rest)?;
    let (mut copy, length, rest) = streams::take(rest)?;
    let mut said = Vec::new();
    plan.by_ref().take(to_u64(patch::LONGEST_PLAN)).read_to_end(&mut said)?;
    if !rest.is_empty() || added != 0 || length != to_u64(bytes.len()) || said != patch::all_of(bytes.len()) {
        return Ok(false);
    }
    let mut buffer = vec![0; 64 << 10];
    for expected in bytes.chunks(buffer.len()) {
        let buffer = &mut buffer[..expected.len()];
        copy.read_exact(buffer)?;
        if buffer != expected {
            return Ok(false);
        }
    }
    Ok(copy.read(&mut [0])? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Silent;
    use crate::update::delta::testing::{noise, text};
    use crate::update::delta::{make_full, publish_root};

    fn frames(root: &[u8], level: i32, known: Option<&KnownFrames>) -> (Vec<u8>, Vec<u8>) {
        let (mut frames, mut index) = (Vec::new(), Vec::new());
        let size = to_u64(root.len());
        publish_root(&root, size, (level, known), &mut frames, &mut index, &Silent).unwrap();
        (frames, index)
    }

    fn whole(root: &[u8], level: i32, known: Option<&KnownSegments>) -> Vec<u8> {
        let mut full = Vec::new();
        make_full(&root, to_u64(root.len()), (level, known), &mut full, &Silent).unwrap();
        full
    }

    /// A root, and the same with some blocks more in its middle and others at its end.
    fn versions() -> (Vec<u8>, Vec<u8>) {
        let parts = [text(1, 9000 * BLOCK), noise(2, 300 * BLOCK), text(3, 4000 * BLOCK)];
        let new = [&parts[0][..], &noise(4, 3 * BLOCK), &parts[1], &parts[2], &text(5, 40 * BLOCK)].concat();
        (parts.concat(), new)
    }

    #[test]
    fn what_a_version_before_has_is_taken_over() {
        let (old, new) = versions();
        // Compressed otherwise, so that what was taken over can be told.
        let (old_frames, old_index) = frames(&old, 3, None);
        let file = old_frames.as_slice();
        let known = KnownFrames::read(&old_index, &file).unwrap();
        assert_eq!(frames(&old, 1, Some(&known)), (old_frames.clone(), old_index.clone()));
        let (taken, _) = frames(&new, 1, Some(&known));
        assert_ne!(taken, frames(&new, 1, None).0);
        // To the same level it makes no difference in what comes out.
        assert_eq!(frames(&new, 3, Some(&known)), frames(&new, 3, None));

        let old_full = whole(&old, 2, None);
        let file = old_full.as_slice();
        let known = KnownSegments::read(&file).unwrap();
        assert_eq!(whole(&old, 1, Some(&known)), old_full);
        let (fast, taken) = (whole(&new, 1, None), whole(&new, 1, Some(&known)));
        assert_ne!(taken, fast);
        assert_eq!(whole(&new, 2, Some(&known)), whole(&new, 2, None));
        // Three segments at the least, of which those end alike again that follow what came between.
        let ends =
            |full: &[u8]| patch::stored(&full).unwrap().into_iter().map(|it| it.digest).collect::<Vec<_>>();
        let (before, after) = (ends(&old_full), ends(&taken));
        assert!(before.len() > 3 && after.iter().filter(|digest| before.contains(digest)).count() >= 2);
    }

    #[test]
    fn what_has_rotted_is_made_anew() {
        let (old, new) = versions();
        let (frames_expected, full_expected) = (frames(&new, 3, None), whole(&new, 2, None));
        let ((old_frames, old_index), old_full) = (frames(&old, 3, None), whole(&old, 2, None));
        for at in (16..old_frames.len()).step_by(old_frames.len() / 7) {
            let mut bad = old_frames.clone();
            bad[at..].iter_mut().step_by(100).for_each(|byte| *byte ^= 0x10);
            let file = bad.as_slice();
            let known = KnownFrames::read(&old_index, &file).unwrap();
            assert_eq!(frames(&new, 3, Some(&known)), frames_expected, "from byte {at}");
        }
        for at in (200..old_full.len()).step_by(old_full.len() / 4) {
            let mut bad = old_full.clone();
            bad[at] ^= 0x10;
            let file = bad.as_slice();
            let known = KnownSegments::read(&file).unwrap();
            assert_eq!(whole(&new, 2, Some(&known)), full_expected, "byte {at}");
        }
        // What is cut off or no such file is of no use, and says so.
        for length in [0, 31, 40, old_full.len() - 1] {
            let file = &old_full[..length];
            assert!(KnownSegments::read(&file).is_err(), "{length} bytes");
        }
        for length in [0, 15, old_frames.len() - 1] {
            let file = &old_frames[..length];
            assert!(KnownFrames::read(&old_index, &file).is_err(), "{length} bytes");
        }
        let file = old_frames.as_slice();
        assert!(KnownFrames::read(&old_index[..50], &file).is_err());
    }
}
