//! The ways into a guest, and whether something answers there yet.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Forward, QemuError, Vm};

/// The guest's port for ssh.
const SSH: u16 = 22;
/// How often a service is tried.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a connection within this machine may take.
const CONNECT: Duration = Duration::from_millis(500);
/// How long a guest may take to answer: an emulated one is slow.
const ANSWER: Duration = Duration::from_secs(10);

/// A port that is looked at until something answers there.
struct Service {
    forward: Forward,
    answered: AtomicBool,
}

/// The ways into a guest.
pub(crate) struct Ways {
    /// Those behind which something is known to answer, once it runs.
    services: Arc<Vec<Service>>,
    /// Those that were asked for besides.
    others: Vec<Forward>,
}

impl Ways {
    /// Has the ports of the host that were `asked` for lead to ports of the guest (guest, host), and one each to ssh and
    /// to the `pages` that none of them leads to. Looks at ssh and pages in the background until all have answered.
    ///
    /// # Errors
    /// See [`Vm::forward`].
    pub(crate) fn open(vm: &mut Vm, asked: &[(u16, Option<u16>)], pages: &[u16]) -> Result<Self, QemuError> {
        Self::open_again(vm, asked, pages, &[])
    }

    /// The same for a machine that was started over: where any port of the host will do, the `previous` one is taken, if it
    /// is still free.
    ///
    /// # Errors
    /// See [`Vm::forward`].
    pub(crate) fn open_again(
        vm: &mut Vm,
        asked: &[(u16, Option<u16>)],
        pages: &[u16],
        previous: &[Forward],
    ) -> Result<Self, QemuError> {
        let mut forward = |guest: u16, host: Option<u16>| {
            let before = previous.iter().find(|forward| forward.guest == guest).filter(|_| host.is_none());
            match before.map(|before| vm.forward(guest, Some(before.host))) {
                None | Some(Err(QemuError::Port { .. })) => vm.forward(guest, host),
                Some(opened) => opened,
            }
        };
        let forwards = asked.iter().map(|(guest, host)| forward(*guest, *host));
        let mut others = forwards.collect::<Result<Vec<_>, _>>()?;
        let mut services = Vec::new();
        for port in std::iter::once(SSH).chain(pages.iter().copied()) {
            let forward = match others.iter().position(|forward| forward.guest == port) {
                Some(place) => others.remove(place),
                None => forward(port, None)?,
            };
            services.push(Service { forward, answered: AtomicBool::new(false) });
        }
        let ways = Self { services: Arc::new(services), others };
        ways.watch();
        Ok(ways)
    }

    fn watch(&self) {
        // The ports of a machine that has ended may be another's by then.
        let services = Arc::downgrade(&self.services);
        std::thread::spawn(move || {
            while let Some(services) = services.upgrade().filter(|services| !all_answered(services)) {
                for service in services.iter().filter(|service| !service.answered.load(Ordering::SeqCst)) {
                    service.answered.store(answers(service.forward), Ordering::SeqCst);
                }
                drop(services);
                std::thread::sleep(PAUSE);
            }
        });
    }

    /// Whether ssh and all pages have answered.
    pub(crate) fn ready(&self) -> bool {
        all_answered(&self.services)
    }

    /// The way to ssh.
    pub(crate) fn ssh(&self) -> Option<Forward> {
        self.forwards().find(|forward| forward.guest == SSH)
    }

    /// The ways to pages.
    pub(crate) fn pages(&self) -> impl Iterator<Item = Forward> {
        self.forwards().filter(|forward| forward.guest != SSH)
    }

    /// The ways that were asked for besides.
    pub(crate) fn others(&self) -> &[Forward] {
        &self.others
    }

    fn forwards(&self) -> impl Iterator<Item = Forward> {
        self.services.iter().map(|service| service.forward)
    }
}

fn all_answered(services: &[Service]) -> bool {
    services.iter().all(|service| service.answered.load(Ordering::SeqCst))
}

/// Whether a program in the guest answers: QEMU itself accepts connections whether or not one does.
fn answers(forward: Forward) -> bool {
    let attempt = || -> io::Result<bool> {
        let address = SocketAddr::from(([127, 0, 0, 1], forward.host));
        let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_read_timeout(Some(ANSWER))?;
        if forward.guest != SSH {
            stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        }
        let mut first = [0; 4];
        stream.read_exact(&mut first)?;
        Ok(&first == if forward.guest == SSH { b"SSH-" } else { b"HTTP" })
    };
    attempt().unwrap_or(false)
}
