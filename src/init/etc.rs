//! `/etc`: the verified root's, with the node's changes laid over it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use super::console::Console;
use super::root::attach;
use super::state;
use crate::base::failure::{Doing, Failure};
use crate::boot::cmdline::{Etc, State};
use crate::node::laying::LAYER;

/// Where it is mounted.
const MOUNT: &str = "/sysroot/etc";
/// Where the changes of a node with persistent changes are, below [`state::HOME`].
const FOLDER: &str = "etc";
/// Where they are when they are not kept.
const MEMORY: &str = "/run/keller/etc";

/// The lower layer changes with every update, so nothing may be recorded about it: an index or a redirect
/// would point to files of a version that is gone, metacopy would give new bytes old owners, and xino needs
/// a lower layer that stays (Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems").
const OPTIONS: &str = "index=off,metacopy=off,redirect_dir=off,xino=off";

/// Whether changes outlive this boot.
pub(super) fn is_kept(etc: Etc, state: State) -> bool {
    etc != Etc::Ephemeral && state == State::Disk
}

/// Lays the node's changes over the root's `/etc`, with the layer of its document between them. Gives the directory of the
/// changes.
pub(super) fn mount(console: &Console, etc: Etc, state: State) -> Result<PathBuf, Failure> {
    let kept = is_kept(etc, state);
    let home = Path::new(state::HOME);
    if etc == Etc::Factory
        && kept
        && let Some(aside) = put_aside(home)?
    {
        console.warn(&format!("keller.etc=factory: the changes to /etc were put aside in {}", shown(&aside)));
    }
    let folder = if kept { home.join(FOLDER) } else { PathBuf::from(MEMORY) };
    let (upper, work) = (folder.join("upper"), folder.join("work"));
    for path in [&upper, &work] {
        fs::create_dir_all(path).doing(format!("making {}", shown(path)))?;
    }
    // A document that is applied later finds the layer there.
    let lower = if Path::new(LAYER).is_dir() { format!("{LAYER}:{MOUNT}") } else { MOUNT.to_owned() };
    let layers = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
    attach(
        "overlay",
        MOUNT,
        "overlay",
        MountFlags::NOSUID | MountFlags::NODEV,
        &format!("{layers},{OPTIONS}"),
    )
    .map_err(|failure| {
        failure.help("keller.etc=factory puts the changes to /etc aside, keller.etc=ephemeral ignores them")
    })?;
    console.say(if kept {
        "/etc mounted, changes are kept"
    } else {
        "/etc mounted, changes end with this boot"
    });
    Ok(upper)
}

/// Moves the changes to a name that is free; says where, if there were any.
fn put_aside(home: &Path) -> Result<Option<PathBuf>, Failure> {
    let current = home.join(FOLDER);
    if !current.exists() {
        return Ok(None);
    }
    let taken = fs::read_dir(home).doing(format!("reading {}", home.display()))?;
    let names = taken.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let aside = home.join(format!("{FOLDER}.{}", next_number(names)));
    fs::rename(&current, &aside).doing(format!("moving the changes to /etc to {}", aside.display()))?;
    Ok(Some(aside))
}

/// One more than the highest number among names such as `etc.3`.
fn next_number(names: impl Iterator<Item = String>) -> u64 {
    let numbers = names.filter_map(|name| name.strip_prefix("etc.")?.parse::<u64>().ok());
    numbers.max().unwrap_or_default() + 1
}

/// A path as it will be on the running node.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.strip_prefix(super::chroot::ROOT).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_aside_keeps_its_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(next_number(names(&["etc", "machine-id"]).into_iter()), 1);
        assert_eq!(next_number(names(&["etc.2", "etc.10", "etc.x"]).into_iter()), 11);

        let home = tempfile::tempdir().unwrap();
        assert!(put_aside(home.path()).unwrap().is_none());
        for expected in ["etc.1", "etc.2"] {
            fs::create_dir_all(home.path().join("etc/upper")).unwrap();
            fs::write(home.path().join("etc/upper/x"), expected).unwrap();
            let aside = put_aside(home.path()).unwrap().unwrap();
            assert_eq!(aside, home.path().join(expected));
            assert_eq!(fs::read_to_string(aside.join("upper/x")).unwrap(), expected);
        }
    }

    #[test]
    fn changes_are_kept_on_disk_only() {
        assert!(is_kept(Etc::Persistent, State::Disk) && is_kept(Etc::Factory, State::Disk));
        assert!(!is_kept(Etc::Ephemeral, State::Disk) && !is_kept(Etc::Persistent, State::Memory));
    }
}
