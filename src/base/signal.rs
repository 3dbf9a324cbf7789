//! Signals by name or number, as images and manifests write them.

use std::fmt;
use std::str::FromStr;

/// signal(7) on x86_64. Those of real time have no names of their own.
const NAMES: [(&str, u8); 36] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", REAL_TIME_FIRST),
    ("RTMAX", REAL_TIME_LAST),
];

/// glibc keeps the two below for itself.
const REAL_TIME_FIRST: u8 = 34;
const REAL_TIME_LAST: u8 = 64;

/// A signal that a process can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(u8);

/// The text names no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a signal")]
pub struct NoSignal {
    /// As it was given.
    pub text: String,
}

impl FromStr for Signal {
    type Err = NoSignal;

    /// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`, `RTMAX-2`, in small letters too: what Docker's STOPSIGNAL takes.
    fn from_str(text: &str) -> Result<Self, NoSignal> {
        let wrong = || NoSignal { text: text.to_owned() };
        let digits =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u8>().ok());
        if let Some(number) = digits(text) {
            return number
                .filter(|number| {
                    (1..=31).contains(number) || (REAL_TIME_FIRST..=REAL_TIME_LAST).contains(number)
                })
                .map(Self)
                .ok_or_else(wrong);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(*number));
        }
        let offset = |prefix| name.strip_prefix(prefix).and_then(|rest| digits(rest)?);
        let number = match (offset("RTMIN+"), offset("RTMAX-")) {
            (Some(above), _) => REAL_TIME_FIRST.checked_add(above),
            (_, Some(below)) => REAL_TIME_LAST.checked_sub(below),
            _ => None,
        };
        let real_time = REAL_TIME_FIRST..=REAL_TIME_LAST;
        number.filter(|number| real_time.contains(number)).map(Self).ok_or_else(wrong)
    }
}

impl serde::Serialize for Signal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) if self.0 < REAL_TIME_LAST => write!(f, "SIG{name}"),
            _ => write!(f, "SIGRTMIN+{}", self.0 - REAL_TIME_FIRST),
        }
    }
}

/// Whether this process ignores `signal`, as whoever started it may have it.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one, which all zeros are a valid form of.
    unsafe {
        let asked = libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        asked == 0 && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, shown) in [
            ("SIGQUIT", "SIGQUIT"),
            ("quit", "SIGQUIT"),
            ("3", "SIGQUIT"),
            ("15", "SIGTERM"),
            ("SIGRTMIN+3", "SIGRTMIN+3"),
            ("37", "SIGRTMIN+3"),
            ("rtmin", "SIGRTMIN"),
            ("RTMAX-14", "SIGRTMIN+16"),
            ("SIGRTMAX", "SIGRTMIN+30"),
            ("64", "SIGRTMIN+30"),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().to_string(), shown, "{text}");
        }
        for bad in [
            "", "0", "32", "33", "65", "300", "SIG", "SIGFOO", "RTMIN+31", "RTMAX-31", "RTMIN+", "-9", "+9",
            "QUIT ",
        ] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }
}
