//! Disks that fail, and disks that lie.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::disk::{Made, Memory, Parts, Version, image, parts};
use super::judge::Judge;
use super::{ApplyError, update};
use crate::base::device::{Device, ReadAt, SectorSize, Window};
use crate::base::power_cut::next;
use crate::base::width::{to_u64, to_usize};
use crate::disk::slot::Slot;

/// What a disk gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// This write ends in an error; half of it may be there.
    Write(usize),
    /// This flush ends in an error, and what was to be flushed is lost.
    Flush(usize),
    /// Of this write, one bit is stored wrong.
    Flip(usize),
    /// As before, and again whenever the place is written.
    Broken(usize),
}

#[derive(Debug)]
struct Plan {
    fault: Fault,
    writes: usize,
    flushes: usize,
    /// A bit that was stored wrong: byte and mask.
    flipped: Option<(u64, u8)>,
}

/// A disk with a page cache over it.
#[derive(Clone)]
struct Faulty<'b> {
    cache: Memory<'b>,
    disk: Memory<'b>,
    /// Written, and not yet flushed.
    pending: Vec<(u64, Vec<u8>)>,
    plan: Rc<RefCell<Plan>>,
    /// What should be read from the disk comes from the cache: what a writer would see that has forgotten to
    /// read past it.
    reads_cache: bool,
}

impl<'b> Faulty<'b> {
    fn new(disk: &Memory<'b>, fault: Fault, reads_cache: bool) -> Self {
        let plan = Plan { fault, writes: 0, flushes: 0, flipped: None };
        let plan = Rc::new(RefCell::new(plan));
        Self { cache: disk.fork(), disk: disk.clone(), pending: Vec::new(), plan, reads_cache }
    }

    fn parts(&self, made: &Made, slot: Slot) -> Parts<'b> {
        parts(&made.layout, slot, |_, start, size| Window::new(self.clone(), start, size))
    }

    /// What is stored of `bytes`.
    fn stored(&self, bytes: &[u8], offset: u64) -> Vec<u8> {
        let mut stored = bytes.to_vec();
        let mut plan = self.plan.borrow_mut();
        let number = plan.writes;
        if matches!(plan.fault, Fault::Flip(at) | Fault::Broken(at) if at == number) {
            let mut old = vec![0; bytes.len()];
            self.disk.read_at(&mut old, offset).unwrap();
            // A place where something changes: what a disk does not write it does not spoil.
            let changed: Vec<usize> = (0..bytes.len()).filter(|at| old[*at] != bytes[*at]).collect();
            let mut random = 1 + to_u64(number) * 7919;
            if !changed.is_empty() {
                let at = changed[to_usize(next(&mut random) % to_u64(changed.len()))];
                plan.flipped = Some((offset + to_u64(at), 1 << (next(&mut random) % 8)));
                stored[at] ^= plan.flipped.unwrap().1;
            }
        } else if let (Fault::Broken(_), Some((place, mask))) = (plan.fault, plan.flipped)
            && (offset..offset + to_u64(bytes.len())).contains(&place)
        {
            stored[to_usize(place - offset)] ^= mask;
        }
        plan.writes += 1;
        stored
    }
}

impl ReadAt for Faulty<'_> {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.cache.read_at(buffer, offset)
    }
}

impl Device for Faulty<'_> {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.plan.borrow().fault == Fault::Write(self.plan.borrow().writes) {
            self.plan.borrow_mut().writes += 1;
            let half = bytes.len() / 1024 * 512;
            self.disk.write_at(&bytes[..half], offset)?;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let stored = self.stored(bytes, offset);
        self.cache.write_at(bytes, offset)?;
        self.pending.push((offset, stored));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let number = self.plan.borrow().flushes;
        self.plan.borrow_mut().flushes += 1;
        let pending = std::mem::take(&mut self.pending);
        if self.plan.borrow().fault == Fault::Flush(number) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        pending.into_iter().try_for_each(|(offset, bytes)| self.disk.write_at(&bytes, offset))
    }

    fn sector_size(&self) -> SectorSize {
        SectorSize::B512
    }

    fn read_back(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.reads_cache { self.cache.read_at(buffer, offset) } else { self.disk.read_at(buffer, offset) }
    }
}

/// A disk with an old version beside the running one.
struct Node {
    made: Made,
    versions: [Version; 3],
}

impl Node {
    fn new() -> Self {
        let versions = [Version::new("0.9.0", 1), Version::new("1.0.0", 2), Version::new("1.0.1", 3)];
        let entries = [("node_0.9.0.efi", &versions[0]), ("node_1.0.0.efi", &versions[1])];
        Self { made: image([Some(&versions[0]), Some(&versions[1])], &entries), versions }
    }

    fn update(&self, disk: &Faulty<'_>) -> Result<String, ApplyError> {
        update(&mut disk.parts(&self.made, Slot::A), Slot::A, &self.versions[1], &self.versions[2])
    }

    fn boots(&self, disk: &Memory<'_>) -> Result<String, String> {
        let versions = self.versions.iter().collect();
        let judge = Judge {
            made: &self.made,
            versions,
            may_boot: vec!["1.0.0", "1.0.1"],
            running: &self.versions[1],
        };
        judge.boots(disk)
    }

    /// How many writes and flushes an update has.
    fn steps(&self) -> (usize, usize) {
        let disk = Faulty::new(&Memory::new(&self.made.bytes), Fault::Nothing, false);
        self.update(&disk).unwrap();
        let plan = disk.plan.borrow();
        (plan.writes, plan.flushes)
    }
}

#[test]
fn after_any_error_of_the_disk_the_old_version_boots_and_the_next_try_works() {
    let node = Node::new();
    let (writes, flushes) = node.steps();
    for fault in (0..writes).map(Fault::Write).chain((0..flushes).map(Fault::Flush)) {
        let disk = Memory::new(&node.made.bytes);
        let error = node.update(&Faulty::new(&disk, fault, false)).unwrap_err();
        let boots = node.boots(&disk).unwrap_or_else(|problem| panic!("{fault:?}: {error}: {problem}"));
        assert_eq!(boots, "1.0.0", "{fault:?}: {error}");
        node.update(&Faulty::new(&disk, Fault::Nothing, false)).unwrap();
        assert_eq!(node.boots(&disk).unwrap(), "1.0.1", "{fault:?}");
    }
    println!(
        "disk errors: {writes} writes and {flushes} flushes failed, one at a time; the next try always works"
    );
}

#[test]
fn a_bit_that_the_disk_stores_wrong_is_seen_and_never_activated() {
    let node = Node::new();
    let (writes, _) = node.steps();
    let (mut healed, mut refused) = (0, 0);
    for fault in (0..writes).flat_map(|number| [Fault::Flip(number), Fault::Broken(number)]) {
        let disk = Memory::new(&node.made.bytes);
        let faulty = Faulty::new(&disk, fault, false);
        let result = node.update(&faulty);
        let boots = node.boots(&disk).unwrap_or_else(|problem| panic!("{fault:?}: {result:?}: {problem}"));
        match &result {
            Ok(_) => healed += 1,
            Err(_) => refused += 1,
        }
        let expected = if result.is_ok() { "1.0.1" } else { "1.0.0" };
        assert_eq!(boots, expected, "{fault:?}: {result:?}");
        node.update(&Faulty::new(&disk, Fault::Nothing, false)).ok();
        assert_eq!(node.boots(&disk).unwrap(), "1.0.1", "{fault:?}: the next try");
    }
    println!(
        "silent corruption: of {} bits stored wrong, {healed} were healed, {refused} refused",
        2 * writes
    );

    // A writer that does not read past the cache does not see them, and the judge does.
    let mut caught = 0;
    for number in 0..writes {
        let disk = Memory::new(&node.made.bytes);
        let result = node.update(&Faulty::new(&disk, Fault::Flip(number), true));
        caught += usize::from(result.is_ok() && node.boots(&disk).is_err());
    }
    println!("mutant without the read-back: {caught} of {writes} bits stored wrong are activated unseen");
    assert!(caught * 3 > writes, "{caught} of {writes}");
}
