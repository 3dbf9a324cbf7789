//! A member before it starts over, with its node for another version or alone for other authorities: the others must do
//! without it, and another one leads. For another version, what it has is saved as well.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::promote;
use crate::agent::clock;
use crate::base::Chain;
use crate::base::failure::{Doing, Failure};
use crate::base::progress::Progress;
use crate::cluster::view::{Role, Seen};
use crate::cluster::{Access, View, backup};
use crate::pki::etcd;

/// Where snapshots lie. They are as secret as what is in them.
pub const SNAPSHOTS: &str = "/var/lib/keller/etcd-snapshots";
/// How many are kept.
const KEPT: usize = 3;
/// For other members to come back. The unit that waits has 90 s, and the last look may take 30.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks at them.
const PAUSE: Duration = Duration::from_secs(2);
/// What their names end with.
const END: &str = ".etcd";

/// What was done for a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readied {
    /// What this member had.
    pub snapshot: Option<PathBuf>,
    /// Who leads now instead of it.
    pub heir: Option<String>,
}

/// Makes the etcd of this node ready for a restart of the node, where it has one.
///
/// # Errors
/// The cluster would stop. Whatever else goes wrong is told, and is no reason to stay with an old version.
pub fn before(progress: &dyn Progress) -> Result<(), Failure> {
    if !Path::new(etcd::DIRECTORY).join(etcd::CLIENT).exists() {
        return Ok(());
    }
    match promote::access() {
        Ok(access) => ready(&access, Path::new(SNAPSHOTS), clock::shown(), progress).map(drop),
        Err(failure) => {
            progress.warn(&Chain(&failure).to_string());
            Ok(())
        }
    }
}

/// The same for the member that `access` asks as, with snapshots in `directory`. `now` is in seconds since 1970.
///
/// # Errors
/// The cluster would stop.
pub fn ready(
    access: &Access,
    directory: &Path,
    now: i64,
    progress: &dyn Progress,
) -> Result<Readied, Failure> {
    let view = View::of(access);
    let own = match asking(access, &view) {
        Some(own) if own.is_good(view.id) => own,
        _ => {
            progress.detail("etcd of this node does not work: a restart costs the cluster nothing");
            return Ok(Readied::default());
        }
    };
    may_stop(&view, own).doing("starting over").map_err(|failure| {
        let help = "the new version is installed, but not started: run `keller update apply` again later (an agent that \
                    takes versions by itself tries again), or start it all the same with `systemctl reboot`";
        failure.help(help)
    })?;
    let told = |doing: &str, failure: &Failure| {
        progress.warn(&format!("{doing}: {}", Chain(failure)));
    };
    let snapshot = save(access, own, directory, now, progress);
    let snapshot = snapshot.map_err(|failure| told("no snapshot of etcd before the restart", &failure)).ok();
    if let Some(file) = &snapshot {
        progress.note(&format!("saved etcd's data to {}", file.display()));
    }
    // A snapshot of a large database takes minutes.
    let view = View::of(access);
    let heir = asking(access, &view).map_or(Ok(None), |own| hand_over(access, &view, own));
    let heir = heir.map_err(|failure| told("etcd of this node still leads", &failure)).ok().flatten();
    if let Some(heir) = &heir {
        progress.note(&format!("{heir} leads the cluster now"));
    }
    Ok(Readied { snapshot, heir })
}

/// Makes the etcd of this node ready to start over alone, since it reads the authorities that it believes only when it
/// starts. Where it does not run there is nothing to do.
///
/// # Errors
/// The cluster would stop, and went on doing so for a while.
pub fn for_authorities(progress: &dyn Progress) -> Result<(), Failure> {
    match promote::access() {
        Ok(access) => step_aside(&access, PATIENCE, progress).map(drop),
        // As where there are no certificates yet.
        Err(failure) => {
            progress.detail(&Chain(&failure).to_string());
            Ok(())
        }
    }
}

/// The same for the member that `access` asks as; others that start over have `patience` to come back. Gives who leads
/// instead of it.
///
/// # Errors
/// The cluster would stop.
pub fn step_aside(
    access: &Access,
    patience: Duration,
    progress: &dyn Progress,
) -> Result<Option<String>, Failure> {
    let own = access.me.as_ref().and_then(|me| access.list.members.get(me));
    // Without a look at the others, who may not be reached yet: this is part of each start of etcd.
    if own.is_none_or(|ip| access.connect(access.endpoint(*ip)).is_err()) {
        return Ok(None);
    }
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        let view = View::of(access);
        // A learner has no vote that could be missed; what it does not believe keeps it from ever getting one.
        let own = match asking(access, &view) {
            Some(own) if own.is_good(view.id) && own.votes() => own,
            _ => return Ok(None),
        };
        let why = match may_stop(&view, own) {
            Ok(()) => {
                let heir = hand_over(access, &view, own);
                let told = |failure: Failure| {
                    progress.warn(&format!("etcd of this node still leads: {}", Chain(&failure)));
                };
                return Ok(heir.map_err(told).ok().flatten());
            }
            Err(why) => why,
        };
        if begun.elapsed() >= patience {
            let help = "nothing was changed here, and this is tried again once a day. Sooner: bring back the others, or \
                        `keller cluster remove` what is gone for good; then `systemctl start keller-etcd-certificates`";
            return Err(Failure::new("starting etcd over for other authorities", why).help(help));
        }
        if !is_told {
            progress.detail(&format!("etcd is to start over for other authorities, and waits: {why}"));
            is_told = true;
        }
        thread::sleep(PAUSE);
    }
}

/// The member that `access` asks as, by its address: the only member of a node without a cluster may have any name.
fn asking<'v>(access: &Access, view: &'v View) -> Option<&'v Seen> {
    let ip = access.list.members.get(access.me.as_ref()?)?;
    view.members.iter().find(|member| member.endpoint == Some(access.endpoint(*ip)))
}

/// Whether the cluster can do without the member `own`, which works, for a while. Where all work, nothing can be waited for. A
/// learner would begin to catch up anew, and not be done before its new version has to be good.
fn may_stop(view: &View, own: &Seen) -> Result<(), String> {
    if own.role == Role::Learner {
        return Err(format!("{} has not caught up with its cluster yet, and has no vote", own.name));
    }
    let (all, good, needed) = view.votes();
    if good == all || good > needed {
        return Ok(());
    }
    let bad = view.members.iter().filter(|member| member.votes() && !member.is_good(view.id));
    let bad: Vec<&str> = bad.map(|member| member.name.as_str()).collect();
    Err(format!(
        "{good} of {all} members with a vote work, and {needed} must: without {} the cluster would stop. First bring back {}",
        own.name,
        bad.join(", ")
    ))
}

/// Saves what the member `own` has, and removes what is older than the last ones.
fn save(
    access: &Access,
    own: &Seen,
    directory: &Path,
    now: i64,
    progress: &dyn Progress,
) -> Result<PathBuf, Failure> {
    let doing = || format!("writing to {}", directory.display());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).doing(doing())?;
    let size = own.answered().map_or(0, |answer| answer.known.status.db_size);
    let needed = u64::try_from(size).unwrap_or_default().saturating_mul(2);
    let there = rustix::fs::statvfs(directory).map_err(io::Error::from).doing(doing())?;
    let free = there.f_bavail.saturating_mul(there.f_frsize);
    if free < needed {
        let cause = format!("{needed} bytes are needed, twice the size of the database, and {free} are free");
        return Err(Failure::new(doing(), cause));
    }
    let time = jiff::Timestamp::from_second(now).doing("reading the clock")?.strftime("%Y%m%dT%H%M%SZ");
    let file = directory.join(format!("{}-{time}{END}", access.list.name));
    backup::of(access, own, &file, progress)?;
    forget(directory, &file).doing(doing())?;
    Ok(file)
}

/// Removes all but the last, of which `newest` is one whatever the clock has said before.
fn forget(directory: &Path, newest: &Path) -> io::Result<()> {
    let paths = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<io::Result<Vec<PathBuf>>>()?;
    paths.retain(|path| path != newest && path.to_string_lossy().ends_with(END));
    // By their time: the node may have been in another cluster.
    paths.sort_by_key(|path| path.to_string_lossy().rsplit('-').next().map(str::to_owned));
    let old = paths.len().saturating_sub(KEPT - 1);
    paths[..old].iter().try_for_each(fs::remove_file)
}

/// Makes another member the leader, if `own` leads: of those that work, the one that is furthest.
fn hand_over(access: &Access, view: &View, own: &Seen) -> Result<Option<String>, Failure> {
    if own.role != Role::Leader {
        return Ok(None);
    }
    let others = view.members.iter().filter(|member| member.id != own.id && member.votes());
    let index = |member: &&Seen| member.answered().map(|answer| answer.known.status.raft_index);
    let heir = others.filter(|member| member.is_good(view.id)).max_by_key(index);
    let (Some(heir), Some(endpoint)) = (heir, own.endpoint) else { return Ok(None) };
    let doing = || format!("making {} the leader", heir.name);
    let id = heir.id.ok_or("its number is not known").doing(doing())?;
    access.connect(endpoint).and_then(|mut client| client.lead(id)).doing(doing())?;
    Ok(Some(heir.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_three_are_kept_whatever_the_clock_said() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["z-2026.etcd", "r-2027.etcd", "r-2028.etcd", "r-2020.etcd", "else"] {
            fs::write(at(name), name).unwrap();
        }
        forget(directory.path(), &at("r-2020.etcd")).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["else", "r-2020.etcd", "r-2027.etcd", "r-2028.etcd"]);
    }
}
