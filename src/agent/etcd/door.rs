//! What a member answers at its peers' port as long as its etcd does not run: what it has, to who shows a peer's
//! certificate.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde::{Deserialize, Serialize};

use super::gate::Own;
use crate::base::failure::{Doing, Failure};
use crate::pki::etcd;

/// What is asked for.
pub(super) const PATH: &str = "/keller/member";
/// Maximum bytes of a request's head: a larger one is not ours.
const MOST_HEAD: usize = 4 << 10;
/// Maximum number of connections at a time: a cluster has at most seven members.
const MOST_CONNECTIONS: usize = 32;
/// Time for a whole request, however slowly it comes.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two tries to accept a connection.
const PAUSE: Duration = Duration::from_millis(50);

/// What a waiting member says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the member.
    pub member: String,
    /// All members by its node document, itself too.
    pub members: BTreeMap<String, IpAddr>,
    /// What it has.
    pub has: Own,
}

/// A door that is open until it is dropped.
pub(super) struct Door {
    answer: Arc<Mutex<Answer>>,
    closing: Arc<AtomicBool>,
    porter: Option<JoinHandle<()>>,
}

impl Door {
    /// Answers at `address` with the certificates in `directory`.
    pub(super) fn open(address: SocketAddr, directory: &Path, answer: Answer) -> Result<Self, Failure> {
        let config = Arc::new(config(directory).doing("reading the certificates of this member")?);
        let doing = || format!("answering peers at {address}");
        let listener = TcpListener::bind(address).doing(doing())?;
        listener.set_nonblocking(true).doing(doing())?;
        let answer = Arc::new(Mutex::new(answer));
        let closing = Arc::new(AtomicBool::new(false));
        let (said, end) = (answer.clone(), closing.clone());
        let porter = thread::spawn(move || receive(&listener, &config, &said, &end));
        Ok(Self { answer, closing, porter: Some(porter) })
    }

    /// From now on it says that this member has `own`.
    pub(super) fn say(&self, own: Own) {
        self.answer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).has = own;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        if let Some(porter) = self.porter.take() {
            let _ = porter.join();
        }
    }
}

pub(super) fn config(directory: &Path) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(directory.join(etcd::PEER_CA))? {
        roots.add(certificate?)?;
    }
    let pair = directory.join(etcd::PEER);
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(
        vec![CertificateDer::from_pem_file(&pair)?],
        PrivateKeyDer::from_pem_file(&pair)?,
    )?;
    Ok(config)
}

fn receive(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
    answer: &Arc<Mutex<Answer>>,
    closing: &AtomicBool,
) {
    let connections = Arc::new(AtomicUsize::new(0));
    while !closing.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(PAUSE);
            continue;
        };
        if connections.load(Ordering::SeqCst) >= MOST_CONNECTIONS {
            continue;
        }
        connections.fetch_add(1, Ordering::SeqCst);
        let (config, answer, connections) = (config.clone(), answer.clone(), connections.clone());
        thread::spawn(move || {
            // A client that breaks off, or shows no certificate, gets no answer.
            let _ = serve(stream, config, &answer);
            connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// A stream that ends at a deadline.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(bytes)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, answer: &Mutex<Answer>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let stream = Timed { stream, deadline: Instant::now() + PATIENCE };
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 512];
        let len = stream.read(&mut part)?;
        head.extend_from_slice(&part[..len]);
        if len == 0 || head.len() > MOST_HEAD {
            return Ok(());
        }
    }
    let is_ours = head.starts_with(format!("GET {PATH} HTTP/").as_bytes());
    let (status, body) = match is_ours {
        true => ("200 OK", {
            let answer = answer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            serde_json::to_string(&*answer)?
        }),
        false => ("404 Not Found", String::new()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}
