//! Which disk is meant, in words that are true of it: `serial=S1`, `bus=nvme,size=400GiB..,smallest`.

use std::fmt;
use std::str::FromStr;

use crate::base::Size;

/// What a disk must be. All that is said must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Its serial number.
    pub serial: Option<String>,
    /// World Wide Name.
    pub wwn: Option<String>,
    /// Its model, in which `*` stands for anything.
    pub model: Option<String>,
    /// What it hangs on.
    pub bus: Option<String>,
    /// Bounds in bytes, both within.
    pub size: Option<(u64, u64)>,
    /// Which of those that fit.
    pub pick: Option<Pick>,
    /// As it was written.
    text: String,
}

/// By its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The one with the fewest bytes.
    Smallest,
    /// The one with the most.
    Largest,
}

/// What is wrong with the text of a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A word that does not describe a disk.
    #[error(
        "{word:?} does not describe a disk: expected serial=, wwn=, model=, bus=, size=, smallest or largest"
    )]
    Word {
        /// As given.
        word: String,
    },
    /// A word that is given twice.
    #[error("{key} is given twice")]
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
    #[error("{bus:?} is not a bus: expected {}", BUSES.join(", "))]
    Bus {
        /// As given.
        bus: String,
    },
    /// A size that is not a range.
    #[error(
        "size={text} is not a range: expected a range such as size=100GiB.., size=..2TiB or size=100GiB..2TiB"
    )]
    Bounds {
        /// As given.
        text: String,
    },
}

/// What disks hang on.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_named() {
        for (text, said) in [
            (
                "",
                "\"\" does not describe a disk: expected serial=, wwn=, model=, bus=, size=, smallest or largest",
            ),
            (
                "name=sda",
                "\"name=sda\" does not describe a disk: expected serial=, wwn=, model=, bus=, size=, smallest or largest",
            ),
            ("serial=", "serial= has no value"),
            ("serial", "serial= has no value"),
            ("size", "size= has no value"),
            ("serial=a,serial=b", "serial is given twice"),
            ("smallest,largest", "smallest or largest is given twice"),
            ("bus=sata", "\"sata\" is not a bus: expected ata, loop, mmc, nvme, scsi, usb, virtio, xen"),
            (
                "size=5GiB",
                "size=5GiB is not a range: expected a range such as size=100GiB.., size=..2TiB or size=100GiB..2TiB",
            ),
            (
                "size=..",
                "size=.. is not a range: expected a range such as size=100GiB.., size=..2TiB or size=100GiB..2TiB",
            ),
            (
                "size=2TiB..1TiB",
                "size=2TiB..1TiB is not a range: expected a range such as size=100GiB.., size=..2TiB or size=100GiB..2TiB",
            ),
        ] {
            assert_eq!(text.parse::<Selector>().unwrap_err().to_string(), said);
        }
    }
}
