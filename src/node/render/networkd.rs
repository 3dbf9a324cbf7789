//! Interfaces as files of systemd-networkd: systemd.network(5), systemd.netdev(5).
//!
//! Their names sort before `80-keller-dhcp.network` of the image: the first file that fits a card is its own.

use std::fmt::Write;
use std::net::IpAddr;

use super::super::{BondMode, Dhcp, Interface, InterfaceKind};
use super::{READABLE, Rendered};

const FOLDER: &str = "/run/systemd/network/10-keller";

pub(super) fn render(interfaces: &[Interface], rendered: &mut Rendered) {
    for one in interfaces {
        if let Some(text) = netdev(one) {
            rendered.file(format!("{FOLDER}-{}.netdev", one.name), READABLE, text);
        }
        rendered.file(format!("{FOLDER}-{}.network", one.name), READABLE, network(one, interfaces));
    }
}

/// What makes an interface that is no card.
fn netdev(one: &Interface) -> Option<String> {
    let (kind, more) = match &one.kind {
        InterfaceKind::Bond(_, mode) => {
            ("bond", format!("\n[Bond]\nMode={}\nMIIMonitorSec=100ms\n", bond_mode(*mode)))
        }
        InterfaceKind::Vlan(_, id) => ("vlan", format!("\n[VLAN]\nId={id}\n")),
        InterfaceKind::Bridge(_) => ("bridge", String::new()),
        InterfaceKind::Mac(_) | InterfaceKind::Named(_) | InterfaceKind::Path(_) => return None,
    };
    Some(format!("[NetDev]\nName={}\nKind={kind}\n{more}", one.name))
}

fn bond_mode(mode: BondMode) -> &'static str {
    match mode {
        BondMode::ActiveBackup => "active-backup",
        BondMode::Lacp => "802.3ad",
        BondMode::RoundRobin => "balance-rr",
        BondMode::Xor => "balance-xor",
    }
}

fn network(one: &Interface, all: &[Interface]) -> String {
    let mut text = String::from("[Match]\n");
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "{key}={value}").expect("a String takes everything");
    };
    match &one.kind {
        // A bond gives its cards one address; the permanent one stays.
        InterfaceKind::Mac(mac) => line("PermanentMACAddress", mac),
        InterfaceKind::Named(pattern) => line("Name", pattern),
        InterfaceKind::Path(pattern) => line("Path", pattern),
        InterfaceKind::Bond(..) | InterfaceKind::Vlan(..) | InterfaceKind::Bridge(..) => {
            line("Name", &one.name)
        }
    }
    line("\n[Link]\nRequiredForOnline", &if one.required { "routable" } else { "no" });
    if let Some(mtu) = one.mtu {
        line("MTUBytes", &mtu);
    }
    let dhcp = match one.dhcp {
        Dhcp::None => "no",
        Dhcp::Ipv4 => "ipv4",
        Dhcp::Ipv6 => "ipv6",
        Dhcp::Both => "yes",
    };
    line("\n[Network]\nDHCP", &dhcp);
    let speaks_ipv6 = matches!(one.dhcp, Dhcp::Ipv6 | Dhcp::Both);
    // Addresses that the document does not name come only where it asks for some.
    line("IPv6AcceptRA", &if speaks_ipv6 { "yes" } else { "no" });
    if one.addresses.is_empty() && one.dhcp == Dhcp::None {
        line("LinkLocalAddressing", &"no");
    }
    for other in all {
        match &other.kind {
            InterfaceKind::Bond(of, _) if of.contains(&one.name) => line("Bond", &other.name),
            InterfaceKind::Bridge(of) if of.contains(&one.name) => line("Bridge", &other.name),
            InterfaceKind::Vlan(of, _) if *of == one.name => line("VLAN", &other.name),
            _ => {}
        }
    }
    one.addresses.iter().for_each(|(ip, prefix)| line("Address", &format_args!("{ip}/{prefix}")));
    one.gateways.iter().for_each(|ip: &IpAddr| line("Gateway", ip));
    one.dns.iter().for_each(|ip| line("DNS", ip));
    if !one.domains.is_empty() {
        line("Domains", &one.domains.join(" "));
    }
    if !one.ntp.is_empty() {
        line("NTP", &one.ntp.join(" "));
    }
    for route in &one.routes {
        line("\n[Route]\nDestination", &format_args!("{}/{}", route.to.0, route.to.1));
        line("Gateway", &route.via);
        if let Some(metric) = route.metric {
            line("Metric", &metric);
        }
    }
    if matches!(one.dhcp, Dhcp::Ipv4 | Dhcp::Both) {
        line("\n[DHCPv4]\nUseDomains", &"yes");
    }
    text
}
