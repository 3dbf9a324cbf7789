//! The root's modprobe.d, as far as the initramfs goes by it.

use anyhow::Result;

use crate::base::progress::Progress;
use crate::boot::modprobe::Config;
use crate::boot::modules::ModuleList;
use crate::rootfs::conf_d;
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
