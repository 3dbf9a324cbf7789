//! A lab's directory, where one lab runs at a time.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::LabError;
use crate::base::flock as locks;

/// Held as long as a lab runs in a directory: no machine has a dot in its name.
pub(super) const LOCK: &str = "lab.lock";

/// A directory that is this lab's alone.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) directory: PathBuf,
    /// Held as long as the lab runs.
    pub(super) lock: File,
}

impl Place {
    /// Takes the directory, which is made if need be.
    ///
    /// # Errors
    /// `Taken` where a lab runs there already.
    pub(crate) fn take(directory: &Path) -> Result<Self, LabError> {
        let io =
            |source| LabError::Io { doing: format!("taking the directory {}", directory.display()), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        let directory = fs::canonicalize(directory).map_err(io)?;
        let lock = locks::open(&directory.join(LOCK)).map_err(io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { directory, lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = locks::holder(&lock).map(|holder| format!(" ({holder})")).unwrap_or_default();
                Err(LabError::Taken { directory, holder })
            }
            Err(error) => Err(io(error.into())),
        }
    }

    /// The directory, absolute.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of a machine, made if need be.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn of_machine(&self, name: &str) -> Result<PathBuf, LabError> {
        let directory = self.directory.join(name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|source| LabError::Io { doing: format!("making {}", directory.display()), source })?;
        Ok(directory)
    }
}
