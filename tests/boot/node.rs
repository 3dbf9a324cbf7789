//! The default node: what the first line of the promise says, over ssh.

use super::scratch::Disk;
use super::{Node, patient_image};

/// Warnings that a healthy node may log, each with its reason.
const ALLOWED_WARNINGS: &str = include_str!("allowed-warnings.txt");

#[test]
fn default_node_is_whole_and_keeps_what_it_was_given() {
    let image = Disk::copy(patient_image(), "default");
    let mut node = Node::boot(&image, &["--persist", "--cpus", "2"]);
    assert_eq!(
        node.settled(),
        "running",
        "{}",
        node.run("systemctl --failed --no-legend; journalctl -b -p 3 --no-pager")
    );
    assert_eq!(node.run("systemctl --failed --no-legend"), "");
    assert!(node.page().contains("Hello"), "{}", node.page());
    let health = node.run("sudo etcdctl endpoint health 2>&1");
    assert!(health.contains("is healthy"), "{health}");
    etcd_obeys_root_alone(&node);

    let root = node.run("findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS /");
    assert!(root.starts_with("/dev/mapper/root") && root.contains("erofs") && root.contains("ro"), "{root}");
    let table = node.run("sudo dmsetup table root 2>/dev/null || cat /sys/block/dm-0/dm/name");
    assert!(table.contains("root") || table.contains("verity"), "{table}");
    assert!(!node.try_run("sudo touch /usr/x").status.success(), "/usr can be written");

    let warnings = node.run("sudo journalctl -b -p 4 -o cat --no-pager");
    let unexpected: Vec<&str> =
        warnings.lines().filter(|line| !line.trim().is_empty() && !allowed(line)).collect();
    assert!(unexpected.is_empty(), "warnings in the journal:\n{}", unexpected.join("\n"));

    // Neither LLMNR nor multicast DNS.
    let open = node.run("sudo ss --listening --numeric --tcp --udp --no-header");
    assert!(open.contains(":22 ") && !open.contains(":5355 ") && !open.contains(":5353 "), "{open}");

    let certificates = node.run("sudo sh -c 'sha256sum /var/lib/keller/pki/etcd/*.pem'");
    let machine = node.run("cat /etc/machine-id");
    let disk = node.run("lsblk -ndo PTUUID /dev/vda");
    node.run("echo kept | sudo tee /etc/kept && echo kept > ~/kept && sync");
    node.reboot();
    assert_eq!(node.settled(), "running");
    assert_eq!(node.run("cat /etc/kept ~/kept"), "kept\nkept");
    assert_eq!(node.run("sudo etcdctl get kept"), "kept\nvalue");
    assert_eq!(node.run("sudo sh -c 'sha256sum /var/lib/keller/pki/etcd/*.pem'"), certificates);
    assert_eq!(node.run("cat /etc/machine-id"), machine);
    assert_eq!(node.run("lsblk -ndo PTUUID /dev/vda"), disk);
    // From the second boot on, the table is whole.
    assert_eq!(node.run("sudo journalctl -b -o cat --no-pager | grep -c ^GPT; true"), "0");
    assert!(node.page().contains("Hello"));
    // The journal of both boots is in the reserve, for whoever may read it.
    assert!(node.run("findmnt --noheadings --output SOURCE /var/log/journal").ends_with("[/journal]"));
    let boots = node.run("journalctl --directory=/var/log/journal --list-boots --no-pager --quiet");
    assert_eq!(boots.lines().filter(|line| !line.contains("IDX")).count(), 2, "{boots}");
    assert_eq!(node.run("stat -c '%a %U %G' /var/log/journal"), "2755 root systemd-journal");
}

/// Root needs no flag; neither `nobody` nor the user who logged in gets a key out of etcd or deletes one, whatever they
/// try, and none of them reads the client certificate. A container with the host's network is such a user.
fn etcd_obeys_root_alone(node: &Node) {
    assert_eq!(node.run("sudo etcdctl put kept value"), "OK");
    let pki = "/var/lib/keller/pki/etcd";
    let tries = [
        "--endpoints=http://127.0.0.1:2379".to_owned(),
        "--endpoints=http://127.0.0.1:2380".to_owned(),
        "--endpoints=https://127.0.0.1:2379 --insecure-transport=false --insecure-skip-tls-verify".to_owned(),
        format!(
            "--endpoints=https://127.0.0.1:2379 --cacert={pki}/ca.pem --cert={pki}/client.pem --key={pki}/client.pem"
        ),
    ];
    for who in ["", "sudo -u nobody "] {
        for flags in &tries {
            let command = format!(
                "{who}/usr/bin/etcdctl --dial-timeout=2s --command-timeout=2s {flags} del --prefix ''"
            );
            let output = node.try_run(&command);
            assert!(!output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
        }
        assert!(
            !node.try_run(&format!("{who}etcdctl --command-timeout=2s get kept")).status.success(),
            "{who}"
        );
        for file in ["", "/client.pem", "/server.pem", "/authority.pem", "/ca.pem"] {
            assert!(!node.try_run(&format!("{who}cat {pki}{file}")).status.success(), "{who}{file}");
        }
        assert!(!node.try_run(&format!("{who}ls {pki}")).status.success(), "{who}");
    }
    assert_eq!(node.run("sudo etcdctl get kept"), "kept\nvalue");
    assert_eq!(node.run("systemctl is-active keller-etcd-certificates.timer"), "active");
    let owners =
        node.run(&format!("sudo stat -c '%n %a %U' {pki}/server.pem {pki}/peer.pem {pki}/client.pem"));
    let expected = format!("{pki}/server.pem 600 etcd\n{pki}/peer.pem 600 etcd\n{pki}/client.pem 600 root");
    assert_eq!(owners, expected);
    let secrets = node.run(&format!("sudo stat -c '%a %U' {pki}/authority.pem {pki}/peer-authority.pem"));
    assert_eq!(secrets, "600 root\n600 root");
    // Made anew below an etcd that runs: it takes the new authority.
    node.run(&format!("sudo rm -r {pki} && sudo systemctl start keller-etcd-certificates"));
    node.run("timeout 60 sh -c 'until sudo etcdctl --command-timeout=2s get kept; do sleep 1; done'");
    assert_eq!(node.run("sudo etcdctl get kept"), "kept\nvalue");
    assert_eq!(node.run("systemctl is-active etcd.service"), "active");
}

/// Whether a line of the list, which is a reason after `#` and a piece of text, covers the warning.
fn allowed(warning: &str) -> bool {
    ALLOWED_WARNINGS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .any(|text| warning.contains(text))
}
