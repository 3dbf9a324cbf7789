//! Microcode of the processors, which the kernel takes before it unpacks an initramfs: an archive of its own,
//! uncompressed, the first in the initrd.
//!
//! Source: Documentation/arch/x86/microcode.rst of Linux. Which files, and in which order, is as with Debian's
//! hooks, dracut and mkosi: all of Intel's, AMD's `*.bin`, by name. The archive stands before the initramfs in
//! `.initrd`, not in a section `.ucode`: a stub before systemd 256 ignores that section without a word, and an
//! initrd that is taken out of the image, e.g. to boot over the network, has its microcode with it.

use std::io::{self, Read, Seek};

use crate::base::on_disk::{FromBytes, le, on_disk};
use crate::base::width::to_u64;
use crate::base::{Size, limits};
use crate::boot::cpio::{self, CpioError, Writer};
use crate::boot::initramfs::decompress;
use crate::tree::{Content, Kind, Tree, show};

/// The folder in the archive.
const FOLDER: &str = "kernel/x86/microcode";
/// Intel's manual wants an update at a multiple of so many bytes in memory (SDM 3A, "Microcode Update Loader").
const ALIGN: u64 = 16;
/// The archive ends at a multiple of a block of updates: a kernel with other microcode leaves the blocks of the
/// initramfs as they are.
const BLOCK: usize = 4096;

on_disk! {
    /// What an update of Intel begins with (SDM 3A, "Microcode Update").
    IntelHeader: 24 bytes {
        header_version: le::U32,
        update_revision: le::U32,
        date: le::U32,
        processor_signature: le::U32,
        checksum: le::U32,
        loader_revision: le::U32,
    }
}

/// Most entries of the archive that are looked at. Those of keller have 6: directories, and a file for each vendor.
const MOST_ENTRIES: usize = 64;

/// Who made the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// AMD.
    Amd,
    /// Intel.
    Intel,
}

impl Vendor {
    /// Both, in the order of the archive.
    pub const ALL: [Self; 2] = [Self::Amd, Self::Intel];

    /// The name of the file in the archive, after the processor's own word for its maker.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Amd => "AuthenticAMD.bin",
            Self::Intel => "GenuineIntel.bin",
        }
    }

    /// Where a root has the updates.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Amd => "usr/lib/firmware/amd-ucode",
            Self::Intel => "usr/lib/firmware/intel-ucode",
        }
    }

    /// Debian's package.
    pub const fn package(self) -> &'static str {
        match self {
            Self::Amd => "amd64-microcode",
            Self::Intel => "intel-microcode",
        }
    }

    /// Whether a file of this name is an update: signatures and texts lie beside them.
    fn names(self, name: &str) -> bool {
        let plain = [".xz", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        match self {
            Self::Amd => plain.ends_with(".bin"),
            // Family, model and stepping, `.initramfs` behind them where Debian takes an update for early only.
            Self::Intel => {
                let parts: Vec<&str> = plain.trim_end_matches(".initramfs").split('-').collect();
                let is_number = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
                parts.len() == 3 && parts.iter().all(is_number)
            }
        }
    }

    /// Whether `bytes` begin as an update does: version and loader's version are 1, or AMD's magic.
    fn made(self, bytes: &[u8]) -> bool {
        match self {
            Self::Amd => bytes.starts_with(b"DMA\0"),
            Self::Intel => IntelHeader::ref_from_prefix(bytes)
                .is_ok_and(|(header, _)| header.header_version == 1 && header.loader_revision == 1),
        }
    }
}

/// Why the archive could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MicrocodeError {
    /// A file in the vendor's folder that is something else.
    #[error("/{path} has the name of microcode, but is none")]
    NotMicrocode {
        /// In the root.
        path: String,
    },
    /// More than all updates of a vendor have.
    #[error("the microcode of one vendor up to /{path} has more than {} together", Size(*.limit).human())]
    TooMuch {
        /// In the root.
        path: String,
        /// [`limits::MICROCODE`].
        limit: u64,
    },
    /// A file that cannot be read or decompressed.
    #[error("reading /{path}")]
    Read {
        /// In the root.
        path: String,
        /// What the decompressor or the disk says.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error(transparent)]
    Cpio(#[from] CpioError),
}

/// The updates of a root, each with its path, by vendor.
#[derive(Clone, Debug, Default)]
pub struct Microcode {
    files: [Vec<(String, Content)>; 2],
}

impl Microcode {
    /// What `tree` has below /usr/lib/firmware. A second name of a file adds nothing.
    pub fn of(tree: &Tree) -> Self {
        let files = Vendor::ALL.map(|vendor| {
            let Ok(folder) = tree.resolve(vendor.folder()) else { return Vec::new() };
            let mut found = Vec::new();
            let mut seen = Vec::new();
            for (name, _) in tree.children(folder) {
                let path = format!("{}/{}", vendor.folder(), show(name));
                let Ok(id) = tree.resolve(&path) else { continue };
                if let Kind::File(content) = &tree.node(id).kind
                    && vendor.names(&show(name))
                    && !seen.contains(&id)
                {
                    seen.push(id);
                    found.push((path, content.clone()));
                }
            }
            found
        });
        Self { files }
    }

    fn of_vendor(&self, vendor: Vendor) -> &[(String, Content)] {
        let [amd, intel] = &self.files;
        match vendor {
            Vendor::Amd => amd,
            Vendor::Intel => intel,
        }
    }

    /// Whether there are updates of `vendor`.
    pub fn has(&self, vendor: Vendor) -> bool {
        !self.of_vendor(vendor).is_empty()
    }

    /// The archive, in whole blocks; empty without updates.
    ///
    /// # Errors
    /// A file that is no update or cannot be read.
    pub fn archive(&self) -> Result<Vec<u8>, MicrocodeError> {
        if Vendor::ALL.iter().all(|vendor| !self.has(*vendor)) {
            return Ok(Vec::new());
        }
        let mut writer = Writer::new(Vec::new());
        for end in [6, 10, FOLDER.len()] {
            writer.directory(&FOLDER[..end], 0o755)?;
        }
        for vendor in Vendor::ALL.into_iter().filter(|vendor| self.has(*vendor)) {
            let mut all = Vec::new();
            for (path, content) in self.of_vendor(vendor) {
                let bytes = decompress(content)
                    .map_err(|source| MicrocodeError::Read { path: path.clone(), source })?;
                if !vendor.made(&bytes) {
                    return Err(MicrocodeError::NotMicrocode { path: path.clone() });
                }
                if to_u64(all.len() + bytes.len()) > limits::MICROCODE {
                    return Err(MicrocodeError::TooMuch { path: path.clone(), limit: limits::MICROCODE });
                }
                all.extend(bytes);
            }
            writer.aligned_file(&format!("{FOLDER}/{}", vendor.file()), 0o644, &all, ALIGN)?;
        }
        let mut archive = writer.finish()?;
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        Ok(archive)
    }
}

/// The vendors whose microcode an initrd of `len` bytes begins with, each with its size in bytes, as the kernel finds it.
/// `initrd` stands at its beginning; what it has besides names is not read.
///
/// # Errors
/// What the reader says.
pub fn of_initrd(initrd: &mut (impl Read + Seek), len: u64) -> io::Result<Vec<(Vendor, u64)>> {
    let entries = cpio::names(initrd, len, MOST_ENTRIES)?;
    let size = |vendor: Vendor| {
        let path = format!("{FOLDER}/{}", vendor.file());
        entries.iter().find(|(name, _)| *name == path).map(|(_, size)| (vendor, u64::from(*size)))
    };
    Ok(Vendor::ALL.into_iter().filter_map(size).collect())
}

/// Bytes of the microcode that `initrd` begins with, up to what follows it; 0 where it has none.
pub fn length(initrd: &[u8]) -> usize {
    let Ok((entries, end)) = cpio::entries(initrd) else { return 0 };
    let is_ours = |name: &str| name.starts_with(FOLDER) || FOLDER.starts_with(&format!("{name}/"));
    match !entries.is_empty() && entries.iter().all(|entry| is_ours(&entry.name)) {
        true => end + initrd[end..].iter().take_while(|byte| **byte == 0).count(),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::width::to_usize;

    fn intel(text: &str) -> Vec<u8> {
        let mut bytes = vec![0; 48];
        (bytes[0], bytes[20]) = (1, 1);
        [bytes, text.as_bytes().to_vec()].concat()
    }

    fn found(bytes: &[u8]) -> Vec<(Vendor, u64)> {
        of_initrd(&mut io::Cursor::new(bytes), to_u64(bytes.len())).unwrap()
    }

    fn root() -> Tree {
        let mut tree = Tree::new(0);
        let mut put = |path: &str, bytes: Vec<u8>| {
            let path = format!("usr/lib/firmware/{path}");
            tree.file(path, 0o644, bytes).unwrap();
        };
        put("intel-ucode/06-8e-09.initramfs", intel("two"));
        put("intel-ucode/06-0f-02", intel("one"));
        put("intel-ucode/README", b"text".to_vec());
        put("amd-ucode/microcode_amd.bin", b"DMA\0amd".to_vec());
        put("amd-ucode/microcode_amd.bin.asc", b"signature".to_vec());
        let packed = zstd::encode_all(&b"DMA\0fam17h"[..], 1).unwrap();
        put("amd-ucode/microcode_amd_fam17h.bin.zst", packed);
        tree.symlink("usr/lib/firmware/amd-ucode/same.bin", "microcode_amd.bin").unwrap();
        tree
    }

    #[test]
    fn an_archive_of_both_vendors_by_name() {
        let archive = Microcode::of(&root()).archive().unwrap();
        assert_eq!(archive.len() % BLOCK, 0);
        let (entries, _) = cpio::entries(&archive).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let [amd, genuine] = Vendor::ALL.map(|vendor| format!("{FOLDER}/{}", vendor.file()));
        assert_eq!(names, ["kernel", "kernel/x86", FOLDER, &amd, &genuine]);
        assert_eq!(entries[3].body, b"DMA\0amdDMA\0fam17h");
        assert_eq!(entries[4].body, [intel("one"), intel("two")].concat());
        for entry in &entries[3..] {
            let at = entry.body.as_ptr().addr() - archive.as_ptr().addr();
            assert_eq!(at % to_usize(ALIGN), 0, "{}", entry.name);
        }
        let sizes: Vec<_> = found(&archive).iter().map(|(_, size)| *size).collect();
        assert_eq!(sizes, [17, 102]);
        let initrd = [&archive[..], b"\x28\xb5\x2f\xfd"].concat();
        assert_eq!((length(&initrd), length(&initrd[archive.len()..])), (archive.len(), 0));
        let mut other = cpio::Writer::new(Vec::new());
        other.directory("kernel", 0o755).unwrap();
        other.file("init", 0o755, 1, &mut &b"x"[..]).unwrap();
        assert_eq!(length(&other.finish().unwrap()), 0);
    }

    #[test]
    fn one_vendor_or_none() {
        let mut tree = root();
        tree.remove(Vendor::Amd.folder());
        let microcode = Microcode::of(&tree);
        assert!(microcode.has(Vendor::Intel) && !microcode.has(Vendor::Amd));
        assert_eq!(found(&microcode.archive().unwrap()), [(Vendor::Intel, 102)]);
        tree.remove(Vendor::Intel.folder());
        assert!(Microcode::of(&tree).archive().unwrap().is_empty());
        assert!(found(b"\x28\xb5\x2f\xfd").is_empty());
    }

    #[test]
    fn what_is_no_microcode_is_named() {
        let mut tree = root();
        tree.file("usr/lib/firmware/intel-ucode/06-ff-ff", 0o644, "text").unwrap();
        let error = Microcode::of(&tree).archive().unwrap_err();
        assert_eq!(
            error.to_string(),
            "/usr/lib/firmware/intel-ucode/06-ff-ff has the name of microcode, but is none"
        );
    }
}
