//! Who can write a directory, judged as OpenSSH judges a user's keys (`safe_path` in its misc.c): it and all
//! directories above it belong to this user or to root, and only their owners write them. Unlike there, a directory
//! such as /tmp may be above it, in which nobody touches what is another's.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Result, StoreError};

/// Write for group and others.
const OTHERS: u32 = 0o022;

/// In a directory with it, only the owner of a file renames or removes it.
const STICKY: u32 = 0o1000;

/// A directory that others can write.
#[derive(Debug)]
pub(super) struct Shared {
    pub path: PathBuf,
    /// In what way.
    pub why: String,
    /// Whether it belongs to somebody else.
    pub foreign: bool,
}

/// Whose directories are trusted.
#[derive(Clone, Copy, Debug)]
struct Trusted {
    /// Besides root.
    me: u32,
    /// In a user namespace, the number that stands for all users outside of it. Of them root is most likely the one
    /// to own what is above a store.
    unmapped: Option<u32>,
}

impl Trusted {
    fn now() -> Self {
        let number = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        // All of 32 bits to themselves: not in a user namespace.
        let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
        Self {
            me: rustix::process::geteuid().as_raw(),
            unmapped: if is_whole { None } else { number("/proc/sys/kernel/overflowuid") },
        }
    }

    /// What lets others write a directory with this metadata; `above` the one that matters.
    fn objects(self, path: &Path, metadata: &Metadata, above: bool) -> Option<Shared> {
        let (why, foreign) = self.why(metadata.uid(), metadata.mode() & 0o7777, above)?;
        Some(Shared { path: path.to_owned(), why, foreign })
    }

    fn why(self, owner: u32, mode: u32, above: bool) -> Option<(String, bool)> {
        let is_outside = above && self.unmapped == Some(owner);
        if owner != 0 && owner != self.me && !is_outside {
            return Some((format!("belongs to user {owner}, neither to you nor to root"), true));
        }
        if mode & OTHERS == 0 || above && mode & STICKY != 0 {
            return None;
        }
        let whom = if mode & 0o002 != 0 { "everybody" } else { "its group" };
        Some((format!("is writable by {whom} (mode {mode:04o})"), owner != self.me && self.me != 0))
    }
}

/// Whether nobody but this user and root can write `folder` and what is above it.
pub(super) fn of_folder(folder: &Path) -> Result<(), Shared> {
    let trusted = Trusted::now();
    let unknown = |path: &Path, error| Shared {
        path: path.to_owned(),
        why: format!("is unknown: {error}"),
        foreign: true,
    };
    let metadata = fs::metadata(folder).map_err(|error| unknown(folder, error))?;
    // A path may lead over links: what counts is where it ends.
    let real = fs::canonicalize(folder).map_err(|error| unknown(folder, error))?;
    trusted.objects(folder, &metadata, false).map_or(Ok(()), Err)?;
    for path in real.ancestors().skip(1) {
        let metadata = fs::metadata(path).map_err(|error| unknown(path, error))?;
        trusted.objects(path, &metadata, true).map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// Refuses a store in `root` that others can write, or a directory of it.
pub(super) fn judge(root: &Path) -> Result<()> {
    let refused =
        |Shared { path, why, foreign }| StoreError::Shared { folder: root.to_owned(), path, why, foreign };
    of_folder(root).map_err(refused)?;
    let trusted = Trusted::now();
    for part in ["blobs", "derived", "tools"] {
        let part = root.join(part);
        let below = fs::read_dir(&part).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in std::iter::once(part).chain(below) {
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_dir() {
                trusted.objects(&path, &metadata, false).map_or(Ok(()), Err).map_err(refused)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_as_ssh_does() {
        let trusted = Trusted { me: 1000, unmapped: None };
        for (owner, mode, above, expected) in [
            (1000, 0o755, false, None),
            (0, 0o755, false, None),
            (1000, 0o700, true, None),
            (1000, 0o2755, false, None),
            (0, 0o1777, true, None),
            (0, 0o1777, false, Some("is writable by everybody (mode 1777)")),
            (1000, 0o775, false, Some("is writable by its group (mode 0775)")),
            (1000, 0o775, true, Some("is writable by its group (mode 0775)")),
            (1000, 0o777, false, Some("is writable by everybody (mode 0777)")),
            (1001, 0o755, false, Some("belongs to user 1001, neither to you nor to root")),
            (1001, 0o755, true, Some("belongs to user 1001, neither to you nor to root")),
            (1001, 0o1777, true, Some("belongs to user 1001, neither to you nor to root")),
            (65534, 0o755, true, Some("belongs to user 65534, neither to you nor to root")),
        ] {
            let why = trusted.why(owner, mode, above).map(|found| found.0);
            assert_eq!(why.as_deref(), expected, "{owner} {mode:o} {above}");
        }
        // In a user namespace, what is above a store may be of the root outside; the store itself may not.
        let inside = Trusted { me: 0, unmapped: Some(65534) };
        assert!(inside.why(65534, 0o755, true).is_none());
        assert!(inside.why(65534, 0o755, false).is_some());
        assert!(inside.why(65534, 0o775, true).is_some());
    }
}
