//! What the command line says of the network for what `/init` fetches: `ip=`, in the form of the kernel (Documentation/admin-guide/nfs/nfsroot.rst)
//! and of dracut, and dracut's `nameserver=`. What has no effect here is refused, not passed over.

use std::net::Ipv4Addr;

use super::lease::{Lease, Route, mask, prefix_of};
use crate::base::failure::Failure;

/// How a card gets its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The kernel's name of the card; none for all.
    pub device: Option<String>,
    /// The addresses; none where a DHCP server is asked.
    pub fixed: Option<Lease>,
}

const HELP: &str =
    "write ip=dhcp, ip=DEVICE:dhcp or ip=CLIENT::GATEWAY:NETMASK::DEVICE:none, or leave ip= out for DHCP";

/// Reads `words`: those on the command line that are not keller's own.
///
/// # Errors
/// What has no effect, with the way out.
pub fn read(words: &[String]) -> Result<Wanted, Failure> {
    let of = |key: &'static str| words.iter().filter_map(move |word| word.strip_prefix(key));
    let values: Vec<&str> = of("ip=").collect();
    let refused = |what: String| Failure::new(format!("reading ip={}", values.join(" ip=")), what).help(HELP);
    let mut wanted = match values[..] {
        [] => Wanted { device: None, fixed: None },
        // What is given comes behind what the image says.
        [.., value] => one(value).map_err(refused)?,
    };
    for value in of("nameserver=") {
        let server = value
            .parse::<Ipv4Addr>()
            .map_err(|_| Failure::new(format!("reading nameserver={value}"), "it is not an IPv4 address"))?;
        match &mut wanted.fixed {
            Some(lease) if lease.dns.contains(&server) => {}
            Some(lease) => lease.dns.push(server),
            None => {
                return Err(Failure::new(
                    format!("reading nameserver={value}"),
                    "the DHCP server names the DNS servers",
                )
                .help("leave it out, or give the address by ip= as well"));
            }
        }
    }
    Ok(wanted)
}

fn one(value: &str) -> Result<Wanted, String> {
    if value.contains('[') {
        return Err("IPv6 is not spoken here".to_owned());
    }
    let fields: Vec<&str> = value.split(':').collect();
    let dhcp = |how: &str| matches!(how, "dhcp" | "on" | "any");
    match fields[..] {
        [how] if dhcp(how) => return Ok(Wanted { device: None, fixed: None }),
        [how] if how.parse::<Ipv4Addr>().is_err() => {
            return Err(format!("`{how}` is not a way to an address"));
        }
        [device, how] if dhcp(how) => return Ok(Wanted { device: named(device)?, fixed: None }),
        _ => {}
    }
    let field = |index: usize| fields.get(index).copied().unwrap_or_default();
    for (index, name) in [(1, "SERVER"), (4, "HOST"), (9, "NTP")] {
        if !field(index).is_empty() {
            return Err(format!("`{}`, its {name}, has no effect here", field(index)));
        }
    }
    if fields.len() > 10 {
        return Err(format!("it has {} fields, and at most 10 are known", fields.len()));
    }
    let device = named(field(5))?;
    match field(6) {
        how if dhcp(how) && field(0).is_empty() => return Ok(Wanted { device, fixed: None }),
        "" | "none" | "off" => {}
        how => return Err(format!("`{how}` does not go with these fields")),
    }
    let address = |index: usize, name: &str| {
        let text = field(index);
        text.parse::<Ipv4Addr>().map_err(|_| format!("`{text}`, its {name}, is not an IPv4 address"))
    };
    let client = address(0, "CLIENT")?;
    let gateway = (!field(2).is_empty()).then(|| address(2, "GATEWAY")).transpose()?;
    let dns = [7, 8].into_iter().filter(|index| !field(*index).is_empty());
    let lease = Lease {
        address: client,
        prefix: prefix(field(3))?,
        routes: gateway.map(Route::default_via).into_iter().collect(),
        dns: dns.map(|index| address(index, "DNS")).collect::<Result<_, _>>()?,
        domain: None,
        mtu: None,
        server: None,
    };
    if lease.prefix < 31 && client.to_bits() & !mask(lease.prefix).to_bits() == 0 {
        return Err(format!("{client} is the name of a network, not an address in it"));
    }
    Ok(Wanted { device, fixed: Some(lease) })
}

/// A mask, or its bits as dracut takes them.
fn prefix(text: &str) -> Result<u8, String> {
    let bits = text.parse::<u8>().ok();
    let bits = bits.or_else(|| text.parse().ok().and_then(prefix_of));
    bits.filter(|bits| (1..=32).contains(bits)).ok_or_else(|| format!("`{text}`, its NETMASK, is not a mask"))
}

/// A name as the kernel gives it before udev does.
fn named(device: &str) -> Result<Option<String>, String> {
    let is_name = device.len() < 16
        && device.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    match is_name && device != "." && device != ".." {
        true => Ok((!device.is_empty()).then(|| device.to_owned())),
        false => Err(format!("`{device}` is not the name of a card")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Chain;

    fn read(words: &[&str]) -> Result<Wanted, String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        super::read(&words).map_err(|failure| Chain(&failure).to_string())
    }

    #[test]
    fn forms_that_are_taken() {
        let dhcp = |device: Option<&str>| Wanted { device: device.map(str::to_owned), fixed: None };
        assert_eq!(read(&["quiet"]), Ok(dhcp(None)));
        assert_eq!(read(&["ip=dhcp"]), Ok(dhcp(None)));
        assert_eq!(read(&["ip=eth1:dhcp"]), Ok(dhcp(Some("eth1"))));
        assert_eq!(read(&["ip=:::::eth1:dhcp"]), Ok(dhcp(Some("eth1"))));
        let fixed =
            read(&["ip=192.0.2.7::192.0.2.1:255.255.255.128::eth0:none:192.0.2.2", "nameserver=192.0.2.3"]);
        let fixed = fixed.unwrap();
        let lease = fixed.fixed.unwrap();
        assert_eq!(fixed.device.as_deref(), Some("eth0"));
        assert_eq!(lease.to_string(), "192.0.2.7/25, router 192.0.2.1, DNS 192.0.2.2, DNS 192.0.2.3");
        // A script of iPXE says again what the image says; an operator has the last word.
        let fixed = ["ip=192.0.2.7:::24", "nameserver=192.0.2.3"];
        assert_eq!(read(&[fixed, fixed].concat()), read(&fixed));
        assert_eq!(read(&["ip=192.0.2.7:::24", "ip=eth0:dhcp"]), Ok(dhcp(Some("eth0"))));
        assert_eq!(read(&["ip=192.0.2.7:::24"]).unwrap().fixed.unwrap().to_string(), "192.0.2.7/24");
    }

    #[test]
    fn all_others_are_refused_by_name() {
        for (word, what) in [
            ("ip=off", "`off` is not a way to an address"),
            ("ip=bootp", "`bootp` is not a way to an address"),
            ("ip=192.0.2.7:192.0.2.9::24", "`192.0.2.9`, its SERVER, has no effect here"),
            ("ip=192.0.2.7:::24:rack1", "`rack1`, its HOST, has no effect here"),
            ("ip=192.0.2.7:::255.0.255.0", "`255.0.255.0`, its NETMASK, is not a mask"),
            ("ip=192.0.2.7", "``, its NETMASK, is not a mask"),
            ("ip=192.0.2.7::x:24", "`x`, its GATEWAY, is not an IPv4 address"),
            ("ip=192.0.2.7:::24::eth0:dhcp", "`dhcp` does not go with these fields"),
            ("ip=192.0.2.0:::24", "192.0.2.0 is the name of a network, not an address in it"),
            ("ip=[2001:db8::1]::[2001:db8::2]:64", "IPv6 is not spoken here"),
            ("ip=../x:dhcp", "`../x` is not the name of a card"),
            ("nameserver=192.0.2.3", "the DHCP server names the DNS servers"),
        ] {
            let error = read(&[word]).unwrap_err();
            assert!(error.contains(what), "{word}: {error}");
        }
    }
}
