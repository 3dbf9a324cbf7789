//! `keller store`: the folder of downloads, by hand.

mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::progress::Display;
use super::{Global, streams, time};
use crate::base::{Size, json};
use crate::project::store;
use crate::store::{Freed, Store, StoreError};

/// Look at the store of downloads, and make room in it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    keller store path                              the directory\n  \
    keller store gc                                what nobody used for 30 days\n  \
    keller store gc --older-than 0 --keep node.lock    all that node.lock does not name\n  \
    keller store verify                            read every byte again")]
pub struct Args {
    /// The store; else KELLER_STORE or the user's cache directory.
    #[arg(long, value_name = "DIR", global = true)]
    store: Option<PathBuf>,
    /// Use the store even if others can write it.
    #[arg(long, global = true)]
    allow_shared_store: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Say where the store is.
    Path,
    /// List the blobs: digest, size in bytes, and when each was last used.
    List,
    /// Remove what was not used for some time and is not in one of the locks.
    #[command(after_help = "Examples:\n  \
        keller store gc\n  \
        keller store gc --older-than 0 --keep node.lock --keep other/node.lock\n  \
        keller store gc --max-size 4GiB")]
    Gc {
        /// Keep the files that this lock names, whatever their age; may be repeated.
        #[arg(long, value_name = "LOCK")]
        keep: Vec<PathBuf>,
        /// Remove only what was not used for this long, such as 12h; a number alone is days.
        #[arg(long, value_name = "TIME", default_value = "30", value_parser = time::days)]
        older_than: Duration,
        /// Then remove derived files, the least recently used first, until they take at most this much, such as 4GiB.
        #[arg(long, value_name = "SIZE")]
        max_size: Option<Size>,
    },
    /// Read all of it, and move away what has rotted on the disk or was changed.
    Verify,
}

/// Runs the verb.
pub fn run(args: &Args, global: &Global) -> anyhow::Result<ExitCode> {
    let root = store::place(args.store.as_deref())?;
    let display = Display::new(global.verbosity());
    let open = || store::open(&root, args.allow_shared_store, &display);
    let mut report = match &args.verb {
        Verb::Path => {
            Report { text: format!("{}\n", root.display()), json: json!(json::text_of(&root)), amiss: None }
        }
        Verb::List => list(&open()?)?,
        Verb::Gc { keep, older_than, max_size } => {
            let keep = store::named_by(keep)?;
            let mut store = open()?;
            let sweep = || -> Result<Freed, StoreError> {
                let mut freed = store.gc(&keep, *older_than)?;
                if let Some(limit) = max_size {
                    freed += store.trim(limit.bytes(), Duration::ZERO)?;
                }
                Ok(freed)
            };
            swept(&{ sweep }().context("sweeping the store")?)
        }
        Verb::Verify => verify::verify(&open()?)?,
    };
    let amiss = report.amiss.take();
    if let Some(error) = &amiss {
        // The result and the error in one object.
        report.json["error"] = json!(error);
    }
    match global.json {
        true => streams::json(report.json)?,
        // What was asked for is told; that nothing was amiss is not.
        false if global.quiet && matches!(args.verb, Verb::Gc { .. } | Verb::Verify) => {}
        false => streams::print(report.text)?,
    }
    if let Some(error) = amiss {
        streams::message(format_args!("error: {error}"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What a verb has to tell, for people and for programs.
pub struct Report {
    text: String,
    json: serde_json::Value,
    /// What is wrong, after which the verb has failed.
    amiss: Option<String>,
}

fn list(store: &Store) -> anyhow::Result<Report> {
    let (mut text, mut blobs) = (String::new(), Vec::new());
    for entry in store.blobs()? {
        let used = jiff::Timestamp::try_from(entry.used).unwrap_or_default();
        let digest = entry.digest.map(|digest| digest.to_hex()).unwrap_or_default();
        text.push_str(&format!("{digest} {:>12} {}\n", entry.size, used.strftime("%Y-%m-%d %H:%M")));
        blobs.push(json!({ "sha256": digest, "size": entry.size, "used": used.to_string() }));
    }
    Ok(Report { text, json: json!(blobs), amiss: None })
}

fn swept(freed: &Freed) -> Report {
    let Freed { blobs, derived, tools, litter, bytes } = *freed;
    let text = format!(
        "{} freed: {blobs} blobs, {derived} derived files, {tools} tools, {litter} left-overs\n",
        Size(bytes).human()
    );
    let json = json!({
        "bytes": bytes, "blobs": blobs, "derived": derived, "tools": tools, "litter": litter
    });
    Report { text, json, amiss: None }
}
