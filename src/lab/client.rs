//! A lab that runs, as other programs see it: what its directory's socket can be asked for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use super::LabError;
use super::control::{SOCKET, open, short};
use super::place::LOCK;
use super::request::{Answer, Request};
use super::status::{MachineStatus, State, Status};

/// How long an answer may take: a machine that is killed is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a lab may take to end: its machines have 90 seconds to shut down.
const END: Duration = Duration::from_secs(150);

/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(300);

/// Longest answer: 64 machines, and 4096 pairs of addresses.
const LONGEST: u64 = 4 << 20;

/// The lab of a directory.
#[derive(Clone, Debug)]
pub struct Client {
    directory: PathBuf,
}

impl Client {
    /// The lab that runs in `directory`, or is to.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Asks the lab for something.
    ///
    /// # Errors
    /// `NoLab` where none runs, `Refused` with the lab's own words.
    pub fn ask(&self, request: &Request) -> Result<Value, LabError> {
        let stream = self.connect()?;
        self.send(&stream, request)?;
        self.hear(&stream)
    }

    fn connect(&self) -> Result<UnixStream, LabError> {
        let connect = || UnixStream::connect(short(&open(&self.directory)?, SOCKET));
        connect().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                LabError::NoLab { directory: self.directory.clone() }
            }
            _ => self.io(error),
        })
    }

    fn send(&self, mut stream: &UnixStream, request: &Request) -> Result<(), LabError> {
        let mut send = || {
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut line = serde_json::to_vec(request)?;
            line.push(b'\n');
            // The answer says why, where the lab no longer reads.
            let _ = stream.write_all(&line);
            Ok(())
        };
        send().map_err(|error: io::Error| self.io(error))
    }

    fn hear(&self, stream: &UnixStream) -> Result<Value, LabError> {
        let mut line = Vec::new();
        // No further than the line: what follows is a console's.
        let mut one = BufReader::with_capacity(1, stream).take(LONGEST);
        one.read_until(b'\n', &mut line).map_err(|error| self.io(error))?;
        match serde_json::from_slice(&line) {
            Ok(Answer::Done(value)) => Ok(value),
            Ok(Answer::Error(why)) => Err(LabError::Refused { why }),
            Err(_) if line.is_empty() => Err(LabError::NoLab { directory: self.directory.clone() }),
            Err(error) => Err(self.io(error.into())),
        }
    }

    fn io(&self, source: io::Error) -> LabError {
        LabError::Io { doing: format!("asking the lab in {}", self.directory.display()), source }
    }

    /// How all machines are.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn status(&self) -> Result<Status, LabError> {
        let value = self.ask(&Request::Status {})?;
        serde_json::from_value(value).map_err(|error| self.io(error.into()))
    }

    /// How one machine is.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn machine(&self, name: &str) -> Result<MachineStatus, LabError> {
        let machines = self.status()?.machines;
        let names: Vec<String> = machines.iter().map(|machine| machine.name.clone()).collect();
        machines.into_iter().find(|machine| machine.name == name).ok_or_else(|| LabError::Refused {
            why: format!("no machine of this lab is named {name:?}: there are {}", names.join(", ")),
        })
    }

    /// Waits until ssh answers on these machines, or on all; gives how they are.
    ///
    /// # Errors
    /// A machine that is off or paused, and time that is up.
    pub fn wait(&self, names: &[String], timeout: Duration) -> Result<Vec<MachineStatus>, LabError> {
        let deadline = Instant::now() + timeout;
        for name in names {
            self.machine(name)?;
        }
        loop {
            let mut machines = self.status()?.machines;
            machines.retain(|machine| names.is_empty() || names.contains(&machine.name));
            let is_stuck =
                |machine: &&MachineStatus| !matches!(machine.state, State::Ready | State::Starting);
            let slow = machines.iter().find(is_stuck);
            let slow = slow.or_else(|| machines.iter().find(|machine| machine.state != State::Ready));
            let Some(MachineStatus { name, state, why, console, .. }) = slow else { return Ok(machines) };
            if *state != State::Starting {
                let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                return Err(LabError::Refused { why: format!("{name} is {state}{why}") });
            }
            if Instant::now() >= deadline {
                let why = format!(
                    "{name} did not answer within {} s: see {}",
                    timeout.as_secs(),
                    console.display()
                );
                return Err(LabError::Refused { why });
            }
            thread::sleep(LOOK);
        }
    }

    /// The command that runs `command` on a machine, or a shell; its first word is ssh.
    ///
    /// # Errors
    /// A machine that is off.
    pub fn ssh(&self, name: &str, command: &[String]) -> Result<Command, LabError> {
        let identity = self.status()?.identity;
        let machine = self.machine(name)?;
        let Some(port) = machine.ssh_port else {
            let why = machine.why.unwrap_or_default();
            return Err(LabError::Refused {
                why: format!("{name} is off: {why}: `lab start {name}` starts it"),
            });
        };
        let mut ssh = Command::new("ssh");
        ssh.arg("-i").arg(identity).args(["-p", &port.to_string()]);
        for option in [
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg("core@127.0.0.1");
        if !command.is_empty() {
            ssh.arg("--").args(command);
        }
        Ok(ssh)
    }

    /// A connection that is the machine's console from here on.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn console(&self, name: &str) -> Result<UnixStream, LabError> {
        let stream = self.connect()?;
        self.send(&stream, &Request::Console { name: name.to_owned() })?;
        self.hear(&stream)?;
        stream.set_read_timeout(None).map_err(|error| self.io(error))?;
        Ok(stream)
    }

    /// Ends the lab and waits until it has ended.
    ///
    /// # Errors
    /// As [`Client::ask`], and a lab that goes on.
    pub fn stop(&self) -> Result<(), LabError> {
        self.ask(&Request::Stop {})?;
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if self.has_ended().map_err(|error| self.io(error))? {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        let why = format!("the lab in {} goes on", self.directory.display());
        Err(LabError::Refused { why })
    }

    /// Whether nobody holds the directory's lock.
    fn has_ended(&self) -> io::Result<bool> {
        let path = self.directory.join(LOCK);
        let lock = match crate::base::flock::open(&path) {
            Ok(lock) => lock,
            // The directory has gone too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
