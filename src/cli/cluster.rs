//! `keller cluster`: nodes whose etcd is one.

mod authority;
mod live;
mod sign;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::{Global, streams};
use crate::agent::etcd::member;
use crate::base::json;
use crate::project::cluster::{Init, Issue, Issued, Made};
use live::Live;
use sign::SignArgs;

/// Arguments of `keller cluster`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller cluster init rack1 --member a=10.0.0.1 --member b=10.0.0.2 --member c=10.0.0.3\n  \
    keller cluster bootstrap      on a node: form the cluster without a member that never came")]
pub struct ClusterArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make the authorities of a new cluster, and a node document for each of its members.
    #[command(after_help = "Examples:\n  \
        keller cluster init rack1 --member a=10.0.0.1 --member b=10.0.0.2 --member c=10.0.0.3\n  \
        keller cluster init rack1 --member a=10.0.0.1 --member b=10.0.0.2 --member c=10.0.0.3 --with rack1.yaml\n\n\
        Members know of each other by this list and by nothing else. The documents hold keys: they are for the nodes and \
        for nobody else, and authority.pem and peer-authority.pem, which sign certificates, are for no node.")]
    Init {
        /// Tells clusters apart, such as rack1.
        name: String,
        /// A member: the name of its node and the address that the others reach it at; repeatable.
        #[arg(long, value_name = "NAME=ADDRESS", required = true, value_parser = named)]
        member: Vec<(String, IpAddr)>,
        /// A node that is a client, and has a document with a certificate; repeatable. `keller cluster rights` gives it the
        /// keys below its own name.
        #[arg(long, value_name = "NAME")]
        client: Vec<String>,
        /// Node documents that members have so far (their network and keys), by `name`: the cluster's part is added.
        #[arg(long, value_name = "FILE")]
        with: Option<PathBuf>,
        /// The directory that is made; by default, of the cluster's name.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Make certificates of a cluster that is there: a document for one more member, or anew for those that end.
    ///
    /// A document that is there keeps all but its certificates.
    #[command(after_help = "Examples:\n  \
        keller cluster issue rack1 --member d=10.0.0.4               one more, for `keller cluster add d=10.0.0.4`\n  \
        keller cluster issue rack1 --member a --member b --member c --operator    another year\n\n\
        The authorities in the directory sign them. Give each node its document: keller node apply FILE")]
    Issue {
        /// The directory that `init` made.
        directory: PathBuf,
        /// A member; a new one with the address that the others reach it at; repeatable.
        #[arg(long, value_name = "NAME[=ADDRESS]", value_parser = live::perhaps_at)]
        member: Vec<(String, Option<IpAddr>)>,
        /// A node that is a client; repeatable.
        #[arg(long, value_name = "NAME")]
        client: Vec<String>,
        /// Node documents that new members have so far, by `name`.
        #[arg(long, value_name = "FILE")]
        with: Option<PathBuf>,
        /// A new certificate for whoever asks from outside, too.
        #[arg(long)]
        operator: bool,
    },
    /// Sign for members that ask for new certificates, by the authorities of a cluster that is there.
    ///
    /// Members ask by themselves, once a third of their certificates' year is left, through the cluster's own keys. A request
    /// counts only if the member's own key vouches for it; names and addresses come from the list in the directory. Exits
    /// with 1 where one is refused, and where a member that is named asks for nothing.
    #[command(after_help = "Examples:\n  \
        keller cluster sign rack1 --dry-run       who asks, and what would be signed\n  \
        keller cluster sign rack1\n  \
        keller cluster sign rack1 --member b      for b alone\n\n\
        It asks the cluster with the directory's operator/, so that the members' addresses must be reachable from here. Members \
        take what is signed within a minute, and etcd goes on.")]
    Sign(SignArgs),
    /// Replace the authorities of a cluster that runs, in three steps, of which each run does one.
    ///
    /// 1: new authorities are made and believed beside the old ones. 2: the new ones sign, and the keys of the old ones go. 3: the
    /// new ones are believed alone. After each step every node is given its document (`keller node apply`), and the next one is
    /// refused until all members show that they have it. A run that was cut off is finished by the next.
    #[command(after_help = "Examples:\n  \
        keller cluster authority rack1                  the next step, or when the authorities end\n  \
        keller cluster authority rack1 --begin          a key has become known: before a year is left\n  \
        keller cluster authority rack1 --dry-run\n  \
        keller cluster authority rack1 --without c      c is gone for good\n\n\
        Exits with 1 where members are behind. docs/cluster.md, \"New authorities\", has all of it.")]
    Authority(authority::AuthorityArgs),
    /// On a node whose etcd waits: begin a new cluster although a listed member does not answer.
    ///
    /// Members that answer must be without data. Members that do not answer must never have been part of this cluster: what
    /// they have acknowledged would be lost.
    #[command(after_help = "Examples:\n  keller cluster bootstrap\n\n\
        Run it on every member that is up. It holds until the next reboot.")]
    Bootstrap,
    /// What is asked of a cluster that runs.
    #[command(flatten)]
    Live(Live),
}

fn named(text: &str) -> Result<(String, IpAddr), String> {
    let help = "expected the name of a node and its address, such as a=10.0.0.1";
    let (name, address) = text.split_once('=').ok_or(help)?;
    Ok((name.to_owned(), crate::node::cluster::address(address)?))
}

/// Runs it.
///
/// # Errors
/// Lists that make no cluster, what the disk says, and a node that is in none.
pub fn run(args: &ClusterArgs, global: &Global) -> Result<ExitCode> {
    match &args.action {
        Action::Init { name, member, client, with, out } => {
            let directory = out.clone().unwrap_or_else(|| PathBuf::from(name));
            let now = Timestamp::now().as_second();
            let init = Init {
                name: name.clone(),
                members: member.clone(),
                clients: client.clone(),
                with: with.clone(),
                directory,
                now,
            };
            told(&init.run()?, with.is_some(), global)?;
        }
        Action::Issue { directory, member, client, with, operator } => {
            let issue = Issue {
                directory: directory.clone(),
                members: member.clone(),
                clients: client.clone(),
                with: with.clone(),
                operator: *operator,
                now: Timestamp::now().as_second(),
            };
            issued(&issue.run()?, global)?;
        }
        Action::Sign(args) => return sign::run(args, global),
        Action::Authority(args) => return authority::run(args, global),
        Action::Bootstrap => bootstrap(global)?,
        Action::Live(live) => return live::run(live, global),
    }
    Ok(ExitCode::SUCCESS)
}

/// Paths by name, as JSON has them.
fn texts(paths: &BTreeMap<String, PathBuf>) -> BTreeMap<&str, String> {
    paths.iter().map(|(name, path)| (name.as_str(), json::text_of(path))).collect()
}

fn told(made: &Made, is_whole: bool, global: &Global) -> Result<()> {
    made.warnings.iter().for_each(|warning| streams::message(format_args!("warning: {warning}")));
    if global.json {
        streams::json(json!({
            "documents": texts(&made.documents),
            "authorities": made.authorities.each_ref().map(|path| json::text_of(path)),
            "operator": json::text_of(&made.operator),
            "warnings": made.warnings,
        }))?;
    } else if !global.quiet {
        made.documents
            .values()
            .try_for_each(|path| streams::line(format_args!("wrote {}", path.display())))?;
        let [authority, peers] = made.authorities.each_ref().map(|path| path.display());
        let operator = made.operator.display();
        let rest = match is_whole {
            true => "try each document",
            false => "add to each document what else its machine needs, its network first, and try it",
        };
        streams::print(format_args!(
            "wrote {authority}\nwrote {peers}\nwrote {operator}/\n\nnext:\n  {rest}: keller node check FILE\n  \
             give each node its own document\n  keep {authority} and {peers}: whoever has them can act \
             as any member and any client\n  from here, once they run: keller cluster status --operator {operator}\n"
        ))?;
    }
    Ok(())
}

fn issued(issued: &Issued, global: &Global) -> Result<()> {
    if global.json {
        return Ok(streams::json(json!({
            "new": texts(&issued.new),
            "renewed": texts(&issued.renewed),
            "operator": issued.operator.as_deref().map(json::text_of),
        }))?);
    }
    if global.quiet {
        return Ok(());
    }
    for path in issued.new.values() {
        streams::line(format_args!("wrote {}", path.display()))?;
    }
    for path in issued.renewed.values() {
        streams::line(format_args!("renewed {}: give it to its node, `keller node apply`", path.display()))?;
    }
    if let Some(path) = &issued.operator {
        streams::line(format_args!("renewed {}/", path.display()))?;
    }
    if !issued.new.is_empty() {
        streams::line("next: keller cluster add for a member, keller cluster rights for a client")?;
    }
    Ok(())
}

fn bootstrap(global: &Global) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("this is for root: sudo keller cluster bootstrap");
    }
    let cluster = member::bootstrap()?;
    match global.json {
        true => streams::json(json!({ "cluster": cluster.name, "member": cluster.me }))?,
        false if global.quiet => {}
        false => streams::print(format_args!(
            "{} begins a new cluster {} with the members that answer: `journalctl -fu etcd` tells of it\n",
            cluster.me, cluster.name
        ))?,
    }
    Ok(())
}
