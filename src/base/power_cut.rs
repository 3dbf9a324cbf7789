//! A disk that loses power, for tests: every order and tearing of writes that a real one may leave behind.

use std::io;

use super::device::{Device, ReadAt, SectorSize};

enum Step {
    Write { offset: u64, bytes: Vec<u8> },
    Flush,
}

/// Keeps every write and flush, and shows what the disk may look like after a loss of power at any of them.
pub struct Recorder {
    before: Vec<u8>,
    now: Vec<u8>,
    sector_size: SectorSize,
    steps: Vec<Step>,
}

impl Recorder {
    /// A disk with these bytes.
    pub fn new(bytes: Vec<u8>, sector_size: SectorSize) -> Self {
        Self { before: bytes.clone(), now: bytes, sector_size, steps: Vec::new() }
    }

    /// The bytes when power stays.
    pub fn bytes(&self) -> &[u8] {
        &self.now
    }

    /// Calls `judge` with each state that a loss of power may leave, and a text that says which it is:
    /// what was flushed is there; of what was written since, any sectors may be there, and one more may be
    /// half written or garbage. Prefixes, single sectors and single gaps are tried completely, other
    /// subsets by a fixed sequence of 64 for each flush.
    pub fn each_cut(&self, mut judge: impl FnMut(&[u8], &str)) {
        let mut durable = self.before.clone();
        let mut pending: Vec<(u64, &[u8])> = Vec::new();
        let mut epoch = 0;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for step in &self.steps {
            match step {
                Step::Write { offset, bytes } => {
                    let size = self.sector_size.bytes();
                    assert!(offset % size == 0 && bytes.len() as u64 % size == 0, "whole sectors");
                    pending.extend((*offset..).step_by(size as usize).zip(bytes.chunks_exact(size as usize)));
                }
                Step::Flush => {
                    cuts_of_epoch(&durable, &pending, epoch, &mut random, &mut judge);
                    for (offset, bytes) in pending.drain(..) {
                        put(&mut durable, offset, bytes);
                    }
                    epoch += 1;
                }
            }
        }
        cuts_of_epoch(&durable, &pending, epoch, &mut random, &mut judge);
    }
}

fn put(disk: &mut [u8], offset: u64, bytes: &[u8]) {
    disk[offset as usize..][..bytes.len()].copy_from_slice(bytes);
}

fn cuts_of_epoch(
    durable: &[u8],
    pending: &[(u64, &[u8])],
    epoch: usize,
    random: &mut u64,
    judge: &mut impl FnMut(&[u8], &str),
) {
    let count = pending.len();
    let mut try_set = |chosen: &dyn Fn(usize) -> bool, torn: Option<usize>, what: &str| {
        let mut disk = durable.to_vec();
        for (_, (offset, bytes)) in pending.iter().enumerate().filter(|(index, _)| chosen(*index)) {
            put(&mut disk, *offset, bytes);
        }
        judge(&disk, &format!("flush {epoch}, {what}"));
        if let Some((offset, bytes)) = torn.map(|index| pending[index]) {
            let half = bytes.len() / 2;
            let old = durable[offset as usize..][..bytes.len()].to_vec();
            let mixtures = [
                ("first half", [&bytes[..half], &old[half..]].concat()),
                ("second half", [&old[..half], &bytes[half..]].concat()),
                ("garbage", vec![0xa5; bytes.len()]),
            ];
            for (name, mixture) in mixtures {
                put(&mut disk, offset, &mixture);
                judge(&disk, &format!("flush {epoch}, {what}, sector at {offset} torn: {name}"));
            }
        }
    };
    for cut in 0..=count {
        try_set(&|index| index < cut, (cut < count).then_some(cut), &format!("first {cut} of {count}"));
    }
    for only in 0..count {
        try_set(&|index| index == only, None, &format!("only {only} of {count}"));
        try_set(&|index| index != only, Some(only), &format!("all but {only} of {count}"));
    }
    for round in 0..64 {
        let bits: Vec<bool> = (0..count).map(|_| next(random) & 1 == 1).collect();
        let torn = (count > 0).then(|| (next(random) % count as u64) as usize);
        try_set(&|index| bits[index], torn, &format!("subset {round}"));
    }
}

/// xorshift64: the same sequence in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}

impl ReadAt for Recorder {
    fn size(&self) -> u64 {
        self.now.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.now.as_slice().read_at(buffer, offset)
    }
}

impl Device for Recorder {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        put(&mut self.now, offset, bytes);
        self.steps.push(Step::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.steps.push(Step::Flush);
        Ok(())
    }

    fn sector_size(&self) -> SectorSize {
        self.sector_size
    }
}
