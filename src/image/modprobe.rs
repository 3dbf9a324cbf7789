//! The root's modules as `prune` and overlays left them, and its modprobe.d, as far as the initramfs goes by it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::base::near::{did_you_mean, near_or_part};
use crate::base::progress::Progress;
use crate::boot::modprobe::Config;
use crate::boot::modules::ModuleList;
use crate::manifest::Manifest;
use crate::rootfs::modules::{Module, paths};
use crate::rootfs::{ModuleIndex, conf_d};
use crate::tree::Tree;

/// Where modprobe looks, by name: kmod has /run and /usr/local/lib between /etc and /usr/lib, but no root has anything
/// there when it boots for the first time.
const FOLDER: &str = "modprobe.d";

/// Reads all files, and tells which lines modprobe ignores.
pub(super) fn read(tree: &Tree, progress: &dyn Progress) -> Result<Config> {
    let mut config = Config::default();
    for file in conf_d::files(tree, FOLDER)? {
        for line in config.read(&file.path, &file.text()) {
            progress.note(&line.to_string());
        }
    }
    Ok(config)
}

/// Parameters that the kernel takes for every module.
const EVERYWHERE: [&str; 2] = ["dyndbg", "async_probe"];

/// How many modules a message names.
const NAMED: usize = 12;

fn listed(manifest: &Manifest) -> &[String] {
    manifest.kernel.initramfs_modules.named().unwrap_or_default()
}

/// Fails when the manifest asks by name for a module that its own `prune` took away and neither an overlay nor
/// `files` brought back; `before` are the paths of modules by name before that.
pub(super) fn check_names(manifest: &Manifest, tree: &Tree, before: &BTreeMap<String, String>) -> Result<()> {
    let now = paths(tree);
    let fields = [("kernel.load", &manifest.kernel.load[..]), ("kernel.initramfs_modules", listed(manifest))];
    for (field, names) in fields {
        for name in names {
            let normal = name.replace('-', "_");
            if let Some(path) = before.get(&normal).filter(|_| !now.contains_key(&normal)) {
                bail!("{field} names {name}, but `prune` takes {path} away: put it into `keep`");
            }
        }
    }
    Ok(())
}

/// Tells which modules are there without one that they cannot be loaded without. Fails when the manifest asks for one
/// of them by name, or for one that needs it.
pub(super) fn check_needs(
    manifest: &Manifest,
    index: &ModuleIndex,
    before: &BTreeMap<String, String>,
    progress: &dyn Progress,
) -> Result<()> {
    let wanted = wanted(manifest, index);
    let folder = format!("/{}/{}", crate::rootfs::modules::FOLDER, index.kernel);
    let line = |module: &Module, needs: &str| match before.get(needs) {
        Some(path) => format!("{folder}/{} needs {path}, which `prune` takes away", module.path),
        None => format!("{folder}/{} needs {needs}, which nothing has", module.path),
    };
    let (errors, notes): (Vec<_>, Vec<_>) =
        index.unmet().partition(|(module, _)| wanted.contains(&module.name.as_str()));
    let told = |unmet: Vec<(&Module, &str)>| {
        let lines = unmet.iter().take(NAMED).map(|(module, needs)| format!("\n  {}", line(module, needs)));
        let more = unmet.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!("\n  and {more} more") };
        lines.collect::<String>() + &more
    };
    if !notes.is_empty() {
        progress.note(&format!(
            "modules that can never be loaded: put what they need into `keep`, or the modules themselves into \
             `prune`:{}",
            told(notes)
        ));
    }
    if !errors.is_empty() {
        bail!(
            "modules that the manifest asks for could never be loaded: put what they need into `keep`:{}",
            told(errors)
        );
    }
    Ok(())
}

/// Tells what the manifest and modprobe.d say of modules without an effect: a module to load that the kernel has built
/// in, and a parameter that a module does not have, which the kernel ignores.
pub(super) fn tell_idle(manifest: &Manifest, index: &ModuleIndex, config: &Config, progress: &dyn Progress) {
    let fields = [("kernel.load", &manifest.kernel.load[..]), ("kernel.initramfs_modules", listed(manifest))];
    for (field, names) in fields {
        for name in names.iter().filter(|name| index.builtin.contains(&name.replace('-', "_"))) {
            let names = manifest.said.names(field, name);
            progress.note(&format!(
                "{names}, which kernel {} has built in: there is nothing to load",
                index.kernel
            ));
        }
    }
    let mut config = config.clone();
    // As `/init` and modprobe read it.
    config.read_cmdline(&manifest.kernel.cmdline.join(" "));
    let mut told = BTreeSet::new();
    for (module, parameter) in config.named_parameters() {
        let Some(found) = index.get(&module) else { continue };
        let known = found.facts.parameters.iter().any(|known| known.replace('-', "_") == parameter);
        if known
            || EVERYWHERE.contains(&parameter.as_str())
            || !told.insert((module.clone(), parameter.clone()))
        {
            continue;
        }
        let known = found.facts.parameters.iter().map(String::as_str);
        let like = did_you_mean(&near_or_part(&parameter, known));
        progress.note(&format!(
            "module {module} is given the parameter {parameter}, which it does not have as far as modinfo tells: the \
             kernel ignores it{like}"
        ));
    }
}

/// Names of the modules that the manifest asks for, and of all that those need.
fn wanted<'a>(manifest: &Manifest, index: &'a ModuleIndex) -> BTreeSet<&'a str> {
    let named = manifest.kernel.load.iter().chain(listed(manifest)).map(|name| name.replace('-', "_"));
    let named: BTreeSet<String> = named.collect();
    let asked = index.modules.iter().filter(|module| named.contains(&module.name));
    let all = asked.flat_map(|module| {
        let needs = module.depends.iter().map(|needs| index.modules[*needs].name.as_str());
        needs.chain([module.name.as_str()])
    });
    all.collect()
}

/// Tells which commands of `config` the initramfs does not run, though it has their modules.
pub(super) fn tell_commands(config: &Config, carried: &ModuleList, progress: &dyn Progress) {
    for entry in &carried.0 {
        if let Some(install) = config.install(&entry.name) {
            progress.note(&format!(
                "{}: `install {} {}` holds on the running node only: in the initramfs /init loads {} and runs no \
                 command",
                install.place, install.module, install.command, entry.name
            ));
        }
    }
}
