//! Unified kernel images: kernel, initramfs and command line as one EFI program.
//!
//! Source: the UAPI group's specification "Unified Kernel Image", and systemd-stub(7). The sections come in
//! the order of systemd's `ukify`, the kernel last, so that it may grow in memory when it runs.

use std::io::{self, Read, Seek, SeekFrom};

use crate::base::limits;
use crate::boot::cmdline::{Cmdline, CmdlineError, Options};
use crate::boot::microcode::{self, Vendor};
use crate::boot::pe::{self, Holds, Image, PeError};
use crate::verity::RootHash;

/// What a unified kernel image is made of, besides the root hash.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// systemd's `linuxx64.efi.stub`.
    pub stub: &'a [u8],
    /// The kernel, with its EFI stub.
    pub kernel: &'a [u8],
    /// The kernel's version as `uname -r` says it.
    pub kernel_version: &'a str,
    /// `/usr/lib/os-release`, with IMAGE_ID and IMAGE_VERSION: what the boot menu shows and sorts by.
    pub os_release: &'a [u8],
    /// The initramfs.
    pub initrd: &'a [u8],
    /// What the command line says besides the root hash.
    pub options: &'a Options,
}

/// Why an image could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// The kernel's buffer is smaller.
    #[error("the kernel command line has {len} bytes, but the kernel takes {MAX_CMDLINE} at most: {text}")]
    CmdlineTooLong {
        /// Its length in bytes.
        len: usize,
        /// The text.
        text: String,
    },
    /// A command line that `/init` would not understand.
    #[error("the node would not understand the kernel command line {text}")]
    Cmdline {
        /// The text.
        text: String,
        /// What it would say.
        source: CmdlineError,
    },
    /// Words that hide others, e.g. behind a quotation mark that is never closed.
    #[error("the node would read something else than was meant out of the kernel command line {text}")]
    Misread {
        /// The text.
        text: String,
    },
    /// The kernel is no EFI program.
    #[error("reading the kernel, which must have an EFI stub")]
    Kernel(#[source] PeError),
    /// systemd's stub is damaged or full.
    #[error("adding to systemd's stub")]
    Stub(#[source] PeError),
    /// An image without a section that each must have.
    #[error("not a unified kernel image: it has no section {name}")]
    NoSection {
        /// The section.
        name: &'static str,
    },
    /// A section of gigabytes, of an image that nobody has to have signed.
    #[error("its section {name} has {size} bytes, and at most {limit} are read")]
    TooLarge {
        /// The section.
        name: &'static str,
        /// In bytes.
        size: u32,
        /// In bytes.
        limit: u64,
    },
    /// A file that is no image at all.
    #[error(transparent)]
    Pe(#[from] PeError),
    /// The image cannot be read.
    #[error("reading a unified kernel image")]
    Io(#[from] io::Error),
}

/// COMMAND_LINE_SIZE of x86 (arch/x86/include/asm/setup.h), less the NUL, in bytes.
const MAX_CMDLINE: usize = 2047;

/// A finished image.
#[derive(Clone, Debug)]
pub struct Uki {
    bytes: Vec<u8>,
    cmdline: Cmdline,
}

impl Uki {
    /// Binds `root_hash` and `parts` together. Only hashing a root gives a [`RootHash`], so that no image
    /// can be made before its root is.
    pub fn new(root_hash: RootHash, parts: &Parts<'_>) -> Result<Self, UkiError> {
        let cmdline = Cmdline { root_hash: root_hash.digest(), options: parts.options.clone() };
        let text = cmdline.to_string();
        if text.len() > MAX_CMDLINE {
            return Err(UkiError::CmdlineTooLong { len: text.len(), text });
        }
        let read =
            Cmdline::parse(&text).map_err(|source| UkiError::Cmdline { text: text.clone(), source })?;
        if read != cmdline {
            return Err(UkiError::Misread { text });
        }
        // Firmware and stub start the kernel where it lies, so it needs its room in memory, not in the file.
        let kernel = Image::parse(parts.kernel.to_vec()).and_then(|image| image.size_in_memory());
        let virtual_size = kernel.map_err(UkiError::Kernel)?;

        let mut image = Image::parse(parts.stub.to_vec()).map_err(UkiError::Stub)?;
        let sections: [(&str, &[u8], Holds); 5] = [
            (".osrel", parts.os_release, Holds::Data),
            (".cmdline", text.as_bytes(), Holds::Data),
            (".uname", parts.kernel_version.as_bytes(), Holds::Data),
            (".initrd", parts.initrd, Holds::Data),
            (".linux", parts.kernel, Holds::Code { virtual_size }),
        ];
        for (name, body, holds) in sections {
            image.append(name, body, holds).map_err(UkiError::Stub)?;
        }
        Ok(Self { bytes: image.into_bytes(), cmdline })
    }

    /// The EFI program.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The command line in it.
    pub fn cmdline(&self) -> &Cmdline {
        &self.cmdline
    }
}

/// What a unified kernel image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The text of `.cmdline`.
    pub cmdline: String,
    /// The text of `.osrel`.
    pub os_release: String,
    /// The text of `.uname`.
    pub kernel_version: String,
    /// Size of the initramfs, in bytes.
    pub initrd_size: u64,
    /// The vendors whose microcode stands before the initramfs, each with its size in bytes.
    pub microcode: Vec<(Vendor, u64)>,
    /// Size of the kernel in the file, in bytes.
    pub kernel_size: u64,
}

impl Description {
    /// Reads it from an image.
    pub fn read(reader: &mut (impl Read + Seek)) -> Result<Self, UkiError> {
        let sections = pe::sections(reader)?;
        let find = |name: &'static str| {
            sections.iter().find(|section| section.name == name).ok_or(UkiError::NoSection { name })
        };
        let mut read = |name, limit| -> Result<Vec<u8>, UkiError> {
            let section = find(name)?;
            match section.raw_size.min(section.virtual_size) {
                size if u64::from(size) > limit => Err(UkiError::TooLarge { name, size, limit }),
                _ => Ok(section.read(reader)?),
            }
        };
        let mut text = |name| -> Result<String, UkiError> {
            let bytes = read(name, limits::WORDS)?;
            let text = String::from_utf8_lossy(&bytes);
            Ok(text.trim_end_matches(['\0', '\n']).to_owned())
        };
        let (cmdline, os_release, kernel_version) = (text(".cmdline")?, text(".osrel")?, text(".uname")?);
        let initrd = find(".initrd")?;
        reader.seek(SeekFrom::Start(initrd.raw_offset.into()))?;
        let microcode = microcode::of_initrd(reader, initrd.raw_size.min(initrd.virtual_size).into())?;
        Ok(Self {
            cmdline,
            os_release,
            kernel_version,
            initrd_size: initrd.virtual_size.into(),
            microcode,
            kernel_size: find(".linux")?.raw_size.into(),
        })
    }
}

/// The initramfs of an image, at most `limit` bytes of it.
///
/// # Errors
/// An image without one, a larger one, and what the reader says.
pub fn initrd(reader: &mut (impl Read + Seek), limit: u64) -> Result<Vec<u8>, UkiError> {
    const NAME: &str = ".initrd";
    let sections = pe::sections(reader)?;
    let section = sections.iter().find(|section| section.name == NAME);
    let section = section.ok_or(UkiError::NoSection { name: NAME })?;
    match section.raw_size.min(section.virtual_size) {
        size if u64::from(size) > limit => Err(UkiError::TooLarge { name: NAME, size, limit }),
        _ => Ok(section.read(reader)?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use uuid::Uuid;

    use super::*;
    use crate::verity;

    fn make(options: &Options) -> Result<Uki, UkiError> {
        let parts = Parts {
            stub: &pe::sample(),
            kernel: &pe::sample(),
            kernel_version: "6.12.0",
            os_release: b"ID=x\nIMAGE_VERSION=1\n",
            initrd: b"initrd",
            options,
        };
        let mut root =
            verity::Writer::new(io::sink(), verity::Options { salt: vec![1], uuid: Uuid::nil() }).unwrap();
        root.write_all(&[0; verity::BLOCK]).unwrap();
        Uki::new(root.finish().unwrap().root_hash, &parts)
    }

    #[test]
    fn describes_itself() {
        let uki = make(&Options::default()).unwrap();
        let description = Description::read(&mut Cursor::new(&uki.bytes)).unwrap();
        assert_eq!(description.cmdline, uki.cmdline().to_string());
        assert_eq!(description.os_release, "ID=x\nIMAGE_VERSION=1");
        assert_eq!((description.initrd_size, description.kernel_version.as_str()), (6, "6.12.0"));
        assert_eq!(initrd(&mut Cursor::new(&uki.bytes), 6).unwrap(), b"initrd");
        let error = initrd(&mut Cursor::new(&uki.bytes), 5).unwrap_err().to_string();
        assert_eq!(error, "its section .initrd has 6 bytes, and at most 5 are read");
        let sections = pe::sections(&mut Cursor::new(&uki.bytes)).unwrap();
        let names: Vec<_> = sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(names, [".text", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"]);
        assert_eq!(sections[5].virtual_size, 0x2000);
    }

    #[test]
    fn the_command_line_must_fit_and_be_understood() {
        let long = Options { extra: vec!["x".repeat(2048)], ..Options::default() };
        assert!(matches!(make(&long), Err(UkiError::CmdlineTooLong { .. })));
        let wrong = Options { extra: vec!["keller.etc=none".to_owned()], ..Options::default() };
        assert!(matches!(make(&wrong), Err(UkiError::Cmdline { .. })));
        let hidden = Options { extra: vec!["x=\"a keller.reset=state b".to_owned()], ..Options::default() };
        assert!(matches!(make(&hidden), Err(UkiError::Misread { .. })));
    }

    #[test]
    fn words_without_end() {
        let mut image = Image::parse(pe::sample()).unwrap();
        image.append(".cmdline", &[b'x'; 70_000], Holds::Data).unwrap();
        let error = Description::read(&mut Cursor::new(image.into_bytes())).unwrap_err();
        assert_eq!(error.to_string(), "its section .cmdline has 70000 bytes, and at most 65536 are read");
    }

    #[test]
    fn a_plain_program_is_no_unified_kernel_image() {
        let error = Description::read(&mut Cursor::new(pe::sample())).unwrap_err();
        assert!(matches!(error, UkiError::NoSection { name: ".cmdline" }));
    }
}
