//! A lab from its start to its end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::LabError;
use super::client::Client;
use super::control::Control;
use super::guest::{Guest, Spec};
use super::outlet::Outlet;
use super::place::Place;
use super::supervisor::{Event, Message, Supervisor};
use super::switch::Switch;
use crate::qemu::Program;

/// Of the generator that decides which frames a lossy cable loses.
const SEED: u64 = 1;

/// What is started.
pub(crate) struct Setup {
    /// Where.
    pub(crate) place: Place,
    /// The machines, whose disks are there.
    pub(crate) specs: Vec<Spec>,
    /// QEMU.
    pub(crate) program: Program,
    /// Whether disks outlast the lab.
    pub(crate) keep: bool,
    /// The private key by which all machines let one in; it ends with the lab.
    pub(crate) identity: PathBuf,
}

/// A lab that runs; dropping it cuts the power of all machines.
pub struct Running {
    messages: Sender<Message>,
    events: Receiver<Event>,
    thread: Option<JoinHandle<()>>,
    directory: PathBuf,
    identity: PathBuf,
    control: Option<Control>,
    _lock: File,
}

impl Running {
    /// Starts all machines.
    ///
    /// # Errors
    /// The first that does not start; the others are ended then.
    pub(crate) fn start(setup: Setup) -> Result<Self, LabError> {
        let Setup { place: Place { directory, lock }, specs, program, keep, identity } = setup;
        let io = |doing: &str| {
            let doing = doing.to_owned();
            move |source| LabError::Io { doing, source }
        };
        let mut outlets = BTreeMap::new();
        let mut guests = Vec::new();
        for spec in specs {
            let outlet = Outlet::create(&spec.console).map_err(io("beginning the console's file"))?;
            outlets.insert(spec.name.clone(), std::sync::Arc::clone(&outlet));
            guests.push(Guest::new(spec, outlet));
        }
        let switch = Switch::new(guests.len(), SEED);
        let (messages, inbox) = channel();
        let (said, events) = channel();
        let supervisor = Supervisor {
            guests,
            switch,
            program,
            keep,
            identity: identity.clone(),
            events: said,
            ending: None,
        };
        let (begun, has_begun) = channel();
        let thread = std::thread::spawn(move || {
            let mut supervisor = supervisor;
            let result = supervisor.begin();
            let is_good = result.is_ok();
            if begun.send(result).is_ok() && is_good {
                supervisor.run(&inbox);
            }
        });
        let mut running =
            Self { messages, events, thread: Some(thread), directory, identity, control: None, _lock: lock };
        match has_begun.recv() {
            Ok(Ok(())) => {}
            Ok(Err((machine, source))) => {
                return Err(LabError::Machine { machine, source: Box::new(source) });
            }
            Err(_) => return Err(LabError::Refused { why: "the lab ended before it had begun".to_owned() }),
        }
        let control = Control::open(&running.directory, running.messages.clone(), outlets);
        running.control = Some(control.map_err(io("opening the lab's socket"))?);
        Ok(running)
    }

    /// What happened last, waited for so long; nothing where nothing has.
    ///
    /// # Errors
    /// [`Over`] once the lab has ended and all is told.
    pub fn next(&self, timeout: Duration) -> Result<Option<Event>, Over> {
        match self.events.recv_timeout(timeout) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Over),
        }
    }

    /// What the lab can be asked for, also by other programs.
    pub fn client(&self) -> Client {
        Client::new(&self.directory)
    }

    /// The private key by which all machines let one in.
    pub fn identity(&self) -> &Path {
        &self.identity
    }
}

/// The lab has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over;

impl Drop for Running {
    fn drop(&mut self) {
        // First: nobody is to ask a lab that ends.
        self.control = None;
        let _ = self.messages.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.identity);
    }
}
