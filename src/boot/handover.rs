//! What `/init` tells the node that it starts: which disk and which partitions it found.
//!
//! The agent must write to the boot disk and to no other, and only `/init` has proven which one that is.

use serde::{Deserialize, Serialize};

/// Where the file lies on the running node.
pub const PATH: &str = "/run/keller/boot.json";

/// The facts of this boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handover {
    /// The root hash that was verified, 64 hexadecimal digits.
    pub root_hash: String,
    /// Device of the boot disk, e.g. `/dev/vda`.
    pub disk: String,
    /// GUID of the boot disk, lower case.
    pub disk_guid: String,
    /// Device of the root partition.
    pub root: String,
    /// Device of the root's hash tree.
    pub verity: String,
    /// Device of the state partition, unless the state is in memory.
    pub state: Option<String>,
    /// Device of the reserve partition, where there is one and it is in use.
    #[serde(default)]
    pub reserve: Option<String>,
    /// Why what was remembered of updates is out of reach in this boot, a pin and versions that fell back among it;
    /// nothing where it is not.
    #[serde(default)]
    pub forgetful: Option<String>,
    /// Whether the state was made in this boot.
    pub first_boot: bool,
    /// Where changes to /etc went: `persistent` or `ephemeral`.
    pub etc: String,
    /// Whether the node runs from memory: its disk is [`crate::boot::live::DISK`], which nobody can write to.
    #[serde(default)]
    pub live: bool,
    /// Seconds from the kernel's start to the hand-over.
    pub uptime: f64,
}
