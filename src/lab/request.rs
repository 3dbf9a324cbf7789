//! What can be asked of a lab that runs, and what it answers: an object of JSON a line.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How all is: answered by a [`super::Status`].
    Status {},
    /// Cuts a machine's power.
    Kill {
        /// The machine.
        name: String,
    },
    /// Starts a machine that is off.
    Start {
        /// The machine.
        name: String,
    },
    /// Stops a machine's processors.
    Pause {
        /// The machine.
        name: String,
    },
    /// Has them go on.
    Resume {
        /// The machine.
        name: String,
    },
    /// Presses a machine's power button.
    Down {
        /// The machine.
        name: String,
    },
    /// Gives a machine that is off the disk of its image again, and blank variables of the firmware.
    Wipe {
        /// The machine.
        name: String,
    },
    /// Cuts the cable between two machines, or between one and all others.
    Cut {
        /// A machine.
        a: String,
        /// Another one.
        b: Option<String>,
    },
    /// Makes it whole again: neither cut nor slow nor lossy.
    Mend {
        /// A machine.
        a: String,
        /// Another one.
        b: Option<String>,
    },
    /// Has each frame between two machines come later.
    Delay {
        /// A machine.
        a: String,
        /// Another one.
        b: String,
        /// By so much; 0 ends it.
        milliseconds: u64,
    },
    /// Loses frames between two machines.
    Loss {
        /// A machine.
        a: String,
        /// Another one.
        b: String,
        /// So many of a million; 0 ends it.
        of_a_million: u32,
    },
    /// From here on, the connection is the machine's console.
    Console {
        /// The machine.
        name: String,
    },
    /// Ends the lab; a second time without waiting for its machines to shut down.
    Stop {},
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It was done.
    Done(Value),
    /// It was not.
    Error(String),
}

/// Longest delay: TCP gives up on a connection after minutes.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Reads a delay such as `200ms` or `1s`; gives milliseconds.
///
/// # Errors
/// What would be right.
pub fn delay(text: &str) -> Result<u64, String> {
    let parse = || match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(count), _) => count.parse::<u64>().ok(),
        (None, Some(count)) => count.parse::<u64>().ok()?.checked_mul(1000),
        _ => (text == "0").then_some(0),
    };
    match parse() {
        Some(milliseconds) if Duration::from_millis(milliseconds) <= LONGEST_DELAY => Ok(milliseconds),
        _ => Err("expected a time up to 60s, such as 200ms or 1s; 0 ends the delay".to_owned()),
    }
}

/// Reads a part of the frames such as `10%` or `0.5%`; gives how many of a million.
///
/// # Errors
/// What would be right.
pub fn loss(text: &str) -> Result<u32, String> {
    let parse = || {
        let text = text.strip_suffix('%').or((text == "0").then_some(text))?;
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || rest.len() > 4 || !digits(whole) || !digits(rest) {
            return None;
        }
        let rest: u32 = format!("{rest:0<4}").parse().ok()?;
        whole.parse::<u32>().ok()?.checked_mul(10_000)?.checked_add(rest)
    };
    match parse() {
        Some(of_a_million) if of_a_million <= 1_000_000 => Ok(of_a_million),
        _ => Err("expected a part such as 10% or 0.5%; 0% ends the loss".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines_of_json() {
        let text = serde_json::to_string(&Request::Cut { a: "a".into(), b: None }).unwrap();
        assert_eq!(text, r#"{"do":"cut","a":"a","b":null}"#);
        assert_eq!(
            serde_json::from_str::<Request>(r#"{"do":"cut","a":"a"}"#).unwrap(),
            Request::Cut { a: "a".into(), b: None }
        );
        assert_eq!(serde_json::from_str::<Request>(r#"{"do":"status"}"#).unwrap(), Request::Status {});
        for wrong in [r#"{"do":"kill"}"#, r#"{"do":"kill","name":"a","at":"once"}"#, r#"{"do":"fly"}"#, "[]"]
        {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn delays_and_losses() {
        assert_eq!([delay("200ms"), delay("1s"), delay("0")], [Ok(200), Ok(1000), Ok(0)]);
        for wrong in ["", "200", "61s", "-1s", "s", "ms", "1.5s", "99999999999999999999s"] {
            assert!(delay(wrong).is_err(), "{wrong}");
        }
        assert_eq!([loss("10%"), loss("0.5%"), loss("100%")], [Ok(100_000), Ok(5000), Ok(1_000_000)]);
        assert_eq!([loss("0"), loss("0%"), loss("0.0001%")], [Ok(0), Ok(0), Ok(1)]);
        for wrong in ["", "10", "%", "101%", "-1%", ".5%", "+5%", "0.00001%", "9999999999%"] {
            assert!(loss(wrong).is_err(), "{wrong}");
        }
    }
}
