//! A card on an Ethernet that a program of the host makes: each frame goes through a socket, its length before it in four
//! bytes, the highest first.
//!
//! Source: QEMU's net/stream.c and `net_fill_rstate` of net/net.c.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// QEMU's end of the cable, and the card at it.
#[derive(Clone, Debug)]
pub(crate) struct Cable {
    /// A stream, which QEMU inherits: no other process can plug itself in, and no path can be too long.
    pub(crate) socket: Arc<OwnedFd>,
    /// The card's address.
    pub(crate) mac: String,
}

impl Cable {
    /// QEMU's arguments for the card. Without an offer of larger segments at the other end, guests send whole frames of
    /// at most their MTU, with checksums.
    pub(super) fn arguments(&self) -> Vec<String> {
        let socket = self.socket.as_raw_fd();
        let backend = format!("stream,id=lab,server=off,addr.type=fd,addr.str={socket}");
        let device = format!("virtio-net-pci,netdev=lab,mac={},romfile=", self.mac);
        ["-netdev".to_owned(), backend, "-device".to_owned(), device].to_vec()
    }

    /// Lets the program that this process becomes have the socket. Calls nothing but fcntl(2).
    pub(super) fn inherit(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open as long as `self`, and the call has no other argument.
        match unsafe { libc::fcntl(self.socket.as_raw_fd(), libc::F_SETFD, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn qemu_gets_the_number_of_its_socket() {
        let (socket, _) = UnixStream::pair().unwrap();
        let number = socket.as_raw_fd();
        let cable = Cable { socket: Arc::new(socket.into()), mac: "52:54:00:00:00:01".to_owned() };
        let expected = format!(
            "-netdev stream,id=lab,server=off,addr.type=fd,addr.str={number} \
             -device virtio-net-pci,netdev=lab,mac=52:54:00:00:00:01,romfile="
        );
        assert_eq!(cable.arguments().join(" "), expected);
        cable.inherit().unwrap();
    }
}
