//! An image onto a disk of this machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;

use crate::base::progress::Progress;
use crate::install::{self, Places};

pub use crate::install::{
    BootEntry, Origin, Refusal, Report, Request as Install, Selector, State, Target, WriteError,
};

impl Install {
    /// Installs, or refuses with a reason. `watch` is called before anything is written; what it gives ends that early once
    /// it is true.
    ///
    /// # Errors
    /// See [`install::install`].
    pub fn run(
        &self,
        watch: &dyn Fn() -> io::Result<Arc<AtomicBool>>,
        progress: &dyn Progress,
    ) -> Result<Report> {
        install::install(self, &Places::here(), watch, progress)
    }
}
