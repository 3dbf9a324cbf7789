//! When a node looks for updates: at an interval, each node at its own moment, more rarely while it fails.

use std::time::Duration;

use crate::base::Digest;
use crate::base::window::Window;

/// A node that has just booted has better things to do, in seconds.
const SETTLE: u64 = 60;
/// The first looks after a boot are spread over this, or the interval if that is shorter: a data centre comes up
/// at once. In seconds.
const SPREAD: u64 = 900;
/// The first pause after a failure, in seconds; each further one doubles it up to the interval.
const FIRST_PAUSE: u64 = 60;

/// Between 0 and 1, the same for the same node and purpose.
fn share(machine: &str, purpose: &str) -> f64 {
    let digest = Digest::of(format!("{machine} {purpose}"));
    let head = u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("a digest is longer"));
    head as f64 / u64::MAX as f64
}

/// From the boot to the first look. An agent that is started anew, with other settings, need not wait once more.
pub fn first(machine: &str, interval: u64) -> Duration {
    let spread = SPREAD.min(interval) as f64;
    Duration::from_secs(SETTLE) + Duration::from_secs_f64(spread * share(machine, "first"))
}

/// From one look to the next, after `failures` in a row. Off by up to a tenth to each side, so that nodes that
/// fall into step get out of it.
pub fn next(machine: &str, interval: u64, failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let pause = if failures == 0 { interval } else { doubled.min(interval) };
    let jitter = 0.9 + 0.2 * share(machine, &format!("next {failures}"));
    Duration::from_secs_f64(pause as f64 * jitter)
}

/// From `now`, in seconds since 1970, until `window` is open in the node's time; zero when it is.
pub fn until_open(window: Option<&Window>, now: i64) -> Duration {
    let (Some(window), Ok(time)) = (window, jiff::Timestamp::from_second(now)) else { return Duration::ZERO };
    let local = time.to_zoned(jiff::tz::TimeZone::system());
    let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
    let weekday = usize::from(local.weekday().to_monday_zero_offset().unsigned_abs());
    Duration::from_secs(u64::from(window.opens_in(weekday, minute)) * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_differ_and_stay_the_same() {
        assert_eq!(next("a", 3600, 0), next("a", 3600, 0));
        assert_ne!(next("a", 3600, 0), next("b", 3600, 0));
        for machine in ["a", "b", "c", "d"] {
            let pause = next(machine, 3600, 0).as_secs_f64();
            assert!((3240.0..=3960.0).contains(&pause), "{pause}");
            assert!((60..=960).contains(&first(machine, 3600).as_secs()));
        }
    }

    #[test]
    fn failures_make_it_rarer_up_to_the_interval() {
        let pauses: Vec<u64> = (1..12).map(|failures| next("a", 3600, failures).as_secs()).collect();
        assert!(pauses[0] <= 66 && pauses[1] > pauses[0] && pauses[2] > pauses[1], "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= 3960), "{pauses:?}");
        assert!(next("a", 3600, u32::MAX).as_secs() <= 3960);
    }

    #[test]
    fn windows_open_in_the_nodes_time() {
        let window: Window = "00:00-23:59".parse().unwrap();
        assert!(until_open(Some(&window), 1_700_000_000) <= Duration::from_secs(60));
        assert_eq!(until_open(None, 0), Duration::ZERO);
    }
}
