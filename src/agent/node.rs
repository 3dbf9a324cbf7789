//! Facts of the running node: what runs, from where, and how it was started.

use std::fs;

use crate::base::failure::{Doing, Failure};
use crate::base::kernel;
use crate::boot::handover::{self, Handover};
use crate::boot::variables;

/// What `/init` found out.
pub fn handover() -> Result<Handover, Failure> {
    let text = fs::read(handover::PATH).doing(format!("reading {}", handover::PATH));
    let text = text.map_err(|failure| failure.help("this system was not started by keller's /init"))?;
    serde_json::from_slice(&text).doing(format!("reading {}", handover::PATH))
}

/// Why what was remembered of updates is out of reach in this boot, if it is.
pub fn forgetful() -> Option<String> {
    handover().ok()?.forgetful
}

/// The file of the entry that was started, if it had a try counter: without it, the entry is a good one, and
/// systemd-boot sets no such variable. The name is the one after it was counted down.
pub fn counted_entry() -> Option<String> {
    let path = variables::read(variables::COUNTED)?;
    Some(path.rsplit(['\\', '/']).next().unwrap_or(&path).to_owned())
}

/// The entry that was started, as the boot loader names it.
pub fn selected_entry() -> Option<String> {
    variables::read(variables::SELECTED)
}

/// Tells boots apart, as systemd writes it.
pub fn boot_id() -> String {
    kernel::boot_id().unwrap_or_default().replace('-', "")
}

/// Tells nodes apart; the same for ever.
pub fn machine_id() -> String {
    fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned()
}

/// The most memory that this process has had at a time, in bytes.
pub fn peak_memory() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() << 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::width::to_u64;

    #[test]
    fn the_kernel_tells_how_much_memory_there_was() {
        let held = vec![1_u8; 32 << 20];
        assert!(peak_memory() > to_u64(std::hint::black_box(&held).len()));
    }
}
