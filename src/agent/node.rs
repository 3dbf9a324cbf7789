//! Facts of the running node: what runs, from where, and how it was started.

use std::fs;
use std::path::Path;

use uuid::Uuid;

use super::failure::{Doing, Failure};
use crate::boot::handover::{self, Handover};

/// GUID of the Boot Loader Interface's variables. Source: systemd, docs/BOOT_LOADER_INTERFACE.md.
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const VARIABLES: &str = "/sys/firmware/efi/efivars";

/// What `/init` found out.
pub fn handover() -> Result<Handover, Failure> {
    let text = fs::read(handover::PATH).doing(format!("reading {}", handover::PATH));
    let text = text.map_err(|failure| failure.help("this system was not started by keller's /init"))?;
    serde_json::from_slice(&text).doing(format!("reading {}", handover::PATH))
}

/// An EFI variable of the boot loader; none where there is no firmware or it says nothing.
fn variable(name: &str) -> Option<String> {
    let bytes = fs::read(Path::new(VARIABLES).join(format!("{name}-{LOADER}"))).ok()?;
    text_of(&bytes)
}

/// Four bytes of attributes, then UTF-16 with an end mark.
fn text_of(bytes: &[u8]) -> Option<String> {
    let pairs = bytes.get(4..)?.chunks_exact(2);
    let units: Vec<u16> = pairs.map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Some(String::from_utf16(&units).ok()?.trim_end_matches('\0').to_owned())
}

/// The file of the entry that was started, if it had a try counter: without it, the entry is a good one, and
/// systemd-boot sets no such variable. The name is the one after it was counted down.
pub fn counted_entry() -> Option<String> {
    let path = variable("LoaderBootCountPath")?;
    Some(path.rsplit(['\\', '/']).next().unwrap_or(&path).to_owned())
}

/// The entry that was started, as the boot loader names it.
pub fn selected_entry() -> Option<String> {
    variable("LoaderEntrySelected")
}

/// PARTUUID of the ESP that the boot loader came from.
pub fn loader_partition() -> Option<Uuid> {
    variable("LoaderDevicePartUUID")?.parse().ok()
}

/// Tells boots apart.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().replace('-', "")
}

/// Tells nodes apart; the same for ever.
pub fn machine_id() -> String {
    fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned()
}

/// Seconds since the kernel started.
pub fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default()
}

/// What the kernel does when a processor or a task hangs: whether it panics. `/init` turns that on for a version
/// that is not proven; a slow disk must not stop a node that is.
pub fn forgive_hangs() {
    for name in ["softlockup_panic", "hung_task_panic"] {
        // A kernel without the detector has no switch for it.
        let _ = fs::write(Path::new("/proc/sys/kernel").join(name), "0\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_utf16() {
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend("a.efi\0".encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(text_of(&bytes).as_deref(), Some("a.efi"));
        assert_eq!(text_of(&[6, 0]), None);
    }
}
