use std::os::unix::fs::symlink;

use super::*;

/// A machine that is made of files.
pub(crate) struct Fake {
    directory: tempfile::TempDir,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let fake = Self { directory: tempfile::tempdir().unwrap() };
        fake.put("proc/self/mountinfo", "1 1 0:2 / / rw - tmpfs none rw\n");
        fake.put("proc/swaps", "Filename\tType\tSize\n");
        fs::create_dir_all(fake.path("sys/block")).unwrap();
        fs::create_dir_all(fake.path("udev")).unwrap();
        fake
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn system(&self) -> System {
        System {
            sys: self.path("sys"),
            proc: self.path("proc"),
            udev: self.path("udev"),
            loader: Some(Uuid::from_u128(7)),
        }
    }

    /// A disk at `place` below /sys/devices.
    pub(crate) fn disk(&self, name: &str, place: &str, number: &str, gib: u64) {
        let own = format!("sys/devices/{place}/block/{name}");
        self.put(&format!("{own}/size"), &format!("{}\n", gib << 21));
        self.put(&format!("{own}/dev"), &format!("{number}\n"));
        self.put(&format!("{own}/ro"), "0\n");
        symlink(format!("../devices/{place}/block/{name}"), self.path(&format!("sys/block/{name}"))).unwrap();
    }

    pub(crate) fn partition(&self, disk: &str, name: &str, number: &str) {
        self.put(&format!("sys/block/{disk}/{name}/partition"), "1\n");
        self.put(&format!("sys/block/{disk}/{name}/dev"), &format!("{number}\n"));
    }

    fn one(&self, name: &str) -> Disk {
        self.system().disks().unwrap().into_iter().find(|disk| disk.name == name).unwrap()
    }
}

#[test]
fn the_medium_that_a_system_in_memory_was_started_from_is_its_own() {
    let fake = Fake::new();
    fake.disk("sda", "pci0/usb1/host0", "8:0", 8);
    fake.partition("sda", "sda1", "8:1");
    fake.disk("sdb", "pci0/ata1/host1", "8:16", 8);
    fake.partition("sdb", "sdb1", "8:17");
    fake.put("udev/b8:1", "E:ID_PART_ENTRY_UUID=00000000-0000-0000-0000-000000000007\n");
    fake.put("udev/b8:17", "E:ID_PART_ENTRY_UUID=00000000-0000-0000-0000-000000000008\n");
    assert!(fake.one("sda").has_system() && !fake.one("sdb").has_system());
}

#[test]
fn boot_partitions_of_an_emmc_are_no_disks() {
    let fake = Fake::new();
    fake.disk("mmcblk0", "pci0/mmc0", "179:0", 32);
    fake.disk("mmcblk0boot0", "pci0/mmc0/boot0", "179:8", 1);
    let names: Vec<String> = fake.system().disks().unwrap().into_iter().map(|disk| disk.name).collect();
    assert_eq!(names, ["mmcblk0"]);
}

#[test]
fn disks_are_known_by_what_kernel_and_udev_say() {
    let fake = Fake::new();
    fake.disk("sda", "pci0/ata1/host0/target0", "8:0", 100);
    fake.put("sys/block/sda/device/model", "SAMSUNG MZ7 \u{1b}[2J \n");
    fake.put("sys/block/sda/device/wwid", "naa.5002538E00001111\n");
    fake.put("udev/b8:0", "S:disk/by-id/x\nE:ID_SERIAL=SAMSUNG_S1\nE:ID_SERIAL_SHORT=S1\n");
    fake.disk("sdb", "pci0/usb1/1-1/host1", "8:16", 8);
    fake.disk("nvme0n1", "pci0/nvme/nvme0", "259:0", 200);
    fake.put("sys/block/nvme0n1/device/serial", "N1  \n");
    fake.put("sys/block/nvme0n1/wwid", "eui.0025385\n");
    fake.put("sys/block/nvme0n1/ro", "1\n");
    fake.disk("nvme0c1n1", "pci0/nvme/nvme1", "259:1", 200);
    fake.put("sys/block/nvme0c1n1/hidden", "1\n");
    fake.disk("sr0", "pci0/ata2/host2", "11:0", 1);
    fake.disk("zram0", "virtual", "252:0", 1);
    fake.disk("sdc", "pci0/usb1/1-2/host3", "8:32", 0);
    fake.disk("dm-0", "virtual", "253:0", 9);
    let disks = fake.system().disks().unwrap();
    let names: Vec<_> = disks.iter().map(|disk| (disk.name.as_str(), disk.bus, disk.kind)).collect();
    let expected = [
        ("dm-0", "scsi", Kind::Composite),
        ("nvme0n1", "nvme", Kind::Disk),
        ("sda", "ata", Kind::Disk),
        ("sdb", "usb", Kind::Disk),
        ("sr0", "ata", Kind::Optical),
    ];
    assert_eq!(names, expected);
    let sda = &disks[2];
    // A device that tells lies about its name moves no cursor.
    assert_eq!(sda.model.as_deref(), Some("SAMSUNG MZ7 ?[2J"));
    assert_eq!((sda.serial.as_deref(), sda.wwn.as_deref()), (Some("S1"), Some("5002538e00001111")));
    assert_eq!((sda.size, sda.read_only, &sda.uses), (100 << 30, false, &vec![]));
    let nvme = &disks[1];
    assert_eq!((nvme.serial.as_deref(), nvme.wwn.as_deref()), (Some("N1"), Some("0025385")));
    assert!(nvme.read_only);
}

#[test]
fn uses_are_seen_through_what_is_made_of_a_disk() {
    let fake = Fake::new();
    fake.disk("sda", "pci0/ata1", "8:0", 100);
    fake.partition("sda", "sda1", "8:1");
    fake.partition("sda", "sda2", "8:2");
    fake.partition("sda", "sda3", "8:3");
    fake.put("sys/block/sda/sda2/holders/dm-0", "");
    fake.disk("dm-0", "virtual", "253:0", 9);
    fake.put("sys/block/dm-0/holders/dm-1", "");
    fake.disk("dm-1", "virtual", "253:1", 9);
    fake.put(
        "proc/self/mountinfo",
        "1 1 253:1 / / rw shared:1 - ext4 /dev/mapper/root rw\n\
         2 1 8:1 / /mnt/a\\040b rw - vfat /dev/sda1 rw\n\
         3 1 0:99 /sub /data rw - btrfs /dev/sda3 rw\n",
    );
    fake.put("proc/swaps", "Filename\tType\tSize\n/dev/dm-0 partition 9 0 -2\n");
    let held = |by: &str| Use::Held("sda2".into(), by.into());
    let mounted = |device: &str, at: &str| Use::Mounted(device.into(), at.into());
    assert_eq!(
        fake.one("sda").uses,
        [
            Use::System,
            mounted("dm-1", "/"),
            mounted("sda1", "/mnt/a b"),
            mounted("sda3", "/data"),
            Use::Swap("dm-0".into()),
            held("dm-0"),
            held("dm-1"),
        ]
    );
    assert!(fake.one("sda").has_system());
}
