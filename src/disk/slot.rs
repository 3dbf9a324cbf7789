//! The two places for a root: while one runs, the other takes the update.

use std::fmt;

use serde::Serialize;

/// Half of the A/B pair. Each has a root partition and a verity partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The one that a new image fills.
    A,
    /// The one that a new image leaves empty.
    B,
}

impl Slot {
    /// Both, in the order of their partitions.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}
