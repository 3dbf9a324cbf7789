//! A version on trial: one whose boot entry has a try counter. Where it hangs it must panic, so that the next try
//! comes; the agent takes that back once the version is blessed.

use std::fs;
use std::path::Path;

use super::console::Console;
use crate::boot::variables;

/// Has the kernel panic when a processor hangs for 20 seconds or a task for two minutes.
pub fn begin(console: &Console) {
    if variables::read(variables::COUNTED).is_none() {
        return;
    }
    for name in ["softlockup_panic", "hung_task_panic"] {
        // A kernel without the detector has no switch for it.
        let _ = fs::write(Path::new("/proc/sys/kernel").join(name), "1\n");
    }
    console.say("this version is on trial: hangs panic until it is blessed");
}
