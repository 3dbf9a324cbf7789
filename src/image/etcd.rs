//! etcd of an image that has `kv`: it answers nobody without a certificate, which the node makes for itself, and etcdctl
//! of root has one.
//!
//! This is laid here and not by the component's overlay, so that an image has it whose manifest names etcd-server alone,
//! or has a copy of the component from before.

use anyhow::Result;

use crate::manifest::Manifest;
use crate::pki::etcd;
use crate::tree::Tree;

/// Says nothing that an operator's /etc/default/etcd, which counts more, could not say otherwise.
const DROP_IN: &str = "usr/lib/systemd/system/etcd.service.d/20-keller-tls.conf";
const SERVICE: &str = "usr/lib/systemd/system/keller-etcd-certificates.service";
const TIMER: &str = "usr/lib/systemd/system/keller-etcd-certificates.timer";
/// Before /usr/bin in the PATH of root, of sudo and of services, and not in that of other users.
const WRAPPER: &str = "usr/sbin/etcdctl";
/// What the wrapper calls.
const PROGRAM: &str = "usr/bin/etcdctl";

const SERVICE_TEXT: &str = include_str!("etcd/certificates.service");
const TIMER_TEXT: &str = include_str!("etcd/certificates.timer");
const WRAPPER_TEXT: &str = include_str!("etcd/etcdctl");

/// Puts it into the root.
pub fn install(tree: &mut Tree, manifest: &Manifest) -> Result<()> {
    if manifest.kv.is_none() {
        return Ok(());
    }
    tree.file(DROP_IN, 0o644, drop_in())?;
    tree.file(SERVICE, 0o644, placed(SERVICE_TEXT))?;
    tree.file(TIMER, 0o644, TIMER_TEXT)?;
    // A wrapper of the manifest's own stays.
    if tree.exists(PROGRAM) && !tree.exists(WRAPPER) {
        tree.file(WRAPPER, 0o755, placed(WRAPPER_TEXT))?;
    }
    Ok(())
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
