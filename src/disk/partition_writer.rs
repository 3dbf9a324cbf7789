//! Fills the partitions of an image file, each at its place.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::copy_file_range;
use rustix::io::Errno;

use super::layout::Partition;
use crate::base::device::seek;
use crate::base::width::{to_u64, to_usize};

/// Bytes that are copied at once where the kernel does not do it.
const PIECE: usize = 1 << 20;

/// Reads and writes inside of one partition of an image. Positions count from the partition's start; what is
/// skipped stays a hole.
#[derive(Debug)]
pub struct PartitionWriter<'a> {
    file: &'a File,
    partition: Partition,
    position: u64,
}

impl<'a> PartitionWriter<'a> {
    /// At the start of `partition` in the image `file`.
    pub fn new(file: &'a File, partition: Partition) -> Self {
        Self { file, partition, position: 0 }
    }
}

impl PartitionWriter<'_> {
    /// Has the kernel copy the `len` bytes of `from` that begin at `offset` to where this one stands: where the file system can,
    /// both files share them from then on.
    ///
    /// # Errors
    /// `StorageFull` beyond the partition's end, `UnexpectedEof` beyond that of `from`; what the disks say.
    pub fn copy(&mut self, from: &File, offset: u64, len: u64) -> io::Result<()> {
        if len > self.partition.size.saturating_sub(self.position) {
            return Err(self.full());
        }
        let (mut there, end) = (offset, offset + len);
        while there < end {
            let mut here = self.partition.start + self.position;
            let left = to_usize(end - there);
            let copied = match copy_file_range(from, Some(&mut there), self.file, Some(&mut here), left) {
                Ok(count) => count,
                // File systems in user space, old kernels and filters of system calls.
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                    let mut piece = vec![0; left.min(PIECE)];
                    let count = from.read_at(&mut piece, there)?;
                    self.file.write_all_at(&piece[..count], here)?;
                    there += to_u64(count);
                    count
                }
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if copied == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.position += to_u64(copied);
        }
        Ok(())
    }

    fn full(&self) -> io::Error {
        let Partition { role, size, .. } = self.partition;
        let problem = format!("the partition {role} ends after {size} bytes");
        io::Error::new(io::ErrorKind::StorageFull, problem)
    }

    fn room(&self, wanted: usize) -> usize {
        to_usize(self.partition.size.saturating_sub(self.position).min(to_u64(wanted)))
    }
}

impl Write for PartitionWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room(bytes.len());
        if room == 0 && !bytes.is_empty() {
            return Err(self.full());
        }
        let count = self.file.write_at(&bytes[..room], self.partition.start + self.position)?;
        self.position += to_u64(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for PartitionWriter<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        let count = self.file.read_at(&mut buffer[..room], self.partition.start + self.position)?;
        self.position += to_u64(count);
        Ok(count)
    }
}

impl Seek for PartitionWriter<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = seek(self.position, self.partition.size, to)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::disk::layout::Role;
    use crate::disk::slot::Slot;

    #[test]
    fn content_stays_inside_and_the_rest_is_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(66 << 20).unwrap();
        file.write_all_at(b"next", 65 << 20).unwrap();
        let partition = Partition { role: Role::Root(Slot::A), start: 1 << 20, size: 64 << 20 };
        let mut writer = PartitionWriter::new(&file, partition);
        writer.write_all(b"root").unwrap();
        writer.seek(SeekFrom::End(-2)).unwrap();
        let error = writer.write_all(b"end").unwrap_err();
        assert_eq!(error.to_string(), "the partition root-a ends after 67108864 bytes");
        writer.seek(SeekFrom::Start(8192)).unwrap();
        let from = tempfile::tempfile().unwrap();
        from.write_all_at(&[5; 9000], 4096).unwrap();
        writer.copy(&from, 4096, 9000).unwrap();
        writer.write_all(b"behind").unwrap();
        assert_eq!(writer.copy(&from, 4096, 9001).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let error = writer.copy(&from, 0, 64 << 20).unwrap_err();
        assert_eq!(error.to_string(), "the partition root-a ends after 67108864 bytes");
        let mut copied = vec![0; 9006];
        file.read_exact_at(&mut copied, (1 << 20) + 8192).unwrap();
        assert_eq!(copied, [&[5; 9000][..], b"behind"].concat());
        writer.seek(SeekFrom::Start(0)).unwrap();
        let mut all = Vec::new();
        writer.read_to_end(&mut all).unwrap();
        assert_eq!((all.len(), &all[..4], &all[all.len() - 2..]), (64 << 20, &b"root"[..], &b"en"[..]));
        let mut next = [0; 4];
        file.read_exact_at(&mut next, 65 << 20).unwrap();
        assert_eq!(&next, b"next");
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 66 << 20);
        assert!(metadata.blocks() * 512 < 1 << 20, "{}", metadata.blocks());
    }
}
