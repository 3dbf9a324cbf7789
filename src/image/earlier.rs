//! The image that the last build left at the same place, of whose root the next one takes what has not changed: by the
//! kernel, with the digests that its hash tree has. That nobody has written to it since is for the caller to know.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use serde::{Deserialize, Serialize};

use crate::base::device::{FileDevice, ReadAt, Window};
use crate::base::progress::{Counted, Task};
use crate::base::width::to_u64;
use crate::disk::{Layout, PartitionWriter, Role, SectorSize, Slot};
use crate::fs::erofs::{self, Known};
use crate::verity;

/// Most bytes that are copied at once.
const PIECE: u64 = 64 << 20;

/// Where an image has what the next one may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Where the root begins, in bytes.
    root: u64,
    /// Where its hash tree begins, in bytes.
    verity: u64,
}

impl Places {
    /// Those of slot A.
    pub(super) fn of(layout: &Layout) -> Self {
        let start = |role| layout.partition(role).start;
        Self { root: start(Role::Root(Slot::A)), verity: start(Role::Verity(Slot::A)) }
    }
}

/// What a build knows of the image before and keeps of its own: nothing, where the next may not take anything of it.
#[derive(Debug, Default)]
pub struct Kept {
    /// The bodies of its files.
    pub known: Known,
    /// Where they are; `None` in a file system that is written in another way.
    pub places: Option<Places>,
}

/// An image from before.
#[derive(Debug)]
pub struct Earlier {
    image: EarlierImage,
    known: Known,
}

/// Its bytes, and the digests of them.
#[derive(Debug)]
pub(super) struct EarlierImage {
    file: File,
    root: u64,
    tree: verity::Earlier<Window<FileDevice>>,
}

impl Earlier {
    /// The image in `file`, of which `kept` was kept.
    ///
    /// # Errors
    /// Of a hash tree that is none; what the disk says.
    pub fn open(file: File, kept: Kept) -> Result<Option<Self>, verity::Error> {
        let Kept { known, places: Some(Places { root, verity }) } = kept else { return Ok(None) };
        let device = FileDevice::image(file.try_clone()?, SectorSize::B512)?;
        let size = device.size().saturating_sub(verity);
        let tree = verity::Earlier::open(Window::new(device, verity, size))?;
        Ok(Some(Self { image: EarlierImage { file, root, tree }, known }))
    }

    /// The image, and what is known of its bodies.
    pub(super) fn split(self) -> (EarlierImage, Known) {
        (self.image, self.known)
    }

    /// Whether its digests are those of a tree with `options`.
    pub(super) fn suits(&self, options: &verity::Options) -> bool {
        self.image.tree.suits(options)
    }
}

/// Writes a root after an earlier one.
pub(super) struct After<'a, 'w> {
    pub writer: &'w mut verity::Writer<BufWriter<Counted<'a, PartitionWriter<'a>>>>,
    pub earlier: &'a EarlierImage,
    pub task: &'a Task<'a>,
    /// Bytes that were taken so far.
    pub taken: u64,
}

impl Write for After<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl erofs::Output for After<'_, '_> {
    fn take(&mut self, mut from: u64, mut blocks: u64) -> io::Result<()> {
        let EarlierImage { file, root, tree } = self.earlier;
        while blocks > 0 {
            let count = blocks.min(PIECE / to_u64(verity::BLOCK));
            let (offset, len) = (root + from * to_u64(verity::BLOCK), count * to_u64(verity::BLOCK));
            self.writer.take(tree, (from, count), |inner| {
                inner.flush()?;
                inner.get_mut().get_mut().copy(file, offset, len)
            })?;
            self.task.advance(len);
            self.taken += len;
            (from, blocks) = (from + count, blocks - count);
        }
        Ok(())
    }
}
