//! The formats in which an image leaves. Each takes a whole raw image and an open file; the caller gives
//! files their names when they are done.

mod disk;
mod ipxe;
pub mod iso;
pub mod live;
pub mod qcow2;
pub mod raw;
mod sparse;
mod stream;
mod vhd;
pub mod vmdk;
mod zst;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

pub use disk::Disk;
pub(crate) use sparse::is_zero;

use crate::base::{Digest, Size};
use stream::Stream;

/// A format, from the one that most can be done with here to the one that is but sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// The disk itself, sparse.
    Raw,
    /// QEMU's copy-on-write format, version 3.
    Qcow2,
    /// Microsoft's format, in blocks.
    Vhd,
    /// Microsoft's format, with all of the disk.
    VhdFixed,
    /// VMware's format, compressed.
    Vmdk,
    /// The disk itself, compressed by Zstandard.
    RawZst,
    /// An EFI program that runs the image from memory: see [`live`].
    Netboot,
    /// The same to be written to a stick, or shown as a CD: see [`iso`].
    Iso,
    /// An EFI program that fetches the image and runs it from memory: see [`live`].
    NetbootHttp,
    /// The script by which iPXE starts it.
    Ipxe,
}

impl Format {
    /// The end of the file's name, with the dot.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Raw => ".raw",
            Self::Qcow2 => ".qcow2",
            Self::Vhd => ".vhd",
            // Azure takes a name that ends with .vhd, and none else.
            Self::VhdFixed => ".fixed.vhd",
            Self::Vmdk => ".vmdk",
            Self::RawZst => ".raw.zst",
            Self::Netboot => ".netboot.efi",
            Self::Iso => ".iso",
            Self::NetbootHttp => ".netboot-http.efi",
            Self::Ipxe => ".ipxe",
        }
    }

    /// What people call a file of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhd | Self::VhdFixed => "vhd",
            Self::Vmdk => "vmdk",
            Self::RawZst => "raw.zst",
            Self::Netboot => "netboot",
            Self::Iso => "iso",
            Self::NetbootHttp => "netboot-http",
            Self::Ipxe => "script for iPXE",
        }
    }

    /// The largest disk that it holds, if it has one: places are counted in sectors, in 32 bits, and Microsoft's programs
    /// end a little before them.
    pub const fn limit(self) -> Option<Size> {
        match self {
            Self::Vhd | Self::VhdFixed | Self::Vmdk => Some(Size::mib(2040 << 10)),
            Self::Raw | Self::Qcow2 | Self::RawZst => None,
            Self::Netboot | Self::Iso | Self::NetbootHttp | Self::Ipxe => None,
        }
    }

    /// The command that makes a raw image of it, for what is not read here; none for what runs from memory, which has no
    /// use for one.
    pub const fn unpacked_by(self) -> Option<&'static str> {
        match self {
            Self::RawZst => Some("zstd -d IMAGE"),
            Self::Vhd | Self::VhdFixed => Some("qemu-img convert -f vpc -O raw IMAGE OUTPUT"),
            Self::Raw | Self::Qcow2 | Self::Vmdk => Some("qemu-img convert -O raw IMAGE OUTPUT"),
            Self::Netboot | Self::Iso | Self::NetbootHttp | Self::Ipxe => None,
        }
    }

    /// The format of `file`, by what it begins and ends with: raw is what has no sign of another.
    ///
    /// # Errors
    /// What the disk says.
    pub fn of(file: &File) -> io::Result<Self> {
        let begins = |magic: &[u8]| has_at(file, 0, magic);
        if begins(qcow2::MAGIC)? {
            return Ok(Self::Qcow2);
        }
        if begins(vmdk::MAGIC)? {
            return Ok(Self::Vmdk);
        }
        if begins(vhd::COOKIE)? {
            return Ok(Self::Vhd);
        }
        if begins(&zst::MAGIC)? {
            return Ok(Self::RawZst);
        }
        if begins(ipxe::MAGIC)? {
            return Ok(Self::Ipxe);
        }
        // Small or large, it is a program.
        if begins(b"MZ")? {
            return Ok(Self::Netboot);
        }
        if has_at(file, iso::SIGN.0, iso::SIGN.1)? {
            return Ok(Self::Iso);
        }
        Ok(if vhd::ends(file)? { Self::VhdFixed } else { Self::Raw })
    }

    /// Writes `disk` in this format to `to`, an empty file. The bytes depend on those of the disk alone. With `sums`, gives
    /// their digest.
    ///
    /// # Errors
    /// What the disks say; a disk beyond [`Self::limit`]; [`Self::Netboot`], [`Self::NetbootHttp`], [`Self::Ipxe`]
    /// and [`Self::Iso`], which are made of more than a disk, by room [`live`] and [`iso::write`].
    pub fn write(self, disk: &Disk<'_>, to: &File, sums: bool) -> io::Result<Option<Digest>> {
        if let Some(limit) = self.limit().filter(|limit| disk.size() > limit.bytes()) {
            let (name, size) = (self.name(), Size(disk.size()).human());
            return Err(io::Error::other(format!("a {name} has at most {limit}, and the disk {size}")));
        }
        let mut out = Stream::new(to, sums);
        match self {
            Self::Raw => {
                raw::copy(disk.file(), to)?;
                return sums.then(|| raw::digest(to)).transpose();
            }
            Self::Qcow2 => qcow2::write(disk, &mut out)?,
            Self::Vhd => vhd::write(disk, vhd::Kind::Dynamic, &mut out)?,
            Self::VhdFixed => vhd::write(disk, vhd::Kind::Fixed, &mut out)?,
            Self::Vmdk => vmdk::write(disk, &mut out)?,
            Self::RawZst => zst::write(disk, &mut out)?,
            Self::Netboot | Self::Iso | Self::NetbootHttp | Self::Ipxe => {
                return Err(io::Error::other("it is made of more than a disk"));
            }
        }
        out.finish()
    }
}

/// Bytes of the disk that a machine sees in the image `file`.
///
/// # Errors
/// What the disk says, and an image whose head is damaged or that is compressed as a whole.
pub fn virtual_size(mut file: &File) -> io::Result<u64> {
    match Format::of(file)? {
        Format::Raw | Format::Iso => file.seek(SeekFrom::End(0)),
        Format::Qcow2 => qcow2::size(file).map_err(io::Error::other),
        Format::Vhd | Format::VhdFixed => vhd::size(file),
        Format::Vmdk => vmdk::size(file),
        Format::RawZst | Format::Netboot | Format::NetbootHttp | Format::Ipxe => {
            Err(io::Error::other("a compressed image does not tell its size"))
        }
    }
}

/// Whether `file` has `bytes` at `offset`.
fn has_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<bool> {
    let mut there = vec![0; bytes.len()];
    match file.read_exact_at(&mut there, offset) {
        Ok(()) => Ok(there == bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Format; 6] =
        [Format::Raw, Format::Qcow2, Format::Vhd, Format::VhdFixed, Format::Vmdk, Format::RawZst];

    #[test]
    fn each_format_is_known_again_and_its_digest_is_that_of_the_file() {
        let raw = tempfile::tempfile().unwrap();
        raw.set_len(40 << 20).unwrap();
        raw.write_all_at(&[1; 70_000], 33 << 20).unwrap();
        let disk = Disk::survey(&raw, 0).unwrap();
        for format in ALL {
            let file = tempfile::tempfile().unwrap();
            let digest = format.write(&disk, &file, true).unwrap();
            assert_eq!(digest, Some(raw::digest(&file).unwrap()), "{format:?}");
            assert_eq!(Format::of(&file).unwrap(), format);
            let size = virtual_size(&file).ok();
            assert_eq!(size, (format != Format::RawZst).then_some(40 << 20), "{format:?}");
            let again = tempfile::tempfile().unwrap();
            assert_eq!(format.write(&disk, &again, false).unwrap(), None);
            assert_eq!(raw::digest(&again).unwrap(), digest.unwrap(), "{format:?}");
        }
        assert_eq!(Format::of(&tempfile::tempfile().unwrap()).unwrap(), Format::Raw);
    }

    #[test]
    fn a_disk_that_a_format_cannot_hold_is_refused() {
        let raw = tempfile::tempfile().unwrap();
        let disk = Disk::survey(&raw, (2040 << 30) + 512).unwrap();
        for format in [Format::Vhd, Format::VhdFixed, Format::Vmdk] {
            let error = format.write(&disk, &tempfile::tempfile().unwrap(), false).unwrap_err().to_string();
            assert!(error.ends_with("has at most 2040GiB, and the disk 2.0 TiB"), "{error}");
        }
    }
}
