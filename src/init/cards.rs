//! Cards of the machine, for a document that is chosen by the address of one. The initramfs has drivers for disks only:
//! those of cards come from the verified root, a moment before udev would load them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::console::Console;
use super::tools;
use super::uevents::Uevents;
use crate::node::{Document, Machine};

const SYS: &str = "/sys";
const MODPROBE: &str = "/usr/sbin/modprobe";

/// A card that loads its firmware takes some seconds. Without news of any device for this long ...
const QUIET: Duration = Duration::from_secs(2);
/// ... or after this time in all, the ones that are there are all that there are.
const CAP: Duration = Duration::from_secs(15);

/// What is known of the machine without drivers for its cards.
pub(super) fn machine() -> Machine {
    Machine::of(Path::new(SYS))
}

/// Loads the drivers of cards, and waits for them until one of `documents` is for this machine.
pub(super) fn find(console: &Console, documents: &[Document]) -> Machine {
    let events = Uevents::listen();
    let end = Instant::now() + CAP;
    let mut seen = BTreeSet::new();
    loop {
        load(console, &mut seen);
        let machine = machine();
        let goes_on = machine.lacks_card(documents) && Instant::now() < end;
        // A bus such as virtio or USB appears with a driver, and its cards after it.
        if !goes_on || !events.is_busy(QUIET) {
            console.say(&format!("a node document is for a card; this is {}", machine.shown()));
            return self::machine();
        }
    }
}

/// Loads a module of the root that no device has asked for.
pub(super) fn load_module(console: &Console, name: &str) {
    if let Err(failure) = tools::run(console, MODPROBE, &["--quiet", "--use-blacklist", "--", name]) {
        console.warn(&failure.lines().join(": "));
    }
}

/// Loads drivers for cards that have none, each asked for once.
fn load(console: &Console, seen: &mut BTreeSet<String>) {
    let new: Vec<String> =
        unbound(Path::new(SYS)).into_iter().filter(|alias| seen.insert(alias.clone())).collect();
    if new.is_empty() {
        return;
    }
    let words = ["--quiet", "--use-blacklist", "--all", "--"];
    let words: Vec<&str> = words.into_iter().chain(new.iter().map(String::as_str)).collect();
    // Some have no driver in this root, which is no reason to stop.
    if let Err(failure) = tools::run(console, MODPROBE, &words) {
        console.warn(&failure.lines().join(": "));
    }
}

/// Identifiers of what may be a card and has no driver.
pub(super) fn unbound(sys: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for bus in fs::read_dir(sys.join("bus")).into_iter().flatten().flatten() {
        for device in fs::read_dir(bus.path().join("devices")).into_iter().flatten().flatten() {
            let device = device.path();
            let Ok(alias) = fs::read_to_string(device.join("modalias")) else { continue };
            let alias = alias.trim();
            if may_be_card(alias) && !device.join("driver").exists() {
                found.push(alias.to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Whether an identifier (Documentation/driver-api, "modalias") is that of a card or of a bus on which one may be.
fn may_be_card(alias: &str) -> bool {
    let has = |part: &str| alias.contains(part);
    match alias.split_once(':') {
        // Base class 02 is a network controller, 0C03 a USB controller; virtio's cards are of the first.
        Some(("pci", _)) => has("bc02") || has("bc0Csc03"),
        Some(("virtio", rest)) => rest.starts_with("d00000001"),
        // Communication (CDC), wireless, and what has a class of its own.
        Some(("usb", _)) => has("ic02") || has("icE0") || has("icFF"),
        Some(("vmbus" | "xen", _)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_for_cards_without_one() {
        let sys = tempfile::tempdir().unwrap();
        for (device, alias, has_driver) in [
            ("pci/devices/0", "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00", false),
            ("pci/devices/1", "pci:v00008086d000010D3sv00008086sd00000001bc02sc00i00", true),
            ("pci/devices/2", "pci:v00001234d00001111sv00001AF4sd00001100bc03sc00i00", false),
            ("virtio/devices/0", "virtio:d00000001v00001AF4", false),
            ("virtio/devices/1", "virtio:d00000002v00001AF4", false),
            ("usb/devices/0", "usb:v0B95p7720d0001dcFFdscFFdp00icFFisc00ip00in00", false),
            ("usb/devices/1", "usb:v0627p0001d0000dc00dsc00dp00ic03isc01ip02in00", false),
        ] {
            let path = sys.path().join("bus").join(device);
            fs::create_dir_all(if has_driver { path.join("driver") } else { path.clone() }).unwrap();
            fs::write(path.join("modalias"), format!("{alias}\n")).unwrap();
        }
        let found = unbound(sys.path());
        assert_eq!(
            found,
            [
                "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00",
                "usb:v0B95p7720d0001dcFFdscFFdp00icFFisc00ip00in00",
                "virtio:d00000001v00001AF4",
            ]
        );
    }
}
