//! `keller lock`: resolve, and write down what was found.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::inputs::InputArgs;
use super::progress::Display;
use super::{Global, build, streams};
use crate::image::Means;
use crate::lock::resolve::Update;
use crate::lock::{diff, file};
use crate::project::{Inputs, Policy, Project, store};

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

/// Resolves and tells the difference.
pub fn run(args: LockArgs, global: &Global) -> Result<ExitCode> {
    let display = Display::new(global.verbosity());
    let project = Project::load(Some(&args.manifest), std::path::Path::new("out"))?;
    let update = match (args.update_all, args.update.is_empty()) {
        (true, _) => Update::All,
        (_, false) => Update::Names(args.update.into_iter().collect()),
        _ => Update::Nothing,
    };
    let inputs = Inputs::from(args.inputs);
    let store = inputs.open_store(&display)?;
    let settings = inputs.settings();
    let means = Means { store: &store, settings, progress: &display };
    let policy = Policy::Update(update);
    let build::Begun { before, lock, .. } = store::mending(&store, &display, || {
        let begun = build::begin(&project, &policy, &inputs, &means)?;
        store.sound()?;
        Ok(begun)
    })?;
    let lock = build::save(&project, &policy, before.as_ref(), lock, &display)?;
    if global.json {
        streams::json(file::to_text(&lock).trim_end())?;
    } else if !global.quiet {
        let changed = before.as_ref().is_none_or(|before| !diff::diff(before, &lock).is_empty());
        let state = if changed { "is up to date now" } else { "was up to date" };
        let count = lock.packages.len();
        streams::line(format_args!("{} {state}: {count} packages", project.lock.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
