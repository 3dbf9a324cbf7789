//! Back to the version before: by an operator's word, or since this one is given up.

use super::disk::{self, NodeDisk};
use super::esp::Claim;
use super::machine::{BY_HAND, State};
use super::record::Step;
use super::updater::Updater;
use crate::base::device::{ReadAt, Window};
use crate::base::failure::{Doing, Failure};
use crate::base::progress::{Progress, Task, Unit};
use crate::base::width::to_u64;
use crate::boot::entries::BootEntry;
use crate::disk::slot::Release;
use crate::update::apply;
use crate::verity;

/// What a roll-back came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolledBack {
    /// From the next boot on, the other version runs.
    AtNextBoot {
        /// What was given up.
        from: String,
        /// What will run.
        to: String,
    },
    /// What was waiting for the next boot never runs.
    Withdrawn {
        /// What was given up.
        version: String,
    },
}

impl Updater<'_> {
    /// Takes all tries from the entry of the version that runs, so that the other one starts next; or from that of a
    /// version that waits to be started.
    pub fn roll_back(&mut self) -> Result<RolledBack, Failure> {
        let result = self.try_roll_back();
        self.noted(Step::Looking, result)
    }

    fn try_roll_back(&mut self) -> Result<RolledBack, Failure> {
        let disk = NodeDisk::find()?;
        if let State::Staged { version } | State::WaitingToReboot { version, .. } = self.record.state.clone()
        {
            let doing = format!("withdrawing {version}");
            if let Some(entry) = self.entries.iter().find(|entry| entry.version == version).cloned() {
                demote(&disk, &entry, self.progress).map_err(|failure| failure.within(&doing))?;
            }
            self.record.state = self.record.state.clone().withdraw().doing(doing)?;
            self.record.rejected.insert(version.clone(), BY_HAND.to_owned());
            self.record.save()?;
            return Ok(RolledBack::Withdrawn { version });
        }
        let from = self.settings.version.clone();
        let doing = format!("going back from {from}");
        let Some(entry) = self.own_entry().cloned() else {
            return Err(Failure::new(
                doing,
                "the version that runs has no entry in the EFI system partition",
            ));
        };
        let Some(release) = disk.release(disk.running.other()) else {
            let cause = format!("slot {} holds no version", disk.running.other());
            return Err(Failure::new(doing, cause));
        };
        self.check_other(&disk, &release)?;
        let state = self.record.state.clone().roll_back(&from, &self.boot).doing(doing.as_str())?;
        demote(&disk, &entry, self.progress).map_err(|failure| failure.within(&doing))?;
        self.record.state = state;
        self.record.rejected.insert(from.clone(), BY_HAND.to_owned());
        self.record.save()?;
        Ok(RolledBack::AtNextBoot { from, to: release.version })
    }

    /// Reads the whole other slot: a way back that ends in a panic is none.
    fn check_other(&self, disk: &NodeDisk, release: &Release) -> Result<(), Failure> {
        let slot = disk.running.other();
        let doing = || format!("verifying {} in slot {slot}", release.version);
        let (root, tree) = disk.devices(slot)?;
        let open = |path: &str| disk::block(path, false, false).doing(format!("opening {path}"));
        let (root, tree) = (open(&root)?, open(&tree)?);
        let mut superblock = [0; verity::BLOCK];
        tree.read_at(&mut superblock, 0).doing(doing())?;
        let (_, blocks) = verity::parse_superblock(&superblock).doing(doing())?;
        let _task = Task::new(self.progress, &format!("verifying slot {slot}"), 0, Unit::Items);
        let size = blocks.saturating_mul(to_u64(verity::BLOCK)).min(root.size());
        let tree_size = tree.size();
        let (mut root, mut tree) = (Window::new(root, 0, size), Window::new(tree, 0, tree_size));
        verity::verify(&mut root, &mut tree, &release.root_hash).doing(doing())
    }
}

/// Takes all tries from `entry` while nobody else has the ESP, so that the boot loader starts another.
pub(super) fn demote(disk: &NodeDisk, entry: &BootEntry, progress: &dyn Progress) -> Result<(), Failure> {
    let whole = disk.whole()?;
    let mut claim = Claim::take(&disk.esp()?)?;
    let doing = || format!("taking all tries from {}", entry.file);
    let name = apply::demote(&whole, claim.device(), &entry.file).doing(doing())?;
    progress.note(&format!("{} is {name} now", entry.file));
    Ok(())
}
