//! `keller schema`: the form of manifests, for editors and for people.

use std::process::ExitCode;

use clap::Args;

use super::streams;
use crate::manifest::schema;

/// Prints the JSON Schema of manifests, or their reference
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  keller schema > manifest.schema.json
      then, for editors with a YAML language server, as first line of a manifest:
      # yaml-language-server: $schema=manifest.schema.json
  keller schema --container       the form of what `image: {build: …}` names
  keller schema --markdown        the reference, as in docs/manifest.md")]
pub struct Schema {
    /// Prints the reference as Markdown
    #[arg(long, conflicts_with = "container")]
    pub markdown: bool,
    /// Prints the schema of container images instead
    #[arg(long)]
    pub container: bool,
}

/// Runs `keller schema`.
pub fn run(args: Schema) -> anyhow::Result<ExitCode> {
    match args {
        Schema { markdown: true, .. } => streams::print(schema::markdown())?,
        Schema { container: true, .. } => streams::json(format_args!("{:#}", schema::container_image()))?,
        _ => streams::json(format_args!("{:#}", schema::manifest()))?,
    }
    Ok(ExitCode::SUCCESS)
}
