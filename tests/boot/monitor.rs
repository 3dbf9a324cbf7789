//! A second monitor of QEMU: for what a person at the machine cannot do, and for what QEMU says it did.
//!
//! Source: QEMU Machine Protocol Specification.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A connection that hears events from its begin on.
pub struct Monitor {
    answers: BufReader<UnixStream>,
    /// Names of events that nobody has waited for yet.
    events: Vec<String>,
}

impl Monitor {
    /// The argument of `keller boot` that has QEMU listen at `socket`.
    pub fn arguments(socket: &Path) -> [String; 2] {
        ["--qemu-arg=-qmp".to_owned(), format!("--qemu-arg=unix:{},server=on,wait=off", socket.display())]
    }

    /// Connects to a machine that runs.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("QEMU listens");
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut monitor = Self { answers: BufReader::new(stream), events: Vec::new() };
        monitor.execute("qmp_capabilities", &json!({}));
        monitor
    }

    /// Runs a command that has no answer worth looking at.
    pub fn execute(&mut self, command: &str, arguments: &Value) {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.answers.get_mut(), "{request}").unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.read(deadline).unwrap_or_else(|| panic!("{command} had no answer"));
            assert!(answer.get("error").is_none(), "{command}: {answer}");
            if answer.get("return").is_some() {
                return;
            }
        }
    }

    /// Waits for an event; gives how long it took.
    pub fn wait_for(&mut self, event: &str, timeout: Duration) -> Duration {
        let begun = Instant::now();
        while !self.events.iter().any(|seen| seen == event) {
            assert!(self.read(begun + timeout).is_some(), "no {event} within {timeout:?}: {:?}", self.events);
        }
        self.events.clear();
        begun.elapsed()
    }

    /// The next message. Events are noted.
    fn read(&mut self, deadline: Instant) -> Option<Value> {
        let mut line = String::new();
        while !line.ends_with('\n') {
            match self.answers.read_line(&mut line) {
                Ok(0) => panic!("QEMU has ended"),
                // What has come of a line stays in it.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                result => drop(result.unwrap()),
            }
        }
        let message: Value = serde_json::from_str(&line).unwrap();
        self.events.extend(message["event"].as_str().map(str::to_owned));
        Some(message)
    }
}
