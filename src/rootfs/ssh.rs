//! sshd on a root that is read-only: host keys and people's keys.
//!
//! Host keys are made at the first start and kept on the state partition. A person's public keys may come
//! from four places, all of which count: the home, `/etc/ssh/authorized_keys.d/NAME`, the verified root (from
//! the manifest), and a credential `ssh.authorized_keys.NAME` of the machine, which systemd-tmpfiles puts in
//! /run, so that such a key lasts no longer than the boot that it came with.

use super::error::Error;
use super::etc_defaults::default;
use super::users::Accounts;
use crate::tree::Tree;

const SHIPPED_CONFIG: &str = "usr/share/openssh/sshd_config";
/// Keys of the manifest, by user.
const KEYS: &str = "usr/lib/keller/authorized_keys";
/// Before Debian's settings, after those of an overlay that begin with a lower number: the first counts.
const SETTINGS: (&str, &str) = (
    "etc/ssh/sshd_config.d/50-keller.conf",
    "# Host keys are made at the first start, on the state partition.\n\
     HostKey /var/lib/ssh/ssh_host_ed25519_key\n\
     PasswordAuthentication no\n\
     KbdInteractiveAuthentication no\n\
     # Says to which address a connection came: a login confirms a change of the network.\n\
     LogLevel VERBOSE\n\
     # The home, /etc, the image, a credential of the machine.\n\
     AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized_keys.d/%u \
     /usr/lib/keller/authorized_keys/%u /run/keller/authorized_keys/%u\n",
);
/// A key file that a power cut left empty is made again.
const KEY_UNIT: (&str, &str) = (
    "usr/lib/systemd/system/keller-ssh-keys.service",
    "[Unit]\n\
     Description=Make the SSH host key\n\
     ConditionFileNotEmpty=!/var/lib/ssh/ssh_host_ed25519_key\n\
     RequiresMountsFor=/var/lib/ssh\n\
     \n\
     [Service]\n\
     Type=oneshot\n\
     StateDirectory=ssh\n\
     StateDirectoryMode=0700\n\
     ExecStartPre=/usr/bin/rm -f /var/lib/ssh/ssh_host_ed25519_key /var/lib/ssh/ssh_host_ed25519_key.pub\n\
     ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N \"\" -C \"\" -f /var/lib/ssh/ssh_host_ed25519_key\n\
     ExecStartPost=/usr/bin/sync -f /var/lib/ssh\n",
);
const KEY_DEPENDENCY: &str =
    "[Unit]\nWants=keller-ssh-keys.service\nAfter=keller-ssh-keys.service nss-user-lookup.target\n";
/// Units of openssh-server that need a host key.
const SERVERS: [&str; 2] = ["ssh.service", "sshd@.service"];
/// Debian's unit asks for root's keys only.
const CREDENTIALS: (&str, &str) = (
    "usr/lib/systemd/system/systemd-tmpfiles-setup.service.d/50-keller.conf",
    "[Service]\nImportCredential=ssh.authorized_keys.*\n",
);
const CREDENTIAL_LINES: &str = "usr/lib/tmpfiles.d/50-keller-ssh.conf";

/// Sets sshd up, if the tree has one.
pub fn write(tree: &mut Tree, accounts: &Accounts) -> Result<(), Error> {
    if !tree.exists("usr/sbin/sshd") {
        return Ok(());
    }
    if tree.exists(SHIPPED_CONFIG) && !tree.exists("etc/ssh/sshd_config") {
        let text = tree.read(SHIPPED_CONFIG)?;
        tree.file("etc/ssh/sshd_config", 0o644, text)?;
    }
    for (path, text) in [SETTINGS, KEY_UNIT, CREDENTIALS] {
        default(tree, path, text)?;
    }
    for unit in SERVERS {
        default(tree, &format!("usr/lib/systemd/system/{unit}.d/50-keller.conf"), KEY_DEPENDENCY)?;
    }
    let mut lines = "# Keys that the machine was given as credentials.\n\
         d /run/keller/authorized_keys 0755 root root - -\n"
        .to_owned();
    let credential = |name: &str| {
        format!("f^ /run/keller/authorized_keys/{name} 0644 root root - ssh.authorized_keys.{name}\n")
    };
    lines += &credential("root");
    for (name, _, _, user) in accounts.people() {
        lines += &credential(name);
        if !user.ssh_keys.is_empty() {
            tree.file(format!("{KEYS}/{name}"), 0o644, user.ssh_keys.join("\n") + "\n")?;
        }
    }
    default(tree, CREDENTIAL_LINES, &lines)
}

#[cfg(test)]
mod tests {
    use super::super::users::Wanted;
    use super::*;
    use crate::lock::Ids;
    use crate::manifest::User;

    #[test]
    fn keys_of_the_manifest_and_of_credentials() {
        let mut tree = Tree::new(0);
        write(&mut tree, &Accounts::default()).unwrap();
        assert!(!tree.exists("etc/ssh"), "no sshd, no settings");
        tree.file("usr/sbin/sshd", 0o755, "").unwrap();
        tree.file(SHIPPED_CONFIG, 0o644, "Include /etc/ssh/sshd_config.d/*.conf\n").unwrap();
        let core = User {
            name: "core".into(),
            uid: 1000,
            groups: Vec::new(),
            ssh_keys: vec!["ssh-ed25519 A".into(), "ssh-ed25519 B".into()],
            shell: "/bin/sh".into(),
            password_hash: None,
        };
        let accounts = Wanted::collect(&tree, &[core], &[], &[]).unwrap().with_ids(&Ids::default()).unwrap();
        write(&mut tree, &accounts).unwrap();
        assert_eq!(tree.read(format!("{KEYS}/core")).unwrap(), b"ssh-ed25519 A\nssh-ed25519 B\n");
        let lines = String::from_utf8(tree.read(CREDENTIAL_LINES).unwrap()).unwrap();
        assert!(lines.ends_with("core 0644 root root - ssh.authorized_keys.core\n"), "{lines}");
        assert!(tree.exists("etc/ssh/sshd_config") && tree.exists(KEY_UNIT.0));
    }
}
