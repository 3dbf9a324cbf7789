//! A version on trial: one whose boot entry has a try counter. Where it hangs it must panic, so that the next try
//! comes; the agent takes that back once the version is healthy.

use super::console::Console;
use crate::base::kernel;
use crate::boot::variables;

/// Has the kernel panic when a processor hangs for 20 seconds or a task for two minutes.
pub(super) fn begin(console: &Console) {
    if variables::read(variables::COUNTED).is_none() {
        return;
    }
    kernel::panic_on_hangs(true);
    console.say("this version is on trial: hangs panic until it is healthy");
}
