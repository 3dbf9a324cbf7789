//! Finds the boot disk: the one disk with the two partitions that the root hash names.
//!
//! The tables are read by us, not taken from the kernel: that knows no PARTUUIDs that `/sys` would show, and
//! a torn primary table must not hide a disk.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::console::Console;
use super::modules::Loader;
use super::partitions;
use super::uevents::Uevents;
use crate::base::Digest;
use crate::base::failure::{Doing, Failure};
use crate::boot::variables;
use crate::disk::gpt::{self, Found};
use crate::disk::state_disk;
use crate::disk::sys::{self, BLOCK};
use crate::disk::{Device, FileDevice};
use crate::verity::partition_guids;

/// How long to wait for the boot disk. A controller with many disks may need half of it; a disk that is not
/// there after it is not coming, and another try may be better.
const PATIENCE: Duration = Duration::from_secs(40);

/// A second disk with the same image must be seen before the first is taken: no news for this long ...
const QUIET: Duration = Duration::from_millis(30);
/// ... but no longer than this in all.
const QUIET_CAP: Duration = Duration::from_secs(2);

/// Where no disk is required, all are taken to be there after this long without news.
const ALL: Duration = Duration::from_millis(500);

/// What a boot disk must have, and what tells two of them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// PARTUUID of the root.
    pub root: Uuid,
    /// PARTUUID of its hash tree.
    pub verity: Uuid,
    /// PARTUUID of the ESP that the boot loader came from, if it told.
    pub esp: Option<Uuid>,
}

/// A disk and its partition table.
#[derive(Debug)]
pub(super) struct Disk {
    /// The kernel's name, e.g. `vda`.
    pub name: String,
    /// Its table.
    pub found: Found,
}

/// Why no disk can be the boot disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// None has the partitions, so far.
    None,
    /// More than one has them.
    Several(Vec<String>),
    /// One disk has them twice.
    Twice(String),
}

impl std::error::Error for Doubt {}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "no disk has the two partitions that the root hash names"),
            Self::Several(disks) => write!(
                f,
                "{} disks carry this image ({}), and starting from the wrong one could mix two nodes",
                disks.len(),
                disks.join(", ")
            ),
            Self::Twice(disk) => write!(f, "{disk} has this version in both slots"),
        }
    }
}

/// Chooses the boot disk. Where the boot loader told which ESP it came from and a candidate has it, the
/// others are out of question; two copies of one image have the same ESP, and are refused.
pub(super) fn choose(disks: &[Disk], wanted: &Wanted) -> Result<usize, Doubt> {
    let count =
        |disk: &Disk, guid| disk.found.table.entries.iter().filter(|entry| entry.guid == guid).count();
    let carries = |disk: &Disk| count(disk, wanted.root) > 0 && count(disk, wanted.verity) > 0;
    let is_loaders = |disk: &Disk| wanted.esp.is_some_and(|esp| count(disk, esp) > 0);
    let mut candidates: Vec<usize> = (0..disks.len()).filter(|index| carries(&disks[*index])).collect();
    if candidates.iter().any(|index| is_loaders(&disks[*index])) {
        candidates.retain(|index| is_loaders(&disks[*index]));
    }
    match candidates[..] {
        [] => Err(Doubt::None),
        [one] if count(&disks[one], wanted.root) > 1 || count(&disks[one], wanted.verity) > 1 => {
            Err(Doubt::Twice(disks[one].name.clone()))
        }
        [one] => Ok(one),
        _ => Err(Doubt::Several(candidates.iter().map(|index| describe(&disks[*index])).collect())),
    }
}

fn describe(disk: &Disk) -> String {
    format!("{} with disk GUID {}", disk.name, disk.found.table.disk_guid)
}

/// The boot disk, its devices open to use.
#[derive(Debug)]
pub(super) struct BootDisk {
    /// As a disk.
    pub disk: Disk,
    /// Number of the root partition.
    pub root: u32,
    /// Number of the root's hash tree.
    pub verity: u32,
}

impl BootDisk {
    /// Waits until the boot disk is there, loading drivers for what appears.
    pub(super) fn wait(console: &Console, loader: &mut Loader, root_hash: &Digest) -> Result<Self, Failure> {
        let events = Uevents::listen();
        let (root, verity) = partition_guids(root_hash);
        let wanted = Wanted { root, verity, esp: variables::partition() };
        let end = Instant::now() + PATIENCE;
        let mut told = false;
        loop {
            while loader.load_for_devices(console) {}
            let (mut disks, _) = scan();
            if choose(&disks, &wanted).is_ok() {
                events.settle(QUIET, QUIET_CAP);
                while loader.load_for_devices(console) {}
                (disks, _) = scan();
            }
            match choose(&disks, &wanted) {
                Ok(index) => {
                    let disk = disks.swap_remove(index);
                    let number = |guid| disk.found.table.by_guid(guid).map_or(0, |entry| entry.number);
                    let (root, verity) = (number(root), number(verity));
                    return Ok(Self { disk, root, verity });
                }
                Err(Doubt::None) if Instant::now() < end => {
                    if !told {
                        console.say("waiting for the boot disk");
                        told = true;
                    }
                    events.wait();
                }
                Err(doubt) => return Err(refuse(doubt, &wanted)),
            }
        }
    }

    /// The disk `name`, which must have the root and its hash tree. Drivers of other disks are loaded, as [`BootDisk::wait`] does.
    pub(super) fn named(
        console: &Console,
        loader: &mut Loader,
        name: &str,
        root_hash: &Digest,
    ) -> Result<Self, Failure> {
        while loader.load_for_devices(console) {}
        let what = || format!("reading the partition table of {name}");
        let found =
            open(name, false).doing(what()).and_then(|device| gpt::read_any(&device).doing(what()))?;
        let (root, verity) = partition_guids(root_hash);
        let number = |guid| found.table.by_guid(guid).map(|entry| entry.number);
        let (Some(root), Some(verity)) = (number(root), number(verity)) else {
            let problem = "it does not hold the version that the command line names";
            return Err(Failure::new(format!("looking for the root on {name}"), problem));
        };
        Ok(Self { disk: Disk { name: name.to_owned(), found }, root, verity })
    }
}

impl Disk {
    /// The disk's device.
    pub(super) fn device(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// Opens the whole disk to change its table.
    pub(super) fn open(&self) -> io::Result<FileDevice> {
        open(&self.name, true)
    }

    /// The device of partition `number`. The kernel may not know it where only the backup table was whole;
    /// then it reads the table again.
    pub(super) fn partition(&self, number: u32) -> Result<String, Failure> {
        let find = || sys::partition(&self.name, number);
        if find().is_none() {
            self.open()
                .and_then(|disk| partitions::read_again(disk.file()))
                .doing(format!("having the kernel read the partitions of {}", self.name))?;
        }
        let name = find().ok_or_else(|| {
            Failure::new(
                format!("looking for partition {number} of {}", self.name),
                "its table has it, but the kernel does not show it",
            )
        })?;
        Ok(format!("/dev/{name}"))
    }
}

/// The disk that has the state of a node that runs from memory, if there is one. It is waited for where it `must` be there.
pub(super) fn with_state(
    console: &Console,
    loader: &mut Loader,
    must: bool,
) -> Result<Option<Disk>, Failure> {
    let events = Uevents::listen();
    let end = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        events.settle(ALL, QUIET_CAP);
        // A driver brings devices of its own, a while later.
        while loader.load_for_devices(console) {
            events.settle(ALL, QUIET_CAP);
        }
        let (disks, seen) = scan();
        let is_one = |disk: &Disk| state_disk::is_one(&disk.found.table) && !is_marked(disk);
        let mut those: Vec<Disk> = disks.into_iter().filter(is_one).collect();
        match those.len() {
            0 if !must => return Ok(None),
            0 if Instant::now() < end => {
                if !told {
                    console.say("waiting for the disk with the state");
                    told = true;
                }
                events.wait();
            }
            1 => return Ok(those.pop()),
            count => return Err(refuse_state(count, &those, &seen)),
        }
    }
}

/// Whether an installation was about to put a system under the state of this disk. A disk that cannot be read counts as not
/// marked: its error is reported when it is used.
fn is_marked(disk: &Disk) -> bool {
    let read = open(&disk.name, false).and_then(|device| state_disk::is_unfinished(&device));
    read.unwrap_or(false)
}

fn refuse_state(count: usize, those: &[Disk], seen: &[String]) -> Failure {
    let what = "looking for the disk with the state of a node that runs from memory";
    let way_out = "keller.state=memory boots without it";
    if count == 0 {
        let help = format!("`keller install --only-state` makes such a disk; {way_out}");
        return Failure::new(what, format!("there is none; seen: {}", seen.join("; "))).help(help);
    }
    let names: Vec<String> = those.iter().map(describe).collect();
    let problem =
        format!("{count} disks have a state ({}), and only one of them can be this node's", names.join(", "));
    Failure::new(what, problem).help(format!("detach the others; {way_out}"))
}

fn refuse(doubt: Doubt, wanted: &Wanted) -> Failure {
    let (_, seen) = scan();
    let what = format!("looking for the partitions {} and {}", wanted.root, wanted.verity);
    let way_out = match doubt {
        Doubt::None => None,
        Doubt::Several(_) => {
            Some("detach all but one of these disks, or wipe the partition table of the copy")
        }
        Doubt::Twice(_) => Some("boot another medium and delete the root and verity partition of one slot"),
    };
    let failure = match doubt {
        Doubt::None => Failure::new(what, format!("{doubt}; seen: {}", seen.join("; "))),
        doubt => Failure::new(what, doubt),
    };
    match way_out {
        Some(text) => failure.help(text),
        None => failure,
    }
}

/// The disks that have a partition table, and a line on each for a person.
fn scan() -> (Vec<Disk>, Vec<String>) {
    let mut names: Vec<String> = fs::read_dir(BLOCK)
        .into_iter()
        .flatten()
        .flatten()
        // The kernel writes `!` in /sys for a `/` in /dev.
        .map(|entry| entry.file_name().to_string_lossy().replace('!', "/"))
        .filter(|name| can_boot(name))
        .collect();
    names.sort();
    let mut disks = Vec::new();
    let mut lines = Vec::new();
    for name in names {
        match open(&name, false).map(|device| (device.sector_size().bytes(), gpt::read_any(&device))) {
            Ok((own, Ok(Found { table, .. }))) if table.sector_size.bytes() != own => {
                let made_for = table.sector_size.bytes();
                lines
                    .push(format!("{name} has sectors of {own} bytes, but its table is made for {made_for}"));
            }
            Ok((_, Ok(found))) => {
                lines.push(format!("{name} with {} partitions", found.table.entries.len()));
                disks.push(Disk { name, found });
            }
            Ok((_, Err(error))) => lines.push(format!("{name}: {error}")),
            Err(error) => lines.push(format!("{name}: {error}")),
        }
    }
    if lines.is_empty() {
        lines.push("no disk at all, so the driver for its controller may be missing".to_owned());
    }
    (disks, lines)
}

/// Leaves out what is memory, optical, or made of other disks, and the second paths of multipath NVMe.
fn can_boot(name: &str) -> bool {
    const NEVER: [&str; 8] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "mtdblock"];
    let sys = Path::new(BLOCK).join(name.replace('/', "!"));
    let says = |file: &str| fs::read_to_string(sys.join(file)).unwrap_or_default().trim().to_owned();
    !NEVER.iter().any(|prefix| name.starts_with(prefix)) && says("size") != "0" && says("hidden") != "1"
}

fn open(name: &str, to_write: bool) -> io::Result<FileDevice> {
    let file: File = OpenOptions::new().read(true).write(to_write).open(Path::new("/dev").join(name))?;
    FileDevice::block(file)
}

impl Deref for BootDisk {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.disk
    }
}

impl DerefMut for BootDisk {
    fn deref_mut(&mut self) -> &mut Disk {
        &mut self.disk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::width::to_usize;
    use crate::disk::SectorSize;
    use crate::disk::gpt::{Entry, Table, types};

    const SIZE: u64 = 64 << 20;

    fn disk(name: &str, guids: &[u128]) -> Disk {
        let mut table = Table::new(Uuid::from_u128(9), SectorSize::B512, SIZE).unwrap();
        for (guid, number) in guids.iter().zip(1..) {
            table.entries.push(Entry {
                number,
                type_guid: if number == 1 { types::ESP } else { types::ROOT },
                guid: Uuid::from_u128(*guid),
                label: String::new(),
                start: u64::from(number) << 20,
                size: 1 << 20,
                attributes: 0,
            });
        }
        let mut bytes = vec![0; to_usize(SIZE)];
        super::super::table::tests::write(&mut bytes, &table);
        Disk { name: name.to_owned(), found: gpt::read(bytes.as_slice(), SectorSize::B512).unwrap() }
    }

    fn wanted(esp: Option<u128>) -> Wanted {
        Wanted { root: Uuid::from_u128(2), verity: Uuid::from_u128(3), esp: esp.map(Uuid::from_u128) }
    }

    #[test]
    fn one_disk_with_both_partitions() {
        let disks = [disk("sda", &[1, 2, 8]), disk("sdb", &[1, 3, 2]), disk("sdc", &[])];
        assert_eq!(choose(&disks, &wanted(None)), Ok(1));
        assert_eq!(choose(&disks[..1], &wanted(None)), Err(Doubt::None));
    }

    #[test]
    fn the_loaders_disk_wins_but_copies_are_refused() {
        let disks = [disk("sda", &[1, 2, 3]), disk("sdb", &[7, 2, 3]), disk("sdc", &[7])];
        assert_eq!(choose(&disks, &wanted(Some(7))), Ok(1));
        assert!(matches!(choose(&disks, &wanted(None)), Err(Doubt::Several(names)) if names.len() == 2));
        // Started over the network or from another disk: the ESP says nothing about the candidates.
        assert!(matches!(choose(&disks, &wanted(Some(5))), Err(Doubt::Several(_))));
        let copies = [disk("sda", &[7, 2, 3]), disk("sdb", &[7, 2, 3])];
        assert!(matches!(choose(&copies, &wanted(Some(7))), Err(Doubt::Several(_))));
    }

    #[test]
    fn one_version_in_both_slots_is_refused() {
        let disks = [disk("sda", &[1, 2, 3, 2, 3])];
        assert_eq!(choose(&disks, &wanted(None)), Err(Doubt::Twice("sda".to_owned())));
    }
}
