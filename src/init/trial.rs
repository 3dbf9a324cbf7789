//! A version on trial: one whose boot entry has a try counter. Where it hangs it must panic, so that the next try
//! comes; the agent takes that back once the version is blessed.

use std::fs;
use std::path::Path;

use super::console::Console;

/// systemd-boot sets it when the entry that it starts has a counter. Source: the Boot Loader Interface.
const COUNTED: &str = "/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Has the kernel panic when a processor hangs for 20 seconds or a task for two minutes.
pub fn begin(console: &Console) {
    if !Path::new(COUNTED).exists() {
        return;
    }
    for name in ["softlockup_panic", "hung_task_panic"] {
        // A kernel without the detector has no switch for it.
        let _ = fs::write(Path::new("/proc/sys/kernel").join(name), "1\n");
    }
    console.say("this version is on trial: hangs panic until it is blessed");
}
