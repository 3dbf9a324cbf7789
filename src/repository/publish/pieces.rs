//! Where the bytes of a version's files lie: what the version before has stays in its files, and only what is new is
//! written. So a repository grows by what has changed.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Write};
use std::ops::Range;

use crate::base::device::{FileDevice, ReadAt, SectorSize};
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, Hasher, input};
use crate::repository::folder::Folder;
use crate::update::document::{Blob, Piece};

/// Minimum size of a stretch that stays where it is, in bytes: it costs nodes a request, and its place in the release
/// document takes about 150 bytes.
const LEAST: u64 = 64 << 10;
/// Maximum number of such stretches in the whole: a node that has nothing sends a request for each. Where there would be
/// more, the smaller ones are written anew, so that a long line of versions does not end in crumbs.
pub(super) const MOST_OF_WHOLE: usize = 128;
/// The same in the frames, of which a node reads only what it lacks: their places in the release document count.
pub(super) const MOST_OF_FRAMES: usize = 512;
/// Bytes that are copied at once.
const WINDOW: usize = 1 << 20;

/// A file and where its bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Laid {
    /// All of it.
    pub blob: Blob,
    /// What it is made of; nothing if it is a file of its own.
    pub pieces: Vec<Piece>,
}

impl Laid {
    /// Of what a release document says.
    pub(super) fn new(blob: Blob, pieces: &[Piece]) -> Self {
        Self { blob, pieces: pieces.to_vec() }
    }

    /// The pieces, or the file as the only one.
    fn all(&self) -> Vec<Piece> {
        match self.pieces.is_empty() {
            true => vec![Piece { file: self.blob.sha256, at: 0, length: self.blob.size }],
            false => self.pieces.clone(),
        }
    }

    /// Where the bytes of `range` lie.
    pub(super) fn locate(&self, range: &Range<u64>) -> Vec<Piece> {
        let mut begin = 0;
        let mut found = Vec::new();
        for piece in self.all() {
            let end = begin + piece.length;
            let (from, to) = (range.start.max(begin), range.end.min(end));
            if from < to {
                found.push(Piece { at: piece.at + (from - begin), length: to - from, ..piece });
            }
            begin = end;
        }
        found
    }
}

/// Appends a piece, to the last one if it goes on from there.
fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    match pieces.last_mut() {
        Some(last) if last.file == piece.file && last.at + last.length == piece.at => {
            last.length += piece.length;
        }
        _ => pieces.push(piece),
    }
}

/// Writes what of `file` is not `taken`, ascending stretches with the pieces that hold them, to a file of its own. `before`
/// is the same file of the version before: if it is all the same, that one stays. At most so many stretches stay: `most`.
pub(super) fn lay<E: From<io::Error>>(
    folder: &Folder,
    file: &dyn ReadAt,
    (taken, most): (&[(Range<u64>, Vec<Piece>)], usize),
    before: Option<&Laid>,
) -> Result<Laid, E> {
    let size = file.size();
    let stay = staying(taken, most);
    let write = |out: &mut dyn Write, range: Range<u64>| copy(file, range, |bytes| out.write_all(bytes));
    if stay.is_empty() {
        let (blob, ()) = folder.add_blob(|out| Ok::<_, E>(write(out, 0..size)?))?;
        return Ok(Laid { blob, pieces: Vec::new() });
    }
    let mut sum = Hasher::new();
    copy(file, 0..size, |bytes| {
        sum.update(bytes);
        Ok(())
    })?;
    let blob = Blob { sha256: sum.finish(), size };
    if let Some(before) = before.filter(|before| before.blob == blob) {
        return Ok(before.clone());
    }
    let begins = [0].into_iter().chain(stay.iter().map(|(at, piece)| at + piece.length));
    let ends = stay.iter().map(|(at, _)| *at).chain([size]);
    let new: Vec<Range<u64>> = begins.zip(ends).map(|(begin, end)| begin..end).collect();
    let (own, ()) =
        folder.add_blob(|out| new.iter().try_for_each(|range| write(out, range.clone())).map_err(E::from))?;
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut stay = stay.into_iter();
    for range in new {
        let length = range.end - range.start;
        if length > 0 {
            push(&mut pieces, Piece { file: own.sha256, at, length });
            at += length;
        }
        stay.next().into_iter().for_each(|(_, piece)| push(&mut pieces, piece));
    }
    Ok(Laid { blob, pieces })
}

/// The pieces that stay, by where each begins in the new file: at most so many, the larger ones.
fn staying(taken: &[(Range<u64>, Vec<Piece>)], most: usize) -> Vec<(u64, Piece)> {
    let mut stay: Vec<(u64, Piece)> = Vec::new();
    for (range, held) in taken {
        let mut at = range.start;
        for piece in held {
            match stay.last_mut() {
                Some((begin, last))
                    if *begin + last.length == at
                        && last.file == piece.file
                        && last.at + last.length == piece.at =>
                {
                    last.length += piece.length;
                }
                _ => stay.push((at, *piece)),
            }
            at += piece.length;
        }
    }
    stay.retain(|(_, piece)| piece.length >= LEAST);
    stay.sort_by_key(|(at, piece)| (Reverse(piece.length), *at));
    stay.truncate(most);
    stay.sort_by_key(|(at, _)| *at);
    stay
}

fn copy(
    file: &dyn ReadAt,
    range: Range<u64>,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; WINDOW.min(to_usize(range.end - range.start))];
    let mut at = range.start;
    while at < range.end {
        let now = &mut buffer[..to_usize((range.end - at).min(to_u64(WINDOW)))];
        file.read_at(now, at)?;
        take(now)?;
        at += to_u64(now.len());
    }
    Ok(())
}

/// Reads a file that may be made of pieces.
pub(super) struct Pieced {
    size: u64,
    /// By where each begins.
    pieces: Vec<(u64, Piece)>,
    files: HashMap<Digest, FileDevice>,
}

impl Pieced {
    /// Of the files in `folder`.
    ///
    /// # Errors
    /// One that is not there, or too short for what it holds.
    pub(super) fn open(folder: &Folder, laid: &Laid) -> io::Result<Self> {
        let mut files = HashMap::new();
        let mut pieces = Vec::new();
        let mut begin = 0_u64;
        for piece in laid.all() {
            let path = folder.path().join(piece.path());
            let device = match files.entry(piece.file) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(place) => {
                    place.insert(FileDevice::image(input::open(path)?, SectorSize::B512)?)
                }
            };
            let end = piece.at.checked_add(piece.length);
            if end.is_none_or(|end| end > device.size()) {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{} is too short", piece.path()),
                ));
            }
            pieces.push((begin, piece));
            begin = begin.saturating_add(piece.length);
        }
        Ok(Self { size: begin, pieces, files })
    }
}

impl ReadAt for Pieced {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let number = self.pieces.partition_point(|(begin, _)| *begin <= at).checked_sub(1);
            let (begin, piece) =
                number.map(|number| self.pieces[number]).ok_or(io::ErrorKind::UnexpectedEof)?;
            let left = (begin + piece.length).saturating_sub(at);
            if left == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (now, after) = rest.split_at_mut(to_usize(left.min(to_u64(rest.len()))));
            self.files[&piece.file].read_at(now, piece.at + (at - begin))?;
            at += to_u64(now.len());
            rest = after;
        }
        Ok(())
    }
}

/// Some bytes, and behind them those of a file.
pub(super) struct Joined {
    /// What comes first.
    pub head: Vec<u8>,
    /// What follows.
    pub body: FileDevice,
}

impl ReadAt for Joined {
    fn size(&self) -> u64 {
        to_u64(self.head.len()) + self.body.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let first = to_usize(to_u64(self.head.len()).saturating_sub(offset)).min(buffer.len());
        let (head, body) = buffer.split_at_mut(first);
        if first > 0 {
            head.copy_from_slice(&self.head[to_usize(offset)..][..first]);
        }
        if body.is_empty() {
            return Ok(());
        }
        self.body.read_at(body, offset + to_u64(first) - to_u64(self.head.len()))
    }
}

#[cfg(test)]
mod tests;
