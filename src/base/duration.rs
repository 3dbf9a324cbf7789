//! Lengths of time as people write them: one grammar for manifests, for a node's settings and for flags.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// What every door says it takes.
pub const FORM: &str = "a number with s, min, h, d or w, such as `90s`, `5min`, `1h30min` or `14d`";

/// How long a node may wait between two looks at its repository: by more looks a fleet attacks its server, by fewer it
/// misses the end of the metadata.
pub const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

/// What is wrong with the text of a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {problem}; expected {}", .problem.expected())]
pub struct ParseDurationError {
    /// The text as given.
    pub text: String,
    /// Why it is refused.
    pub problem: Problem,
}

/// Why the text of a length of time is refused; shown as what follows the text in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A number alone.
    #[error("has no unit")]
    NoUnit,
    /// Months and years.
    #[error("has months or years, which differ in length")]
    Calendar,
    /// A part of a second.
    #[error("is not a whole number of seconds")]
    Fraction,
    /// Shorter or longer than it may be.
    #[error("is out of range")]
    Range {
        /// The shortest.
        from: Duration,
        /// The longest.
        to: Duration,
    },
    /// Anything else.
    #[error("is not a time")]
    Form,
}

impl Problem {
    /// What would be right.
    pub fn expected(&self) -> String {
        match self {
            Self::Range { from, to } => format!("a time from {} to {}", Shown(*from), Shown(*to)),
            _ => FORM.to_owned(),
        }
    }
}

/// Whole seconds, in `range`.
///
/// The grammar is the "friendly" one of jiff, and ISO 8601's; a day has 24 hours, a week 7 days. A number alone is
/// refused: flags for days and settings for seconds would each take it for their own unit.
///
/// # Errors
/// Every kind of [`Problem`].
pub fn parse(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, ParseDurationError> {
    judge(text.trim(), range).map_err(|problem| ParseDurationError { text: text.to_owned(), problem })
}

fn judge(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Problem> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Problem::NoUnit);
    }
    let span: Span = text.parse().map_err(|_| Problem::Form)?;
    if span.get_months() != 0 || span.get_years() != 0 {
        return Err(Problem::Calendar);
    }
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| Problem::Form)?;
    let out = Problem::Range { from: *range.start(), to: *range.end() };
    let duration = Duration::try_from(signed).map_err(|_| out)?;
    match duration.subsec_nanos() {
        0 if range.contains(&duration) => Ok(duration),
        0 => Err(out),
        _ => Err(Problem::Fraction),
    }
}

/// Shows a length of time so that it is read back: in the largest unit that is exact.
#[derive(Clone, Copy, Debug)]
pub struct Shown(pub Duration);

/// Units of [`Shown`] in seconds, largest first.
const UNITS: [(&str, u64); 3] = [("d", 86_400), ("h", 3600), ("min", 60)];

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        // 24h rather than 1d, 90s rather than 1.5min.
        let unit = UNITS.iter().find(|(_, unit)| seconds > *unit && seconds.is_multiple_of(*unit));
        match unit {
            Some((name, unit)) => write!(f, "{}{name}", seconds / unit),
            None => write!(f, "{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Result<u64, String> {
        let range = Duration::from_secs(1)..=Duration::from_secs(800 * 86_400);
        parse(text, &range).map(|duration| duration.as_secs()).map_err(|error| error.to_string())
    }

    #[test]
    fn one_grammar() {
        for (text, expected) in [
            ("90s", 90),
            ("90 sec", 90),
            ("5m", 300),
            ("5min", 300),
            ("5 minutes", 300),
            ("1h", 3600),
            ("1h30m", 5400),
            ("1h 30min", 5400),
            ("1.5h", 5400),
            ("36h", 36 * 3600),
            ("14d", 14 * 86_400),
            ("2w", 14 * 86_400),
            ("730d", 730 * 86_400),
            ("PT5M", 300),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("90", "`90` has no unit; expected a number with s, min, h, d or w, such as `90s`, "),
            ("", "`` is not a time; expected a number with "),
            ("soon", "`soon` is not a time"),
            ("5 parsecs", "`5 parsecs` is not a time"),
            ("1mo", "`1mo` has months or years"),
            ("2y", "`2y` has months or years"),
            ("0s", "`0s` is out of range; expected a time from 1s to 800d"),
            ("-1d", "`-1d` is out of range"),
            ("801d", "`801d` is out of range"),
            ("99999999999999w", "`99999999999999w` is not a time"),
            ("500ms", "`500ms` is not a whole number of seconds"),
            ("1.5s", "`1.5s` is not a whole number of seconds"),
        ] {
            let error = seconds(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_shown_is_read() {
        for (length, text) in [(1, "1s"), (90, "90s"), (120, "2min"), (86_400, "24h"), (30 * 86_400, "30d")] {
            assert_eq!(Shown(Duration::from_secs(length)).to_string(), text);
            assert_eq!(seconds(text), Ok(length));
        }
    }
}
