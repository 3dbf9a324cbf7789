//! The key that seals derived files. It lies in the user's state directory and not in the store: whoever can put
//! files into a store, as by restoring a cache, cannot seal them.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Result, StoreError, if_exists, trust};
use crate::base::seal::Key;

/// Below the user's state directory.
const PLACE: &str = "keller/store.key";

/// 64 hexadecimal digits and a line's end.
const LENGTH: u64 = 65;

/// Nobody else may read it.
const OTHERS: u32 = 0o077;

/// Why there is no key that can be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The environment names no directory.
    #[error("neither XDG_STATE_HOME nor HOME names a directory")]
    NoFolder,
    /// Others can write where it lies.
    #[error("{} {why}", .path.display())]
    Shared {
        /// The directory that lets them.
        path: PathBuf,
        /// In what way.
        why: String,
    },
    /// Whoever gets the store would get the key too.
    #[error("{} would lie in the store {} itself", .path.display(), .store.display())]
    InStore {
        /// The key.
        path: PathBuf,
        /// The store.
        store: PathBuf,
    },
    /// The disk failed.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was tried, such as `opening`.
        doing: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The user's key, and what there is to say about it.
#[derive(Debug)]
pub struct Found {
    /// Read, or just made.
    pub key: Key,
    /// Why an earlier one is no longer used.
    pub replaced: Option<String>,
}

/// The key of the user who runs this, for the store in `store`; one is made where none is.
///
/// # Errors
/// See [`KeyError`]; without a key, derived files can be made but not kept.
pub fn of_user(store: &Path) -> Result<Found, KeyError> {
    of_user_in(store, |name| std::env::var_os(name).map(PathBuf::from))
}

fn of_user_in(store: &Path, var: impl Fn(&str) -> Option<PathBuf>) -> Result<Found, KeyError> {
    // The XDG Base Directory Specification has relative paths ignored.
    let absolute = |name| var(name).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| {
        // A home that is not there is none: it is not for us to make.
        absolute("HOME").filter(|home| home.is_dir()).map(|home| home.join(".local/state"))
    });
    let path = state.ok_or(KeyError::NoFolder)?.join(PLACE);
    match is_within(&path, store) {
        true => Err(KeyError::InStore { path, store: store.to_owned() }),
        false => at(&path),
    }
}

/// Whether `path`, which need not be there, is in `folder` or below it, by whatever links.
fn is_within(path: &Path, folder: &Path) -> bool {
    let real = |path: &Path| {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let (there, real) =
            absolute.ancestors().find_map(|above| Some((above, fs::canonicalize(above).ok()?)))?;
        Some(real.join(absolute.strip_prefix(there).ok()?))
    };
    let place = path.parent().unwrap_or(path);
    real(place).zip(real(folder)).is_some_and(|(place, folder)| place.starts_with(folder))
}

/// The key at `path`.
fn at(path: &Path) -> Result<Found, KeyError> {
    let folder = path.parent().expect("joined of a folder and a name");
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| KeyError::Io { doing, path, source }
    };
    let shared = |found: trust::Shared| KeyError::Shared { path: found.path, why: found.why };
    trust::of_parents(folder).map_err(shared)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("creating", folder))?;
    trust::of_folder(folder).map_err(shared)?;
    let replaced = match read(path).map_err(failed("reading", path))? {
        Ok(key) => return Ok(Found { key, replaced: None }),
        Err(Unusable::Missing) => None,
        Err(Unusable::Other(why)) => {
            // Another process may have been first.
            if_exists(fs::remove_file(path)).map_err(failed("removing", path))?;
            Some(format!(
                "the key {} {why}: another one takes its place, and all that was derived is made anew",
                path.display()
            ))
        }
    };
    make(folder, path).map_err(failed("making", path))?;
    match read(path).map_err(failed("reading", path))? {
        Ok(key) => Ok(Found { key, replaced }),
        Err(_) => Err(failed("reading", path)(io::ErrorKind::InvalidData.into())),
    }
}

enum Unusable {
    Missing,
    Other(String),
}

fn read(path: &Path) -> io::Result<Result<Key, Unusable>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(Unusable::Missing)),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Ok(Err(Unusable::Other("is a link".to_owned())));
        }
        Err(error) => return Err(error),
    };
    if let Some(why) = unfit(&file.metadata()?, rustix::process::geteuid().as_raw()) {
        return Ok(Err(Unusable::Other(why)));
    }
    let mut text = Vec::new();
    file.take(LENGTH + 1).read_to_end(&mut text)?;
    let mut bytes = [0; 32];
    let digits = text.strip_suffix(b"\n").unwrap_or(&text);
    Ok(match hex::decode_to_slice(digits, &mut bytes) {
        Ok(()) => Ok(Key::from_bytes(bytes)),
        Err(_) => Err(Unusable::Other("is damaged".to_owned())),
    })
}

/// Why the user `me` cannot trust a key with this metadata, if so.
fn unfit(metadata: &Metadata, me: u32) -> Option<String> {
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        return Some("is not a file".to_owned());
    }
    if metadata.uid() != me {
        return Some(format!("belongs to user {}", metadata.uid()));
    }
    (mode & OTHERS != 0).then(|| format!("is open to others (mode {mode:04o}, not 0600)"))
}

/// Writes a new key to `path` in `folder`, unless another process was first.
fn make(folder: &Path, path: &Path) -> io::Result<()> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    // A name of its own, of mode 0600: processes of two containers may have one number.
    let mut hidden = tempfile::Builder::new().prefix(".store.key.").tempfile_in(folder)?;
    hidden.write_all(format!("{}\n", hex::encode(bytes)).as_bytes())?;
    hidden.as_file().sync_all()?;
    // It never takes the name from a key that is in use already.
    match hidden.persist_noclobber(path) {
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
        Ok(_) => Ok(()),
    }
}

/// A key for one use.
pub(super) fn random() -> Result<Key> {
    let mut bytes = [0; 32];
    fill(&mut bytes).map_err(StoreError::Random)?;
    Ok(Key::from_bytes(bytes))
}

fn fill(bytes: &mut [u8; 32]) -> io::Result<()> {
    // As many as are asked for, up to 256: getrandom(2).
    match rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())? {
        32 => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests;
