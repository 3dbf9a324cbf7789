//! The disks of this machine for a person who chooses one, and what has to be typed before one of them is written.

use std::io;

use super::disks::{Disk, Kind, System};
use super::judge;
use super::marks::{self, Found};
use super::refusal::Refusal;
use crate::base::input;
use crate::disk::FileDevice;

/// A disk, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    disk: Disk,
    found: Result<Found, String>,
}

/// All disks that could be meant, by name.
///
/// # Errors
/// What /sys says.
pub fn choices(system: &System) -> io::Result<Vec<Choice>> {
    let disks = system.disks()?;
    Ok(disks.into_iter().filter(|disk| disk.kind == Kind::Disk).map(Choice::of).collect())
}

/// The table of these disks, numbered from 1.
pub fn numbered(choices: &[Choice]) -> String {
    let rows: Vec<_> = choices.iter().map(|choice| (&choice.disk, choice.content())).collect();
    judge::table(&rows, true)
}

impl Choice {
    /// Looks at `disk`.
    pub(super) fn of(disk: Disk) -> Self {
        let look = || marks::look(&FileDevice::block(input::open_disk(disk.path())?)?);
        let found = look().map_err(|error| error.to_string());
        Self { disk, found }
    }

    /// Its device.
    pub fn path(&self) -> String {
        self.disk.path()
    }

    /// The maker's number.
    pub fn serial(&self) -> Option<&str> {
        self.disk.serial.as_deref().map(str::trim).filter(|serial| !serial.is_empty())
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.disk.size
    }

    /// What is on it, in a line.
    pub fn content(&self) -> String {
        let content = match &self.found {
            Ok(found) => found.line(),
            Err(error) => format!("unknown: {error}"),
        };
        if self.disk.has_system() { format!("the running system, {content}") } else { content }
    }

    /// Why it cannot be written, if so.
    pub fn refused(&self) -> Option<String> {
        if let Err(refusal) = judge::in_use(&self.disk) {
            return Some(refusal.to_string());
        }
        let unread = self.found.as_ref().err();
        unread.map(|error| format!("{} cannot be read: {error}", self.path()))
    }

    /// What has to be typed before what is on it may be lost; nothing where it is empty.
    pub fn to_type(&self) -> Option<String> {
        let found = self.found.as_ref().ok().filter(|found| !found.things.is_empty())?;
        Some(judge::wipe_name(&self.disk, found))
    }

    /// Whether `typed` names this disk, as `--wipe` does.
    pub fn is_named_by(&self, typed: &str) -> bool {
        let judge =
            |found| -> Result<(), Refusal> { judge::content(&self.disk, &self.path(), found, Some(typed)) };
        !typed.is_empty() && self.found.as_ref().is_ok_and(|found| judge(found).is_ok())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A disk that does not exist.
    pub(crate) fn choice(name: &str, serial: Option<&str>, things: &[&str], uses: &[&str]) -> Choice {
        let uses =
            uses.iter().map(|at| super::super::disks::Use::Mounted(format!("{name}1"), (*at).to_owned()));
        let disk = Disk {
            name: name.to_owned(),
            size: 8 << 30,
            kind: Kind::Disk,
            model: Some("ACME \u{1b}[2J".to_owned()),
            serial: serial.map(str::to_owned),
            wwn: None,
            bus: "ata",
            read_only: false,
            uses: uses.collect(),
            numbers: Vec::new(),
        };
        let things: Vec<String> = things.iter().map(|thing| (*thing).to_owned()).collect();
        let id = (!things.is_empty()).then(|| "abcdef0123".to_owned());
        Choice { disk, found: Ok(Found { things, id, unfinished: false }) }
    }

    #[test]
    fn a_disk_is_named_by_what_it_has() {
        let (empty, full) = (choice("sda", Some("S 1"), &[], &[]), choice("sdb", None, &["xfs"], &[]));
        assert_eq!((empty.to_type(), full.to_type().as_deref()), (None, Some("abcdef01")));
        assert!(empty.is_named_by("s 1 ") && !empty.is_named_by("") && !empty.is_named_by("S2"));
        assert!(full.is_named_by("ABCDEF") && !full.is_named_by("abc"));
        let used = choice("sdc", None, &["xfs"], &["/srv"]);
        assert!(used.refused().unwrap().contains("/dev/sdc1 is mounted at /srv") && full.refused().is_none());
        let unread = Choice { found: Err("Input/output error".into()), ..full };
        assert_eq!(unread.refused().unwrap(), "/dev/sdb cannot be read: Input/output error");
        assert!(!unread.is_named_by("abcdef"));
        let table = numbered(&[empty, unread]);
        assert!(table.contains("\n  #  Disk      Size     Model"), "{table}");
        assert!(
            table.ends_with(
                "\n  2  /dev/sdb  8.0 GiB  ACME \u{1b}[2J  -       ata  unknown: Input/output error"
            ),
            "{table}"
        );
    }
}
