//! Verbs: arguments in, one call of the engine, output. The only room that prints.

pub mod agent;
pub mod boot;
pub mod build;
pub mod check;
pub mod cluster;
pub mod completion;
mod consoles;
pub mod delta;
pub mod etc;
pub mod failure;
pub mod inputs;
pub mod inspect;
pub mod install;
pub mod keys;
pub mod lab;
pub mod lock;
pub mod new;
pub mod node;
pub mod progress;
pub mod publish;
pub mod run;
pub mod schema;
pub mod signals;
pub mod store;
pub mod streams;
pub mod terminal;
mod time;
pub mod update;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use progress::Verbosity;

use crate::base::heap;

/// Builds, boots and inspects images of minimal container hosts.
#[derive(Debug, Parser)]
#[command(
    name = "keller",
    version,
    max_term_width = 100,
    after_help = after_help()
)]
pub struct Cli {
    /// What is shown.
    #[command(flatten)]
    pub global: Global,
    /// What is done.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What `keller --help` says below verbs and flags.
fn after_help() -> String {
    const EXAMPLES: &str = "Examples:\n  \
        keller run                         build the default node and boot it under QEMU\n  \
        keller init my-node                start a project of your own\n  \
        keller build my-node/node.yaml     make its image\n  \
        keller inspect --verify out/node_1.0.0.raw\n\n\
        Every verb explains itself: keller build --help";
    format!("{EXAMPLES}\n\n{}", failure::CODES)
}

/// Heading of the flags that every verb takes, apart from its own.
const MESSAGES: &str = "Messages";

/// Flags that every verb takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Say nothing but errors and warnings.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = MESSAGES)]
    pub quiet: bool,
    /// Tell every step.
    #[arg(short, long, global = true, help_heading = MESSAGES)]
    pub verbose: bool,
    /// Write the result as JSON to standard output, and an error too; `keller --help` has its form.
    #[arg(long, global = true, help_heading = MESSAGES)]
    pub json: bool,
}

impl Global {
    /// How much the progress display shows.
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// One verb each.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build an image and boot it under QEMU.
    Run(run::RunArgs),
    /// Make an image.
    Build(build::BuildVerb),
    /// Boot an image under QEMU.
    Boot(boot::BootArgs),
    /// Start several machines on an Ethernet of their own, and cut and mend it.
    Lab(lab::LabArgs),
    /// Show what is in an image, and verify it.
    Inspect(inspect::InspectArgs),
    /// Put an image onto a disk of this machine.
    Install(install::InstallArgs),
    /// Resolve a manifest's packages and write them down, or bring some up to date.
    Lock(lock::LockArgs),
    /// Publish an image for nodes to take: a repository of static files, for any web server.
    Publish(publish::PublishArgs),
    /// Make and replace the keys that sign updates.
    Keys(keys::KeysArgs),
    /// Look at the store of downloads, and make room in it.
    Store(store::Args),
    /// Make, apply and fetch the files by which a root travels, without a node.
    #[command(hide = true)]
    Delta(delta::DeltaArgs),
    /// Tell everything that is wrong with a manifest.
    Check(check::Check),
    /// Start a project.
    Init(new::Init),
    /// Write the manifest's JSON Schema, or its reference, to standard output.
    Schema(schema::Schema),
    /// Write, check and show the document that makes a node of an image.
    Node(node::NodeArgs),
    /// Make a cluster of etcd out of nodes.
    Cluster(cluster::ClusterArgs),
    /// On a node: look for updates, take them, go back.
    Update(update::UpdateArgs),
    /// On a node: its own /etc beside the defaults of its versions.
    Etc(etc::EtcArgs),
    /// What runs on a node: take updates, judge boots.
    Agent(agent::AgentArgs),
    /// Write completion for a shell to standard output.
    Completion(completion::CompletionArgs),
}

/// Parses the command line and runs it. The exit codes are those of [`failure::CODES`].
pub fn main() -> ExitCode {
    heap::share();
    streams::tell_panics();
    signals::fail_beyond_limits();
    dispatch(std::env::args_os().collect())
}

fn dispatch(arguments: Vec<OsString>) -> ExitCode {
    // What is wrong with the other arguments is said as JSON too.
    let json = arguments.iter().skip(1).take_while(|word| *word != "--").any(|word| word == "--json");
    match parsed(arguments).and_then(has_json) {
        Ok(cli) => {
            let json = cli.global.json;
            run(cli).unwrap_or_else(|error| failure::report(&error, json))
        }
        Err(error) => failure::usage(&error, json),
    }
}

/// The command line, without flags that would have no effect.
fn parsed(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))?;
    if let (Verb::Publish(args), Some((_, given))) = (&cli.verb, matches.subcommand()) {
        let is_given = |name: &str| given.value_source(name) == Some(ValueSource::CommandLine);
        if let Some(name) = args.idle(is_given) {
            let message = format!("the argument '--{name}' has no effect without '--keep'");
            return Err(Cli::command().error(ErrorKind::MissingRequiredArgument, message));
        }
    }
    if let Verb::Install(args) = &cli.verb
        && let Some(message) = args.conflict()
    {
        return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
    }
    Ok(cli)
}

/// Refuses `--json` where nothing could come of it.
fn has_json(cli: Cli) -> Result<Cli, clap::Error> {
    let what = match &cli.verb {
        Verb::Completion(_) => "a script for a shell",
        Verb::Schema(schema) if schema.markdown => "the reference as Markdown",
        Verb::Agent(_) => "what goes to the journal",
        _ => return Ok(cli),
    };
    match cli.global.json {
        false => Ok(cli),
        true => {
            let message = format!("the argument '--json' cannot be used with {what}");
            Err(Cli::command().error(ErrorKind::ArgumentConflict, message))
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    match cli.verb {
        Verb::Run(args) => run::run(args, global),
        Verb::Build(args) => build::run(args, global),
        Verb::Boot(args) => boot::run(args, global),
        Verb::Lab(args) => lab::run(args, global),
        Verb::Inspect(args) => inspect::run(&args, global),
        Verb::Install(args) => install::run(&args, global),
        Verb::Lock(args) => lock::run(args, global),
        Verb::Publish(args) => publish::run(&args, global),
        Verb::Keys(args) => keys::run(&args, global),
        Verb::Store(args) => store::run(&args, global),
        Verb::Delta(args) => delta::run(&args, global),
        Verb::Check(args) => check::run(args, global),
        Verb::Init(args) => new::run(args, global),
        Verb::Schema(args) => schema::run(args),
        Verb::Node(args) => node::run(&args, global),
        Verb::Cluster(args) => cluster::run(&args, global),
        Verb::Update(args) => update::run(args, global),
        Verb::Etc(args) => etc::run(&args, global),
        Verb::Agent(args) => agent::run(args, global),
        Verb::Completion(args) => completion::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
