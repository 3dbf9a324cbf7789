//! The node's identity for systemd (machine-id(5)): made once, kept on the state partition, shown in /etc.
//!
//! It is there before systemd starts, so that systemd does not take the boot for its own "first boot" and
//! reset which units are enabled: an image is final. What is to happen at a node's first boot reads
//! `first_boot` of the hand-over.

use std::fs;
use std::path::Path;

use super::state;
use crate::base::failure::{Doing, Failure};
use crate::base::{AtomicFile, atomic, kernel};

/// Where it is kept, below [`state::HOME`].
const KEPT: &str = "machine-id";
/// Where systemd reads it.
const SHOWN: &str = "/sysroot/etc/machine-id";

/// Shows the kept identity in /etc; makes one if there is none. One from the command line counts for this
/// boot and is not kept.
pub(super) fn settle(given: Option<&str>) -> Result<(), Failure> {
    let id = match given {
        Some(id) => id.to_owned(),
        None => kept_or_new(Path::new(state::HOME))?,
    };
    show(Path::new(SHOWN), &id)
}

fn kept_or_new(home: &Path) -> Result<String, Failure> {
    let path = home.join(KEPT);
    if let Some(id) = fs::read_to_string(&path).ok().as_deref().and_then(parse) {
        return Ok(id);
    }
    // systemd wants a UUID of version 4, and so does whoever derives others from it.
    let id = uuid::Builder::from_random_bytes(kernel::random().doing("waiting for randomness")?)
        .into_uuid()
        .simple()
        .to_string();
    let doing = || format!("writing {}", path.display());
    write(&path, &id).doing(doing())?;
    // The name must be on the disk as well, before anybody learns the identity.
    atomic::sync_name(&path).doing(doing())?;
    Ok(id)
}

/// Writes the view, unless it says so already: an /etc that is not changed needs no copy of the file.
fn show(path: &Path, id: &str) -> Result<(), Failure> {
    if fs::read_to_string(path).ok().as_deref().and_then(parse).as_deref() == Some(id) {
        return Ok(());
    }
    write(path, id).doing(format!("writing {}", path.display()))
}

fn write(path: &Path, id: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = AtomicFile::create(path)?;
    file.set_mode(0o444)?;
    writeln!(file.file_mut(), "{id}")?;
    file.commit().map(drop)
}

fn parse(text: &str) -> Option<String> {
    let id = text.trim();
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| id.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once() {
        let home = tempfile::tempdir().unwrap();
        let id = kept_or_new(home.path()).unwrap();
        assert_eq!(parse(&id).as_ref(), Some(&id));
        assert_eq!(kept_or_new(home.path()).unwrap(), id);
        // A file that was cut short is replaced.
        let path = home.path().join(KEPT);
        fs::remove_file(&path).unwrap();
        fs::write(&path, &id[..9]).unwrap();
        assert_ne!(kept_or_new(home.path()).unwrap(), id);
    }

    #[test]
    fn shown_as_it_is_kept() {
        let etc = tempfile::tempdir().unwrap();
        let path = etc.path().join("machine-id");
        fs::write(&path, "").unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        show(&path, id).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{id}\n"));
        assert_eq!(parse("uninitialized"), None);
    }
}
