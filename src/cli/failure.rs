//! How a verb ends: its exit code, and what it says when it fails, for people and as JSON.

use std::error::Error;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use super::streams::{self, OutputError};
use crate::base::chain::is_said;
use crate::base::{Chain, json};
use crate::lock::resolve::ResolveError;
use crate::manifest::{Diagnostics, Place};

/// Wrong usage.
const USAGE: u8 = 2;
/// Ended by SIGINT, SIGTERM or SIGHUP: as a shell would say of SIGINT, 128 + 2.
pub const INTERRUPTED: u8 = 130;
/// The reader of standard output or standard error has gone: as a shell would say of SIGPIPE, 128 + 13.
pub const UNSEEN: u8 = 141;

/// What the exit codes mean, for `--help`.
pub const CODES: &str = "Exit codes:\n  \
    0    done\n  \
    1    failed; with `inspect`, `check`, `store verify`, `etc diff`: something is amiss\n  \
    2    wrong usage: nothing was begun\n  \
    130  interrupted: by SIGINT, SIGTERM or SIGHUP\n  \
    141  the reader of standard output has gone, as in `keller boot IMAGE | head`\n\n\
    With --json, standard output holds JSON alone. After a failure its last line is an object\n\
    {\"error\": text, \"chain\": [step, …, cause], \"places\": [{file, line, column, message, help}, …]}";

/// Says why a verb failed; with `json` on standard output too.
pub fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    if matches!(error.downcast_ref(), Some(OutputError::Gone)) {
        return ExitCode::from(UNSEEN);
    }
    let text = format!("error: {}", Chain(error.as_ref()));
    // Whatever is wrong with a file stands at its place, one after the other.
    match error.chain().any(|cause| cause.is::<Diagnostics>()) {
        true => streams::tell(text),
        false => streams::message(text),
    }
    if json && streams::json(described(error)).is_err() {
        // Said on standard error already.
        return ExitCode::FAILURE;
    }
    ExitCode::FAILURE
}

/// Says what is wrong with the command line, or shows the help that was asked for.
pub fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        // Whoever has seen enough of it has not failed.
        return match error.print().map_err(OutputError::from) {
            Ok(()) | Err(OutputError::Gone) => ExitCode::SUCCESS,
            Err(failed) => report(&failed.into(), json),
        };
    }
    // Without colours, which are escapes like those that may stand in an argument.
    streams::tell(error.to_string().trim_end());
    if json {
        let text = error.render().to_string();
        let text = text.lines().next().unwrap_or_default();
        let text = text.strip_prefix("error: ").unwrap_or(text);
        let _ = streams::json(json!({ "error": text, "chain": [text], "places": [] }));
    }
    ExitCode::from(USAGE)
}

/// The failure as JSON.
pub fn described(error: &anyhow::Error) -> Value {
    json!({
        "error": Chain(error.as_ref()).to_string(),
        "chain": chain(error.as_ref()),
        "places": places(error),
    })
}

/// Each step of the chain, what it says alone; see [`Chain`] for what is left out.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut steps: Vec<String> = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !steps.last().is_some_and(|step| is_said(step, &text)) {
            steps.push(text.trim_start_matches('\n').to_owned());
        }
        next = cause.source();
    }
    steps
}

/// A place in a file that an error speaks of.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(serialize_with = "json::path")]
    file: &'a std::path::Path,
    line: usize,
    column: usize,
    message: String,
    help: Option<&'a str>,
}

/// Every place that the chain knows of.
fn places(error: &anyhow::Error) -> Vec<Value> {
    for cause in error.chain() {
        if let Some(diagnostics) = cause.downcast_ref::<Diagnostics>() {
            return diagnostics.list.iter().map(|one| json!(one)).collect();
        }
        if let Some(resolve) = cause.downcast_ref::<ResolveError>() {
            return resolve.places().into_iter().map(|(place, message)| told(place, message)).collect();
        }
    }
    Vec::new()
}

fn told(place: &Place, message: String) -> Value {
    json!(Told { file: &place.file, line: place.line, column: place.column, message, help: None })
}
