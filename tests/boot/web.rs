//! A manifest that nobody planned for: nginx and PostgreSQL out of packages, and a container under containerd.

use super::scratch::Scratch;
use super::{Node, keller};

#[test]
fn nginx_and_postgresql_on_containerd() {
    let folder = Scratch::new("web");
    // As a user would have it: one file, anywhere.
    std::fs::copy("manifests/examples/web.yaml", folder.join("web.yaml")).unwrap();
    assert!(keller().arg("build").arg(folder.join("web.yaml")).status().unwrap().success());

    let mut node = Node::serving(&folder.join("out/web_1.0.0.raw"), &["--persist"], 80);
    let psql = |node: &Node, sql: &str| node.run(&format!("sudo -u postgres psql -qAt -c '{sql}'"));
    for boot in 1..=2 {
        assert_eq!(
            node.settled(),
            "running",
            "{}",
            node.run("systemctl --failed; journalctl -b -p 4 --no-pager")
        );
        assert_eq!(node.run("systemctl --failed --no-legend"), "");
        assert!(node.page_at("").contains("nginx on the host"));
        assert!(node.page_at("container/").contains("nginx in a container"));
        let tasks = node.run("sudo ctr --namespace keller tasks ls");
        assert!(tasks.contains("page") && tasks.contains("RUNNING"), "{tasks}");
        // Its database outlives the boot, and its pid and socket do not.
        psql(&node, "create table if not exists boots (number int)");
        psql(&node, &format!("insert into boots values ({boot})"));
        assert_eq!(psql(&node, "select count(*) from boots"), boot.to_string());
        if boot == 1 {
            node.reboot();
        }
    }
}
