//! Reading a sealed file: no byte is given that was not verified.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CHUNK, FOOTER, FORMS, HASH, Key, Keys, LONGEST, MAGIC, SealError};
use crate::base::width::{to_u64, to_usize};
use crate::base::{Fingerprint, input};

/// Chunks that each thread keeps, 256 KiB: small files share one, and those of a directory are of several packages.
const KEPT: usize = 16;

/// Chunks that are read at once, 256 KiB: they are verified while the processor's cache has them.
const TOGETHER: usize = 16;

/// Told of a file whose body turns out to be broken, or which the disk does not give, with what is wrong.
pub(super) type Listener = Box<dyn Fn(&SealError) + Send + Sync>;

/// A sealed file whose table is verified, and whose body is verified as it is read.
pub struct Sealed {
    /// Without one, it is opened by its path for each reading.
    file: Option<File>,
    path: PathBuf,
    key: [u8; 32],
    length: u64,
    /// A hash a chunk.
    table: Vec<u8>,
    /// Tells the files of this process apart.
    serial: u64,
    broken: Listener,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({})", self.path.display())
    }
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A verified chunk.
#[derive(Default)]
struct Kept {
    /// Serial of the file, and index of the chunk.
    of: Option<(u64, u64)>,
    bytes: Vec<u8>,
}

/// The last chunks of this thread, the oldest of which is replaced next.
#[derive(Default)]
struct Cache {
    chunks: [Kept; KEPT],
    oldest: usize,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

impl Sealed {
    /// Verifies footer and table of `file`, which is to be of this kind and name; `path` is for messages. `broken`
    /// hears when a part of its body is not what was sealed.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open(
        file: File,
        path: &Path,
        key: &Key,
        (kind, name): (&str, &str),
        broken: Listener,
    ) -> Result<Self, SealError> {
        let keys = Keys::new(key, (kind, name));
        let (length, table) = table(&file, path, &keys)?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Ok(Self { file: Some(file), path: path.to_owned(), key: keys.chunks, length, table, serial, broken })
    }

    /// Takes `file` as it is now, all of it, which `bytes` is shown: what is read later are these bytes or nothing.
    /// For a file that something else vouches for.
    ///
    /// # Errors
    /// What the disk says, and `bytes`.
    pub fn as_shown(file: File, path: &Path, bytes: &mut impl Write, broken: Listener) -> io::Result<Self> {
        // Nobody writes the table, so that there is nothing to keep a key from.
        let key = [0; HASH];
        let (mut buffer, mut table, mut length) = (vec![0; TOGETHER * CHUNK], Vec::new(), 0);
        loop {
            let mut filled = 0;
            while filled < buffer.len() {
                match file.read_at(&mut buffer[filled..], length + to_u64(filled)) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.write_all(&buffer[..filled])?;
            for chunk in buffer[..filled].chunks(CHUNK) {
                table.extend_from_slice(blake3::keyed_hash(&key, chunk).as_bytes());
            }
            length += to_u64(filled);
            if filled < buffer.len() {
                break;
            }
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Ok(Self { file: Some(file), path: path.to_owned(), key, length, table, serial, broken })
    }

    /// Closes the file, which is opened by its path again for each reading: a process may not have many open.
    #[must_use]
    pub fn closed(self) -> Self {
        Self { file: None, ..self }
    }

    /// Bytes of the body.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` from byte `offset` of the body on.
    ///
    /// # Errors
    /// `UnexpectedEof` when the body ends before the buffer is full; `InvalidData` with [`SealError::Broken`]; else
    /// what the disk says.
    pub fn read_at(&self, mut buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(to_u64(buffer.len()));
        if end.is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset;
        while !buffer.is_empty() {
            let (index, within) = (at / to_u64(CHUNK), to_usize(at % to_u64(CHUNK)));
            let chunk = self.chunk_length(index);
            let count = match buffer.len() / CHUNK {
                whole @ 1.. if within == 0 && chunk == CHUNK => whole.min(TOGETHER) * CHUNK,
                _ => buffer.len().min(chunk - within),
            };
            let (piece, rest) = buffer.split_at_mut(count);
            match count >= chunk {
                true => self.read_chunks(piece, index)?,
                false => self.read_part(piece, index, within)?,
            }
            (buffer, at) = (rest, at + to_u64(count));
        }
        Ok(())
    }

    /// The whole body in memory. For files known to be small.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; to_usize(self.length)];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Reads the body from its start.
    pub fn reader(&self) -> impl Read {
        Reader { sealed: self, position: 0 }
    }

    /// Verifies all of the body.
    pub fn verify(&self) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        for index in 0..self.length.div_ceil(to_u64(CHUNK)) {
            self.read_chunks(&mut buffer[..self.chunk_length(index)], index)?;
        }
        Ok(())
    }

    /// Names the `len` bytes from byte `offset` on by the hashes of the chunks that have them, without reading any: where
    /// two stretches have the same name, their bytes are the same. `None` past the end.
    pub fn identity(&self, offset: u64, len: u64) -> Option<Fingerprint> {
        let end = offset.checked_add(len).filter(|end| *end <= self.length)?;
        let [first, after] = [offset / to_u64(CHUNK), end.div_ceil(to_u64(CHUNK))].map(to_usize);
        let hashes = self.table.get(first * HASH..after.max(first) * HASH)?;
        let place = [offset % to_u64(CHUNK), len].map(u64::to_le_bytes);
        Some(Fingerprint::of_parts("keller: a stretch of a sealed file", &[hashes, &place[0], &place[1]]))
    }

    fn chunk_length(&self, index: u64) -> usize {
        to_usize((self.length - index * to_u64(CHUNK)).min(to_u64(CHUNK)))
    }

    /// Fills `buffer` with whole chunks from this one on; the last of the body may be shorter.
    fn read_chunks(&self, buffer: &mut [u8], index: u64) -> io::Result<()> {
        let mut read = |file: &File| file.read_exact_at(buffer, index * to_u64(CHUNK));
        let read = match &self.file {
            Some(file) => read(file),
            None => input::open(&self.path).and_then(|file| read(&file)),
        };
        let known = self.table[to_usize(index) * HASH..].chunks_exact(HASH);
        let right = match read {
            Ok(()) => buffer.chunks(CHUNK).zip(known).all(|(chunk, known)| {
                blake3::keyed_hash(&self.key, chunk) == blake3::Hash::from_slice(known).expect("32 bytes")
            }),
            // It was cut short since.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(source) => {
                let kind = source.kind();
                let error = SealError::Io { path: self.path.clone(), source };
                (self.broken)(&error);
                return Err(io::Error::new(kind, error));
            }
        };
        if right {
            return Ok(());
        }
        buffer.fill(0);
        let error = SealError::Broken { path: self.path.clone() };
        (self.broken)(&error);
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Fills `buffer` with a part of a chunk, of which the thread keeps the rest for the next call.
    fn read_part(&self, buffer: &mut [u8], index: u64, within: usize) -> io::Result<()> {
        CACHE.with_borrow_mut(|cache| {
            let of = Some((self.serial, index));
            let found = cache.chunks.iter().position(|kept| kept.of == of);
            let kept = match found {
                Some(at) => &cache.chunks[at],
                None => {
                    let at = cache.oldest;
                    cache.oldest = (at + 1) % KEPT;
                    let kept = &mut cache.chunks[at];
                    kept.of = None;
                    kept.bytes.resize(self.chunk_length(index), 0);
                    self.read_chunks(&mut kept.bytes, index)?;
                    kept.of = of;
                    kept
                }
            };
            buffer.copy_from_slice(&kept.bytes[within..within + buffer.len()]);
            Ok(())
        })
    }
}

/// The length of the body and the table, verified.
fn table(file: &File, path: &Path, keys: &Keys) -> Result<(u64, Vec<u8>), SealError> {
    let io = |source| SealError::Io { path: path.to_owned(), source };
    let unsealed = |what| SealError::Unsealed { path: path.to_owned(), what };
    let read = |buffer: &mut [u8], at| match file.read_exact_at(buffer, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(unsealed("it was cut short meanwhile"))
        }
        read => read.map_err(io),
    };
    let size = file.metadata().map_err(io)?.len();
    let start = size.checked_sub(to_u64(FOOTER)).ok_or_else(|| unsealed("it is too short"))?;
    let mut footer = [0; FOOTER];
    read(&mut footer, start)?;
    let (magic, rest) = footer.split_at(MAGIC.len());
    let (name, rest) = rest.split_at(keys.name.len());
    let (length, hash) = rest.split_at(size_of::<u64>());
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
    if magic != MAGIC && magic.starts_with(FORMS) {
        return Err(SealError::Form { path: path.to_owned() });
    }
    if magic != MAGIC {
        return Err(unsealed("it does not end in one"));
    }
    if name != keys.name {
        return Err(SealError::Foreign { path: path.to_owned() });
    }
    let table = length.div_ceil(to_u64(CHUNK)) * to_u64(HASH);
    if length > LONGEST || length + table != start {
        return Err(unsealed("its length is another"));
    }
    let mut bytes = vec![0; to_usize(table)];
    read(&mut bytes, length)?;
    match keys.of_table(length, &bytes) == blake3::Hash::from_slice(hash).expect("32 bytes") {
        true => Ok((length, bytes)),
        false => Err(SealError::Broken { path: path.to_owned() }),
    }
}

/// Reads a body in order.
struct Reader<'a> {
    sealed: &'a Sealed,
    position: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = to_usize((self.sealed.length - self.position).min(to_u64(buffer.len())));
        self.sealed.read_at(&mut buffer[..count], self.position)?;
        self.position += to_u64(count);
        Ok(count)
    }
}
