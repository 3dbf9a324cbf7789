//! A running virtual machine.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::console::{Console, Wait};
use super::{Cable, Forward, Machine, Program, QemuError, forward, qmp};

/// Called with everything the guest writes, as it comes.
pub(crate) type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// How long a machine may take until its monitor listens: QEMU alone has to start, which takes less than a second.
const MONITOR: Duration = Duration::from_secs(60);

/// How long what QEMU wrote last is waited for once it has ended: whoever reads it from us may have stopped reading.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How many lines of the console an error shows.
const TAIL: usize = 30;

/// A virtual machine; dropping it ends it. It also ends with the thread that started it.
pub(crate) struct Vm {
    child: Child,
    input: Arc<Mutex<ChildStdin>>,
    console: Arc<Console>,
    errors: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    monitor: std::path::PathBuf,
}

impl Vm {
    /// Starts `machine`; what the guest writes goes to the console and to `sink`.
    pub(crate) fn start(
        program: &Program,
        machine: &Machine,
        mut sink: Option<Sink>,
    ) -> Result<Self, QemuError> {
        let mut command = program.command();
        command.args(machine.arguments(program));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for us to answer: with --persist the guest gets to shut down first.
        command.process_group(0);
        let cable = machine.cable.clone();
        // SAFETY: prctl and fcntl are async-signal-safe; the guest must not outlive us, however we end. `cable` keeps its
        // socket open until then.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                cable.iter().try_for_each(Cable::inherit)
            });
        }
        let start = |source| QemuError::Start { program: program.path().to_owned(), source };
        let mut child = command.spawn().map_err(start)?;
        let console = Arc::new(Console::default());
        let errors = Arc::new(Mutex::new(Vec::new()));
        let mut output = child.stdout.take().expect("piped");
        let mut error_output = child.stderr.take().expect("piped");
        let reader = {
            let console = Arc::clone(&console);
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(count @ 1..) = output.read(&mut buffer) {
                    console.push(&buffer[..count]);
                    if let Some(sink) = &mut sink {
                        sink(&buffer[..count]);
                    }
                }
                console.close();
            })
        };
        let error_reader = {
            let errors = Arc::clone(&errors);
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = error_output.read_to_end(&mut text);
                *errors.lock().expect("no panic while held") = text;
            })
        };
        let input = Arc::new(Mutex::new(child.stdin.take().expect("piped")));
        let readers = vec![reader, error_reader];
        Ok(Self { child, input, console, errors, readers, monitor: machine.monitor.clone() })
    }

    /// What the guest wrote.
    pub(crate) fn console(&self) -> &Arc<Console> {
        &self.console
    }

    /// Where what a person types goes.
    pub(crate) fn input(&self) -> Arc<Mutex<ChildStdin>> {
        Arc::clone(&self.input)
    }

    /// Waits for `text` behind position `from`; gives the position behind it.
    pub(crate) fn expect(&mut self, text: &str, from: usize, timeout: Duration) -> Result<usize, QemuError> {
        match self.console.wait_for(text, from, timeout) {
            Wait::Found(position) => Ok(position),
            Wait::TimedOut => {
                Err(QemuError::Timeout { what: text.to_owned(), timeout, tail: self.console.tail(TAIL) })
            }
            Wait::Closed => Err(self.ended(text)),
        }
    }

    fn ended(&mut self, what: &str) -> QemuError {
        let status = match self.wait(Duration::from_secs(5)) {
            Ok(Some(status)) => show(status),
            _ => "its console closed".to_owned(),
        };
        let mut errors =
            String::from_utf8_lossy(&self.errors.lock().expect("no panic while held")).into_owned();
        if !errors.is_empty() && !errors.ends_with('\n') {
            errors.push('\n');
        }
        QemuError::Ended { status, what: what.to_owned(), errors, tail: self.console.tail(TAIL) }
    }

    /// Waits for QEMU's end, at most `timeout`; nothing when it still runs.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>, QemuError> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.child.try_wait().map_err(QemuError::io("waiting for QEMU"))?;
            if status.is_some() {
                self.join();
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until all that QEMU wrote has been taken in.
    fn join(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        while self.readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        for reader in self.readers.drain(..).filter(JoinHandle::is_finished) {
            let _ = reader.join();
        }
    }

    /// Has a port of the host lead to port `guest`: `host`, or one that is free, best the same.
    ///
    /// # Errors
    /// `Port` when it cannot be had, `NotBegun` when QEMU has ended.
    pub(crate) fn forward(&mut self, guest: u16, host: Option<u16>) -> Result<Forward, QemuError> {
        self.begun()?;
        match forward::open(guest, host, |command| qmp::human(&self.monitor, command)) {
            Err(error @ QemuError::Port { .. }) => Err(error),
            // The monitor listens before QEMU has looked at all of its arguments.
            Err(error) => match self.wait(LAST_WORDS)? {
                Some(status) => Err(QemuError::NotBegun { status: show(status), errors: self.errors() }),
                None => Err(error),
            },
            opened => opened,
        }
    }

    /// Waits until the monitor listens.
    fn begun(&mut self) -> Result<(), QemuError> {
        let deadline = Instant::now() + MONITOR;
        loop {
            match UnixStream::connect(&self.monitor) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(QemuError::io("connecting to QEMU's monitor")(error));
                }
                Err(_) => {}
            }
            if let Some(status) = self.wait(Duration::from_millis(20))? {
                return Err(QemuError::NotBegun { status: show(status), errors: self.errors() });
            }
        }
    }

    /// What QEMU itself wrote to its standard error, once it has ended.
    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&self.errors.lock().expect("no panic while held")).into_owned()
    }

    /// Presses the power button and waits for the guest to shut down, at most `timeout`.
    pub(crate) fn power_down(&mut self, timeout: Duration) -> Result<bool, QemuError> {
        self.press_power()?;
        Ok(self.wait(timeout)?.is_some())
    }

    /// Presses the power button; what the guest does then is for the caller to wait for.
    pub(crate) fn press_power(&self) -> Result<(), QemuError> {
        self.order("system_powerdown")
    }

    /// Stops its processors, and with them its clock.
    pub(crate) fn pause(&self) -> Result<(), QemuError> {
        self.order("stop")
    }

    /// Has its processors go on.
    pub(crate) fn resume(&self) -> Result<(), QemuError> {
        self.order("cont")
    }

    fn order(&self, command: &str) -> Result<(), QemuError> {
        qmp::execute(&self.monitor, command, serde_json::json!({})).map(drop)
    }

    /// QEMU's process id.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Cuts the power: the guest sees nothing coming.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.wait(Duration::from_secs(10));
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An exit status in words.
pub(crate) fn show(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "unknown status".to_owned(),
    }
}
