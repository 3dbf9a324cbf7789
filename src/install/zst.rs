//! A raw image in frames, as `keller build` compresses it (output/zst), read at any place: nothing is unpacked to a disk,
//! and memory holds a few frames.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use zstd::zstd_safe;

use crate::base::device::ReadAt;
use crate::base::limits;
use crate::base::width::{to_u64, to_usize};

/// Most bytes of the disk in a frame; keller's have 4 MiB.
const LARGEST: u64 = 16 << 20;
/// Bytes that the head of a frame has at most (RFC 8878, section 3.1.1.1).
const HEAD: u64 = 18;
/// Bytes of a frame that are looked at first.
const FIRST: u64 = 4 << 10;
/// Frames that are held: the verity tree and the root are read by turns.
const HELD: usize = 3;

/// Where a frame lies.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// In the file.
    offset: u64,
    compressed: usize,
    /// In the disk.
    start: u64,
    size: usize,
}

/// The disk that a file of frames unpacks to.
#[derive(Debug)]
pub(super) struct Frames {
    file: File,
    frames: Vec<Frame>,
    size: u64,
    /// By number, the latest last.
    held: Mutex<VecDeque<(usize, Vec<u8>)>>,
}

impl Frames {
    /// Finds the frames of `file`; none where it is one large frame, or one that does not tell its size.
    ///
    /// # Errors
    /// What the disk says, and a file that ends in the middle of a frame.
    pub(super) fn open(file: File) -> io::Result<Option<Self>> {
        let length = file.metadata()?.len();
        let (mut frames, mut offset, mut size) = (Vec::new(), 0, 0);
        let mut bytes = Vec::new();
        while offset < length {
            let left = length - offset;
            fill(&file, &mut bytes, offset, HEAD.min(left))?;
            let Ok(Some(content)) = zstd_safe::get_frame_content_size(&bytes) else { return Ok(None) };
            if content > LARGEST {
                return Ok(None);
            }
            let most = to_u64(zstd_safe::compress_bound(to_usize(content)));
            let Some(compressed) = length_of(&file, &mut bytes, offset, most.min(left))? else {
                let cut =
                    || io::Error::new(io::ErrorKind::UnexpectedEof, "the compressed image is cut short");
                return if left < most { Err(cut()) } else { Ok(None) };
            };
            if frames.len() == limits::FRAMES {
                let many = format!("the compressed image has more than {} frames", limits::FRAMES);
                return Err(io::Error::new(io::ErrorKind::InvalidData, many));
            }
            frames.push(Frame { offset, compressed, start: size, size: to_usize(content) });
            offset += to_u64(compressed);
            size += content;
        }
        Ok(Some(Self { file, frames, size, held: Mutex::default() }))
    }

    fn with<T>(&self, number: usize, take: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = held.iter().find(|(known, _)| *known == number) {
            return Ok(take(bytes));
        }
        let frame = self.frames[number];
        let mut compressed = vec![0; frame.compressed];
        self.file.read_exact_at(&mut compressed, frame.offset)?;
        let bytes = zstd::bulk::decompress(&compressed, frame.size)?;
        if bytes.len() != frame.size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame has another size than it says"));
        }
        let taken = take(&bytes);
        held.push_back((number, bytes));
        if held.len() > HELD {
            held.pop_front();
        }
        Ok(taken)
    }
}

/// How many bytes the frame at `offset` has, at most `most`; nothing where it has more, or is none. No more is read than a few
/// times what it has: a small file may have many frames, each of which could be as large as all of it.
fn length_of(file: &File, bytes: &mut Vec<u8>, offset: u64, most: u64) -> io::Result<Option<usize>> {
    let mut count = FIRST.min(most);
    loop {
        fill(file, bytes, offset, count)?;
        match zstd_safe::find_frame_compressed_size(bytes) {
            Ok(length) => return Ok(Some(length)),
            Err(_) if count == most => return Ok(None),
            Err(_) => count = most.min(count * 8),
        }
    }
}

/// Makes `bytes` the `count` bytes of `file` from `offset` on.
fn fill(file: &File, bytes: &mut Vec<u8>, offset: u64, count: u64) -> io::Result<()> {
    bytes.resize(to_usize(count), 0);
    file.read_exact_at(bytes, offset)
}

impl ReadAt for Frames {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(to_u64(buffer.len())).filter(|end| *end <= self.size);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut done = 0;
        let mut number = self.frames.partition_point(|frame| frame.start + to_u64(frame.size) <= offset);
        while done < buffer.len() {
            let from = to_usize(offset + to_u64(done) - self.frames[number].start);
            let rest = &mut buffer[done..];
            done += self.with(number, |bytes| {
                let count = rest.len().min(bytes.len() - from);
                rest[..count].copy_from_slice(&bytes[from..from + count]);
                count
            })?;
            number += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn any_place_of_the_disk_is_read() {
        let disk: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 5) as u8).collect();
        let packed: Vec<u8> =
            disk.chunks(700_000).flat_map(|piece| zstd::bulk::compress(piece, 1).unwrap()).collect();
        let frames = Frames::open(file(&packed)).unwrap().unwrap();
        assert_eq!((frames.size(), frames.frames.len()), (3_000_000, 5));
        for (offset, len) in
            [(0, 10), (699_999, 2), (0, 3_000_000), (2_999_999, 1), (1_400_000, 700_000), (5, 0)]
        {
            let mut read = vec![0; len];
            frames.read_at(&mut read, offset as u64).unwrap();
            assert!(read == disk[offset..offset + len], "{len} at {offset}");
        }
        assert!(frames.read_at(&mut [0; 2], 2_999_999).is_err());
        let short = Frames::open(file(&packed[..packed.len() - 1])).unwrap_err();
        assert_eq!(short.to_string(), "the compressed image is cut short");
    }

    /// Each could be as large as the file: looking for its end reads no further than it has to.
    #[test]
    fn a_great_many_small_frames_cost_little() {
        let frame = zstd::bulk::compress(&vec![0; 16 << 20], 1).unwrap();
        let begun = std::time::Instant::now();
        let many = Frames::open(file(&frame.repeat(40_000))).unwrap().unwrap();
        assert_eq!((many.size(), many.frames.len()), (40_000 * (16 << 20), 40_000));
        let empty = zstd::bulk::compress(&[], 1).unwrap();
        let error = Frames::open(file(&empty.repeat(limits::FRAMES + 1))).unwrap_err();
        assert_eq!(error.to_string(), "the compressed image has more than 1000000 frames");
        assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    }

    #[test]
    fn what_has_no_frames_of_this_kind_is_left_to_others() {
        let large = zstd::bulk::compress(&vec![0; 17 << 20], 1).unwrap();
        assert!(Frames::open(file(&large)).unwrap().is_none());
        let mut streamed = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        streamed.include_contentsize(false).unwrap();
        streamed.write_all(b"unknown length").unwrap();
        let streamed = streamed.finish().unwrap();
        assert!(Frames::open(file(&streamed)).unwrap().is_none());
        assert!(Frames::open(file(b"no zstd")).unwrap().is_none());
    }
}
