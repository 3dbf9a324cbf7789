//! `keller publish`: versions for nodes to take, as static files.

mod prune;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::keys::read;
use super::progress::Display;
use super::{Global, streams, time};
use crate::base::Size;
use crate::project::publish::{Change, Outcome, Publish, Which};
use crate::repository::Listing;
use crate::repository::publish::{Added, Keep, Options, Prune};
use crate::update::delta::LEVEL;

/// Publish an image for nodes to take: a repository of static files, for any web server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller publish out/node_1.0.1.raw --to repository\n  \
    keller publish out/node_1.0.2.raw --to repository --channel beta --notes security\n  \
    keller publish --promote 1.0.2 --channel stable --to repository\n  \
    keller publish --withdraw 1.0.2 --to repository            nodes that do not have it do not take it\n  \
    keller publish --refresh --to repository                   once a day, from a timer\n  \
    keller publish --list --to repository\n  \
    keller publish out/node_1.0.3.raw --to repository --keep 5  and take versions that nobody needs out of the list\n  \
    keller publish --prune --keep 5 --dry-run --to repository   show what --keep 5 would take out and delete\n  \
    keller publish --prune --to repository                      delete files that no node can be led to any more\n\n\
    Nodes that read while this runs see the state before or after. Copy with timestamp.json last:\n  \
    rsync --exclude timestamp.json, then all of it.")]
pub struct PublishArgs {
    /// The raw image.
    #[arg(required_unless_present_any = ["refresh", "promote", "withdraw", "list", "prune"])]
    image: Option<PathBuf>,
    /// The repository's directory; made when missing.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Directory of the keys.
    #[arg(long, value_name = "DIR", default_value = "keys")]
    keys: PathBuf,
    /// A private key that is kept elsewhere, or a pipe as of <(COMMAND); may be repeated.
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The channel that nodes follow; may be repeated for an image.
    #[arg(long, value_name = "NAME", default_value = "stable", conflicts_with_all = ["refresh", "list", "prune"])]
    channel: Vec<String>,
    /// What changed, for people.
    #[arg(long, value_name = "TEXT", conflicts_with = "mode")]
    notes: Option<String>,
    /// The oldest version that may go to this one in one step.
    #[arg(long, value_name = "VERSION", conflicts_with = "mode")]
    minimum: Option<String>,
    /// Make patches from this many earlier versions; with --keep, keep as many for the next version's patches.
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with_all = ["refresh", "promote", "withdraw", "list"])]
    patches: usize,
    /// How hard to compress what nodes fetch without a patch, 1 to 19: a low level is for trying things out. What the
    /// version before compressed at the same level is reused.
    #[arg(long, value_name = "LEVEL", default_value_t = LEVEL, value_parser = clap::value_parser!(i32).range(1..=19), conflicts_with = "mode")]
    level: i32,
    /// How long nodes believe that there is nothing newer, unless it is renewed.
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = time::any, conflicts_with = "list")]
    expires: Duration,
    /// Renew what expires, and bring new keys out.
    #[arg(long, group = "mode", conflicts_with = "image")]
    refresh: bool,
    /// Add a published version to the channel.
    #[arg(long, value_name = "VERSION", group = "mode", conflicts_with = "image")]
    promote: Option<String>,
    /// Take a published version out of the channel.
    #[arg(long, value_name = "VERSION", group = "mode", conflicts_with = "image")]
    withdraw: Option<String>,
    /// List what is published.
    #[arg(long, group = "mode", conflicts_with = "image")]
    list: bool,
    /// Delete files once no list that a node may believe names them; with --keep, take versions out of the list first.
    #[arg(long, group = "mode", conflicts_with = "image")]
    prune: bool,
    /// Keep the newest N versions of each channel, those that the next patches start from, those that older nodes need as
    /// a step, and the newest of each image; take all others out of the list.
    #[arg(long, value_name = "N", conflicts_with_all = ["refresh", "promote", "withdraw", "list"])]
    keep: Option<NonZeroUsize>,
    /// Delete files this long after they have left the list, such as 12h; a number alone is days. Without it, files stay
    /// until no node can believe a list that names them. Safe only if no cache or copy of the repository is older.
    #[arg(long, value_name = "TIME", value_parser = time::days, conflicts_with_all = ["refresh", "promote", "withdraw", "list"])]
    grace: Option<Duration>,
    /// Tell what --prune would do, and do nothing.
    #[arg(long, requires = "prune", conflicts_with = "image")]
    dry_run: bool,
    /// Of several images in one repository, this one.
    #[arg(long, value_name = "ID", conflicts_with_all = ["image", "refresh"])]
    id: Option<String>,
}

impl PublishArgs {
    /// A flag that would have no effect beside the others.
    pub fn idle(&self, is_given: impl Fn(&str) -> bool) -> Option<&'static str> {
        if self.prune && self.keep.is_none() {
            return ["id", "patches", "expires"].into_iter().find(|name| is_given(name));
        }
        let is_idle = self.image.is_some() && self.keep.is_none() && self.grace.is_some();
        is_idle.then_some("grace")
    }
}

/// Publishes, renews, promotes, withdraws or lists.
///
/// # Errors
/// Images, keys and repositories that do not go together; see the repository.
pub fn run(args: &PublishArgs, global: &Global) -> Result<ExitCode> {
    let display = Display::new(global.verbosity());
    let outcome = args.request().run(&read(&args.keys, &args.key)?, &display)?;
    let (text, json) = told(&outcome, args.dry_run)?;
    drop(display);
    match global.json {
        true => streams::json(json)?,
        false if global.quiet => {}
        false => streams::print(text)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl PublishArgs {
    fn request(&self) -> Publish {
        let which = |version: &String| Which {
            id: self.id.clone(),
            version: version.clone(),
            channels: self.channel.clone(),
        };
        let prune = |id: &Option<String>| Prune {
            keep: self.keep.map(|versions| Keep {
                versions: versions.get(),
                patches: self.patches,
                id: id.clone(),
            }),
            grace: self.grace,
        };
        let change = if self.list {
            Change::List(self.id.clone())
        } else if let Some(path) = &self.image {
            let options = Options {
                channels: self.channel.clone(),
                notes: self.notes.clone(),
                minimum: self.minimum.clone(),
                patches: self.patches,
                level: self.level,
            };
            Change::Add(path.clone(), options, self.keep.map(|_| prune(&None)))
        } else if self.prune {
            Change::Prune(prune(&self.id), self.dry_run)
        } else if let Some(version) = &self.promote {
            Change::Promote(which(version))
        } else if let Some(version) = &self.withdraw {
            Change::Withdraw(which(version))
        } else {
            Change::Refresh
        };
        Publish { to: self.to.clone(), life: self.expires, change }
    }
}

/// What came of it, for people and for programs.
fn told(outcome: &Outcome, is_plan: bool) -> serde_json::Result<(String, serde_json::Value)> {
    Ok(match outcome {
        Outcome::Added(added, pruned) => {
            let (mut text, mut json) = (added_text(added), serde_json::to_value(added)?);
            if let Some(pruned) = pruned {
                text.push_str(&prune::text(pruned, false));
                json["pruned"] = serde_json::to_value(pruned)?;
            }
            (text, json)
        }
        Outcome::Pruned(pruned) => {
            let mut json = serde_json::to_value(pruned)?;
            json["dry_run"] = json!(is_plan);
            (prune::text(pruned, is_plan), json)
        }
        Outcome::Changed(listing) => {
            (line(listing), json!({ "version": listing.version, "channels": listing.channels }))
        }
        Outcome::Refreshed(expires) => {
            let text = format!("good until {}\n", expires.strftime("%Y-%m-%d %H:%M UTC"));
            (text, json!({ "expires": expires.to_string() }))
        }
        Outcome::Listed(releases) => (releases.iter().map(line).collect(), serde_json::to_value(releases)?),
    })
}

fn line(listing: &Listing) -> String {
    let channels = if listing.channels.is_empty() { "-".to_owned() } else { listing.channels.join(",") };
    let minimum = listing.minimum.as_ref().map_or_else(String::new, |it| format!("  from {it} on"));
    format!("{} {:<16} {channels}{minimum}\n", listing.id, listing.version)
}

fn added_text(added: &Added) -> String {
    let mut text = line(&added.listing);
    if !added.new {
        text.push_str("it was published before\n");
        return text;
    }
    let size = |bytes: u64| Size(bytes).human();
    text.push_str(&format!(
        "  in full            root {}, kernel image {}\n",
        size(added.root),
        size(added.uki)
    ));
    for patch in &added.patches {
        let part = |bytes: Option<u64>| bytes.map_or_else(|| "in full".to_owned(), size);
        let from = format!("from {}", patch.from);
        text.push_str(&format!("  {from:<18} root {}, kernel image {}\n", part(patch.root), part(patch.uki)));
    }
    text
}
