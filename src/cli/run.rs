//! `keller run`: build and boot.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use super::boot::{Guest, MachineArgs, boot};
use super::progress::{Display, summary};
use super::{Global, build, streams};

/// Arguments of `keller run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller run                           the default node\n  \
    keller run --persist my-node/node.yaml\n  \
    keller run --expect 'login:' --timeout 300")]
pub struct RunArgs {
    /// What is built.
    #[command(flatten)]
    pub build: build::BuildArgs,
    /// What it is booted on.
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Builds the image, boots it, and says where it answers.
pub fn run(args: RunArgs, global: &Global) -> Result<ExitCode> {
    let display = Display::new(global.verbosity());
    let inputs = args.build.inputs.clone().into();
    let built = args.build.request(false).run(&display)?;
    if !global.quiet {
        streams::tell(summary(&display.stages()).trim_end());
    }
    drop(display);
    let manifest = &built.project.manifest;
    let sectors = manifest.disk.sector_size;
    if let Some(asked) = args.machine.sector_size.filter(|asked| *asked != sectors) {
        bail!("--sector-size {asked}: the image is made for {sectors}; set `disk: {{sector_size: {asked}}}`");
    }
    let machine = MachineArgs { sector_size: Some(sectors), ..args.machine };
    let what = format!("{} {}", manifest.id, manifest.version);
    let guest = Guest { image: built.bootable(), ports: &built.pages(), what };
    boot(&guest, &machine, inputs, global)
}
