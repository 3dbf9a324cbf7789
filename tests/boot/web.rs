//! A manifest that nobody planned for: nginx and PostgreSQL out of packages, and a container under containerd.

use super::field::closed;
use super::scratch::Scratch;
use super::{Node, keller, patient};

/// The last of the example's containers.
const PAGE: &str = "    host_network: true\n";

#[test]
#[ignore = "long: ci/test --long"]
fn nginx_and_postgresql_on_containerd() {
    let folder = Scratch::new("web");
    // As a user would have it: one file, anywhere.
    let patient = patient(&std::fs::read_to_string("manifests/examples/web.yaml").unwrap());
    // Two neighbours of the page, which is the last of its containers.
    if closed::layout(&folder.join("hostile")).is_none() {
        return;
    }
    let neighbours = patient.replace(PAGE, &format!("{PAGE}{}", closed::containers_and_scratch()));
    assert_ne!(neighbours, patient, "the example has other containers");
    std::fs::write(folder.join("web.yaml"), neighbours).unwrap();
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
        let page = "ps -eo unit,pid,args | grep '^page.service .*nginx: master' | awk '{print $2}'";
        let status = node.run(&format!("grep NoNewPrivs /proc/$({page})/status"));
        assert!(status.ends_with('1'), "{status}");
        assert!(!node.try_run("sudo -u nobody ls /run/keller/containers/page").status.success());
        assert!(!node.try_run("sudo -u nobody ls /usr/share/keller/containers").status.success());
        let mounts = node.run("grep /run/keller/containers/page/ /proc/mounts");
        assert_eq!(mounts.lines().filter(|line| line.contains("nosuid,nodev")).count(), 2, "{mounts}");
        // Its database outlives the boot, and its pid and socket do not.
        psql(&node, "create table if not exists boots (number int)");
        psql(&node, &format!("insert into boots values ({boot})"));
        assert_eq!(psql(&node, "select count(*) from boots"), boot.to_string());
        if boot == 1 {
            closed::containers_of_containerd_are_closed(&node);
            node.reboot();
        }
    }
}
