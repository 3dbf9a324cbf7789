//! Interfaces as files of systemd-networkd: systemd.network(5), systemd.netdev(5).
//!
//! The first file that fits a card is its own: those of a node document come before those of the manifest, and both before
//! `80-keller-dhcp.network` of the image.

use std::fmt::Write;
use std::net::IpAddr;

use super::super::{BondMode, Dhcp, Interface, InterfaceKind};
use super::{Image, READABLE, Rendered};

const DIRECTORY: &str = "/run/systemd/network";
const NODE: &str = "10-keller";
const MANIFEST: &str = "30-keller";
/// Where the files of the manifest are, in the image.
const IMAGE: &str = "/usr/lib/systemd/network";
const KINDS: [&str; 2] = ["netdev", "network"];

/// The files that the manifest's interfaces are in an image: absolute paths and texts.
pub fn of_manifest(interfaces: &[Interface]) -> Vec<(String, String)> {
    let at = |(name, text)| (format!("{IMAGE}/{MANIFEST}-{name}"), text);
    files(interfaces).into_iter().map(at).collect()
}

/// An interface of the document takes the place of the manifest's of the same name.
pub(super) fn render(interfaces: &[Interface], image: &dyn Image, rendered: &mut Rendered) {
    for (name, text) in files(interfaces) {
        rendered.file(format!("{DIRECTORY}/{NODE}-{name}"), READABLE, text);
    }
    for name in interfaces.iter().flat_map(|one| KINDS.map(|kind| format!("{MANIFEST}-{}.{kind}", one.name)))
    {
        if image.read(&format!("{IMAGE}/{name}")).is_some() {
            rendered.link(format!("{DIRECTORY}/{name}"), "/dev/null");
        }
    }
}

/// The names' ends, and texts.
fn files(interfaces: &[Interface]) -> Vec<(String, String)> {
    let of = |one: &Interface| {
        let netdev = netdev(one).map(|text| (format!("{}.netdev", one.name), text));
        netdev
            .into_iter()
            .chain([(format!("{}.network", one.name), network(one, interfaces))])
            .collect::<Vec<_>>()
    };
    interfaces.iter().flat_map(of).collect()
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

#[cfg(test)]
mod tests {
    use super::super::super::{Kind, read, render};
    use super::*;

    fn interfaces(text: &str) -> Vec<Interface> {
        let text = format!("node: 1\nnetwork:\n  interfaces:\n{text}");
        read("x", text.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}")).remove(0).interfaces
    }

    const IMAGE_HAS: &str =
        "  - {name: lan, card: {name: \"en*\"}}\n  - {name: br0, bridge: {of: [lan]}, dhcp: ipv4}\n";

    #[test]
    fn an_interface_of_the_document_replaces_that_of_the_image() {
        struct Root(Vec<(String, String)>);
        impl Image for Root {
            fn read(&self, path: &str) -> Option<String> {
                self.0.iter().find(|(name, _)| name == path).map(|(_, text)| text.clone())
            }
        }
        let root = Root(of_manifest(&interfaces(IMAGE_HAS)));
        let paths: Vec<&str> = root.0.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/usr/lib/systemd/network/30-keller-lan.network",
                "/usr/lib/systemd/network/30-keller-br0.netdev",
                "/usr/lib/systemd/network/30-keller-br0.network",
            ]
        );
        assert!(root.0[0].1.contains("Bridge=br0"), "{:?}", root.0);
        let text = "node: 1\nnetwork: {interfaces: [{name: br0, bridge: {of: []}, addresses: [10.0.0.2/24]}, {name: wan, \
                    card: {name: wan0}, dhcp: both}]}\n";
        let rendered = render(&read("x", text.as_bytes()).unwrap()[0], &root);
        let told: Vec<(&str, bool)> = rendered
            .items
            .iter()
            .map(|item| (item.path.as_str(), matches!(item.kind, Kind::Link(_))))
            .collect();
        assert_eq!(
            told,
            [
                ("/run/systemd/network/10-keller-br0.netdev", false),
                ("/run/systemd/network/10-keller-br0.network", false),
                ("/run/systemd/network/10-keller-wan.network", false),
                ("/run/systemd/network/30-keller-br0.netdev", true),
                ("/run/systemd/network/30-keller-br0.network", true),
            ]
        );
    }
}
