//! Why a call of etcd failed, in words that name the member.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error as ThisError;
use tonic::Code;

use crate::base::limits;
use crate::base::terminal::said;

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Error {
    /// Certificates that cannot be used, before anybody was asked.
    #[error("the certificates for etcd cannot be used: {0}")]
    Credentials(String),
    /// Nobody answers.
    #[error("{endpoint} cannot be reached: {cause}")]
    Unreachable {
        /// Who was asked.
        endpoint: SocketAddr,
        /// In the kernel's words.
        cause: String,
    },
    /// Time is up.
    #[error("{endpoint} has not answered within {} s", after.as_secs())]
    Late {
        /// Who was asked.
        endpoint: SocketAddr,
        /// For how long.
        after: Duration,
    },
    /// Somebody answers whom this side does not believe.
    #[error("{endpoint} is not believed: {cause}")]
    Disbelieved {
        /// Who was asked.
        endpoint: SocketAddr,
        /// What its certificate lacks.
        cause: Disbelief,
    },
    /// Somebody answers who does not believe this side.
    #[error("{endpoint} does not accept this client's certificate: {cause}")]
    NotAccepted {
        /// Who was asked.
        endpoint: SocketAddr,
        /// The alert of TLS.
        cause: String,
    },
    /// etcd has understood, and says no.
    #[error("{endpoint} refuses: {message}")]
    Refused {
        /// Who was asked.
        endpoint: SocketAddr,
        /// gRPC's number for it.
        code: Code,
        /// In etcd's words.
        message: String,
    },
    /// The connection has ended, or speaks something else.
    #[error("talking to {endpoint}: {cause}")]
    Broken {
        /// Who was asked.
        endpoint: SocketAddr,
        /// What came instead.
        cause: String,
    },
}

/// What a server's certificate lacks.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Disbelief {
    /// Its time is over.
    #[error("its certificate has expired")]
    Expired,
    /// It is another cluster's.
    #[error("its certificate is of another authority")]
    OtherAuthority,
    /// It is another member's.
    #[error("its certificate is of another address")]
    OtherAddress,
    /// Whatever else, in the words of TLS.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Whether etcd itself answered, in its own words.
    pub fn refusal(&self) -> Option<(Code, &str)> {
        match self {
            Self::Refused { code, message, .. } => Some((*code, message)),
            _ => None,
        }
    }
}

/// The error of TLS in a chain of causes. An `io::Error` hides what it carries from whoever asks for its source.
fn of_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error
        .downcast_ref::<rustls::Error>()
        .or_else(|| carried.and_then(|carried| of_tls(carried)))
        .or_else(|| error.source().and_then(of_tls))
}

/// A failure of TLS as this room tells it; nothing where the cause is another.
pub(super) fn of_certificates(
    endpoint: SocketAddr,
    error: &(dyn std::error::Error + 'static),
) -> Option<Error> {
    use rustls::CertificateError as Wrong;
    let tls = of_tls(error)?;
    Some(match tls {
        rustls::Error::AlertReceived(alert) => {
            Error::NotAccepted { endpoint, cause: format!("it says {alert:?}") }
        }
        rustls::Error::InvalidCertificate(wrong) => {
            let cause = match wrong {
                Wrong::Expired | Wrong::ExpiredContext { .. } => Disbelief::Expired,
                Wrong::UnknownIssuer | Wrong::BadSignature => Disbelief::OtherAuthority,
                Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => Disbelief::OtherAddress,
                _ => Disbelief::Other(said(&tls.to_string(), limits::ETCD_WORD)),
            };
            Error::Disbelieved { endpoint, cause }
        }
        _ => Error::Broken { endpoint, cause: said(&tls.to_string(), limits::ETCD_WORD) },
    })
}
