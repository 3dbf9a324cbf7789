//! What is wrong with a key, a certificate, or both.

use thiserror::Error as ThisError;

/// A key or a certificate that cannot be used or made.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The text is not PEM.
    #[error("not PEM: {0}")]
    Pem(#[from] pem::PemError),
    /// A block is missing.
    #[error("the file has no {0}")]
    Missing(&'static str),
    /// The key cannot be read.
    #[error("the private key cannot be read: {0}")]
    Key(rcgen::Error),
    /// The certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    /// The key is not that of the certificate.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
    /// The request for a certificate cannot be read.
    #[error("the certificate request cannot be read: {0}")]
    Request(String),
    /// Whoever asks has not shown that the private key is there.
    #[error("the certificate request is not signed by its own key")]
    NoProof,
    /// Keys are all of one kind.
    #[error("the key of the certificate request is not one of ECDSA P-256")]
    OtherAlgorithm,
    /// The certificate may not sign others.
    #[error("the certificate is not one of an authority")]
    NotAnAuthority,
    /// More than anybody believes at a time.
    #[error(
        "it has more than {0} different certificates: an authority, and the one that takes its place, are enough"
    )]
    Many(usize),
    /// Something else between certificates.
    #[error(
        "line {line} begins neither a whole certificate nor a comment: a file of authorities has nothing else"
    )]
    NotInBundle {
        /// From 1 on.
        line: usize,
    },
    /// A name that cannot stand in a certificate.
    #[error("{0:?} cannot stand in a certificate as a host name")]
    Name(String),
    /// It is a sound pair, and not the one that is wanted.
    #[error("{0}")]
    Unfit(Flaw),
    /// Making a key or a signature failed.
    #[error("making it failed: {0}")]
    Making(rcgen::Error),
}

/// Why a pair that can be read is to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Another authority signed it.
    OtherAuthority,
    /// It is for another name, for other hosts or for another role.
    OtherUse,
    /// It ends soon, or has ended.
    EndsSoon {
        /// Seconds since 1970.
        ends: i64,
    },
    /// It ends later than one that is made now: the clock was ahead when it was made.
    EndsLate {
        /// Seconds since 1970.
        ends: i64,
    },
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let date = |seconds: &i64| {
            jiff::Timestamp::from_second(*seconds).map_or("?".to_owned(), |time| time.to_string())
        };
        match self {
            Self::OtherAuthority => f.write_str("another authority signed it"),
            Self::OtherUse => f.write_str("it is for other names or another use"),
            Self::EndsSoon { ends } => write!(f, "it ends at {}", date(ends)),
            Self::EndsLate { ends } => {
                write!(f, "it ends at {}: the clock was ahead when it was made", date(ends))
            }
        }
    }
}
