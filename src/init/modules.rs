//! Loads kernel modules: the needed ones at once, drivers when a device asks for them; with the parameters and
//! without what is blacklisted, as modprobe would.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;

use rustix::io::Errno;

use super::console::Console;
use crate::base::failure::{Doing, Failure};
use crate::boot::modprobe::{self, Config};
use crate::boot::modules::{LIST, ModuleList, Step, When, matches};

/// Where each bus lists its devices, each with a `modalias`.
const BUSES: &str = "/sys/bus";
/// The processor asks for the modules that use its instructions.
const PROCESSOR: &str = "/sys/devices/system/cpu/modalias";
const CMDLINE: &str = "/proc/cmdline";

/// The modules of the initramfs and which of them are loaded.
#[derive(Debug)]
pub(super) struct Loader {
    list: ModuleList,
    config: Config,
    loaded: BTreeSet<String>,
    /// Identifiers that were looked up already.
    seen: BTreeSet<String>,
    /// Modules that are left out, by the word that says so; told once.
    left_out: BTreeSet<(String, &'static str)>,
}

/// A module that could not be loaded.
#[derive(Debug)]
struct Failed {
    /// The module that was asked for.
    asked: String,
    /// The one that failed: this one, or one on the way to it.
    module: String,
    parameters: String,
    /// Whether the one that was asked for is not there because of it.
    required: bool,
    error: io::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loading the kernel module {}", self.module)?;
        if !self.parameters.is_empty() {
            write!(f, " with {}", self.parameters)?;
        }
        if self.asked != self.module {
            write!(f, " for {}", self.asked)?;
        }
        Ok(())
    }
}

impl Loader {
    /// Reads the list. An initramfs without one has a kernel that needs no modules.
    pub(super) fn open() -> Result<Self, Failure> {
        let list = ModuleList::parse(&carried(LIST)?).doing(format!("reading /{LIST}"))?;
        let mut config = Config::default();
        // The builder wrote it: there is no line that says nothing.
        let _ = config.read(modprobe::FILE, &carried(modprobe::FILE)?);
        config.read_cmdline(&fs::read_to_string(CMDLINE).doing("reading the kernel command line")?);
        let (loaded, seen, left_out) = Default::default();
        Ok(Self { list, config, loaded, seen, left_out })
    }

    /// Loads what every boot needs, and the drivers of the devices that are there already.
    pub(super) fn load_needed(&mut self, console: &Console) -> Result<(), Failure> {
        // First what is faster on this processor: dm-verity takes the best SHA-256 that is there.
        let processor = fs::read_to_string(PROCESSOR).ok();
        let accelerators = self.wanted_by(processor);
        let failed = self.load(&accelerators);
        self.warn(console, failed);
        let needed = self.names(When::Always);
        let listed: Vec<String> = self.names(When::Listed);
        let listed = self.allowed(listed);
        let drivers = self.wanted_by(device_identifiers());
        let failed = self.load(&[needed.clone(), listed.clone(), drivers].concat());
        let is_fatal = |failed: &Failed| {
            failed.required && (needed.contains(&failed.asked) || listed.contains(&failed.asked))
        };
        let (fatal, others): (Vec<_>, Vec<_>) = failed.into_iter().partition(is_fatal);
        self.warn(console, others);
        if let Some(failed) = fatal.into_iter().next() {
            let step = failed.to_string();
            return Err(Failure::new(step, failed.error));
        }
        console.say("modules loaded");
        Ok(())
    }

    /// Loads the module `name`, if it is here: the kernel may have it built in.
    pub(super) fn load_named(&mut self, name: &str) -> Result<(), Failure> {
        if self.list.get(name).is_none() {
            return Ok(());
        }
        match self.load(&[name.to_owned()]).into_iter().find(|failed| failed.required) {
            Some(failed) => Err(Failure::new(failed.to_string(), failed.error)),
            None => Ok(()),
        }
    }

    /// Loads drivers for devices that it has not seen; says whether there were any. A driver that does not
    /// load is no reason to stop: the disk may hang on another.
    pub(super) fn load_for_devices(&mut self, console: &Console) -> bool {
        let before = self.seen.len();
        let names = self.wanted_by(device_identifiers());
        let failed = self.load(&names);
        self.warn(console, failed);
        self.seen.len() > before
    }

    fn warn(&mut self, console: &Console, failed: Vec<Failed>) {
        for failed in failed {
            console.warn(&format!("{failed}: {}", failed.error));
        }
        for (module, word) in std::mem::take(&mut self.left_out) {
            console.say(&format!("the kernel module {module} is not loaded: {word} names it"));
        }
    }

    fn names(&self, when: When) -> Vec<String> {
        self.list.0.iter().filter(|entry| entry.when == when).map(|entry| entry.name.clone()).collect()
    }

    /// Those of `names` that no blacklist names.
    fn allowed(&mut self, mut names: Vec<String>) -> Vec<String> {
        names.retain(|name| {
            let word = self.config.keeps_out(name);
            self.left_out.extend(word.map(|word| (name.clone(), word)));
            word.is_none()
        });
        names
    }

    /// Names of the modules for identifiers that were not looked up before.
    fn wanted_by(&mut self, identifiers: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut names = Vec::new();
        for identifier in identifiers {
            let identifier = identifier.trim_end();
            if self.seen.insert(identifier.to_owned()) {
                names.extend(wanted(&self.list, &self.config, identifier));
            }
        }
        self.allowed(names)
    }

    /// Loads modules and what they need, all at the same time: a controller that looks for its disks keeps
    /// nobody waiting. Gives what failed.
    fn load(&mut self, names: &[String]) -> Vec<Failed> {
        let names: BTreeSet<&String> = names.iter().collect();
        let new: Vec<_> = names.into_iter().filter(|name| self.loaded.insert((*name).clone())).collect();
        let (list, config) = (&self.list, &self.config);
        thread::scope(|scope| {
            let load = |name: &'_ String| insert(list, config, name);
            let threads: Vec<_> =
                new.into_iter().map(|name| (name, scope.spawn(move || load(name)))).collect();
            let failed = |(name, thread): (&String, thread::ScopedJoinHandle<'_, Vec<Failed>>)| {
                thread.join().unwrap_or_else(|_| {
                    let error = io::Error::other("the loader has a bug");
                    let (asked, module, parameters) = (name.clone(), name.clone(), String::new());
                    vec![Failed { asked, module, parameters, required: true, error }]
                })
            };
            threads.into_iter().flat_map(failed).collect()
        })
    }
}

/// A file of the initramfs; empty where there is none.
fn carried(name: &str) -> Result<String, Failure> {
    match fs::read_to_string(Path::new("/").join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.doing(format!("reading /{name}")),
    }
}

/// Gives one module to the kernel, with those on the way to it. Two threads may come with the same module:
/// the kernel lets the second wait for the first.
fn insert(list: &ModuleList, config: &Config, name: &str) -> Vec<Failed> {
    let mut failed = Vec::new();
    for Step { entry, required } in list.steps(name) {
        // Asking the kernel again would cost another check of the module's signature.
        if is_live(&entry.name) {
            continue;
        }
        let parameters = config.parameters(&entry.name);
        if let Err(error) = give(&entry.path, &parameters) {
            let error = match config.keeps_out(&entry.name) {
                // The kernel's own answer does not say why.
                Some(word) if error.kind() == io::ErrorKind::PermissionDenied => {
                    io::Error::other(format!("{word} on the kernel command line forbids it"))
                }
                _ => error,
            };
            let (asked, module) = (name.to_owned(), entry.name.clone());
            failed.push(Failed { asked, module, parameters, required, error });
            if required {
                break;
            }
        }
    }
    failed
}

fn give(path: &str, parameters: &str) -> io::Result<()> {
    let parameters = CString::new(parameters)?;
    match rustix::system::finit_module(&File::open(path)?, &parameters, 0) {
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

/// Names of the modules that drive a device: those of the configuration, else those that say so themselves.
fn wanted(list: &ModuleList, config: &Config, identifier: &str) -> Vec<String> {
    let named = config.modules_of(identifier);
    if !named.is_empty() {
        // What is not here is for the root to load.
        return named.into_iter().filter(|name| list.get(name).is_some()).map(str::to_owned).collect();
    }
    let drives = |alias: &String| matches(alias, identifier);
    list.0.iter().filter(|entry| entry.aliases.iter().any(drives)).map(|entry| entry.name.clone()).collect()
}

fn device_identifiers() -> Vec<String> {
    let mut found = Vec::new();
    for bus in fs::read_dir(BUSES).into_iter().flatten().flatten() {
        for device in fs::read_dir(bus.path().join("devices")).into_iter().flatten().flatten() {
            let device = device.path();
            let own = fs::read_to_string(device.join("modalias")).ok();
            found.extend(own.or_else(|| in_event(&fs::read_to_string(device.join("uevent")).ok()?)));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The identifier in the text of an event: a part of a card, on the bus `auxiliary`, has it nowhere else.
fn in_event(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("MODALIAS=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_ask_by_alias() {
        let list =
            "virtio_blk /a alias=virtio:d00000002v*\nsd_mod /b alias=scsi:t-0x00* alias=scsi:t-0x07*\n";
        let list = ModuleList::parse(list).unwrap();
        let mut config = Config::default();
        let wanted = |config: &Config, identifier: &str| wanted(&list, config, identifier);
        assert_eq!(wanted(&config, "scsi:t-0x07"), ["sd_mod"]);
        assert_eq!(wanted(&config, "virtio:d00000002v00001AF4"), ["virtio_blk"]);
        assert!(wanted(&config, "virtio:d00000001v00001AF4").is_empty());
        let _ = config.read("x.conf", "alias virtio:d00000002v* sd-mod\nalias scsi:t-0x* off\n");
        assert_eq!(wanted(&config, "virtio:d00000002v00001AF4"), ["sd_mod"]);
        assert!(wanted(&config, "scsi:t-0x07").is_empty());
    }

    #[test]
    fn a_blacklist_holds_for_devices_and_lists_but_not_for_what_a_boot_needs() {
        let list = "dm_mod /a always\ne1000 /b listed\nvirtio_blk /c alias=virtio:d00000002v*\n";
        let list = ModuleList::parse(list).unwrap();
        let mut config = Config::default();
        config.read_cmdline("modprobe.blacklist=e1000,dm_mod module_blacklist=virtio_blk");
        let (loaded, seen, left_out) = Default::default();
        let mut loader = Loader { list, config, loaded, seen, left_out };
        assert_eq!(loader.names(When::Always), ["dm_mod"]);
        let listed = loader.names(When::Listed);
        assert!(loader.allowed(listed).is_empty());
        assert!(loader.wanted_by(["virtio:d00000002v00001AF4\n".to_owned()]).is_empty());
        let told: Vec<_> = loader.left_out.iter().map(|(module, word)| format!("{module}: {word}")).collect();
        assert_eq!(
            told,
            ["e1000: a blacklist (modprobe.blacklist= or modprobe.d)", "virtio_blk: module_blacklist="]
        );
    }

    #[test]
    fn an_event_has_the_identifier_of_a_part() {
        let text = "DRIVER=x\nMODALIAS=auxiliary:mlx4_core.eth\nSEQNUM=7\n";
        assert_eq!(in_event(text).as_deref(), Some("auxiliary:mlx4_core.eth"));
        assert_eq!(in_event("DRIVER=x\n"), None);
    }

    #[test]
    fn a_failure_names_the_module_and_its_parameters() {
        let list = ModuleList::parse("a /nosuch/a\nb /nosuch/b\nc /nosuch/c needs=a before=b\n").unwrap();
        let mut config = Config::default();
        config.read_cmdline("a.x=1 b.y=2");
        let failed = insert(&list, &config, "c");
        let told: Vec<_> = failed.iter().map(Failed::to_string).collect();
        assert_eq!(told, ["loading the kernel module a with x=1 for c"]);
        let list = ModuleList::parse("b /nosuch/b\nc /nosuch/c before=b\n").unwrap();
        let failed = insert(&list, &config, "c");
        let told: Vec<_> = failed.iter().map(|failed| (failed.to_string(), failed.required)).collect();
        assert_eq!(told[0], ("loading the kernel module b with y=2 for c".to_owned(), false));
        assert_eq!(told[1], ("loading the kernel module c".to_owned(), true));
    }
}
