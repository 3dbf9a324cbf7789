//! The verbs of `keller node` that are for a running node.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::file;
use crate::agent::document::{self, Diff, Undone};
use crate::cli::{Global, signals, streams};
use crate::node;

/// Reads a file of documents, for the place in it and all mistakes at once.
fn read(path: &Path) -> Result<(String, Vec<u8>)> {
    root()?;
    let name = path.to_string_lossy().into_owned();
    let bytes = file::read(path)?;
    node::read(&name, &bytes)?;
    Ok((name, bytes))
}

fn shown(diff: &Diff) -> Result<()> {
    for change in &diff.plan.changes {
        streams::line(format_args!("{:7} {}", change.what, change.path))?;
    }
    for line in diff.plan.lines() {
        streams::line(format_args!("→ {line}"))?;
    }
    for line in diff.plan.later.iter().chain(&diff.warnings) {
        streams::line(format_args!("! {line}"))?;
    }
    Ok(())
}

pub(super) fn diff(file: &Path, global: &Global) -> Result<ExitCode> {
    let (name, bytes) = read(file)?;
    let diff = document::diff(&name, &bytes)?;
    let is_same = diff.plan.is_empty();
    match global.json {
        true => {
            let mut described = json!(diff.plan);
            described["warnings"] = json!(diff.warnings);
            streams::json(described)?;
        }
        false if is_same => streams::line("nothing changes")?,
        false => shown(&diff)?,
    }
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn apply(file: &Path, within: Duration, global: &Global) -> Result<()> {
    let (name, bytes) = read(file)?;
    // The change itself may end the connection over which it was asked for.
    signals::ignore_hang_up();
    let applied = document::apply(&name, &bytes, within)?;
    if global.json {
        streams::json(json!(applied))?;
    } else {
        for line in &applied.later {
            streams::line(format_args!("! {line}"))?;
        }
        match applied.until {
            Some(_) => streams::line(format_args!(
                "the network has changed: `keller node confirm` keeps that, as a login over it does; else it is undone \
                 in {} s",
                within.as_secs()
            ))?,
            None if applied.failed.is_empty() => streams::line("applied")?,
            None => {}
        }
    }
    match applied.failed.as_slice() {
        [] => Ok(()),
        failed => bail!("applying {name}: {}", failed.join("; ")),
    }
}

pub(super) fn confirm(global: &Global) -> Result<()> {
    root()?;
    document::confirm()?;
    told(global, "confirmed", &json!({ "confirmed": true }))
}

pub(super) fn undo(now: bool, global: &Global) -> Result<()> {
    root()?;
    match document::undo(now)? {
        Undone::Nothing => told(global, "nothing waits to be confirmed", &json!({ "undone": false })),
        Undone::Back => told(global, "the node is as it was before", &json!({ "undone": true })),
        Undone::Confirmed(login) => {
            let line = format!("confirmed by a login: {login}");
            told(global, &line, &json!({ "undone": false, "login": login }))
        }
    }
}

pub(super) fn status(global: &Global) -> Result<()> {
    let status = document::status();
    if global.json {
        return Ok(streams::json(format_args!("{status:#}"))?);
    }
    let text = |key: &str| status.get(key).and_then(Value::as_str);
    let name = text("name").map(|name| format!("{name}, ")).unwrap_or_default();
    match text("source").unwrap_or("none") {
        "none" => streams::line("no node document")?,
        source => streams::line(format_args!("{name}by the document from {source}"))?,
    }
    for why in status.get("refused").and_then(Value::as_array).into_iter().flatten() {
        streams::line(format_args!("refused: {}", why.as_str().unwrap_or_default()))?;
    }
    if let Some(until) = status.pointer("/pending/until").and_then(Value::as_u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = until.saturating_sub(now);
        streams::line(format_args!("a change of the network waits to be confirmed, for another {left} s"))?;
    }
    if let Some(why) = text("undone") {
        streams::line(format_args!("undone: {why}"))?;
    }
    Ok(())
}

fn root() -> Result<()> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => bail!("only root can read and change a node's document: run this with sudo"),
    }
}

fn told(global: &Global, line: &str, json: &Value) -> Result<()> {
    match global.json {
        true => streams::json(json)?,
        false => streams::line(line)?,
    }
    Ok(())
}
