//! `/etc/ld.so.cache`: which file has which shared library, so that the loader need not search.
//!
//! The format is glibc's `glibc-ld.so.cache1.1` (sysdeps/generic/dl-cache.h): header, entries ordered for
//! binary search, strings that share their tails, and extensions (who made it, names of glibc-hwcaps
//! folders). All numbers are little-endian. What gets in, and in which order, follows elf/ldconfig.c.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use globset::Glob;

use super::error::Error;
use crate::base::limits;
use crate::base::on_disk::{FromBytes, FromZeros, IntoBytes, le, on_disk, whole};
use crate::base::width::{to_u64, to_usize};
use crate::tree::{Content, Kind, NodeId, Tree, show};

const MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
/// In the header's flags: the file is little-endian.
const LITTLE_ENDIAN: u8 = 2;
/// FLAG_ELF_LIBC6 | FLAG_X8664_LIB64: what every x86-64 library has.
const LIBC6_X86_64: u32 = 0x0303;
const EXTENSION_MAGIC: u32 = 0xEAA4_2174;
const EXTENSION_GENERATOR: u32 = 0;
const EXTENSION_HWCAPS: u32 = 1;
/// In an entry's hwcap field: the low half is an index into the list of glibc-hwcaps names.
const HWCAP_IS_INDEX: u64 = 1 << 62;
/// Shown by `ldconfig -p` as what made the cache.
const GENERATOR: &[u8] = b"keller";
/// Folders that are searched after those of ld.so.conf, as Debian's glibc is built for amd64.
const SYSTEM_FOLDERS: [&str; 4] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"];
/// The loader itself is never looked up.
const LOADER: &[u8] = b"ld-linux-x86-64.so.2";
/// How deep ld.so.conf may include; glibc has no limit, but circles must end.
const MAX_INCLUDES: usize = 16;

on_disk! {
    /// `struct cache_file_new`.
    CacheFile: 48 bytes {
        magic_and_version: [u8; 20],
        nlibs: le::U32,
        len_strings: le::U32,
        flags: u8,
        padding_unused: [u8; 3],
        extension_offset: le::U32,
        unused: [le::U32; 3],
    }
}

on_disk! {
    /// `struct file_entry_new`.
    FileEntry: 24 bytes {
        flags: le::U32,
        /// Where its name begins.
        key: le::U32,
        /// Where its path begins.
        value: le::U32,
        osversion_unused: le::U32,
        hwcap: le::U64,
    }
}

on_disk! {
    /// `struct cache_extension`, followed by its sections.
    CacheExtension: 8 bytes {
        magic: le::U32,
        count: le::U32,
    }
}

on_disk! {
    /// `struct cache_extension_section`.
    CacheExtensionSection: 16 bytes {
        tag: le::U32,
        flags: le::U32,
        offset: le::U32,
        size: le::U32,
    }
}

on_disk! {
    /// `Elf64_Ehdr`.
    ElfHeader: 64 bytes {
        e_ident: [u8; 16],
        e_type: le::U16,
        e_machine: le::U16,
        e_version: le::U32,
        e_entry: le::U64,
        e_phoff: le::U64,
        e_shoff: le::U64,
        e_flags: le::U32,
        e_ehsize: le::U16,
        e_phentsize: le::U16,
        e_phnum: le::U16,
        e_shentsize: le::U16,
        e_shnum: le::U16,
        e_shstrndx: le::U16,
    }
}

on_disk! {
    /// `Elf64_Phdr`.
    ElfSegment: 56 bytes {
        p_type: le::U32,
        p_flags: le::U32,
        p_offset: le::U64,
        p_vaddr: le::U64,
        p_paddr: le::U64,
        p_filesz: le::U64,
        p_memsz: le::U64,
        p_align: le::U64,
    }
}

on_disk! {
    /// `Elf64_Dyn`.
    ElfDynamic: 16 bytes {
        d_tag: le::U64,
        d_val: le::U64,
    }
}

/// One library as the loader will find it.
#[derive(Debug, PartialEq)]
struct Entry {
    soname: Vec<u8>,
    path: Vec<u8>,
    /// Name of the glibc-hwcaps folder it is in.
    hwcaps: Option<Vec<u8>>,
}

/// A library file in one folder.
struct Library {
    name: Vec<u8>,
    is_link: bool,
}

/// Writes the cache, and the links by which sonames lead to their files where a package lacks them.
pub fn write(tree: &mut Tree) -> Result<(), Error> {
    let mut entries = Vec::new();
    let mut seen: BTreeSet<NodeId> = BTreeSet::new();
    let mut left = limits::LOADER_NAMES;
    for folder in folders(tree)? {
        let folder = folder.trim_end_matches('/');
        let Ok(id) = tree.resolve(folder) else { continue };
        if !seen.insert(id) {
            continue;
        }
        let hwcaps: Vec<Vec<u8>> = match tree.resolve(format!("{folder}/glibc-hwcaps")) {
            Ok(id) => tree.children(id).map(|(name, _)| name.to_vec()).collect(),
            Err(_) => Vec::new(),
        };
        for name in hwcaps {
            let below = format!("{folder}/glibc-hwcaps/{}", show(&name));
            for (soname, library) in libraries(tree, &below, &mut left)? {
                let path = [below.as_bytes(), b"/", &library.name].concat();
                entries.push(Entry { soname, path, hwcaps: Some(name.clone()) });
            }
        }
        for (soname, library) in libraries(tree, folder, &mut left)? {
            let path = [folder.as_bytes(), b"/", &soname].concat();
            if !library.is_link && library.name != soname && !tree.exists(&path) {
                tree.symlink(&path, &library.name)?;
            }
            entries.push(Entry { soname, path, hwcaps: None });
        }
    }
    entries.sort_by(order);
    tree.file("etc/ld.so.cache", 0o644, encode(&entries))?;
    Ok(())
}

/// The folders in which the loader finds libraries, in its order: those of ld.so.conf, then its own.
pub fn folders(tree: &Tree) -> Result<Vec<String>, Error> {
    let mut configuration = Configuration { folders: Vec::new(), names: limits::LOADER_NAMES, files: 0 };
    configuration.read(tree, "/etc/ld.so.conf", 0)?;
    let mut folders = configuration.folders;
    folders.extend(SYSTEM_FOLDERS.map(str::to_owned));
    Ok(folders)
}

/// What was read of ld.so.conf and of what it includes.
struct Configuration {
    folders: Vec<String>,
    files: usize,
    /// Names that may still be compared with patterns.
    names: usize,
}

/// Takes `count` from `left`, of the names that ld.so.conf at `path` has the loader look at.
fn look_at(left: &mut usize, count: usize, path: &str) -> Result<(), Error> {
    let what = || format!("what it leads to has more than {} names together", limits::LOADER_NAMES);
    *left = left.checked_sub(count).ok_or_else(|| Error::Malformed {
        path: path.to_owned(),
        line: 0,
        what: what(),
    })?;
    Ok(())
}

impl Configuration {
    /// Takes in the configuration file at `path`: the folders that it names, in order, and what it includes.
    fn read(&mut self, tree: &Tree, path: &str, depth: usize) -> Result<(), Error> {
        let malformed = |line, what| Error::Malformed { path: path.to_owned(), line, what };
        if depth > MAX_INCLUDES {
            return Err(malformed(0, "included too deep".to_owned()));
        }
        self.files += 1;
        if self.files > limits::LOADER_FILES {
            let what = format!("ld.so.conf includes more than {} files", limits::LOADER_FILES);
            return Err(malformed(0, what));
        }
        if tree.resolve(path).is_err() {
            return Ok(());
        }
        let text = tree.read(path)?;
        for (text, line) in String::from_utf8_lossy(&text).lines().zip(1..) {
            let text = text.split('#').next().unwrap_or_default().trim();
            let Some(patterns) = text.strip_prefix("include ").or_else(|| text.strip_prefix("include\t"))
            else {
                // `hwcap` lines mean nothing since glibc 2.33.
                if !text.is_empty() && !text.starts_with("hwcap ") {
                    if self.folders.len() == limits::LOADER_FOLDERS {
                        let what =
                            format!("ld.so.conf names more than {} directories", limits::LOADER_FOLDERS);
                        return Err(malformed(line, what));
                    }
                    self.folders.push(text.to_owned());
                }
                continue;
            };
            for pattern in patterns.split_whitespace() {
                let pattern =
                    if pattern.starts_with('/') { pattern.to_owned() } else { format!("/etc/{pattern}") };
                let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", &pattern));
                if name.len() > limits::NAME {
                    let what =
                        format!("a pattern has more than {} bytes, as no name of a file has", limits::NAME);
                    return Err(malformed(line, what));
                }
                // What compiling a pattern costs is like so many names.
                look_at(&mut self.names, 1000, path)?;
                let glob =
                    Glob::new(name).map_err(|error| malformed(line, error.to_string()))?.compile_matcher();
                let Ok(id) = tree.resolve(folder) else { continue };
                look_at(&mut self.names, tree.children(id).count(), path)?;
                let names = tree.children(id).map(|(name, _)| show(name));
                for name in names.filter(|name| !name.starts_with('.') && glob.is_match(name)) {
                    self.read(tree, &format!("{folder}/{name}"), depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

/// The libraries of one folder by soname: of several with one soname the newest file, else a link.
fn libraries(tree: &Tree, folder: &str, left: &mut usize) -> Result<BTreeMap<Vec<u8>, Library>, Error> {
    let mut found: BTreeMap<Vec<u8>, Library> = BTreeMap::new();
    let id = tree.resolve(folder)?;
    look_at(left, tree.children(id).count(), folder)?;
    for (name, child) in tree.children(id) {
        if !is_library_name(name) {
            continue;
        }
        let path = [folder.as_bytes(), b"/", name].concat();
        let Ok(target) = tree.resolve(&path) else { continue };
        let Kind::File(content) = &tree.node(target).kind else { continue };
        let Some(soname) = Soname::read(content).map_err(|error| Error::Malformed {
            path: show(&path),
            line: 0,
            what: error.to_string(),
        })?
        else {
            continue;
        };
        let soname = match soname {
            Soname::Named(soname) if soname == LOADER => continue,
            Soname::Named(soname) => soname,
            Soname::None => name.to_vec(),
        };
        // A link counts as one only if it is the soname's, or the `.so` for the linker.
        let is_link = matches!(tree.node(child).kind, Kind::Symlink(_))
            && (name == soname || (name.ends_with(b".so") && soname.starts_with(name)));
        let soname = if is_link { name.to_vec() } else { soname };
        match found.get_mut(&soname) {
            Some(known) => {
                let better = (!is_link && known.is_link)
                    || (is_link == known.is_link && compare_names(&known.name, name).is_lt());
                if better {
                    *known = Library { name: name.to_vec(), is_link };
                }
            }
            None => {
                found.insert(soname, Library { name: name.to_vec(), is_link });
            }
        }
    }
    Ok(found)
}

fn is_library_name(name: &[u8]) -> bool {
    let has_so = name.windows(3).any(|part| part == b".so");
    has_so && (name.starts_with(b"lib") || name.starts_with(b"ld-") || name.starts_with(b"ld."))
}

/// The order in which the loader searches: names backwards, glibc-hwcaps first.
fn order(one: &Entry, other: &Entry) -> Ordering {
    compare_names(&other.soname, &one.soname).then_with(|| match (&one.hwcaps, &other.hwcaps) {
        (Some(one), Some(other)) => one.cmp(other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    })
}

/// `_dl_cache_libcmp`: digits are compared as numbers and come after all else.
fn compare_names(one: &[u8], other: &[u8]) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        match (one.first(), other.first()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match (a.is_ascii_digit(), b.is_ascii_digit()) {
                (true, true) => {
                    let (a, b) = (take_number(&mut one), take_number(&mut other));
                    if a != b {
                        return a.cmp(&b);
                    }
                }
                (true, false) => return Ordering::Greater,
                (false, true) => return Ordering::Less,
                (false, false) if a != b => return a.cmp(b),
                (false, false) => (one, other) = (&one[1..], &other[1..]),
            },
        }
    }
}

fn take_number(text: &mut &[u8]) -> u64 {
    let mut number: u64 = 0;
    while let Some((digit, rest)) = text.split_first()
        && digit.is_ascii_digit()
    {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        *text = rest;
    }
    number
}

/// The cache file. Entries must be in [`order`].
fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut hwcaps: Vec<&[u8]> = entries.iter().filter_map(|entry| entry.hwcaps.as_deref()).collect();
    hwcaps.sort();
    hwcaps.dedup();
    let texts = entries
        .iter()
        .flat_map(|entry| [entry.soname.as_slice(), entry.path.as_slice()])
        .chain(hwcaps.iter().copied());
    let strings_start = CacheFile::SIZE + entries.len() * FileEntry::SIZE;
    let (strings, offsets) = share_tails(texts.collect());
    let narrow = |number: usize| u32::try_from(number).expect("a cache is far below 4 GiB");
    let place = |text: &[u8]| narrow(strings_start + offsets[text]);
    let extensions_start = (strings_start + strings.len()).next_multiple_of(4);

    let mut out = Vec::with_capacity(extensions_start + 128);
    let header = CacheFile {
        magic_and_version: *MAGIC,
        nlibs: narrow(entries.len()).into(),
        len_strings: narrow(strings.len()).into(),
        flags: LITTLE_ENDIAN,
        extension_offset: narrow(extensions_start).into(),
        ..CacheFile::new_zeroed()
    };
    out.extend(header.as_bytes());
    for entry in entries {
        // The ISA level stays 0, no demand: the folder's name already says what the CPU must have.
        let hwcap = entry.hwcaps.as_deref().map_or(0, |name| {
            let index = hwcaps.binary_search(&name).expect("collected above");
            HWCAP_IS_INDEX | to_u64(index)
        });
        let entry = FileEntry {
            flags: LIBC6_X86_64.into(),
            key: place(&entry.soname).into(),
            value: place(&entry.path).into(),
            osversion_unused: 0.into(),
            hwcap: hwcap.into(),
        };
        out.extend(entry.as_bytes());
    }
    out.extend(&strings);
    out.resize(extensions_start, 0);

    let count = if hwcaps.is_empty() { 1 } else { 2 };
    let names_start = extensions_start + CacheExtension::SIZE + CacheExtensionSection::SIZE * count;
    let names_size = 4 * hwcaps.len();
    out.extend(CacheExtension { magic: EXTENSION_MAGIC.into(), count: narrow(count).into() }.as_bytes());
    let mut section = |tag: u32, offset: usize, size: usize| {
        let section = CacheExtensionSection {
            tag: tag.into(),
            flags: 0.into(),
            offset: narrow(offset).into(),
            size: narrow(size).into(),
        };
        out.extend(section.as_bytes());
    };
    section(EXTENSION_GENERATOR, names_start + names_size, GENERATOR.len());
    if !hwcaps.is_empty() {
        section(EXTENSION_HWCAPS, names_start, names_size);
    }
    for name in &hwcaps {
        out.extend(place(name).to_le_bytes());
    }
    out.extend(GENERATOR);
    out
}

/// A table of NUL-terminated texts in which a text that another ends with takes no room, and where each
/// begins.
fn share_tails(mut texts: Vec<&[u8]>) -> (Vec<u8>, BTreeMap<&[u8], usize>) {
    // From their ends, a text after those that it is the end of.
    texts.sort_by(|one, other| {
        let differs = one.iter().rev().zip(other.iter().rev()).map(|(a, b)| a.cmp(b)).find(|o| o.is_ne());
        differs.unwrap_or_else(|| other.len().cmp(&one.len()))
    });
    texts.dedup();
    let mut table: Vec<u8> = Vec::new();
    let mut offsets = BTreeMap::new();
    let mut last: &[u8] = b"";
    for text in texts {
        if !last.ends_with(text) {
            table.extend(text);
            table.push(0);
            last = text;
        }
        offsets.insert(text, table.len() - 1 - text.len());
    }
    (table, offsets)
}

/// What an x86-64 shared library calls itself.
enum Soname {
    Named(Vec<u8>),
    None,
}

impl Soname {
    /// Reads only headers, not the whole file. Nothing for what is no x86-64 shared object.
    fn read(content: &Content) -> std::io::Result<Option<Self>> {
        const ELF64_LITTLE: &[u8] = b"\x7fELF\x02\x01";
        const SHARED_OBJECT: u16 = 3;
        const X86_64: u16 = 62;
        const LOAD: u32 = 1;
        const DYNAMIC: u32 = 2;
        const DT_STRTAB: u64 = 5;
        const DT_SONAME: u64 = 14;
        /// Longer than any file name.
        const LONGEST: u64 = 256;

        let read = |offset: u64, len: u64| {
            let len = len.min(limits::ELF).min(content.len().saturating_sub(offset));
            let mut bytes = vec![0; to_usize(len)];
            content.read_at(&mut bytes, offset).map(|()| bytes)
        };
        let header = read(0, to_u64(ElfHeader::SIZE))?;
        let Ok(header) = ElfHeader::ref_from_bytes(&header) else { return Ok(None) };
        let is_library = header.e_ident.starts_with(ELF64_LITTLE)
            && header.e_type == SHARED_OBJECT
            && header.e_machine == X86_64;
        if !is_library {
            return Ok(None);
        }
        let segments = read(header.e_phoff.get(), to_u64(ElfSegment::SIZE) * u64::from(header.e_phnum))?;
        let segments = whole::<ElfSegment>(&segments);
        let Some(dynamic) = segments.iter().find(|segment| segment.p_type == DYNAMIC) else {
            return Ok(None);
        };
        let dynamic = read(dynamic.p_offset.get(), dynamic.p_filesz.get())?;
        let items = whole::<ElfDynamic>(&dynamic);
        let value = |tag: u64| items.iter().find(|item| item.d_tag == tag).map(|item| item.d_val.get());
        let (Some(strings), Some(soname)) = (value(DT_STRTAB), value(DT_SONAME)) else {
            return Ok(Some(Self::None));
        };
        let offset = segments
            .iter()
            .filter(|segment| segment.p_type == LOAD)
            .find_map(|segment| {
                let into = strings.checked_sub(segment.p_vaddr.get());
                let into = into.filter(|into| *into < segment.p_filesz.get())?;
                segment.p_offset.get().checked_add(into)?.checked_add(soname)
            })
            .unwrap_or(u64::MAX);
        let mut name = read(offset, LONGEST)?;
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(0));
        Ok(Some(if name.is_empty() { Self::None } else { Self::Named(name) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_in_names() {
        assert!(compare_names(b"libfoo.so.9", b"libfoo.so.10").is_lt());
        assert!(compare_names(b"libfoo.so.1", b"libfoo.so").is_gt());
        assert!(compare_names(b"lib1.so", b"liba.so").is_gt());
        assert!(compare_names(b"libc.so.6", b"libc.so.06").is_eq());
    }

    #[test]
    fn tails_are_shared() {
        let (table, offsets) = share_tails(vec![b"libz.so.1", b"/lib/libz.so.1", b"/lib/liby.so.1"]);
        assert_eq!(table, b"/lib/liby.so.1\0/lib/libz.so.1\0");
        assert_eq!(offsets[b"libz.so.1".as_slice()], 20);
        assert_eq!(offsets[b"/lib/libz.so.1".as_slice()], 15);
    }

    #[test]
    fn entries_with_hwcaps_come_first() {
        let entry = |path: &str, hwcaps: Option<&str>| Entry {
            soname: b"liba.so.1".to_vec(),
            path: path.into(),
            hwcaps: hwcaps.map(Into::into),
        };
        let mut entries = vec![
            entry("/lib/liba.so.1", None),
            entry("/v3", Some("x86-64-v3")),
            entry("/v2", Some("x86-64-v2")),
        ];
        entries.sort_by(order);
        let paths: Vec<_> = entries.iter().map(|entry| show(&entry.path)).collect();
        assert_eq!(paths, ["/v2", "/v3", "/lib/liba.so.1"]);
        let bytes = encode(&entries);
        let cached: &[FileEntry] = whole(&bytes[CacheFile::SIZE..]);
        assert_eq!(cached[1].hwcap, HWCAP_IS_INDEX | 1);
    }
}
