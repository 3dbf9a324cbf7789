//! The EFI system partition of the node. systemd mounts it at /boot when somebody looks there.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::disk::{NodeDisk, block};
use super::systemd;
use crate::base::device::{FileDevice, ReadAt, Window};
use crate::base::failure::{Doing, Failure};
use crate::boot::entries::{self, BootEntry, FOLDER};
use crate::fs::fat::Reader;
use crate::fs::fat::reader::ReadError;

/// Where systemd-gpt-auto-generator has it mounted on demand.
pub const MOUNT: &str = "/boot";
/// What does that.
const UNITS: [&str; 2] = ["boot.automount", "boot.mount"];
/// How long somebody who has a file open there may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at entries that make no sense.
const TRIES: u8 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// The entries, as the boot loader orders them: the first is the one that it would start. Read from the partition
/// itself, since it is not mounted while somebody holds a [`Claim`]; the mount writes through the same cache.
pub fn entries(disk: &NodeDisk) -> Result<Vec<BootEntry>, Failure> {
    let path = disk.esp()?;
    let doing = || format!("reading the entries in the EFI system partition {path}");
    let device = block(&path, false, false).doing(doing())?;
    let mut tries = 1..TRIES;
    let listed = loop {
        let window = Window::new(&device, 0, device.size());
        match Reader::open(window).and_then(|mut reader| reader.list()) {
            // Somebody may be in the middle of a change.
            Err(ReadError::Corrupt { .. }) if tries.next().is_some() => thread::sleep(PAUSE),
            listed => break listed.doing(doing())?,
        }
    };
    let files = listed.iter().filter(|listed| listed.size.is_some());
    let names = files.filter_map(|listed| listed.path.strip_prefix(FOLDER)?.strip_prefix('/'));
    let mut found: Vec<BootEntry> =
        names.filter(|name| !name.contains('/')).filter_map(entries::parse).collect();
    found.sort_by(|a, b| a.file.cmp(&b.file));
    entries::order(&mut found);
    Ok(found)
}

/// Whether `entries` have one besides `version` that has proven itself: only then is it worth something to give
/// up on `version`.
pub fn another_is_good(entries: &[BootEntry], version: &str) -> bool {
    entries.iter().any(|entry| entry.version != version && entry.counter.is_none())
}

/// The partition, held so that nobody can mount it: the kernel lets only one have a block device exclusively,
/// and a mount counts. That settles every race; the units are stopped only so that it is to be had, and so that
/// who looks at /boot meanwhile finds an empty folder and does not wait.
#[derive(Debug)]
pub struct Claim {
    device: Option<FileDevice>,
}

impl Claim {
    /// Unmounts the partition and takes it.
    pub fn take(path: &str) -> Result<Self, Failure> {
        let units = UNITS.map(str::to_owned);
        let shown = systemd::show(&units, &["LoadState"])?;
        let loaded = |unit: &&str| {
            shown.get(*unit).and_then(|shown| shown.get("LoadState")).is_some_and(|state| state == "loaded")
        };
        let known: Vec<&str> = UNITS.iter().copied().filter(|unit| loaded(unit)).collect();
        if !known.is_empty() {
            systemd::systemctl(&[&["stop"], &known[..]].concat()).map_err(|failure| {
                restore();
                failure.help(format!("somebody works in {MOUNT} and has to leave it"))
            })?;
        }
        // From here on, whatever happens, the mount comes back.
        let mut claim = Self { device: None };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match block(path, true, true) {
                Ok(device) => {
                    claim.device = Some(device);
                    return Ok(claim);
                }
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    thread::sleep(PAUSE);
                }
                Err(error) => {
                    let failure = Failure::new(format!("taking the EFI system partition {path}"), error);
                    return Err(failure.help("it must not be mounted: `findmnt` tells where it is"));
                }
            }
        }
    }

    /// The partition.
    pub fn device(&mut self) -> &mut FileDevice {
        self.device.as_mut().expect("taken before it is given out")
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.device = None;
        restore();
    }
}

/// Has systemd mount it on demand again, as after a claim whose holder was killed. Without the generator's unit,
/// as on a disk that was started some other way, there is nothing to restore.
pub fn restore() {
    let _ = systemd::systemctl(&["start", UNITS[0]]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proven_entry_is_a_way_back() {
        let list = |names: &[&str]| names.iter().filter_map(|name| entries::parse(name)).collect::<Vec<_>>();
        assert!(another_is_good(&list(&["n_1.efi", "n_2+1-2.efi"]), "2"));
        assert!(!another_is_good(&list(&["n_1+0-3.efi", "n_2+1-2.efi"]), "2"));
        assert!(!another_is_good(&list(&["n_1.efi"]), "1"));
    }
}
