//! A medium that carries a node document: a disk or partition with a FAT32 file system labelled `KELLER-NODE`.
//!
//! Looked at are the disks and partitions that the kernel shows, but for the disk that the node starts from, and of each
//! only the boot sector and, on FAT32, the root directory unless the label is there. Nothing is mounted, and nothing is written.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use super::console::Console;
use super::given::Given;
use super::modules::Loader;
use super::uevents::Uevents;
use crate::fs::fat::Reader;
use crate::fs::fat::reader::ReadError;
use crate::node::LARGEST;

/// The file system's label, as long as FAT allows.
const LABEL: &str = "KELLER-NODE";
/// The file on it.
const FILE: &str = "node.yaml";

const BLOCK: &str = "/sys/class/block";
const USB: &str = "/sys/bus/usb/devices";
/// USB's class of storage.
const STORAGE: &str = "08";
/// A stick is there a second or two after its port; the kernel itself waits for one.
const QUIET: Duration = Duration::from_millis(1500);
/// No longer than this in all.
const CAP: Duration = Duration::from_secs(8);

/// Waits for media on USB, which the boot disk does not wait for: at a `first` boot for any, later for those that the
/// kernel has begun with.
pub(super) fn wait(console: &Console, loader: &mut Loader, first: bool) {
    let usb = Path::new(USB);
    let has_ports = fs::read_dir(usb).is_ok_and(|mut list| list.next().is_some());
    if !has_ports {
        return;
    }
    let events = Uevents::listen();
    let end = Instant::now() + CAP;
    while (first || is_coming(usb)) && Instant::now() < end {
        while loader.load_for_devices(console) {}
        if !events.is_busy(QUIET) {
            break;
        }
    }
}

/// Whether a storage device on USB has no disk yet.
fn is_coming(usb: &Path) -> bool {
    fs::read_dir(usb).into_iter().flatten().flatten().any(|interface| {
        let interface = interface.path();
        let class = fs::read_to_string(interface.join("bInterfaceClass")).unwrap_or_default();
        class.trim() == STORAGE && !has_disk(&interface, 0)
    })
}

/// Whether there is a directory `block` below a device: host, target, unit.
fn has_disk(device: &Path, depth: u8) -> bool {
    depth < 5
        && fs::read_dir(device).into_iter().flatten().flatten().any(|entry| {
            let is_below = entry.file_type().is_ok_and(|kind| kind.is_dir());
            is_below && (entry.file_name() == "block" || has_disk(&entry.path(), depth + 1))
        })
}

/// The documents of all such media; `own` is the kernel's name of the disk that the node starts from.
pub(super) fn documents(own: &str) -> Vec<Result<Given, String>> {
    let mut names: Vec<String> = fs::read_dir(BLOCK)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| !belongs_to(&entry.path(), own))
        .map(|entry| entry.file_name().to_string_lossy().replace('!', "/"))
        .filter(|name| may_be_medium(name))
        .collect();
    names.sort();
    let open = |name: &String| Some((name.clone(), File::open(Path::new("/dev").join(name)).ok()?));
    names.iter().filter_map(open).filter_map(|(name, file)| document(&name, file)).collect()
}

/// Whether a device is the disk `own` or one of its partitions, which lie below it in /sys.
fn belongs_to(device: &Path, own: &str) -> bool {
    let own = own.replace('/', "!");
    let place = device.canonicalize().unwrap_or_else(|_| device.to_owned());
    place.components().any(|part| part.as_os_str() == own.as_str())
}

/// Leaves out what is memory, optical, or made of other disks.
fn may_be_medium(name: &str) -> bool {
    const NEVER: [&str; 8] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "mtdblock"];
    !NEVER.iter().any(|prefix| name.starts_with(prefix))
}

/// The document of a device, if it has our label.
fn document(name: &str, mut file: File) -> Option<Result<Given, String>> {
    let mut sector = [0; 512];
    file.read_exact(&mut sector).ok()?;
    let source = format!("{FILE} on the medium {LABEL} in {name}");
    let told = |why: &dyn std::fmt::Display| Some(Err(format!("{source}: {why}")));
    let mut reader = match Reader::open(file) {
        Ok(reader) => reader,
        // FAT12 and FAT16 have the label in another place (FATGEN, "BS_VolLab").
        Err(ReadError::NotFat32 { .. }) if sector[43..54] == *LABEL.as_bytes() => {
            return told(&"its file system is FAT12 or FAT16; `mkfs.vfat -F 32 -n KELLER-NODE` makes FAT32");
        }
        Err(_) => return None,
    };
    if reader.label().ok()? != LABEL {
        return None;
    }
    match reader.read(FILE, LARGEST) {
        Ok(bytes) => Some(Ok(Given { source, bytes })),
        Err(error) => told(&error),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::fs::fat::{Options, write};
    use crate::tree::Tree;

    fn medium(label: &str, text: Option<&str>) -> File {
        let options =
            Options { size: 34 << 20, sector_size: 512, volume_id: 1, label: label.to_owned(), mtime: 0 };
        let mut tree = Tree::new(0);
        if let Some(text) = text {
            tree.file("NODE.YAML", 0o644, text).unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(34 << 20).unwrap();
        write(&tree, &options, &mut file).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        file
    }

    #[test]
    fn only_what_has_the_label_is_read() {
        let given = document("sdb1", medium("KELLER-NODE", Some("node: 1\n"))).unwrap().unwrap();
        assert_eq!(given.source, "node.yaml on the medium KELLER-NODE in sdb1");
        assert_eq!(given.bytes, b"node: 1\n");
        assert_eq!(document("sdb1", medium("OTHER", Some("node: 1\n"))), None);
        let told = document("sdb1", medium("KELLER-NODE", None)).unwrap().unwrap_err();
        assert!(told.contains("node.yaml does not exist"), "{told}");
        let small = tempfile::tempfile().unwrap();
        let mut sector = [0; 512];
        sector[43..54].copy_from_slice(LABEL.as_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        io::Write::write_all(&mut &small, &sector).unwrap();
        io::Seek::rewind(&mut &small).unwrap();
        assert!(document("fd1", small).unwrap().unwrap_err().contains("FAT12 or FAT16"));
    }

    #[test]
    fn a_stick_is_coming_until_it_has_a_disk() {
        let usb = tempfile::tempdir().unwrap();
        let interface = usb.path().join("1-1:1.0");
        fs::create_dir(&interface).unwrap();
        fs::write(interface.join("bInterfaceClass"), "08\n").unwrap();
        assert!(is_coming(usb.path()));
        fs::create_dir_all(interface.join("host2/target2:0:0/2:0:0:0/block/sda")).unwrap();
        assert!(!is_coming(usb.path()));
        assert!(belongs_to(&interface.join("host2/target2:0:0/2:0:0:0/block/sda"), "sda"));
    }
}
