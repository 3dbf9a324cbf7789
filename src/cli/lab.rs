//! `keller lab`: several machines on an Ethernet of their own.

mod ask;
mod show;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Global, streams, time};
use crate::base::{atomic, json};
use crate::lab::file::schema;
use crate::lab::{Client, delay, loss};
use crate::project;

/// Arguments of `keller lab`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller lab init lab.yaml           write a lab file to begin with\n  \
    keller lab up lab.yaml             start its machines; Ctrl-C ends them\n  \
    keller lab up --image out/node_1.0.0.raw --machine a --machine b\n\n\
    While it runs, from another terminal or a script:\n  \
    keller lab wait                    until ssh answers on all machines\n  \
    keller lab ssh a\n  \
    keller lab cut a b                 nothing goes from a to b or back\n  \
    keller lab mend a b\n  \
    keller lab kill a                  cut its power\n  \
    keller lab start a\n  \
    keller lab stop                    end the lab")]
pub struct LabArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// The lab that is meant.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Directory of the lab's disks, consoles and control socket.
    #[arg(long, value_name = "DIR", default_value = "out/lab")]
    pub dir: PathBuf,
}

/// One machine of the lab.
#[derive(Clone, Debug, Args)]
pub struct One {
    /// The machine.
    pub name: String,
    /// The lab.
    #[command(flatten)]
    pub place: Place,
}

/// A cable of the lab.
#[derive(Clone, Debug, Args)]
pub struct Cable {
    /// A machine.
    pub a: String,
    /// Another one; without it, all others.
    pub b: Option<String>,
    /// The lab.
    #[command(flatten)]
    pub place: Place,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Start machines and look after them until the lab is ended.
    Up(Box<up::UpArgs>),
    /// Tell everything that is wrong with a lab file, and which card each machine has.
    #[command(after_help = "Examples:\n  keller lab check lab.yaml\n  keller lab check --json lab.yaml")]
    Check {
        /// The lab file.
        file: PathBuf,
        /// The image of machines that name none, before the file's own.
        #[arg(long, value_name = "IMAGE")]
        image: Option<PathBuf>,
    },
    /// Write a lab file to begin with.
    #[command(after_help = "Examples:\n  keller lab init lab.yaml\n  keller lab init > lab.yaml")]
    Init {
        /// Where it goes; without one, to standard output. A file that is there stays as it is.
        file: Option<PathBuf>,
    },
    /// Write the JSON Schema of lab files, or their reference, to standard output.
    #[command(
        after_help = "Examples:\n  keller lab schema > lab.schema.json\n  keller lab schema --markdown"
    )]
    Schema {
        /// The reference as Markdown.
        #[arg(long)]
        markdown: bool,
    },
    /// Show the machines, the cables that are not whole, and what went over the Ethernet.
    #[command(after_help = "Examples:\n  keller lab status\n  keller lab status --json --dir /tmp/lab")]
    Status {
        /// The lab.
        #[command(flatten)]
        place: Place,
    },
    /// Wait until ssh answers on these machines, or on all.
    #[command(after_help = "Examples:\n  keller lab wait\n  keller lab wait --timeout 10min a b")]
    Wait {
        /// The machines.
        names: Vec<String>,
        /// How long; a number alone is seconds.
        #[arg(long, value_name = "TIME", default_value = "600", value_parser = time::seconds)]
        timeout: Duration,
        /// The lab.
        #[command(flatten)]
        place: Place,
    },
    /// Log in to a machine as core, or run a command there; the exit code is ssh's.
    #[command(after_help = "Examples:\n  \
        keller lab ssh a\n  \
        keller lab ssh a -- sudo journalctl -b -p 3\n\n\
        With --json and without a command, it shows how to log in: {\"command\": [word, …]}; with one, what it gave: \
        {\"code\", \"output\", \"errors\"}.")]
    Ssh {
        /// The lab.
        #[command(flatten)]
        place: Place,
        /// The machine.
        name: String,
        /// What to run there.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Show a machine's console and type into it; Ctrl-C leaves it, and the machine goes on.
    #[command(after_help = "Examples:\n  keller lab console a\n  keller lab console a > a.log")]
    Console(One),
    /// Cut a machine's power.
    #[command(after_help = "Examples:\n  keller lab kill a")]
    Kill(One),
    /// Start a machine that is off, with the disk that it has.
    #[command(after_help = "Examples:\n  keller lab start a")]
    Start(One),
    /// Stop a machine's processors.
    #[command(after_help = "Examples:\n  keller lab pause a")]
    Pause(One),
    /// Resume a paused machine.
    #[command(after_help = "Examples:\n  keller lab resume a")]
    Resume(One),
    /// Give a machine that is off a new disk of its image, and blank variables of the firmware.
    #[command(after_help = "Examples:\n  keller lab kill a\n  keller lab wipe a\n  keller lab start a")]
    Wipe(One),
    /// Cut the cable between two machines, or between one and all others.
    #[command(after_help = "Examples:\n  keller lab cut a b\n  keller lab cut a")]
    Cut(Cable),
    /// Make a cable whole again: neither cut nor slow nor lossy.
    #[command(after_help = "Examples:\n  keller lab mend a b\n  keller lab mend a")]
    Mend(Cable),
    /// Delay frames between two machines, in both directions.
    #[command(after_help = "Examples:\n  keller lab delay a b 200ms\n  keller lab delay a b 0")]
    Delay {
        /// A machine.
        a: String,
        /// Another one.
        b: String,
        /// How much later, up to 60s.
        #[arg(value_parser = delay)]
        time: u64,
        /// The lab.
        #[command(flatten)]
        place: Place,
    },
    /// Drop a share of the frames between two machines, in both directions.
    #[command(after_help = "Examples:\n  keller lab loss a b 10%\n  keller lab loss a b 0%")]
    Loss {
        /// A machine.
        a: String,
        /// Another one.
        b: String,
        /// Which part, such as 0.5%.
        #[arg(value_parser = loss)]
        part: u32,
        /// The lab.
        #[command(flatten)]
        place: Place,
    },
    /// Press a machine's power button; without a name, end the lab and wait until it has ended.
    #[command(after_help = "Examples:\n  keller lab stop a\n  keller lab stop\n\n\
        A lab whose disks are kept lets its machines shut down first, for 90 seconds at most.")]
    Stop {
        /// The machine.
        name: Option<String>,
        /// The lab.
        #[command(flatten)]
        place: Place,
    },
}

/// What `init` writes.
const STARTER: &str = include_str!("starter/lab.yaml");

/// Runs it.
///
/// # Errors
/// What is wrong with the file, and what the lab says.
pub fn run(args: LabArgs, global: &Global) -> Result<ExitCode> {
    match args.action {
        Action::Up(args) => return up::run(*args, global),
        Action::Check { file, image } => check(&file, image, global)?,
        Action::Init { file } => init(file, global)?,
        Action::Schema { markdown: true } if global.json => bail!("the reference is Markdown, not JSON"),
        Action::Schema { markdown: true } => streams::print(schema::markdown())?,
        Action::Schema { markdown: false } => streams::json(format_args!("{:#}", schema::file()))?,
        action => return ask::run(action, global),
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: &std::path::Path, image: Option<PathBuf>, global: &Global) -> Result<()> {
    let plan = project::lab::plan(file, image.as_deref())?;
    if global.json {
        let machines: Vec<_> = plan
            .machines
            .iter()
            .map(|machine| json!({ "name": machine.name, "mac": machine.mac(), "image": json::text_of(&machine.image) }))
            .collect();
        return Ok(streams::json(json!({ "machines": machines, "warnings": plan.warnings }))?);
    }
    for machine in &plan.machines {
        streams::line(show::planned(machine))?;
    }
    for warning in &plan.warnings {
        streams::message(format_args!("warning: {warning}"));
    }
    Ok(streams::line("nothing wrong")?)
}

fn init(file: Option<PathBuf>, global: &Global) -> Result<()> {
    let Some(file) = file else {
        match global.json {
            true => streams::json(json!({ "lab": STARTER }))?,
            false => streams::print(STARTER)?,
        }
        return Ok(());
    };
    if file.symlink_metadata().is_ok() {
        bail!("{} is there already: name another file", file.display());
    }
    atomic::write(&file, STARTER).with_context(|| format!("writing {}", file.display()))?;
    match global.json {
        true => streams::json(json!({ "file": json::text_of(&file) }))?,
        false if global.quiet => {}
        false => streams::print(format_args!("wrote {0}\n\nnext:\n  keller lab up {0}\n", file.display()))?,
    }
    Ok(())
}

impl Place {
    /// The lab that runs there.
    fn client(&self) -> Client {
        Client::new(&self.dir)
    }
}
