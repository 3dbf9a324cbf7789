//! The root's tree: packages, overlays, files, users, units, containers, checks.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::inputs::Owned;
use super::job::Means;
use super::kernel::{Kernel, Modules};
use super::laid::Purpose;
use super::record::{RECORD, Record};
use super::{agent, container, etcd, laid, modprobe};
use crate::base::limits;
use crate::base::progress::{Progress, Task, Unit};
use crate::boot::microcode::{Microcode, Vendor};
use crate::lock::{Facts, Lock, Resolved};
use crate::manifest::{self, Allowed, Manifest, Recipe, User};
use crate::node::networkd;
use crate::rootfs::checks::{self, Finding, Inputs};
use crate::rootfs::containers::Image;
use crate::rootfs::pruned::Taken;
use crate::rootfs::{self, Accounts, BuildInfo, containers};
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

impl Root {
    /// Files, directories and links in it.
    pub fn names(&self) -> usize {
        self.tree.link_counts().iter().map(|count| *count as usize).sum()
    }
}

/// A root before anybody owns anything in it.
pub struct LaidRoot {
    laid: laid::LaidTree<Aside>,
    /// Of each container of the manifest, in its order.
    containers: Vec<container::LaidContainer>,
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
pub fn lay(manifest: &Manifest, resolved: &Resolved, means: &Means<'_>) -> Result<(LaidRoot, Facts)> {
    means.settings.pool()?.install(|| lay_in_pool(manifest, resolved, means))
}

fn lay_in_pool(manifest: &Manifest, resolved: &Resolved, means: &Means<'_>) -> Result<(LaidRoot, Facts)> {
    let mut facts = Facts { ids: resolved.known.ids.clone(), ..Facts::default() };
    let containers = container::lay(manifest, resolved, &mut facts, means)?;
    let node = Node { manifest, means };
    let (laid, scripts) = laid::lay(&node, &resolved.packages, resolved.epoch, &mut facts, means)?;
    facts.scripts = scripts;
    Ok((LaidRoot { laid, containers }, facts))
}

/// The purpose of a root.
struct Node<'a> {
    manifest: &'a Manifest,
    means: &'a Means<'a>,
}

impl Purpose for Node<'_> {
    type Aside = Aside;
    type Fixed = rootfs::Report;
    const BOOTS: bool = true;

    fn recipe(&self) -> &Recipe {
        &self.manifest.recipe
    }

    fn people(&self) -> &[User] {
        &self.manifest.users
    }

    fn scope(&self) -> &str {
        ""
    }

    fn aside(&self, packages: &mut Tree) -> Result<Aside> {
        Ok(Aside { kernel: Kernel::take(packages)?, modules: rootfs::modules::paths(packages) })
    }

    fn install(&self, tree: &mut Tree, aside: &Aside, facts: &mut Facts) -> Result<()> {
        let progress = self.means.progress;
        modprobe::check_names(self.manifest, tree, &aside.modules)?;
        laid::judge(checks::own(tree), progress)?;
        facts.local.extend(agent::write_settings(tree, self.manifest)?);
        for (path, text) in networkd::of_manifest(&self.manifest.interfaces) {
            tree.file(path.trim_start_matches('/'), 0o644, text)?;
        }
        for text in etcd::install(tree, self.manifest)? {
            progress.note(&text);
        }
        laid::judge(checks::lines::local(tree), progress)
    }

    fn placed(&self, error: rootfs::Error) -> anyhow::Error {
        placed(self.manifest, error)
    }

    fn fix_up(
        &self,
        tree: &mut Tree,
        accounts: &Accounts,
        owned: &Owned,
        pruned: &Taken,
    ) -> Result<rootfs::Report> {
        let Self { manifest, means } = *self;
        owned.outlast(tree)?;
        let build = BuildInfo { keller: env!("CARGO_PKG_VERSION").to_owned() };
        let fixed = rootfs::finish(tree, manifest, accounts, &build, Some(means.store)).map_err(|error| {
            let way = pruned_file(tree, pruned, &error).map(|way| format!("; {way}")).unwrap_or_default();
            anyhow::anyhow!("{}{way}", placed(manifest, error))
        })?;
        for note in &fixed.services.notes {
            means.progress.note(note);
        }
        laid::judge(checks::lines::shipped(tree)?, means.progress)?;
        for unit in &fixed.services.absent {
            let names = manifest.said.names("services.enable", unit);
            means.progress.note(&format!("{names}, which no package and no overlay has: it is not enabled"));
        }
        Ok(fixed)
    }

    fn check(&self, tree: &Tree, inputs: &Inputs) -> Vec<Finding> {
        checks::check_node(tree, inputs, self.manifest)
    }
}

impl LaidRoot {
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

fn finish(
    laid: LaidRoot,
    manifest: &Manifest,
    lock: &Lock,
    keller: &Content,
    means: &Means<'_>,
) -> Result<Root> {
    let LaidRoot { mut laid, containers } = laid;
    let progress = means.progress;
    let images = container::finish(manifest, containers, lock, means)?;
    agent::install(&mut laid.tree, keller)?;
    let laid::Finished { mut tree, accounts, inputs, aside, fixed } =
        laid.finish(&Node { manifest, means }, &lock.ids, progress)?;
    let places = install(&mut tree, manifest, images, &accounts, &inputs.pruned, progress)?;
    tree.check_size(limits::ROOT_NODES, limits::ROOT_NAMES)
        .context("putting packages, overlays and containers together")?;
    tree.file(RECORD, 0o644, Record::of(manifest, lock).to_text())?;
    laid::judge(checks::finished(&tree, &inputs, &places), progress)?;
    let os_release = tree.read("usr/lib/os-release")?;
    let [index] = &fixed.kernels[..] else { bail!("expected one kernel, but have {}", fixed.kernels.len()) };
    modprobe::check_needs(manifest, index, &aside.modules, progress)?;
    let modules = Modules::of(&tree, index, progress)?;
    modprobe::tell_idle(manifest, index, &modules.config, progress);
    let microcode = microcode(&tree, lock)?;
    tree.check_walks().context("looking at all of the root")?;
    Ok(Root { tree, kernel: aside.kernel, modules, microcode, os_release })
}

/// Puts the images of containers into the root. Says where each is, and what is allowed there.
fn install(
    tree: &mut Tree,
    manifest: &Manifest,
    images: Vec<Image>,
    accounts: &Accounts,
    pruned: &Taken,
    progress: &dyn Progress,
) -> Result<Vec<(String, Allowed)>> {
    let task = Task::new(progress, "assembling", 0, Unit::Items);
    task.at("containers");
    let mut places = Vec::new();
    for (container, image) in manifest.containers.iter().zip(images) {
        let place = containers::install(tree, manifest.runtime, container, image, accounts);
        let place = place.map_err(|error| match &error {
            containers::ContainerError::NoProgram { program, .. } => match pruned.way_out(tree, program) {
                Some(way) => anyhow::anyhow!("{error}; {way}"),
                None => error.into(),
            },
            _ => error.into(),
        })?;
        places.push((place, container.allowed().clone()));
    }
    Ok(places)
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
        Error::UnknownGroup { user, group } => said.place("users.groups", &format!("{user} {group}")),
        Error::AccountExists { name, .. } | Error::NamesAGroup { name, .. } => said.place("users", name),
        _ => None,
    };
    let place = match place {
        Some(place) => format!("{place}: "),
        None => laid::place(&manifest.recipe, &error),
    };
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
