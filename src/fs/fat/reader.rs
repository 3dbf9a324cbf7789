//! Reads FAT32, whoever wrote it: firmware, boot loader, Linux.
//!
//! Not by the crate `fatfs`, which judges the writer in the tests: it takes cluster numbers as they come, and a
//! damaged one ends in an arithmetic overflow or an endless folder. Here every number is checked before it
//! is used, and every walk has an end.

use std::io::{self, Read, Seek, SeekFrom};

use super::format::{DIRECTORY, LONG_NAME, PIECE, RECORD_SIZE, VOLUME_LABEL};
use super::names::{Short, checksum};

/// Most entries that are listed, and most records in a folder (FATGEN).
const ENTRY_LIMIT: u64 = 65_536;
/// Deepest folder that is listed: a folder can be inside of itself.
const DEPTH_LIMIT: usize = 32;
/// Bits of a FAT entry that are a cluster's number.
const CLUSTER_BITS: u32 = 0x0fff_ffff;
/// The smallest entry that ends a chain.
const END_OF_CHAIN: u32 = 0x0fff_fff8;
/// Bytes of the FAT that are kept, since chains mostly run on.
const FAT_BLOCK: u64 = 4096;

/// Why a FAT file system cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No FAT32 file system.
    #[error("no FAT32 file system: {problem}")]
    NotFat32 {
        /// e.g. `the boot sector's signature is missing`.
        problem: String,
    },
    /// A number that cannot be right.
    #[error("damaged FAT file system: {path}: {problem}")]
    Corrupt {
        /// The file or folder.
        path: String,
        /// e.g. `its chain leads to cluster 1`.
        problem: String,
    },
    /// A path that is not there.
    #[error("{path} does not exist in the FAT file system")]
    NotFound {
        /// The path.
        path: String,
    },
    /// More than the caller wants.
    #[error("{path} has {size} bytes, but at most {limit} are expected")]
    TooLarge {
        /// The path.
        path: String,
        /// In bytes.
        size: u64,
        /// In bytes.
        limit: u64,
    },
    /// The disk.
    #[error("reading {path} in the FAT file system: {source}")]
    Io {
        /// The file or folder; `/` for the file system itself.
        path: String,
        /// What the disk said.
        source: io::Error,
    },
}

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
    volume: T,
    /// Bytes in a cluster.
    cluster: u64,
    /// Where the FAT begins, in bytes.
    fat: u64,
    /// Where the first cluster, number 2, begins, in bytes.
    data: u64,
    /// Number of clusters.
    clusters: u32,
    root: u32,
    volume_id: u32,
    label: String,
    /// A block of the FAT and where it begins.
    cached: (u64, Vec<u8>),
}

/// One entry of a folder.
struct Found {
    name: String,
    start: u32,
    size: Option<u64>,
}

impl<T: Read + Seek> Reader<T> {
    /// Opens the file system at the start of `volume`.
    ///
    /// # Errors
    /// `NotFat32`, `Io`.
    pub fn open(mut volume: T) -> Result<Self, ReadError> {
        let mut sector = [0; 512];
        let io = |source| ReadError::Io { path: "/".to_owned(), source };
        let not = |problem: &str| ReadError::NotFat32 { problem: problem.to_owned() };
        let end = volume.seek(SeekFrom::End(0)).map_err(io)?;
        volume.rewind().map_err(io)?;
        volume.read_exact(&mut sector).map_err(io)?;
        let half = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
        let word = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().expect("four bytes"));
        if sector[510..] != [0x55, 0xaa] {
            return Err(not("the boot sector's signature is missing"));
        }
        let (bytes, sectors) = (half(11), u64::from(sector[13]));
        if ![512, 1024, 2048, 4096].contains(&bytes) || !sectors.is_power_of_two() {
            return Err(not("its sectors or clusters have an impossible size"));
        }
        let (fat_sectors, total) = (u64::from(word(36)), u64::from(word(32)));
        if half(17) != 0 || half(22) != 0 || fat_sectors == 0 || total == 0 {
            return Err(not("it is FAT12 or FAT16, or none at all"));
        }
        let front = half(14) + u64::from(sector[16]) * fat_sectors;
        let clusters = total.saturating_sub(front) / sectors;
        if half(14) == 0 || sector[16] == 0 || clusters == 0 || (clusters + 2) * 4 > fat_sectors * bytes {
            return Err(not("its parts do not fit into one another"));
        }
        if total * bytes > end {
            let problem = format!("it has {} bytes, and its partition {end}", total * bytes);
            return Err(ReadError::NotFat32 { problem });
        }
        let label = String::from_utf8_lossy(&sector[71..82]).trim_end().to_owned();
        let reader = Self {
            cluster: sectors * bytes,
            fat: half(14) * bytes,
            data: front * bytes,
            // Below 2^28, since every cluster has its entry in the FAT.
            clusters: u32::try_from(clusters).map_err(|_| not("it has too many clusters"))?,
            root: word(44) & CLUSTER_BITS,
            volume_id: word(67),
            label,
            cached: (0, Vec::new()),
            volume,
        };
        reader.check(reader.root, "/")?;
        Ok(reader)
    }

    /// The volume's serial number.
    pub fn volume_id(&self) -> u32 {
        self.volume_id
    }

    /// The volume's label in the boot sector.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Every file and folder, parents first, by name.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn list(&mut self) -> Result<Vec<Listed>, ReadError> {
        let mut found = Vec::new();
        let mut pending = vec![(String::new(), self.root, 0)];
        while let Some((folder, start, depth)) = pending.pop() {
            let corrupt = |problem: &str| corrupt(&folder, problem.to_owned());
            for entry in self.folder(start, &folder)? {
                let path = if folder.is_empty() { entry.name } else { format!("{folder}/{}", entry.name) };
                if entry.size.is_none() {
                    if depth == DEPTH_LIMIT {
                        return Err(corrupt("folders are too deep"));
                    }
                    pending.push((path.clone(), entry.start, depth + 1));
                }
                found.push(Listed { path, size: entry.size });
            }
            if found.len() as u64 > ENTRY_LIMIT {
                return Err(corrupt("there are too many files"));
            }
        }
        found.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        Ok(found)
    }

    /// Opens a file, for reading at any place. Case is ignored, as FAT does.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Io`.
    pub fn file(&mut self, path: &str) -> Result<FileReader<'_, T>, ReadError> {
        let not_found = || ReadError::NotFound { path: path.to_owned() };
        let mut found = Found { name: String::new(), start: self.root, size: None };
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if found.size.is_some() {
                return Err(not_found());
            }
            let entries = self.folder(found.start, path)?;
            let same = |entry: &Found| entry.name.to_lowercase() == part.to_lowercase();
            found = entries.into_iter().find(same).ok_or_else(not_found)?;
        }
        let size = found.size.ok_or_else(not_found)?;
        let count = size.div_ceil(self.cluster);
        let chain = if count == 0 { Vec::new() } else { self.chain(found.start, count, path)? };
        if (chain.len() as u64) < count {
            return Err(corrupt(path, format!("its chain ends before its {size} bytes")));
        }
        Ok(FileReader { volume: self, chain, size, position: 0 })
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
    fn folder(&mut self, start: u32, path: &str) -> Result<Vec<Found>, ReadError> {
        // FAT has 0 for the root, where a folder's parent is meant.
        let start = if start == 0 { self.root } else { start };
        let most = (ENTRY_LIMIT * RECORD_SIZE as u64).div_ceil(self.cluster);
        let chain = self.chain(start, most + 1, path)?;
        if chain.len() as u64 > most {
            return Err(corrupt(path, "its chain has no end".to_owned()));
        }
        let mut bytes = vec![0; self.cluster as usize];
        let mut entries = Vec::new();
        let mut long = LongName::default();
        for cluster in chain {
            self.read_at(&mut bytes, self.offset(cluster))
                .map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
            let (records, _) = bytes.as_chunks::<RECORD_SIZE>();
            for record in records {
                let attributes = record[11];
                match record[0] {
                    0 => return Ok(entries),
                    0xe5 => long = LongName::default(),
                    _ if attributes & 0x3f == LONG_NAME => long.piece(record),
                    _ if attributes & VOLUME_LABEL != 0 => long = LongName::default(),
                    _ => {
                        let name = std::mem::take(&mut long).name(record);
                        let half = |at: usize| u32::from(u16::from_le_bytes([record[at], record[at + 1]]));
                        let start = (half(20) << 16 | half(26)) & CLUSTER_BITS;
                        let size = u64::from(half(30) << 16 | half(28));
                        let size = (attributes & DIRECTORY == 0).then_some(size);
                        if name != "." && name != ".." {
                            entries.push(Found { name, start, size });
                        }
                    }
                }
            }
        }
        Ok(entries)
    }

    fn check(&self, cluster: u32, path: &str) -> Result<(), ReadError> {
        if cluster < 2 || cluster - 2 >= self.clusters {
            return Err(corrupt(path, format!("its chain leads to cluster {cluster}")));
        }
        Ok(())
    }

    fn offset(&self, cluster: u32) -> u64 {
        self.data + u64::from(cluster - 2) * self.cluster
    }

    /// The clusters of a chain, up to `most` of them: so much, and no more, is ever needed.
    fn chain(&mut self, start: u32, most: u64, path: &str) -> Result<Vec<u32>, ReadError> {
        let mut chain = Vec::new();
        let mut next = start;
        while next < END_OF_CHAIN && (chain.len() as u64) < most {
            self.check(next, path)?;
            chain.push(next);
            next = self.fat_entry(next).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        }
        Ok(chain)
    }

    fn fat_entry(&mut self, cluster: u32) -> io::Result<u32> {
        let at = u64::from(cluster) * 4;
        let block = at / FAT_BLOCK * FAT_BLOCK;
        if self.cached.1.is_empty() || self.cached.0 != block {
            let mut bytes = vec![0; ((u64::from(self.clusters) + 2) * 4 - block).min(FAT_BLOCK) as usize];
            self.read_at(&mut bytes, self.fat + block)?;
            self.cached = (block, bytes);
        }
        let at = (at - block) as usize;
        let entry = self.cached.1[at..at + 4].try_into().expect("four bytes");
        Ok(u32::from_le_bytes(entry) & CLUSTER_BITS)
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.volume.seek(SeekFrom::Start(offset))?;
        self.volume.read_exact(buffer)
    }
}

fn corrupt(path: &str, problem: String) -> ReadError {
    let path = if path.is_empty() { "/" } else { path }.to_owned();
    ReadError::Corrupt { path, problem }
}

/// A long name in the making: its pieces come last first, before the record that they belong to.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    /// The piece that must come next; 0 when all are there.
    expected: u8,
    sum: u8,
}

impl LongName {
    fn piece(&mut self, record: &[u8; RECORD_SIZE]) {
        let (order, last) = (record[0] & 0x3f, record[0] & 0x40 != 0);
        if last {
            *self = Self { units: Vec::new(), expected: order, sum: record[13] };
        }
        if order == 0 || order != self.expected || record[13] != self.sum {
            *self = Self::default();
            return;
        }
        let units = [&record[1..11], &record[14..26], &record[28..32]].concat();
        let (units, _) = units.as_chunks::<2>();
        let mut piece: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        debug_assert_eq!(piece.len(), PIECE);
        if last {
            let end = piece.iter().position(|unit| *unit == 0).unwrap_or(piece.len());
            piece.truncate(end);
        }
        piece.append(&mut self.units);
        self.units = piece;
        self.expected -= 1;
    }

    /// The name of the record that follows: the long one if it is whole and belongs to it, else the short.
    fn name(self, record: &[u8; RECORD_SIZE]) -> String {
        let short: &Short = record.first_chunk().expect("a record is longer than a short name");
        if self.expected == 0 && !self.units.is_empty() && self.sum == checksum(short) {
            return String::from_utf16_lossy(&self.units);
        }
        // 0x05 stands for 0xe5, which would mean "deleted"; bits 3 and 4 of the case byte for small letters.
        let part = |bytes: &[u8], small: bool| {
            let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
            if small { text.to_ascii_lowercase() } else { text }
        };
        let base = part(&short[..8], record[12] & 0x08 != 0);
        let extension = part(&short[8..], record[12] & 0x10 != 0);
        if extension.is_empty() { base } else { format!("{base}.{extension}") }
    }
}

/// An open file.
#[derive(Debug)]
pub struct FileReader<'r, T> {
    volume: &'r mut Reader<T>,
    chain: Vec<u32>,
    size: u64,
    position: u64,
}

impl<T: Read + Seek> Read for FileReader<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.position).min(buffer.len() as u64);
        if left == 0 {
            return Ok(0);
        }
        let cluster = self.volume.cluster;
        let (index, inside) = ((self.position / cluster) as usize, self.position % cluster);
        // Clusters that follow one another on the disk are read at once.
        let run = &self.chain[index..];
        let together = run.iter().zip(run[0]..).take_while(|(actual, next)| *actual == next).count() as u64;
        let count = left.min(together * cluster - inside) as usize;
        let offset = self.volume.offset(run[0]) + inside;
        self.volume.read_at(&mut buffer[..count], offset)?;
        self.position += count as u64;
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
        let (fat, root) = (reader.fat as usize, reader.data as usize);
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
        assert!(matches!(reader.read("efi/none", 9), Err(ReadError::NotFound { .. })));
        assert!(matches!(reader.read("efi/linux", 9), Err(ReadError::NotFound { .. })));
        assert!(matches!(reader.read("efi/linux/NODE_1.0.0+3.efi", 9), Err(ReadError::TooLarge { .. })));
    }
}
