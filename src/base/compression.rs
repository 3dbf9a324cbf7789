//! The compressions that archives, packages and kernel modules come in, with the memory that they may take.
//!
//! A few bytes can ask for a window of gigabytes. What a stream asks for stands in its header: it is taken from a
//! budget that all threads share ([`limits::WINDOWS`]), and refused where it exceeds [`limits::WINDOW`].
//!
//! Sources: The .xz File Format 1.2.1, section 3.1; RFC 8878, section 3.1.1.1; LZMA SDK, lzma.txt.

use std::io::{self, BufRead, Read};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Size, input, limits};
use crate::base::width::to_u64;

/// The least that a stream reserves, in bytes: the window of `xz -6` and of zstd's levels up to 19.
const LEAST: u64 = 8 << 20;

/// What a decoder takes besides its window, in bytes.
const BESIDES: u64 = 4 << 20;

/// Bytes of a stream that tell its window.
const HEAD: usize = 32;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, `.gz`.
    Gzip,
    /// xz, `.xz`.
    Xz,
    /// Zstandard, `.zst`.
    Zstd,
    /// bzip2, `.bz2`.
    Bzip2,
    /// The older format of xz's algorithm, `.lzma`.
    Lzma,
}

/// Why a stream is not decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its window is larger than memory that is given.
    #[error(
        "it asks for {} of memory to be decompressed, and {} are given: compress it anew, with `xz -9` or \
         `zstd -19` at most", Size(*.window).human(), Size(*.limit).human()
    )]
    Window {
        /// As it asks for, in bytes.
        window: u64,
        /// In bytes.
        limit: u64,
    },
    /// A later part of it has a larger window than the first.
    #[error("a part of it asks for more memory than the {} that its first part asked for", Size(*.first).human())]
    Grown {
        /// As the first part asked for, in bytes.
        first: u64,
    },
    /// It has more parts than [`limits::STREAMS`].
    #[error("it has more than {limit} streams, one after the other: compress it anew, all at once")]
    Streams {
        /// As in the limit.
        limit: usize,
    },
    /// It unpacks to more than is wanted of it.
    #[error("it unpacks to more than {}", Size(*.limit).human())]
    Unpacked {
        /// In bytes.
        limit: u64,
    },
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::InvalidData, refused)
    }
}

impl Compression {
    /// By the ending of a file's name, with its dot; none for an ending that is not known.
    pub fn of_ending(ending: &str) -> Option<Self> {
        Some(match ending {
            "" => Self::None,
            ".gz" => Self::Gzip,
            ".xz" => Self::Xz,
            ".zst" => Self::Zstd,
            ".bz2" => Self::Bzip2,
            ".lzma" => Self::Lzma,
            _ => return None,
        })
    }

    /// By the bytes that a stream begins with, which `.lzma` has none of.
    pub fn of_magic(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // Skippable frames, with which parallel compressors begin (RFC 8878, 3.1.2).
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// What `compressed` unpacks to. The reader holds its memory, so that one thread must not have two of them.
    ///
    /// # Errors
    /// [`Refused`] in an [`io::Error`], or when a decoder cannot be set up; what is wrong with the bytes shows while
    /// reading.
    pub fn reader<'a>(self, mut compressed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        use liblzma::stream::{CONCATENATED, Stream};
        let lzma = |stream: Result<Stream, liblzma::stream::Error>| stream.map_err(io::Error::from);
        if matches!(self, Self::None | Self::Gzip | Self::Bzip2) {
            return Ok(match self {
                Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(compressed)),
                Self::Bzip2 => Box::new(Bzip2::new(compressed)),
                _ => Box::new(compressed),
            });
        }
        let head = compressed.fill_buf()?;
        let window = self.window(&head[..head.len().min(HEAD)]).unwrap_or(limits::WINDOW).max(LEAST);
        if window > limits::WINDOW {
            return Err(Refused::Window { window, limit: limits::WINDOW }.into());
        }
        let reserved = Reserved::new(window);
        let memory = window + BESIDES;
        let inner: Box<dyn Read + 'a> = match self {
            Self::Xz => {
                let stream = lzma(Stream::new_stream_decoder(memory, CONCATENATED))?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(compressed, stream))
            }
            Self::Lzma => {
                let stream = lzma(Stream::new_lzma_decoder(memory))?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(compressed, stream))
            }
            _ => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
                decoder.window_log_max(window.next_power_of_two().ilog2())?;
                Box::new(decoder)
            }
        };
        Ok(Box::new(Windowed { inner, reserved }))
    }

    /// All of what `compressed` unpacks to, at most `limit` bytes.
    ///
    /// # Errors
    /// [`Refused`] in an [`io::Error`], or what is wrong with the bytes.
    pub fn unpack(self, compressed: impl BufRead, limit: u64) -> io::Result<Vec<u8>> {
        input::read_open(self.reader(compressed)?, limit).map_err(|error| {
            let is_large = error.get_ref().is_some_and(|inner| inner.is::<input::TooLarge>());
            if is_large { Refused::Unpacked { limit }.into() } else { error }
        })
    }

    /// As [`Compression::unpack`]. Where it is more than [`limits::ALONE`] bytes, the lock comes with them, to be held as
    /// long as they are in memory: large ones of all threads come one after the other.
    ///
    /// # Errors
    /// Those of [`Compression::unpack`].
    pub fn unpack_alone(self, compressed: impl BufRead, limit: u64) -> io::Result<(Vec<u8>, Option<Alone>)> {
        let mut reader = self.reader(compressed)?;
        let mut bytes = Vec::new();
        (&mut reader).take(limits::ALONE.min(limit + 1)).read_to_end(&mut bytes)?;
        // Taken after the decoder's memory, never before: whoever holds the lock waits for nothing.
        let alone = (to_u64(bytes.len()) == limits::ALONE).then(Alone::wait);
        reader.take(limit.saturating_add(1).saturating_sub(to_u64(bytes.len()))).read_to_end(&mut bytes)?;
        match to_u64(bytes.len()) > limit {
            true => Err(Refused::Unpacked { limit }.into()),
            false => Ok((bytes, alone)),
        }
    }

    /// Bytes of memory that a stream with this `head` needs to look back; nothing where it does not say so at once.
    fn window(self, head: &[u8]) -> Option<u64> {
        match self {
            Self::Xz => xz_window(head),
            Self::Zstd => zstd_window(head),
            Self::Lzma => Some(u32::from_le_bytes(*head.get(1..)?.first_chunk()?).into()),
            Self::None | Self::Gzip | Self::Bzip2 => Some(0),
        }
    }
}

/// The dictionary of the first block of a .xz file.
fn xz_window(head: &[u8]) -> Option<u64> {
    // After the stream header: size, flags, two optional sizes, then filters, each with its id and its properties.
    let block = head.get(12..)?;
    let (size, flags) = (*block.first()?, *block.get(1)?);
    if size == 0 {
        // The index of an empty stream.
        return Some(0);
    }
    let mut rest = &block[2..];
    for _ in 0..(flags >> 6).count_ones() {
        number(&mut rest)?;
    }
    for _ in 0..=flags & 3 {
        const LZMA2: u64 = 0x21;
        let (id, length) = (number(&mut rest)?, number(&mut rest)?);
        if id == LZMA2 {
            let bits = u64::from(*rest.first()? & 0x3f);
            return Some((2 | (bits & 1)) << (bits / 2 + 11));
        }
        rest = rest.get(usize::try_from(length).ok()?..)?;
    }
    None
}

/// Takes a number of several bytes, seven bits in each, off `bytes`.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let len = bytes.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let (digits, after) = bytes.split_at(len);
    *bytes = after;
    digits.iter().rev().try_fold(0_u64, |sum, byte| Some(sum.checked_mul(128)? | u64::from(byte & 0x7f)))
}

/// The window of the first frame of a Zstandard file.
fn zstd_window(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let (exponent, mantissa) = (rest.first()? >> 3, rest.first()? & 7);
        let base = 1_u64 << (10 + exponent);
        return Some(base + base / 8 * u64::from(mantissa));
    }
    // One segment: the window is all of its content.
    let rest = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
    let little = |len: usize| {
        rest.get(..len).map(|bytes| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    match descriptor >> 6 {
        0 => little(1),
        1 => little(2).map(|size| size + 256),
        2 => little(4),
        _ => little(8),
    }
}

/// The streams of a bzip2 file. Each takes tables of megabytes that are made anew, an empty one of 14 bytes too.
struct Bzip2<R> {
    /// None only while one stream makes way for the next.
    decoder: Option<bzip2::bufread::BzDecoder<R>>,
    left: usize,
}

impl<R: BufRead> Bzip2<R> {
    fn new(compressed: R) -> Self {
        Self { decoder: Some(bzip2::bufread::BzDecoder::new(compressed)), left: limits::STREAMS - 1 }
    }
}

impl<R: BufRead> Read for Bzip2<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(0) };
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() || decoder.get_mut().fill_buf()?.is_empty() {
                return Ok(count);
            }
            self.left = self.left.checked_sub(1).ok_or(Refused::Streams { limit: limits::STREAMS })?;
            let rest = self.decoder.take().map(bzip2::bufread::BzDecoder::into_inner);
            self.decoder = rest.map(bzip2::bufread::BzDecoder::new);
        }
    }
}

/// A decoder with the memory that it may take.
struct Windowed<'a> {
    inner: Box<dyn Read + 'a>,
    reserved: Reserved,
}

impl Read for Windowed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            let is_memory = matches!(inner, Some(liblzma::stream::Error::MemLimit))
                || error.to_string() == "Frame requires too much memory for decoding";
            if is_memory { Refused::Grown { first: self.reserved.0 }.into() } else { error }
        })
    }
}

/// Held by the thread that has a large file in memory.
#[derive(Debug)]
pub struct Alone {
    _lock: MutexGuard<'static, ()>,
}

impl Alone {
    /// Waits until no other thread has one. Whoever holds it must not wait for the memory of a decoder.
    pub fn wait() -> Self {
        static LARGE: Mutex<()> = Mutex::new(());
        Self { _lock: LARGE.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// Bytes of memory that all decoders hold.
static USED: Mutex<u64> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// A part of [`limits::WINDOWS`], held until it is dropped.
struct Reserved(u64);

impl Reserved {
    /// Waits until there is room for `window` bytes.
    fn new(window: u64) -> Self {
        let used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |used: &mut u64| *used > 0 && *used + window > limits::WINDOWS;
        let mut used = FREED.wait_while(used, full).unwrap_or_else(PoisonError::into_inner);
        *used += window;
        Self(window)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        *USED.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        FREED.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::base::width::to_usize;

    /// `bytes` as one xz stream with a dictionary of `dictionary` bytes.
    fn xz(bytes: &[u8], dictionary: u32) -> Vec<u8> {
        use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
        let mut options = LzmaOptions::new_preset(0).unwrap();
        options.dict_size(dictionary);
        let mut filters = Filters::new();
        filters.x86().lzma2(&options);
        let stream = Stream::new_stream_encoder(&filters, Check::Crc32).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// The same with the dictionary that its header names changed to `bits`, and the header's checksum made good.
    fn asking(mut stream: Vec<u8>, bits: u8) -> Vec<u8> {
        let size = (usize::from(stream[12]) + 1) * 4;
        let at = stream[12..12 + size].windows(2).position(|pair| pair == [0x21, 1]).unwrap() + 14;
        stream[at] = bits;
        let sum = crc32fast::hash(&stream[12..12 + size - 4]);
        stream[12 + size - 4..12 + size].copy_from_slice(&sum.to_le_bytes());
        stream
    }

    fn zstd(bytes: &[u8], log: u32) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn refusal(compression: Compression, bytes: &[u8]) -> String {
        compression.unpack(bytes, 100).unwrap_err().to_string()
    }

    #[test]
    fn windows_stand_in_the_head() {
        assert_eq!(xz_window(&xz(b"abc", 8 << 20)), Some(8 << 20));
        assert_eq!(xz_window(&xz(b"abc", 96 << 20)), Some(96 << 20));
        assert_eq!(xz_window(&asking(xz(b"abc", 1 << 20), 38)), Some(2 << 30));
        assert_eq!(zstd_window(&zstd(b"abc", 23)), Some(8 << 20));
        assert_eq!(zstd_window(&zstd::bulk::compress(&[7; 300], 1).unwrap()), Some(300));
        assert_eq!(zstd_window(&zstd::bulk::compress(&[7; 3], 1).unwrap()), Some(3));
        assert_eq!((xz_window(b"\xfd7zXZ"), zstd_window(b"\x50\x2a\x4d\x18")), (None, None));
        for (compression, bytes) in [
            (Compression::Xz, xz(b"abc", 64 << 20)),
            (Compression::Zstd, zstd(b"abc", 27)),
            (Compression::Zstd, [&b"\x50\x2a\x4d\x18\0\0\0\0"[..], &zstd(b"abc", 27)].concat()),
            (Compression::Xz, [xz(b"ab", 1 << 20), xz(b"c", 1 << 20)].concat()),
        ] {
            assert_eq!(Compression::of_magic(&bytes), compression);
            assert_eq!(compression.unpack(&bytes[..], 100).unwrap(), b"abc", "{compression:?}");
        }
    }

    #[test]
    fn what_asks_for_gigabytes_is_refused() {
        let said = "it asks for 2.0 GiB of memory to be decompressed, and 128.0 MiB are given: compress it anew, \
                    with `xz -9` or `zstd -19` at most";
        assert_eq!(refusal(Compression::Xz, &asking(xz(b"abc", 1 << 20), 38)), said);
        // A frame of Zstandard that says so: exponent 21 of a window descriptor.
        let mut frame = zstd(b"abc", 20);
        frame[5] = 21 << 3;
        assert_eq!(refusal(Compression::Zstd, &frame), said);
        let mut lzma = vec![0x5d, 0, 0, 0, 0x80];
        lzma.extend([0xff; 8]);
        assert_eq!(refusal(Compression::Lzma, &lzma), said);
        // The second part of a file asks for more than the first.
        let grown = "a part of it asks for more memory than the 8.0 MiB that its first part asked for";
        let parts = [xz(b"abc", 1 << 20), asking(xz(b"abc", 1 << 20), 38)].concat();
        assert_eq!(refusal(Compression::Xz, &parts), grown);
        assert_eq!(refusal(Compression::Zstd, &[zstd(b"abc", 20), frame].concat()), grown);
    }

    #[test]
    fn what_unpacks_to_more_is_refused() {
        let said = "it unpacks to more than 100 B";
        let bytes = vec![0; 1 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        assert_eq!(refusal(Compression::Gzip, &gzip.finish().unwrap()), said);
        assert_eq!(refusal(Compression::Xz, &xz(&bytes, 1 << 20)), said);
        assert_eq!(refusal(Compression::Zstd, &zstd(&bytes, 20)), said);
        assert_eq!(refusal(Compression::None, &bytes), said);
    }

    #[test]
    fn streams_have_a_number() {
        let stream = |bytes: &[u8]| {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let parts = [stream(b"ab"), stream(b"").repeat(3), stream(b"c")].concat();
        assert_eq!(Compression::Bzip2.unpack(&parts[..], 100).unwrap(), b"abc");
        assert!(Compression::Bzip2.unpack(&[&parts[..], b"BZh"].concat()[..], 100).is_err(), "cut short");
        assert!(Compression::Bzip2.unpack(&[&parts[..], b"\0\0\0"].concat()[..], 100).is_err(), "no stream");
        let said = "it has more than 20000 streams, one after the other: compress it anew, all at once";
        assert_eq!(refusal(Compression::Bzip2, &stream(b"").repeat(20_001)), said);
    }

    #[test]
    fn large_files_come_one_after_the_other() {
        let size = to_usize(limits::ALONE);
        let packed = |size: usize| zstd::bulk::compress(&vec![7; size], 1).unwrap();
        let small = Compression::Zstd.unpack_alone(&packed(size - 1)[..], limits::MODULE).unwrap();
        assert_eq!((small.0.len(), small.1.is_some()), (size - 1, false));
        let large = packed(size + 1);
        let first = Compression::Zstd.unpack_alone(&large[..], limits::MODULE).unwrap();
        assert_eq!((first.0.len(), first.1.is_some()), (size + 1, true));
        std::thread::scope(|scope| {
            let second =
                scope.spawn(|| Compression::Zstd.unpack_alone(&large[..], limits::MODULE).unwrap().0.len());
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!second.is_finished(), "it did not wait");
            drop(first);
            assert_eq!(second.join().unwrap(), size + 1);
        });
        let told = Compression::Zstd.unpack_alone(&large[..], limits::ALONE).unwrap_err().to_string();
        assert_eq!(told, "it unpacks to more than 8.0 MiB");
    }

    #[test]
    fn large_windows_wait_for_each_other() {
        let bytes = zstd(b"abc", 27);
        let held = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let reader = Compression::Zstd.reader(&bytes[..]).unwrap();
                    held.fetch_max(*USED.lock().unwrap(), std::sync::atomic::Ordering::Relaxed);
                    drop(reader);
                });
            }
        });
        // Other tests may hold the least besides.
        assert!(held.into_inner() < 2 * limits::WINDOW);
    }
}
