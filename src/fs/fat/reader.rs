//! Reads FAT32, whoever wrote it: firmware, boot loader, Linux.
//!
//! Not by the crate `fatfs`, which judges the writer in the tests: it takes cluster numbers as they come, and a
//! damaged one ends in an arithmetic overflow or an endless folder. Here every number is checked before it
//! is used, and every walk has an end.

use std::io::{self, Read, Seek, SeekFrom};

pub use super::error::ReadError;
use super::error::corrupt;
use super::folder::{self, Entry};
use super::format::RECORD_SIZE;
use super::volume::{CLUSTER_BITS, LEAST_END_OF_CHAIN, Volume};
use crate::base::on_disk::{FromBytes, le};
use crate::base::width::{to_u64, to_usize};

/// Most entries that are listed, and most records in a folder (FATGEN).
pub(super) const ENTRY_LIMIT: u64 = 65_536;
/// Deepest folder that is listed: a folder can be inside of itself.
pub(super) const DEPTH_LIMIT: usize = 32;
/// Most bytes of directories that are read for one list or file.
const LISTED_LIMIT: u64 = 64 << 20;
/// Most bytes of all paths of a list.
const NAMES_LIMIT: usize = 32 << 20;
/// Bytes of the FAT that are kept, since chains mostly run on.
const FAT_BLOCK: u64 = 4096;

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// From the root, without a leading slash.
    pub path: String,
    /// In bytes; nothing for a folder.
    pub size: Option<u64>,
}

/// An open FAT32 file system.
#[derive(Debug)]
pub struct Reader<T> {
    source: T,
    volume: Volume,
    /// A block of the FAT and where it begins.
    cached: (u64, Vec<u8>),
    /// Bytes of directories that may still be read: the same one can lie in many.
    left: u64,
}

impl<T: Read + Seek> Reader<T> {
    /// Opens the file system at the start of `source`.
    ///
    /// # Errors
    /// `NotFat32`, `Io`.
    pub fn open(mut source: T) -> Result<Self, ReadError> {
        let mut sector = [0; 512];
        let io = |source| ReadError::Io { path: "/".to_owned(), source };
        let end = source.seek(SeekFrom::End(0)).map_err(io)?;
        source.rewind().map_err(io)?;
        source.read_exact(&mut sector).map_err(io)?;
        Ok(Self { source, volume: Volume::new(&sector, end)?, cached: (0, Vec::new()), left: LISTED_LIMIT })
    }

    /// Every file and folder, parents first, by name.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn list(&mut self) -> Result<Vec<Listed>, ReadError> {
        let mut found = Vec::new();
        let mut names = 0;
        self.left = LISTED_LIMIT;
        let mut pending = vec![(String::new(), self.volume.root, 0)];
        while let Some((folder, start, depth)) = pending.pop() {
            let corrupt = |problem: &str| corrupt(&folder, problem.to_owned());
            for entry in self.folder(start, &folder)? {
                names += folder.len() + entry.name.len();
                if names > NAMES_LIMIT {
                    return Err(corrupt("the names of all files are too long"));
                }
                let path = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
                if entry.size.is_none() {
                    if depth == DEPTH_LIMIT {
                        return Err(corrupt("directories are too deep"));
                    }
                    pending.push((path.clone(), entry.start, depth + 1));
                }
                found.push(Listed { path, size: entry.size });
            }
            if to_u64(found.len()) > ENTRY_LIMIT {
                return Err(corrupt("there are too many files"));
            }
        }
        found.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        Ok(found)
    }

    /// The file system's label: of the root folder, which all tools change, else of the boot sector.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn label(&mut self) -> Result<String, ReadError> {
        self.left = LISTED_LIMIT;
        let bytes = self.records(self.volume.root, "")?;
        Ok(folder::label(&bytes).unwrap_or_else(|| self.volume.label.clone()))
    }

    /// Opens a file, for reading at any place. Case is ignored, as FAT does.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Io`.
    pub fn file(&mut self, path: &str) -> Result<FileReader<'_, T>, ReadError> {
        let not_found = || ReadError::NotFound { path: path.to_owned() };
        let (mut start, mut size) = (self.volume.root, None);
        self.left = LISTED_LIMIT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if size.is_some() {
                return Err(not_found());
            }
            let entries = self.folder(start, path)?;
            let found = entries.into_iter().find(|entry| entry.has_name(part)).ok_or_else(not_found)?;
            (start, size) = (found.start, found.size);
        }
        let size = size.ok_or_else(not_found)?;
        let count = size.div_ceil(self.volume.cluster);
        let chain = if count == 0 { Vec::new() } else { self.chain(start, count, path)? };
        if to_u64(chain.len()) < count {
            return Err(corrupt(path, format!("its chain ends before its {size} bytes")));
        }
        Ok(FileReader { reader: self, chain, size, position: 0 })
    }

    /// All of a file of up to `limit` bytes.
    ///
    /// # Errors
    /// `TooLarge`; those of [`Reader::file`].
    pub fn read(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        let mut file = self.file(path)?;
        if file.size > limit {
            return Err(ReadError::TooLarge { path: path.to_owned(), size: file.size, limit });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        Ok(bytes)
    }

    /// The entries of the folder whose chain begins at `start`.
    fn folder(&mut self, start: u32, path: &str) -> Result<Vec<Entry>, ReadError> {
        Ok(folder::decode(&self.records(start, path)?).entries)
    }

    /// The records of the folder whose chain begins at `start`.
    fn records(&mut self, start: u32, path: &str) -> Result<Vec<u8>, ReadError> {
        // FAT has 0 for the root, where a folder's parent is meant.
        let start = if start == 0 { self.volume.root } else { start };
        let most = (ENTRY_LIMIT * to_u64(RECORD_SIZE)).div_ceil(self.volume.cluster);
        let chain = self.chain(start, most + 1, path)?;
        if to_u64(chain.len()) > most {
            return Err(corrupt(path, "its chain has no end".to_owned()));
        }
        let mut bytes = Vec::new();
        for cluster in chain {
            let at = bytes.len();
            self.left = self.left.checked_sub(self.volume.cluster).ok_or_else(|| {
                corrupt(path, "all directories together are too large, or one lies in many".to_owned())
            })?;
            bytes.resize(at + to_usize(self.volume.cluster), 0);
            self.read_at(&mut bytes[at..], self.volume.offset(cluster))
                .map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
            if folder::has_end(&bytes[at..]) {
                break;
            }
        }
        Ok(bytes)
    }

    /// The clusters of a chain, up to `most` of them: so much, and no more, is ever needed.
    fn chain(&mut self, start: u32, most: u64, path: &str) -> Result<Vec<u32>, ReadError> {
        let mut chain = Vec::new();
        let mut next = start;
        while next < LEAST_END_OF_CHAIN && to_u64(chain.len()) < most {
            self.volume.check(next, path)?;
            chain.push(next);
            next = self.fat_entry(next).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        }
        Ok(chain)
    }

    fn fat_entry(&mut self, cluster: u32) -> io::Result<u32> {
        let at = u64::from(cluster) * 4;
        let block = at / FAT_BLOCK * FAT_BLOCK;
        if self.cached.1.is_empty() || self.cached.0 != block {
            let mut bytes =
                vec![0; to_usize(((u64::from(self.volume.clusters) + 2) * 4 - block).min(FAT_BLOCK))];
            self.read_at(&mut bytes, self.volume.fat + block)?;
            self.cached = (block, bytes);
        }
        let entry = self.cached.1.get(to_usize(at - block)..).unwrap_or_default();
        let (entry, _) = le::U32::read_from_prefix(entry).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        Ok(entry.get() & CLUSTER_BITS)
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.source.seek(SeekFrom::Start(offset))?;
        self.source.read_exact(buffer)
    }
}

/// An open file.
#[derive(Debug)]
pub struct FileReader<'r, T> {
    reader: &'r mut Reader<T>,
    chain: Vec<u32>,
    size: u64,
    position: u64,
}

impl<T: Read + Seek> Read for FileReader<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.position).min(to_u64(buffer.len()));
        if left == 0 {
            return Ok(0);
        }
        let cluster = self.reader.volume.cluster;
        let (index, inside) = (to_usize(self.position / cluster), self.position % cluster);
        // Clusters that follow one another on the disk are read at once.
        let run = &self.chain[index..];
        let together = to_u64(run.iter().zip(run[0]..).take_while(|(actual, next)| *actual == next).count());
        let count = to_usize(left.min(together * cluster - inside));
        let offset = self.reader.volume.offset(run[0]) + inside;
        self.reader.read_at(&mut buffer[..count], offset)?;
        self.position += to_u64(count);
        Ok(count)
    }
}

impl<T> Seek for FileReader<'_, T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::fs::fat::{Options, write};
    use crate::tree::Tree;

    fn image() -> Vec<u8> {
        let options =
            Options { size: 34 << 20, sector_size: 512, volume_id: 1, label: "X".to_owned(), mtime: 0 };
        let mut tree = Tree::new(0);
        tree.file("EFI/Linux/node_1.0.0+3.efi", 0o644, vec![2; 10_000]).unwrap();
        tree.file("loader/loader.conf", 0o644, "x").unwrap();
        let mut disk = Cursor::new(vec![0; 34 << 20]);
        write(&tree, &options, &mut disk).unwrap();
        disk.into_inner()
    }

    /// All that a reader does; what comes out does not matter, only that it ends.
    fn read_all(bytes: &[u8]) -> Result<usize, ReadError> {
        let mut reader = Reader::open(Cursor::new(bytes))?;
        let files: Vec<Listed> = reader.list()?.into_iter().filter(|entry| entry.size.is_some()).collect();
        files.iter().try_fold(0, |sum, file| Ok(sum + reader.read(&file.path, 1 << 20)?.len()))
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic_or_an_endless_walk() {
        let mut bytes = image();
        assert_eq!(read_all(&bytes).unwrap(), 10_001);
        let reader = Reader::open(Cursor::new(&bytes)).unwrap();
        let (fat, root) = (to_usize(reader.volume.fat), to_usize(reader.volume.data));
        let places = (0..90).chain(510..512).chain(fat..fat + 120).chain(root..root + 5 * 512);
        let mut errors = 0;
        for at in places {
            let was = bytes[at];
            for value in [0, 1, 2, 3, 4, 0x0f, 0x10, 0x40, 0x7f, 0x80, 0xe5, 0xff] {
                bytes[at] = value;
                errors += usize::from(read_all(&bytes).is_err());
            }
            bytes[at] = was;
        }
        assert!(errors > 300, "{errors}");
    }

    /// Two thousand directories that are one, of a hundred clusters with deleted files: each would be read in full.
    #[test]
    fn one_directory_in_many() {
        let options =
            Options { size: 300 << 20, sector_size: 512, volume_id: 1, label: "X".to_owned(), mtime: 0 };
        let mut tree = Tree::new(0);
        (0..2000).for_each(|number| _ = tree.directory(format!("d{number}"), 0o755).unwrap());
        (0..6_000).for_each(|number| _ = tree.file(format!("a/{number:0100}"), 0o644, "").unwrap());
        let mut disk = Cursor::new(vec![0; 300 << 20]);
        write(&tree, &options, &mut disk).unwrap();
        let mut bytes = disk.into_inner();
        assert_eq!(Reader::open(Cursor::new(&bytes)).unwrap().list().unwrap().len(), 8_001);
        let mut reader = Reader::open(Cursor::new(&bytes)).unwrap();
        let entries = reader.folder(reader.volume.root, "").unwrap();
        let large = entries.iter().find(|entry| entry.name == "a").unwrap().start;
        let chain = reader.chain(large, 10_000, "a").unwrap();
        let (offset, cluster) =
            (|number| to_usize(reader.volume.offset(number)), to_usize(reader.volume.cluster));
        let root: Vec<u32> =
            Reader::open(Cursor::new(&bytes)).unwrap().chain(reader.volume.root, 10_000, "").unwrap();
        for place in root.iter().map(|number| offset(*number)) {
            // Each entry of the root leads to the large directory: the cluster's number, in two halves.
            for record in (place..place + cluster).step_by(RECORD_SIZE) {
                if bytes[record + 11] != 0x10 {
                    continue;
                }
                bytes[record + 20..record + 22].copy_from_slice(&((large >> 16) as u16).to_le_bytes());
                bytes[record + 26..record + 28].copy_from_slice(&(large as u16).to_le_bytes());
            }
        }
        for place in chain.iter().map(|number| offset(*number)) {
            (place..place + cluster).step_by(RECORD_SIZE).for_each(|record| bytes[record] = 0xe5);
        }
        let told = Reader::open(Cursor::new(&bytes)).unwrap().list().unwrap_err().to_string();
        assert!(told.ends_with("all directories together are too large, or one lies in many"), "{told}");
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let bytes = image();
        let text = |bytes: &[u8]| read_all(bytes).unwrap_err().to_string();
        assert_eq!(text(&[0; 512]), "no FAT32 file system: the boot sector's signature is missing");
        assert!(text(&bytes[..1 << 20]).contains("has 35651584 bytes, and its partition 1048576"));
        let mut looped = bytes.clone();
        let fat = 32 * 512;
        // The root's chain leads to itself.
        looped[fat + 8..fat + 12].copy_from_slice(&2_u32.to_le_bytes());
        assert_eq!(text(&looped), "damaged FAT file system: /: its chain has no end");
        let mut reader = Reader::open(Cursor::new(&bytes)).unwrap();
        assert_eq!(reader.label().unwrap(), "X");
        assert!(matches!(reader.read("efi/none", 9), Err(ReadError::NotFound { .. })));
        assert!(matches!(reader.read("efi/linux", 9), Err(ReadError::NotFound { .. })));
        assert!(matches!(reader.read("efi/linux/NODE_1.0.0+3.efi", 9), Err(ReadError::TooLarge { .. })));
    }
}
