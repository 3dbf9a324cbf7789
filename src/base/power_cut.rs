//! A disk that loses power, for tests: every order and tearing of writes that a real one may leave behind.
//!
//! A disk is written through views: the whole of it, a partition. Each stands for a block device with a page
//! cache of its own, so that a flush makes durable what went through the same view and nothing else, as it
//! is with `fsync` on `/dev/vda` and `/dev/vda1`.

use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::device::{Device, ReadAt, SectorSize};
use crate::base::width::{to_u64, to_usize};

/// Sectors between two flushes up to which every prefix, single sector and single gap is tried.
const COMPLETE: usize = 256;
/// How many of each are tried where there are more: bulk data.
const SAMPLES: usize = 48;
/// How a sector is torn that has neither the old content nor the new.
const GARBAGE: &str = "garbage";
/// Random subsets for each flush.
const SUBSETS: usize = 64;

/// Keeps every write and flush, and shows what the disk may look like after a loss of power at any of them.
pub(crate) struct Recorder {
    now: Vec<u8>,
    /// What each write found, in the order of the writes.
    found: Vec<(u64, Vec<u8>)>,
    sector_size: SectorSize,
    views: Vec<String>,
    /// What was done, as a test may change it to see that a judge sees it.
    pub epochs: Vec<Epoch>,
}

/// Writes, and the flush behind them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epoch {
    /// In their order.
    pub writes: Vec<Write>,
    /// The view that was flushed; nothing at the end of the recording, or where a test took the flush away.
    pub flushed: Option<usize>,
}

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// What it went through.
    pub view: usize,
    /// In bytes from the start of the disk.
    pub offset: u64,
    /// What was written.
    pub bytes: Vec<u8>,
}

/// States of a disk, each by a hash of what differs from the bytes before the first write.
pub(crate) type States = BTreeSet<u64>;

/// Which state of the disk this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut<'a> {
    /// In words.
    pub what: &'a str,
    /// The sector that is garbage, and what was there before.
    pub spoiled: Option<(u64, &'a [u8])>,
}

/// How much was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// States of the disk, those that are alike included.
    pub states: usize,
    /// States that differ from all others.
    pub distinct: usize,
    /// Flushes, and the end of the recording.
    pub epochs: usize,
    /// Those of them with so many sectors that only a sample was tried.
    pub sampled: usize,
}

impl Clone for Recorder {
    fn clone(&self) -> Self {
        let Self { now, found, sector_size, views, epochs } = self;
        let (now, found) = (copy(now), found.clone());
        Self { now, found, sector_size: *sector_size, views: views.clone(), epochs: epochs.clone() }
    }
}

/// A copy of a disk, most of which is zeros: these take no memory until they are written. To give memory for each copy of a
/// whole disk took the kernel five times as long as all that tests do with it.
pub(crate) fn copy(disk: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 4096;
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut copy = vec![0; disk.len()];
    for (to, from) in copy.chunks_mut(BLOCK).zip(disk.chunks(BLOCK)) {
        if *from != ZEROS[..from.len()] {
            to.copy_from_slice(from);
        }
    }
    copy
}

impl Recorder {
    /// A disk with these bytes.
    pub(crate) fn new(bytes: Vec<u8>, sector_size: SectorSize) -> Self {
        let views = vec!["disk".to_owned()];
        Self { now: bytes, found: Vec::new(), sector_size, views, epochs: vec![Epoch::default()] }
    }

    /// The bytes before the first write.
    fn before(&self) -> Vec<u8> {
        let mut disk = copy(&self.now);
        for (offset, bytes) in self.found.iter().rev() {
            disk[to_usize(*offset)..][..bytes.len()].copy_from_slice(bytes);
        }
        disk
    }

    /// The bytes when power stays.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.now
    }

    /// What epoch `number` is, in words.
    pub(crate) fn describe(&self, number: usize) -> String {
        let Epoch { writes, flushed } = &self.epochs[number];
        let bytes: usize = writes.iter().map(|write| write.bytes.len()).sum();
        let views: BTreeSet<&str> = writes.iter().map(|write| self.views[write.view].as_str()).collect();
        let end = flushed.map_or("no flush".to_owned(), |view| format!("flush of {}", self.views[view]));
        let views = Vec::from_iter(views).join(" and ");
        format!("{} writes, {bytes} bytes to {views}, then {end}", writes.len())
    }

    /// The epochs that write to this view.
    pub(crate) fn epochs_of(&self, view: &str) -> Vec<usize> {
        let through = |epoch: &Epoch| epoch.writes.iter().any(|write| self.views[write.view] == view);
        (0..self.epochs.len()).filter(|number| through(&self.epochs[*number])).collect()
    }

    /// How many writes nothing has made durable.
    pub(crate) fn unflushed(&self) -> usize {
        let mut pending: Vec<usize> = Vec::new();
        for epoch in &self.epochs {
            pending.extend(epoch.writes.iter().map(|write| write.view));
            pending.retain(|view| Some(*view) != epoch.flushed);
        }
        pending.len()
    }

    /// Calls `judge` with each state that a loss of power may leave, and a text that says which it is:
    /// what was flushed is there; of what was written since, any sectors may be there, and one more may be
    /// half written or garbage. Prefixes, single sectors and single gaps are tried completely, other
    /// subsets by a fixed sequence of 64 for each flush; of more than 256 sectors between two flushes, a
    /// fixed sample.
    pub(crate) fn each_cut(&self, mut judge: impl FnMut(&[u8], &str)) -> Tally {
        self.cuts(None, |disk, cut| {
            judge(disk, cut.what);
            ControlFlow::Continue(())
        })
    }

    /// As [`Recorder::each_cut`], but states that are the same bytes are judged once.
    pub(crate) fn each_distinct_cut(&self, mut judge: impl FnMut(&[u8], &str)) -> Tally {
        self.each_distinct_state(|disk, cut| judge(disk, cut.what))
    }

    /// As [`Recorder::each_distinct_cut`], with more on the state.
    pub(crate) fn each_distinct_state(&self, mut judge: impl FnMut(&[u8], &Cut<'_>)) -> Tally {
        self.distinct_states_until(|disk, cut| {
            judge(disk, cut);
            ControlFlow::Continue(())
        })
    }

    /// As [`Recorder::each_distinct_state`], up to a state that is enough.
    pub(crate) fn distinct_states_until(
        &self,
        judge: impl FnMut(&[u8], &Cut<'_>) -> ControlFlow<()>,
    ) -> Tally {
        self.other_states_until(&mut States::new(), judge)
    }

    /// As [`Recorder::distinct_states_until`], without the states that are `known`; those that are judged are known then. Both
    /// are of recordings that begin with the same bytes.
    pub(crate) fn other_states_until(
        &self,
        known: &mut States,
        judge: impl FnMut(&[u8], &Cut<'_>) -> ControlFlow<()>,
    ) -> Tally {
        self.cuts(Some(known), judge)
    }

    fn cuts(
        &self,
        seen: Option<&mut States>,
        judge: impl FnMut(&[u8], &Cut<'_>) -> ControlFlow<()>,
    ) -> Tally {
        let state = State { disk: self.before(), id: 0, undo: Vec::new() };
        let mut cutter =
            Cutter { state, seen, tally: Tally::default(), random: 0x9e37_79b9_7f4a_7c15, judge };
        let size = self.sector_size.bytes();
        let mut pending: Vec<(usize, Sector<'_>)> = Vec::new();
        for (number, epoch) in self.epochs.iter().enumerate() {
            for Write { view, offset, bytes } in &epoch.writes {
                assert!(offset % size == 0 && to_u64(bytes.len()).is_multiple_of(size), "whole sectors");
                let sectors = (*offset..).step_by(to_usize(size)).zip(bytes.chunks_exact(to_usize(size)));
                pending.extend(sectors.map(|sector| (*view, sector)));
            }
            let sectors: Vec<Sector<'_>> = pending.iter().map(|(_, sector)| *sector).collect();
            if cutter.cut(&sectors, number).is_break() {
                break;
            }
            for (_, (offset, bytes)) in pending.extract_if(.., |(view, _)| Some(*view) == epoch.flushed) {
                cutter.state.put(offset, bytes);
            }
            cutter.state.undo.clear();
        }
        cutter.tally
    }
}

/// Where, and what shall be there.
type Sector<'a> = (u64, &'a [u8]);

/// A disk that can go back.
struct State {
    disk: Vec<u8>,
    /// Changes with each sector, and back with it.
    id: u64,
    /// What was there before.
    undo: Vec<(u64, Vec<u8>)>,
}

impl State {
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let place = &mut self.disk[to_usize(offset)..][..bytes.len()];
        if place != bytes {
            self.id ^= hash(offset, place) ^ hash(offset, bytes);
            self.undo.push((offset, place.to_vec()));
            place.copy_from_slice(bytes);
        }
    }

    fn undo_to(&mut self, mark: usize) {
        while self.undo.len() > mark {
            let (offset, bytes) = self.undo.pop().expect("longer than the mark");
            self.put(offset, &bytes);
            self.undo.pop();
        }
    }
}

fn hash(offset: u64, bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (offset, bytes).hash(&mut hasher);
    hasher.finish()
}

struct Cutter<'k, J> {
    state: State,
    /// Ids of what was judged, where each is to be judged once.
    seen: Option<&'k mut States>,
    tally: Tally,
    random: u64,
    judge: J,
}

impl<J: FnMut(&[u8], &Cut<'_>) -> ControlFlow<()>> Cutter<'_, J> {
    /// Tries what may be there of `pending`, over what the state has, and leaves the state as it was.
    fn cut(&mut self, pending: &[Sector<'_>], epoch: usize) -> ControlFlow<()> {
        let count = pending.len();
        self.tally.epochs += 1;
        self.tally.sampled += usize::from(count > COMPLETE);
        let tried = self.samples(count);
        let begin = self.state.undo.len();

        for cut in 0..=count {
            if cut > 0 {
                self.put(pending[cut - 1]);
            }
            if cut == count || tried.contains(&cut) {
                let what = format!("flush {epoch}, first {cut} of {count}");
                self.judge(&what, None)?;
                self.tear(pending.get(cut), &what)?;
            }
        }
        // All are there: one after the other is taken away, where it is the last that was written there.
        let mut last: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (index, (offset, _)) in pending.iter().enumerate() {
            last.entry(*offset).or_default().push(index);
        }
        let before: BTreeMap<u64, Vec<u8>> =
            self.state.undo[begin..].iter().rev().map(|(offset, bytes)| (*offset, bytes.clone())).collect();
        for gap in tried.iter().copied() {
            let (offset, bytes) = pending[gap];
            let mark = self.state.undo.len();
            if let [.., previous, latest] = last[&offset][..]
                && latest == gap
            {
                self.put(pending[previous]);
            } else if last[&offset] == [gap]
                && let Some(old) = before.get(&offset)
            {
                self.put((offset, old));
            }
            let what = format!("flush {epoch}, all but {gap} of {count}");
            self.judge(&what, None)?;
            self.tear(Some(&(offset, bytes)), &what)?;
            self.state.undo_to(mark);
        }
        self.state.undo_to(begin);

        for only in tried.iter().copied() {
            self.put(pending[only]);
            self.judge(&format!("flush {epoch}, only {only} of {count}"), None)?;
            self.state.undo_to(begin);
        }
        for round in 0..SUBSETS {
            for sector in pending {
                if self.next() & 1 == 1 {
                    self.put(*sector);
                }
            }
            let what = format!("flush {epoch}, subset {round} of {count}");
            self.judge(&what, None)?;
            if count > 0 {
                let torn = to_usize(self.next() % to_u64(count));
                self.tear(Some(&pending[torn]), &what)?;
            }
            self.state.undo_to(begin);
        }
        ControlFlow::Continue(())
    }

    fn put(&mut self, (offset, bytes): Sector<'_>) {
        self.state.put(offset, bytes);
    }

    fn judge(&mut self, what: &str, spoiled: Option<(u64, &[u8])>) -> ControlFlow<()> {
        self.tally.states += 1;
        if self.seen.as_mut().is_none_or(|seen| seen.insert(self.state.id)) {
            self.tally.distinct += 1;
            return (self.judge)(&self.state.disk, &Cut { what, spoiled });
        }
        ControlFlow::Continue(())
    }

    /// The sector in the middle of whose writing the power goes.
    fn tear(&mut self, sector: Option<&Sector<'_>>, what: &str) -> ControlFlow<()> {
        let Some(&(offset, new)) = sector else { return ControlFlow::Continue(()) };
        let mark = self.state.undo.len();
        let half = new.len() / 2;
        let old = self.state.disk[to_usize(offset)..][..new.len()].to_vec();
        let mixtures = [
            ("first half", [&new[..half], &old[half..]].concat()),
            ("second half", [&old[..half], &new[half..]].concat()),
            (GARBAGE, vec![0xa5; new.len()]),
        ];
        for (name, mixture) in mixtures {
            self.state.put(offset, &mixture);
            let spoiled = (name == GARBAGE).then_some((offset, old.as_slice()));
            self.judge(&format!("{what}, sector at {offset} torn: {name}"), spoiled)?;
            self.state.undo_to(mark);
        }
        ControlFlow::Continue(())
    }

    /// All numbers below `count`, or a sample: the first and the last few, and a fixed sequence.
    fn samples(&mut self, count: usize) -> BTreeSet<usize> {
        if count <= COMPLETE {
            return (0..count).collect();
        }
        let mut samples: BTreeSet<usize> = (0..4).chain(count - 4..count).collect();
        while samples.len() < SAMPLES {
            samples.insert(to_usize(self.next() % to_u64(count)));
        }
        samples
    }

    fn next(&mut self) -> u64 {
        next(&mut self.random)
    }
}

/// xorshift64: the same sequence in every run.
pub(crate) fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}

impl Recorder {
    fn write(&mut self, view: usize, bytes: &[u8], offset: u64) -> io::Result<()> {
        let place = self.now.get_mut(to_usize(offset)..).and_then(|rest| rest.get_mut(..bytes.len()));
        let place = place.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.found.push((offset, place.to_vec()));
        place.copy_from_slice(bytes);
        let epoch = self.epochs.last_mut().expect("there is always one");
        epoch.writes.push(Write { view, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn flush_view(&mut self, view: usize) {
        self.epochs.last_mut().expect("there is always one").flushed = Some(view);
        self.epochs.push(Epoch::default());
    }
}

impl ReadAt for Recorder {
    fn size(&self) -> u64 {
        to_u64(self.now.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.now.as_slice().read_at(buffer, offset)
    }
}

impl Device for Recorder {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write(0, bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_view(0);
        Ok(())
    }

    fn sector_size(&self) -> SectorSize {
        self.sector_size
    }
}

/// A recorder that is written through several views.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<Recorder>>);

impl Shared {
    /// Shares `recorder`.
    pub(crate) fn new(recorder: Recorder) -> Self {
        Self(Rc::new(RefCell::new(recorder)))
    }

    /// The recorder, to look at.
    pub(crate) fn recorder(&self) -> Ref<'_, Recorder> {
        self.0.borrow()
    }

    /// The `size` bytes from `start` on, as a device of their own.
    pub(crate) fn view(&self, name: &str, start: u64, size: u64) -> View {
        let mut recorder = self.0.borrow_mut();
        recorder.views.push(name.to_owned());
        View { shared: self.clone(), number: recorder.views.len() - 1, start, size }
    }
}

/// Part of a shared recorder.
pub(crate) struct View {
    shared: Shared,
    number: usize,
    start: u64,
    size: u64,
}

impl View {
    fn place(&self, len: usize, offset: u64) -> io::Result<u64> {
        let inside = offset.checked_add(to_u64(len)).is_some_and(|end| end <= self.size);
        inside.then_some(self.start + offset).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl ReadAt for View {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.shared.recorder().read_at(buffer, self.place(buffer.len(), offset)?)
    }
}

impl Device for View {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = self.place(bytes.len(), offset)?;
        self.shared.0.borrow_mut().write(self.number, bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.shared.0.borrow_mut().flush_view(self.number);
        Ok(())
    }

    fn sector_size(&self) -> SectorSize {
        self.shared.recorder().sector_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(byte: u8) -> [u8; 512] {
        [byte; 512]
    }

    /// The states of three sectors, each by its first byte.
    fn states(recorder: &Recorder) -> BTreeSet<[u8; 3]> {
        let mut all = BTreeSet::new();
        let tally = recorder.each_cut(|disk, _| {
            all.insert([disk[0], disk[512], disk[1024]]);
        });
        let mut distinct = 0;
        let again = recorder.each_distinct_cut(|_, _| distinct += 1);
        assert_eq!((tally.states, distinct), (again.states, again.distinct));
        assert!(distinct <= tally.states);
        all
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_comes_in_any_order() {
        let mut disk = Recorder::new(vec![0; 1536], SectorSize::B512);
        disk.write_at(&sector(1), 0).unwrap();
        disk.flush().unwrap();
        disk.write_at(&sector(2), 512).unwrap();
        disk.write_at(&sector(3), 1024).unwrap();
        let all = states(&disk);
        for state in [[0, 0, 0], [1, 0, 0], [1, 2, 0], [1, 0, 3], [1, 2, 3], [0xa5, 0, 0], [1, 0xa5, 3]] {
            assert!(all.contains(&state), "{state:?} of {all:?}");
        }
        assert!(all.iter().all(|state| state[0] == 1 || state[1..] == [0, 0]), "{all:?}");
        assert_eq!(disk.unflushed(), 2);
    }

    #[test]
    fn a_sector_that_is_written_twice_may_be_left_at_either() {
        let mut disk = Recorder::new(vec![0; 1536], SectorSize::B512);
        for byte in [1, 2, 3] {
            disk.write_at(&sector(byte), 512).unwrap();
        }
        let seen: BTreeSet<u8> = states(&disk).into_iter().map(|state| state[1]).collect();
        assert_eq!(seen, BTreeSet::from([0, 1, 2, 3, 0xa5]));
    }

    #[test]
    fn a_flush_is_for_the_view_that_it_went_to() {
        let shared = Shared::new(Recorder::new(vec![0; 1536], SectorSize::B512));
        let (mut first, mut second) = (shared.view("first", 0, 512), shared.view("second", 512, 512));
        first.write_at(&sector(1), 0).unwrap();
        second.write_at(&sector(2), 0).unwrap();
        first.flush().unwrap();
        second.write_at(&sector(3), 0).unwrap();
        let recorder = shared.recorder();
        let all = states(&recorder);
        assert!(all.contains(&[0, 2, 0]) && all.contains(&[1, 0, 0]) && all.contains(&[1, 2, 0]), "{all:?}");
        assert!(!all.contains(&[0, 3, 0]), "{all:?}");
        assert_eq!(recorder.unflushed(), 2);
        assert_eq!(recorder.describe(0), "2 writes, 1024 bytes to first and second, then flush of first");
        assert!(second.write_at(&sector(1), 1).is_err());
    }
}
