//! What a card needs to speak IPv4: from a DHCP server, or from the command line.

use std::fmt;
use std::net::Ipv4Addr;

/// Addresses and routes for one card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Of the card.
    pub address: Ipv4Addr,
    /// Bits of the mask.
    pub prefix: u8,
    /// Where else the card leads to.
    pub routes: Vec<Route>,
    /// Servers that know names.
    pub dns: Vec<Ipv4Addr>,
    /// What is appended to a short name.
    pub domain: Option<String>,
    /// Largest packet, where the network has less than the card.
    pub mtu: Option<u16>,
    /// The DHCP server, if it is from one.
    pub server: Option<Ipv4Addr>,
}

/// A destination beyond the card's own network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its network.
    pub to: Ipv4Addr,
    /// Bits of its mask.
    pub prefix: u8,
    /// The router; none where the destination is on the card's own wire.
    pub via: Option<Ipv4Addr>,
}

impl Route {
    /// To everywhere.
    pub const fn default_via(router: Ipv4Addr) -> Self {
        Self { to: Ipv4Addr::UNSPECIFIED, prefix: 0, via: Some(router) }
    }
}

impl Lease {
    /// Whether `address` is on the card's own network.
    pub fn reaches(&self, address: Ipv4Addr) -> bool {
        network(address, self.prefix) == network(self.address, self.prefix)
    }
}

/// The mask of `prefix` bits.
pub fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

/// The bits of a mask, if it is one.
pub fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let ones = u8::try_from(bits.leading_ones()).ok()?;
    (self::mask(ones) == mask).then_some(ones)
}

fn network(address: Ipv4Addr, prefix: u8) -> u32 {
    address.to_bits() & mask(prefix).to_bits()
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        if let Some(server) = self.server {
            write!(f, " by DHCP from {server}")?;
        }
        for route in self.routes.iter().filter(|route| route.prefix == 0) {
            let via = route.via.unwrap_or(Ipv4Addr::UNSPECIFIED);
            write!(f, ", router {via}")?;
        }
        for server in &self.dns {
            write!(f, ", DNS {server}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_ones_and_then_zeros() {
        for prefix in 0..=32 {
            assert_eq!(prefix_of(mask(prefix)), Some(prefix));
        }
        assert_eq!(mask(20), Ipv4Addr::new(255, 255, 240, 0));
        assert_eq!(prefix_of(Ipv4Addr::new(255, 0, 255, 0)), None);
    }
}
