//! What a lab that runs is asked for.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Action, show};
use crate::cli::failure::INTERRUPTED;
use crate::cli::terminal::Terminal;
use crate::cli::{Global, signals, streams};
use crate::lab::{CableStatus, Client, Request};

/// Asks for it, and shows what the lab answers.
///
/// # Errors
/// No lab, and what it refuses.
pub(super) fn run(action: Action, global: &Global) -> Result<ExitCode> {
    let (place, request) = match action {
        Action::Status { place } => {
            let status = place.client().status()?;
            match global.json {
                true => streams::json(serde_json::to_value(&status)?)?,
                false => streams::print(show::status(&status) + "\n")?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        Action::Wait { names, timeout, place } => {
            let machines = place.client().wait(&names, timeout)?;
            match global.json {
                true => streams::json(json!({ "machines": machines }))?,
                false if global.quiet => {}
                false => {
                    let names: Vec<_> = machines.into_iter().map(|machine| machine.name).collect();
                    streams::line(format_args!("ready: {}", names.join(", ")))?;
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        Action::Ssh { place, name, command } => return ssh(&place.client(), &name, &command, global),
        Action::Console(_) if global.json => bail!("a console is no JSON: leave out --json"),
        Action::Console(one) => return console(one.place.client().console(&one.name)?),
        Action::Stop { name: None, place } => {
            place.client().stop()?;
            if global.json {
                streams::json(json!({ "stopped": true }))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        Action::Stop { name: Some(name), place } => (place, Request::Down { name }),
        Action::Kill(one) => (one.place, Request::Kill { name: one.name }),
        Action::Start(one) => (one.place, Request::Start { name: one.name }),
        Action::Pause(one) => (one.place, Request::Pause { name: one.name }),
        Action::Resume(one) => (one.place, Request::Resume { name: one.name }),
        Action::Wipe(one) => (one.place, Request::Wipe { name: one.name }),
        Action::Cut(cable) => (cable.place, Request::Cut { a: cable.a, b: cable.b }),
        Action::Mend(cable) => (cable.place, Request::Mend { a: cable.a, b: cable.b }),
        Action::Delay { a, b, time, place } => (place, Request::Delay { a, b, milliseconds: time }),
        Action::Loss { a, b, part, place } => (place, Request::Loss { a, b, of_a_million: part }),
        Action::Up(_) | Action::Check { .. } | Action::Init { .. } | Action::Schema { .. } => {
            unreachable!("these ask no lab")
        }
    };
    let answer = place.client().ask(&request)?;
    tell(&request, answer, global)?;
    Ok(ExitCode::SUCCESS)
}

/// Says what was done.
fn tell(request: &Request, answer: Value, global: &Global) -> Result<()> {
    let is_cable = matches!(
        request,
        Request::Cut { .. } | Request::Mend { .. } | Request::Delay { .. } | Request::Loss { .. }
    );
    if global.json {
        let answer = if is_cable { json!({ "cables": answer }) } else { answer };
        return Ok(streams::json(answer)?);
    }
    if global.quiet {
        return Ok(());
    }
    if is_cable {
        let cables: Vec<CableStatus> = serde_json::from_value(answer).context("reading the lab's answer")?;
        if cables.is_empty() {
            streams::line("all cables are whole")?;
        }
        for cable in &cables {
            streams::line(show::cable(cable))?;
        }
        return Ok(());
    }
    let words = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().replace('-', " ");
    let name = answer.get("machine").and_then(Value::as_str).unwrap_or_default();
    Ok(streams::line(format_args!("{name} is {}", words("state")))?)
}

fn ssh(client: &Client, name: &str, words: &[String], global: &Global) -> Result<ExitCode> {
    let mut ssh = client.ssh(name, words)?;
    let context = "starting ssh, which has to be installed";
    if !global.json {
        // Nothing is left to do here: the exit code and the terminal are ssh's.
        return Err(ssh.exec()).context(context);
    }
    if words.is_empty() {
        streams::json(json!({ "command": as_words(&ssh) }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let output = ssh.stdin(Stdio::null()).output().context(context)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code();
    streams::json(json!({ "code": code, "output": text(&output.stdout), "errors": text(&output.stderr) }))?;
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn as_words(command: &Command) -> Vec<String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Shows the console and types into it, until the lab ends or whoever looks has enough.
fn console(stream: UnixStream) -> Result<ExitCode> {
    use std::sync::atomic::Ordering;
    let interrupted = signals::interruption()?;
    let _terminal = streams::output_is_terminal().then(Terminal::take).flatten();
    let mut keys = stream.try_clone().context("using the console")?;
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            if keys.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    });
    stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).context("using the console")?;
    let (mut from, mut buffer) = (&stream, [0; 8192]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(ExitCode::SUCCESS),
            Ok(count) => streams::write(&buffer[..count])?,
            Err(error) if is_nothing_yet(&error) => {}
            Err(error) => return Err(error).context("reading the console"),
        }
        if interrupted.load(Ordering::SeqCst) {
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
}

fn is_nothing_yet(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
