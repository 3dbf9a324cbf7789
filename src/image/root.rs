//! The root's tree: packages, overlays, files, users, units, containers, checks.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use super::job::Means;
use super::kernel::{Kernel, Modules};
use super::report::{RECORD, Record};
use super::{agent, container, etcd, inputs, laid, modprobe, scripts};
use crate::base::limits;
use crate::base::progress::{Progress, Task, Unit};
use crate::boot::microcode::{Microcode, Vendor};
use crate::lock::{Facts, Lock, Resolved};
use crate::manifest::{self, Manifest};
use crate::rootfs::checks::Inputs;
use crate::rootfs::checks::{Finding, Severity};
use crate::rootfs::pruned::Taken;
use crate::rootfs::{self, Accounts, BuildInfo, Wanted, containers};
use crate::tree::{Content, Tree};

/// The finished root and what was taken out of it to boot it.
#[derive(Debug)]
pub struct Root {
    /// What the root file system will hold.
    pub tree: Tree,
    /// What goes into the ESP.
    pub kernel: Kernel,
    /// For the initramfs.
    pub modules: Modules,
    /// Stands before the initramfs.
    pub microcode: Microcode,
    /// `/usr/lib/os-release`.
    pub os_release: Vec<u8>,
}

/// A root before anybody owns anything in it.
pub struct Laid {
    laid: laid::Laid<Aside>,
    /// Packages that no component of keller's speaks for.
    foreign: BTreeSet<String>,
    /// Of each container of the manifest, in its order.
    containers: Vec<container::Laid>,
}

/// What is taken out of the packages, or looked at, before anything is pruned.
struct Aside {
    kernel: Kernel,
    /// Paths of kernel modules by name.
    modules: BTreeMap<String, String>,
}

/// Lays together what root and containers are made of, and finds what is to be locked of it.
///
/// # Errors
/// What cannot be read or laid together, and accounts that cannot have the numbers that they should have.
pub fn lay(manifest: &Manifest, resolved: &Resolved, means: &Means<'_>) -> Result<(Laid, Facts)> {
    means.settings.pool()?.install(|| lay_in_pool(manifest, resolved, means))
}

fn lay_in_pool(manifest: &Manifest, resolved: &Resolved, means: &Means<'_>) -> Result<(Laid, Facts)> {
    let progress = means.progress;
    let mut facts = Facts { ids: resolved.known.ids.clone(), ..Facts::default() };
    let containers = container::lay(manifest, resolved, &mut facts, means)?;
    let recipe = laid::Recipe {
        scope: "",
        packages: &resolved.packages,
        epoch: resolved.epoch,
        recipe: &manifest.recipe,
    };
    let mut laid = laid::lay(&recipe, &mut facts, means, |tree| {
        Ok(Aside { kernel: Kernel::take(tree)?, modules: rootfs::modules::paths(tree) })
    })?;
    let tree = &mut laid.tree;
    facts.scripts = std::mem::take(&mut laid.scripts);
    modprobe::check_names(manifest, tree, &laid.aside.modules)?;
    facts.local.extend(agent::tell(tree, manifest)?);
    for text in etcd::install(tree, manifest)? {
        progress.note(&text);
    }
    judge(rootfs::checks::lines::local(tree), progress)?;
    // A line of sysusers.d may name the owner of a path.
    inputs::own_numbers(tree, &laid.overlays);
    let fixed = Wanted::fixed(&manifest.users, &manifest.recipe.system_users, &manifest.recipe.groups);
    judge(rootfs::checks::lines::sysusers(tree, fixed)?, progress)?;
    facts.ids = rootfs::ids(tree, &manifest.users, &manifest.recipe, &facts.ids)
        .map_err(|error| placed(manifest, error))?;
    let cared_for = scripts::cared_for(&resolved.packages);
    let foreign = resolved.packages.keys().filter(|name| !cared_for.contains(*name)).cloned().collect();
    Ok((Laid { laid, foreign, containers }, facts))
}

impl Laid {
    /// Finishes the root, containers included, and checks it. `keller` is the one for the node.
    ///
    /// # Errors
    /// Everything that would not work on a node.
    pub fn finish(
        self,
        manifest: &Manifest,
        lock: &Lock,
        keller: &Content,
        means: &Means<'_>,
    ) -> Result<Root> {
        means.settings.pool()?.install(|| finish(self, manifest, lock, keller, means))
    }
}

fn finish(laid: Laid, manifest: &Manifest, lock: &Lock, keller: &Content, means: &Means<'_>) -> Result<Root> {
    let Laid { laid, foreign, containers } = laid;
    let laid::Laid { mut tree, overlays, files, script_accounts, libraries, pruned, aside, .. } = laid;
    let Aside { kernel, modules: modules_before } = aside;
    let progress = means.progress;
    let images = container::finish(manifest, containers, lock, means)?;
    let task = Task::new(progress, "assembling", 0, Unit::Items);
    task.at("users and units");
    agent::install(&mut tree, keller)?;
    let accounts = rootfs::accounts(&tree, &manifest.users, &manifest.recipe, &lock.ids)
        .map_err(|error| placed(manifest, error))?;
    judge(rootfs::checks::lines::tmpfiles(&tree, &accounts)?, progress)?;
    // Before what is below /var, /opt and the like becomes lines that make it on the node.
    let owned = inputs::own(&mut tree, &manifest.recipe.files, &files, &overlays, &accounts)?;
    judge(rootfs::checks::homes::check(&tree, &manifest.recipe.system_users)?, progress)?;
    let rights = Inputs { pruned: pruned.clone(), ..Inputs::of(&manifest.recipe) };
    let mut findings = rootfs::checks::brought(&tree, &rights);
    owned.outlast(&mut tree)?;
    let build = BuildInfo { keller: env!("CARGO_PKG_VERSION").to_owned() };
    let finished =
        rootfs::finish(&mut tree, manifest, &accounts, &build, Some(means.store)).map_err(|error| {
            let way = pruned_file(&tree, &pruned, &error).map(|way| format!("; {way}")).unwrap_or_default();
            anyhow::anyhow!("{}{way}", placed(manifest, error))
        })?;
    for note in &finished.services.notes {
        progress.note(note);
    }
    judge(rootfs::checks::lines::shipped(&tree)?, progress)?;
    for unit in &finished.services.absent {
        let names = manifest.said.names("services.enable", unit);
        progress.note(&format!("{names}, which no package and no overlay has: it is not enabled"));
    }
    owned.again(&mut tree);
    task.at("checks");
    let Inputs { users, groups, .. } = check_inputs(&accounts);
    let inputs = Inputs { script_accounts, foreign, libraries, users, groups, ..rights.clone() };
    findings.extend(rootfs::checks::check_node(&tree, &inputs, manifest));
    judge(findings, progress)?;
    task.at("containers");
    let mut places = Vec::new();
    for (container, image) in manifest.containers.iter().zip(images) {
        let place = containers::install(&mut tree, manifest.runtime, container, image, &accounts);
        let place = place.map_err(|error| match &error {
            containers::ContainerError::NoProgram { program, .. } => match pruned.way_out(&tree, program) {
                Some(way) => anyhow::anyhow!("{error}; {way}"),
                None => error.into(),
            },
            _ => error.into(),
        })?;
        places.push((place, container.allowed().clone()));
    }
    tree.check_size(limits::ROOT_NODES, limits::ROOT_NAMES)
        .context("putting packages, overlays and containers together")?;
    tree.file(RECORD, 0o644, Record::of(manifest, lock).to_text())?;
    let rights = Inputs { users: inputs.users, groups: inputs.groups, ..rights };
    judge(rootfs::checks::finished(&tree, &rights, &places), progress)?;
    let os_release = tree.read("usr/lib/os-release")?;
    let [index] = &finished.kernels[..] else {
        bail!("expected one kernel, but have {}", finished.kernels.len())
    };
    modprobe::check_needs(manifest, index, &modules_before, progress)?;
    let modules = Modules::of(&tree, index, progress)?;
    modprobe::tell_idle(manifest, index, &modules.config, progress);
    let microcode = microcode(&tree, lock)?;
    Ok(Root { tree, kernel, modules, microcode, os_release })
}

/// The root's microcode: all that the packages of `lock` bring it for.
fn microcode(tree: &Tree, lock: &Lock) -> Result<Microcode> {
    let microcode = Microcode::of(tree);
    for vendor in Vendor::ALL {
        if lock.packages.contains_key(vendor.package()) && !microcode.has(vendor) {
            bail!(
                "{} is among the packages, but /{} has no microcode for the boot image: `keep` it from `prune`, or \
                 leave the package out",
                vendor.package(),
                vendor.folder()
            );
        }
    }
    Ok(microcode)
}

/// An error of the fix-ups with the line of the manifest that it is about.
fn placed(manifest: &Manifest, error: rootfs::Error) -> anyhow::Error {
    use rootfs::Error;
    let said = &manifest.said;
    let place = match &error {
        Error::UnknownUnit { unit, .. }
        | Error::NotInstallable { unit }
        | Error::NotInstallableAtBoot { unit, .. }
        | Error::NoInstance { unit }
        | Error::Masked { unit, .. } => said.place("services.enable", unit),
        Error::UnknownModule { name, .. } => said.place("kernel.load", name),
        Error::UnknownGroup { user, group } => {
            let name = format!("{user} {group}");
            said.place("users.groups", &name).or(manifest.recipe.said.place("system_users.groups", &name))
        }
        Error::AccountExists { name, .. } | Error::NamesAGroup { name, .. } => said.place("users", name),
        _ => None,
    };
    let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
    let container = |unit: &String| {
        let named =
            |container: &manifest::Container| Some(container.name.as_str()) == unit.strip_suffix(".service");
        manifest.containers.iter().any(named)
    };
    let way_out = match &error {
        Error::UnknownUnit { unit, .. } if unit == "etcd.service" && manifest.kv.is_some() => {
            "; `kv` needs it: include keller:manifests/components/etcd.yaml, or add etcd-server to `packages`"
        }
        Error::UnknownUnit { unit, .. } if container(unit) => {
            "; a container starts at boot unless it has `start: false`, and stands only in `containers`"
        }
        _ => "",
    };
    anyhow::anyhow!("{place}{error}{way_out}")
}

/// Where `prune` has left out what `error` misses, the pattern and the way out.
fn pruned_file(tree: &Tree, pruned: &Taken, error: &rootfs::Error) -> Option<String> {
    match error {
        rootfs::Error::UnknownUnit { unit, .. } => pruned.unit(tree, unit),
        rootfs::Error::Missing { path, .. } => pruned.way_out(tree, path),
        _ => None,
    }
}

/// What checks need to know of accounts.
pub(super) fn check_inputs(accounts: &Accounts) -> Inputs {
    Inputs {
        users: accounts.users.iter().map(|(name, (uid, ..))| (name.clone(), *uid)).collect(),
        groups: accounts.groups.iter().map(|(name, (gid, _))| (name.clone(), *gid)).collect(),
        ..Inputs::default()
    }
}

/// Tells the warnings; fails with all errors.
pub(super) fn judge(findings: Vec<Finding>, progress: &dyn Progress) -> Result<()> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    for warning in warnings {
        progress.note(&warning.to_string());
    }
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = errors.iter().map(|finding| format!("\n  {finding}")).collect();
    bail!("the root would not work on a node:{}", lines.concat())
}
