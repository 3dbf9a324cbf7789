//! Room on the disk: asked for before it is taken, and never taken whole.
//!
//! `fallocate` on most file systems takes all that there is before it finds that there is not enough. In that
//! moment every other program that writes there is told that the disk is full, so it is called only for what
//! certainly fits.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, StatVfs};
use rustix::io::Errno;

/// A reservation leaves at least this to others, in bytes.
const MARGIN: u64 = 256 << 20;

/// Nothing larger is reserved in one piece, in bytes: the largest packages of Debian have about as much.
const LARGEST_PIECE: u64 = 1 << 30;

/// What can be done for a file that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// It does not fit.
    Refuse { free: u64 },
    /// Claim so many bytes.
    Reserve(u64),
    /// Write without a claim; the writes tell when the disk is full.
    Write,
}

/// Plans for a file of `size` bytes where `free` bytes are free, as far as the file system tells.
fn plan(size: u64, free: Option<u64>) -> Plan {
    match free {
        Some(free) if size > free => Plan::Refuse { free },
        Some(free) if size > 0 => match size.min(LARGEST_PIECE).min(free.saturating_sub(MARGIN)) {
            piece if piece < size.min(LARGEST_PIECE) => Plan::Write,
            piece => Plan::Reserve(piece),
        },
        _ => Plan::Write,
    }
}

/// What a file system has left for this user in bytes, unless it does not say: a tmpfs without a limit and
/// some network file systems report a size of zero.
fn left(stat: &StatVfs) -> Option<u64> {
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// What is left in `folder` for this user in bytes, as far as its file system tells.
pub(super) fn free(folder: &Path) -> Option<u64> {
    rustix::fs::statvfs(folder).ok().and_then(|stat| left(&stat))
}

/// Claims room for the `size` bytes that are to be written to `file`, as far as others are not harmed by it, so
/// that a full disk shows before anything is downloaded.
///
/// # Errors
/// `StorageFull` with [`NoRoom`] when the file does not fit; what else the file system says of a full disk.
pub(super) fn reserve(file: &File, size: u64) -> io::Result<()> {
    /// Threads that ask at once would all be promised the same room.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if size == 0 {
        return Ok(());
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match plan(size, rustix::fs::fstatvfs(file).ok().and_then(|stat| left(&stat))) {
        Plan::Refuse { free } => Err(io::Error::new(io::ErrorKind::StorageFull, NoRoom { free })),
        Plan::Reserve(piece) => match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, piece) {
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(errno.into()),
            _ => Ok(()),
        },
        Plan::Write => Ok(()),
    }
}

/// The file system has less than is to be written.
#[derive(Debug, thiserror::Error)]
#[error("{free} bytes are free")]
pub(super) struct NoRoom {
    /// What it has, in bytes.
    pub free: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_takes_what_others_need() {
        const GIB: u64 = 1 << 30;
        for (size, free, expected) in [
            (1, Some(0), Plan::Refuse { free: 0 }),
            (68 * GIB, Some(56 * GIB), Plan::Refuse { free: 56 * GIB }),
            (u64::MAX, Some(56 * GIB), Plan::Refuse { free: 56 * GIB }),
            // It fits and leaves too little.
            (100, Some(100), Plan::Write),
            (100, Some(MARGIN + 99), Plan::Write),
            (100, Some(MARGIN + 100), Plan::Reserve(100)),
            (48 * GIB, Some(56 * GIB), Plan::Reserve(LARGEST_PIECE)),
            (48 * GIB, Some(48 * GIB), Plan::Reserve(LARGEST_PIECE)),
            (GIB, Some(GIB + 1), Plan::Write),
            (0, Some(0), Plan::Write),
            (68 * GIB, None, Plan::Write),
        ] {
            assert_eq!(plan(size, free), expected, "{size} of {free:?}");
        }
    }

    #[test]
    fn reserves_what_fits() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile().unwrap();
        reserve(&file, 1 << 20).unwrap();
        let metadata = file.metadata().unwrap();
        // A file system that reserves nothing is as good.
        assert!(metadata.len() == 0 && [0, 1 << 20].contains(&(metadata.blocks() * 512)), "{metadata:?}");
    }
}
