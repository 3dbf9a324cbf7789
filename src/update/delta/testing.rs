//! Images, repositories and bad luck for the tests of this room.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Mutex;

use crate::base::device::{Device, ReadAt, SectorSize};
use crate::base::width::{to_u64, to_usize};
use crate::update::document::Blob;
use crate::update::remote::{Part, Remote, RemoteError};

/// xorshift64*: the same numbers in every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 8) % limit
    }
}

/// Bytes that do not compress.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes: Vec<u8> = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that compress about as programs do.
pub(super) fn text(seed: u64, length: usize) -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..500).map(|word| noise(word, 2 + (to_usize(word) * 7) % 11)).collect();
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        bytes.extend(&words[to_usize(random.below(500))]);
    }
    bytes.truncate(length);
    bytes
}

/// A disk in memory that counts what is written.
pub(super) struct Memory {
    pub bytes: Vec<u8>,
    pub written: u64,
    /// Offset from which on every write fails.
    pub bad_from: u64,
}

impl Memory {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, written: 0, bad_from: u64::MAX }
    }
}

impl ReadAt for Memory {
    fn size(&self) -> u64 {
        to_u64(self.bytes.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.bytes.as_slice().read_at(buffer, offset)
    }
}

impl Device for Memory {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset + to_u64(bytes.len()) > self.bad_from {
            return Err(io::Error::other("medium error"));
        }
        self.bytes[to_usize(offset)..][..bytes.len()].copy_from_slice(bytes);
        self.written += to_u64(bytes.len());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sector_size(&self) -> SectorSize {
        SectorSize::B512
    }
}

/// A web server with what may go wrong.
#[derive(Default)]
pub(super) struct Server {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Gives whole files whatever is asked for.
    pub knows_no_ranges: bool,
    /// The connection breaks after so many bytes, of all files together.
    pub breaks_after: Option<u64>,
    /// Goes on with zeros where a file or a stretch ends.
    pub endless: bool,
    /// Bytes that went out, and how often something was asked for.
    pub log: Mutex<Log>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    pub bytes: u64,
    pub requests: u64,
}

impl Server {
    pub(super) fn put(&mut self, bytes: Vec<u8>) -> Blob {
        let blob = Blob::of(&bytes);
        self.files.insert(blob.path(), bytes);
        blob
    }

    pub(super) fn file(&mut self, blob: &Blob) -> &mut Vec<u8> {
        self.files.get_mut(&blob.path()).unwrap()
    }

    pub(super) fn log(&self) -> Log {
        *self.log.lock().unwrap()
    }

    /// The log since it was looked at last.
    pub(super) fn take_log(&self) -> Log {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl Remote for Server {
    fn open(&self, path: &str, range: Option<Range<u64>>) -> Result<Part<'_>, RemoteError> {
        let file =
            self.files.get(path).ok_or_else(|| RemoteError::Missing { path: path.to_owned() })?.as_slice();
        self.log.lock().unwrap().requests += 1;
        let range = range.filter(|_| !self.knows_no_ranges).unwrap_or(0..to_u64(file.len()));
        let end = to_usize(range.end).min(file.len());
        let bytes = &file[to_usize(range.start).min(end)..end];
        Ok(Part { start: range.start, body: Box::new(Body { server: self, bytes, at: Cell::new(0) }) })
    }
}

struct Body<'a> {
    server: &'a Server,
    bytes: &'a [u8],
    at: Cell<usize>,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut log = self.server.log.lock().unwrap();
        let mut room = buffer.len();
        if let Some(limit) = self.server.breaks_after {
            let left = limit.saturating_sub(log.bytes);
            if left == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            room = room.min(to_usize(left));
        }
        let rest = &self.bytes[self.at.get()..];
        let count = if self.server.endless && rest.is_empty() {
            buffer[..room].fill(0);
            room
        } else {
            let count = room.min(rest.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.at.set(self.at.get() + count);
            count
        };
        log.bytes += to_u64(count);
        Ok(count)
    }
}
