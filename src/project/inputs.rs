//! What most verbs are told alike: where inputs come from, and with how many threads they are worked on.

use std::path::PathBuf;

use anyhow::Result;

use super::store;
use crate::base::progress::Progress;
use crate::image::Settings;
use crate::store::Store;

/// Where inputs come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Debian's archive; else KELLER_MIRROR, the manifest or the host's apt sources name it.
    pub mirror: Option<String>,
    /// The store for downloads; else KELLER_STORE or the user's cache directory.
    pub store: Option<PathBuf>,
    /// Whether the store is used even if others can write it.
    pub allow_shared_store: bool,
    /// Whether nothing is used but what is in the store.
    pub offline: bool,
    /// Threads for unpacking and hashing; 0 is one for each processor.
    pub threads: usize,
}

impl Inputs {
    /// Opens the store.
    ///
    /// # Errors
    /// A store that cannot be made or opened, or that others can write.
    pub fn open_store(&self, progress: &dyn Progress) -> Result<Store> {
        let root = store::place(self.store.as_deref())?;
        store::open(&root, self.allow_shared_store, progress)
    }

    /// What of this the builder is told.
    pub fn settings(&self) -> Settings {
        Settings { threads: self.threads }
    }
}
