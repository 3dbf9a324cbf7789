//! Addresses that no machine can have, whatever its network is.

use std::net::IpAddr;

use crate::written::form::{Wrong, wrong};

/// Refuses an address that stands for something else than one machine.
pub(super) fn of_a_machine(ip: IpAddr) -> Result<(), Wrong> {
    let example = "the address of one machine, such as `10.0.0.1` or `fd00::1`";
    if let IpAddr::V6(six) = ip
        && let Some(four) = six.to_ipv4_mapped()
    {
        return wrong("is an address of IPv4 in another form", format!("write `{four}`"));
    }
    // RFC 6890: "this host on this network". What it reserves for later, 240.0.0.0/4, clouds give to machines.
    let (is_none, is_all) = match ip {
        IpAddr::V4(four) => (four.octets()[0] == 0, four.is_broadcast()),
        IpAddr::V6(six) => (six.is_unspecified(), false),
    };
    match () {
        () if is_none => wrong("stands for no machine", example),
        () if ip.is_loopback() => wrong("is what each machine calls itself", example),
        () if ip.is_multicast() => wrong("stands for a group of machines", example),
        () if is_all => wrong("stands for all machines", example),
        () => Ok(()),
    }
}

/// Refuses an address with its prefix that no card can have: also that of the network itself, and the one that stands for all in
/// it. systemd-networkd would take `0.0.0.0/24` for leave to choose one.
pub(super) fn of_a_card(ip: IpAddr, prefix: u8) -> Result<(), Wrong> {
    of_a_machine(ip)?;
    if prefix == 0 {
        return wrong("has a network of all addresses", "a prefix such as `/24`, or `/64` for IPv6");
    }
    let IpAddr::V4(four) = ip else { return Ok(()) };
    // RFC 3021: networks of two have neither.
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).filter(|_| prefix < 31).unwrap_or_default();
    match u32::from(four) & hosts {
        0 if hosts != 0 => wrong("is the network itself", "an address in it, such as `10.0.0.5/24`"),
        rest if hosts != 0 && rest == hosts => {
            wrong("stands for all machines of its network", "an address in it, such as `10.0.0.5/24`")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_something_else_is_refused() {
        for (text, part) in [
            ("0.0.0.0", "stands for no machine"),
            ("0.0.0.1", "stands for no machine"),
            ("::", "stands for no machine"),
            ("127.0.0.9", "what each machine calls itself"),
            ("::1", "what each machine calls itself"),
            ("224.0.0.1", "a group of machines"),
            ("ff02::1", "a group of machines"),
            ("255.255.255.255", "stands for all machines"),
            ("::ffff:10.0.0.1", "IPv4 in another form"),
            ("::ffff:127.0.0.1", "IPv4 in another form"),
        ] {
            let wrong = of_a_machine(text.parse().unwrap()).unwrap_err();
            assert!(wrong.what.contains(part), "{text}: {}", wrong.what);
            assert!(of_a_card(text.parse().unwrap(), 24).is_err());
        }
        for good in
            ["10.0.0.1", "240.0.0.1", "169.254.0.1", "192.0.2.255", "fd00::1", "fe80::1", "2001:db8::"]
        {
            assert!(of_a_machine(good.parse().unwrap()).is_ok(), "{good}");
        }
        for (text, prefix, is_good) in [
            ("10.0.0.5", 24, true),
            ("10.0.0.0", 24, false),
            ("10.0.0.255", 24, false),
            ("10.0.0.255", 16, true),
            ("10.0.0.0", 31, true),
            ("10.0.0.1", 31, true),
            ("10.0.0.0", 32, true),
            ("10.0.0.1", 1, true),
            ("10.0.0.1", 0, false),
            ("fd00::", 64, true),
            ("fd00::1", 0, false),
        ] {
            assert_eq!(of_a_card(text.parse().unwrap(), prefix).is_ok(), is_good, "{text}/{prefix}");
        }
    }
}
