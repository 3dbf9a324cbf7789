//! What the store had to find out about itself: told to the user, and a reason to try once more.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Result, Store, StoreError};
use crate::base::Digest;

/// Shared with every derived file that is open.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    words: Mutex<Vec<String>>,
    /// A part of a derived file was broken while a build read it: from now on none is believed.
    derived: AtomicBool,
    /// What was wrong is out of the way, so that the same would go better now.
    mended: AtomicBool,
    /// A part of a file that a build has open was not what it should be. Whoever read it may have gone on without.
    unsound: AtomicBool,
}

impl Doubts {
    pub(super) fn tell(&self, words: String) {
        let mut told = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.contains(&words) {
            told.push(words);
        }
    }

    pub(super) fn blob(&self, digest: &Digest, moved_to: &Path) {
        self.tell(format!(
            "{digest} in the store is not what its name says, and is now {}: it has to be fetched again",
            moved_to.display()
        ));
        self.mended.store(true, Ordering::Relaxed);
    }

    /// A blob that a build was promised is no longer there; `unlocked`: why the build could not keep others from sweeping.
    pub(super) fn gone(&self, digest: &Digest, folder: &Path, unlocked: Option<&io::Error>) {
        let mut words = format!(
            "{digest} was in the store {} and is gone: `keller store gc` or another program has removed it meanwhile",
            folder.display()
        );
        if let Some(error) = unlocked {
            let _ = write!(
                words,
                "; a sweep does not wait for this user, who cannot hold {} ({error})",
                folder.join("lock").display()
            );
        }
        self.tell(words);
        self.mended.store(true, Ordering::Relaxed);
    }

    /// A blob is other bytes than it was when it was verified: the next look finds it so.
    pub(super) fn changed(&self, words: String) {
        self.tell(words);
        self.unsound.store(true, Ordering::Relaxed);
        self.mended.store(true, Ordering::Relaxed);
    }

    pub(super) fn broken(&self, words: String) {
        self.tell(format!("{words}; all that is derived is made anew"));
        self.derived.store(true, Ordering::Relaxed);
        self.unsound.store(true, Ordering::Relaxed);
        self.mended.store(true, Ordering::Relaxed);
    }

    pub(super) fn nothing_derived(&self) -> bool {
        self.derived.load(Ordering::Relaxed)
    }
}

impl Store {
    /// What was wrong with the store since this was last asked, for the user.
    pub fn words(&self) -> Vec<String> {
        std::mem::take(&mut self.doubts.words.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fails when a part of a file of the store that was read since [`Store::is_mended`] was last asked was not what
    /// it should be. Not every reader fails for what it cannot read: before a result gets its name, this is asked.
    ///
    /// # Errors
    /// `Unsound`.
    pub fn sound(&self) -> Result<()> {
        match self.doubts.unsound.load(Ordering::Relaxed) {
            true => Err(StoreError::Unsound { folder: self.root.clone() }),
            false => Ok(()),
        }
    }

    /// Whether something was wrong with the store, since this was last asked, that is out of the way now: what has
    /// failed for it may be tried again.
    pub fn is_mended(&self) -> bool {
        self.doubts.unsound.store(false, Ordering::Relaxed);
        self.doubts.mended.swap(false, Ordering::Relaxed)
    }
}
