//! Stretches of one file of a repository: few requests, no byte past what was announced.

use std::io::Read;
use std::ops::Range;

use super::error::DeltaError;
use crate::base::Digest;
use crate::base::width::{to_u64, to_usize};
use crate::update::document::{Blob, Piece};
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
    /// Stretches of other files that it is made of, by where each begins; none for a file of its own.
    pieces: Vec<(u64, Piece)>,
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
        Self::made_of(remote, blob, &[])
    }

    /// The same of one that is made of `pieces`, if there are any.
    pub(super) fn made_of(remote: &'a dyn Remote, blob: &Blob, pieces: &[Piece]) -> Self {
        let mut at = 0_u64;
        let placed = |piece: &Piece| {
            let begin = at;
            at = at.saturating_add(piece.length);
            (begin, *piece)
        };
        let pieces = pieces.iter().map(placed).collect();
        let (path, size) = (blob.path(), blob.size);
        Self { remote, path, size, pieces, open: None, no_ranges: false, bytes: 0, requests: 0 }
    }

    /// The piece that has byte `at`, with its place; none past the last one, and of a file of its own.
    fn piece(&self, at: u64) -> Option<(u64, Piece)> {
        let number = self.pieces.partition_point(|(begin, _)| *begin <= at).checked_sub(1)?;
        let (begin, piece) = self.pieces[number];
        (at - begin < piece.length).then_some((begin, piece))
    }

    /// Where what one request can give from `at` on ends.
    fn end_of_piece(&self, at: u64) -> Result<u64, DeltaError> {
        match self.piece(at) {
            Some((begin, piece)) => Ok(begin.saturating_add(piece.length)),
            None if self.pieces.is_empty() => Ok(self.size),
            None => Err(DeltaError::Short { path: self.path.clone(), at, size: self.size }),
        }
    }

    /// Bytes that a server without ranges gives before all up to `end` has come.
    pub(super) fn without_ranges(&self, end: u64) -> u64 {
        if self.pieces.is_empty() {
            return end;
        }
        let before = self.pieces.iter().take_while(|(begin, _)| *begin < end);
        before.fold(0, |sum, (_, piece)| sum.saturating_add(piece.at).saturating_add(piece.length))
    }

    /// Fills `buffer` from `at` on, which lies in `within`: the stretch to ask for if none is open.
    pub(super) fn read(&mut self, buffer: &mut [u8], at: u64, within: &Range<u64>) -> Result<(), DeltaError> {
        let end = at + to_u64(buffer.len());
        if end > self.size {
            return Err(DeltaError::Short { path: self.path.clone(), at: self.size, size: end });
        }
        let (mut at, mut rest) = (at, buffer);
        while !rest.is_empty() {
            let end = self.end_of_piece(at)?.min(end);
            let (now, after) = rest.split_at_mut(to_usize(end - at));
            self.read_piece(now, at, within)?;
            (at, rest) = (end, after);
        }
        Ok(())
    }

    /// The same within one piece.
    fn read_piece(&mut self, buffer: &mut [u8], at: u64, within: &Range<u64>) -> Result<(), DeltaError> {
        self.reach(at, at + to_u64(buffer.len()), within)?;
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
        let piece = self.end_of_piece(at)?;
        let end = end.min(piece);
        match &self.open {
            Some(open) if open.at <= at && end <= open.end => Ok(()),
            _ => self.ask(at, within.end.max(end).min(piece)),
        }
    }

    fn ask(&mut self, at: u64, end: u64) -> Result<(), DeltaError> {
        self.open = None;
        self.requests += 1;
        if let Some((begin, piece)) = self.piece(at) {
            return self.ask_piece(&piece, at - begin, at..end);
        }
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

    /// Asks for the stretch `range` that begins `from` bytes behind the beginning of `piece`.
    fn ask_piece(&mut self, piece: &Piece, from: u64, range: Range<u64>) -> Result<(), DeltaError> {
        let path = piece.path();
        let short = || DeltaError::Short { path: path.clone(), at: piece.at, size: piece.length };
        let first = piece.at.checked_add(from).ok_or_else(short)?;
        let last = first.checked_add(range.end - range.start).ok_or_else(short)?;
        let part = self.remote.open(&path, Some(first..last))?;
        // What comes before the stretch, of a server that gives the whole file.
        let mut ahead = match part.start {
            start if start == first => 0,
            0 => first,
            have => return Err(DeltaError::Misplaced { path, expected: first, have }),
        };
        self.no_ranges |= ahead > 0;
        self.open = Some(Open { at: range.start, end: range.end, body: part.body });
        let mut skipped = [0; 4096];
        while ahead > 0 {
            let count = to_usize(ahead.min(4096));
            self.take(&mut skipped[..count])?;
            ahead -= to_u64(count);
        }
        self.open.as_mut().expect("opened above").at = range.start;
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

    #[test]
    fn pieces_are_read_as_one_file() {
        let (a, b) = (noise(1, 50_000), noise(2, 30_000));
        for knows_no_ranges in [false, true] {
            let mut server = Server { knows_no_ranges, endless: true, ..Server::default() };
            let (first, second) = (server.put(a.clone()), server.put(b.clone()));
            let piece = |blob: &Blob, at, length| Piece { file: blob.sha256, at, length };
            let pieces = [piece(&first, 10_000, 5000), piece(&second, 0, 100), piece(&first, 20_000, 30_000)];
            let all = [&a[10_000..15_000], &b[..100], &a[20_000..]].concat();
            // Nothing lies under its own name.
            let blob = Blob::of(&all);
            let mut wire = Wire::made_of(&server, &blob, &pieces);
            let mut buffer = [0; 700];
            for at in [0, 300, 4700, 6000, 34_400] {
                wire.read(&mut buffer, at, &(at..at + 1000)).unwrap();
                assert_eq!(buffer[..], all[to_usize(at)..][..700], "{at}");
            }
            assert_eq!(wire.no_ranges, knows_no_ranges);
            if !knows_no_ranges {
                // 300 and 4700 each go on in what is open or begin another; three pieces for the third.
                assert!((wire.requests, wire.bytes) <= (8, 4000), "{} {}", wire.requests, wire.bytes);
            }
            assert!(matches!(wire.read(&mut buffer, 34_401, &(0..0)), Err(DeltaError::Short { .. })));
            assert_eq!(wire.without_ranges(5050), 15_000 + 100);
            assert_eq!(Wire::new(&server, &blob).without_ranges(5050), 5050);

            // Pieces that end before the file does, and one past the end of numbers.
            let mut wire = Wire::made_of(&server, &blob, &pieces[..1]);
            assert!(matches!(wire.read(&mut buffer, 4900, &(0..0)), Err(DeltaError::Short { .. })));
            let mut wire = Wire::made_of(&server, &blob, &[piece(&first, u64::MAX, u64::MAX)]);
            assert!(wire.read(&mut buffer, 10, &(0..0)).is_err());
        }
    }
}
