//! Bytes at offsets: what partition tables, images and slots are read from and written to.
//!
//! One interface for image files, block devices and the power-cut simulation of the tests, so that the code
//! that writes on a node is the code that was cut at every point.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};

use crate::base::width::{to_u64, to_usize};

/// Logical sector size: the unit of a GPT's addresses and of what a disk writes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub enum SectorSize {
    /// 512 bytes, real or emulated: nearly every disk.
    B512,
    /// 4096 bytes: "4Kn" disks.
    B4096,
}

/// A sector size that is neither 512 nor 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a sector size of 512 or 4096 bytes, but have {bytes}")]
pub struct SectorSizeError {
    /// The size as given.
    pub bytes: u32,
}

impl SectorSize {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

impl From<SectorSize> for u32 {
    fn from(size: SectorSize) -> Self {
        match size {
            SectorSize::B512 => 512,
            SectorSize::B4096 => 4096,
        }
    }
}

impl TryFrom<u32> for SectorSize {
    type Error = SectorSizeError;

    fn try_from(bytes: u32) -> Result<Self, SectorSizeError> {
        match bytes {
            512 => Ok(Self::B512),
            4096 => Ok(Self::B4096),
            _ => Err(SectorSizeError { bytes }),
        }
    }
}

/// Something of a fixed size whose bytes can be read at any offset.
pub trait ReadAt {
    /// In bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end; else what the disk says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// A disk.
pub trait Device: ReadAt {
    /// Writes all of `bytes` at `offset`. Until [`Device::flush`] returns, any part of it may be lost.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when all that was written would survive a loss of power.
    fn flush(&mut self) -> io::Result<()>;

    /// The unit of addresses and of atomic writes.
    fn sector_size(&self) -> SectorSize;

    /// Reads what the disk has, where [`ReadAt::read_at`] may give what is only meant to be there: past the
    /// page cache. A disk's own cache cannot be passed by.
    fn read_back(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_at(buffer, offset)
    }
}

/// What several readers have together: a file, or bytes that are made as they are read.
pub trait Shared: ReadAt + Debug + Send + Sync {}

impl<T: ReadAt + Debug + Send + Sync> Shared for T {}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_at(buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_at(buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &mut T {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_at(buffer, offset)
    }
}

impl<T: Device + ?Sized> Device for &mut T {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }

    fn sector_size(&self) -> SectorSize {
        (**self).sector_size()
    }

    fn read_back(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_back(buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        to_u64(self.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// An image file or a block device.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    size: u64,
    sector_size: SectorSize,
    is_block: bool,
}

/// Bytes that are read past the page cache at once.
const PIECE: u64 = 1 << 20;
/// What the memory for that must be aligned to, in bytes: no disk asks for more than a page.
const PAGE: usize = 4096;

impl FileDevice {
    /// Takes an image file whose sectors are meant to have `sector_size`.
    pub fn image(file: File, sector_size: SectorSize) -> io::Result<Self> {
        let size = length(&file)?;
        Ok(Self { file, size, sector_size, is_block: false })
    }

    /// Takes a block device and asks it for its size and its sectors.
    ///
    /// # Errors
    /// `Unsupported` when its sectors have neither 512 nor 4096 bytes or `file` is no block device.
    pub fn block(file: File) -> io::Result<Self> {
        if !file.metadata()?.file_type().is_block_device() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "not a block device"));
        }
        let sector_size = SectorSize::try_from(rustix::fs::ioctl_blksszget(&file)?)
            .map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))?;
        let size = length(&file)?;
        Ok(Self { file, size, sector_size, is_block: true })
    }

    /// The file underneath.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Seeks instead of asking `stat`, which says 0 for block devices.
fn length(file: &File) -> io::Result<u64> {
    let mut file = file;
    file.seek(SeekFrom::End(0))
}

impl ReadAt for FileDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

impl Device for FileDevice {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| {
            // Linux keeps the pages that it could not write and takes them for written: the next try would
            // read them and find all in order.
            let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        })
    }

    fn sector_size(&self) -> SectorSize {
        self.sector_size
    }

    fn read_back(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.is_block {
            read_direct(&self.file, self.sector_size, buffer, offset)
        } else {
            self.read_at(buffer, offset)
        }
    }
}

/// Reads with O_DIRECT, which the kernel does after it has written what is still to be written there.
fn read_direct(file: &File, sector_size: SectorSize, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let end = offset.checked_add(to_u64(buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
    // A descriptor of its own: O_DIRECT on the first would take all reads and writes past the cache.
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let sector = sector_size.bytes();
    let room = to_usize((to_u64(buffer.len()) + 2 * sector).min(PIECE));
    let mut memory = vec![0; room + PAGE];
    let aligned = memory.as_ptr().align_offset(PAGE);
    let memory = &mut memory[aligned..][..room];
    let mut at = offset;
    while at < end {
        let start = at / sector * sector;
        let stop = end.next_multiple_of(sector).min(start + PIECE);
        let piece = &mut memory[..to_usize(stop - start)];
        direct.read_exact_at(piece, start)?;
        let wanted = &piece[to_usize(at - start)..to_usize(end.min(stop) - start)];
        buffer[to_usize(at - offset)..][..wanted.len()].copy_from_slice(wanted);
        at += to_u64(wanted.len());
    }
    Ok(())
}

/// A device whose reads all go past the page cache, see [`Device::read_back`].
#[derive(Clone, Copy, Debug)]
pub struct Uncached<D>(pub D);

impl<D: Device> ReadAt for Uncached<&D>
where
    D: ?Sized,
{
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_back(buffer, offset)
    }
}

/// A stretch of something, e.g. one partition, read as if it were a file of its own.
#[derive(Clone, Debug)]
pub struct Window<R> {
    inner: R,
    start: u64,
    size: u64,
    position: u64,
}

impl<R: ReadAt> Window<R> {
    /// The `size` bytes of `inner` from `start` on.
    pub fn new(inner: R, start: u64, size: u64) -> Self {
        Self { inner, start, size, position: 0 }
    }
}

impl<R> Window<R> {
    /// Where the `len` bytes at `offset` begin in what is underneath.
    fn place(&self, len: usize, offset: u64) -> io::Result<u64> {
        match offset.checked_add(to_u64(len)) {
            Some(end) if end <= self.size => Ok(self.start + offset),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<R: ReadAt> ReadAt for Window<R> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buffer, self.place(buffer.len(), offset)?)
    }
}

impl<D: Device> Device for Window<D> {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, self.place(bytes.len(), offset)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    fn sector_size(&self) -> SectorSize {
        self.inner.sector_size()
    }

    fn read_back(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_back(buffer, self.place(buffer.len(), offset)?)
    }
}

impl<R: ReadAt> Read for Window<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = to_usize(self.size.saturating_sub(self.position).min(to_u64(buffer.len())));
        self.read_at(&mut buffer[..count], self.position)?;
        self.position += to_u64(count);
        Ok(count)
    }
}

impl<R> Seek for Window<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = seek(self.position, self.size, to)?;
        Ok(self.position)
    }
}

/// Where a seek from `position` in something of `size` bytes ends.
pub(crate) fn seek(position: u64, size: u64, to: SeekFrom) -> io::Result<u64> {
    let target = match to {
        SeekFrom::Start(offset) => Some(offset),
        SeekFrom::Current(by) => position.checked_add_signed(by),
        SeekFrom::End(by) => size.checked_add_signed(by),
    };
    target.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_where_it_ends() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut window = Window::new(bytes.as_slice(), 10, 20);
        let mut all = Vec::new();
        window.read_to_end(&mut all).unwrap();
        assert_eq!(all, bytes[10..30]);
        assert!(ReadAt::read_at(&window, &mut [0; 2], 19).is_err());
        assert_eq!(window.seek(SeekFrom::End(-1)).unwrap(), 19);
        assert_eq!(window.read(&mut [0; 9]).unwrap(), 1);
        assert!(window.seek(SeekFrom::Current(-99)).is_err());
    }

    #[test]
    fn past_the_page_cache_come_the_same_bytes_from_any_place() {
        let bytes: Vec<u8> = (0..3 << 20).map(|at: u32| (at / 7) as u8).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, &bytes).unwrap();
        let file = File::open(path).unwrap();
        let ranges = [(0, 512), (0, bytes.len()), (511, 2), (4095, (2 << 20) + 3), (bytes.len() - 5, 5)];
        for (offset, len) in ranges {
            let mut read = vec![0; len];
            match read_direct(&file, SectorSize::B512, &mut read, to_u64(offset)) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    println!("SKIPPED: this file system has no O_DIRECT");
                    return;
                }
                result => result.unwrap(),
            }
            assert!(read == bytes[offset..offset + len], "{len} bytes at {offset}");
        }
        let past = read_direct(&file, SectorSize::B512, &mut [0; 2], to_u64(bytes.len()) - 1);
        assert_eq!(past.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
