//! The forms of single values that lab files and flags have. Text in, value or reason out.

use std::net::Ipv4Addr;

use jiff::civil::DateTime;

use crate::base::Size;
use crate::lab::plan::LEAST_MEMORY;
use crate::qemu::Bus;
use crate::written::form::{Wrong, lower, wrong};

/// A machine's name: a host name, and the name of a directory.
pub(super) fn name(text: &str) -> Result<(), Wrong> {
    let good = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| lower(c) || c == '-')
        && !text.ends_with('-')
        && text.len() <= 32;
    match good {
        true => Ok(()),
        false => wrong(
            "is not the name of a machine",
            "a-z, 0-9 and `-`, beginning with a letter, at most 32, such as `a` or `rack1-07`",
        ),
    }
}

/// An address with its prefix.
pub(super) fn address(text: &str) -> Result<(Ipv4Addr, u8), Wrong> {
    let parse = || {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        (1..=30).contains(&prefix).then_some((address, prefix))
    };
    let Some((address, prefix)) = parse() else {
        return wrong("is not an IPv4 address with its prefix", "such as `10.77.0.11/24`");
    };
    if address.octets()[..3] == [10, 0, 2] {
        let help = "choose another, such as one of 10.77.0.0/24; or write a node document";
        return wrong("is in 10.0.2.0/24, the network of each machine's other card", help);
    }
    if address.is_loopback() || address.is_multicast() || address.is_broadcast() || address.is_unspecified() {
        return wrong("cannot be the address of a machine", "such as `10.77.0.11/24`");
    }
    Ok((address, prefix))
}

/// Memory in whole MiB.
pub(super) fn memory(text: &str) -> Result<Size, Wrong> {
    let size = whole_mib(text)?;
    if size < LEAST_MEMORY {
        return wrong("is too little", format!("a node needs at least {LEAST_MEMORY}"));
    }
    if u32::try_from(size.bytes() >> 20).is_err() {
        return wrong("is more than a machine can have", "such as `640MiB`");
    }
    Ok(size)
}

/// A disk in whole MiB.
pub(super) fn disk(text: &str) -> Result<Size, Wrong> {
    whole_mib(text)
}

fn whole_mib(text: &str) -> Result<Size, Wrong> {
    match text.parse::<Size>() {
        Ok(size) if size.bytes() > 0 && size.bytes().is_multiple_of(Size::mib(1).bytes()) => Ok(size),
        Ok(_) => wrong("is not a number of whole MiB", "such as `640MiB` or `20GiB`"),
        Err(_) => wrong("is not a size", "such as `640MiB` or `20GiB`"),
    }
}

/// What a disk hangs on.
pub(super) fn bus(text: &str) -> Result<Bus, Wrong> {
    text.parse().or_else(|why: String| wrong("is not a bus that a disk can hang on", why))
}

/// What a clock shows.
pub(super) fn clock(text: &str) -> Result<DateTime, Wrong> {
    match text.parse::<DateTime>() {
        Ok(shown) if (1970..2100).contains(&shown.year()) => Ok(shown),
        Ok(_) => wrong("is nothing that a clock of a machine can show", "a year from 1970 to 2099"),
        Err(_) => {
            wrong("is neither a date nor a date and a time", "such as `2025-11-28` or `2025-11-28T08:30:00`")
        }
    }
}

/// Two ports, as `8080:80`.
pub(super) fn forward(text: &str) -> Result<(u16, Option<u16>), Wrong> {
    let parse = || {
        let (host, guest) = text.split_once(':')?;
        let (host, guest): (u16, u16) = (host.parse().ok()?, guest.parse().ok()?);
        (guest != 0).then_some((guest, Some(host).filter(|host| *host != 0)))
    };
    match parse() {
        Some(forward) => Ok(forward),
        None => {
            wrong("does not name two ports", "HOST:GUEST, such as `8080:80`; `0:80` takes one that is free")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_values() {
        for good in ["a", "rack1-07", "x9"] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(33);
        for bad in ["", "A", "1a", "-a", "a-", "a.b", "a/b", "..", "a b", "ä", long.as_str()] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(address("10.9.0.1/16"), Ok(([10, 9, 0, 1].into(), 16)));
        for bad in
            ["10.9.0.1", "10.9.0.1/0", "10.9.0.1/31", "10.0.2.7/24", "127.0.0.1/8", "fd00::1/64", "x/8"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert_eq!(memory("640MiB"), Ok(Size::mib(640)));
        for bad in ["256MiB", "0", "much", "600000000", "5000TiB"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
        assert_eq!(disk("20GiB"), Ok(Size::mib(20 << 10)));
        assert!(disk("0").is_err() && disk("20").is_err());
        assert_eq!(bus("nvme"), Ok(Bus::Nvme));
        assert!(bus("sata").is_err());
        let shown = |text: &str| clock(text).map(|shown| shown.to_string());
        assert_eq!(shown("2025-11-28").unwrap(), "2025-11-28T00:00:00");
        assert_eq!(shown("2025-11-28T08:30:00").unwrap(), "2025-11-28T08:30:00");
        for bad in ["", "yesterday", "1969-12-31", "2100-01-01", "2025-13-01", "2025-02-30"] {
            assert!(clock(bad).is_err(), "{bad}");
        }
        assert_eq!([forward("8080:80"), forward("0:80")], [Ok((80, Some(8080))), Ok((80, None))]);
        for bad in ["80", "8080:0", ":80", "a:b", "70000:80"] {
            assert!(forward(bad).is_err(), "{bad}");
        }
    }
}
