//! What is missing for a boot to be good.

use std::fmt;
use std::time::Duration;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A unit that is not active.
    Unit {
        /// Its name.
        name: String,
        /// As systemd says it, e.g. `failed (exit-code)`.
        state: String,
    },
    /// A unit that is active, but not for long enough.
    Fresh {
        /// Its name.
        name: String,
        /// How long it should be.
        stable: Duration,
        /// How much of that is still to come.
        left: Duration,
    },
    /// etcd is not healthy.
    Etcd {
        /// What it said, or why it said nothing.
        answer: String,
    },
    /// An address or a route that is not there.
    Network {
        /// Which.
        what: String,
    },
    /// The own command fails.
    Command {
        /// How it ended.
        end: String,
    },
    /// The own command had not ended at the deadline.
    Cut,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit { name, state } => write!(f, "{name} is {state}"),
            Self::Fresh { name, stable, .. } => {
                write!(f, "{name} is active, but for less than {} seconds", stable.as_secs())
            }
            Self::Etcd { answer } => write!(f, "etcd is not healthy: {answer}"),
            Self::Network { what } => write!(f, "the network lacks {what}"),
            Self::Command { end } => write!(f, "the health command {end}"),
            Self::Cut => f.write_str("the health command was still running at the deadline"),
        }
    }
}
