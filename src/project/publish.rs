//! Versions for nodes to take, in a repository of static files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use crate::base::chain::{is_full, is_too_large};
use crate::base::progress::Progress;
use crate::image::published::Published;
use crate::repository::keys::Keys;
use crate::repository::publish::{Added, Options, Prune, Pruned, Times};
use crate::repository::{Listing, Repository};

/// What `keller publish` is told.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The repository's directory; made when missing.
    pub to: PathBuf,
    /// How long nodes believe that there is nothing newer, unless it is renewed.
    pub life: Duration,
    /// What is done in it.
    pub change: Change,
}

/// What is done in a repository.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds the raw image at this path, then prunes its versions.
    Add(PathBuf, Options, Option<Prune>),
    /// Adds a published version to channels.
    Promote(Which),
    /// Takes a published version out of channels.
    Withdraw(Which),
    /// Renews what expires, and brings new keys out.
    Refresh,
    /// Takes out what nobody needs; where the second is true, only tells what that would be.
    Prune(Prune, bool),
    /// Nothing: lists what is published, of one image or of all.
    List(Option<String>),
}

/// A published version, and the channels that are meant.
#[derive(Clone, Debug)]
pub struct Which {
    /// Of several images in one repository, this one.
    pub id: Option<String>,
    /// As it was published.
    pub version: String,
    /// At least one.
    pub channels: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// What became of the image, and of versions before it.
    Added(Added, Option<Pruned>),
    /// What nobody needed.
    Pruned(Pruned),
    /// The version as it is listed now.
    Changed(Listing),
    /// When the first of what expires does.
    Refreshed(Timestamp),
    /// What is published.
    Listed(Vec<Listing>),
}

impl Publish {
    /// Does it, signed with `keys`.
    ///
    /// # Errors
    /// Images, keys and repositories that do not go together; see the repository.
    pub fn run(&self, keys: &Keys, progress: &dyn Progress) -> Result<Outcome> {
        self.change(keys, progress).map_err(|error| match is_full(error.as_ref()) {
            _ if is_too_large(error.as_ref()) => error.context(format!(
                "{} takes no file of this size: raise `ulimit -f`, or use another file system",
                self.to.display()
            )),
            true => error.context(format!(
                "no space is left in {}: free some, such as by `keller publish --prune`",
                self.to.display()
            )),
            false => error,
        })
    }

    fn change(&self, keys: &Keys, progress: &dyn Progress) -> Result<Outcome> {
        let opening = || format!("opening the repository {}", self.to.display());
        let times = Times { now: Timestamp::now(), life: self.life };
        let open = || Repository::open(&self.to, keys).with_context(opening);
        Ok(match &self.change {
            Change::Add(path, options, prune) => {
                let mut repository = open()?;
                let added = add(&mut repository, path, options, times, progress)?;
                let pruned = prune.as_ref().map(|prune| {
                    let prune = prune.of(&added.listing.id);
                    let pruned = repository.prune(&prune, times, progress);
                    let version = &added.listing.version;
                    pruned.with_context(|| format!("{version} is published; pruning {}", self.to.display()))
                });
                Outcome::Added(added, pruned.transpose()?)
            }
            Change::Prune(prune, is_plan) => {
                self.check_there()?;
                let pruned = match is_plan {
                    true => Repository::open_to_read(&self.to, keys)
                        .with_context(opening)?
                        .plan_prune(prune, times, progress),
                    false => open()?.prune(prune, times, progress),
                };
                Outcome::Pruned(pruned.with_context(|| format!("pruning {}", self.to.display()))?)
            }
            Change::Promote(which) => {
                let mut repository = open()?;
                Outcome::Changed(which.each(|id, version, channel| {
                    let listing = repository.promote(id, version, channel, times, progress);
                    listing.with_context(|| format!("adding {version} to {channel}"))
                })?)
            }
            Change::Withdraw(which) => {
                let mut repository = open()?;
                Outcome::Changed(which.each(|id, version, channel| {
                    let listing = repository.withdraw(id, version, channel, times, progress);
                    listing.with_context(|| format!("taking {version} out of {channel}"))
                })?)
            }
            Change::Refresh => {
                let expires = open()?.refresh(times, progress);
                Outcome::Refreshed(expires.with_context(|| format!("renewing {}", self.to.display()))?)
            }
            Change::List(id) => {
                self.check_there()?;
                let releases = Repository::open_to_read(&self.to, keys).with_context(opening)?.releases();
                let is_meant = |listing: &Listing| id.as_ref().is_none_or(|id| listing.id == *id);
                Outcome::Listed(releases.into_iter().filter(is_meant).collect())
            }
        })
    }
}

impl Publish {
    /// Nothing is made where something is to be there.
    fn check_there(&self) -> Result<()> {
        if !self.to.is_dir() {
            bail!("{} is not there", self.to.display());
        }
        Ok(())
    }
}

fn add(
    repository: &mut Repository<'_>,
    path: &Path,
    options: &Options,
    times: Times,
    progress: &dyn Progress,
) -> Result<Added> {
    let doing = || format!("publishing {}", path.display());
    let image = Published::read(path, progress).with_context(doing)?;
    repository.add(&image.image(), options, times, progress).with_context(doing)
}

impl Which {
    /// Does `change` for each channel; gives what the last one left.
    fn each(&self, mut change: impl FnMut(Option<&str>, &str, &str) -> Result<Listing>) -> Result<Listing> {
        let mut listing = None;
        for channel in &self.channels {
            listing = Some(change(self.id.as_deref(), &self.version, channel)?);
        }
        listing.context("no channel is named")
    }
}
