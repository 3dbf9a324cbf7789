//! Reports of an unattended installation to a server of the operator's. They are sent in the background; only the end waits for
//! them, at most [`CAP`]. A server that does not answer fails no installation.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Refusal, Report, State};
use crate::base::{Chain, Digest, Progress};
use crate::http::url::Url;
use crate::http::{Client, Settings};
use crate::node::{Machine, Secret};

/// Between the tries of one message: the network may come up after the installation has begun.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(20)];
/// How long is waited at the end.
const CAP: Duration = Duration::from_secs(60);

/// What is told, as JSON.
#[derive(Debug, Serialize)]
struct Message<'a> {
    state: &'static str,
    /// Why it was refused, or failed.
    reason: Option<String>,
    /// Of the machine, as its firmware has it.
    serial: &'a Option<String>,
    uuid: &'a Option<String>,
    macs: Vec<&'a str>,
    /// By the document.
    name: &'a Option<String>,
    /// Once it is on a disk.
    disk: Option<&'a str>,
    id: Option<&'a str>,
    version: Option<&'a str>,
    root_hash: Option<&'a Digest>,
}

/// Which machine tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Who {
    /// As firmware and kernel show it.
    pub machine: Machine,
    /// By its document.
    pub name: Option<String>,
}

impl Who {
    fn message(&self, state: &'static str) -> Message<'_> {
        let Machine { serial, uuid, macs } = &self.machine;
        Message {
            state,
            reason: None,
            serial,
            uuid,
            macs: macs.iter().map(String::as_str).collect(),
            name: &self.name,
            disk: None,
            id: None,
            version: None,
            root_hash: None,
        }
    }

    /// What is told before anything is done.
    fn begun(&self) -> (&'static str, String) {
        encoded(&self.message("begun"))
    }

    /// What is told while nothing can be done yet.
    fn waiting(&self, reason: &str) -> (&'static str, String) {
        encoded(&Message { reason: Some(reason.to_owned()), ..self.message("waiting") })
    }

    /// What is told at the end.
    fn ended(&self, result: Result<&Report, &anyhow::Error>) -> (&'static str, String) {
        encoded(&match result {
            Ok(report) => Message {
                disk: Some(&report.disk),
                id: Some(&report.id),
                version: Some(&report.version),
                root_hash: Some(&report.root_hash),
                ..self.message(match report.state {
                    State::Installed => "installed",
                    State::Already => "already",
                })
            },
            Err(error) => Message {
                reason: Some(Chain(error.as_ref()).to_string()),
                ..self.message(if error.is::<Refusal>() { "refused" } else { "failed" })
            },
        })
    }
}

fn encoded(message: &Message<'_>) -> (&'static str, String) {
    (message.state, serde_json::to_string(message).expect("text and lists of it"))
}

/// What one installation tells, where its document names an address.
pub(super) struct Reports {
    who: Who,
    teller: Option<Teller>,
    /// The last reason to wait that was told.
    reason: String,
}

impl Reports {
    /// Of the machine `who`, to nobody yet.
    pub(super) fn new(who: Who) -> Self {
        Self { who, teller: None, reason: String::new() }
    }

    /// Tells `address` that it has begun, and all that comes, unless somebody is told already.
    pub(super) fn open(&mut self, address: Option<&Secret>, progress: &dyn Progress) {
        let Some(Secret(address)) = address.filter(|_| self.teller.is_none()) else { return };
        let url = String::from_utf8_lossy(address).parse::<Url>();
        let teller = url.map_err(|error| error.to_string()).and_then(Teller::new);
        self.teller = teller.inspect_err(|reason| progress.warn(reason)).ok();
        self.tell(Who::begun);
    }

    /// Names the machine.
    pub(super) fn name(&mut self, name: Option<&String>) {
        self.who.name = name.cloned();
    }

    /// Tells why it waits, once for each reason.
    pub(super) fn wait(&mut self, reason: &str) {
        if self.reason != reason {
            self.reason = reason.to_owned();
            self.tell(|who| who.waiting(reason));
        }
    }

    /// Tells how it has ended, and waits until all is told, at most [`CAP`].
    pub(super) fn end(mut self, result: Result<&Report, &anyhow::Error>, progress: &dyn Progress) {
        self.tell(|who| who.ended(result));
        let failed = self.teller.map(|teller| teller.end(CAP));
        failed.into_iter().flatten().for_each(|failed| progress.warn(&failed));
    }

    fn tell(&mut self, message: impl FnOnce(&Who) -> (&'static str, String)) {
        if let Some(teller) = &mut self.teller {
            teller.tell(message(&self.who));
        }
    }
}

/// Hands messages over in their order, beside the work.
struct Teller {
    queue: Sender<(&'static str, String)>,
    /// Of each message, why it was not told.
    told: Receiver<Option<String>>,
    open: usize,
}

impl Teller {
    /// Sends reports to `url`.
    ///
    /// # Errors
    /// Why the client cannot be set up.
    fn new(url: Url) -> Result<Self, String> {
        let settings = Settings {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            pauses: PAUSES.to_vec(),
            ..Settings::of_host()
        };
        let client =
            Client::new(settings).map_err(|error| format!("reporting to {url}: {}", Chain(&error)))?;
        let (queue, messages) = mpsc::channel::<(&'static str, String)>();
        let (outcomes, told) = mpsc::channel();
        thread::spawn(move || {
            for (state, text) in messages {
                let failed = client.post(&url, &text).err().map(|error| {
                    let (tries, cause) = (error.tries, Chain(error.cause.as_ref()));
                    format!("`{state}` was not reported to {url}, tried {tries} times: {cause}")
                });
                if outcomes.send(failed).is_err() {
                    break;
                }
            }
        });
        Ok(Self { queue, told, open: 0 })
    }

    /// Has `message` told.
    fn tell(&mut self, message: (&'static str, String)) {
        if self.queue.send(message).is_ok() {
            self.open += 1;
        }
    }

    /// Waits until all is told, but no longer than `cap`; what was not.
    fn end(self, cap: Duration) -> Vec<String> {
        let end = Instant::now() + cap;
        let mut failed = Vec::new();
        for left in (1..=self.open).rev() {
            match self.told.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(outcome) => failed.extend(outcome),
                Err(_) => {
                    failed.push(format!("reports not sent within {} s: {left}", cap.as_secs_f32()));
                    break;
                }
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_that_says_nothing_holds_nothing_up() {
        // Connections are taken by the kernel, and nobody answers.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://me:s3cret@{}/x?token=s3cret", listener.local_addr().unwrap());
        let mut teller = Teller::new(url.parse().unwrap()).unwrap();
        let who = Who::default();
        let begun = Instant::now();
        teller.tell(who.begun());
        teller.tell(who.ended(Err(&Refusal::Optical { path: "/dev/sr0".into() }.into())));
        assert!(begun.elapsed() < Duration::from_secs(1));
        let failed = teller.end(Duration::from_millis(200));
        assert_eq!(failed, ["reports not sent within 0.2 s: 2"]);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn what_is_told() {
        let machine = Machine { serial: Some("7HX2K13".into()), ..Machine::default() };
        let who = Who { machine, name: Some("rack1-07".into()) };
        let refused = who.ended(Err(&Refusal::Optical { path: "/dev/sr0".into() }.into()));
        assert_eq!(
            refused,
            (
                "refused",
                r#"{"state":"refused","reason":"/dev/sr0 is an optical drive: name a disk","serial":"7HX2K13","uuid":null,"macs":[],"name":"rack1-07","disk":null,"id":null,"version":null,"root_hash":null}"#
                    .to_owned()
            )
        );
        let failed = who.ended(Err(&anyhow::anyhow!("no room").context("installing onto /dev/sda")));
        assert_eq!(failed.0, "failed");
        assert!(
            who.waiting("not found").1.starts_with(r#"{"state":"waiting","reason":"not found","serial""#)
        );
        assert!(failed.1.contains(r#""reason":"installing onto /dev/sda: no room""#), "{}", failed.1);
    }
}
