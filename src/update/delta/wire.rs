//! Stretches of one file of a repository: few requests, no byte past what was announced.

use std::io::Read;
use std::ops::Range;

use super::error::DeltaError;
use crate::base::Digest;
use crate::base::width::{to_u64, to_usize};
use crate::update::document::Blob;
use crate::update::remote::Remote;

/// A gap that is read and thrown away rather than asked around: about what the heads of one more request and
/// its answer take.
const GAP: u64 = 512;
/// Requests for one file and one update at the most: each may cost a round trip of a second. Where there
/// would be more, the smallest gaps are read.
const REQUESTS: usize = 128;

/// One file, read in ascending stretches.
pub(super) struct Wire<'a> {
    remote: &'a dyn Remote,
    path: String,
    size: u64,
    open: Option<Open<'a>>,
    /// Set once the server has given the whole file for a part of it.
    pub no_ranges: bool,
    /// Bytes that came.
    pub bytes: u64,
    /// How often something was asked for.
    pub requests: u64,
}

struct Open<'a> {
    at: u64,
    end: u64,
    body: Box<dyn Read + Send + 'a>,
}

impl<'a> Wire<'a> {
    /// A file that is said to have `blob.size` bytes.
    pub(super) fn new(remote: &'a dyn Remote, blob: &Blob) -> Self {
        let path = blob.path();
        Self { remote, path, size: blob.size, open: None, no_ranges: false, bytes: 0, requests: 0 }
    }

    /// Fills `buffer` from `at` on, which lies in `within`: the stretch to ask for if none is open.
    pub(super) fn read(&mut self, buffer: &mut [u8], at: u64, within: &Range<u64>) -> Result<(), DeltaError> {
        let end = at + to_u64(buffer.len());
        if end > self.size {
            return Err(DeltaError::Short { path: self.path.clone(), at: self.size, size: end });
        }
        self.reach(at, end, within)?;
        let mut skipped = [0; 4096];
        while let Some(open) = &self.open
            && open.at < at
        {
            let count = to_usize((at - open.at).min(4096));
            self.take(&mut skipped[..count])?;
        }
        self.take(buffer)
    }

    /// Asks for `within` from `at` on, unless a stream is open that comes to `at..end`. After that it is known
    /// whether the server knows ranges.
    pub(super) fn reach(&mut self, at: u64, end: u64, within: &Range<u64>) -> Result<(), DeltaError> {
        match &self.open {
            Some(open) if open.at <= at && end <= open.end => Ok(()),
            _ => self.ask(at, within.end.max(end)),
        }
    }

    fn ask(&mut self, at: u64, end: u64) -> Result<(), DeltaError> {
        self.open = None;
        self.requests += 1;
        let whole = at == 0 && end == self.size;
        let part = self.remote.open(&self.path, (!whole).then_some(at..end))?;
        let end = match part.start {
            start if start == at => end,
            0 => {
                self.no_ranges = true;
                self.size
            }
            have => return Err(DeltaError::Misplaced { path: self.path.clone(), expected: at, have }),
        };
        self.open = Some(Open { at: part.start, end, body: part.body });
        Ok(())
    }

    fn take(&mut self, mut buffer: &mut [u8]) -> Result<(), DeltaError> {
        let open = self.open.as_mut().expect("asked for before");
        while !buffer.is_empty() {
            match open.body.read(buffer) {
                Ok(0) => {
                    let error = DeltaError::Short { path: self.path.clone(), at: open.at, size: self.size };
                    self.open = None;
                    return Err(error);
                }
                Ok(count) => {
                    open.at += to_u64(count);
                    self.bytes += to_u64(count);
                    buffer = &mut buffer[count..];
                }
                Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let error = DeltaError::Broken { path: self.path.clone(), at: open.at, source };
                    self.open = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Reads a whole file of a size that was announced, and compares its digest. `name` is for errors.
pub(super) fn whole(
    remote: &dyn Remote,
    blob: &Blob,
    limit: u64,
    name: &'static str,
) -> Result<(Vec<u8>, u64), DeltaError> {
    if blob.size > limit {
        let what = format!("{} bytes, of {limit} that are sensible", blob.size);
        return Err(DeltaError::Damaged { file: name, what });
    }
    let mut wire = Wire::new(remote, blob);
    let mut bytes = vec![0; to_usize(blob.size)];
    if blob.size > 0 {
        wire.read(&mut bytes, 0, &(0..blob.size))?;
    }
    let have = Digest::of(&bytes);
    if have != blob.sha256 {
        return Err(DeltaError::Digest { file: name, expected: blob.sha256, have });
    }
    Ok((bytes, wire.bytes))
}

/// What to ask for in order to get all of `pieces`, which ascend: few and long stretches.
pub(super) fn coalesce(pieces: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut stretches: Vec<Range<u64>> = Vec::new();
    for piece in pieces {
        match stretches.last_mut() {
            Some(last) if piece.start <= last.end + GAP => last.end = last.end.max(piece.end),
            _ => stretches.push(piece),
        }
    }
    if stretches.len() <= REQUESTS {
        return stretches;
    }
    let mut gaps: Vec<(u64, usize)> =
        stretches.windows(2).map(|pair| pair[1].start - pair[0].end).zip(1..).collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let mut cuts: Vec<usize> = gaps[..REQUESTS - 1].iter().map(|(_, index)| *index).collect();
    cuts.sort_unstable();
    let ends = cuts.iter().copied().chain([stretches.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    starts.zip(ends).map(|(from, to)| stretches[from].start..stretches[to - 1].end).collect()
}

/// The stretch of [`coalesce`] in which `at` lies.
pub(super) fn stretch_of(stretches: &[Range<u64>], at: u64) -> Range<u64> {
    let next = stretches.partition_point(|stretch| stretch.start <= at);
    next.checked_sub(1).map_or(at..at, |index| stretches[index].clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::delta::testing::{Server, noise};

    #[test]
    fn joins_over_small_gaps_and_keeps_to_its_number_of_requests() {
        assert_eq!(coalesce([0..10, 10..20, 500..700, 5000..5001]), [0..700, 5000..5001]);
        let far = (0..1000).map(|piece| piece * 10_000 + piece * piece..piece * 10_000 + piece * piece + 10);
        let stretches = coalesce(far.clone());
        assert_eq!(stretches.len(), REQUESTS);
        for piece in far {
            let stretch = stretch_of(&stretches, piece.start);
            assert!(stretch.start <= piece.start && piece.end <= stretch.end);
        }
    }

    #[test]
    fn one_stream_serves_all_where_there_are_no_ranges() {
        let bytes = noise(1, 100_000);
        for knows_no_ranges in [false, true] {
            let mut server = Server { knows_no_ranges, endless: true, ..Server::default() };
            let blob = server.put(bytes.clone());
            let mut wire = Wire::new(&server, &blob);
            let mut buffer = [0; 100];
            for at in [5, 20_000, 20_100, 99_900] {
                wire.read(&mut buffer, at, &(at..at + 200)).unwrap();
                assert_eq!(buffer[..], bytes[to_usize(at)..][..100]);
            }
            assert_eq!(wire.no_ranges, knows_no_ranges);
            let expected = if knows_no_ranges { (1, 100_000) } else { (3, 400) };
            assert_eq!((wire.requests, wire.bytes), expected);
            assert!(matches!(wire.read(&mut buffer, 99_950, &(0..0)), Err(DeltaError::Short { .. })));
        }
    }
}
