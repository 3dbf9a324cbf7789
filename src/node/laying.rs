//! Laying a document's files on a node, and keeping its text there: /init does it before systemd starts, `keller node
//! apply` on a running node.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::{CLOSED, Item, Kind, LARGEST};
use crate::base::failure::{Doing, Failure};
use crate::base::{AtomicFile, atomic};

/// The copy, below the directory of what is ours on the state partition.
pub const KEPT: &str = "node/node.yaml";
/// Where a document is put into the ESP, for the next boot to take.
pub const IN_ESP: &str = "EFI/keller/node.yaml";
/// What was applied and is not confirmed yet, beside it.
pub const PENDING: &str = "node/pending.yaml";
/// What a document has in /etc: a layer between the root's and the node's changes.
pub const LAYER: &str = "/run/keller/node/etc";
/// The paths that were laid, as a list.
pub const LAID: &str = "/run/keller/node/laid.json";

/// Directories of the layer that are there from the start, where the image has them: what is added to it later is seen
/// in them.
const READY: [&str; 2] = ["/etc/ssh", "/etc/ssh/authorized_keys.d"];

/// Makes the layer, over the verified root at `root`, before /etc is mounted.
///
/// # Errors
/// What the file system says.
pub fn prepare(root: &Path) -> Result<(), Failure> {
    let make = || -> io::Result<()> {
        fs::create_dir_all(LAYER)?;
        let below = fs::symlink_metadata(root.join("etc"))?;
        fs::set_permissions(LAYER, Permissions::from_mode(below.mode() & 0o7777))?;
        let is_there = |path: &&&str| root.join(path.trim_start_matches('/')).is_dir();
        READY.iter().filter(is_there).try_for_each(|path| directories(&format!("{path}/any"), root))
    };
    make().doing(format!("making {LAYER}"))
}

/// Where an item of this path is written.
pub fn place(path: &str) -> PathBuf {
    match path.strip_prefix("/etc/") {
        Some(rest) => Path::new(LAYER).join(rest),
        None => PathBuf::from(path),
    }
}

/// What is at a path of a document now, if there is something.
pub fn laid(path: &str) -> Option<Kind> {
    let place = place(path);
    let found = fs::symlink_metadata(&place).ok()?;
    if found.is_symlink() {
        return Some(Kind::Link(fs::read_link(place).ok()?.to_string_lossy().into_owned()));
    }
    let mode = u16::try_from(found.mode() & 0o7777).ok()?;
    found.is_file().then(|| Some(Kind::File(super::Secret(fs::read(place).ok()?), mode)))?
}

/// Lays one item over the verified root at `root`. A file that is there keeps its inode: /etc, whose layer this may be,
/// is an overlay that remembers it.
///
/// # Errors
/// What the file system says.
pub fn lay(item: &Item, root: &Path) -> Result<(), Failure> {
    let place = place(&item.path);
    let write = || -> io::Result<()> {
        directories(&item.path, root)?;
        let is_file = fs::symlink_metadata(&place).ok().map(|found| found.is_file());
        let stays = is_file == Some(true) && matches!(item.kind, Kind::File(..));
        if is_file.is_some() && !stays {
            fs::remove_file(&place)?;
        }
        match &item.kind {
            Kind::Link(target) => symlink(target, &place),
            Kind::File(bytes, mode) => {
                if stays {
                    fs::set_permissions(&place, Permissions::from_mode(0o600))?;
                }
                let mut options = fs::OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600);
                let mut file = options.custom_flags(libc::O_NOFOLLOW).open(&place)?;
                file.write_all(&bytes.0)?;
                file.set_permissions(Permissions::from_mode(u32::from(*mode)))
            }
        }
    };
    write().doing(format!("making {} of the node document", item.path))
}

/// Takes away what was laid at a path.
///
/// # Errors
/// What the file system says, but not that nothing was there.
pub fn take_away(path: &str) -> Result<(), Failure> {
    match fs::remove_file(place(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(format!("removing {path} of the node document before"), error))
        }
        _ => Ok(()),
    }
}

/// Makes the directories above `path`. A layer's directory hides the mode and the owner of the one that it lies over,
/// so that it gets them.
fn directories(path: &str, root: &Path) -> io::Result<()> {
    let mut above = String::new();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    for part in &parts[..parts.len().saturating_sub(1)] {
        above = format!("{above}/{part}");
        let here = if above == "/etc" { PathBuf::from(LAYER) } else { place(&above) };
        if fs::symlink_metadata(&here).is_ok_and(|found| found.is_dir()) {
            continue;
        }
        fs::create_dir_all(&here)?;
        let mode = if CLOSED.contains(&above.as_str()) { 0o700 } else { 0o755 };
        fs::set_permissions(&here, Permissions::from_mode(mode))?;
        if !above.starts_with("/etc") {
            continue;
        }
        match fs::symlink_metadata(root.join(above.trim_start_matches('/'))) {
            Ok(below) if below.is_dir() => {
                chown(&here, Some(below.uid()), Some(below.gid()))?;
                fs::set_permissions(&here, Permissions::from_mode(below.mode() & 0o7777))?;
            }
            Ok(_) => {
                fs::remove_dir(&here)?;
                return Err(io::Error::other(format!("{above} of this image is not a directory")));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Writes down which paths were laid.
///
/// # Errors
/// What the file system says.
pub fn note<'a>(paths: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let paths: Vec<&str> = paths.collect();
    // Undoing reads it: half of it would leave files behind.
    atomic::write(Path::new(LAID), serde_json::json!(paths).to_string()).doing(format!("writing {LAID}"))
}

/// The paths that were laid.
pub fn noted() -> Vec<String> {
    let text = fs::read_to_string(LAID).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The text that is kept at `path`, if there is one.
///
/// # Errors
/// What is no file of a document's size, and what the disk says.
pub fn kept(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.len() <= LARGEST => fs::read(path).map(Some),
        Ok(_) => Err(io::Error::other("it is not a file of a document's size")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps a text at `path`, for root alone. Once this is done, it is on the disk.
///
/// # Errors
/// What the disk says.
pub fn keep(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    let mut file = AtomicFile::create(path)?;
    file.set_mode(0o600)?;
    file.file_mut().write_all(text.as_bytes())?;
    file.commit()?;
    // The directories above may be as new as this file.
    Ok(rustix::fs::syncfs(fs::File::open(directory)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_for_root_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(KEPT);
        assert_eq!(kept(&path).unwrap(), None);
        keep(&path, "node: 1\n").unwrap();
        keep(&path, "node: 1\nname: two\n").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(kept(&path).unwrap().unwrap(), b"node: 1\nname: two\n");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // What is no file is told, and not waited for.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(kept(&path).is_err());
    }
}
