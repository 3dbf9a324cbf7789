//! Waits for the kernel to find devices.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// How long to sleep where the kernel gives no messages, and at most between two looks where it does: a
/// message can be lost when many devices come at once.
const PATIENCE: Duration = Duration::from_millis(100);

/// The kernel's messages about devices.
#[derive(Debug)]
pub(super) struct Uevents(Option<OwnedFd>);

impl Uevents {
    /// Listens from now on.
    pub(super) fn listen() -> Self {
        let open = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let kernel = Some(KOBJECT_UEVENT);
            let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, kernel)?;
            // Group 1: what the kernel says itself, before udev.
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 1))?;
            Ok::<_, rustix::io::Errno>(socket)
        };
        Self(open().ok())
    }

    /// Returns when something happened, or after a tenth of a second.
    pub(super) fn wait(&self) {
        self.wait_for(PATIENCE);
    }

    /// Returns when nothing has happened for `quiet`, or when `cap` is over.
    pub(super) fn settle(&self, quiet: Duration, cap: Duration) {
        let end = Instant::now() + cap;
        while self.wait_for(quiet) && Instant::now() < end {}
    }

    /// Whether something happens within `quiet`.
    pub(super) fn is_busy(&self, quiet: Duration) -> bool {
        self.wait_for(quiet)
    }

    /// Whether something happened within `time`.
    fn wait_for(&self, time: Duration) -> bool {
        let Some(socket) = &self.0 else {
            std::thread::sleep(time);
            return false;
        };
        let timeout = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        let mut wanted = [PollFd::new(socket, PollFlags::IN)];
        if !matches!(poll(&mut wanted, Some(&timeout)), Ok(1..)) {
            return false;
        }
        let mut message = [0; 8192];
        while rustix::net::recv(socket, &mut message[..], RecvFlags::DONTWAIT).is_ok() {}
        true
    }
}
