//! Why something could not be fetched.

use std::time::Duration;

use crate::base::Size;
use crate::http::url::{Url, UrlError};
use crate::store::StoreError;

/// A fetch that failed, after all tries. Shows the address without its secrets.
#[derive(Debug, thiserror::Error)]
#[error("fetching {url}{}{}", via(.proxy.as_deref()), after(*.tries))]
pub struct HttpError {
    /// What was fetched.
    pub url: Url,
    /// The proxy that was asked, without its secrets.
    pub proxy: Option<Box<str>>,
    /// How often it was tried.
    pub tries: u32,
    /// What went wrong the last time.
    #[source]
    pub cause: Box<Cause>,
}

fn via(proxy: Option<&str>) -> String {
    proxy.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default()
}

fn after(tries: u32) -> String {
    if tries > 1 { format!(", tried {tries} times") } else { String::new() }
}

/// What went wrong in one try.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// It is not there.
    #[error("not found")]
    NotFound,
    /// The server wants to know who asks, or does not like who does.
    #[error(
        "the server says {status}: credentials go into a line \
         `machine HOST login USER password PASSWORD` of apt's auth.conf or of ~/.netrc{}{unread}",
        if *.status == 403 { "; object stores say so of what is missing, too" } else { "" }
    )]
    Unauthorized {
        /// 401, 403 or 407.
        status: u16,
        /// Files of credentials that could not be used, as the end of a sentence.
        unread: String,
    },
    /// The server refuses.
    #[error("the server says {status}")]
    Refused {
        /// 4xx or an unexpected one.
        status: u16,
    },
    /// The server is in trouble.
    #[error("the server says {status}")]
    Server {
        /// 5xx, 408 or 429.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Nobody can be trusted.
    #[error(
        "no CA certificates to verify the server with: install ca-certificates, \
         or let SSL_CERT_FILE or SSL_CERT_DIR name some ({reason})"
    )]
    NoTrust {
        /// What was tried.
        reason: String,
    },
    /// The proxy setting makes no sense, and to go past it is not what was asked for.
    #[error("the proxy {proxy:?} is no http, https or socks address")]
    BadProxy {
        /// As set, without what may be a password.
        proxy: String,
    },
    /// TLS failed.
    #[error(
        "the server cannot be trusted ({reason}); a private CA goes into SSL_CERT_FILE or CURL_CA_BUNDLE"
    )]
    Untrusted {
        /// What TLS says.
        reason: String,
    },
    /// Nobody there, or the connection broke before the answer.
    #[error("no connection: {reason}")]
    Connection {
        /// What the network says.
        reason: String,
    },
    /// Silence.
    #[error("no byte within {} seconds", .0.as_secs_f32())]
    Silent(Duration),
    /// A trickle.
    #[error("slower than {} a second", Size(*.bytes_per_second).human())]
    Slow {
        /// The least that is accepted.
        bytes_per_second: u64,
    },
    /// The connection broke within the answer.
    #[error("the connection broke after {received} bytes{}", .reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Cut {
        /// How many had come.
        received: u64,
        /// What the network says, if it says anything.
        reason: Option<String>,
    },
    /// The part that is wanted begins where the file has ended.
    #[error("the file on the server ends before byte {than}")]
    Shorter {
        /// Where the part begins.
        than: u64,
    },
    /// An answer that is not HTTP.
    #[error("the answer makes no sense: {reason}")]
    Garbage {
        /// What the parser says.
        reason: String,
    },
    /// More than was promised or allowed.
    #[error("expected at most {limit} bytes, but the server has {}", match .announced {
        Some(bytes) => bytes.to_string(),
        None => "more".to_owned(),
    })]
    TooLarge {
        /// The most that is accepted.
        limit: u64,
        /// What the server announced.
        announced: Option<u64>,
    },
    /// From https to http, or to a file of this machine.
    #[error("redirected {}", given_up(.to))]
    Downgrade {
        /// Where to.
        to: Url,
    },
    /// To nowhere, or too often.
    #[error("redirected {0} times, or without a target")]
    Redirects(usize),
    /// From one address to the next, each after some silence.
    #[error("redirected again and again for more than {} seconds", within.as_secs_f32())]
    NoEnd {
        /// As long as one answer may take.
        within: Duration,
    },
    /// To somewhere that is no address.
    #[error("redirected to a bad address")]
    RedirectTarget(#[source] UrlError),
    /// Other bytes than were promised, or no room for them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A local file.
    #[error("reading the file")]
    File(#[source] std::io::Error),
}

fn given_up(to: &Url) -> String {
    match to.scheme() {
        "file" => format!("to {to}: refused, as a server must not lead to files of this machine"),
        _ => format!("from https to {to}: refused, as it gives up encryption"),
    }
}

/// The innermost of the libraries' messages: those around it name their own layers, not what happened.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

impl HttpError {
    /// Whether the server does not have it.
    pub fn is_not_found(&self) -> bool {
        matches!(*self.cause, Cause::NotFound)
    }

    /// Whether the server does not have it, or says 403: object stores do so for what is missing where nobody may
    /// list what there is.
    pub fn is_missing(&self) -> bool {
        matches!(*self.cause, Cause::NotFound | Cause::Unauthorized { status: 403, .. })
    }

    /// Whether nothing else from this server will come either.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            *self.cause,
            Cause::Connection { .. }
                | Cause::Silent(_)
                | Cause::NoTrust { .. }
                | Cause::Untrusted { .. }
                | Cause::BadProxy { .. }
        )
    }

    /// Whether the disk is to blame.
    pub fn is_local(&self) -> bool {
        matches!(
            *self.cause,
            Cause::Store(StoreError::Full { .. } | StoreError::Folder { .. } | StoreError::Io { .. })
        )
    }
}

impl Cause {
    /// Whether another try may help.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Server { .. }
            | Self::Connection { .. }
            | Self::Silent(_)
            | Self::Slow { .. }
            | Self::Cut { .. }
            | Self::Shorter { .. }
            | Self::Garbage { .. } => true,
            // A cache in between may hold something stale or broken.
            Self::Store(error) => {
                matches!(error, StoreError::WrongDigest { .. } | StoreError::WrongSize { .. })
            }
            _ => false,
        }
    }

    /// Sorts an error of sending a request.
    pub(super) fn of_sending(error: reqwest::Error, idle: Duration) -> Self {
        let source = error.without_url();
        let parts = || std::iter::successors(Some(&source as &dyn std::error::Error), |error| error.source());
        // The TLS library's error is deep in the chain, as the inner error of an io::Error; its own crate
        // is no dependency of ours.
        let is_tls = parts().any(|error| {
            error
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .is_some_and(|inner| inner.to_string().contains("certificate"))
        });
        let unparsable = ["invalid HTTP", "invalid content-length", "transfer-encoding", "head is too large"];
        let is_parse = parts().any(|error| {
            let text = error.to_string();
            unparsable.iter().any(|words| text.contains(words))
        });
        if is_tls {
            Self::Untrusted { reason: reason(&source) }
        } else if source.is_timeout() && !source.is_connect() {
            Self::Silent(idle)
        } else if is_parse {
            Self::Garbage { reason: reason(&source) }
        } else {
            Self::Connection { reason: reason(&source) }
        }
    }
}
