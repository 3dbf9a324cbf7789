//! How a lab is, as its verbs show it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::json;

/// All machines, the cables that are not whole, and what went over the Ethernet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// In the order of the lab file.
    pub machines: Vec<MachineStatus>,
    /// Only those that are cut, slow or lossy.
    pub cables: Vec<CableStatus>,
    /// Frames by the addresses of their cards.
    pub traffic: Vec<Traffic>,
    /// Frames between further pairs of addresses, of which there are too many.
    pub other_frames: u64,
    /// Frames that cut and lossy cables swallowed.
    pub lost_frames: u64,
    /// The private key by which all machines let one in.
    #[serde(serialize_with = "json::path")]
    pub identity: PathBuf,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: State,
    /// Why it is off, or what is wrong with it.
    pub why: Option<String>,
    /// Seconds since it was started, where it is on.
    pub seconds: Option<f64>,
    /// Seconds from its start until ssh answered.
    pub ready_after: Option<f64>,
    /// QEMU's process.
    pub process: Option<u32>,
    /// The port of 127.0.0.1 that leads to its ssh.
    pub ssh_port: Option<u16>,
    /// Further ports: of 127.0.0.1, and those of the machine to which they lead.
    pub forwards: Vec<(u16, u16)>,
    /// Its card on the lab's Ethernet.
    pub mac: String,
    /// Its address there, where the lab gave it one.
    pub address: Option<String>,
    /// What it wrote to its console.
    #[serde(serialize_with = "json::path")]
    pub console: PathBuf,
    /// Frames that it sent.
    pub sent_frames: u64,
    /// Frames that it received.
    pub received_frames: u64,
    /// Frames for it that it did not take in time.
    pub dropped_frames: u64,
}

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has no power.
    Off,
    /// It runs, and ssh has not answered yet.
    Starting,
    /// It runs, and ssh has answered.
    Ready,
    /// Its processors stand still.
    Paused,
    /// Its power button was pressed.
    ShuttingDown,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::ShuttingDown => "shutting down",
        })
    }
}

/// What the cable between two machines does to frames, in both directions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CableStatus {
    /// One end.
    pub a: String,
    /// The other end.
    pub b: String,
    /// Nothing goes through.
    pub cut: bool,
    /// How much later each frame comes.
    pub delay_milliseconds: u64,
    /// How many of a million frames are lost.
    pub lost_of_a_million: u32,
}

/// What went from one address to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Address of the sender's card.
    pub from: String,
    /// The machine whose card it is, if it is one's.
    pub from_machine: Option<String>,
    /// Address that it was for.
    pub to: String,
    /// The machine whose card it is, if it is one's.
    pub to_machine: Option<String>,
    /// How many frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}
