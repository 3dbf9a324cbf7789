//! What people reported from the field, on one small node: each part asks the running node once.

pub mod closed;
mod containers;
mod full;

use super::scratch::{Disk, Scratch};
use super::{Node, keller};

/// The node. Parts of it that belong together have a comment of their own; a test that needs more adds it here.
const MANIFEST: &str = r#"keller: 1
id: field
version: 1.0.0
include:
  - keller:manifests/components/base.yaml
  - keller:manifests/components/kernel-cloud.yaml
  - keller:manifests/components/ssh.yaml
  - keller:manifests/components/podman.yaml
users: [{name: core, uid: 1000, groups: [sudo, systemd-journal], ssh_keys: []}]
health: {deadline: 10min}
disk: {esp: 128MiB, root: 512MiB, reserve: 64MiB, state: {min: 256MiB}}
outputs: [raw]

# Parameters of modules that /init loads, from both places; a device whose driver is not wanted.
kernel:
  cmdline:
    - console=ttyS0,115200
    - virtio_blk.queue_depth=17
    - dm-verity.prefetch-cluster=65536
files:
  - path: /etc/modprobe.d/field.conf
    content: |
      # Of a module of the initramfs, and of one that only the root loads.
      options overlay redirect_max=100
      options virtio-blk queue_depth=3
      options loop max_loop=3
      # keller boot gives a machine this watchdog.
      blacklist i6300esb
  # Four containers that start at once on an emulated processor: the 90 s that each has are not what is tried here.
  - path: /etc/systemd/system/hostile.service.d/slow.conf
    content: &slow "[Service]\nTimeoutStartSec=10min\n"
  - {path: /etc/systemd/system/kept.service.d/slow.conf, content: *slow}
  - {path: /etc/systemd/system/wanted.service.d/slow.conf, content: *slow}
  - {path: /etc/systemd/system/words.service.d/slow.conf, content: *slow}
"#;

/// Builds the node anew; nothing, said aloud, without what its container is made of.
fn image() -> Option<Disk> {
    // What an earlier run locked may be gone from the mirror.
    let folder = Scratch::new("field");
    let manifest = folder.join("node.yaml");
    std::fs::write(&manifest, format!("{MANIFEST}{}{}", containers::MANIFEST, closed::CONTAINERS)).unwrap();
    containers::layout(&folder.join("image"))?;
    closed::layout(&folder.join("hostile"))?;
    let status = keller().args(["build", "--quiet", "--output"]).arg(&*folder).arg(&manifest).status();
    assert!(status.expect("keller starts").success(), "the node does not build");
    let image = folder.join("field_1.0.0.raw");
    Some(folder.into_disk(image))
}

#[test]
fn reported_from_the_field() {
    let Some(image) = image() else { return };
    let mut node = Node::boot(&image, &["--persist"]);
    assert_eq!(
        node.settled(),
        "running",
        "{}",
        node.run("systemctl --failed; journalctl -b -p 4 --no-pager")
    );
    modules_get_their_parameters(&node);
    containers::write_where_their_image_lets_them(&node);
    containers::are_started_with_the_very_words(&node);
    containers::live_in_pods(&node);
    containers::cannot_fill_run(&node);
    closed::nobody_gets_what_an_image_brings(&node);
    closed::privileges_are_new_where_they_are_opened(&node);
    closed::nobody_holds_up_an_update(&node);
    containers::keep_their_volumes(&mut node);
    full::var_takes_neither_an_update_nor_the_journal(&node);
}

/// The command line comes after modprobe.d.
fn modules_get_their_parameters(node: &Node) {
    let parameter = |path: &str| node.run(&format!("cat /sys/module/{path}"));
    assert_eq!(parameter("virtio_blk/parameters/queue_depth"), "17");
    assert_eq!(parameter("dm_verity/parameters/prefetch_cluster"), "65536");
    assert_eq!(parameter("overlay/parameters/redirect_max"), "100");
    node.run("sudo modprobe loop");
    assert_eq!(parameter("loop/parameters/max_loop"), "3");
    assert!(!node.try_run("test -e /sys/module/i6300esb").status.success());
    let log = node.run("sudo journalctl -k -o cat --no-pager");
    assert!(log.contains("the kernel module i6300esb is not loaded: a blacklist"), "{log}");
}
