//! `keller run`: build and boot.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::boot::{Guest, MachineArgs, boot};
use super::progress::{Display, summary};
use super::{Global, build};

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
    let built = build::build(&args.build, false, &display)?;
    if !global.quiet {
        eprint!("{}", summary(&display.stages()));
    }
    drop(display);
    let manifest = &built.project.manifest;
    let ports: Vec<u16> = manifest
        .containers
        .iter()
        .filter(|container| container.start)
        .flat_map(|container| &container.ports)
        .filter(|port| !port.udp)
        .map(|port| port.host)
        .collect();
    let machine = MachineArgs { sector_size: manifest.disk.sector_size, ..args.machine };
    let what = format!("{} {}", manifest.id, manifest.version);
    let guest = Guest { image: built.bootable(), ports: &ports, what };
    boot(&guest, &machine, &args.build.inputs, global)
}
