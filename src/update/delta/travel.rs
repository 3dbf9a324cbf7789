//! One image on its way: which of its ways is the shortest from what is there, and what to do when it leads
//! nowhere.

use super::blocks::{Assembly, Entries, Survey, Tally};
use super::error::DeltaError;
use super::index::{self, Index};
use super::patch::{self, Patcher};
use super::runs::{BLOCK, Inventory};
use super::wire::{self, Wire};
use super::{Fetched, Way};
use crate::base::device::{Device, ReadAt};
use crate::base::progress::{Progress, Task, Unit};
use crate::base::width::to_u64;
use crate::base::{Chain, Digest};
use crate::update::document::{Blob, Piece, Ways};
use crate::update::remote::Remote;

/// A patch that is so many times as large as the index is taken without a look at what else there is.
const SMALL_PATCH: u64 = 16;

/// An image that is there, to start from.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    /// It.
    pub image: &'a dyn ReadAt,
    /// Bytes of it that count.
    pub size: u64,
    /// A patch is found by it.
    pub digest: Digest,
}

/// Brings one image into a target.
pub(super) struct Traveller<'a> {
    /// What it travels by.
    pub ways: &'a Ways,
    /// In bytes. The target has room for whole blocks.
    pub size: u64,
    /// Where the files are.
    pub remote: &'a dyn Remote,
    /// What is there already.
    pub base: Option<Base<'a>>,
    /// Where it goes.
    pub target: &'a mut dyn Device,
    /// Trusts nothing that the target holds.
    pub fresh: bool,
    /// Where to tell what happens.
    pub progress: &'a dyn Progress,
}

/// What happened on the way.
struct Journey<'a, 'r> {
    to: &'r mut Traveller<'a>,
    /// Ways that may be gone; those that led nowhere are taken out.
    open: Vec<Way>,
    /// The way that is being gone.
    way: Way,
    index: Option<Index>,
    bytes: u64,
    requests: u64,
}

impl Traveller<'_> {
    /// Writes the image to the beginning of the target, by the shortest of `ways`.
    ///
    /// # Errors
    /// That of the last way that was left, or of what is no fault of a way.
    pub(super) fn travel(&mut self, ways: &[Way]) -> Result<Fetched, DeltaError> {
        let (size, room) = (self.blocks_size(), self.target.size());
        if room < size {
            return Err(DeltaError::TooSmall { size, room });
        }
        let open = ways.iter().copied().filter(|way| *way != Way::Patch || self.patch().is_some()).collect();
        if ways == [Way::Patch] && self.patch().is_none() {
            return Err(DeltaError::NoPatch);
        }
        let journey = Journey { to: self, open, way: Way::Full, index: None, bytes: 0, requests: 0 };
        journey.travel()
    }

    /// Bytes of the blocks that the image fills.
    fn blocks_size(&self) -> u64 {
        self.size.div_ceil(to_u64(BLOCK)).saturating_mul(to_u64(BLOCK))
    }

    /// The smallest patch from what is there.
    fn patch(&self) -> Option<Blob> {
        let base = self.base?;
        let patches = self.ways.patches.iter().filter(|patch| patch.from == base.digest);
        patches.map(|patch| patch.blob).min_by_key(|blob| blob.size)
    }
}

impl Journey<'_, '_> {
    fn travel(mut self) -> Result<Fetched, DeltaError> {
        loop {
            match self.attempt() {
                Ok(Tally { reused, kept, written }) => {
                    let Self { way, bytes, requests, .. } = self;
                    return Ok(Fetched { way, bytes, requests, reused, kept, written });
                }
                Err(error) if error.is_of_this_way() && self.open.len() > 1 => {
                    self.open.retain(|way| *way != self.way);
                    let way = self.way.name();
                    let text =
                        format!("the way \"{way}\" is of no use, another one is taken: {}", Chain(&error));
                    self.to.progress.warn(&text);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn may(&self, way: Way) -> bool {
        self.open.contains(&way)
    }

    /// Goes the way that seems to be the shortest.
    fn attempt(&mut self) -> Result<Tally, DeltaError> {
        let ways = self.to.ways;
        let patch = self.to.patch().filter(|_| self.may(Way::Patch));
        let full = self.may(Way::Full).then_some(ways.full.size);
        match patch {
            Some(patch) if patch.size <= SMALL_PATCH * ways.index.size => return self.by_patch(&patch),
            _ => {}
        }
        if self.may(Way::Blocks) && (self.to.base.is_some() || full.is_none()) {
            return self.by_blocks(patch, full);
        }
        match patch {
            Some(patch) if full.is_none_or(|full| patch.size < full) => self.by_patch(&patch),
            _ => self.by_full(),
        }
    }

    fn by_patch(&mut self, patch: &Blob) -> Result<Tally, DeltaError> {
        self.way = Way::Patch;
        let base = self.to.base.expect("a patch is found by what is there");
        self.apply((patch, &[]), patch::FILE, base.image, base.size)
    }

    fn by_full(&mut self) -> Result<Tally, DeltaError> {
        self.way = Way::Full;
        let ways = self.to.ways;
        self.apply((&ways.full, &ways.full_pieces), patch::FULL, &[0; 0].as_slice(), 0)
    }

    fn apply(
        &mut self,
        (blob, pieces): (&Blob, &[Piece]),
        file: &'static str,
        old: &dyn ReadAt,
        old_size: u64,
    ) -> Result<Tally, DeltaError> {
        let Traveller { size: new_size, remote, fresh, progress, .. } = *self.to;
        let mut wire = Wire::made_of(remote, blob, pieces);
        let task = Task::new(progress, "updating", new_size, Unit::Bytes);
        let target = &mut *self.to.target;
        let patcher =
            Patcher { file, wire: &mut wire, size: blob.size, old, old_size, new_size, target, fresh };
        let result = patcher.run(&task);
        self.count(&wire);
        result
    }

    fn count(&mut self, wire: &Wire) {
        self.bytes += wire.bytes;
        self.requests += wire.requests;
    }

    /// Reads the index and compares it with what is there; goes another way if one is shorter.
    fn by_blocks(&mut self, patch: Option<Blob>, full: Option<u64>) -> Result<Tally, DeltaError> {
        self.way = Way::Blocks;
        let index = self.index()?;
        let (ways, base, progress) = (self.to.ways, self.to.base, self.to.progress);
        let inventory = match base {
            Some(base) => {
                let task = Task::new(progress, "comparing", base.size, Unit::Bytes);
                Inventory::of(base.image, base.size, &task)
                    .map_err(|(at, source)| DeltaError::Old { at, source })?
            }
            None => Inventory::default(),
        };
        let survey = {
            let task = Task::new(progress, "comparing", index.size, Unit::Bytes);
            Survey::of(&index, &inventory, self.to.target, self.to.fresh, &task)?
        };
        let rest = survey.missing_share(&index);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let full = full.map(|size| (size as f64 * rest) as u64);
        let shortest = |blocks: u64| {
            let ways =
                [(Some(blocks), Way::Blocks), (patch.map(|it| it.size), Way::Patch), (full, Way::Full)];
            let costs = ways.into_iter().filter_map(|(cost, way)| Some((cost?, way)));
            costs.min_by_key(|(cost, _)| *cost).map_or(Way::Blocks, |(_, way)| way)
        };
        let mut wire = Wire::made_of(self.to.remote, &ways.frames, &ways.frames_pieces);
        let mut way = shortest(survey.lacking(&index));
        let mut entries = Ok(Entries::default());
        if way == Way::Blocks {
            entries = Entries::read(&index, &survey, &mut wire);
            if wire.no_ranges {
                way = shortest(wire.without_ranges(survey.end(&index)));
            }
        }
        if way != Way::Blocks {
            self.count(&wire);
            self.index = Some(index);
            return match patch.filter(|_| way == Way::Patch) {
                Some(patch) => self.by_patch(&patch),
                None => self.by_full(),
            };
        }
        let task = Task::new(progress, "updating", index.size, Unit::Bytes);
        let target = &mut *self.to.target;
        let result = entries.and_then(|entries| {
            let assembly = Assembly {
                index: &index,
                survey: &survey,
                entries: &entries,
                inventory: &inventory,
                old: base.map(|base| base.image),
                wire: &mut wire,
                target,
                tally: Tally::default(),
            };
            assembly.run(&task)
        });
        self.count(&wire);
        result
    }

    /// The index, which is fetched once.
    fn index(&mut self) -> Result<Index, DeltaError> {
        if let Some(index) = self.index.take() {
            return Ok(index);
        }
        let ways = self.to.ways;
        let (bytes, count) = wire::whole(self.to.remote, &ways.index, index::LIMIT, "the index")?;
        self.bytes += count;
        self.requests += 1;
        Index::parse(&bytes, self.to.blocks_size(), ways.frames.size)
    }
}
