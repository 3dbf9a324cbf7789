//! The last lines that a unit has left in the journal of this boot.

use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::systemd;
use crate::base::terminal;

/// How many are kept: of a service that is started anew, systemd writes four for each run.
const LINES: &str = "20";
/// How many characters of a line are kept where it is told in a sentence, and in the list of lines.
const OWN_LENGTH: usize = 300;
const LINE_LENGTH: usize = 2000;
/// What stands for a message that journalctl leaves out, as it has more than 4096 bytes.
const TOO_LONG: &str = "(a message that is too long to be shown)";
/// Whoever runs containers: what the container itself says tells more.
const RUNTIMES: [&str; 8] =
    ["podman", "conmon", "crun", "runc", "ctr", "netavark", "aardvark-dns", "containerd-shim"];

/// What a unit said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its name.
    pub unit: String,
    /// The last line of the unit's own processes.
    pub own: Option<String>,
    /// The last lines, those of systemd about it too, each after the name of the program that wrote it.
    pub lines: Vec<String>,
}

impl Said {
    /// Reads the journal; one that cannot be read has no lines.
    pub fn of(unit: &str) -> Self {
        let mut journal = Command::new("journalctl");
        journal.args(["--boot", "--no-pager", "--output=json", "--lines", LINES, "--unit", unit]);
        Self::parse(unit, &systemd::output(&mut journal).unwrap_or_default())
    }

    /// An object a line, as `journalctl --output=json` writes them.
    fn parse(unit: &str, text: &str) -> Self {
        let entries: Vec<Entry> = text.lines().filter_map(|line| Entry::parse(line, unit)).collect();
        let own = |entry: &&Entry| entry.is_own && !entry.text.trim().is_empty();
        let is_runtime = |entry: &&Entry| !entry.is_container && RUNTIMES.contains(&entry.program.as_str());
        let mut last = entries.iter().rev().filter(own);
        let said = last.clone().find(|entry| !is_runtime(entry));
        // podman, too, says why it does not start a container, and afterwards the id of what it removed.
        let complains = |entry: &&Entry| entry.text.to_lowercase().contains("error");
        let said = said.or_else(|| last.clone().find(complains)).or_else(|| last.next());
        Self {
            unit: unit.to_owned(),
            own: said.map(|entry| shown(entry.text.trim().lines().next().unwrap_or_default(), OWN_LENGTH)),
            lines: entries
                .iter()
                .map(|entry| shown(&format!("{}: {}", entry.program, entry.text.trim_end()), LINE_LENGTH))
                .collect(),
        }
    }
}

struct Entry {
    program: String,
    text: String,
    /// By a process of the unit, and not by systemd about it.
    is_own: bool,
    /// By a container, through the one who runs it.
    is_container: bool,
}

impl Entry {
    fn parse(line: &str, unit: &str) -> Option<Self> {
        let fields: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| fields.get(name).and_then(text);
        let program = text("SYSLOG_IDENTIFIER").or_else(|| text("_COMM")).unwrap_or_else(|| "?".to_owned());
        let is_container = text("CONTAINER_NAME").is_some();
        Some(Self {
            program: if is_container { program } else { text("_COMM").unwrap_or(program) },
            text: match fields.get("MESSAGE") {
                Some(Value::Null) => TOO_LONG.to_owned(),
                _ => text("MESSAGE")?,
            },
            is_own: text("_SYSTEMD_UNIT").is_some_and(|of| of == unit) && text("_PID")? != "1",
            is_container,
        })
    }
}

/// `text` as a terminal may have it: what a service writes must not move the cursor of an operator.
fn shown(text: &str, length: usize) -> String {
    let mut shown: String =
        text.chars().map(|letter| if terminal::acts(letter) { ' ' } else { letter }).take(length).collect();
    if text.chars().nth(length).is_some() {
        shown.push('…');
    }
    shown
}

/// A field's value: text, or bytes where it is not plain text, or several of which the last counts.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) if list.iter().all(Value::is_u64) => {
            let bytes: Vec<u8> = list.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        Value::Array(list) => list.last().and_then(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(unit: &str, program: &str, more: &str, message: &str) -> String {
        format!(
            "{{\"_SYSTEMD_UNIT\": \"{unit}\", \"_COMM\": \"{program}\", \"_PID\": \"9\"{more}, \"MESSAGE\": {message}}}\n"
        )
    }

    #[test]
    fn the_units_own_last_line_is_found_among_systemds() {
        let about = |text: &str| {
            format!(
                "{{\"UNIT\": \"a.service\", \"_SYSTEMD_UNIT\": \"init.scope\", \"_COMM\": \"systemd\", \
                 \"_PID\": \"1\", \"MESSAGE\": \"{text}\"}}\n"
            )
        };
        let journal = [
            about("Started a.service."),
            entry("a.service", "server", "", "\"cannot open /data: Permission denied\""),
            entry("a.service", "server", "", "\" \""),
            about("a.service: Main process exited, code=exited, status=3/NOTIMPLEMENTED"),
            "not JSON\n".to_owned(),
        ];
        let said = Said::parse("a.service", &journal.concat());
        assert_eq!(said.own.as_deref(), Some("cannot open /data: Permission denied"));
        assert_eq!(said.lines.len(), 4);
        assert_eq!(said.lines[0], "systemd: Started a.service.");
        assert_eq!(said.lines[1], "server: cannot open /data: Permission denied");
        assert_eq!(Said::parse("a.service", "").own, None);
        // Bytes that are not text.
        let bytes = entry("a.service", "server", "", "[98, 255, 100]");
        assert_eq!(Said::parse("a.service", &bytes).own.as_deref(), Some("b\u{fffd}d"));
    }

    #[test]
    fn what_is_said_is_one_line_of_text() {
        let own = |message: &str| {
            let said = Said::parse("a.service", &entry("a.service", "server", "", message));
            (said.own.unwrap(), said.lines.concat())
        };
        // Colours, which journalctl writes as bytes, and a stack trace.
        let coloured = own("[27, 91, 51, 49, 109, 69, 82, 82]");
        assert_eq!(coloured, (" [31mERR".to_owned(), "server:  [31mERR".to_owned()));
        let trace = own("\"no table\\n  at main\\n  at start\"");
        assert_eq!(trace, ("no table".to_owned(), "server: no table   at main   at start".to_owned()));
        let (long, line) = own(&format!("\"{}\"", "ä".repeat(4000)));
        assert_eq!((long.chars().count(), line.chars().count()), (OWN_LENGTH + 1, LINE_LENGTH + 1));
        assert_eq!(own("null").0, TOO_LONG);
    }

    #[test]
    fn a_containers_line_goes_before_the_runtimes() {
        let container = entry("a.service", "conmon", ", \"CONTAINER_NAME\": \"a\"", "\"no such table\"");
        let started = entry("a.service", "nginx", "", "\"bind() failed\"");
        let complaint = entry("a.service", "podman", "", "\"Error: statfs /data: no such file\"");
        let id = entry("a.service", "podman", "", "\"4f0c1be7a3\"");
        let own = |journal: &[&str]| Said::parse("a.service", &journal.concat()).own.unwrap();
        assert_eq!(own(&[&container, &id]), "no such table");
        assert_eq!(own(&[&started, &id]), "bind() failed");
        assert_eq!(own(&[&complaint, &id]), "Error: statfs /data: no such file");
        assert_eq!(own(&[&id]), "4f0c1be7a3");
    }
}
