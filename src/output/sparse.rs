//! Where a sparse file has bytes that are not zero.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// The stretches of `file`, of `size` bytes, that are not holes, in order. On file systems that do not know
/// holes it is one stretch.
pub(super) fn stretches(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    stretches_in(file, 0..size)
}

/// Bytes of `range` of `file` that are no holes.
pub(super) fn data_in(file: &File, range: Range<u64>) -> io::Result<u64> {
    Ok(stretches_in(file, range)?.iter().map(|stretch| stretch.end - stretch.start).sum())
}

fn stretches_in(file: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let (mut at, size) = (range.start, range.end);
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let end = match seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::INVAL) => size,
            Err(error) => return Err(error.into()),
        };
        if start < end {
            found.push(start..end);
        }
        at = end.max(start + 1);
    }
    Ok(found)
}

/// Whether `bytes` are zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Without an early end inside of 64 bytes, so that they are compared all at once.
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_are_left_out() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10 << 20).unwrap();
        assert!(stretches(&file, 10 << 20).unwrap().is_empty());
        file.write_all_at(&[1; 100], 5 << 20).unwrap();
        file.write_all_at(&[1; 100], (10 << 20) - 100).unwrap();
        let found = stretches(&file, 10 << 20).unwrap();
        let has = |at: u64| found.iter().any(|stretch| stretch.contains(&at));
        assert_eq!(data_in(&file, 5 << 20..(5 << 20) + 10).unwrap(), 10);
        assert!(data_in(&file, 4 << 20..6 << 20).unwrap() >= 100);
        assert!(data_in(&file, 1 << 20..2 << 20).unwrap() == 0 || found.len() == 1);
        assert!(has(5 << 20) && has((10 << 20) - 1) && found.last().unwrap().end == 10 << 20);
        assert!(is_zero(&[0; 1000]) && is_zero(&[]));
        for at in [0, 63, 64, 999] {
            let mut bytes = [0; 1000];
            bytes[at] = 1;
            assert!(!is_zero(&bytes));
        }
    }
}
