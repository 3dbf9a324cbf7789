//! How much of a lock may change, and what is resolved under that.

use std::path::Path;

use anyhow::{Result, bail};

use super::Outside;
use crate::image::Means;
use crate::lock::resolve::Update;
use crate::lock::{Lock, Resolved, asked};
use crate::manifest::Manifest;

/// How much of a lock may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: what is missing or stale is an error.
    Locked,
    /// What the manifest asks for anew; what is locked stays.
    Follow,
    /// Also what `keller lock --update` names.
    Update(Update),
}

impl Policy {
    /// What is resolved for `manifest`: what the lock `found` at `path` has where that fits, else anew as far as this
    /// policy lets.
    ///
    /// # Errors
    /// A lock that is missing or stale where nothing may change, and what keeps packages from being resolved.
    pub fn resolved(
        &self,
        manifest: &Manifest,
        path: &Path,
        found: Option<&Lock>,
        outside: &Outside<'_>,
        means: &Means<'_>,
    ) -> Result<Resolved> {
        let stale = found.and_then(|lock| asked::staleness(lock, manifest));
        let update = match (self, found, &stale) {
            (Self::Locked, None, _) => {
                bail!("there is no lock {}: make it with `keller lock`", path.display())
            }
            (Self::Locked, Some(_), Some(stale)) => bail!(
                "{} does not fit the manifest any more; `keller lock` mends it\n{stale}",
                path.display()
            ),
            (Self::Locked | Self::Follow, Some(lock), None) => return Ok(lock.clone().into()),
            (Self::Update(update), ..) => update.clone(),
            _ => Update::Nothing,
        };
        if let Some(stale) = stale {
            means.progress.note(&format!("{} is stale:\n{stale}", path.display()));
        }
        let resolved = outside.resolve(manifest, found, &update, means)?;
        // A lock that pins the same as before stays as it is, its time included: the image stays the same.
        let same = found.filter(|found| resolved.pins_the_same(found));
        Ok(same.map_or(resolved, |found| found.clone().into()))
    }
}
