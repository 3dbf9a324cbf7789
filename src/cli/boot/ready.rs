//! Whether the guest answers yet, and how it is reached.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::Global;
use crate::cli::streams::{self, OutputError};
use crate::qemu::Forward;

/// The guest's port for ssh.
pub(super) const SSH: u16 = 22;

/// A port that is looked at until something answers there.
struct Service {
    forward: Forward,
    answered: AtomicBool,
}

/// The ways into a guest.
pub(super) struct Ways {
    /// Those behind which something is known to answer, once it runs.
    services: Arc<Vec<Service>>,
    /// Those that were asked for besides.
    others: Vec<Forward>,
}

impl Ways {
    /// Looks at `services` in the background until all have answered.
    pub(super) fn watch(services: Vec<Forward>, others: Vec<Forward>) -> Self {
        let service = |forward| Service { forward, answered: AtomicBool::new(false) };
        let services: Arc<Vec<Service>> = Arc::new(services.into_iter().map(service).collect());
        let watched = Arc::clone(&services);
        std::thread::spawn(move || {
            while !all_answered(&watched) {
                for service in watched.iter().filter(|service| !service.answered.load(Ordering::SeqCst)) {
                    service.answered.store(answers(service.forward), Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        Self { services, others }
    }

    /// Whether every service has answered.
    pub(super) fn ready(&self) -> bool {
        all_answered(&self.services)
    }

    /// Says that `what` is ready, and how it is reached.
    ///
    /// # Errors
    /// Those of standard output.
    pub(super) fn report(
        &self,
        what: &str,
        identity: &Path,
        begun: Instant,
        global: &Global,
    ) -> Result<(), OutputError> {
        let seconds = begun.elapsed().as_secs_f64();
        let forwards = self.services.iter().map(|service| service.forward);
        let (ssh, pages): (Vec<_>, Vec<_>) = forwards.partition(|forward| forward.guest == SSH);
        let ssh = ssh.first().map(|forward| {
            format!(
                "ssh -i {} -p {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null core@127.0.0.1",
                identity.display(),
                forward.host
            )
        });
        let urls: Vec<_> =
            pages.iter().map(|forward| format!("http://127.0.0.1:{}/", forward.host)).collect();
        if global.json {
            let others: Vec<_> = self.others.iter().map(|forward| [forward.host, forward.guest]).collect();
            return streams::json(
                json!({ "ready": true, "seconds": seconds, "urls": urls, "ssh": ssh, "forwards": others }),
            );
        }
        // The guest may have left the cursor anywhere.
        let mut text = format!("\n{what} is ready after {seconds:.0} s");
        for url in urls {
            text.push_str(&format!("\n  {url}"));
        }
        for forward in &self.others {
            text.push_str(&format!("\n  127.0.0.1:{} leads to port {}", forward.host, forward.guest));
        }
        if let Some(ssh) = ssh {
            text.push_str(&format!("\n  {ssh}"));
        }
        streams::tell(text);
        Ok(())
    }
}

fn all_answered(services: &[Service]) -> bool {
    services.iter().all(|service| service.answered.load(Ordering::SeqCst))
}

/// Whether a program in the guest answers: QEMU itself accepts connections whether or not one does.
fn answers(forward: Forward) -> bool {
    let attempt = || -> io::Result<bool> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], forward.host));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        if forward.guest != SSH {
            stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        }
        let mut first = [0; 4];
        stream.read_exact(&mut first)?;
        Ok(&first == if forward.guest == SSH { b"SSH-" } else { b"HTTP" })
    };
    attempt().unwrap_or(false)
}
