//! `keller completion`: scripts for shells.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::streams;

/// Arguments of `keller completion`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  keller completion bash > ~/.local/share/bash-completion/completions/keller"
)]
pub struct CompletionArgs {
    /// The shell.
    pub shell: Shell,
}

/// Writes the script to standard output.
pub fn run(args: CompletionArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "keller", &mut script);
    streams::write(&script)?;
    Ok(ExitCode::SUCCESS)
}
