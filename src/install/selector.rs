//! Which of a machine's disks a selector means.

use super::disks::{Disk, Kind, bare_wwn};
use crate::node::Selector;
use crate::node::selector::Pick;

/// Those of `disks` that are meant: exactly one, if all is well. The disk that the running system is on is never meant,
/// nor is one that no firmware starts, unless its bus is named.
pub(super) fn choose<'d>(selector: &Selector, disks: &'d [Disk]) -> Vec<&'d Disk> {
    let mut fitting: Vec<&Disk> = disks.iter().filter(|disk| fits(selector, disk)).collect();
    let wanted = match selector.pick {
        Some(Pick::Smallest) => fitting.iter().map(|disk| disk.size).min(),
        Some(Pick::Largest) => fitting.iter().map(|disk| disk.size).max(),
        None => None,
    };
    if let Some(size) = wanted {
        fitting.retain(|disk| disk.size == size);
    }
    fitting
}

fn fits(selector: &Selector, disk: &Disk) -> bool {
    let same = |wanted: &Option<String>, is: &Option<String>, form: fn(&str) -> String| {
        wanted.as_ref().is_none_or(|wanted| is.as_ref().is_some_and(|is| form(is) == form(wanted)))
    };
    let kind = match disk.kind {
        Kind::Disk => true,
        Kind::Loop => selector.bus.as_deref() == Some("loop"),
        Kind::Optical | Kind::Composite => false,
    };
    kind && !disk.has_system()
        && same(&selector.serial, &disk.serial, |text| text.trim().to_lowercase())
        && same(&selector.wwn, &disk.wwn, bare_wwn)
        && selector.bus.as_ref().is_none_or(|bus| bus == disk.bus)
        && selector.size.is_none_or(|(from, to)| (from..=to).contains(&disk.size))
        && selector.model.as_ref().is_none_or(|wanted| {
            disk.model.as_ref().is_some_and(|model| is_like(&plain(model), &plain(wanted)))
        })
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
            let selector: Selector = text.parse().unwrap();
            let chosen: Vec<&str> = choose(&selector, &disks).iter().map(|disk| disk.name.as_str()).collect();
            assert_eq!(chosen.join(" "), expected, "{text}");
        }
    }
}
