//! A disk of a gigabyte that goes from state to state in nanoseconds: each sector is a number that stands for
//! its content, a change can be taken back, and what a verdict depends on is kept up to date on the way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use keller::base::Digest;
use keller::disk::ReadAt;
use rustix::fs::SeekFrom;

/// Bytes that a disk writes at once.
pub const SECTOR: usize = 512;
/// Stands for the content of a sector; 0 for zeros.
pub type Id = u32;

/// Every content that a sector has had.
#[derive(Clone)]
pub struct Contents {
    bytes: Vec<u8>,
    ids: HashMap<Digest, Id>,
}

impl Contents {
    pub fn new() -> Self {
        let zeros = vec![0; SECTOR];
        Self { ids: HashMap::from([(Digest::of(&zeros), 0)]), bytes: zeros }
    }

    /// One for each sector of `bytes`.
    pub fn ids(&mut self, bytes: &[u8]) -> Vec<Id> {
        let id = |sector: &[u8]| {
            let next = (self.bytes.len() / SECTOR) as Id;
            let id = *self.ids.entry(Digest::of(sector)).or_insert(next);
            if id == next {
                self.bytes.extend_from_slice(sector);
            }
            id
        };
        bytes.chunks_exact(SECTOR).map(id).collect()
    }

    /// All sectors of an image; its holes cost nothing.
    pub fn image(&mut self, path: &Path) -> Vec<Id> {
        let file = File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        let mut ids = vec![0; size as usize / SECTOR];
        let mut at = 0;
        while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
            at = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
            let mut bytes = vec![0; (at - start) as usize];
            file.read_exact_at(&mut bytes, start).unwrap();
            let first = start as usize / SECTOR;
            ids[first..][..bytes.len() / SECTOR].copy_from_slice(&self.ids(&bytes));
        }
        ids
    }

    pub fn bytes(&self, id: Id) -> &[u8] {
        &self.bytes[id as usize * SECTOR..][..SECTOR]
    }
}

/// A partition of a slot, and what each version has there.
#[derive(Clone)]
pub struct Part {
    /// 0 or 1.
    pub slot: usize,
    /// First sector.
    pub start: u32,
    /// Sectors.
    pub count: u32,
    /// By version; what is behind it does not matter.
    pub wanted: [Vec<Id>; 2],
}

#[derive(Clone)]
pub struct Disk {
    pub now: Vec<Id>,
    parts: Vec<Part>,
    /// How many sectors of a slot (first index) are not what a version (second) has there.
    differ: [[u32; 2]; 2],
    /// Changes with each sector, and back with it.
    pub identity: u64,
    /// Whether any verdict so far has depended on a sector.
    looked_at: Vec<bool>,
    /// As `identity`, of those alone.
    view: u64,
    undo: Vec<(u32, Id)>,
}

impl Disk {
    pub fn new(now: Vec<Id>, parts: Vec<Part>) -> Self {
        let mut differ = [[0; 2]; 2];
        for part in &parts {
            for (version, wanted) in part.wanted.iter().enumerate() {
                let there = &now[part.start as usize..];
                let wrong = wanted.iter().zip(there).filter(|(wanted, there)| wanted != there).count();
                differ[part.slot][version] += wrong as u32;
            }
        }
        let looked_at = vec![false; now.len()];
        Self { now, parts, differ, identity: 0, looked_at, view: 0, undo: Vec::new() }
    }

    /// Whether a slot has a version whole, byte for byte.
    pub fn is_whole(&self, slot: usize, version: usize) -> bool {
        self.differ[slot][version] == 0
    }

    /// All that a verdict depends on.
    pub fn view(&self) -> (u64, [[bool; 2]; 2]) {
        (self.view, self.differ.map(|slot| slot.map(|count| count == 0)))
    }

    pub fn put(&mut self, sector: u32, id: Id) {
        let old = self.now[sector as usize];
        if old != id {
            self.undo.push((sector, old));
            self.set(sector, id);
        }
    }

    fn set(&mut self, sector: u32, id: Id) {
        let old = std::mem::replace(&mut self.now[sector as usize], id);
        let change = mix(sector, old) ^ mix(sector, id);
        self.identity ^= change;
        if self.looked_at[sector as usize] {
            self.view ^= change;
        }
        let within = |part: &&Part| (part.start..part.start + part.count).contains(&sector);
        if let Some(part) = self.parts.iter().find(within) {
            for (version, differ) in self.differ[part.slot].iter_mut().enumerate() {
                if let Some(wanted) = part.wanted[version].get((sector - part.start) as usize) {
                    *differ += u32::from(id != *wanted);
                    *differ -= u32::from(old != *wanted);
                }
            }
        }
    }

    /// How much can be taken back.
    pub fn mark(&self) -> usize {
        self.undo.len()
    }

    pub fn undo_to(&mut self, mark: usize) {
        while self.undo.len() > mark {
            let (sector, id) = self.undo.pop().expect("longer than the mark");
            self.set(sector, id);
        }
    }

    /// All that can be taken back.
    pub fn changes(&self) -> Vec<(u32, Id)> {
        self.undo.iter().map(|(sector, _)| (*sector, self.now[*sector as usize])).collect()
    }

    /// Nothing so far can be taken back any more.
    pub fn settle(&mut self) {
        self.undo.clear();
    }

    /// From now on verdicts depend on these sectors as well; whether any of them is new.
    pub fn look_at(&mut self, sectors: &[u32]) -> bool {
        let before = self.view;
        for sector in sectors {
            let looked_at = &mut self.looked_at[*sector as usize];
            if !std::mem::replace(looked_at, true) {
                self.view ^= mix(*sector, self.now[*sector as usize]);
            }
        }
        before != self.view
    }
}

/// The finalizer of SplitMix64, over a sector and what it holds.
fn mix(sector: u32, id: Id) -> u64 {
    scramble(u64::from(sector) << 32 | u64::from(id))
}

pub fn scramble(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// A disk to read from, which keeps what was read.
pub struct View<'d> {
    disk: &'d Disk,
    contents: &'d Contents,
    read: RefCell<Vec<u32>>,
}

impl<'d> View<'d> {
    pub fn new(disk: &'d Disk, contents: &'d Contents) -> Self {
        Self { disk, contents, read: RefCell::default() }
    }

    pub fn id(&self, sector: u32) -> Id {
        if !self.disk.looked_at[sector as usize] {
            self.read.borrow_mut().push(sector);
        }
        self.disk.now[sector as usize]
    }

    pub fn sector(&self, sector: u32) -> &'d [u8] {
        self.contents.bytes(self.id(sector))
    }

    pub fn is_whole(&self, slot: usize, version: usize) -> bool {
        self.disk.is_whole(slot, version)
    }

    /// The sectors that were read and no verdict had depended on before.
    pub fn into_read(self) -> Vec<u32> {
        self.read.into_inner()
    }
}

impl ReadAt for View<'_> {
    fn size(&self) -> u64 {
        (self.disk.now.len() * SECTOR) as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(SECTOR as u64) && buffer.len().is_multiple_of(SECTOR));
        for (index, piece) in buffer.chunks_exact_mut(SECTOR).enumerate() {
            piece.copy_from_slice(self.sector((offset / SECTOR as u64) as u32 + index as u32));
        }
        Ok(())
    }
}
