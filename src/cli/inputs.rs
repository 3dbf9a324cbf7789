//! The flags that say where inputs come from.

use std::path::PathBuf;

use clap::Args;

use crate::base::limits;
use crate::project::Inputs;

/// Where inputs come from.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Inputs")]
pub struct InputArgs {
    /// Debian's archive; else KELLER_MIRROR, the manifest or the host's apt sources name it.
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// The store for downloads; else KELLER_STORE or the user's cache directory.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Use the store even if others can write it; whoever does owns the images that are built out of it.
    #[arg(long)]
    pub allow_shared_store: bool,
    /// Use nothing but what is in the store.
    #[arg(long)]
    pub offline: bool,
    /// Threads for unpacking and hashing; 0 is one for each processor.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    pub threads: usize,
}

impl From<InputArgs> for Inputs {
    fn from(args: InputArgs) -> Self {
        let InputArgs { mirror, store, allow_shared_store, offline, threads } = args;
        Self { mirror, store, allow_shared_store, offline, threads }
    }
}

/// The number of threads that `text` asks for.
fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|_| "expected a number".to_owned())?;
    match number > limits::THREADS {
        true => Err(format!("at most {} are started", limits::THREADS)),
        false => Ok(number),
    }
}
