//! The outside as resolving needs it: files over the network, remembered in the store.

use std::fs::File;
use std::io::{Read, Write};

use crate::base::{Digest, Progress, Task, Unit, input, limits};
use crate::source::debian::checksum::Sha512;
use crate::source::debian::upstream::{Received, Upstream, UpstreamError};
use crate::source::http::Client;
use crate::source::url::Url;
use crate::store::{Store, StoreError};

/// The kind under which the store keeps what was worked out of an index.
const KIND: &str = "index";

/// Archives behind an HTTP client.
pub struct Online<'a> {
    /// How files are fetched.
    pub client: &'a Client,
    /// Where they are kept.
    pub store: &'a Store,
}

impl Upstream for Online<'_> {
    fn get(
        &self,
        url: &Url,
        expected: Option<(Digest, u64)>,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, UpstreamError> {
        let Some((digest, size)) = expected else { return Ok(self.client.get_small(url, limits::RELEASE)?) };
        if !self.store.has(&digest) {
            let task = Task::new(progress, "downloading package index", size, Unit::Bytes);
            self.client.download(url, &digest, Some(size), self.store, &task)?;
        }
        let blob = self
            .store
            .open_blob(&digest)?
            .ok_or_else(|| UpstreamError::NotFound { url: url.clone(), forbidden: false })?;
        let mut bytes = Vec::new();
        // One byte more, so that a blob that has grown does not pass for what it was.
        blob.take(size + 1).read_to_end(&mut bytes).map_err(UpstreamError::Read)?;
        Ok(bytes)
    }

    fn receive(&self, url: &Url, size: u64, progress: &dyn Progress) -> Result<Received, UpstreamError> {
        let task = Task::new(progress, "downloading", size, Unit::Bytes);
        let (sha256, size) = self.client.receive(url, size, self.store, &task)?;
        let blob = self.store.open_blob(&sha256)?;
        let blob = blob.ok_or_else(|| UpstreamError::NotFound { url: url.clone(), forbidden: false })?;
        let sha512 = Sha512::of_reader(blob).map_err(UpstreamError::Read)?;
        Ok(Received { sha256, sha512, size })
    }

    fn recall(&self, key: &Digest) -> Option<Vec<u8>> {
        // The digest of the text follows it.
        let limit = limits::INDEX_KEPT + size_of::<Digest>() as u64;
        input::read_open(self.store.derived(KIND, &key.to_hex()).ok()??, limit).ok()
    }

    fn keep(&self, key: &Digest, bytes: &[u8]) {
        // What cannot be kept is worked out again.
        let write = |file: &mut File| file.write_all(bytes).map_err(StoreError::Read);
        let _ = self.store.derive(KIND, &key.to_hex(), write);
    }
}
