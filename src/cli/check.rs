//! `keller check`: everything that is wrong with a manifest, at once.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{Global, failure, streams};
use crate::manifest::Manifest;
use crate::project;

/// Checks a manifest with all that it includes, and tells everything that is wrong at once
///
/// Each finding comes with its file, line and column, the line itself, and what would be right. Nothing is
/// downloaded: whether a package exists is for `keller lock` to say.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  keller check node.yaml          tell what is wrong, with places
  keller check --json node.yaml   the same for programs and editors
  keller check                    the manifest that keller carries

With --json: {\"id\", \"version\", \"errors\": []}, or \"error\" and the findings in \"errors\" and \"places\".")]
pub struct Check {
    /// The manifest; without one, the default node that keller carries
    pub manifest: Option<PathBuf>,
}

/// Runs `keller check`. The exit code is 1 when something is wrong.
///
/// # Errors
/// Those of standard output.
pub fn run(args: Check, global: &Global) -> Result<ExitCode> {
    let manifest = match project::manifest(args.manifest.as_deref()) {
        Ok(manifest) => manifest,
        Err(diagnostics) => {
            streams::tell(&diagnostics);
            if global.json {
                let findings = serde_json::json!(diagnostics.list);
                let mut described = failure::described(&diagnostics.into());
                described["errors"] = findings;
                streams::json(described)?;
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    match global.json {
        true => {
            let Manifest { id, version, .. } = &manifest;
            streams::json(serde_json::json!({ "id": id, "version": version, "errors": [] }))?;
        }
        false if global.quiet => {}
        false => streams::line(summary(&manifest))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(manifest: &Manifest) -> String {
    let count = |count: usize, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    format!(
        "{} {}: {} by name, {}, {}, {}: nothing wrong",
        manifest.id,
        manifest.version,
        count(manifest.recipe.packages.len(), "package", "packages"),
        count(manifest.recipe.overlays.len(), "overlay", "overlays"),
        count(manifest.services.enable.len(), "unit enabled", "units enabled"),
        count(manifest.containers.len(), "container", "containers"),
    )
}
