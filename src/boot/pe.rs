//! PE32+ images, as far as a unified kernel image needs them: reading sections and appending some.
//!
//! Source: "PE Format" of Microsoft; field names are those of that document.

use std::io::{self, Read, Seek, SeekFrom};

use crate::base::align;
use crate::base::width::{to_index, to_u64, to_usize};

/// Offset of the field in the DOS header that says where the PE signature is.
const DOS_LFANEW: u64 = 0x3c;
/// The signature, four bytes, before the COFF header.
const SIGNATURE: &[u8; 4] = b"PE\0\0";
/// Bytes of the COFF header, behind the signature.
const COFF_HEADER: u64 = 20;
/// Bytes of one entry in the section table.
const SECTION_HEADER: u64 = 40;
/// `Magic` of an optional header with 64-bit addresses.
const PE32_PLUS: u16 = 0x20b;
/// `Machine` of x86-64.
const AMD64: u16 = 0x8664;
/// Sections that are added end on borders of so many bytes in the file: blocks of an update. One that grows or
/// shrinks leaves the blocks of those behind it as they are.
const BLOCK: u64 = 4096;
/// No image has as many; a larger number means that the bytes are no section table.
const MAX_SECTIONS: u16 = 96;

/// Offsets from the COFF header.
mod coff {
    pub const MACHINE: u64 = 0;
    pub const NUMBER_OF_SECTIONS: u64 = 2;
    pub const POINTER_TO_SYMBOL_TABLE: u64 = 8;
    pub const NUMBER_OF_SYMBOLS: u64 = 12;
    pub const SIZE_OF_OPTIONAL_HEADER: u64 = 16;
}

/// Offsets from the optional header.
mod optional {
    pub const MAGIC: u64 = 0;
    pub const SIZE_OF_CODE: u64 = 4;
    pub const SIZE_OF_INITIALIZED_DATA: u64 = 8;
    pub const SECTION_ALIGNMENT: u64 = 32;
    pub const FILE_ALIGNMENT: u64 = 36;
    pub const SIZE_OF_IMAGE: u64 = 56;
    pub const SIZE_OF_HEADERS: u64 = 60;
    pub const CHECK_SUM: u64 = 64;
    pub const NUMBER_OF_RVA_AND_SIZES: u64 = 108;
    /// Entry 4 of the data directory: where signatures are.
    pub const CERTIFICATE_TABLE: u64 = 112 + 4 * 8;
}

/// Offsets in an entry of the section table.
mod section {
    pub const VIRTUAL_SIZE: u64 = 8;
    pub const VIRTUAL_ADDRESS: u64 = 12;
    pub const SIZE_OF_RAW_DATA: u64 = 16;
    pub const POINTER_TO_RAW_DATA: u64 = 20;
    pub const CHARACTERISTICS: u64 = 36;
}

/// `IMAGE_SCN_MEM_READ | IMAGE_SCN_CNT_INITIALIZED_DATA`.
const READABLE_DATA: u32 = 0x4000_0040;
/// `IMAGE_SCN_MEM_READ | IMAGE_SCN_CNT_CODE`.
const READABLE_CODE: u32 = 0x4000_0020;

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

/// The sections of the image that `reader` holds, in the order of the table.
pub fn sections(reader: &mut (impl Read + Seek)) -> Result<Vec<Section>, PeError> {
    let mut dos = [0; 64];
    reader.seek(SeekFrom::Start(0))?;
    reader.read_exact(&mut dos)?;
    let start = u64::from(u32_at(&dos, DOS_LFANEW)?);
    reader.seek(SeekFrom::Start(start))?;
    let mut headers = Vec::new();
    let most = 4 + COFF_HEADER + u64::from(u16::MAX) + u64::from(MAX_SECTIONS) * SECTION_HEADER;
    reader.take(most).read_to_end(&mut headers)?;
    Ok(Headers::parse(&dos[..2], &headers)?.sections)
}

/// What the headers say; offsets are relative to the PE signature.
struct Headers {
    optional: u64,
    table: u64,
    sections: Vec<Section>,
}

impl Headers {
    fn parse(dos: &[u8], bytes: &[u8]) -> Result<Self, PeError> {
        let expect = |what, expected: u64, actual: u64| match expected == actual {
            true => Ok(()),
            false => Err(PeError::Unsupported { what, expected, actual }),
        };
        expect("the DOS magic", 0x5a4d, u16_at(dos, 0)?.into())?;
        expect("the signature", u32::from_le_bytes(*SIGNATURE).into(), u32_at(bytes, 0)?.into())?;
        let coff = 4;
        expect("Machine", AMD64.into(), u16_at(bytes, coff + coff::MACHINE)?.into())?;
        let optional = coff + COFF_HEADER;
        expect("Magic", PE32_PLUS.into(), u16_at(bytes, optional + optional::MAGIC)?.into())?;
        let count = u16_at(bytes, coff + coff::NUMBER_OF_SECTIONS)?;
        if count == 0 || count > MAX_SECTIONS {
            return Err(PeError::Corrupt { what: "its number of sections cannot be" });
        }
        let table = optional + u64::from(u16_at(bytes, coff + coff::SIZE_OF_OPTIONAL_HEADER)?);
        let entry = |index: u16| {
            let at = table + u64::from(index) * SECTION_HEADER;
            let name = bytes.get(to_usize(at)..to_usize(at) + 8).ok_or(CUT_SHORT)?;
            let name = name.split(|b| *b == 0).next().unwrap_or_default();
            Ok(Section {
                name: String::from_utf8_lossy(name).into_owned(),
                virtual_size: u32_at(bytes, at + section::VIRTUAL_SIZE)?,
                virtual_address: u32_at(bytes, at + section::VIRTUAL_ADDRESS)?,
                raw_size: u32_at(bytes, at + section::SIZE_OF_RAW_DATA)?,
                raw_offset: u32_at(bytes, at + section::POINTER_TO_RAW_DATA)?,
                characteristics: u32_at(bytes, at + section::CHARACTERISTICS)?,
            })
        };
        let sections = (0..count).map(entry).collect::<Result<_, PeError>>()?;
        Ok(Self { optional, table, sections })
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
    start: u64,
    optional: u64,
    table: u64,
    sections: Vec<Section>,
}

impl Image {
    /// Takes an image, without what follows its last section: symbols and signatures. The fields that
    /// pointed there are zeroed, for a signature digests all that a PE image has and readers differ on what
    /// belongs to it.
    pub fn parse(mut bytes: Vec<u8>) -> Result<Self, PeError> {
        let start = u64::from(u32_at(&bytes, DOS_LFANEW)?);
        let headers = Headers::parse(&bytes, bytes.get(to_usize(start)..).ok_or(CUT_SHORT)?)?;
        let ends = headers.sections.iter().map(|s| u64::from(s.raw_offset) + u64::from(s.raw_size));
        let end = ends.max().unwrap_or_default();
        if end > to_u64(bytes.len()) {
            return Err(PeError::Corrupt { what: "it ends inside a section" });
        }
        bytes.truncate(to_usize(end));
        let Headers { optional, table, sections } = headers;
        let mut image = Self { bytes, start, optional: start + optional, table: start + table, sections };
        for unit in [optional::SECTION_ALIGNMENT, optional::FILE_ALIGNMENT] {
            if !image.optional(unit)?.is_power_of_two() {
                return Err(PeError::Corrupt { what: "its alignment is not a power of two" });
            }
        }
        let has_directory = image.table >= image.optional + optional::CERTIFICATE_TABLE + 8;
        if image.optional(optional::NUMBER_OF_RVA_AND_SIZES)? < 5 || !has_directory {
            return Err(PeError::Corrupt { what: "its data directory has no entry for signatures" });
        }
        let coff = image.start + 4;
        image.put(coff + coff::POINTER_TO_SYMBOL_TABLE, 0);
        image.put(coff + coff::NUMBER_OF_SYMBOLS, 0);
        image.put(image.optional + optional::CERTIFICATE_TABLE, 0);
        image.put(image.optional + optional::CERTIFICATE_TABLE + 4, 0);
        image.put(image.optional + optional::CHECK_SUM, 0);
        Ok(image)
    }

    /// The sections so far.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Bytes that the image takes in memory.
    pub fn size_in_memory(&self) -> Result<u32, PeError> {
        self.optional(optional::SIZE_OF_IMAGE)
    }

    /// Adds a section behind the others, in the file and in memory.
    pub fn append(&mut self, name: &str, body: &[u8], holds: Holds) -> Result<(), PeError> {
        if name.len() > 8 {
            return Err(PeError::NameTooLong { name: name.to_owned() });
        }
        if self.sections.iter().any(|section| section.name == name) {
            return Err(PeError::Duplicate { name: name.to_owned() });
        }
        let at = self.table + to_u64(self.sections.len()) * SECTION_HEADER;
        let first_raw = self.sections.iter().filter(|s| s.raw_size > 0).map(|s| s.raw_offset).min();
        let headers = self.optional(optional::SIZE_OF_HEADERS)?.min(first_raw.unwrap_or(u32::MAX));
        if at + SECTION_HEADER > headers.into() {
            return Err(PeError::NoRoom {
                name: name.to_owned(),
                end: at + SECTION_HEADER,
                headers: headers.into(),
            });
        }
        let memory_unit = u64::from(self.optional(optional::SECTION_ALIGNMENT)?);
        let file_unit = u64::from(self.optional(optional::FILE_ALIGNMENT)?);
        let narrow = |size: u64| u32::try_from(size).map_err(|_| PeError::TooLarge { size });

        let memory_ends =
            self.sections.iter().map(|s| u64::from(s.virtual_address) + u64::from(s.virtual_size));
        let virtual_address = align::up(memory_ends.max().unwrap_or_default(), memory_unit);
        let virtual_size = match holds {
            Holds::Data => to_u64(body.len()),
            Holds::Code { virtual_size } => u64::from(virtual_size).max(to_u64(body.len())),
        };
        let size_of_image = narrow(align::up(virtual_address + virtual_size, memory_unit))?;
        let raw_offset = align::up(to_u64(self.bytes.len()), file_unit);
        // Up to the border all of it belongs to the section: readers warn of gaps between them.
        let end = narrow(align::up(raw_offset + to_u64(body.len()), file_unit.max(BLOCK)))?;
        let raw_size = u64::from(end) - raw_offset;

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
        self.bytes.resize(to_usize(raw_offset), 0);
        self.bytes.extend_from_slice(body);
        self.bytes.resize(to_index(end), 0);

        let mut header = [0; to_usize(SECTION_HEADER)];
        header[..name.len()].copy_from_slice(name.as_bytes());
        self.bytes[to_usize(at)..][..header.len()].copy_from_slice(&header);
        self.put(at + section::VIRTUAL_SIZE, entry.virtual_size);
        self.put(at + section::VIRTUAL_ADDRESS, entry.virtual_address);
        self.put(at + section::SIZE_OF_RAW_DATA, entry.raw_size);
        self.put(at + section::POINTER_TO_RAW_DATA, entry.raw_offset);
        self.put(at + section::CHARACTERISTICS, entry.characteristics);
        self.put(self.optional + optional::SIZE_OF_IMAGE, size_of_image);
        let total = match holds {
            Holds::Data => optional::SIZE_OF_INITIALIZED_DATA,
            Holds::Code { .. } => optional::SIZE_OF_CODE,
        };
        let sum = u64::from(self.optional(total)?) + raw_size;
        self.put(self.optional + total, narrow(sum)?);
        self.sections.push(entry);
        let count = (self.sections.len() as u16).to_le_bytes();
        let field = to_usize(self.start + 4 + coff::NUMBER_OF_SECTIONS);
        self.bytes[field..field + 2].copy_from_slice(&count);
        Ok(())
    }

    /// The image's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn optional(&self, field: u64) -> Result<u32, PeError> {
        u32_at(&self.bytes, self.optional + field)
    }

    fn put(&mut self, at: u64, value: u32) {
        self.bytes[to_usize(at)..to_usize(at) + 4].copy_from_slice(&value.to_le_bytes());
    }
}

fn u16_at(bytes: &[u8], at: u64) -> Result<u16, PeError> {
    let field = bytes.get(to_usize(at)..).and_then(|rest| rest.first_chunk()).ok_or(CUT_SHORT)?;
    Ok(u16::from_le_bytes(*field))
}

fn u32_at(bytes: &[u8], at: u64) -> Result<u32, PeError> {
    let field = bytes.get(to_usize(at)..).and_then(|rest| rest.first_chunk()).ok_or(CUT_SHORT)?;
    Ok(u32::from_le_bytes(*field))
}

/// A small image for the tests: one `.text` section with 16 bytes, and symbols behind it.
#[cfg(test)]
pub(crate) fn sample() -> Vec<u8> {
    let mut bytes = vec![0; 0x400];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"MZ");
    put(0x3c, &64_u32.to_le_bytes());
    put(64, SIGNATURE);
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
        assert_eq!((u32_at(&bytes, 76).unwrap(), u32_at(&bytes, 80).unwrap()), (0, 0));
        assert_eq!(Image::parse(bytes.clone()).unwrap().into_bytes(), bytes);
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
