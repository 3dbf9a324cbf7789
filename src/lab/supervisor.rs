//! The thread that a lab's machines belong to: it starts them, looks after them and does what is asked. Machines end with
//! the thread that started them, so that all are started here.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::core::Condition;
use super::guest::{Guest, Seen};
use super::request::Request;
use super::status::{CableStatus, MachineStatus, State, Status, Traffic};
use super::switch::Switch;
use crate::qemu::{Program, QemuError};

/// How often it is looked at what has become of the machines.
const LOOK: Duration = Duration::from_millis(100);

/// How long a machine may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(90);

/// What the thread is told.
pub(super) enum Message {
    /// Do this, and answer there.
    Ask(Request, Sender<Reply>),
    /// End at once.
    End,
}

/// What was asked for, or why it could not be done.
pub(super) type Reply = Result<Value, String>;

/// What happens in a lab.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// This machine answers on ssh, so long after its start.
    Ready(String, Duration),
    /// This machine ended by itself, for this reason.
    Ended(String, String),
    /// Something is wrong with this machine.
    Fault(String, String),
    /// The lab ends: machines are shut down.
    Ending,
    /// This machine did not shut down in time, and its power was cut.
    Forced(String),
    /// What was to be thrown away could not be.
    Left(String, String),
}

/// The machines and what looks after them.
pub(super) struct Supervisor {
    pub(super) guests: Vec<Guest>,
    pub(super) switch: Arc<Switch>,
    pub(super) program: Program,
    /// Whether disks outlast the lab.
    pub(super) keep: bool,
    pub(super) identity: PathBuf,
    pub(super) events: Sender<Event>,
    /// By when all are to have shut down.
    pub(super) ending: Option<Instant>,
}

impl Supervisor {
    /// Starts all machines.
    ///
    /// # Errors
    /// The first that does not start, by its name.
    pub(super) fn begin(&mut self) -> Result<(), (String, QemuError)> {
        for number in 0..self.guests.len() {
            let guest = &mut self.guests[number];
            if let Err(error) = guest.start(&self.program, &self.switch, number) {
                let name = guest.spec.name.clone();
                self.end_now();
                return Err((name, error));
            }
        }
        Ok(())
    }

    /// Goes on until the lab has ended.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            match messages.recv_timeout(LOOK) {
                Ok(Message::Ask(request, reply)) => {
                    let _ = reply.send(self.answer(&request));
                }
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.look();
            if let Some(deadline) = self.ending
                && (Instant::now() >= deadline || self.guests.iter().all(|guest| !guest.is_on()))
            {
                break;
            }
        }
        self.end_now();
    }

    /// Tells what has become of the machines.
    fn look(&mut self) {
        for (number, guest) in self.guests.iter_mut().enumerate() {
            let name = guest.spec.name.clone();
            let event = match guest.look() {
                Ok(None) => None,
                Ok(Some(Seen::Ready(after))) => Some(Event::Ready(name.clone(), after)),
                Ok(Some(Seen::Ended(why))) => {
                    self.switch.unplug(number);
                    Some(Event::Ended(name.clone(), why))
                }
                Err(error) => Some(Event::Fault(name.clone(), error.to_string())),
            };
            let fault = guest.outlet.fault().map(|fault| Event::Fault(name, fault));
            event.into_iter().chain(fault).for_each(|event| drop(self.events.send(event)));
        }
    }

    /// Cuts the power of all that still run, and throws away what is not kept.
    fn end_now(&mut self) {
        for (number, guest) in self.guests.iter_mut().enumerate() {
            if self.ending.is_some() && self.keep && guest.is_on() {
                let _ = self.events.send(Event::Forced(guest.spec.name.clone()));
            }
            guest.kill("the lab has ended");
            self.switch.unplug(number);
            guest.outlet.close();
            if !self.keep
                && let Err(error) = guest.spec.layer.remove()
            {
                let _ = self.events.send(Event::Left(guest.spec.name.clone(), error.to_string()));
            }
        }
    }

    fn answer(&mut self, request: &Request) -> Reply {
        match request {
            Request::Status {} => serde_json::to_value(self.status()).map_err(|error| error.to_string()),
            Request::Stop {} => {
                self.stop();
                Ok(json!({ "stopping": true }))
            }
            Request::Console { .. } => Err("the console is not asked for here".to_owned()),
            Request::Cut { a, b } => self.change(a, b.as_deref(), |old| Condition { cut: true, ..old }),
            Request::Mend { a, b } => self.change(a, b.as_deref(), |_| Condition::default()),
            Request::Delay { a, b, milliseconds } => {
                let delay = Duration::from_millis(*milliseconds);
                self.change(a, Some(b), |old| Condition { delay, ..old })
            }
            Request::Loss { a, b, of_a_million } => {
                let loss = (*of_a_million).min(1_000_000);
                self.change(a, Some(b), |old| Condition { loss, ..old })
            }
            Request::Kill { name }
            | Request::Start { name }
            | Request::Pause { name }
            | Request::Resume { name }
            | Request::Down { name }
            | Request::Wipe { name } => {
                let number = self.find(name)?;
                if self.ending.is_some() {
                    return Err("the lab is ending".to_owned());
                }
                self.order(number, request)?;
                Ok(json!({ "machine": name, "state": self.guests[number].state() }))
            }
        }
    }

    /// Does something with one machine.
    fn order(&mut self, number: usize, request: &Request) -> Result<(), String> {
        let guest = &mut self.guests[number];
        let (name, state) = (guest.spec.name.clone(), guest.state());
        if !matches!(request, Request::Start { .. } | Request::Wipe { .. }) && state == State::Off {
            return Err(format!("{name} is off: `lab start {name}` starts it"));
        }
        let said = |error: QemuError| error.to_string();
        match request {
            Request::Kill { .. } => {
                guest.kill("its power was cut");
                self.switch.unplug(number);
                Ok(())
            }
            Request::Start { .. } if state != State::Off => {
                Err(format!("{name} runs already: it is {state}"))
            }
            Request::Start { .. } => guest.start(&self.program, &self.switch, number).map_err(said),
            Request::Wipe { .. } if state != State::Off => Err(format!(
                "{name} runs, and its disk cannot be taken from it: `lab kill {name}` cuts its power"
            )),
            Request::Wipe { .. } => guest
                .spec
                .layer
                .make(self.keep)
                .map_err(|error| format!("making the disk of {name} anew: {error}")),
            Request::Pause { .. } if state == State::Paused => Err(format!("{name} is paused already")),
            Request::Pause { .. } => guest.pause(true).map_err(said),
            Request::Resume { .. } if state != State::Paused => {
                Err(format!("{name} is not paused: it is {state}"))
            }
            Request::Resume { .. } => guest.pause(false).map_err(said),
            _ => guest.press_power().map_err(said),
        }
    }

    /// Ends the lab: at once, unless disks are kept, and when it is asked for twice.
    fn stop(&mut self) {
        if self.ending.is_some() || !self.keep {
            self.ending = Some(Instant::now());
            return;
        }
        self.ending = Some(Instant::now() + SHUTDOWN);
        let _ = self.events.send(Event::Ending);
        for guest in &mut self.guests {
            if let Err(error) = guest.press_power() {
                let _ = self.events.send(Event::Fault(guest.spec.name.clone(), error.to_string()));
            }
        }
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        self.guests.iter().position(|guest| guest.spec.name == name).ok_or_else(|| {
            let names: Vec<_> = self.guests.iter().map(|guest| guest.spec.name.as_str()).collect();
            format!("no machine of this lab is named {name:?}: there are {}", names.join(", "))
        })
    }

    /// Changes the cable between `a` and `b`, or between `a` and all others.
    fn change(&mut self, a: &str, b: Option<&str>, change: impl Fn(Condition) -> Condition) -> Reply {
        let first = self.find(a)?;
        let others: Vec<usize> = match b {
            Some(b) => vec![self.find(b)?],
            None => (0..self.guests.len()).filter(|other| *other != first).collect(),
        };
        if others.contains(&first) {
            return Err(format!("{a} has no cable to itself: name two machines"));
        }
        for other in others {
            self.switch.set(first, other, change(self.switch.condition(first, other)));
        }
        serde_json::to_value(self.cables()).map_err(|error| error.to_string())
    }

    fn cables(&self) -> Vec<CableStatus> {
        let name = |number: usize| self.guests[number].spec.name.clone();
        let cables = self.switch.conditions().into_iter().map(|((a, b), condition)| CableStatus {
            a: name(a),
            b: name(b),
            cut: condition.cut,
            delay_milliseconds: u64::try_from(condition.delay.as_millis()).unwrap_or(u64::MAX),
            lost_of_a_million: condition.loss,
        });
        cables.collect()
    }

    fn status(&self) -> Status {
        let machine_of = |mac: &str| {
            self.guests.iter().find(|guest| guest.spec.mac == mac).map(|guest| guest.spec.name.clone())
        };
        let (traffic, others, lost) = self.switch.traffic();
        let traffic = traffic.into_iter().map(|((from, to), count)| {
            let (from, to) = (from.to_string(), to.to_string());
            Traffic {
                from_machine: machine_of(&from),
                to_machine: machine_of(&to),
                from,
                to,
                frames: count.frames,
                bytes: count.bytes,
            }
        });
        Status {
            traffic: traffic.collect(),
            machines: self
                .guests
                .iter()
                .enumerate()
                .map(|(number, guest)| self.machine(number, guest))
                .collect(),
            cables: self.cables(),
            other_frames: others.frames,
            lost_frames: lost,
            identity: self.identity.clone(),
        }
    }

    fn machine(&self, number: usize, guest: &Guest) -> MachineStatus {
        let counts = self.switch.counts(number);
        let times = guest.times();
        let (ssh_port, forwards) = guest.ways();
        MachineStatus {
            name: guest.spec.name.clone(),
            state: guest.state(),
            why: guest.why_off().or(counts.fault),
            seconds: times.map(|(_, since, _)| since.as_secs_f64()),
            ready_after: times.and_then(|(_, _, after)| after).map(|after| after.as_secs_f64()),
            process: times.map(|(process, ..)| process),
            ssh_port,
            forwards,
            mac: guest.spec.mac.clone(),
            address: guest.spec.address.clone(),
            console: guest.spec.console.clone(),
            sent_frames: counts.sent.frames,
            received_frames: counts.received.frames,
            dropped_frames: counts.dropped,
        }
    }
}
