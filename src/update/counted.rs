//! Counts what comes over the wire: what an update costs is what was sent for it, not what was used of it.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::remote::{Part, Remote, RemoteError};
use crate::base::width::to_u64;

/// A remote whose bytes are counted.
pub struct Counted<'a> {
    inner: &'a dyn Remote,
    bytes: AtomicU64,
}

impl<'a> Counted<'a> {
    /// Counts from 0.
    pub fn new(inner: &'a dyn Remote) -> Self {
        Self { inner, bytes: AtomicU64::new(0) }
    }

    /// Bytes of content, so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Remote for Counted<'_> {
    fn open(&self, path: &str, range: Option<Range<u64>>) -> Result<Part<'_>, RemoteError> {
        let part = self.inner.open(path, range)?;
        Ok(Part { start: part.start, body: Box::new(Body { inner: part.body, bytes: &self.bytes }) })
    }
}

struct Body<'a> {
    inner: Box<dyn Read + Send + 'a>,
    bytes: &'a AtomicU64,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes.fetch_add(to_u64(count), Ordering::Relaxed);
        Ok(count)
    }
}
