//! The disk image in memory, as it is unpacked: pages of zeros are left out, and more than is expected is refused.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::base::width::{to_u64, to_usize};
use crate::boot::live::Facts;

/// What of the image is zeros stays a hole, in pieces of this many bytes.
const PAGE: usize = 4096;

/// A disk image that is written from its begin to its end.
#[derive(Debug)]
pub(super) struct Unpacked {
    file: File,
    size: u64,
    /// Bytes that may still be in memory.
    room: u64,
    at: u64,
    /// Less than a page.
    pending: Vec<u8>,
}

impl Unpacked {
    /// A new file at `path`, with what is known of the image.
    pub(super) fn create(path: &Path, facts: &Facts) -> io::Result<Self> {
        let file = File::create(path)?;
        file.set_len(facts.size)?;
        let pending = Vec::with_capacity(PAGE);
        Ok(Self { file, size: facts.size, room: facts.content, at: 0, pending })
    }

    /// Ends it: it must be complete.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let last = std::mem::take(&mut self.pending);
        self.put(&last)?;
        match self.at == self.size {
            true => Ok(()),
            false => {
                Err(io::Error::other(format!("it has {} bytes, and should have {}", self.at, self.size)))
            }
        }
    }

    fn put(&mut self, page: &[u8]) -> io::Result<()> {
        if page.iter().any(|byte| *byte != 0) {
            let room = self.room.checked_sub(to_u64(page.len()));
            self.room = room.ok_or_else(|| io::Error::other("it has more content than it should have"))?;
            self.file.write_all_at(page, self.at)?;
        }
        self.at += to_u64(page.len());
        Ok(())
    }
}

impl Write for Unpacked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.size - self.at - to_u64(self.pending.len());
        if to_u64(bytes.len()) > left {
            return Err(io::Error::other(format!("it has more than {} bytes", self.size)));
        }
        if self.pending.is_empty() && bytes.len() >= PAGE {
            let whole = bytes.len() / PAGE * PAGE;
            bytes[..whole].chunks(PAGE).try_for_each(|page| self.put(page))?;
            return Ok(whole);
        }
        let count = bytes.len().min(PAGE - self.pending.len());
        self.pending.extend(&bytes[..count]);
        if self.pending.len() == PAGE {
            let page = std::mem::take(&mut self.pending);
            self.put(&page)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that are written at once.
pub(super) const PIECE: usize = 1 << 20;

/// Writes all of `from` to `to`.
pub(super) fn copy(mut from: impl io::Read, to: &mut Unpacked) -> io::Result<()> {
    let mut piece = vec![0; to_usize(to_u64(PIECE).min(to.size.max(1)))];
    loop {
        match from.read(&mut piece)? {
            0 => return to.finish(),
            count => to.write_all(&piece[..count])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeros_stay_holes_and_nothing_goes_beyond() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("disk");
        let facts = |size, content| Facts { size, content, source: None };
        let mut image = vec![0; (1 << 20) + 5];
        image[70_000] = 1;
        image[1 << 20] = 2;
        let mut to = Unpacked::create(&path, &facts((1 << 20) + 5, 8192)).unwrap();
        // As a decoder gives them: in pieces of any length.
        image.chunks(4999).for_each(|piece| to.write_all(piece).unwrap());
        to.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), image);
        assert_eq!(path.metadata().unwrap().blocks() * 512, 8192);

        let error = |size, content| {
            let mut to = Unpacked::create(&path, &facts(size, content)).unwrap();
            copy(&image[..], &mut to).unwrap_err().to_string()
        };
        assert_eq!(error(1 << 20, 8192), "it has more than 1048576 bytes");
        assert_eq!(error((1 << 20) + 9, 8192), "it has 1048581 bytes, and should have 1048585");
        assert_eq!(error((1 << 20) + 5, 4096), "it has more content than it should have");
    }
}
