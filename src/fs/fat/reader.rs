//! Reads a FAT file system, whoever wrote it, with the crate `fatfs`.

use std::io::{self, Read, Seek, Write};

use fatfs::{FileSystem, FsOptions};

/// Most entries that are listed: a damaged FAT can make a folder endless.
const ENTRY_LIMIT: usize = 65_536;
/// Deepest folder that is listed.
const DEPTH_LIMIT: usize = 32;

/// An open FAT file system.
pub struct Reader<T: Read + Write + Seek> {
    volume: FileSystem<T>,
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// From the root, without a leading slash.
    pub path: String,
    /// In bytes; nothing for a folder.
    pub size: Option<u64>,
}

/// Why a FAT file system cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not a FAT file system, or a damaged one.
    #[error("opening the FAT file system: {0}")]
    Open(#[source] io::Error),
    /// A path that is not there, or that cannot be read.
    #[error("reading {path} in the FAT file system: {source}")]
    Path {
        /// Which.
        path: String,
        /// What is wrong.
        source: io::Error,
    },
    /// A folder or a file that is larger than can be right.
    #[error("{path} in the FAT file system has more than {limit} {unit}")]
    TooMuch {
        /// Which.
        path: String,
        /// The most that is read.
        limit: usize,
        /// `entries`, `levels` or `bytes`.
        unit: &'static str,
    },
}

impl<T: Read + Write + Seek> Reader<T> {
    /// Opens a file system that begins where `volume` begins. Nothing is written to it.
    ///
    /// # Errors
    /// `Open`.
    pub fn open(mut volume: T) -> Result<Self, ReadError> {
        volume.rewind().map_err(ReadError::Open)?;
        let options = FsOptions::new().update_accessed_date(false);
        Ok(Self { volume: FileSystem::new(volume, options).map_err(ReadError::Open)? })
    }

    /// The volume's serial number.
    pub fn volume_id(&self) -> u32 {
        self.volume.volume_id()
    }

    /// The volume's label.
    pub fn label(&self) -> String {
        self.volume.volume_label()
    }

    /// Every file and folder, parents first, by name.
    ///
    /// # Errors
    /// `Path`, `TooMuch`.
    pub fn list(&self) -> Result<Vec<Listed>, ReadError> {
        let mut found = Vec::new();
        self.list_folder(&self.volume.root_dir(), "", 0, &mut found)?;
        found.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        Ok(found)
    }

    fn list_folder(
        &self,
        folder: &fatfs::Dir<'_, T>,
        path: &str,
        depth: usize,
        found: &mut Vec<Listed>,
    ) -> Result<(), ReadError> {
        if depth == DEPTH_LIMIT {
            let path = path.to_owned();
            return Err(ReadError::TooMuch { path, limit: DEPTH_LIMIT, unit: "levels" });
        }
        for (entry, count) in folder.iter().zip(0..) {
            let shown = || if path.is_empty() { "/" } else { path }.to_owned();
            let entry = entry.map_err(|source| ReadError::Path { path: shown(), source })?;
            if count == ENTRY_LIMIT || found.len() == ENTRY_LIMIT {
                return Err(ReadError::TooMuch { path: shown(), limit: ENTRY_LIMIT, unit: "entries" });
            }
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            let size = entry.is_file().then(|| entry.len());
            found.push(Listed { path: below.clone(), size });
            if entry.is_dir() {
                self.list_folder(&entry.to_dir(), &below, depth + 1, found)?;
            }
        }
        Ok(())
    }

    /// Opens a file, for reading at any place.
    ///
    /// # Errors
    /// `Path`.
    pub fn file<'r>(&'r self, path: &str) -> Result<impl Read + Seek + use<'r, T>, ReadError> {
        self.volume
            .root_dir()
            .open_file(path)
            .map_err(|source| ReadError::Path { path: path.to_owned(), source })
    }

    /// All of a file of up to `limit` bytes.
    ///
    /// # Errors
    /// `Path`, `TooMuch`.
    pub fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        self.file(path)?
            .take(limit as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| ReadError::Path { path: path.to_owned(), source })?;
        if bytes.len() > limit {
            return Err(ReadError::TooMuch { path: path.to_owned(), limit, unit: "bytes" });
        }
        Ok(bytes)
    }
}
