//! Finds how to make new bytes out of old ones, as bsdiff does: stretches that are nearly the same, whose
//! differences are mostly zeros, and what is left over.
//!
//! C. Percival, "Naive differences of executable code", 2003. A change in a program shifts what follows it,
//! so that addresses all over it change by a little; adding to the old bytes says that much shorter than
//! copying between the changes does. Where bsdiff sorts all suffixes of the old bytes, this looks up eight
//! bytes at a time in chains of equal hashes: several times faster, a fifth of the memory, and as good but
//! for matches of less than eight bytes, which seldom pay.

use crate::base::width::{to_index, to_usize};

/// Bytes that a match begins with.
const SEED: usize = 8;
/// Candidates that are looked at for one position.
const DEPTH: usize = 32;
/// Where a longer match would change nothing: the search goes on at its end, and finds the rest.
const LONG: usize = 512;
/// A match has to have so many bytes more than the old place gives before it is worth another step.
const BETTER: usize = 8;
const NONE: u32 = u32::MAX;

/// One step: `add` bytes that are the sum of old ones from `from` on and a difference, then `copy` new bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Offset in the old bytes.
    pub from: usize,
    /// In bytes.
    pub add: usize,
    /// In bytes.
    pub copy: usize,
}

/// Old bytes, and where in them to look for what.
pub(super) struct Finder<'a> {
    old: &'a [u8],
    /// The last position of each hash.
    heads: Vec<u32>,
    /// The position before each, of the same hash.
    previous: Vec<u32>,
    shift: u32,
}

impl<'a> Finder<'a> {
    /// Takes in old bytes, less than 4 GiB of them. It keeps 4 to 8 bytes for each.
    pub(super) fn new(old: &'a [u8]) -> Self {
        assert!(old.len() < to_index(NONE), "positions have 32 bits");
        let bits = (old.len().max(1).ilog2() + 1).clamp(10, 24);
        let mut finder =
            Self { old, heads: vec![NONE; 1 << bits], previous: vec![NONE; old.len()], shift: 64 - bits };
        let mut last = None;
        for at in 0..(old.len() + 1).saturating_sub(SEED) {
            let seed = seed(old, at);
            // One byte over and over is found at its beginning; a chain of all its positions is slow.
            if last == Some(seed) {
                continue;
            }
            last = Some(seed);
            let head = &mut finder.heads[hash(seed, finder.shift)];
            finder.previous[at] = *head;
            *head = u32::try_from(at).expect("asserted above");
        }
        finder
    }

    /// What was taken in.
    pub(super) fn old(&self) -> &'a [u8] {
        self.old
    }

    /// The longest match for `new[at..]` that was found, and its length; that at `aligned` where none is
    /// longer.
    fn longest(&self, new: &[u8], at: usize, aligned: Option<usize>) -> (usize, usize) {
        let new = &new[at..];
        let (mut best, mut length) = match aligned {
            Some(position) if position < self.old.len() => (position, common(&self.old[position..], new)),
            _ => (0, 0),
        };
        if new.len() < SEED || length >= LONG {
            return (best, length);
        }
        let mut candidate = self.heads[hash(seed(new, 0), self.shift)];
        for _ in 0..DEPTH {
            if candidate == NONE {
                break;
            }
            let position = to_index(candidate);
            // The byte that would make it longer is compared first.
            if self.old.get(position + length) == new.get(length) || length == 0 {
                let found = common(&self.old[position..], new);
                if found > length && found >= SEED {
                    (best, length) = (position, found);
                    if length >= LONG {
                        break;
                    }
                }
            }
            candidate = self.previous[position];
        }
        (best, length)
    }

    /// The steps that make `new`: all of it.
    pub(super) fn steps(&self, new: &[u8]) -> Vec<Step> {
        let old = self.old;
        let same = |at: usize, offset: isize| {
            at.checked_add_signed(offset).and_then(|at| old.get(at)) == Some(&new[at])
        };
        let mut steps = Vec::new();
        let (mut scan, mut position, mut length) = (0, 0, 0);
        // Where the step that is being made begins, in new and old, and old less new of it.
        let (mut from_new, mut from_old, mut offset) = (0_usize, 0_usize, 0_isize);
        while scan < new.len() {
            scan += length;
            // Bytes of new[scan..counted] that the present step would give.
            let (mut score, mut counted) = (0, scan);
            while scan < new.len() {
                let aligned = scan.checked_add_signed(offset);
                (position, length) = self.longest(new, scan, aligned);
                while counted < scan + length.max(1) {
                    score += usize::from(same(counted, offset));
                    counted += 1;
                }
                if (length == score && length != 0) || length > score + BETTER {
                    break;
                }
                score -= usize::from(same(scan, offset));
                scan += 1;
                length = 0;
            }
            if length == score && scan < new.len() {
                continue;
            }
            let mut forward = forward(&old[from_old.min(old.len())..], &new[from_new..scan]);
            let mut backward = match scan < new.len() {
                true => backward(&old[..position], &new[from_new..scan]),
                false => 0,
            };
            if from_new + forward > scan - backward {
                let overlap = from_new + forward - (scan - backward);
                let keep = split(
                    &new[scan - backward..][..overlap],
                    &old[from_old + forward - overlap..][..overlap],
                    &old[position - backward..][..overlap],
                );
                forward = forward - overlap + keep;
                backward -= keep;
            }
            let copy = scan - backward - (from_new + forward);
            if forward + copy > 0 {
                steps.push(Step { from: from_old, add: forward, copy });
            }
            from_new = scan - backward;
            from_old = position - backward;
            offset = position.cast_signed() - scan.cast_signed();
        }
        steps
    }
}

fn seed(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("asked for where there are eight"))
}

fn hash(seed: u64, shift: u32) -> usize {
    to_usize(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift)
}

/// How many bytes are the same, up to [`LONG`].
fn common(a: &[u8], b: &[u8]) -> usize {
    let limit = a.len().min(b.len()).min(LONG);
    let (a, b) = (&a[..limit], &b[..limit]);
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    for (number, (a, b)) in words.enumerate() {
        let difference = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if difference != 0 {
            return number * 8 + to_index(difference.trailing_zeros()) / 8;
        }
    }
    let whole = limit / 8 * 8;
    whole + a[whole..].iter().zip(&b[whole..]).take_while(|(a, b)| a == b).count()
}

/// How far to go on from the beginning so that most bytes are the same.
fn forward(old: &[u8], new: &[u8]) -> usize {
    best_length(old.iter().zip(new).map(|(old, new)| old == new))
}

/// The same from the end.
fn backward(old: &[u8], new: &[u8]) -> usize {
    best_length(old.iter().rev().zip(new.iter().rev()).map(|(old, new)| old == new))
}

/// The length at which the bytes that are the same exceed the others by most.
fn best_length(same: impl Iterator<Item = bool>) -> usize {
    let (mut score, mut best, mut length) = (0_i64, 0, 0);
    for (same, count) in same.zip(1..) {
        score += if same { 1 } else { -1 };
        if score > best {
            (best, length) = (score, count);
        }
    }
    length
}

/// How much of `new` to leave to the step before, of two that both could give it.
fn split(new: &[u8], before: &[u8], after: &[u8]) -> usize {
    let (mut score, mut best, mut length) = (0_i64, 0, 0);
    for (index, new) in new.iter().enumerate() {
        score += i64::from(before[index] == *new) - i64::from(after[index] == *new);
        if score > best {
            (best, length) = (score, index + 1);
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::width::to_u64;
    use crate::update::delta::testing::{Random, noise, text};

    /// Follows the steps; gives what they make, and how many bytes had to be copied from new.
    fn follow(old: &[u8], new: &[u8]) -> (usize, usize) {
        let steps = Finder::new(old).steps(new);
        let (mut at, mut copied) = (0, 0);
        for step in &steps {
            assert!(step.from + step.add <= old.len());
            at += step.add + step.copy;
            copied += step.copy;
        }
        assert_eq!(at, new.len(), "all of it");
        (copied, steps.len())
    }

    #[test]
    fn finds_what_moved_and_what_changed_a_little() {
        let old = noise(1, 60_000);
        assert_eq!(follow(&old, &old), (0, 1));
        assert_eq!(follow(&old, &[]), (0, 0));
        assert_eq!(follow(&[], &old[..1000]), (1000, 1));
        let moved = [&old[30_000..], b"something new in the middle", &old[..30_000]].concat();
        assert_eq!(follow(&old, &moved), (27, 2));
        // Every 50th byte is another: one step, no copy.
        let mut changed = old.clone();
        changed.iter_mut().step_by(50).for_each(|byte| *byte ^= 0x55);
        assert_eq!(follow(&old, &changed[1..]), (0, 1));
    }

    #[test]
    fn random_edits_are_followed() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let old = if seed % 2 == 0 { text(seed, 4000) } else { vec![(seed / 10) as u8; 3000] };
            let mut new = old.clone();
            for _ in 0..random.below(12) {
                let at = to_usize(random.below(to_u64(new.len())));
                let length = to_usize(random.below(60));
                match random.below(3) {
                    0 => drop(new.splice(at..at, noise(random.next(), length))),
                    1 => drop(new.drain(at..(at + length).min(new.len()))),
                    _ => new[at] ^= 1,
                }
            }
            let (copied, _) = follow(&old, &new);
            assert!(copied <= 12 * 80, "{copied} bytes copied, seed {seed}");
        }
    }
}
