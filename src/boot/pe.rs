//! PE32+ images, as far as a unified kernel image needs them: reading sections and appending some.
//!
//! Source: "PE Format" of Microsoft; field names are those of that document.

use std::io::{self, Read, Seek, SeekFrom};

use crate::base::align;
use crate::base::on_disk::{FromBytes, FromZeros, IntoBytes, le, on_disk};
use crate::base::width::{to_index, to_u64, to_usize};

/// The signature before the COFF header, as a number.
const SIGNATURE: u32 = u32::from_le_bytes(*b"PE\0\0");
/// `e_magic` of the MS-DOS stub, as a number.
const DOS_MAGIC: u16 = u16::from_le_bytes(*b"MZ");
/// `Magic` of an optional header with 64-bit addresses.
const PE32_PLUS: u16 = 0x20b;
/// `Machine` of x86-64.
const AMD64: u16 = 0x8664;
/// Sections that are added end on borders of so many bytes in the file: blocks of an update. One that grows or
/// shrinks leaves the blocks of those behind it as they are.
const BLOCK: u64 = 4096;
/// No image has as many; a larger number means that the bytes are no section table.
const MAX_SECTIONS: u16 = 96;

on_disk! {
    /// The header of the MS-DOS stub, of which two fields are still in use.
    DosHeader: 64 bytes {
        e_magic: le::U16,
        unused: [u8; 58],
        /// Where the signature is.
        e_lfanew: le::U32,
    }
}

on_disk! {
    /// COFF file header.
    CoffHeader: 20 bytes {
        machine: le::U16,
        number_of_sections: le::U16,
        time_date_stamp: le::U32,
        pointer_to_symbol_table: le::U32,
        number_of_symbols: le::U32,
        size_of_optional_header: le::U16,
        characteristics: le::U16,
    }
}

on_disk! {
    /// Optional header of PE32+, without its data directories.
    OptionalHeader: 112 bytes {
        magic: le::U16,
        major_linker_version: u8,
        minor_linker_version: u8,
        size_of_code: le::U32,
        size_of_initialized_data: le::U32,
        size_of_uninitialized_data: le::U32,
        address_of_entry_point: le::U32,
        base_of_code: le::U32,
        image_base: le::U64,
        section_alignment: le::U32,
        file_alignment: le::U32,
        major_operating_system_version: le::U16,
        minor_operating_system_version: le::U16,
        major_image_version: le::U16,
        minor_image_version: le::U16,
        major_subsystem_version: le::U16,
        minor_subsystem_version: le::U16,
        win32_version_value: le::U32,
        size_of_image: le::U32,
        size_of_headers: le::U32,
        check_sum: le::U32,
        subsystem: le::U16,
        dll_characteristics: le::U16,
        size_of_stack_reserve: le::U64,
        size_of_stack_commit: le::U64,
        size_of_heap_reserve: le::U64,
        size_of_heap_commit: le::U64,
        loader_flags: le::U32,
        number_of_rva_and_sizes: le::U32,
    }
}

on_disk! {
    /// An entry of the data directories.
    DataDirectory: 8 bytes {
        virtual_address: le::U32,
        size: le::U32,
    }
}

on_disk! {
    /// All headers from the signature on, with the data directories up to [`CERTIFICATE_TABLE`].
    PeHeader: 176 bytes {
        signature: le::U32,
        coff: CoffHeader,
        optional: OptionalHeader,
        data_directories: [DataDirectory; 5],
    }
}

on_disk! {
    /// An entry of the section table.
    SectionHeader: 40 bytes {
        name: [u8; 8],
        virtual_size: le::U32,
        virtual_address: le::U32,
        size_of_raw_data: le::U32,
        pointer_to_raw_data: le::U32,
        pointer_to_relocations: le::U32,
        pointer_to_linenumbers: le::U32,
        number_of_relocations: le::U16,
        number_of_linenumbers: le::U16,
        characteristics: le::U32,
    }
}

/// The data directory that says where signatures are.
const CERTIFICATE_TABLE: usize = 4;
/// Where the optional header begins behind the signature, in bytes.
const OPTIONAL: usize = 4 + CoffHeader::SIZE;

/// `IMAGE_SCN_MEM_READ | IMAGE_SCN_CNT_INITIALIZED_DATA`.
const READABLE_DATA: u32 = 0x4000_0040;
/// `IMAGE_SCN_MEM_READ | IMAGE_SCN_CNT_CODE`.
pub(super) const READABLE_CODE: u32 = 0x4000_0020;

/// Why an image could not be read or extended.
#[derive(Debug, thiserror::Error)]
pub enum PeError {
    /// Not an image for x86-64 UEFI.
    #[error("not a PE image for x86-64: {what} is {actual:#x}, expected {expected:#x}")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// What it should be.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// No place for a further entry in the section table.
    #[error(
        "no room for section {name}: the section table would end at byte {end} and the headers end at {headers}"
    )]
    NoRoom {
        /// The section.
        name: String,
        /// Where the table would end, in bytes.
        end: u64,
        /// `SizeOfHeaders`.
        headers: u64,
    },
    /// A name of more than eight bytes.
    #[error("section name {name} is longer than eight bytes")]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// A section with this name is there already.
    #[error("the image has a section {name} already")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The image would not fit 32-bit offsets.
    #[error("the image would grow to {size} bytes, but a PE image ends below 4 GiB")]
    TooLarge {
        /// The size in bytes.
        size: u64,
    },
    /// The bytes contradict themselves.
    #[error("damaged PE image: {what}")]
    Corrupt {
        /// What is wrong.
        what: &'static str,
    },
    /// The image is cut short or cannot be read.
    #[error("reading a PE image")]
    Io(#[from] io::Error),
}

/// A section's entry in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Up to eight letters.
    pub name: String,
    /// Bytes in memory; what the file does not have is zero there.
    pub virtual_size: u32,
    /// Where in memory, in bytes from the image's base.
    pub virtual_address: u32,
    /// Bytes in the file, padding included.
    pub raw_size: u32,
    /// Where in the file.
    pub raw_offset: u32,
    /// `IMAGE_SCN_*` bits.
    pub characteristics: u32,
}

impl Section {
    /// The bytes that the file has of this section, without the padding behind them.
    pub fn read(&self, reader: &mut (impl Read + Seek)) -> io::Result<Vec<u8>> {
        reader.seek(SeekFrom::Start(self.raw_offset.into()))?;
        let len = self.raw_size.min(self.virtual_size);
        let mut bytes = Vec::new();
        if reader.take(len.into()).read_to_end(&mut bytes)? != to_index(len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}

impl From<&SectionHeader> for Section {
    fn from(header: &SectionHeader) -> Self {
        let name = header.name.split(|byte| *byte == 0).next().unwrap_or_default();
        Self {
            name: String::from_utf8_lossy(name).into_owned(),
            virtual_size: header.virtual_size.get(),
            virtual_address: header.virtual_address.get(),
            raw_size: header.size_of_raw_data.get(),
            raw_offset: header.pointer_to_raw_data.get(),
            characteristics: header.characteristics.get(),
        }
    }
}

/// The sections of the image that `reader` holds, in the order of the table.
pub fn sections(reader: &mut (impl Read + Seek)) -> Result<Vec<Section>, PeError> {
    let mut dos = DosHeader::new_zeroed();
    reader.seek(SeekFrom::Start(0))?;
    reader.read_exact(dos.as_mut_bytes())?;
    reader.seek(SeekFrom::Start(dos.e_lfanew.into()))?;
    let mut headers = Vec::new();
    let most = OPTIONAL + usize::from(u16::MAX) + usize::from(MAX_SECTIONS) * SectionHeader::SIZE;
    reader.take(to_u64(most)).read_to_end(&mut headers)?;
    Ok(Headers::parse(&dos, &headers)?.sections)
}

/// What the headers say.
struct Headers {
    /// Where the section table begins behind the PE signature, in bytes.
    table: usize,
    sections: Vec<Section>,
}

impl Headers {
    /// Reads what begins at the PE signature.
    fn parse(dos: &DosHeader, bytes: &[u8]) -> Result<Self, PeError> {
        let expect = |what, expected: u32, actual: u32| match expected == actual {
            true => Ok(()),
            false => Err(PeError::Unsupported { what, expected: expected.into(), actual: actual.into() }),
        };
        expect("the DOS magic", DOS_MAGIC.into(), dos.e_magic.into())?;
        let (signature, rest) = le::U32::ref_from_prefix(bytes).map_err(|_| CUT_SHORT)?;
        expect("the signature", SIGNATURE, signature.get())?;
        let (coff, rest) = CoffHeader::ref_from_prefix(rest).map_err(|_| CUT_SHORT)?;
        expect("Machine", AMD64.into(), coff.machine.into())?;
        let (magic, _) = le::U16::ref_from_prefix(rest).map_err(|_| CUT_SHORT)?;
        expect("Magic", PE32_PLUS.into(), (*magic).into())?;
        let count = coff.number_of_sections.get();
        if count == 0 || count > MAX_SECTIONS {
            return Err(PeError::Corrupt { what: "its number of sections cannot be" });
        }
        let table = OPTIONAL + usize::from(coff.size_of_optional_header);
        let entries = bytes.get(table..).ok_or(CUT_SHORT)?;
        let (entries, _) =
            <[SectionHeader]>::ref_from_prefix_with_elems(entries, count.into()).map_err(|_| CUT_SHORT)?;
        Ok(Self { table, sections: entries.iter().map(Section::from).collect() })
    }
}

const CUT_SHORT: PeError = PeError::Corrupt { what: "it ends inside its headers" };

/// What the bytes of a new section are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Data to look at.
    Data,
    /// An image of its own, which takes `virtual_size` bytes once it runs.
    Code {
        /// In bytes; what the file does not have is zero.
        virtual_size: u32,
    },
}

/// An image in memory, to extend.
#[derive(Clone, Debug)]
pub struct Image {
    bytes: Vec<u8>,
    /// Where the PE signature is, in bytes.
    start: usize,
    /// Where the section table is, in bytes.
    table: usize,
    sections: Vec<Section>,
    /// What somebody else writes: where in `bytes` it belongs, and how long it is.
    room: Option<(usize, u64)>,
}

impl Image {
    /// Takes an image, without what follows its last section: symbols and signatures. The fields that
    /// pointed there are zeroed, for a signature digests all that a PE image has and readers differ on what
    /// belongs to it.
    pub fn parse(mut bytes: Vec<u8>) -> Result<Self, PeError> {
        let (dos, _) = DosHeader::ref_from_prefix(&bytes).map_err(|_| CUT_SHORT)?;
        let start = to_index(dos.e_lfanew.get());
        let Headers { table, sections } = Headers::parse(dos, bytes.get(start..).ok_or(CUT_SHORT)?)?;
        let ends = sections.iter().map(|s| u64::from(s.raw_offset) + u64::from(s.raw_size));
        let end = ends.max().unwrap_or_default();
        if end > to_u64(bytes.len()) {
            return Err(PeError::Corrupt { what: "it ends inside a section" });
        }
        bytes.truncate(to_usize(end));
        let mut image = Self { bytes, start, table: start + table, sections, room: None };
        let header = image.header_mut()?;
        let units = [header.optional.section_alignment, header.optional.file_alignment];
        if !units.iter().all(|unit| unit.get().is_power_of_two()) {
            return Err(PeError::Corrupt { what: "its alignment is not a power of two" });
        }
        let directories = to_index(header.optional.number_of_rva_and_sizes.get());
        if directories <= CERTIFICATE_TABLE || table < PeHeader::SIZE {
            return Err(PeError::Corrupt { what: "its data directory has no entry for signatures" });
        }
        header.coff.pointer_to_symbol_table.set(0);
        header.coff.number_of_symbols.set(0);
        header.data_directories[CERTIFICATE_TABLE] = DataDirectory::new_zeroed();
        header.optional.check_sum.set(0);
        Ok(image)
    }

    /// Bytes that the image takes in memory.
    pub fn size_in_memory(&self) -> Result<u32, PeError> {
        Ok(self.header()?.optional.size_of_image.get())
    }

    /// Takes away the section `name` and all that were added behind it.
    pub fn cut(&mut self, name: &str) -> Result<(), PeError> {
        let Some(first) = self.sections.iter().position(|section| section.name == name) else {
            return Ok(());
        };
        let (table, gone) = (self.table, self.sections.split_off(first));
        let ends = self.sections.iter().map(|s| to_usize(u64::from(s.raw_offset) + u64::from(s.raw_size)));
        let end = ends.max().unwrap_or_default();
        if gone.iter().any(|section| to_index(section.raw_offset) < end) {
            return Err(PeError::Corrupt { what: "a section that was added does not lie behind the others" });
        }
        self.bytes.truncate(end);
        let entries = table + first * SectionHeader::SIZE..table + (first + gone.len()) * SectionHeader::SIZE;
        self.bytes.get_mut(entries).ok_or(CUT_SHORT)?.fill(0);
        let header = self.header_mut()?;
        header.coff.number_of_sections.set(u16::try_from(first).map_err(|_| CUT_SHORT)?);
        for section in &gone {
            let total = match section.characteristics {
                READABLE_CODE => &mut header.optional.size_of_code,
                _ => &mut header.optional.size_of_initialized_data,
            };
            total.set(total.get().saturating_sub(section.raw_size));
        }
        Ok(())
    }

    /// Adds a section behind the others, in the file and in memory.
    pub fn append(&mut self, name: &str, body: &[u8], holds: Holds) -> Result<(), PeError> {
        let end = self.enter(name, to_u64(body.len()), holds)?;
        self.bytes.extend_from_slice(body);
        self.fill(end);
        Ok(())
    }

    /// Adds a section of `len` bytes of data that somebody else writes: see [`Image::into_parts`]. There is one at most.
    pub fn leave_room(&mut self, name: &str, len: u64) -> Result<(), PeError> {
        let end = self.enter(name, len, Holds::Data)?;
        self.room = Some((self.bytes.len(), len));
        self.fill(end);
        Ok(())
    }

    /// Bytes of the file so far.
    fn end(&self) -> u64 {
        to_u64(self.bytes.len()) + self.room.map_or(0, |(_, len)| len)
    }

    /// Adds zeros up to byte `end` of the file.
    fn fill(&mut self, end: u64) {
        let missing = to_usize(end - self.end());
        self.bytes.resize(self.bytes.len() + missing, 0);
    }

    /// Adds the entry of a section whose `len` bytes come next; gives where in the file the section ends.
    fn enter(&mut self, name: &str, len: u64, holds: Holds) -> Result<u64, PeError> {
        if name.len() > 8 {
            return Err(PeError::NameTooLong { name: name.to_owned() });
        }
        if self.sections.iter().any(|section| section.name == name) {
            return Err(PeError::Duplicate { name: name.to_owned() });
        }
        let optional = self.header()?.optional;
        let at = self.table + self.sections.len() * SectionHeader::SIZE;
        let behind = at + SectionHeader::SIZE;
        let first_raw = self.sections.iter().filter(|s| s.raw_size > 0).map(|s| s.raw_offset).min();
        let headers = optional.size_of_headers.get().min(first_raw.unwrap_or(u32::MAX));
        if behind > to_index(headers) {
            return Err(PeError::NoRoom {
                name: name.to_owned(),
                end: to_u64(behind),
                headers: headers.into(),
            });
        }
        let memory_unit = u64::from(optional.section_alignment);
        let file_unit = u64::from(optional.file_alignment);
        let narrow = |size: u64| u32::try_from(size).map_err(|_| PeError::TooLarge { size });

        let memory_ends =
            self.sections.iter().map(|s| u64::from(s.virtual_address) + u64::from(s.virtual_size));
        let virtual_address = align::up(memory_ends.max().unwrap_or_default(), memory_unit);
        let virtual_size = match holds {
            Holds::Data => len,
            Holds::Code { virtual_size } => u64::from(virtual_size).max(len),
        };
        let size_of_image = narrow(align::up(virtual_address + virtual_size, memory_unit))?;
        let raw_offset = align::up(self.end(), file_unit);
        // Up to the border all of it belongs to the section: readers warn of gaps between them.
        let end = align::up(raw_offset + len, file_unit.max(BLOCK));
        let raw_size = u64::from(narrow(end)?) - raw_offset;

        let entry = Section {
            name: name.to_owned(),
            virtual_size: narrow(virtual_size)?,
            virtual_address: narrow(virtual_address)?,
            raw_size: narrow(raw_size)?,
            raw_offset: narrow(raw_offset)?,
            characteristics: match holds {
                Holds::Data => READABLE_DATA,
                Holds::Code { .. } => READABLE_CODE,
            },
        };
        self.fill(raw_offset);

        let mut section = SectionHeader {
            virtual_size: entry.virtual_size.into(),
            virtual_address: entry.virtual_address.into(),
            size_of_raw_data: entry.raw_size.into(),
            pointer_to_raw_data: entry.raw_offset.into(),
            characteristics: entry.characteristics.into(),
            ..SectionHeader::new_zeroed()
        };
        section.name[..name.len()].copy_from_slice(name.as_bytes());
        self.bytes[at..behind].copy_from_slice(section.as_bytes());
        let header = self.header_mut()?;
        header.optional.size_of_image.set(size_of_image);
        let total = match holds {
            Holds::Data => &mut header.optional.size_of_initialized_data,
            Holds::Code { .. } => &mut header.optional.size_of_code,
        };
        total.set(narrow(u64::from(*total) + raw_size)?);
        // The table ends before SizeOfHeaders, so that there are far fewer than 65,536.
        header.coff.number_of_sections += 1;
        self.sections.push(entry);
        Ok(end)
    }

    /// The image's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The image's bytes before and behind the section that somebody else writes.
    pub fn into_parts(mut self) -> (Vec<u8>, Vec<u8>) {
        let at = self.room.map_or(self.bytes.len(), |(at, _)| at);
        let behind = self.bytes.split_off(at);
        (self.bytes, behind)
    }

    fn header(&self) -> Result<&PeHeader, PeError> {
        let bytes = self.bytes.get(self.start..).ok_or(CUT_SHORT)?;
        Ok(PeHeader::ref_from_prefix(bytes).map_err(|_| CUT_SHORT)?.0)
    }

    fn header_mut(&mut self) -> Result<&mut PeHeader, PeError> {
        let bytes = self.bytes.get_mut(self.start..).ok_or(CUT_SHORT)?;
        Ok(PeHeader::mut_from_prefix(bytes).map_err(|_| CUT_SHORT)?.0)
    }
}

/// A small image for the tests: one `.text` section with 16 bytes, and symbols behind it.
#[cfg(test)]
pub(crate) fn sample() -> Vec<u8> {
    let mut bytes = vec![0; 0x400];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"MZ");
    put(0x3c, &64_u32.to_le_bytes());
    put(64, b"PE\0\0");
    put(68, &AMD64.to_le_bytes());
    put(70, &1_u16.to_le_bytes());
    put(76, &0x600_u32.to_le_bytes());
    put(80, &7_u32.to_le_bytes());
    put(84, &240_u16.to_le_bytes());
    put(88, &PE32_PLUS.to_le_bytes());
    put(88 + 32, &0x1000_u32.to_le_bytes());
    put(88 + 36, &0x200_u32.to_le_bytes());
    put(88 + 56, &0x2000_u32.to_le_bytes());
    put(88 + 60, &0x400_u32.to_le_bytes());
    put(88 + 108, &16_u32.to_le_bytes());
    let table = 88 + 240;
    put(table, b".text");
    put(table + 8, &16_u32.to_le_bytes());
    put(table + 12, &0x1000_u32.to_le_bytes());
    put(table + 16, &0x200_u32.to_le_bytes());
    put(table + 20, &0x400_u32.to_le_bytes());
    put(table + 36, &0x6000_0020_u32.to_le_bytes());
    bytes.resize(0x600, 0xcc);
    bytes.extend_from_slice(b"symbols");
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn appends_and_reads_back() {
        let mut image = Image::parse(sample()).unwrap();
        image.append(".osrel", b"ID=x\n", Holds::Data).unwrap();
        image.append(".linux", &[7; 600], Holds::Code { virtual_size: 5000 }).unwrap();
        assert_eq!(image.size_in_memory().unwrap(), 0x5000);
        let bytes = image.into_bytes();
        assert_eq!(bytes.len(), 0x2000);
        let mut reader = Cursor::new(&bytes);
        let found = sections(&mut reader).unwrap();
        let seen: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.virtual_address, s.raw_offset)).collect();
        assert_eq!(seen, [(".text", 0x1000, 0x400), (".osrel", 0x2000, 0x600), (".linux", 0x3000, 0x1000)]);
        assert_eq!(found[1].read(&mut reader).unwrap(), b"ID=x\n");
        assert!(found[2].read(&mut reader).unwrap().starts_with(&[7; 600]));
        assert_eq!(bytes[76..84], [0; 8], "PointerToSymbolTable and NumberOfSymbols");
        assert_eq!(Image::parse(bytes.clone()).unwrap().into_bytes(), bytes);
    }

    #[test]
    fn what_somebody_else_writes_and_what_was_cut() {
        let stub = Image::parse(sample()).unwrap();
        let add = |image: &mut Image, room: bool| {
            image.append(".osrel", b"ID=x\n", Holds::Data).unwrap();
            match room {
                true => image.leave_room(".initrd", 5000).unwrap(),
                false => image.append(".initrd", &[9; 5000], Holds::Data).unwrap(),
            }
            image.append(".linux", &[7; 600], Holds::Code { virtual_size: 5000 }).unwrap();
        };
        let (mut whole, mut parts) = (stub.clone(), stub.clone());
        add(&mut whole, false);
        add(&mut parts, true);
        let mut cut = whole.clone();
        cut.cut(".osrel").unwrap();
        cut.cut(".none").unwrap();
        add(&mut cut, false);
        let whole = whole.into_bytes();
        assert_eq!(cut.into_bytes(), whole);
        let (before, behind) = parts.into_parts();
        assert_eq!([before.as_slice(), &[9; 5000], &behind].concat(), whole);
    }

    #[test]
    fn refuses_what_it_cannot_hold() {
        let mut image = Image::parse(sample()).unwrap();
        assert!(matches!(image.append(".toolongname", b"", Holds::Data), Err(PeError::NameTooLong { .. })));
        assert!(matches!(image.append(".text", b"", Holds::Data), Err(PeError::Duplicate { .. })));
        let full = (0..100).find_map(|index| image.append(&format!(".s{index}"), b"x", Holds::Data).err());
        assert!(matches!(full, Some(PeError::NoRoom { .. })));
    }

    #[test]
    fn refuses_what_is_no_image() {
        assert!(sections(&mut Cursor::new(b"MZ")).is_err());
        assert!(matches!(sections(&mut Cursor::new([0; 512])), Err(PeError::Unsupported { .. })));
        let mut cut = sample();
        cut.truncate(0x500);
        assert!(matches!(Image::parse(cut), Err(PeError::Corrupt { .. })));
        let mut small = sample();
        small[84..86].copy_from_slice(&120_u16.to_le_bytes());
        assert!(matches!(Image::parse(small), Err(PeError::Corrupt { .. })));
        let mut arm = sample();
        arm[68..70].copy_from_slice(&0xaa64_u16.to_le_bytes());
        assert!(matches!(Image::parse(arm), Err(PeError::Unsupported { what: "Machine", .. })));
    }
}
