//! What a switch knows and decides: which frame goes to whom, and how late. Pure: no socket, no clock, no thread.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::base::width::to_u64;

/// A card's address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mac(pub(super) [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Mac {
    /// Of the card that the machine `name` has in a lab: QEMU's prefix, and three bytes that follow from the name.
    pub(super) fn of(name: &str) -> Self {
        let digest = crate::base::Digest::of(format!("keller lab {name}").as_bytes());
        let [a, b, c, ..] = *digest.as_bytes();
        Self([0x52, 0x54, 0x00, a, b, c])
    }

    /// Whether frames to it are for more than one card.
    const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

/// Most addresses that are remembered: a guest can make up as many as it likes.
const ADDRESSES: usize = 1024;

/// Most pairs of addresses that are counted one by one.
const PAIRS: usize = 4096;

/// Destination, source and type (IEEE 802.3, 3.1.1).
const HEADER: usize = 14;

/// What the cable between two machines does to frames; in both directions alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    /// Nothing goes through.
    pub(super) cut: bool,
    /// How much later each frame comes.
    pub(super) delay: Duration,
    /// How many of a million frames are lost.
    pub(super) loss: u32,
}

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

/// A frame's way to one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) port: usize,
    pub(super) delay: Duration,
}

/// The switch without its wires.
pub(super) struct Core {
    ports: usize,
    learned: BTreeMap<Mac, usize>,
    conditions: BTreeMap<(usize, usize), Condition>,
    /// By source and destination.
    traffic: BTreeMap<(Mac, Mac), Count>,
    /// What came after so many pairs that no more are told apart.
    others: Count,
    /// Frames that a cut or lossy cable has swallowed.
    lost: u64,
    random: Random,
}

impl Core {
    /// A switch of so many ports. The same `seed` loses the same frames.
    pub(super) fn new(ports: usize, seed: u64) -> Self {
        let (learned, conditions, traffic) = Default::default();
        Self { ports, learned, conditions, traffic, others: Count::default(), lost: 0, random: Random(seed) }
    }

    /// Takes in a frame that came from `port`; says where it goes.
    pub(super) fn forward(&mut self, port: usize, frame: &[u8]) -> Vec<Delivery> {
        let Some((destination, source)) = addresses(frame) else { return Vec::new() };
        self.count(source, destination, frame.len());
        self.learn(source, port);
        let known = self.learned.get(&destination).copied().filter(|_| !destination.is_group());
        match known {
            Some(to) if to == port => Vec::new(),
            Some(to) => self.through(port, to).into_iter().collect(),
            None => {
                (0..self.ports).filter(|to| *to != port).filter_map(|to| self.through(port, to)).collect()
            }
        }
    }

    fn count(&mut self, source: Mac, destination: Mac, bytes: usize) {
        let is_full = self.traffic.len() >= PAIRS;
        let count = match self.traffic.get_mut(&(source, destination)) {
            Some(count) => count,
            None if is_full => &mut self.others,
            None => self.traffic.entry((source, destination)).or_default(),
        };
        count.frames += 1;
        count.bytes += to_u64(bytes);
    }

    fn learn(&mut self, source: Mac, port: usize) {
        if !source.is_group() && (self.learned.len() < ADDRESSES || self.learned.contains_key(&source)) {
            self.learned.insert(source, port);
        }
    }

    /// What the cable makes of one frame.
    fn through(&mut self, from: usize, to: usize) -> Option<Delivery> {
        let condition = self.condition(from, to);
        if condition.cut || (condition.loss > 0 && self.random.below(1_000_000) < condition.loss) {
            self.lost += 1;
            return None;
        }
        Some(Delivery { port: to, delay: condition.delay })
    }

    /// Counts frames that a cut cable lost on their way.
    pub(super) const fn lose(&mut self, frames: u64) {
        self.lost += frames;
    }

    /// Forgets who is behind `port`: another card may be there next.
    pub(super) fn forget(&mut self, port: usize) {
        self.learned.retain(|_, learned| *learned != port);
    }

    /// What the cable between two ports does.
    pub(super) fn condition(&self, a: usize, b: usize) -> Condition {
        self.conditions.get(&pair(a, b)).copied().unwrap_or_default()
    }

    /// Has the cable between two ports do this from now on.
    pub(super) fn set(&mut self, a: usize, b: usize, condition: Condition) {
        match condition == Condition::default() {
            true => self.conditions.remove(&pair(a, b)),
            false => self.conditions.insert(pair(a, b), condition),
        };
    }

    /// The cables that are not whole.
    pub(super) fn conditions(&self) -> impl Iterator<Item = ((usize, usize), Condition)> {
        self.conditions.iter().map(|(pair, condition)| (*pair, *condition))
    }

    /// Frames that came, by source and destination.
    pub(super) fn traffic(&self) -> impl Iterator<Item = ((Mac, Mac), Count)> {
        self.traffic.iter().map(|(pair, count)| (*pair, *count))
    }

    /// Frames between addresses that are not told apart.
    pub(super) const fn others(&self) -> Count {
        self.others
    }

    /// Frames that a cut or lossy cable has swallowed.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }
}

const fn pair(a: usize, b: usize) -> (usize, usize) {
    if a < b { (a, b) } else { (b, a) }
}

/// Destination and source; nothing of a frame that has no room for them.
fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    let header = frame.get(..HEADER)?;
    let (destination, rest) = header.split_first_chunk::<6>()?;
    Some((Mac(*destination), Mac(*rest.first_chunk::<6>()?)))
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: u32) -> u32 {
        // The quotient is below `end`; of 2^64 numbers it prefers some by less than one in 2^32.
        u32::try_from((u128::from(self.next()) * u128::from(end)) >> 64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Mac = Mac([0xff; 6]);

    fn frame(destination: Mac, source: Mac) -> Vec<u8> {
        [&destination.0[..], &source.0, &[8, 0, 1, 2]].concat()
    }

    fn ports(deliveries: &[Delivery]) -> Vec<usize> {
        deliveries.iter().map(|delivery| delivery.port).collect()
    }

    #[test]
    fn it_learns_floods_and_forgets() {
        let [a, b, c] = ["a", "b", "c"].map(Mac::of);
        let mut core = Core::new(3, 1);
        assert_eq!(ports(&core.forward(0, &frame(ALL, a))), [1, 2]);
        assert_eq!(ports(&core.forward(1, &frame(a, b))), [0]);
        assert_eq!(ports(&core.forward(0, &frame(b, a))), [1]);
        // Nobody has said that it is c.
        assert_eq!(ports(&core.forward(0, &frame(c, a))), [1, 2]);
        // What is behind the same port does not come back.
        assert!(core.forward(1, &frame(b, c)).is_empty());
        // An address that moves is where it was heard last.
        assert_eq!(ports(&core.forward(2, &frame(a, b))), [0]);
        assert_eq!(ports(&core.forward(0, &frame(b, a))), [2]);
        core.forget(2);
        assert_eq!(ports(&core.forward(0, &frame(b, a))), [1, 2]);
        // A group never sends.
        core.forward(2, &frame(a, ALL));
        assert_eq!(ports(&core.forward(0, &frame(ALL, a))), [1, 2]);
        for short in [0, 6, 13] {
            assert_eq!(core.forward(0, &frame(ALL, a)[..short]), []);
        }
    }

    #[test]
    fn cables_are_cut_delayed_and_lossy_by_pair() {
        let [a, b] = ["a", "b"].map(Mac::of);
        let mut core = Core::new(3, 1);
        core.set(1, 0, Condition { cut: true, ..Condition::default() });
        assert_eq!(ports(&core.forward(0, &frame(ALL, a))), [2]);
        assert!(core.forward(1, &frame(a, b)).is_empty());
        assert_eq!(core.lost(), 2);
        let late = Duration::from_millis(200);
        core.set(0, 1, Condition { delay: late, ..Condition::default() });
        let deliveries = core.forward(0, &frame(ALL, a));
        assert_eq!(
            deliveries,
            [Delivery { port: 1, delay: late }, Delivery { port: 2, delay: Duration::ZERO }]
        );
        assert_eq!(core.conditions().count(), 1);
        core.set(0, 1, Condition::default());
        assert_eq!(core.conditions().count(), 0);
    }

    #[test]
    fn one_seed_loses_the_same_frames() {
        let [a, b] = ["a", "b"].map(Mac::of);
        let lost = |seed| {
            let mut core = Core::new(2, seed);
            core.set(0, 1, Condition { loss: 100_000, ..Condition::default() });
            (0..10_000).map(|_| core.forward(0, &frame(b, a)).is_empty()).collect::<Vec<_>>()
        };
        let count = lost(7).iter().filter(|lost| **lost).count();
        assert!((900..1100).contains(&count), "{count}");
        assert!(lost(7) == lost(7) && lost(7) != lost(8));
        let mut core = Core::new(2, 7);
        core.set(0, 1, Condition { loss: 1_000_000, ..Condition::default() });
        assert!((0..1000).all(|_| core.forward(0, &frame(b, a)).is_empty()));
    }

    #[test]
    fn frames_are_counted_by_source_and_destination() {
        let [a, b] = ["a", "b"].map(Mac::of);
        let mut core = Core::new(2, 1);
        // What a cut cable swallows was sent all the same.
        core.set(0, 1, Condition { cut: true, ..Condition::default() });
        core.forward(0, &frame(b, a));
        core.forward(0, &frame(b, a));
        core.forward(1, &frame(ALL, b));
        let counted: Vec<_> = core.traffic().collect();
        assert!(counted.contains(&((a, b), Count { frames: 2, bytes: 32 })), "{counted:?}");
        assert!(counted.contains(&((b, ALL), Count { frames: 1, bytes: 16 })), "{counted:?}");
    }

    #[test]
    fn made_up_addresses_take_a_bounded_amount_of_memory() {
        let mut core = Core::new(2, 1);
        let made_up = |number: u32| {
            let [a, b, c, d] = number.to_be_bytes();
            Mac([2, 0, a, b, c, d])
        };
        for number in 0..20_000 {
            core.forward(0, &frame(ALL, made_up(number)));
        }
        assert_eq!((core.learned.len(), core.traffic.len()), (ADDRESSES, PAIRS));
        assert_eq!(core.others().frames, 20_000 - to_u64(PAIRS));
    }

    #[test]
    fn a_name_gives_an_address() {
        assert!(Mac::of("a").to_string().starts_with("52:54:00:"));
        assert_ne!(Mac::of("a"), Mac::of("b"));
    }
}
