//! Bytes at offsets: what partition tables, images and slots are read from and written to.
//!
//! One interface for image files, block devices and the power-cut simulation of the tests, so that the code
//! that writes on a node is the code that was cut at every point.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};

/// Logical sector size: the unit of a GPT's addresses and of what a disk writes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_at(buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
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
}

impl FileDevice {
    /// Takes an image file whose sectors are meant to have `sector_size`.
    pub fn image(file: File, sector_size: SectorSize) -> io::Result<Self> {
        let size = length(&file)?;
        Ok(Self { file, size, sector_size })
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
        Self::image(file, sector_size)
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
        self.file.sync_data()
    }

    fn sector_size(&self) -> SectorSize {
        self.sector_size
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

impl<R: ReadAt> ReadAt for Window<R> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.inner.read_at(buffer, self.start + offset)
    }
}

impl<R: ReadAt> Read for Window<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.size.saturating_sub(self.position).min(buffer.len() as u64) as usize;
        self.read_at(&mut buffer[..count], self.position)?;
        self.position += count as u64;
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
}
