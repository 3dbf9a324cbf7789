//! Whether the clock can be believed. Metadata that has expired is refused by the clock, so a clock at 1970 would
//! let old metadata in, and one in the future would keep all out.

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::failure::Failure;
use crate::base::progress::Progress;

/// systemd-timesyncd makes it when it has set the clock.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";
/// Between two looks at the clock.
const PAUSE: Duration = Duration::from_secs(2);

/// Seconds since 1970, whatever they are worth.
pub fn shown() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Whether somebody has set the clock by others in this boot.
pub fn is_synchronized() -> bool {
    Path::new(SYNCHRONIZED).exists() || kernel_is_synchronized()
}

/// What NTP daemons tell the kernel: adjtimex(2).
fn kernel_is_synchronized() -> bool {
    // SAFETY: all-zero is a valid timex, which with modes 0 is only written to.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    (0..libc::TIME_ERROR).contains(&state)
}

/// Waits until the clock was set by others, `patience` at the most; says whether it was.
pub fn wait(patience: Duration, progress: &dyn Progress) -> bool {
    let mut left = patience;
    if !is_synchronized() && !left.is_zero() {
        progress.detail("waiting for the clock to be synchronized");
    }
    while !is_synchronized() {
        if left.is_zero() {
            return false;
        }
        let pause = PAUSE.min(left);
        thread::sleep(pause);
        left -= pause;
    }
    true
}

/// The time, if it can be: not earlier than `epoch`, when the running image was made.
pub fn believed(shown: i64, epoch: i64) -> Result<i64, Failure> {
    if shown >= epoch {
        return Ok(shown);
    }
    let date =
        |seconds| jiff::Timestamp::from_second(seconds).map_or("?".to_owned(), |time| time.to_string());
    let cause = format!("it shows {}, and this image is of {}", date(shown), date(epoch));
    Err(Failure::new("looking at the clock", cause)
        .help("wait until the time is synchronized, see `timedatectl`, or set it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Chain;

    #[test]
    fn no_time_before_the_image() {
        assert_eq!(believed(10, 10).unwrap(), 10);
        let text = Chain(&believed(0, 1_700_000_000).unwrap_err()).to_string();
        assert!(text.contains("1970-01-01") && text.contains("2023-11-14") && text.contains("timedatectl"));
    }
}
