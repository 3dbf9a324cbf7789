//! Making a patch from nothing: segments that a version before has are taken over, those of which little is new are
//! made of the frames, which are there anyway, and the others are compressed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::known::{KnownSegments, makes};
use super::make::{AT_ONCE, Extent, Side, writing};
use super::{Head, all_of};
use crate::base::device::ReadAt;
use crate::base::progress::{Progress, Task, Unit};
use crate::base::width::{to_u64, to_usize};
use crate::update::delta::error::{DeltaError, PublishError};
use crate::update::delta::frames::Reused;
use crate::update::delta::index::Index;
use crate::update::delta::runs::{BLOCK, Cutter, MOST_BLOCKS, Run, RunDigest, run_digest};
use crate::update::delta::segments::ends;
use crate::update::delta::streams;
use crate::update::delta::unfinished::{Kind, Unfinished};

/// A segment is made of frames if at most one of so many of their bytes is new.
const FRESH: u64 = 4;
/// By one of so many of its bytes the whole may grow for that: frames take a third more than what is searched hard.
const GROWTH: f64 = 16.0;
/// Where frames save less than one of so many bytes, nothing saves more.
const HOPELESS: u64 = 50;
/// What a segment takes beside its frames, where nothing tells.
const RATIO: f64 = 0.75;

/// What there is of an image in compressed form.
#[derive(Default)]
pub struct Sources<'a> {
    /// Of the version before.
    pub segments: Option<&'a KnownSegments<'a>>,
    /// Of this one.
    pub frames: Option<&'a Framed<'a>>,
    /// What a try before has left, and this one leaves.
    pub unfinished: Option<&'a Unfinished>,
}

/// The frames of the same image.
pub struct Framed<'a> {
    index: Index,
    file: &'a (dyn ReadAt + Sync),
    reused: &'a [Reused],
}

impl<'a> Framed<'a> {
    /// Those in `file`, to which `index` belongs; `reused` of it were taken over.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`.
    pub fn read(
        index: &[u8],
        file: &'a (dyn ReadAt + Sync),
        reused: &'a [Reused],
    ) -> Result<Self, DeltaError> {
        Ok(Self { index: Index::read(index)?, file, reused })
    }

    /// Where the frames of an extent lie, if it is made of whole runs.
    fn range(&self, extent: Extent) -> Option<Range<u64>> {
        let (begin, end) = (to_u64(extent.first), to_u64(extent.first + extent.blocks));
        let runs = &self.index.runs;
        let first = runs.binary_search_by_key(&begin, |run| run.first).ok()?;
        let last = runs[..runs.partition_point(|run| run.first < end)].last()?;
        let is_whole = last.first + to_u64(last.run.blocks) == end;
        is_whole.then(|| runs[first].at..last.at + to_u64(last.length))
    }

    /// Bytes of a stretch that were not taken over.
    fn fresh(&self, range: &Range<u64>) -> u64 {
        let shared =
            |it: &Reused| it.range.end.min(range.end).saturating_sub(it.range.start.max(range.start));
        (range.end - range.start) - self.reused.iter().map(shared).sum::<u64>()
    }
}

/// What was made.
pub struct Whole {
    /// What comes before the segments.
    pub head: Vec<u8>,
    /// In bytes, with the head.
    pub size: u64,
    /// What of it is elsewhere too, in order.
    pub taken: Vec<Taken>,
}

/// A stretch that is elsewhere too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where it lies in the whole.
    pub range: Range<u64>,
    /// Where else.
    pub from: Elsewhere,
}

/// Where a stretch is as well, and from which byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// In all of the version before.
    Segments(u64),
    /// In the frames of this one.
    Frames(u64),
}

/// A segment in a form that can be written.
struct Made {
    bytes: Vec<u8>,
    /// From which of its bytes on it is elsewhere too.
    from: Option<(usize, Elsewhere)>,
}

/// Writes a patch from nothing to the first `size` bytes of `new`; gives its size. `level` is that of zstd which
/// is about as thorough. Works on up to four processors, and keeps what it makes and 130 MiB for each of them in memory.
///
/// # Errors
/// `Size`, `Read`, `Write`.
pub fn make_full(
    new: &(dyn ReadAt + Sync),
    size: u64,
    (level, known): (i32, Option<&KnownSegments>),
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<u64, PublishError> {
    let mut segments = Vec::new();
    let sources = Sources { segments: known, frames: None, unfinished: None };
    let whole = make_whole(new, size, level, &sources, &mut segments, progress)?;
    out.write_all(&whole.head).and_then(|()| out.write_all(&segments)).map_err(writing)?;
    Ok(whole.size)
}

/// The same, but for the head, which is known in the end: the segments go to `out` as they are made.
///
/// # Errors
/// As those of [`make_full`].
pub fn make_whole(
    new: &(dyn ReadAt + Sync),
    size: u64,
    level: i32,
    sources: &Sources,
    out: &mut (dyn Write + Send),
    progress: &dyn Progress,
) -> Result<Whole, PublishError> {
    if size.div_ceil(to_u64(BLOCK)) > MOST_BLOCKS {
        return Err(PublishError::Size { size });
    }
    let new = {
        let task = Task::new(progress, "comparing", size, Unit::Bytes);
        Side::read(new, size, &task)?
    };
    let task = Task::new(progress, "compressing", size, Unit::Bytes);
    let extents = extents(&new);
    let framed = of_frames(&new, &extents, sources);
    let make = |number: usize| {
        let extent = extents[number].1;
        let mut bytes = Vec::new();
        new.append(&mut bytes, extent)?;
        let range = framed.get(&number).cloned();
        let made = make(&extents[number].0, &bytes, range, level, sources).map_err(writing)?;
        task.advance(to_u64(bytes.len()));
        Ok(made)
    };
    let mut lengths = Vec::new();
    let mut taken = Vec::new();
    let mut at = to_u64(Head::table_end(extents.len()));
    in_order(extents.len(), make, |made: Made| {
        let end = at + to_u64(made.bytes.len());
        taken.extend(made.from.map(|(skip, from)| Taken { range: at + to_u64(skip)..end, from }));
        lengths.push(made.bytes.len());
        at = end;
        out.write_all(&made.bytes).map_err(writing)
    })?;
    let entries = extents
        .iter()
        .zip(lengths)
        .map(|((digest, extent), length)| (*digest, to_u64(extent.blocks), length));
    let head = Head::new(0, size, entries.collect::<Vec<_>>().into_iter());
    Ok(Whole { head: head.to_bytes(), size: head.end(), taken })
}

/// The segments, by the digests of their blocks.
fn extents(new: &Side) -> Vec<(RunDigest, Extent)> {
    let mut cutter = Cutter::default();
    let mut runs: Vec<Run> = new.digests.iter().filter_map(|digest| cutter.push(*digest)).collect();
    runs.extend(cutter.finish());
    let mut first = 0;
    let mut extents = Vec::new();
    for end in ends(runs).into_iter().map(to_usize) {
        let extent = Extent { first, blocks: end - first };
        extents.push((run_digest(&new.digests[first..end]), extent));
        first = end;
    }
    extents
}

/// The segments that are made of frames, with the place of these.
fn of_frames(new: &Side, extents: &[(RunDigest, Extent)], sources: &Sources) -> BTreeMap<usize, Range<u64>> {
    let Some(frames) = sources.frames else { return BTreeMap::new() };
    debug_assert_eq!(to_u64(new.digests.len() * BLOCK), frames.index.size);
    let (mut searched, mut beside, mut all) = (0, 0, 0);
    let mut candidates = BTreeSet::new();
    for (number, (digest, extent)) in extents.iter().enumerate() {
        let Some(range) = frames.range(*extent) else { continue };
        let length = range.end - range.start;
        all += length;
        match sources.segments.and_then(|known| known.searched(digest)) {
            Some(known) => (searched, beside) = (searched + known, beside + length),
            None => {
                let fresh = frames.fresh(&range);
                if fresh <= length / FRESH {
                    candidates.insert((fresh, number));
                }
            }
        }
    }
    let ratio = if beside > 0 { (searched as f64 / beside as f64).min(1.0) } else { RATIO };
    let mut room = all as f64 * ratio / GROWTH;
    let mut chosen = BTreeMap::new();
    for (_, number) in candidates {
        let extent = extents[number].1;
        let Some(range) = frames.range(extent) else { continue };
        let (length, bytes) = (range.end - range.start, to_u64(extent.blocks * BLOCK));
        if length < bytes - bytes / HOPELESS {
            room -= length as f64 * (1.0 - ratio);
        }
        if room < 0.0 {
            break;
        }
        chosen.insert(number, range);
    }
    chosen
}

fn make(
    digest: &RunDigest,
    bytes: &[u8],
    framed: Option<Range<u64>>,
    level: i32,
    sources: &Sources,
) -> io::Result<Made> {
    if let (Some(range), Some(frames)) = (framed, sources.frames) {
        let stored = to_usize(range.end - range.start);
        let mut made = start(bytes.len())?;
        streams::begin_frames(&mut made, stored, bytes.len());
        let skip = made.len();
        made.resize(skip + stored, 0);
        frames.file.read_at(&mut made[skip..], range.start)?;
        return Ok(Made { bytes: made, from: Some((skip, Elsewhere::Frames(range.start))) });
    }
    if let Some((made, at)) = sources.segments.and_then(|known| known.find(digest, bytes)) {
        return Ok(Made { bytes: made, from: Some((0, Elsewhere::Segments(at))) });
    }
    if let Some(made) = sources.unfinished.and_then(|it| it.find(Kind::Segment, digest))
        && makes(&made, bytes).unwrap_or(false)
    {
        return Ok(Made { bytes: made, from: None });
    }
    let mut made = start(bytes.len())?;
    streams::put_programs(&mut made, bytes, level)?;
    if let Some(unfinished) = sources.unfinished {
        unfinished.keep(Kind::Segment, digest, &made);
    }
    Ok(Made { bytes: made, from: None })
}

/// The beginning of a segment that takes all of its bytes as they are.
fn start(length: usize) -> io::Result<Vec<u8>> {
    let mut segment = Vec::new();
    for stream in [&all_of(length), &[][..]] {
        streams::put(&mut segment, stream)?;
    }
    Ok(segment)
}

/// Segments that were made, and how many of the first were taken.
struct Queue<T> {
    made: BTreeMap<usize, T>,
    next: usize,
    failed: Option<PublishError>,
}

/// Makes `count` things side by side, on at most [`AT_ONCE`] processors, and takes one after the other in order. Those that
/// are made early wait in memory: all of them together are no larger than the whole.
fn in_order<T: Send>(
    count: usize,
    make: impl Fn(usize) -> Result<T, PublishError> + Sync,
    take: impl FnMut(T) -> Result<(), PublishError> + Send,
) -> Result<(), PublishError> {
    let begun = AtomicUsize::new(0);
    let queue = Mutex::new((Queue { made: BTreeMap::new(), next: 0, failed: None }, take));
    let work = || {
        loop {
            let number = begun.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let made = make(number);
            let mut locked = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (queue, take) = &mut *locked;
            let mut result = made.map(|made| drop(queue.made.insert(number, made)));
            while result.is_ok()
                && queue.failed.is_none()
                && let Some(made) = queue.made.remove(&queue.next)
            {
                queue.next += 1;
                result = take(made);
            }
            if let Err(error) = result {
                queue.failed.get_or_insert(error);
                begun.store(count, Ordering::Relaxed);
            }
        }
    };
    rayon::scope(|scope| {
        for _ in 0..rayon::current_num_threads().min(AT_ONCE).min(count) {
            scope.spawn(|_| work());
        }
    });
    let (queue, _) = queue.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    queue.failed.map_or(Ok(()), Err)
}
