//! The disk as it is: holes stay holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::sparse::{is_zero, stretches};
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, Hasher};

/// Bytes that are in memory at once.
const CHUNK: u64 = 1 << 20;
/// What is looked at for zeros, in bytes: the block of the file systems that images are kept on.
const BLOCK: usize = 4096;

/// Copies `from` to the empty file `to`. Holes and blocks of zeros become holes. On file systems that can,
/// the two share their blocks until one of them is written to.
///
/// # Errors
/// What the disks say.
pub fn copy(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    to.set_len(size)?;
    let mut buffer = vec![0; to_usize(CHUNK)];
    for stretch in stretches(from, size)? {
        for offset in (stretch.start..stretch.end).step_by(to_usize(CHUNK)) {
            let part = &mut buffer[..to_usize((stretch.end - offset).min(CHUNK))];
            from.read_exact_at(part, offset)?;
            for (block, at) in part.chunks(BLOCK).zip((offset..).step_by(BLOCK)) {
                if !is_zero(block) {
                    to.write_all_at(block, at)?;
                }
            }
        }
    }
    Ok(())
}

/// The SHA-256 digest of a whole image. Holes are not read, only counted in.
///
/// # Errors
/// What the disk says.
pub fn digest(file: &File) -> io::Result<Digest> {
    let size = file.metadata()?.len();
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; to_usize(CHUNK)];
    let zeros = vec![0; to_usize(CHUNK)];
    let mut at = 0;
    for stretch in stretches(file, size)?.into_iter().chain(std::iter::once(size..size)) {
        while at < stretch.start {
            let count = (stretch.start - at).min(CHUNK);
            hasher.update(&zeros[..to_usize(count)]);
            at += count;
        }
        while at < stretch.end {
            let part = &mut buffer[..to_usize((stretch.end - at).min(CHUNK))];
            file.read_exact_at(part, at)?;
            hasher.update(&part);
            at += to_u64(part.len());
        }
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn copies_are_equal_and_sparse() {
        let from = tempfile::tempfile().unwrap();
        from.set_len((64 << 20) + 1).unwrap();
        from.write_all_at(&[7; 5000], 3 << 20).unwrap();
        from.write_all_at(&vec![0; 4 << 20], 8 << 20).unwrap();
        from.write_all_at(&[9], 64 << 20).unwrap();
        let to = tempfile::tempfile().unwrap();
        copy(&from, &to).unwrap();
        let mut all = vec![0; (64 << 20) + 1];
        to.read_exact_at(&mut all, 0).unwrap();
        assert_eq!((all[3 << 20], all[(3 << 20) + 4999], all[64 << 20]), (7, 7, 9));
        assert_eq!(digest(&from).unwrap(), Digest::of(&all));
        assert_eq!(digest(&to).unwrap(), Digest::of(&all));
        assert!(to.metadata().unwrap().blocks() * 512 <= from.metadata().unwrap().blocks() * 512);
        assert_eq!(digest(&tempfile::tempfile().unwrap()).unwrap(), Digest::of(""));
    }
}
