//! The verbs of `keller cluster` that ask a cluster that runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::agent::etcd::promote;
use crate::agent::etcd::restore::{self, Restored};
use crate::base::Size;
use crate::cli::progress::Display;
use crate::cli::{Global, streams};
use crate::cluster::change::{self, Changed};
use crate::cluster::view::{Role, Seen};
use crate::cluster::wound::{self, Wound};
use crate::cluster::{Access, View};
use crate::cluster::{backup, rights};

const DAY_SECONDS: i64 = 86_400;
/// A hundred years.
const ENDLESS_DAYS: i64 = 36_525;

/// From where the cluster is asked.
#[derive(Debug, Args)]
pub struct From {
    /// Ask from outside, with the directory `operator` that `keller cluster init` made; without it, as root of a member.
    #[arg(long, value_name = "DIR")]
    pub operator: Option<PathBuf>,
}

/// What is asked of a cluster that runs.
#[derive(Debug, Subcommand)]
pub enum Live {
    /// Show members, their health and what is wrong, with its cure.
    ///
    /// Exits with 1 where something costs the cluster: a member that does not work, an alarm, an expired certificate.
    #[command(after_help = "Examples:\n  \
        sudo keller cluster status                  on a member\n  \
        keller cluster status --operator rack1/operator\n  \
        keller cluster status --operator rack1/operator --json | jq .wounds\n\n\
        docs/operations.md has a page for each wound.")]
    Status {
        /// From where.
        #[command(flatten)]
        from: From,
    },
    /// Take in one more member, as a learner that gets its vote once it has caught up.
    ///
    /// Its machine starts with a node document that lists it. It is refused where the cluster is not whole.
    #[command(after_help = "Examples:\n  sudo keller cluster add d=10.0.0.4")]
    Add {
        /// Its node, and the address that the others reach it at; without one, that of this node's document.
        #[arg(value_name = "NAME[=ADDRESS]", value_parser = perhaps_at)]
        member: (String, Option<IpAddr>),
        /// From where.
        #[command(flatten)]
        from: From,
    },
    /// Remove a member for good. It is refused where the rest would be less than a majority.
    #[command(after_help = "Examples:\n  sudo keller cluster remove d\n\n\
        etcd on that member ends by itself, and its data are of no use any more.")]
    Remove {
        /// Its name.
        name: String,
        /// From where.
        #[command(flatten)]
        from: From,
    },
    /// Take in a new machine for a member that is lost, under its old name or another.
    ///
    /// It is refused where the old member works, and where the rest is less than a majority. If it was cut off, run it again.
    #[command(after_help = "Examples:\n  \
        sudo keller cluster replace b                 b was reinstalled, or has a new disk\n  \
        sudo keller cluster replace b=d=10.0.0.4      d takes its place, with a document of its own")]
    Replace {
        /// The lost member; after `=`, who takes its place, and at which address.
        #[arg(value_name = "OLD[=NEW[=ADDRESS]]", value_parser = exchange)]
        member: (String, String, Option<IpAddr>),
        /// From where.
        #[command(flatten)]
        from: From,
    },
    /// Have etcd ask for rights: members and operators may do all, each client node reads and writes below its own name.
    ///
    /// Until then every certificate of the cluster may do everything. Run again, it adds what is missing.
    #[command(after_help = "Examples:\n  \
        keller cluster rights --operator rack1/operator      for all clients that `init` was told of\n  \
        sudo keller cluster rights --client d                on a member\n\n\
        The client node d has the keys that begin with d/, and no other.")]
    Rights {
        /// A client node; repeatable. Those in the operator's directory are known.
        #[arg(long, value_name = "NAME")]
        client: Vec<String>,
        /// From where.
        #[command(flatten)]
        from: From,
    },
    /// Write a backup of all keys to a file, which is there whole and checked, or not at all.
    #[command(after_help = "Examples:\n  \
        sudo keller cluster backup /var/backups/rack1.etcd\n  \
        keller cluster backup rack1.etcd --operator rack1/operator\n\n\
        It is what `etcdctl snapshot save` writes. Keep it as secret as the keys in it.")]
    Backup {
        /// The file.
        file: PathBuf,
        /// From where.
        #[command(flatten)]
        from: From,
    },
    /// On a member of a cluster that is lost: begin it anew from a backup, with this member alone.
    ///
    /// It is refused where another member runs, and where the file is damaged or of another cluster. What this member had
    /// is kept beside it. The other members then join as those that were lost: `keller cluster add NAME`.
    #[command(after_help = "Examples:\n  sudo keller cluster restore /var/backups/rack1.etcd")]
    Restore {
        /// The backup.
        file: PathBuf,
    },
}

fn ip(text: &str) -> Result<IpAddr, String> {
    crate::node::cluster::address(text)
}

pub(super) fn perhaps_at(text: &str) -> Result<(String, Option<IpAddr>), String> {
    let (name, address) = text.split_once('=').map_or((text, None), |(name, at)| (name, Some(at)));
    named(name)?;
    Ok((name.to_owned(), address.map(ip).transpose()?))
}

fn exchange(text: &str) -> Result<(String, String, Option<IpAddr>), String> {
    let Some((old, rest)) = text.split_once('=') else {
        named(text)?;
        return Ok((text.to_owned(), text.to_owned(), None));
    };
    named(old)?;
    let (new, address) = perhaps_at(rest)?;
    Ok((old.to_owned(), new, address))
}

pub(super) fn host_name(name: &str) -> Result<String, String> {
    named(name).map(|()| name.to_owned())
}

fn named(name: &str) -> Result<(), String> {
    match crate::node::is_host_name(name) {
        true => Ok(()),
        false => Err(format!("{name:?} is no host name: letters, digits, `-` and `.`, such as rack1-07")),
    }
}

/// Runs it.
pub(super) fn run(live: &Live, global: &Global) -> Result<ExitCode> {
    match live {
        Live::Status { from } => return status(&access(from, "status")?, global),
        Live::Add { member: (name, ip), from } => {
            changed(&change::add(&access(from, "add")?, name, *ip)?, global)?;
        }
        Live::Remove { name, from } => changed(&change::remove(&access(from, "remove")?, name)?, global)?,
        Live::Replace { member: (old, new, ip), from } => {
            changed(&change::replace(&access(from, "replace")?, old, new, *ip)?, global)?;
        }
        Live::Rights { client, from } => rights(&access(from, "rights")?, client, global)?,
        Live::Backup { file, from } => backup(&access(from, "backup")?, file, global)?,
        Live::Restore { file } => restore(file, global)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn rights(access: &Access, clients: &[String], global: &Global) -> Result<()> {
    clients.iter().try_for_each(|name| named(name)).map_err(anyhow::Error::msg)?;
    let all: BTreeSet<String> = access.list.clients.iter().chain(clients).cloned().collect();
    let granted = rights::grant(access, &Vec::from_iter(all))?;
    match global.json {
        true => streams::json(json!(granted))?,
        false if global.quiet => {}
        false => {
            let was =
                if granted.was_on { "etcd asked for rights before" } else { "etcd asks for rights now" };
            streams::line(was)?;
            for name in &granted.clients {
                streams::line(format_args!("{name} has the keys that begin with {}", rights::below(name)))?;
            }
        }
    }
    Ok(())
}

fn backup(access: &Access, file: &Path, global: &Global) -> Result<()> {
    let display = Display::new(global.verbosity());
    let made = backup::backup(access, file, &display)?;
    match global.json {
        true => streams::json(json!(made))?,
        false if global.quiet => {}
        false => streams::line(format_args!(
            "wrote {}: {} keys at revision {}, {} bytes, from {}",
            made.file.display(),
            made.content.keys,
            made.content.revision,
            made.bytes,
            made.member
        ))?,
    }
    Ok(())
}

fn restore(file: &Path, global: &Global) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("on a member this is for root: sudo keller cluster restore {}", file.display());
    }
    let display = Display::new(global.verbosity());
    let restored = restore::restore(file, Timestamp::now().as_second(), &display)?;
    if global.json {
        return Ok(streams::json(json!(restored))?);
    }
    if global.quiet {
        return Ok(());
    }
    let Restored { member, content, before } = restored;
    streams::line(format_args!("{member} runs with {} keys at revision {}", content.keys, content.revision))?;
    if let Some(before) = before {
        streams::line(format_args!(
            "what it had before is in {}: remove it when all is well",
            before.display()
        ))?;
    }
    let others = content.members.iter().filter(|listed| listed.name != member && !listed.name.is_empty());
    let others: Vec<&str> = others.map(|listed| listed.name.as_str()).collect();
    if !others.is_empty() {
        streams::line(format_args!(
            "next, one after the other: remove the data of etcd on {}, and here `keller cluster add NAME`",
            others.join(", ")
        ))?;
    }
    Ok(())
}

fn access(from: &From, verb: &str) -> Result<Access> {
    match &from.operator {
        Some(directory) => Ok(Access::of_operator(directory)?),
        None if !rustix::process::geteuid().is_root() => {
            bail!(
                "on a member this is for root: sudo keller cluster {verb}; from outside, name an operator's directory: \
                 --operator DIR"
            )
        }
        None if !Path::new(crate::pki::etcd::DIRECTORY).join(crate::pki::etcd::CLIENT).exists() => {
            bail!("this machine has no certificate of an etcd: name an operator's directory, --operator DIR")
        }
        None => Ok(promote::access()?),
    }
}

fn changed(changed: &Changed, global: &Global) -> Result<()> {
    changed.warnings.iter().for_each(|warning| streams::message(format_args!("warning: {warning}")));
    if global.json {
        return Ok(streams::json(json!(changed))?);
    }
    if global.quiet {
        return Ok(());
    }
    if let Some(removed) = &changed.removed {
        streams::line(format_args!("{removed} is no member any more"))?;
    }
    match &changed.added {
        Some(added) if changed.was_so => streams::line(format_args!("{added} is in the list already"))?,
        Some(added) => streams::line(format_args!(
            "{added} is in the list, as a learner: start its machine with the document of {added}, and with no data of \
             etcd; it gets its vote once it has caught up (`keller cluster status`)"
        ))?,
        None => {}
    }
    Ok(())
}

fn status(access: &Access, global: &Global) -> Result<ExitCode> {
    let view = View::of(access);
    let now = Timestamp::now().as_second();
    let wounds = wound::wounds(&view, now);
    match global.json {
        true => streams::json(described(&view, &wounds, now))?,
        false => streams::print(shown(&view, &wounds, now))?,
    }
    let is_well = wounds.iter().all(|wound| !wound.is_grave);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn days(ends: i64, now: i64) -> i64 {
    (ends - now).div_euclid(DAY_SECONDS)
}

fn described(view: &View, wounds: &[Wound], now: i64) -> Value {
    let (voters, good, needed) = view.votes();
    let certificate =
        |dated: &crate::cluster::access::Dated| json!({ "file": dated.file, "days": days(dated.ends, now) });
    let hex = |id: Option<u64>| id.map(|id| format!("{id:x}"));
    let member = |member: &Seen| {
        let mut value = json!({
            "name": member.name, "id": hex(member.id), "role": member.role, "endpoint": member.endpoint,
            "peer_urls": member.peer_urls, "started": !member.is_new, "good": member.is_good(view.id),
        });
        if let Some(answer) = member.answered() {
            let status = &answer.known.status;
            value["version"] = json!(status.version);
            value["database_bytes"] = json!(status.db_size);
            value["database_bytes_in_use"] = json!(status.db_size_in_use);
            value["index"] = json!(status.raft_index);
            value["term"] = json!(status.raft_term);
            value["clock_ahead_seconds"] = json!(answer.known.clock_ahead_seconds);
            value["certificate_days"] = json!(answer.certificate_ends.map(|ends| days(ends, now)));
            if let Some(Ok(ends)) = answer.peer_ends {
                value["peer_certificate_days"] = json!(days(ends, now));
            }
            value["authorities"] = json!({ "clients": answer.clients, "members": answer.peers });
        }
        if let Some(Err(error)) = &member.answer {
            value["error"] = json!(error.to_string());
        }
        value
    };
    json!({
        "cluster": view.name, "id": hex(view.id), "quorum": view.has_quorum(), "voters": voters, "good": good, "needed": needed,
        "leader": view.leading().map(|leader| &leader.name),
        "members": view.members.iter().map(member).collect::<Vec<_>>(),
        "certificates": view.certificates.iter().map(certificate).collect::<Vec<_>>(), "requests": view.requests,
        "wounds": wounds,
    })
}

fn shown(view: &View, wounds: &[Wound], now: i64) -> String {
    let (voters, good, needed) = view.votes();
    let mut text = match voters {
        0 => format!("{}: no member tells who the members are\n\n", view.name),
        _ if good >= needed => {
            format!(
                "{}: {good} of {voters} members with a vote work, {} may fail\n\n",
                view.name,
                good - needed
            )
        }
        _ => format!("{}: {good} of {voters} members with a vote work, {needed} must\n\n", view.name),
    };
    let heads = ["MEMBER", "ADDRESS", "ROLE", "WORKS", "VERSION", "DATABASE", "CLOCK", "CERTIFICATE"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(view.members.iter().map(|member| row(view, member, now)));
    let widths: Vec<usize> = (0..heads.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default())
        .collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(text, "{}", line.trim_end()).expect("a String takes everything");
    }
    let ends = view.certificates.iter().filter(|dated| dated.is_authority).map(|dated| days(dated.ends, now));
    // A node by itself makes authorities without an end.
    if let Some(days) = ends.min().filter(|days| *days < ENDLESS_DAYS) {
        writeln!(text, "\nauthorities end in {days} days").expect("a String takes everything");
    }
    for wound in wounds {
        let mark = if wound.is_grave { '!' } else { '?' };
        write!(
            text,
            "\n{mark} {}\n  way out: {}\n  docs/operations.md, \"{}\"\n",
            wound.text, wound.cure, wound.page
        )
        .expect("a String takes everything");
    }
    text
}

fn row(view: &View, member: &Seen, now: i64) -> [String; 8] {
    let none = || "-".to_owned();
    let role = match member.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Learner => "learner",
        Role::Outside => "outside",
        Role::Unknown => "?",
    };
    let works = if member.is_good(view.id) { "yes" } else { "no" };
    let [version, database, clock, certificate] = match member.answered() {
        None => [none(), none(), none(), none()],
        Some(answer) => {
            let status = &answer.known.status;
            let size = u64::try_from(status.db_size).map_or_else(|_| none(), |bytes| Size(bytes).to_string());
            let clock = answer.known.clock_ahead_seconds.map_or_else(none, |ahead| format!("{ahead:+.0} s"));
            let peer = answer.peer_ends.as_ref().and_then(|ends| ends.as_ref().ok()).copied();
            let first = [answer.certificate_ends, peer].into_iter().flatten().min();
            let ends = first.map_or_else(none, |ends| format!("{} days", days(ends, now)));
            [status.version.clone(), size, clock, ends]
        }
    };
    let at = member.endpoint.map_or_else(none, |at| at.to_string());
    [member.name.clone(), at, role.to_owned(), works.to_owned(), version, database, clock, certificate]
}
