//! A machine from its start until it ends, is ended, or shows what was expected.

use std::process::ChildStdin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::process::show;
use super::ways::Ways;
use super::{QemuError, Vm};

/// How often is looked at what may end a session.
const LOOK: Duration = Duration::from_millis(200);

/// How long a guest may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(90);

/// A machine that runs, and the ways into it.
pub(crate) struct Session {
    vm: Vm,
    ways: Ways,
    expected: Option<Expected>,
    was_ready: bool,
}

/// A text that is to stand on the console in time.
pub(crate) struct Expected {
    text: String,
    timeout: Duration,
    deadline: Instant,
    /// Where on the console the search goes on.
    from: usize,
}

/// What happened in a session. `S` is why the caller ends it.
#[derive(Debug)]
pub(crate) enum Event<S> {
    /// Something answers on every way in. Said once, and only where no text is expected.
    Ready,
    /// This text, which was expected, stands on the console.
    Found(String),
    /// The guest has shut down.
    ShutDown,
    /// The caller wants it to end.
    Stopped(S),
}

impl Expected {
    /// `text` is to come within `timeout` of `begun`.
    pub(crate) fn new(text: String, timeout: Duration, begun: Instant) -> Self {
        Self { text, timeout, deadline: begun + timeout, from: 0 }
    }

    /// Looks for a short while, so that all else is seen as well.
    fn has_come(&mut self, vm: &mut Vm) -> Result<bool, QemuError> {
        let came = vm.console().position();
        match vm.expect(&self.text, self.from, LOOK) {
            Ok(_) => Ok(true),
            Err(QemuError::Timeout { .. }) if Instant::now() < self.deadline => {
                self.from = came.saturating_sub(self.text.len());
                Ok(false)
            }
            Err(QemuError::Timeout { what, tail, .. }) => {
                Err(QemuError::Timeout { what, timeout: self.timeout, tail })
            }
            Err(error) => Err(error),
        }
    }
}

impl Session {
    /// Of `vm`, which lasts as long.
    pub(crate) fn new(vm: Vm, ways: Ways, expected: Option<Expected>) -> Self {
        Self { vm, ways, expected, was_ready: false }
    }

    /// The ways into the guest.
    pub(crate) fn ways(&self) -> &Ways {
        &self.ways
    }

    /// Where what a person types goes.
    pub(crate) fn input(&self) -> Arc<Mutex<ChildStdin>> {
        self.vm.input()
    }

    /// Waits for what happens next. `stop` is asked a few times a second whether the caller wants the session to end; the
    /// machine still runs then.
    ///
    /// # Errors
    /// A machine that fails, and a text that does not come in time.
    pub(crate) fn next<S>(&mut self, mut stop: impl FnMut() -> Option<S>) -> Result<Event<S>, QemuError> {
        loop {
            if let Some(why) = stop() {
                return Ok(Event::Stopped(why));
            }
            if let Some(expected) = &mut self.expected {
                if expected.has_come(&mut self.vm)? {
                    return Ok(Event::Found(expected.text.clone()));
                }
                continue;
            }
            if let Some(status) = self.vm.wait(LOOK)? {
                if status.success() {
                    return Ok(Event::ShutDown);
                }
                return Err(QemuError::Failed { status: show(status), errors: self.vm.errors() });
            }
            if !self.was_ready && self.ways.ready() {
                self.was_ready = true;
                return Ok(Event::Ready);
            }
        }
    }

    /// Presses the power button and lets the guest shut down until `hurry`, for 90 seconds at most. Says whether it did.
    ///
    /// # Errors
    /// Those of QEMU's monitor.
    pub(crate) fn shut_down(&mut self, hurry: impl Fn() -> bool) -> Result<bool, QemuError> {
        let deadline = Instant::now() + SHUTDOWN;
        let mut down = self.vm.power_down(Duration::ZERO)?;
        while !down && Instant::now() < deadline && !hurry() {
            down = self.vm.wait(LOOK)?.is_some();
        }
        Ok(down)
    }

    /// Cuts the power: the guest sees nothing coming.
    pub(crate) fn kill(&mut self) {
        self.vm.kill();
    }
}
