//! Asks an archive for its release: `InRelease`, or else `Release` with its signature in `Release.gpg`, as
//! archives have it whose tools are older (apt-secure(8)).

use super::{Expectation, Keyring, Release, ReleaseError, verify, verify_detached};
use crate::base::Progress;
use crate::http::url::{Url, UrlError};
use crate::source::debian::packages::Source;
use crate::source::debian::upstream::{Upstream, UpstreamError};

/// Why an archive gave no release that can be used.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The suite is no part of an address.
    #[error(transparent)]
    Address(#[from] UrlError),
    /// The archive cannot be asked.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// There is no release at all.
    #[error("there is no {url}, nor a Release beside it: {}{}", expected(*.flat), doubt(*.forbidden))]
    Missing {
        /// Of the InRelease file.
        url: Url,
        /// Whether the archive is flat.
        flat: bool,
        /// Whether the server says 403 in place of 404.
        forbidden: bool,
    },
    /// Nobody vouches for it.
    #[error(
        "{url} is there, but neither InRelease nor Release.gpg beside it{}: the archive is not signed, and keller \
         takes nothing of such a one; `gpg --clearsign --output InRelease Release` signs it, and `keys` names the key",
        doubt(*.forbidden)
    )]
    Unsigned {
        /// Of the Release file.
        url: Url,
        /// Whether the server says 403 in place of 404.
        forbidden: bool,
    },
    /// It is there and cannot be trusted.
    #[error("verifying {url}")]
    Refused {
        /// Of the file with the text.
        url: Url,
        /// Why.
        source: ReleaseError,
    },
}

fn expected(flat: bool) -> &'static str {
    match flat {
        true => "`url` and `suite` together name the directory that has InRelease",
        false => "the mirror does not carry this suite, or its URL does not stop before `dists`",
    }
}

fn doubt(forbidden: bool) -> &'static str {
    match forbidden {
        true => {
            " (the server says 403: object stores do so for what is missing, others for want of credentials)"
        }
        false => "",
    }
}

/// The release of `source`, signed by a key of `keyring` and meeting `expectation`. A bad InRelease is not
/// passed over for another file.
///
/// # Errors
/// See [`AskError`].
pub fn ask(
    upstream: &dyn Upstream,
    source: &Source<'_>,
    keyring: &Keyring,
    expectation: &Expectation<'_>,
    progress: &dyn Progress,
) -> Result<Release, AskError> {
    let get = |name: &str| -> Result<_, AskError> {
        let url = source.release_url(name)?;
        match upstream.get(&url, None, progress) {
            Ok(bytes) => Ok((url, Ok(bytes))),
            Err(UpstreamError::NotFound { forbidden, .. }) => Ok((url, Err(forbidden))),
            Err(error) => Err(error.into()),
        }
    };
    let (inline, forbidden) = match get("InRelease")? {
        (url, Ok(bytes)) => {
            return verify(&bytes, keyring, expectation).map_err(|source| AskError::Refused { url, source });
        }
        (url, Err(forbidden)) => (url, forbidden),
    };
    let (url, text) = match get("Release")? {
        (url, Ok(text)) => (url, text),
        (_, Err(_)) => return Err(AskError::Missing { url: inline, flat: source.is_flat(), forbidden }),
    };
    match get("Release.gpg")?.1 {
        Ok(signature) => verify_detached(&text, &signature, keyring, expectation)
            .map_err(|source| AskError::Refused { url, source }),
        Err(forbidden) => Err(AskError::Unsigned { url, forbidden }),
    }
}
