//! The boot disk: the one that `/init` has proven, its slots, and its devices to write to.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use super::node;
use crate::base::Digest;
use crate::base::device::{FileDevice, ReadAt};
use crate::base::failure::{Doing, Failure};
use crate::boot::handover::Handover;
use crate::boot::variables;
use crate::disk::gpt::{self, Table, types};
use crate::disk::slot::{self, Slot};
use crate::disk::sys;
use crate::verity::partition_guids;

/// What dm-verity shows of the running root: its size is that of what was hashed.
const MAPPED: &str = "/dev/mapper/root";

/// The boot disk as it is laid out.
#[derive(Debug)]
pub struct NodeDisk {
    facts: Handover,
    table: Table,
    /// Of the version that runs.
    pub root_hash: Digest,
    /// The slot that runs.
    pub running: Slot,
}

/// The idle slot's partitions and the disk, open to write. Nobody else has the partitions: they were opened
/// exclusively.
#[derive(Debug)]
pub struct Idle {
    /// The whole disk.
    pub disk: FileDevice,
    /// The slot's root partition.
    pub root: FileDevice,
    /// The slot's verity partition.
    pub verity: FileDevice,
}

impl NodeDisk {
    /// Finds it by what `/init` has left.
    pub fn find() -> Result<Self, Failure> {
        let facts = node::handover()?;
        if facts.live {
            let cause = "this node runs from memory, and has no disk for updates";
            return Err(Failure::new("looking for the boot disk", cause)
                .help("`keller install` puts the image onto a disk"));
        }
        let doing = || format!("reading the partition table of {}", facts.disk);
        let disk = block(&facts.disk, false, false).doing(doing())?;
        let table = gpt::read_any(&disk).doing(doing())?.table;
        let root_hash: Digest = facts.root_hash.parse().doing(format!("reading {}", facts.root_hash))?;
        let (root, _) = partition_guids(&root_hash);
        let slots = slot::slots(&table).doing(doing())?;
        let held = slots.iter().find(|(_, parts)| parts.root.guid == root);
        let running = held.map(|(slot, _)| *slot).ok_or_else(|| {
            Failure::new(doing(), format!("no slot holds the version that runs, {root_hash}"))
        })?;
        Ok(Self { facts, table, root_hash, running })
    }

    /// The slot's root partition and its hash tree's, by their devices.
    pub fn devices(&self, wanted: Slot) -> Result<(String, String), Failure> {
        let slots = slot::slots(&self.table).doing("looking for the slots")?;
        let parts = slots.iter().find(|(slot, _)| *slot == wanted).map(|(_, parts)| *parts);
        let parts = parts.expect("there are both");
        Ok((self.device(parts.root.number)?, self.device(parts.verity.number)?))
    }

    /// What a slot says that it holds.
    pub fn release(&self, wanted: Slot) -> Option<slot::Release> {
        let slots = slot::slots(&self.table).ok()?;
        slots.iter().find(|(slot, _)| *slot == wanted)?.1.release()
    }

    /// The device of the ESP: the one that the boot loader came from, or the only one of this disk.
    pub fn esp(&self) -> Result<String, Failure> {
        let entry = self.table.esp(variables::partition()).ok_or_else(|| {
            let count = self.table.by_type(types::ESP).count();
            let cause = format!("{} has {count} EFI system partitions", self.facts.disk);
            Failure::new("looking for the EFI system partition", cause)
        })?;
        self.device(entry.number)
    }

    /// The whole disk, to read.
    pub fn whole(&self) -> Result<FileDevice, Failure> {
        block(&self.facts.disk, false, false).doing(format!("opening {}", self.facts.disk))
    }

    /// Takes the idle slot.
    pub fn idle(&self) -> Result<Idle, Failure> {
        let (root, verity) = self.devices(self.running.other())?;
        let open = |path: &str, exclusive| block(path, true, exclusive).doing(format!("opening {path}"));
        Ok(Idle {
            disk: open(&self.facts.disk, false)?,
            root: open(&root, true)?,
            verity: open(&verity, true)?,
        })
    }

    /// The running root, as the disk has it, and its size in bytes. Not through dm-verity, which would stop the
    /// node at a block that has gone bad since it was last read: what is taken from here is checked.
    pub fn running_root(&self) -> Result<(FileDevice, u64), Failure> {
        let mapped = block(MAPPED, false, false).doing(format!("opening {MAPPED}"))?;
        let root = block(&self.facts.root, false, false).doing(format!("opening {}", self.facts.root))?;
        Ok((root, mapped.size()))
    }

    /// The kernel's name for a partition.
    fn device(&self, number: u32) -> Result<String, Failure> {
        let disk = self.facts.disk.trim_start_matches("/dev/");
        let name = sys::partition(disk, number).ok_or_else(|| {
            let doing = format!("looking for partition {number} of {}", self.facts.disk);
            Failure::new(doing, "the kernel does not show it")
        })?;
        Ok(format!("/dev/{name}"))
    }
}

/// Opens a block device; `exclusive` fails while it is mounted or held by the device mapper, and keeps both away.
pub fn block(path: &str, to_write: bool, exclusive: bool) -> std::io::Result<FileDevice> {
    let flags = if exclusive { libc::O_EXCL } else { 0 };
    let file: File = OpenOptions::new().read(true).write(to_write).custom_flags(flags).open(path)?;
    FileDevice::block(file)
}
