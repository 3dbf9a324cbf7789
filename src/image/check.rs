//! Building a second time, differently, and comparing: what `keller build --check` promises.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};

use super::{Job, Settings, root};
use crate::base::progress::Silent;
use crate::disk::device::FileDevice;
use crate::disk::{SectorSize, gpt};
use crate::store::Store;

/// How much is compared at once, in bytes.
const STEP: usize = 1 << 20;

/// Builds `job` again with another number of threads, in another folder, out of a store that has nothing but
/// the downloads, and compares with `first`.
///
/// # Errors
/// When the images differ, with the first structure that does.
pub fn again(job: &Job<'_>, first: &File) -> Result<()> {
    let folder =
        tempfile::Builder::new().prefix("keller-check-").tempdir().context("making a scratch folder")?;
    let store = Store::open(folder.path().join("store"))?;
    let packages =
        job.lock.packages.values().chain(job.lock.containers.values().flat_map(|all| all.values()));
    let digests =
        packages.map(|package| package.sha256).chain(job.lock.files.values().map(|file| file.sha256));
    for digest in digests {
        let blob = job.store.open_blob(&digest)?.with_context(|| format!("{digest} is not in the store"))?;
        store.insert(blob, &digest, None)?;
    }
    let settings = Settings { threads: if job.settings.threads == 1 { 2 } else { 1 } };
    let mut lock = job.lock.clone();
    let root = root::root(job.manifest, &mut lock, &store, &settings, &Silent)?;
    if lock != *job.lock {
        bail!("the second build completed the lock differently");
    }
    let second = tempfile::tempfile_in(folder.path()).context("making a scratch file")?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(settings.threads).build()?;
    let again = Job { store: &store, settings, progress: &Silent, ..*job };
    pool.install(|| super::write(&again, root, &second))?;
    match first_difference(first, &second)? {
        None => Ok(()),
        Some(offset) => {
            let place = name(first, offset, job.manifest.disk.sector_size);
            bail!("the images differ, first at byte {offset}, in {place}: please report this")
        }
    }
}

fn first_difference(first: &File, second: &File) -> Result<Option<u64>> {
    let (size, other) = (first.metadata()?.len(), second.metadata()?.len());
    if size != other {
        return Ok(Some(size.min(other)));
    }
    let (mut a, mut b) = (vec![0; STEP], vec![0; STEP]);
    let mut offset = 0;
    while offset < size {
        let count = (size - offset).min(STEP as u64) as usize;
        first.read_exact_at(&mut a[..count], offset)?;
        second.read_exact_at(&mut b[..count], offset)?;
        if let Some(at) = (0..count).find(|at| a[*at] != b[*at]) {
            return Ok(Some(offset + at as u64));
        }
        offset += count as u64;
    }
    Ok(None)
}

/// The partition, or the part of the tables, that the byte at `offset` lies in.
fn name(image: &File, offset: u64, sector_size: u32) -> String {
    let table = || {
        let sector_size = SectorSize::try_from(sector_size).ok()?;
        let device = FileDevice::image(image.try_clone().ok()?, sector_size).ok()?;
        Some(gpt::read(&device, sector_size).ok()?.table)
    };
    let Some(table) = table() else { return "the partition table".to_owned() };
    match table.entries.iter().find(|entry| (entry.start..entry.end()).contains(&offset)) {
        Some(entry) => {
            format!("partition {} ({}), {} bytes in", entry.number, entry.label, offset - entry.start)
        }
        None => "the partition table".to_owned(),
    }
}
