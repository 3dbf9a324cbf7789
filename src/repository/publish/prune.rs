//! Takes versions out that nobody needs any more, and deletes files that no node can be led to.
//!
//! A version first leaves the signed list. Its files stay for as long as a node may still believe a list that names
//! them; [`files`] says how long that is. So whatever ends this at any moment, no node finds a file missing that a list
//! has led it to.

mod files;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use self::files::Sweep;
use super::needed::{Keep, Need, needs};
use super::*;
use crate::base::progress::{Task, Unit};
use crate::repository::former::Former;

/// What goes, and when.
#[derive(Clone, Debug)]
pub struct Prune {
    /// Which versions stay in the list; all of them where there is nothing.
    pub keep: Option<Keep>,
    /// How long files stay after the list has ceased to name them; else until the last list that names them is believed
    /// no more.
    pub grace: Option<Duration>,
}

impl Prune {
    /// The same, of the image `id` alone.
    pub fn of(&self, id: &str) -> Self {
        let keep = self.keep.clone().map(|keep| Keep { id: Some(id.to_owned()), ..keep });
        Self { keep, ..self.clone() }
    }
}

/// What was done, or would be.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pruned {
    /// Versions that are no longer listed.
    pub unlisted: Vec<Unlisted>,
    /// Versions that stay, and what for; none where only files were looked at.
    pub kept: Vec<Kept>,
    /// Files that are gone.
    pub removed: Count,
    /// Files that nothing names any more, but a list that a node may still believe.
    pub waiting: Count,
    /// When the last of those may go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// All files that are left.
    pub left: Count,
}

/// A version that has left the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unlisted {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
    /// The channels that it was in.
    pub channels: Vec<String>,
}

/// A version that stays.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
    /// What it is needed for.
    pub needs: Vec<Need>,
}

/// Some files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// The list without what goes.
struct Shorter {
    targets: Targets,
    unlisted: Vec<Unlisted>,
    kept: Vec<Kept>,
}

impl Repository<'_> {
    /// Takes out of the list what `prune` does not keep, and removes files that no node can be led to.
    ///
    /// # Errors
    /// `Empty`, `Stale`, `NewerFormat`, `Damaged`, and where versions go those of keys; nothing has changed then.
    /// `Write` and `Remove` of the disk: the next try goes on from there.
    pub fn prune(
        &mut self,
        prune: &Prune,
        times: Times,
        progress: &dyn Progress,
    ) -> Result<Pruned, PublishError> {
        let shorter = self.shorter(prune, times, progress)?;
        let goes = !shorter.unlisted.is_empty();
        // Before anything is written: on a full disk this makes room for the list.
        let mut pruned = self.sweep(prune, times.now, progress)?;
        if goes {
            self.commit(Some(shorter.targets), times)?;
            let before = pruned.removed;
            pruned = self.sweep(prune, times.now, progress)?;
            pruned.removed.files += before.files;
            pruned.removed.bytes += before.bytes;
        }
        Ok(Pruned { unlisted: shorter.unlisted, kept: shorter.kept, ..pruned })
    }

    /// What [`Repository::prune`] would do now, and changes nothing.
    ///
    /// # Errors
    /// The same, but for the disk's.
    pub fn plan_prune(
        &self,
        prune: &Prune,
        times: Times,
        progress: &dyn Progress,
    ) -> Result<Pruned, PublishError> {
        let shorter = self.shorter(prune, times, progress)?;
        let next = (!shorter.unlisted.is_empty()).then_some(&shorter.targets);
        let Sweep { goes, waiting, until, left } = self.find_files(next, times.now, prune.grace)?;
        let mut removed = Count::default();
        goes.iter().for_each(|file| removed.add(file.size));
        Ok(Pruned { unlisted: shorter.unlisted, kept: shorter.kept, removed, waiting, until, left })
    }

    /// By a clock that is far ahead, nobody would believe anything any more.
    fn check_fresh(&self, now: Timestamp) -> Result<(), PublishError> {
        let path = || self.folder.path().to_owned();
        let state = self.state.as_ref().ok_or_else(|| PublishError::Empty { path: path() })?;
        match state.expires < now {
            true => Err(PublishError::Stale { since: state.expires, now, path: path() }),
            false => Ok(()),
        }
    }

    /// The list without what goes, which the keys at hand can sign.
    fn shorter(&self, prune: &Prune, times: Times, progress: &dyn Progress) -> Result<Shorter, PublishError> {
        self.check_fresh(times.now)?;
        let mut shorter = Shorter { targets: self.targets(times), unlisted: Vec::new(), kept: Vec::new() };
        let Some(keep) = &prune.keep else { return Ok(shorter) };
        let mut former = self.former()?;
        let releases = self.releases();
        for (listing, needs) in releases.iter().zip(needs(&releases, keep)) {
            let (id, version) = (listing.id.clone(), listing.version.clone());
            if !needs.is_empty() {
                shorter.kept.push(Kept { id, version, needs: needs.into_iter().collect() });
                continue;
            }
            former.add(listing, &self.document(listing)?);
            release::unlist(&mut shorter.targets, listing);
            shorter.unlisted.push(Unlisted { id, version, channels: listing.channels.clone() });
        }
        former.write(&mut shorter.targets);
        if !shorter.unlisted.is_empty() {
            self.check_keys(times, progress, true)?;
        }
        Ok(shorter)
    }

    /// What the list remembers of versions that have left it.
    pub(super) fn former(&self) -> Result<Former, PublishError> {
        let Some(state) = &self.state else { return Ok(Former::default()) };
        Former::read(&state.targets.signed).map_err(|error| PublishError::Damaged {
            path: format!(
                "{}/{}",
                metadata::FOLDER,
                numbered(state.targets.signed.version.get(), RoleType::Targets)
            ),
            problem: error.to_string(),
        })
    }

    fn sweep(&self, prune: &Prune, now: Timestamp, progress: &dyn Progress) -> Result<Pruned, PublishError> {
        let Sweep { goes, waiting, until, left } = self.find_files(None, now, prune.grace)?;
        let task = Task::new(progress, "removing", to_u64(goes.len()), Unit::Items);
        let mut removed = Count::default();
        for file in goes {
            task.at(&file.path);
            self.folder
                .remove(&file.path)
                .map_err(|source| PublishError::Remove { path: file.path.clone(), source })?;
            removed.add(file.size);
            task.advance(1);
        }
        Ok(Pruned { removed, waiting, until, left, ..Pruned::default() })
    }
}
