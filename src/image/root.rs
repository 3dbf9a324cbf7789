//! The root's tree: packages, overlays, files, users, units, containers, checks.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::kernel::{Kernel, Modules};
use super::report::{RECORD, Record};
use super::scripts::{self, Scripts};
use super::{Settings, agent, container, etcd, inputs, modprobe};
use crate::base::progress::{Progress, Task, Unit};
use crate::boot::microcode::{Microcode, Vendor};
use crate::lock::{Lock, LockedPackage};
use crate::manifest::{self, Manifest};
use crate::rootfs::checks::Inputs;
use crate::rootfs::checks::{Finding, Severity};
use crate::rootfs::dangling::LeftOut;
use crate::rootfs::packages::{self, PackageInput};
use crate::rootfs::{self, Accounts, BuildInfo, Wanted, containers};
use crate::store::Store;
use crate::tree::prune::{Patterns, Pruned};
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

/// Packages of a lock, put together, and what is known of their maintainer scripts.
#[derive(Debug)]
pub struct Packages {
    /// Their files.
    pub tree: Tree,
    /// By package.
    pub scripts: BTreeMap<String, Scripts>,
}

/// Unpacks `locked` out of the store.
pub fn packages(
    locked: &BTreeMap<String, LockedPackage>,
    epoch: i64,
    store: &Store,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Packages> {
    let mut wanted = Vec::with_capacity(locked.len());
    for (name, package) in locked {
        let Some(deb) = store.open_blob(&package.sha256)? else {
            bail!("{name} {} is not in the store", package.version);
        };
        wanted.push(PackageInput {
            name: name.clone(),
            version: package.version.clone(),
            deb,
            sha256: package.sha256,
            size: package.size,
        });
    }
    let mut unpacked = packages::unpack(&wanted, store, epoch, settings.threads, progress)?;
    for package in &mut unpacked {
        if let Some(text) = package.to_root() {
            progress.note(&text);
        }
    }
    let scripts = unpacked
        .iter()
        .map(|package| {
            let (digests, actions) = (package.scripts.clone(), package.actions.clone());
            (package.name.clone(), Scripts { digests, actions })
        })
        .collect();
    Ok(Packages { tree: packages::assemble(epoch, unpacked, progress)?, scripts })
}

/// Makes the root's tree. What only the unpacked packages and the files beside the manifest tell (ids,
/// digests of scripts and overlays) is filled in in `lock`; a caller that wants nothing new compares. `keller`
/// is the one for the node.
pub fn root(
    manifest: &Manifest,
    lock: &mut Lock,
    keller: &Content,
    store: &Store,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Root> {
    settings.pool()?.install(|| make(manifest, lock, keller, store, settings, progress))
}

fn make(
    manifest: &Manifest,
    lock: &mut Lock,
    keller: &Content,
    store: &Store,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Root> {
    lock.local.clear();
    lock.files.clear();
    let images = container::images(manifest, lock, store, settings, progress)?;
    let Packages { mut tree, scripts } = packages(&lock.packages, lock.epoch, store, settings, progress)?;
    let script_accounts = scripts::accounts(&lock.packages, &scripts);
    let cared_for = scripts::cared_for(&lock.packages);
    let foreign = lock.packages.keys().filter(|name| !cared_for.contains(*name)).cloned().collect();
    scripts::settle("", &mut lock.packages, scripts, progress);

    let task = Task::new(progress, "assembling", 0, Unit::Items);
    task.at("kernel");
    let kernel = Kernel::take(&mut tree)?;
    task.at("pruning");
    let modules_before = rootfs::modules::paths(&tree);
    let libraries = rootfs::checks::libraries(&tree);
    let leading = rootfs::dangling::leading(&tree);
    let unit_files = rootfs::services::sources(&tree);
    let patterns = Patterns::new(&manifest.prune, &manifest.keep)?;
    let carried = |field: &str, pattern: &str| match field {
        "prune" => manifest.carried_prune.contains(pattern),
        _ => manifest.said.is_carried(field, pattern),
    };
    prune(&mut tree, &patterns, "", &carried, progress);
    let mut left_out = LeftOut::take(&mut tree, leading);
    task.at("overlays");
    let overlays = inputs::overlays(&mut tree, &manifest.overlays, "", &mut lock.local, progress)?;
    left_out.put_back(&mut tree)?;
    let files = inputs::files(&mut tree, &manifest.files, "", store, lock, progress)?;
    left_out.put_back(&mut tree)?;
    let carried = manifest.prune.iter().all(|pattern| manifest.carried_prune.contains(pattern));
    tell_links(&left_out, "", carried, progress);
    modprobe::check_names(manifest, &tree, &modules_before)?;
    agent::install(&mut tree, manifest, lock, keller)?;
    for text in etcd::install(&mut tree, manifest)? {
        progress.note(&text);
    }
    task.at("users and units");
    judge(rootfs::checks::lines::local(&tree), progress)?;
    // A line of sysusers.d may name the owner of a path.
    inputs::own_numbers(&mut tree, &overlays);
    let fixed = Wanted::fixed(&manifest.users, &manifest.system_users, &manifest.groups);
    judge(rootfs::checks::lines::sysusers(&tree, fixed)?, progress)?;
    lock.ids = rootfs::ids(&tree, manifest, &lock.ids).map_err(|error| placed(manifest, error))?;
    let accounts = rootfs::accounts(&tree, manifest, &lock.ids).map_err(|error| placed(manifest, error))?;
    judge(rootfs::checks::lines::tmpfiles(&tree, &accounts)?, progress)?;
    // Before what is below /var, /opt and the like becomes lines that make it on the node.
    let owned = inputs::own(&mut tree, &manifest.files, &files, &overlays, &accounts)?;
    judge(rootfs::checks::homes::check(&tree, &manifest.system_users)?, progress)?;
    let rights = Inputs {
        setuid: manifest.setuid.clone(),
        device_nodes: manifest.device_nodes.clone(),
        world_writable: manifest.world_writable.clone(),
        said: manifest.said.clone(),
        ..Inputs::default()
    };
    let mut findings = rootfs::checks::brought(&tree, &rights);
    owned.outlast(&mut tree)?;
    let build = BuildInfo { keller: env!("CARGO_PKG_VERSION").to_owned() };
    let finished = rootfs::finish(&mut tree, manifest, &accounts, &build, Some(store)).map_err(|error| {
        let pruned = pruned_file(&tree, &unit_files, &error);
        anyhow::anyhow!("{}{pruned}", placed(manifest, error))
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
    let inputs = Inputs {
        missing_libraries: manifest.missing_libraries.clone(),
        script_accounts,
        foreign,
        libraries,
        assumed: manifest
            .assume
            .keys()
            .filter(|name| manifest.said.is_carried("assume", name))
            .cloned()
            .collect(),
        users,
        groups,
        ..rights.clone()
    };
    findings.extend(rootfs::checks::check_node(&tree, &inputs, manifest));
    judge(findings, progress)?;
    task.at("containers");
    let mut places = Vec::new();
    for (container, image) in manifest.containers.iter().zip(&images) {
        let place = containers::install(&mut tree, manifest.runtime, container, image)?;
        places.push((place, container::allowed(container)));
    }
    tree.check_size().context("putting packages, overlays and containers together")?;
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

/// Leaves out what `patterns` say, and tells which of them match nothing. Those that `carried` picks, by field and
/// pattern, are of files inside keller: they fit many images, and are nobody's mistake.
pub(super) fn prune(
    tree: &mut Tree,
    patterns: &Patterns,
    scope: &str,
    carried: &dyn Fn(&str, &str) -> bool,
    progress: &dyn Progress,
) {
    let idle = patterns.idle(tree).map(|idle| idle.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let pruned = tree.prune(patterns);
    let tell = |field: &str, pattern: &str, text: &str| match carried(field, pattern) {
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
}

/// Says which links went with what they led to; `carried`: only keller's own components prune.
pub(super) fn tell_links(left_out: &LeftOut, scope: &str, carried: bool, progress: &dyn Progress) {
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
            said.place("users.groups", &name).or(said.place("system_users.groups", &name))
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

/// The file that `prune` has left out and that the unit of `error` is, or would be made of; with the way out.
fn pruned_file(tree: &Tree, unit_files: &BTreeMap<String, String>, error: &rootfs::Error) -> String {
    let rootfs::Error::UnknownUnit { unit, .. } = error else { return String::new() };
    match rootfs::services::file_of(unit_files, unit).filter(|file| !tree.exists(file)) {
        Some(file) => format!("; `prune` leaves out /{file}, and `keep: [/{file}]` brings it back"),
        None => String::new(),
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
