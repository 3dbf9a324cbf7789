//! A cluster that is lost begins anew from a backup, on one member; the others join it as those that were lost.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags};
use serde::Serialize;

use super::promote;
use crate::agent::{accounts, systemd};
use crate::base::failure::{Doing, Failure};
use crate::base::input;
use crate::base::progress::Progress;
use crate::cluster::snapshot::{self, Content};
use crate::cluster::{Access, View};
use crate::pki::Owner;
use crate::pki::etcd;

/// etcd's own tool; not the wrapper, which talks to an etcd that runs.
const PROGRAM: &str = "/usr/bin/etcdctl";
const UNIT: &str = "etcd.service";
/// For etcd to come up with what was restored.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(500);

/// A cluster that began anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Its only member for now.
    pub member: String,
    /// What it has.
    #[serde(flatten)]
    pub content: Content,
    /// Where the data lie that this member had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<PathBuf>,
}

/// A new cluster out of a backup, with one member.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// The member's name.
    pub name: String,
    /// Where it answers others.
    pub peer_url: String,
    /// No other cluster's: whoever has data of the old one is not believed.
    pub token: String,
}

/// Begins the cluster of this node anew from `file`, on this node alone. `now` is in seconds since 1970.
///
/// # Errors
/// A file that is damaged or another cluster's, members that still run, and what etcd and the disk say.
pub fn restore(file: &Path, now: i64, progress: &dyn Progress) -> Result<Restored, Failure> {
    let access = promote::access()?;
    let doing = || format!("restoring {} from {}", access.list.name, file.display());
    let content = judge(file, &access).map_err(|failure| failure.within(&doing()))?;
    others(&access).doing(doing())?;
    let me = access.me.clone().ok_or("this node is no member").doing(doing())?;
    let own = access.list.members.get(&me).copied().ok_or("this node is not in its list").doing(doing())?;
    let data = Path::new(etcd::DATA).join(&access.list.name);
    let fresh = Path::new(etcd::DATA).join(format!(".{}.restoring", access.list.name));
    let token = format!("{}-{now}", access.list.name);
    let beginning = Beginning { name: me.clone(), peer_url: access.peer_url(own), token };
    let owner = accounts::find(Path::new("/"), etcd::USER)?;
    prepare(&mut Command::new(PROGRAM), file, &fresh, &beginning, owner)?;
    progress.note("the backup is unpacked; etcd stops");
    systemd::systemctl(&["stop", UNIT])?;
    let before = data.with_file_name(format!("{}.before-{now}", access.list.name));
    let before =
        exchange(&fresh, &data, &before).doing(format!("putting the backup into {}", data.display()))?;
    progress.note("etcd starts with what was restored");
    systemd::systemctl(&["start", UNIT])?;
    verify(&access, &me, &content).map_err(|failure| failure.within(&doing()))?;
    Ok(Restored { member: me, content, before })
}

/// Whether `file` is whole, and of this cluster.
pub fn judge(file: &Path, access: &Access) -> Result<Content, Failure> {
    let doing = || format!("reading {}", file.display());
    let content = snapshot::read(&input::open(file).doing(doing())?).doing(doing())?;
    let is_ours = |listed: &snapshot::Listed| {
        access
            .list
            .members
            .iter()
            .any(|(name, ip)| listed.name == *name && listed.peer_urls.contains(&access.peer_url(*ip)))
    };
    if content.members.iter().any(is_ours) {
        return Ok(content);
    }
    let listed: Vec<String> = content
        .members
        .iter()
        .map(|listed| format!("{} at {}", listed.name, listed.peer_urls.join(", ")))
        .collect();
    let ours: Vec<&str> = access.list.members.keys().map(String::as_str).collect();
    Err(Failure::new(
        doing(),
        format!(
            "it is of another cluster: its members are {}, and none of them is one of {} ({})",
            listed.join("; "),
            access.list.name,
            ours.join(", ")
        ),
    ))
}

/// Nobody else has a part in the cluster that is to begin anew.
pub fn others(access: &Access) -> Result<(), String> {
    // Whether there is a majority matters only where somebody else runs, and this member takes long to say that there is none.
    let view = View::glance(access);
    let others = view.members.iter().filter(|member| Some(&member.name) != access.me.as_ref());
    let running: Vec<&str> =
        others.filter(|member| member.answered().is_some()).map(|member| member.name.as_str()).collect();
    match running.as_slice() {
        [] => Ok(()),
        _ if View::of(access).has_quorum() => Err(format!(
            "{} and this member still work: a member that is lost is replaced, `keller cluster replace`. To go back to a \
             backup all the same, stop etcd on the others first",
            running.join(", ")
        )),
        _ => Err(format!(
            "{} still runs with data of the old cluster, and could not join the new one: `systemctl stop etcd` there first, \
             and after this remove {}/{} there",
            running.join(", "),
            etcd::DATA,
            access.list.name
        )),
    }
}

/// Unpacks `file` into the directory `fresh`, by etcd's own tool, `etcdctl`.
pub fn prepare(
    etcdctl: &mut Command,
    file: &Path,
    fresh: &Path,
    beginning: &Beginning,
    owner: Owner,
) -> Result<(), Failure> {
    // Of a try that was cut off.
    match fs::remove_dir_all(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::new(format!("removing {}", fresh.display()), error));
        }
        _ => {}
    }
    etcdctl.arg("snapshot").arg("restore").arg(file).arg("--data-dir").arg(fresh);
    etcdctl.args(["--name", &beginning.name, "--initial-cluster-token", &beginning.token]);
    etcdctl.arg("--initial-cluster").arg(format!("{}={}", beginning.name, beginning.peer_url));
    etcdctl.args(["--initial-advertise-peer-urls", &beginning.peer_url]);
    etcdctl.env("ETCDCTL_API", "3");
    systemd::output(etcdctl)?;
    own(fresh, owner).doing(format!("giving {} to etcd", fresh.display()))
}

fn own(path: &Path, owner: Owner) -> io::Result<()> {
    if path.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| own(&entry?.path(), owner))?;
    }
    chown(path, Some(owner.uid), Some(owner.gid))
}

/// Puts `fresh` in the place of `data`, in one step; what was there goes to `before`.
fn exchange(fresh: &Path, data: &Path, before: &Path) -> io::Result<Option<PathBuf>> {
    rustix::fs::sync();
    match rustix::fs::renameat_with(CWD, fresh, CWD, data, RenameFlags::EXCHANGE) {
        Ok(()) => fs::rename(fresh, before)?,
        Err(rustix::io::Errno::NOENT) => {
            fs::rename(fresh, data)?;
            rustix::fs::sync();
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    }
    rustix::fs::sync();
    Ok(Some(before.to_owned()))
}

/// etcd runs, and has what the backup had.
fn verify(access: &Access, me: &str, content: &Content) -> Result<(), Failure> {
    let doing = "asking etcd for what was restored";
    let endpoint = access.list.members.get(me).map(|ip| access.endpoint(*ip));
    let endpoint = endpoint.ok_or("this node is not in its list").doing(doing)?;
    let begun = Instant::now();
    let (keys, revision) = loop {
        match access.connect(endpoint).and_then(|mut client| client.count()) {
            Ok(found) => break found,
            Err(error) if begun.elapsed() > PATIENCE => return Err(Failure::new(doing, error)),
            Err(_) => thread::sleep(PAUSE),
        }
    };
    let wanted = (i64::try_from(content.keys).unwrap_or(i64::MAX), content.revision);
    if (keys, revision) == wanted {
        return Ok(());
    }
    Err(Failure::new(
        doing,
        format!(
            "it has {keys} keys at revision {revision}, and the backup has {} at {}: somebody has written since, or the \
             backup is not what etcd took",
            wanted.0, wanted.1
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("fresh")).unwrap();
        fs::write(at("fresh/new"), "").unwrap();
        assert_eq!(exchange(&at("fresh"), &at("data"), &at("before")).unwrap(), None);
        assert!(at("data/new").exists() && !at("fresh").exists());
        fs::create_dir(at("fresh")).unwrap();
        fs::write(at("fresh/newer"), "").unwrap();
        assert_eq!(exchange(&at("fresh"), &at("data"), &at("before")).unwrap(), Some(at("before")));
        assert!(at("data/newer").exists() && at("before/new").exists() && !at("fresh").exists());
    }
}
