//! What ELF files ask of the loader: NEEDED entries, program interpreters, and what is opened at run time as far
//! as the program says so (the note `.note.dlopen`; systemd.io, "ELF Package Metadata: dlopen").

use std::cell::Cell;

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadCacheOps, ReadRef};
use serde::Deserialize;

use crate::base::limits;
use crate::base::width::{to_u64, to_usize};
use crate::tree::Content;

/// Type of the note that lists libraries opened at run time; its owner is `FDO`.
const NOTE_DLOPEN: u32 = 0x407c_0c0a;

/// Longest name or path in a string table, in bytes: PATH_MAX, many times for a list of folders.
const MAX_STRING: u64 = 64 << 10;

/// Most segments of a file. Found: 14.
const MOST_SEGMENTS: u16 = 128;

/// What is said of a file with more headers, notes and names than [`limits::ELF`].
const TOO_MUCH: &str = "headers, notes and names of more than 256 KiB";

/// What one ELF file asks of the loader.
#[derive(Debug, Default, PartialEq)]
pub struct Object {
    /// The loader that the kernel starts for it.
    pub interpreter: Option<String>,
    /// A name that it answers to besides that of its file.
    pub soname: Option<String>,
    /// Libraries that are loaded with it.
    pub needed: Vec<String>,
    /// Directories of RUNPATH, or else of RPATH, as written.
    pub folders: Vec<String>,
    /// Without RUNPATH: what this file loads is also searched in the RPATH of whoever loaded it.
    pub passes_on: bool,
    /// Libraries that it opens while it runs.
    pub opened: Vec<Opened>,
}

/// One entry of the note: libraries of which one is enough.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Opened {
    /// Their names.
    pub soname: Vec<String>,
    /// How much they are wanted.
    #[serde(default)]
    pub priority: Priority,
    /// What they are for, in a word.
    #[serde(default)]
    pub feature: String,
    /// What they are for.
    #[serde(default)]
    pub description: String,
}

/// How much a library is wanted that is opened at run time.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Nothing works without it.
    Required,
    /// A usual feature.
    #[default]
    Recommended,
    /// A rare feature.
    Suggested,
}

impl Object {
    /// Reads the headers of `content`; nothing for what is not linked for this machine: kernel modules,
    /// programs of the BPF machine, libraries of other architectures.
    pub fn read(content: &Content) -> Result<Option<Self>, &'static str> {
        let left = Cell::new(limits::ELF);
        let read = Self::read_within(content, &left);
        if left.get() == 0 { Err(TOO_MUCH) } else { read }
    }

    /// Bytes of all names.
    pub fn size(&self) -> usize {
        let names = self.needed.iter().chain(&self.folders).chain(&self.interpreter).chain(&self.soname);
        let opened = self
            .opened
            .iter()
            .flat_map(|opened| opened.soname.iter().chain([&opened.feature, &opened.description]));
        names.chain(opened).map(|name| name.len() + size_of::<String>()).sum()
    }

    /// Takes what it reads from `left`, which is 0 once there was too much.
    fn read_within(content: &Content, left: &Cell<u64>) -> Result<Option<Self>, &'static str> {
        let data = &ReadCache::new(Window { content, position: 0, left });
        let Ok(header) = elf::FileHeader64::<Endianness>::parse(data) else { return Ok(None) };
        let endian = header.endian().map_err(|_| "byte order")?;
        let kind = header.e_type(endian);
        if header.e_machine(endian) != elf::EM_X86_64 || (kind != elf::ET_EXEC && kind != elf::ET_DYN) {
            return Ok(None);
        }
        // What is read goes into memory whole, so that its size is judged before.
        if header.e_phnum(endian) > MOST_SEGMENTS {
            return Err(TOO_MUCH);
        }
        let segments = header.program_headers(endian, data).map_err(|_| "program headers")?;
        let mut object = Self::default();
        for segment in segments {
            let is_read = matches!(segment.p_type(endian), elf::PT_INTERP | elf::PT_DYNAMIC | elf::PT_NOTE);
            if is_read && segment.p_filesz(endian) > left.get() {
                return Err(TOO_MUCH);
            }
            if let Some(text) = segment.interpreter(endian, data).map_err(|_| "program interpreter")? {
                object.interpreter = Some(String::from_utf8_lossy(text).into_owned());
            }
            if let Some(entries) = segment.dynamic(endian, data).map_err(|_| "dynamic segment")? {
                object.dynamic(entries, endian, segments, data, left)?;
            }
            let Some(mut notes) = segment.notes(endian, data).map_err(|_| "notes")? else { continue };
            while let Some(note) = notes.next().map_err(|_| "notes")? {
                // Segments may share their bytes, which are read once then, and parsed again and again.
                take(left, note.desc().len() as u64 + 1).map_err(|()| TOO_MUCH)?;
                if note.name() == b"FDO" && note.n_type(endian).0 == NOTE_DLOPEN {
                    let json = note.desc().split(|byte| *byte == 0).next().unwrap_or_default();
                    let opened: Vec<Opened> =
                        serde_json::from_slice(json).map_err(|_| "note of libraries")?;
                    object.opened.extend(opened);
                }
            }
        }
        Ok(Some(object))
    }

    fn dynamic<'a, R: ReadRef<'a>>(
        &mut self,
        entries: &[elf::Dyn64<Endianness>],
        endian: Endianness,
        segments: &[elf::ProgramHeader64<Endianness>],
        data: R,
        left: &Cell<u64>,
    ) -> Result<(), &'static str> {
        let address = entries.iter().find(|entry| entry.tag(endian) == elf::DT_STRTAB);
        let Some(address) = address.map(|entry| entry.val(endian)) else { return Ok(()) };
        let strings = segments
            .iter()
            .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
            .find_map(|segment| {
                let into = address.checked_sub(segment.p_vaddr(endian))?;
                (into < segment.p_filesz(endian)).then(|| segment.p_offset(endian).checked_add(into))?
            })
            .ok_or("address of the strings")?;
        let text = |entry: &elf::Dyn64<Endianness>| {
            let start = strings.checked_add(entry.val(endian)).ok_or("name of a library")?;
            let end = data.len().map_or(0, |len| len.min(start.saturating_add(MAX_STRING)));
            let bytes = data.read_bytes_at_until(start..end, 0).map_err(|()| "name of a library")?;
            take(left, bytes.len() as u64 + 1).map_err(|()| TOO_MUCH)?;
            Ok::<_, &'static str>(String::from_utf8_lossy(bytes).into_owned())
        };
        let (mut old, mut new) = (None, None);
        for entry in entries {
            match entry.tag(endian) {
                elf::DT_NULL => break,
                elf::DT_NEEDED => self.needed.push(text(entry)?),
                elf::DT_SONAME => self.soname = Some(text(entry)?),
                elf::DT_RPATH => old = Some(text(entry)?),
                elf::DT_RUNPATH => new = Some(text(entry)?),
                _ => {}
            }
        }
        self.passes_on = new.is_none();
        if let Some(folders) = new.or(old) {
            self.folders = folders.split(':').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        }
        Ok(())
    }
}

/// Takes `count` bytes from `left`, or all that is left.
fn take(left: &Cell<u64>, count: u64) -> Result<(), ()> {
    let rest = left.get().checked_sub(count);
    left.set(rest.unwrap_or(0));
    rest.map(drop).ok_or(())
}

/// Positioned reads of a [`Content`], so that a 100 MB program costs a few kilobytes.
struct Window<'a> {
    content: &'a Content,
    position: u64,
    left: &'a Cell<u64>,
}

impl ReadCacheOps for Window<'_> {
    fn len(&mut self) -> Result<u64, ()> {
        Ok(self.content.len())
    }

    fn seek(&mut self, position: u64) -> Result<u64, ()> {
        self.position = position;
        Ok(position)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        let rest = self.content.len().saturating_sub(self.position);
        let count = to_usize(rest.min(to_u64(buffer.len())));
        self.read_exact(&mut buffer[..count]).map(|()| count)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ()> {
        take(self.left, buffer.len() as u64)?;
        self.content.read_at(buffer, self.position).map_err(drop)?;
        self.position += buffer.len() as u64;
        Ok(())
    }
}
