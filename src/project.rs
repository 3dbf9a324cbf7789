//! A project is a directory with a manifest, its lock, and what is built of it. This room is the library's front door:
//! it reads and writes those files, opens the store, asks the mirrors, and calls the rooms below in their order.
//!
//! Whoever wants something done fills in one plain value, such as [`Build`], and hands over who hears of the progress.
//! What was done is a value again, such as [`build::Built`]. Nothing here parses arguments or prints.

pub mod boot;
pub mod build;
pub mod cluster;
pub mod inputs;
pub mod inspect;
pub mod install;
mod keller;
pub mod lab;
mod outputs;
pub mod outside;
pub mod policy;
pub mod publish;
mod qemu;
pub mod relock;
mod standing;
pub mod store;
pub mod tool;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::lock::file;
use crate::manifest::{self, Diagnostics, Manifest};

pub use boot::Boot;
pub use build::Build;
pub use inputs::Inputs;
pub use install::Install;
pub use lab::Lab;
pub use outside::Outside;
pub use policy::Policy;
pub use relock::Relock;
pub use tool::Wanted;

/// The manifest that is meant, and where its lock lies.
#[derive(Clone, Debug)]
pub struct Project {
    /// Validated.
    pub manifest: Manifest,
    /// For messages.
    pub name: String,
    /// Beside the manifest; for the embedded one, beside the image.
    pub lock: PathBuf,
}

impl Project {
    /// Reads `path`, or the embedded default node. `output` is the directory that gets the image.
    ///
    /// # Errors
    /// All that is wrong with the manifest.
    pub fn load(path: Option<&Path>, output: &Path) -> Result<Self> {
        let manifest = manifest(path)?;
        Ok(match path {
            Some(path) => Self { manifest, name: path.display().to_string(), lock: file::path_for(path) },
            None => Self { manifest, name: "the default node".to_owned(), lock: output.join("node.lock") },
        })
    }
}

/// The manifest at `path`; without one, the default node that keller carries.
///
/// # Errors
/// All that is wrong with it.
pub fn manifest(path: Option<&Path>) -> Result<Manifest, Diagnostics> {
    match path {
        Some(path) => manifest::load(path),
        None => manifest::load_embedded(manifest::DEFAULT),
    }
}
