//! The outside as resolving needs it: files over the network, remembered in the store.

use std::io::Read;
use std::str::FromStr;

use crate::base::Digest;
use crate::source::debian::upstream::{Upstream, UpstreamError};
use crate::source::http::{Cause, Client, HttpError};
use crate::source::url::Url;
use crate::store::{Store, StoreError};

/// The largest file that resolving reads, in bytes: Packages.xz of all Debian has 9 MB.
const LARGEST: u64 = 256 << 20;

/// The kind under which worked-out indexes lie in the store.
const KIND: &str = "index";

/// Archives behind an HTTP client.
pub struct Online<'a> {
    /// How files are fetched.
    pub client: &'a Client,
    /// Where they are kept.
    pub store: &'a Store,
}

impl Upstream for Online<'_> {
    fn get(&self, url: &str, expected: Option<(Digest, u64)>) -> Result<Vec<u8>, UpstreamError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| UpstreamError::Failed {
            url: Url::from_str(url).map_or_else(|_| "an address".to_owned(), |url| url.to_string()),
            source,
        };
        if let Some((digest, _)) = expected
            && let Ok(Some(mut file)) = self.store.open_blob(&digest)
        {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(|error| failed(error.into()))?;
            return Ok(bytes);
        }
        let address = Url::from_str(url).map_err(|error| failed(error.into()))?;
        let limit = expected.map_or(LARGEST, |(_, size)| size);
        let bytes = self.client.get_small(&address, limit).map_err(|error| not_found(error, &address))?;
        if let Some((digest, size)) = expected
            && Digest::of(&bytes) == digest
        {
            self.store.insert(bytes.as_slice(), &digest, Some(size)).map_err(|error| failed(error.into()))?;
        }
        Ok(bytes)
    }

    fn recall(&self, key: &Digest) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.store.derived(KIND, &key.to_hex()).ok()??.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn keep(&self, key: &Digest, bytes: &[u8]) {
        // What cannot be kept is worked out again.
        let _ = self.store.derive::<StoreError>(KIND, &key.to_hex(), |file| {
            std::io::Write::write_all(file, bytes).map_err(StoreError::Read)
        });
    }
}

fn not_found(error: HttpError, url: &Url) -> UpstreamError {
    match *error.cause {
        Cause::NotFound => UpstreamError::NotFound { url: url.to_string() },
        _ => UpstreamError::Failed { url: url.to_string(), source: error.into() },
    }
}
