//! A stretch of each day or of some days of the week, such as `02:00-05:00` or `Sat,Sun 22:00-04:00`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Of a day.
const MINUTES: u16 = 24 * 60;

/// When something may be done. A stretch that ends before it begins goes on into the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    /// Days on which it begins, Monday first.
    days: [bool; 7],
    /// Minute of the day.
    from: u16,
    /// Minute of the day, not within.
    to: u16,
}

/// A text that is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time of day such as `02:00-05:00` or `Sat,Sun 02:00-05:00`, but have `{text}`")]
pub struct WindowError {
    /// As given.
    pub text: String,
}

impl Window {
    /// Whether `minute` of a day of the week (Monday is 0) is within.
    pub fn contains(&self, weekday: usize, minute: u16) -> bool {
        let day = |day: usize| self.days[day % 7];
        match self.from < self.to {
            true => day(weekday) && (self.from..self.to).contains(&minute),
            false => (day(weekday) && minute >= self.from) || (day(weekday + 6) && minute < self.to),
        }
    }

    /// Minutes from then until it is open again; 0 when it is.
    pub fn opens_in(&self, weekday: usize, minute: u16) -> u16 {
        let at = |later: u16| {
            let sum = minute + later;
            self.contains(weekday + usize::from(sum / MINUTES), sum % MINUTES)
        };
        // Some day of the seven has one, and the day itself once more after its end.
        (0..=8 * MINUTES).find(|later| at(*later)).unwrap_or(0)
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60 && text.len() <= 5).then_some(hours * 60 + minutes)
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let parse = || {
            let (days, times) = match text.trim().rsplit_once(' ') {
                Some((days, times)) => (Some(days), times),
                None => (None, text.trim()),
            };
            let mut wanted = [days.is_none(); 7];
            for name in days.into_iter().flat_map(|days| days.split(',')) {
                wanted[DAYS.iter().position(|day| *day == name.trim())?] = true;
            }
            let (from, to) = times.split_once('-')?;
            let (from, to) = (minute(from)?, minute(to)?);
            (from != to).then_some(Self { days: wanted, from, to })
        };
        parse().ok_or_else(|| WindowError { text: text.to_owned() })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            let days: Vec<_> =
                DAYS.iter().zip(self.days).filter(|(_, on)| *on).map(|(name, _)| *name).collect();
            write!(f, "{} ", days.join(","))?;
        }
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{}-{}", time(self.from), time(self.to))
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;

    fn try_from(text: String) -> Result<Self, WindowError> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_the_week() {
        let night: Window = "Sat,Sun 22:00-04:00".parse().unwrap();
        assert_eq!(night.to_string(), "Sat,Sun 22:00-04:00");
        assert!(night.contains(5, 22 * 60) && night.contains(6, 3 * 60) && night.contains(0, 239));
        assert!(!night.contains(5, 3 * 60) && !night.contains(0, 240) && !night.contains(0, 23 * 60));
        assert_eq!(night.opens_in(5, 21 * 60), 60);
        assert_eq!(night.opens_in(0, 240), 5 * 1440 + 18 * 60);
        let daily: Window = "02:00-05:00".parse().unwrap();
        assert_eq!((daily.opens_in(3, 120), daily.opens_in(3, 300)), (0, 21 * 60));
        for text in ["", "2-3", "02:00", "24:00-01:00", "02:00-02:00", "Samstag 01:00-02:00", "Sat,"] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }
}
