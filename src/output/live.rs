//! What runs from memory: one EFI program that has the whole disk image in its initramfs. It is started over the network,
//! by a firmware's boot entry, or from an [`iso`](super::iso). Or a small one that fetches the disk image.

use std::fs::File;
use std::io::{self, Cursor};
use std::os::unix::fs::FileExt;

use super::disk::{CLUSTER, Disk};
use super::ipxe;
use super::stream::Stream;
use super::zst;
use crate::base::device::{FileDevice, SectorSize, Window};
use crate::base::width::to_u64;
use crate::boot::entries::FOLDER;
use crate::boot::live::{self, Facts, Source};
use crate::boot::uki::Description;
use crate::disk::gpt;
use crate::fs::fat::Reader;

/// Largest unified kernel image that is read of the disk, in bytes.
const LARGEST: u64 = 1 << 30;

/// Writes it out of `disk` to `to`, an empty file, with a node document for the machines that start it. The compressed image is written first, since what stands before it says how
/// long it is.
///
/// # Errors
/// What the disks say; a disk that has no unified kernel image, or several.
pub fn write(disk: &Disk<'_>, document: Option<&[u8]>, to: &File) -> io::Result<()> {
    let uki = kernel_image(disk)?;
    let cmdline = Description::read(&mut Cursor::new(&uki)).map_err(io::Error::other)?.cmdline;
    let facts = facts(disk, None);
    let before = |length| -> io::Result<Vec<u8>> {
        live::archive_before(&facts, &cmdline, document, length).map_err(io::Error::other)
    };
    let offset = live::around(&uki, 0, true).map_err(io::Error::other)?.before.len() + before(0)?.len();
    let mut image = Stream::behind(to, to_u64(offset));
    zst::write(disk, &mut image)?;
    let end = image.position();
    image.finish()?;

    let length = end - to_u64(offset);
    let (before, behind) = (before(length)?, live::archive_behind(length).map_err(io::Error::other)?);
    let more = to_u64(before.len()) + length + to_u64(behind.len());
    let around = live::around(&uki, more, true).map_err(io::Error::other)?;
    to.write_all_at(&[around.before, before].concat(), 0)?;
    to.write_all_at(&[behind, around.behind].concat(), end)
}

/// What a program that fetches its image is made of, besides a disk.
#[derive(Debug)]
pub struct Small<'a> {
    /// The drivers of network cards, an archive for the initramfs.
    pub cards: &'a [u8],
    /// The file that it fetches.
    pub source: Source,
    /// A node document for the machines that start it.
    pub document: Option<&'a [u8]>,
}

impl Small<'_> {
    /// Writes it to `to`, an empty file. It has no microcode, of which a server's kernel image has 23 MB, not compressed:
    /// the firmware's own has to do until the node is installed.
    ///
    /// # Errors
    /// What the disks say; a disk that has no unified kernel image, or several.
    pub fn write(&self, disk: &Disk<'_>, to: &File) -> io::Result<()> {
        let uki = kernel_image(disk)?;
        let cmdline = Description::read(&mut Cursor::new(&uki)).map_err(io::Error::other)?.cmdline;
        let mut more = self.cards.to_vec();
        more.resize(more.len().next_multiple_of(4), 0);
        let facts = facts(disk, Some(self.source.clone()));
        more.extend(live::archive_without(&facts, &cmdline, self.document).map_err(io::Error::other)?);
        let around = live::around(&uki, to_u64(more.len()), false).map_err(io::Error::other)?;
        to.write_all_at(&[around.before, more, around.behind].concat(), 0)
    }
}

/// The script by which iPXE starts the node of `disk`; `program` and `image` are the names of the files beside it. Without
/// `image`, the kernel image says where that is.
///
/// # Errors
/// What the disk says, and a command line that iPXE cannot hand over.
pub fn ipxe_script(disk: &Disk<'_>, program: &str, image: Option<&str>) -> io::Result<String> {
    let uki = kernel_image(disk)?;
    let cmdline = Description::read(&mut Cursor::new(&uki)).map_err(io::Error::other)?.cmdline;
    ipxe::script(program, image, &cmdline)
}

fn facts(disk: &Disk<'_>, source: Option<Source>) -> Facts {
    let content = disk.used().iter().map(|run| (run.end - run.start) * CLUSTER).sum();
    Facts { size: disk.length(), content, source }
}

/// The unified kernel image in the ESP of `disk`.
fn kernel_image(disk: &Disk<'_>) -> io::Result<Vec<u8>> {
    // What sectors it is made for, its table tells.
    let device = FileDevice::image(disk.file().try_clone()?, SectorSize::B512)?;
    let table = gpt::read_any(&device).map_err(io::Error::other)?.table;
    let esp = table.esp(None).ok_or_else(|| io::Error::other("the disk has no EFI system partition"))?;
    let window = Window::new(device, esp.start, esp.size);
    let mut files = Reader::open(window).map_err(io::Error::other)?;
    let list = files.list().map_err(io::Error::other)?;
    let mut paths =
        list.iter().map(|file| &file.path).filter(|path| path.starts_with(FOLDER) && path.ends_with(".efi"));
    let (Some(path), None) = (paths.next(), paths.next()) else {
        return Err(io::Error::other(format!(
            "{FOLDER} of the disk's ESP must hold exactly one kernel image"
        )));
    };
    files.read(path, LARGEST).map_err(io::Error::other)
}
