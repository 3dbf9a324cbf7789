//! Puts a version into the slot that does not run: the only writer of slots.
//!
//! ```text
//! Target ── clear ──> Cleared ── root, written ──> Written ── seal ──> Sealed ── activate ──> the entry
//! ```
//!
//! 1. `clear`: the idle slot's entries leave the ESP; flush. Its partitions get the GUIDs and labels of an
//!    empty slot, in the backup table; flush; in the primary; flush.
//! 2. The caller writes the root; flush.
//! 3. `seal`: the root is read back past the page cache, its hash tree computed on the way and compared with
//!    the signed root hash. The tree is written; flush; read back and compared.
//! 4. `activate`: GUIDs and labels of the new version, in the backup table; flush; in the primary; flush.
//!    Then the kernel image goes into the ESP with its tries.
//!
//! Whenever that ends, by loss of power or by an error, what the boot loader takes is the running version or
//! the new one, whole; and doing it again from the start brings it to its end. Who holds a [`Sealed`] has
//! read the new version from the disk, so nothing can be activated that is not there. Nothing here writes to
//! the running slot, or to its entry.

mod checked;
mod error;
mod esp;
mod table;
#[cfg(test)]
mod tests;

pub use error::ApplyError;
pub use esp::{Installed, bless, demote, installed, loader};

use std::io::{self, Cursor, Write};

use super::document::Document;
use crate::base::device::Device;
use crate::base::width::{to_u64, to_usize};
use crate::base::{Digest, Progress, Size, Task, Unit};
use crate::boot::cmdline::Cmdline;
use crate::boot::entries::{self, Counter, FOLDER};
use crate::boot::uki::Description;
use crate::disk::gpt::Table;
use crate::disk::slot::{self, Slot};
use crate::verity::{self, BLOCK, HashTree};

use checked::Checked;

/// Bytes of a root that are read at once.
const BATCH: usize = 4 << 20;
/// Bytes at the start of two devices that tell whether they are the same partition: a file system's
/// superblock, or that of a hash tree and the top of the tree.
const FINGERPRINT: u64 = 64 << 10;

/// Where a new version goes.
pub struct Target<'a> {
    /// The whole boot disk.
    pub disk: &'a mut dyn Device,
    /// Its EFI system partition, which nobody has mounted.
    pub esp: &'a mut dyn Device,
    /// The root partition of `slot`.
    pub root: &'a mut dyn Device,
    /// The verity partition of `slot`.
    pub verity: &'a mut dyn Device,
    /// The slot that does not run.
    pub slot: Slot,
}

/// A slot that holds nothing, ready to be written to.
pub struct Cleared<'a> {
    target: Target<'a>,
    document: &'a Document,
}

/// A slot whose root is on the disk, as far as the disk says.
pub struct Written<'a>(Cleared<'a>);

/// A slot whose root and hash tree have been read from the disk, and are what was signed.
pub struct Sealed<'a>(Cleared<'a>);

impl<'a> Target<'a> {
    /// Refuses what cannot be, before anything is fetched or written. `running` is the root hash on the
    /// kernel's command line.
    ///
    /// # Errors
    /// A version that runs, is of another image, for other disks or too large; a slot that runs, or of
    /// which one cannot tell; an ESP without a way back to the running version.
    pub fn check(&mut self, document: &Document, running: &Digest) -> Result<(), ApplyError> {
        self.stale_entries(document, running).map(drop)
    }

    /// Makes the slot empty: no entry leads to it, and its partitions say that they hold nothing. What is
    /// in them stays, so that an update that was cut short goes on where it was.
    ///
    /// # Errors
    /// Those of [`Target::check`]; what the disk says.
    pub fn clear(
        mut self,
        document: &'a Document,
        running: &Digest,
        progress: &dyn Progress,
    ) -> Result<Cleared<'a>, ApplyError> {
        for entry in self.stale_entries(document, running)? {
            progress.note(&format!("removing {} from the EFI system partition", entry.path));
            esp::remove(self.esp, &entry.path)?;
        }
        let disk_guid = table::read(self.disk)?.table.disk_guid;
        let (root, verity) = slot::empty(disk_guid, self.slot);
        table::identify(self.disk, self.slot, [&root, &verity])?;
        Ok(Cleared { target: self, document })
    }

    /// What cannot be booted once the slot is cleared: whatever leads there, by whatever name, and entries of
    /// this image that are damaged or lead nowhere. Never one for the running root.
    fn stale_entries(
        &mut self,
        document: &Document,
        running: &Digest,
    ) -> Result<Vec<esp::Image>, ApplyError> {
        let found = table::read(self.disk)?;
        self.check_slot(&found.table, document, running)?;
        self.check_form(document)?;
        let all = esp::images(&found.table, self.esp)?;
        let runs = |image: &esp::Image| image.root_hash == Some(*running);
        if !all.iter().any(|image| image.entry.is_some() && runs(image)) {
            return Err(ApplyError::NoWayBack);
        }
        let is_ours = |image: &esp::Image| image.entry.as_ref().is_some_and(|entry| entry.id == document.id);
        let is_stale = |image: &esp::Image| !runs(image) && (image.slot == Some(self.slot) || is_ours(image));
        let stale: Vec<esp::Image> = all.into_iter().filter(is_stale).collect();
        let freed: u64 = stale.iter().map(|image| image.size).sum();
        esp::check_room("the kernel image", document.uki.size, esp::free(self.esp)?.saturating_add(freed))?;
        Ok(stale)
    }

    /// Whether the slot is there, is not the one that runs, and is what the two devices are.
    fn check_slot(&self, table: &Table, document: &Document, running: &Digest) -> Result<(), ApplyError> {
        let slot = self.slot;
        if table::slot_of(table, running)? == slot {
            return Err(ApplyError::SlotIsRunning { slot });
        }
        let slots = slot::slots(table)?;
        for (other, parts) in &slots {
            if *other != slot
                && let Some(release) = parts.release()
                && release.id != document.id
            {
                return Err(ApplyError::OtherImage { expected: release.id, actual: document.id.clone() });
            }
        }
        if document.root.root_hash == *running {
            return Err(ApplyError::IsRunning { version: document.version.clone() });
        }
        let parts = slots.iter().find(|(other, _)| *other == slot).expect("there are both").1;
        // A label that is too long must show before the slot is cleared.
        let identity = document.release().verity();
        table.clone().rename(parts.verity.number, identity.guid, &identity.label, identity.attributes)?;
        for (what, entry, device) in
            [("root", parts.root, &*self.root), ("hash tree", parts.verity, &*self.verity)]
        {
            let io = |source| ApplyError::Io { action: "comparing the partitions", slot, source };
            // The partition first: what is still to be written there would hide from the disk.
            let mut given = vec![0; to_usize(FINGERPRINT.min(entry.size))];
            let mut named = given.clone();
            if device.size() != entry.size {
                return Err(ApplyError::WrongDevice { what, slot });
            }
            device.read_back(&mut given, 0).map_err(io)?;
            self.disk.read_back(&mut named, entry.start).map_err(io)?;
            if given != named {
                return Err(ApplyError::WrongDevice { what, slot });
            }
        }
        Ok(())
    }

    /// Whether the version can be written at all, and fits.
    fn check_form(&self, document: &Document) -> Result<(), ApplyError> {
        let expected = document.sector_size;
        let actual = u32::try_from(self.disk.sector_size().bytes()).expect("512 or 4096");
        if expected != actual {
            return Err(ApplyError::SectorSize { expected, actual });
        }
        salt(document)?;
        let blocks = document.root.size / to_u64(BLOCK);
        if blocks == 0 || !document.root.size.is_multiple_of(to_u64(BLOCK)) {
            return Err(verity::Error::Unaligned { len: document.root.size }.into());
        }
        for (what, has, room) in [
            ("root file system", document.root.size, self.root.size()),
            ("hash tree", verity::tree_size(blocks), self.verity.size()),
        ] {
            if has > room {
                let (has, room, slot) = (Size(has), Size(room), self.slot);
                return Err(ApplyError::DoesNotFit { what, has, room, slot });
            }
        }
        let (id, version) = (&document.id, &document.version);
        let file = entry_file(document, 1);
        let is_read = entries::parse(&file).is_some_and(|read| read.id == *id && read.version == *version);
        if !is_read || file.contains('/') {
            return Err(ApplyError::Name { file, id: id.clone(), version: version.clone() });
        }
        Ok(())
    }
}

fn entry_file(document: &Document, tries: u8) -> String {
    let counter = Counter { left: tries.into(), done: 0 };
    entries::file_name(&document.id, &document.version, Some(counter))
}

fn salt(document: &Document) -> Result<Vec<u8>, ApplyError> {
    let salt = &document.root.salt;
    hex::decode(salt).map_err(|_| ApplyError::Salt { salt: salt.clone() })
}

impl<'a> Cleared<'a> {
    /// Where the root is to be written, from offset 0 on: the slot's root partition and nothing else.
    pub fn root(&mut self) -> &mut dyn Device {
        self.target.root
    }

    /// The caller has written all of the root. It is flushed here.
    ///
    /// # Errors
    /// What the disk says.
    pub fn written(self) -> Result<Written<'a>, ApplyError> {
        let slot = self.target.slot;
        let io = |source| ApplyError::Io { action: "writing the root", slot, source };
        self.target.root.flush().map_err(io)?;
        Ok(Written(self))
    }
}

impl<'a> Written<'a> {
    /// Reads the root from the disk, compares it with what was signed, and writes its hash tree.
    ///
    /// # Errors
    /// `Root` when what the disk has is not what was signed; what the disk says.
    pub fn seal(self, progress: &dyn Progress) -> Result<Sealed<'a>, ApplyError> {
        let Cleared { target, document } = self.0;
        let slot = target.slot;
        let tree = hash(target.root, document, slot, progress)?;
        let (expected, actual) = (document.root.root_hash, tree.root_hash.digest());
        if expected != actual {
            return Err(ApplyError::Root { slot, expected, actual });
        }
        let mut checked = Checked::new(target.verity);
        checked.write_at(&tree.bytes, 0).and_then(|()| checked.flush()).map_err(|source| ApplyError::Io {
            action: "writing the hash tree",
            slot,
            source,
        })?;
        Ok(Sealed(Cleared { target, document }))
    }
}

/// The hash tree of what the disk has.
fn hash(
    root: &dyn Device,
    document: &Document,
    slot: Slot,
    progress: &dyn Progress,
) -> Result<HashTree, ApplyError> {
    let size = document.root.size;
    let task = Task::new(progress, &format!("verifying slot {slot}"), size, Unit::Bytes);
    let options = verity::Options { salt: salt(document)?, uuid: document.root.verity_uuid };
    let mut writer = verity::Writer::new(io::sink(), options)?;
    let mut batch = vec![0; BATCH.min(to_usize(size))];
    let mut offset = 0;
    while offset < size {
        let piece = &mut batch[..to_usize((size - offset).min(to_u64(BATCH)))];
        root.read_back(piece, offset)
            .and_then(|()| writer.write_all(piece))
            .map_err(|source| ApplyError::Io { action: "reading back the root", slot, source })?;
        offset += to_u64(piece.len());
        task.advance(to_u64(piece.len()));
    }
    Ok(writer.finish()?)
}

impl Sealed<'_> {
    /// Makes the slot bootable: GUIDs and labels first, the kernel image `uki` with its `tries` last.
    /// Returns the name of the entry's file.
    ///
    /// # Errors
    /// A kernel image that is not the signed one; what the disk says.
    pub fn activate(self, uki: &[u8], tries: u8, progress: &dyn Progress) -> Result<String, ApplyError> {
        let Cleared { target, document } = self.0;
        check_uki(uki, document)?;
        let release = document.release();
        table::identify(target.disk, target.slot, [&release.root(), &release.verity()])?;
        let file = entry_file(document, tries);
        let path = format!("{FOLDER}/{file}");
        if let Err(error) = esp::put(target.esp, &path, uki) {
            // It may be there, and not be what it should be.
            let _ = esp::remove(target.esp, &path);
            return Err(error);
        }
        progress.note(&format!("{file} is what starts next, from slot {}", target.slot));
        Ok(file)
    }
}

fn check_uki(uki: &[u8], document: &Document) -> Result<(), ApplyError> {
    let (expected, actual) = (document.uki.sha256, Digest::of(uki));
    if expected != actual {
        return Err(ApplyError::Uki { expected, actual });
    }
    let cmdline = Description::read(&mut Cursor::new(uki))?.cmdline;
    let expected = document.root.root_hash;
    match Cmdline::parse(&cmdline) {
        Ok(read) if read.root_hash == expected => Ok(()),
        Ok(read) => Err(ApplyError::UkiRoot { expected, actual: read.root_hash.to_string() }),
        Err(error) => Err(ApplyError::UkiRoot { expected, actual: error.to_string() }),
    }
}
