//! The outside as resolving needs it: files over the network, remembered in the store.

use std::io::Write;

use crate::base::seal::{Sealed, Sealer};
use crate::base::width::to_u64;
use crate::base::{Digest, Fingerprint, Progress, Task, Unit, input, limits};
use crate::http::Client;
use crate::http::url::Url;
use crate::source::debian::checksum::Sha512;
use crate::source::debian::upstream::{Received, Upstream, UpstreamError};
use crate::store::{Checked, Store, StoreError};

/// The kind under which the store keeps what was worked out of an index.
pub const KIND: &str = "index-2";

/// Archives behind an HTTP client.
pub struct Online<'a> {
    /// How files are fetched.
    pub client: &'a Client,
    /// Where they are kept.
    pub store: &'a Store,
}

impl Online<'_> {
    /// A blob that has just come from `url`, as it is read: its bytes are those of `digest` or none.
    fn just_fetched(&self, url: &Url, digest: &Digest) -> Result<Sealed, UpstreamError> {
        match self.store.open_verified(digest)? {
            Checked::Good(blob) => Ok(blob),
            Checked::Missing | Checked::Rotten { .. } => {
                Err(UpstreamError::NotFound { url: url.clone(), forbidden: false })
            }
        }
    }
}

impl Upstream for Online<'_> {
    fn get(
        &self,
        url: &Url,
        expected: Option<(Digest, u64)>,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, UpstreamError> {
        let Some((digest, size)) = expected else { return Ok(self.client.get_small(url, limits::RELEASE)?) };
        // A blob that is not what its name says is moved away, and fetched again.
        let blob = match self.store.open_verified(&digest)? {
            Checked::Good(blob) => blob,
            Checked::Missing | Checked::Rotten { .. } => {
                let task = Task::new(progress, "downloading package index", size, Unit::Bytes);
                self.client.download(url, &digest, Some(size), self.store, &task)?;
                self.just_fetched(url, &digest)?
            }
        };
        // What its digest vouches for has as many bytes as were promised, if the release is right.
        input::read_open(blob.reader(), size).map_err(UpstreamError::Read)
    }

    fn receive(&self, url: &Url, size: u64, progress: &dyn Progress) -> Result<Received, UpstreamError> {
        let task = Task::new(progress, "downloading", size, Unit::Bytes);
        let (sha256, size) = self.client.receive(url, size, self.store, &task)?;
        let blob = self.just_fetched(url, &sha256)?;
        let sha512 = Sha512::of_reader(blob.reader()).map_err(UpstreamError::Read)?;
        Ok(Received { sha256, sha512, size })
    }

    fn recall(&self, key: &Digest) -> Option<Vec<u8>> {
        recall(self.store, key)
    }

    fn keep(&self, key: &Digest, bytes: &[u8]) {
        keep(self.store, key, bytes);
    }
}

/// What `store` keeps under `key`.
pub(super) fn recall(store: &Store, key: &Digest) -> Option<Vec<u8>> {
    // The fingerprint of the text follows it.
    let limit = limits::INDEX_KEPT + to_u64(size_of::<Fingerprint>());
    let kept = store.derived(KIND, &key.to_hex())?;
    (kept.len() <= limit).then(|| kept.to_vec().ok())?
}

/// Has `store` keep `bytes`.
pub(super) fn keep(store: &Store, key: &Digest, bytes: &[u8]) {
    // What cannot be kept is worked out again.
    let write = |file: &mut Sealer<'_>| file.write_all(bytes).map_err(StoreError::Read);
    let _ = store.derive(KIND, &key.to_hex(), write);
}
