//! The unified kernel image. It is small enough to be in memory, and goes into the ESP only when all of it is
//! there and has the digest of the release document.

use std::io;

use super::error::DeltaError;
use super::runs::BLOCK;
use super::travel::{Base, Traveller};
use super::{Fetched, Way};
use crate::base::device::{Device, ReadAt, SectorSize};
use crate::base::progress::Progress;
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, limits};
use crate::update::document::Uki;
use crate::update::remote::Remote;

/// Name for errors.
const FILE: &str = "the unified kernel image";

/// Fetches a unified kernel image by the shortest way from `old`, that is running, and from `bytes`, which
/// become the new one. What they hold before, of an earlier try, is not fetched again.
///
/// # Errors
/// When no way leads there; the next call with the same `bytes` goes on where this one ended.
pub fn uki(
    uki: &Uki,
    remote: &dyn Remote,
    old: Option<&[u8]>,
    bytes: &mut Vec<u8>,
    progress: &dyn Progress,
) -> Result<Fetched, DeltaError> {
    uki_by(&Way::ALL, uki, remote, old, bytes, progress)
}

/// The same by the shortest of `ways`.
///
/// # Errors
/// As those of [`uki`]; `NoPatch`.
pub fn uki_by(
    ways: &[Way],
    uki: &Uki,
    remote: &dyn Remote,
    old: Option<&[u8]>,
    bytes: &mut Vec<u8>,
    progress: &dyn Progress,
) -> Result<Fetched, DeltaError> {
    let size = uki.size;
    if size > limits::KERNEL_IMAGE {
        let what = format!("{size} bytes, of {} that are sensible", limits::KERNEL_IMAGE);
        return Err(DeltaError::Damaged { file: FILE, what });
    }
    let old = old.map(|old| (old, Digest::of(old)));
    if let Some((old, _)) = old.filter(|(_, digest)| *digest == uki.sha256) {
        *bytes = old.to_vec();
        let (reused, written) = (size, size);
        return Ok(Fetched { way: Way::Blocks, bytes: 0, requests: 0, reused, kept: 0, written });
    }
    let old = old.as_ref().map(|(old, digest)| Base { image: old, size: to_u64(old.len()), digest: *digest });
    let first = arrive(ways, uki, remote, old, bytes, progress)?;
    if Digest::of(&*bytes) == uki.sha256 {
        return Ok(first);
    }
    // Digests of runs are short, and one has misled.
    progress.warn(&format!("{FILE} became something else; all of it is fetched again"));
    bytes.clear();
    let again = arrive(&Way::ALL, uki, remote, None, bytes, progress)?;
    let (have, expected) = (Digest::of(&*bytes), uki.sha256);
    if have != expected {
        return Err(DeltaError::Digest { file: FILE, expected, have });
    }
    Ok(Fetched { bytes: first.bytes + again.bytes, requests: first.requests + again.requests, ..again })
}

fn arrive(
    ways: &[Way],
    uki: &Uki,
    remote: &dyn Remote,
    base: Option<Base>,
    bytes: &mut Vec<u8>,
    progress: &dyn Progress,
) -> Result<Fetched, DeltaError> {
    let size = to_usize(uki.size);
    bytes.resize(size.next_multiple_of(BLOCK), 0);
    let (target, fresh) = (&mut Buffer(bytes), false);
    let fetched =
        Traveller { ways: &uki.ways, size: uki.size, remote, base, target, fresh, progress }.travel(ways);
    if fetched.is_ok() {
        bytes.truncate(size);
    }
    fetched
}

/// A file that is being made, in memory.
struct Buffer<'a>(&'a mut Vec<u8>);

impl ReadAt for Buffer<'_> {
    fn size(&self) -> u64 {
        to_u64(self.0.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.as_slice().read_at(buffer, offset)
    }
}

impl Device for Buffer<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Silent;
    use crate::update::delta::testing::{Server, noise, text};
    use crate::update::delta::{How, LEVEL, make_full, make_patch, publish_uki};
    use crate::update::document::{Patch, Ways};

    fn publish(server: &mut Server, new: &[u8], before: Option<&[u8]>) -> Uki {
        let (mut full, mut frames, mut index) = (Vec::new(), Vec::new(), Vec::new());
        make_full(&new, to_u64(new.len()), (LEVEL, None), &mut full, &Silent).unwrap();
        publish_uki(new, How::at(LEVEL), &mut frames, &mut index, &Silent).unwrap();
        let patches = before.map(|before| {
            let (mut patch, sizes) = (Vec::new(), (to_u64(before.len()), to_u64(new.len())));
            make_patch(&before, sizes.0, &new, sizes.1, &mut patch, &Silent).unwrap();
            Patch { from: Digest::of(before), version: "0".to_owned(), blob: server.put(patch) }
        });
        let (full, frames, index) = (server.put(full), server.put(frames), server.put(index));
        let patches = patches.into_iter().collect();
        let ways = Ways {
            full,
            frames,
            index,
            patches,
            level: None,
            full_pieces: Vec::new(),
            frames_pieces: Vec::new(),
        };
        Uki { sha256: Digest::of(new), size: to_u64(new.len()), ways }
    }

    fn fetch(image: &Uki, server: &Server, old: Option<&[u8]>) -> Result<(Vec<u8>, Fetched), DeltaError> {
        let mut bytes = Vec::new();
        uki(image, server, old, &mut bytes, &Silent).map(|fetched| (bytes, fetched))
    }

    /// A stub, a command line, and then what nothing compresses; the end is in the middle of a block.
    fn image(cmdline: &str, rest: u64) -> Vec<u8> {
        let mut line = cmdline.as_bytes().to_vec();
        line.resize(BLOCK, 0);
        [text(1, 22 * BLOCK), line, noise(rest, 200 * BLOCK + 100)].concat()
    }

    #[test]
    fn each_way_leads_there() {
        let (before, after) = (image("roothash=1", 2), image("roothash=another", 2));
        let mut server = Server::default();
        let published = publish(&mut server, &after, Some(&before));
        let ways = published.ways.clone();
        let patch = ways.patches[0].blob;
        assert!(patch.size < 300, "{}", patch.size);
        let (bytes, fetched) = fetch(&published, &server, Some(&before)).unwrap();
        assert_eq!((bytes == after, fetched.way, fetched.bytes), (true, Way::Patch, patch.size));
        let (bytes, fetched) = fetch(&published, &server, None).unwrap();
        assert_eq!((bytes == after, fetched.way, fetched.bytes), (true, Way::Full, ways.full.size));
        let (bytes, fetched) = fetch(&published, &server, Some(&after)).unwrap();
        assert_eq!((bytes == after, fetched.bytes), (true, 0));

        // From a version that no patch is from, with another command line.
        let other = image("roothash=0 quiet", 2);
        let (bytes, fetched) = fetch(&published, &server, Some(&other)).unwrap();
        assert_eq!((bytes == after, fetched.way), (true, Way::Blocks));
        assert!(fetched.bytes < ways.index.size + 7 * 256 + 100, "{fetched:?}");
        assert_eq!(
            fetched.reused + to_u64(BLOCK),
            to_u64(after.len()).next_multiple_of(to_u64(BLOCK)) - to_u64(BLOCK)
        );
        // From one with nothing in common but the stub.
        let (bytes, fetched) = fetch(&published, &server, Some(&image("roothash=0", 9))).unwrap();
        assert_eq!((bytes == after, fetched.way), (true, Way::Full));
        assert!(fetched.bytes <= ways.index.size + ways.full.size);
    }

    #[test]
    fn a_server_without_ranges_gives_all_of_one_file() {
        let (before, after) = (image("roothash=1", 2), image("roothash=another", 2));
        let mut server = Server { knows_no_ranges: true, ..Server::default() };
        let published = publish(&mut server, &after, None);
        let (bytes, fetched) = fetch(&published, &server, Some(&before)).unwrap();
        let most = published.ways.index.size + published.ways.full.size.max(published.ways.frames.size);
        assert!(bytes == after && fetched.bytes <= most, "{fetched:?}");
    }

    #[test]
    fn goes_on_with_what_there_is() {
        // Of at least four segments.
        let after = noise(3, 12_000 * BLOCK);
        let mut server = Server::default();
        let published = publish(&mut server, &after, None);
        for way in [Way::Full, Way::Blocks] {
            let mut bytes = Vec::new();
            server.take_log();
            server.breaks_after = Some(to_u64(after.len()) * 9 / 10);
            let mut fetch = |server: &Server| uki_by(&[way], &published, server, None, &mut bytes, &Silent);
            let broken = fetch(&server);
            assert!(matches!(broken, Err(DeltaError::Broken { .. })), "{broken:?}");
            server.breaks_after = None;
            let fetched = fetch(&server).unwrap();
            assert!(bytes == after);
            // A segment that was not whole is fetched again, and so is a run.
            assert!(fetched.bytes < to_u64(after.len()) * 3 / 10, "{fetched:?}");
        }
    }

    #[test]
    fn damage_leads_another_way_or_is_named() {
        let (before, after) = (image("roothash=1", 2), image("roothash=another", 2));
        let mut server = Server::default();
        let mut published = publish(&mut server, &after, Some(&before));
        let ways = published.ways.clone();
        server.file(&ways.patches[0].blob)[60] ^= 1;
        let (bytes, fetched) = fetch(&published, &server, Some(&before)).unwrap();
        assert_eq!((bytes == after, fetched.way), (true, Way::Blocks));
        // That of the block that is lacking, and others.
        let whole = server.files.clone();
        for at in (16..90_000).step_by(1499) {
            server.files = whole.clone();
            server.file(&ways.frames)[at] ^= 1;
            assert!(fetch(&published, &server, Some(&before)).unwrap().0 == after, "byte {at}");
        }
        server.file(&ways.frames).truncate(5000);
        let (bytes, fetched) = fetch(&published, &server, Some(&before)).unwrap();
        assert_eq!((bytes == after, fetched.way), (true, Way::Full));
        server.file(&ways.full)[5000] ^= 1;
        let error = fetch(&published, &server, Some(&before)).unwrap_err().to_string();
        assert!(error.starts_with("segment 0 of the whole image, at its byte 48, is damaged: "), "{error}");
        published.size = u64::MAX;
        assert!(fetch(&published, &server, None).is_err());
    }

    /// A digest that fits something else, as only an unlucky one does: all of it is fetched, and what is no
    /// better then is refused.
    #[test]
    fn what_became_something_else_is_fetched_again() {
        let (before, after) = (image("roothash=1", 2), image("roothash=another", 2));
        let mut server = Server::default();
        let mut published = publish(&mut server, &after, None);
        let other = publish(&mut server, &image("roothash=other", 2), None);
        (published.ways.index, published.ways.frames) = (other.ways.index, other.ways.frames);
        let (bytes, fetched) = fetch(&published, &server, Some(&before)).unwrap();
        assert_eq!((bytes == after, fetched.way), (true, Way::Full));
        published.ways.full = other.ways.full;
        let error = fetch(&published, &server, Some(&before)).unwrap_err().to_string();
        assert!(error.starts_with("expected the unified kernel image with digest"), "{error}");
    }
}
