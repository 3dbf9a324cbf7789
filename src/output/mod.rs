//! The formats in which an image leaves. Each takes a whole raw image and an open file; the caller gives
//! files their names when they are done.

pub mod qcow2;
pub mod raw;
mod sparse;

use std::fs::File;
use std::io::{self, BufWriter, Write};

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// The disk itself, sparse.
    Raw,
    /// QEMU's copy-on-write format, version 3.
    Qcow2,
}

impl Format {
    /// The end of the file's name, with the dot.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Raw => ".raw",
            Self::Qcow2 => ".qcow2",
        }
    }

    /// Writes the raw image `from` in this format to `to`, an empty file.
    ///
    /// # Errors
    /// What the disks say.
    pub fn write(self, from: &File, to: &File) -> io::Result<()> {
        match self {
            Self::Raw => raw::copy(from, to),
            Self::Qcow2 => {
                let mut out = BufWriter::with_capacity(1 << 20, to);
                qcow2::write(from, &mut out)?;
                out.flush()
            }
        }
    }
}
