//! The judgement of a boot, and what follows from one that is not good: another try, or the version before.

use std::path::Path;
use std::time::Duration;

use super::disk::NodeDisk;
use super::health::{self, Judged, Verdict};
use super::missing::Missing;
use super::record::{FOLDER, Record, Turn};
use super::said::Said;
use super::settings::Settings;
use super::trial::{Start, Trial};
use super::{clock, esp, node, rollback, systemd};
use crate::base::Chain;
use crate::base::failure::Failure;
use crate::base::kernel;
use crate::base::progress::Progress;
use crate::base::width::to_index;
use crate::boot::entries;
use crate::update::settings::Built;

/// Writes into its journal what the command of `health:` prints.
const OWN_UNIT: &str = "keller-health.service";
/// How long others may have the turn: the restart is more urgent than the tries.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the version that runs stands, as the boot loader and the ESP tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has proven itself, or was never on trial.
    Proven,
    /// It is on trial, and no other version has proven itself.
    Alone,
    /// It is on trial, and another version has proven itself.
    Replaceable,
}

impl Standing {
    fn of(version: &str) -> Result<Self, Failure> {
        if node::counted_entry().is_none() {
            return Ok(Self::Proven);
        }
        match esp::another_is_good(&esp::entries(&NodeDisk::find()?)?, version) {
            true => Ok(Self::Replaceable),
            false => Ok(Self::Alone),
        }
    }
}

/// What follows from a start that is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// The node goes on, for this reason.
    GoOn(&'static str),
    /// The node starts over, which takes one of the tries.
    TryAgain,
    /// The node starts over with the other version: the same failure was seen on as many starts.
    GoBack {
        /// Starts with the same failure.
        alike: usize,
    },
}

impl Course {
    /// Decides, and does nothing: `alike` starts had the same failure, of which `enough` are to be seen.
    fn decide(standing: Standing, alike: usize, enough: usize) -> Self {
        match standing {
            // A first node that waits for its peers, or a version that has proven itself.
            Standing::Proven => Self::GoOn("this entry is not on trial: the node goes on"),
            Standing::Alone => Self::GoOn("there is no other version to go back to: the node goes on"),
            Standing::Replaceable if alike >= enough => Self::GoBack { alike },
            Standing::Replaceable => Self::TryAgain,
        }
    }
}

/// Judges this boot, and starts the node over where it is not good and another version is. Says whether it is good.
pub fn judge(progress: &dyn Progress) -> Result<bool, Failure> {
    let built = Settings::image()?;
    let deadline = health::deadline(&built.health);
    // Where nothing follows from a failure there is time: an operator may mend it.
    let ends_early = Standing::of(&built.version).is_ok_and(|standing| standing == Standing::Replaceable);
    let judged = health::wait(&built.health, deadline, ends_early, progress)?;
    if judged.missing.is_empty() {
        note(&built, true, Vec::new(), progress);
        progress.note(&format!("{} is healthy", built.version));
        kernel::panic_on_hangs(false);
        return Ok(true);
    }
    let start = start(judged);
    note(&built, false, start.missing.clone(), progress);
    progress.warn(&not_good(&built, &start));
    let standing = Standing::of(&built.version)?;
    let made_ready = Record::peek().ok().and_then(|record| record.made_ready);
    let trial = Trial::with(Path::new(FOLDER), &built.version, made_ready.as_deref(), start);
    let course = Course::decide(standing, trial.alike(), to_index(built.health.give_up_after));
    follow(course, &built.version, &trial, progress)?;
    Ok(false)
}

/// Does what was decided about `version`, and writes the `trial` down before the node starts over.
fn follow(course: Course, version: &str, trial: &Trial, progress: &dyn Progress) -> Result<(), Failure> {
    if let Course::GoOn(reason) = course {
        progress.note(reason);
        return Ok(());
    }
    warn_of(trial.save(Path::new(FOLDER)), progress);
    let given_up = match course {
        Course::GoBack { alike } => warn_of(give_up(progress), progress).then_some(alike),
        Course::GoOn(_) | Course::TryAgain => None,
    };
    progress.warn(&match given_up {
        Some(alike) => format!("starting over, without another try of {version}: {}", starts(alike)),
        None => format!("starting over, which takes one of the tries of {version}"),
    });
    systemd::reboot()
}

/// Whether it was done; a failure is only a warning.
fn warn_of(done: Result<(), Failure>, progress: &dyn Progress) -> bool {
    if let Err(failure) = &done {
        progress.warn(&Chain(failure).to_string());
    }
    done.is_ok()
}

fn not_good(built: &Built, start: &Start) -> String {
    match &start.fallen {
        Some(fallen) => format!("{} will not be healthy: {fallen}", built.version),
        None => format!(
            "{} is not healthy {} seconds after the start: {}",
            built.version,
            built.health.deadline_seconds,
            start.missing.join("; ")
        ),
    }
}

/// Writes the verdict down. A state partition that is full must not make a good boot a bad one.
fn note(built: &Built, good: bool, missing: Vec<String>, progress: &dyn Progress) {
    let verdict = Verdict { version: built.version.clone(), boot: node::boot_id(), good, missing };
    warn_of(health::record(&verdict), progress);
}

/// What is to be kept of this start.
fn start(judged: Judged) -> Start {
    systemd::sync_journal();
    let culprit = judged.fallen.as_ref().map(|fallen| fallen.culprit().to_owned());
    let units = judged.missing.iter().filter_map(|missing| match missing {
        Missing::Unit { name, .. } => Some(name.clone()),
        Missing::Command { .. } | Missing::Cut => Some(OWN_UNIT.to_owned()),
        Missing::Fresh { .. } | Missing::Etcd { .. } | Missing::Network { .. } => None,
    });
    let mut said: Vec<Said> = Vec::new();
    for unit in culprit.into_iter().chain(units) {
        if said.iter().all(|said| said.unit != unit) {
            said.push(Said::of(&unit));
        }
    }
    let line = |missing: &Missing| match missing {
        Missing::Unit { name, .. } => {
            let own = said.iter().find(|said| said.unit == *name).and_then(|said| said.own.as_deref());
            own.map_or_else(|| missing.to_string(), |own| format!("{missing}: {own}"))
        }
        _ => missing.to_string(),
    };
    let missing = judged.missing.iter().map(line).collect();
    Start { boot: node::boot_id(), at: clock::shown(), missing, fallen: judged.fallen, said }
}

/// `the same on 2 starts`.
fn starts(alike: usize) -> String {
    match alike {
        1 => "one start is enough".to_owned(),
        count => format!("the same on {count} starts"),
    }
}

/// Takes all tries from the entry that was started.
fn give_up(progress: &dyn Progress) -> Result<(), Failure> {
    let doing = "giving this version up";
    let file = node::counted_entry().and_then(|file| entries::parse(&file));
    let entry = file.ok_or_else(|| Failure::new(doing, "the boot loader does not tell its entry"))?;
    let _turn = Turn::take_within(PATIENCE, progress)?;
    rollback::demote(&NodeDisk::find()?, &entry, progress).map_err(|failure| failure.within(doing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_on_trial_beside_a_good_one_ends_the_start() {
        let decide = |standing, alike| Course::decide(standing, alike, 2);
        for alike in [0, 1, 2, 9] {
            assert!(matches!(decide(Standing::Proven, alike), Course::GoOn(_)), "{alike}");
            assert!(matches!(decide(Standing::Alone, alike), Course::GoOn(_)), "{alike}");
        }
        for alike in [0, 1] {
            assert_eq!(decide(Standing::Replaceable, alike), Course::TryAgain);
        }
        for alike in [2, 3] {
            assert_eq!(decide(Standing::Replaceable, alike), Course::GoBack { alike });
        }
        assert_eq!(Course::decide(Standing::Replaceable, 1, 1), Course::GoBack { alike: 1 });
    }
}
