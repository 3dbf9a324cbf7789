//! Several machines on an Ethernet of their own, without root: `file` says which, `switch` is the Ethernet (what it
//! decides is in `core`), `supervisor` looks after the machines, and `control` lets other programs ask for something
//! (`request`), which `client` does.

mod client;
mod control;
mod core;
pub mod file;
mod frames;
mod guest;
mod layer;
mod outlet;
mod place;
mod plan;
mod queue;
mod request;
mod running;
mod status;
mod supervisor;
mod switch;

use std::path::PathBuf;

pub use client::Client;
pub(crate) use guest::Spec;
pub(crate) use layer::Layer;
pub(crate) use place::Place;
pub use plan::{Identity, LEAST_MEMORY, MEMORY, Machine, Plan, mac};
pub use request::{Answer, Request, delay, loss};
pub(crate) use running::Setup;
pub use running::{Over, Running};
pub use status::{CableStatus, MachineStatus, State, Status, Traffic};
pub use supervisor::Event;

/// What can go wrong with a lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// There is none.
    #[error("no lab runs in {}: `keller lab up` starts one there, and --dir names another directory", .directory.display())]
    NoLab {
        /// Where one was looked for.
        directory: PathBuf,
    },
    /// There is one already.
    #[error(
        "a lab runs in {} already{holder}: `keller lab stop` ends it, and --dir names another directory for this one",
        .directory.display()
    )]
    Taken {
        /// Where.
        directory: PathBuf,
        /// The process, in brackets, where it is known.
        holder: String,
    },
    /// In the lab's own words.
    #[error("{why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// A machine does not start.
    #[error("starting the machine {machine}: {source}")]
    Machine {
        /// Its name.
        machine: String,
        /// QEMU's.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file or socket of the lab.
    #[error("{doing}: {source}")]
    Io {
        /// In the gerund.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
}
