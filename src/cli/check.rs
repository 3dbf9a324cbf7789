//! `keller check`: everything that is wrong with a manifest, at once.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Global;
use crate::manifest::{self, Diagnostics, Manifest};

/// Checks a manifest with all that it includes, and tells everything that is wrong at once
///
/// Each finding comes with its file, line and column, the line itself, and what would be right. Nothing is
/// downloaded: whether a package exists is for `keller lock` to say.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  keller check node.yaml          tell what is wrong, with places
  keller check --json node.yaml   the same for programs and editors
  keller check                    the manifest that keller carries")]
pub struct Check {
    /// The manifest; without one, the default node that keller carries
    pub manifest: Option<PathBuf>,
}

/// Runs `keller check`. The exit code is 1 when something is wrong.
pub fn run(args: Check, global: &Global) -> anyhow::Result<ExitCode> {
    let result = match &args.manifest {
        Some(path) => manifest::load(path),
        None => manifest::load_embedded(manifest::DEFAULT),
    };
    match global.json {
        true => println!("{}", json(&result)),
        false => match &result {
            Ok(manifest) => println!("{}", summary(manifest)),
            Err(diagnostics) => eprintln!("{diagnostics}"),
        },
    }
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn json(result: &Result<Manifest, Diagnostics>) -> serde_json::Value {
    match result {
        Ok(manifest) => serde_json::json!({ "id": manifest.id, "version": manifest.version, "errors": [] }),
        Err(diagnostics) => serde_json::json!({ "errors": diagnostics.list }),
    }
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
        count(manifest.packages.len(), "package", "packages"),
        count(manifest.overlays.len(), "overlay", "overlays"),
        count(manifest.services.enable.len(), "unit enabled", "units enabled"),
        count(manifest.containers.len(), "container", "containers"),
    )
}
