//! What a new version changes in /etc under files that an operator has changed as well: the overlay shows the
//! operator's, so nobody sees the new default.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use serde::Serialize;

use super::disk::NodeDisk;
use super::settings::Settings;
use crate::base::failure::{Doing, Failure};
use crate::base::version;

/// Where the node's own changes to /etc are: on the disk, or in memory (`etc: ephemeral`); see `init::etc`.
pub(super) const UPPERS: [&str; 2] = ["/var/lib/keller/etc/upper", "/run/keller/etc/upper"];
/// Mount points of this process alone.
const RUNNING: &str = "/run/keller/roots/running";
const OTHER: &str = "/run/keller/roots/other";
/// A lower file that an operator has deleted is a device 0:0 in the upper layer.
const WHITEOUT: u64 = 0;

/// The defaults of two versions, and what the node has made of the older.
#[derive(Clone, Debug, Serialize)]
pub struct EtcDiff {
    /// The older version.
    pub old: String,
    /// The newer version.
    pub new: String,
    /// Files that differ between them and were changed on the node, by path below /etc.
    pub changes: Vec<Change>,
}

/// A file of /etc that both have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Absolute.
    pub path: String,
    /// What the newer version did with it: `added`, `removed` or `changed`.
    pub what: &'static str,
    /// Whether the node has deleted it.
    pub deleted_here: bool,
    /// From the older version's file to the newer's, as `diff -u` shows it.
    pub default: String,
    /// From the newer version's file to the node's.
    pub own: String,
}

/// Compares the /etc of both slots, as far as the node has files of its own there.
pub fn diff() -> Result<EtcDiff, Failure> {
    let built = Settings::image()?;
    let disk = NodeDisk::find()?;
    let Some(release) = disk.release(disk.running.other()) else {
        let cause = format!("slot {} holds no version", disk.running.other());
        return Err(Failure::new("comparing two versions", cause));
    };
    mount(&disk.devices(disk.running.other())?.0)?;
    let (running, other) = (Path::new(RUNNING).join("etc"), Path::new(OTHER).join("etc"));
    let other_is_newer = version::compare(&release.version, &built.version).is_gt();
    let (old, new) = match other_is_newer {
        true => ((built.version, running), (release.version, other)),
        false => ((release.version, other), (built.version, running)),
    };
    let changes = compare(Path::new(UPPERS[0]), &old.1, &new.1)?;
    Ok(EtcDiff { old: old.0, new: new.0, changes })
}

/// Mounts the other slot, and the running root without what lies over it, where nobody else sees them.
fn mount(other: &str) -> Result<(), Failure> {
    let alone = "leaving the mounts of the node";
    // SAFETY: no other thread of this process works with files by relative names.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.doing(alone)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).doing(alone)?;
    for folder in [RUNNING, OTHER] {
        fs::create_dir_all(folder).doing(format!("making {folder}"))?;
    }
    rustix::mount::mount_bind("/", RUNNING).doing("showing the running root")?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let doing = format!("mounting {other}");
    match rustix::mount::mount(other, OTHER, "erofs", flags, None) {
        Ok(()) => Ok(()),
        // An ext4 root has no journal to replay, and the partition must not be written.
        Err(_) => rustix::mount::mount(other, OTHER, "ext4", flags, Some(c"noload")).doing(doing),
    }
}

/// The files of `upper` whose default differs between the folders `old` and `new`.
fn compare(upper: &Path, old: &Path, new: &Path) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::new();
    for path in files(upper)? {
        let (before, after, own) = (old.join(&path), new.join(&path), upper.join(&path));
        let what = match (look(&before)?, look(&after)?) {
            (None, None) => continue,
            (None, Some(_)) => "added",
            (Some(_), None) => "removed",
            (Some(a), Some(b)) if same(&a, &before, &b, &after)? => continue,
            (Some(_), Some(_)) => "changed",
        };
        let deleted_here = look(&own)?.is_some_and(|meta| is_whiteout(&meta));
        changes.push(Change {
            path: Path::new("/etc").join(&path).display().to_string(),
            what,
            deleted_here,
            default: unified(&before, &after)?,
            own: if deleted_here { String::new() } else { unified(&after, &own)? },
        });
    }
    Ok(changes)
}

/// All that is no folder below `top`, relative to it, by name.
fn files(top: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(folder) = pending.pop() {
        let path = top.join(&folder);
        let list = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            list => list.doing(format!("reading {}", path.display()))?,
        };
        for entry in list.flatten() {
            let name = folder.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(name),
                _ => found.push(name),
            }
        }
    }
    found.sort();
    Ok(found)
}

fn look(path: &Path) -> Result<Option<Metadata>, Failure> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Failure::new(format!("looking at {}", path.display()), error)),
    }
}

fn is_whiteout(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == WHITEOUT
}

/// Whether two versions have the same file there. Its time does not count: it is that of the build.
fn same(a: &Metadata, a_path: &Path, b: &Metadata, b_path: &Path) -> Result<bool, Failure> {
    let owner = |meta: &Metadata| (meta.permissions().mode(), meta.uid(), meta.gid());
    if a.file_type() != b.file_type() || owner(a) != owner(b) {
        return Ok(false);
    }
    let read = |path: &Path| -> io::Result<Vec<u8>> {
        match a.file_type() {
            kind if kind.is_symlink() => Ok(fs::read_link(path)?.into_os_string().into_encoded_bytes()),
            kind if kind.is_file() => fs::read(path),
            _ => Ok(Vec::new()),
        }
    };
    let doing = || format!("comparing {}", a_path.display());
    Ok(read(a_path).doing(doing())? == read(b_path).doing(doing())?)
}

/// `diff -u`, of what can be shown so; links by where they lead.
fn unified(a: &Path, b: &Path) -> Result<String, Failure> {
    let mut command = Command::new("diff");
    command.args(["--unified", "--new-file", "--no-dereference", "--"]).args([a, b]);
    let doing = || format!("comparing {} and {}", a.display(), b.display());
    let output = command.output().doing(doing())?;
    match output.status.code() {
        Some(0 | 1) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        _ => Err(Failure::new(doing(), String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_have_changed_is_told() {
        let top = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (path, old, new, own) in [
            ("sshd/config", "Port 22\n", "Port 22\nUseDNS no\n", "Port 2222\n"),
            ("hosts", "a\n", "a\n", "b\n"),
            ("motd", "one\n", "two\n", ""),
        ] {
            write(&format!("old/{path}"), old);
            write(&format!("new/{path}"), new);
            if !own.is_empty() {
                write(&format!("upper/{path}"), own);
            }
        }
        write("upper/mine", "x\n");
        write("upper/added", "x\n");
        write("new/added", "y\n");
        let [upper, old, new] = ["upper", "old", "new"].map(|name| top.path().join(name));
        let changes = compare(&upper, &old, &new).unwrap();
        let told: Vec<_> = changes.iter().map(|change| (change.path.as_str(), change.what)).collect();
        assert_eq!(told, [("/etc/added", "added"), ("/etc/sshd/config", "changed")]);
        assert!(changes[1].default.contains("\n+UseDNS no"), "{}", changes[1].default);
        assert!(changes[1].own.contains("\n+Port 2222"), "{}", changes[1].own);
    }
}
