//! Changes a FAT32 file system that is there, so that a loss of power at any moment leaves every other file
//! whole and the one in question as it was, as it is to be, or away where its removal was asked for.
//!
//! What makes a change count is always one write of one sector, between two flushes: a record that appears,
//! is marked as deleted, or gets another first cluster. All that it leads to is on the disk before, and what
//! it no longer leads to is given up after. Clusters that no file has are free, whatever the FAT says of them:
//! the next change frees them, and makes the copies of the FAT equal to the first.
//!
//! Disks write a sector as a whole or report it as unreadable, and FAT has no protection against one that
//! does neither: the records of other files are in the same sector. But nothing here needs more than 256
//! bytes of it to change together, so that even a sector of which one half is new does no harm.
//!
//! What others may have left is taken as it comes: names in pieces over several sectors, records after the
//! end mark, two names for one chain (a rename that was cut in two), lost clusters, a wrong FSInfo. The mark
//! that the volume was not unmounted stays: this is no check of the file system. Times are not changed, and
//! 1980-01-01 for what is new. Source: FATGEN.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::ops::Range;

use super::error::{ReadError, corrupt};
use super::folder::{self, DELETED, Entry, Folder};
use super::format::{self, ARCHIVE, DIRECTORY, DosTime, RECORD_SIZE, Record, SMALL_EXTENSION, SMALL_NAME};
use super::names::{self, Name, Short};
use super::reader::{DEPTH_LIMIT, ENTRY_LIMIT, Listed, Reader};
use super::table::{Table, Used};
use super::volume::Volume;
use crate::base::device::{Device, Window};
use crate::base::on_disk::{FromBytes, IntoBytes};
use crate::base::width::{to_u64, to_usize};

/// Records that change together: 256 bytes, half of the smallest sector.
const TOGETHER: usize = 8;
/// Most bytes of a file: its size field has 32 bits.
const FILE_LIMIT: u64 = u32::MAX as u64;
/// Bytes of a file that are in memory at once.
const CHUNK: u64 = 1 << 20;

/// Why a file system was not changed, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// A name that FAT has no form for, or that takes more than 256 bytes of records.
    #[error("{path}: no name for a file here: it {problem}")]
    Name {
        /// As given.
        path: String,
        /// e.g. `ends with a dot`.
        problem: &'static str,
    },
    /// A file where there must be a directory, or the other way round.
    #[error("{path} in the FAT file system is not a {wanted}")]
    Kind {
        /// As given.
        path: String,
        /// `file` or `directory`.
        wanted: &'static str,
    },
    /// The name that a file is to get has been given.
    #[error("{path} exists already in the FAT file system")]
    Exists {
        /// With the new name.
        path: String,
    },
    /// Bytes that are not as many as the file has, or more than a sector holds.
    #[error("{path} has {size} bytes and cannot be overwritten in place by {bytes}")]
    NotInPlace {
        /// As given.
        path: String,
        /// What the file has.
        size: u64,
        /// What was given.
        bytes: u64,
    },
    /// More than 4 GiB - 1 in a file.
    #[error("{path} has {size} bytes, but FAT allows {FILE_LIMIT} at most")]
    TooLarge {
        /// As given.
        path: String,
        /// In bytes.
        size: u64,
    },
    /// No room.
    #[error("{path} takes {needed} bytes, but the FAT file system has only {free} bytes free")]
    Full {
        /// As given.
        path: String,
        /// In bytes, whole clusters.
        needed: u64,
        /// In bytes.
        free: u64,
    },
    /// A form of FAT32 that nobody makes.
    #[error("unsupported FAT file system: {problem}")]
    Unsupported {
        /// What it has.
        problem: &'static str,
    },
    /// What is there already.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What a file is to have.
    #[error("reading what {path} is to have: {source}")]
    Content {
        /// As given.
        path: String,
        /// What its source said.
        source: io::Error,
    },
    /// The disk.
    #[error("writing the FAT file system: {0}")]
    Write(#[source] io::Error),
}

type Result<T, E = EditError> = std::result::Result<T, E>;

/// An open FAT32 file system, on a partition that nobody else has open.
pub struct Editor<'d, D: Device + ?Sized> {
    device: &'d mut D,
    volume: Volume,
    table: Table,
    used: Used,
    listed: Vec<Listed>,
    /// A change did not come to its end: the disk knows more than the fields above.
    interrupted: bool,
}

impl<D: Device + ?Sized> std::fmt::Debug for Editor<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Editor").field("volume", &self.volume).finish_non_exhaustive()
    }
}

/// A folder with its records.
struct Opened {
    start: u32,
    chain: Vec<u32>,
    bytes: Vec<u8>,
    content: Folder,
}

impl Opened {
    fn records(&self) -> usize {
        self.bytes.len() / RECORD_SIZE
    }

    fn record(&self, index: usize) -> &Record {
        Record::ref_from_prefix(&self.bytes[index * RECORD_SIZE..]).expect("whole records").0
    }

    fn is_free(&self, index: usize) -> bool {
        index >= self.content.end || self.record(index).dir_name[0] == DELETED
    }

    fn find(&self, name: &str) -> Option<Entry> {
        self.content.entries.iter().find(|entry| entry.has_name(name)).cloned()
    }

    fn shorts(&self) -> BTreeSet<Short> {
        self.content.entries.iter().map(|entry| entry.short).collect()
    }

    /// The first `count` records in a row that can be written together, out of those that are `free`.
    fn room(&self, among: Range<usize>, count: usize, free: impl Fn(usize) -> bool) -> Option<Range<usize>> {
        let mut starts = among.start..(among.end + 1).saturating_sub(count);
        let fits = |start: &usize| {
            let run = *start..*start + count;
            start / TOGETHER == (run.end - 1) / TOGETHER && run.into_iter().all(&free)
        };
        starts.find(fits).map(|start| start..start + count)
    }
}

impl<'d, D: Device + ?Sized> Editor<'d, D> {
    /// Opens the file system at the start of `device` and looks at all of it, without a write.
    ///
    /// # Errors
    /// `Read`, `Unsupported`.
    pub fn open(device: &'d mut D) -> Result<Self> {
        let mut sector = [0; 512];
        let io = |source| ReadError::Io { path: "/".to_owned(), source };
        device.read_at(&mut sector, 0).map_err(io)?;
        let volume = Volume::new(&sector, device.size())?;
        if !volume.mirrored {
            return Err(EditError::Unsupported { problem: "the copies of its FAT are not kept equal" });
        }
        if volume.sector % device.sector_size().bytes() != 0 {
            return Err(EditError::Unsupported { problem: "its sectors are smaller than the disk's" });
        }
        let table = Table::read(device, &volume).map_err(io)?;
        let used = Used::none(&volume);
        let mut editor = Self { device, volume, table, used, listed: Vec::new(), interrupted: false };
        editor.survey()?;
        Ok(editor)
    }

    /// Every file and folder, parents first, by name.
    ///
    /// # Errors
    /// `Read`.
    pub fn list(&mut self) -> Result<Vec<Listed>> {
        self.recover()?;
        Ok(self.listed.clone())
    }

    /// All of a file of up to `limit` bytes.
    ///
    /// # Errors
    /// `Read`.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let window = Window::new(&*self.device, 0, self.device.size());
        Ok(Reader::open(window)?.read(path, limit)?)
    }

    /// Bytes of free clusters, those that nothing refers to included.
    pub fn free(&self) -> u64 {
        let free = self.used.free(&self.volume, &self.table, u64::MAX);
        to_u64(free.len()) * self.volume.cluster
    }

    /// Makes a file of `size` bytes out of `content`, and the folders above it, or gives a file that is there
    /// new content: before the last write it has the old one, after it the new one.
    ///
    /// # Errors
    /// `Name`, `Kind`, `TooLarge`, `Full`: nothing was written. Else `Read`, `Content`, `Write`, `Full` where
    /// a folder has to grow.
    pub fn put(&mut self, path: &str, content: &mut dyn Read, size: u64) -> Result<()> {
        let parts: Vec<&str> = parts(path).collect();
        let Some((last, folders)) = parts.split_last() else {
            return Err(EditError::Name { path: path.to_owned(), problem: "is empty" });
        };
        for part in &parts {
            named(path, part, &BTreeSet::new())?;
        }
        let in_record =
            u32::try_from(size).map_err(|_| EditError::TooLarge { path: path.to_owned(), size })?;
        self.change(|editor| {
            let count = size.div_ceil(editor.volume.cluster);
            editor.check_room(path, count)?;
            let mut folder = editor.folder(editor.volume.root, path)?;
            for part in folders {
                folder = match folder.find(part) {
                    Some(Entry { size: Some(_), .. }) => {
                        return Err(EditError::Kind { path: path.to_owned(), wanted: "directory" });
                    }
                    Some(entry) => editor.folder(entry.start, path)?,
                    None => editor.make_folder(folder, part, path)?,
                };
            }
            let old = folder.find(last);
            if old.as_ref().is_some_and(|entry| entry.size.is_none()) {
                return Err(EditError::Kind { path: path.to_owned(), wanted: "file" });
            }
            let chain = editor.allocate(path, count)?;
            editor.write_content(&chain, content, size, path)?;
            editor.link(&chain)?;
            let start = chain.first().copied().unwrap_or(0);
            match old {
                Some(entry) => {
                    let index = entry.records.end - 1;
                    let mut record = *folder.record(index);
                    record.point(start, in_record);
                    editor.write_records(&mut folder, index, record.as_bytes())
                }
                None => {
                    let name = named(path, last, &folder.shorts())?;
                    let record = format::record(&name.short, ARCHIVE, DosTime::new(0), start, in_record);
                    editor.insert(&mut folder, &name, &record, path)
                }
            }
        })
    }

    /// Removes a file; says whether there was one.
    ///
    /// # Errors
    /// `Kind` for a folder; `Read`, `Write`.
    pub fn remove(&mut self, path: &str) -> Result<bool> {
        self.change(|editor| match editor.find(path)? {
            None => Ok(false),
            Some((_, Entry { size: None, .. })) => {
                Err(EditError::Kind { path: path.to_owned(), wanted: "file" })
            }
            Some((mut folder, entry)) => editor.delete(&mut folder, entry.records).map(|()| true),
        })
    }

    /// Removes a file and overwrites what it held; says whether there was one. First it loses its size, by one write: from
    /// then on it is an empty file, and a further call goes on where this one was cut off.
    ///
    /// # Errors
    /// `Kind` for a folder; `Read`, `Write`.
    pub fn erase(&mut self, path: &str) -> Result<bool> {
        self.change(|editor| match editor.find(path)? {
            None => Ok(false),
            Some((_, Entry { size: None, .. })) => {
                Err(EditError::Kind { path: path.to_owned(), wanted: "file" })
            }
            Some((mut folder, entry)) => {
                let index = entry.records.end - 1;
                let mut record = *folder.record(index);
                // The chain stays its own until it is overwritten.
                record.point(entry.start, 0);
                editor.write_records(&mut folder, index, record.as_bytes())?;
                let chain = Used::none(&editor.volume).take(&editor.volume, &editor.table, entry.start);
                editor.write_content(&chain, &mut io::empty(), 0, path)?;
                editor.delete(&mut folder, entry.records).map(|()| true)
            }
        })
    }

    /// Gives a file or folder another name in the same folder. Where the new name has no room beside the old
    /// one, a loss of power may leave the file with both.
    ///
    /// # Errors
    /// `Name`, `Exists`, `Full` where the folder has to grow; `Read`, `Write`.
    pub fn rename(&mut self, path: &str, new_name: &str) -> Result<()> {
        self.change(|editor| {
            let not_found = || ReadError::NotFound { path: path.to_owned() };
            let (mut folder, entry) = editor.find(path)?.ok_or_else(not_found)?;
            let above = path.trim_matches('/').rsplit_once('/').map_or("", |(above, _)| above);
            let new_path = format!("{above}/{new_name}").trim_start_matches('/').to_owned();
            let name = named(&new_path, new_name, &folder.shorts())?;
            if entry.name == new_name {
                return Ok(());
            }
            if folder.find(new_name).is_some_and(|other| other != entry) {
                return Err(EditError::Exists { path: new_path });
            }
            let mut record = *folder.record(entry.records.end - 1);
            record.dir_name = name.short;
            record.dir_nt_res &= !(SMALL_NAME | SMALL_EXTENSION);

            let first = entry.records.start / TOGETHER * TOGETHER;
            let near = first..(first + TOGETHER).min(folder.records());
            let free = |index| folder.is_free(index) || entry.records.contains(&index);
            let room = match entry.records.end <= near.end {
                true => folder.room(near, format::record_count(&name), free),
                false => None,
            };
            match room {
                Some(room) => {
                    editor.clear_behind_end(&mut folder, room.end)?;
                    let both = room.start.min(entry.records.start)..room.end.max(entry.records.end);
                    let mut bytes = folder.bytes[bytes_of(&both)].to_vec();
                    for index in entry.records {
                        bytes[(index - both.start) * RECORD_SIZE] = DELETED;
                    }
                    let at = (room.start - both.start) * RECORD_SIZE;
                    let records = [format::long_records(&name).as_slice(), record.as_bytes()].concat();
                    bytes[at..at + records.len()].copy_from_slice(&records);
                    editor.write_records(&mut folder, both.start, &bytes)
                }
                None => {
                    editor.insert(&mut folder, &name, &record, path)?;
                    editor.delete(&mut folder, entry.records)
                }
            }
        })
    }

    /// Writes `bytes` over all of a file that fits into a sector, by one write of this sector: for content
    /// that has a checksum of its own.
    ///
    /// # Errors
    /// `NotInPlace`, `Read`, `Write`.
    pub fn overwrite(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.recover()?;
        let not_found = || ReadError::NotFound { path: path.to_owned() };
        let (_, entry) = self.find(path)?.ok_or_else(not_found)?;
        let Some(size) = entry.size else {
            return Err(EditError::Kind { path: path.to_owned(), wanted: "file" });
        };
        let mut sector = vec![0; to_usize(self.device.sector_size().bytes())];
        if size != to_u64(bytes.len()) || size == 0 || bytes.len() > sector.len() {
            let path = path.to_owned();
            return Err(EditError::NotInPlace { path, size, bytes: to_u64(bytes.len()) });
        }
        self.volume.check(entry.start, path)?;
        let offset = self.volume.offset(entry.start);
        self.device.read_at(&mut sector, offset).map_err(|source| failed(path, source))?;
        sector[..bytes.len()].copy_from_slice(bytes);
        self.write(&sector, offset)?;
        self.flush()
    }

    /// Begins with a file system in order, and ends with one.
    fn change<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.recover()?;
        self.interrupted = true;
        self.settle()?;
        let result = change(self)?;
        self.survey()?;
        self.settle()?;
        self.interrupted = false;
        Ok(result)
    }

    /// Reads everything again after a change that failed.
    fn recover(&mut self) -> Result<()> {
        if self.interrupted {
            self.table = Table::read(self.device, &self.volume).map_err(|source| failed("/", source))?;
            self.survey()?;
            self.interrupted = false;
        }
        Ok(())
    }

    /// Finds out which clusters are in use, and by what.
    fn survey(&mut self) -> Result<()> {
        let mut used = Used::none(&self.volume);
        let mut listed = Vec::new();
        used.take(&self.volume, &self.table, self.volume.root);
        let mut pending = vec![(String::new(), self.volume.root, 0)];
        while let Some((above, start, depth)) = pending.pop() {
            for entry in self.folder(start, &above)?.content.entries {
                let path = if above.is_empty() { entry.name } else { format!("{above}/{}", entry.name) };
                let chain = used.take(&self.volume, &self.table, entry.start);
                // A folder that was met before is not entered again.
                if entry.size.is_none() && !chain.is_empty() {
                    if depth == DEPTH_LIMIT {
                        return Err(corrupt(&above, "directories are too deep".to_owned()).into());
                    }
                    pending.push((path.clone(), entry.start, depth + 1));
                }
                listed.push(Listed { path, size: entry.size });
            }
            if to_u64(listed.len()) > ENTRY_LIMIT {
                return Err(corrupt(&above, "there are too many files".to_owned()).into());
            }
        }
        listed.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        (self.used, self.listed) = (used, listed);
        Ok(())
    }

    /// Frees what nothing refers to, and brings the copies of the FAT and FSInfo in line.
    fn settle(&mut self) -> Result<()> {
        self.table.sweep(&self.volume, &self.used);
        let wrote = self.table.write(self.device, &self.volume).map_err(EditError::Write)?;
        let informed = self.table.write_info(self.device, &self.volume).map_err(EditError::Write)?;
        if wrote || informed { self.flush() } else { Ok(()) }
    }

    /// The folder whose chain begins at `start`. A chain that is broken ends there.
    fn folder(&self, start: u32, path: &str) -> Result<Opened, ReadError> {
        // FAT has 0 for the root, where a folder's parent is meant.
        let start = if start == 0 { self.volume.root } else { start };
        let most = to_usize((ENTRY_LIMIT * to_u64(RECORD_SIZE)).div_ceil(self.volume.cluster));
        self.volume.check(start, path)?;
        let next = |cluster: &u32| Some(self.table.get(*cluster)).filter(|next| self.volume.has(*next));
        let chain: Vec<u32> = std::iter::successors(Some(start), next).take(most + 1).collect();
        if chain.len() > most {
            return Err(corrupt(path, "its chain has no end".to_owned()));
        }
        let cluster = to_usize(self.volume.cluster);
        let mut bytes = vec![0; chain.len() * cluster];
        for (number, bytes) in chain.iter().zip(bytes.chunks_mut(cluster)) {
            let offset = self.volume.offset(*number);
            self.device.read_at(bytes, offset).map_err(|source| failed_read(path, source))?;
        }
        let content = folder::decode(&bytes);
        Ok(Opened { start, chain, bytes, content })
    }

    fn find(&self, path: &str) -> Result<Option<(Opened, Entry)>> {
        let mut at: Option<(Opened, Entry)> = None;
        for part in parts(path) {
            let start = match at {
                None => self.volume.root,
                Some((_, Entry { size: None, start, .. })) => start,
                Some(_) => return Ok(None),
            };
            let folder = self.folder(start, path)?;
            let Some(entry) = folder.find(part) else { return Ok(None) };
            at = Some((folder, entry));
        }
        Ok(at)
    }

    fn make_folder(&mut self, mut above: Opened, part: &str, path: &str) -> Result<Opened> {
        let chain = self.allocate(path, 1)?;
        let (start, time) = (chain[0], DosTime::new(0));
        // The root's number is written as 0 here, whatever it is.
        let parent = if above.start == self.volume.root { 0 } else { above.start };
        let records = [
            format::record(b".          ", DIRECTORY, time, start, 0),
            format::record(b"..         ", DIRECTORY, time, parent, 0),
        ];
        let mut bytes = records.as_bytes();
        let size = to_u64(bytes.len());
        self.write_content(&chain, &mut bytes, size, path)?;
        self.link(&chain)?;
        let name = named(path, part, &above.shorts())?;
        let record = format::record(&name.short, DIRECTORY, time, start, 0);
        self.insert(&mut above, &name, &record, path)?;
        Ok(self.folder(start, path)?)
    }

    /// Makes an entry of `name` appear. All that `short`, its last record, leads to must be on the disk.
    fn insert(&mut self, folder: &mut Opened, name: &Name, short: &Record, path: &str) -> Result<()> {
        let records = [format::long_records(name).as_slice(), short.as_bytes()].concat();
        let count = records.len() / RECORD_SIZE;
        let room = loop {
            let all = 0..folder.records();
            match folder.room(all, count, |index| folder.is_free(index)) {
                Some(room) => break room,
                None => self.extend(folder, path)?,
            }
        };
        self.clear_behind_end(folder, room.end)?;
        let gap = folder.content.end..room.start;
        if !gap.is_empty() {
            // The end mark moves on: what it leaves behind becomes records that are not in use any more.
            let mut bytes = vec![0; gap.len() * RECORD_SIZE];
            bytes.iter_mut().step_by(RECORD_SIZE).for_each(|first| *first = DELETED);
            self.write_records(folder, gap.start, &bytes)?;
        }
        self.write_records(folder, room.start, &records)
    }

    /// Clears what follows the end mark up to record `next`, included, as it will be looked at soon.
    fn clear_behind_end(&mut self, folder: &mut Opened, next: usize) -> Result<()> {
        for index in folder.content.end + 1..(next + 1).min(folder.records()) {
            if folder.record(index).dir_name[0] != 0 {
                self.write_records(folder, index, &[0; RECORD_SIZE])?;
            }
        }
        Ok(())
    }

    /// Adds an empty cluster to a folder.
    fn extend(&mut self, folder: &mut Opened, path: &str) -> Result<()> {
        if to_u64(folder.bytes.len()) + self.volume.cluster > ENTRY_LIMIT * to_u64(RECORD_SIZE) {
            return Err(corrupt(path, "its directory has as many records as there may be".to_owned()).into());
        }
        let chain = self.allocate(path, 1)?;
        self.write_content(&chain, &mut io::empty(), 0, path)?;
        self.link(&chain)?;
        let last = *folder.chain.last().expect("a folder has a cluster");
        self.table.set(last, chain[0]);
        self.write_table()?;
        *folder = self.folder(folder.start, path)?;
        Ok(())
    }

    /// Marks records as deleted: first the short one, with those that change together with it.
    fn delete(&mut self, folder: &mut Opened, records: Range<usize>) -> Result<()> {
        let mut end = records.end;
        while end > records.start {
            let part = records.start.max((end - 1) / TOGETHER * TOGETHER)..end;
            let mut bytes = folder.bytes[bytes_of(&part)].to_vec();
            bytes.iter_mut().step_by(RECORD_SIZE).for_each(|first| *first = DELETED);
            self.write_records(folder, part.start, &bytes)?;
            end = part.start;
        }
        Ok(())
    }

    /// Writes records that change together, and flushes.
    fn write_records(&mut self, folder: &mut Opened, first: usize, records: &[u8]) -> Result<()> {
        let at = first * RECORD_SIZE;
        debug_assert_eq!(first / TOGETHER, (first + records.len() / RECORD_SIZE - 1) / TOGETHER);
        folder.bytes[at..at + records.len()].copy_from_slice(records);
        folder.content = folder::decode(&folder.bytes);
        let (sector, cluster) = (to_usize(self.device.sector_size().bytes()), to_usize(self.volume.cluster));
        let start = at / sector * sector;
        let offset = self.volume.offset(folder.chain[start / cluster]) + to_u64(start % cluster);
        self.write(&folder.bytes[start..start + sector], offset)?;
        self.flush()
    }

    fn check_room(&self, path: &str, count: u64) -> Result<()> {
        let (needed, free) = (count * self.volume.cluster, self.free());
        match needed <= free {
            true => Ok(()),
            false => Err(EditError::Full { path: path.to_owned(), needed, free }),
        }
    }

    fn allocate(&mut self, path: &str, count: u64) -> Result<Vec<u32>> {
        self.check_room(path, count)?;
        let chain = self.used.free(&self.volume, &self.table, count);
        self.used.mark(&chain);
        Ok(chain)
    }

    /// Fills the clusters of `chain` with `size` bytes, then zeros, and flushes.
    fn write_content(&mut self, chain: &[u32], content: &mut dyn Read, size: u64, path: &str) -> Result<()> {
        let cluster = self.volume.cluster;
        let mut left = size;
        let runs = chain.chunk_by(|a, b| a + 1 == *b);
        for run in runs.flat_map(|run| run.chunks(to_usize((CHUNK / cluster).max(1)))) {
            let mut bytes = vec![0; run.len() * to_usize(cluster)];
            let count = left.min(to_u64(bytes.len()));
            content
                .read_exact(&mut bytes[..to_usize(count)])
                .map_err(|source| EditError::Content { path: path.to_owned(), source })?;
            left -= count;
            self.write(&bytes, self.volume.offset(run[0]))?;
        }
        if chain.is_empty() { Ok(()) } else { self.flush() }
    }

    /// Writes a chain to the FAT, and flushes: nothing leads to it yet.
    fn link(&mut self, chain: &[u32]) -> Result<()> {
        self.table.link(chain);
        if chain.is_empty() { Ok(()) } else { self.write_table() }
    }

    fn write_table(&mut self) -> Result<()> {
        self.table.write(self.device, &self.volume).map_err(EditError::Write)?;
        self.flush()
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.device.write_at(bytes, offset).map_err(EditError::Write)
    }

    fn flush(&mut self) -> Result<()> {
        self.device.flush().map_err(EditError::Write)
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

fn bytes_of(records: &Range<usize>) -> Range<usize> {
    records.start * RECORD_SIZE..records.end * RECORD_SIZE
}

/// A name for `part` of `path` in a folder that has the short names `taken`.
fn named(path: &str, part: &str, taken: &BTreeSet<Short>) -> Result<Name> {
    let wrong = |problem| EditError::Name { path: path.to_owned(), problem };
    let name = names::one_more(part, taken).map_err(wrong)?;
    match format::record_count(&name) <= TOGETHER {
        true => Ok(name),
        false => Err(wrong("has more than 91 characters, which cannot be written at once")),
    }
}

fn failed_read(path: &str, source: io::Error) -> ReadError {
    ReadError::Io { path: if path.is_empty() { "/" } else { path }.to_owned(), source }
}

fn failed(path: &str, source: io::Error) -> EditError {
    failed_read(path, source).into()
}

#[cfg(test)]
mod tests;
