//! Which refusal a disk earns: for what is on it, for what it is, for what uses it.

use std::fmt::Write as _;

use super::disks::{Disk, Kind, Use};
use super::marks::Found;
use super::refusal::Refusal;
use crate::base::Size;
use crate::disk::unfold::UnfoldError;

/// The fewest characters of `--wipe` where a disk has no serial number.
const LEAST: usize = 6;

/// What names `disk` for `--wipe`: its serial number, else the beginning of what tells its content.
pub(super) fn wipe_name(disk: &Disk, found: &Found) -> String {
    let id = || found.id.as_deref().map(|id| id.chars().take(8).collect());
    disk.serial.clone().filter(|serial| !serial.is_empty()).or_else(id).unwrap_or_else(|| disk.name.clone())
}

/// Refuses a disk with something on it, unless `wipe` names it.
pub(super) fn content(disk: &Disk, path: &str, found: &Found, wipe: Option<&str>) -> Result<(), Refusal> {
    let name = wipe_name(disk, found);
    let Some(given) = wipe else {
        return match found.things.is_empty() {
            true => Ok(()),
            false => {
                Err(Refusal::Occupied { path: path.to_owned(), things: found.line(), wipe: quoted(&name) })
            }
        };
    };
    let is_serial =
        disk.serial.as_deref().is_some_and(|serial| serial.trim().eq_ignore_ascii_case(given.trim()));
    let is_id = disk.serial.is_none()
        && given.len() >= LEAST
        && found.id.as_deref().is_some_and(|id| id.to_lowercase().starts_with(&given.to_lowercase()));
    // Without a number of its own, an empty disk has nothing that could be named, and nothing to lose.
    match is_serial || is_id || (disk.serial.is_none() && found.things.is_empty()) {
        true => Ok(()),
        false => Err(Refusal::OtherWipe { given: given.to_owned(), path: path.to_owned(), is: name }),
    }
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.:".contains(letter);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Why an image cannot become the disk of a node at `path`.
pub(super) fn too_small(error: UnfoldError, path: &str) -> anyhow::Error {
    match error {
        UnfoldError::DiskTooSmall { has, needs } => {
            Refusal::TooSmall { path: path.to_owned(), has, needs }.into()
        }
        other => other.into(),
    }
}

/// Refuses a disk that cannot be written, or is in use.
pub(super) fn in_use(disk: &Disk) -> Result<(), Refusal> {
    let path = disk.path();
    match disk.kind {
        Kind::Disk | Kind::Loop => {}
        Kind::Optical => return Err(Refusal::Optical { path }),
        Kind::Composite => return Err(Refusal::Composite { path }),
    }
    if disk.read_only {
        return Err(Refusal::ReadOnly { path });
    }
    let device = |name: &String| format!("/dev/{name}");
    match disk.uses.first() {
        None => Ok(()),
        Some(Use::System) => Err(Refusal::System { path }),
        Some(Use::Mounted(name, at)) => Err(Refusal::Mounted { path, device: device(name), at: at.clone() }),
        Some(Use::Swap(name)) => Err(Refusal::Swap { path, device: device(name) }),
        Some(Use::Held(name, by)) => Err(Refusal::Held { path, device: device(name), by: device(by) }),
    }
}

/// All `disks` with what is on them, for a person who has to name one, with a number before each where that will do.
pub(super) fn table(disks: &[(&Disk, String)], is_numbered: bool) -> String {
    if disks.is_empty() {
        return "This machine shows no disk: the driver of its controller may be missing".to_owned();
    }
    let mut rows = vec![["#", "Disk", "Size", "Model", "Serial", "Bus", "What is on it"].map(str::to_owned)];
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for ((disk, content), number) in disks.iter().zip(1..) {
        rows.push([
            number.to_string(),
            disk.path(),
            Size(disk.size).human(),
            dash(&disk.model),
            dash(&disk.serial),
            disk.bus.to_owned(),
            content.clone(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    let first = usize::from(!is_numbered);
    let mut text = "This machine has:".to_owned();
    for row in &rows {
        text.push_str("\n  ");
        for (cell, width) in row.iter().zip(&widths).skip(first) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.push_str(&row[6]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        Disk {
            name: "sda".into(),
            size: 100 << 30,
            kind: Kind::Disk,
            model: Some("ACME".into()),
            serial: Some("S1".into()),
            wwn: None,
            bus: "ata",
            read_only: false,
            uses: Vec::new(),
            numbers: Vec::new(),
        }
    }

    fn told(change: impl Fn(&mut Disk)) -> String {
        let mut disk = disk();
        change(&mut disk);
        in_use(&disk).map_or_else(|refusal| refusal.to_string(), |()| String::new())
    }

    #[test]
    fn a_free_disk_is_taken() {
        assert_eq!(told(|_| {}), "");
    }

    #[test]
    fn an_optical_drive_is_refused() {
        assert_eq!(told(|disk| disk.kind = Kind::Optical), "/dev/sda is an optical drive: name a disk");
    }

    #[test]
    fn what_is_made_of_disks_is_refused() {
        let said = told(|disk| disk.kind = Kind::Composite);
        assert!(said.starts_with("/dev/sda is made of other disks (device mapper, RAID, bcache)"), "{said}");
    }

    #[test]
    fn a_read_only_disk_is_refused() {
        let said = told(|disk| disk.read_only = true);
        assert!(said.starts_with("/dev/sda is read-only: take the write protection off"), "{said}");
    }

    #[test]
    fn the_disk_of_the_running_system_is_refused() {
        let uses = vec![Use::System, Use::Mounted("sda2".into(), "/".into())];
        let said = told(|disk| disk.uses = uses.clone());
        assert_eq!(
            said,
            "/dev/sda holds the running system: start from another medium, or name another disk"
        );
    }

    #[test]
    fn a_mounted_disk_is_refused() {
        let said = told(|disk| disk.uses = vec![Use::Mounted("sda1".into(), "/srv".into())]);
        assert!(
            said.starts_with("/dev/sda is in use: /dev/sda1 is mounted at /srv. Run `umount /srv`"),
            "{said}"
        );
    }

    #[test]
    fn swap_is_refused() {
        let said = told(|disk| disk.uses = vec![Use::Swap("sda2".into())]);
        assert!(said.starts_with("/dev/sda is in use: /dev/sda2 is swap. Run `swapoff /dev/sda2`"), "{said}");
    }

    #[test]
    fn a_disk_with_holders_is_refused() {
        let said = told(|disk| disk.uses = vec![Use::Held("sda2".into(), "dm-0".into())]);
        assert!(
            said.starts_with("/dev/sda is in use: /dev/dm-0 is made of /dev/sda2. Take that apart"),
            "{said}"
        );
    }

    #[test]
    fn what_is_on_a_disk_goes_only_when_it_is_named() {
        let found = Found { things: vec!["xfs".into()], id: Some("abcdef0123".into()), unfinished: false };
        let judge = |disk: &Disk, found: &Found, wipe| {
            let judged = content(disk, "/dev/sda", found, wipe);
            judged.map_or_else(|refusal| refusal.to_string(), |()| String::new())
        };
        let (named, nameless) = (disk(), Disk { serial: None, ..disk() });
        assert_eq!(
            judge(&named, &found, None),
            "/dev/sda is not empty, it has xfs: what is there would be lost. If that is meant, add --wipe S1"
        );
        assert!(judge(&nameless, &found, None).ends_with("add --wipe abcdef01"));
        let blank = Disk { serial: Some("S 1".into()), ..disk() };
        assert!(judge(&blank, &found, None).ends_with("add --wipe 'S 1'"));
        for (disk, found, wipe) in [
            (&named, &found, "S1"),
            (&named, &found, "s1"),
            (&nameless, &found, "abcdef"),
            (&nameless, &found, "ABCDEF01"),
            (&named, &Found::default(), "S1"),
            (&nameless, &Found::default(), "abcdef"),
        ] {
            assert_eq!(judge(disk, found, Some(wipe)), "", "{wipe}");
        }
        assert_eq!(judge(&named, &found, Some("S2")), "--wipe S2 names another disk: /dev/sda is S1");
        // Where there is a number, nothing else counts: two disks may have one table.
        assert_eq!(judge(&named, &found, Some("abcdef")), "--wipe abcdef names another disk: /dev/sda is S1");
        assert_eq!(
            judge(&named, &Found::default(), Some("S2")),
            "--wipe S2 names another disk: /dev/sda is S1"
        );
        assert_eq!(
            judge(&nameless, &found, Some("abc")),
            "--wipe abc names another disk: /dev/sda is abcdef01"
        );
    }

    #[test]
    fn the_table_has_all_that_a_person_needs() {
        let other = Disk { name: "nvme0n1".into(), model: None, serial: None, bus: "nvme", ..disk() };
        assert_eq!(
            table(&[(&disk(), "nothing".into()), (&other, "xfs".into())], false),
            "This machine has:\n  \
             Disk          Size       Model  Serial  Bus   What is on it\n  \
             /dev/sda      100.0 GiB  ACME   S1      ata   nothing\n  \
             /dev/nvme0n1  100.0 GiB  -      -       nvme  xfs"
        );
        assert!(table(&[], true).starts_with("This machine shows no disk"));
    }
}
