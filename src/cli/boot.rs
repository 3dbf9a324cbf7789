//! `keller boot`: an image under QEMU. Also what `keller run` does once its image is built.

mod args;
mod ready;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

pub use args::MachineArgs;
pub(super) use args::{disk, memory};

use super::failure::{INTERRUPTED, UNSEEN};
use super::inputs::InputArgs;
use super::progress::Display;
use super::streams::{self, OutputError};
use super::terminal::{self, Terminal};
use super::{Global, signals};
use crate::project::Inputs;
use crate::qemu::process::Sink;
use crate::qemu::session::{Event, Expected};
use crate::qemu::{Accelerator, QemuError, Session, Ways};

/// Arguments of `keller boot`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller boot out/node_1.0.0.raw\n  \
    keller boot --persist --forward 8080:80 out/node_1.0.0.raw\n  \
    keller boot --node rack1.yaml out/node_1.0.0.raw\n  \
    keller boot --disk 20GiB --bus nvme out/node_1.0.0.raw\n  \
    keller boot --nic e1000e --nic igb,mute out/node_1.0.0.raw\n  \
    keller boot --expect 'login:' --timeout 180 out/node_1.0.0.raw\n\n\
    Exit code: 0 when the guest has shut down or --expect was found, 1 when QEMU fails or --expect is not \
    found in time, 130 when Ctrl-C or a signal ends it, 141 when whoever reads its console or its messages has \
    gone. The machine always ends with keller.")]
pub struct BootArgs {
    /// An image: raw, qcow2, vhd or vmdk.
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
    let asked: Vec<_> = args.forward.iter().map(|forward| (forward.guest, forward.host)).collect();
    let ways = Ways::open(&mut vm, &asked, guest.ports)?;
    let expected = args.expect.clone().map(|text| Expected::new(text, args.timeout, begun));
    let mut session = Session::new(vm, ways, expected);
    let _terminal = streams::output_is_terminal().then(Terminal::take).flatten();
    if !global.json {
        terminal::forward_keys(session.input());
    }
    let run = Run { guest, args, global, begun, identity: prepared.identity(), interrupted, unwritten };
    run.to_its_end(&mut session)
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

/// Why a run ends before the guest does.
enum Stop {
    /// Ctrl-C or a signal.
    Interrupted,
    /// Whoever reads has gone: nobody would see how it goes on, or find it to end it.
    Unseen,
    /// The console can no longer be shown.
    Unwritten(OutputError),
}

/// What a run shows, and what may end it.
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
    fn to_its_end(&self, session: &mut Session) -> Result<ExitCode> {
        loop {
            match session.next(|| self.stop())? {
                Event::Ready => {
                    let (what, ways) = (&self.guest.what, session.ways());
                    ready::report(ways, what, self.identity, self.begun, self.global)?;
                }
                Event::Found(text) => {
                    self.tell_found(&text)?;
                    return Ok(ExitCode::SUCCESS);
                }
                Event::ShutDown => return Ok(ExitCode::SUCCESS),
                Event::Stopped(stop) => {
                    self.power_off(session)?;
                    return match stop {
                        Stop::Interrupted => Ok(ExitCode::from(INTERRUPTED)),
                        Stop::Unseen => Ok(ExitCode::from(UNSEEN)),
                        Stop::Unwritten(error) => Err(error).context("showing the console"),
                    };
                }
            }
        }
    }

    fn stop(&self) -> Option<Stop> {
        if self.interrupted.swap(false, Ordering::SeqCst) {
            return Some(Stop::Interrupted);
        }
        let unwritten = self.unwritten.lock().expect("no panic while held").take();
        if streams::reader_has_gone() || matches!(unwritten, Some(OutputError::Gone)) {
            return Some(Stop::Unseen);
        }
        unwritten.map(Stop::Unwritten)
    }

    /// Ends the machine; a guest whose writes are kept gets to shut down first.
    fn power_off(&self, session: &mut Session) -> Result<(), QemuError> {
        if self.args.persist {
            streams::tell("\nshutting the guest down; Ctrl-C again cuts its power");
            if !session.shut_down(|| self.interrupted.load(Ordering::SeqCst))? {
                streams::tell("the guest did not shut down: power cut");
            }
        }
        session.kill();
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
