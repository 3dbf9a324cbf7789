//! `keller etc`: the node's own /etc beside the defaults of its versions.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::{Global, streams};
use crate::agent::etc;

/// Arguments of `keller etc`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller etc diff            what the new version changes under the node's own files\n  \
    keller etc diff --json     the same for programs")]
pub struct EtcArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Action {
    /// List the files of /etc that were changed here and that differ between the versions in the two slots.
    #[command(
        after_help = "A file that was changed on the node hides the default of every later version. For each \
        such file this shows how the default has changed, and how the node's own differs from the new one. To \
        take the new default, delete the node's own file in /var/lib/keller/etc/upper and reboot.\n\n\
        Examples:\n  \
        keller etc diff\n  \
        keller etc diff --json\n\n\
        Exit code: 0 when there is none, 1 when there are some."
    )]
    Diff,
}

/// Runs it.
pub fn run(args: &EtcArgs, global: &Global) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("`keller etc` reads the node's disks: run it as root, e.g. with sudo");
    }
    let Action::Diff = args.action;
    let found = etc::diff()?;
    if global.json {
        streams::json(serde_json::to_string(&found)?)?;
    } else if found.changes.is_empty() {
        streams::line(format_args!(
            "nothing of {} differs from {} where this node has its own",
            found.new, found.old
        ))?;
    }
    for change in found.changes.iter().filter(|_| !global.json) {
        let here = if change.deleted_here { ", and deleted on this node" } else { "" };
        streams::line(format_args!("{}: {} in {}{here}", change.path, change.what, found.new))?;
        streams::print(&change.default)?;
        if !change.own.is_empty() {
            streams::line(format_args!("this node's own, beside that of {}:", found.new))?;
            streams::print(&change.own)?;
        }
        streams::line("")?;
    }
    Ok(if found.changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
