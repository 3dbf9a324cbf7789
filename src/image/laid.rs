//! How a recipe becomes a tree: packages, without what is pruned, overlays and files over them, accounts, owners, fix-ups,
//! checks. A node's root and a container's image are made in this one way, and a [`Purpose`] says what each has of its
//! own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, bail};

use super::inputs::{self, GONE, Owned};
use super::job::Means;
use super::scripts::{self, Scripts};
use crate::base::progress::{Progress, Scoped, Task, Unit};
use crate::lock::{self, Facts, Ids, LockedPackage};
use crate::manifest::{Recipe, User};
use crate::rootfs::checks::{self, Finding, Inputs, Severity, homes};
use crate::rootfs::dangling::{self, LeftOut};
use crate::rootfs::packages::{self, PackageInput};
use crate::rootfs::pruned::Taken;
use crate::rootfs::{self, Accounts, Wanted, services};
use crate::tree::prune::{Patterns, Pruned};
use crate::tree::{NodeId, Tree};

/// What a tree is for: the recipe, and the steps that only a node's root or only a container's image has.
pub trait Purpose {
    /// What is taken out of the packages, or looked at, before anything is pruned.
    type Aside;
    /// What the fix-ups tell of the tree.
    type Fixed;
    /// Whether the tree is booted: systemd starts its units and reads its lines of tmpfiles.d, and its device nodes stay.
    const BOOTS: bool;

    /// What the tree is made of.
    fn recipe(&self) -> &Recipe;

    /// Accounts of people.
    fn people(&self) -> &[User];

    /// Stands before what is said and locked of the tree.
    fn scope(&self) -> &str;

    /// Takes aside what is wanted of the packages.
    fn aside(&self, packages: &mut Tree) -> Result<Self::Aside>;

    /// Puts in what the builder itself brings, while nothing has an owner.
    fn install(&self, tree: &mut Tree, aside: &Self::Aside, facts: &mut Facts) -> Result<()>;

    /// An error of the fix-ups with the line that it is about.
    fn placed(&self, error: rootfs::Error) -> anyhow::Error;

    /// Does what maintainer scripts would have done.
    fn fix_up(
        &self,
        tree: &mut Tree,
        accounts: &Accounts,
        owned: &Owned,
        pruned: &Taken,
    ) -> Result<Self::Fixed>;

    /// What is wrong with the whole tree.
    fn check(&self, tree: &Tree, inputs: &Inputs) -> Vec<Finding>;
}

/// Packages of a lock, put together, and what is known of their maintainer scripts.
#[derive(Debug)]
pub struct Packages {
    /// Their files.
    pub tree: Tree,
    /// By package.
    pub scripts: BTreeMap<String, Scripts>,
}

/// The tree before anybody owns anything in it.
pub struct LaidTree<T> {
    /// Everything of the recipe.
    pub tree: Tree,
    /// The overlays in it.
    overlays: Vec<inputs::LaidOverlay>,
    /// The node of each of the recipe's files.
    files: Vec<NodeId>,
    /// What checks know of the packages before anything was pruned.
    inputs: Inputs,
    /// What was taken aside.
    aside: T,
}

/// The tree with all but what its purpose adds to it.
pub struct Finished<P: Purpose> {
    /// Everything of the recipe.
    pub tree: Tree,
    /// Its accounts.
    pub accounts: Accounts,
    /// What checks went by.
    pub inputs: Inputs,
    /// What was taken aside.
    pub aside: P::Aside,
    /// What the fix-ups tell.
    pub fixed: P::Fixed,
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
    let mut unpacked = packages::unpack(&wanted, means.store, epoch, means.progress)?;
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

/// Lays together what `purpose` wants, of packages as they are resolved, with the scripts that an earlier lock knew. Gives
/// the digests of their scripts, too. `facts` get what is to be locked of overlays, files and accounts.
pub fn lay<P: Purpose>(
    purpose: &P,
    locked: &BTreeMap<String, LockedPackage>,
    epoch: i64,
    facts: &mut Facts,
    means: &Means<'_>,
) -> Result<(LaidTree<P::Aside>, lock::Scripts)> {
    let (recipe, scope) = (purpose.recipe(), purpose.scope());
    let progress: &dyn Progress = &Scoped::new(scope, means.progress);
    let means = &Means { progress, ..*means };
    let Packages { mut tree, scripts } = packages(locked, epoch, means)?;
    let script_accounts = scripts::accounts(locked, &scripts);
    let scripts = scripts::settle(locked, scripts, progress);
    let task = Task::new(progress, "assembling", 0, Unit::Items);
    let aside = purpose.aside(&mut tree)?;
    task.at("pruning");
    let libraries = checks::libraries(&tree);
    let leading = dangling::leading(&tree);
    let units = services::sources(&tree)?;
    let pruned = prune(&mut tree, recipe, progress)?;
    let mut left_out = LeftOut::take(&mut tree, leading);
    task.at("overlays");
    let overlays = inputs::overlays(&mut tree, &recipe.overlays, scope, &mut facts.local, progress)?;
    left_out.put_back(&mut tree)?;
    let files = inputs::files(&mut tree, &recipe.files, scope, facts, means)?;
    left_out.put_back(&mut tree)?;
    tell_links(&left_out, recipe, progress);
    purpose.install(&mut tree, &aside, facts)?;
    // A line of sysusers.d may name the owner of a path.
    inputs::own_numbers(&mut tree, &overlays);
    let fixed = Wanted::fixed(purpose.people(), &recipe.system_users, &recipe.groups);
    judge(checks::lines::sysusers(&tree, fixed)?, progress)?;
    facts.ids =
        rootfs::ids(&tree, purpose.people(), recipe, &facts.ids).map_err(|error| purpose.placed(error))?;
    let inputs = Inputs {
        script_accounts,
        foreign: foreign(locked),
        libraries,
        leaves_devices: !P::BOOTS,
        pruned: Arc::new(Taken::new(pruned, left_out.links(), units)),
        ..Inputs::of(recipe)
    };
    Ok((LaidTree { tree, overlays, files, inputs, aside }, scripts))
}

/// Packages that no component of keller's speaks for.
fn foreign(locked: &BTreeMap<String, LockedPackage>) -> BTreeSet<String> {
    let cared_for = scripts::cared_for(locked);
    locked.keys().filter(|name| !cared_for.contains(*name)).cloned().collect()
}

impl<T> LaidTree<T> {
    /// Gives everything its owner, of whom `ids` are the numbers, fixes it up and checks it.
    ///
    /// # Errors
    /// Everything that would not work in the tree.
    pub fn finish<P: Purpose<Aside = T>>(
        self,
        purpose: &P,
        ids: &Ids,
        progress: &dyn Progress,
    ) -> Result<Finished<P>> {
        let progress: &dyn Progress = &Scoped::new(purpose.scope(), progress);
        let Self { mut tree, overlays, files, inputs, aside } = self;
        let recipe = purpose.recipe();
        let task = Task::new(progress, "assembling", 0, Unit::Items);
        task.at("users and units");
        let accounts =
            rootfs::accounts(&tree, purpose.people(), recipe, ids).map_err(|error| purpose.placed(error))?;
        if P::BOOTS {
            judge(checks::lines::tmpfiles(&tree, &accounts)?, progress)?;
        }
        // Before what is below /var, /opt and the like becomes lines that make it on the node.
        let owned = inputs::own(&mut tree, &recipe.files, &files, &overlays, &accounts)?;
        judge(homes::check(&tree, &recipe.system_users, P::BOOTS)?, progress)?;
        let mut findings = checks::brought(&tree, &inputs);
        let fixed = purpose.fix_up(&mut tree, &accounts, &owned, &inputs.pruned)?;
        owned.again(&mut tree);
        task.at("checks");
        let inputs = known(inputs, &accounts);
        findings.extend(purpose.check(&tree, &inputs));
        judge(findings, progress)?;
        Ok(Finished { tree, accounts, inputs, aside, fixed })
    }
}

/// Where `recipe` says what an error of accounts is about, for the begin of a message.
pub(super) fn place(recipe: &Recipe, error: &rootfs::Error) -> String {
    let place = match error {
        rootfs::Error::UnknownGroup { user, group } => {
            recipe.said.place("system_users.groups", &format!("{user} {group}"))
        }
        _ => None,
    };
    place.map(|place| format!("{place}: ")).unwrap_or_default()
}

/// What checks need to know of accounts.
fn known(inputs: Inputs, accounts: &Accounts) -> Inputs {
    Inputs {
        users: accounts.users.iter().map(|(name, (uid, ..))| (name.clone(), *uid)).collect(),
        groups: accounts.groups.iter().map(|(name, (gid, _))| (name.clone(), *gid)).collect(),
        ..inputs
    }
}

/// Tells the warnings; fails with all errors.
pub(super) fn judge(findings: Vec<Finding>, progress: &dyn Progress) -> Result<()> {
    match &errors(findings, progress)[..] {
        [] => Ok(()),
        errors => bail!("the root would not work on a node:{}", lines(errors)),
    }
}

/// Tells the warnings and gives the errors.
pub(super) fn errors(findings: Vec<Finding>, progress: &dyn Progress) -> Vec<Finding> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    for warning in warnings {
        progress.note(&warning.to_string());
    }
    errors
}

/// Each of `findings` in a line of its own.
pub(super) fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n  {finding}")).collect()
}

/// Leaves out what `prune` says and `keep` does not hold, and tells which patterns do nothing.
fn prune(tree: &mut Tree, recipe: &Recipe, progress: &dyn Progress) -> Result<Vec<Pruned>> {
    let patterns = Patterns::new(&recipe.prune, &recipe.keep)?;
    let idle = patterns.idle(tree).map(|idle| idle.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let pruned = tree.prune(&patterns);
    // Components that keller carries fit many images: nobody's mistake where they match nothing.
    let tell = |field: &str, pattern: &str, text: &str| match recipe.said.is_carried(field, pattern) {
        true => progress.detail(&format!("{field}: {text}")),
        false => progress.note(&format!("{field}: {text}")),
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
    Ok(pruned)
}

/// Says which links went with what they led to.
fn tell_links(left_out: &LeftOut, recipe: &Recipe, progress: &dyn Progress) {
    let told = left_out.told();
    if told.is_empty() {
        return;
    }
    let text = format!("prune: links to what is left out are left out too: {}", told.join(", "));
    match recipe.prune.iter().all(|pattern| recipe.said.is_carried("prune", pattern)) {
        true => progress.detail(&text),
        false => progress.note(&text),
    }
}
