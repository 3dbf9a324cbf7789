//! `keller build`: from a manifest to the files that were asked for.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use super::Global;
use super::inputs::InputArgs;
use super::progress::{Display, summary};
use super::streams;
use crate::base::{Size, json};
use crate::project::{Build, Policy};

/// Arguments of `keller build`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller build                         the default node, into ./out\n  \
    keller build my-node/node.yaml       into my-node/out\n  \
    keller build --locked --offline node.yaml\n  \
    keller build --version 1.0.7 node.yaml\n  \
    keller build --check node.yaml       twice, and compare every byte")]
pub struct BuildVerb {
    /// What is built.
    #[command(flatten)]
    pub build: BuildArgs,
    /// Write no SHA256SUMS: hashing a raw image, holes and all, takes longer than the rest of a rebuild.
    #[arg(long)]
    pub no_sums: bool,
}

/// What `keller build` and `keller run` let one say of an image.
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// The manifest; without one, the default node inside this binary.
    pub manifest: Option<PathBuf>,
    /// Make it this version, whatever the manifest says: for a CI job that numbers images.
    #[arg(long, value_name = "VERSION", value_parser = crate::manifest::parse_version)]
    pub version: Option<String>,
    /// Where the files go; `out` beside the manifest by default.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Refuse anything that the lock does not name.
    #[arg(long)]
    pub locked: bool,
    /// Build a second time in another way and compare the images.
    #[arg(long)]
    pub check: bool,
    /// Node documents for machines that start from the iso or netboot file; their `install` names the disk for an
    /// unattended installation.
    #[arg(long, value_name = "FILE")]
    pub install: Option<PathBuf>,
    /// The keller for the node; by default the one that runs.
    #[arg(long, value_name = "FILE")]
    pub keller: Option<PathBuf>,
    /// Put an unoptimised keller into the image all the same.
    #[arg(long)]
    pub allow_debug: bool,
    /// Inputs.
    #[command(flatten)]
    pub inputs: InputArgs,
}

impl BuildArgs {
    /// What is asked for, with or without SHA256SUMS.
    pub fn request(self, sums: bool) -> Build {
        let Self { manifest, version, output, locked, check, install, keller, allow_debug, inputs } = self;
        let policy = if locked { Policy::Locked } else { Policy::Follow };
        let inputs = inputs.into();
        Build { manifest, version, output, policy, check, sums, install, keller, allow_debug, inputs }
    }
}

/// Builds and tells.
pub fn run(args: BuildVerb, global: &Global) -> Result<ExitCode> {
    let begun = Instant::now();
    let display = Display::new(global.verbosity());
    let built = args.build.request(!args.no_sums).run(&display)?;
    if global.json {
        let files: Vec<_> = built.files.iter().map(|(_, path)| json::text_of(path)).collect();
        streams::json(serde_json::json!({ "files": files, "build": built.report }))?;
    } else if !global.quiet {
        streams::tell(summary(&display.stages()).trim_end());
        let sizes = &built.report.sizes;
        streams::tell(format_args!(
            "{} {}: root {}, UKI {} (initramfs {}), {} packages, {:.1} s",
            built.report.record.id,
            built.report.record.version,
            Size(sizes.root).human(),
            Size(sizes.uki).human(),
            Size(sizes.initramfs).human(),
            built.report.record.packages.len(),
            begun.elapsed().as_secs_f64()
        ));
        streams::tell(format_args!("root hash {}", sizes.root_hash));
        for (_, path) in &built.files {
            streams::line(path.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
