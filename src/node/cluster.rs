//! The cluster of etcd that a node is a member of: by a list, and by nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::raw::RawCluster;
use super::{Secret, reach};
use crate::pki::etcd;
use crate::written::decode::At;
use crate::written::diagnostic::Report;
use crate::written::firsts::Firsts;
use crate::written::form::{Wrong, host_name, wrong};

/// Where a running node has it, as JSON; everybody may read it.
pub const CLUSTER: &str = "/run/keller/cluster.json";

/// What a member's credentials are called: this and the name of a file.
pub const PREFIX: &str = "etcd.";

/// The files that a member has.
pub const FILES: [&str; 5] = [etcd::CA, etcd::PEER_CA, etcd::SERVER, etcd::PEER, etcd::CLIENT];

/// A cluster, as one of its members has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Tells clusters apart.
    pub name: String,
    /// This member.
    pub me: String,
    /// Addresses of all members by name.
    pub members: BTreeMap<String, IpAddr>,
}

impl Cluster {
    /// This member's own address.
    pub fn address(&self) -> IpAddr {
        self.members[&self.me]
    }

    /// All other members.
    pub fn peers(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.members.iter().filter(|(name, _)| **name != self.me).map(|(name, ip)| (name.as_str(), *ip))
    }
}

/// What stands under `cluster`, in a document of the node `name`.
pub(super) fn cluster(
    raw: At<RawCluster>,
    name: Option<&str>,
    credentials: &BTreeMap<String, Secret>,
    report: &mut Report,
) -> Option<Cluster> {
    let At { value: raw, mark } = raw;
    let cluster = report.checked(raw.name, |text| match text == etcd::MEMBER {
        true => {
            wrong("is taken: a node that is in no cluster keeps its data under this name", "such as `rack1`")
        }
        false => host_name(text),
    });
    let mut members = BTreeMap::new();
    let mut addresses = Firsts::new();
    for (member, address) in raw.members {
        let place = address.mark;
        let ip = report.form(&address, reachable);
        let Some(ip) = ip.and_then(|ip| report.later(&address, ip, reach::of_a_machine)) else { continue };
        if let Some(first) = addresses.note(ip, place) {
            report
                .error(place, format!("{ip} is the address of two members"))
                .help("each member has an address of its own")
                .related(first, "the other is here");
        }
        if let Some(member) = report.checked(At { value: member, mark: place }, host_name) {
            members.insert(member, ip);
        }
    }
    let Some(me) = name else {
        report
            .error(mark, "a member of a cluster needs a name")
            .help("add `name`, one of those in `members`");
        return None;
    };
    if !members.contains_key(me) {
        let known: Vec<&str> = members.keys().map(String::as_str).collect();
        report
            .error(mark, format!("this node, {me}, is not among the members of its cluster"))
            .help(format!("its `name` is one of: {}", known.join(", ")));
    }
    let wanted = FILES.map(|file| format!("{PREFIX}{file}"));
    for wanted in wanted.iter().filter(|wanted| !credentials.contains_key(*wanted)) {
        report
            .error(mark, format!("a member has `{wanted}` among its `credentials`"))
            .help("`keller cluster init` makes it");
    }
    Some(Cluster { name: cluster?, me: me.to_owned(), members })
}

/// An address that other machines reach, as an argument.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn address(text: &str) -> Result<IpAddr, String> {
    let ip = reachable(text).and_then(|ip| reach::of_a_machine(ip).map(|()| ip));
    ip.map_err(|wrong| format!("{text:?} {}: {}", wrong.what, wrong.help))
}

/// An address that other machines reach.
fn reachable(text: &str) -> Result<IpAddr, Wrong> {
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() => {
            wrong("is no address that another machine reaches", "such as `10.0.0.1`")
        }
        Ok(IpAddr::V6(ip)) if ip.segments()[0] & 0xffc0 == 0xfe80 => {
            wrong("is good on one link only", "a global or unique local address")
        }
        Ok(ip) => Ok(ip),
        Err(_) => wrong("is no address", "such as `10.0.0.1` or `fd00::1`"),
    }
}
