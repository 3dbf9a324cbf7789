//! One connection to one member: TCP, TLS with a certificate of ours, HTTP/2.

use std::error::Error as StdError;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::client::GrpcService;

use super::error::{Error, of_certificates};
use crate::base::Chain;

/// For the server to speak first; one that does not is spoken to all the same.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// Who is believed, and what is shown.
#[derive(Clone)]
pub struct Credentials(Arc<ClientConfig>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Only an authority of `authorities` is believed; `identity` has the certificate and the key to show. Both are PEM.
    ///
    /// # Errors
    /// What of them cannot be read.
    pub fn new(authorities: &[u8], identity: &[u8]) -> Result<Self, Error> {
        let roots = roots(authorities)?;
        let certificate = CertificateDer::from_pem_slice(identity)
            .map_err(|error| unread("the client's certificate", &error))?;
        let key =
            PrivateKeyDer::from_pem_slice(identity).map_err(|error| unread("the client's key", &error))?;
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .map_err(|error| unread("the client's certificate", &error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// The same, of somebody who has no certificate to show: enough for [`look`].
    ///
    /// # Errors
    /// What of them cannot be read.
    pub fn without_identity(authorities: &[u8]) -> Result<Self, Error> {
        let config = ClientConfig::builder().with_root_certificates(roots(authorities)?);
        Ok(Self(Arc::new(config.with_no_client_auth())))
    }
}

fn unread(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Credentials(format!("{what}: {error}"))
}

fn roots(authorities: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        let certificate = certificate.map_err(|error| unread("the authority", &error))?;
        roots.add(certificate).map_err(|error| unread("the authority", &error))?;
    }
    match roots.is_empty() {
        true => Err(unread("the authority", &"its file has no certificate")),
        false => Ok(roots),
    }
}

/// What a server has shown in its handshake, before it was shown anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its certificate, as DER.
    pub certificate: Vec<u8>,
    /// Names of the authorities whose certificates it believes, as DER; none where it does not say.
    pub believes: Vec<Vec<u8>>,
}

/// What whoever answers at `endpoint` shows, which `credentials` believe. It is not asked for anything.
///
/// # Errors
/// What the network, or its certificate, lacks.
pub fn look(endpoint: SocketAddr, credentials: &Credentials, patience: Duration) -> Result<Shown, Error> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Broken { endpoint, cause: error.to_string() })?;
    let met = runtime.block_on(async { tokio::time::timeout(patience, meet(endpoint, credentials)).await });
    Ok(met.map_err(|_| Error::Late { endpoint, after: patience })??.1)
}

/// Shows what another one would, and hears whom the server believes.
#[derive(Debug)]
struct Hearing {
    shows: Arc<dyn ResolvesClientCert>,
    heard: Mutex<Vec<Vec<u8>>>,
}

impl ResolvesClientCert for Hearing {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let names = authorities.iter().map(|name| name.to_vec()).collect();
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = names;
        self.shows.resolve(authorities, schemes)
    }

    fn has_certs(&self) -> bool {
        self.shows.has_certs()
    }
}

async fn meet(
    endpoint: SocketAddr,
    credentials: &Credentials,
) -> Result<(TlsStream<TcpStream>, Shown), Error> {
    let unreachable = |error: std::io::Error| Error::Unreachable { endpoint, cause: error.to_string() };
    let stream = TcpStream::connect(endpoint).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let mut config = ClientConfig::clone(&credentials.0);
    // A session that is taken up again shows no certificate, and says nothing of authorities.
    config.resumption = Resumption::disabled();
    let shows = config.client_auth_cert_resolver;
    let hearing = Arc::new(Hearing { shows, heard: Mutex::default() });
    config.client_auth_cert_resolver = hearing.clone();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::from(endpoint.ip()), stream)
        .await
        .map_err(|error| told(endpoint, &error))?;
    let (_, tls) = stream.get_ref();
    let certificate =
        tls.peer_certificates().and_then(<[_]>::first).map_or_else(Vec::new, |first| first.to_vec());
    let believes = std::mem::take(&mut *hearing.heard.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((stream, Shown { certificate, believes }))
}

/// An open connection.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    /// Why it ended, as the task has it that carries it. The caller only hears that it did.
    end: Arc<Mutex<Option<Error>>>,
    pub(super) shown: Shown,
}

impl Connection {
    /// Opens one. Whoever calls sets the deadline.
    pub(super) async fn open(endpoint: SocketAddr, credentials: &Credentials) -> Result<Self, Error> {
        let (stream, shown) = meet(endpoint, credentials).await?;
        // In TLS 1.3 a server refuses a client's certificate after the handshake, and a write that fails meanwhile would
        // hide why. It speaks first: its settings, or its alert.
        let mut stream = BufReader::new(stream);
        if let Ok(Err(error)) = tokio::time::timeout(FIRST_WORD, stream.fill_buf()).await {
            return Err(told(endpoint, &error));
        }
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| told(endpoint, &error))?;
        let end = Arc::new(Mutex::new(None));
        let ended = end.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(told(endpoint, &error));
            }
        });
        Ok(Self { sender, end, shown })
    }

    /// What asks on the same connection, and not for gRPC.
    pub(super) fn sender(&self) -> SendRequest<Body> {
        self.sender.clone()
    }

    /// Why it ended, if it did by an error.
    pub(super) fn end(&self) -> Arc<Mutex<Option<Error>>> {
        self.end.clone()
    }
}

fn told(endpoint: SocketAddr, error: &(dyn StdError + 'static)) -> Error {
    of_certificates(endpoint, error)
        .unwrap_or_else(|| Error::Broken { endpoint, cause: Chain(error).to_string() })
}

impl GrpcService<Body> for Connection {
    type ResponseBody = hyper::body::Incoming;
    type Error = hyper::Error;
    type Future =
        Pin<Box<dyn Future<Output = Result<hyper::Response<hyper::body::Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
