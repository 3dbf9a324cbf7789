//! The firmware's boot entry: `Boot####` names the ESP by its GUID, and BootOrder begins with it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use crate::base::input;
use crate::boot::load_option::{self, ACTIVE, LARGEST, LoadOption, Node};
use crate::disk::SectorSize;
use crate::disk::gpt::Entry;

/// Where Linux shows the firmware's variables.
pub const EFIVARS: &str = "/sys/firmware/efi/efivars";
/// `EFI_GLOBAL_VARIABLE`.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept without power, there for programs before and after the system starts.
const ATTRIBUTES: u32 = 7;
/// The boot loader in the ESP, where an update replaces it.
const LOADER: &str = "\\EFI\\systemd\\systemd-bootx64.efi";

/// What became of the entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BootEntry {
    /// It is there and comes first, e.g. `Boot0003`.
    Set(String),
    /// It was not asked for.
    NotWanted,
    /// This system was not started by UEFI, or does not show its variables.
    NoFirmware,
    /// The firmware took it not, or not wholly: why.
    Failed(String),
}

/// The variables of a firmware.
pub(super) struct Firmware<'a> {
    /// Where they are.
    pub directory: &'a Path,
    /// How one is written: the attributes, then the value, all at once.
    pub write: &'a dyn Fn(&Path, &[u8]) -> io::Result<()>,
}

/// As efivarfs wants it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(bytes)
}

impl Firmware<'_> {
    /// Has the firmware start `esp`, on a disk with sectors of `sector` size, before all else, as `description`. An entry
    /// for one of the partitions `lost`, which are no more, gives its place.
    pub(super) fn start_first(
        &self,
        esp: &Entry,
        sector: SectorSize,
        description: &str,
        lost: &[Uuid],
    ) -> BootEntry {
        if !fs::read_dir(self.directory).is_ok_and(|mut files| files.next().is_some()) {
            return BootEntry::NoFirmware;
        }
        match self.set(esp, sector, description, lost) {
            Ok(name) => BootEntry::Set(name),
            Err(error) => BootEntry::Failed(error.to_string()),
        }
    }

    /// Has the firmware start `esp` next, once; none where no entry names it.
    pub(super) fn start_next(&self, esp: &Entry) -> Option<BootEntry> {
        let names = |option: &LoadOption| option.partition() == Some(esp.guid);
        let known = self.entries().ok()?;
        let (number, _) = known.iter().find(|(_, option)| option.as_ref().is_some_and(names))?;
        Some(match self.put("BootNext", &number.to_le_bytes()) {
            Ok(()) => BootEntry::Set(format!("Boot{number:04X}")),
            Err(error) => BootEntry::Failed(error.to_string()),
        })
    }

    fn set(&self, esp: &Entry, sector: SectorSize, description: &str, lost: &[Uuid]) -> io::Result<String> {
        let known = self.entries()?;
        let option = LoadOption {
            attributes: ACTIVE,
            description: description.to_owned(),
            path: vec![
                Node::Partition {
                    number: esp.number,
                    start: esp.start / sector.bytes(),
                    size: esp.size / sector.bytes(),
                    guid: esp.guid,
                },
                Node::File(LOADER.to_owned()),
            ],
            data: Vec::new(),
        };
        let is_lost = |option: &LoadOption| option.partition().is_some_and(|guid| lost.contains(&guid));
        let dead = known.iter().find(|(_, option)| option.as_ref().is_some_and(is_lost));
        let free = || (0..=u16::MAX).find(|number| !known.iter().any(|(taken, _)| taken == number));
        let number = dead
            .map(|(number, _)| *number)
            .or_else(free)
            .ok_or_else(|| io::Error::other("there is no number left for an entry"))?;
        let name = format!("Boot{number:04X}");
        self.put(&name, &option.encode())?;
        let ordered =
            self.order().and_then(|order| self.put("BootOrder", &load_option::with_first(&order, number)));
        ordered.inspect_err(|_| {
            // An entry that nothing leads to takes room that the firmware has not.
            let _ = fs::remove_file(self.path(&name));
        })?;
        Ok(name)
    }

    /// The entries by their numbers, those that cannot be read too.
    fn entries(&self) -> io::Result<Vec<(u16, Option<LoadOption>)>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(self.directory)? {
            let name = file?.file_name().to_string_lossy().into_owned();
            let number =
                name.strip_prefix("Boot").and_then(|rest| rest.strip_suffix(GLOBAL)?.strip_suffix('-'));
            let number = number.filter(|digits| digits.len() == 4);
            let Some(number) = number.and_then(|digits| u16::from_str_radix(digits, 16).ok()) else {
                continue;
            };
            let option =
                self.get(&format!("Boot{number:04X}")).ok().and_then(|bytes| LoadOption::decode(&bytes));
            entries.push((number, option));
        }
        Ok(entries)
    }

    fn order(&self) -> io::Result<Vec<u16>> {
        match self.get("BootOrder") {
            Ok(bytes) => Ok(load_option::order(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}-{GLOBAL}"))
    }

    /// The value of a variable.
    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        input::open(self.path(name))?.take(LARGEST).read_to_end(&mut bytes)?;
        match bytes.split_at_checked(4) {
            Some((_, value)) => Ok(value.to_vec()),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} has no attributes"))),
        }
    }

    /// Writes a variable, and looks whether the firmware has it.
    fn put(&self, name: &str, value: &[u8]) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("writing {name}: {error}"));
        (self.write)(&self.path(name), &[&ATTRIBUTES.to_le_bytes(), value].concat()).map_err(named)?;
        match self.get(name).map_err(named)? == value {
            true => Ok(()),
            false => Err(io::Error::other(format!("the firmware has not kept {name}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::gpt::types;

    fn esp() -> Entry {
        let (type_guid, guid) = (types::ESP, Uuid::from_u128(77));
        Entry {
            number: 1,
            type_guid,
            guid,
            label: "esp".into(),
            start: 1 << 20,
            size: 64 << 20,
            attributes: 0,
        }
    }

    /// A firmware with two entries, of which the order has one.
    fn filled() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let firmware = Firmware { directory: directory.path(), write: &write };
        let other =
            LoadOption { attributes: 1, description: "PXE".into(), path: Vec::new(), data: Vec::new() };
        firmware.put("Boot0000", &other.encode()).unwrap();
        write(&firmware.path("Boot0002"), b"bad").unwrap();
        firmware.put("BootOrder", &[0, 0]).unwrap();
        directory
    }

    fn start(directory: &Path, write: &dyn Fn(&Path, &[u8]) -> io::Result<()>) -> BootEntry {
        Firmware { directory, write }.start_first(
            &esp(),
            SectorSize::B512,
            "keller node",
            &[Uuid::from_u128(5)],
        )
    }

    #[test]
    fn the_entry_gets_a_free_number_and_comes_first() {
        let directory = filled();
        assert_eq!(start(directory.path(), &write), BootEntry::Set("Boot0001".into()));
        let firmware = Firmware { directory: directory.path(), write: &write };
        assert_eq!(firmware.order().unwrap(), [1, 0]);
        let entry = LoadOption::decode(&firmware.get("Boot0001").unwrap()).unwrap();
        assert_eq!(
            (entry.partition(), entry.description.as_str()),
            (Some(Uuid::from_u128(77)), "keller node")
        );
        assert_eq!(
            entry.path[0],
            Node::Partition { number: 1, start: 2048, size: 131_072, guid: Uuid::from_u128(77) }
        );
        let raw = fs::read(firmware.path("Boot0001")).unwrap();
        assert_eq!(raw[..4], [7, 0, 0, 0]);
    }

    #[test]
    fn an_entry_that_is_there_is_started_next() {
        let directory = filled();
        let firmware = Firmware { directory: directory.path(), write: &write };
        assert_eq!(firmware.start_next(&esp()), None);
        start(directory.path(), &write);
        assert_eq!(firmware.start_next(&esp()), Some(BootEntry::Set("Boot0001".into())));
        assert_eq!(firmware.get("BootNext").unwrap(), [1, 0]);
    }

    #[test]
    fn an_entry_for_what_was_wiped_gives_its_place() {
        let directory = filled();
        let firmware = Firmware { directory: directory.path(), write: &write };
        let path = vec![Node::Partition { number: 1, start: 1, size: 1, guid: Uuid::from_u128(5) }];
        let old = LoadOption { attributes: 1, description: String::new(), path, data: Vec::new() };
        firmware.put("Boot0009", &old.encode()).unwrap();
        assert_eq!(start(directory.path(), &write), BootEntry::Set("Boot0009".into()));
        assert_eq!(firmware.order().unwrap(), [9, 0]);
    }

    #[test]
    fn a_firmware_that_is_full_or_forgets_is_told() {
        let directory = filled();
        let full = |path: &Path, bytes: &[u8]| match path.to_string_lossy().contains("BootOrder") {
            true => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            false => write(path, bytes),
        };
        let said = BootEntry::Failed("writing BootOrder: No space left on device (os error 28)".into());
        assert_eq!(start(directory.path(), &full), said);
        // Nothing is left of the try.
        assert!(!fs::exists(directory.path().join(format!("Boot0001-{GLOBAL}"))).unwrap());
        let forgets = |path: &Path, bytes: &[u8]| write(path, &bytes[..bytes.len() - 2]);
        let said = BootEntry::Failed("the firmware has not kept Boot0001".into());
        assert_eq!(start(directory.path(), &forgets), said);
    }

    #[test]
    fn without_firmware_there_is_nothing_to_set() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(start(directory.path(), &write), BootEntry::NoFirmware);
        assert_eq!(start(&directory.path().join("missing"), &write), BootEntry::NoFirmware);
    }
}
