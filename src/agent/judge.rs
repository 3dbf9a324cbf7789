//! The judgement of a boot, and what follows from one that is not good: another try, or the version before.

use std::path::Path;
use std::time::Duration;

use super::disk::BootDisk;
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

/// What a version that is not good leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It has proven itself, or was never on trial: the node goes on.
    Proven,
    /// There is no other version that has: the node goes on.
    Alone,
    /// Back to the other one, sooner or later.
    Back,
}

fn way(version: &str) -> Result<Way, Failure> {
    if node::counted_entry().is_none() {
        return Ok(Way::Proven);
    }
    match esp::another_is_good(&esp::entries(&BootDisk::find()?)?, version) {
        true => Ok(Way::Back),
        false => Ok(Way::Alone),
    }
}

/// Judges this boot, and starts the node over where it is not good and another version is. Says whether it is good.
pub fn judge(progress: &dyn Progress) -> Result<bool, Failure> {
    let built = Settings::image()?;
    let deadline = health::deadline(&built.health);
    // Where nothing follows from a failure there is time: an operator may mend it.
    let ends_early = way(&built.version).is_ok_and(|way| way == Way::Back);
    let judged = health::wait(&built.health, deadline, ends_early, progress)?;
    if judged.missing.is_empty() {
        note(&built, true, Vec::new(), progress);
        progress.note(&format!("{} is healthy", built.version));
        kernel::panic_on_hangs(false);
        return Ok(true);
    }
    let start = start(judged);
    note(&built, false, start.missing.clone(), progress);
    progress.warn(&match &start.fallen {
        Some(fallen) => format!("{} will not be healthy: {fallen}", built.version),
        None => format!(
            "{} is not healthy {} seconds after the start: {}",
            built.version,
            built.health.deadline_seconds,
            start.missing.join("; ")
        ),
    });
    match way(&built.version)? {
        // A first node that waits for its peers, or a version that has proven itself.
        Way::Proven => progress.note("this entry is not on trial: the node goes on"),
        Way::Alone => progress.note("there is no other version to go back to: the node goes on"),
        Way::Back => go_back(&built, start, progress)?,
    }
    Ok(false)
}

/// Writes the verdict down. A state partition that is full must not make a good boot a bad one.
fn note(built: &Built, good: bool, missing: Vec<String>, progress: &dyn Progress) {
    let verdict = Verdict { version: built.version.clone(), boot: node::boot_id(), good, missing };
    if let Err(failure) = health::record(&verdict) {
        progress.warn(&Chain(&failure).to_string());
    }
}

/// What is to be kept of this start.
fn start(judged: Judged) -> Start {
    systemd::sync_journal();
    let culprit = judged.fallen.as_ref().map(|fallen| fallen.culprit().to_owned());
    let units = judged.missing.iter().filter_map(|missing| match missing {
        Missing::Unit { name, .. } => Some(name.clone()),
        Missing::Command { .. } | Missing::Cut => Some(OWN_UNIT.to_owned()),
        Missing::Fresh { .. } | Missing::Etcd { .. } => None,
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

/// Starts the node over: with one try less, or none where the same failure was seen often enough.
fn go_back(built: &Built, start: Start, progress: &dyn Progress) -> Result<(), Failure> {
    let made_ready = Record::peek().ok().and_then(|record| record.made_ready);
    let trial = Trial::with(Path::new(FOLDER), &built.version, made_ready.as_deref(), start);
    if let Err(failure) = trial.save(Path::new(FOLDER)) {
        progress.warn(&Chain(&failure).to_string());
    }
    let alike = trial.alike();
    let given_up = alike >= to_index(built.health.give_up_after) && {
        let done = give_up(progress);
        if let Err(failure) = &done {
            progress.warn(&Chain(failure).to_string());
        }
        done.is_ok()
    };
    progress.warn(&match given_up {
        true => format!("starting over, without another try of {}: {}", built.version, starts(alike)),
        false => format!("starting over, which takes one of the tries of {}", built.version),
    });
    systemd::reboot()
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
    rollback::demote(&BootDisk::find()?, &entry, progress).map_err(|failure| failure.within(doing))
}
