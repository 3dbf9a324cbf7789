//! Building a second time, differently, and comparing: what `keller build --check` promises.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::difference::{self, Difference};
use super::{Job, Means, Settings, inputs, root};
use crate::base::chain::{is_full, is_too_large};
use crate::base::progress::Silent;
use crate::base::scratch::Scratch;
use crate::disk::SectorSize;
use crate::lock::Resolved;
use crate::store::{Access, Checked, Store};

/// Builds `job` again with another number of threads, in another folder, out of a store that has nothing but
/// the downloads, and compares with `first`.
///
/// # Errors
/// When the images differ, with the file or structure that does.
pub fn again(job: &Job<'_>, first: &File) -> Result<()> {
    let folder = Scratch::new("keller-check-")?;
    compared(job, first, folder.path()).map_err(|error| match is_full(error.as_ref()) {
        _ if is_too_large(error.as_ref()) => error.context(format!(
            "{} takes no file of this size: raise `ulimit -f`, or name another place by TMPDIR",
            folder.path().display()
        )),
        true => error
            .context(format!("no space is left in {}: TMPDIR names another place", folder.path().display())),
        false => error,
    })
}

fn compared(job: &Job<'_>, first: &File, folder: &Path) -> Result<()> {
    // Whoever could write above it could write above the image as well; and all that it has is verified as it is read.
    let access = Access { key: None, shared: true };
    let store = Store::open_with(folder.join("store"), access)?;
    let packages =
        job.lock.packages.values().chain(job.lock.containers.values().flat_map(|all| all.values()));
    let digests =
        packages.map(|package| package.sha256).chain(job.lock.files.values().map(|file| file.sha256));
    for digest in digests {
        match job.means.store.open_verified(&digest)? {
            Checked::Good(blob) => store.insert(blob.reader(), &digest, None)?,
            Checked::Missing => bail!("{digest} is {}", inputs::GONE),
            Checked::Rotten { moved_to, .. } => {
                bail!("{digest} is not what its name says any more, and is now {}", moved_to.display())
            }
        }
    }
    let settings = Settings { threads: if job.means.settings.threads == 1 { 2 } else { 1 } };
    let means = Means { store: &store, settings, progress: &Silent };
    let resolved = Resolved::from(job.lock.clone());
    let (first_half, facts) = root::lay(job.manifest, &resolved, &means)?;
    let lock = resolved.lock(facts);
    if lock != *job.lock {
        bail!("the second build completed the lock differently");
    }
    let root = first_half.finish(job.manifest, &lock, job.keller.0, &means)?;
    let second = tempfile::tempfile_in(folder).context("making a scratch file")?;
    super::write(&Job { means, ..*job }, root, &second, None)?;
    let sector_size = SectorSize::try_from(job.manifest.disk.sector_size)?;
    match difference::first(first, &second, sector_size).context("comparing the images")? {
        None => Ok(()),
        Some(Difference { offset, place }) => {
            bail!("the images differ in {place} (the first byte of the disk is {offset}): please report this")
        }
    }
}
