//! `keller lock`: resolve, and write down what was found.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::inputs::InputArgs;
use super::progress::Display;
use super::{Global, streams};
use crate::lock::file;
use crate::lock::resolve::Update;
use crate::project::Relock;

/// Arguments of `keller lock`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller lock node.yaml                     what is locked stays, what is new is added\n  \
    keller lock --update openssl node.yaml    openssl at its newest, the rest stays\n  \
    keller lock --update-all node.yaml        everything at its newest")]
pub struct LockArgs {
    /// The manifest.
    pub manifest: PathBuf,
    /// Take this package at its newest; repeatable.
    #[arg(long, value_name = "NAME", conflicts_with = "update_all")]
    pub update: Vec<String>,
    /// Take every package at its newest.
    #[arg(long)]
    pub update_all: bool,
    /// Inputs.
    #[command(flatten)]
    pub inputs: InputArgs,
}

impl LockArgs {
    fn request(self) -> Relock {
        let update = match (self.update_all, self.update.is_empty()) {
            (true, _) => Update::All,
            (_, false) => Update::Names(self.update.into_iter().collect()),
            _ => Update::Nothing,
        };
        Relock { manifest: self.manifest, update, inputs: self.inputs.into() }
    }
}

/// Resolves and tells the difference.
pub fn run(args: LockArgs, global: &Global) -> Result<ExitCode> {
    let display = Display::new(global.verbosity());
    let done = args.request().run(&display)?;
    if global.json {
        streams::json(file::to_text(&done.lock).trim_end())?;
    } else if !global.quiet {
        let state = if done.changed { "is up to date now" } else { "was up to date" };
        let count = done.lock.packages.len();
        streams::line(format_args!("{} {state}: {count} packages", done.path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
