//! What an initramfs carries, read back out of the `.initrd` section of a unified kernel image.

use std::collections::BTreeSet;
use std::io::{self, Read};

use super::FIRMWARE;
use crate::base::{Compression, input, limits};
use crate::boot::cpio;
use crate::boot::modules::{LIST, ModuleList};

/// The largest window of zstd that is given memory, as a power of two.
const WINDOW: u32 = limits::WINDOW.ilog2();

/// Most bytes that its archives unpack to: keller, and all else.
const MOST: u64 = limits::PROGRAM + limits::INITRAMFS;

/// Modules and firmware of an initramfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// In the order in which they can be loaded.
    pub modules: ModuleList,
    /// Names of files as drivers ask for them.
    pub firmware: BTreeSet<String>,
}

impl Carried {
    /// Reads the archives of `initrd`, plain or compressed with zstd, one after the other as the kernel does.
    ///
    /// # Errors
    /// Archives that keller does not make, and damaged ones.
    pub fn read(initrd: &[u8]) -> io::Result<Self> {
        let mut found = Self::default();
        let mut rest = initrd;
        loop {
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            rest = &rest[zeros..];
            if rest.is_empty() {
                return Ok(found);
            }
            match Compression::of_magic(rest) {
                Compression::None => found.archive(&mut rest)?,
                Compression::Zstd => {
                    let mut decoder = zstd::Decoder::with_buffer(rest)?.single_frame();
                    decoder.window_log_max(WINDOW)?;
                    let mut unpacked = (&mut decoder).take(MOST);
                    found.archive(&mut unpacked)?;
                    io::copy(&mut unpacked, &mut io::sink())?;
                    rest = decoder.finish();
                }
                other => {
                    let what = format!("an archive of the initramfs is compressed with {other:?}, not zstd");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what.to_lowercase()));
                }
            }
        }
    }

    fn archive(&mut self, reader: &mut impl Read) -> io::Result<()> {
        let folder = format!("{FIRMWARE}/");
        cpio::each_file(reader, |name, body| {
            if name == LIST {
                let text = input::read_open(body, limits::CONFIGURATION)?;
                self.modules =
                    ModuleList::parse(&String::from_utf8_lossy(&text)).map_err(io::Error::other)?;
            } else if let Some(name) = name.strip_prefix(&folder) {
                self.firmware.insert(name.to_owned());
            }
            Ok(())
        })
    }
}
