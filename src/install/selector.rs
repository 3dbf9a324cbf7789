//! Which disk is meant, in words that are true of it: `serial=S1`, `bus=nvme,size=400GiB..,smallest`.

use std::fmt;
use std::str::FromStr;

use super::disks::{Disk, Kind, bare_wwn};
use crate::base::Size;

/// What a disk must be. All that is said must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    serial: Option<String>,
    wwn: Option<String>,
    model: Option<String>,
    bus: Option<String>,
    /// Bounds in bytes, both within.
    size: Option<(u64, u64)>,
    pick: Option<Pick>,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pick {
    Smallest,
    Largest,
}

/// What is wrong with the text of a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A word that says nothing of a disk.
    #[error(
        "{word:?} says nothing of a disk: expected serial=, wwn=, model=, bus=, size=, smallest or largest"
    )]
    Word {
        /// As given.
        word: String,
    },
    /// A word that stands twice.
    #[error("{key} stands twice")]
    Twice {
        /// What stands before `=`.
        key: String,
    },
    /// A word without a value.
    #[error("{key}= has no value")]
    Empty {
        /// What stands before `=`.
        key: String,
    },
    /// A bus that no disk has.
    #[error("{bus:?} is no bus: expected {}", BUSES.join(", "))]
    Bus {
        /// As given.
        bus: String,
    },
    /// Bounds that are none.
    #[error("size={text} has no bounds: expected such as size=100GiB.., size=..2TiB or size=100GiB..2TiB")]
    Bounds {
        /// As given.
        text: String,
    },
}

/// See [`Disk::bus`].
const BUSES: [&str; 8] = ["ata", "loop", "mmc", "nvme", "scsi", "usb", "virtio", "xen"];

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut selector = Self { text: text.to_owned(), ..Self::default() };
        for word in text.split(',').map(str::trim) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let twice = || SelectorError::Twice { key: key.to_owned() };
            let pick = match word {
                "smallest" => Some(Pick::Smallest),
                "largest" => Some(Pick::Largest),
                _ => None,
            };
            if let Some(pick) = pick {
                match selector.pick.replace(pick) {
                    Some(_) => return Err(SelectorError::Twice { key: "smallest or largest".to_owned() }),
                    None => continue,
                }
            }
            let value = value.trim().to_owned();
            let place = match key {
                "serial" => &mut selector.serial,
                "wwn" => &mut selector.wwn,
                "model" => &mut selector.model,
                "bus" => &mut selector.bus,
                "size" if !word.contains('=') || value.is_empty() => {
                    return Err(SelectorError::Empty { key: key.to_owned() });
                }
                "size" => match selector.size.replace(bounds(&value)?) {
                    Some(_) => return Err(twice()),
                    None => continue,
                },
                _ => return Err(SelectorError::Word { word: word.to_owned() }),
            };
            if value.is_empty() {
                return Err(SelectorError::Empty { key: key.to_owned() });
            }
            if key == "bus" && !BUSES.contains(&value.as_str()) {
                return Err(SelectorError::Bus { bus: value });
            }
            if place.replace(value).is_some() {
                return Err(twice());
            }
        }
        Ok(selector)
    }
}

fn bounds(text: &str) -> Result<(u64, u64), SelectorError> {
    let wrong = || SelectorError::Bounds { text: text.to_owned() };
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let bound = |text: &str, open| match text.is_empty() {
        true => Ok(open),
        false => text.parse::<Size>().map(Size::bytes).map_err(|_| wrong()),
    };
    let (from, to) = (bound(from, 0)?, bound(to, u64::MAX)?);
    match from <= to && (from, to) != (0, u64::MAX) {
        true => Ok((from, to)),
        false => Err(wrong()),
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Selector {
    /// Those of `disks` that are meant: exactly one, if all is well. The disk that the running system is on is never meant,
    /// nor is one that no firmware starts, unless its bus is named.
    pub fn choose<'d>(&self, disks: &'d [Disk]) -> Vec<&'d Disk> {
        let mut fitting: Vec<&Disk> = disks.iter().filter(|disk| self.fits(disk)).collect();
        let wanted = match self.pick {
            Some(Pick::Smallest) => fitting.iter().map(|disk| disk.size).min(),
            Some(Pick::Largest) => fitting.iter().map(|disk| disk.size).max(),
            None => None,
        };
        if let Some(size) = wanted {
            fitting.retain(|disk| disk.size == size);
        }
        fitting
    }

    fn fits(&self, disk: &Disk) -> bool {
        let same = |wanted: &Option<String>, is: &Option<String>, form: fn(&str) -> String| {
            wanted.as_ref().is_none_or(|wanted| is.as_ref().is_some_and(|is| form(is) == form(wanted)))
        };
        let kind = match disk.kind {
            Kind::Disk => true,
            Kind::Loop => self.bus.as_deref() == Some("loop"),
            Kind::Optical | Kind::Composite => false,
        };
        kind && !disk.has_system()
            && same(&self.serial, &disk.serial, |text| text.trim().to_lowercase())
            && same(&self.wwn, &disk.wwn, bare_wwn)
            && self.bus.as_ref().is_none_or(|bus| bus == disk.bus)
            && self.size.is_none_or(|(from, to)| (from..=to).contains(&disk.size))
            && self.model.as_ref().is_none_or(|wanted| {
                disk.model.as_ref().is_some_and(|model| is_like(&plain(model), &plain(wanted)))
            })
    }
}

/// udev writes `_` for blanks.
fn plain(model: &str) -> String {
    model.trim().replace('_', " ").to_lowercase()
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::super::disks::Use;
    use super::*;

    fn disk(name: &str, bus: &'static str, gib: u64) -> Disk {
        Disk {
            name: name.into(),
            size: gib << 30,
            kind: Kind::Disk,
            model: Some(format!("ACME_Fast {name}")),
            serial: Some(format!("S-{name}")),
            wwn: Some(format!("5000{name}")),
            bus,
            read_only: false,
            uses: Vec::new(),
            numbers: Vec::new(),
        }
    }

    fn disks() -> Vec<Disk> {
        let system = Disk { uses: vec![Use::System], ..disk("sda", "usb", 8) };
        let cd = Disk { kind: Kind::Optical, ..disk("sr0", "ata", 1) };
        let file = Disk { kind: Kind::Loop, ..disk("loop0", "loop", 1) };
        vec![
            system,
            disk("nvme0n1", "nvme", 400),
            disk("nvme1n1", "nvme", 400),
            disk("sdb", "ata", 100),
            cd,
            file,
        ]
    }

    #[test]
    fn what_is_said_must_be_so() {
        for (text, expected) in [
            ("serial=s-NVME0n1", "nvme0n1"),
            ("wwn=0x5000SDB", "sdb"),
            ("bus=ata", "sdb"),
            ("model=ACME Fast sdb", "sdb"),
            ("model=*fast*1n1", "nvme1n1"),
            ("size=..100GiB", "sdb"),
            ("size=101GiB..", "nvme0n1 nvme1n1"),
            ("size=50GiB..200GiB", "sdb"),
            ("smallest", "sdb"),
            ("largest", "nvme0n1 nvme1n1"),
            ("bus=nvme,smallest,serial=S-nvme1n1", "nvme1n1"),
            ("bus=loop", "loop0"),
            ("bus=usb", ""),
            ("serial=S-sr0", ""),
            ("serial=other,bus=ata", ""),
        ] {
            let disks = disks();
            let chosen: Vec<&str> = text
                .parse::<Selector>()
                .unwrap()
                .choose(&disks)
                .iter()
                .map(|disk| disk.name.as_str())
                .collect();
            assert_eq!(chosen.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn slips_are_named() {
        for (text, said) in [
            (
                "",
                "\"\" says nothing of a disk: expected serial=, wwn=, model=, bus=, size=, smallest or largest",
            ),
            (
                "name=sda",
                "\"name=sda\" says nothing of a disk: expected serial=, wwn=, model=, bus=, size=, smallest or largest",
            ),
            ("serial=", "serial= has no value"),
            ("serial", "serial= has no value"),
            ("size", "size= has no value"),
            ("serial=a,serial=b", "serial stands twice"),
            ("smallest,largest", "smallest or largest stands twice"),
            ("bus=sata", "\"sata\" is no bus: expected ata, loop, mmc, nvme, scsi, usb, virtio, xen"),
            (
                "size=5GiB",
                "size=5GiB has no bounds: expected such as size=100GiB.., size=..2TiB or size=100GiB..2TiB",
            ),
            (
                "size=..",
                "size=.. has no bounds: expected such as size=100GiB.., size=..2TiB or size=100GiB..2TiB",
            ),
            (
                "size=2TiB..1TiB",
                "size=2TiB..1TiB has no bounds: expected such as size=100GiB.., size=..2TiB or size=100GiB..2TiB",
            ),
        ] {
            assert_eq!(text.parse::<Selector>().unwrap_err().to_string(), said);
        }
    }
}
