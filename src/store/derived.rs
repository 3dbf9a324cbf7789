//! What was made out of blobs: sealed, and made anew where the seal is not right.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::gc::Entry;
use super::{Result, Store, StoreError, failed, is_read_only, make_folder, note_use, open_file};
use crate::base::AtomicFile;
use crate::base::seal::{self, SealError, Sealed, Sealer};

/// What [`Store::verify_derived`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckedDerived {
    /// Every byte is as it was sealed.
    Good,
    /// Sealed with another key: it is never believed here, and made anew when needed.
    Foreign,
    /// Of a kind or a form that this keller does not read, as an older or a newer one has left it.
    Another,
    /// Not as it was sealed, or not sealed at all.
    Broken {
        /// Why.
        why: String,
        /// Where it can be looked at.
        moved_to: PathBuf,
    },
    /// The same, and it cannot be moved away, as in a store that cannot be written. It is not believed.
    Stuck {
        /// Why.
        why: String,
        /// What the system says of moving it.
        error: String,
    },
}

/// Where a derived file is written.
enum Place {
    /// Becomes a file of the store.
    Named(AtomicFile),
    /// Goes away with the process.
    Scratch(File),
}

impl Place {
    fn file(&self) -> &File {
        match self {
            Self::Named(file) => file.file(),
            Self::Scratch(file) => file,
        }
    }
}

impl Store {
    /// Opens what was derived before; `None` when it has to be made: it is not there, cannot be read, was sealed with
    /// another key, or is not what was sealed under this name.
    ///
    /// # Panics
    /// When `kind` or `key` is no plain file name.
    pub fn derived(&self, kind: &str, key: &str) -> Option<Sealed> {
        self.sealed(&self.derived_path(kind, key), kind, key)
    }

    /// Opens what was derived before, or else has `make` write it. `key` must name all that the bytes
    /// depend on, the version of their format included.
    ///
    /// Derived files are not flushed to the disk, as that would take longer than making them. A power cut
    /// may therefore leave one short or full of holes under its name, which its seal tells. In a store that cannot
    /// be written they go to temporary files.
    ///
    /// # Errors
    /// What `make` returns, and `Full` or `Io` of the store.
    ///
    /// # Panics
    /// When `kind` or `key` is no plain file name.
    pub fn derive<E: From<StoreError>>(
        &self,
        kind: &str,
        key: &str,
        make: impl FnOnce(&mut Sealer<'_>) -> Result<(), E>,
    ) -> Result<Sealed, E> {
        if let Some(file) = self.derived(kind, key) {
            return Ok(file);
        }
        self.seal_at(&self.derived_path(kind, key), kind, key, make)
    }

    /// Writes what `derived` will give, in the place of what it gave before. Nothing where no key is kept, as nobody
    /// could believe it later.
    ///
    /// # Errors
    /// `Full` or `Io` of the store.
    ///
    /// # Panics
    /// When `kind` or `key` is no plain file name.
    pub fn replace_derived(&self, kind: &str, key: &str, bytes: &[u8]) -> Result<()> {
        if !self.keeps {
            return Ok(());
        }
        let path = self.derived_path(kind, key);
        let write = |sealer: &mut Sealer<'_>| sealer.write_all(bytes).map_err(failed("writing", &path));
        self.seal_at(&path, kind, key, write).map(drop)
    }

    /// Reads all of a derived file; `kinds` are those that this keller makes and reads.
    ///
    /// # Errors
    /// `Io` of the disk.
    pub fn verify_derived(&self, entry: &Entry, kinds: &[&str]) -> Result<CheckedDerived> {
        let path = &entry.path;
        let folder = self.root.join("derived");
        let relative = path.strip_prefix(&folder).ok().and_then(|path| path.to_str());
        let name = relative.and_then(|path| path.split_once('/'));
        match name {
            Some((kind, _)) if !kinds.contains(&kind) => Ok(CheckedDerived::Another),
            Some((kind, key)) if !key.contains('/') => self.verify_at(path, kind, key),
            _ => {
                let why = format!("{} is not where derived files are", path.display());
                self.break_off(path, &self.flat_name(path), why)
            }
        }
    }

    /// Reads all of a sealed file.
    pub(super) fn verify_at(&self, path: &Path, kind: &str, key: &str) -> Result<CheckedDerived> {
        let break_off = |why| self.break_off(path, &self.flat_name(path), why);
        let Some(file) = open_file(path).map_err(failed("opening", path))? else {
            return break_off(format!("{} is not a file", path.display()));
        };
        let opened = Sealed::open(file, path, &self.key, (kind, key), Box::new(drop_word));
        let why = match opened {
            Err(SealError::Foreign { .. }) => return Ok(CheckedDerived::Foreign),
            Err(SealError::Form { .. }) => return Ok(CheckedDerived::Another),
            Err(SealError::Io { path, source }) => return Err(failed("reading", &path)(source)),
            Err(error) => error.to_string(),
            Ok(sealed) => match sealed.verify() {
                Ok(()) => return Ok(CheckedDerived::Good),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
                Err(error) => return Err(failed("reading", path)(seal::of_disk(error))),
            },
        };
        break_off(why)
    }

    /// Moves away what is at `path`, if that can be, under `name`.
    pub(super) fn break_off(&self, path: &Path, name: &str, why: String) -> Result<CheckedDerived> {
        match self.put_aside(path, name) {
            Ok(moved_to) => Ok(CheckedDerived::Broken { why, moved_to }),
            Err(StoreError::Stuck { reason, .. }) => {
                Ok(CheckedDerived::Stuck { why, error: reason.to_string() })
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the sealed file at `path`, if it is what was sealed.
    pub(super) fn sealed(&self, path: &Path, kind: &str, key: &str) -> Option<Sealed> {
        if self.doubts.nothing_derived() || !self.keeps {
            return None;
        }
        let io = |source| SealError::Io { path: path.to_owned(), source };
        let opened = match open_file(path).map_err(io) {
            Ok(None) => return None,
            Ok(Some(file)) => {
                note_use(&file);
                self.open_sealed(file, path, kind, key)
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(sealed) => return Some(sealed),
            Err(SealError::Foreign { .. } | SealError::Form { .. }) => {}
            // What another user keeps for themselves is sealed with their key as well.
            Err(SealError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => self.doubts.tell(format!("{error}; it is made anew")),
        }
        None
    }

    fn open_sealed(&self, file: File, path: &Path, kind: &str, key: &str) -> Result<Sealed, SealError> {
        let doubts = self.doubts.clone();
        let broken = move |error: &SealError| doubts.broken(error.to_string());
        Sealed::open(file, path, &self.key, (kind, key), Box::new(broken))
    }

    /// Has `make` write the sealed file at `path`, which replaces what is there.
    pub(super) fn seal_at<E: From<StoreError>>(
        &self,
        path: &Path,
        kind: &str,
        key: &str,
        make: impl FnOnce(&mut Sealer<'_>) -> Result<(), E>,
    ) -> Result<Sealed, E> {
        let place = self.place(path)?;
        let mut sealer = Sealer::new(place.file(), &self.key, kind, key);
        make(&mut sealer)?;
        let length = sealer.position();
        let failure = |error| self.write_error(error, "writing", path, length);
        sealer.finish().map_err(failure)?;
        let file = match place {
            Place::Named(file) => {
                self.grown.store(true, Ordering::Relaxed);
                let open = file.file().try_clone().map_err(failure)?;
                match file.commit_unsynced() {
                    Ok(file) => file,
                    // Its directory was removed meanwhile: what was written needs no name to be read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => open,
                    Err(error) => return Err(failure(error).into()),
                }
            }
            Place::Scratch(file) => file,
        };
        let opened = self.open_sealed(file, path, kind, key);
        Ok(opened.map_err(|error| failed("reading back", path)(io::Error::other(error)))?)
    }

    fn place(&self, path: &Path) -> Result<Place> {
        if self.keeps {
            let folder = path.parent().expect("files of the store lie in folders");
            let created = self.make_way(path).map_err(io::Error::from);
            match created.and_then(|()| make_folder(folder)).and_then(|()| AtomicFile::create(path)) {
                Ok(file) => return Ok(Place::Named(file)),
                // Also where its directory is being removed by hand.
                Err(error) if is_read_only(&error) || error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.write_error(error, "creating", path, 0)),
            }
        }
        // On the disk of the store if it can be written: what is derived may be more than fits into memory, where
        // temporary files often are.
        if let Ok(file) = tempfile::tempfile_in(&self.root) {
            return Ok(Place::Scratch(file));
        }
        let folder = std::env::temp_dir();
        let file = tempfile::tempfile_in(&folder).map_err(failed("making a temporary file in", &folder))?;
        Ok(Place::Scratch(file))
    }

    pub(super) fn derived_path(&self, kind: &str, key: &str) -> PathBuf {
        for part in [kind, key] {
            assert!(
                !part.is_empty() && !part.starts_with('.') && !part.contains('/'),
                "{part:?} is no plain file name"
            );
        }
        self.root.join("derived").join(kind).join(key)
    }
}

/// What is wrong is in the result as well.
fn drop_word(_: &SealError) {}
