//! What a lab is made of, once it is understood.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use jiff::civil::DateTime;

use super::core::Mac;
use crate::base::Size;
use crate::qemu::Bus;

/// The least memory that a node starts with: kernel, initramfs and the page cache of its root.
pub const LEAST_MEMORY: Size = Size::mib(512);

/// What a machine has for which nothing is said: three of them fit into a small host.
pub const MEMORY: Size = Size::mib(640);

/// Most machines: each takes two threads, a process and its memory.
pub(super) const MOST_MACHINES: usize = 64;

/// The network from which a machine without a document has its address, and the length of its prefix.
const NETWORK: ([u8; 3], u8) = ([10, 77, 0], 24);

/// The machines of a lab.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order in which they are written; at least one.
    pub machines: Vec<Machine>,
    /// What is not wrong, and probably not meant.
    pub warnings: Vec<String>,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Host name, name of its directory, and the serial number that it shows.
    pub name: String,
    /// Its image.
    pub image: PathBuf,
    /// What tells it who it is.
    pub identity: Identity,
    /// Memory, in whole MiB.
    pub memory: Size,
    /// Virtual processors.
    pub cpus: u32,
    /// What its disk hangs on.
    pub(crate) bus: Bus,
    /// What its clock shows at each start, in UTC, if not the host's time.
    pub clock: Option<DateTime>,
    /// How large its disk is, if not as large as a node needs.
    pub disk: Option<Size>,
    /// Ports of the guest, and those of 127.0.0.1 that lead there; none is any that is free.
    pub forwards: Vec<(u16, Option<u16>)>,
}

/// What tells a machine who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// This node document, as it is.
    Document(PathBuf),
    /// One that the lab makes: the name, and this address with its prefix on the lab's Ethernet.
    Address(Ipv4Addr, u8),
}

impl Machine {
    /// The address of its card on the lab's Ethernet; it follows from the name.
    pub fn mac(&self) -> String {
        mac(&self.name)
    }

    /// The document that the lab makes, where it makes one.
    pub fn document(&self) -> Option<String> {
        let Identity::Address(address, prefix) = &self.identity else { return None };
        Some(format!(
            "node: 1\nname: {}\nnetwork:\n  interfaces:\n    - name: lab\n      card: {{mac: \"{}\"}}\n      \
             addresses: [{address}/{prefix}]\n",
            self.name,
            self.mac()
        ))
    }
}

/// The address of the card that the machine `name` has on a lab's Ethernet.
pub fn mac(name: &str) -> String {
    Mac::of(name).to_string()
}

/// The address of the machine `number`, counted from 1, for which none is said.
pub(super) fn address(number: usize) -> (Ipv4Addr, u8) {
    let ([a, b, c], prefix) = NETWORK;
    let last = u8::try_from(number).expect("a lab has few machines");
    (Ipv4Addr::new(a, b, c, last), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node;

    #[test]
    fn the_document_that_is_made_is_one() {
        let (address, prefix) = address(3);
        let machine = Machine {
            name: "c".to_owned(),
            image: "x.raw".into(),
            identity: Identity::Address(address, prefix),
            memory: MEMORY,
            cpus: 1,
            bus: Bus::Virtio,
            disk: None,
            clock: None,
            forwards: Vec::new(),
        };
        let text = machine.document().unwrap();
        let documents = node::read("c", text.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(documents[0].name.as_deref(), Some("c"));
        let interface = &documents[0].interfaces[0];
        assert_eq!(interface.kind, node::InterfaceKind::Mac(machine.mac()));
        assert_eq!(interface.addresses, [("10.77.0.3".parse().unwrap(), 24)]);
        let other = Machine { identity: Identity::Document("c.yaml".into()), ..machine };
        assert_eq!(other.document(), None);
    }
}
