//! `keller update`: what an operator does with a node's updates, on the node.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::progress::Display;
use super::{Global, streams};
use crate::agent::{self, Counted, RolledBack, Settings, Status, Until, Updater, Wanted};
use crate::agent::{clock, look::Found, record::Transfer};
use crate::base::Size;
use crate::base::progress::Progress;
use crate::base::terminal::{hanging, one_line};

/// How long a person waits for a clock that is about to be set.
const CLOCK: Duration = Duration::from_secs(10);

/// Arguments of `keller update`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller update status                          what runs, from where, and how the last update went\n  \
    keller update apply                           the newest version, with the reboot\n  \
    keller update apply --version 1.0.1 --again   also when it fell back before\n  \
    keller update rollback --reboot               back to the version before\n\n\
    Settings of a node: /etc/keller/update.yaml (url, channel, automatic, window, interval, proxy, authorities, \
    before).")]
pub struct UpdateArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Look whether there is a newer version.
    Check,
    /// Bring it into the slot that does not run; nothing is started.
    Stage(Which),
    /// The same, and start it: with a reboot.
    Apply {
        /// Which one.
        #[command(flatten)]
        which: Which,
        /// Make it ready for the next boot, and do not reboot.
        #[arg(long)]
        no_reboot: bool,
    },
    /// Tell what runs and how far an update is.
    Status,
    /// Go back to the version in the other slot, from the next boot on.
    Rollback {
        /// Reboot at once.
        #[arg(long)]
        reboot: bool,
    },
    /// Take one version only, or go on with the newest.
    Pin {
        /// The version.
        #[arg(required_unless_present = "none")]
        version: Option<String>,
        /// Take any again.
        #[arg(long, conflicts_with = "version")]
        none: bool,
    },
    /// Forget the latest time that the node has seen in metadata: for a clock that was in the future once.
    ResetClock,
}

/// A version by an operator's word.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// This version, newer or older, in whatever channel.
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Also one that fell back before.
    #[arg(long)]
    pub again: bool,
}

impl From<&Which> for Wanted {
    fn from(which: &Which) -> Self {
        Self { version: which.version.clone(), again: which.again }
    }
}

/// Runs it.
pub fn run(args: UpdateArgs, global: &Global) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("`keller update` reads and writes the node's disks: run it as root, e.g. with sudo");
    }
    let display = Display::new(global.verbosity());
    match &args.action {
        Action::Status => status(global),
        Action::Check => check(global, &display),
        Action::Stage(which) => install(which, Until::Staged, false, global, &display),
        Action::Apply { which, no_reboot } => install(which, Until::Ready, !no_reboot, global, &display),
        Action::Rollback { reboot } => roll_back(*reboot, global, &display),
        Action::Pin { version, .. } => pin(version.clone(), global, &display),
        Action::ResetClock => {
            let done = agent::reset_clock(&display)?;
            tell(global, json!({ "reset": done }), || match done {
                true => "the latest time that was seen is forgotten".to_owned(),
                false => "no time was remembered".to_owned(),
            })
        }
    }
}

fn tell(global: &Global, json: serde_json::Value, text: impl Fn() -> String) -> Result<ExitCode> {
    match (global.json, global.quiet) {
        (true, _) => streams::json(json)?,
        (_, true) => {}
        _ => streams::print(text() + "\n")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check(global: &Global, progress: &dyn Progress) -> Result<ExitCode> {
    let settings = Settings::read()?;
    settings.tell(progress);
    let mut updater = Updater::open(&settings, progress)?;
    let remote = agent::connect(updater.source()?)?;
    let remote = Counted::new(remote.as_ref());
    clock::wait(CLOCK, progress);
    let found = updater.check(&remote, &Wanted::default())?;
    let document = found.document.as_ref();
    let json = json!({
        "running": settings.version,
        "newest": document.map(|document| &document.version),
        "notes": document.map(|document| &document.notes),
        "fell_back": fell_back_json(&found),
        "bytes": remote.bytes(),
    });
    tell(global, json, || match document {
        None => nothing_new(&settings.version, &found),
        Some(document) => {
            let notes = match document.notes.as_str() {
                "" => String::new(),
                notes => hanging(&format!("\n{notes}")).into_owned(),
            };
            format!("{} is there; {} runs{notes}{}", document.version, settings.version, fell_back(&found))
        }
    })
}

/// Why nothing is taken: there is nothing newer, or it fell back here.
fn nothing_new(running: &str, found: &Found) -> String {
    match found.passed_over.is_empty() {
        true => format!("{running} is the newest for this node"),
        false => {
            format!("{running} is the newest for this node that has not fallen back{}", fell_back(found))
        }
    }
}

/// A line for each newer version that fell back, with what takes it all the same.
fn fell_back(found: &Found) -> String {
    let line = |(version, why): &(String, String)| {
        let (version, why) = (one_line(version), one_line(why));
        format!(
            "\n{version} fell back on this node: {why}\n\
             `keller update apply --version {version} --again` takes it once more, with all its tries"
        )
    };
    found.passed_over.iter().map(line).collect()
}

fn fell_back_json(found: &Found) -> serde_json::Value {
    found.passed_over.iter().map(|(version, why)| json!({ "version": version, "why": why })).collect()
}

fn install(
    which: &Which,
    until: Until,
    reboot: bool,
    global: &Global,
    progress: &dyn Progress,
) -> Result<ExitCode> {
    let settings = Settings::read()?;
    settings.tell(progress);
    let mut updater = Updater::open(&settings, progress)?;
    let remote = agent::connect(updater.source()?)?;
    let remote = Counted::new(remote.as_ref());
    clock::wait(CLOCK, progress);
    let found = updater.check(&remote, &Wanted::from(which))?;
    let Some(document) = &found.document else {
        let json =
            json!({ "running": settings.version, "version": null, "fell_back": fell_back_json(&found) });
        return tell(global, json, || nothing_new(&settings.version, &found));
    };
    let there = updater
        .record()
        .transfer
        .clone()
        .filter(|_| until == Until::Ready && updater.is_held(&document.version));
    let transfer = match there {
        Some(transfer) => transfer,
        None => updater.install(&remote, document, until)?,
    };
    tell(global, json!({ "running": settings.version, "update": transfer }), || {
        let next = match (until, reboot) {
            (Until::Staged, _) => "is staged: `keller update apply` starts it",
            (Until::Ready, false) => "is ready: the next boot starts it",
            (Until::Ready, true) => "is ready",
        };
        format!("{}\n{} {next}", cost(&transfer), document.version)
    })?;
    if reboot && until == Until::Ready {
        updater.let_go(&document.version)?;
        updater.reboot()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cost(transfer: &Transfer) -> String {
    format!(
        "{} bytes fetched ({}) in {} s: root {} by {}, {} of it were here; kernel image {} by {}; {} of memory",
        transfer.bytes,
        Size(transfer.bytes).human(),
        transfer.seconds,
        Size(transfer.root_bytes).human(),
        transfer.root_way,
        Size(transfer.reused).human(),
        Size(transfer.uki_bytes).human(),
        transfer.uki_way,
        Size(transfer.memory).human(),
    )
}

fn roll_back(reboot: bool, global: &Global, progress: &dyn Progress) -> Result<ExitCode> {
    let settings = Settings::read_lenient(progress)?;
    let mut updater = Updater::open(&settings, progress)?;
    let (from, to, text) = match updater.roll_back()? {
        RolledBack::AtNextBoot { from, to } => {
            let text = format!("{to} runs from the next boot on; {from} is not taken again by itself");
            (from, Some(to), text)
        }
        RolledBack::Withdrawn { version } => {
            let text = format!("{version} is not started, and not taken again by itself");
            (version, None, text)
        }
    };
    tell(global, json!({ "from": from, "to": to }), || text.clone())?;
    if reboot && to.is_some() {
        updater.reboot()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn pin(version: Option<String>, global: &Global, progress: &dyn Progress) -> Result<ExitCode> {
    let settings = Settings::read_lenient(progress)?;
    Updater::open(&settings, progress)?.pin(version.clone())?;
    tell(global, json!({ "pinned": version }), || match &version {
        Some(version) => format!("only {version} is taken from now on"),
        None => "the newest is taken again".to_owned(),
    })
}

fn status(global: &Global) -> Result<ExitCode> {
    let status = Status::gather()?;
    let json = serde_json::to_value(&status)?;
    tell(global, json, || text_of(&status))
}

fn text_of(status: &Status) -> String {
    let none = || "none".to_owned();
    let slot = status.slot.map_or_else(none, |slot| slot.to_string());
    let mut lines = vec![
        ("running", format!("{} {} in slot {slot}", status.id, status.version)),
        (
            "entry",
            match (&status.entry, &status.counter) {
                (Some(entry), Some(_)) => format!("{entry}, on trial"),
                (Some(entry), None) => format!("{entry}, blessed"),
                (None, _) => none(),
            },
        ),
        ("next boot", status.next.clone().unwrap_or_else(none)),
        ("other slot", status.other.clone().unwrap_or_else(|| "empty".to_owned())),
        (
            "state",
            match status.record.state.version() {
                Some(version) => format!("{}: {version}", status.record.state),
                None => status.record.state.to_string(),
            },
        ),
    ];
    if let agent::machine::State::FallenBack { why, .. } = &status.record.state {
        lines.push(("why", why.clone()));
    }
    lines.push((
        "health",
        match &status.health {
            None => "not judged yet".to_owned(),
            Some(verdict) if verdict.good => "good".to_owned(),
            Some(verdict) => verdict.missing.join("; "),
        },
    ));
    if let Some(source) = &status.source {
        let mode = match (source.automatic, &source.window) {
            (false, _) => "by hand".to_owned(),
            (true, None) => "automatic".to_owned(),
            (true, Some(window)) => format!("automatic, {window}"),
        };
        lines.push(("from", format!("{}, channel {}, {mode}", source.url, source.channel)));
    } else {
        lines.push(("from", "nowhere: nothing names a repository".to_owned()));
    }
    if let Some(newest) = &status.record.newest {
        lines.push(("newer", newest.clone()));
    }
    if let Some(pinned) = &status.record.pinned {
        lines.push(("pinned", pinned.clone()));
    }
    for (version, why) in &status.record.rejected {
        lines.push(("not again", format!("{version}: {why}")));
    }
    if let Some(transfer) = &status.record.transfer {
        lines.push(("last update", format!("{}: {}", transfer.version, cost(transfer))));
    }
    if let Some(trouble) = &status.record.trouble {
        let times = if trouble.times > 1 { format!(" ({} times)", trouble.times) } else { String::new() };
        lines.push(("last error", format!("{}{times}", trouble.text)));
    }
    if !status.clock_synchronized {
        lines.push(("clock", "not synchronized".to_owned()));
    }
    lines.extend(status.problems.iter().map(|problem| ("problem", problem.clone())));
    let lines: Vec<_> = lines.iter().map(|(name, text)| format!("{name:>11}  {}", one_line(text))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fell_back_is_told_with_the_way_to_take_it_again() {
        let mut found = Found { document: None, newest: None, passed_over: Vec::new() };
        assert_eq!(nothing_new("1.0.1", &found), "1.0.1 is the newest for this node");
        found.passed_over = vec![("1.0.2".to_owned(), "web.service exited with status 3".to_owned())];
        assert_eq!(
            nothing_new("1.0.1", &found),
            "1.0.1 is the newest for this node that has not fallen back\n\
             1.0.2 fell back on this node: web.service exited with status 3\n\
             `keller update apply --version 1.0.2 --again` takes it once more, with all its tries"
        );
        assert_eq!(fell_back_json(&found)[0]["version"], "1.0.2");
    }
}
