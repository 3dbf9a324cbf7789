//! Samples of `network`, whose fields are the node document's.

use super::samples::{Sample, differ};

/// A manifest with these interfaces, and a unit for the program that reads them.
macro_rules! network {
    ($interfaces:literal) => {
        concat!(
            "services: {enable: [systemd-networkd.service]}\n",
            "files: [{path: /usr/lib/systemd/system/systemd-networkd.service, ",
            "content: \"[Service]\\nExecStart=/usr/bin/systemctl\\n[Install]\\nWantedBy=multi-user.target\\n\"}]\n",
            "network: {interfaces: [",
            $interfaces,
            "]}"
        )
    };
}

/// Of manifests.
pub const NETWORK: &[Sample] = &[
    differ(
        "network.interfaces.addresses",
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.6/24]}"),
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24]}"),
    ),
    differ(
        "network.interfaces.bond.mode=802.3ad",
        network!("{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: bond0, bond: {of: [l]}}"),
        network!(
            "{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: bond0, bond: {of: [l], mode: 802.3ad}}"
        ),
    ),
    differ(
        "network.interfaces.bond.mode=balance-rr",
        network!("{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: bond0, bond: {of: [l]}}"),
        network!(
            "{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: bond0, bond: {of: [l], mode: balance-rr}}"
        ),
    ),
    differ(
        "network.interfaces.bond.mode=balance-xor",
        network!("{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: bond0, bond: {of: [l]}}"),
        network!(
            "{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: bond0, bond: {of: [l], mode: balance-xor}}"
        ),
    ),
    differ(
        "network.interfaces.bond.mode=active-backup",
        network!(
            "{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: bond0, bond: {of: [l], mode: 802.3ad}}"
        ),
        network!(
            "{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: bond0, bond: {of: [l], mode: active-backup}}"
        ),
    ),
    differ(
        "network.interfaces.bond.of",
        network!("{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: bond0, bond: {of: [l]}}"),
        network!("{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: bond0, bond: {of: [r]}}"),
    ),
    differ(
        "network.interfaces.bridge.of",
        network!("{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: br0, bridge: {of: [l]}}"),
        network!("{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: br0, bridge: {of: [r]}}"),
    ),
    differ(
        "network.interfaces.card.mac",
        network!("{name: lan, card: {mac: '52:54:00:12:34:56'}}"),
        network!("{name: lan, card: {mac: '52:54:00:12:34:57'}}"),
    ),
    differ(
        "network.interfaces.card.name",
        network!("{name: lan, card: {name: eth0}}"),
        network!("{name: lan, card: {name: eth1}}"),
    ),
    differ(
        "network.interfaces.card.path",
        network!("{name: lan, card: {path: 'pci-0000:02:00.0'}}"),
        network!("{name: lan, card: {path: 'pci-0000:03:00.0'}}"),
    ),
    differ(
        "network.interfaces.dhcp=both",
        network!("{name: lan, card: {name: eth0}}"),
        network!("{name: lan, card: {name: eth0}, dhcp: both}"),
    ),
    differ(
        "network.interfaces.dhcp=ipv4",
        network!("{name: lan, card: {name: eth0}}"),
        network!("{name: lan, card: {name: eth0}, dhcp: ipv4}"),
    ),
    differ(
        "network.interfaces.dhcp=ipv6",
        network!("{name: lan, card: {name: eth0}}"),
        network!("{name: lan, card: {name: eth0}, dhcp: ipv6}"),
    ),
    differ(
        "network.interfaces.dhcp=none",
        network!("{name: lan, card: {name: eth0}, dhcp: both}"),
        network!("{name: lan, card: {name: eth0}, dhcp: none}"),
    ),
    differ(
        "network.interfaces.dns",
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24]}"),
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], dns: [10.0.0.1]}"),
    ),
    differ(
        "network.interfaces.domains",
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24]}"),
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], domains: [example.org]}"),
    ),
    differ(
        "network.interfaces.gateways",
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24]}"),
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], gateways: [10.0.0.1]}"),
    ),
    differ(
        "network.interfaces.mtu",
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24]}"),
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], mtu: 9000}"),
    ),
    differ(
        "network.interfaces.name",
        network!("{name: lan, card: {name: eth0}}"),
        network!("{name: wan, card: {name: eth0}}"),
    ),
    differ(
        "network.interfaces.ntp",
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24]}"),
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], ntp: [time.example.org]}"),
    ),
    differ(
        "network.interfaces.required",
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24]}"),
        network!("{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], required: false}"),
    ),
    differ(
        "network.interfaces.routes.metric",
        network!(
            "{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], routes: [{to: 10.1.0.0/16, via: 10.0.0.1}]}"
        ),
        network!(
            "{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], routes: [{to: 10.1.0.0/16, via: 10.0.0.1, metric: 5}]}"
        ),
    ),
    differ(
        "network.interfaces.routes.to",
        network!(
            "{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], routes: [{to: 10.1.0.0/16, via: 10.0.0.1}]}"
        ),
        network!(
            "{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], routes: [{to: 10.2.0.0/16, via: 10.0.0.1}]}"
        ),
    ),
    differ(
        "network.interfaces.routes.via",
        network!(
            "{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], routes: [{to: 10.1.0.0/16, via: 10.0.0.1}]}"
        ),
        network!(
            "{name: lan, card: {name: eth0}, addresses: [10.0.0.5/24], routes: [{to: 10.1.0.0/16, via: 10.0.0.2}]}"
        ),
    ),
    differ(
        "network.interfaces.vlan.id",
        network!(
            "{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: v, vlan: {of: l, id: 20}}"
        ),
        network!(
            "{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: v, vlan: {of: l, id: 21}}"
        ),
    ),
    differ(
        "network.interfaces.vlan.of",
        network!(
            "{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: v, vlan: {of: l, id: 20}}"
        ),
        network!(
            "{name: l, card: {name: e0}}, {name: r, card: {name: e1}}, {name: v, vlan: {of: r, id: 20}}"
        ),
    ),
];
