//! Who can write a directory, judged as OpenSSH judges a user's keys (`safe_path` in its misc.c): it and all
//! directories above it belong to this user or to root, and only their owners write them. Unlike there, a directory
//! such as /tmp may be above it, in which nobody touches what is another's. As in Debian's OpenSSH (`secure_permissions`
//! of its user-group-modes.patch), a directory above it may be writable by a group that has its owner alone: the umask
//! 002, which goes with such groups, leaves them everywhere. Links count as well as directories: whoever can put another
//! one in the place of a link on the way chooses where it ends.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::{Result, StoreError};
use crate::base::{input, limits};

/// Write for group and others.
const OTHERS: u32 = 0o022;

/// Write for all but owner and group.
const EVERYBODY: u32 = 0o002;

/// In a directory with it, only the owner of a file renames or removes it.
const STICKY: u32 = 0o1000;

/// Links on the way to one directory: as many as the kernel follows.
const LINKS: usize = 40;

/// A directory that others can write, or a link that they can replace.
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

/// What counts of a directory.
#[derive(Clone, Copy, Debug)]
struct Seen {
    owner: u32,
    mode: u32,
    /// Whether it is above the directory that matters.
    above: bool,
}

impl Trusted {
    fn now() -> Self {
        let text = |path| input::read_text(path, limits::TEXT).unwrap_or_default();
        let map = text("/proc/self/uid_map");
        // All of 32 bits to themselves: not in a user namespace.
        let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
        Self {
            me: rustix::process::geteuid().as_raw(),
            unmapped: if is_whole { None } else { text("/proc/sys/kernel/overflowuid").trim().parse().ok() },
        }
    }

    /// What lets others write the directory at `path`; `above` the one that matters.
    fn objects(self, path: &Path, metadata: &Metadata, above: bool) -> Option<Shared> {
        let seen = Seen { owner: metadata.uid(), mode: metadata.mode() & 0o7777, above };
        let (why, foreign) = self.why(seen, || is_private_group(path, metadata))?;
        Some(Shared { path: path.to_owned(), why, foreign })
    }

    /// `is_private`: whether the directory's group has its owner alone.
    fn why(self, seen: Seen, is_private: impl FnOnce() -> bool) -> Option<(String, bool)> {
        let Seen { owner, mode, above } = seen;
        let is_outside = above && self.unmapped == Some(owner);
        if owner != 0 && owner != self.me && !is_outside {
            return Some((format!("belongs to user {owner}, neither to you nor to root"), true));
        }
        if mode & OTHERS == 0 || above && mode & STICKY != 0 {
            return None;
        }
        let whom = match mode & EVERYBODY != 0 {
            true => "everybody",
            false if above && is_private() => return None,
            false => "its group",
        };
        Some((format!("is writable by {whom} (mode {mode:04o})"), owner != self.me && self.me != 0))
    }
}

/// Whether the group of the directory at `path` has nobody but the directory's owner.
fn is_private_group(path: &Path, metadata: &Metadata) -> bool {
    // With a list of access, the group's bits are for whoever stands in that.
    let has_list = match rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0_u8; 0]) {
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => false,
        Ok(_) | Err(_) => true,
    };
    let text = |path| input::read_text(path, limits::TEXT).unwrap_or_default();
    !has_list && has_owner_alone(metadata.gid(), metadata.uid(), &text("/etc/passwd"), &text("/etc/group"))
}

/// Whether the group has no member but `owner`, as passwd(5) and group(5) tell, which must know both.
fn has_owner_alone(group: u32, owner: u32, users: &str, groups: &str) -> bool {
    let number = |field: Option<&&str>| field.and_then(|text| text.parse::<u32>().ok());
    let mut name = None;
    for line in users.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let is_owner = number(fields.get(2)) == Some(owner);
        if is_owner && name.is_none() {
            name = fields.first().copied();
        }
        if number(fields.get(3)) == Some(group) && !is_owner {
            return false;
        }
    }
    let mut is_known = false;
    for line in groups.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if number(fields.get(2)) != Some(group) {
            continue;
        }
        is_known = true;
        for member in fields.get(3).unwrap_or(&"").split(',').filter(|member| !member.is_empty()) {
            if Some(member) != name {
                return false;
            }
        }
    }
    is_known && name.is_some()
}

/// Whether nobody but this user and root can write `folder` and what is above it.
pub(super) fn of_folder(folder: &Path) -> Result<(), Shared> {
    let trusted = Trusted::now();
    let metadata = fs::metadata(folder).map_err(|error| unknown(folder, &error))?;
    trusted.objects(folder, &metadata, false).map_or(Ok(()), Err)?;
    way(trusted, folder)
}

/// Whether nobody but this user and root can write what `folder`, which need not be there, is to be made in: what is
/// made in the directory of another user is in that user's way.
pub(super) fn of_parents(folder: &Path) -> Result<(), Shared> {
    let trusted = Trusted::now();
    way(trusted, folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Whether nobody else can change where `path` leads, as far as it leads anywhere: by a directory on the way, the last
/// one included, or by a link.
fn way(trusted: Trusted, path: &Path) -> Result<(), Shared> {
    let absolute = std::path::absolute(path).map_err(|error| unknown(path, &error))?;
    let mut at = PathBuf::from("/");
    let mut rest = steps(&absolute);
    let mut links = 0;
    above(trusted, &at)?;
    while let Some(step) = rest.pop() {
        if step == ".." {
            at.pop();
            continue;
        }
        let next = at.join(step);
        let metadata = match fs::symlink_metadata(&next) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            metadata => metadata.map_err(|error| unknown(&next, &error))?,
        };
        if !metadata.is_symlink() {
            above(trusted, &next)?;
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(unknown(path, &rustix::io::Errno::LOOP.into()));
        }
        // Where a directory is sticky, its owner alone replaces a link. The mode of one means nothing.
        let owned = Seen { owner: metadata.uid(), mode: 0, above: true };
        if let Some((why, foreign)) = trusted.why(owned, || false) {
            return Err(Shared { path: next, why, foreign });
        }
        let target = fs::read_link(&next).map_err(|error| unknown(&next, &error))?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        rest.extend(steps(&target));
    }
    Ok(())
}

/// What leads along `path`, the first step last.
fn steps(path: &Path) -> Vec<OsString> {
    let step = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(step).collect()
}

fn above(trusted: Trusted, path: &Path) -> Result<(), Shared> {
    let metadata = fs::metadata(path).map_err(|error| unknown(path, &error))?;
    trusted.objects(path, &metadata, true).map_or(Ok(()), Err)
}

fn unknown(path: &Path, error: &io::Error) -> Shared {
    Shared { path: path.to_owned(), why: format!("is unknown: {error}"), foreign: true }
}

/// Refuses a store in `root` that others can write, or a directory of it.
pub(super) fn judge(root: &Path) -> Result<()> {
    of_folder(root).map_err(|shared| refused(root, shared))?;
    let trusted = Trusted::now();
    let rotten = root.join("rotten");
    // What was put aside may be anything, and no link in its place is followed.
    let aside = fs::symlink_metadata(&rotten).ok().filter(Metadata::is_dir);
    if let Some(shared) = aside.and_then(|metadata| trusted.objects(&rotten, &metadata, false)) {
        return Err(refused(root, shared));
    }
    for part in ["blobs", "derived", "tools"] {
        let part = root.join(part);
        let below = fs::read_dir(&part).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in std::iter::once(part).chain(below) {
            let judged = match fs::symlink_metadata(&path) {
                // What is above the place that it leads to counts as well.
                Ok(metadata) if metadata.is_symlink() && path.is_dir() => of_folder(&path),
                Ok(metadata) if metadata.is_dir() => {
                    trusted.objects(&path, &metadata, false).map_or(Ok(()), Err)
                }
                _ => continue,
            };
            judged.map_err(|shared| refused(root, shared))?;
        }
    }
    Ok(())
}

/// Refuses to make a store in `root` where others could put another in its place.
pub(super) fn judge_place(root: &Path) -> Result<()> {
    of_parents(root).map_err(|shared| refused(root, shared))
}

fn refused(root: &Path, shared: Shared) -> StoreError {
    let Shared { path, why, foreign } = shared;
    StoreError::Shared { folder: root.to_owned(), path, why, foreign }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(trusted: Trusted, owner: u32, mode: u32, above: bool, private: bool) -> Option<String> {
        trusted.why(Seen { owner, mode, above }, || private).map(|found| found.0)
    }

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
            (0, 0o2775, true, Some("is writable by its group (mode 2775)")),
            (1000, 0o777, false, Some("is writable by everybody (mode 0777)")),
            (1001, 0o755, false, Some("belongs to user 1001, neither to you nor to root")),
            (1001, 0o755, true, Some("belongs to user 1001, neither to you nor to root")),
            (1001, 0o1777, true, Some("belongs to user 1001, neither to you nor to root")),
            (65534, 0o755, true, Some("belongs to user 65534, neither to you nor to root")),
        ] {
            assert_eq!(
                why(trusted, owner, mode, above, false).as_deref(),
                expected,
                "{owner} {mode:o} {above}"
            );
        }
        // A group of one lets a directory above it be, as the umask 002 makes them; no other.
        assert!(why(trusted, 1000, 0o775, true, true).is_none());
        assert!(why(trusted, 1000, 0o2770, true, true).is_none());
        for (mode, above) in [(0o775, false), (0o777, true), (0o757, true)] {
            assert!(why(trusted, 1000, mode, above, true).is_some(), "{mode:o}");
        }
        assert!(why(trusted, 1001, 0o775, true, true).is_some());
        // In a user namespace, what is above a store may be of the root outside; the store itself may not.
        let inside = Trusted { me: 0, unmapped: Some(65534) };
        assert!(why(inside, 65534, 0o755, true, false).is_none());
        assert!(why(inside, 65534, 0o755, false, false).is_some());
        assert!(why(inside, 65534, 0o775, true, false).is_some());
        // Root in a container, with a store of the user outside.
        let root = Trusted { me: 0, unmapped: None };
        assert!(why(root, 1000, 0o755, false, false).is_some());
    }

    #[test]
    fn groups_of_one() {
        let users = "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\nyou:x:1001:1001::/:/bin/sh\n\
                     guest:x:1002:50::/:/bin/sh\n";
        let groups =
            "root:x:0:\nme:x:1000:\nyou:x:1001:me\nstaff:x:50:\nmine:x:60:me\nours:x:61:me,you\nnone:x:62:\n";
        let alone = |group, owner| has_owner_alone(group, owner, users, groups);
        // Debian's /var/local belongs to a group that has nobody.
        assert!(alone(1000, 1000) && alone(60, 1000) && alone(0, 0) && alone(62, 1000));
        // Of another user, of two, of an unknown group or user.
        for (group, owner) in
            [(1001, 1000), (1001, 1001), (50, 1000), (61, 1000), (70, 1000), (1000, 1001), (1000, 2000)]
        {
            assert!(!alone(group, owner), "{group} {owner}");
        }
        assert!(!has_owner_alone(1000, 1000, users, "") && !has_owner_alone(1000, 1000, "", groups));
        let two = format!("{users}too:x:1003:1000::/:/bin/sh\n");
        assert!(!has_owner_alone(1000, 1000, &two, groups));
    }
}
