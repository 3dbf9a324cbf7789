//! `keller lab up`: starts machines and looks after them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::Place;
use crate::base::Size;
use crate::cli::boot::{disk, memory};
use crate::cli::failure::{INTERRUPTED, UNSEEN};
use crate::cli::inputs::InputArgs;
use crate::cli::progress::Display;
use crate::cli::{Global, signals, streams};
use crate::lab::file::Asked;
use crate::lab::{Event, LabError, Over, Plan, Request};
use crate::project::lab::Up;
use crate::project::{self, Lab};
use crate::qemu::Bus;

/// How long is waited for something to happen.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `keller lab up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller lab up lab.yaml\n  \
    keller lab up --image out/node_1.0.0.raw --machine a --machine b=b.yaml\n  \
    keller lab up --keep --dir /var/tmp/lab lab.yaml\n\n\
    Exit code: 0 when `keller lab stop` ends it, 1 when a machine does not start, 130 when Ctrl-C or a signal ends it, \
    141 when whoever reads its messages has gone. All machines always end with keller. With --json, a line for each \
    thing that happens: {\"event\": \"ready\", \"machine\", \"seconds\"}.")]
pub struct UpArgs {
    /// The lab file; see `keller lab init`.
    #[arg(required_unless_present = "machine", conflicts_with = "machine")]
    pub file: Option<PathBuf>,
    /// The image of machines that name none, before the lab file's own.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<PathBuf>,
    /// Without a lab file: a machine of this name, with a node document if it is to have one; repeatable.
    #[arg(long, value_name = "NAME[=DOCUMENT]", requires = "image")]
    pub machine: Vec<String>,
    /// Without a lab file: memory of each machine, in whole MiB, at least 512MiB.
    #[arg(long, value_name = "SIZE", default_value = "640MiB", value_parser = memory, conflicts_with = "file")]
    pub memory: Size,
    /// Without a lab file: virtual processors of each machine.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=255),
        conflicts_with = "file"
    )]
    pub cpus: u32,
    /// Without a lab file: bus of each disk: virtio, nvme, ahci, usb or scsi (virtio-scsi).
    #[arg(
        long,
        value_name = "BUS",
        default_value = "virtio",
        value_parser = str::parse::<Bus>,
        conflicts_with = "file"
    )]
    pub(crate) bus: Bus,
    /// Without a lab file: make each disk this large, in whole MiB.
    #[arg(long, value_name = "SIZE", value_parser = disk, conflicts_with = "file")]
    pub disk: Option<Size>,
    /// The lab.
    #[command(flatten)]
    pub place: Place,
    /// Keep disks and the firmware's variables in the lab's directory, and go on with those that are there.
    #[arg(long)]
    pub keep: bool,
    /// Throw away the disks that an earlier lab kept.
    #[arg(long)]
    pub fresh: bool,
    /// Emulate even where KVM works.
    #[arg(long)]
    pub no_kvm: bool,
    /// Public ssh keys (file) for user core, besides the one that is made for this run.
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,
    /// Where QEMU comes from.
    #[command(flatten)]
    pub inputs: InputArgs,
}

/// Starts the machines and stays until the lab has ended.
pub(super) fn run(args: UpArgs, global: &Global) -> Result<ExitCode> {
    let plan = plan(&args)?;
    for warning in &plan.warnings {
        streams::message(format_args!("warning: {warning}"));
    }
    let count = plan.machines.len();
    let lab = Lab {
        directory: args.place.dir,
        plan,
        keep: args.keep,
        fresh: args.fresh,
        no_kvm: args.no_kvm,
        ssh_key: args.ssh_key,
        inputs: args.inputs.into(),
    };
    let begun = Instant::now();
    let prepared = lab.prepare(&Display::new(global.verbosity()))?;
    if !global.quiet {
        let how = if prepared.is_emulated() { "under emulation (no KVM here)" } else { "with KVM" };
        let machines = if count == 1 { "machine" } else { "machines" };
        streams::tell(format_args!("starting {count} {machines} {how}; Ctrl-C ends the lab"));
    }
    let interrupted = signals::interruption()?;
    let up = prepared.start()?;
    let shown = Shown { global, begun, left: count };
    shown.follow(&up, || interrupted.swap(false, Ordering::SeqCst))
}

fn plan(args: &UpArgs) -> Result<Plan> {
    if let Some(file) = &args.file {
        return project::lab::plan(file, args.image.as_deref());
    }
    let machines = args.machine.iter().map(|text| match text.split_once('=') {
        Some((name, document)) => (name.to_owned(), Some(PathBuf::from(document))),
        None => (text.clone(), None),
    });
    let asked = Asked {
        image: args.image.clone().unwrap_or_default(),
        machines: machines.collect(),
        memory: args.memory,
        cpus: args.cpus,
        bus: args.bus,
        disk: args.disk,
    };
    Ok(asked.plan()?)
}

/// What a person sees of a lab.
struct Shown<'a> {
    global: &'a Global,
    begun: Instant,
    /// Machines that were not ready yet.
    left: usize,
}

impl Shown<'_> {
    fn follow(mut self, up: &Up, mut interrupted: impl FnMut() -> bool) -> Result<ExitCode> {
        let mut code = ExitCode::SUCCESS;
        let mut is_unseen = false;
        loop {
            match up.running.next(LOOK) {
                Ok(Some(event)) => self.show(&event, up)?,
                Ok(None) => {}
                Err(Over) => return Ok(code),
            }
            if interrupted() {
                code = ExitCode::from(INTERRUPTED);
                self.stop(up)?;
            }
            if !is_unseen && streams::reader_has_gone() {
                is_unseen = true;
                code = ExitCode::from(UNSEEN);
                self.stop(up)?;
            }
        }
    }

    fn stop(&self, up: &Up) -> Result<()> {
        match up.running.client().ask(&Request::Stop {}) {
            // It ends already.
            Err(LabError::NoLab { .. } | LabError::Refused { .. }) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    fn show(&mut self, event: &Event, up: &Up) -> Result<()> {
        if let Event::Ready(..) = event {
            self.left = self.left.saturating_sub(1);
        }
        if self.global.json {
            return Ok(streams::json(described(event))?);
        }
        let is_trouble = !matches!(event, Event::Ready(..) | Event::Ending);
        if self.global.quiet && !is_trouble {
            return Ok(());
        }
        streams::tell(words(event));
        if matches!(event, Event::Ready(..)) && self.left == 0 {
            let seconds = self.begun.elapsed().as_secs_f64();
            let key = up.running.identity().display();
            streams::tell(format_args!("all are ready after {seconds:.0} s; {key} lets one in"));
            // Those that are started over are told one by one.
            self.left = usize::MAX;
        }
        Ok(())
    }
}

fn words(event: &Event) -> String {
    match event {
        Event::Ready(name, after) => {
            format!("{name} is ready after {:.0} s: `lab ssh {name}` logs in", after.as_secs_f64())
        }
        Event::Ended(name, why) => format!("{name} is off: {why}: `lab start {name}` starts it"),
        Event::Fault(name, what) => format!("warning: {name}: {what}"),
        Event::Ending => "shutting the machines down; Ctrl-C again cuts their power".to_owned(),
        Event::Forced(name) => format!("warning: {name} did not shut down: power cut"),
        Event::Left(name, why) => format!("warning: what {name} leaves could not be thrown away: {why}"),
    }
}

fn described(event: &Event) -> serde_json::Value {
    match event {
        Event::Ready(name, after) => {
            json!({ "event": "ready", "machine": name, "seconds": after.as_secs_f64() })
        }
        Event::Ended(name, why) => json!({ "event": "ended", "machine": name, "why": why }),
        Event::Fault(name, what) => json!({ "event": "fault", "machine": name, "why": what }),
        Event::Ending => json!({ "event": "ending" }),
        Event::Forced(name) => json!({ "event": "forced", "machine": name }),
        Event::Left(name, why) => json!({ "event": "left", "machine": name, "why": why }),
    }
}
