//! An address from a DHCP server: RFC 2131, section 3.1, as far as a machine needs it that stays for some minutes.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::card::Card;
use super::packet::{Answer, Kind, LARGEST, Question};
use crate::boot::lease::Lease;

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// How long each question waits for its answer, in seconds. A switch that runs STP passes nothing on for the first 30 s of a link,
/// unless the port is set to do so: the questions go beyond that.
const PATIENCE: [u64; 6] = [1, 2, 4, 8, 16, 16];
/// An offer is taken by this many requests, with a pause between them.
const REQUESTS: u32 = 3;
const REQUEST_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether somebody else has found an address.
const STEP: Duration = Duration::from_millis(200);

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    /// Nobody answers.
    #[error("no DHCP server answered {questions} questions within {} s", .within.as_secs())]
    NoAnswer {
        /// That were asked.
        questions: usize,
        /// Since the first.
        within: Duration,
    },
    /// Another card was faster.
    #[error("another card has an address")]
    Stopped,
    /// The kernel does not send.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A card and how it is spoken over.
struct Exchange<'a> {
    card: &'a Card,
    socket: UdpSocket,
    number: u32,
    begun: Instant,
    stop: &'a AtomicBool,
}

/// Asks over `card`, which is up, until there is an answer, `stop` is set, or nobody has answered for long.
pub(super) fn acquire(card: &Card, stop: &AtomicBool) -> Result<Lease, Silence> {
    let [a, b, c, d, ..] = crate::base::kernel::random()?;
    let number = u32::from_be_bytes([a, b, c, d]);
    let exchange = Exchange { card, socket: socket(card)?, number, begun: Instant::now(), stop };
    for patience in PATIENCE {
        // A cable that is pulled out meanwhile is no reason to give up.
        let _ = exchange.send(Kind::Discover, None);
        let Some(offer) = exchange.hear(Duration::from_secs(patience), &[Kind::Offer])? else { continue };
        if let Some(lease) = exchange.take(&offer)? {
            return Ok(lease);
        }
    }
    Err(Silence::NoAnswer { questions: PATIENCE.len(), within: exchange.begun.elapsed() })
}

/// Tells the server that an address is free again; it finds out by itself otherwise.
pub(super) fn release(card: &Card, lease: &Lease) {
    let (Some(server), Ok([a, b, c, d, ..])) = (lease.server, crate::base::kernel::random()) else { return };
    let number = u32::from_be_bytes([a, b, c, d]);
    let offered = Some((lease.address, server));
    let question = Question { kind: Kind::Release, number, seconds: 0, card: card.address, offered };
    // Another card may be asking from the same port.
    if let Ok(socket) = socket(card) {
        let _ = socket.send_to(&question.bytes(), (server, SERVER));
    }
}

impl Exchange<'_> {
    fn send(&self, kind: Kind, offered: Option<(Ipv4Addr, Ipv4Addr)>) -> io::Result<()> {
        let seconds = u16::try_from(self.begun.elapsed().as_secs()).unwrap_or(u16::MAX);
        let question = Question { kind, number: self.number, seconds, card: self.card.address, offered };
        self.socket.send_to(&question.bytes(), (Ipv4Addr::BROADCAST, SERVER)).map(drop)
    }

    /// The first answer of one of `kinds` within `patience`.
    fn hear(&self, patience: Duration, kinds: &[Kind]) -> Result<Option<Answer>, Silence> {
        let end = Instant::now() + patience;
        let mut buffer = [0; LARGEST + 1];
        while Instant::now() < end {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Silence::Stopped);
            }
            // Whatever a socket says that has waited in vain: a card that is gone is seen by those who look for carrier.
            let Ok(count) = self.socket.recv(&mut buffer) else { continue };
            let answer = Answer::parse(&buffer[..count], self.number, self.card.address);
            if let Some(answer) = answer.filter(|answer| kinds.contains(&answer.kind)) {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// Takes what was offered; nothing where the server has changed its mind.
    fn take(&self, offer: &Answer) -> Result<Option<Lease>, Silence> {
        for _ in 0..REQUESTS {
            let _ = self.send(Kind::Request, Some((offer.lease.address, offer.server)));
            match self.hear(REQUEST_PATIENCE, &[Kind::Ack, Kind::Nak])? {
                Some(answer) if answer.kind == Kind::Ack => return Ok(Some(answer.lease)),
                Some(_) => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }
}

/// Speaks over `card` alone, which has no address.
fn socket(card: &Card) -> io::Result<UdpSocket> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_broadcast(&socket, true)?;
    bind_to(&socket, &card.name)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT))?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(STEP))?;
    Ok(socket)
}

/// `SO_BINDTODEVICE` of socket(7).
fn bind_to(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let length = libc::socklen_t::try_from(name.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads as many bytes of the name as it has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
