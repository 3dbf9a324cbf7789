//! etcd of an image that has `kv`: it answers nobody without a certificate, which the node makes for itself, and etcdctl
//! of root has one.
//!
//! This is laid here and not by the component's overlay, so that an image has it whose manifest names etcd-server alone,
//! or has a copy of the component from before.

use anyhow::Result;

use crate::manifest::Manifest;
use crate::pki::etcd;
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

const SERVICE_TEXT: &str = include_str!("etcd/certificates.service");
const TIMER_TEXT: &str = include_str!("etcd/certificates.timer");
const WRAPPER_TEXT: &str = include_str!("etcd/etcdctl");

/// Puts it into the root. Gives the variables of the image's own /etc/default/etcd that take the place of these
/// settings, each with what follows, for whoever builds to read.
pub fn install(tree: &mut Tree, manifest: &Manifest) -> Result<Vec<String>> {
    if manifest.kv.is_none() {
        return Ok(Vec::new());
    }
    tree.file(DROP_IN, 0o644, drop_in())?;
    tree.file(SERVICE, 0o644, placed(SERVICE_TEXT))?;
    tree.file(TIMER, 0o644, TIMER_TEXT)?;
    // A wrapper of the manifest's own stays.
    if tree.exists(PROGRAM) && !tree.exists(WRAPPER) {
        tree.file(WRAPPER, 0o755, placed(WRAPPER_TEXT))?;
    }
    let own = if tree.exists(OWN) { tree.read(OWN)? } else { Vec::new() };
    Ok(replaced(&String::from_utf8_lossy(&own)))
}

fn replaced(own: &str) -> Vec<String> {
    let settings = etcd::environment(etcd::DIRECTORY);
    let set = own.lines().filter_map(|line| line.trim_start().split_once('='));
    set.filter(|(name, value)| {
        let value = value.trim().trim_matches(['"', '\'']);
        settings.iter().any(|(ours, setting)| ours == name && setting != value)
    })
    .map(|(name, _)| {
        format!(
            "/{OWN} sets {name}, which counts more than what `kv` sets: etcd may answer without a certificate, \
             and `health: {{etcd: true}}` and etcdctl ask https://{}",
            etcd::CLIENT_ADDRESS
        )
    })
    .collect()
}

fn drop_in() -> String {
    let mut text = "# Mutual TLS, also on loopback: any user and any container with the host's network can reach that.\n\
                    # /etc/default/etcd is read after this and may say otherwise.\n\
                    [Unit]\n\
                    Requires=keller-etcd-certificates.service\n\
                    After=keller-etcd-certificates.service\n\
                    Wants=keller-etcd-certificates.timer\n\n\
                    [Service]\n"
        .to_owned();
    for (name, value) in etcd::environment(etcd::DIRECTORY) {
        text += &format!("Environment={name}={value}\n");
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
        let text = drop_in();
        for name in ["ETCD_CLIENT_CERT_AUTH", "ETCD_PEER_CLIENT_CERT_AUTH"] {
            assert!(text.lines().any(|line| line == format!("Environment={name}=true")), "{text}");
        }
        assert!(!text.contains("http://"), "{text}");
        for unit in ["Requires", "After"] {
            let line = format!("{unit}=keller-etcd-certificates.service");
            assert!(text.lines().any(|other| other == line), "{text}");
        }
    }
}
