//! cpio archives in the "newc" format, as the kernel unpacks them into its initial root.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux. Inode numbers count up from
//! 1, everything belongs to root and has the time 0, so that equal input gives equal bytes.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::base::limits;
use crate::base::width::{to_index, to_u64, to_usize};

/// File type bits of the mode field.
mod kind {
    pub(super) const DIRECTORY: u32 = 0o040_000;
    pub(super) const FILE: u32 = 0o100_000;
    /// What of the mode says which it is.
    pub(super) const MASK: u32 = 0o170_000;
}

/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// Header, name and body each end at a multiple of this, in bytes.
const ALIGN: u64 = 4;

/// Bytes of a header: the magic and 13 fields of eight digits.
const HEADER: usize = 6 + 13 * 8;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    /// A name that the format or the kernel does not take.
    #[error(
        "{name:?} cannot be a name in an initramfs: it must be relative and not empty, without NUL or \"..\""
    )]
    BadName {
        /// The name as given.
        name: String,
    },
    /// The size field has 32 bits.
    #[error("{name} has {len} bytes, but a file in an initramfs has less than 4 GiB")]
    TooLarge {
        /// The file.
        name: String,
        /// Its size in bytes.
        len: u64,
    },
    /// The body ended early or went on.
    #[error("{name} was said to have {expected} bytes, but has {actual}")]
    WrongLength {
        /// The file.
        name: String,
        /// The size in the header, in bytes.
        expected: u64,
        /// What the reader gave, in bytes; one more than expected stands for "more".
        actual: u64,
    },
    /// The sink or the reader failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes one archive; [`Writer::finish`] ends it.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    position: u64,
    inode: u32,
}

impl<W: Write> Writer<W> {
    /// An archive that begins where `sink` stands, which must be a multiple of four bytes.
    pub fn new(sink: W) -> Self {
        Self { sink, position: 0, inode: 0 }
    }

    /// Adds a directory. Parents must have been added before: the kernel makes none.
    pub fn directory(&mut self, name: &str, mode: u32) -> Result<(), CpioError> {
        self.header(name, kind::DIRECTORY | mode, 2, 0)
    }

    /// Adds a regular file of `len` bytes.
    pub fn file(&mut self, name: &str, mode: u32, len: u64, body: &mut impl Read) -> Result<(), CpioError> {
        self.header(name, kind::FILE | mode, 1, len)?;
        let copied = io::copy(&mut body.take(len + 1), &mut self.sink)?;
        if copied != len {
            return Err(CpioError::WrongLength { name: name.to_owned(), expected: len, actual: copied });
        }
        self.position += len;
        self.pad()?;
        Ok(())
    }

    /// Adds the head of a regular file, whose `len` bytes somebody else writes behind [`Writer::into_inner`].
    pub fn begin_file(&mut self, name: &str, mode: u32, len: u64) -> Result<(), CpioError> {
        self.header(name, kind::FILE | mode, 1, len)
    }

    /// The sink, without an end mark.
    pub fn into_inner(self) -> W {
        self.sink
    }

    /// The same with a body that begins at a multiple of `align` bytes in the archive: further NULs behind the
    /// name make the room, as iucode-tool has it.
    pub fn aligned_file(&mut self, name: &str, mode: u32, body: &[u8], align: u64) -> Result<(), CpioError> {
        let end = self.position + to_u64(HEADER) + to_u64(name.len()) + 1;
        let padding = to_usize(crate::base::align::padding(end, align));
        check(name)?;
        let len = to_u64(body.len());
        let size = u32::try_from(len).map_err(|_| CpioError::TooLarge { name: name.to_owned(), len })?;
        self.inode += 1;
        self.entry(&(name.to_owned() + &"\0".repeat(padding)), self.inode, kind::FILE | mode, 1, size)?;
        self.put(body)?;
        Ok(self.pad()?)
    }

    /// Writes the end mark and gives the sink back.
    pub fn finish(mut self) -> Result<W, CpioError> {
        self.inode = 0;
        self.entry(TRAILER, 0, 0, 1, 0)?;
        Ok(self.sink)
    }

    fn header(&mut self, name: &str, mode: u32, links: u32, len: u64) -> Result<(), CpioError> {
        check(name)?;
        let size = u32::try_from(len).map_err(|_| CpioError::TooLarge { name: name.to_owned(), len })?;
        self.inode += 1;
        self.entry(name, self.inode, mode, links, size)?;
        Ok(())
    }

    fn entry(&mut self, name: &str, inode: u32, mode: u32, links: u32, size: u32) -> io::Result<()> {
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut text = String::from("070701");
        for field in fields {
            text.push_str(&format!("{field:08X}"));
        }
        text.push_str(name);
        text.push('\0');
        self.put(text.as_bytes())?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.write_all(bytes)?;
        self.position += to_u64(bytes.len());
        Ok(())
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = to_usize(crate::base::align::padding(self.position, ALIGN));
        self.put(&[0; to_usize(ALIGN)][..missing])
    }
}

fn check(name: &str) -> Result<(), CpioError> {
    let unsafe_part = |part: &str| part.is_empty() || part == "." || part == "..";
    if name.is_empty() || name.contains('\0') || name.split('/').any(unsafe_part) || name == TRAILER {
        return Err(CpioError::BadName { name: name.to_owned() });
    }
    Ok(())
}

/// One entry of an archive, as [`entries`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path without a leading slash.
    pub name: String,
    /// Type and permission bits as in `stat`.
    pub mode: u32,
    /// Body of a file.
    pub body: &'a [u8],
}

/// What a damaged archive looks like.
#[derive(Debug, thiserror::Error)]
#[error("not a newc archive at byte {offset}: {what}")]
pub struct CorruptCpio {
    /// Where, in bytes from the start.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// What is read of a header.
struct Numbers {
    mode: u32,
    size: u32,
    name_size: u32,
}

impl Numbers {
    /// Of [`HEADER`] bytes; else what is wrong with them.
    fn of(header: &[u8]) -> Result<Self, &'static str> {
        if !header.starts_with(b"070701") {
            return Err("wrong magic");
        }
        let field = |index: usize| {
            let digits = std::str::from_utf8(&header[6 + index * 8..14 + index * 8]).ok();
            digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or("a field is not hexadecimal")
        };
        Ok(Self { mode: field(1)?, size: field(6)?, name_size: field(11)? })
    }
}

/// Names and sizes of the first entries, at most `most`, of the archive that the first `len` bytes of `reader`, from
/// where it stands, begin with; no body is read. Nothing more from where they make no sense.
///
/// # Errors
/// What the reader says.
pub fn names(reader: &mut (impl Read + Seek), len: u64, most: usize) -> io::Result<Vec<(String, u32)>> {
    let start = reader.stream_position()?;
    let (mut found, mut at) = (Vec::new(), 0_u64);
    let mut header = [0; HEADER];
    while found.len() < most && at + to_u64(HEADER) <= len {
        reader.seek(SeekFrom::Start(start + at))?;
        reader.read_exact(&mut header)?;
        let Ok(Numbers { size, name_size, .. }) = Numbers::of(&header) else { break };
        let name_end = at + to_u64(HEADER) + u64::from(name_size);
        if to_index(name_size) > limits::PATH || name_end > len {
            break;
        }
        let mut name = vec![0; to_index(name_size)];
        reader.read_exact(&mut name)?;
        let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
        let end = name_end.next_multiple_of(ALIGN) + u64::from(size);
        if name == TRAILER || end > len {
            break;
        }
        found.push((name, size));
        at = end.next_multiple_of(ALIGN);
    }
    Ok(found)
}

/// Calls `each` with the name and the body of every file of the archive that `reader` begins with, up to its end mark.
/// Nothing but names is held in memory.
///
/// # Errors
/// [`CorruptCpio`] in an [`io::Error`], and what the reader and `each` say.
pub fn each_file(
    reader: &mut impl Read,
    mut each: impl FnMut(&str, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = 0_u64;
    let mut header = [0; HEADER];
    loop {
        let corrupt = |what| {
            let offset = to_usize(at);
            io::Error::new(io::ErrorKind::InvalidData, CorruptCpio { offset, what })
        };
        reader.read_exact(&mut header)?;
        let Numbers { mode, size, name_size } = Numbers::of(&header).map_err(corrupt)?;
        if to_index(name_size) > limits::PATH {
            return Err(corrupt("a name is too long"));
        }
        let name_end = at + to_u64(HEADER) + u64::from(name_size);
        let mut name = vec![0; to_index(name_size) + to_usize(name_end.next_multiple_of(ALIGN) - name_end)];
        reader.read_exact(&mut name)?;
        let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
        if name == TRAILER {
            return Ok(());
        }
        let end = name_end.next_multiple_of(ALIGN) + u64::from(size);
        let mut body = reader.take(size.into());
        if mode & kind::MASK == kind::FILE {
            each(&name, &mut body)?;
        }
        let padding = end.next_multiple_of(ALIGN) - end;
        let left = body.limit() + padding;
        if io::copy(&mut reader.take(left), &mut io::sink())? != left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at = end + padding;
    }
}

/// The entries of the archive that `bytes` begin with, and how many bytes it has with its end mark.
pub fn entries(bytes: &[u8]) -> Result<(Vec<Entry<'_>>, usize), CorruptCpio> {
    let mut found = Vec::new();
    let mut at = 0;
    let round = |value: usize| value.next_multiple_of(to_usize(ALIGN));
    loop {
        let corrupt = |what| CorruptCpio { offset: at, what };
        let header = bytes.get(at..at + HEADER).ok_or(corrupt("it ends inside a header"))?;
        let Numbers { mode, size, name_size } = Numbers::of(header).map_err(corrupt)?;
        let (size, name_size) = (to_index(size), to_index(name_size));
        let name_start = at + HEADER;
        let name = bytes.get(name_start..name_start + name_size).ok_or(corrupt("it ends inside a name"))?;
        let name = name.strip_suffix(b"\0").ok_or(corrupt("a name without an end"))?;
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        let body_start = round(name_start + name_size);
        let body = bytes.get(body_start..body_start + size).ok_or(corrupt("it ends inside a body"))?;
        at = round(body_start + size);
        if name == TRAILER {
            return Ok((found, at.min(bytes.len())));
        }
        found.push(Entry { name, mode, body });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.directory("dev", 0o755).unwrap();
        writer.file("init", 0o755, 5, &mut &b"hello"[..]).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn reads_back_what_was_written() {
        let bytes = sample();
        let (entries, end) = entries(&bytes).unwrap();
        assert_eq!(end, bytes.len());
        let seen: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.mode, e.body)).collect();
        assert_eq!(seen, [("dev", 0o40755, &b""[..]), ("init", 0o100_755, &b"hello"[..]),]);
        assert_eq!(bytes.len() % 4, 0);
        assert!(super::entries(&bytes[..bytes.len() - 8]).is_err());
    }

    #[test]
    fn names_are_read_without_bodies() {
        let bytes = [b"before".as_slice(), &sample()].concat();
        let listed = |bytes: &[u8], most| {
            let mut reader = io::Cursor::new(bytes);
            reader.set_position(6);
            names(&mut reader, to_u64(bytes.len() - 6), most).unwrap()
        };
        let all = [("dev".to_owned(), 0), ("init".to_owned(), 5)];
        assert_eq!(listed(&bytes, 9), all);
        assert_eq!(listed(&bytes, 1), all[..1]);
        assert_eq!(listed(&bytes[..bytes.len() / 2], 9).len(), 1);
        // A body, and a name, of 4 GiB.
        for at in [6 + 6 * 8, 6 + 11 * 8] {
            let mut large = bytes.clone();
            large[6 + at..14 + at].copy_from_slice(b"FFFFFFFF");
            assert!(listed(&large, 9).is_empty());
            large[6 + at..14 + at].copy_from_slice(b"0000000x");
            assert!(listed(&large, 9).is_empty());
        }
    }

    #[test]
    fn files_are_read_one_after_the_other() {
        let bytes = sample();
        let mut seen = Vec::new();
        let mut rest = bytes.as_slice();
        each_file(&mut rest, |name, body| {
            let mut first = [0; 2];
            let count = body.read(&mut first)?;
            seen.push((name.to_owned(), first[..count].to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [("init".to_owned(), b"he".to_vec())]);
        assert!(rest.is_empty());
        for len in [5, 130, bytes.len() - 8] {
            assert!(each_file(&mut &bytes[..len], |_, _| Ok(())).is_err(), "{len}");
        }
        let mut long = bytes;
        long[6 + 11 * 8..14 + 11 * 8].copy_from_slice(b"FFFFFFFF");
        let error = each_file(&mut long.as_slice(), |_, _| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "not a newc archive at byte 0: a name is too long");
    }

    #[test]
    fn lengths_must_be_true() {
        let mut writer = Writer::new(Vec::new());
        let short = writer.file("a", 0o644, 6, &mut &b"hello"[..]);
        assert!(matches!(short, Err(CpioError::WrongLength { expected: 6, actual: 5, .. })));
        let long = Writer::new(Vec::new()).file("a", 0o644, 4, &mut &b"hello"[..]);
        assert!(matches!(long, Err(CpioError::WrongLength { expected: 4, actual: 5, .. })));
    }

    #[test]
    fn names_stay_inside() {
        for name in ["", "/a", "a//b", "../a", "a/./b", "TRAILER!!!"] {
            assert!(Writer::new(Vec::new()).directory(name, 0o755).is_err(), "{name}");
        }
    }
}
