//! One machine of a lab: started, ended, started over.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::layer::Layer;
use super::outlet::Outlet;
use super::status::State;
use super::switch::Switch;
use crate::qemu::process::show;
use crate::qemu::{Cable, Forward, Machine, Program, QemuError, Vm, Ways};

/// A machine with all that it is made of.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// Its name.
    pub(crate) name: String,
    /// What QEMU is told; its cable is plugged in at each start.
    pub(crate) machine: Machine,
    /// Its disk.
    pub(crate) layer: Layer,
    /// Its card on the lab's Ethernet.
    pub(crate) mac: String,
    /// Its address there, where the lab gives it one.
    pub(crate) address: Option<String>,
    /// Ports of the guest, and those of the host that are asked for.
    pub(crate) forwards: Vec<(u16, Option<u16>)>,
    /// What it writes to its console.
    pub(crate) console: PathBuf,
}

/// A machine, on or off.
pub(super) struct Guest {
    pub(super) spec: Spec,
    pub(super) outlet: Arc<Outlet>,
    /// Where the last run's ports were.
    previous: Vec<Forward>,
    run: Option<Run>,
    /// Why it is off.
    off: String,
}

/// A machine that is on.
struct Run {
    vm: Vm,
    ways: Ways,
    begun: Instant,
    ready_after: Option<Duration>,
    is_paused: bool,
    /// Whether its power button was pressed.
    is_going: bool,
}

/// What is seen of a machine that was looked at.
pub(super) enum Seen {
    /// ssh answers, for the first time since its start.
    Ready(Duration),
    /// It ended by itself.
    Ended(String),
}

impl Guest {
    /// A machine that is off.
    pub(super) fn new(spec: Spec, outlet: Arc<Outlet>) -> Self {
        Self { spec, outlet, previous: Vec::new(), run: None, off: "it was not started".to_owned() }
    }

    /// Starts it at `port` of the switch. The machine ends with the thread that calls this.
    ///
    /// # Errors
    /// QEMU's.
    pub(super) fn start(
        &mut self,
        program: &Program,
        switch: &Arc<Switch>,
        port: usize,
    ) -> Result<(), QemuError> {
        let socket = switch.plug(port).map_err(QemuError::io("plugging a cable in"))?;
        let cable = Cable { socket: Arc::new(socket), mac: self.spec.mac.clone() };
        let machine = Machine { cable: Some(cable), ..self.spec.machine.clone() };
        // One that was killed leaves it.
        let _ = std::fs::remove_file(&machine.monitor);
        let begun = Instant::now();
        let mut vm = Vm::start(program, &machine, Some(self.outlet.sink()))?;
        let ways = Ways::open_again(&mut vm, &self.spec.forwards, &[], &self.previous)?;
        self.outlet.lead_to(Some(vm.input()));
        self.previous = ways.ssh().into_iter().chain(ways.others().iter().copied()).collect();
        self.run = Some(Run { vm, ways, begun, ready_after: None, is_paused: false, is_going: false });
        Ok(())
    }

    /// Looks what has become of it.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn look(&mut self) -> Result<Option<Seen>, QemuError> {
        let Some(run) = &mut self.run else { return Ok(None) };
        if let Some(status) = run.vm.wait(Duration::ZERO)? {
            let why = self.ended(status);
            return Ok(Some(Seen::Ended(why)));
        }
        if run.ready_after.is_none() && run.ways.ready() {
            let after = run.begun.elapsed();
            run.ready_after = Some(after);
            return Ok(Some(Seen::Ready(after)));
        }
        Ok(None)
    }

    /// Notes that QEMU has ended; gives why.
    fn ended(&mut self, status: ExitStatus) -> String {
        let why = match self.run.take() {
            Some(run) if !status.success() => {
                let errors = run.vm.errors();
                format!("QEMU ended with {}: {}", show(status), errors.trim())
                    .trim_end_matches(": ")
                    .to_owned()
            }
            _ => "it shut down".to_owned(),
        };
        self.turn_off(&why);
        why
    }

    /// Cuts its power.
    pub(super) fn kill(&mut self, why: &str) {
        if let Some(mut run) = self.run.take() {
            run.vm.kill();
            self.turn_off(why);
        }
    }

    fn turn_off(&mut self, why: &str) {
        self.run = None;
        self.outlet.lead_to(None);
        why.clone_into(&mut self.off);
    }

    /// Presses its power button.
    ///
    /// # Errors
    /// QEMU's.
    pub(super) fn press_power(&mut self) -> Result<(), QemuError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if run.is_paused {
            // Nothing that stands still sees a button.
            run.vm.resume()?;
            run.is_paused = false;
        }
        run.is_going = true;
        run.vm.press_power()
    }

    /// Stops its processors, or has them go on.
    ///
    /// # Errors
    /// QEMU's.
    pub(super) fn pause(&mut self, pause: bool) -> Result<(), QemuError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        match pause {
            true => run.vm.pause()?,
            false => run.vm.resume()?,
        }
        run.is_paused = pause;
        Ok(())
    }

    /// What it does.
    pub(super) fn state(&self) -> State {
        match &self.run {
            None => State::Off,
            Some(run) if run.is_paused => State::Paused,
            Some(run) if run.is_going => State::ShuttingDown,
            Some(run) if run.ready_after.is_some() => State::Ready,
            Some(_) => State::Starting,
        }
    }

    /// Whether it has power.
    pub(super) fn is_on(&self) -> bool {
        self.run.is_some()
    }

    /// Why it is off, if it is.
    pub(super) fn why_off(&self) -> Option<String> {
        self.run.is_none().then(|| self.off.clone())
    }

    /// QEMU's process, and the time since its start and until it was ready.
    pub(super) fn times(&self) -> Option<(u32, Duration, Option<Duration>)> {
        self.run.as_ref().map(|run| (run.vm.process(), run.begun.elapsed(), run.ready_after))
    }

    /// The port that leads to its ssh, and the others with those to which they lead.
    pub(super) fn ways(&self) -> (Option<u16>, Vec<(u16, u16)>) {
        let Some(run) = &self.run else { return (None, Vec::new()) };
        let others = run.ways.others().iter().map(|forward| (forward.host, forward.guest)).collect();
        (run.ways.ssh().map(|forward| forward.host), others)
    }
}
