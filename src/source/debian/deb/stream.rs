//! The layers of a .deb on its way in: bytes of the file, measured; members of `ar`; decompression.
//!
//! `ar` is the common format of deb(5): an 8-byte magic, then for each member a 60-byte header (name 16,
//! time 12, owner 6, group 6, mode 8, size 10 in decimal, end 2) and its bytes, filled up to an even number.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::os::unix::fs::FileExt;

use crate::base::width::to_u64;
use crate::base::{Compression, Digest, Hasher};
use crate::tree::from_tar::TarError;

use super::DebError;

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";

/// A file read from its start, hashed and reported. Does not move the file's own position.
pub(super) struct Hashed<'a> {
    file: &'a File,
    position: u64,
    hasher: Hasher,
    report: &'a dyn Fn(u64),
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.hasher.update(&buffer[..count]);
        self.position += to_u64(count);
        (self.report)(to_u64(count));
        Ok(count)
    }
}

/// [`Hashed`], buffered.
pub(super) struct Measured<'a>(BufReader<Hashed<'a>>);

impl<'a> Measured<'a> {
    pub(super) fn new(file: &'a File, report: &'a dyn Fn(u64)) -> Self {
        let hashed = Hashed { file, position: 0, hasher: Hasher::new(), report };
        Self(BufReader::with_capacity(256 << 10, hashed))
    }

    /// Reads what is left; the digest of the whole file.
    pub(super) fn finish(mut self) -> io::Result<Digest> {
        loop {
            match self.0.fill_buf()?.len() {
                0 => return Ok(self.0.into_inner().hasher.finish()),
                count => self.0.consume(count),
            }
        }
    }
}

/// Header of one member.
pub(super) struct ArMember {
    /// Without padding and trailing slash.
    pub name: String,
    /// Of its body, in bytes.
    size: u64,
    /// Of its body, in the .deb.
    pub offset: u64,
}

/// The outer archive. Members are taken in order: [`Ar::expect`], [`Ar::body`], [`Ar::end`].
pub(super) struct Ar<'a, 'b> {
    reader: &'a mut Measured<'b>,
    /// Where the next header begins.
    next: u64,
    /// Bytes of the current body that are not read yet.
    rest: u64,
}

impl<'a, 'b> Ar<'a, 'b> {
    pub(super) fn new(reader: &'a mut Measured<'b>) -> Result<Self, DebError> {
        let mut magic = [0; 8];
        match reader.0.read_exact(&mut magic) {
            Ok(()) if magic == *AR_MAGIC => Ok(Self { reader, next: 8, rest: 0 }),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(DebError::Read(error)),
            _ => Err(DebError::Corrupt { offset: 0, what: "not an ar archive" }),
        }
    }

    /// The next member, which must have this name, an ending of a compression aside; those that begin with `_` are passed over, as
    /// deb(5) asks.
    pub(super) fn expect(&mut self, stem: &'static str) -> Result<ArMember, DebError> {
        loop {
            let member = self.header()?;
            if member.name.strip_prefix(stem).is_some_and(|ending| Compression::of_ending(ending).is_some()) {
                return Ok(member);
            }
            if member.name.starts_with(stem) {
                let what = "compressed in another way than gzip, xz, zstd, bzip2 or lzma";
                return Err(DebError::Unsupported { member: member.name, what });
            }
            if !member.name.starts_with('_') {
                let what = match stem {
                    "debian-binary" => "debian-binary is not the first member",
                    "control.tar" => "no control.tar after debian-binary",
                    _ => "no data.tar after control.tar",
                };
                return Err(DebError::Corrupt { offset: member.offset, what });
            }
            self.end(&member)?;
        }
    }

    /// Reader of the body of the member that was expected last.
    pub(super) fn body(&mut self, _: &ArMember) -> Body<'_, 'b> {
        Body { take: (&mut self.reader.0).take(self.rest), rest: &mut self.rest }
    }

    /// Passes over what is left of the member and its padding.
    pub(super) fn end(&mut self, member: &ArMember) -> Result<(), DebError> {
        let rest = std::mem::take(&mut self.rest) + member.size % 2;
        // The last member's padding may be missing.
        io::copy(&mut (&mut self.reader.0).take(rest), &mut io::sink()).map_err(DebError::Read)?;
        Ok(())
    }

    fn header(&mut self) -> Result<ArMember, DebError> {
        let corrupt = |what| DebError::Corrupt { offset: self.next, what };
        let mut header = [0; 60];
        self.reader.0.read_exact(&mut header).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => corrupt("the package ends early"),
            _ => DebError::Read(error),
        })?;
        let text = str::from_utf8(&header).map_err(|_| corrupt("no header of an ar member"))?;
        let size = text[48..58].trim_end().parse::<u32>().map_err(|_| corrupt("no size of an ar member"))?;
        if &header[58..] != b"`\n" {
            return Err(corrupt("no header of an ar member"));
        }
        let name = text[..16].trim_end().trim_end_matches('/').to_owned();
        let (size, offset) = (u64::from(size), self.next + 60);
        self.next = offset + size + size % 2;
        self.rest = size;
        Ok(ArMember { name, size, offset })
    }
}

/// The bytes of one member.
pub(super) struct Body<'a, 'b> {
    take: Take<&'a mut BufReader<Hashed<'b>>>,
    rest: &'a mut u64,
}

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.take.read(buffer)?;
        *self.rest -= to_u64(count);
        Ok(count)
    }
}

impl BufRead for Body<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.take.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.take.consume(count);
        *self.rest -= to_u64(count);
    }
}

/// Decompresses `body` as the ending of its name says.
pub(super) fn decompress<'a>(name: &str, body: Body<'a, '_>) -> Result<Box<dyn Read + 'a>, DebError> {
    let ending = name.rsplit_once(".tar").map(|(_, ending)| ending);
    match ending.and_then(Compression::of_ending) {
        Some(compression) => compression.reader(body).map_err(|source| DebError::Tar {
            member: name.to_owned(),
            source: TarError::Read { offset: 0, source },
        }),
        None => {
            let what = "compressed in an unknown way";
            Err(DebError::Unsupported { member: name.to_owned(), what })
        }
    }
}
