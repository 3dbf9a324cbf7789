//! A node that runs from memory: the unified kernel image of its disk image, whose initramfs has the disk image itself,
//! compressed. Nothing else differs, so that what runs from memory is what an installation writes.
//!
//! ```text
//! live/cmdline          the kernel's command line, for where what starts it gives another
//! live/image.json       how much memory it takes
//! live/node.yaml        a node document, if the image was built with one for the machines that it runs on
//! live/image.raw.zst    the disk image; none where it is fetched, and live/image.json says what
//! ```

use std::io::{self, Cursor};

use serde::{Deserialize, Serialize};

use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, align};
use crate::boot::cpio::{CpioError, Writer};
use crate::boot::microcode;
use crate::boot::pe::{self, Holds, Image};
use crate::boot::uki::UkiError;

/// Their directory in the initramfs.
pub const DIRECTORY: &str = "live";
/// [`Facts`] as JSON.
pub const FACTS: &str = "live/image.json";
/// A node document for the machine that it runs on, where there is one.
pub const DOCUMENT: &str = "live/node.yaml";
/// The command line of the unified kernel image.
pub const CMDLINE: &str = "live/cmdline";
/// The disk image.
pub const IMAGE: &str = "live/image.raw.zst";
/// What holds the disk image on a node that runs from memory: a file system of its own.
pub const MOUNT: &str = "/run/keller/live";
/// Where the disk image lies on a node that runs from memory, as it was built.
pub const DISK: &str = "/run/keller/live/disk.raw";

/// What there is to know of the disk image before it is unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Bytes of the disk image.
    pub size: u64,
    /// Bytes of it that are in memory: it has holes.
    pub content: u64,
    /// What is fetched, where the initramfs has no disk image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// The file that is the disk image, compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// SHA-256 of all of it.
    pub digest: Digest,
    /// The directory at http where it lies, if the manifest names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// The unified kernel image around what its initramfs has more.
#[derive(Debug)]
pub struct Around {
    /// Up to the end of the initramfs as it was, aligned to four bytes.
    pub before: Vec<u8>,
    /// From the end of what is added.
    pub behind: Vec<u8>,
}

/// The first section that is none of systemd's stub.
const FIRST: &str = ".osrel";
const INITRD: &str = ".initrd";

/// Makes room for `more` bytes at the end of the initramfs of `uki`, from which its microcode is taken where that is not
/// wanted.
///
/// # Errors
/// What `uki` lacks to be a unified kernel image, or that it would be too large.
pub fn around(uki: &[u8], more: u64, microcode: bool) -> Result<Around, UkiError> {
    let reader = &mut Cursor::new(uki);
    let sections = pe::sections(reader)?;
    let begin = sections.iter().position(|section| section.name == FIRST);
    let begin = begin.ok_or(UkiError::NoSection { name: FIRST })?;
    let mut image = Image::parse(uki.to_vec())?;
    image.cut(FIRST)?;
    let mut initrd = None;
    for section in &sections[begin..] {
        let mut body = section.read(reader)?;
        if section.name == INITRD {
            if !microcode {
                body.drain(..microcode::length(&body));
            }
            body.resize(body.len().next_multiple_of(4), 0);
            image.leave_room(INITRD, to_u64(body.len()) + more)?;
            initrd = Some(body);
        } else if section.characteristics == pe::READABLE_CODE {
            image.append(&section.name, &body, Holds::Code { virtual_size: section.virtual_size })?;
        } else {
            image.append(&section.name, &body, Holds::Data)?;
        }
    }
    let initrd = initrd.ok_or(UkiError::NoSection { name: INITRD })?;
    let (mut before, behind) = image.into_parts();
    before.extend(initrd);
    Ok(Around { before, behind })
}

/// What lies in the archive before the `length` bytes of the disk image: its end is where they begin.
pub fn archive_before(
    facts: &Facts,
    cmdline: &str,
    document: Option<&[u8]>,
    length: u64,
) -> Result<Vec<u8>, CpioError> {
    let mut writer = known(facts, cmdline, document)?;
    writer.begin_file(IMAGE, 0o600, length)?;
    Ok(writer.into_inner())
}

/// The archive of a node that fetches its disk image.
pub fn archive_without(facts: &Facts, cmdline: &str, document: Option<&[u8]>) -> Result<Vec<u8>, CpioError> {
    known(facts, cmdline, document)?.finish()
}

fn known(facts: &Facts, cmdline: &str, document: Option<&[u8]>) -> Result<Writer<Vec<u8>>, CpioError> {
    let text = serde_json::to_string(facts).map_err(io::Error::other)? + "\n";
    let mut writer = Writer::new(Vec::new());
    writer.directory(DIRECTORY, 0o700)?;
    writer.file(CMDLINE, 0o600, to_u64(cmdline.len()), &mut cmdline.as_bytes())?;
    writer.file(FACTS, 0o600, to_u64(text.len()), &mut text.as_bytes())?;
    if let Some(mut document) = document {
        writer.file(DOCUMENT, 0o600, to_u64(document.len()), &mut document)?;
    }
    Ok(writer)
}

/// What lies in the archive behind them.
pub fn archive_behind(length: u64) -> Result<Vec<u8>, CpioError> {
    let mut bytes = vec![0; to_usize(align::padding(length, 4))];
    Writer::new(&mut bytes).finish()?;
    Ok(bytes)
}
