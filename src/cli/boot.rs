//! `keller boot`: an image under QEMU. Also what `keller run` does once its image is built.

mod args;
mod ready;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

pub use args::{AskedForward, MachineArgs};
use ready::{SSH, Ways};

use super::failure::{INTERRUPTED, UNSEEN};
use super::inputs::InputArgs;
use super::progress::Display;
use super::streams::{self, OutputError};
use super::terminal::{self, Terminal};
use super::{Global, signals};
use crate::project::Inputs;
use crate::qemu::process::Sink;
use crate::qemu::{Accelerator, QemuError, Vm, process};

/// How often is looked at what may end a run.
const LOOK: Duration = Duration::from_millis(200);

/// How long a guest may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(90);

/// Arguments of `keller boot`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller boot out/node_1.0.0.raw\n  \
    keller boot --persist --forward 8080:80 out/node_1.0.0.raw\n  \
    keller boot --expect 'login:' --timeout 180 out/node_1.0.0.raw\n\n\
    Exit code: 0 when the guest has shut down or --expect was found, 1 when QEMU fails or --expect is not \
    found in time, 130 when Ctrl-C or a signal ends it, 141 when whoever reads its console or its messages has \
    gone. The machine always ends with keller.")]
pub struct BootArgs {
    /// A raw or qcow2 image.
    pub image: PathBuf,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Where QEMU comes from.
    #[command(flatten)]
    pub inputs: InputArgs,
}

/// Boots the image.
pub fn run(args: BootArgs, global: &Global) -> Result<ExitCode> {
    let guest = Guest { image: &args.image, ports: &[], what: args.image.display().to_string() };
    boot(&guest, &args.machine, args.inputs.into(), global)
}

/// What is to be booted.
pub struct Guest<'a> {
    /// The image.
    pub image: &'a Path,
    /// Ports of the guest that serve pages.
    pub ports: &'a [u16],
    /// For messages.
    pub what: String,
}

/// Boots `guest` and stays until it ends, is ended, or shows what was expected.
///
/// # Errors
/// QEMU's, and a console that does not show what was expected.
pub fn boot(guest: &Guest<'_>, args: &MachineArgs, inputs: Inputs, global: &Global) -> Result<ExitCode> {
    let begun = Instant::now();
    let request = args.request(guest.image.to_owned(), inputs);
    let prepared = request.prepare(&Display::new(global.verbosity()))?;
    if !global.quiet {
        let how = match prepared.accelerator() {
            Accelerator::Kvm => "with KVM",
            Accelerator::Tcg => "under emulation (no KVM here): this takes a minute or two",
        };
        streams::tell(format_args!("booting {} {how}; Ctrl-C ends it", guest.what));
    }
    let interrupted = signals::interruption()?;
    let unwritten = Arc::default();
    let shown = (!global.quiet && !global.json).then(|| sink(&unwritten));
    let mut vm = prepared.start(shown)?;
    let ways = open_ways(&mut vm, &args.forward, guest.ports)?;
    let _terminal = streams::output_is_terminal().then(Terminal::take).flatten();
    if !global.json {
        terminal::forward_keys(vm.input());
    }
    let run = Run { guest, args, global, begun, identity: prepared.identity(), interrupted, unwritten };
    run.to_its_end(&mut vm, &ways)
}

/// Shows the console; notes when that fails.
fn sink(unwritten: &Arc<Mutex<Option<OutputError>>>) -> Sink {
    let unwritten = Arc::clone(unwritten);
    Box::new(move |bytes| {
        if let Err(error) = streams::write(bytes) {
            unwritten.lock().expect("no panic while held").get_or_insert(error);
        }
    })
}

/// Opens what was asked for, and a way to ssh and to each of `pages` where none was.
fn open_ways(vm: &mut Vm, asked: &[AskedForward], pages: &[u16]) -> Result<Ways, QemuError> {
    let mut others =
        asked.iter().map(|one| vm.forward(one.guest, one.host)).collect::<Result<Vec<_>, _>>()?;
    let mut services = Vec::new();
    for port in std::iter::once(SSH).chain(pages.iter().copied()) {
        services.push(match others.iter().position(|forward| forward.guest == port) {
            Some(place) => others.remove(place),
            None => vm.forward(port, None)?,
        });
    }
    Ok(Ways::watch(services, others))
}

/// A machine that runs, with all that may end it.
struct Run<'a> {
    guest: &'a Guest<'a>,
    args: &'a MachineArgs,
    global: &'a Global,
    begun: Instant,
    identity: &'a Path,
    interrupted: Arc<AtomicBool>,
    /// Why the console can no longer be shown.
    unwritten: Arc<Mutex<Option<OutputError>>>,
}

impl Run<'_> {
    fn to_its_end(&self, vm: &mut Vm, ways: &Ways) -> Result<ExitCode> {
        let deadline = self.begun + self.args.timeout;
        let (mut seen, mut reported) = (0, false);
        loop {
            if self.interrupted.swap(false, Ordering::SeqCst) {
                self.power_off(vm)?;
                return Ok(ExitCode::from(INTERRUPTED));
            }
            // Nobody would see how it goes on, or find it to end it.
            let unwritten = self.unwritten.lock().expect("no panic while held").take();
            if streams::reader_has_gone() || matches!(unwritten, Some(OutputError::Gone)) {
                self.power_off(vm)?;
                return Ok(ExitCode::from(UNSEEN));
            }
            if let Some(error) = unwritten {
                self.power_off(vm)?;
                return Err(error).context("showing the console");
            }
            if let Some(text) = &self.args.expect {
                // A short slice, so that all else is seen as well.
                let came = vm.console().position();
                match vm.expect(text, seen, LOOK) {
                    Ok(_) => {
                        self.tell_found(text)?;
                        return Ok(ExitCode::SUCCESS);
                    }
                    Err(QemuError::Timeout { .. }) if Instant::now() < deadline => {
                        seen = came.saturating_sub(text.len());
                    }
                    Err(QemuError::Timeout { what, tail, .. }) => {
                        let timeout = self.args.timeout;
                        return Err(QemuError::Timeout { what, timeout, tail }.into());
                    }
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            if let Some(status) = vm.wait(LOOK)? {
                if status.success() {
                    return Ok(ExitCode::SUCCESS);
                }
                bail!("QEMU ended with {}\n{}", process::show(status), vm.errors().trim_end());
            }
            if !reported && ways.ready() {
                reported = true;
                ways.report(&self.guest.what, self.identity, self.begun, self.global)?;
            }
        }
    }

    /// Ends the machine; a guest whose writes are kept gets to shut down first.
    fn power_off(&self, vm: &mut Vm) -> Result<(), QemuError> {
        if self.args.persist {
            streams::tell("\nshutting the guest down; Ctrl-C again cuts its power");
            let deadline = Instant::now() + SHUTDOWN;
            let mut down = vm.power_down(Duration::ZERO)?;
            while !down && Instant::now() < deadline && !self.interrupted.load(Ordering::SeqCst) {
                down = vm.wait(LOOK)?.is_some();
            }
            if !down {
                streams::tell("the guest did not shut down: power cut");
            }
        }
        vm.kill();
        Ok(())
    }

    /// The guest ends with this program, so that there is nothing to connect to.
    fn tell_found(&self, text: &str) -> Result<(), OutputError> {
        let seconds = self.begun.elapsed().as_secs_f64();
        if self.global.json {
            streams::json(json!({ "found": text, "seconds": seconds }))?;
        } else if !self.global.quiet {
            streams::tell(format_args!("\n{text:?} stood on the console after {seconds:.0} s"));
        }
        Ok(())
    }
}
