//! The disk's bus and the network cards of a machine, as arguments.

use std::str::FromStr;

use super::forward::NETWORK;

/// What the disk hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    /// As a cloud has it.
    Virtio,
    /// As a server of today has it.
    Nvme,
    /// SATA, at the chip set's own controller.
    Ahci,
    /// A stick at an xHCI port.
    Usb,
    /// virtio-scsi, as a cloud has it.
    Scsi,
}

impl FromStr for Bus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "virtio" => Self::Virtio,
            "nvme" => Self::Nvme,
            "ahci" => Self::Ahci,
            "usb" => Self::Usb,
            "scsi" => Self::Scsi,
            "megasas" => {
                return Err(
                    "the UEFI firmware that comes with QEMU has no driver for it, and QEMU's card brings \
                            none, so that nothing would start from it"
                        .to_owned(),
                );
            }
            _ => return Err("expected virtio, nvme, ahci, usb or scsi".to_owned()),
        })
    }
}

impl Bus {
    /// Why the disk cannot have sectors of `bytes` there, if it cannot.
    pub(crate) fn refuses_sectors(self, bytes: u32) -> Option<&'static str> {
        (self == Self::Ahci && bytes != 512).then_some("QEMU's SATA disks have sectors of 512 bytes")
    }

    /// QEMU's arguments for the drive `disk`, with `block` as the properties that every disk has.
    pub(super) fn arguments(self, block: &str) -> Vec<String> {
        let devices = match self {
            Self::Virtio => vec![format!("virtio-blk-pci,{block}")],
            Self::Nvme => vec![format!("nvme,serial=keller,{block}")],
            Self::Ahci => vec![format!("ide-hd,bus=ide.0,{block}")],
            Self::Usb => vec!["qemu-xhci,id=usb".to_owned(), format!("usb-storage,bus=usb.0,{block}")],
            Self::Scsi => {
                vec!["virtio-scsi-pci,id=scsi".to_owned(), format!("scsi-hd,bus=scsi.0,{block}")]
            }
        };
        devices.into_iter().flat_map(|device| ["-device".to_owned(), device]).collect()
    }
}

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nic {
    model: &'static str,
    /// Whether nobody answers at the other end of its cable.
    is_mute: bool,
}

/// Cards by the names that Linux and QEMU have for them, and QEMU's device.
const MODELS: [(&str, &str); 4] =
    [("virtio", "virtio-net-pci"), ("e1000e", "e1000e"), ("igb", "igb"), ("vmxnet3", "vmxnet3")];

impl FromStr for Nic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, is_mute) = text.strip_suffix(",mute").map_or((text, false), |name| (name, true));
        let model = MODELS.iter().find(|(known, _)| *known == name);
        let (_, model) = model.ok_or(
            "expected virtio, e1000e, igb or vmxnet3, and `,mute` behind it for a card without a network, as in igb,mute",
        )?;
        Ok(Self { model, is_mute })
    }
}

impl Nic {
    /// The card of a machine for which none was named.
    pub(crate) const DEFAULT: Self = Self { model: "virtio-net-pci", is_mute: false };

    /// `asked`, or one card where none is; refused unless just one of them has the network, to which ports lead.
    pub(crate) fn all(asked: &[Self]) -> Result<Vec<Self>, &'static str> {
        if asked.is_empty() {
            return Ok(vec![Self::DEFAULT]);
        }
        match asked.iter().filter(|nic| !nic.is_mute).count() {
            1 => Ok(asked.to_vec()),
            0 => Err(
                "no card has the network, through which keller reaches the guest: leave `,mute` off one of them",
            ),
            _ => Err(
                "only one card can have the network, to which the forwarded ports lead: write `,mute` behind the \
                      others, as in --nic igb,mute",
            ),
        }
    }

    /// QEMU's arguments for the card `number`. One that is mute hangs on a hub of its own: it has a link, and nobody answers.
    pub(super) fn arguments(self, number: usize) -> Vec<String> {
        // Ports that lead into it are added while it runs; see `forward`.
        let (id, backend) = match self.is_mute {
            true => (format!("mute{number}"), format!("hubport,id=mute{number},hubid={}", number + 1)),
            false => (NETWORK.to_owned(), format!("user,id={NETWORK}")),
        };
        let device = format!("{},netdev={id},romfile=", self.model);
        ["-netdev".to_owned(), backend, "-device".to_owned(), device].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bus_has_the_disk_and_what_it_hangs_on() {
        for (name, expected) in [
            ("virtio", "-device virtio-blk-pci,B"),
            ("nvme", "-device nvme,serial=keller,B"),
            ("ahci", "-device ide-hd,bus=ide.0,B"),
            ("usb", "-device qemu-xhci,id=usb -device usb-storage,bus=usb.0,B"),
            ("scsi", "-device virtio-scsi-pci,id=scsi -device scsi-hd,bus=scsi.0,B"),
        ] {
            let bus: Bus = name.parse().unwrap();
            assert_eq!(bus.arguments("B").join(" "), expected);
            assert_eq!(bus.refuses_sectors(4096).is_some(), name == "ahci");
            assert_eq!(bus.refuses_sectors(512), None);
        }
        assert!("megasas".parse::<Bus>().unwrap_err().contains("has no driver"));
        assert!("sata".parse::<Bus>().unwrap_err().starts_with("expected virtio, nvme"));
    }

    #[test]
    fn just_one_card_has_the_network() {
        let nics = |asked: &[&str]| {
            let asked: Vec<Nic> = asked.iter().map(|text| text.parse().unwrap()).collect();
            Nic::all(&asked)
        };
        assert_eq!(nics(&[]).unwrap(), [Nic::DEFAULT]);
        let cards = nics(&["igb,mute", "e1000e", "vmxnet3,mute"]).unwrap();
        let said: Vec<_> =
            cards.into_iter().enumerate().map(|(number, card)| card.arguments(number).join(" ")).collect();
        assert_eq!(
            said,
            [
                "-netdev hubport,id=mute0,hubid=1 -device igb,netdev=mute0,romfile=",
                "-netdev user,id=net -device e1000e,netdev=net,romfile=",
                "-netdev hubport,id=mute2,hubid=3 -device vmxnet3,netdev=mute2,romfile=",
            ]
        );
        assert!(nics(&["igb,mute"]).unwrap_err().starts_with("no card has the network"));
        assert!(nics(&["igb", "virtio"]).unwrap_err().contains("--nic igb,mute"));
        for wrong in ["", "mute", "e1000", "igb,", "igb,mute,mute", "igb,netdev=x"] {
            assert!(wrong.parse::<Nic>().unwrap_err().contains("as in igb,mute"), "{wrong}");
        }
    }
}
