//! Whether the machine can run guests itself.

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;

/// How instructions of the guest are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// By the processor.
    Kvm,
    /// By emulation: 10 to 30 times slower, works everywhere.
    Tcg,
}

impl Accelerator {
    /// KVM where it works. A readable /dev/kvm is not enough: in nested machines the device may be there
    /// while the processor shows no virtualisation, and QEMU would abort on its first register access.
    pub(crate) fn probe() -> Self {
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let capable = flags
            .lines()
            .find(|line| line.starts_with("flags"))
            .is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"));
        if capable && can_create_vm() { Self::Kvm } else { Self::Tcg }
    }

    /// The arguments of a QEMU of which it is known that it is `recent`: version 8 or later.
    pub(crate) fn arguments(self, recent: bool) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", emulated(recent)],
        }
    }
}

/// All that QEMU can emulate but the promise that a string instruction is the fastest way to copy, fill and compare memory:
/// emulated, it goes byte by byte, and Linux and glibc take 8 to 32 bytes at a time where it is not made. Up to the
/// start of systemd, a node takes a seventh less of the host's processor. Only a recent QEMU knows the later three.
const fn emulated(recent: bool) -> &'static str {
    if recent { "max,-erms,-fsrm,-fzrm,-fsrs,-fsrc" } else { "max,-erms,-fsrm" }
}

fn can_create_vm() -> bool {
    /// `_IO(KVMIO, 0x01)` of linux/kvm.h.
    const KVM_CREATE_VM: libc::c_ulong = 0xAE01;
    let Ok(kvm) = OpenOptions::new().read(true).write(true).open("/dev/kvm") else { return false };
    // SAFETY: the request takes a plain integer and gives a descriptor or -1.
    let vm = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) };
    if vm >= 0 {
        // SAFETY: the descriptor was just given to us and nobody else has it.
        unsafe { libc::close(vm) };
    }
    vm >= 0
}
