//! Assembles an image file: tables first, then each partition's content at its place, the rest holes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::gpt::{self, GptError, Table};
use super::layout::{Layout, Partition, Role};
use crate::base::device::seek;
use crate::base::width::{to_u64, to_usize};

/// An image file in the making.
#[derive(Debug)]
pub struct Image<'a> {
    file: &'a File,
    layout: &'a Layout,
}

/// Why an image could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its table.
    #[error(transparent)]
    Gpt(#[from] GptError),
    /// The disk under the file.
    #[error("making an image file of {size} bytes: {source}")]
    Io {
        /// In bytes.
        size: u64,
        /// What the disk said.
        source: io::Error,
    },
}

impl<'a> Image<'a> {
    /// Makes `file` an empty disk with this layout: whatever it had is gone, partitions read as zeros.
    ///
    /// # Errors
    /// A table that does not fit the layout; what the disk says.
    pub fn create(file: &'a File, layout: &'a Layout, table: &Table) -> Result<Self, ImageError> {
        let size = layout.disk_size;
        file.set_len(0)
            .and_then(|()| file.set_len(size))
            .map_err(|source| ImageError::Io { size, source })?;
        let mut disk = file;
        gpt::create(&mut disk, table)?;
        Ok(Self { file, layout })
    }

    /// A writer for the partition of `role`. Writers have positions of their own: several may be at work
    /// in several threads.
    pub fn partition(&self, role: Role) -> PartitionWriter<'a> {
        PartitionWriter { file: self.file, partition: self.layout.partition(role), position: 0 }
    }
}

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
    /// Where the partition lies.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// The image, for writers that need the file; [`PartitionWriter::partition`] says where they may write.
    pub fn file(&self) -> &File {
        self.file
    }

    fn room(&self, wanted: usize) -> usize {
        to_usize(self.partition.size.saturating_sub(self.position).min(to_u64(wanted)))
    }
}

impl Write for PartitionWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room(bytes.len());
        if room == 0 && !bytes.is_empty() {
            let Partition { role, size, .. } = self.partition;
            let problem = format!("the partition {role} ends after {size} bytes");
            return Err(io::Error::new(io::ErrorKind::StorageFull, problem));
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
    use crate::base::device::SectorSize;
    use crate::base::{Digest, Size};
    use crate::disk::layout::Sizes;
    use crate::disk::slot::{Release, Slot};

    #[test]
    fn content_stays_inside_and_the_rest_is_holes() {
        let sizes = Sizes {
            esp: Size::mib(64),
            root: Size::mib(64),
            reserve: Some(Size::mib(64)),
            state: Size::mib(64),
            sector_size: SectorSize::B512,
        };
        let layout = Layout::plan(&sizes).unwrap();
        let release = Release { id: "x".to_owned(), version: "1".to_owned(), root_hash: Digest::of("root") };
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"what was there", 5 << 20).unwrap();
        let image = Image::create(&file, &layout, &layout.table(&release).unwrap()).unwrap();
        let mut writer = image.partition(Role::Root(Slot::A));
        writer.write_all(b"root").unwrap();
        writer.seek(SeekFrom::End(-2)).unwrap();
        let error = writer.write_all(b"end").unwrap_err();
        assert_eq!(error.to_string(), "the partition root-a ends after 67108864 bytes");
        writer.seek(SeekFrom::Start(0)).unwrap();
        let mut all = Vec::new();
        writer.read_to_end(&mut all).unwrap();
        assert_eq!((all.len(), &all[..4], &all[all.len() - 2..]), (64 << 20, &b"root"[..], &b"en"[..]));
        let found = gpt::read(
            &crate::disk::FileDevice::image(file.try_clone().unwrap(), SectorSize::B512).unwrap(),
            SectorSize::B512,
        )
        .unwrap();
        assert!(matches!(found.other, gpt::Other::Same));
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), layout.disk_size);
        assert!(metadata.blocks() * 512 < 1 << 20, "{}", metadata.blocks());
        let mut was = [0; 4];
        file.read_exact_at(&mut was, 5 << 20).unwrap();
        assert_eq!(was, [0; 4]);
    }
}
