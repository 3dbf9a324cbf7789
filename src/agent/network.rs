//! Whether the network is as the node document says: its addresses and default routes, as the kernel has them.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::node::FACTS;

/// What the kernel has.
#[derive(Debug, Default)]
struct Found {
    addresses: BTreeSet<IpAddr>,
    /// Routers of default routes; one that has no router counts as unspecified.
    routers: BTreeSet<IpAddr>,
}

/// The first that is not there, in words.
pub(super) fn missing() -> Option<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let facts = serde_json::from_str(&read(FACTS)).unwrap_or(Value::Null);
    let found = Found {
        addresses: addresses(&read("/proc/net/fib_trie"), &read("/proc/net/if_inet6")),
        routers: routers(&read("/proc/net/route"), &read("/proc/net/ipv6_route")),
    };
    lacking(&facts, &found)
}

fn lacking(facts: &Value, found: &Found) -> Option<String> {
    let list = |key: &str| -> Vec<IpAddr> {
        let list = facts.pointer(&format!("/network/{key}")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|text| text.as_str()?.parse().ok()).collect()
    };
    let (addresses, gateways) = (list("addresses"), list("gateways"));
    let dhcp = facts.pointer("/network/dhcp").and_then(Value::as_bool).unwrap_or_default();
    if let Some(address) = addresses.iter().find(|one| !found.addresses.contains(one)) {
        return Some(format!("the address {address}"));
    }
    if let Some(gateway) = gateways.iter().find(|one| !found.routers.contains(one)) {
        return Some(format!("the default route by {gateway}"));
    }
    // A document that gives addresses and no router is for a network without one.
    let wants_route = gateways.is_empty() && (dhcp || addresses.is_empty());
    (wants_route && found.routers.is_empty()).then(|| "a default route".to_owned())
}

/// Those of this node: `host LOCAL` of /proc/net/fib_trie follows its address.
fn addresses(v4: &str, v6: &str) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    let mut last = None;
    for line in v4.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.ends_with("host LOCAL") {
            found.extend(last.map(IpAddr::V4));
        }
    }
    let v6 = v6.lines().filter_map(|line| line.split_whitespace().next());
    found.extend(
        v6.filter_map(|digits| u128::from_str_radix(digits, 16).ok()).map(|bits| IpAddr::V6(bits.into())),
    );
    found
}

fn routers(v4: &str, v6: &str) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    for line in v4.lines() {
        if let [_, "00000000", gateway, _, _, _, _, "00000000", ..] =
            line.split_whitespace().collect::<Vec<_>>()[..]
        {
            // The kernel shows the bytes in the processor's order.
            let gateway = u32::from_str_radix(gateway, 16).map(|bits| Ipv4Addr::from(bits.swap_bytes()));
            found.extend(gateway.ok().map(IpAddr::V4));
        }
    }
    for line in v6.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Every node has a route of this form to nowhere, over lo.
        if let [destination, "00", _, _, gateway, .., interface] = words[..]
            && destination.bytes().all(|byte| byte == b'0')
            && interface != "lo"
        {
            found.extend(u128::from_str_radix(gateway, 16).ok().map(|bits| IpAddr::V6(bits.into())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 10.0.2.0/24\n        \
        |-- 10.0.2.0\n           /24 link UNICAST\n        |-- 10.0.2.15\n           /32 host LOCAL\n";
    const ROUTE: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\nens3\t00000000\t0202000A\t0003\t0\t0\t\
        1024\t00000000\t0\t0\t0\nens3\t0002000A\t00000000\t0001\t0\t0\t1024\t00FFFFFF\t0\t0\t0\n";
    const V6: &str = "fd000000000000000000000000000005 02 40 00 80 ens3\n";
    const ROUTE6: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        fe800000000000000000000000000001 00000400 1 0 00000003 ens3\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        00000000000000000000000000000000 ffffffff 1 0 00200200 lo\n";

    #[test]
    fn what_a_document_names_must_be_there() {
        let found = Found { addresses: addresses(TRIE, V6), routers: routers(ROUTE, ROUTE6) };
        let told = |addresses: &[&str], gateways: &[&str]| {
            let network = json!({ "addresses": addresses, "gateways": gateways, "dhcp": false });
            lacking(&json!({ "network": network }), &found)
        };
        assert_eq!(told(&["10.0.2.15", "fd00::5"], &["10.0.2.2", "fe80::1"]), None);
        assert_eq!(told(&["10.0.2.16"], &[]).as_deref(), Some("the address 10.0.2.16"));
        assert_eq!(told(&["10.0.2.0"], &[]).as_deref(), Some("the address 10.0.2.0"));
        assert_eq!(told(&[], &["10.0.2.3"]).as_deref(), Some("the default route by 10.0.2.3"));
        assert_eq!(lacking(&Value::Null, &found), None);
        let nothing = Found::default();
        assert_eq!(lacking(&Value::Null, &nothing).as_deref(), Some("a default route"));
        let island = json!({ "network": { "addresses": ["10.0.2.15"], "gateways": [], "dhcp": false } });
        assert_eq!(lacking(&island, &Found { routers: BTreeSet::new(), ..found }), None);
    }
}
