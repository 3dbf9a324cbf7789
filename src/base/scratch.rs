//! Directories for as long as a step takes, which go away with it: at its end, and where a signal ends the program.
//!
//! They may have private keys in them, or gigabytes. Only SIGKILL and a loss of power leave them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tempfile::TempDir;

use super::signal::is_ignored;

/// Those that are there.
static KEPT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Whether somebody else waits for signals, and ends the steps that have such a directory.
static LEFT_TO_OTHERS: AtomicBool = AtomicBool::new(false);
/// How often a directory is removed that others go on writing into.
const TRIES: u32 = 1000;
static WATCH: Once = Once::new();

/// A directory for its owner alone, until this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Nothing once this is dropped.
    directory: Option<TempDir>,
}

impl Scratch {
    /// Makes one in `parent`, with a name that begins with `prefix`.
    ///
    /// # Errors
    /// That of the system.
    pub fn new_in(parent: &Path, prefix: &str) -> io::Result<Self> {
        WATCH.call_once(watch);
        let mode = std::fs::Permissions::from_mode(0o700);
        let mut kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let directory = tempfile::Builder::new().prefix(prefix).permissions(mode).tempdir_in(parent)?;
        let path = directory.path().to_owned();
        kept.push(path.clone());
        Ok(Self { path, directory: Some(directory) })
    }

    /// Makes one where temporary files are: TMPDIR, or /tmp.
    ///
    /// # Errors
    /// That of the system, with the directory and how to name another.
    pub fn new(prefix: &str) -> io::Result<Self> {
        let parent = std::env::temp_dir();
        Self::new_in(&parent, prefix).map_err(|error| {
            let place = parent.display();
            let text =
                format!("making a directory in {place} (TMPDIR names another place): {}", plain(&error));
            io::Error::new(error.kind(), text)
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What the system says, without the path that [`tempfile`] adds.
fn plain(error: &io::Error) -> String {
    error.to_string().split(" at path ").next().unwrap_or_default().to_owned()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(self.directory.take());
        kept.retain(|path| *path != self.path);
    }
}

/// Leaves signals to the caller, who ends what has such a directory when one comes.
pub fn leave_signals() {
    LEFT_TO_OTHERS.store(true, Ordering::SeqCst);
}

/// Has a signal that ends the program remove them before.
fn watch() {
    let signals = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal));
    let (ready, watched) = std::sync::mpsc::sync_channel(1);
    // Without a thread for it, as where no more may be made, a signal ends the program and leaves the directory: so the
    // thread asks for signals. What is asked for stays so, and nobody would hear them.
    let wait = move || {
        let asked = Signals::new(signals);
        let _ = ready.send(());
        let Ok(mut signals) = asked else { return };
        for signal in signals.forever() {
            if LEFT_TO_OTHERS.load(Ordering::SeqCst) {
                continue;
            }
            // Held until the end: nothing is made after this.
            let kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for path in kept.iter() {
                // Other threads write into it until it is gone.
                let _ = (0..TRIES).any(|_| std::fs::remove_dir_all(path).is_ok());
            }
            let _ = emulate_default_handler(signal);
        }
    };
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map(|_| watched.recv());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_its_owner_and_goes_away() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new_in(parent.path(), ".x-").unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        drop(scratch);
        assert!(!path.exists());
        let error = Scratch::new_in(&parent.path().join("gone"), "x").unwrap_err();
        assert_eq!(plain(&error), "No such file or directory (os error 2)");
    }
}
