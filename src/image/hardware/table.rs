//! What Debian has for a device or a driver that an image lacks: two lists that ci/drivers makes of its packages.
//!
//! An image does not know what it lacks, and a mirror need not be there. Without sound, films, radio and graphics, what a
//! kernel has for servers is 165 KB of text, which takes 23 KB of a compressed keller.

use crate::boot::modprobe::normal_alias;
use crate::boot::modules::matches;

use super::list::{Id, Pci};

const DRIVERS: &str = include_str!("drivers.txt");
const FIRMWARE: &str = include_str!("firmware.txt");

/// Drivers that Debian's kernels have built in. A kernel does not list the devices of such drivers, as it does those of
/// modules.
const BUILT_IN: [(&str, &str); 8] = [
    ("virtio_pci", "pci:v00001AF4d*sv*sd*bc*sc*i*"),
    ("virtio_console", "virtio:d00000003v*"),
    ("virtiofs", "virtio:d0000001Av*"),
    ("8250_pci", "pci:v*d*sv*sd*bc07sc00i*"),
    ("tpm_crb", "acpi*:MSFT0101:*"),
    ("tpm_tis", "acpi*:PNP0C31:*"),
    ("i8042", "acpi*:PNP0303:*"),
    ("rtc_cmos", "acpi*:PNP0B00:*"),
];

/// The package whose drivers are listed.
pub(super) const KERNEL: &str = "linux-image-amd64";

/// Which devices a driver is for.
pub(super) enum Pattern {
    Pci(Pci),
    Text(String),
}

impl Pattern {
    /// An alias of a module; nothing for one that no device can have.
    pub(super) fn of(alias: &str) -> Option<Self> {
        match Pci::pattern(alias) {
            Some(pci) => Some(Self::Pci(pci)),
            None => normal_alias(alias).map(Self::Text),
        }
    }

    pub(super) fn fits(&self, id: &Id) -> bool {
        match (self, id) {
            (Self::Pci(pattern), Id::Pci(pci)) => pattern.fits(pci),
            (Self::Text(pattern), Id::Other(text)) => matches(pattern, &text.replace('-', "_")),
            _ => false,
        }
    }
}

/// Lines of a list: a name, and words.
fn lines(list: &'static str) -> impl Iterator<Item = (&'static str, std::str::Split<'static, char>)> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?, words))
    })
}

/// The drivers of Debian's kernel, with the devices that they are for.
pub(super) struct Drivers(Vec<(Pattern, &'static str)>);

impl Drivers {
    pub(super) fn new() -> Self {
        let pattern = |word: &str| match word.split_once(':') {
            Some((vendor, device)) if vendor.len() == 4 && device.len() == 4 && word.is_ascii() => {
                Pattern::of(&format!("pci:v0000{vendor}d0000{device}sv*sd*bc*sc*i*"))
            }
            _ => Pattern::of(word),
        };
        let of_line = |(name, words): (&'static str, std::str::Split<'static, char>)| {
            words.filter_map(move |word| Some((pattern(word)?, name)))
        };
        let built_in = BUILT_IN.iter().filter_map(|(name, alias)| Some((Pattern::of(alias)?, *name)));
        Self(lines(DRIVERS).flat_map(of_line).chain(built_in).collect())
    }

    /// The modules that are for `id`, whether Debian's kernel has them built in or not.
    pub(super) fn of(&self, id: &Id) -> Vec<&'static str> {
        let mut found: Vec<_> =
            self.0.iter().filter(|(pattern, _)| pattern.fits(id)).map(|(_, name)| *name).collect();
        found.dedup();
        found
    }
}

/// Whether Debian's kernel has the module `name`, of those that are listed.
pub(super) fn has(name: &str) -> bool {
    lines(DRIVERS).any(|(module, _)| module == name)
}

/// The package that has a file of firmware, or one that fits the pattern `name`.
pub(super) fn package(name: &str) -> Option<&'static str> {
    lines(FIRMWARE)
        .find(|(_, files)| files.clone().any(|file| matches(name, file)))
        .map(|(package, _)| package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_debian_has() {
        let drivers = Drivers::new();
        let of = |text: &str| drivers.of(&Pci::pattern(text).map_or(Id::Other(text.to_owned()), Id::Pci));
        for (device, module) in [
            ("pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00", "e1000e"),
            ("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", "ahci"),
            ("pci:v00001000d0000005Dsv00001028sd00001F49bc01sc04i00", "megaraid_sas"),
            ("pci:v000014E4d000016D8sv00001028sd00001F60bc02sc00i00", "bnxt_en"),
            ("virtio:d00000002v00001AF4", "virtio_blk"),
            ("scsi:t-0x00", "sd_mod"),
            ("usb:v0951p1666d0001dc00dsc00dp00ic03isc01ip01in00", "usbhid"),
        ] {
            assert_eq!(of(device), [module], "{device}");
        }
        assert!(of("pci:v00008086d000029C0sv00001AF4sd00001100bc06sc00i00").is_empty(), "a host bridge");
        assert!(has("e1000e") && !has("e1000x"));
        assert_eq!(package("bnx2x/bnx2x-e2-7.13.21.0.fw"), Some("firmware-bnx2x"));
        assert_eq!(package("qed/qed_init_values_zipped-*.bin"), Some("firmware-qlogic"));
        assert_eq!(package("ast_dp501_fw.bin"), None);
    }
}
