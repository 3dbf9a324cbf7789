//! Signals that end a verb which has something to clear away first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Set by SIGINT, SIGTERM and SIGHUP from now on.
///
/// # Errors
/// Those of the system.
pub fn interruption() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    // `nohup` has it ignored, for a run that outlives its terminal.
    if !is_ignored(SIGHUP) {
        signal_hook::flag::register(SIGHUP, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// Goes on when the terminal or the connection ends.
pub fn ignore_hang_up() {
    // SAFETY: to ignore a signal touches nothing of this program.
    unsafe { libc::signal(SIGHUP, libc::SIG_IGN) };
}

fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one, which all zeros are a valid form of.
    unsafe {
        let asked = libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        asked == 0 && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
