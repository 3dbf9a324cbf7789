//! From a manifest to a lock that fits, and onto the disk with it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::store::{mending, trim};
use super::{Inputs, Outside, Policy, Project};
use crate::base::progress::Progress;
use crate::image::{Means, root};
use crate::lock::resolve::Update;
use crate::lock::{Lock, diff, file};

/// What `keller lock` is told.
#[derive(Clone, Debug)]
pub struct Relock {
    /// The manifest.
    pub manifest: PathBuf,
    /// What is taken at its newest.
    pub update: Update,
    /// Where inputs come from.
    pub inputs: Inputs,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Relocked {
    /// Where it lies.
    pub path: PathBuf,
    /// The lock that fits.
    pub lock: Lock,
    /// Whether it pins anything else than before.
    pub changed: bool,
}

impl Relock {
    /// Resolves, fetches, and writes the lock.
    ///
    /// # Errors
    /// What is wrong with the manifest, and all that cannot be resolved, fetched or laid together.
    pub fn run(&self, progress: &dyn Progress) -> Result<Relocked> {
        let project = Project::load(Some(&self.manifest), Path::new("out"))?;
        let store = self.inputs.open_store(progress)?;
        let means = Means { store: &store, settings: self.inputs.settings(), progress };
        let policy = Policy::Update(self.update.clone());
        let Begun { before, lock, .. } = mending(&store, progress, || {
            let begun = begin(&project, &policy, &self.inputs, &means)?;
            store.sound()?;
            Ok(begun)
        })?;
        let lock = save(&project, &policy, before.as_ref(), lock, progress)?;
        trim(store, progress);
        let changed = before.as_ref().is_none_or(|before| !diff::diff(before, &lock).is_empty());
        Ok(Relocked { path: project.lock, lock, changed })
    }
}

/// What a build and `keller lock` begin with.
pub(super) struct Begun {
    /// The lock file as it was.
    pub(super) before: Option<Lock>,
    /// The lock that fits.
    pub(super) lock: Lock,
    /// What the root is made of, out of the store.
    pub(super) laid: root::LaidRoot,
}

/// Makes a lock that fits, with everything that it names in the store; writes nothing.
pub(super) fn begin(project: &Project, policy: &Policy, inputs: &Inputs, means: &Means<'_>) -> Result<Begun> {
    let outside = Outside::new(inputs);
    let manifest = &project.manifest;
    let before = file::read(&project.lock, &manifest.id)?;
    let resolved = policy.resolved(manifest, &project.lock, before.as_ref(), &outside, means)?;
    let fetched = outside.fetch(manifest, resolved, means)?;
    let (laid, facts) = root::lay(manifest, &fetched.resolved, means)?;
    Ok(Begun { before, lock: fetched.lock(facts), laid })
}

/// Writes the lock where it is new or not as it was `before`, unless `policy` forbids that.
pub(super) fn save(
    project: &Project,
    policy: &Policy,
    before: Option<&Lock>,
    lock: Lock,
    progress: &dyn Progress,
) -> Result<Lock> {
    if before == Some(&lock) {
        return Ok(lock);
    }
    let changes = before.map(|before| diff::diff(before, &lock).to_string());
    if *policy == Policy::Locked {
        bail!(
            "{} does not fit any more; `keller lock` mends it\n{}",
            project.lock.display(),
            changes.unwrap_or_default()
        );
    }
    if let Some(folder) = project.lock.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    file::write(&project.lock, &lock)?;
    match changes {
        Some(changes) => progress.note(&format!("{} changed:\n{changes}", project.lock.display())),
        None => progress.note(&format!("wrote {}", project.lock.display())),
    }
    Ok(lock)
}
