//! etcd of an image that has `kv`: it answers nobody without a certificate, which the node makes for itself, and etcdctl
//! of root has one.
//!
//! This is laid here and not by the component's overlay, so that an image has it whose manifest names etcd-server alone,
//! or has a copy of the component from before.

use anyhow::Result;

use crate::manifest::Manifest;
use crate::pki::etcd;
use crate::rootfs::text::unit::word;
use crate::tree::Tree;

/// Its environment counts less than that of /etc/default/etcd, so that an operator can set otherwise what it sets.
const DROP_IN: &str = "usr/lib/systemd/system/etcd.service.d/20-keller-tls.conf";
const SERVICE: &str = "usr/lib/systemd/system/keller-etcd-certificates.service";
const TIMER: &str = "usr/lib/systemd/system/keller-etcd-certificates.timer";
/// Debian's unit reads it after every `Environment=`.
const OWN: &str = "etc/default/etcd";
/// Before /usr/bin in the PATH of root, of sudo and of services, and not in that of other users.
const WRAPPER: &str = "usr/sbin/etcdctl";
/// What the wrapper calls.
const PROGRAM: &str = "usr/bin/etcdctl";

const PROMOTION: &str = "usr/lib/systemd/system/keller-etcd-promotion.service";
const PROMOTION_TEXT: &str = include_str!("etcd/promotion.service");
const SERVICE_TEXT: &str = include_str!("etcd/certificates.service");
const TIMER_TEXT: &str = include_str!("etcd/certificates.timer");
const WRAPPER_TEXT: &str = include_str!("etcd/etcdctl");

/// Puts it into the root. Gives the variables of the image's own /etc/default/etcd that take the place of these
/// settings, each with what follows, for whoever builds to read.
pub fn install(tree: &mut Tree, manifest: &Manifest) -> Result<Vec<String>> {
    if manifest.kv.is_none() {
        return Ok(Vec::new());
    }
    tree.file(SERVICE, 0o644, placed(SERVICE_TEXT))?;
    tree.file(TIMER, 0o644, TIMER_TEXT)?;
    tree.file(PROMOTION, 0o644, PROMOTION_TEXT.replace("@CLUSTER@", crate::node::cluster::CLUSTER))?;
    // A wrapper of the manifest's own stays.
    if tree.exists(PROGRAM) && !tree.exists(WRAPPER) {
        tree.file(WRAPPER, 0o755, placed(WRAPPER_TEXT))?;
    }
    let own = if tree.exists(OWN) { tree.read(OWN)? } else { Vec::new() };
    let own = String::from_utf8_lossy(&own);
    tree.file(DROP_IN, 0o644, drop_in(&own))?;
    Ok(replaced(&own))
}

/// Names and values of an /etc/default/etcd.
fn settings(own: &str) -> impl Iterator<Item = (&str, &str)> {
    let set = own.lines().filter_map(|line| line.trim_start().split_once('='));
    set.map(|(name, value)| (name, value.trim().trim_matches(['"', '\''])))
}

fn replaced(own: &str) -> Vec<String> {
    let ours = etcd::environment(etcd::DIRECTORY);
    // A member may have any name, which says nothing of who may call it.
    let ours: Vec<_> =
        ours.into_iter().filter(|(name, _)| ![etcd::NAME, etcd::CLUSTER].contains(name)).collect();
    let differs =
        |(name, value): &(&str, &str)| ours.iter().any(|(our, setting)| our == name && setting != value);
    settings(own).filter(differs).map(|(name, _)| {
        format!(
            "/{OWN} sets {name}, which counts more than what `kv` sets: etcd may answer without a certificate, \
             and `health: {{etcd: true}}` and etcdctl ask https://{}",
            etcd::CLIENT_ADDRESS
        )
    })
    .collect()
}

/// What etcd's unit gets, beside an /etc/default/etcd with the text `own`. The cluster's one member has the name and the
/// addresses that `own` says: etcd refuses to begin with others.
fn drop_in(own: &str) -> String {
    let mut environment = etcd::environment(etcd::DIRECTORY);
    let said = |name: &str| {
        let own = settings(own).filter(|(other, _)| *other == name).last();
        let ours = environment.iter().find(|(other, _)| *other == name);
        own.map(|(_, value)| value).or_else(|| ours.map(|(_, value)| value.as_str())).unwrap_or_default()
    };
    let name = said(etcd::NAME);
    let members: Vec<_> = said(etcd::PEER_URLS).split(',').map(|url| format!("{name}={url}")).collect();
    let members = members.join(",");
    for (name, value) in &mut environment {
        if *name == etcd::CLUSTER {
            value.clone_from(&members);
        }
    }
    let mut text = "# Mutual TLS, also on loopback: any user and any container with the host's network can reach that.\n\
                    # /etc/default/etcd is read after this and may say otherwise.\n\
                    [Unit]\n\
                    # Without them etcd ends at once, and is started again, and this with it.\n\
                    Wants=keller-etcd-certificates.service keller-etcd-certificates.timer\n\
                    Wants=keller-etcd-promotion.service\n\
                    After=keller-etcd-certificates.service\n\n\
                    [Service]\n"
        .to_owned();
    for (name, value) in environment {
        text += &format!("Environment={}\n", word(&format!("{name}={value}")));
    }
    text
}

/// The text with the places that `pki` knows.
fn placed(text: &str) -> String {
    text.replace("@DIRECTORY@", etcd::DIRECTORY)
        .replace("@ENDPOINT@", &format!("https://{}", etcd::CLIENT_ADDRESS))
        .replace("@CA@", etcd::CA)
        .replace("@CLIENT@", etcd::CLIENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_images_own_file_sets_otherwise_is_told() {
        let same =
            "ETCD_CLIENT_CERT_AUTH=\"true\"\n# ETCD_CERT_FILE=x\n;ETCD_NAME=x\nETCD_SNAPSHOT_COUNT=5\n\n=\n";
        assert_eq!(replaced(same), [""; 0]);
        let told =
            replaced("ETCD_CLIENT_CERT_AUTH=false\n ETCD_LISTEN_CLIENT_URLS='http://127.0.0.1:2379'\n");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("/etc/default/etcd sets ETCD_CLIENT_CERT_AUTH, "), "{told:?}");
        assert!(told[1].starts_with("/etc/default/etcd sets ETCD_LISTEN_CLIENT_URLS, "), "{told:?}");
    }

    /// Who may call is asked at both ports, and neither speaks plainly.
    #[test]
    fn both_ports_ask_for_a_certificate() {
        let text = drop_in("");
        for name in ["ETCD_CLIENT_CERT_AUTH", "ETCD_PEER_CLIENT_CERT_AUTH"] {
            assert!(text.lines().any(|line| line == format!("Environment={name}=true")), "{text}");
        }
        assert!(!text.contains("http://"), "{text}");
        for line in ["Wants=keller-etcd-certificates.service ", "After=keller-etcd-certificates.service"] {
            assert!(text.lines().any(|other| other.starts_with(line)), "{text}");
        }
    }

    /// etcd does not begin where its own name and address are not among the cluster's.
    #[test]
    fn the_cluster_has_the_member_by_its_own_name() {
        let cluster = |own: &str| {
            let text = drop_in(own);
            let lines =
                text.lines().filter_map(|line| line.strip_prefix("Environment=ETCD_INITIAL_CLUSTER="));
            lines.collect::<Vec<_>>().join("; ")
        };
        assert_eq!(cluster(""), "default=https://127.0.0.1:2380");
        assert_eq!(cluster("ETCD_NAME=old\nETCD_NAME=\"node1\"\n"), "node1=https://127.0.0.1:2380");
        let two = "ETCD_NAME=n\nETCD_INITIAL_ADVERTISE_PEER_URLS=https://10.0.0.1:2380,https://[::1]:2380\n";
        let line = "\"ETCD_INITIAL_CLUSTER=n=https://10.0.0.1:2380,n=https://[::1]:2380\"";
        assert!(drop_in(two).contains(line), "{}", drop_in(two));
        assert_eq!(replaced("ETCD_NAME=node1\nETCD_INITIAL_CLUSTER=node1=https://127.0.0.1:2380\n"), [""; 0]);
    }
}
