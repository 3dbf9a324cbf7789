//! The disks of a machine as its kernel and udev show them, and what uses them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use super::printable;
use crate::boot::variables;

/// Where a system shows what it knows of its disks.
#[derive(Clone, Debug)]
pub struct System {
    /// /sys
    pub sys: PathBuf,
    /// /proc
    pub proc: PathBuf,
    /// /run/udev/data
    pub udev: PathBuf,
    /// PARTUUID of the partition that the boot loader came from: a system that runs from memory has its root on no disk, and
    /// still must not write to the medium that it was started from.
    pub loader: Option<Uuid>,
}

impl System {
    /// This one.
    pub fn here() -> Self {
        Self {
            sys: "/sys".into(),
            proc: "/proc".into(),
            udev: "/run/udev/data".into(),
            loader: variables::partition(),
        }
    }
}

/// What kind of disk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One that firmware can start.
    Disk,
    /// A loop device: a file of this system.
    Loop,
    /// CD, DVD.
    Optical,
    /// Made of other disks: device mapper, RAID.
    Composite,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The kernel's name, such as `nvme0n1`.
    pub name: String,
    /// How many bytes it has.
    pub size: u64,
    /// What kind it is.
    pub kind: Kind,
    /// As its maker calls it.
    pub model: Option<String>,
    /// The maker's number of this one.
    pub serial: Option<String>,
    /// World Wide Name, without a prefix such as `naa.` or `0x`.
    pub wwn: Option<String>,
    /// `ata`, `mmc`, `nvme`, `scsi`, `usb`, `virtio`, `xen` or `loop`.
    pub bus: &'static str,
    /// Whether the kernel writes nothing to it.
    pub read_only: bool,
    /// What uses it or a partition of it.
    pub uses: Vec<Use>,
    /// `MAJOR:MINOR` of the disk and its partitions.
    #[serde(skip)]
    pub(super) numbers: Vec<String>,
}

/// A use of a disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// The running system has its root there, or was started from there.
    System,
    /// A device is mounted at a path.
    Mounted(String, String),
    /// A device is swap.
    Swap(String),
    /// Another device is made of it.
    Held(String, String),
}

impl Disk {
    /// Its device.
    pub fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// Whether the running system is on it.
    pub fn has_system(&self) -> bool {
        self.uses.contains(&Use::System)
    }
}

/// A device on a disk: the disk, a partition, or what holds one of them.
struct Device {
    name: String,
    number: String,
}

impl System {
    /// All disks, by name. Memory, drives without a medium, and the boot partitions of an eMMC, which the kernel shows as disks
    /// with its serial number, are left out.
    ///
    /// # Errors
    /// What /sys says.
    pub fn disks(&self) -> io::Result<Vec<Disk>> {
        let mut disks = Vec::new();
        for entry in fs::read_dir(self.sys.join("block"))? {
            let file_name = entry?.file_name().to_string_lossy().into_owned();
            disks.extend(self.disk(&file_name));
        }
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(disks)
    }

    /// The disk whose device is at `path`; none where it is no device of a disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn at<'d>(&self, path: &Path, disks: &'d [Disk]) -> io::Result<Option<&'d Disk>> {
        let number = fs::metadata(path)?.rdev();
        let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
        Ok(disks.iter().find(|disk| disk.numbers.contains(&number)))
    }

    /// Whether the device at `path` is a partition of `disk`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_partition(&self, path: &Path, disk: &Disk) -> io::Result<bool> {
        let number = fs::metadata(path)?.rdev();
        let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
        Ok(disk.numbers.first() != Some(&number))
    }

    fn disk(&self, file_name: &str) -> Option<Disk> {
        const MEMORY: [&str; 4] = ["ram", "zram", "fd", "mtdblock"];
        let is_boot_partition = file_name.starts_with("mmcblk") && file_name.contains("boot");
        if is_boot_partition || MEMORY.iter().any(|prefix| file_name.starts_with(prefix)) {
            return None;
        }
        let place = self.sys.join("block").join(file_name);
        let says = |file: &str| text(&place.join(file));
        let kind = kind(file_name);
        let size = says("size")?.parse::<u64>().ok()?.checked_mul(512)?;
        // A second path of multipath NVMe; a drive without a medium.
        if says("hidden").as_deref() == Some("1") || size == 0 {
            return None;
        }
        let own = Device { name: file_name.replace('!', "/"), number: says("dev")? };
        let known = self.known(&own);
        let udev = |key: &str| property(&known, key);
        let (disk, partitions) = (own.name.clone(), self.partitions(&place));
        let numbers = std::iter::once(&own).chain(&partitions).map(|device| device.number.clone()).collect();
        let devices: Vec<Device> = std::iter::once(own).chain(partitions).collect();
        Some(Disk {
            size,
            kind,
            model: says("device/model").or_else(|| udev("ID_MODEL")),
            serial: udev("ID_SERIAL_SHORT")
                .or_else(|| udev("ID_SCSI_SERIAL"))
                .or_else(|| says("serial"))
                .or_else(|| says("device/serial")),
            wwn: udev("ID_WWN")
                .or_else(|| says("wwid"))
                .or_else(|| says("device/wwid"))
                .map(|wwn| bare_wwn(&wwn)),
            bus: bus(file_name, &fs::canonicalize(&place).unwrap_or_default()),
            read_only: says("ro").as_deref() == Some("1"),
            uses: self.uses(&devices),
            name: disk,
            numbers,
        })
    }

    /// What udev knows of `device`.
    fn known(&self, device: &Device) -> String {
        fs::read_to_string(self.udev.join(format!("b{}", device.number))).unwrap_or_default()
    }

    /// Whether the boot loader came from `device`.
    fn is_loaders(&self, device: &Device) -> bool {
        let guid =
            property(&self.known(device), "ID_PART_ENTRY_UUID").and_then(|guid| guid.parse::<Uuid>().ok());
        guid.is_some() && guid == self.loader
    }

    fn partitions(&self, disk: &Path) -> Vec<Device> {
        let entries = fs::read_dir(disk).into_iter().flatten().flatten();
        let partition = |entry: fs::DirEntry| {
            text(&entry.path().join("partition"))?;
            let name = entry.file_name().to_string_lossy().replace('!', "/");
            Some(Device { name, number: text(&entry.path().join("dev"))? })
        };
        let mut partitions: Vec<Device> = entries.filter_map(partition).collect();
        partitions.sort_by(|a, b| a.name.cmp(&b.name));
        partitions
    }

    /// What uses `devices`, a disk and its partitions.
    fn uses(&self, devices: &[Device]) -> Vec<Use> {
        let mut uses = BTreeSet::new();
        let mut all: Vec<Device> = Vec::new();
        let disk = devices.first().map_or("", |device| device.name.as_str());
        for device in devices {
            let place = self.sys.join("block").join(disk.replace('/', "!"));
            let place = if device.name == disk { place } else { place.join(device.name.replace('/', "!")) };
            for holder in self.holders(&place, &mut BTreeSet::new()) {
                uses.insert(Use::Held(device.name.clone(), holder.name.clone()));
                all.push(holder);
            }
        }
        all.extend(
            devices.iter().map(|device| Device { name: device.name.clone(), number: device.number.clone() }),
        );
        if devices.iter().any(|device| self.is_loaders(device)) {
            uses.insert(Use::System);
        }
        for (number, source, at) in self.mounts() {
            let is_it =
                |device: &&Device| device.number == number || source == format!("/dev/{}", device.name);
            if let Some(device) = all.iter().find(is_it) {
                uses.insert(Use::Mounted(device.name.clone(), at.clone()));
                if at == "/" {
                    uses.insert(Use::System);
                }
            }
        }
        for line in text(&self.proc.join("swaps")).unwrap_or_default().lines().skip(1) {
            let path = line.split_whitespace().next().unwrap_or_default();
            if let Some(device) = all.iter().find(|device| path == format!("/dev/{}", device.name)) {
                uses.insert(Use::Swap(device.name.clone()));
            }
        }
        uses.into_iter().collect()
    }

    /// What is made of the device whose directory in /sys is `place`, and what is made of that.
    fn holders(&self, place: &Path, seen: &mut BTreeSet<String>) -> Vec<Device> {
        let mut found = Vec::new();
        for entry in fs::read_dir(place.join("holders")).into_iter().flatten().flatten() {
            let file_name = entry.file_name().to_string_lossy().into_owned();
            if !seen.insert(file_name.clone()) {
                continue;
            }
            let place = self.sys.join("block").join(&file_name);
            found.extend(self.holders(&place, seen));
            let number = text(&place.join("dev")).unwrap_or_default();
            found.insert(0, Device { name: file_name.replace('!', "/"), number });
        }
        found
    }

    /// Number, source and place of each mount (proc_pid_mountinfo(5)).
    fn mounts(&self) -> Vec<(String, String, String)> {
        let mounts = fs::read_to_string(self.proc.join("self/mountinfo")).unwrap_or_default();
        let mount = |line: &str| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = before.split(' ');
            let (number, at) = (fields.nth(2)?.to_owned(), fields.nth(1)?);
            Some((number, unescaped(after.split(' ').nth(1)?), printable(&unescaped(at))))
        };
        mounts.lines().filter_map(mount).collect()
    }
}

/// A property of a device, of what udev knows of it.
fn property(known: &str, key: &str) -> Option<String> {
    let of = |line: &str| Some(line.strip_prefix("E:")?.strip_prefix(key)?.strip_prefix('=')?.to_owned());
    known.lines().find_map(of).map(|text| printable(text.trim())).filter(|text| !text.is_empty())
}

/// A file of /sys or /proc, if there is something in it.
fn text(path: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&fs::read(path).ok()?).trim().to_owned();
    let text: String = text.lines().map(printable).collect::<Vec<_>>().join("\n");
    Some(text).filter(|text| !text.is_empty())
}

/// `\040` is a blank.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn kind(name: &str) -> Kind {
    match name {
        _ if name.starts_with("sr") => Kind::Optical,
        _ if name.starts_with("loop") => Kind::Loop,
        _ if name.starts_with("dm-") || name.starts_with("md") || name.starts_with("bcache") => {
            Kind::Composite
        }
        _ => Kind::Disk,
    }
}

/// A World Wide Name as people compare them.
pub(super) fn bare_wwn(text: &str) -> String {
    let lower = text.trim().to_lowercase();
    let bare = ["0x", "naa.", "eui.", "nvme.", "uuid."].iter().find_map(|prefix| lower.strip_prefix(prefix));
    bare.unwrap_or(&lower).to_owned()
}

/// By the place of the device among all others: a USB disk is a SCSI disk, too.
fn bus(name: &str, place: &Path) -> &'static str {
    let is_below = |prefix: &str| place.iter().any(|part| part.to_string_lossy().starts_with(prefix));
    match name {
        _ if name.starts_with("loop") => "loop",
        _ if is_below("usb") => "usb",
        _ if name.starts_with("nvme") => "nvme",
        _ if name.starts_with("vd") || is_below("virtio") => "virtio",
        _ if name.starts_with("mmcblk") => "mmc",
        _ if name.starts_with("xvd") => "xen",
        _ if is_below("ata") => "ata",
        _ => "scsi",
    }
}

#[cfg(test)]
pub(super) mod tests;
