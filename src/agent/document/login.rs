//! Whether somebody has come in over the network since a moment: what sshd says in the journal, where only root can say it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use crate::agent::systemd;
use crate::base::failure::Failure;

/// What sshd has said in this boot, with seconds since its start.
pub(super) fn journal() -> Result<String, Failure> {
    // No change waits longer than an hour, and a node that strangers knock at has said much.
    let words = ["--boot", "--since=-2h", "--quiet", "--no-pager", "--output=short-monotonic", "_UID=0"];
    let mut command = Command::new("journalctl");
    systemd::output(command.args(words).args(["-t", "sshd", "-t", "sshd-session"]))
}

/// The first login by a connection that began after `since`, to one of `addresses` where there are any; as
/// `NAME from PEER to ADDRESS`.
pub(super) fn find(journal: &str, since: f64, addresses: &[String]) -> Option<String> {
    let mut connections: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for line in journal.lines() {
        let Some((time, said)) = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']'))
        else {
            continue;
        };
        let Some((_, said)) = said.split_once("]: ") else { continue };
        let words: Vec<&str> = said.split_whitespace().collect();
        match words[..] {
            // LogLevel VERBOSE: Connection from PEER port N on ADDRESS port 22 …
            ["Connection", "from", peer, "port", port, "on", address, ..] => {
                let is_new = time.trim().parse::<f64>().is_ok_and(|time| time > since);
                // The node itself reaches itself over any network.
                let is_local = peer == address || peer.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
                let is_meant =
                    !is_local && (addresses.is_empty() || addresses.iter().any(|one| one == address));
                match is_new && is_meant {
                    true => connections.insert((peer, port), address),
                    false => connections.remove(&(peer, port)),
                };
            }
            ["Accepted", _, "for", name, "from", peer, "port", port, ..] => {
                if let Some(address) = connections.get(&(peer, port)) {
                    return Some(format!("{name} from {peer} to {address}"));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOURNAL: &str = "\
[   40.100000] node sshd-session[300]: Connection from 10.0.2.2 port 50 on 10.0.2.15 port 22 rdomain \"\"
[   40.900000] node sshd-session[300]: Accepted publickey for core from 10.0.2.2 port 50 ssh2: ED25519 SHA256:x
[   90.100000] node sshd-session[400]: Connection from 10.0.2.2 port 60 on 10.0.2.15 port 22 rdomain \"\"
[   90.200000] node sshd-session[400]: Connection closed by 10.0.2.2 port 60 [preauth]
[   95.100000] node sshd-session[500]: Connection from 10.0.9.9 port 70 on 10.0.9.7 port 22 rdomain \"\"
[   96.000000] node sshd-session[500]: Accepted publickey for core from 10.0.9.9 port 70 ssh2: ED25519 SHA256:x
";

    #[test]
    fn only_a_new_connection_to_a_new_address_counts() {
        let found = |since, addresses: &[&str]| {
            let addresses: Vec<String> = addresses.iter().map(|one| (*one).to_owned()).collect();
            find(JOURNAL, since, &addresses)
        };
        assert_eq!(found(80.0, &[]).as_deref(), Some("core from 10.0.9.9 to 10.0.9.7"));
        assert_eq!(found(80.0, &["10.0.9.7"]).as_deref(), Some("core from 10.0.9.9 to 10.0.9.7"));
        assert_eq!(found(80.0, &["10.0.2.15"]), None);
        assert_eq!(found(99.0, &[]), None);
        assert_eq!(found(0.0, &[]).as_deref(), Some("core from 10.0.2.2 to 10.0.2.15"));
        for own in ["127.0.0.1", "10.0.2.15"] {
            assert_eq!(
                find(&JOURNAL.replace("10.0.2.2 ", &format!("{own} ")), 0.0, &["10.0.2.15".to_owned()]),
                None
            );
        }
    }
}
