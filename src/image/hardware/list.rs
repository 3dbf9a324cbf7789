//! The devices of a machine, as `lspci` or the kernel's `modalias` files name them.
//!
//! Source: lspci(8) and its show_machine() and show_terse(); Linux, scripts/mod/file2alias.c (do_pci_entry) and
//! drivers/pci/pci-sysfs.c (modalias_show).

use std::collections::BTreeMap;

use crate::base::limits;

/// What a driver finds a device by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    /// A function of a PCI device.
    Pci(Pci),
    /// Anything else: the kernel's `modalias`.
    Other(String),
}

/// Numbers of a PCI function. What a list does not say is `None`, and any number counts for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pci {
    /// Who made the chip.
    pub vendor: Option<u32>,
    /// Its number there.
    pub device: Option<u32>,
    /// Who made the card.
    pub subvendor: Option<u32>,
    /// Its number there.
    pub subdevice: Option<u32>,
    /// Base class, such as 0x01 for disks.
    pub class: Option<u32>,
    /// Subclass.
    pub subclass: Option<u32>,
    /// Programming interface.
    pub interface: Option<u32>,
}

/// One device, or several that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where the list names it first, counted from 1.
    pub line: usize,
    /// Its address on the bus, where the list says it.
    pub place: Option<String>,
    /// How often the list has it, without an address that would tell them apart.
    pub count: usize,
    /// What drivers find it by.
    pub id: Id,
}

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ListError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it, and what to do.
    pub what: String,
}

/// What gives a list that can be read.
const COMMANDS: &str = "`lspci -nmm` or `cat /sys/bus/*/devices/*/modalias`";

/// Reads what `lspci -nmm`, `-nnmm`, `-nnvmm`, `-n` and `-nn` print, and lists of modaliases, mixed as they may be.
///
/// # Errors
/// The first line that is none of these; a list without devices, or with too many.
pub fn parse(bytes: &[u8]) -> Result<Vec<Device>, ListError> {
    let mut list = List::default();
    for (bytes, line) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        let error = |what: String| ListError { line, what };
        let text = std::str::from_utf8(bytes).map_err(|_| error("it is not text".to_owned()))?;
        if text.contains(|letter: char| letter.is_control() && !matches!(letter, '\t' | '\r')) {
            return Err(error("it is not text".to_owned()));
        }
        list.line(line, text.trim_end()).map_err(|what| {
            // A device of several lines is told where it begins.
            let line = list.failed_block.take().unwrap_or(line);
            ListError { line, what }
        })?;
        if list.devices.len() > limits::DEVICES {
            return Err(error(format!("there are more than {} devices", limits::DEVICES)));
        }
    }
    list.end_block().map_err(|what| ListError { line: list.block_line, what })?;
    if list.devices.is_empty() {
        return Err(ListError {
            line: 1,
            what: format!("there are no devices: give what {COMMANDS} prints"),
        });
    }
    Ok(list.devices)
}

#[derive(Default)]
struct List {
    devices: Vec<Device>,
    /// Where devices without an address lie in the list.
    known: BTreeMap<Id, usize>,
    /// Names and values of a device of `lspci -vmm`, from this line on.
    block: BTreeMap<String, String>,
    block_line: usize,
    /// Where one began that says too little.
    failed_block: Option<usize>,
    /// Whether further lines, set in, may follow of the last device.
    open: bool,
}

impl List {
    fn line(&mut self, line: usize, text: &str) -> Result<(), String> {
        if text.is_empty() {
            self.open = false;
            return self.end_block();
        }
        if text.starts_with([' ', '\t']) {
            return self.continued(text.trim_start());
        }
        if let Some((name, value)) = text.split_once(":\t") {
            if name == "Slot" {
                self.end_block()?;
                self.block_line = line;
            } else if self.block.is_empty() {
                return Err(format!("a device begins with `Slot:`; give what {COMMANDS} prints"));
            }
            self.block.insert(name.to_owned(), value.trim().to_owned());
            return Ok(());
        }
        self.end_block()?;
        let first = text.split(' ').next().unwrap_or_default();
        if let Some(place) = address(first) {
            let pci = pci_line(text[first.len()..].trim_start())?;
            self.devices.push(Device { line, place: Some(place.to_owned()), count: 1, id: Id::Pci(pci) });
            self.open = !text.contains('"');
            return Ok(());
        }
        self.open = false;
        let modalias = text.strip_prefix("MODALIAS=").unwrap_or(text);
        let bus = modalias.split_once(':').map_or("", |(bus, _)| bus);
        let is_bus = !bus.is_empty()
            && bus.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
        // Names of platform devices are those that may have blanks.
        if !is_bus || bus != "platform" && modalias.contains([' ', '\t']) {
            return Err(format!("expected a device: give what {COMMANDS} prints"));
        }
        let id = match modalias.strip_prefix("pci:") {
            Some(_) => Id::Pci(
                Pci::pattern(modalias)
                    .filter(|pci| pci.vendor.is_some() && pci.device.is_some())
                    .ok_or("expected a modalias such as pci:v00008086d000010D3sv….")?,
            ),
            None => Id::Other(modalias.to_owned()),
        };
        if let Some(at) = self.known.get(&id) {
            self.devices[*at].count += 1;
        } else {
            self.known.insert(id.clone(), self.devices.len());
            self.devices.push(Device { line, place: None, count: 1, id });
        }
        Ok(())
    }

    /// A line set in below a device, as `-v` and `-k` add them: it may say whose card it is.
    fn continued(&mut self, text: &str) -> Result<(), String> {
        let Some(Device { id: Id::Pci(pci), .. }) = self.devices.last_mut().filter(|_| self.open) else {
            return Err(format!("expected a device: give what {COMMANDS} prints"));
        };
        if let Some(rest) = text.strip_prefix("Subsystem: ")
            && let Some((vendor, device)) = pair(bracketed(rest).unwrap_or(rest))
        {
            (pci.subvendor, pci.subdevice) = (Some(vendor), Some(device));
        }
        Ok(())
    }

    /// Ends a device of `lspci -vmm`.
    fn end_block(&mut self) -> Result<(), String> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.failed_block = Some(self.block_line);
        let get = |name: &str| block.get(name).map(String::as_str);
        let place = get("Slot").and_then(address).ok_or("expected an address after `Slot:`")?.to_owned();
        let given = |name: &str| get(name).and_then(|text| number(text, 4));
        let class = given("Class").ok_or_else(names_only)?;
        let pci = Pci {
            vendor: Some(given("Vendor").ok_or_else(names_only)?),
            device: Some(given("Device").ok_or_else(names_only)?),
            subvendor: Some(given("SVendor").unwrap_or(0)),
            subdevice: Some(given("SDevice").unwrap_or(0)),
            class: Some(class >> 8),
            subclass: Some(class & 0xff),
            interface: Some(get("ProgIf").and_then(|text| number(text, 2)).unwrap_or(0)),
        };
        self.failed_block = None;
        self.devices.push(Device { line: self.block_line, place: Some(place), count: 1, id: Id::Pci(pci) });
        Ok(())
    }
}

fn names_only() -> String {
    "it has names, but no numbers: run `lspci -nmm`".to_owned()
}

/// An address as lspci prints it, with or without a domain; of a path from bridge to bridge (`-P`), its end.
fn address(word: &str) -> Option<&str> {
    let place = word.rsplit('/').next()?;
    let (before, function) = place.rsplit_once('.')?;
    let hex = |text: &str, widths: std::ops::RangeInclusive<usize>| {
        widths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let parts: Vec<&str> = before.split(':').collect();
    let numbers = match parts.as_slice() {
        [bus, device] => hex(bus, 2..=2) && hex(device, 2..=2),
        [domain, bus, device] => hex(domain, 4..=8) && hex(bus, 2..=2) && hex(device, 2..=2),
        [device] => word.contains('/') && hex(device, 2..=2),
        _ => false,
    };
    (numbers && hex(function, 1..=1)).then_some(place)
}

/// What stands after the address.
fn pci_line(rest: &str) -> Result<Pci, String> {
    match rest.starts_with('"') {
        true => machine(rest),
        false => plain(rest),
    }
}

/// `-mm`: words in quotes, and revision and interface before those of the card. lspci leaves out an interface of 0, as it
/// does one that it does not know, which is rare.
fn machine(rest: &str) -> Result<Pci, String> {
    let mut quoted = Vec::new();
    let mut interface = 0;
    let mut rest = rest;
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(inside) => quotation(inside).ok_or("a quotation mark is not closed")?,
            None => {
                let end = rest.find(' ').unwrap_or(rest.len());
                let word = &rest[..end];
                match word.strip_prefix("-p").and_then(|digits| number(digits, 2)) {
                    Some(found) => interface = found,
                    None if word.starts_with("-r") => {}
                    None => return Err(format!("{word:?} is no word of `lspci -nmm`")),
                }
                rest = rest[end..].trim_start();
                continue;
            }
        };
        quoted.push(word);
        rest = after.trim_start();
    }
    let [class, vendor, device, more @ ..] = quoted.as_slice() else {
        return Err("expected class, vendor and device in quotation marks".to_owned());
    };
    let given = |text: &str| number(text, 4).ok_or_else(names_only);
    let card = |text: Option<&String>| match text.map(String::as_str) {
        None | Some("") => Ok(0),
        Some(text) => given(text),
    };
    let class = given(class)?;
    Ok(Pci {
        vendor: Some(given(vendor)?),
        device: Some(given(device)?),
        subvendor: Some(card(more.first())?),
        subdevice: Some(card(more.get(1))?),
        class: Some(class >> 8),
        subclass: Some(class & 0xff),
        interface: Some(interface),
    })
}

/// What `inside` has up to the quotation mark that ends it, and the rest; `\` goes before a mark that is meant.
fn quotation(inside: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut letters = inside.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((word, &inside[at + 1..])),
            '\\' => word.push(letters.next()?.1),
            _ => word.push(letter),
        }
    }
    None
}

/// `-n`: `0106: 8086:2922 (rev 02)`; `-nn`: `SATA controller [0106]: Intel … [8086:2922] (rev 02) (prog-if 01 [AHCI])`.
fn plain(rest: &str) -> Result<Pci, String> {
    let (head, tail) = rest.rsplit_once(" (rev ").map_or((rest, rest), |(head, tail)| (head, tail));
    let head = head.split(" (prog-if ").next().unwrap_or(head);
    let (class, numbers) = match head.split_once(": ") {
        Some((class, numbers)) if number(class, 4).is_some() && pair(numbers).is_some() => (class, numbers),
        _ => {
            let (class, device) = head.split_once("]: ").ok_or_else(names_only)?;
            (class.rsplit('[').next().unwrap_or_default(), bracketed(device).ok_or_else(names_only)?)
        }
    };
    let class = number(class, 4).ok_or_else(names_only)?;
    let (vendor, device) = pair(numbers).ok_or_else(names_only)?;
    let interface = tail.split_once("(prog-if ").and_then(|(_, text)| number(text.get(..2)?, 2));
    Ok(Pci {
        vendor: Some(vendor),
        device: Some(device),
        class: Some(class >> 8),
        subclass: Some(class & 0xff),
        interface,
        ..Pci::default()
    })
}

/// What the last brackets of `text` hold.
fn bracketed(text: &str) -> Option<&str> {
    Some(text.rsplit_once('[')?.1.split_once(']')?.0)
}

/// `8086:2922`.
fn pair(text: &str) -> Option<(u32, u32)> {
    let (vendor, device) = text.trim().split_once(':')?;
    Some((number(vendor, 4)?, number(device, 4)?))
}

/// A number of so many hexadecimal digits: alone, or in brackets behind a name.
fn number(text: &str, digits: usize) -> Option<u32> {
    let digits_of = |text: &str| {
        let whole = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        whole.then(|| u32::from_str_radix(text, 16).ok()).flatten()
    };
    digits_of(text).or_else(|| digits_of(bracketed(text.strip_suffix(']').map(|_| text)?)?))
}

impl Pci {
    /// Reads a modalias of PCI, or a pattern of it whose parts are numbers or `*`.
    pub fn pattern(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix("pci:")?;
        let mut part = |key: &str, digits: usize| -> Option<Option<u32>> {
            rest = rest.strip_prefix(key)?;
            if let Some(after) = rest.strip_prefix('*') {
                rest = after;
                return Some(None);
            }
            let (word, after) = rest.split_at_checked(digits)?;
            rest = after;
            Some(Some(number(word, digits)?))
        };
        let pci = Self {
            vendor: part("v", 8)?,
            device: part("d", 8)?,
            subvendor: part("sv", 8)?,
            subdevice: part("sd", 8)?,
            class: part("bc", 2)?,
            subclass: part("sc", 2)?,
            interface: part("i", 2)?,
        };
        matches!(rest, "" | "*").then_some(pci)
    }

    /// Whether a driver with this pattern is for `device`.
    pub fn fits(&self, device: &Self) -> bool {
        let all = |pci: &Self| {
            let Self { vendor, device, subvendor, subdevice, class, subclass, interface } = *pci;
            [vendor, device, subvendor, subdevice, class, subclass, interface]
        };
        let mut parts = all(self).into_iter().zip(all(device));
        parts.all(|(wanted, has)| wanted.is_none() || has.is_none() || wanted == has)
    }

    /// Base class and subclass in one number.
    pub fn kind(&self) -> u32 {
        self.class.unwrap_or(0xff) << 8 | self.subclass.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A controller of disks, as all of them name it, with what they do not say.
    fn sata(subsystem: Option<(u32, u32)>, interface: Option<u32>) -> Pci {
        Pci {
            vendor: Some(0x8086),
            device: Some(0x2922),
            subvendor: subsystem.map(|(vendor, _)| vendor),
            subdevice: subsystem.map(|(_, device)| device),
            class: Some(1),
            subclass: Some(6),
            interface,
        }
    }

    fn one(text: &str) -> Device {
        let mut devices = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(devices.len(), 1, "{text}");
        devices.remove(0)
    }

    #[test]
    fn each_form_of_lspci_says_the_same() {
        let card = Some((0x1af4, 0x1100));
        for (text, place, pci) in [
            (
                "00:1f.2 \"0106\" \"8086\" \"2922\" -r02 -p01 \"1af4\" \"1100\"\n",
                "00:1f.2",
                sata(card, Some(1)),
            ),
            (
                "0000:00:1f.2 \"0106\" \"8086\" \"2922\" \"\" \"\"",
                "0000:00:1f.2",
                sata(Some((0, 0)), Some(0)),
            ),
            (
                "00:1f.2 \"SATA controller [0106]\" \"Intel [8086]\" \"6 \\\"port\\\" [AHCI mode] [2922]\" -r02 -p01 \"Red Hat, Inc. \
                 [1af4]\" \"QEMU Virtual Machine [1100]\"",
                "00:1f.2",
                sata(card, Some(1)),
            ),
            (
                "Slot:\t00:1f.2\nClass:\tSATA controller [0106]\nVendor:\tIntel [8086]\nDevice:\tx [2922]\nSVendor:\tRed Hat \
                 [1af4]\nSDevice:\tQEMU [1100]\nRev:\t02\nProgIf:\t01\nDriver:\tahci\n\n",
                "00:1f.2",
                sata(card, Some(1)),
            ),
            ("00:1f.2 0106: 8086:2922 (rev 02)", "00:1f.2", sata(None, None)),
            ("00:1f.2 SATA controller [0106]: Intel [AHCI] [8086:2922]", "00:1f.2", sata(None, None)),
            (
                "10000:00:1f.2 SATA controller [0106]: Intel: x [8086:2922] (rev 02) (prog-if 01 [AHCI 1.0])\n\tSubsystem: Red Hat \
                 [1af4:1100]\n\tKernel driver in use: ahci",
                "10000:00:1f.2",
                sata(card, Some(1)),
            ),
            ("00:1c.0/02:1f.2 0106: 8086:2922\r", "02:1f.2", sata(None, None)),
            ("fe:1f.2 0106: 8086:2922\r", "fe:1f.2", sata(None, None)),
        ] {
            let device = one(text);
            assert_eq!((device.place.as_deref(), device.id), (Some(place), Id::Pci(pci)), "{text}");
        }
    }

    #[test]
    fn modaliases_are_counted() {
        let text = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01\nusb:v1D6Bp0002d0612dc09dsc00dp01ic09isc00ip00in00\n\
                    MODALIAS=acpi:PNP0A08:PNP0A03:\nplatform:Fixed MDIO bus\n\nacpi:PNP0A08:PNP0A03:\n";
        let devices = parse(text.as_bytes()).unwrap();
        assert_eq!(devices[0].id, Id::Pci(sata(Some((0x1af4, 0x1100)), Some(1))));
        let seen: Vec<_> = devices.iter().map(|device| (device.line, device.count)).collect();
        assert_eq!(seen, [(1, 1), (2, 1), (3, 2), (4, 1)]);
    }

    #[test]
    fn patterns_of_drivers() {
        let fits = |pattern: &str, device: &Pci| Pci::pattern(pattern).unwrap().fits(device);
        let known = sata(Some((0x1af4, 0x1100)), Some(1));
        for pattern in [
            "pci:v*d*sv*sd*bc01sc06i01*",
            "pci:v00008086d00002922sv*sd*bc*sc*i*",
            "pci:v00008086d*sv00001AF4sd00001100bc01sc*i*",
        ] {
            assert!(fits(pattern, &known) && fits(pattern, &sata(None, None)), "{pattern}");
        }
        let other = "pci:v*d*sv*sd*bc01sc06i02*";
        assert!(
            !fits(other, &known) && fits(other, &sata(None, None)),
            "any interface counts where none is said"
        );
        assert!(!fits("pci:v00008086d00002922sv00001028sd*bc*sc*i*", &known));
        for odd in ["pci:v00008086", "pci:v*d*sv*sd*bc0[1-3]sc06i01*", "vfio_pci:v*d*sv*sd*bc*sc*i*"] {
            assert!(Pci::pattern(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn lines_that_say_nothing_are_refused() {
        let many: String = (0..=limits::DEVICES).map(|number| format!("acpi:{number}:\n")).collect();
        for (text, line, what) in [
            ("", 1, "there are no devices"),
            ("\n00:00.0 Host bridge: Intel Corporation Device (rev 02)\n", 2, "no numbers: run `lspci -nmm`"),
            ("00:00.0 \"Host bridge\" \"Intel\" \"82G33\" \"\" \"\"", 1, "no numbers: run `lspci -nmm`"),
            ("00:00.0 \"0600\" \"8086", 1, "a quotation mark is not closed"),
            ("00:00.0 \"0600\" \"8086\"", 1, "expected class, vendor and device"),
            ("00:00.0 \"0600\" \"8086\" \"29c0\" -x1", 1, "\"-x1\" is no word of `lspci -nmm`"),
            ("Slot:\t00:00.0\nClass:\tHost bridge\n", 1, "no numbers"),
            ("Class:\t0600\n", 1, "a device begins with `Slot:`"),
            ("acpi:PNP0A08:\n\tset in", 2, "expected a device"),
            ("acpi:a b", 1, "expected a device"),
            ("pci:v00008086", 1, "expected a modalias such as"),
            ("pci:v*d*sv*sd*bc*sc*i*", 1, "expected a modalias such as"),
            ("-[0000:00]-+-00.0", 1, "expected a device: give what `lspci -nmm`"),
            ("a\0b", 1, "it is not text"),
            (&many, limits::DEVICES + 1, "there are more than 5000 devices"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.line == line && error.what.contains(what), "{text:.60}: {error}");
        }
        assert_eq!(parse(b"acpi:x:\n\xff\xfe").unwrap_err().to_string(), "line 2: it is not text");
    }
}
