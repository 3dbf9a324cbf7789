//! The judgement of a boot, and what follows from one that is not good: another try, or the version before.
//!
//! Each start of a version on trial that was not good is written down, so that the same failure on two starts is seen
//! as that, and the version that comes back can tell the whole story.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk::BootDisk;
use super::health::{self, Judged, Missing, Verdict};
use super::record::{FOLDER, Record, Turn};
use super::said::Said;
use super::settings::Settings;
use super::units::Fallen;
use super::{clock, esp, node, rollback, systemd};
use crate::base::failure::{Doing, Failure};
use crate::base::progress::Progress;
use crate::base::width::to_index;
use crate::base::{Chain, atomic};
use crate::boot::entries;
use crate::update::settings::Built;

/// Its name in [`FOLDER`].
const FILE: &str = "trial.json";
/// Writes into its journal what the command of `health:` prints.
const OWN_UNIT: &str = "keller-health.service";

/// The starts of one version that were not good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// IMAGE_VERSION.
    pub version: String,
    /// The boot in which the version was made ready: one that is taken again is on another trial.
    pub made_ready: Option<String>,
    /// One after the other.
    pub starts: Vec<Start>,
}

/// A start that was not good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The boot.
    pub boot: String,
    /// When it was judged, in seconds since 1970 by the node's clock.
    pub at: i64,
    /// What was missing, a line each.
    pub missing: Vec<String>,
    /// The unit that had failed for good, where that ended the start.
    pub fallen: Option<Fallen>,
    /// The last lines of the units that were missing.
    pub said: Vec<Said>,
}

impl Trial {
    /// What is known of `version`; nothing that makes sense is as good as nothing.
    pub fn load(version: &str) -> Option<Self> {
        Self::load_from(Path::new(FOLDER), version)
    }

    fn load_from(folder: &Path, version: &str) -> Option<Self> {
        let trial: Self = serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()?;
        Some(trial).filter(|trial| trial.version == version)
    }

    /// Adds a start of `version`. A boot that is judged once more counts once.
    fn with(folder: &Path, version: &str, made_ready: Option<&str>, start: Start) -> Self {
        let known = Self::load_from(folder, version);
        let known = known.filter(|known| known.made_ready.as_deref() == made_ready);
        let mut trial = known.unwrap_or_else(|| Self {
            version: version.to_owned(),
            made_ready: made_ready.map(str::to_owned),
            starts: Vec::new(),
        });
        trial.starts.retain(|known| known.boot != start.boot);
        trial.starts.push(start);
        trial
    }

    fn save(&self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join(FILE);
        let doing = || format!("writing {}", path.display());
        fs::create_dir_all(folder).doing(doing())?;
        atomic::write(&path, serde_json::to_string_pretty(self).doing(doing())? + "\n").doing(doing())
    }

    /// On how many starts the same unit has failed as it has on the last one.
    pub fn alike(&self) -> usize {
        let last = self.starts.last().and_then(|start| start.fallen.as_ref());
        let Some(last) = last else { return 0 };
        let alike = |start: &&Start| start.fallen.as_ref().is_some_and(|fallen| fallen.is_like(last));
        self.starts.iter().filter(alike).count()
    }
}

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
        node::forgive_hangs();
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

/// How long others may have the turn: the restart is more urgent than the tries.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn start(boot: &str, unit: Option<&str>) -> Start {
        let fallen = unit.map(|unit| Fallen {
            unit: unit.to_owned(),
            needs: None,
            how: Some("exited with status 3".to_owned()),
        });
        Start { boot: boot.to_owned(), at: 7, missing: vec!["x".to_owned()], fallen, said: Vec::new() }
    }

    #[test]
    fn starts_that_fail_alike_are_counted_over_reboots() {
        let folder = tempfile::tempdir().unwrap();
        let failed = |version: &str, made_ready: &str, boot: &str, unit: Option<&str>| {
            let trial = Trial::with(folder.path(), version, Some(made_ready), start(boot, unit));
            trial.save(folder.path()).unwrap();
            trial.alike()
        };
        let (a, b) = (Some("a.service"), Some("b.service"));
        assert_eq!(failed("2", "r", "1", a), 1);
        // Judged once more in the same boot.
        assert_eq!(failed("2", "r", "1", a), 1);
        // Another unit, and one that only was not in time.
        assert_eq!(failed("2", "r", "2", b), 1);
        assert_eq!(failed("2", "r", "3", None), 0);
        assert_eq!(failed("2", "r", "4", a), 2);
        assert_eq!(Trial::load_from(folder.path(), "2").unwrap().starts.len(), 4);
        // Taken again, and another version.
        assert_eq!(failed("2", "s", "5", a), 1);
        assert_eq!(failed("3", "s", "6", a), 1);
        assert_eq!(Trial::load_from(folder.path(), "2"), None);
    }

    #[test]
    fn a_memory_that_makes_no_sense_is_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{\"version\": ").unwrap();
        let trial = Trial::with(folder.path(), "2", None, start("1", Some("a.service")));
        assert_eq!(trial.alike(), 1);
    }
}
