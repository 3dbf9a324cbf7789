//! Signals that end a verb which has something to clear away first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::base::scratch;
use crate::base::signal::is_ignored;

/// Set by SIGINT, SIGTERM and SIGHUP from now on; whoever asks ends what runs.
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
    scratch::leave_signals();
    Ok(interrupted)
}

/// Goes on when the terminal or the connection ends.
pub fn ignore_hang_up() {
    // SAFETY: to ignore a signal touches nothing of this program.
    unsafe { libc::signal(SIGHUP, libc::SIG_IGN) };
}

/// Has a write beyond the largest size of a file that this process may write (`ulimit -f`) fail, as any other that cannot
/// be done, in place of ending it without a word.
pub fn fail_beyond_limits() {
    // SAFETY: to ignore a signal touches nothing of this program.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
