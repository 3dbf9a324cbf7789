//! Loads kernel modules: the needed ones at once, drivers when a device asks for them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;

use rustix::io::Errno;

use super::console::Console;
use crate::base::failure::{Doing, Failure};
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

    /// Loads what every boot needs, and the drivers of the devices that are there already.
    pub fn load_needed(&mut self, console: &Console) -> Result<(), Failure> {
        // First what is faster on this processor: dm-verity takes the best SHA-256 that is there.
        let processor = fs::read_to_string(PROCESSOR).ok();
        let accelerators = self.wanted_by(processor);
        let failed = self.load(&accelerators);
        self.warn(console, failed);
        let needed: Vec<String> =
            self.list.0.iter().filter(|entry| entry.always).map(|entry| entry.name.clone()).collect();
        let drivers = self.wanted_by(device_identifiers());
        let failed = self.load(&[needed.clone(), drivers].concat());
        let (fatal, others): (Vec<_>, Vec<_>) =
            failed.into_iter().partition(|(name, _)| needed.contains(name));
        self.warn(console, others);
        if let Some((name, error)) = fatal.into_iter().next() {
            return Err(Failure::new(format!("loading the kernel module {name}"), error));
        }
        console.say("modules loaded");
        Ok(())
    }

    /// Loads drivers for devices that it has not seen; says whether there were any. A driver that does not
    /// load is no reason to stop: the disk may hang on another.
    pub fn load_for_devices(&mut self, console: &Console) -> bool {
        let before = self.seen.len();
        let names = self.wanted_by(device_identifiers());
        let failed = self.load(&names);
        self.warn(console, failed);
        self.seen.len() > before
    }

    fn warn(&self, console: &Console, failed: Vec<(String, io::Error)>) {
        for (name, error) in failed {
            console.warn(&format!("loading the kernel module {name}: {error}"));
        }
    }

    /// Names of the modules for identifiers that were not looked up before.
    fn wanted_by(&mut self, identifiers: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut names = Vec::new();
        for identifier in identifiers {
            let identifier = identifier.trim_end();
            if self.seen.insert(identifier.to_owned()) {
                names.extend(wanted(&self.list, identifier));
            }
        }
        names
    }

    /// Loads modules and what they need, all at the same time: a controller that looks for its disks keeps
    /// nobody waiting. Gives what failed.
    fn load(&mut self, names: &[String]) -> Vec<(String, io::Error)> {
        let names: BTreeSet<&String> = names.iter().collect();
        let new: Vec<_> = names.into_iter().filter(|name| self.loaded.insert((*name).clone())).collect();
        let list = &self.list;
        thread::scope(|scope| {
            let load = |name: &'_ String| insert(list, name);
            let threads: Vec<_> =
                new.into_iter().map(|name| (name, scope.spawn(move || load(name)))).collect();
            let failed = |(name, thread): (&String, thread::ScopedJoinHandle<'_, io::Result<()>>)| {
                let result = thread.join().unwrap_or_else(|_| Err(io::Error::other("the loader has a bug")));
                result.err().map(|error| (name.clone(), error))
            };
            threads.into_iter().filter_map(failed).collect()
        })
    }
}

/// Gives one module to the kernel, after what it needs. Two threads may come with the same module: the
/// kernel lets the second wait for the first.
fn insert(list: &ModuleList, name: &str) -> io::Result<()> {
    let entry = list.get(name).ok_or(io::ErrorKind::NotFound)?;
    for need in &entry.needs {
        // Asking the kernel again would cost another check of the module's signature.
        if !is_live(need) {
            insert(list, need)?;
        }
    }
    match rustix::system::finit_module(&File::open(&entry.path)?, c"", 0) {
        // It is there already.
        Err(Errno::EXIST) => Ok(()),
        // An accelerator whose instructions this processor does not have after all.
        Err(Errno::NODEV) => Ok(()),
        result => Ok(result?),
    }
}

fn is_live(name: &str) -> bool {
    fs::read_to_string(format!("/sys/module/{name}/initstate")).is_ok_and(|text| text.trim() == "live")
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
