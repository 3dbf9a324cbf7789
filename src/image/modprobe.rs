//! The root's modules as `prune` left them, and its modprobe.d, as far as the initramfs goes by it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::base::progress::Progress;
use crate::boot::modprobe::Config;
use crate::boot::modules::ModuleList;
use crate::manifest::{InitramfsModules, Manifest};
use crate::rootfs::modules::paths;
use crate::rootfs::{ModuleIndex, conf_d};
use crate::tree::Tree;

/// Where modprobe looks, by name: kmod has /run between /etc and /usr/lib, but no root has anything there.
const FOLDER: &str = "modprobe.d";

/// Reads all files, and tells which lines modprobe ignores.
pub fn read(tree: &Tree, progress: &dyn Progress) -> Result<Config> {
    let mut config = Config::default();
    for file in conf_d::files(tree, FOLDER)? {
        for line in config.read(&file.path, &file.text()) {
            progress.note(&line.to_string());
        }
    }
    Ok(config)
}

/// How many modules an error names.
const NAMED: usize = 12;

/// Fails when the manifest asks by name for a module that its own `prune` took away; `before` are the paths of
/// modules by name before that.
pub fn check_names(manifest: &Manifest, tree: &Tree, before: &BTreeMap<String, String>) -> Result<()> {
    let listed: &[String] = match &manifest.kernel.initramfs_modules {
        InitramfsModules::Auto => &[],
        InitramfsModules::List(names) => names,
    };
    let now = paths(tree);
    for (field, names) in [("kernel.load", &manifest.kernel.load[..]), ("kernel.initramfs_modules", listed)] {
        for name in names {
            let normal = name.replace('-', "_");
            if let Some(path) = before.get(&normal).filter(|_| !now.contains_key(&normal)) {
                bail!("{field} names {name}, but `prune` takes {path} away: put it into `keep`");
            }
        }
    }
    Ok(())
}

/// Fails when a module is there without one that it cannot be loaded without.
pub fn check_needs(index: &ModuleIndex, before: &BTreeMap<String, String>) -> Result<()> {
    let folder = format!("/{}/{}", crate::rootfs::modules::FOLDER, index.kernel);
    let lines: Vec<String> = index
        .unmet()
        .map(|(module, needs)| match before.get(needs) {
            Some(path) => format!("{folder}/{} needs {path}, which `prune` takes away", module.path),
            None => format!("{folder}/{} needs {needs}, which nothing has", module.path),
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    let more = match lines.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    let named = lines.iter().take(NAMED).map(|line| format!("\n  {line}")).collect::<String>();
    bail!(
        "modules could never be loaded: put what they need into `keep`, or the modules themselves into \
         `prune`:{named}{more}"
    )
}

/// Tells which commands of `config` the initramfs does not run, though it has their modules.
pub fn tell_commands(config: &Config, carried: &ModuleList, progress: &dyn Progress) {
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
