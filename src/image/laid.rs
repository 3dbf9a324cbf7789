//! What a tree is made of, laid together: packages, without what is pruned, and overlays and files over them. A node's root
//! and a container's image are made of the same parts in the same way.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::inputs;
use super::job::Means;
use super::scripts::{self, Scripts};
use crate::base::progress::{Progress, Task, Unit};
use crate::lock::{self, Facts, LockedPackage};
use crate::manifest::{self, Said};
use crate::rootfs::checks;
use crate::rootfs::dangling::{self, LeftOut};
use crate::rootfs::packages::{self, PackageInput};
use crate::rootfs::pruned::Taken;
use crate::rootfs::services;
use crate::tree::prune::{Patterns, Pruned};
use crate::tree::{NodeId, Tree};

/// What becomes of a file that had been brought into the store.
pub(super) const GONE: &str =
    "not in the store any more: `keller store gc` or another program has removed it, so run it again";

/// Packages of a lock, put together, and what is known of their maintainer scripts.
#[derive(Debug)]
pub struct Packages {
    /// Their files.
    pub tree: Tree,
    /// By package.
    pub scripts: BTreeMap<String, Scripts>,
}

/// What a tree is made of.
pub struct Recipe<'a> {
    /// Stands before what is said and locked of a container; empty for a node.
    pub scope: &'a str,
    /// As they are resolved, with the scripts that an earlier lock knew.
    pub packages: &'a BTreeMap<String, LockedPackage>,
    /// Time of what the builder makes, in seconds since 1970.
    pub epoch: i64,
    /// What is wanted.
    pub recipe: &'a manifest::Recipe,
}

/// The tree before anybody owns anything in it.
pub struct Laid<T> {
    /// Everything of the recipe.
    pub tree: Tree,
    /// The overlays in it.
    pub overlays: Vec<inputs::Laid>,
    /// The node of each of the recipe's files.
    pub files: Vec<NodeId>,
    /// Digests of the packages' maintainer scripts.
    pub scripts: lock::Scripts,
    /// Accounts that maintainer scripts would make.
    pub script_accounts: Vec<checks::ScriptAccount>,
    /// Paths of the packages' libraries by name, before anything was pruned.
    pub libraries: BTreeMap<String, String>,
    /// What `prune` has left out.
    pub pruned: Arc<Taken>,
    /// What was taken aside.
    pub aside: T,
}

/// Unpacks `locked` out of the store.
pub fn packages(locked: &BTreeMap<String, LockedPackage>, epoch: i64, means: &Means<'_>) -> Result<Packages> {
    let mut wanted = Vec::with_capacity(locked.len());
    for (name, package) in locked {
        let Some(deb) = means.store.open_blob(&package.sha256)? else {
            bail!("{name} {} is {GONE}", package.version);
        };
        wanted.push(PackageInput {
            name: name.clone(),
            version: package.version.clone(),
            deb,
            sha256: package.sha256,
            size: package.size,
        });
    }
    let mut unpacked = packages::unpack(&wanted, means.store, epoch, means.settings.threads, means.progress)?;
    for package in &mut unpacked {
        if let Some(text) = package.to_root() {
            means.progress.note(&text);
        }
    }
    let scripts = unpacked
        .iter()
        .map(|package| {
            let (digests, actions) = (package.scripts.clone(), package.actions.clone());
            (package.name.clone(), Scripts { digests, actions })
        })
        .collect();
    Ok(Packages { tree: packages::assemble(epoch, unpacked, means.progress)?, scripts })
}

/// Makes the tree of `recipe`. `facts` get what is to be locked of overlays and files; `aside` looks at the packages, and may
/// take of them, before anything is pruned.
pub fn lay<T>(
    recipe: &Recipe<'_>,
    facts: &mut Facts,
    means: &Means<'_>,
    aside: impl FnOnce(&mut Tree) -> Result<T>,
) -> Result<Laid<T>> {
    let Recipe { scope, packages: locked, .. } = recipe;
    let manifest::Recipe { prune: pruning, keep, overlays, files, said, .. } = recipe.recipe;
    let progress = means.progress;
    let Packages { mut tree, scripts } = packages(locked, recipe.epoch, means)?;
    let script_accounts = scripts::accounts(locked, &scripts);
    let scripts = scripts::settle(scope, locked, scripts, progress);
    let task = Task::new(progress, "assembling", 0, Unit::Items);
    let aside = aside(&mut tree)?;
    task.at("pruning");
    let libraries = checks::libraries(&tree);
    let leading = dangling::leading(&tree);
    let units = services::sources(&tree)?;
    let pruned = prune(&mut tree, &Patterns::new(pruning, keep)?, scope, said, progress);
    let mut left_out = LeftOut::take(&mut tree, leading);
    task.at("overlays");
    let overlays = inputs::overlays(&mut tree, overlays, scope, &mut facts.local, progress)?;
    left_out.put_back(&mut tree)?;
    let files = inputs::files(&mut tree, files, scope, facts, means)?;
    left_out.put_back(&mut tree)?;
    tell_links(&left_out, scope, pruning.iter().all(|pattern| said.is_carried("prune", pattern)), progress);
    let pruned = Arc::new(Taken::new(pruned, left_out.links(), units));
    Ok(Laid { tree, overlays, files, scripts, script_accounts, libraries, pruned, aside })
}

/// Leaves out what `patterns` say, and tells which of them match nothing. Says what they did.
fn prune(
    tree: &mut Tree,
    patterns: &Patterns,
    scope: &str,
    said: &Said,
    progress: &dyn Progress,
) -> Vec<Pruned> {
    let idle = patterns.idle(tree).map(|idle| idle.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let pruned = tree.prune(patterns);
    let tell = |field: &str, pattern: &str, text: &str| match said.is_carried(field, pattern) {
        true => progress.detail(&format!("{scope}{field}: {text}")),
        false => progress.note(&format!("{scope}{field}: {text}")),
    };
    let [prune, keep] = idle;
    for Pruned { pattern, .. } in pruned.iter().filter(|pruned| pruned.names == 0) {
        match prune.contains(pattern) {
            true => tell("prune", pattern, &format!("nothing matches {pattern}")),
            false => tell(
                "prune",
                pattern,
                &format!("{pattern} takes nothing away: another pattern does, or `keep` holds it"),
            ),
        }
    }
    for pattern in keep {
        tell("keep", &pattern, &format!("nothing matches {pattern}"));
    }
    pruned
}

/// Says which links went with what they led to; `carried`: only keller's own components prune.
fn tell_links(left_out: &LeftOut, scope: &str, carried: bool, progress: &dyn Progress) {
    let told = left_out.told();
    if told.is_empty() {
        return;
    }
    let text = format!("{scope}prune: links to what is left out are left out too: {}", told.join(", "));
    match carried {
        true => progress.detail(&text),
        false => progress.note(&text),
    }
}
