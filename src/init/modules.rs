//! Loads kernel modules: the needed ones at once, drivers when a device asks for them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::console::Console;
use super::failure::{Doing, Failure};
use crate::boot::modules::{LIST, ModuleList, matches};

/// Where each bus lists its devices, each with a `modalias`.
const BUSES: &str = "/sys/bus";
/// The processor asks for the modules that use its instructions.
const PROCESSOR: &str = "/sys/devices/system/cpu/modalias";

/// The modules of the initramfs and which of them are loaded.
#[derive(Debug)]
pub struct Loader {
    list: ModuleList,
    loaded: BTreeSet<String>,
    /// Identifiers that were looked up already.
    seen: BTreeSet<String>,
}

impl Loader {
    /// Reads the list. An initramfs without one has a kernel that needs no modules.
    pub fn open() -> Result<Self, Failure> {
        let path = Path::new("/").join(LIST);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.doing(format!("reading {}", path.display()))?,
        };
        let list = ModuleList::parse(&text).doing(format!("reading {}", path.display()))?;
        Ok(Self { list, loaded: BTreeSet::new(), seen: BTreeSet::new() })
    }

    /// Loads what every boot needs.
    pub fn load_needed(&mut self, console: &Console) -> Result<(), Failure> {
        let always: Vec<_> =
            self.list.0.iter().filter(|entry| entry.always).map(|entry| entry.name.clone()).collect();
        // First what is faster on this processor: dm-verity takes the best SHA-256 that is there.
        self.load_matching(console, fs::read_to_string(PROCESSOR).ok());
        for name in always {
            self.load(&name).doing(format!("loading the kernel module {name}"))?;
        }
        console.say("modules loaded");
        Ok(())
    }

    /// Loads drivers for the devices that are there now; says whether there were any that it had not seen.
    /// A driver that does not load is no reason to stop: the disk may hang on another.
    pub fn load_for_devices(&mut self, console: &Console) -> bool {
        self.load_matching(console, device_identifiers())
    }

    fn load_matching(&mut self, console: &Console, identifiers: impl IntoIterator<Item = String>) -> bool {
        let mut any = false;
        for identifier in identifiers {
            let identifier = identifier.trim_end();
            if identifier.is_empty() || !self.seen.insert(identifier.to_owned()) {
                continue;
            }
            any = true;
            for name in wanted(&self.list, identifier) {
                if let Err(error) = self.load(&name) {
                    console.warn(&format!("module {name} for {identifier}: {error}"));
                }
            }
        }
        any
    }

    fn load(&mut self, name: &str) -> io::Result<()> {
        if !self.loaded.insert(name.to_owned()) {
            return Ok(());
        }
        let entry = self.list.get(name).ok_or(io::ErrorKind::NotFound)?.clone();
        for need in &entry.needs {
            self.load(need)?;
        }
        let file = File::open(&entry.path)?;
        match rustix::system::finit_module(&file, c"", 0) {
            // Another path asked for it, or the kernel has it built in.
            Err(Errno::EXIST) => Ok(()),
            // An accelerator whose instructions this processor does not have after all.
            Err(Errno::NODEV) => Ok(()),
            result => Ok(result?),
        }
    }
}

/// Names of the modules that drive a device.
fn wanted(list: &ModuleList, identifier: &str) -> Vec<String> {
    let drives = |alias: &String| matches(alias, identifier);
    list.0.iter().filter(|entry| entry.aliases.iter().any(drives)).map(|entry| entry.name.clone()).collect()
}

fn device_identifiers() -> Vec<String> {
    let mut found = Vec::new();
    for bus in fs::read_dir(BUSES).into_iter().flatten().flatten() {
        for device in fs::read_dir(bus.path().join("devices")).into_iter().flatten().flatten() {
            found.extend(fs::read_to_string(device.path().join("modalias")));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_ask_by_alias() {
        let list =
            "virtio_blk /a alias=virtio:d00000002v*\nsd_mod /b alias=scsi:t-0x00* alias=scsi:t-0x07*\n";
        let list = ModuleList::parse(list).unwrap();
        assert_eq!(wanted(&list, "scsi:t-0x07"), ["sd_mod"]);
        assert_eq!(wanted(&list, "virtio:d00000002v00001AF4"), ["virtio_blk"]);
        assert!(wanted(&list, "virtio:d00000001v00001AF4").is_empty());
    }
}
