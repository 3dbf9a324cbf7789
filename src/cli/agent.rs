//! `keller agent`: what systemd starts on a node.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::progress::{Display, Verbosity};
use super::{Global, consoles, install};
use crate::agent::{self, judge, service};
use crate::project::install::Then;

/// Arguments of `keller agent`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  keller agent            what keller-agent.service runs\n  \
                  keller agent health     what keller-health.service runs\n  \
                  keller agent certificates\n\n\
                  All are units: keller-agent.service, keller-health.service, systemd-bless-boot.service and, where the \
                  manifest has `kv`, keller-etcd-certificates.service and, on a member of a cluster, \
                  keller-etcd-promotion.service; keller-install.service where the node runs from memory. What they say is in the journal.")]
pub struct AgentArgs {
    /// A part of it; without one, the agent itself.
    #[command(subcommand)]
    pub part: Option<Part>,
}

/// What runs as a unit of its own.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Part {
    /// Wait until this boot is good; give it up, where there is another version to go back to, at the deadline or as
    /// soon as a unit of `health:` has failed for good.
    Health,
    /// Take the try counter off the entry of this boot, which is good.
    Bless,
    /// Make the certificates of this node's etcd, and renew those that end within four months.
    Certificates,
    /// Wait until the etcd of this node, a member of a cluster, may start.
    Member,
    /// On a machine that runs from memory: install what its document asks for.
    Install,
    /// Give members that have joined their vote once they have caught up, and ask for new certificates of this one before
    /// they end, for as long as the node is up.
    Promote,
}

/// Runs it.
pub fn run(args: AgentArgs, global: &Global) -> Result<ExitCode> {
    let verbosity = if global.quiet { Verbosity::Quiet } else { Verbosity::Verbose };
    let display = Display::new(verbosity);
    match args.part {
        Some(Part::Health) => match judge::judge(&display)? {
            true => Ok(ExitCode::SUCCESS),
            false => Ok(ExitCode::FAILURE),
        },
        Some(Part::Bless) => {
            agent::bless(&display)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Part::Certificates) => {
            agent::etcd::certificates(&display)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Part::Member) => {
            agent::etcd::member::wait(&display)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Part::Install) => {
            consoles::join();
            match install::unattended(&display)? {
                Some(Then::Reboot) => agent::systemd::reboot()?,
                Some(Then::Poweroff) => agent::systemd::systemctl(&["poweroff", "--no-block"])?,
                Some(Then::Stay) | None => {}
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(Part::Promote) => {
            agent::etcd::promote::run(&display)?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            service::run(&display)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
