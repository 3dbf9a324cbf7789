//! The running kernel: what it tells, and what it can be told.

use std::fs;
use std::io;
use std::path::Path;

/// Seconds since the kernel started; 0 as long as /proc is not there.
pub fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default()
}

/// What tells this start of the machine from all others, where /proc does.
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Sets whether it panics when a processor hangs for 20 seconds or a task for two minutes. `/init` turns that on for a
/// version that is not proven; a slow disk must not stop a node that is.
pub fn panic_on_hangs(on: bool) {
    for name in ["softlockup_panic", "hung_task_panic"] {
        // A kernel without the detector has no switch for it.
        let _ = fs::write(Path::new("/proc/sys/kernel").join(name), if on { "1\n" } else { "0\n" });
    }
}

/// Bytes that programs can still have, where /proc tells.
pub fn available_memory() -> Option<u64> {
    available_of(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// The same by the text of `/proc/meminfo`.
pub fn available_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// Sixteen random bytes, once there are any.
///
/// # Errors
/// What the kernel says.
pub fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_boot_has_a_name() {
        assert_eq!(boot_id().unwrap().len(), 36);
        assert_eq!(boot_id(), boot_id());
    }
}
