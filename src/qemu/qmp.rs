//! QEMU's monitor: one command, one answer.
//!
//! Source: QEMU Machine Protocol Specification.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::QemuError;

/// Connects to the monitor at `socket`, runs `command` with `arguments`, gives what it returns.
pub(crate) fn execute(socket: &Path, command: &str, arguments: Value) -> Result<Value, QemuError> {
    let io = |source| QemuError::Io { doing: format!("asking QEMU's monitor for {command}"), source };
    let mut stream = UnixStream::connect(socket).map_err(io)?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(io)?;
    let mut lines = BufReader::new(stream.try_clone().map_err(io)?).lines();
    let mut answer = Value::Null;
    for (name, arguments) in [("qmp_capabilities", json!({})), (command, arguments)] {
        let request = json!({ "execute": name, "arguments": arguments });
        writeln!(stream, "{request}").map_err(io)?;
        answer = loop {
            let line =
                lines.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into())).map_err(io)?;
            let message: Value =
                serde_json::from_str(&line).map_err(|_| QemuError::Monitor { answer: line.clone() })?;
            if message.get("error").is_some() {
                return Err(QemuError::Monitor { answer: line });
            }
            // The greeting and events come in between.
            if let Some(value) = message.get("return") {
                break value.clone();
            }
        };
    }
    Ok(answer)
}

/// Runs a command of the monitor for people; gives its answer, which is empty when there is nothing to say.
pub(crate) fn human(socket: &Path, command: &str) -> Result<String, QemuError> {
    let answer = execute(socket, "human-monitor-command", json!({ "command-line": command }))?;
    Ok(answer.as_str().unwrap_or_default().to_owned())
}
