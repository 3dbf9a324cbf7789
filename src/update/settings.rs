//! What an image tells its agent: where updates come from, and when a boot counts as good.
//!
//! The builder writes it, the agent reads it; an operator's file on the node is laid over it.

use serde::{Deserialize, Serialize};

use super::document;
use crate::base::window::Window;

/// Where it lies in the root, without a leading slash.
pub const PATH: &str = "usr/lib/keller/agent.json";
/// Where the root of trust of the update repository lies in the root, without a leading slash.
pub const ROOT_JSON: &str = "usr/lib/keller/root.json";
/// The keller of the node, without a leading slash.
pub const PROGRAM: &str = "usr/bin/keller";

/// How often the boot loader tries a new version.
pub const TRIES: u8 = 3;

/// What is built into an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Built {
    /// IMAGE_ID.
    pub id: String,
    /// IMAGE_VERSION.
    pub version: String,
    /// Seconds since 1970: no clock of a node that shows less is right.
    pub epoch: i64,
    /// When a boot counts as good.
    pub health: Health,
    /// Where updates come from, if from anywhere.
    pub update: Option<Source>,
    /// The newest form of release documents that its keller reads.
    #[serde(default = "document::whole")]
    pub documents: u32,
}

/// All of this must hold before the deadline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Units that are active, those of containers too.
    pub units: Vec<String>,
    /// Whether etcd answers that it is healthy.
    pub etcd: bool,
    /// Whether the node's network is as its document says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
    /// A command that succeeds; none when empty.
    pub command: Vec<String>,
    /// Seconds for which a unit has been active without a restart.
    pub stable_seconds: u64,
    /// Seconds from the start of systemd.
    pub deadline_seconds: u64,
    /// On so many starts the same unit has failed the same way when a new version is given up.
    #[serde(default = "give_up_after")]
    pub give_up_after: u32,
}

/// A slow disk or a name server that hiccups fails one start, and rarely two.
pub const GIVE_UP_AFTER: u32 = 2;

fn give_up_after() -> u32 {
    GIVE_UP_AFTER
}

/// Where updates come from, and when they are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Root of the repository: http or https.
    pub url: String,
    /// Of the channels that a version is published in, the one to follow.
    pub channel: String,
    /// Whether a new version is taken without anybody's word.
    pub automatic: bool,
    /// When that may be; any time when none.
    pub window: Option<Window>,
    /// Seconds between two looks at the repository.
    pub interval_seconds: u64,
}
