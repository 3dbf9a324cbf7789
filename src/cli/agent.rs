//! `keller agent`: what systemd starts on a node.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::Global;
use super::progress::{Display, Verbosity};
use crate::agent::disk::BootDisk;
use crate::agent::health::{self, Verdict};
use crate::agent::{self, Settings, esp, node, service, systemd};
use crate::base::Chain;
use crate::base::progress::Progress;

/// Arguments of `keller agent`.
#[derive(Debug, Args)]
#[command(
    after_help = "All are units: keller-agent.service, keller-health.service, systemd-bless-boot.service. What they say is in \
                  the journal."
)]
pub struct AgentArgs {
    /// A part of it; without one, the agent itself.
    #[command(subcommand)]
    pub part: Option<Part>,
}

/// What runs as a unit of its own.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Part {
    /// Wait until this boot is good; give it up at the deadline where there is another version to go back to.
    Health,
    /// Take the try counter off the entry of this boot, which is good.
    Bless,
}

/// Runs it.
pub fn run(args: AgentArgs, global: &Global) -> Result<ExitCode> {
    let verbosity = if global.quiet { Verbosity::Quiet } else { Verbosity::Verbose };
    let display = Display::new(verbosity);
    match args.part {
        Some(Part::Health) => judge(&display),
        Some(Part::Bless) => {
            agent::bless(&display)?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            service::run(&super::update::connect, &display)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn judge(progress: &dyn Progress) -> Result<ExitCode> {
    let settings = Settings::image()?;
    let deadline = health::deadline(&settings.health);
    let missing: Vec<String> =
        health::wait(&settings.health, deadline, progress)?.iter().map(ToString::to_string).collect();
    let good = missing.is_empty();
    let verdict = Verdict { version: settings.version.clone(), boot: node::boot_id(), good, missing };
    // A state partition that is full must not make a good boot a bad one.
    if let Err(failure) = health::record(&verdict) {
        progress.warn(&Chain(&failure).to_string());
    }
    if good {
        progress.note(&format!("{} is healthy", settings.version));
        node::forgive_hangs();
        return Ok(ExitCode::SUCCESS);
    }
    let limit = settings.health.deadline_seconds;
    progress.warn(&format!(
        "{} is not healthy {limit} seconds after the start: {}",
        settings.version,
        verdict.missing.join("; ")
    ));
    if node::counted_entry().is_none() {
        // A first node that waits for its peers, or a version that has proven itself.
        progress.note("this entry is not on trial: the node goes on");
    } else if !esp::another_is_good(&esp::entries(&BootDisk::find()?)?, &settings.version) {
        progress.note("there is no other version to go back to: the node goes on");
    } else {
        progress.warn("starting over, which takes one of the tries of this version");
        systemd::reboot()?;
    }
    Ok(ExitCode::FAILURE)
}
