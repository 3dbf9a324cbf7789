//! The unified kernel image: as a patch from the running one, or whole, compressed with zstd.
//!
//! It is small enough to be in memory, and goes into the ESP only when all of it is there and has the digest
//! of the release document.

use std::io::{self, Write};

use super::error::{DeltaError, PublishError};
use super::patch::Patcher;
use super::wire::{self, Wire};
use super::{Fetched, Way, patch_from};
use crate::base::device::{Device, ReadAt, SectorSize};
use crate::base::progress::{Progress, Task, Unit};
use crate::base::{Chain, Digest};
use crate::update::document::{Blob, Uki};
use crate::update::remote::Remote;

/// No unified kernel image is larger, in bytes: it is kept in memory, twice. That of a kernel with all
/// firmware and a systemd initramfs has 70 MiB.
const LIMIT: u64 = 160 << 20;
/// Name for errors.
const FILE: &str = "the unified kernel image";

/// Writes a unified kernel image as those take it that have none to start from, with zstd's `level`; gives the bytes
/// written.
pub fn publish_uki(uki: &[u8], level: i32, out: &mut dyn Write) -> Result<u64, PublishError> {
    if uki.len() as u64 > LIMIT {
        return Err(PublishError::Uki { size: uki.len() as u64, limit: LIMIT });
    }
    let compressed = zstd::bulk::compress(uki, level);
    let written = compressed.and_then(|bytes| out.write_all(&bytes).map(|()| bytes.len() as u64));
    written.map_err(|source| PublishError::Write { file: FILE, source })
}

/// Fetches a unified kernel image by the shortest way from `old`, that is running.
pub fn uki(
    uki: &Uki,
    remote: &dyn Remote,
    old: Option<&[u8]>,
    progress: &dyn Progress,
) -> Result<(Vec<u8>, Fetched), DeltaError> {
    if uki.size > LIMIT {
        let what = format!("{} bytes, of {LIMIT} that are sensible", uki.size);
        return Err(DeltaError::Damaged { file: FILE, what });
    }
    let task = Task::new(progress, "updating", uki.size, Unit::Bytes);
    task.at(FILE);
    let mut fetched =
        Fetched { way: Way::Patch, bytes: 0, requests: 0, reused: 0, kept: 0, written: uki.size };
    if let Some(old) = old {
        let digest = Digest::of(old);
        if digest == uki.sha256 {
            return Ok((old.to_vec(), Fetched { way: Way::Blocks, reused: uki.size, ..fetched }));
        }
        let patch = patch_from(&uki.patches, &digest).filter(|patch| patch.size < uki.full.size);
        if let Some(patch) = patch {
            match patched(uki, remote, old, patch, &task, &mut fetched) {
                Ok(bytes) => return Ok((bytes, fetched)),
                Err(error) if error.is_of_this_way() => progress.warn(&format!(
                    "the patch of {FILE} is of no use, all of it is fetched: {}",
                    Chain(&error)
                )),
                Err(error) => return Err(error),
            }
        }
    }
    let (compressed, bytes) = wire::whole(remote, &uki.full, LIMIT, FILE)?;
    fetched = Fetched {
        way: Way::Full,
        bytes: fetched.bytes + bytes,
        requests: fetched.requests + 1,
        reused: 0,
        ..fetched
    };
    let bytes = zstd::bulk::decompress(&compressed, uki.size as usize)
        .map_err(|error| DeltaError::Damaged { file: FILE, what: error.to_string() })?;
    checked(bytes, uki).map(|bytes| (bytes, fetched))
}

fn patched(
    uki: &Uki,
    remote: &dyn Remote,
    old: &[u8],
    patch: &Blob,
    task: &Task,
    fetched: &mut Fetched,
) -> Result<Vec<u8>, DeltaError> {
    let mut wire = Wire::new(remote, patch);
    let mut target = Buffer(vec![0; uki.size as usize]);
    let patcher = Patcher {
        wire: &mut wire,
        size: patch.size,
        old: &old,
        old_size: old.len() as u64,
        new_size: uki.size,
        target: &mut target,
    };
    let result = patcher.run(task);
    fetched.bytes += wire.bytes;
    fetched.requests += wire.requests;
    fetched.reused = result?.reused;
    checked(target.0, uki)
}

fn checked(bytes: Vec<u8>, uki: &Uki) -> Result<Vec<u8>, DeltaError> {
    let have = Digest::of(&bytes);
    if have == uki.sha256 {
        Ok(bytes)
    } else {
        Err(DeltaError::Digest { file: FILE, expected: uki.sha256, have })
    }
}

/// A file that is being made, in memory.
struct Buffer(Vec<u8>);

impl ReadAt for Buffer {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.as_slice().read_at(buffer, offset)
    }
}

impl Device for Buffer {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let place = usize::try_from(offset).ok().and_then(|at| self.0.get_mut(at..)?.get_mut(..bytes.len()));
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sector_size(&self) -> SectorSize {
        SectorSize::B512
    }
}
