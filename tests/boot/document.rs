//! One image and two node documents, one after the other: the node is what each of them says, nothing of the first is left,
//! and what cannot be understood changes nothing.

use super::scratch::Disk;
use super::{Node, pair};

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
    let image = Disk::copy(pair::image(), "document");
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

/// Two cards make a bond, which carries a VLAN; QEMU's network, which knows no VLANs, is reached over the bond itself.
const BOND: &str = r#"node: 1
name: bond-node
network:
  interfaces:
    - {name: left, card: {name: "en*"}}
    - {name: bond0, bond: {of: [left]}, addresses: [10.0.2.15/24], gateways: [10.0.2.2], dns: [10.0.2.3]}
    - {name: servers, vlan: {of: bond0, id: 20}, addresses: [10.0.20.7/24]}
users:
  - name: core
    ssh_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFKy6hBVTZO0vCEWCFBCiWXCXrkL3cdRaqFJCqYxVp2B first@desk"]
"#;

/// Applies a document on the node; gives what was said.
fn apply(node: &Node, text: &str, flags: &str) -> String {
    node.run(&format!(
        "cat > /tmp/new.yaml <<'END'\n{text}\nEND\nsudo keller node apply {flags} /tmp/new.yaml 2>&1"
    ))
}

#[test]
fn a_running_node_changes_and_goes_back_from_a_network_that_nobody_confirms() {
    let image = Disk::copy(pair::image(), "applied");
    let file = image.with_file_name("bond.yaml");
    std::fs::write(&file, BOND).unwrap();
    let cards = ["--nic", "virtio", "--nic", "virtio,mute"];
    let flags = [&["--persist", "--node", file.to_str().unwrap()], &cards[..]].concat();
    let mut node = Node::boot(&image, &flags);
    let links = node.run("ip -brief address; cat /proc/net/bonding/bond0; ip -details link show servers");
    for part in
        ["10.0.2.15/24", "10.0.20.7/24", "Bonding Mode: fault-tolerance", "vlan protocol 802.1Q id 20"]
    {
        assert!(links.contains(part), "{part}: {links}");
    }
    assert_eq!(links.matches("Slave Interface:").count(), 2, "{links}");

    // What is no network is there at once, and stays.
    let more = format!(
        "{}files: [{{path: /etc/more/a, content: one}}]\nenable: [more.service]\nunits:\n  - name: more.service\n    \
         content: |\n      [Service]\n      Type=oneshot\n      RemainAfterExit=yes\n      ExecStart=true\n      \
         [Install]\n      WantedBy=multi-user.target\n",
        BOND.replace("bond-node", "more-node")
    );
    let told = apply(&node, &more, "");
    assert!(told.ends_with("applied"), "{told}");
    let now =
        node.run("hostname; cat /etc/more/a; echo; systemctl is-active more.service; keller node status");
    assert_eq!(now, "more-node\none\nactive\nmore-node, by the document from keller node apply");
    let same = node.run("sudo keller node diff /tmp/new.yaml");
    assert_eq!(same, "nothing changes");

    // A network that cuts the operator off, and an agent that is killed meanwhile.
    let away = more.replace("10.0.2.15/24", "10.0.9.15/24").replace("gateways: [10.0.2.2], ", "");
    let cut = format!(
        "cat > /tmp/away.yaml <<'END'\n{away}\nEND\nsudo systemd-run --quiet sh -c 'keller node apply --within 20s \
         /tmp/away.yaml; systemctl kill --signal=KILL keller-agent.service'"
    );
    node.run(&cut);
    std::thread::sleep(std::time::Duration::from_secs(20));
    let deadline = std::time::Instant::now() + super::BOOT;
    let back = loop {
        let status = node.try_run("keller node status");
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        if status.status.success() && text.contains("undone") {
            break text;
        }
        assert!(std::time::Instant::now() < deadline, "the node did not go back: {text}\n{}", node.drain());
        std::thread::sleep(std::time::Duration::from_secs(3));
    };
    assert!(back.contains("undone: a change of the network was not confirmed"), "{back}");
    let now = node.run("ip -brief address; hostname; sudo ls /var/lib/keller/node; sudo grep -c 10.0.9 /var/lib/keller/node/node.yaml; true");
    assert!(now.contains("10.0.2.15/24") && !now.contains("10.0.9.15"), "{now}");
    assert!(now.ends_with("more-node\nnode.yaml\n0"), "{now}");
    power_off(node);
}

/// Shuts the node down, so that its disk is whole.
fn power_off(mut node: Node) {
    let _ = node.try_run("sudo systemctl poweroff");
    assert!(node.has_shut_down());
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
