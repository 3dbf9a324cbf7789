//! Streams of bytes inside a patch: each compressed by whatever makes it smallest.
//!
//! ```text
//! 1  how: 0 stored, 1 zstd, 2 raw LZMA2 with a dictionary of 16 MiB, 3 the same behind the x86 filter
//! n  LEB128: bytes as stored
//! n  LEB128: bytes as they are
//!    as stored
//! ```

use std::io::{self, Read};

use liblzma::read::XzEncoder;
use liblzma::stream::{Filters, LzmaOptions, PRESET_EXTREME, Stream};
use rayon::prelude::*;

use crate::base::width::to_u64;

/// Bytes that a decoder looks back at the most, and so about what it keeps in memory.
pub(super) const WINDOW: usize = 1 << WINDOW_LOG;
const WINDOW_LOG: u32 = 24;
/// Where zstd's fastest saves less than a fiftieth, nothing saves much: compressed modules, pictures, keys.
const HOPELESS: usize = 50;

/// xz's own default: 9 takes twice as long for less than a hundredth.
const PRESET: u32 = 6;
/// The same for all of an image, with [`NICE`] and [`DEPTH`]: 6 takes half as long again for a hundredth.
const PRESET_PROGRAMS: u32 = 4;
/// Length of a match with which the search for a longer one ends, in bytes.
const NICE: u32 = 48;
/// Places that are looked at for a match.
const DEPTH: u32 = 12;
/// A dictionary for all of an image: an encoder takes eleven times as much memory, and each processor has one.
const DICTIONARY_PROGRAMS: usize = 8 << 20;
/// The least level for which a stream of programs is worth LZMA's time: its quickest preset takes twenty times as long as
/// zstd does below.
const THOROUGH: i32 = 3;
/// LZMA has no smaller one, in bytes.
const LEAST_DICTIONARY: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Stored,
    Zstd,
    Lzma,
    LzmaX86,
}

const ALL: [How; 4] = [How::Stored, How::Zstd, How::Lzma, How::LzmaX86];

/// Appends an unsigned number, low seven bits first.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Appends a signed number, small ones of both signs in one byte.
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// Reads what [`put_number`] wrote.
pub(super) fn number(from: &mut dyn Read) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        let bits = u64::from(byte[0] & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a number of more than 64 bits"))
}

/// Reads what [`put_signed`] wrote.
pub(super) fn signed(from: &mut dyn Read) -> io::Result<i64> {
    let number = number(from)?;
    Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

/// Appends `bytes` as a stream.
pub(super) fn put(out: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let (how, stored) = smallest(bytes)?;
    append(out, how, &stored, bytes.len());
    Ok(())
}

fn append(out: &mut Vec<u8>, how: How, stored: &[u8], length: usize) {
    out.push(how as u8);
    put_number(out, to_u64(stored.len()));
    put_number(out, to_u64(length));
    out.extend(stored);
}

/// Appends many bytes, most of them of programs, as a stream. What [`put`] tries takes several times as long,
/// and makes a root smaller by less than a hundredth. `level` is that of zstd, which is used itself below [`THOROUGH`], or
/// about as thorough as what is.
pub(super) fn put_programs(out: &mut Vec<u8>, bytes: &[u8], level: i32) -> io::Result<()> {
    let (how, stored) = match hopeless(bytes)? {
        Some(quick) => quick,
        None if level < THOROUGH => (How::Zstd, zstd::bulk::compress(bytes, level)?),
        None => {
            let preset = (level.clamp(0, 19).unsigned_abs() / 3).min(PRESET_PROGRAMS);
            (How::LzmaX86, lzma(bytes, program_filters(preset, bytes.len())?)?)
        }
    };
    append(out, how, &stored, bytes.len());
    Ok(())
}

/// Begins a stream of `length` bytes that are compressed in frames of zstd, which follow and take `stored`.
pub(super) fn begin_frames(out: &mut Vec<u8>, stored: usize, length: usize) {
    out.push(How::Zstd as u8);
    put_number(out, to_u64(stored));
    put_number(out, to_u64(length));
}

/// Whether the last of three streams is one of zstd that has saved something: LZMA would have saved more.
pub(super) fn is_of_frames(bytes: &[u8]) -> bool {
    let third = || {
        let (_, _, rest) = take(bytes)?;
        let (_, _, rest) = take(rest)?;
        let (_, length, _) = take(rest)?;
        Ok::<_, io::Error>((rest.first() == Some(&(How::Zstd as u8)), to_u64(rest.len()), length))
    };
    third().is_ok_and(|(is_zstd, stored, length)| is_zstd && stored < length - length / to_u64(HOPELESS))
}

/// What is not worth another try.
fn hopeless(bytes: &[u8]) -> io::Result<Option<(How, Vec<u8>)>> {
    let quick = zstd::bulk::compress(bytes, 1)?;
    if quick.len() >= bytes.len() {
        return Ok(Some((How::Stored, bytes.to_vec())));
    }
    let saved = bytes.len() - quick.len();
    Ok((saved < bytes.len() / HOPELESS).then_some((How::Zstd, quick)))
}

fn smallest(bytes: &[u8]) -> io::Result<(How, Vec<u8>)> {
    if let Some(quick) = hopeless(bytes)? {
        return Ok(quick);
    }
    let tried: Vec<(How, Vec<u8>)> = [How::Zstd, How::Lzma, How::LzmaX86]
        .into_par_iter()
        .map(|how| compress(how, bytes).map(|stored| (how, stored)))
        .collect::<Result<_, _>>()?;
    Ok(tried.into_iter().min_by_key(|(_, stored)| stored.len()).expect("three were tried"))
}

fn compress(how: How, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match how {
        How::Stored => Ok(bytes.to_vec()),
        How::Zstd => {
            let mut compressor = zstd::bulk::Compressor::new(22)?;
            compressor.window_log(WINDOW_LOG.min(bytes.len().max(1024).ilog2() + 1))?;
            compressor.compress(bytes)
        }
        How::Lzma | How::LzmaX86 => lzma(bytes, encoder_filters(how, 9 | PRESET_EXTREME, bytes.len())?),
    }
}

fn lzma(bytes: &[u8], filters: Filters) -> io::Result<Vec<u8>> {
    let mut encoder = XzEncoder::new_stream(bytes, Stream::new_raw_encoder(&filters)?);
    let mut stored = Vec::new();
    encoder.read_to_end(&mut stored)?;
    Ok(stored)
}

/// An encoder takes about eleven times its dictionary: one for more bytes than there are is a waste.
fn encoder_filters(how: How, preset: u32, length: usize) -> io::Result<Filters> {
    filters(how, preset, length.next_power_of_two().clamp(LEAST_DICTIONARY, WINDOW))
}

fn program_filters(preset: u32, length: usize) -> io::Result<Filters> {
    let mut options = LzmaOptions::new_preset(preset)?;
    let dictionary = length.next_power_of_two().clamp(LEAST_DICTIONARY, DICTIONARY_PROGRAMS);
    options.dict_size(u32::try_from(dictionary).map_err(io::Error::other)?);
    if preset == PRESET_PROGRAMS {
        // Instructions of x86 begin anywhere.
        options.nice_len(NICE).depth(DEPTH).position_bits(0);
    }
    Ok(chain(How::LzmaX86, &options))
}

fn filters(how: How, preset: u32, dictionary: usize) -> io::Result<Filters> {
    let mut options = LzmaOptions::new_preset(preset)?;
    options.dict_size(u32::try_from(dictionary).map_err(io::Error::other)?);
    Ok(chain(how, &options))
}

fn chain(how: How, options: &LzmaOptions) -> Filters {
    let mut filters = Filters::new();
    if how == How::LzmaX86 {
        filters.x86();
    }
    filters.lzma2(options);
    filters
}

/// Takes the stream that `bytes` begin with; gives its bytes as they are, how many, and what follows it.
pub(super) fn take(bytes: &[u8]) -> io::Result<(Box<dyn Read + '_>, u64, &[u8])> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let (first, mut rest) = bytes.split_first().ok_or_else(|| invalid("no stream"))?;
    let how = *ALL.get(usize::from(*first)).ok_or_else(|| invalid("a stream of an unknown kind"))?;
    let stored = number(&mut rest)?;
    let length = number(&mut rest)?;
    let stored = usize::try_from(stored).ok().filter(|stored| *stored <= rest.len());
    let (stored, rest) = rest.split_at(stored.ok_or_else(|| invalid("a stream that is cut off"))?);
    let reader: Box<dyn Read> = match how {
        How::Stored => Box::new(stored),
        How::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
        How::Lzma | How::LzmaX86 => {
            let stream = Stream::new_raw_decoder(&filters(how, PRESET, WINDOW)?)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(stored, stream))
        }
    };
    Ok((Box::new(reader.take(length)), length, rest))
}

/// How each of the streams is compressed, from how many bytes to how many.
pub(super) fn describe(mut bytes: &[u8]) -> io::Result<String> {
    let mut text = Vec::new();
    while let Some(how) = bytes.first().and_then(|how| ALL.get(usize::from(*how))) {
        let (_, length, rest) = take(bytes)?;
        text.push(format!("{how:?} {length} in {}", bytes.len() - rest.len()));
        bytes = rest;
    }
    Ok(text.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::delta::testing::{noise, text};

    #[test]
    fn numbers() {
        let mut out = Vec::new();
        let numbers = [0, 1, 127, 128, 1 << 35, u64::MAX];
        numbers.iter().for_each(|value| put_number(&mut out, *value));
        let signeds = [0, -1, 1, i64::MIN, i64::MAX];
        signeds.iter().for_each(|value| put_signed(&mut out, *value));
        let mut from = out.as_slice();
        assert_eq!(numbers.map(|_| number(&mut from).unwrap()), numbers);
        assert_eq!(signeds.map(|_| signed(&mut from).unwrap()), signeds);
        assert!(number(&mut from).is_err());
        assert!(number(&mut [0xff; 20].as_slice()).is_err());
    }

    #[test]
    fn programs_come_back_by_zstd_where_it_shall_be_quick() {
        let bytes = text(2, 50_000);
        for (level, how) in [(1, How::Zstd), (2, How::Zstd), (3, How::LzmaX86), (19, How::LzmaX86)] {
            let mut out = Vec::new();
            put_programs(&mut out, &bytes, level).unwrap();
            assert_eq!(out[0], how as u8, "{level}");
            let (mut back, mut reader) = (Vec::new(), take(&out).unwrap().0);
            reader.read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{level}");
        }
    }

    #[test]
    fn streams_come_back() {
        let kinds = [Vec::new(), b"x".to_vec(), noise(1, 5000), text(2, 50_000), vec![0; 100_000]];
        let mut out = Vec::new();
        kinds.iter().for_each(|bytes| put(&mut out, bytes).unwrap());
        let mut rest = out.as_slice();
        for bytes in &kinds {
            let (mut reader, length, after) = take(rest).unwrap();
            let mut back = Vec::new();
            reader.read_to_end(&mut back).unwrap();
            assert_eq!((&back, length), (bytes, to_u64(bytes.len())));
            rest = after;
        }
        assert!(
            rest.is_empty() && take(rest).is_err() && take(&[9, 0, 0]).is_err() && take(&[0, 5]).is_err()
        );
        for how in ALL {
            let stored = compress(how, &kinds[3]).unwrap();
            let mut whole = vec![how as u8];
            put_number(&mut whole, to_u64(stored.len()));
            put_number(&mut whole, to_u64(kinds[3].len()));
            whole.extend(&stored);
            let mut back = Vec::new();
            take(&whole).unwrap().0.read_to_end(&mut back).unwrap();
            assert!(back == kinds[3], "{how:?}");
        }
    }
}
