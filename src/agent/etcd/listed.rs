//! The members that a running etcd tells its peers of, and what one that joins makes of them.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::base::limits;
use crate::base::terminal::said;
use crate::node::cluster::Cluster;

/// Letters of a name that a peer says, which are shown.
pub(super) const MOST_SHOWN: usize = 100;

/// A member in the answer of an etcd to its peers.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Listed {
    /// Nothing as long as it was never started.
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, rename = "peerURLs")]
    pub(super) urls: Vec<String>,
}

/// Why the members that a running etcd lists are not believed, if so. What it says of them becomes a line that systemd reads
/// for the etcd of this member: a name with a line break in it would set whatever it likes there.
pub(super) fn strange(list: &[Listed]) -> Option<String> {
    if list.len() > limits::ETCD_MEMBERS {
        return Some(format!(
            "it lists {} members, more than the {} that are read",
            list.len(),
            limits::ETCD_MEMBERS
        ));
    }
    let is_plain = |text: &&String, more: &str| {
        text.chars().all(|one| one.is_ascii_alphanumeric() || more.contains(one))
    };
    let strange = list.iter().find_map(|listed| {
        let url = listed.urls.iter().find(|url| !is_plain(url, ".-:[]/"));
        Some(&listed.name).filter(|name| !is_plain(name, "._-")).or(url)
    })?;
    Some(format!("it lists a member of the name or address `{}`, which none has", said(strange, MOST_SHOWN)))
}

/// Where the member at `ip` answers others.
pub(super) fn url(ip: IpAddr, port: u16) -> String {
    format!("https://{}", SocketAddr::new(ip, port))
}

/// The members as etcd wants to hear them of one that joins: those of the running cluster, by their addresses. The names
/// of others that have not started yet are their documents'.
pub(super) fn joined(cluster: &Cluster, list: &[Listed], port: u16) -> String {
    let name = |listed: &Listed, place: usize| {
        let known = cluster.members.iter().find(|(_, ip)| listed.urls.contains(&url(**ip, port)));
        match known {
            Some((name, _)) => name.clone(),
            None if listed.name.is_empty() => format!("member-{place}"),
            None => listed.name.clone(),
        }
    };
    let all = list.iter().enumerate().flat_map(|(place, listed)| {
        let name = name(listed, place);
        listed.urls.iter().map(move |url| format!("{name}={url}")).collect::<Vec<_>>()
    });
    all.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Vec<Listed> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn one_that_joins_names_all_by_their_addresses() {
        let ip = |last: u8| IpAddr::from([127, 0, 0, last]);
        let members = [("a", 1), ("b", 2), ("c", 3)].map(|(name, last)| (name.to_owned(), ip(last)));
        let cluster = Cluster { name: "rack1".to_owned(), me: "a".to_owned(), members: members.into() };
        let list = listed(
            r#"[{"id": 1, "peerURLs": ["https://127.0.0.2:2380"], "name": "b", "clientURLs": ["https://127.0.0.2:2379"]},
                {"id": 2, "peerURLs": ["https://127.0.0.1:2380"], "name": ""},
                {"id": 3, "peerURLs": ["https://10.0.0.9:2380", "https://[fd00::9]:2380"], "isLearner": true}]"#,
        );
        assert_eq!(strange(&list), None);
        assert_eq!(
            joined(&cluster, &list, 2380),
            "b=https://127.0.0.2:2380,a=https://127.0.0.1:2380,member-2=https://10.0.0.9:2380,member-2=https://[fd00::9]:2380"
        );
    }

    /// What would set something else for the etcd of whoever joins.
    #[test]
    fn names_that_would_be_lines_of_their_own_are_refused() {
        for (text, said) in [
            (
                r#"[{"name": "a"}, {"name": "b\nETCD_CLIENT_CERT_AUTH=false\nX=y"}]"#,
                r"b\u{a}ETCD_CLIENT_CERT_AUTH=false",
            ),
            (r#"[{"name": "b,c=https://10.0.0.9:2380"}]"#, "b,c=https"),
            (r#"[{"name": "b c"}]"#, "b c"),
            (r#"[{"name": "b", "peerURLs": ["https://10.0.0.1:2380\u2028X=y"]}]"#, "10.0.0.1:2380"),
            (r#"[{"name": "b", "peerURLs": ["https://10.0.0.1:2380,z=https://10.0.0.2:2380"]}]"#, "z=https"),
        ] {
            let why = strange(&listed(text)).unwrap();
            assert!(
                why.contains(said) && why.starts_with("it lists a member of the name or address"),
                "{why}"
            );
        }
        let many = vec![Listed { name: "a".to_owned(), urls: Vec::new() }; 65];
        assert_eq!(strange(&many).unwrap(), "it lists 65 members, more than the 64 that are read");
    }
}
