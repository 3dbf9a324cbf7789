//! Whether the units of `health:` are as they should be, and whether one of them will not be any more in this boot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::missing::Missing;
use super::systemd::{self, Shown};
use crate::base::failure::Failure;

/// What is asked of each unit.
const PROPERTIES: [&str; 12] = [
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "InvocationID",
    "NRestarts",
    "ExecMainCode",
    "ExecMainStatus",
    "Job",
    "Requires",
    "Requisite",
    "BindsTo",
];
/// So many runs in a row, none of which was active for [`QUICK`], say that the next ones will end so, too.
const RUNS: u32 = 3;
/// A unit that was active for as long as this has not died at once.
const QUICK: Duration = Duration::from_secs(10);
/// How long a unit that is not there, or that needs a failed one, is given to change.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a unit that systemd starts again and again is given to stay up. As long as the slowest of what it may wait
/// for is expected to take: an address behind a switch that learns its tree first, or a database that recovers.
const LOOP_PATIENCE: Duration = Duration::from_secs(30);
/// How long a unit must be seen as failed where systemd itself does not start it again: another unit may, by
/// `OnFailure=` or `Upholds=`.
const SETTLED: Duration = Duration::from_secs(3);

/// A unit that has failed for good in this boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallen {
    /// Its name.
    pub unit: String,
    /// The unit that it needs, if that is the one that has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// How, in words that are the same at each start; nothing when no look saw an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

impl Fallen {
    /// The unit whose journal tells why.
    pub fn culprit(&self) -> &str {
        self.needs.as_deref().unwrap_or(&self.unit)
    }

    /// Whether two starts have failed the same way. An end that was not seen may have been like any other.
    pub fn is_like(&self, other: &Self) -> bool {
        let same_end = match (&self.how, &other.how) {
            (Some(own), Some(others)) => own == others,
            _ => true,
        };
        self.unit == other.unit && self.needs == other.needs && same_end
    }
}

impl fmt::Display for Fallen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(needs) = &self.needs {
            write!(f, "{} needs {needs}, which ", self.unit)?;
        } else {
            write!(f, "{} ", self.unit)?;
        }
        f.write_str(self.how.as_deref().unwrap_or("ends again and again"))
    }
}

/// What one look at the units has found.
#[derive(Debug, Default)]
pub struct Look {
    /// What is not as it should be.
    pub missing: Vec<Missing>,
    /// The first unit that has failed for good.
    pub fallen: Option<Fallen>,
}

/// What was seen of each unit so far.
#[derive(Debug, Default)]
pub struct Units(BTreeMap<String, Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// systemd's id of the run.
    run: String,
    /// Since when the unit is active in this run.
    active: Option<Instant>,
    /// Runs that have ended and were, or will be, followed by another.
    ends: u32,
    /// Of these, the last ones in a row that were short.
    short: u32,
    /// How the last one ended.
    how: Option<String>,
    /// Since when it is failed.
    failed: Option<Instant>,
    /// Since when it does not stay up, for whatever reason.
    trouble: Option<Instant>,
}

impl Units {
    /// Asks systemd for `names`, each of which must be active in one run for a `stable` time.
    pub fn look(&mut self, names: &[String], stable: Duration) -> Result<Look, Failure> {
        let shown = systemd::show(names, &PROPERTIES)?;
        let needed = names.iter().flat_map(|name| Unit { name, shown: shown.get(name) }.needs());
        let needed: BTreeSet<String> = needed.map(str::to_owned).collect();
        let needed = systemd::show(&needed.into_iter().collect::<Vec<_>>(), &PROPERTIES)?;
        Ok(self.judge(names, &shown, &needed, stable, Instant::now()))
    }

    fn judge(
        &mut self,
        names: &[String],
        shown: &Shown,
        needed: &Shown,
        stable: Duration,
        now: Instant,
    ) -> Look {
        let mut look = Look::default();
        for name in names {
            let unit = Unit { name, shown: shown.get(name) };
            let needs = unit.needs().map(|name| Unit { name, shown: needed.get(name) });
            let broken = needs.into_iter().find(|needs| needs.has_failed() || needs.is_not_there());
            let seen = self.0.entry(name.clone()).or_default();
            let ended = seen.note(&unit, broken.is_some(), now);
            look.missing.extend(seen.missing(&unit, broken, stable, now));
            look.fallen = look.fallen.or_else(|| seen.fallen(&unit, broken, ended, now));
        }
        look
    }
}

impl Seen {
    /// Takes in what systemd says now; tells whether a run has ended since the last look.
    fn note(&mut self, unit: &Unit<'_>, is_broken: bool, now: Instant) -> bool {
        let ends = unit.ends();
        let was_long = self.active.is_some_and(|since| now.duration_since(since) >= QUICK);
        let ended = ends > self.ends;
        // Fewer than before: somebody has started it by hand, and all begins anew.
        self.short = match ended {
            true if was_long => ends - self.ends - 1,
            true => self.short + ends - self.ends,
            false if ends < self.ends || was_long => 0,
            false => self.short,
        };
        self.ends = ends;
        if unit.has_ended() {
            self.how = Some(unit.how());
        }
        if unit.says("ActiveState") != "active" {
            self.active = None;
        } else if self.active.is_none() || self.run != unit.says("InvocationID") {
            unit.says("InvocationID").clone_into(&mut self.run);
            self.active = Some(now);
        }
        let since = |is: bool, since: Option<Instant>| is.then(|| since.unwrap_or(now));
        self.failed = since(unit.has_failed(), self.failed);
        let trouble = self.short > 0 || unit.has_failed() || unit.is_not_there() || is_broken;
        self.trouble = since(trouble, self.trouble);
        ended
    }

    /// What is wrong with the unit, if something is.
    fn missing(
        &self,
        unit: &Unit<'_>,
        broken: Option<Unit<'_>>,
        stable: Duration,
        now: Instant,
    ) -> Option<Missing> {
        let name = unit.name.to_owned();
        let Some(since) = self.active else {
            let state = match broken {
                Some(needs) => {
                    format!("{}: it needs {}, which is {}", unit.state(), needs.name, needs.state())
                }
                None => unit.state(),
            };
            return Some(Missing::Unit { name, state });
        };
        let left = stable.saturating_sub(now.duration_since(since));
        (!left.is_zero()).then_some(Missing::Fresh { name, stable, left })
    }

    /// Whether the unit will not be up any more. `ended`: a run of it has ended just now.
    fn fallen(&self, unit: &Unit<'_>, broken: Option<Unit<'_>>, ended: bool, now: Instant) -> Option<Fallen> {
        let for_long = |since: Option<Instant>, patience| {
            since.is_some_and(|since| now.duration_since(since) >= patience)
        };
        // Where it is active again, this run may be the one that lasts.
        let dies_at_once = self.short >= RUNS && (ended || self.active.is_none());
        let is_lost = unit.is_not_there() || broken.is_some();
        let is_final = for_long(self.failed, SETTLED)
            || is_lost && for_long(self.trouble, PATIENCE)
            || dies_at_once && for_long(self.trouble, LOOP_PATIENCE);
        if !is_final {
            return None;
        }
        let how = match broken {
            Some(needs) => Some(needs.how()),
            None if unit.has_failed() || unit.is_not_there() => Some(unit.how()),
            None => self.how.clone(),
        };
        let needs = broken.map(|needs| needs.name.to_owned());
        Some(Fallen { unit: unit.name.to_owned(), needs, how })
    }
}

/// What systemd says of one unit.
#[derive(Clone, Copy, Debug)]
struct Unit<'a> {
    name: &'a str,
    shown: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Unit<'a> {
    fn says(&self, property: &str) -> &'a str {
        self.shown.and_then(|shown| shown.get(property)).map_or("", String::as_str)
    }

    fn number(&self, property: &str) -> u32 {
        self.says(property).parse().unwrap_or_default()
    }

    /// Runs that have ended and were, or will be, followed by another: systemd counts a restart when it begins.
    fn ends(&self) -> u32 {
        self.number("NRestarts") + u32::from(self.says("SubState").contains("auto-restart"))
    }

    /// Whether the main process of the last run has ended.
    fn has_ended(&self) -> bool {
        self.number("ExecMainCode") != 0
    }

    /// Failed, and not only until the next start.
    fn has_failed(&self) -> bool {
        self.says("ActiveState") == "failed" && self.says("SubState") == "failed" && self.number("Job") == 0
    }

    /// Nothing that could be started.
    fn is_not_there(&self) -> bool {
        matches!(self.says("LoadState"), "not-found" | "bad-setting" | "error" | "masked")
    }

    /// The units without which this one, which is not to be started any more, does not start.
    fn needs(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let is_waiting = self.says("ActiveState") == "inactive" && self.number("Job") == 0;
        let lists =
            ["Requires", "Requisite", "BindsTo"].map(|list| if is_waiting { self.says(list) } else { "" });
        lists.into_iter().flat_map(|list| list.split_ascii_whitespace())
    }

    /// The state as a person reads it, e.g. `failed (exit-code)`.
    fn state(&self) -> String {
        match (self.says("LoadState"), self.says("ActiveState"), self.says("Result")) {
            ("not-found", ..) => "not there".to_owned(),
            ("masked", ..) => "masked".to_owned(),
            (_, state, "" | "success") => state.to_owned(),
            (_, state, result) => format!("{state} ({result})"),
        }
    }

    /// How the last run ended, after the unit's name.
    fn how(&self) -> String {
        let status = self.says("ExecMainStatus");
        match (self.says("LoadState"), self.says("Result"), self.says("ExecMainCode")) {
            ("not-found", ..) => "is not there".to_owned(),
            ("masked", ..) => "is masked".to_owned(),
            ("bad-setting" | "error", ..) => "cannot be read".to_owned(),
            // waitid(2): CLD_EXITED, CLD_KILLED, CLD_DUMPED. A start limit says nothing of the runs before it.
            (_, "exit-code" | "success" | "start-limit-hit", "1") => format!("exited with status {status}"),
            (_, "signal" | "core-dump" | "start-limit-hit", "2" | "3") => {
                format!("was killed by signal {status}")
            }
            (_, result, _) => format!("failed ({result})"),
        }
    }
}

#[cfg(test)]
mod tests;
