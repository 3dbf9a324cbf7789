//! Network cards, by the ioctls of netdevice(7): up, with an address and routes, and as they were.

use std::fs;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::boot::lease::{Lease, Route, mask};

const CLASS: &str = "/sys/class/net";
/// `ARPHRD_ETHER`.
const ETHERNET: &str = "1";

/// A card, by the name that the kernel has given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    pub name: String,
    pub address: [u8; 6],
}

/// A card that is up while this is there, and as it was before when it is gone.
#[derive(Debug)]
pub(super) struct Up {
    pub card: Card,
    flags: libc::c_short,
}

impl Card {
    /// The address as people write it.
    pub(super) fn shown(&self) -> String {
        let address: Vec<_> = self.address.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} ({})", self.name, address.join(":"))
    }

    /// Whether there is something at the other end of the cable.
    pub(super) fn has_carrier(&self) -> bool {
        self.fact("carrier").is_some_and(|text| text == "1")
    }

    fn fact(&self, name: &str) -> Option<String> {
        fact(&Path::new(CLASS).join(&self.name), name)
    }
}

fn fact(card: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(card.join(name)).ok()?.trim().to_owned())
}

/// The cards of the machine: Ethernet, with a device behind it, and no part of another card, as a virtual function below
/// Hyper-V's own.
pub(super) fn list() -> Vec<Card> {
    of(Path::new(CLASS))
}

fn of(class: &Path) -> Vec<Card> {
    let mut cards: Vec<Card> = fs::read_dir(class)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let is_card = path.join("device").exists()
                && !path.join("master").exists()
                && fact(&path, "type").is_some_and(|text| text == ETHERNET);
            let name = entry.file_name().into_string().ok().filter(|_| is_card)?;
            Some(Card { name, address: mac(&fact(&path, "address")?)? })
        })
        .collect();
    cards.sort_by(|one, other| (one.name.len(), &one.name).cmp(&(other.name.len(), &other.name)));
    cards
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes?.try_into().ok()
}

impl Up {
    /// Turns a card on.
    pub(super) fn new(card: Card) -> io::Result<Self> {
        let flags = flags(&card.name)?;
        set_flags(&card.name, flags | short(libc::IFF_UP))?;
        Ok(Self { card, flags })
    }

    /// Turns it on again, should it have been made anew meanwhile.
    pub(super) fn again(&self) {
        let _ = set_flags(&self.card.name, self.flags | short(libc::IFF_UP));
    }

    /// Gives the card the addresses and routes of `lease`. A route that the kernel does not take is left out, but for the one to
    /// everywhere.
    pub(super) fn configure(&self, lease: &Lease) -> io::Result<Configured<'_>> {
        let mtu = lease.mtu.map(|mtu| self.lower_mtu(mtu)).transpose()?.flatten();
        let mut configured = Configured { up: self, mtu, left_out: Vec::new() };
        self.set_address(libc::SIOCSIFADDR, lease.address)?;
        self.set_address(libc::SIOCSIFNETMASK, mask(lease.prefix))?;
        for route in &lease.routes {
            match self.reach(route, lease) {
                Err(error) if route.prefix > 0 => configured.left_out.push((*route, error)),
                done => done?,
            }
        }
        Ok(configured)
    }

    fn reach(&self, route: &Route, lease: &Lease) -> io::Result<()> {
        // A router that is on no network of the card's, as some hosters have it, is beside the card all the same.
        if let Some(via) = route.via.filter(|via| !lease.reaches(*via)) {
            self.add_route(&Route { to: via, prefix: 32, via: None })?;
        }
        self.add_route(route)
    }

    fn set_address(&self, request: libc::Ioctl, address: Ipv4Addr) -> io::Result<()> {
        let mut wanted = request_for(&self.card.name)?;
        wanted.ifr_ifru.ifru_addr = socket_address(address);
        control(request, &mut wanted)
    }

    /// Sets a smaller size of packets; gives the one before.
    fn lower_mtu(&self, mtu: u16) -> io::Result<Option<libc::c_int>> {
        let mut wanted = request_for(&self.card.name)?;
        control(libc::SIOCGIFMTU, &mut wanted)?;
        // SAFETY: the kernel has written this one.
        let before = unsafe { wanted.ifr_ifru.ifru_mtu };
        if before <= libc::c_int::from(mtu) {
            return Ok(None);
        }
        self.set_mtu(mtu.into())?;
        Ok(Some(before))
    }

    fn set_mtu(&self, mtu: libc::c_int) -> io::Result<()> {
        let mut wanted = request_for(&self.card.name)?;
        wanted.ifr_ifru.ifru_mtu = mtu;
        control(libc::SIOCSIFMTU, &mut wanted)
    }

    fn add_route(&self, route: &Route) -> io::Result<()> {
        let mut name = name(&self.card.name)?;
        // SAFETY: all fields are numbers or pointers, for which zeros are a value.
        let mut entry: libc::rtentry = unsafe { mem::zeroed() };
        entry.rt_dst = socket_address(route.to);
        entry.rt_genmask = socket_address(mask(route.prefix));
        entry.rt_flags = libc::RTF_UP;
        if route.prefix == 32 {
            entry.rt_flags |= libc::RTF_HOST;
        }
        if let Some(via) = route.via {
            entry.rt_gateway = socket_address(via);
            entry.rt_flags |= libc::RTF_GATEWAY;
        }
        entry.rt_dev = name.as_mut_ptr();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // SAFETY: the kernel reads an rtentry and the name that it points to, which both outlive the call.
        match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &entry) } {
            0 => Ok(()),
            // Two routes of a lease may lead over the same router.
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                error => Err(error),
            },
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Down, as it was: what leads over it goes with it.
        let _ = set_flags(&self.card.name, self.flags);
    }
}

/// A card with an address, which it loses when this is gone, and its routes with it.
#[derive(Debug)]
pub(super) struct Configured<'a> {
    up: &'a Up,
    /// The size of packets before.
    mtu: Option<libc::c_int>,
    /// Routes that the kernel did not take, and why.
    pub left_out: Vec<(Route, io::Error)>,
}

impl Drop for Configured<'_> {
    fn drop(&mut self) {
        let _ = self.up.set_address(libc::SIOCSIFADDR, Ipv4Addr::UNSPECIFIED);
        if let Some(mtu) = self.mtu {
            let _ = self.up.set_mtu(mtu);
        }
    }
}

fn flags(name: &str) -> io::Result<libc::c_short> {
    let mut wanted = request_for(name)?;
    control(libc::SIOCGIFFLAGS, &mut wanted)?;
    // SAFETY: the kernel has written this one.
    Ok(unsafe { wanted.ifr_ifru.ifru_flags })
}

fn set_flags(name: &str, flags: libc::c_short) -> io::Result<()> {
    let mut wanted = request_for(name)?;
    wanted.ifr_ifru.ifru_flags = flags;
    control(libc::SIOCSIFFLAGS, &mut wanted)
}

fn short(flags: libc::c_int) -> libc::c_short {
    libc::c_short::try_from(flags).unwrap_or_default()
}

/// The name with the NUL that ends it.
fn name(name: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut field = [0; libc::IFNAMSIZ];
    if name.len() >= field.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (letter, byte) in field.iter_mut().zip(name.bytes()) {
        *letter = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(field)
}

fn request_for(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: a name and a union of numbers, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name = self::name(name)?;
    Ok(request)
}

fn control(request: libc::Ioctl, wanted: &mut libc::ifreq) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the kernel reads and writes an ifreq, which outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), request, wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct sockaddr_in`, as the kernel takes it in place of a `struct sockaddr`.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: all fields are numbers.
    let mut socket: libc::sockaddr = unsafe { mem::zeroed() };
    socket.sa_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    // Two bytes of the port come first.
    for (letter, byte) in socket.sa_data[2..].iter_mut().zip(address.octets()) {
        *letter = libc::c_char::from_ne_bytes([byte]);
    }
    socket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_ethernet_with_a_device_and_no_part_of_another() {
        let class = tempfile::tempdir().unwrap();
        for (name, parts, kind) in [
            ("eth10", &["device"][..], "1"),
            ("eth2", &["device"], "1"),
            ("lo", &[], "772"),
            ("bond0", &[], "1"),
            ("ib0", &["device"], "32"),
            ("eth3", &["device", "master"], "1"),
        ] {
            let path = class.path().join(name);
            fs::create_dir(&path).unwrap();
            parts.iter().for_each(|part| fs::create_dir(path.join(part)).unwrap());
            fs::write(path.join("type"), format!("{kind}\n")).unwrap();
            fs::write(path.join("address"), "52:54:00:12:34:56\n").unwrap();
        }
        let cards = of(class.path());
        let shown: Vec<_> = cards.iter().map(Card::shown).collect();
        assert_eq!(shown, ["eth2 (52:54:00:12:34:56)", "eth10 (52:54:00:12:34:56)"]);
        assert_eq!(mac("52:54:00:12:34"), None);
    }

    #[test]
    fn an_address_lies_behind_the_port() {
        let socket = socket_address(Ipv4Addr::new(10, 0, 2, 255));
        assert_eq!(
            socket.sa_data[..6].iter().map(|byte| byte.to_ne_bytes()[0]).collect::<Vec<_>>(),
            [0, 0, 10, 0, 2, 255]
        );
        assert!(name("a-name-of-16-byt").is_err());
    }
}
