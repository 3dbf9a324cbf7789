//! What an image brings that would give others rights, on a node with neighbours: nobody gets any of it, whichever
//! runtime starts it.

use std::fs;
use std::path::Path;

use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::super::scratch::{Disk, Scratch};
use super::{Node, keller};
use crate::cli::elf;
use crate::judges::trixie::trixie;
use crate::judges::umoci;

/// Two of the containers of a node, of one image: one as it comes, and one whose setuid programs are wanted.
pub const CONTAINERS: &str = r#"
  - name: hostile
    image: &hostile
      archive: hostile
      setuid: [/bin/steal, /bin/capable]
      device_nodes: [/dev/vda]
  - name: wanted
    image: *hostile
    new_privileges: true
"#;

/// Effective cap_dac_read_search of revision 2 (linux/capability.h): reads every file.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The image: a program that reads /etc/shadow, once setuid root and once with leave to read every file, and the node's disk for
/// everybody. Nothing, said aloud, without its shell.
pub fn layout(folder: &Path) -> Option<()> {
    let shell = trixie(&["busybox-static"], "usr/bin/busybox")?;
    let shell = fs::read(shell.get_args().last().unwrap()).unwrap();
    let mut layer = Builder::new(Vec::new());
    let mut add = |path: &str, kind: EntryType, mode: u32, body: &[u8], capability: &[u8]| {
        if !capability.is_empty() {
            layer.append_pax_extensions([("SCHILY.xattr.security.capability", capability)]).unwrap();
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(body.len() as u64);
        if kind == EntryType::Block {
            // virtblk of Linux' list of devices has a major number of its own at run time, mostly this.
            header.set_device_major(254).unwrap();
            header.set_device_minor(0).unwrap();
        }
        layer.append_data(&mut header, path, body).unwrap();
    };
    add("bin/busybox", EntryType::Regular, 0o755, &shell, &[]);
    let reader = elf::reader("/etc/shadow");
    add("bin/steal", EntryType::Regular, 0o4755, &reader, &[]);
    add("bin/capable", EntryType::Regular, 0o755, &reader, &CAPABILITY);
    add("dev/vda", EntryType::Block, 0o666, &[], &[]);
    let layer = layer.into_inner().unwrap();
    umoci::layout(folder, &[layer], &json!({ "Entrypoint": ["/bin/busybox", "sleep", "1000000"] }));
    Some(())
}

/// Asserts that the user nobody cannot use any of the image's files, wherever they are on the node.
pub fn nobody_gets_what_an_image_brings(node: &Node) {
    let find = "sudo find / -xdev -name steal -o -name capable -o -path '*/dev/vda' -type b; \
                for place in /run/keller /var/lib/containers /run/containerd; do sudo test ! -d $place || \
                sudo find $place -name steal -o -name capable -o -path '*/dev/vda' -type b; done";
    let found = node.run(find);
    let brought: Vec<&str> = found.lines().filter(|path| path.contains("/containers/")).collect();
    assert!(brought.iter().any(|path| path.ends_with("bin/steal")), "{found}");
    assert!(!brought.iter().any(|path| path.ends_with("dev/vda")), "{found}");
    // Whoever may do so starts them, and they read what that user may.
    let read = |path: &&str| {
        String::from_utf8_lossy(&node.try_run(&format!("sudo {path}")).stdout).contains("root:")
    };
    assert!(brought.iter().any(read), "root cannot use any of {found}");
    for path in brought {
        let output = node.try_run(&format!("sudo -u nobody {path}"));
        assert!(!output.status.success() && output.stdout.is_empty(), "nobody used {path}");
    }
    assert!(!node.try_run("sudo -u nobody ls /usr/share/keller/containers").status.success());
    let mounts = node.run("grep -E 'containers/(hostile|wanted)/|/merged ' /proc/mounts");
    assert!(mounts.lines().count() > 1, "{mounts}");
    for line in mounts.lines() {
        assert!(line.contains("nodev"), "{line}");
    }
}

/// What a shell makes the process of a container of, by its command line and control group.
fn process(name: &str) -> String {
    let processes = format!("systemd-cgls --no-pager --full --unit {name}.service");
    format!("$({processes} | grep -F 'busybox sleep' | grep -oE '[0-9]+' | head -n 1)")
}

fn no_new_privileges(node: &Node, name: &str) -> String {
    node.run(&format!("grep NoNewPrivs /proc/{}/status | grep -oE '[0-9]+'", process(name)))
}

pub fn privileges_are_new_where_they_are_opened(node: &Node) {
    assert_eq!(no_new_privileges(node, "hostile"), "1");
    assert_eq!(no_new_privileges(node, "wanted"), "0");
}

/// Whatever nobody can open, nobody may lock; what changes the node or starts containers is none of it.
pub fn nobody_holds_up_an_update(node: &Node) {
    let names = r"\( -name '*.lock' -o -name '*.lck' -o -name '*.sql' \)";
    let find = format!("sudo -u nobody find /run /var/lib /dev/shm -type f {names} -readable 2>/dev/null");
    assert_eq!(node.run(&format!("{find} || true")), "");
    assert_eq!(node.run("stat -c '%a %U' /run/keller/update.lock"), "600 root");
    assert!(!node.try_run("sudo -u nobody flock --nonblock /run/keller/update.lock true").status.success());
}

/// Whose upper layer has an end, for the last of [`CONTAINERS`].
const SCRATCH: &str = "    scratch: 16MiB\n";

/// What fills the upper layer of the container `wanted` gets no more than its [`SCRATCH`]; `exec` runs a program in it.
fn a_container_has_scratch_of_its_own(node: &Node, exec: &str) {
    let free = || node.run("df --output=avail /run | tail -n 1").trim().parse::<u64>().unwrap();
    let before = free();
    let fill = format!("{exec} /bin/busybox dd if=/dev/zero of=/fill bs=1M count=4096");
    assert!(!node.try_run(&fill).status.success(), "16 MiB have an end");
    // Other services write a little there meanwhile, in KiB.
    assert!(before - free().min(before) < 4096, "a container took the node's /run");
    let size = node.run(&format!("{exec} /bin/busybox stat -c %s /fill")).parse::<u64>().unwrap();
    assert!((8 << 20..=16 << 20).contains(&size), "{size}");
}

/// What containerd starts on `node`, which has [`containers_and_scratch`], is as closed as what others start.
pub fn containers_of_containerd_are_closed(node: &Node) {
    nobody_gets_what_an_image_brings(node);
    privileges_are_new_where_they_are_opened(node);
    // As killable as any service where memory ends, other than containerd itself.
    assert_eq!(node.run(&format!("cat /proc/{}/oom_score_adj", process("wanted"))), "0");
    a_container_has_scratch_of_its_own(node, "sudo ctr --namespace keller tasks exec --exec-id fill wanted");
}

/// [`CONTAINERS`], of which the last has [`SCRATCH`].
pub fn containers_and_scratch() -> String {
    format!("{CONTAINERS}{SCRATCH}")
}

/// A neighbour on the node's own network, with all that it takes to talk to etcd but the certificate.
const NEIGHBOUR: &str = "  - {name: neighbour, image: {build: neighbour.yaml}, host_network: true}\n";
const NEIGHBOUR_IMAGE: &str = r#"include: ["keller:manifests/containers/base.yaml"]
packages: [busybox-static, etcd-client]
entrypoint: [/usr/bin/busybox, sleep, "1000000"]
user: "65534"
"#;

/// The container `neighbour` reaches etcd's ports, and neither reads nor writes nor removes a key.
fn a_neighbour_has_no_way_into_etcd(node: &Node) {
    let inside = "sudo crun exec neighbour /usr/bin/";
    assert_eq!(node.run(&format!("{inside}busybox id -u")), "65534");
    assert_eq!(node.run("sudo etcdctl put kept value"), "OK");
    let wget = node.try_run(&format!("{inside}busybox wget -O - http://127.0.0.1:2379/version"));
    let said = String::from_utf8_lossy(&wget.stderr).into_owned();
    // It is connected, and hears nothing from a server that speaks TLS alone.
    assert!(
        !wget.status.success() && wget.stdout.is_empty() && said.contains("error getting response"),
        "{said}"
    );
    let skip = "--insecure-transport=false --insecure-skip-tls-verify";
    for flags in ["--endpoints=http://127.0.0.1:2379", "--endpoints=http://127.0.0.1:2380"]
        .map(str::to_owned)
        .into_iter()
        .chain([2379, 2380].map(|port| format!("--endpoints=https://127.0.0.1:{port} {skip}")))
    {
        for order in ["get kept", "put kept mine", "del --prefix ''"] {
            let command = format!("{inside}etcdctl --dial-timeout=2s --command-timeout=2s {flags} {order}");
            let output = node.try_run(&command);
            assert!(!output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
        }
    }
    assert_eq!(node.run("sudo etcdctl get kept"), "kept\nvalue");
}

/// On a disk whose sectors have 4096 bytes, the reserve is made, checked and mounted as on others.
fn has_its_reserve(node: &Node) {
    assert_eq!(node.run("cat /sys/block/vda/queue/logical_block_size"), "4096");
    let facts: serde_json::Value = serde_json::from_str(&node.run("cat /run/keller/boot.json")).unwrap();
    let reserve = facts["reserve"].as_str().unwrap_or_else(|| panic!("{facts}"));
    assert_eq!(facts["forgetful"], serde_json::Value::Null, "{facts}");
    for (directory, place) in [("journal", "/var/log/journal"), ("update", "/var/lib/keller/update")] {
        let source = node.run(&format!("findmnt --noheadings --output SOURCE {place}"));
        assert_eq!(source, format!("{reserve}[/{directory}]"));
    }
    let guids = node.run(&format!("lsblk --noheadings --nodeps --output PARTUUID {reserve}"));
    assert_eq!(guids.as_bytes()[14], b'4', "{guids} is still that of the image");
}

/// A node with crun alone.
const CRUN: &str = r#"keller: 1
id: closed
version: 1.0.0
include:
  - keller:manifests/components/base.yaml
  - keller:manifests/components/kernel-cloud.yaml
  - keller:manifests/components/ssh.yaml
  - keller:manifests/components/crun.yaml
  - keller:manifests/components/etcd.yaml
users: [{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}]
health: {deadline: 10min}
kernel: {cmdline: ["console=ttyS0,115200"]}
disk: {sector_size: 4096, esp: 272MiB, root: 512MiB, reserve: 64MiB, state: {min: 256MiB}}
outputs: [raw]
containers:
"#;

/// Builds the node anew; nothing, said aloud, without what its containers are made of.
fn crun() -> Option<Disk> {
    let folder = Scratch::new("closed");
    let manifest = folder.join("node.yaml");
    fs::write(&manifest, format!("{CRUN}{NEIGHBOUR}{}", containers_and_scratch())).unwrap();
    fs::write(folder.join("neighbour.yaml"), NEIGHBOUR_IMAGE).unwrap();
    layout(&folder.join("hostile"))?;
    let status = keller().args(["build", "--quiet", "--output"]).arg(&*folder).arg(&manifest).status();
    assert!(status.expect("keller starts").success(), "the node does not build");
    let image = folder.join("closed_1.0.0.raw");
    Some(folder.into_disk(image))
}

#[test]
#[ignore = "long: ci/test --long"]
fn containers_of_crun_are_closed_and_have_scratch_of_their_own() {
    let Some(image) = crun() else { return };
    let node = Node::boot(&image, &["--sector-size", "4096"]);
    assert_eq!(
        node.settled(),
        "running",
        "{}",
        node.run("systemctl --failed; journalctl -b -p 4 --no-pager")
    );
    nobody_gets_what_an_image_brings(&node);
    privileges_are_new_where_they_are_opened(&node);
    nobody_holds_up_an_update(&node);
    a_neighbour_has_no_way_into_etcd(&node);
    has_its_reserve(&node);
    // The users of a container come to its root.
    assert_eq!(node.run("sudo crun exec wanted /bin/busybox stat -c %a /"), "755");
    a_container_has_scratch_of_its_own(&node, "sudo crun exec wanted");
    // It starts afresh, with nothing of it.
    node.run("sudo systemctl restart wanted.service");
    let runs =
        "for i in $(seq 60); do sudo crun exec wanted /bin/busybox true 2>/dev/null && break; sleep 1; done";
    let files = node.run(&format!("{runs}; sudo crun exec wanted /bin/busybox ls /"));
    assert!(files.contains("bin") && !files.contains("fill"), "{files}");
}
