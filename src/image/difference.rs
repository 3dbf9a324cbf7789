//! What differs between two images of one lock, as the file or structure that a person would look at first.
//!
//! The first byte that differs says little: a file of the root changes the root hash, and with it GUIDs in
//! the partition table and the command line in the ESP, which both come earlier on the disk. So the root is
//! compared first, then the ESP, then everything else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::base::width::{to_u64, to_usize};
use crate::boot::pe;
use crate::disk::gpt::{self, Entry, Table, types};
use crate::disk::{FileDevice, SectorSize, Window};
use crate::fs::{erofs, fat};
use crate::tree::{Content, Kind, NodeId, Tree, show};

/// How much is compared at once, in bytes.
const STEP: usize = 1 << 20;
/// Largest file of an ESP that is compared by itself, in bytes.
const ESP_FILE_LIMIT: u64 = 1 << 30;

/// The first byte at which two disks differ, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// From the start of the disk.
    pub offset: u64,
    /// e.g. `/etc/hosts in the root file system: byte 7`.
    pub place: String,
}

/// Compares the disks `first` and `second` whole; nothing when every byte is the same.
///
/// # Errors
/// What the disk under the images says.
pub fn first(first: &File, second: &File, sector_size: SectorSize) -> io::Result<Option<Difference>> {
    let (size, other) = (first.metadata()?.len(), second.metadata()?.len());
    if size != other {
        let place = format!("the size of the disk: {size} bytes, then {other}");
        return Ok(Some(Difference { offset: size.min(other), place }));
    }
    let read = |file: &File, buffer: &mut [u8], offset| file.read_exact_at(buffer, offset);
    let differs =
        first_byte(size, |buffer, at| read(first, buffer, at), |buffer, at| read(second, buffer, at))?;
    Ok(differs.map(|offset| Difference { offset, place: place(first, second, offset, sector_size) }))
}

/// The first offset below `size` at which what the readers give differs.
fn first_byte(
    size: u64,
    first: impl Fn(&mut [u8], u64) -> io::Result<()>,
    second: impl Fn(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<Option<u64>> {
    let step = to_usize(size.min(to_u64(STEP)));
    let (mut a, mut b) = (vec![0; step], vec![0; step]);
    let mut offset = 0;
    while offset < size {
        let count = to_usize((size - offset).min(to_u64(step)));
        first(&mut a[..count], offset)?;
        second(&mut b[..count], offset)?;
        if a[..count] != b[..count] {
            return Ok((0..count).find(|at| a[*at] != b[*at]).map(|at| offset + to_u64(at)));
        }
        offset += to_u64(count);
    }
    Ok(None)
}

/// The best name for the difference of two disks that differ at `offset`.
fn place(first: &File, second: &File, offset: u64, sector_size: SectorSize) -> String {
    let table = || "the partition table".to_owned();
    let (Some(first), Some(second)) = (Disk::read(first, sector_size), Disk::read(second, sector_size))
    else {
        return table();
    };
    let pairs = |kind| first.table.by_type(kind).zip(second.table.by_type(kind));
    for (a, b) in pairs(types::ROOT) {
        if let (Some(a), Some(b)) = (first.root(a), second.root(b))
            && let Some(found) = trees(&a, &b)
        {
            return found;
        }
    }
    for (a, b) in pairs(types::ESP) {
        if let (Some(a), Some(b)) = (first.esp(a), second.esp(b))
            && let Some(found) = esps(&a, &b)
        {
            return found;
        }
    }
    match first.table.entries.iter().find(|entry| (entry.start..entry.end()).contains(&offset)) {
        Some(Entry { number, label, start, .. }) => {
            format!("partition {number} ({label}), {} bytes in, outside of files", offset - start)
        }
        None => table(),
    }
}

/// A disk whose table could be read.
struct Disk {
    file: Arc<File>,
    device: FileDevice,
    table: Table,
}

impl Disk {
    fn read(file: &File, sector_size: SectorSize) -> Option<Self> {
        let device = FileDevice::image(file.try_clone().ok()?, sector_size).ok()?;
        let table = gpt::read(&device, sector_size).ok()?.table;
        Some(Self { file: Arc::new(file.try_clone().ok()?), device, table })
    }

    /// The tree in a partition; nothing when it is empty or no EROFS.
    fn root(&self, entry: &Entry) -> Option<Tree> {
        let content = Content::Slice { file: self.file.clone(), offset: entry.start, len: entry.size };
        erofs::Image::open(content).ok()?.tree().ok()
    }

    /// Files and folders of the ESP, by path.
    fn esp(&self, entry: &Entry) -> Option<Vec<(String, Option<Vec<u8>>)>> {
        let mut volume = fat::Reader::open(Window::new(&self.device, entry.start, entry.size)).ok()?;
        let listed = volume.list().ok()?;
        let mut read = |file: fat::reader::Listed| {
            let bytes = match file.size {
                Some(_) => Some(volume.read(&file.path, ESP_FILE_LIMIT).ok()?),
                None => None,
            };
            Some((file.path, bytes))
        };
        listed.into_iter().map(&mut read).collect()
    }
}

/// The first path at which two roots differ, and how.
fn trees(first: &Tree, second: &Tree) -> Option<String> {
    let (mut a, mut b) = (first.paths(), second.paths());
    let only = |which: &str| format!("only in the {which}");
    let (path, how) = loop {
        match (a.next(), b.next()) {
            (None, None) => return None,
            (Some((path, _)), None) => break (path, only("first")),
            (None, Some((path, _))) => break (path, only("second")),
            (Some((path, id)), Some((other, other_id))) if path == other => {
                if let Some(how) = nodes(first, id, second, other_id) {
                    break (path, how);
                }
            }
            // Both are in the same order: what comes earlier is what the other lacks.
            (Some((path, _)), Some((other, _))) => {
                break if parts(path).lt(parts(other)) {
                    (path, only("first"))
                } else {
                    (other, only("second"))
                };
            }
        }
    };
    Some(format!("/{} in the root file system: {how}", show(path)))
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

/// How two nodes of one path differ.
fn nodes(first: &Tree, id: NodeId, second: &Tree, other: NodeId) -> Option<String> {
    let (a, b) = (first.node(id), second.node(other));
    let (letter, other_letter) = (a.kind.letter(), b.kind.letter());
    if letter != other_letter {
        return Some(format!("type {letter}, then {other_letter}"));
    }
    let (m, n) = (&a.meta, &b.meta);
    if m.mode != n.mode {
        return Some(format!("mode {:04o}, then {:04o}", m.mode, n.mode));
    }
    if (m.uid, m.gid) != (n.uid, n.gid) {
        return Some(format!("owner {}:{}, then {}:{}", m.uid, m.gid, n.uid, n.gid));
    }
    if m.mtime != n.mtime {
        return Some(format!("time {}, then {}", m.mtime, n.mtime));
    }
    if m.xattrs != n.xattrs {
        return Some("extended attributes".to_owned());
    }
    match (&a.kind, &b.kind) {
        (Kind::File(a), Kind::File(b)) => contents(a, b),
        (Kind::Symlink(a), Kind::Symlink(b)) => {
            (a != b).then(|| format!("leads to {}, then to {}", show(a), show(b)))
        }
        (Kind::CharDevice(a, b), Kind::CharDevice(c, d))
        | (Kind::BlockDevice(a, b), Kind::BlockDevice(c, d)) => {
            ((a, b) != (c, d)).then(|| format!("device {a}:{b}, then {c}:{d}"))
        }
        _ => None,
    }
}

fn contents(first: &Content, second: &Content) -> Option<String> {
    let (size, other) = (first.len(), second.len());
    if size != other {
        return Some(format!("{size} bytes, then {other}"));
    }
    let differs = first_byte(size, |to, at| first.read_at(to, at), |to, at| second.read_at(to, at));
    match differs {
        Ok(at) => at.map(|at| format!("byte {at}")),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

/// The first path at which two ESPs differ, and how; for a unified kernel image its section.
fn esps(first: &[(String, Option<Vec<u8>>)], second: &[(String, Option<Vec<u8>>)]) -> Option<String> {
    let names = |files: &[(String, _)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let (a, b) = (names(first), names(second));
    if a != b {
        let path = a.iter().find(|path| !b.contains(path)).or(b.iter().find(|path| !a.contains(path)))?;
        return Some(format!("/{path} in the ESP: only in one"));
    }
    let (path, a, b) = first.iter().zip(second).find_map(|((path, a), (_, b))| {
        let (a, b) = (a.as_deref().unwrap_or_default(), b.as_deref().unwrap_or_default());
        (a != b).then_some((path, a, b))
    })?;
    let how = section(a, b).unwrap_or_else(|| match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => format!("byte {at}"),
        None => format!("{} bytes, then {}", a.len(), b.len()),
    });
    Some(format!("/{path} in the ESP: {how}"))
}

/// The first section in which two EFI programs differ.
fn section(first: &[u8], second: &[u8]) -> Option<String> {
    let bodies = |bytes: &[u8]| {
        let mut cursor = io::Cursor::new(bytes);
        let sections = pe::sections(&mut cursor).ok()?;
        let body =
            |section: pe::Section| section.read(&mut cursor).ok().map(|body| (section.name.clone(), body));
        sections.into_iter().map(body).collect::<Option<Vec<_>>>()
    };
    let (a, b) = (bodies(first)?, bodies(second)?);
    let ((name, a), (_, b)) = a.iter().zip(&b).find(|(a, b)| a != b)?;
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => Some(format!("section {name}, byte {at}")),
        None => Some(format!("section {name}, {} bytes, then {}", a.len(), b.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::inspect::tests::image;
    use super::*;
    use crate::tree::Meta;

    fn tree() -> Tree {
        let mut tree = Tree::new(0);
        tree.file("a-b", 0o644, "x").unwrap();
        tree.file("a/b", 0o644, "hello").unwrap();
        tree.symlink("l", "a-b").unwrap();
        tree
    }

    fn told(change: impl FnOnce(&mut Tree)) -> String {
        let (first, mut second) = (tree(), tree());
        change(&mut second);
        trees(&first, &second).unwrap_or_default()
    }

    #[test]
    fn files_are_named_with_what_differs() {
        assert_eq!(told(|_| ()), "");
        let file = "/a/b in the root file system:";
        assert_eq!(told(|tree| drop(tree.file("a/b", 0o644, "help!"))), format!("{file} byte 3"));
        assert_eq!(
            told(|tree| drop(tree.file("a/b", 0o600, "hello"))),
            format!("{file} mode 0644, then 0600")
        );
        assert_eq!(told(|tree| drop(tree.file("a/b", 0o644, "hi"))), format!("{file} 5 bytes, then 2"));
        assert_eq!(told(|tree| assert!(tree.remove("a/b"))), format!("{file} only in the first"));
        let link = "/l in the root file system:";
        assert_eq!(told(|tree| drop(tree.symlink("l", "c"))), format!("{link} leads to a-b, then to c"));
        assert_eq!(told(|tree| drop(tree.file("l", 0o777, ""))), format!("{link} type l, then -"));
        assert_eq!(
            told(|tree| drop(tree.file("z", 0o644, ""))),
            "/z in the root file system: only in the second"
        );
        assert_eq!(
            told(|tree| drop(tree.file("a.b", 0o644, ""))),
            "/a.b in the root file system: only in the second"
        );
        let owned = |tree: &mut Tree| tree.node_mut(tree.root()).meta = Meta::new(0o755).owned(7, 0);
        assert_eq!(told(owned), "/ in the root file system: owner 0:0, then 7:0");
    }

    /// What is said of an image in which the byte at `offset` was changed.
    fn changed(offset: u64) -> String {
        let (first, _) = image(SectorSize::B512);
        let (second, _) = image(SectorSize::B512);
        assert_eq!(super::first(&first, &second, SectorSize::B512).unwrap(), None);
        let mut byte = [0];
        second.read_exact_at(&mut byte, offset).unwrap();
        second.write_all_at(&[byte[0] ^ 1], offset).unwrap();
        let found = super::first(&first, &second, SectorSize::B512).unwrap().unwrap();
        assert_eq!(found.offset, offset);
        found.place
    }

    fn find(needle: &[u8], from: u64) -> u64 {
        let (file, _) = image(SectorSize::B512);
        let mut bytes = vec![0; 8 << 20];
        let count = file.read_at(&mut bytes, from).unwrap();
        let at = bytes[..count].windows(needle.len()).position(|window| window == needle);
        from + to_u64(at.unwrap())
    }

    #[test]
    fn bytes_of_a_disk_belong_to_something() {
        let (file, root) = image(SectorSize::B512);
        let data = find(&[7; 64], root);
        assert_eq!(changed(data + 5), "/data in the root file system: byte 5");
        let command = find(b"roothash=", 1 << 20);
        let place = changed(command + 9);
        assert_eq!(place, "/EFI/Linux/node_1.0+2-1.efi in the ESP: section .cmdline, byte 9");
        assert_eq!(changed(1 << 20), "partition 1 (esp), 0 bytes in, outside of files");
        assert_eq!(changed(7), "the partition table");
        let shorter = tempfile::tempfile().unwrap();
        let found = super::first(&file, &shorter, SectorSize::B512).unwrap().unwrap();
        assert!(found.place.starts_with("the size of the disk: "), "{}", found.place);
    }
}
