//! A backup: a snapshot of one member's database, which all members have alike.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::access::Access;
use super::snapshot::{self, Content};
use super::view::{Role, Seen, View};
use crate::base::failure::{Doing, Failure};
use crate::base::progress::{Progress, Unit};
use crate::base::{AtomicFile, atomic, json};

/// A backup that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Made {
    /// The file.
    #[serde(serialize_with = "json::path")]
    pub file: PathBuf,
    /// Of the file.
    pub bytes: u64,
    /// The member whose database it is.
    pub member: String,
    /// What it has.
    #[serde(flatten)]
    pub content: Content,
}

/// Writes a backup to `file`, which is there whole and checked, or not at all.
///
/// # Errors
/// What the cluster, the network or the disk say. A member that is behind, or finds no majority, is not asked.
pub fn backup(access: &Access, file: &Path, progress: &dyn Progress) -> Result<Made, Failure> {
    let view = View::of(access);
    let doing = || format!("backing up {}", view.name);
    let good = || view.members.iter().filter(|member| member.votes() && member.is_good(view.id));
    // The leader has more to do.
    let member = good().find(|member| member.role != Role::Leader).or_else(|| good().next());
    let member = member.ok_or("no member works: see `keller cluster status`").doing(doing())?;
    of(access, member, file, progress).map_err(|failure| failure.within(&doing()))
}

/// The same, of the database of `member`.
///
/// # Errors
/// What it, the network or the disk say.
pub fn of(access: &Access, member: &Seen, file: &Path, progress: &dyn Progress) -> Result<Made, Failure> {
    let doing = || format!("reading the database of {}", member.name);
    let endpoint = member.endpoint.ok_or("its address is not known").doing(doing())?;
    let writing = || format!("writing {}", file.display());
    let place = atomic::place(file).doing(writing())?;
    let mut target = AtomicFile::create(&place).doing(writing())?;
    // It has all that the cluster has.
    target.set_mode(0o600).doing(writing())?;
    let mut client = access.connect(endpoint).doing(doing())?;
    let size = member.answered().map_or(0, |answer| answer.known.status.db_size);
    let task = progress.begin(&member.name, u64::try_from(size).unwrap_or_default(), Unit::Bytes);
    let written =
        client.snapshot(target.file_mut(), &mut |bytes, _| progress.advance(task, bytes)).doing(doing());
    progress.end(task);
    let bytes = written?.doing(writing())?;
    // A stream that ends early ends as one that is whole.
    let content = snapshot::read(target.file()).doing(format!("checking what {} sent", member.name))?;
    target.commit().doing(writing())?;
    atomic::sync_name(&place).doing(writing())?;
    Ok(Made { file: file.to_owned(), bytes, member: member.name.clone(), content })
}
