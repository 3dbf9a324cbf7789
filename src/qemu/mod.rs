//! Boots images on a workstation: QEMU with UEFI firmware, its console, its ports.

pub(crate) mod accelerator;
pub(crate) mod cable;
pub(crate) mod console;
pub(crate) mod devices;
pub(crate) mod forward;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod qmp;
pub(crate) mod session;
pub(crate) mod ways;

pub(crate) use accelerator::Accelerator;
pub(crate) use cable::Cable;
pub(crate) use devices::{Bus, Nic};
pub(crate) use forward::Forward;
pub(crate) use machine::Machine;
pub(crate) use process::Vm;
pub(crate) use program::Program;
pub(crate) use session::Session;
pub(crate) use ways::Ways;

use std::path::PathBuf;
use std::time::Duration;

/// What can go wrong with a virtual machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QemuError {
    /// Neither on PATH nor unpacked.
    #[error("no {what} here: install it, or let keller fetch it (needs a Debian mirror)")]
    Missing {
        /// `qemu-system-x86_64` or the firmware.
        what: String,
    },
    /// The program could not be started.
    #[error("starting {program}: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or socket around the machine.
    #[error("{doing}: {source}")]
    Io {
        /// In the gerund.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// QEMU ended before it had begun.
    #[error("QEMU ended with {status} before the machine had begun\n{}", .errors.trim_end())]
    NotBegun {
        /// Exit code or signal.
        status: String,
        /// What QEMU itself wrote.
        errors: String,
    },
    /// QEMU ended while the machine ran.
    #[error("QEMU ended with {status}\n{}", .errors.trim_end())]
    Failed {
        /// Exit code or signal.
        status: String,
        /// What QEMU itself wrote.
        errors: String,
    },
    /// A port of the host cannot be had.
    #[error(
        "port {host} of 127.0.0.1 cannot lead to port {guest} of the guest: QEMU says {answer:?}; another program may have it: 0 instead of it takes any that is free"
    )]
    Port {
        /// Of the host.
        host: u16,
        /// Of the guest.
        guest: u16,
        /// QEMU's words.
        answer: String,
    },
    /// QEMU ended before what was waited for.
    #[error("QEMU ended early ({status}) while waiting for {what:?}\n{errors}{tail}")]
    Ended {
        /// Exit code or signal.
        status: String,
        /// The expected text.
        what: String,
        /// What QEMU itself wrote.
        errors: String,
        /// The last lines of the console.
        tail: String,
    },
    /// The text did not come in time.
    #[error("{what:?} did not appear on the console within {} s; its last lines were:\n{tail}", .timeout.as_secs())]
    Timeout {
        /// The expected text.
        what: String,
        /// How long was waited.
        timeout: Duration,
        /// The last lines of the console.
        tail: String,
    },
    /// QMP's answer.
    #[error("QEMU's monitor answered {answer}")]
    Monitor {
        /// As sent.
        answer: String,
    },
}

impl QemuError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// The lines of a file of the top-level folder `qemu`, each cut into its words; `#` begins a remark.
fn settings(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_and_blank_lines_are_left_out() {
        let text = "# remark\n\n-a b\n-c  d,e=1\n";
        assert_eq!(settings(text).collect::<Vec<_>>(), [["-a", "b"], ["-c", "d,e=1"]]);
    }
}
