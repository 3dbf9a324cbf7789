//! Arms the hardware watchdog, where there is one and its driver is in the initramfs: a machine that hangs from
//! here on is started over. systemd takes it over (RuntimeWatchdogSec).
//!
//! Source: Linux, include/uapi/linux/watchdog.h; Documentation/watchdog/watchdog-api.rst.

use std::fs::{self, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::console::Console;

const DEVICE: &str = "/dev/watchdog0";
/// `WDIOC_SETTIMEOUT`, `_IOWR('W', 6, int)`.
const SET_TIMEOUT: libc::Ioctl = 0xc004_5706_u32 as libc::Ioctl;
/// From the disk's appearance until systemd has taken it over: emulated and with e2fsck at work, that is less
/// than half of it.
const SECONDS: libc::c_int = 90;

/// Starts the countdown. A machine without a watchdog boots all the same.
pub(super) fn arm(console: &Console) {
    if !Path::new(DEVICE).exists() {
        return;
    }
    match open() {
        Ok(seconds) => console.say(&format!("watchdog {}armed, {seconds} seconds", identity())),
        Err(error) => console.warn(&format!("arming {DEVICE}: {error}")),
    }
}

/// Opening starts it. Closing without the magic letter leaves it running, and says so in the kernel's log, so it
/// is closed only by the exec that ends /init.
fn open() -> io::Result<libc::c_int> {
    let device = OpenOptions::new().write(true).open(DEVICE)?;
    let mut seconds = SECONDS;
    // SAFETY: the request reads and writes one int, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SET_TIMEOUT, &raw mut seconds) };
    let error = io::Error::last_os_error();
    mem::forget(device);
    // One whose time is fixed counts down all the same.
    match result {
        0 => Ok(seconds),
        _ => Err(error),
    }
}

fn identity() -> String {
    fs::read_to_string("/sys/class/watchdog/watchdog0/identity")
        .map(|text| format!("{} ", text.trim()))
        .unwrap_or_default()
}
