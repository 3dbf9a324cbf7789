//! One image and two node documents, one after the other: the node is what each of them says, nothing of the first is left,
//! and what cannot be understood changes nothing.

use super::scratch::Disk;
use super::{Node, patient_image};

const FIRST: &str = r#"node: 1
name: first-node
network:
  interfaces:
    - name: uplink
      card: {name: "en*"}
      addresses: [10.0.2.15/24]
      gateways: [10.0.2.2]
      dns: [10.0.2.3]
users:
  - name: core
    ssh_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFKy6hBVTZO0vCEWCFBCiWXCXrkL3cdRaqFJCqYxVp2B first@desk"]
  - name: guest
    uid: 1300
    password_hash: "$y$j9T$Hush0123456789$abcdefghijk"
files:
  - {path: /etc/first/a.conf, content: "one\n", mode: "0640"}
units:
  - name: first.service
    content: |
      [Service]
      Type=oneshot
      RemainAfterExit=yes
      LoadCredential=first.key
      ExecStart=sh -c 'sha256sum < "$${CREDENTIALS_DIRECTORY}/first.key" > /run/first.sum'
      [Install]
      WantedBy=multi-user.target
enable: [first.service]
mask: [e2scrub_all.timer]
labels: {rack: r1}
credentials: {first.key: Hush-first-4711}
"#;

const SECOND: &str = r#"{"node": 1, "name": "second-node", "labels": {"rack": "r2"},
 "files": [{"path": "/etc/second.conf", "content": "two\n"}]}"#;

/// Where nothing of a secret may stand, for root alone or not.
fn has_no_secret(node: &Node) {
    let found = node.run(
        // sudo writes down what it runs.
        "sudo sh -c 'journalctl -b --no-pager | grep -c H[u]sh; dmesg | grep -c H[u]sh; grep -c H[u]sh /proc/cmdline; \
         systemctl show first.service | grep -c H[u]sh; true'",
    );
    assert!(found.lines().all(|line| line == "0"), "{found}");
    let readable = node.try_run("grep -rl Hush /etc /run 2>/dev/null").stdout;
    assert_eq!(String::from_utf8_lossy(&readable), "", "others can read a secret");
}

#[test]
fn one_image_becomes_the_node_that_a_document_says() {
    let image = Disk::copy(patient_image(), "document");
    let file = |name: &str, text: &str| {
        let path = image.with_file_name(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let (first, second) = (file("first.yaml", FIRST), file("second.json", SECOND));

    let node = Node::boot(&image, &["--persist", "--node", &first]);
    is_first(&node);
    has_no_secret(&node);
    // The copy is enough, and the node's own changes to /etc have nothing to do with it.
    let kept = "sudo stat -c '%a %U %F' /var/lib/keller/node /var/lib/keller/node/node.yaml";
    assert_eq!(node.run(kept), "700 root directory\n600 root regular file");
    power_off(node);
    let node = Node::boot(&image, &["--persist"]);
    is_first(&node);
    let upper = node.run("sudo ls /var/lib/keller/etc/upper");
    assert!(!upper.contains("hostname") && !upper.contains("first"), "{upper}");
    power_off(node);

    let node = Node::boot(&image, &["--persist", "--node", &second]);
    assert_eq!(node.run("hostname; cat /etc/second.conf"), "second-node\ntwo");
    let gone = "ls -d /etc/first /etc/ssh/authorized_keys.d/core /run/systemd/system/first.service \
                /run/systemd/system/multi-user.target.wants/first.service /run/systemd/system/e2scrub_all.timer \
                /run/systemd/network/10-keller-uplink.network /run/userdb/guest.user /run/first.sum 2>/dev/null | wc -l";
    assert_eq!(node.run(gone), "0");
    assert_eq!(node.run("sudo ls -A /run/credstore 2>/dev/null | wc -l"), "0");
    assert!(!node.try_run("getent passwd guest").status.success());
    assert!(node.run("networkctl --no-pager status 'en*'").contains("80-keller-dhcp.network"));
    assert!(node.run("cat /run/keller/node.json").contains("\"rack\": \"r2\""));
    // A copy of a newer form is told, and not obeyed.
    node.run("echo 'node: 2' | sudo tee /var/lib/keller/node/node.yaml > /dev/null; sync");
    power_off(node);
    let mut node = Node::boot(&image, &["--persist"]);
    assert!(node.run("hostname") != "second-node");
    let told = node.run("sudo dmesg | grep 'form 1, not 2'; cat /run/keller/node.json");
    assert!(told.contains("node.yaml:1:7: this keller reads documents of form 1, not 2"), "{told}");
    let _ = node.drain();
}

/// Shuts the node down, so that its disk is whole.
fn power_off(mut node: Node) {
    let _ = node.try_run("sudo systemctl poweroff");
    assert!(node.child.wait().unwrap().success());
}

fn is_first(node: &Node) {
    assert_eq!(node.run("hostname; getent hosts first-node"), "first-node\n127.0.1.1       first-node");
    assert_eq!(node.settled(), "running");
    assert_eq!(node.run("cat /run/first.sum"), node.run("printf Hush-first-4711 | sha256sum"));
    assert_eq!(
        node.run("sudo stat -c '%a %U' /run/credstore /run/credstore/first.key /etc/first/a.conf"),
        "700 root\n600 root\n640 root"
    );
    assert_eq!(node.run("sudo cat /etc/first/a.conf"), "one");
    assert!(node.run("cat /etc/ssh/authorized_keys.d/core").ends_with("first@desk"));
    assert_eq!(node.run("getent passwd guest"), "guest:x:1300:1300:guest:/home/guest:/bin/bash");
    assert!(node.run("sudo getent shadow guest").contains("Hush0123456789"));
    assert_eq!(node.run("systemctl is-enabled e2scrub_all.timer; true"), "masked-runtime");
    let status = node.run("networkctl --no-pager status 'en*'");
    assert!(status.contains("10-keller-uplink.network") && !status.contains("DHCP"), "{status}");
    assert!(node.run("ip -brief address").contains("10.0.2.15/24"));
    assert!(node.run("ip route").contains("default via 10.0.2.2"));
    assert!(node.run("cat /run/keller/node.json").contains("\"rack\": \"r1\""));
}
