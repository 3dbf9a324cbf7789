//! The segments of all of a version before: see [`known`](crate::update::delta::known).

use std::collections::HashMap;
use std::io::{self, Read};

use super::{LONGEST_PLAN, Stored, all_of, stored};
use crate::base::device::ReadAt;
use crate::base::width::to_u64;
use crate::update::delta::error::DeltaError;
use crate::update::delta::runs::RunDigest;
use crate::update::delta::streams;

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
        let segments = stored(file)?;
        let places = segments.into_iter().map(|stored| (stored.digest, stored)).collect();
        Ok(Self { file, places })
    }

    /// The segment that makes `bytes`, whose blocks' digest is `digest`.
    pub(super) fn find(&self, digest: &RunDigest, bytes: &[u8]) -> Option<(Vec<u8>, u64)> {
        let stored = self.places.get(digest)?;
        let mut segment = vec![0; stored.length];
        self.file.read_at(&mut segment, stored.at).ok()?;
        makes(&segment, bytes).unwrap_or(false).then_some((segment, stored.at))
    }

    /// Bytes of the segment whose blocks' digest is `digest`, if it was searched as hard as it may be: not of frames.
    pub(super) fn searched(&self, digest: &RunDigest) -> Option<u64> {
        let stored = self.places.get(digest)?;
        let mut segment = vec![0; stored.length];
        self.file.read_at(&mut segment, stored.at).ok()?;
        (!streams::is_of_frames(&segment)).then_some(to_u64(stored.length))
    }
}

/// Whether a segment from nothing makes `bytes` and no more. Its plan must be the one that takes them as they are.
pub(super) fn makes(segment: &[u8], bytes: &[u8]) -> io::Result<bool> {
    let (mut plan, _, rest) = streams::take(segment)?;
    let (_, added, rest) = streams::take(rest)?;
    let (mut copy, length, rest) = streams::take(rest)?;
    let mut said = Vec::new();
    plan.by_ref().take(to_u64(LONGEST_PLAN)).read_to_end(&mut said)?;
    if !rest.is_empty() || added != 0 || length != to_u64(bytes.len()) || said != all_of(bytes.len()) {
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
