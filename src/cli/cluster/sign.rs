//! `keller cluster sign`: new certificates for members that ask for them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::cli::{Global, streams};
use crate::cluster::sign::Treated;
use crate::project::cluster::Sign;

/// Arguments of `keller cluster sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The directory that `init` made.
    directory: PathBuf,
    /// Sign for this member alone; repeatable.
    #[arg(long, value_name = "NAME", value_parser = super::live::host_name)]
    member: Vec<String>,
    /// Show and judge requests, and sign none.
    #[arg(long)]
    dry_run: bool,
}

/// Runs it.
pub(super) fn run(args: &SignArgs, global: &Global) -> Result<ExitCode> {
    let sign = Sign {
        directory: args.directory.clone(),
        members: args.member.clone(),
        dry_run: args.dry_run,
        now: Timestamp::now().as_second(),
    };
    let treated = sign.run()?;
    if global.json {
        streams::json(json!({ "dry_run": args.dry_run, "requests": treated }))?;
    } else if treated.is_empty() {
        if !global.quiet {
            streams::line("no member asks for certificates")?;
        }
    } else {
        for one in &treated {
            match one.refused {
                // Whoever wants silence still hears what went wrong.
                Some(_) => streams::message(line(one, args.dry_run)),
                None if global.quiet => {}
                None => streams::line(line(one, args.dry_run))?,
            }
        }
    }
    let is_refused = treated.iter().any(|one| one.refused.is_some());
    Ok(if is_refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn date(at: i64) -> String {
    let at = Timestamp::from_second(at);
    at.map_or_else(|_| "?".to_owned(), |at| at.to_zoned(TimeZone::UTC).date().to_string())
}

fn line(one: &Treated, dry: bool) -> String {
    let mut text = one.member.clone();
    if let (Some(since), Some(ends)) = (one.since, one.ends) {
        text += &format!(": asks since {}, its certificate ends on {}", date(since), date(ends));
    }
    text += &match (&one.refused, one.until) {
        (Some(refused), _) => format!(": not signed: {refused}"),
        (None, Some(until)) if dry => format!("; new ones would last until {}", date(until)),
        (None, Some(until)) => format!("; signed until {}", date(until)),
        (None, None) => String::new(),
    };
    text
}
