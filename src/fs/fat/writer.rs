//! A whole FAT32 file system out of a tree. Everything is placed before the first byte is written; every
//! chain is one run of clusters, folders first.

use std::io::{BufWriter, Seek, SeekFrom, Write};

use super::format::{self, DosTime, RECORD_SIZE};
use super::geometry::Geometry;
use super::names::{self, Name, Short};
use super::{FatError, Options};
use crate::base::align;
use crate::base::on_disk::IntoBytes;
use crate::base::width::{to_u64, to_usize};
use crate::tree::{Content, Kind, NodeId, Tree};

/// Most bytes of a file: its size field has 32 bits.
const FILE_LIMIT: u64 = u32::MAX as u64;
/// Most records of a folder: 2 MiB (FATGEN, "FAT Directory Structure").
const RECORD_LIMIT: u64 = 65_536;
/// Bytes of a file that are in memory at once.
const CHUNK: usize = 1 << 20;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of clusters in use.
    pub used: u64,
    /// Bytes of all clusters.
    pub capacity: u64,
}

struct Folder {
    parent: usize,
    time: DosTime,
    children: Vec<Child>,
    /// The first cluster.
    start: u32,
}

struct Child {
    name: Name,
    time: DosTime,
    target: Target,
}

enum Target {
    Folder(usize),
    File(usize),
}

struct File<'t> {
    path: String,
    content: &'t Content,
    /// The first cluster; 0 for an empty file.
    start: u32,
}

/// Writes `tree` as a FAT32 file system from the start of `out`. Only clusters that are in use are written, so that a sparse
/// file stays sparse; zeros that mean something are written, so that what it leaves out may be anything. Owners, modes and
/// attributes have no place on FAT; hard links become copies.
///
/// # Errors
/// Nodes and names that FAT does not have, a size that does not do, what the disks say.
pub fn write(tree: &Tree, options: &Options, out: &mut (impl Write + Seek)) -> Result<Summary, FatError> {
    let label = volume_label(&options.label)?;
    let (mut folders, mut files) = collect(tree)?;
    let has_label = !options.label.is_empty();
    let folder_bytes = |index: usize, folder: &Folder| {
        let own = if index == 0 { usize::from(has_label) } else { 2 };
        let records: usize = folder.children.iter().map(|child| format::record_count(&child.name)).sum();
        to_u64((own + records).max(1) * RECORD_SIZE)
    };
    let folder_sizes: Vec<u64> =
        folders.iter().enumerate().map(|(index, folder)| folder_bytes(index, folder)).collect();
    let needed = |cluster| {
        let folders = folder_sizes.iter().map(|bytes| align::units(*bytes, cluster)).sum::<u64>();
        folders + files.iter().map(|file| align::units(file.content.len(), cluster)).sum::<u64>()
    };
    let geometry = Geometry::new(options, needed)?;
    let cluster = geometry.cluster();

    let mut chains = Vec::new();
    let mut next = format::ROOT_CLUSTER;
    let mut place = |bytes: u64| {
        let count = u32::try_from(align::units(bytes, cluster)).expect("clusters have numbers of 28 bits");
        let start = if count == 0 { 0 } else { next };
        next += count;
        chains.push(count);
        start
    };
    for (folder, bytes) in folders.iter_mut().zip(folder_sizes) {
        folder.start = place(bytes);
    }
    for file in &mut files {
        file.start = place(file.content.len());
    }
    let used = next - format::ROOT_CLUSTER;

    let mut out = BufWriter::with_capacity(CHUNK, out);
    zeros(&mut out, (geometry.reserved + 2 * geometry.fat_sectors) * geometry.sector)?;
    let boot = format::boot_sector(&geometry, options.volume_id, &label);
    let info = format::fsinfo_sector(&geometry, used);
    for sector in [0, format::BACKUP_SECTOR] {
        let at = u64::from(sector) * geometry.sector;
        write_at(&mut out, at, &boot)?;
        write_at(&mut out, at + u64::from(format::FSINFO_SECTOR) * geometry.sector, &info)?;
    }
    let fat = fat(&chains);
    for copy in 0..2 {
        write_at(&mut out, (geometry.reserved + copy * geometry.fat_sectors) * geometry.sector, &fat)?;
    }
    for (index, folder) in folders.iter().enumerate() {
        let mut bytes = Vec::new();
        if index == 0 && has_label {
            let time = DosTime::new(options.mtime);
            bytes.extend(format::record(&label, format::VOLUME_LABEL, time, 0, 0).as_bytes());
        }
        bytes.extend(records(index, &folders, &files));
        // A record of zeros ends the folder.
        bytes.resize(to_usize(align::up(to_u64(bytes.len()).max(1), cluster)), 0);
        write_at(&mut out, geometry.offset(folder.start), &bytes)?;
    }
    write_files(&mut out, &files, &geometry)?;
    out.flush().map_err(FatError::Write)?;
    Ok(Summary { used: u64::from(used) * cluster, capacity: geometry.clusters * cluster })
}

/// The records of a folder, without the volume's label.
fn records(index: usize, folders: &[Folder], files: &[File<'_>]) -> Vec<u8> {
    let folder = &folders[index];
    let mut bytes = Vec::new();
    if index != 0 {
        // The root's number is written as 0 here, whatever it is.
        let above = if folder.parent == 0 { 0 } else { folders[folder.parent].start };
        let dot = |name, start| format::record(name, format::DIRECTORY, folder.time, start, 0);
        bytes.extend([dot(b".          ", folder.start), dot(b"..         ", above)].as_bytes());
    }
    for Child { name, time, target } in &folder.children {
        bytes.extend(format::long_records(name));
        let record = match target {
            Target::Folder(index) => {
                format::record(&name.short, format::DIRECTORY, *time, folders[*index].start, 0)
            }
            Target::File(index) => {
                let File { content, start, .. } = &files[*index];
                let size = u32::try_from(content.len()).expect("longer ones were refused");
                format::record(&name.short, format::ARCHIVE, *time, *start, size)
            }
        };
        bytes.extend(record.as_bytes());
    }
    bytes
}

fn write_files(
    out: &mut (impl Write + Seek),
    files: &[File<'_>],
    geometry: &Geometry,
) -> Result<(), FatError> {
    let mut buffer = vec![0; CHUNK];
    for File { path, content, start } in files.iter().filter(|file| file.start != 0) {
        out.seek(SeekFrom::Start(geometry.offset(*start))).map_err(FatError::Write)?;
        for offset in (0..content.len()).step_by(CHUNK) {
            let part = &mut buffer[..to_usize((content.len() - offset).min(to_u64(CHUNK)))];
            content.read_at(part, offset).map_err(|source| FatError::Read { path: path.clone(), source })?;
            out.write_all(part).map_err(FatError::Write)?;
        }
    }
    Ok(())
}

/// Writes `count` zeros at the start of `out`.
fn zeros(out: &mut (impl Write + Seek), count: u64) -> Result<(), FatError> {
    let buffer = vec![0; CHUNK];
    out.seek(SeekFrom::Start(0)).map_err(FatError::Write)?;
    for offset in (0..count).step_by(CHUNK) {
        let part = &buffer[..to_usize((count - offset).min(to_u64(CHUNK)))];
        out.write_all(part).map_err(FatError::Write)?;
    }
    Ok(())
}

fn write_at(out: &mut (impl Write + Seek), offset: u64, bytes: &[u8]) -> Result<(), FatError> {
    out.seek(SeekFrom::Start(offset)).and_then(|_| out.write_all(bytes)).map_err(FatError::Write)
}

/// The used part of a FAT: chains of these lengths, one behind the other.
fn fat(chains: &[u32]) -> Vec<u8> {
    let mut entries = format::RESERVED_ENTRIES.to_vec();
    for count in chains {
        for left in (0..*count).rev() {
            let next = u32::try_from(entries.len()).expect("entries have numbers of 28 bits") + 1;
            entries.push(if left == 0 { format::END_OF_CHAIN } else { next });
        }
    }
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

fn volume_label(label: &str) -> Result<Short, FatError> {
    let valid = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_- ".contains(&byte);
    if label.len() > 11 || label.starts_with(' ') || !label.bytes().all(valid) {
        return Err(FatError::Label { label: label.to_owned() });
    }
    // FATGEN, BS_VolLab: what stands there when there is none.
    let text = if label.is_empty() { "NO NAME" } else { label };
    let mut short = [b' '; 11];
    short[..text.len()].copy_from_slice(text.as_bytes());
    Ok(short)
}

/// All folders, parents first, the root at 0, and all files; each with its name and time, none with a place.
fn collect(tree: &Tree) -> Result<(Vec<Folder>, Vec<File<'_>>), FatError> {
    let root = tree.root();
    let time = |id: NodeId| DosTime::new(tree.node(id).meta.mtime);
    let mut folders = vec![Folder { parent: 0, time: time(root), children: Vec::new(), start: 0 }];
    let mut files = Vec::new();
    let mut pending = vec![(String::new(), root)];
    // Grows while it is walked: the index of a folder here is its index in `folders`.
    let mut index = 0;
    while let Some((folder, id)) = pending.get(index).cloned() {
        let ids: Vec<NodeId> = tree.children(id).map(|(_, child)| child).collect();
        let named = names::names(&folder, tree.children(id).map(|(name, _)| name))?;
        let records: u64 = named.iter().map(|(_, name)| to_u64(format::record_count(name))).sum();
        if records + 2 > RECORD_LIMIT {
            let (size, limit) = (records + 2, RECORD_LIMIT);
            return Err(FatError::TooLarge { path: folder, size, unit: "records", limit });
        }
        let mut children = Vec::with_capacity(named.len());
        for (child, (path, name)) in ids.into_iter().zip(named) {
            let target = match &tree.node(child).kind {
                Kind::Directory(_) => {
                    folders.push(Folder { parent: index, time: time(child), children: Vec::new(), start: 0 });
                    pending.push((path, child));
                    Target::Folder(folders.len() - 1)
                }
                Kind::File(content) => {
                    if content.len() > FILE_LIMIT {
                        let (size, limit) = (content.len(), FILE_LIMIT);
                        return Err(FatError::TooLarge { path, size, unit: "bytes", limit });
                    }
                    files.push(File { path, content, start: 0 });
                    Target::File(files.len() - 1)
                }
                other => return Err(FatError::Kind { path, kind: kind_name(other) }),
            };
            children.push(Child { name, time: time(child), target });
        }
        folders[index].children = children;
        index += 1;
    }
    Ok((folders, files))
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory(_) => "directory",
        Kind::File(_) => "file",
        Kind::Symlink(_) => "symbolic link",
        Kind::CharDevice(..) | Kind::BlockDevice(..) => "device",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use super::*;
    use crate::fs::fat::Reader;

    fn options(mib: u64, sector_size: u32) -> Options {
        let (label, volume_id) = ("KELLER ESP".to_owned(), 0xdead_beef);
        Options { size: mib << 20, sector_size, volume_id, label, mtime: 951_827_696 }
    }

    fn sample() -> Tree {
        let mut tree = Tree::new(951_827_696);
        tree.file("EFI/BOOT/BOOTX64.EFI", 0o644, vec![1; 100_000]).unwrap();
        tree.file("EFI/Linux/node_1.0.0+3.efi", 0o644, vec![2; (3 << 20) + 1]).unwrap();
        tree.file("loader/loader.conf", 0o644, "timeout 0\n").unwrap();
        tree.file("empty", 0o644, "").unwrap();
        tree.directory("loader/entries", 0o755).unwrap();
        tree
    }

    #[test]
    fn what_was_written_is_read() {
        for (mib, sector_size) in [(40, 512), (512, 512), (300, 4096)] {
            let options = options(mib, sector_size);
            let mut disk = Cursor::new(vec![0; to_usize(options.size)]);
            let summary = write(&sample(), &options, &mut disk).unwrap();
            assert!(summary.used < 4 << 20 && summary.capacity > 30 << 20);
            let bytes = disk.into_inner();
            let mut reader = Reader::open(Cursor::new(&bytes)).unwrap();
            let list: Vec<String> = reader
                .list()
                .unwrap()
                .into_iter()
                .map(|entry| {
                    format!("{} {}", entry.path, entry.size.map_or("/".to_owned(), |s| s.to_string()))
                })
                .collect();
            assert_eq!(
                list,
                [
                    "EFI /",
                    "EFI/BOOT /",
                    "EFI/BOOT/BOOTX64.EFI 100000",
                    "EFI/Linux /",
                    "EFI/Linux/node_1.0.0+3.efi 3145729",
                    "empty 0",
                    "loader /",
                    "loader/entries /",
                    "loader/loader.conf 10"
                ]
            );
            assert_eq!(reader.read("loader/loader.conf", 100).unwrap(), b"timeout 0\n");
            assert!(reader.read("EFI/Linux/node_1.0.0+3.efi", 4 << 20).unwrap() == vec![2; (3 << 20) + 1]);
            let theirs = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
            let mut file = theirs.root_dir().open_file("EFI/Linux/node_1.0.0+3.efi").unwrap();
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            assert!(content == vec![2; (3 << 20) + 1]);
        }
    }

    #[test]
    fn only_used_clusters_are_written() {
        /// Counts bytes and forgets them.
        struct Count(u64, u64);
        impl Write for Count {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0 += to_u64(bytes.len());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        impl Seek for Count {
            fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
                if let SeekFrom::Start(at) = to {
                    self.1 = at;
                }
                Ok(self.1)
            }
        }
        let mut count = Count(0, 0);
        let content: u64 = 100_000 + (3 << 20) + 1 + 10;
        let options = options(1024, 512);
        let geometry = Geometry::new(&options, |_| 0).unwrap();
        // Both tables are written whole: what is zero there is free.
        let tables = (geometry.reserved + 2 * geometry.fat_sectors) * geometry.sector;
        write(&sample(), &options, &mut count).unwrap();
        assert!(count.0 < tables + content + 60_000, "{} of {tables} and {content}", count.0);
    }

    #[test]
    fn refusals_name_the_path() {
        let mut out = Cursor::new(Vec::new());
        let mut tree = sample();
        tree.symlink("EFI/link", "BOOT").unwrap();
        let error = write(&tree, &options(64, 512), &mut out).unwrap_err().to_string();
        assert_eq!(error, "/EFI/link: FAT has no symbolic link, only files and directories");
        let error = write(&sample(), &options(20, 512), &mut out).unwrap_err().to_string();
        assert!(error.starts_with("20MiB is too small: ") && error.ends_with("works is 33MiB"), "{error}");
        let label = Options { label: "Größe".to_owned(), ..options(64, 512) };
        assert!(matches!(write(&sample(), &label, &mut out), Err(FatError::Label { .. })));
        assert!(out.into_inner().is_empty());
    }
}
