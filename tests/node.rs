//! Documents of nodes: what is wrong with one is told at once, with places and without secrets; the reference is that of
//! the schema. With KELLER_BLESS=1 the texts are written anew; read the difference.

use std::fs;

use keller::node::{self, schema};

fn same(path: &str, text: &str) {
    if std::env::var_os("KELLER_BLESS").is_some() {
        fs::write(path, text).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(kept == text, "{path} is old; KELLER_BLESS=1 writes it anew:\n{text}");
}

#[test]
fn every_kind_of_mistake_is_told_at_once() {
    let bytes = fs::read("tests/node/bad.yaml").unwrap();
    let told = node::read("bad.yaml", &bytes).unwrap_err();
    let text = told.to_string();
    for secret in ["s3cret", "hunter2"] {
        assert!(!text.contains(secret), "{text}");
    }
    same("tests/node/bad.txt", &format!("{text}\n"));
    // At boot the same is told, without the lines.
    let brief = told.brief().join("\n");
    for one in &told.list {
        assert!(brief.contains(&format!("{}: {}", one.place, one.message)), "{brief}");
    }
}

#[test]
fn the_reference_is_that_of_the_documents_schema() {
    same("docs/node.md", &schema::markdown());
}

#[test]
fn the_examples_are_right() {
    let page = fs::read_to_string("docs/node.md").unwrap();
    let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFKy6hBVTZO0vCEWCFBCiWXCXrkL3cdRaqFJCqYxVp2B me@desk";
    let example = example.replace("ssh-ed25519 AAAA… me@desk", key);
    let documents = node::read("docs/node.md", example.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}"));
    let starter = include_str!("../src/cli/starter/document.yaml");
    node::read("document.yaml", starter.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}"));
    // JSON is YAML.
    node::read("x", br#"{"node": 1, "name": "a", "credentials": {"k": "v"}}"#).unwrap();

    struct Small;
    impl node::Image for Small {
        fn read(&self, path: &str) -> Option<String> {
            let found = match path {
                "/etc/passwd" => "root:x:0:0:root:/root:/bin/bash\n",
                "/etc/shadow" => "daemon:*:1::::::\nroot:*:1::::::\n",
                "/usr/lib/userdb/core.user" => "{\"userName\": \"core\", \"uid\": 1000}",
                "/usr/lib/systemd/system/serial@.service" => "[Install]\nWantedBy=a.target \\\n b.target\n",
                _ => return None,
            };
            Some(found.to_owned())
        }
    }
    let text = "node: 1\nname: n\nupdate: {url: \"https://updates.example/n\", automatic: true, window: always}\nenable: [serial@ttyS1.service, gone.service]\nmask: [x.timer]\nusers:\n\
                - {name: root, password_hash: \"$y$j9T$0123456789$abcdef\"}\n\
                - {name: core, password_hash: \"$y$j9T$0123456789$abcdef\"}\n\
                - {name: new, uid: 1200, groups: [sudo]}\n- {name: lost, ssh_keys: []}\n";
    let text = text.replace("- {name: lost, ssh_keys: []}\n", "");
    let own = node::read("x", text.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}"));
    let mut lines = Vec::new();
    for (document, name) in [(&documents[0], "the example"), (&own[0], "another")] {
        lines.push(format!("# {name}"));
        let rendered = node::render(document, &Small);
        for node::Item { path, kind } in rendered.items {
            match kind {
                node::Kind::Link(target) => lines.push(format!("{path} -> {target}")),
                node::Kind::File(bytes, mode) => {
                    lines.push(format!("{path} {mode:04o}"));
                    let text = String::from_utf8(bytes.0).unwrap();
                    lines.extend(text.lines().map(|line| format!("    {line}")));
                }
            }
        }
        lines.extend(rendered.warnings);
    }
    let text = lines.join("\n") + "\n";
    for line in [
        "/etc/hostname 0644\n    rack1-07\n/etc/hosts 0644\n    127.0.0.1 localhost\n    ::1 localhost\n    127.0.1.1 rack1-07\n",
        "10-keller-left.network 0644\n    [Match]\n    PermanentMACAddress=52:54:00:12:34:56\n",
        "    Bond=bond0\n",
        "    Name=bond0\n    Kind=bond\n    \n    [Bond]\n    Mode=802.3ad\n",
        "    Id=20\n",
        "    VLAN=servers\n",
        "    Address=10.0.20.7/24\n    Gateway=10.0.20.1\n    DNS=10.0.20.1\n",
        "/etc/keller/update.yaml 0644\n    {\n      \"url\": \"https://updates.example/n\",\n      \"automatic\": true,\n      \"window\": \"always\"\n    }\n",
        "but this image has no key to check it with: the node takes no updates without /etc/keller/root.json",
        "/run/credstore/web.key 0600\n    s3cret\n",
        "/run/systemd/system/web.service.d/10-key.conf 0644\n",
        "/run/systemd/system/x.timer -> /dev/null\n",
        "/run/systemd/system/a.target.wants/serial@ttyS1.service -> /usr/lib/systemd/system/serial@.service\n",
        "/run/systemd/system/b.target.wants/serial@ttyS1.service -> /usr/lib/systemd/system/serial@.service\n",
        "`enable` names gone.service, and there is no such unit\n",
        "/etc/shadow 0600\n    daemon:*:1::::::\n    root:$y$j9T$0123456789$abcdef:1::::::\n",
        "/run/userdb/core.user 0644\n",
        "/run/userdb/1000.user-privileged -> core.user-privileged\n",
        "/run/userdb/new:sudo.membership 0644\n",
        "    d /var/home/new 0700 1200 1200 -\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
}
