//! Lengths of time in flags: the grammar of manifests, and for flags that name a unit also a number alone.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::duration;

/// Ten years: longer than whatever a flag here is about.
const RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3650 * DAY);
/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// A time such as 14d or 36h.
///
/// # Errors
/// What is wrong with it.
pub(super) fn any(text: &str) -> Result<Duration, String> {
    duration::parse(text, &RANGE).map_err(|error| error.to_string())
}

/// How long a change of the network may wait to be confirmed.
///
/// # Errors
/// What is wrong with it.
pub(super) fn confirmation(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(10)..=Duration::from_secs(3600);
    duration::parse(text, &range).map_err(|error| error.to_string())
}

/// A time, or a number of seconds.
///
/// # Errors
/// What is wrong with it.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    counted(text, 1)
}

/// A time, or a number of days.
///
/// # Errors
/// What is wrong with it.
pub(super) fn days(text: &str) -> Result<Duration, String> {
    counted(text, DAY)
}

/// A number alone may be none: nothing is waited for, everything is old.
fn counted(text: &str, unit: u64) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(count) => Ok(Duration::from_secs(u64::from(count) * unit)),
        Err(_) => any(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(any("14d").unwrap(), Duration::from_secs(14 * 86400));
        assert_eq!(any("36h").unwrap(), Duration::from_secs(36 * 3600));
        assert_eq!(any("5m").unwrap(), Duration::from_secs(300));
        for bad in ["", "14", "-1d", "0d", "2y", "soon"] {
            assert!(any(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_alone_where_the_flag_names_a_unit() {
        assert_eq!(seconds("300"), seconds("5min"));
        assert_eq!(days("30"), days("30d"));
        assert_eq!(days("0"), Ok(Duration::ZERO));
        for bad in ["", "-1", "soon", "1.5", "5000000000"] {
            assert!(seconds(bad).is_err() && days(bad).is_err(), "{bad}");
        }
    }
}
