//! Interfaces: forms of addresses, and what the entries say of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::raw::{RawCard, RawInterface, RawNetwork, RawRoute};
use super::{Dhcp, Interface, InterfaceKind, Route, reach};
use crate::written::decode::At;
use crate::written::diagnostic::Report;
use crate::written::firsts::Firsts;
use crate::written::form::{Wrong, wrong};
use crate::written::place::Mark;

/// IFNAMSIZ of linux/if.h, without the NUL.
const LONGEST_NAME: usize = 15;

/// All entries, and what is wrong between them.
pub(crate) fn interfaces(raw: RawNetwork, report: &mut Report) -> Vec<Interface> {
    let items = raw.interfaces;
    let mut names = Firsts::new();
    let mut addresses = Firsts::new();
    let mut checked = Vec::new();
    let mut references = Vec::new();
    // What is wrong with an entry is told there, and not once more by those that name it.
    let known: BTreeSet<String> = items.iter().map(|at| at.value.name.value.clone()).collect();
    for At { value: raw, mark } in items {
        if let Some(first) = names.note(raw.name.value.clone(), raw.name.mark) {
            report
                .error(raw.name.mark, format!("the interface `{}` stands here a second time", raw.name.value))
                .related(first, "the first is here");
        }
        for at in &raw.addresses {
            if let Some(first) = addresses.note(at.value.clone(), at.mark) {
                report
                    .error(at.mark, format!("the address `{}` stands here a second time", at.value))
                    .related(first, "the first is here");
            }
        }
        references.extend(named(&raw));
        let name_mark = raw.name.mark;
        checked.extend(interface(raw, mark, report).map(|one| (name_mark, one)));
    }
    for at in &references {
        if !known.contains(&at.value) {
            report
                .error(at.mark, format!("no interface here is named `{}`", at.value))
                .help("add an entry with this `name`; a card is told by its `card`");
        }
    }
    members(&checked, report);
    circles(&checked, report);
    checked.into_iter().map(|(_, one)| one).collect()
}

/// Names of other entries.
fn named(raw: &RawInterface) -> Vec<At<String>> {
    let bond = raw.bond.iter().flat_map(|at| at.value.of.clone());
    let bridge = raw.bridge.iter().flat_map(|at| at.value.of.clone());
    bond.chain(bridge).chain(raw.vlan.iter().map(|at| at.value.of.clone())).collect()
}

fn interface(raw: RawInterface, mark: Mark, report: &mut Report) -> Option<Interface> {
    let kind = kind(&raw, mark, report);
    let name = report.checked(raw.name, interface_name);
    let mut ips = |items: Vec<At<String>>, rule: fn(IpAddr) -> Result<(), Wrong>| -> Vec<IpAddr> {
        let ips = items.iter().filter_map(|at| {
            let ip = report.form(at, ip)?;
            report.later(at, ip, rule)
        });
        ips.collect()
    };
    let (dns, gateway_marks) = (ips(raw.dns, server), raw.gateways.clone());
    let gateways = ips(raw.gateways, reach::of_a_machine);
    let addresses = raw.addresses.iter().filter_map(|at| {
        let address = report.form(at, address)?;
        report.later(at, address, |(ip, prefix)| reach::of_a_card(ip, prefix))
    });
    let addresses: Vec<_> = addresses.collect();
    let dhcp = raw.dhcp.map_or(Dhcp::None, |at| at.value);
    for at in &gateway_marks {
        if let Ok(gateway) = at.value.parse::<IpAddr>()
            && dhcp == Dhcp::None
            && !is_local(gateway)
            && !addresses.iter().any(|(ip, prefix)| is_in(gateway, *ip, *prefix))
        {
            report
                .error(at.mark, format!("no address of this interface reaches `{gateway}`"))
                .help("a router is in the network of one of the `addresses`");
        }
    }
    let routes = raw.routes.into_iter().filter_map(|at| route(at.value, report)).collect();
    let mtu = raw.mtu.filter(|at| {
        let good = (68..=65_535).contains(&at.value);
        if !good {
            report.error(at.mark, format!("{} is no size of packets", at.value)).help("from 68 to 65535");
        }
        good
    });
    let domains = raw.domains.into_iter().filter_map(|at| report.checked(at, word)).collect();
    let ntp = raw.ntp.into_iter().filter_map(|at| {
        report.form(&at, word)?;
        report.later(&at, (), |()| at.value.parse().map_or(Ok(()), server))?;
        Some(at.value)
    });
    let ntp = ntp.collect();
    let has_addresses = !addresses.is_empty() || dhcp != Dhcp::None;
    if let Some(at) = raw.required.as_ref().filter(|at| at.value && !has_addresses) {
        report
            .error(at.mark, "an interface without addresses is never online")
            .help("give it `addresses` or `dhcp`, or leave out `required`");
    }
    let required = raw.required.map_or(has_addresses, |at| at.value);
    Some(Interface {
        name: name?,
        kind: kind?,
        dhcp,
        addresses,
        gateways,
        routes,
        dns,
        domains,
        ntp,
        mtu: mtu.map(|at| at.value),
        required,
    })
}

fn kind(raw: &RawInterface, mark: Mark, report: &mut Report) -> Option<InterfaceKind> {
    let card = raw.card.as_ref().map(|at| at.mark);
    let bond = raw.bond.as_ref().map(|at| at.mark);
    let vlan = raw.vlan.as_ref().map(|at| at.mark);
    let bridge = raw.bridge.as_ref().map(|at| at.mark);
    let said: Vec<Mark> = [card, bond, vlan, bridge].into_iter().flatten().collect();
    match said[..] {
        [_] => {}
        [] => {
            report
                .error(mark, "this entry does not say what the interface is")
                .help("one of `card`, `bond`, `vlan` and `bridge`");
            return None;
        }
        [first, second, ..] => {
            report
                .error(second, "this entry says twice what the interface is")
                .help("only one of `card`, `bond`, `vlan` and `bridge`")
                .related(first, "the first is here");
            return None;
        }
    }
    let of = |items: &[At<String>]| items.iter().map(|at| at.value.clone()).collect::<Vec<_>>();
    if let Some(at) = &raw.card {
        return self::card(&at.value, at.mark, report);
    }
    if let Some(at) = &raw.bond {
        if at.value.of.is_empty() {
            report.error(at.mark, "this bond has no cards").help("name them in `of`");
        }
        return Some(InterfaceKind::Bond(
            of(&at.value.of),
            at.value.mode.as_ref().map_or_else(Default::default, |at| at.value),
        ));
    }
    if let Some(at) = &raw.bridge {
        return Some(InterfaceKind::Bridge(of(&at.value.of)));
    }
    let at = raw.vlan.as_ref()?;
    let id = u16::try_from(at.value.id.value).ok().filter(|id| (1..=4094).contains(id));
    if id.is_none() {
        report
            .error(at.value.id.mark, format!("{} is not the id of a VLAN", at.value.id.value))
            .help("from 1 to 4094");
    }
    Some(InterfaceKind::Vlan(at.value.of.value.clone(), id?))
}

fn card(raw: &RawCard, mark: Mark, report: &mut Report) -> Option<InterfaceKind> {
    match (&raw.mac, &raw.name, &raw.path) {
        (Some(at), None, None) => report.form(at, mac).map(InterfaceKind::Mac),
        (None, Some(at), None) => report.checked(at.clone(), pattern).map(InterfaceKind::Named),
        (None, None, Some(at)) => report.checked(at.clone(), pattern).map(InterfaceKind::Path),
        _ => {
            report.error(mark, "a card is told by one thing").help("one of `mac`, `name` and `path`");
            None
        }
    }
}

fn route(raw: RawRoute, report: &mut Report) -> Option<Route> {
    let to = report.form(&raw.to, address);
    let via = report.form(&raw.via, ip).and_then(|ip| report.later(&raw.via, ip, reach::of_a_machine));
    if let (Some((to, _)), Some(via)) = (to, via)
        && to.is_ipv4() != via.is_ipv4()
    {
        report.error(raw.via.mark, "the router is not of the same family").help("IPv4 or IPv6, both of them");
    }
    Some(Route { to: to?, via: via?, metric: raw.metric.map(|at| at.value) })
}

/// What a bond or a bridge consists of is used by nothing else, and has no addresses.
fn members(checked: &[(Mark, Interface)], report: &mut Report) {
    let mut owners: BTreeMap<&str, Mark> = BTreeMap::new();
    for (mark, owner) in checked {
        let (InterfaceKind::Bond(of, _) | InterfaceKind::Bridge(of)) = &owner.kind else { continue };
        for name in of {
            if let Some(first) = owners.insert(name, *mark) {
                report
                    .error(*mark, format!("`{name}` belongs to another interface already"))
                    .related(first, "to this one");
            }
            let Some((at, member)) = checked.iter().find(|(_, one)| one.name == *name) else { continue };
            if !member.addresses.is_empty() || member.dhcp != Dhcp::None {
                report
                    .error(*at, format!("`{name}` is a part of `{}` and cannot have addresses", owner.name))
                    .help(format!("give them to `{}`", owner.name))
                    .related(*mark, "it is used here");
            }
            let is_card = !matches!(
                member.kind,
                InterfaceKind::Bond(..) | InterfaceKind::Vlan(..) | InterfaceKind::Bridge(..)
            );
            if matches!(owner.kind, InterfaceKind::Bond(..)) && !is_card {
                report.error(*mark, format!("`{name}` is no card")).help("a bond is made of cards");
            }
        }
    }
}

/// Nothing is made of itself.
fn circles(checked: &[(Mark, Interface)], report: &mut Report) {
    let below = |one: &Interface| match &one.kind {
        InterfaceKind::Bond(of, _) | InterfaceKind::Bridge(of) => of.clone(),
        InterfaceKind::Vlan(of, _) => vec![of.clone()],
        _ => Vec::new(),
    };
    for (mark, one) in checked {
        let (mut seen, mut pending) = (BTreeSet::new(), below(one));
        while let Some(name) = pending.pop() {
            if name == one.name {
                report.error(*mark, format!("`{name}` is made of itself"));
                break;
            }
            if seen.insert(name.clone()) {
                pending.extend(
                    checked.iter().filter(|(_, other)| other.name == name).flat_map(|(_, it)| below(it)),
                );
            }
        }
    }
}

fn interface_name(text: &str) -> Result<(), Wrong> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_name = !text.is_empty() && text.len() <= LONGEST_NAME && text.chars().all(good);
    match is_name && !matches!(text, "." | ".." | "lo" | "all" | "default") && !text.starts_with(['-', '.']) {
        true => Ok(()),
        false => wrong("is not the name of an interface", "at most 15 letters, digits, `.`, `_` and `-`"),
    }
}

pub(super) fn mac(text: &str) -> Result<String, Wrong> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let is_byte = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_group = || u8::from_str_radix(parts[0], 16).is_ok_and(|first| first & 1 == 1);
    match parts.len() == 6 && parts.iter().all(is_byte) {
        true if is_group() => {
            wrong("stands for a group of cards", "the address of one, such as `52:54:00:12:34:56`")
        }
        true if parts.iter().all(|part| *part == "00") => {
            wrong("is no card's", "such as `52:54:00:12:34:56`")
        }
        true => Ok(parts.join(":").to_ascii_lowercase()),
        false => wrong("is not the address of a card", "such as `52:54:00:12:34:56`"),
    }
}

/// One word of a line of systemd.network(5).
fn word(text: &str) -> Result<(), Wrong> {
    match !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:~".contains(c)) {
        true => Ok(()),
        false => wrong("is neither a name nor an address", "one item each"),
    }
}

fn pattern(text: &str) -> Result<(), Wrong> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-:*?[]".contains(c);
    match !text.is_empty() && text.chars().all(good) {
        true => Ok(()),
        false => wrong("is not a pattern", "one word with `*` and `?`, such as `en*`"),
    }
}

fn ip(text: &str) -> Result<IpAddr, Wrong> {
    text.parse().or_else(|_| wrong("is not an IP address", "without a prefix, such as `10.0.0.1`"))
}

/// Refuses an address that no server has, which this machine may be itself.
fn server(ip: IpAddr) -> Result<(), Wrong> {
    if ip.is_loopback() { Ok(()) } else { reach::of_a_machine(ip) }
}

fn address(text: &str) -> Result<(IpAddr, u8), Wrong> {
    let example = "such as `10.0.0.5/24` or `fd00::5/64`";
    let Some((ip, prefix)) = text.split_once('/') else {
        return wrong("has no prefix", example);
    };
    let parsed = ip.parse::<IpAddr>().ok().zip(prefix.parse::<u8>().ok());
    match parsed {
        Some((ip, prefix)) if prefix <= if ip.is_ipv4() { 32 } else { 128 } => Ok((ip, prefix)),
        _ => wrong("is not an address with its prefix", example),
    }
}

/// fe80::/10, which every interface has.
fn is_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
}

fn is_in(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => u128::from(ip),
    };
    let same = bits(ip) ^ bits(network);
    ip.is_ipv4() == network.is_ipv4() && (prefix == 0 || same >> (128 - u32::from(prefix)) == 0)
}
