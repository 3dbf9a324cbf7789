//! Servers of the node itself, which know whoever asks by a certificate.

use std::io::{self, Read};
use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::{Certificate, Identity, redirect};

use crate::base::Chain;

/// What the server at `url` answers: at most `most` bytes, within `patience`. Only an authority of `authorities` is
/// believed; `identity` is the certificate and key to show. Both are PEM.
///
/// # Errors
/// What the certificates, the connection or the answer lack.
pub fn get(
    url: &str,
    authorities: &[u8],
    identity: &[u8],
    patience: Duration,
    most: u64,
) -> Result<Vec<u8>, io::Error> {
    let client = Client::builder()
        .tls_certs_only(
            Certificate::from_pem_bundle(authorities).map_err(|error| unread("authority", error))?,
        )
        .identity(Identity::from_pem(identity).map_err(|error| unread("client certificate", error))?)
        .https_only(true)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(patience)
        .build()
        .map_err(io::Error::other)?;
    let answer = client.get(url).send().map_err(io::Error::other)?;
    let mut body = Vec::new();
    answer.take(most).read_to_end(&mut body)?;
    Ok(body)
}

fn unread(what: &str, error: reqwest::Error) -> io::Error {
    io::Error::other(format!("reading its {what}: {}", Chain(&error)))
}
